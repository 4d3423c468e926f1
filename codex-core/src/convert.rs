//! A closed store in another form, or under another key, or under none.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "crypto")]
use codex_crypto::{Cipher, Key};
use codex_storage::Config;
use codex_storage::seal::Keys;
use codex_storage::storage::{Anchor, Form};
use codex_storage::vfs::Vfs;

use crate::backup::Backups;
use crate::error::Result;
use crate::locate::locate;
#[cfg(feature = "crypto")]
use crate::seal::{SharedKey, UserKey};

/// What a closed store is to become: another form, encrypted, under another key, or plain.
///
/// ```no_run
/// use codex_core::Conversion;
/// use codex_core::crypto::Key;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let done = Conversion::new().encrypt(Key::passphrase("a long one")?).convert("app.db")?;
/// for file in done.plain {
///     println!("not encrypted, delete it yourself: {}", file.display());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a conversion does nothing until `convert` is called"]
pub struct Conversion {
    form: Option<Form>,
    lock_timeout: Duration,
    #[cfg(feature = "crypto")]
    key: Option<SharedKey>,
    #[cfg(feature = "crypto")]
    to: To,
}

impl Conversion {
    /// Keeps the form; keeps a plain store plain, and an encrypted one encrypted under its key.
    pub fn new() -> Self {
        Self::default()
    }

    /// The form to give it.
    pub fn form(mut self, form: Form) -> Self {
        self.form = Some(form);
        self
    }

    /// How long to wait for another handle to let go of the store. Default: not at all.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// The key that opens the store as it is.
    #[cfg(feature = "crypto")]
    pub fn key(mut self, key: Key) -> Self {
        self.key = Some(SharedKey::new(key));
        self
    }

    /// Encrypts it, under a fresh root key that `key` opens; AES-256-GCM.
    #[cfg(feature = "crypto")]
    pub fn encrypt(self, key: Key) -> Self {
        self.encrypt_with(key, Cipher::default())
    }

    /// As [`encrypt`](Self::encrypt), with a cipher of one's choice.
    #[cfg(feature = "crypto")]
    pub fn encrypt_with(mut self, key: Key, cipher: Cipher) -> Self {
        self.to = To::Key(SharedKey::new(key), cipher);
        self
    }

    /// Makes it a plain store.
    #[cfg(feature = "crypto")]
    pub fn decrypt(mut self) -> Self {
        self.to = To::Plain;
        self
    }

    /// Converts the closed store at `path`. The new file is written beside the old one, read back,
    /// and takes its place in one step: a crash leaves the store as it was, or converted. Needs
    /// room for both, and the whole state in memory.
    ///
    /// The history digest goes on, so an [anchor](crate::Store::anchor) of the last commit stays
    /// good. A ledger that stays one keeps every commit with its time; one that becomes another
    /// form keeps the state alone.
    ///
    /// The old file is replaced, not overwritten: the file system, the disk and snapshots may keep
    /// its bytes. Backups are left as they are: the report lists them.
    ///
    /// # Errors
    /// As opening the store, and as writing it: it is as it was then, unless the very last step,
    /// naming the new file, failed: then it is one or the other.
    pub fn convert(&self, path: impl AsRef<Path>) -> Result<Converted> {
        let (vfs, name) = locate(path.as_ref())?;
        self.convert_in(&vfs, &name)
    }

    /// As [`convert`](Self::convert), for the store `name` in the directory of `vfs`.
    ///
    /// # Errors
    /// As there.
    pub fn convert_in(&self, vfs: &Vfs, name: &str) -> Result<Converted> {
        Backups::of_in(vfs, name).finish_restore(self.lock_timeout)?;
        let (from, to) = self.keys(vfs);
        let config = Config {
            keys: from,
            lock_timeout: self.lock_timeout,
            ..Config::new(vfs.clone(), name)
        };
        let to = codex_storage::Conversion { form: self.form, keys: to };
        let done = codex_storage::convert(config, &to)?;
        Ok(Converted {
            form: done.form,
            anchor: done.anchor,
            plain: done.plain,
            under_other_keys: done.under_other_keys,
        })
    }

    #[cfg(feature = "crypto")]
    fn keys(&self, vfs: &Vfs) -> (MaybeKeys, MaybeKeys) {
        let keys = |key: &SharedKey, cipher| -> Arc<dyn Keys> {
            Arc::new(UserKey::new(key.clone(), cipher, Arc::clone(&vfs.entropy)))
        };
        let from = self.key.as_ref().map(|key| keys(key, Cipher::default()));
        let to = match &self.to {
            To::Same => from.clone(),
            To::Plain => None,
            To::Key(key, cipher) => Some(keys(key, *cipher)),
        };
        (from, to)
    }

    #[cfg(not(feature = "crypto"))]
    #[expect(clippy::unused_self, reason = "with the feature `crypto`, there are keys")]
    fn keys(&self, _vfs: &Vfs) -> (MaybeKeys, MaybeKeys) {
        (None, None)
    }
}

/// What a conversion has made, and what it has left.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Converted {
    /// The form of the store now.
    pub form: Form,
    /// Its last commit.
    pub anchor: Anchor,
    /// Of a store that is encrypted now: its files that are not, backups and what a restore has
    /// replaced. Delete them when you no longer need them.
    pub plain: Vec<PathBuf>,
    /// Of a store that is encrypted now: its files that only the earlier key opens.
    pub under_other_keys: Vec<PathBuf>,
}

/// Encrypted or not.
#[cfg(feature = "crypto")]
#[derive(Debug, Clone, Default)]
enum To {
    #[default]
    Same,
    Plain,
    Key(SharedKey, Cipher),
}

type MaybeKeys = Option<Arc<dyn Keys>>;

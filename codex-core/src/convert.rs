//! The conversion of a closed store to another form, another key or no key.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "crypto")]
use codex_crypto::{Cipher, Key};
use codex_storage::seal::Keys;
use codex_storage::storage::{Anchor, Form};
use codex_storage::vfs::Vfs;
use codex_storage::{Compression, Config};

use crate::backup::Backups;
use crate::error::Result;
use crate::locate::locate;
use crate::progress::{self, OnProgress};
#[cfg(feature = "crypto")]
use crate::seal::{SharedKey, UserKey};

/// A conversion of a closed store: to another form, to encryption, to another key, or to a plain
/// store.
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
    compression: Option<Compression>,
    lock_timeout: Duration,
    on_progress: Option<OnProgress>,
    #[cfg(feature = "crypto")]
    key: Option<SharedKey>,
    #[cfg(feature = "crypto")]
    to: To,
}

impl Conversion {
    /// Returns a conversion that keeps the form and the key. A plain store stays plain.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the new form. Default: the form of the store.
    pub fn form(mut self, form: Form) -> Self {
        self.form = Some(form);
        self
    }

    /// Sets the new compression. Default: that of the store.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::{Compression, Conversion};
    /// Store::open(&path)?.close()?;
    /// Conversion::new().compression(Compression::Lz4).convert(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Sets how long to wait until another handle closes the store. Default: zero, which does not
    /// wait.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// Sets a function that is called with `(done, total)`, in bytes, while the store is converted,
    /// as [`OpenOptions::on_progress`](crate::OpenOptions::on_progress) describes. Default: none.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::{Conversion, Form};
    /// Store::open(&path)?.close()?;
    /// let conversion = Conversion::new().form(Form::Ledger).on_progress(|done, total| {
    ///     eprint!("\r{:3} %", 100 * done / total);
    /// });
    /// conversion.convert(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_progress(mut self, f: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(progress::callback(f));
        self
    }

    /// Sets the key that opens the store now. Default: none.
    #[cfg(feature = "crypto")]
    pub fn key(mut self, key: Key) -> Self {
        self.key = Some(SharedKey::new(key));
        self
    }

    /// Encrypts the store with AES-256-GCM, under a new root key that `key` opens.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::Conversion;
    /// use codex_core::crypto::Key;
    /// Store::open(&path)?.close()?;
    /// Conversion::new().encrypt(Key::raw(&[7; 32])?).convert(&path)?;
    /// let opened = Store::open(&path).err();
    /// assert!(opened.is_some(), "it needs the key now");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "crypto")]
    pub fn encrypt(self, key: Key) -> Self {
        self.encrypt_with(key, Cipher::default())
    }

    /// Does the same as [`encrypt`](Self::encrypt), with the cipher `cipher`.
    #[cfg(feature = "crypto")]
    pub fn encrypt_with(mut self, key: Key, cipher: Cipher) -> Self {
        self.to = To::Key(SharedKey::new(key), cipher);
        self
    }

    /// Converts the store to a plain store.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::Conversion;
    /// use codex_core::crypto::Key;
    /// Store::options().key(Key::raw(&[7; 32])?).open(&path)?.close()?;
    /// Conversion::new().key(Key::raw(&[7; 32])?).decrypt().convert(&path)?;
    /// Store::open(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "crypto")]
    pub fn decrypt(mut self) -> Self {
        self.to = To::Plain;
        self
    }

    /// Converts the closed store at `path`. The new file is written beside the old one, read back,
    /// and takes its place in one step, so after a crash the store is either unchanged or
    /// converted. Needs disk space for both files, and memory for the whole state.
    ///
    /// The history digest continues, so an [anchor](crate::Store::anchor) of the last commit stays
    /// valid. A ledger that stays a ledger keeps each commit with its time. A ledger that becomes
    /// another form keeps only the state.
    ///
    /// The old file is replaced, not overwritten: the file system, the disk and snapshots of it may
    /// keep its bytes. Backups are not converted; the result lists them.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::{Conversion, Form};
    /// Store::open(&path)?.close()?;
    /// Conversion::new().form(Form::Ledger).convert(&path)?;
    /// assert_eq!(Store::open(&path)?.form(), Some(Form::Ledger));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The errors of opening the store and of writing it. The store is unchanged then, except if
    /// the last step failed, which names the new file: then it is either unchanged or converted.
    pub fn convert(&self, path: impl AsRef<Path>) -> Result<Converted> {
        let (vfs, name) = locate(path.as_ref())?;
        self.convert_in(&vfs, &name)
    }

    /// Does the same as [`convert`](Self::convert), for the store `name` in the directory of `vfs`.
    ///
    /// # Errors
    /// The errors of [`convert`](Self::convert).
    pub fn convert_in(&self, vfs: &Vfs, name: &str) -> Result<Converted> {
        // Order: finish an interrupted restore first, because it decides which file is the store.
        Backups::of_in(vfs, name).finish_restore(self.lock_timeout)?;
        let (from, to) = self.keys(vfs);
        // Open with the current key, write with the new one.
        let convert = |vfs: &Vfs| {
            let config = Config {
                keys: from,
                lock_timeout: self.lock_timeout,
                ..Config::new(vfs.clone(), name)
            };
            let (form, compression) = (self.form, self.compression);
            let to = codex_storage::Conversion { form, keys: to, compression };
            codex_storage::convert(config, &to)
        };
        // The bytes are read, written in the new form, and read back.
        let total = || progress::bytes_of(vfs, name).saturating_mul(3);
        let done = progress::metered(self.on_progress.as_ref(), vfs, total, convert)?;
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

/// The result of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Converted {
    /// The new form of the store.
    pub form: Form,
    /// The last commit.
    pub anchor: Anchor,
    /// If the store is encrypted now, its files that are not encrypted: backups, and files that a
    /// restore has replaced. Delete them when they are no longer needed.
    pub plain: Vec<PathBuf>,
    /// If the store is encrypted now, its files that only the earlier key opens.
    pub under_other_keys: Vec<PathBuf>,
}

/// The key of the converted store.
#[cfg(feature = "crypto")]
#[derive(Debug, Clone, Default)]
enum To {
    #[default]
    Same,
    Plain,
    Key(SharedKey, Cipher),
}

type MaybeKeys = Option<Arc<dyn Keys>>;

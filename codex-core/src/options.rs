//! The options of a store, validated once, before anything is touched.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use codex_backup::Policy as BackupPolicy;
#[cfg(feature = "crypto")]
use codex_crypto::{Cipher, Key};
use codex_storage::seal::Keys;
use codex_storage::storage::{Anchor, Durability, Form};
use codex_storage::vfs::Vfs;
use codex_storage::{Access, CheckpointPolicy, Config, Create, Error as StorageError, OnDamage};

use crate::backup::{BackupEvent, BackupOptions, Callback};
use crate::error::Result;
use crate::locate::locate;
use crate::open::{self, Wanted};
#[cfg(feature = "crypto")]
use crate::seal::{SharedKey, UserKey};
use crate::store::Store;
use crate::value::Codec;

/// How to open a store; made by [`Store::options`].
///
/// What is not set keeps its default. Options that contradict each other are an error of the call
/// that opens ([`codex_storage::Error::Contradiction`]), never ignored.
///
/// ```
/// use codex_core::{Durability, Form, Store};
/// use std::time::Duration;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("audit.db");
/// let store = Store::options()
///     .create_new(true)
///     .form(Form::Ledger)
///     .durability(Durability::Interval(Duration::from_millis(100)))
///     .open(path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use = "options do nothing until `open` is called"]
pub struct OpenOptions {
    create: Option<bool>,
    create_new: bool,
    read_only: bool,
    form: Option<Form>,
    durability: Option<Durability>,
    codec: Codec,
    on_damage: Option<OnDamage>,
    lock_timeout: Option<Duration>,
    checkpoint: Option<CheckpointPolicy>,
    anchor: Option<Anchor>,
    accept_unknown_anchor: Option<bool>,
    threads: Option<bool>,
    backups: BackupOptions,
    fall_back: bool,
    #[cfg(feature = "crypto")]
    key: Option<SharedKey>,
    #[cfg(feature = "crypto")]
    cipher: Option<Cipher>,
}

/// Opening.
impl Store {
    /// Opens the store at `path`, creating it when it is missing. Its files are `path` itself and
    /// some whose names begin with it.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        OpenOptions::new().open(path)
    }

    /// Makes a store that lives in memory only: for tests and for data that may go.
    ///
    /// # Errors
    /// None today.
    pub fn in_memory() -> Result<Self> {
        OpenOptions::new().in_memory()
    }

    /// Options to open with: read-only, another form, another durability.
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }
}

impl OpenOptions {
    /// The defaults: a store in the Wal form, created when missing, every commit on disk before
    /// its call returns.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a missing store is created. Default: yes, unless opened read-only or with an
    /// [`anchor`](Self::anchor). A store that is
    /// missing while backups of it are there is never created
    /// ([`OnlyBackups`](codex_storage::Error::OnlyBackups)).
    pub fn create(mut self, create: bool) -> Self {
        self.create = Some(create);
        self
    }

    /// Whether the store must be a new one: an error where something already stands at the path.
    /// Default: no.
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// Whether to open for reading only. Any number of readers share a store, none while a writer
    /// has it open; a reader repairs, creates and changes nothing. Default: no.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// The form of a new store, and the form to demand of an existing one. Default: a new store
    /// is a [`Form::Wal`], an existing one may have any.
    pub fn form(mut self, form: Form) -> Self {
        self.form = Some(form);
        self
    }

    /// When a commit counts as done. Default: [`Durability::Sync`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// How values are encoded from now on; what is stored already stays readable whatever it was
    /// written with. Default: [`Codec::Bincode`].
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// What to do with the end of a log that is neither intact nor shaped like a torn write.
    /// Default: [`OnDamage::Refuse`]. Damage that is proven is refused either way.
    pub fn on_damage(mut self, on_damage: OnDamage) -> Self {
        self.on_damage = Some(on_damage);
        self
    }

    /// How long to wait for another handle, in this process or another, to let go of the store.
    /// Default: not at all.
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = Some(timeout);
        self
    }

    /// When the Wal form writes an image and begins a new log. Default:
    /// [`CheckpointPolicy::default`].
    pub fn checkpoint(mut self, policy: CheckpointPolicy) -> Self {
        self.checkpoint = Some(policy);
        self
    }

    /// A commit that the store must contain, noted earlier with [`Store::anchor`] and kept
    /// elsewhere: opening fails when the files were rolled back or replaced, or are those of
    /// another store, and a missing store is not created. Default: none.
    ///
    /// A Ledger tells of every commit. A Wal and a Snapshot tell of the commits in the log, and of
    /// those for which an anchor was given or demanded before the last image, as long as it lists
    /// them: the last 64, and some older ones. An anchor that they no longer tell of is an error
    /// ([`AnchorUnknown`](codex_storage::Error::AnchorUnknown)) unless
    /// [`accept_unknown_anchor`](Self::accept_unknown_anchor) is set.
    pub fn anchor(mut self, anchor: Anchor) -> Self {
        self.anchor = Some(anchor);
        self
    }

    /// Whether a store opens that is further on than the anchor and no longer tells whether it
    /// contains the anchored commit: it may be another history of the same store.
    /// [`Store::recovered`] says if it was so. Default: no.
    pub fn accept_unknown_anchor(mut self, accept: bool) -> Self {
        self.accept_unknown_anchor = Some(accept);
        self
    }

    /// When to make backups, and how many to keep. Default: by hand only ([`Store::back_up`]),
    /// keeping three.
    ///
    /// A backup is made beside running readers and writers, by a thread of its own; commits do not
    /// wait for it. Several commits that come due while one is being made share the next.
    pub fn backups(mut self, policy: BackupPolicy) -> Self {
        self.backups.policy = Some(policy);
        self
    }

    /// Whether writes are refused while the last backup has failed, until one succeeds: by the
    /// policy's thread, which tries again every second, or by [`Store::back_up`]. Default: no; a
    /// failure then shows in [`Store::stats`] and [`on_backup`](Self::on_backup) alone.
    pub fn require_backups(mut self, required: bool) -> Self {
        self.backups.required = required;
        self
    }

    /// A function that hears of every backup that was made and of every attempt that failed. It is
    /// called on the thread that made the backup, with no lock held: it may read, write and close
    /// the store. It does not hear of backups that it makes itself. A panic in it is printed and
    /// ends nothing.
    pub fn on_backup(mut self, f: impl Fn(&BackupEvent) + Send + Sync + 'static) -> Self {
        self.backups.on_event = Some(Callback::new(f));
        self
    }

    /// Whether a store that is found damaged, incomplete or missing is replaced with the newest
    /// backup that is good and that these options open: with this key, this form, this anchor. If
    /// there is none, nothing is changed, and the error is that of the store. Never silently:
    /// [`Store::restored`] tells what was put in place and where the damaged files are kept. A file
    /// that only needs its header [repaired](crate::repair_header) is repaired, which loses no
    /// commit. Not with [`create_new`](Self::create_new). Default: no.
    pub fn fall_back_to_backup(mut self, fall_back: bool) -> Self {
        self.fall_back = fall_back;
        self
    }

    /// The key of an encrypted store: needed to open one, and a new store opened with a key is
    /// encrypted. Default: none.
    #[cfg(feature = "crypto")]
    pub fn key(mut self, key: Key) -> Self {
        self.key = Some(SharedKey::new(key));
        self
    }

    /// The cipher of a new encrypted store; an existing one has its own. Default:
    /// [`Cipher::Aes256Gcm`].
    #[cfg(feature = "crypto")]
    pub fn cipher(mut self, cipher: Cipher) -> Self {
        self.cipher = Some(cipher);
        self
    }

    /// Opens the store at `path`, as these options say.
    ///
    /// # Errors
    /// One variant of [`codex_storage::Error`] for each thing that can be wrong with the path, the
    /// lock, the files or the options; nothing was changed, and the lock is free again.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Store> {
        let valid = self.validate()?;
        let (vfs, name) = locate(path.as_ref())?;
        open::open(valid.wanted(vfs, name))
    }

    /// Opens the store `name` in the directory of `vfs`: a simulated disk, a directory in memory.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_in(&self, vfs: &Vfs, name: &str) -> Result<Store> {
        let valid = self.validate()?;
        open::open(valid.wanted(vfs.clone(), name.to_owned()))
    }

    /// Makes a store that lives in memory only; the same commits, without a disk. Of the options
    /// only [`codec`](Self::codec) has a meaning here.
    ///
    /// # Errors
    /// [`codex_storage::Error::Contradiction`] when another option is set.
    pub fn in_memory(&self) -> Result<Store> {
        if *self != (Self { codec: self.codec, ..Self::default() }) {
            return contradiction("a store in memory has no files: set no option but `codec`");
        }
        Ok(open::in_memory(self.codec))
    }

    #[cfg(feature = "crypto")]
    pub(crate) fn open_with(&self, vfs: &Vfs, name: &str, keys: Arc<dyn Keys>) -> Result<Store> {
        let mut wanted = self.validate()?.wanted(vfs.clone(), name.to_owned());
        wanted.config.keys = Some(keys);
        open::open(wanted)
    }

    #[cfg(feature = "crypto")]
    fn keys(&self, vfs: &Vfs) -> Option<Arc<dyn Keys>> {
        let key = self.key.as_ref()?;
        let cipher = self.cipher.unwrap_or_default();
        Some(Arc::new(UserKey::new(key.clone(), cipher, Arc::clone(&vfs.entropy))))
    }

    #[cfg(not(feature = "crypto"))]
    #[expect(clippy::unused_self, reason = "with the feature `crypto`, the options hold the key")]
    fn keys(&self, _vfs: &Vfs) -> Option<Arc<dyn Keys>> {
        None
    }

    /// Nothing happens by itself: the same calls make the same trace.
    pub(crate) fn without_threads(mut self) -> Self {
        self.threads = Some(false);
        self
    }

    fn validate(&self) -> Result<Valid<'_>> {
        let durability = self.durability.unwrap_or_default();
        let create = match (self.create, self.create_new, self.read_only) {
            (_, true, true) => {
                return contradiction("`create_new` writes and `read_only` forbids it: drop one");
            }
            (Some(true), _, true) => {
                return contradiction("`create` writes and `read_only` forbids it: drop one");
            }
            (Some(false), true, _) => {
                return contradiction("`create_new` creates and `create(false)` forbids it");
            }
            (_, true, _) => Create::New,
            (Some(false), ..) | (None, _, true) => Create::Never,
            (Some(true) | None, ..) => Create::IfMissing,
        };
        if self.anchor.is_some() && self.create_new {
            return contradiction("an anchor demands an existing store and `create_new` a new one");
        }
        if self.anchor.is_none() && self.accept_unknown_anchor.is_some() {
            return contradiction("there is no anchor that could be unknown: set `anchor` too");
        }
        if self.read_only && (self.durability.is_some() || self.checkpoint.is_some()) {
            return contradiction(
                "`durability` and `checkpoint` are about writing, which `read_only` forbids",
            );
        }
        if self.form == Some(Form::Snapshot) && durability == Durability::Os {
            return contradiction(
                "the Snapshot form syncs every image: use `Durability::Sync` or `Interval`",
            );
        }
        if durability == Durability::Interval(Duration::ZERO) {
            return contradiction("an interval of zero never ends: use `Durability::Sync`");
        }
        if self.read_only && (self.backups != BackupOptions::default() || self.fall_back) {
            return contradiction("backups are about writing, which `read_only` forbids");
        }
        self.backups.check(self.form)?;
        #[cfg(feature = "crypto")]
        if self.cipher.is_some() && self.key.is_none() {
            return contradiction("a cipher encrypts nothing without a key: set `key` too");
        }
        if let Some(policy) = self.checkpoint {
            if self.form.is_some_and(|form| form != Form::Wal) {
                return contradiction("only the Wal form checkpoints: leave `checkpoint` out");
            }
            if !policy.ratio.is_finite() || policy.ratio <= 0.0 {
                return contradiction("the ratio of a checkpoint policy is a number above zero");
            }
        }
        Ok(Valid { options: self, create, durability })
    }
}

/// Options without a contradiction.
struct Valid<'a> {
    options: &'a OpenOptions,
    create: Create,
    durability: Durability,
}

impl Valid<'_> {
    fn wanted(&self, vfs: Vfs, name: String) -> Wanted {
        Wanted {
            config: self.config(vfs, name),
            codec: self.options.codec,
            threads: self.options.threads.unwrap_or(true),
            backups: self.options.backups.clone(),
            fall_back: self.options.fall_back,
        }
    }

    fn config(&self, vfs: Vfs, name: String) -> Config {
        let options = self.options;
        Config {
            form: options.form,
            create: self.create,
            access: if options.read_only { Access::ReadOnly } else { Access::ReadWrite },
            durability: self.durability,
            on_damage: options.on_damage.unwrap_or(OnDamage::Refuse),
            lock_timeout: options.lock_timeout.unwrap_or(Duration::ZERO),
            checkpoint: options.checkpoint.unwrap_or_default(),
            anchor: options.anchor,
            accept_unknown_anchor: options.accept_unknown_anchor.unwrap_or(false),
            keys: options.keys(&vfs),
            ..Config::new(vfs, name)
        }
    }
}

fn contradiction<T>(what: &'static str) -> Result<T> {
    Err(StorageError::Contradiction(what).into())
}

//! The options of a store. They are validated once, before any file is touched.

#[cfg(feature = "shared")]
mod shared;
mod validate;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use codex_backup::BackupPolicy;
#[cfg(feature = "crypto")]
use codex_crypto::{Cipher, Key};
use codex_storage::seal::Keys;
use codex_storage::storage::{Anchor, Durability, Form};
use codex_storage::vfs::{Entropy, Vfs};
use codex_storage::{Access, CheckpointPolicy, Compression, Config, Create, OnDamage};

#[cfg(feature = "remote")]
use crate::archive::Archive;
use crate::backup::{BackupEvent, BackupOptions};
use crate::callback::Callback;
use crate::error::Result;
use crate::locate::{create_folder_of, locate};
use crate::open;
use crate::progress::OnProgress;
#[cfg(feature = "crypto")]
use crate::seal::{SharedKey, UserKey};
use crate::store::Store;
use crate::value::Codec;
#[cfg(feature = "shared")]
use shared::ImagePlace;
pub(crate) use validate::contradiction;

/// The options of an opening, from [`Store::options`].
///
/// Each option that is not set has its default. If options contradict each other, the call that
/// opens returns [`Contradiction`](crate::StorageError::Contradiction); none is ignored.
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
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own, off by default")]
pub struct OpenOptions {
    create: Option<bool>,
    create_new: bool,
    create_folder: Option<bool>,
    read_only: bool,
    follow: bool,
    form: Option<Form>,
    durability: Option<Durability>,
    pub(crate) codec: Codec,
    on_damage: Option<OnDamage>,
    lock_timeout: Option<Duration>,
    compression: Option<Compression>,
    checkpoint: Option<CheckpointPolicy>,
    anchor: Option<Anchor>,
    accept_unknown_anchor: Option<bool>,
    /// Whether background threads sync and write checkpoints. Default: yes.
    pub(crate) threads: Option<bool>,
    pub(crate) backups: BackupOptions,
    #[cfg(feature = "remote")]
    pub(crate) archive: Option<Archive>,
    pub(crate) fall_back: bool,
    pub(crate) on_progress: Option<OnProgress>,
    #[cfg(feature = "shared")]
    write_timeout: Option<Duration>,
    #[cfg(feature = "shared")]
    pub(crate) images: Option<ImagePlace>,
    #[cfg(feature = "crypto")]
    key: Option<SharedKey>,
    #[cfg(feature = "crypto")]
    cipher: Option<Cipher>,
}

impl OpenOptions {
    /// Returns the default options: a store in the Wal form, created if missing, in which every
    /// commit is on disk before its call returns.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether a missing store is created. Default: yes, unless it is opened read-only or with
    /// an [`anchor`](Self::anchor). A store that is missing while there are backups of it is never
    /// created ([`OnlyBackups`](crate::StorageError::OnlyBackups)).
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let missing = Store::options().create(false).open(&path);
    /// assert!(missing.is_err_and(|error| error.is_not_found()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(mut self, create: bool) -> Self {
        self.create = Some(create);
        self
    }

    /// Sets whether the store must be a new one. Opening fails if there is already a file at the
    /// path. Default: no.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let store = Store::options().create_new(true).open(&path)?;
    /// store.close()?;
    /// assert!(Store::options().create_new(true).open(&path).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_new(mut self, create_new: bool) -> Self {
        self.create_new = create_new;
        self
    }

    /// Sets whether a missing folder of the path is created, with all missing folders above it. New
    /// folders have the mode 0700, and stay if the opening fails afterwards. Default: no; a missing
    /// folder is [`NoFolder`](crate::StorageError::NoFolder).
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let path = folder.path().join("data/2026/app.db");
    /// let store = Store::options().create_folder(true).open(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_folder(mut self, create_folder: bool) -> Self {
        self.create_folder = Some(create_folder);
        self
    }

    /// Sets whether the store is opened only for reading. Any number of readers can share a store,
    /// but none while a writer has it open. A reader repairs, creates and changes nothing. Default:
    /// no.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// Store::open(&path)?.close()?;
    /// let store = Store::options().read_only(true).open(&path)?;
    /// assert!(store.set("a", &1).is_err_and(|error| error.is_read_only()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Sets whether the store is opened for reading beside a writer, which may be another process
    /// and may come and go. For the forms Wal and Ledger. Default: no.
    ///
    /// Such a follower shows the commits of the writer in their order, each of them whole, some
    /// milliseconds after they are acknowledged, and none that a crash of the writer can take back
    /// at the writer's level of durability. [`Store::refresh`] shows all that was acknowledged
    /// before the call. [Watches](Store::watch), snapshots and scans work as they do beside writes
    /// of the same process.
    ///
    /// It takes no lock, so it never keeps a writer from opening the store, and it writes no file.
    /// All calls that write return [`ReadOnly`](crate::StorageError::ReadOnly). If the files no
    /// longer show how they continue what was read, the store is read again, beside the readers of
    /// the state before: after a restore, a rekey or a conversion, if another writer opens a ledger
    /// and commits, and if two checkpoints were made between two looks. A [watch](Store::watch)
    /// returns a gap then. If that fails, for example because of another key, the store shows the
    /// state from before: [`Stats::follow`](crate::Stats::follow) has the error, and so has
    /// `refresh`.
    ///
    /// The writer announces durable commits in the lock file. If that file was removed while the
    /// writer has the store open, or if no writer has opened the store since a power cut, the last
    /// group is not shown before the next one.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let writer = Store::open(&path)?; // in another process
    /// let reader = Store::options().follow(true).open(&path)?;
    /// let watch = reader.watch("")?;
    /// writer.set("a", &1)?;
    /// assert!(watch.into_iter().next().is_some()); // waits for the commit
    /// assert!(reader.set("b", &2).is_err_and(|error| error.is_read_only()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias("read_beside_writer", "secondary", "replica"))]
    pub fn follow(mut self, follow: bool) -> Self {
        self.follow = follow;
        self
    }

    /// Sets the form of a new store, and the form that an existing store must have. Default: a new
    /// store gets [`Form::Wal`], and an existing one may have any form.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::Form;
    /// let store = Store::options().form(Form::Ledger).open(&path)?;
    /// assert_eq!(store.form(), Some(Form::Ledger));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn form(mut self, form: Form) -> Self {
        self.form = Some(form);
        self
    }

    /// Sets how durable a commit is when its call returns. Default: [`Durability::Sync`].
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::Durability;
    /// use std::time::Duration;
    /// let durability = Durability::Interval(Duration::from_millis(100));
    /// let store = Store::options().durability(durability).open(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias("sync", "fsync"))]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Sets the compression of files that are written from now on: of a Wal from its next
    /// checkpoint on, of a ledger after a rekey or a conversion. Default: that of the store; a new
    /// one has none. In an encrypted store the lengths then tell how alike its entries are.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::Compression;
    /// let store = Store::options().compression(Compression::Lz4).open(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Sets the codec of values that are written from now on. Stored values stay readable,
    /// whichever codec they were written with. Default: bincode, or JSON
    /// if the feature `bincode` is off.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// # #[cfg(feature = "json")] {
    /// use codex_core::Codec;
    /// let store = Store::options().codec(Codec::Json).open(&path)?;
    /// store.set("list", [1, 2].as_slice())?;
    /// assert_eq!(store.get_bytes("list").as_deref(), Some(&b"[1,2]"[..]));
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Sets the treatment of the end of a log that is neither intact nor has the form of a torn
    /// write. Default: [`OnDamage::Refuse`]. Proven damage is refused with either setting.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::OnDamage;
    /// let store = Store::options().on_damage(OnDamage::CutTail).open(&path)?;
    /// if let Some(cut) = &store.recovered().cut {
    ///     eprintln!("{} bytes were cut off {}", cut.bytes, cut.file);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_damage(mut self, on_damage: OnDamage) -> Self {
        self.on_damage = Some(on_damage);
        self
    }

    /// Sets how long to wait until another handle, in this process or another one, closes the
    /// store. Default: zero, which does not wait.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use std::time::Duration;
    /// let store = Store::options().lock_timeout(Duration::from_secs(5)).open(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = Some(timeout);
        self
    }

    /// Sets when the Wal form writes an image and begins a new log. Default:
    /// [`CheckpointPolicy::default`].
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::CheckpointPolicy;
    /// let policy = CheckpointPolicy::default().floor_bytes(64 << 20).ratio(2.0);
    /// let store = Store::options().checkpoint(policy).open(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn checkpoint(mut self, policy: CheckpointPolicy) -> Self {
        self.checkpoint = Some(policy);
        self
    }

    /// Sets a commit that the store must contain, returned earlier by [`Store::anchor`] and kept at
    /// another place. Opening fails if the files were rolled back or replaced, or belong to another
    /// store. A missing store is not created. Default: none.
    ///
    /// A Ledger can prove each of its commits. A Wal and a Snapshot can prove the commits in the
    /// log, and commits for which an anchor was taken or given before the last image, while the
    /// image lists them: the last 64 and some older ones. For an older anchor, opening fails with
    /// [`AnchorUnknown`](crate::StorageError::AnchorUnknown), unless
    /// [`accept_unknown_anchor`](Self::accept_unknown_anchor) is set.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let store = Store::open(&path)?;
    /// store.set("a", &1)?;
    /// let anchor = store.anchor()?; // Kept at another place.
    /// store.close()?;
    /// drop(store);
    /// let store = Store::options().anchor(anchor).open(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn anchor(mut self, anchor: Anchor) -> Self {
        self.anchor = Some(anchor);
        self
    }

    /// Sets whether to open a store that is later than the anchor but can no longer prove that it
    /// contains the anchored commit. Its history may be another one of the same store.
    /// [`Store::recovered`] reports this case. Default: no.
    pub fn accept_unknown_anchor(mut self, accept: bool) -> Self {
        self.accept_unknown_anchor = Some(accept);
        self
    }

    /// Sets when to make backups, and how many to keep. Default: only by [`Store::back_up`], and
    /// three are kept.
    ///
    /// A thread of its own makes each backup, beside running readers and writers, and commits do
    /// not wait for it. Commits for which a backup becomes due while one is being made share the
    /// next one.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::BackupPolicy;
    /// use std::time::Duration;
    /// let hourly = BackupPolicy::keep(5).every(Duration::from_secs(3600));
    /// let store = Store::options().backups(hourly).open(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn backups(mut self, policy: BackupPolicy) -> Self {
        self.backups.policy = Some(policy);
        self
    }

    /// Sets whether writes are refused after a backup failed, until one succeeds. The thread of the
    /// policy tries again every second, and [`Store::back_up`] tries at once. Default: no; a
    /// failure is then only reported by [`Store::stats`] and [`on_backup`](Self::on_backup).
    ///
    /// Entries that have expired are removed meanwhile, because no reader sees them any more.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::BackupPolicy;
    /// let policy = BackupPolicy::keep(3).every_commits(1_000);
    /// let store = Store::options().backups(policy).require_backups(true).open(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn require_backups(mut self, required: bool) -> Self {
        self.backups.required = required;
        self
    }

    /// Sets a function that is called after each backup that was made and each attempt that failed.
    /// Default: none.
    ///
    /// The function runs on the thread that made the backup, while no lock is held: it may read,
    /// write and close the store. It is not called for the backups that it makes itself. If it
    /// panics, the panic is printed and has no other effect.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::BackupEvent;
    /// let options = Store::options().on_backup(|event| {
    ///     if let BackupEvent::Failed { error } = event {
    ///         eprintln!("no backup was made: {error}");
    ///     }
    /// });
    /// let store = options.open(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_backup(mut self, f: impl Fn(&BackupEvent) + Send + Sync + 'static) -> Self {
        self.backups.on_event = Some(Callback::new(Arc::new(f)));
        self
    }

    /// Sends the store to a place outside of the machine while it is open: images, and between them
    /// its log. Default: no archive. [`Archive`] describes it.
    #[cfg(feature = "remote")]
    pub fn archive(mut self, archive: Archive) -> Self {
        self.archive = Some(archive);
        self
    }

    /// Sets whether a store that is damaged, incomplete or missing is replaced by the newest good
    /// backup that these options open: with this key, this form and this anchor. Default: no.
    /// Contradicts [`create_new`](Self::create_new).
    ///
    /// If there is no such backup, nothing is changed, and opening returns the error of the store.
    /// [`Store::restored`] reports the backup that was restored and the place of the damaged files.
    /// A file that only needs its header [repaired](crate::repair_header) is repaired instead,
    /// which loses no commit.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let store = Store::options().fall_back_to_backup(true).open(&path)?;
    /// if let Some(restored) = store.restored() {
    ///     eprintln!("the store was damaged, and is a backup now: {restored:?}");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fall_back_to_backup(mut self, fall_back: bool) -> Self {
        self.fall_back = fall_back;
        self
    }

    /// Sets the key of an encrypted store. It is needed to open one, and a new store that is opened
    /// with a key is encrypted. Default: none.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::crypto::Key;
    /// let key = || Key::passphrase("correct horse battery staple");
    /// let store = Store::options().key(key()?).open(&path)?;
    /// store.set("secret", &42)?;
    /// store.close()?;
    /// drop(store);
    ///
    /// assert!(Store::open(&path).is_err());
    /// let store = Store::options().key(key()?).open(&path)?;
    /// assert_eq!(store.get::<i32>("secret")?, Some(42));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias("encrypt", "encryption_key", "password", "passphrase"))]
    #[cfg(feature = "crypto")]
    pub fn key(mut self, key: Key) -> Self {
        self.key = Some(SharedKey::new(key));
        self
    }

    /// Sets the cipher of a new encrypted store. An existing store keeps its own. Default:
    /// [`Cipher::Aes256Gcm`].
    #[cfg(feature = "crypto")]
    pub fn cipher(mut self, cipher: Cipher) -> Self {
        self.cipher = Some(cipher);
        self
    }

    /// Opens the store at `path` with these options.
    ///
    /// # Errors
    /// One variant of [`StorageError`](crate::StorageError) for each possible fault of the path,
    /// the lock, the files or the options. Nothing was changed then, and the lock is released.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Store> {
        let create = self.validate()?;
        if self.create_folder == Some(true) {
            create_folder_of(path.as_ref())?;
        }
        let (vfs, name) = locate(path.as_ref())?;
        open::open(self.config(create, vfs, name), self)
    }

    /// Opens the store `name` in the directory of `vfs`, which may be a directory in memory or a
    /// simulated disk.
    ///
    /// ```
    /// # use codex_core::Store;
    /// use codex_core::vfs::Vfs;
    /// let folder = Vfs::mem(1); // in memory, with the seed 1
    /// Store::options().open_in(&folder, "app.db")?.set("a", &1)?;
    /// assert_eq!(Store::options().open_in(&folder, "app.db")?.len(), 1);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`open`](Self::open).
    pub fn open_in(&self, vfs: &Vfs, name: &str) -> Result<Store> {
        let create = self.validate()?;
        open::open(self.config(create, vfs.clone(), name.to_owned()), self)
    }

    /// Returns a store that is only in memory. It makes the same commits, without a disk.
    /// [`codec`](Self::codec) is the only option that may be set.
    ///
    /// # Errors
    /// [`Contradiction`](crate::StorageError::Contradiction) if another option is set.
    pub fn in_memory(&self) -> Result<Store> {
        if *self != (Self { codec: self.codec, ..Self::default() }) {
            return contradiction("a store in memory has no files: set no option but `codec`");
        }
        Ok(open::in_memory(self.codec))
    }

    #[cfg(feature = "crypto")]
    pub(crate) fn open_with(&self, vfs: &Vfs, name: &str, keys: Arc<dyn Keys>) -> Result<Store> {
        let config = self.config(self.validate()?, vfs.clone(), name.to_owned());
        open::open(Config { keys: Some(keys), ..config }, self)
    }

    #[cfg(feature = "crypto")]
    pub(crate) fn keys(&self, entropy: &Arc<dyn Entropy>) -> Option<Arc<dyn Keys>> {
        let key = self.key.as_ref()?;
        let cipher = self.cipher.unwrap_or_default();
        Some(Arc::new(UserKey::new(key.clone(), cipher, Arc::clone(entropy))))
    }

    #[cfg(not(feature = "crypto"))]
    #[expect(clippy::unused_self, reason = "with the feature `crypto`, the options hold the key")]
    pub(crate) fn keys(&self, _entropy: &Arc<dyn Entropy>) -> Option<Arc<dyn Keys>> {
        None
    }

    /// Starts no background threads, so that the same calls make the same trace.
    pub(crate) fn without_threads(mut self) -> Self {
        self.threads = Some(false);
        self
    }

    /// Returns the options of the storage at `name`. They are checked.
    fn config(&self, create: Create, vfs: Vfs, name: String) -> Config {
        Config {
            form: self.form,
            create,
            access: match (self.follow, self.read_only) {
                (true, _) => Access::Follow,
                (false, true) => Access::ReadOnly,
                (false, false) => Access::ReadWrite,
            },
            durability: self.durability.unwrap_or_default(),
            on_damage: self.on_damage.unwrap_or(OnDamage::Refuse),
            lock_timeout: self.lock_timeout.unwrap_or(Duration::ZERO),
            compression: self.compression,
            checkpoint: self.checkpoint.unwrap_or_default(),
            anchor: self.anchor,
            accept_unknown_anchor: self.accept_unknown_anchor.unwrap_or(false),
            keys: self.keys(&vfs.entropy),
            ..Config::new(vfs, name)
        }
    }
}

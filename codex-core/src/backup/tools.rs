//! The backups of a store that is not open: listing, verifying, restoring and pruning them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use codex_backup::{
    BackupEntry, BackupVerification, Depth, NewestGood, Options, Pending, Restored, unwatched,
};
use codex_storage::names::{Names, Role};
use codex_storage::seal::Keys;
use codex_storage::vfs::Vfs;
use codex_storage::{
    Access, EarlierStore, Error as StorageError, MainFile, RestorePoint, StoreLock, ledger_at,
    segments,
};

use super::join::{self, StoreFile};
use crate::error::Result;
use crate::locate::locate;
use crate::progress::{self, OnProgress};

/// The backups of the store at a path. No call opens the store.
///
/// ```
/// use codex_core::{Backups, Store};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("app.db");
/// let store = Store::open(&path)?;
/// store.set("greeting", "hello")?;
/// store.back_up()?;
/// store.set("greeting", "overwritten by mistake")?;
/// store.close()?;
/// drop(store);
///
/// let backups = Backups::of(&path)?;
/// let newest = backups.verify(1)?;
/// assert_eq!(newest.facts.seq, 1);
/// for (_, kept_as) in backups.restore(1)?.replaced {
///     println!("the replaced file is kept as {kept_as}");
/// }
/// assert_eq!(Store::open(&path)?.get::<String>("greeting")?.as_deref(), Some("hello"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Backups {
    pub(super) vfs: Vfs,
    pub(super) name: String,
    pub(super) keys: Option<Arc<dyn Keys>>,
    replace_unrelated: bool,
    on_progress: Option<OnProgress>,
}

// The value has only names and options. Each call reads the files again.
impl std::panic::UnwindSafe for Backups {}
impl std::panic::RefUnwindSafe for Backups {}

impl Backups {
    /// Returns the backups of the store at `path`. No file is read or changed.
    ///
    /// # Errors
    /// `BadPath` if the path is not allowed for a store; `IsBackup` if it is the path of a backup;
    /// `NoFolder` if its folder does not exist.
    pub fn of(path: impl AsRef<Path>) -> Result<Self> {
        let (vfs, name) = locate(path.as_ref())?;
        let backups = Self::of_in(&vfs, &name);
        backups.names()?;
        Ok(backups)
    }

    /// Returns the backups of the store `name` in the directory of `vfs`.
    pub fn of_in(vfs: &Vfs, name: &str) -> Self {
        Self {
            vfs: vfs.clone(),
            name: name.to_owned(),
            keys: None,
            replace_unrelated: false,
            on_progress: None,
        }
    }

    /// Sets the key of the store. With it, only backups that are authentic under it count: they are
    /// encrypted and were not changed. [`verify`](Self::verify) then reads their contents too. A
    /// backup under an earlier key or root key is marked in the list
    /// ([`Trust`](crate::Trust)), and is neither verified nor restored with this key.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::Backups;
    /// use codex_core::crypto::Key;
    /// let key = || Key::passphrase("correct horse battery staple");
    /// let store = Store::options().key(key()?).open(&path)?;
    /// store.set("a", &1)?;
    /// store.back_up()?;
    /// Backups::of(&path)?.key(key()?).verify(1)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "crypto")]
    #[must_use]
    pub fn key(self, key: codex_crypto::Key) -> Self {
        let entropy = Arc::clone(&self.vfs.entropy);
        let key = crate::seal::SharedKey::new(key);
        // The header of a file names its cipher. This one is only for new stores.
        let cipher = codex_crypto::Cipher::default();
        let keys = Arc::new(crate::seal::UserKey::new(key, cipher, entropy));
        self.with_keys(Some(keys))
    }

    /// Sets whether [`restore`](Self::restore) may replace a store at the path to which the backup
    /// does not belong, for example a new one that was created after the store was lost. The
    /// replaced store is kept, as with each restore. Default: no.
    #[must_use]
    pub fn replace_unrelated(mut self, replace: bool) -> Self {
        self.replace_unrelated = replace;
        self
    }

    /// Sets a function that is called with `(done, total)`, in bytes, by [`verify`](Self::verify),
    /// [`restore`](Self::restore) and [`restore_until`](Self::restore_until), as
    /// [`OpenOptions::on_progress`](crate::OpenOptions::on_progress) describes. Default: none.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::Backups;
    /// Store::open(&path)?.back_up()?;
    /// let backups = Backups::of(&path)?;
    /// backups.on_progress(|done, total| eprint!("\r{:3} %", 100 * done / total)).verify(1)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn on_progress(mut self, f: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        self.on_progress = Some(progress::callback(f));
        self
    }

    pub(crate) fn with_keys(self, keys: Option<Arc<dyn Keys>>) -> Self {
        Self { keys, ..self }
    }

    /// Returns the backups, newest first. A damaged file and a file of another origin have an error
    /// in place of the facts.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::Backups;
    /// let store = Store::open(&path)?;
    /// store.set("a", &1)?;
    /// store.back_up()?;
    /// for backup in Backups::of(&path)?.list()? {
    ///     match backup.facts {
    ///         Ok(facts) => println!("{}: commit {}", backup.name, facts.seq),
    ///         Err(error) => println!("{error}"),
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// An error of the disk if the folder cannot be read.
    pub fn list(&self) -> Result<Vec<BackupEntry>> {
        Ok(self.inner()?.list()?)
    }

    /// Reads and checks every byte of the backup `index`; 1 is the newest. If the
    /// [key](Self::key) is set, encrypted contents are authenticated too.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::Backups;
    /// let store = Store::open(&path)?;
    /// store.set("a", &1)?;
    /// store.back_up()?;
    /// assert_eq!(Backups::of(&path)?.verify(1)?.facts.seq, 1);
    /// assert!(Backups::of(&path)?.verify(2).is_err_and(|error| error.is_not_found()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The fault of the backup, with its offset if it has one.
    pub fn verify(&self, index: u32) -> Result<BackupVerification> {
        let depth = self.depth_of(index)?;
        let total = || self.bytes_of(index);
        self.metered(total, |metered| Ok(metered.inner()?.verify(index, depth)?))
    }

    /// Returns the newest good backup, and the errors of the newer ones. Reads every byte of each.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::Backups;
    /// let store = Store::open(&path)?;
    /// store.set("a", &1)?;
    /// store.back_up()?;
    /// let newest = Backups::of(&path)?.newest_good()?;
    /// for (index, error) in &newest.skipped {
    ///     eprintln!("backup {index} is not good: {error}");
    /// }
    /// assert_eq!(newest.good.map(|backup| backup.index), Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// An error of the disk if the folder cannot be read.
    pub fn newest_good(&self) -> Result<NewestGood> {
        let depth = if self.keys.is_some() { Depth::Full } else { Depth::Checksums };
        Ok(self.inner()?.newest_good(depth)?)
    }

    /// Replaces the store by a copy of the backup `index`. The store must not be open. A restore
    /// that was interrupted is finished first. The replaced files, including the log, are kept
    /// under the names that are returned. A crash leaves the old store complete, or a restore that
    /// the next opening for writing finishes.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::Backups;
    /// let store = Store::open(&path)?;
    /// store.set("a", &1)?;
    /// store.back_up()?;
    /// store.clear()?;
    /// store.close()?;
    /// drop(store);
    /// for (name, kept_as) in Backups::of(&path)?.restore(1)?.replaced {
    ///     println!("{name} is kept as {kept_as}");
    /// }
    /// assert_eq!(Store::open(&path)?.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Locked` if the store is open; an error of the backup if it is not good, or if the
    /// [key](Self::key) does not open it; `Unrelated` if it belongs to
    /// [another store](Self::replace_unrelated); an error of the disk. Nothing was changed, unless
    /// [`pending`](Self::pending) returns the restore, which is finished in that case.
    pub fn restore(&self, index: u32) -> Result<Restored> {
        let _lock = self.settled(Duration::ZERO)?;
        if !self.has_numbered()? {
            // The only backup may have no number yet because of a crash, and gets it here. If there
            // are others, it stays as it is, because it would shift the numbers that the caller
            // saw.
            self.inner()?.adopt()?;
        }
        // The bytes are copied and the copy is read back. With the key, they are verified first.
        let passes = if self.keys.is_some() { 4 } else { 3 };
        let total = || self.bytes_of(index).saturating_mul(passes);
        self.metered(total, |metered| metered.restore_locked(index))
    }

    /// Replaces the ledger by the state that it had at `point`, without the later commits. The
    /// replaced file is kept, as with [`restore`](Self::restore).
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::{Backups, Form, RestorePoint};
    /// let store = Store::options().form(Form::Ledger).open(&path)?;
    /// store.set("a", &1)?;
    /// store.clear()?; // a mistake, in commit 2
    /// store.close()?;
    /// drop(store);
    /// Backups::of(&path)?.restore_until(RestorePoint::Seq(1))?;
    /// assert_eq!(Store::open(&path)?.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`restore`](Self::restore); `WrongForm` if the store is not a ledger; `KeyRequired` if it
    /// is encrypted and no key is set; `NotInHistory` if the ledger does not have the state.
    pub fn restore_until(&self, point: RestorePoint) -> Result<Restored> {
        let _lock = self.settled(Duration::ZERO)?;
        // The ledger is read, copied, and the copy is read back.
        let total = || progress::bytes_of(&self.vfs, &self.name).saturating_mul(4);
        self.metered(total, |metered| {
            let (vfs, keys) = (&metered.vfs, metered.keys.as_deref());
            metered.restore_earlier(&ledger_at(vfs, &metered.name, keys, point)?)
        })
    }

    /// Replaces the store by `earlier`. The caller holds the lock of the store.
    pub(super) fn restore_earlier(&self, earlier: &EarlierStore) -> Result<Restored> {
        let (source, about) = join::source(earlier.main_file(), earlier.name())?;
        let sidecars = self.sidecars()?;
        Ok(self.inner()?.restore_from(source, about.as_ref(), &sidecars, &mut unwatched)?)
    }

    /// Removes all but the newest `keep` good backups. Returns the names of the removed files. With
    /// the [key](Self::key), only backups that are authentic under it count. Each backup that is
    /// older than the last one that is kept is removed, whether it counts or not. A backup that has
    /// no number yet because of a crash gets it first.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::Backups;
    /// let store = Store::open(&path)?;
    /// for n in 1..=3 {
    ///     store.set("n", &n)?;
    ///     store.back_up()?;
    /// }
    /// assert_eq!(Backups::of(&path)?.prune(1)?.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `Locked` if an interrupted restore must be finished first and the store is open; `Busy` if a
    /// backup is being made; an error of the disk.
    pub fn prune(&self, keep: u32) -> Result<Vec<String>> {
        self.finish_restore(Duration::ZERO)?;
        Ok(self.inner()?.prune(keep)?)
    }

    /// Returns the restore that was interrupted, if there is one. The next opening for writing
    /// finishes it.
    ///
    /// # Errors
    /// An error if the record of the restore cannot be read.
    pub fn pending(&self) -> Result<Option<Pending>> {
        Ok(self.inner()?.pending_restore()?)
    }

    /// Finishes an interrupted restore, if there is one. Waits up to `timeout` for the lock. Each
    /// call that writes to the store begins with this one.
    pub(crate) fn finish_restore(&self, timeout: Duration) -> Result<Option<Restored>> {
        let backups = self.unkeyed()?;
        if !backups.has_restore_record()? {
            return Ok(None);
        }
        let _lock = self.lock(timeout)?;
        Ok(backups.finish_restore()?)
    }

    /// Takes the lock of the store, and finishes an interrupted restore.
    pub(super) fn settled(&self, timeout: Duration) -> Result<StoreLock> {
        let lock = self.lock(timeout)?;
        self.unkeyed()?.finish_restore()?;
        Ok(lock)
    }

    /// Restores the newest backup whose name `opens` accepts, if `is_lost` returns `true` under the
    /// lock of the store. Returns `None` if the store is not lost, or if `opens` accepts no backup.
    /// In both cases no backup was restored.
    pub(crate) fn restore_newest(
        &self,
        timeout: Duration,
        is_lost: &dyn Fn() -> bool,
        opens: &dyn Fn(&str) -> bool,
    ) -> Result<Option<Restored>> {
        let _lock = self.settled(timeout)?;
        // Order: the store is read again under the lock. The caller read it without the lock, and
        // another process may have repaired it since.
        if !is_lost() {
            return Ok(None);
        }
        let inner = self.inner()?;
        // A backup that has no number yet is the newest. An error of this call is ignored, because
        // the older backups in the list can still be restored.
        let _ = inner.adopt();
        let listed = inner.list().unwrap_or_default();
        let good = listed.iter().find(|entry| entry.facts.is_ok() && opens(&entry.name));
        good.map(|good| self.restore_locked(good.index)).transpose()
    }

    /// Restores the backup `index`. The caller holds the lock of the store.
    fn restore_locked(&self, index: u32) -> Result<Restored> {
        let sidecars = self.sidecars()?;
        let name = self.names()?.backup(index);
        let missing = || codex_backup::Error::Missing { path: self.vfs.dir.path(&name) };
        // The name may belong to a file that is not a backup of a store. The list is read without
        // the key, so that the slow check of a passphrase runs on this backup alone.
        let any = Self { replace_unrelated: true, ..self.clone() };
        let unkeyed = Self { keys: None, ..any.clone() };
        let entry = unkeyed.list()?.into_iter().find(|entry| entry.index == index);
        entry.ok_or_else(missing)?.facts?;
        if self.keys.is_some() {
            any.verify(index)?;
        }
        let inner = self.inner()?;
        // An image that names a log is copied as one that names none, since a backup has no log.
        let (source, about) = join::source(&MainFile::open(&self.vfs, &name)?, &name)?;
        let mut restored = inner.restore_from(source, about.as_ref(), &sidecars, &mut unwatched)?;
        restored.from.get_or_insert(name);
        Ok(restored)
    }

    /// Calls `work` with the same backups, whose reads and writes are reported.
    pub(super) fn metered<R>(
        &self,
        total: impl FnOnce() -> u64,
        work: impl FnOnce(&Self) -> Result<R>,
    ) -> Result<R> {
        progress::metered(self.on_progress.as_ref(), &self.vfs, total, |vfs| {
            // A call within the work makes no reports of its own.
            work(&Self { vfs: vfs.clone(), on_progress: None, ..self.clone() })
        })
    }

    /// Returns the length of the backup `index`, or 0 if it cannot be looked at.
    fn bytes_of(&self, index: u32) -> u64 {
        let name = self.names().map(|names| names.backup(index));
        let found = name.ok().and_then(|name| self.vfs.dir.metadata(&name).ok().flatten());
        found.map_or(0, |found| found.len)
    }

    /// Returns whether a file has the name of a backup with a number.
    fn has_numbered(&self) -> Result<bool> {
        let (names, path) = (self.names()?, self.vfs.dir.path(&self.name));
        let listed = self.vfs.dir.list().map_err(|source| StorageError::Io {
            action: "list the folder of",
            path,
            source: Arc::new(source),
        })?;
        Ok(listed.iter().any(|name| matches!(names.role(name), Some(Role::Backup(_)))))
    }

    /// Returns the names of the log segments, which a restore moves away.
    pub(super) fn sidecars(&self) -> Result<Vec<String>> {
        Ok(segments(&self.vfs, &self.name)?)
    }

    /// Returns the depth at which the backup `index` can be verified: `Full`, unless it is
    /// encrypted and no key is set.
    fn depth_of(&self, index: u32) -> Result<Depth> {
        if self.keys.is_some() {
            return Ok(Depth::Full);
        }
        let listed = self.list()?;
        let entry = listed.iter().find(|entry| entry.index == index);
        let facts = entry.and_then(|entry| entry.facts.as_ref().ok());
        let sealed = facts.is_some_and(|facts| facts.encrypted);
        Ok(if sealed { Depth::Checksums } else { Depth::Full })
    }

    /// Takes the lock of the store, as an opening for writing does.
    fn lock(&self, timeout: Duration) -> Result<StoreLock> {
        Ok(StoreLock::take(&self.vfs, &self.names()?, Access::ReadWrite, timeout)?)
    }

    /// Returns the file names of the store. The names of a backup are refused.
    fn names(&self) -> Result<Names> {
        let path = self.vfs.dir.path(&self.name);
        let names = Names::new(&self.name, &path)?;
        if names.is_backup() {
            return Err(StorageError::IsBackup { path }.into());
        }
        Ok(names)
    }

    /// Returns the backups, read with the key if it is set.
    pub(super) fn inner(&self) -> Result<codex_backup::Backups> {
        self.names()?;
        self.read_by(StoreFile::with_key(self.keys.clone()))
    }

    /// Returns the backups, read without the key, for finishing a restore. Its backup was checked
    /// when the restore began, and the caller may have another key.
    fn unkeyed(&self) -> Result<codex_backup::Backups> {
        self.read_by(StoreFile::default())
    }

    fn read_by(&self, inspect: StoreFile) -> Result<codex_backup::Backups> {
        self.names()?;
        // `keep` has no effect here, because only a rotation prunes by itself.
        Ok(codex_backup::Backups::new(
            self.vfs.clone(),
            &self.name,
            Arc::new(inspect),
            Options { replace_unrelated: self.replace_unrelated, ..Options::default() },
        )?)
    }
}

impl fmt::Debug for Backups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backups")
            .field("path", &self.vfs.dir.path(&self.name))
            .finish_non_exhaustive()
    }
}

//! The backups of a store that is not open: list, verify, restore, prune.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use codex_backup::{Depth, Entry, NewestGood, Options, Pending, Restored, Verification, unwatched};
use codex_storage::names::{Names, Role};
use codex_storage::seal::Keys;
use codex_storage::vfs::Vfs;
use codex_storage::{
    Access, Error as StorageError, MainFile, RestorePoint, StoreLock, ledger_at, segments,
};

use super::join::{self, StoreFile};
use crate::error::Result;
use crate::locate::locate;

/// The backups of the store at a path, as files: nothing here opens the store.
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
///     println!("what was there is kept as {kept_as}");
/// }
/// assert_eq!(Store::open(&path)?.get::<String>("greeting")?.as_deref(), Some("hello"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Backups {
    vfs: Vfs,
    name: String,
    keys: Option<Arc<dyn Keys>>,
    replace_unrelated: bool,
}

// Holds names alone; each call reads the files afresh.
impl std::panic::UnwindSafe for Backups {}
impl std::panic::RefUnwindSafe for Backups {}

impl Backups {
    /// The backups of the store at `path`. Touches nothing.
    ///
    /// # Errors
    /// The path cannot name a store, or its folder is missing.
    pub fn of(path: impl AsRef<Path>) -> Result<Self> {
        let (vfs, name) = locate(path.as_ref())?;
        let backups = Self::of_in(&vfs, &name);
        backups.names()?;
        Ok(backups)
    }

    /// The backups of the store `name` in the directory of `vfs`.
    pub fn of_in(vfs: &Vfs, name: &str) -> Self {
        Self { vfs: vfs.clone(), name: name.to_owned(), keys: None, replace_unrelated: false }
    }

    /// With the key of the store: only backups that are authentic under it count then, which are
    /// encrypted and not changed, and [`verify`](Self::verify) reads their contents. Of a backup
    /// under an earlier key or root the list [says so](codex_backup::Trust), and this key neither
    /// verifies nor restores it.
    #[cfg(feature = "crypto")]
    #[must_use]
    pub fn key(self, key: codex_crypto::Key) -> Self {
        let entropy = Arc::clone(&self.vfs.entropy);
        let key = crate::seal::SharedKey::new(key);
        // The cipher is that of the file; this one would be a new store's.
        let cipher = codex_crypto::Cipher::default();
        let keys = Arc::new(crate::seal::UserKey::new(key, cipher, entropy));
        self.with_keys(Some(keys))
    }

    /// Whether [`restore`](Self::restore) replaces a store at the path that is another one than
    /// that of the backup, as it is where the store was lost and another one took its name. What
    /// is replaced is kept, as ever. Default: no.
    #[must_use]
    pub fn replace_unrelated(mut self, replace: bool) -> Self {
        self.replace_unrelated = replace;
        self
    }

    pub(crate) fn with_keys(self, keys: Option<Arc<dyn Keys>>) -> Self {
        Self { keys, ..self }
    }

    /// What backups there are, newest first, the damaged and foreign ones with their error.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>> {
        Ok(self.inner()?.list()?)
    }

    /// Reads every byte of the backup with this index, 1 being the newest. Encrypted contents are
    /// authenticated too where the [key](Self::key) is given.
    ///
    /// # Errors
    /// What is wrong with it, with the offset.
    pub fn verify(&self, index: u32) -> Result<Verification> {
        Ok(self.inner()?.verify(index, self.depth_of(index)?)?)
    }

    /// The newest backup that is good, and why newer ones are not.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn newest_good(&self) -> Result<NewestGood> {
        let depth = if self.keys.is_some() { Depth::Full } else { Depth::Checksums };
        Ok(self.inner()?.newest_good(depth)?)
    }

    /// Puts a copy of the backup with this index in the place of the store, which nobody may have
    /// open. A restore that was interrupted is finished first. What was there, its log included, is
    /// kept under the names that are returned. A crash on the way leaves the old store whole, or a
    /// restore that the next open for writing finishes.
    ///
    /// # Errors
    /// The store is open elsewhere; the backup is no good, or the [key](Self::key) given does not
    /// open it; the store is [another one](Self::replace_unrelated); the disk. Nothing was changed,
    /// unless
    /// [`pending`](Self::pending) says that the restore was decided already.
    pub fn restore(&self, index: u32) -> Result<Restored> {
        let _lock = self.settled(Duration::ZERO)?;
        if !self.has_numbered()? {
            // A crash may have kept the only one from its name. Beside others, that would give
            // each of them another number than the one that the caller has seen.
            self.inner()?.adopt()?;
        }
        self.restore_locked(index)
    }

    /// Puts the ledger in the state that it had at `point`, without the commits after it. The
    /// replaced file is kept as with [`restore`](Self::restore).
    ///
    /// # Errors
    /// As [`restore`](Self::restore); `WrongForm` if the store is not a ledger; `KeyRequired` if it
    /// is encrypted and no key is given; `NotInHistory` if it does not have the state.
    pub fn restore_until(&self, point: RestorePoint) -> Result<Restored> {
        let _lock = self.settled(Duration::ZERO)?;
        let earlier = ledger_at(&self.vfs, &self.name, self.keys.as_deref(), point)?;
        let (source, about) = join::source(earlier.main_file(), earlier.name())?;
        let sidecars = self.sidecars()?;
        Ok(self.inner()?.restore_from(source, about.as_ref(), &sidecars, &mut unwatched)?)
    }

    /// Removes all but the newest `keep` backups; the names removed. With the [key](Self::key),
    /// only those count that are authentic under it, and what is older than the last of them goes.
    ///
    /// # Errors
    /// The disk.
    pub fn prune(&self, keep: u32) -> Result<Vec<String>> {
        self.finish_restore(Duration::ZERO)?;
        Ok(self.inner()?.prune(keep)?)
    }

    /// A restore that was interrupted; the next open for writing finishes it.
    ///
    /// # Errors
    /// The record of it cannot be read.
    pub fn pending(&self) -> Result<Option<Pending>> {
        Ok(self.inner()?.pending_restore()?)
    }

    /// Finishes an interrupted restore, if there is one; waits up to `timeout` for the lock. Every
    /// entry that writes begins with this.
    pub(crate) fn finish_restore(&self, timeout: Duration) -> Result<Option<Restored>> {
        if self.pending()?.is_none() {
            return Ok(None);
        }
        let _lock = self.lock(timeout)?;
        Ok(self.unkeyed()?.finish_restore()?)
    }

    /// The lock of the store, with no restore pending.
    fn settled(&self, timeout: Duration) -> Result<StoreLock> {
        let lock = self.lock(timeout)?;
        self.unkeyed()?.finish_restore()?;
        Ok(lock)
    }

    /// Restores the newest backup that `opens` accepts by its name, if the store, which nobody else
    /// has open by then, `is_lost`. Returns `None` if it is not, or if `opens` accepts none: then
    /// nothing was changed.
    pub(crate) fn restore_newest(
        &self,
        timeout: Duration,
        is_lost: &dyn Fn() -> bool,
        opens: &dyn Fn(&str) -> bool,
    ) -> Result<Option<Restored>> {
        let _lock = self.settled(timeout)?;
        // Order: under the lock, which the caller did not have when it read the store.
        if !is_lost() {
            return Ok(None);
        }
        let inner = self.inner()?;
        // One that has not got its name yet is the newest. What is wrong with it shows in the list.
        let _ = inner.adopt();
        let listed = inner.list().unwrap_or_default();
        let good = listed.iter().find(|entry| entry.facts.is_ok() && opens(&entry.name));
        good.map(|good| self.restore_locked(good.index)).transpose()
    }

    fn restore_locked(&self, index: u32) -> Result<Restored> {
        let sidecars = self.sidecars()?;
        let name = self.names()?.backup(index);
        let missing = || codex_backup::Error::Missing { path: self.vfs.dir.path(&name) };
        // Something else than the file of a store may stand at the name. No key: a passphrase is
        // tried on this backup alone.
        let any = Self { replace_unrelated: true, ..self.clone() };
        let unkeyed = Self { keys: None, ..any.clone() };
        let entry = unkeyed.list()?.into_iter().find(|entry| entry.index == index);
        entry.ok_or_else(missing)?.facts?;
        if self.keys.is_some() {
            any.verify(index)?;
        }
        let inner = self.inner()?;
        // A continued image is written whole by itself: its log is not there any more.
        let (source, about) = join::source(&MainFile::open(&self.vfs, &name)?, &name)?;
        let mut restored = inner.restore_from(source, about.as_ref(), &sidecars, &mut unwatched)?;
        restored.from.get_or_insert(name);
        Ok(restored)
    }

    fn has_numbered(&self) -> Result<bool> {
        let (names, path) = (self.names()?, self.vfs.dir.path(&self.name));
        let listed = self.vfs.dir.list().map_err(|source| StorageError::Io {
            action: "list the folder of",
            path,
            source: Arc::new(source),
        })?;
        Ok(listed.iter().any(|name| matches!(names.role(name), Some(Role::Backup(_)))))
    }

    fn sidecars(&self) -> Result<Vec<String>> {
        Ok(segments(&self.vfs, &self.name)?)
    }

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

    /// The lock of the store, as an opening takes it.
    fn lock(&self, timeout: Duration) -> Result<StoreLock> {
        Ok(StoreLock::take(&self.vfs, &self.names()?, Access::ReadWrite, timeout)?)
    }

    fn names(&self) -> Result<Names> {
        let path = self.vfs.dir.path(&self.name);
        let names = Names::new(&self.name, &path)?;
        if names.is_backup() {
            return Err(StorageError::IsBackup { path }.into());
        }
        Ok(names)
    }

    fn inner(&self) -> Result<codex_backup::Backups> {
        self.names()?;
        self.read_by(StoreFile::with_key(self.keys.clone()))
    }

    /// For finishing a restore, which was decided when it began: whoever does that may have
    /// another key than the backup.
    fn unkeyed(&self) -> Result<codex_backup::Backups> {
        self.read_by(StoreFile::default())
    }

    fn read_by(&self, inspect: StoreFile) -> Result<codex_backup::Backups> {
        self.names()?;
        // Keeping plays no part here: only a rotation prunes by itself.
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

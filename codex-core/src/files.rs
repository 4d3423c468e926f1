//! The files of a store that is not open: listing them and removing them.

use std::path::Path;
use std::time::Duration;

use codex_storage::FileEntry;
use codex_storage::vfs::Vfs;

use crate::backup::Backups;
use crate::error::Result;
use crate::locate::locate;
use crate::store::Store;

/// The files of a store that need not be open.
impl Store {
    /// Returns the files that belong to the store at `path`, sorted by name: its contents, its lock
    /// file, its backups, and the files that restores have replaced. Takes no lock and checks no
    /// content. Returns no files if there are none.
    ///
    /// ```
    /// use codex_core::{FileRole, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// Store::open(&path)?.set("greeting", "hello")?;
    /// for file in Store::files(&path)? {
    ///     println!("{}: {:?}, {} bytes", file.path.display(), file.role, file.bytes);
    /// }
    /// let is_lock = |file: &codex_core::FileEntry| file.role == FileRole::Lock;
    /// assert!(Store::files(&path)?.iter().any(is_lock));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `BadPath`, `IsBackup` or `NoFolder` if no store can be at the path; an error of the disk.
    pub fn files(path: impl AsRef<Path>) -> Result<Vec<FileEntry>> {
        let (vfs, name) = locate(path.as_ref())?;
        Ok(codex_storage::files(&vfs, &name)?)
    }

    /// Removes the store at `path`: its contents, its temporary files and its lock file. Its
    /// backups stay, with the files that restores have replaced. While there are backups, no store
    /// is created at the path ([`OnlyBackups`](crate::StorageError::OnlyBackups)), and
    /// [`Backups::restore`] puts one there. [`destroy_with_backups`](Self::destroy_with_backups)
    /// removes them too.
    ///
    /// A crash leaves either the store as it was, or a part that does not open as an older or empty
    /// store; calling this again removes the rest. The bytes are not overwritten. An interrupted
    /// restore is finished first. A symbolic link at the path stays, without its target.
    ///
    /// ```
    /// use codex_core::Store;
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("cache.db");
    /// let store = Store::open(&path)?;
    /// assert!(Store::destroy(&path).unwrap_err().is_locked());
    /// store.close()?;
    /// drop(store);
    /// Store::destroy(&path)?;
    /// assert!(Store::files(&path)?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`is_not_found`](crate::Error::is_not_found) if there is no store,
    /// [`is_locked`](crate::Error::is_locked) if it is open. `NotADatabase`, `EmptyFile` or
    /// `NewerVersion` if the file is not one of a store that this build knows; `NotAFile`. Nothing
    /// was removed then. An error of the disk: call again.
    pub fn destroy(path: impl AsRef<Path>) -> Result<()> {
        let (vfs, name) = locate(path.as_ref())?;
        Self::destroy_in(&vfs, &name, false)
    }

    /// Removes the store at `path` as [`destroy`](Self::destroy) does, after all its backups and
    /// the files that restores have replaced. Works also if only backups are left.
    ///
    /// A crash while the backups are removed leaves the store as it was.
    ///
    /// # Errors
    /// The errors of [`destroy`](Self::destroy); `Locked` also if a backup is being restored.
    pub fn destroy_with_backups(path: impl AsRef<Path>) -> Result<()> {
        let (vfs, name) = locate(path.as_ref())?;
        Self::destroy_in(&vfs, &name, true)
    }

    pub(crate) fn destroy_in(vfs: &Vfs, name: &str, with_backups: bool) -> Result<()> {
        // Order: a restore that was decided is finished first. Its record would put a store in the
        // place of the one that is removed.
        Backups::of_in(vfs, name).finish_restore(Duration::ZERO)?;
        Ok(codex_storage::destroy(vfs, name, with_backups)?)
    }
}

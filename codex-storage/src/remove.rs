//! The files of a store that is not open: listing them and removing them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::Access;
use crate::error::{Error, Result};
use crate::lock::StoreLock;
use crate::main_file::main_header;
use crate::names::{BackupTemporary, Names, Role};
use crate::open::{open_regular, refuse_pending};
use crate::vfs::{Kind, LockGuard, LockHolder, LockKind, Vfs};

/// A file that belongs to a store, from [`files`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileEntry {
    /// The path of the file.
    pub path: PathBuf,
    /// The length in bytes.
    pub bytes: u64,
    /// The role of the file.
    pub role: FileRole,
}

/// The role of a file that belongs to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileRole {
    /// The contents: the image, the segments of the log, or the ledger.
    Store,
    /// The file that carries the advisory lock.
    Lock,
    /// A file that was not completed. The next opening for writing removes it.
    Temporary,
    /// A backup.
    Backup,
    /// The lock of the backups, the record of a restore, or a backup or copy that was not
    /// completed.
    BackupWork,
    /// A file that a restore replaced. It is part of a store under a name of its own.
    Replaced,
}

impl From<Role> for FileRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Main | Role::Segment(_) => Self::Store,
            Role::Lock => Self::Lock,
            Role::Temporary(_) => Self::Temporary,
            Role::Backup(_) | Role::BackupTemporary(BackupTemporary::Ready) => Self::Backup,
            Role::BackupLock | Role::RestoreRecord | Role::BackupTemporary(_) => Self::BackupWork,
            Role::Replaced(_) => Self::Replaced,
        }
    }
}

/// Returns the regular files that belong to the store `name`, sorted by name. Takes no lock.
///
/// # Errors
/// `BadPath` if no store may have the name, `IsBackup` if it is the name of a backup; `Io` if the
/// directory cannot be read.
pub fn files(vfs: &Vfs, name: &str) -> Result<Vec<FileEntry>> {
    let mut found = Vec::new();
    for (role, name) in listed(vfs, &names_of(vfs, name)?)? {
        let path = vfs.dir.path(&name);
        let metadata = vfs.dir.metadata(&name).map_err(|e| Error::io("look at", &path, e))?;
        // A file may have been removed since the directory was listed.
        if let Some(metadata) = metadata.filter(|metadata| metadata.kind == Kind::File) {
            found.push(FileEntry { path, bytes: metadata.len, role: role.into() });
        }
    }
    Ok(found)
}

/// Removes the store `name`: its contents, its temporary files and its lock file. If
/// `with_backups` is set, its backups and the files that restores have replaced are removed first.
///
/// A crash leaves the store as it was, perhaps with fewer backups, or a part that does not open:
/// after the main file is gone, a log that remains gives `ImageMissing`. A second call removes the
/// rest.
///
/// # Errors
/// `NotFound` if there is nothing to remove. `Locked` if the store is open, `RestorePending` if a
/// restore must be finished first, `NotADatabase` and the other errors of a header that is not one
/// of a store, `NotAFile` if a directory or a link has the name of a file: nothing was removed.
/// `Io` if the directory fails: call again.
pub fn destroy(vfs: &Vfs, name: &str, with_backups: bool) -> Result<()> {
    let names = names_of(vfs, name)?;
    let path = vfs.dir.path(name);
    // Order: before the lock, which would create the lock file of a store that does not exist.
    if !listed(vfs, &names)?.iter().any(|(role, _)| with_backups || is_of_store(*role)) {
        return Err(Error::NotFound { path });
    }
    let store = StoreLock::take(vfs, &names, Access::ReadWrite, Duration::ZERO)?;
    let backups = with_backups.then(|| lock_backups(vfs, &names)).transpose()?;
    refuse_pending(vfs, &names, &path)?;
    refuse_foreign(vfs, &names, &path)?;
    let mut found = listed(vfs, &names)?;
    found.retain(|(role, _)| with_backups || is_of_store(*role));
    refuse_irregular(vfs, &found)?;
    let removal = Removal { vfs, found, path };
    if with_backups {
        // Order: the backups go first. An opening that may fall back to a backup would otherwise
        // put an older state in the place of a store that is gone.
        removal.of(&|role, _| matches!(role, Role::Backup(_) | READY))?;
        // Order: the main file of a replaced store before its log, as below.
        removal.of(&|role, name| match role {
            Role::Replaced(n) => name.ends_with(&format!(".replaced.{n}")),
            _ => false,
        })?;
        removal.of(&|role, _| matches!(role, Role::Replaced(_) | Role::BackupTemporary(_)))?;
    }
    // Order: the main file goes first, and is durably gone before its log is touched. Without the
    // last part of its log it would open as an older store. The log alone opens as none.
    removal.of(&|role, _| role == Role::Main)?;
    removal.of(&|role, _| matches!(role, Role::Segment(_) | Role::Temporary(_)))?;
    // Order: the lock files go last, under their locks. A process that has one of them open finds
    // that it lost its name, and locks a new one.
    removal.of(&|role, _| role == Role::Lock || with_backups && role == Role::BackupLock)?;
    drop((backups, store));
    Ok(())
}

/// A backup that is complete and has no number yet.
const READY: Role = Role::BackupTemporary(BackupTemporary::Ready);

/// Returns whether a file of this role belongs to the store itself, not to its backups.
fn is_of_store(role: Role) -> bool {
    matches!(role, Role::Main | Role::Segment(_) | Role::Temporary(_) | Role::Lock)
}

fn names_of(vfs: &Vfs, name: &str) -> Result<Names> {
    let path = vfs.dir.path(name);
    let names = Names::new(name, &path)?;
    if names.is_backup() { Err(Error::IsBackup { path }) } else { Ok(names) }
}

/// Returns the names in the directory that belong to the store, sorted, with their roles.
fn listed(vfs: &Vfs, names: &Names) -> Result<Vec<(Role, String)>> {
    let io = |e| Error::io("list the folder of", &vfs.dir.path(names.main()), e);
    let mut listed = vfs.dir.list().map_err(io)?;
    listed.sort();
    Ok(listed.into_iter().filter_map(|name| Some((names.role(&name)?, name))).collect())
}

/// Returns an error if one of the files is no regular file.
fn refuse_irregular(vfs: &Vfs, found: &[(Role, String)]) -> Result<()> {
    for (_, name) in found {
        let path = || vfs.dir.path(name);
        let metadata = vfs.dir.metadata(name).map_err(|e| Error::io("look at", &path(), e))?;
        if metadata.is_some_and(|metadata| metadata.kind != Kind::File) {
            return Err(Error::NotAFile { path: path(), what: "a folder, a link or a device" });
        }
    }
    Ok(())
}

/// Returns an error if the main file is not a file of this program, or one of a newer version. One
/// that is damaged may be removed.
fn refuse_foreign(vfs: &Vfs, names: &Names, path: &Path) -> Result<()> {
    let Some(file) = open_regular(vfs, names, path)? else { return Ok(()) };
    match main_header(&*file, path) {
        Ok(_) | Err(Error::Damaged { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn lock_backups(vfs: &Vfs, names: &Names) -> Result<Box<dyn LockGuard>> {
    let (lock, path) = (names.backup_lock(), vfs.dir.path(names.main()));
    match vfs.dir.try_lock(&lock, LockKind::Exclusive) {
        Ok(Some(guard)) => Ok(guard),
        Ok(None) => Err(Error::Locked { path, holder: LockHolder::Unknown, waited_ms: 0 }),
        Err(e) => Err(Error::io("lock", &vfs.dir.path(&lock), e)),
    }
}

/// The removal of the files that were found under the lock.
struct Removal<'a> {
    vfs: &'a Vfs,
    found: Vec<(Role, String)>,
    path: PathBuf,
}

impl Removal<'_> {
    /// Removes the files that `belongs` accepts, and makes their removal durable.
    fn of(&self, belongs: &dyn Fn(Role, &str) -> bool) -> Result<()> {
        let dir = &self.vfs.dir;
        for (_, name) in self.found.iter().filter(|(role, name)| belongs(*role, name)) {
            match dir.remove(name) {
                // An earlier call removed it, or another process in its own directory.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.map_err(|e| Error::io("remove", &dir.path(name), e))?,
            }
        }
        dir.sync().map_err(|e| Error::io("sync the folder of", &self.path, e))
    }
}

//! Repairing an image with one damaged header by its other header.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Access;
use crate::error::{Error, Result};
use crate::files::StoreFiles;
use crate::header::{FileKind, Found};
use crate::image::ImageReader;
use crate::lock::StoreLock;
use crate::names::{BackupTemporary, Names};
use crate::open::{open_regular, refuse_pending};
use crate::pack::Compression;
use crate::seal::Keys;
use crate::vfs::{File, LockGuard, LockHolder, LockKind, Vfs};

/// Repairs a closed store, or a backup, if its main file is an image and one of its two headers is
/// destroyed, for example by a bad sector.
///
/// The intact header is authenticated with the key of an encrypted store. The whole file is written
/// again under a temporary name, with that header in both places, synced and read back, and then
/// renamed over the damaged one. Returns whether there was something to repair.
///
/// # Errors
/// Nothing has changed after an error except one of the last rename.
///
/// - `Locked` if the store is open, or if its backups are being rotated.
/// - `KeyRequired`, `WrongKey`, `NotEncrypted` or `Tampered` if no header authenticates under the
///   key.
/// - The error that opening returns, if no header is intact, if other parts of the file are damaged
///   too, or if the file is a log, which has only one header.
pub fn repair_header(vfs: &Vfs, name: &str, keys: Option<&dyn Keys>) -> Result<bool> {
    let path = vfs.dir.path(name);
    let names = Names::new(name, &path)?;
    refuse_pending(vfs, &names, &path)?;
    // Order: before the lock, because taking it would create a file beside a file that is no store.
    drop(headers(vfs, &names, &path)?);
    let lock = RepairLock::take(vfs, &names)?;
    // Order: again under the lock, because another process may have replaced the file before.
    let (file, first, second) = headers(vfs, &names, &path)?;
    let is_whole = match (&first, &second) {
        (Ok(first), Ok(second)) => first == second,
        // A log has no second header.
        (Ok(first), Err(_)) => first.header.kind == FileKind::Log,
        (Err(_), _) => false,
    };
    if is_whole {
        return Ok(false);
    }
    let repair = Repair { vfs, names, file, keys, lock };
    let mut refused = None;
    // The first header comes first. If it does not fit the rest of the file, the second one is
    // tried.
    for found in [first, second].into_iter().flatten() {
        match repair.under(found) {
            Ok(()) => return Ok(true),
            Err(error) => _ = refused.get_or_insert(error),
        }
    }
    Err(refused.unwrap_or(Error::NotFound { path }))
}

/// An open file, its first header and its second header.
type Headers = (Arc<dyn File>, Result<Found>, Result<Found>);

/// Opens the file and reads both headers. Returns an error if neither can be read.
fn headers(vfs: &Vfs, names: &Names, path: &Path) -> Result<Headers> {
    let Some(file) = open_regular(vfs, names, path)? else {
        return Err(Error::NotFound { path: path.to_owned() });
    };
    match (Found::first(&*file, path), Found::second(&*file, path)) {
        (Err(error), Err(_)) => Err(error),
        (first, second) => Ok((file, first, second)),
    }
}

/// A file to be repaired, under its lock.
struct Repair<'a> {
    vfs: &'a Vfs,
    names: Names,
    file: Arc<dyn File>,
    keys: Option<&'a dyn Keys>,
    lock: RepairLock,
}

impl Repair<'_> {
    /// Authenticates the header `found`, and writes the file again under it.
    fn under(&self, found: Found) -> Result<()> {
        let (vfs, names) = (self.vfs, &self.names);
        let path = vfs.dir.path(names.main());
        let bytes = found.bytes().to_vec();
        let (header, seal) = found.unlock(self.keys, &path)?;
        let image = ImageReader::new(Arc::clone(&self.file), &path, header, bytes, seal.clone())?;
        let lock = match &self.lock {
            RepairLock::Store(lock) => Some(Arc::clone(lock)),
            RepairLock::Backups { .. } => None,
        };
        let files = StoreFiles {
            vfs: vfs.clone(),
            names: names.clone(),
            seal,
            compression: Compression::None,
            lock,
        };
        let mut spec = files.image(image.header().clone());
        if let RepairLock::Backups { store, .. } = &self.lock {
            spec.temporary = store.backup_temporary(BackupTemporary::Making);
        }
        // Every byte is read back. A header of another file does not match the footer.
        let written = spec.rewrite_header(&image)?;
        drop(image);
        files.install(&written.temporary).map(drop).map_err(|failed| {
            if !failed.in_doubt {
                drop(vfs.dir.remove(&written.temporary));
            }
            Error::io("put the repaired file in place as", &path, failed.source)
        })
    }
}

/// The lock under which the file may be replaced.
enum RepairLock {
    Store(Arc<StoreLock>),
    /// The lock of the rotations of this store.
    Backups {
        store: Names,
        _guard: Box<dyn LockGuard>,
    },
}

impl RepairLock {
    /// Takes the lock of a store, or of the rotations if the file is a backup. Does not wait.
    fn take(vfs: &Vfs, names: &Names) -> Result<Self> {
        let Some(store) = names.of_backup() else {
            let lock = StoreLock::take(vfs, names, Access::ReadWrite, Duration::ZERO)?;
            return Ok(Self::Store(Arc::new(lock)));
        };
        let (name, path) = (store.backup_lock(), vfs.dir.path(names.main()));
        match vfs.dir.try_lock(&name, LockKind::Exclusive) {
            Ok(Some(guard)) => Ok(Self::Backups { store, _guard: guard }),
            Ok(None) => Err(Error::Locked { path, holder: LockHolder::Unknown, waited_ms: 0 }),
            Err(e) => Err(Error::io("lock", &vfs.dir.path(&name), e)),
        }
    }
}

//! Puts an image back under the one of its two headers that is intact.

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
use crate::seal::Keys;
use crate::vfs::{File, LockGuard, LockKind, Vfs};

/// Mends a closed store, or a backup, whose main file is an image with one of its two headers
/// destroyed, as by a bad sector. The intact header is authenticated with the key of an encrypted
/// store; the whole file is written again under a temporary name with that header at both places,
/// synced and read back, and takes the place of the damaged one. Returns whether there was
/// something to mend.
///
/// # Errors
/// `Locked` while the store is open, or while its backups rotate. `KeyRequired`, `WrongKey`,
/// `NotEncrypted`, `Tampered`: no header authenticates under the key. The damage that opening
/// reports, where neither header is intact, the rest of the file is damaged too, or the file is a
/// log, which has one header only: nothing was changed.
pub fn repair_header(vfs: &Vfs, name: &str, keys: Option<&dyn Keys>) -> Result<bool> {
    let path = vfs.dir.path(name);
    let names = Names::new(name, &path)?;
    refuse_pending(vfs, &names, &path)?;
    // Before a lock file is created beside something that is no store.
    drop(headers(vfs, &names, &path)?);
    let lock = RepairLock::take(vfs, &names)?;
    let (file, first, second) = headers(vfs, &names, &path)?;
    let is_whole = match (&first, &second) {
        (Ok(first), Ok(second)) => first == second,
        // There is no second header of a log.
        (Ok(first), Err(_)) => first.header.kind == FileKind::Log,
        (Err(_), _) => false,
    };
    if is_whole {
        return Ok(false);
    }
    let repair = Repair { vfs, names, file, keys, lock };
    let mut refused = None;
    for found in [first, second].into_iter().flatten() {
        match repair.under(found) {
            Ok(()) => return Ok(true),
            Err(error) => _ = refused.get_or_insert(error),
        }
    }
    Err(refused.unwrap_or(Error::NotFound { path }))
}

type Headers = (Arc<dyn File>, Result<Found>, Result<Found>);

/// The file and its two headers, of which one can be read at least.
fn headers(vfs: &Vfs, names: &Names, path: &Path) -> Result<Headers> {
    let Some(file) = open_regular(vfs, names, path)? else {
        return Err(Error::NotFound { path: path.to_owned() });
    };
    match (Found::first(&*file, path), Found::second(&*file, path)) {
        (Err(error), Err(_)) => Err(error),
        (first, second) => Ok((file, first, second)),
    }
}

/// A file to be mended, while nobody else has it.
struct Repair<'a> {
    vfs: &'a Vfs,
    names: Names,
    file: Arc<dyn File>,
    keys: Option<&'a dyn Keys>,
    lock: RepairLock,
}

impl Repair<'_> {
    /// Writes the file again under the header `found`, which it authenticates.
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
        let files = StoreFiles { vfs: vfs.clone(), names: names.clone(), seal, lock };
        let mut spec = files.image(image.header().clone());
        if let RepairLock::Backups { store, .. } = &self.lock {
            spec.temporary = store.backup_temporary(BackupTemporary::Making);
        }
        // Reads back every byte: a header of another file does not fit the footer.
        let written = spec.rewrite_header(&image)?;
        drop(image);
        files.install(&written.temporary).map_err(|failed| {
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
    /// Of the rotations of this store's backups.
    Backups {
        store: Names,
        _guard: Box<dyn LockGuard>,
    },
}

impl RepairLock {
    fn take(vfs: &Vfs, names: &Names) -> Result<Self> {
        let Some(store) = names.of_backup() else {
            let lock = StoreLock::take(vfs, names, Access::ReadWrite, Duration::ZERO)?;
            return Ok(Self::Store(Arc::new(lock)));
        };
        let (name, path) = (store.backup_lock(), vfs.dir.path(names.main()));
        match vfs.dir.try_lock(&name, LockKind::Exclusive) {
            Ok(Some(guard)) => Ok(Self::Backups { store, _guard: guard }),
            Ok(None) => Err(Error::Locked { path, waited_ms: 0 }),
            Err(e) => Err(Error::io("lock", &vfs.dir.path(&name), e)),
        }
    }
}

//! The repair of a file that has lost one of its two headers.

use std::path::Path;

use crate::error::Result;
use crate::locate::locate;
#[cfg(feature = "crypto")]
use crate::seal::{SharedKey, UserKey};

/// Repairs the closed store at `path`, in the form Wal or Snapshot, or a backup of one, if its
/// header is destroyed, for example by a bad sector. Such a file has a second header at its end.
///
/// Opening the file reports [`Damaged`](crate::StorageError::Damaged) and names this function. An
/// encrypted store needs `repair_header_with` (feature `crypto`).
///
/// Writes the whole file again under another name, reads it back, and replaces the damaged file in
/// one step. Returns true if the file was repaired, and false if it was intact.
///
/// ```
/// # use codex_core::Store;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("app.db");
/// Store::open(&path)?.close()?;
/// assert!(!codex_core::repair_header(&path)?, "it was intact");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `Locked` if the store is open. `KeyRequired` if it is encrypted. The damage itself if the file
/// is a ledger, has no intact header, or is also damaged at another place: nothing was changed, so
/// restore a backup.
pub fn repair_header(path: impl AsRef<Path>) -> Result<bool> {
    let (vfs, name) = locate(path.as_ref())?;
    Ok(codex_storage::repair_header(&vfs, &name, None)?)
}

/// Does the same as [`repair_header`] for an encrypted store or backup. `key` authenticates the
/// intact header.
///
/// # Errors
/// The errors of [`repair_header`]; `WrongKey`; `NotEncrypted`; `Tampered` if the other header is
/// not that of the store.
#[cfg(feature = "crypto")]
pub fn repair_header_with(path: impl AsRef<Path>, key: codex_crypto::Key) -> Result<bool> {
    let (vfs, name) = locate(path.as_ref())?;
    let entropy = std::sync::Arc::clone(&vfs.entropy);
    let keys = UserKey::new(SharedKey::new(key), codex_crypto::Cipher::default(), entropy);
    Ok(codex_storage::repair_header(&vfs, &name, Some(&keys))?)
}

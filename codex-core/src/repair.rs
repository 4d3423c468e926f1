//! Mends a file of which one of the two headers was destroyed.

use std::path::Path;

use crate::error::Result;
use crate::locate::locate;
#[cfg(feature = "crypto")]
use crate::seal::{SharedKey, UserKey};

/// Mends the closed store at `path` in the form Wal or Snapshot, or a backup of one, whose header
/// was destroyed, as by a bad sector: such a file has a second one at its end. Opening it reports
/// [`Damaged`](codex_storage::Error::Damaged) and names this function. An encrypted store needs
/// `repair_header_with` (feature `crypto`).
///
/// The whole file is written again under another name, read back, and takes the place of the
/// damaged one in one step. Returns whether there was something to mend.
///
/// # Errors
/// `Locked`: the store is open. `KeyRequired`: it is encrypted. The damage, where the file is a
/// ledger, has no intact header, or is damaged elsewhere too: nothing was changed; restore a
/// backup.
pub fn repair_header(path: impl AsRef<Path>) -> Result<bool> {
    let (vfs, name) = locate(path.as_ref())?;
    Ok(codex_storage::repair_header(&vfs, &name, None)?)
}

/// As [`repair_header`], of an encrypted store or backup: the intact header is authenticated with
/// `key`.
///
/// # Errors
/// As there; `WrongKey`, `NotEncrypted`; `Tampered`: the other header is not the store's.
#[cfg(feature = "crypto")]
pub fn repair_header_with(path: impl AsRef<Path>, key: codex_crypto::Key) -> Result<bool> {
    let (vfs, name) = locate(path.as_ref())?;
    let entropy = std::sync::Arc::clone(&vfs.entropy);
    let keys = UserKey::new(SharedKey::new(key), codex_crypto::Cipher::default(), entropy);
    Ok(codex_storage::repair_header(&vfs, &name, Some(&keys))?)
}

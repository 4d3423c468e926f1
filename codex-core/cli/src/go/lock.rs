//! The locks of the Go program, which keep it from writing while its file is read.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::failure::Failure;

/// Reads the file `path` under both locks of the Go program: that of a snapshot is on a file beside
/// it, that of a ledger on the file itself. Changes nothing, and makes no file.
pub(super) fn read(path: &Path, wait: Duration) -> Outcome<Vec<u8>> {
    let unreadable = |source| Failure::file(format!("cannot read {}", path.display()), source);
    let deadline = Instant::now() + wait;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    // Order: the file is opened under the lock beside it, because a snapshot is replaced under
    // that lock.
    let _beside = match File::open(&beside) {
        Ok(file) => Some(locked(file, path, deadline)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => {
            return Err(Failure::file(format!("cannot lock {}", beside.display()), source));
        }
    };
    loop {
        let mut file = locked(File::open(path).map_err(unreadable)?, path, deadline)?;
        // The file may have been replaced after it was opened.
        let (ours, named) = (file.metadata(), fs::metadata(path));
        let (ours, named) = (ours.map_err(unreadable)?, named.map_err(unreadable)?);
        if (ours.dev(), ours.ino()) == (named.dev(), named.ino()) {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(unreadable)?;
            return Ok(bytes);
        }
    }
}

/// Takes the lock of a file. It is free again when the file is dropped.
fn locked(file: File, path: &Path, deadline: Instant) -> Outcome<File> {
    loop {
        match file.try_lock_shared() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::Locked(format!(
                    "{} is open in another process, perhaps the Go program: end it, or wait for it \
                     with `--wait SECONDS`",
                    path.display()
                )));
            }
            Err(TryLockError::Error(source)) => {
                return Err(Failure::file(format!("cannot lock {}", path.display()), source));
            }
        }
    }
}

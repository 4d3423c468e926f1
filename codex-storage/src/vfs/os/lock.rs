//! Advisory locks of the operating system: flock, where there is one.

use std::fs::{File as StdFile, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;

use super::OsDir;
use crate::sync::Mutex;
use crate::vfs::{Dir, LockGuard, LockKind};

impl OsDir {
    pub(super) fn lock_opened(
        &self,
        name: &str,
        file: StdFile,
        kind: LockKind,
    ) -> io::Result<Tried> {
        let identity = file.metadata()?.ino();
        match try_flock(&file, kind) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Tried::HeldByOther),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let lock = OsLock::new(file, identity);
        let found = self.metadata(name)?;
        let is_named = found.is_some_and(|found| found.identity == identity);
        Ok(if is_named { Tried::Locked(lock) } else { Tried::Renamed })
    }

    /// Locks the file that `open` opens, as long as `name` stands for it.
    pub(super) fn lock_named(
        &self,
        name: &str,
        kind: LockKind,
        open: impl Fn() -> io::Result<StdFile>,
    ) -> io::Result<Option<Box<dyn LockGuard>>> {
        loop {
            match self.lock_opened(name, open()?, kind)? {
                Tried::Locked(lock) => return Ok(Some(Box::new(lock))),
                Tried::HeldByOther => return Ok(None),
                Tried::Renamed => {}
            }
        }
    }
}

/// What came of locking an open file.
#[derive(Debug)]
pub(super) enum Tried {
    Locked(OsLock),
    HeldByOther,
    /// Somebody removed the file between opening and locking: such a lock excludes nobody.
    Renamed,
}

/// A lock of std (flock where there is one). It belongs to the open file, which forked children
/// share: closing one descriptor releases it only if there is no other.
#[derive(Debug)]
pub(super) struct OsLock {
    /// Taken out by [`LockGuard::abandon`] alone, and so never locked while a process forks.
    pub(super) file: Mutex<Option<StdFile>>,
    pub(super) identity: u64,
    /// The process that took the lock, and that alone may release it.
    pub(super) taken_by: u32,
}

impl OsLock {
    fn new(file: StdFile, identity: u64) -> Self {
        Self { file: Mutex::new(Some(file)), identity, taken_by: std::process::id() }
    }

    fn is_copy(&self) -> bool {
        self.taken_by != std::process::id()
    }
}

impl LockGuard for OsLock {
    fn identity(&self) -> u64 {
        self.identity
    }

    fn abandon(&self) {
        if self.is_copy() {
            *self.file.lock() = None;
        }
    }
}

impl Drop for OsLock {
    fn drop(&mut self) {
        if let Some(file) = self.file.lock().take()
            && !self.is_copy()
        {
            // Closing the descriptor, which follows, releases it too, if there is no copy.
            let _ = file.unlock();
        }
    }
}

fn try_flock(file: &StdFile, kind: LockKind) -> Result<(), TryLockError> {
    loop {
        let tried = match kind {
            LockKind::Shared => file.try_lock_shared(),
            LockKind::Exclusive => file.try_lock(),
        };
        match tried {
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            tried => return tried,
        }
    }
}

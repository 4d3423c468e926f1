//! Advisory locks of the operating system, with flock.

use std::fs::{File as StdFile, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;

use super::OsDir;
use crate::sync::Mutex;
use crate::vfs::{Dir, LockGuard, LockKind};

impl OsDir {
    /// Locks the open file `file`, and checks that it still has the name `name`.
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
        // Order: the name is looked up after the lock was taken. A file that lost its name before
        // that would be locked in vain, because another process would lock the new file.
        let found = self.metadata(name)?;
        let is_named = found.is_some_and(|found| found.identity == identity);
        Ok(if is_named { Tried::Locked(lock) } else { Tried::Renamed })
    }

    /// Locks the file that `open` opens, and tries again if `name` refers to another file
    /// afterwards.
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

/// The result of locking an open file.
#[derive(Debug)]
pub(super) enum Tried {
    Locked(OsLock),
    HeldByOther,
    /// The file lost its name between opening and locking. Such a lock excludes no other process.
    Renamed,
}

/// A lock of the standard library (flock). It belongs to the open file, which forked children
/// share: closing a descriptor releases it only if no copy exists.
#[derive(Debug)]
pub(super) struct OsLock {
    /// Taken out only by [`LockGuard::abandon`], so the mutex is never held while a process forks.
    pub(super) file: Mutex<Option<StdFile>>,
    pub(super) identity: u64,
    /// The process that took the lock. Only this process may release it.
    pub(super) taken_by: u32,
}

impl OsLock {
    fn new(file: StdFile, identity: u64) -> Self {
        Self { file: Mutex::new(Some(file)), identity, taken_by: std::process::id() }
    }

    /// Returns whether this is the copy of a forked child.
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
            // Closing the descriptor afterwards also releases the lock, but only if no copy exists.
            let _ = file.unlock();
        }
    }
}

/// Tries to lock `file`, again if a signal interrupts the call.
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

//! The advisory lock of a store: one writer, or any number of readers.

use std::io::{self, ErrorKind};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Access;
use crate::error::{Error, Result};
use crate::names::Names;
use crate::storage::Retired;
use crate::sync::Mutex;
use crate::vfs::{Dir, LockGuard, LockHolder, LockKind, Metadata, Vfs};

/// The held lock of a store. Dropping it releases the lock.
///
/// It consists of two locks. The lock on the lock file, which is never renamed, exists before the
/// store does. The lock on the main file excludes a process that arrives by another path: through a
/// second lock file after the first was removed, or through a second name of the main file. Each
/// file is locked before it takes the name of the store.
#[derive(Debug)]
pub struct StoreLock {
    /// The lock file that a writer has signed. Order: fields are dropped from first to last, and
    /// the signature of this process must not outlive its lock.
    signed: Option<Signed>,
    /// `None` for a reader that may not write in the directory.
    name: Option<Box<dyn LockGuard>>,
    main: Mutex<MainLock>,
}

/// The record of this process in the lock file, for the error of a handle that is refused. Dropping
/// it removes the record.
#[derive(Debug)]
struct Signed {
    dir: Arc<dyn Dir>,
    lock: String,
}

impl Signed {
    fn new(dir: &Arc<dyn Dir>, lock: String) -> Self {
        dir.sign_lock(&lock, true);
        Self { dir: Arc::clone(dir), lock }
    }
}

impl Drop for Signed {
    fn drop(&mut self) {
        self.dir.sign_lock(&self.lock, false);
    }
}

/// The lock on the main file.
#[derive(Debug)]
struct MainLock {
    file: LockedFile,
    /// The lock on the file that will replace the main file, until that file is known to have the
    /// name.
    next: Option<Box<dyn LockGuard>>,
}

/// The state of the lock on one file.
#[derive(Debug)]
enum LockedFile {
    /// There is no main file yet.
    Missing,
    /// The system cannot lock this file.
    Unlockable,
    Locked(Box<dyn LockGuard>),
}

impl StoreLock {
    /// Takes the lock of the store. Waits up to `timeout` for another handle to release it.
    ///
    /// A reader in a directory where the lock file cannot be created or opened takes only a shared
    /// lock on the main file. If that file cannot be locked either, the reader continues without a
    /// lock.
    ///
    /// # Errors
    /// `Locked` if the timeout has passed, `Io` if the lock file cannot be opened or locked.
    pub fn take(vfs: &Vfs, names: &Names, access: Access, timeout: Duration) -> Result<Self> {
        let attempt = || Self::try_take(&*vfs.dir, names, access);
        let (lock, waited) = vfs.clock.wait_for(timeout, attempt)?;
        let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        let Some(mut lock) = lock else {
            let holder = Self::holder(&*vfs.dir, names);
            return Err(Error::Locked { path: vfs.dir.path(names.main()), holder, waited_ms });
        };
        if access == Access::ReadWrite {
            lock.signed = Some(Signed::new(&vfs.dir, names.lock()));
        }
        Ok(lock)
    }

    /// Returns the holder of a lock that was refused, for the error text. Only a writer signs the
    /// lock file, and one that crashed leaves its signature. So the signature counts only if the
    /// file is locked exclusively.
    fn holder(dir: &dyn Dir, names: &Names) -> LockHolder {
        let is_free = |tried: io::Result<Option<_>>| matches!(tried, Ok(Some(_)));
        let lock = names.lock();
        if !is_free(dir.try_lock(&lock, LockKind::Shared)) {
            return dir.lock_signer(&lock).unwrap_or(LockHolder::Unknown);
        }
        // The main file is locked exclusively by a handle that was opened through another name.
        if !is_free(dir.lock_existing(names.main(), LockKind::Shared)) {
            return LockHolder::Unknown;
        }
        LockHolder::Readers
    }

    /// Tries to take both locks. Returns `None` if another handle holds one of them.
    fn try_take(dir: &dyn Dir, names: &Names, access: Access) -> Result<Option<Self>> {
        let kind = match access {
            Access::ReadWrite => LockKind::Exclusive,
            Access::ReadOnly | Access::Follow => LockKind::Shared,
        };
        // Order: the lock file, then the main file. Every process takes them in this order, so that
        // one of two processes always gets both.
        let lock = names.lock();
        let name = match dir.try_lock(&lock, kind) {
            Ok(None) => return Ok(None),
            Ok(guard) => guard,
            Err(e) if access == Access::ReadOnly && can_not_write(e.kind()) => None,
            Err(e) => return Err(Error::io("lock", &dir.path(&lock), e)),
        };
        let main = names.main();
        let file = match dir.lock_existing(main, kind) {
            Ok(None) => return Ok(None),
            Ok(Some(guard)) => LockedFile::Locked(guard),
            Err(e) if e.kind() == ErrorKind::NotFound => LockedFile::Missing,
            // If the file cannot be opened, reading it returns the error, and a restore replaces
            // it.
            Err(e) if is_no_lockable_file(e.kind()) => LockedFile::Unlockable,
            Err(e) => return Err(Error::io("lock", &dir.path(main), e)),
        };
        let main = Mutex::new(MainLock { file, next: None });
        Ok(Some(Self { signed: None, name, main }))
    }

    /// Returns whether any lock is held. None is held by a reader in a read-only directory whose
    /// main file cannot be locked.
    pub(crate) fn is_held(&self) -> bool {
        self.name.is_some() || matches!(self.main.lock().file, LockedFile::Locked(_))
    }

    /// In a forked child, closes the copies of the locks, which could otherwise outlive the parent.
    /// Releases no lock, and does nothing in the process that took the lock.
    pub fn abandon(&self) {
        if let Some(name) = &self.name {
            name.abandon();
        }
        // If a thread of the parent held the mutex during the fork, no thread of the child will
        // ever release it.
        let Some(main) = self.main.try_lock() else { return };
        if let LockedFile::Locked(file) = &main.file {
            file.abandon();
        }
        if let Some(next) = &main.next {
            next.abandon();
        }
    }

    /// Returns whether the locked file is the file that `found` describes, which has the name of
    /// the store now.
    pub(crate) fn is_of(&self, found: Option<Metadata>) -> bool {
        match &self.main.lock().file {
            LockedFile::Missing => found.is_none(),
            LockedFile::Unlockable => found.is_some(),
            LockedFile::Locked(file) => {
                found.is_some_and(|found| found.identity == file.identity())
            }
        }
    }

    /// Returns an error if the file to replace was put there by another process.
    pub(crate) fn may_replace(&self, found: Option<Metadata>) -> io::Result<()> {
        if found.is_none() || self.is_of(found) {
            return Ok(());
        }
        Err(io::Error::new(ErrorKind::AlreadyExists, "another file has taken the store's name"))
    }

    /// Locks the file `temporary`, which will take the name of the store.
    pub(crate) fn lock_next(&self, dir: &dyn Dir, temporary: &str) -> io::Result<()> {
        let next = match dir.lock_existing(temporary, LockKind::Exclusive) {
            Err(e) if e.kind() == ErrorKind::Unsupported => None,
            Err(e) => return Err(e),
            Ok(None) => return Err(ErrorKind::WouldBlock.into()),
            Ok(next) => next,
        };
        self.main.lock().next = next;
        Ok(())
    }

    /// Keeps the lock on the file that replaced the former one. Returns the former file, which is
    /// locked until it is dropped.
    pub(crate) fn go_on_with_next(&self) -> Retired {
        let mut main = self.main.lock();
        let next = main.next.take().map_or(LockedFile::Unlockable, LockedFile::Locked);
        Retired::new(mem::replace(&mut main.file, next))
    }
}

/// Returns whether an error of this kind means that the file cannot be locked.
fn is_no_lockable_file(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unsupported
            | ErrorKind::PermissionDenied
            | ErrorKind::IsADirectory
            | ErrorKind::InvalidInput
    )
}

/// Returns whether an error of this kind means that the directory is read-only.
fn can_not_write(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

#[cfg(test)]
#[cfg(feature = "fault")]
mod tests {
    use std::path::Path;

    use super::*;

    fn vfs() -> (Vfs, Names) {
        (Vfs::mem(1), Names::new("app.db", Path::new("app.db")).unwrap())
    }

    #[test]
    fn a_second_writer_is_refused_until_the_first_lets_go() {
        let (vfs, names) = vfs();
        let take = |access| StoreLock::take(&vfs, &names, access, Duration::ZERO);
        let first = take(Access::ReadWrite).unwrap();
        assert!(first.is_held());
        assert!(matches!(take(Access::ReadWrite), Err(Error::Locked { waited_ms: 0, .. })));
        assert!(matches!(take(Access::ReadOnly), Err(Error::Locked { .. })));
        drop(first);
        let reader = take(Access::ReadOnly).unwrap();
        let _another = take(Access::ReadOnly).unwrap();
        assert!(matches!(take(Access::ReadWrite), Err(Error::Locked { .. })));
        drop(reader);
    }

    #[test]
    fn the_timeout_is_waited_for_and_not_longer() {
        let (vfs, names) = vfs();
        let _held = StoreLock::take(&vfs, &names, Access::ReadWrite, Duration::ZERO).unwrap();
        let start = vfs.clock.monotonic();
        let refused = StoreLock::take(&vfs, &names, Access::ReadWrite, Duration::from_millis(75));
        assert!(matches!(refused, Err(Error::Locked { waited_ms: 75, .. })), "{refused:?}");
        assert_eq!(vfs.clock.monotonic().saturating_sub(start), Duration::from_millis(75));
    }
}

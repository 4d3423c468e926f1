//! The advisory lock of a store: one writer, or any number of readers.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::config::Access;
use crate::error::{Error, Result};
use crate::names::Names;
use crate::sync::Mutex;
use crate::vfs::{Dir, LockGuard, LockKind, Metadata, Vfs};

/// The held lock of a store, released on drop.
///
/// It is two locks. The one on the lock file, which is never renamed, is there before the store
/// is. The one on the main file itself excludes a process that comes by another way: through a
/// second lock file where the first was removed, or through a second name of the main file. Each
/// file that takes the store's name is locked before it has it.
#[derive(Debug)]
pub struct StoreLock {
    /// `None` for a reader who may not write in the folder.
    name: Option<Box<dyn LockGuard>>,
    main: Mutex<MainLock>,
}

/// The lock on the main file.
#[derive(Debug)]
struct MainLock {
    file: LockedFile,
    /// The file that takes its place, until it is known to have its name.
    next: Option<Box<dyn LockGuard>>,
}

#[derive(Debug)]
enum LockedFile {
    /// There is none yet.
    Missing,
    /// The system does not lock such a file.
    Unlockable,
    Locked(Box<dyn LockGuard>),
}

impl StoreLock {
    /// Takes the lock of the store, waiting up to `timeout` for another handle to let it go.
    ///
    /// A reader in a folder where the lock file can not be created or opened shares the lock of
    /// the main file alone, and goes on without any if that can not be locked.
    ///
    /// # Errors
    /// `Locked` when the time is up; `Io` when the lock file can not be had.
    pub fn take(vfs: &Vfs, names: &Names, access: Access, timeout: Duration) -> Result<Self> {
        let attempt = || Self::try_take(&*vfs.dir, names, access);
        let (lock, waited) = vfs.clock.wait_for(timeout, attempt)?;
        let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        lock.ok_or_else(|| Error::Locked { path: vfs.dir.path(names.main()), waited_ms })
    }

    fn try_take(dir: &dyn Dir, names: &Names, access: Access) -> Result<Option<Self>> {
        let kind = match access {
            Access::ReadWrite => LockKind::Exclusive,
            Access::ReadOnly => LockKind::Shared,
        };
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
            // A file that can not be opened is refused when it is read, and a restore replaces it.
            Err(e) if is_no_lockable_file(e.kind()) => LockedFile::Unlockable,
            Err(e) => return Err(Error::io("lock", &dir.path(main), e)),
        };
        Ok(Some(Self { name, main: Mutex::new(MainLock { file, next: None }) }))
    }

    /// Whether there is a lock at all; not so for a reader in an unwritable folder whose main file
    /// can not be locked.
    pub(crate) fn is_held(&self) -> bool {
        self.name.is_some() || matches!(self.main.lock().file, LockedFile::Locked(_))
    }

    /// In a forked child, closes its copies of the locks, which would otherwise outlive the
    /// parent. Releases nothing, and does nothing in the process that took the lock.
    pub fn abandon(&self) {
        if let Some(name) = &self.name {
            name.abandon();
        }
        // A thread of the parent may have held it when the child was forked off: then nobody
        // releases it here.
        let Some(main) = self.main.try_lock() else { return };
        if let LockedFile::Locked(file) = &main.file {
            file.abandon();
        }
        if let Some(next) = &main.next {
            next.abandon();
        }
    }

    /// Whether the file that `found` describes, which has the store's name now, is the one that
    /// is locked.
    pub(crate) fn is_of(&self, found: Option<Metadata>) -> bool {
        match &self.main.lock().file {
            LockedFile::Missing => found.is_none(),
            LockedFile::Unlockable => found.is_some(),
            LockedFile::Locked(file) => {
                found.is_some_and(|found| found.identity == file.identity())
            }
        }
    }

    /// Refuses to replace a file that another process has put in the place of the store.
    pub(crate) fn may_replace(&self, found: Option<Metadata>) -> io::Result<()> {
        if found.is_none() || self.is_of(found) {
            return Ok(());
        }
        Err(io::Error::new(ErrorKind::AlreadyExists, "another file has taken the store's name"))
    }

    /// Locks the file `temporary`, which is about to take the store's name.
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

    /// Lets the lock of the file before go, which has lost the store's name to the next one.
    pub(crate) fn go_on_with_next(&self) {
        let mut main = self.main.lock();
        main.file = main.next.take().map_or(LockedFile::Unlockable, LockedFile::Locked);
    }
}

fn is_no_lockable_file(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unsupported
            | ErrorKind::PermissionDenied
            | ErrorKind::IsADirectory
            | ErrorKind::InvalidInput
    )
}

fn can_not_write(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::vfs::{MemDir, SeededEntropy, SimClock};

    fn vfs() -> (Vfs, Names) {
        let vfs = Vfs {
            dir: Arc::new(MemDir::new()),
            clock: Arc::new(SimClock::new()),
            entropy: Arc::new(SeededEntropy::new(1)),
        };
        (vfs, Names::new("app.db", Path::new("app.db")).unwrap())
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

//! The advisory lock of a store: one writer, or any number of readers.

use std::io::ErrorKind;
use std::time::Duration;

use crate::config::Access;
use crate::error::{Error, Result};
use crate::names::Names;
use crate::vfs::{LockGuard, LockKind, Vfs};

/// The held lock, released on drop.
#[derive(Debug)]
pub(crate) struct StoreLock {
    guard: Option<Box<dyn LockGuard>>,
}

impl StoreLock {
    /// Takes the lock of the store, waiting up to `timeout` for another handle to let it go.
    ///
    /// A reader in a folder where the lock file can not be created or opened goes on without a
    /// lock; [`StoreLock::is_held`] says so.
    ///
    /// # Errors
    /// `Locked` when the time is up; `Io` when the lock file can not be had.
    pub(crate) fn take(
        vfs: &Vfs,
        names: &Names,
        access: Access,
        timeout: Duration,
    ) -> Result<Self> {
        let kind = match access {
            Access::ReadWrite => LockKind::Exclusive,
            Access::ReadOnly => LockKind::Shared,
        };
        let name = names.lock();
        let start = vfs.clock.monotonic();
        let mut pause = PAUSE_MIN;
        loop {
            match vfs.dir.try_lock(&name, kind) {
                Ok(Some(guard)) => return Ok(Self { guard: Some(guard) }),
                Ok(None) => {}
                Err(e) if access == Access::ReadOnly && can_not_write(e.kind()) => {
                    return Ok(Self { guard: None });
                }
                Err(e) => return Err(Error::io("lock", &vfs.dir.path(&name), e)),
            }
            let waited = vfs.clock.monotonic().saturating_sub(start);
            if waited >= timeout {
                let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
                return Err(Error::Locked { path: vfs.dir.path(names.main()), waited_ms });
            }
            vfs.clock.sleep(pause.min(timeout.saturating_sub(waited)));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Whether there is a lock at all; not so for a reader in an unwritable folder.
    pub(crate) fn is_held(&self) -> bool {
        self.guard.is_some()
    }
}

fn can_not_write(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// The first wait between two tries; each further one is twice as long, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// How stale a waiter's view of the lock may be.
const PAUSE_MAX: Duration = Duration::from_millis(20);

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

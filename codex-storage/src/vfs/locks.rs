//! The advisory lock of one simulated file, with the rules of flock.

use std::sync::Arc;

use super::{LockGuard, LockKind};
use crate::sync::Mutex;

/// The holders of the lock on one file. The lock belongs to the file and not to its name, as with
/// flock.
#[derive(Debug, Default)]
pub(crate) struct LockTable {
    held: Mutex<Holders>,
}

impl LockTable {
    /// Takes the lock of the file with this identity, or returns `None` if a holder excludes it.
    pub(crate) fn try_lock(
        self: &Arc<Self>,
        kind: LockKind,
        identity: u64,
    ) -> Option<Box<dyn LockGuard>> {
        let mut held = self.held.lock();
        match kind {
            LockKind::Shared if !held.exclusive => held.shared += 1,
            LockKind::Exclusive if !held.exclusive && held.shared == 0 => held.exclusive = true,
            LockKind::Shared | LockKind::Exclusive => return None,
        }
        Some(Box::new(TableGuard { table: Arc::clone(self), kind, identity }))
    }
}

/// A held lock, released on drop.
#[derive(Debug)]
struct TableGuard {
    table: Arc<LockTable>,
    kind: LockKind,
    identity: u64,
}

impl LockGuard for TableGuard {
    fn identity(&self) -> u64 {
        self.identity
    }
}

impl Drop for TableGuard {
    fn drop(&mut self) {
        let mut held = self.table.held.lock();
        match self.kind {
            LockKind::Shared => held.shared -= 1,
            LockKind::Exclusive => held.exclusive = false,
        }
    }
}

#[derive(Debug, Default)]
struct Holders {
    shared: usize,
    exclusive: bool,
}

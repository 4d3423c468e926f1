//! The advisory lock of one simulated file, with the rules of flock.
#![expect(clippy::disallowed_types, reason = "a leaf lock that is never held across a call")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{LockGuard, LockKind};

/// Who holds the lock of one file. It belongs to the file, not to its name, as with flock.
#[derive(Debug, Default)]
pub(crate) struct LockTable {
    held: Mutex<Held>,
}

impl LockTable {
    pub(crate) fn try_lock(self: &Arc<Self>, kind: LockKind) -> Option<TableGuard> {
        let mut held = self.held();
        match kind {
            LockKind::Shared if !held.exclusive => held.shared += 1,
            LockKind::Exclusive if !held.exclusive && held.shared == 0 => held.exclusive = true,
            LockKind::Shared | LockKind::Exclusive => return None,
        }
        Some(TableGuard { table: Arc::clone(self), kind })
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A held lock, released on drop.
#[derive(Debug)]
pub(crate) struct TableGuard {
    table: Arc<LockTable>,
    kind: LockKind,
}

impl LockGuard for TableGuard {}

impl Drop for TableGuard {
    fn drop(&mut self) {
        let mut held = self.table.held();
        match self.kind {
            LockKind::Shared => held.shared -= 1,
            LockKind::Exclusive => held.exclusive = false,
        }
    }
}

#[derive(Debug, Default)]
struct Held {
    shared: usize,
    exclusive: bool,
}

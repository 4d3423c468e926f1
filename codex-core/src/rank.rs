//! The order of all locks. Debug builds check it each time a lock is taken.
//!
//! A thread may take only a lock with a higher rank than all the locks it holds. While it holds
//! `data`, for reading or writing, it must not call the disk or user code.

#[cfg(all(debug_assertions, feature = "fault"))]
use codex_storage::vfs::Observed;
use codex_storage::vfs::Vfs;

/// The locks in the order in which a thread may take them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// The lock of the ids of one key, held while more are reserved.
    Ids,
    /// The lock of checkpoints: one runs at a time.
    Checkpoint,
    /// The lock of backup rotations: one runs at a time.
    Rotation,
    /// The lock on the disk.
    Persist,
    /// The lock on memory.
    Data,
    /// The lock of the queue of waiting commits, and other locks under which no lock is taken.
    Queue,
}

/// A record that the calling thread holds a lock. Dropping it removes the record.
#[derive(Debug)]
#[must_use]
pub(crate) struct Held {
    #[cfg(debug_assertions)]
    rank: Rank,
}

/// Records that the calling thread is about to take a lock of rank `rank`.
///
/// # Panics
/// In debug builds, if the thread holds a lock of this rank or a higher one.
pub(crate) fn take(rank: Rank) -> Held {
    #[cfg(debug_assertions)]
    {
        checked::take(rank);
        Held { rank }
    }
    #[cfg(not(debug_assertions))]
    {
        let _ = rank;
        Held {}
    }
}

/// Returns the same world. In debug builds with the feature `fault`, each call to the disk asserts
/// that the calling thread does not hold the lock on memory.
#[cfg(all(debug_assertions, feature = "fault"))]
pub(crate) fn watched(world: &Vfs) -> Vfs {
    Observed::vfs(world, |_| leave_memory("a call to the disk"))
}

/// Returns the same world.
#[cfg(not(all(debug_assertions, feature = "fault")))]
pub(crate) fn watched(world: &Vfs) -> Vfs {
    world.clone()
}

/// Records that the calling thread is about to call the disk or user code.
///
/// # Panics
/// In debug builds, if the thread holds `data` or a lock of the rank `Queue`.
pub(crate) fn leave_memory(what: &str) {
    #[cfg(debug_assertions)]
    checked::leave(what, Rank::Data);
    #[cfg(not(debug_assertions))]
    let _ = what;
}

/// Records that the calling thread is about to call code that may use the store.
///
/// # Panics
/// In debug builds, if the thread holds a lock.
pub(crate) fn leave_all(what: &str) {
    #[cfg(debug_assertions)]
    checked::leave(what, Rank::Ids);
    #[cfg(not(debug_assertions))]
    let _ = what;
}

#[cfg(debug_assertions)]
impl Drop for Held {
    fn drop(&mut self) {
        checked::release(self.rank);
    }
}

#[cfg(debug_assertions)]
mod checked {
    use std::cell::RefCell;

    use super::Rank;

    codex_storage::sync::thread_local! {
        #[allow(clippy::missing_const_for_thread_local, reason = "loom's macro takes no const")]
        static HELD: RefCell<Vec<Rank>> = RefCell::new(Vec::new());
    }

    pub(super) fn take(rank: Rank) {
        let _ = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            let highest = held.iter().max().copied();
            assert!(
                highest.is_none_or(|highest| highest < rank),
                "rank check: {rank:?} is taken while {highest:?} is held"
            );
            held.push(rank);
        });
    }

    pub(super) fn release(rank: Rank) {
        let _ = HELD.try_with(|held| {
            let mut held = held.borrow_mut();
            // Locks may be released in any order.
            if let Some(at) = held.iter().rposition(|&other| other == rank) {
                held.remove(at);
            }
        });
    }

    pub(super) fn leave(what: &str, below: Rank) {
        let _ = HELD.try_with(|held| {
            let highest = held.borrow().iter().max().copied();
            assert!(
                highest.is_none_or(|highest| highest < below),
                "rank check: {what} while {highest:?} is held"
            );
        });
    }
}

#[cfg(all(test, debug_assertions, not(loom)))]
mod tests {
    use codex_storage::vfs::Vfs;

    use super::{Rank, leave_all, leave_memory, take, watched};

    #[test]
    fn the_order_of_all_ranks_is_accepted_and_may_be_taken_again_after_release() {
        for _ in 0..2 {
            let _all = [
                Rank::Ids,
                Rank::Checkpoint,
                Rank::Rotation,
                Rank::Persist,
                Rank::Data,
                Rank::Queue,
            ]
            .map(take);
        }
        let _persist = take(Rank::Persist);
        leave_memory("a write of a group");
    }

    #[test]
    #[should_panic(expected = "rank check: Persist is taken while Some(Data) is held")]
    fn persist_after_data_is_caught() {
        let _data = take(Rank::Data);
        let _persist = take(Rank::Persist);
    }

    #[test]
    #[should_panic(expected = "rank check: Data is taken while Some(Data) is held")]
    fn data_within_data_is_caught() {
        let _data = take(Rank::Data);
        let _again = take(Rank::Data);
    }

    #[test]
    #[should_panic(expected = "rank check: a call to the disk while Some(Data) is held")]
    fn a_call_to_the_disk_under_data_is_caught() {
        let world = watched(&Vfs::mem(1));
        let _data = take(Rank::Data);
        let _ = world.dir.list();
    }

    #[test]
    #[should_panic(expected = "rank check: a user's closure while Some(Data) is held")]
    fn user_code_under_data_is_caught() {
        let _data = take(Rank::Data);
        leave_memory("a user's closure");
    }

    #[test]
    #[should_panic(expected = "rank check: a waker while Some(Ids) is held")]
    fn a_waker_under_a_lock_is_caught() {
        let _ids = take(Rank::Ids);
        leave_all("a waker");
    }
}

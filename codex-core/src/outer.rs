//! The outer locks: those that a thread holds while it commits or waits for the disk. They are the
//! locks of ids, of checkpoints and of rotations.
//!
//! A commit wakes tasks, and a waker is code of the user, which may use the store. A thread that
//! holds an outer lock calls the wakers after it has released the lock, because a waker that needs
//! the same lock would wait for its own thread.

use std::cell::RefCell;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::task::Waker;

use codex_storage::sync::{Mutex, MutexGuard};

use crate::promise;
use crate::rank::{self, Held, Rank};

/// A held outer lock. Dropping it releases the lock, and then wakes the tasks that the thread has
/// answered meanwhile.
#[must_use]
pub(crate) struct Outer<'a, T> {
    // Order: declared in the order of the release. The wakers are called last, under no lock.
    guard: MutexGuard<'a, T>,
    _held: Held,
    _wakes: WakesLater,
}

/// Waits for the outer lock `mutex` of rank `rank` and takes it.
pub(crate) fn lock<T>(rank: Rank, mutex: &Mutex<T>) -> Outer<'_, T> {
    // Order: check the rank before the wait. A forbidden order panics instead of blocking forever.
    let held = rank::take(rank);
    Outer { guard: mutex.lock(), _held: held, _wakes: WakesLater::begin() }
}

impl<T> Deref for Outer<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Outer<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// Keeps `waker` for later if the calling thread holds an outer lock. Otherwise returns it, to be
/// called now.
pub(crate) fn keep(waker: Waker) -> Option<Waker> {
    let mut waker = Some(waker);
    // A thread that is ending may have dropped its list already. It holds no outer lock then.
    let _ = KEPT.try_with(|kept| {
        let mut kept = kept.borrow_mut();
        if kept.locks > 0 {
            kept.wakers.extend(waker.take());
        }
    });
    waker
}

/// The wakers that a thread calls after it has released its outer locks.
#[derive(Default)]
struct Kept {
    /// The number of outer locks that the thread holds.
    locks: usize,
    wakers: Vec<Waker>,
}

/// Makes the calling thread keep its wakers until it is dropped.
struct WakesLater;

impl WakesLater {
    fn begin() -> Self {
        let _ = KEPT.try_with(|kept| kept.borrow_mut().locks += 1);
        Self
    }
}

impl Drop for WakesLater {
    fn drop(&mut self) {
        let end = |kept: &RefCell<Kept>| {
            let mut kept = kept.borrow_mut();
            kept.locks -= 1;
            // Outer locks can be nested: the last one that is released wakes.
            if kept.locks == 0 { mem::take(&mut kept.wakers) } else { Vec::new() }
        };
        promise::wake(KEPT.try_with(end).unwrap_or_default());
    }
}

codex_storage::sync::thread_local! {
    #[allow(clippy::missing_const_for_thread_local, reason = "loom's macro takes no const")]
    static KEPT: RefCell<Kept> = RefCell::new(Kept::default());
}

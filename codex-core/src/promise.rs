//! A value that a future waits for, and the waker of the task that polls the future.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};

use codex_storage::sync::Mutex;

use crate::outer;
use crate::rank::{self, Rank};

/// A value that one thread gives and one task waits for.
pub(crate) struct Promise<T>(Mutex<Slot<T>>);

struct Slot<T> {
    value: Option<T>,
    /// The waker of the last poll.
    waker: Option<Waker>,
}

impl<T> Promise<T> {
    /// Returns a promise without a value.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Slot { value: None, waker: None }))
    }

    /// Returns the value and takes it. If there is none yet, stores the waker of `context`, which
    /// replaces that of an earlier poll.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Poll<T> {
        let waker = context.waker();
        let known = self.locked(|slot| {
            let is_known = slot.waker.as_ref().is_some_and(|stored| stored.will_wake(waker));
            (slot.value.take(), is_known)
        });
        match known {
            (Some(value), _) => return Poll::Ready(value),
            (None, true) => return Poll::Pending,
            (None, false) => {}
        }
        // Order: clone the waker before the lock is taken again, and drop the replaced one after it
        // is released. Both are code of the executor.
        let waker = waker.clone();
        let (value, _replaced) = self.locked(|slot| match slot.value.take() {
            // The value was given in between, and has not woken this waker.
            Some(value) => (Poll::Ready(value), Some(waker)),
            None => (Poll::Pending, slot.waker.replace(waker)),
        });
        value
    }

    /// Stores the value. Returns the waker of the task, which the caller passes to [`wake`] after
    /// it has released its locks.
    #[must_use]
    pub(crate) fn give(&self, value: T) -> Option<Waker> {
        self.locked(|slot| {
            slot.value = Some(value);
            slot.waker.take()
        })
    }

    fn locked<R>(&self, f: impl FnOnce(&mut Slot<T>) -> R) -> R {
        let _rank = rank::take(Rank::Queue);
        f(&mut self.0.lock())
    }
}

/// Wakes tasks, or has them woken after the calling thread has released its [outer](outer) locks.
/// The thread holds no other lock, because a waker is code of the executor and may use the store.
pub(crate) fn wake(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers.into_iter().filter_map(outer::keep) {
        rank::leave_all("a waker");
        // A waker that panics keeps no other task from being woken.
        let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
    }
}

/// Does not show the value, which may contain one of the store.
impl<T> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Promise")
    }
}

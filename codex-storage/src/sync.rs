//! The one place where locks, waits and threads come from, so that what the model checker proves
//! is the code that runs.
//!
//! Normally these are thin newtypes over std and crossbeam; under `--cfg loom` the same names stand
//! for loom's primitives. crossbeam's sharded lock and parker have no loom build: there a plain
//! lock and a condition variable take their place, and crossbeam's own are trusted.
//!
//! A lock whose holder panicked is entered all the same: what a panic may leave behind is the
//! business of the code that holds the lock (the leader of a commit poisons the store by name).
#![expect(
    clippy::disallowed_types,
    reason = "this is the module that everybody else takes them from"
)]

use std::fmt;
use std::sync::PoisonError;
use std::time::Duration;

#[cfg(not(loom))]
use std::sync as imp;

#[cfg(loom)]
use loom::sync as imp;

#[cfg(not(loom))]
use crossbeam::sync::{
    ShardedLock as ReadMostly, ShardedLockReadGuard as ReadMostlyReadGuard,
    ShardedLockWriteGuard as ReadMostlyWriteGuard,
};
#[cfg(loom)]
use loom::sync::{
    RwLock as ReadMostly, RwLockReadGuard as ReadMostlyReadGuard,
    RwLockWriteGuard as ReadMostlyWriteGuard,
};

#[cfg(loom)]
pub use loom::thread_local;
#[cfg(not(loom))]
pub use std::thread_local;

/// Atomic integers that the model checker sees.
pub mod atomic {
    #[cfg(loom)]
    pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    #[cfg(not(loom))]
    pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
}

/// Threads that the model checker sees.
pub mod thread {
    use std::io;

    #[cfg(loom)]
    use loom::thread as imp;
    #[cfg(not(loom))]
    use std::thread as imp;

    pub use imp::{JoinHandle, current, yield_now};

    /// Starts a thread under `name`.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub fn spawn<T: Send + 'static>(
        name: &str,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        imp::Builder::new().name(name.to_owned()).spawn(f)
    }
}

/// Mutual exclusion.
pub struct Mutex<T>(imp::Mutex<T>);

/// Holds a [`Mutex`]; dropping it releases the lock.
pub type MutexGuard<'a, T> = imp::MutexGuard<'a, T>;

impl<T> Mutex<T> {
    /// A free lock around `value`.
    pub fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    /// Waits for the lock and takes it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock if nobody holds it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

/// Many readers or one writer; reading is cheap and scales over threads, writing is dearer.
pub struct RwLock<T>(ReadMostly<T>);

/// Holds a [`RwLock`] to read; dropping it releases the lock.
pub type RwLockReadGuard<'a, T> = ReadMostlyReadGuard<'a, T>;
/// Holds a [`RwLock`] to write; dropping it releases the lock.
pub type RwLockWriteGuard<'a, T> = ReadMostlyWriteGuard<'a, T>;

impl<T> RwLock<T> {
    /// A free lock around `value`.
    pub fn new(value: T) -> Self {
        Self(ReadMostly::new(value))
    }

    /// Waits until nobody writes.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody reads or writes.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RwLock")
    }
}

/// Lets a holder of a [`Mutex`] wait for a change of what it guards.
#[derive(Debug, Default)]
pub struct Condvar(imp::Condvar);

impl Condvar {
    /// Nobody waits yet.
    pub fn new() -> Self {
        Self(imp::Condvar::new())
    }

    /// Releases the lock, waits for a notification (or for nothing: test the condition again), and
    /// takes the lock again.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`wait`](Self::wait), at most about `limit`. Under loom time stands still: it waits for
    /// a notification.
    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> MutexGuard<'a, T> {
        self.0.wait_timeout(guard, limit).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Wakes one waiter, if there is one.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all waiters.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

pub use parking::{Parker, Unparker, with_parker};

#[cfg(not(loom))]
mod parking {
    use std::rc::Rc;

    use crossbeam::sync::{Parker as Imp, Unparker as ImpUnparker};

    std::thread_local! {
        static PARKER: Rc<Parker> = Rc::new(Parker(Imp::new()));
    }

    /// Calls `f` with the calling thread's parker. A token of an earlier use may be left in it.
    pub fn with_parker<R>(f: impl FnOnce(&Parker) -> R) -> R {
        // A thread that is ending may have lost its own already.
        let parker = PARKER.try_with(Rc::clone).unwrap_or_else(|_| Rc::new(Parker(Imp::new())));
        f(&parker)
    }

    /// Where a thread waits for a token of its [`Unparker`]s.
    #[derive(Debug)]
    pub struct Parker(Imp);

    /// Hands a token to a waiting thread.
    #[derive(Debug, Clone)]
    pub struct Unparker(ImpUnparker);

    impl Parker {
        /// Waits for the token and takes it; several tokens count as one.
        pub fn park(&self) {
            self.0.park();
        }

        /// What wakes this thread.
        pub fn unparker(&self) -> Unparker {
            Unparker(self.0.unparker().clone())
        }
    }

    impl Unparker {
        /// Puts the token there, which wakes the thread.
        pub fn unpark(&self) {
            self.0.unpark();
        }
    }
}

#[cfg(loom)]
mod parking {
    use std::sync::Arc;

    use super::{Condvar, Mutex};

    /// Calls `f` with a parker.
    pub fn with_parker<R>(f: impl FnOnce(&Parker) -> R) -> R {
        f(&Parker(Arc::new((Mutex::new(false), Condvar::new()))))
    }

    /// Where a thread waits for a token of its [`Unparker`]s.
    #[derive(Debug)]
    pub struct Parker(Arc<(Mutex<bool>, Condvar)>);

    /// Hands a token to a waiting thread.
    #[derive(Debug, Clone)]
    pub struct Unparker(Arc<(Mutex<bool>, Condvar)>);

    impl Parker {
        /// Waits for the token and takes it; several tokens count as one.
        pub fn park(&self) {
            let (token, changed) = &*self.0;
            let mut token = token.lock();
            while !*token {
                token = changed.wait(token);
            }
            *token = false;
        }

        /// What wakes this thread.
        pub fn unparker(&self) -> Unparker {
            Unparker(self.0.clone())
        }
    }

    impl Unparker {
        /// Puts the token there, which wakes the thread.
        pub fn unpark(&self) {
            let (token, changed) = &*self.0;
            *token.lock() = true;
            changed.notify_one();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::{Mutex, RwLock, thread, with_parker};

    #[test]
    fn a_lock_whose_holder_panicked_is_entered() {
        let both = Arc::new((Mutex::new(1), RwLock::new(2)));
        let theirs = both.clone();
        let panicked = thread::spawn("panics", move || {
            let _one = theirs.0.lock();
            let _two = theirs.1.write();
            panic!("while holding both");
        })
        .unwrap();
        assert!(panicked.join().is_err());
        assert_eq!((*both.0.lock(), *both.1.read()), (1, 2));
    }

    #[test]
    fn a_token_handed_over_before_the_wait_is_not_lost() {
        with_parker(|parker| {
            parker.unparker().unpark();
            parker.park();
        });
    }
}

//! All locks, waits, atomics and threads of the crates, so that the model checker runs the same
//! code as a release.
//!
//! Normally these are thin newtypes over std and crossbeam-utils. Under `--cfg loom` the same names
//! are newtypes over the primitives of loom. The sharded lock and the parker of crossbeam have no
//! loom build: there a plain lock and a condition variable replace them, and those of crossbeam are
//! trusted.
//!
//! A lock can be taken even if an earlier holder panicked. The code that holds the lock must handle
//! the state that a panic leaves (the leader of a commit, for example, poisons the store).
#![expect(
    clippy::disallowed_types,
    reason = "this is the module from which all other modules take them"
)]

use std::fmt;
use std::sync::PoisonError;
use std::time::Duration;

#[cfg(not(loom))]
use std::sync as imp;

#[cfg(loom)]
use loom::sync as imp;

#[cfg(not(loom))]
use crossbeam_utils::sync::{
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

/// Atomic integers that the model checker observes.
pub mod atomic {
    #[cfg(loom)]
    pub use loom::sync::atomic::{
        AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
    #[cfg(not(loom))]
    pub use std::sync::atomic::{
        AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering,
    };
}

/// Threads that the model checker observes.
pub mod thread {
    use std::any::Any;
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};
    use std::thread::{Builder, Scope};

    #[cfg(loom)]
    use loom::thread as imp;
    #[cfg(not(loom))]
    use std::thread as imp;

    pub use imp::{Thread, current, yield_now};
    /// Returns whether the calling thread unwinds.
    pub use std::thread::panicking;
    /// Runs threads that may borrow, and joins them. loom has no such threads: they are std's in
    /// the models too, whose stores are too small to start one.
    pub use std::thread::scope;

    /// Starts a thread with the name `name`.
    ///
    /// # Errors
    /// Returns the error of the system if it cannot create another thread.
    pub fn spawn<T: Send + 'static>(
        name: &str,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        spawn_boxed(name, Box::new(f))
    }

    /// Starts a thread of a [`scope`] with the name `name`.
    ///
    /// # Errors
    /// Returns the error of the system if it cannot create another thread.
    pub fn spawn_scoped<'scope>(
        scope: &'scope Scope<'scope, '_>,
        name: &str,
        f: impl FnOnce() + Send + 'scope,
    ) -> io::Result<()> {
        start_scoped(scope, name, Box::new(f))
    }

    /// The thread of a [`spawn`]. It runs on if this is dropped.
    #[derive(Debug)]
    pub struct JoinHandle<T> {
        thread: imp::JoinHandle<()>,
        /// Is set when the function has returned. It is std's in the models too, where the join
        /// orders it.
        result: Arc<Mutex<Option<T>>>,
    }

    impl<T> JoinHandle<T> {
        /// Returns the thread.
        pub fn thread(&self) -> &Thread {
            self.thread.thread()
        }

        /// Waits for the end of the thread, and returns the result of its function.
        ///
        /// # Errors
        /// Returns the payload if the function panicked.
        pub fn join(self) -> Result<T, Box<dyn Any + Send>> {
            self.thread.join()?;
            let result = self.result.lock().unwrap_or_else(PoisonError::into_inner).take();
            Ok(result.expect("a thread that has ended without a panic has set its result"))
        }
    }

    fn spawn_boxed<T: Send + 'static>(
        name: &str,
        f: Box<dyn FnOnce() -> T + Send>,
    ) -> io::Result<JoinHandle<T>> {
        let result = Arc::new(Mutex::new(None));
        let theirs = Arc::clone(&result);
        let work = move || {
            let result = f();
            *theirs.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        };
        Ok(JoinHandle { thread: start(name, Box::new(work))?, result })
    }

    /// std compiles much code for each function that it starts, so this function, which is not
    /// generic, starts all.
    fn start(name: &str, f: Box<dyn FnOnce() + Send>) -> io::Result<imp::JoinHandle<()>> {
        imp::Builder::new().name(name.to_owned()).spawn(f)
    }

    /// Does the same for a [`scope`].
    fn start_scoped<'scope>(
        scope: &'scope Scope<'scope, '_>,
        name: &str,
        f: Box<dyn FnOnce() + Send + 'scope>,
    ) -> io::Result<()> {
        Builder::new().name(name.to_owned()).spawn_scoped(scope, f).map(drop)
    }
}

/// Channels between threads. They are std's in the models too, where no thread waits for one.
///
/// The code of a channel is compiled for each type of its messages, with all kinds of channels, and
/// is long.
pub use std::sync::mpsc as channel;

/// A lock for mutual exclusion.
pub struct Mutex<T>(imp::Mutex<T>);

/// The guard of a [`Mutex`]. Dropping it releases the lock.
pub type MutexGuard<'a, T> = imp::MutexGuard<'a, T>;

impl<T> Mutex<T> {
    /// Creates a free lock around `value`.
    pub fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    /// Waits for the lock and takes it, even if an earlier holder panicked.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock and returns its guard, or returns `None` if the lock is held.
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

/// A lock for many readers or one writer. Reading is cheap and scales with the number of threads;
/// writing is more expensive.
pub struct RwLock<T>(ReadMostly<T>);

/// The read guard of a [`RwLock`]. Dropping it releases the lock.
pub type RwLockReadGuard<'a, T> = ReadMostlyReadGuard<'a, T>;
/// The write guard of a [`RwLock`]. Dropping it releases the lock.
pub type RwLockWriteGuard<'a, T> = ReadMostlyWriteGuard<'a, T>;

impl<T> RwLock<T> {
    /// Creates a free lock around `value`.
    pub fn new(value: T) -> Self {
        Self(ReadMostly::new(value))
    }

    /// Waits until no thread holds the lock for writing, and takes it for reading.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no thread holds the lock, and takes it for writing.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RwLock")
    }
}

/// A condition variable: the holder of a [`Mutex`] waits until another thread has changed the
/// value.
#[derive(Debug, Default)]
pub struct Condvar(imp::Condvar);

impl Condvar {
    /// Creates a condition variable without waiters.
    pub fn new() -> Self {
        Self(imp::Condvar::new())
    }

    /// Releases the lock, waits for a notification and takes the lock again. It can also return
    /// without a notification, so the caller must test its condition again.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Like [`wait`](Self::wait), but returns after about `limit` at the latest. Under loom no time
    /// passes, so it waits for a notification.
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

pub use parking::{Parker, Unparker, spin_until, with_parker};

#[cfg(not(loom))]
mod parking {
    use std::rc::Rc;
    use std::sync::LazyLock;

    use crossbeam_utils::sync::{Parker as Imp, Unparker as ImpUnparker};

    std::thread_local! {
        static PARKER: Rc<Parker> = Rc::new(Parker(Imp::new()));
    }

    /// Calls `is_done` up to `limit` times, until it returns true. Gives the processor a hint that
    /// it waits. Does nothing if there is one processor, on which nothing changes meanwhile.
    pub fn spin_until(limit: u32, mut is_done: impl FnMut() -> bool) {
        if *IS_ALONE {
            return;
        }
        for _ in 0..limit {
            if is_done() {
                return;
            }
            std::hint::spin_loop();
        }
    }

    /// Whether there is one processor.
    static IS_ALONE: LazyLock<bool> =
        LazyLock::new(|| std::thread::available_parallelism().is_ok_and(|count| count.get() == 1));

    /// Calls `f` with the parker of the calling thread. The parker may still have a token of an
    /// earlier use.
    pub fn with_parker<R>(f: impl FnOnce(&Parker) -> R) -> R {
        // While a thread ends, its thread-local parker may already be destroyed.
        let parker = PARKER.try_with(Rc::clone).unwrap_or_else(|_| Rc::new(Parker(Imp::new())));
        f(&parker)
    }

    /// Lets a thread wait for a token from one of its [`Unparker`]s.
    #[derive(Debug)]
    pub struct Parker(Imp);

    /// Hands a token to a waiting thread.
    #[derive(Debug, Clone)]
    pub struct Unparker(ImpUnparker);

    impl Parker {
        /// Waits for the token and takes it. Several tokens count as one.
        pub fn park(&self) {
            self.0.park();
        }

        /// Returns a handle that wakes the thread waiting here.
        pub fn unparker(&self) -> Unparker {
            Unparker(self.0.unparker().clone())
        }
    }

    impl Unparker {
        /// Makes the token available, which wakes the thread.
        pub fn unpark(&self) {
            self.0.unpark();
        }
    }
}

#[cfg(loom)]
mod parking {
    use std::sync::Arc;

    use super::{Condvar, Mutex};

    /// Does nothing: the model checker has no use for a loop that waits.
    pub fn spin_until(_limit: u32, _is_done: impl FnMut() -> bool) {}

    /// Calls `f` with a new parker.
    pub fn with_parker<R>(f: impl FnOnce(&Parker) -> R) -> R {
        f(&Parker(Arc::new((Mutex::new(false), Condvar::new()))))
    }

    /// Lets a thread wait for a token from one of its [`Unparker`]s.
    #[derive(Debug)]
    pub struct Parker(Arc<(Mutex<bool>, Condvar)>);

    /// Hands a token to a waiting thread.
    #[derive(Debug, Clone)]
    pub struct Unparker(Arc<(Mutex<bool>, Condvar)>);

    impl Parker {
        /// Waits for the token and takes it. Several tokens count as one.
        pub fn park(&self) {
            let (token, changed) = &*self.0;
            let mut token = token.lock();
            while !*token {
                token = changed.wait(token);
            }
            *token = false;
        }

        /// Returns a handle that wakes the thread waiting here.
        pub fn unparker(&self) -> Unparker {
            Unparker(self.0.clone())
        }
    }

    impl Unparker {
        /// Makes the token available, which wakes the thread.
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

//! The wait of one thread for its outcome or the lead.

use codex_storage::sync::atomic::{AtomicBool, Ordering};
use codex_storage::sync::{Mutex, Parker, Unparker, spin_until};

use super::queue::Wake;

/// The place at which a thread waits for its outcome or the lead.
pub(super) struct Seat {
    wake: Mutex<Option<Wake>>,
    /// Whether `wake` was set: a hint for a thread that spins, which does not disturb the mutex.
    is_given: AtomicBool,
    unparker: Unparker,
}

impl Seat {
    pub(super) fn new(parker: &Parker) -> Self {
        let (wake, unparker) = (Mutex::new(None), parker.unparker());
        Self { wake, is_given: AtomicBool::new(false), unparker }
    }

    /// Waits for the outcome or the lead, with the parker with which the thread entered. Looks up
    /// to `spins` times before it parks: parking and waking a thread takes longer than a group that
    /// is not synced.
    pub(super) fn wait(&self, parker: &Parker, spins: u32) -> Wake {
        spin_until(spins, || self.is_given.load(Ordering::Relaxed));
        loop {
            if let Some(wake) = self.wake.lock().take() {
                return wake;
            }
            // A wakeup without a result is possible, so the loop checks again.
            parker.park();
        }
    }

    /// Ends the wait of the thread and wakes it.
    pub(super) fn give(&self, wake: Wake) {
        // Order: set before the unpark. A waiter that wakes and finds nothing parks again.
        *self.wake.lock() = Some(wake);
        self.is_given.store(true, Ordering::Relaxed);
        self.unparker.unpark();
    }
}

/// The number of times that a waiter looks for its outcome before it parks: for some 20
/// microseconds, a few times what a group without a sync takes.
pub(super) const SPINS: u32 = 1000;

//! The time by which entries expire.

use codex_storage::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use codex_storage::vfs::Clock;

/// The latest time by which an entry was hidden, in microseconds since 1970. It follows the clock,
/// and does not go back with it, so that no expired entry is shown again.
///
/// A clock that goes back by more than [`CLOCK_BACK_US_MAX`] is believed: the earlier time was
/// wrong, and would hide all new entries until the store is opened again.
#[derive(Debug)]
pub(super) struct Horizon {
    last_us: AtomicI64,
    steps_back: AtomicU64,
}

impl Horizon {
    /// Returns a horizon that begins with the time `floor_us`.
    pub(super) fn new(floor_us: i64) -> Self {
        Self { last_us: AtomicI64::new(floor_us), steps_back: AtomicU64::new(0) }
    }

    /// Returns the time, which hides everything that it has ever hidden.
    pub(super) fn now_us(&self, clock: &dyn Clock) -> i64 {
        let clock_us = clock.now_us();
        let mut last_us = self.last_us.load(Ordering::Relaxed);
        loop {
            let back_us = last_us.saturating_sub(clock_us);
            if (0..=CLOCK_BACK_US_MAX).contains(&back_us) {
                return last_us;
            }
            let moved = self.last_us.compare_exchange_weak(
                last_us,
                clock_us,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match moved {
                Ok(_) => {
                    self.steps_back.fetch_add(u64::from(back_us > 0), Ordering::Relaxed);
                    return clock_us;
                }
                Err(other_us) => last_us = other_us,
            }
        }
    }

    /// Moves the time forward to `time_us`, by which another node of a shared store has decided.
    #[cfg(feature = "shared")]
    pub(super) fn reach(&self, time_us: i64) {
        self.last_us.fetch_max(time_us, Ordering::Relaxed);
    }

    /// Returns true if the time is `time_us` or later.
    pub(super) fn has_passed(&self, time_us: i64, clock: &dyn Clock) -> bool {
        // An answer that hides nothing need not be remembered. So readers of entries that live do
        // not write to one shared place.
        let is_before = |now_us| now_us < time_us && self.last_us.load(Ordering::Relaxed) < time_us;
        // The exact time is needed only for entries that expire soon.
        if is_before(clock.coarse_us().saturating_add(COARSE_US_MAX)) {
            return false;
        }
        !is_before(clock.now_us()) && self.now_us(clock) >= time_us
    }

    /// Returns how often the clock went back by so much that it was believed.
    pub(super) fn steps_back(&self) -> u64 {
        self.steps_back.load(Ordering::Relaxed)
    }
}

/// The longest time by which the coarse time may be behind the exact one, in microseconds.
const COARSE_US_MAX: i64 = 1_000_000;
/// The longest time by which the clock may go back without being believed, in microseconds.
const CLOCK_BACK_US_MAX: i64 = 3600 * 1_000_000;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use codex_storage::vfs::{Clock, SimClock};

    use super::{CLOCK_BACK_US_MAX, COARSE_US_MAX, Horizon};

    /// A clock whose coarse time is as late as it may be. Counts how often the exact one is asked
    /// for.
    #[derive(Debug)]
    struct Late(SimClock, AtomicUsize);

    impl Clock for Late {
        fn now_us(&self) -> i64 {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.now_us()
        }

        fn coarse_us(&self) -> i64 {
            self.0.now_us() - COARSE_US_MAX
        }

        fn monotonic(&self) -> Duration {
            self.0.monotonic()
        }

        fn sleep(&self, duration: Duration) {
            self.0.sleep(duration);
        }
    }

    #[test]
    fn a_coarse_time_answers_for_what_expires_late_and_the_exact_one_for_the_rest() {
        let clock = SimClock::new();
        let at_us = clock.now_us() + 10 * COARSE_US_MAX;
        let horizon = Horizon::new(clock.now_us());
        let late = Late(clock.clone(), AtomicUsize::new(0));
        assert!(!horizon.has_passed(at_us, &late));
        assert_eq!(late.1.load(Ordering::Relaxed), 0);
        clock.set_now_us(at_us - 1);
        assert!(!horizon.has_passed(at_us, &late));
        clock.set_now_us(at_us);
        assert!(horizon.has_passed(at_us, &late));
        // What was hidden stays hidden.
        clock.set_now_us(at_us - 5 * COARSE_US_MAX);
        assert!(horizon.has_passed(at_us, &late) && !horizon.has_passed(at_us + 1, &late));
    }

    #[test]
    fn a_clock_that_goes_back_is_held_for_an_hour_and_believed_beyond() {
        let clock = SimClock::new();
        let start = clock.now_us();
        let horizon = Horizon::new(start);
        clock.set_now_us(start + 5);
        assert_eq!(horizon.now_us(&clock), start + 5);
        clock.set_now_us(start + 5 - CLOCK_BACK_US_MAX);
        assert_eq!((horizon.now_us(&clock), horizon.steps_back()), (start + 5, 0));
        assert!(horizon.has_passed(start + 5, &clock) && !horizon.has_passed(start + 6, &clock));
        clock.set_now_us(start + 4 - CLOCK_BACK_US_MAX);
        let believed = start + 4 - CLOCK_BACK_US_MAX;
        assert!(!horizon.has_passed(start + 5, &clock));
        assert_eq!((horizon.now_us(&clock), horizon.steps_back()), (believed, 1));
        clock.set_now_us(i64::MIN);
        assert_eq!((horizon.now_us(&clock), horizon.steps_back()), (i64::MIN, 2));
        clock.set_now_us(i64::MAX);
        assert_eq!((horizon.now_us(&clock), horizon.steps_back()), (i64::MAX, 2));
    }
}

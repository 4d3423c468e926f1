//! Clocks: the clock of the operating system, and a clock that a test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Clock;
#[cfg(target_os = "linux")]
use super::os;

/// The clock of the operating system.
#[derive(Debug, Clone, Copy)]
pub struct OsClock {
    start: Instant,
}

impl OsClock {
    /// Returns a clock whose monotonic time starts now.
    pub fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the seam that the lint points to")]
        Self { start: Instant::now() }
    }
}

impl Default for OsClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for OsClock {
    fn now_us(&self) -> i64 {
        #[expect(clippy::disallowed_methods, reason = "this is the seam that the lint points to")]
        let now = SystemTime::now();
        unix_us(now)
    }

    /// Returns the time of the last tick of the kernel, which is a few milliseconds ago.
    #[cfg(target_os = "linux")]
    fn coarse_us(&self) -> i64 {
        os::tick_us()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) {
        #[expect(clippy::disallowed_methods, reason = "this is the seam that the lint points to")]
        std::thread::sleep(duration);
    }
}

/// A simulated clock, whose time changes only if it is advanced or slept on. Clones share the time.
///
/// It starts at 2001-09-09 01:46:40 UTC (one billion seconds after 1970).
#[derive(Debug, Clone)]
pub struct SimClock {
    time: Arc<SimTime>,
}

impl SimClock {
    /// Returns a new clock that shares its time with no other.
    pub fn new() -> Self {
        let start_us = AtomicI64::new(1_000_000_000_000_000);
        Self { time: Arc::new(SimTime { wall_us: start_us, monotonic_ns: AtomicU64::new(0) }) }
    }

    /// Advances the wall time and the monotonic time by `duration`.
    pub fn advance(&self, duration: Duration) {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let later = |now: i64| Some(now.saturating_add(micros));
        let _ = self.time.wall_us.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
        let later = |now: u64| Some(now.saturating_add(nanos));
        let _ = self.time.monotonic_ns.fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
    }

    /// Sets the wall time, as an administrator can, also backwards. The monotonic time does not
    /// change.
    pub fn set_now_us(&self, now_us: i64) {
        self.time.wall_us.store(now_us, Ordering::SeqCst);
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SimClock {
    fn now_us(&self) -> i64 {
        self.time.wall_us.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.time.monotonic_ns.load(Ordering::SeqCst))
    }

    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}

#[derive(Debug)]
struct SimTime {
    wall_us: AtomicI64,
    monotonic_ns: AtomicU64,
}

/// Returns `time` in microseconds since 1970; negative before.
pub(crate) fn unix_us(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |us| -us),
    }
}

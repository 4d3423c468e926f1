//! The background threads: one syncs by interval, one checkpoints when the log has outgrown the
//! image. They own no handle on the store, so that they end when its last one is dropped.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use codex_storage::Error;
use codex_storage::sync::atomic::{AtomicBool, Ordering};
use codex_storage::sync::thread::{self, JoinHandle};
use codex_storage::sync::{Condvar, Mutex};
use codex_storage::vfs::Clock;

use crate::commit::Noticed;
use crate::engine::Shared;

/// What the background threads wait for.
#[derive(Default)]
pub(crate) struct Signal {
    /// There are commits to sync.
    unsynced: AtomicBool,
    /// The log has outgrown the image, or a checkpoint for that reason is running.
    outgrown: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The store closes.
    stopped: bool,
    /// When the oldest commit was made that the next sync is for.
    unsynced_since: Duration,
}

impl Signal {
    /// Passes on what a leader noticed; costs nothing if it has been passed on before. Returns
    /// whether it is news that the log has outgrown the image.
    pub(crate) fn notice(&self, noticed: Noticed, clock: &dyn Clock) -> bool {
        let news = |new: bool, flag: &AtomicBool| new && !flag.load(Ordering::Relaxed);
        let unsynced = news(noticed.unsynced, &self.unsynced);
        let outgrown = news(noticed.wants_checkpoint, &self.outgrown);
        if !unsynced && !outgrown {
            return false;
        }
        // Under the lock, so that a thread between its look and its wait does not miss it.
        let mut state = self.state.lock();
        if unsynced && !self.unsynced.swap(true, Ordering::Relaxed) {
            state.unsynced_since = clock.monotonic();
        }
        let outgrown = outgrown && !self.outgrown.swap(true, Ordering::Relaxed);
        self.changed.notify_all();
        outgrown
    }

    /// Forgets that the log has outgrown the image, so that the next commit tells of it again.
    pub(crate) fn take_back_outgrown(&self) {
        self.outgrown.store(false, Ordering::Relaxed);
    }

    /// Whether the store closes.
    pub(crate) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Ends both threads.
    pub(crate) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Waits until `flag` is set, without clearing it, and returns since when there have been
    /// commits to sync; `None` if the store closes.
    fn wait_for(&self, flag: &AtomicBool) -> Option<Duration> {
        let mut state = self.state.lock();
        while !state.stopped && !flag.load(Ordering::Relaxed) {
            state = self.changed.wait(state);
        }
        (!state.stopped).then_some(state.unsynced_since)
    }

    /// Waits until `clock` shows `until`; returns false if the store closes.
    fn wait_until(&self, until: Duration, clock: &dyn Clock) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return false;
            }
            let left = until.saturating_sub(clock.monotonic());
            if left.is_zero() {
                return true;
            }
            state = self.changed.wait_timeout(state, left.min(WAIT_MAX));
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signal")
    }
}

/// Starts the thread that syncs `pause` after the oldest commit that is not durable was made.
pub(crate) fn sync_by_interval(
    shared: Arc<Shared>,
    pause: Duration,
) -> std::io::Result<JoinHandle<()>> {
    thread::spawn("codexdb-sync", move || {
        let (signal, clock) = (shared.signal(), shared.clock());
        let mut unwinding = Unwinding { shared: &shared, ended: false };
        let mut retry = None;
        while let Some(since) = signal.wait_for(&signal.unsynced) {
            // The interval counts from the commit, not from the end of the sync before: a late
            // sync does not make the next one late.
            let until = retry.map_or(since.saturating_add(pause), |retry| {
                clock.monotonic().saturating_add(pause.min(retry))
            });
            if !signal.wait_until(until, clock) {
                break;
            }
            // Order: before the sync. What is committed from now on may not be part of it.
            signal.unsynced.store(false, Ordering::Relaxed);
            retry = match shared.tick() {
                // Writes are refused from now on, or there will be none.
                Err(Error::Poisoned { .. } | Error::InDoubt { .. } | Error::Closed { .. }) => break,
                // The image failed. Commits wait for it: try again soon, however long the interval.
                Err(_) => {
                    signal.unsynced.store(true, Ordering::Relaxed);
                    Some(retry_after(retry.unwrap_or_default()))
                }
                Ok(()) => None,
            };
        }
        unwinding.ended = true;
    })
}

/// Starts the thread that checkpoints when the log has outgrown the image.
pub(crate) fn checkpoint_when_outgrown(shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    thread::spawn("codexdb-checkpoint", move || {
        let (signal, clock) = (shared.signal(), shared.clock());
        let mut pause = Duration::ZERO;
        while signal.wait_for(&signal.outgrown).is_some()
            && signal.wait_until(clock.monotonic().saturating_add(pause), clock)
        {
            pause = match shared.checkpoint() {
                Err(Error::Poisoned { .. } | Error::InDoubt { .. } | Error::Closed { .. }) => break,
                // A full disk stays full for a while.
                Err(_) => retry_after(pause),
                Ok(_) => Duration::ZERO,
            };
            signal.outgrown.store(false, Ordering::Relaxed);
            // Order: after that. The log may have outgrown the new image too, and a commit that
            // found the flag set has told nobody.
            if shared.wants_checkpoint() {
                signal.outgrown.store(true, Ordering::Relaxed);
            }
        }
    })
}

/// Refuses writes if the thread that syncs unwinds: nothing would keep the promise of their level.
struct Unwinding<'a> {
    shared: &'a Shared,
    ended: bool,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.poison("the thread that syncs by interval panicked");
        }
    }
}

/// The pause after another image that failed, `pause` after the one before.
fn retry_after(pause: Duration) -> Duration {
    pause.saturating_mul(2).clamp(RETRY_FIRST, RETRY_LAST)
}

/// The pause after an image that failed; it doubles with each further one.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest pause between images that fail.
const RETRY_LAST: Duration = Duration::from_mins(1);
/// The longest single wait of a pause. Not every system can wait for ever.
const WAIT_MAX: Duration = Duration::from_hours(1);

//! The background threads. One syncs by interval, and one writes a checkpoint if the log has
//! outgrown the image. Each starts when there is work for it, and ends when the store closes.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use codex_storage::storage::{Storage, SyncPoint};
use codex_storage::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use codex_storage::sync::thread::{self, JoinHandle};
use codex_storage::sync::{Condvar, Mutex};
use codex_storage::vfs::Clock;
use codex_storage::{Error, Result};

use super::Engine;
use super::queue::Admission;
use super::sweep::sweep_loop;

/// The background work that a group has made due.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct GroupEffects {
    /// Whether the log has outgrown the image.
    pub(super) wants_checkpoint: bool,
    /// Whether there are commits that are not durable yet.
    pub(super) unsynced: bool,
    /// The earliest expiry of an entry, in microseconds since 1970.
    pub(super) deadline_us: Option<i64>,
}

/// The handles of the started threads.
#[derive(Debug, Default)]
pub(super) struct Threads {
    sync: Option<JoinHandle<()>>,
    checkpoint: Option<JoinHandle<()>>,
    sweep: Option<JoinHandle<()>>,
    pub(super) follow: Option<JoinHandle<()>>,
}

impl Engine {
    /// Wakes the threads for the work that is due after a group.
    pub(super) fn notice(&self, effects: GroupEffects) {
        if self.background && effects.deadline_us.is_some_and(|first| self.signal.expires(first)) {
            // If the system cannot start the thread, a later commit tries again. Until then expired
            // entries are hidden and take up memory.
            let started = self.start_thread(|threads| &mut threads.sweep, sweep_loop);
            if started.is_err() {
                self.signal.forget_deadline();
            }
        }
        if self.background && self.signal.notice(effects, &*self.clock) {
            // If the system cannot start a thread, the next commit tries again.
            if self.start_thread(|threads| &mut threads.checkpoint, checkpoint_loop).is_err() {
                self.signal.forget_outgrown();
            }
        }
    }

    /// Starts the thread that syncs, before the first commit that needs it. Without the thread, the
    /// commit would be acknowledged and never synced.
    pub(super) fn start_syncing(&self) -> Result<()> {
        let Some(pause) = self.sync_pause.filter(|_| self.background) else { return Ok(()) };
        if self.is_syncing.load(Ordering::Relaxed) {
            return Ok(());
        }
        let start = |engine| sync_loop(engine, pause);
        self.start_thread(|threads| &mut threads.sync, start).map_err(|e| self.no_thread(e))?;
        self.is_syncing.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Runs one step of syncing by interval. Writers continue during the sync.
    ///
    /// # Errors
    /// The errors of [`flush`](Self::flush).
    pub fn tick(&self) -> Result<()> {
        let (point, wants_image) = self.exclusive(Admission::WhileOpen, |disk| {
            let point = disk.storage().sync_point()?;
            let stats = disk.storage().stats();
            let wants_image = point.is_none() && stats.durable < stats.seq;
            Ok((point, wants_image))
        })?;
        self.finish_sync(point)?;
        // Without a sync point, only an image makes the commits durable.
        if wants_image {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Runs a sync beside the commits, and records its outcome.
    pub(super) fn finish_sync(&self, point: Option<SyncPoint>) -> Result<()> {
        let Some(point) = point else { return Ok(()) };
        // Order: the lock on the disk is released before the sync, and taken again after it to
        // record the outcome. Writers continue during the sync.
        let outcome = point.sync();
        let failed = outcome.as_ref().err().cloned();
        self.exclusive(Admission::ToFinish, |disk| disk.storage().synced(outcome))?;
        failed.map_or(Ok(()), Err)
    }

    /// Returns the error of a thread that the system could not start.
    pub(super) fn no_thread(&self, source: io::Error) -> Error {
        let (path, source) = (self.path.clone(), Arc::new(source));
        Error::Io { action: "start a thread for", path, source }
    }

    /// Waits for the background threads, which were told to end.
    pub(super) fn join_threads(&self) {
        let Threads { sync, checkpoint, sweep, follow } = mem::take(&mut *self.threads.lock());
        [sync, checkpoint, sweep, follow].into_iter().flatten().for_each(join);
    }

    /// Starts a thread and stores its handle, if it was not started before and the store is open.
    pub(super) fn start_thread(
        &self,
        slot: impl FnOnce(&mut Threads) -> &mut Option<JoinHandle<()>>,
        start: impl FnOnce(Arc<Self>) -> io::Result<JoinHandle<()>>,
    ) -> io::Result<()> {
        let own = self.own.upgrade().expect("the caller has the engine");
        let mut threads = self.threads.lock();
        let slot = slot(&mut threads);
        // Order: check under the lock of the threads. A close sets the stop flag before it takes
        // the handles, so it joins each thread that was started.
        if slot.is_none() && !self.signal.is_stopped() {
            *slot = Some(start(own)?);
        }
        Ok(())
    }
}

/// The flags that wake the background threads.
pub(super) struct Signal {
    /// The time at which the thread that sweeps wakes, in microseconds since 1970.
    sweep_at_us: AtomicI64,
    /// Whether there are commits to sync.
    unsynced: AtomicBool,
    /// Whether the log has outgrown the image, or a checkpoint for that reason is running.
    outgrown: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

impl Default for Signal {
    fn default() -> Self {
        Self {
            sweep_at_us: AtomicI64::new(i64::MAX),
            unsynced: AtomicBool::new(false),
            outgrown: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::default(),
        }
    }
}

#[derive(Default)]
struct State {
    /// Whether the store closes.
    stopped: bool,
    /// The time of the oldest commit that is not durable, by the monotonic clock.
    unsynced_since: Duration,
}

impl Signal {
    /// Signals the work that is due. Does nothing if it was signalled before. Returns true if it is
    /// new that the log has outgrown the image.
    fn notice(&self, effects: GroupEffects, clock: &dyn Clock) -> bool {
        // Without the lock first, because this runs after each group and mostly finds nothing new.
        let news = |new: bool, flag: &AtomicBool| new && !flag.load(Ordering::Relaxed);
        let unsynced = news(effects.unsynced, &self.unsynced);
        let outgrown = news(effects.wants_checkpoint, &self.outgrown);
        if !unsynced && !outgrown {
            return false;
        }
        // Order: set the flags under the lock. A thread between its check and its wait does not
        // miss them.
        let mut state = self.state.lock();
        if unsynced && !self.unsynced.swap(true, Ordering::Relaxed) {
            state.unsynced_since = clock.monotonic();
        }
        let outgrown = outgrown && !self.outgrown.swap(true, Ordering::Relaxed);
        self.changed.notify_all();
        outgrown
    }

    /// Signals the earliest expiry of an entry. Returns true if it is earlier than the time at
    /// which the thread that sweeps would wake.
    fn expires(&self, first_us: i64) -> bool {
        // Without the lock first, because this runs after each group while entries expire.
        if first_us >= self.sweep_at_us.load(Ordering::Relaxed) {
            return false;
        }
        let state = self.state.lock();
        self.sweep_at_us.fetch_min(first_us, Ordering::Relaxed);
        self.changed.notify_all();
        drop(state);
        true
    }

    /// Clears the expiry, so that the next commit signals it again.
    fn forget_deadline(&self) {
        self.sweep_at_us.store(i64::MAX, Ordering::Relaxed);
    }

    /// Waits until `now_us` shows the earliest expiry. Returns false if the store closes.
    pub(super) fn wait_for_deadline(
        &self,
        first_us: impl Fn() -> Option<i64>,
        now_us: impl Fn() -> i64,
    ) -> bool {
        // Order: clear the signal before the entries are read. An earlier expiry that is committed
        // meanwhile is signalled again.
        self.forget_deadline();
        if let Some(first_us) = first_us() {
            self.sweep_at_us.fetch_min(first_us, Ordering::Relaxed);
        }
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return false;
            }
            let at_us = self.sweep_at_us.load(Ordering::Relaxed);
            state = if at_us == i64::MAX {
                self.changed.wait(state)
            } else {
                let left_us = at_us.saturating_sub(now_us());
                if left_us <= 0 {
                    return true;
                }
                // The clock may be set forward, so no wait is long.
                let left = Duration::from_micros(left_us.unsigned_abs());
                self.changed.wait_timeout(state, left.min(CLOCK_LOOKED_AT))
            };
        }
    }

    /// Clears the signal that the log has outgrown the image, so that the next commit sets it
    /// again.
    fn forget_outgrown(&self) {
        self.outgrown.store(false, Ordering::Relaxed);
    }

    /// Returns true if the store closes.
    pub(super) fn is_stopped(&self) -> bool {
        self.state.lock().stopped
    }

    /// Tells both threads to end.
    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Waits until `flag` is set, without clearing it. Returns the time of the oldest commit that
    /// is not durable, or `None` if the store closes.
    fn wait_for(&self, flag: &AtomicBool) -> Option<Duration> {
        let mut state = self.state.lock();
        while !state.stopped && !flag.load(Ordering::Relaxed) {
            state = self.changed.wait(state);
        }
        (!state.stopped).then_some(state.unsynced_since)
    }

    /// Waits for at most `pause` of real time. Returns false if the store closes.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let state = self.state.lock();
        !state.stopped && !self.changed.wait_timeout(state, pause).stopped
    }

    /// Waits until `clock` shows `until`. Returns false if the store closes.
    pub(super) fn wait_until(&self, until: Duration, clock: &dyn Clock) -> bool {
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

/// Starts the thread that syncs. It waits for `pause` after the oldest commit that is not durable.
fn sync_loop(engine: Arc<Engine>, pause: Duration) -> io::Result<JoinHandle<()>> {
    thread::spawn("codexdb-sync", move || {
        let (signal, clock) = (&engine.signal, &*engine.clock);
        let mut unwinding = Unwinding { engine: &engine, ended: false };
        let mut retry = None;
        while let Some(since) = signal.wait_for(&signal.unsynced) {
            // The interval counts from the commit, not from the end of the previous sync, so that a
            // late sync does not delay the next one.
            let until = retry.map_or(since.saturating_add(pause), |retry| {
                clock.monotonic().saturating_add(pause.min(retry))
            });
            if !signal.wait_until(until, clock) {
                break;
            }
            // Order: clear the flag before the sync. A commit that is made after this line may not
            // be part of the sync.
            signal.unsynced.store(false, Ordering::Relaxed);
            retry = match engine.tick() {
                // All later writes are refused, so there is nothing more to sync.
                Err(Error::Poisoned { .. } | Error::InDoubt { .. } | Error::Closed { .. }) => break,
                // The image failed, and commits wait for it. Try again soon, even if the interval
                // is long.
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

/// Starts the thread that writes a checkpoint if the log has outgrown the image.
fn checkpoint_loop(engine: Arc<Engine>) -> io::Result<JoinHandle<()>> {
    thread::spawn("codexdb-checkpoint", move || {
        let (signal, clock) = (&engine.signal, &*engine.clock);
        let mut pause = Duration::ZERO;
        while signal.wait_for(&signal.outgrown).is_some()
            && signal.wait_until(clock.monotonic().saturating_add(pause), clock)
        {
            // The flag stays set during the checkpoint, so that commits do not wake this thread
            // again.
            pause = match engine.checkpoint() {
                Err(Error::Poisoned { .. } | Error::InDoubt { .. } | Error::Closed { .. }) => break,
                // Wait before the next attempt: a full disk stays full for some time.
                Err(_) => retry_after(pause),
                Ok(_) => Duration::ZERO,
            };
            signal.outgrown.store(false, Ordering::Relaxed);
            // Order: check the counter after the flag is cleared. The log may have outgrown the new
            // image too, and a commit that found the flag set has not woken this thread.
            if engine.queue.lock().counters.wants_checkpoint {
                signal.outgrown.store(true, Ordering::Relaxed);
            }
        }
    })
}

/// Makes the store refuse writes if the thread that syncs unwinds, because later commits would
/// never become durable.
struct Unwinding<'a> {
    engine: &'a Engine,
    ended: bool,
}

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.engine.refuse_writes("the thread that syncs by interval panicked");
        }
    }
}

/// Makes the commits in the log of `storage` durable.
pub(super) fn sync(storage: &mut dyn Storage) -> Result<()> {
    let Some(point) = storage.sync_point()? else { return Ok(()) };
    let outcome = point.sync();
    let failed = outcome.as_ref().err().cloned();
    storage.synced(outcome)?;
    failed.map_or(Ok(()), Err)
}

/// Waits for the end of a thread of the engine, unless the caller runs on it: a waker may close the
/// store, or drop its last handle, on a thread that has made a commit.
pub(super) fn join(thread: JoinHandle<()>) {
    if thread.thread().id() != thread::current().id() {
        // A panic of the thread was already printed, and there is nothing left to undo.
        let _ = thread.join();
    }
}

/// Returns the pause after a failed image, if the pause before it was `pause`.
pub(super) fn retry_after(pause: Duration) -> Duration {
    pause.saturating_mul(2).clamp(RETRY_FIRST, RETRY_LAST)
}

/// The pause after the first failed image. It doubles after each further one.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// The longest pause between attempts to write an image.
const RETRY_LAST: Duration = Duration::from_secs(60);
/// The longest wait for an expiry before the clock is looked at again.
const CLOCK_LOOKED_AT: Duration = Duration::from_secs(60);
/// The longest single wait. Not every system can wait for an unlimited time.
const WAIT_MAX: Duration = Duration::from_secs(3600);

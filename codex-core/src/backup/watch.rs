//! The thread that makes backups: its wake-ups, and its pauses after a failure.

use std::mem;
use std::time::Duration;

use codex_backup::{BackupPolicy, Event};
use codex_storage::sync::{Condvar, Mutex};

use super::scheduler::Shared;
use crate::engine::Engine;

/// The wake-ups of the thread.
#[derive(Default)]
pub(super) struct Alarm {
    /// Whether the thread was woken and has not taken the wake-up yet.
    woken: Mutex<bool>,
    changed: Condvar,
}

impl Alarm {
    /// Wakes the thread, so that it looks again whether a backup is due.
    pub(super) fn wake(&self) {
        if !mem::replace(&mut *self.woken.lock(), true) {
            self.changed.notify_one();
        }
    }

    /// Ends the waits of the thread. The caller has set that the store closes.
    pub(super) fn end(&self) {
        // Order: the lock is taken after that is set. The thread, which asks for it with the lock
        // held, either sees it or is waiting now.
        drop(self.woken.lock());
        self.changed.notify_one();
    }

    /// Waits for a wake-up and takes it, or returns `false` after about `limit` at the latest, or
    /// when the store closes. It can also return `false` earlier.
    fn wait(&self, shared: &Shared, limit: Option<Duration>) -> bool {
        let mut woken = self.woken.lock();
        if !*woken && !shared.is_stopping() {
            woken = match limit {
                Some(limit) => self.changed.wait_timeout(woken, limit),
                None => self.changed.wait(woken),
            };
        }
        mem::take(&mut woken)
    }

    /// Waits until `pause` has passed on the clock of the store. Returns `false` if the store
    /// closes. A wake-up is left for later.
    fn sleep(&self, shared: &Shared, pause: Duration) -> bool {
        let until = shared.clock().monotonic().saturating_add(pause);
        let mut woken = self.woken.lock();
        while !shared.is_stopping() {
            let left = until.saturating_sub(shared.clock().monotonic());
            if left.is_zero() {
                return true;
            }
            // A timeout is not the end: a simulated clock may have another speed.
            woken = self.changed.wait_timeout(woken, left);
        }
        false
    }
}

/// Returns whether the policy asks for automatic backups.
pub(super) fn acts_by_itself(policy: BackupPolicy) -> bool {
    policy.every_commits.is_some()
        || policy.every.is_some()
        || policy.on_checkpoint
        || policy.on_open
}

/// Makes a backup each time the policy asks for one, until the store closes. The body of the
/// thread.
pub(super) fn run(shared: &Shared, engine: &Engine) {
    let Some(policy) = shared.policy() else { return };
    shared.look_back(engine);
    // The first look counts as the opening. Later events come from the wake-ups.
    let mut event = Event::Open;
    let mut pause = RETRY_FIRST;
    while !shared.is_stopping() {
        if event != Event::Open && shared.has_new_checkpoint(engine) {
            event = Event::Checkpoint;
        }
        if let Some(Err(_)) = shared.rotate_if_due(engine, event) {
            // The backup stays due. A commit does not shorten the pause, because the next attempt
            // would cost as much, and is likely to fail too.
            if !shared.alarm.sleep(shared, pause) {
                return;
            }
            let longest = if shared.is_required() { RETRY_LAST_REQUIRED } else { RETRY_LAST };
            pause = (2 * pause).min(longest);
            continue;
        }
        pause = RETRY_FIRST;
        let wait = shared.wait(engine, policy).map(|wait| wait.max(WAIT_MIN));
        // Order: the wake-up is taken before the next look, so that a commit after that look wakes
        // the thread again.
        event = if shared.alarm.wait(shared, wait) { Event::Commit } else { Event::Tick };
    }
}

/// The minimum wait. Without it, a clock that does not advance would keep the thread busy.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// The first pause after a failed rotation. Each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The maximum pause after a failed rotation.
const RETRY_LAST: Duration = Duration::from_secs(60);
/// The maximum pause if writes are refused until a backup succeeds.
const RETRY_LAST_REQUIRED: Duration = Duration::from_secs(1);

//! The thread that makes backups: its wake-ups, and its pauses after a failure.

use std::time::Duration;

use codex_backup::{Event, Policy};
use codex_storage::sync::channel::{Receiver, RecvTimeoutError, after, never, select};
use codex_storage::vfs::Clock;

use super::scheduler::Shared;
use crate::engine::Engine;

/// The wake-ups of the thread.
pub(super) struct Wakeups {
    /// A commit or a checkpoint was made that it waits for.
    pub(super) woken: Receiver<()>,
    /// Disconnected when the store closes.
    pub(super) closed: Receiver<()>,
}

/// Whether a policy asks for backups that are not made by hand.
pub(super) fn acts_by_itself(policy: Policy) -> bool {
    policy.every_commits.is_some()
        || policy.every.is_some()
        || policy.on_checkpoint
        || policy.on_open
}

/// Rotates whenever the policy asks for it, until the store closes.
pub(super) fn run(shared: &Shared, engine: &Engine, wakeups: &Wakeups) {
    let Some(policy) = shared.policy() else { return };
    shared.look_back(engine);
    let mut event = Event::Open;
    let mut pause = RETRY_FIRST;
    loop {
        shared.awake();
        if event != Event::Open && shared.has_new_checkpoint(engine) {
            event = Event::Checkpoint;
        }
        if let Some(Err(_)) = shared.rotate_if_due(engine, event) {
            // What was due stays due, and no commit hurries it: the next attempt would cost as
            // much and most likely fail as well.
            if !wakeups.sleep(pause, shared.clock()) {
                return;
            }
            let longest = if shared.is_required() { RETRY_LAST_REQUIRED } else { RETRY_LAST };
            pause = (2 * pause).min(longest);
            continue;
        }
        pause = RETRY_FIRST;
        let wait = shared.wait(engine, policy).map(|wait| wait.max(WAIT_MIN));
        event = match wakeups.next(wait) {
            Some(event) if !shared.is_stopping() => event,
            _ => return,
        };
    }
}

impl Wakeups {
    /// Waits until `pause` is over by `clock`; returns false if the store closes.
    fn sleep(&self, pause: Duration, clock: &dyn Clock) -> bool {
        let until = clock.monotonic().saturating_add(pause);
        loop {
            let left = until.saturating_sub(clock.monotonic());
            if left.is_zero() {
                return true;
            }
            if self.closed.recv_timeout(left) == Err(RecvTimeoutError::Disconnected) {
                return false;
            }
        }
    }

    /// Returns the first event; `None` if the store closes.
    fn next(&self, wait: Option<Duration>) -> Option<Event> {
        let over = wait.map_or_else(never, after);
        select! {
            recv(self.closed) -> _ => None,
            recv(self.woken) -> _ => Some(Event::Commit),
            recv(over) -> _ => Some(Event::Tick),
        }
    }
}

/// The shortest sleep: a clock that stands still would keep the thread running.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// The first wait after a failed rotation; each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest wait after a failed rotation.
const RETRY_LAST: Duration = Duration::from_mins(1);
/// The longest one while writes are refused until a backup succeeds.
const RETRY_LAST_REQUIRED: Duration = Duration::from_secs(1);

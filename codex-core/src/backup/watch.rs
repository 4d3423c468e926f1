//! The thread that makes backups: its wake-ups, and its pauses after a failure.

use std::time::Duration;

use codex_backup::{BackupPolicy, Event};
use codex_storage::sync::channel::{Receiver, RecvTimeoutError, after, never, select};
use codex_storage::vfs::Clock;

use super::scheduler::Shared;
use crate::engine::Engine;

/// The wake-ups of the thread.
pub(super) struct Wakeups {
    /// Receives a message if a commit or a checkpoint was made that the thread waits for.
    pub(super) woken: Receiver<()>,
    /// Is disconnected when the store closes.
    pub(super) closed: Receiver<()>,
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
pub(super) fn run(shared: &Shared, engine: &Engine, wakeups: &Wakeups) {
    let Some(policy) = shared.policy() else { return };
    shared.look_back(engine);
    // The first look counts as the opening. Later events come from the channels.
    let mut event = Event::Open;
    let mut pause = RETRY_FIRST;
    loop {
        // Order: the wake-up is taken before the look, so that a commit after the look wakes the
        // thread again.
        shared.awake();
        if event != Event::Open && shared.has_new_checkpoint(engine) {
            event = Event::Checkpoint;
        }
        if let Some(Err(_)) = shared.rotate_if_due(engine, event) {
            // The backup stays due. A commit does not shorten the pause, because the next attempt
            // would cost as much, and is likely to fail too.
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
    /// Waits until `pause` has passed on `clock`. Returns `false` if the store closes.
    fn sleep(&self, pause: Duration, clock: &dyn Clock) -> bool {
        let until = clock.monotonic().saturating_add(pause);
        loop {
            let left = until.saturating_sub(clock.monotonic());
            if left.is_zero() {
                return true;
            }
            // A timeout of the channel is not the end: a simulated clock may have another speed.
            if self.closed.recv_timeout(left) == Err(RecvTimeoutError::Disconnected) {
                return false;
            }
        }
    }

    /// Waits for the next event, or until `wait` has passed. Returns `None` if the store closes.
    fn next(&self, wait: Option<Duration>) -> Option<Event> {
        let over = wait.map_or_else(never, after);
        select! {
            recv(self.closed) -> _ => None,
            recv(self.woken) -> _ => Some(Event::Commit),
            recv(over) -> _ => Some(Event::Tick),
        }
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

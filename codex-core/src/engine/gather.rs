//! The wait of a leader for the threads that the group before its own has woken.
//!
//! The lead passes on before the members of a group wake up. Without this wait, the threads that
//! write in a loop fall into two halves: while the disk works for one half, the other half waits
//! for it. Where a group takes much longer than waking its members, waiting for them puts all of
//! them into one group, which makes about twice as many commits in the same time.

use std::time::Duration;

use super::Engine;
use super::commit::Disk;

impl Engine {
    /// Waits for the members of the group before, if it pays. Returns the time at which the group
    /// of the caller begins, if groups of this store wait for a disk.
    ///
    /// The disk is locked meanwhile. A checkpoint that needs it waits as long.
    pub(super) fn gather(&self, disk: &Disk) -> Option<Duration> {
        if self.groups_at_once > 0 {
            return None;
        }
        if !disk.took.is_zero() {
            self.queue.gather(self.group_target, disk.took);
        }
        Some(self.now())
    }
}

/// What a leader must know to wait for the members of the last group.
#[derive(Debug)]
pub(super) struct Gather {
    /// The number of requests that wait beside the leader once all members of the last group have
    /// come back.
    wanted: usize,
    /// Whether a leader waits for them.
    is_waiting: bool,
    /// The number of waits in a row in which fewer than half of them came back.
    misses: u32,
    /// The number of groups to make before the next wait.
    pause: u32,
    /// The longest wait.
    limit: Duration,
}

impl Gather {
    /// Records a group of `members`, with `waiting` other requests behind it.
    pub(super) fn made(&mut self, members: usize, waiting: usize) {
        self.wanted = (waiting + members).saturating_sub(1);
    }

    /// Begins a wait of a leader behind which `waiting` requests wait. The last group `took` this
    /// time on the disk. Returns the limit of the wait, or `None` if waiting does not pay.
    pub(super) fn begin(&mut self, waiting: usize, took: Duration) -> Option<Duration> {
        let missing = u32::try_from(self.wanted.saturating_sub(waiting)).unwrap_or(u32::MAX);
        let limit = (took / PART).min(self.limit);
        if missing == 0 || limit < RETURN.saturating_mul(missing) {
            return None;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return None;
        }
        self.is_waiting = true;
        Some(limit)
    }

    /// Returns true if a leader waits, and all came back.
    pub(super) fn is_complete(&self, waiting: usize) -> bool {
        self.is_waiting && waiting >= self.wanted
    }

    /// Ends a wait that began with `before` requests, now that `waiting` wait.
    pub(super) fn end(&mut self, before: usize, waiting: usize) {
        self.is_waiting = false;
        // Writers that do other work between two writes do not come back at once. The waits for
        // them become rare.
        let is_hit = waiting.saturating_sub(before) * 2 >= self.wanted - before;
        self.misses = if is_hit { 0 } else { (self.misses + 1).min(MISSES_MAX) };
        self.pause = (1 << self.misses) - 1;
    }
}

impl Default for Gather {
    fn default() -> Self {
        Self { wanted: 0, is_waiting: false, misses: 0, pause: 0, limit: LIMIT }
    }
}

/// The part of the time of a group for which the next leader waits at most.
const PART: u32 = 4;
/// The time in which a thread wakes up and enters again, on two processors that the threads share.
/// A leader that has not that much time for each of them would wait in vain.
const RETURN: Duration = Duration::from_micros(3);
/// The longest wait.
const LIMIT: Duration = Duration::from_millis(5);
/// The number of misses from which on waits become no rarer: one in 64 groups.
const MISSES_MAX: u32 = 6;

#[cfg(all(test, not(loom)))]
mod tests;

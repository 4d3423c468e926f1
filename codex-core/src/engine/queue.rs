//! The queue of all that touches the disk: which thread leads, which ones wait, what is refused.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use codex_storage::batch::GROUP_LEN_TARGET;
use codex_storage::storage::StorageStats;
use codex_storage::sync::{Mutex, MutexGuard, Parker, Unparker};
use codex_storage::{Error, Result};

use super::overdue::Overdue;
use crate::commit::{Commit, Outcome};
use crate::rank::{self, Held, Rank};

/// The queue. Everything that touches the disk enters it and has its turn in the order of
/// entering, so that nothing starves. One mutex guards the waiters, the lead and the admission.
pub(super) struct Queue {
    state: Mutex<State>,
}

/// The conditions under which a request is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Refused if the store closes or is poisoned.
    WhileOpen,
    /// The end of a sync or a checkpoint that has begun: refused only if the store is closed. The
    /// storage knows what may still be written.
    ToFinish,
    /// The close itself: never refused by a poisoned store.
    ToClose,
}

/// The reason why a request is refused.
pub(super) enum Refusal {
    Closed,
    Poisoned(Arc<str>),
    /// Earlier commits wait for an image, which failed with this error.
    Overdue(Error),
}

/// The end of a wait in the queue.
pub(super) enum Wake {
    /// Another thread has led the commit; or it unwound, for every kind of request.
    Done(Result<Outcome>),
    /// The thread leads now, with its own commit, if it came with one.
    Lead(Option<Commit>),
}

/// A request that waits for its turn.
pub(super) struct Waiter {
    /// `None` for a request that uses the disk alone.
    pub(super) commit: Option<Commit>,
    pub(super) ticket: Arc<Ticket>,
    /// The encoded length of the commit.
    len: usize,
}

/// The state under the queue's mutex.
#[derive(Default)]
pub(super) struct State {
    waiting: VecDeque<Waiter>,
    leading: bool,
    closing: bool,
    closed: bool,
    poisoned: Option<Arc<str>>,
    pub(super) overdue: Overdue,
    pub(super) counters: Counters,
}

/// Figures that the leaders count.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    pub(super) storage: StorageStats,
    /// The log has outgrown the image.
    pub(super) wants_checkpoint: bool,
    pub(super) commits: u64,
    pub(super) group_commits_max: u64,
    pub(super) data_hold_ns_max: u64,
}

/// The queue's mutex, held.
pub(super) struct StateGuard<'a> {
    state: MutexGuard<'a, State>,
    _held: Held,
}

impl Queue {
    /// Returns an open queue. `storage` is shown in the statistics until the first group; `limit`
    /// is the longest time that a commit may wait for an image that makes it durable.
    pub(super) fn new(storage: StorageStats, limit: Option<Duration>) -> Self {
        let counters = Counters { storage, ..Counters::default() };
        let overdue = Overdue::new(limit);
        Self { state: Mutex::new(State { overdue, counters, ..State::default() }) }
    }

    pub(super) fn lock(&self) -> StateGuard<'_> {
        let held = rank::take(Rank::Queue);
        StateGuard { state: self.state.lock(), _held: held }
    }

    /// Enters the queue. Returns at once if no thread leads: the caller does. Otherwise waits with
    /// `parker` until another leader has made the commit, or hands over the lead.
    ///
    /// # Errors
    /// The refusal, if `admission` or commits that are overdue `now` demand one.
    pub(super) fn enter(
        &self,
        admission: Admission,
        commit: Option<Commit>,
        parker: &Parker,
        now: impl FnOnce() -> Duration,
    ) -> Result<Wake, Refusal> {
        let len = commit.as_ref().map_or(0, Commit::encoded_len);
        let mut state = self.lock();
        state.admit(admission, commit.as_ref(), now)?;
        if !state.leading {
            state.leading = true;
            return Ok(Wake::Lead(commit));
        }
        let ticket = Arc::new(Ticket { wake: Mutex::new(None), unparker: parker.unparker() });
        state.waiting.push_back(Waiter { commit, ticket: ticket.clone(), len });
        drop(state);
        Ok(ticket.wait(parker))
    }
}

impl State {
    fn admit(
        &self,
        admission: Admission,
        commit: Option<&Commit>,
        now: impl FnOnce() -> Duration,
    ) -> Result<(), Refusal> {
        let while_open = admission == Admission::WhileOpen;
        if self.closed || (self.closing && while_open) {
            return Err(Refusal::Closed);
        }
        if let Some(reason) = self.poisoned.as_ref().filter(|_| while_open) {
            return Err(Refusal::Poisoned(reason.clone()));
        }
        // A commit that only removes can make room for the image: the leader tries.
        if commit.is_some_and(|commit| !commit.only_removes())
            && let Some(error) = self.overdue.refusal(now)
        {
            return Err(Refusal::Overdue(error));
        }
        Ok(())
    }

    /// Gives `take` the commits at the head of the queue, up to the first other request, until
    /// they and the `len` bytes of the leader's own commit fill a group.
    pub(super) fn drain(&mut self, mut len: usize, mut take: impl FnMut(Arc<Ticket>, Commit)) {
        while len < GROUP_LEN_TARGET {
            let next = self.waiting.pop_front_if(|waiter| waiter.commit.is_some());
            let Some(Waiter { commit: Some(commit), ticket, len: more }) = next else { break };
            len = len.saturating_add(more);
            take(ticket, commit);
        }
    }

    /// Puts commits back to the head of the queue, the last one first.
    pub(super) fn put_back(&mut self, commits: impl Iterator<Item = (Arc<Ticket>, Commit)>) {
        for (ticket, commit) in commits {
            let len = commit.encoded_len();
            self.waiting.push_front(Waiter { commit: Some(commit), ticket, len });
        }
    }

    /// Hands the lead to the first waiter, or resigns if there is none.
    pub(super) fn hand_over(&mut self) -> Option<Waiter> {
        let next = self.waiting.pop_front();
        self.leading = next.is_some();
        next
    }

    /// Resigns without a successor and takes all waiters.
    pub(super) fn abdicate(&mut self) -> Vec<Waiter> {
        self.leading = false;
        self.waiting.drain(..).collect()
    }

    /// Refuses writes from now on. The first reason is kept.
    pub(super) fn poison(&mut self, reason: &str) {
        if self.poisoned.is_none() {
            self.poisoned = Some(reason.into());
        }
    }

    pub(super) fn poisoned(&self) -> Option<Arc<str>> {
        self.poisoned.clone()
    }

    /// Refuses later requests, except the close itself and the end of a checkpoint or a sync.
    pub(super) fn begin_close(&mut self) {
        self.closing = true;
    }

    /// Refuses all later requests.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Returns how many requests wait for a leader.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

/// The place where a waiter finds its outcome, or the lead.
pub(super) struct Ticket {
    wake: Mutex<Option<Wake>>,
    unparker: Unparker,
}

impl Ticket {
    /// Waits for the end of the wait, with the parker that entered.
    fn wait(&self, parker: &Parker) -> Wake {
        loop {
            if let Some(wake) = self.wake.lock().take() {
                return wake;
            }
            parker.park();
        }
    }

    /// Ends the wait and wakes the waiter.
    pub(super) fn give(&self, wake: Wake) {
        // Order: before the unpark. A waiter that finds nothing parks again.
        *self.wake.lock() = Some(wake);
        self.unparker.unpark();
    }
}

impl std::ops::Deref for StateGuard<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl std::ops::DerefMut for StateGuard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queue")
    }
}

//! The queue of all requests that use the disk: which thread leads, which threads wait, and which
//! requests are refused.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use codex_storage::storage::StorageStats;
use codex_storage::sync::{Condvar, Mutex, MutexGuard, with_parker};
use codex_storage::{Error, Result};

use super::gather::Gather;
use super::overdue::Overdue;
use super::seat::{SPINS, Seat};
use crate::commit::{Commit, Outcome};
use crate::promise::Promise;
use crate::rank::{self, Held, Rank};

/// The queue. Each request that uses the disk enters it and has its turn in the order of entering,
/// so that no request starves. One mutex protects the waiters, the lead and the admission.
pub(super) struct Queue {
    /// The number of times that a waiter looks for its outcome before it parks.
    spins: u32,
    state: Mutex<State>,
    /// Wakes the leader that waits in [`gather`](Self::gather).
    gathered: Condvar,
}

/// The conditions under which a request is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Refused if the store closes or is poisoned.
    WhileOpen,
    /// The end of a sync or a checkpoint that has begun. Refused only if the store is closed: the
    /// storage decides which writes are still allowed.
    ToFinish,
    /// The close itself. A poisoned store does not refuse it.
    ToClose,
}

/// The reason why a request is refused.
pub(super) enum Refusal {
    Closed,
    Poisoned(Arc<str>),
    /// Earlier commits wait for an image, and the last image failed with this error.
    Overdue(Error),
}

/// The end of a wait in the queue.
pub(super) enum Wake {
    /// Another thread has made the commit, or has unwound, which ends the wait of every kind of
    /// request.
    Done(Result<Outcome>),
    /// The thread leads now. Contains its own commit, if it entered with one.
    Lead(Option<Commit>),
}

/// The place of the commit of a task.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once, and not kept")]
pub(super) enum TaskPlace {
    /// In the queue.
    Waiting,
    /// The commit has the lead, and a deputy is to lead on its behalf.
    Leading(Waiter),
    /// Nowhere: the commits of tasks that wait have this number of bytes, and it would exceed the
    /// limit.
    Refused(usize),
}

/// A request that waits for its turn.
pub(super) struct Waiter {
    /// `None` for a request that uses the disk without a commit.
    pub(super) commit: Option<Commit>,
    pub(super) ticket: Ticket,
    /// The encoded length of the commit, in bytes.
    len: usize,
    /// The number of earlier attempts of the commit that ended in a conflict.
    rounds: u32,
}

/// The state that the mutex of the queue protects.
#[derive(Default)]
pub(super) struct State {
    waiting: VecDeque<Waiter>,
    /// The encoded length of the commits of tasks among the waiting ones, in bytes.
    task_bytes: usize,
    leading: bool,
    closing: bool,
    closed: bool,
    poisoned: Option<Arc<str>>,
    pub(super) overdue: Overdue,
    pub(super) gather: Gather,
    pub(super) counters: Counters,
}

/// The statistics that the leaders collect.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    pub(super) storage: StorageStats,
    /// Whether the log has outgrown the image.
    pub(super) wants_checkpoint: bool,
    pub(super) commits: u64,
    pub(super) group_commits_max: u64,
    pub(super) data_hold_ns_max: u64,
}

/// The locked state of the queue.
pub(super) struct StateGuard<'a> {
    state: MutexGuard<'a, State>,
    // Order: declared last, so that the mutex is released before the record of it.
    _held: Held,
}

impl Queue {
    /// Returns an open queue. `storage` is the content of the statistics until the first group.
    /// `limit` is the longest time for which a commit may wait for an image that makes it durable.
    /// `is_short` is true if a group waits for no sync.
    pub(super) fn new(storage: StorageStats, limit: Option<Duration>, is_short: bool) -> Self {
        let counters = Counters { storage, ..Counters::default() };
        let overdue = Overdue::new(limit);
        let spins = if is_short { SPINS } else { 0 };
        let state = Mutex::new(State { overdue, counters, ..State::default() });
        Self { spins, state, gathered: Condvar::new() }
    }

    /// Locks the state.
    pub(super) fn lock(&self) -> StateGuard<'_> {
        // Order: check the rank before the wait. A forbidden order panics instead of blocking
        // forever.
        let held = rank::take(Rank::Queue);
        StateGuard { state: self.state.lock(), _held: held }
    }

    /// Enters the queue. Returns at once if no thread leads: the caller leads now. Otherwise waits
    /// until another leader has made the commit, or hands over the lead.
    ///
    /// # Errors
    /// The refusal, if `admission` does not allow the request, or if earlier commits are overdue at
    /// the time `now`.
    pub(super) fn enter(
        &self,
        admission: Admission,
        commit: Option<Commit>,
        now: impl FnOnce() -> Duration,
    ) -> Result<Wake, Refusal> {
        let len = commit.as_ref().map_or(0, Commit::encoded_len);
        let mut state = self.lock();
        // Order: admit and enter in one critical section. No request enters after a close or a
        // poisoning that it did not see.
        state.admit(admission, commit.as_ref(), now)?;
        if !state.leading {
            state.leading = true;
            return Ok(Wake::Lead(commit));
        }
        let rounds = commit.as_ref().map_or(0, |commit| commit.rounds);
        // A thread far behind in the queue waits longer than a spin takes.
        let spins = if state.waiting() < SPINNERS_MAX { self.spins } else { 0 };
        with_parker(|parker| {
            let seat = Arc::new(Seat::new(parker));
            state.enter(Waiter { commit, ticket: Ticket::Thread(seat.clone()), len, rounds });
            self.tell_gathered(&state);
            // Order: unlock before the wait, because the leader needs the lock to find the waiter.
            drop(state);
            Ok(seat.wait(parker, spins))
        })
    }

    /// Enters the commit of a task into the queue, whose outcome `promise` gets. Waits for nothing.
    ///
    /// # Errors
    /// As [`enter`](Self::enter).
    pub(super) fn enter_task(
        &self,
        commit: Commit,
        promise: Arc<Promise<Result<Outcome>>>,
        now: impl FnOnce() -> Duration,
    ) -> Result<TaskPlace, Refusal> {
        let (len, rounds) = (commit.encoded_len(), commit.rounds);
        let mut state = self.lock();
        // Order: admit and enter in one critical section, as above.
        state.admit(Admission::WhileOpen, Some(&commit), now)?;
        // A single commit is never too much: it has a limit of its own.
        if state.task_bytes > 0 && state.task_bytes + len > TASK_BYTES_MAX {
            return Ok(TaskPlace::Refused(state.task_bytes));
        }
        let (commit, ticket) = (Some(commit), Ticket::Task(promise));
        let waiter = Waiter { commit, ticket, len, rounds };
        if !state.leading {
            state.leading = true;
            return Ok(TaskPlace::Leading(waiter));
        }
        state.enter(waiter);
        self.tell_gathered(&state);
        Ok(TaskPlace::Waiting)
    }

    /// Lets the leader wait until the members of the group before its own have entered again, for a
    /// part of the time that this group `took`. The next group takes `target` bytes.
    pub(super) fn gather(&self, target: usize, took: Duration) {
        let _held = rank::take(Rank::Queue);
        let mut state = self.state.lock();
        // A full group gains nothing, and a request of another kind ends the group.
        let len: usize = state.waiting.iter().map(|waiter| waiter.len).sum();
        if len >= target || state.waiting.iter().any(|waiter| waiter.commit.is_none()) {
            return;
        }
        let before = state.waiting();
        let Some(limit) = state.gather.begin(before, took) else { return };
        // One wait: if it ends too early, the group is smaller, and nothing else.
        state = self.gathered.wait_timeout(state, limit);
        let waiting = state.waiting();
        state.gather.end(before, waiting);
    }

    /// Wakes a leader that waits for those that now have all entered.
    fn tell_gathered(&self, state: &State) {
        if state.gather.is_complete(state.waiting()) {
            self.gathered.notify_one();
        }
    }
}

impl State {
    /// Refuses a request that `admission` does not allow, or a commit while others are overdue.
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
        // A commit that only removes can make room for the image, so the leader tries it.
        if commit.is_some_and(|commit| !commit.only_removes())
            && let Some(error) = self.overdue.refusal(now)
        {
            return Err(Refusal::Overdue(error));
        }
        Ok(())
    }

    /// Adds a waiter at the end of the queue. A commit that lost to others before stands before the
    /// commits that lost fewer times, so that it does not lose forever. It overtakes no request of
    /// another kind.
    fn enter(&mut self, waiter: Waiter) {
        let is_behind = |other: &Waiter| other.commit.is_none() || other.rounds >= waiter.rounds;
        let place = self.waiting.iter().rposition(is_behind).map_or(0, |last| last + 1);
        self.task_bytes += waiter.task_len();
        self.waiting.insert(place, waiter);
    }

    /// Removes the first waiter and returns it.
    fn pop(&mut self) -> Option<Waiter> {
        let first = self.waiting.pop_front()?;
        self.task_bytes -= first.task_len();
        Some(first)
    }

    /// Passes the commits at the head of the queue to `take`, up to the first request of another
    /// kind, until they and the `len` bytes of the leader's own commit fill a group of `target`
    /// bytes.
    pub(super) fn drain(
        &mut self,
        mut len: usize,
        target: usize,
        mut take: impl FnMut(Ticket, Commit),
    ) {
        while len < target {
            // Order: stop at the first request that is not a commit. A commit must not overtake a
            // request that entered before it.
            let is_commit = self.waiting.front().is_some_and(|waiter| waiter.commit.is_some());
            let next = is_commit.then(|| self.pop()).flatten();
            let Some(Waiter { commit: Some(commit), ticket, len: more, .. }) = next else { break };
            len = len.saturating_add(more);
            take(ticket, commit);
        }
    }

    /// Puts commits back to the head of the queue, beginning with the last one.
    pub(super) fn put_back(&mut self, commits: impl Iterator<Item = (Ticket, Commit)>) {
        for (ticket, commit) in commits {
            let (len, rounds) = (commit.encoded_len(), commit.rounds);
            let waiter = Waiter { commit: Some(commit), ticket, len, rounds };
            self.task_bytes += waiter.task_len();
            self.waiting.push_front(waiter);
        }
    }

    /// Returns the first waiter, which leads from now on, or resigns if there is none.
    pub(super) fn hand_over(&mut self) -> Option<Waiter> {
        let next = self.pop();
        self.leading = next.is_some();
        next
    }

    /// Resigns without a successor, and returns all waiters.
    pub(super) fn abdicate(&mut self) -> Vec<Waiter> {
        self.leading = false;
        self.task_bytes = 0;
        self.waiting.drain(..).collect()
    }

    /// Refuses all later writes. The first reason is kept. Returns true if there was none before.
    pub(super) fn poison(&mut self, reason: &str) -> bool {
        let is_first = self.poisoned.is_none();
        if is_first {
            self.poisoned = Some(reason.into());
        }
        is_first
    }

    /// Returns the reason why writes are refused, if they are.
    pub(super) fn poisoned(&self) -> Option<Arc<str>> {
        self.poisoned.clone()
    }

    /// Refuses later requests, except the close itself and the end of a checkpoint or a sync.
    pub(super) fn begin_close(&mut self) {
        self.closing = true;
    }

    /// Refuses all later requests.
    pub(super) fn refuse_all(&mut self) {
        self.closed = true;
    }

    /// Returns the number of requests that wait for the leader.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

impl Waiter {
    /// Returns the encoded length of the commit of a task, in bytes; 0 for any other request.
    fn task_len(&self) -> usize {
        if matches!(self.ticket, Ticket::Task(_)) { self.len } else { 0 }
    }
}

/// The place at which a waiter finds its outcome or the lead.
pub(super) enum Ticket {
    /// A thread waits, which can lead.
    Thread(Arc<Seat>),
    /// A task waits, or has dropped its future. It gets only an outcome: a deputy leads on its
    /// behalf.
    Task(Arc<Promise<Result<Outcome>>>),
}

impl Ticket {
    /// Gives the outcome, and wakes a thread that waits for it. Returns the waker of a task, which
    /// the caller wakes after it has released its locks.
    #[must_use]
    pub(super) fn answer(&self, outcome: Result<Outcome>) -> Option<Waker> {
        match self {
            Self::Thread(seat) => {
                seat.give(Wake::Done(outcome));
                None
            }
            Self::Task(promise) => promise.give(outcome),
        }
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

/// The number of waiters that may spin, so that they do not take the processors from the leader.
const SPINNERS_MAX: usize = 2;
/// The maximum encoded length of all commits of tasks that wait, in bytes.
pub(super) const TASK_BYTES_MAX: usize = 256 << 20;

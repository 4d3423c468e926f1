//! The queue of waiting commits: who leads, who waits, who is refused.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use codex_storage::batch::{GROUP_LEN_TARGET, Seq};
use codex_storage::seal::Keys;
use codex_storage::storage::{Anchor, Checkpoint, Retired, StorageStats, SyncPoint, Written};
use codex_storage::sync::{Mutex, MutexGuard, Parker, Unparker};
use codex_storage::{Error, Result};

use super::overdue::Overdue;
use super::{Commit, Outcome};
use crate::map::Ordered;
use crate::rank::{self, Held, Rank};

/// What a member of the queue wants. All that touches the disk comes through here, in one order,
/// so that nothing of it can starve.
#[derive(Debug)]
pub(crate) enum Request {
    /// A commit.
    Commit(Commit),
    /// All earlier commits durable.
    Flush,
    /// What is not durable yet, to sync without the lock.
    SyncPoint,
    /// The outcome of that sync.
    Synced(Result<Seq>),
    /// The begin of a checkpoint.
    BeginCheckpoint,
    /// The end of the checkpoint that began.
    FinishCheckpoint(Result<Written>),
    /// The last commit and the digest of the history up to it.
    Anchor,
    /// The root key wrapped under another user's key.
    ChangeKey(Arc<dyn Keys>),
    /// The begin of a rekey, which goes on like a checkpoint.
    Rekey(Arc<dyn Keys>),
    /// The end of the store.
    Close,
}

impl Request {
    fn is_commit(&self) -> bool {
        matches!(self, Self::Commit(_))
    }
}

/// What a member of the queue gets.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Of a commit.
    Outcome(Outcome),
    /// Of a flush: commits up to `seq` are visible, up to `durable` durable.
    Flushed {
        /// The last commit.
        seq: Seq,
        /// The last durable commit.
        durable: Seq,
    },
    /// Of a sync point.
    Point {
        /// What to sync.
        point: Option<SyncPoint>,
        /// Whether commits are durable only once an image is written.
        wants_image: bool,
    },
    /// Of the begin of an image.
    Begun(Begun),
    /// Of the end of a checkpoint: what it replaced, to be dropped without the lock.
    Finished(Option<Retired>),
    /// Of an anchor.
    Anchor(Anchor),
    /// Of everything else.
    Done,
}

/// What the begin of an image has led to.
#[derive(Debug)]
pub(crate) enum Begun {
    /// There is nothing to write.
    Nothing,
    /// The image is in place already.
    Written,
    /// The image is to be written beside the commits, of this state.
    Beside(Checkpoint, Ordered),
}

/// One waiting member.
pub(super) struct Member {
    pub(super) request: Request,
    pub(super) ticket: Arc<Ticket>,
    len: usize,
}

/// What entering the queue leads to.
pub(super) enum Entered {
    /// Nobody leads: the caller does, with its own request.
    Lead(Request),
    /// Somebody leads and will complete the ticket, or hand it the leadership.
    Wait(Arc<Ticket>),
}

/// The queue. One mutex guards who waits, who leads, and whether anybody may still enter.
pub(crate) struct Queue {
    state: Mutex<State>,
}

/// What the mutex of the queue guards.
#[derive(Default)]
pub(super) struct State {
    waiting: VecDeque<Member>,
    leading: bool,
    closing: bool,
    closed: bool,
    poisoned: Option<Arc<str>>,
    pub(super) overdue: Overdue,
    pub(super) stats: Stats,
}

/// What the leaders count.
#[derive(Debug, Clone, Default)]
pub(super) struct Stats {
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

/// Why a request is refused.
pub(super) enum Refusal {
    Closed,
    Poisoned(Arc<str>),
    /// Earlier commits wait for an image, which failed with this error.
    Overdue(Error),
}

impl Queue {
    /// An open queue; `storage` is what stands in the statistics until the first group, and
    /// `limit` is how long a commit may wait for an image that makes it durable.
    pub(super) fn new(storage: StorageStats, limit: Option<Duration>) -> Self {
        let stats = Stats { storage, ..Stats::default() };
        let overdue = Overdue::new(limit);
        Self { state: Mutex::new(State { overdue, stats, ..State::default() }) }
    }

    pub(super) fn lock(&self) -> StateGuard<'_> {
        let held = rank::take(Rank::Queue);
        StateGuard { state: self.state.lock(), _held: held }
    }

    /// Enters `request` of the thread that waits with `parker`, unless the queue is closed or
    /// poisoned, or earlier commits are overdue `now`.
    pub(super) fn enter(
        &self,
        request: Request,
        parker: &Parker,
        now: impl FnOnce() -> Duration,
    ) -> Result<Entered, Refusal> {
        let len = match &request {
            Request::Commit(commit) => commit.encoded_len(),
            _ => 0,
        };
        let mut state = self.lock();
        state.admit(&request, now)?;
        if !state.leading {
            state.leading = true;
            return Ok(Entered::Lead(request));
        }
        let ticket = Arc::new(Ticket { turn: Mutex::new(None), unparker: parker.unparker() });
        state.waiting.push_back(Member { request, ticket: ticket.clone(), len });
        Ok(Entered::Wait(ticket))
    }
}

impl State {
    fn admit(&self, request: &Request, now: impl FnOnce() -> Duration) -> Result<(), Refusal> {
        let ends = matches!(request, Request::FinishCheckpoint(_) | Request::Synced(_));
        let close = matches!(request, Request::Close);
        if self.closed || (self.closing && !ends && !close) {
            return Err(Refusal::Closed);
        }
        match &self.poisoned {
            Some(reason) if !ends && !close => return Err(Refusal::Poisoned(reason.clone())),
            _ => {}
        }
        match request {
            // One that only removes can make room for the image: the leader tries.
            Request::Commit(commit) if !commit.only_removes() => {
                self.overdue.refusal(now).map_or(Ok(()), |error| Err(Refusal::Overdue(error)))
            }
            _ => Ok(()),
        }
    }

    /// Gives `take` the commits at the head of the queue, up to the first other request, until
    /// they and the `len` bytes of the leader's own fill a group.
    pub(super) fn drain(&mut self, mut len: usize, mut take: impl FnMut(Arc<Ticket>, Commit)) {
        while len < GROUP_LEN_TARGET {
            let next = self.waiting.pop_front_if(|member| member.request.is_commit());
            let Some(Member { request: Request::Commit(commit), ticket, len: more }) = next else {
                break;
            };
            len = len.saturating_add(more);
            take(ticket, commit);
        }
    }

    /// Puts commits back to the head of the queue, the last one first.
    pub(super) fn put_back(&mut self, commits: impl Iterator<Item = (Arc<Ticket>, Commit)>) {
        for (ticket, commit) in commits {
            let len = commit.encoded_len();
            self.waiting.push_front(Member { request: Request::Commit(commit), ticket, len });
        }
    }

    /// Hands the leadership to the first in the queue, or resigns where nobody waits.
    pub(super) fn hand_over(&mut self) -> Option<Member> {
        let next = self.waiting.pop_front();
        self.leading = next.is_some();
        next
    }

    /// Resigns without a successor and takes everybody who waits.
    pub(super) fn abdicate(&mut self) -> Vec<Member> {
        self.leading = false;
        self.waiting.drain(..).collect()
    }

    pub(super) fn poison(&mut self, reason: &str) {
        if self.poisoned.is_none() {
            self.poisoned = Some(reason.into());
        }
    }

    pub(super) fn poisoned(&self) -> Option<Arc<str>> {
        self.poisoned.clone()
    }

    /// Refuses whatever enters from now on, but the close itself and what ends a checkpoint or a
    /// sync that runs.
    pub(super) fn begin_close(&mut self) {
        self.closing = true;
    }

    /// Refuses everything from now on.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// How many wait for a leader.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

/// Where a waiting member gets its turn.
pub(super) struct Ticket {
    turn: Mutex<Option<Turn>>,
    unparker: Unparker,
}

/// What a waiting member wakes up to.
pub(super) enum Turn {
    /// Its request has been dealt with.
    Done(Result<Reply>),
    /// It leads now, with its own request.
    Lead(Request),
}

impl Ticket {
    /// Waits for the turn, with the parker that entered.
    pub(super) fn wait(&self, parker: &Parker) -> Turn {
        loop {
            if let Some(turn) = self.turn.lock().take() {
                return turn;
            }
            parker.park();
        }
    }

    /// Gives the member its turn and wakes it.
    pub(super) fn give(&self, turn: Turn) {
        *self.turn.lock() = Some(turn);
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

//! One thread's time as the leader: however it ends, every member gets an answer and somebody
//! else can lead.

use std::sync::Arc;
use std::time::Duration;

use codex_storage::storage::StorageStats;
use codex_storage::{Error, Result};

use super::plan::Decided;
use super::queue::{Member, Refusal, Ticket, Turn};
use super::{Commit, Core, Reply};

/// The leader's time, from taking the lead until handing it on. Dropped before its
/// [`end`](Shift::end), it poisons the store and answers everybody who waits.
pub(super) struct Shift<'a> {
    core: &'a Core,
    /// The leader's own commit, the first of the group.
    own: Option<Turned>,
    members: Vec<Turned>,
    /// With whether the log has outgrown the image.
    storage: Option<(StorageStats, bool)>,
    poisoned: Option<String>,
    commits: u64,
    group_commits_max: u64,
    held: Duration,
    ended: bool,
}

/// A member of the group being made.
struct Turned {
    /// Where the member waits; the leader itself does not.
    ticket: Option<Arc<Ticket>>,
    /// Kept until the outcome is known: a group that does not fit is decided again in parts.
    commit: Commit,
    decided: Option<Decided>,
    reply: Option<Result<Reply>>,
}

/// Which of the members without an answer a group is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of them.
    All,
    /// Those that only remove.
    Removals,
    /// The first one.
    First,
}

impl<'a> Shift<'a> {
    /// Begins the time of the calling thread.
    pub(super) fn begin(core: &'a Core) -> Self {
        Self {
            core,
            own: None,
            members: Vec::new(),
            storage: None,
            poisoned: None,
            commits: 0,
            group_commits_max: 0,
            held: Duration::ZERO,
            ended: false,
        }
    }

    /// Begins a group with the leader's `own` commit and moves the commits into it that wait. The
    /// error is why there can be no group.
    pub(super) fn drain(&mut self, own: Commit) -> Result<(), Refusal> {
        let len = own.encoded_len();
        self.own = Some(Turned::new(None, own));
        let mut queue = self.core.queue.lock();
        queue.drain(len, |ticket, commit| self.members.push(Turned::new(Some(ticket), commit)));
        queue.poisoned().map_or(Ok(()), |reason| Err(Refusal::Poisoned(reason)))
    }

    /// Has `decide` decide the commits of `part`, in order, until it returns `None`: the group is
    /// full. Returns how many were decided.
    pub(super) fn decide(
        &mut self,
        part: Part,
        mut decide: impl FnMut(&Commit) -> Option<Decided>,
    ) -> usize {
        let mut decided = 0;
        let takes = |member: &&mut Turned| part != Part::Removals || member.commit.only_removes();
        let limit = if part == Part::First { 1 } else { usize::MAX };
        for member in self.pending().filter(takes).take(limit) {
            member.decided = decide(&member.commit);
            if member.decided.is_none() {
                break;
            }
            decided += 1;
        }
        decided
    }

    /// Puts the members that a full group has not taken back to the head of the queue, in order.
    pub(super) fn put_back(&mut self) {
        let taken = self.members.iter().take_while(|member| member.decided.is_some()).count();
        if taken < self.members.len() {
            let rest = self.members.drain(taken..).rev();
            let rest = rest.filter_map(|member| Some((member.ticket?, member.commit)));
            self.core.queue.lock().put_back(rest);
        }
    }

    /// Turns what was decided for each member into its answer.
    pub(super) fn complete(&mut self, outcome: impl Fn(Decided) -> Result<Reply>) {
        for member in self.all() {
            if let Some(decided) = member.decided.take() {
                member.reply = Some(outcome(decided));
            }
        }
    }

    /// Forgets what was decided of a group that was not made: all of it may rest on it.
    pub(super) fn undecide(&mut self) {
        self.all().for_each(|member| member.decided = None);
    }

    /// Gives every member without an answer the same error.
    pub(super) fn fail(&mut self, error: &Error) {
        self.pending().for_each(|member| member.reply = Some(Err(error.clone())));
    }

    /// Gives the first member without an answer this error.
    pub(super) fn fail_first(&mut self, error: Error) {
        if let Some(member) = self.pending().next() {
            member.reply = Some(Err(error));
        }
    }

    /// Gives the members that put something this error.
    pub(super) fn fail_puts(&mut self, error: &Error) {
        let puts = self.pending().filter(|member| !member.commit.only_removes());
        puts.for_each(|member| member.reply = Some(Err(error.clone())));
    }

    /// How many members have no answer yet.
    pub(super) fn unanswered(&mut self) -> usize {
        self.pending().count()
    }

    /// The answer to the leader's own commit.
    pub(super) fn own_reply(&mut self) -> Option<Result<Reply>> {
        self.own.as_mut()?.reply.take()
    }

    /// Notes how long readers were kept out of memory.
    pub(super) fn held(&mut self, held: Duration) {
        self.held = self.held.max(held);
    }

    /// Notes how many commits a group has.
    pub(super) fn made(&mut self, commits: usize) {
        let commits = u64::try_from(commits).unwrap_or(u64::MAX);
        self.commits += commits;
        self.group_commits_max = self.group_commits_max.max(commits);
    }

    /// Notes what the storage says after the group.
    pub(super) fn saw(&mut self, storage: StorageStats, wants_checkpoint: bool) {
        self.storage = Some((storage, wants_checkpoint));
    }

    /// Notes why the storage refuses writes, if it does.
    pub(super) fn poisoned(&mut self, reason: Option<String>) {
        self.poisoned = reason;
    }

    /// Hands the leadership on and wakes the members, in this order: the next group's disk work
    /// runs while they are woken.
    pub(super) fn end(mut self) {
        let next = self.hand_over();
        self.ended = true;
        if let Some(Member { request, ticket, .. }) = next {
            ticket.give(Turn::Lead(request));
        }
        self.wake();
    }

    /// Looking whether anybody waits and resigning are one critical section: whoever enters after
    /// it finds no leader.
    fn hand_over(&mut self) -> Option<Member> {
        let mut queue = self.core.queue.lock();
        let stats = &mut queue.stats;
        if let Some((storage, wants_checkpoint)) = self.storage {
            (stats.storage, stats.wants_checkpoint) = (storage, wants_checkpoint);
        }
        stats.commits += self.commits;
        stats.group_commits_max = stats.group_commits_max.max(self.group_commits_max);
        let held_ns = u64::try_from(self.held.as_nanos()).unwrap_or(u64::MAX);
        stats.data_hold_ns_max = stats.data_hold_ns_max.max(held_ns);
        if let Some((storage, _)) = &self.storage {
            queue.overdue.saw(storage.durable == storage.seq, || self.core.now());
        }
        if let Some(reason) = &self.poisoned {
            queue.poison(reason);
        }
        queue.hand_over()
    }

    fn wake(&mut self) {
        for member in self.members.drain(..) {
            let reply = member.reply.unwrap_or_else(|| Err(self.core.poison(UNWOUND)));
            if let Some(ticket) = member.ticket {
                ticket.give(Turn::Done(reply));
            }
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Turned> {
        self.own.iter_mut().chain(&mut self.members)
    }

    fn pending(&mut self) -> impl Iterator<Item = &mut Turned> {
        self.all().filter(|member| member.reply.is_none())
    }
}

/// A leader that unwinds leaves the disk in an unknown state: nothing is written any more.
impl Drop for Shift<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let left = {
            let mut queue = self.core.queue.lock();
            queue.poison(UNWOUND);
            queue.abdicate()
        };
        self.wake();
        for member in left {
            member.ticket.give(Turn::Done(Err(self.core.poison(UNWOUND))));
        }
    }
}

impl Turned {
    fn new(ticket: Option<Arc<Ticket>>, commit: Commit) -> Self {
        Self { ticket, commit, decided: None, reply: None }
    }
}

/// Why a store refuses writes whose leader unwound.
pub(super) const UNWOUND: &str = "the thread that was committing panicked";

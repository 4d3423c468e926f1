//! One thread's time as the leader: however it ends, every member gets an answer and somebody
//! else can lead.

use std::sync::Arc;
use std::time::Duration;

use codex_storage::storage::StorageStats;
use codex_storage::{Error, Result};

use super::plan::Decided;
use super::queue::{Member, Refusal, Ticket, Turn};
use super::{Commit, Core, Reply, Request};

/// The leader's time, from taking the lead until handing it on. Dropped before its
/// [`end`](Shift::end), it poisons the store and answers everybody who waits.
pub(super) struct Shift<'a> {
    core: &'a Core,
    members: Vec<Turned>,
    storage: Option<StorageStats>,
    poisoned: Option<String>,
    commits: u64,
    held: Duration,
    ended: bool,
}

/// A member of the group being made, without the leader itself.
struct Turned {
    ticket: Arc<Ticket>,
    commit: Option<Commit>,
    decided: Option<Decided>,
    reply: Option<Result<Reply>>,
}

impl<'a> Shift<'a> {
    /// Begins the time of the calling thread.
    pub(super) fn begin(core: &'a Core) -> Self {
        Self {
            core,
            members: Vec::new(),
            storage: None,
            poisoned: None,
            commits: 0,
            held: Duration::ZERO,
            ended: false,
        }
    }

    /// Takes those into the group that wait behind the leader's own commit of `len` bytes; or says
    /// why there can be no group.
    pub(super) fn drain(&mut self, len: usize) -> Option<Refusal> {
        let mut queue = self.core.queue.lock();
        queue.drain(len, |member| self.members.push(Turned::new(member)));
        queue.poisoned().map(Refusal::Poisoned)
    }

    /// Has `decide` decide each member's commit, in order.
    pub(super) fn decide_all(&mut self, mut decide: impl FnMut(Commit) -> Decided) {
        for member in &mut self.members {
            member.decided = member.commit.take().map(&mut decide);
        }
    }

    /// Turns what was decided for each member into its answer.
    pub(super) fn complete_all(&mut self, outcome: impl Fn(Decided) -> Result<Reply>) {
        for member in &mut self.members {
            member.reply = member.decided.take().map(&outcome);
        }
    }

    /// Gives every member the same error.
    pub(super) fn fail_all(&mut self, error: &Error) {
        for member in &mut self.members {
            member.reply = Some(Err(error.clone()));
        }
    }

    /// Notes how long readers were kept out of memory.
    pub(super) fn held(&mut self, held: Duration) {
        self.held = held;
    }

    /// Notes how many commits the group has.
    pub(super) fn made(&mut self, commits: usize) {
        self.commits = u64::try_from(commits).unwrap_or(u64::MAX);
    }

    /// Notes what the storage says after the group.
    pub(super) fn saw(&mut self, storage: StorageStats, poisoned: Option<String>) {
        self.storage = Some(storage);
        self.poisoned = poisoned;
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
        stats.storage = self.storage.unwrap_or(stats.storage);
        stats.commits += self.commits;
        stats.group_commits_max = stats.group_commits_max.max(self.commits);
        let held_ns = u64::try_from(self.held.as_nanos()).unwrap_or(u64::MAX);
        stats.data_hold_ns_max = stats.data_hold_ns_max.max(held_ns);
        if let Some(reason) = &self.poisoned {
            queue.poison(reason);
        }
        #[cfg(codex_mutant = "resign_without_check")]
        if queue.is_empty() {
            drop(queue);
            self.core.queue.lock().resign();
            return None;
        }
        queue.hand_over()
    }

    fn wake(&mut self) {
        for member in self.members.drain(..) {
            let reply = member.reply.unwrap_or_else(|| Err(self.core.poison(UNWOUND)));
            member.ticket.give(Turn::Done(reply));
        }
    }

    /// Answers the members before the group is durable.
    #[cfg(codex_mutant = "ack_before_sync")]
    pub(super) fn wake_early(&mut self) {
        self.complete_all(|_| {
            let done = super::Outcome::Done { seq: None, removed: 0, previous: None };
            Ok(Reply::Outcome(done))
        });
        self.wake();
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
        #[cfg(codex_mutant = "unwinding_forgets_the_queue")]
        return drop(left);
        #[cfg(not(codex_mutant = "unwinding_forgets_the_queue"))]
        for member in left {
            member.ticket.give(Turn::Done(Err(self.core.poison(UNWOUND))));
        }
    }
}

impl Turned {
    fn new(member: Member) -> Self {
        let commit = match member.request {
            Request::Commit(commit) => Some(commit),
            // Only commits are drained.
            _ => None,
        };
        Self { ticket: member.ticket, commit, decided: None, reply: None }
    }
}

/// Why a store refuses writes whose leader unwound.
pub(super) const UNWOUND: &str = "the thread that was committing panicked";

//! One thread's time as the leader. However it ends, every member of its group gets an outcome,
//! and another thread can lead.

use std::sync::Arc;
use std::time::Duration;

use codex_storage::batch::Seq;
use codex_storage::storage::StorageStats;
use codex_storage::{Error, Result};

use super::Engine;
use super::plan::Decided;
use super::queue::{Refusal, Ticket, Waiter, Wake};
use crate::commit::{Commit, Outcome};

/// The leader, from the moment that it has the lead until it hands it over. If it is dropped
/// before that, as a panic does, it poisons the store and answers every waiter.
pub(super) struct Leader<'a> {
    engine: &'a Engine,
    /// The leader's own commit, the first of the group.
    own: Option<Member>,
    members: Vec<Member>,
    /// Whether each group hands the storage an image of the state.
    pub(super) image: bool,
    /// The error of the whole group, if it did not fit on the disk and is made in parts.
    full: Option<Error>,
    /// The storage after the group, and whether the log has outgrown the image.
    storage: Option<(StorageStats, bool)>,
    poisoned: Option<String>,
    commits: u64,
    group_commits_max: u64,
    held: Duration,
    handed_over: bool,
}

/// A member of the group.
struct Member {
    /// Where the member waits; `None` for the leader's own commit.
    ticket: Option<Arc<Ticket>>,
    /// Kept until the outcome is known: a group that does not fit is decided again in parts.
    commit: Commit,
    decided: Option<Decided>,
    outcome: Option<Result<Outcome>>,
}

/// The members to make a group of, out of those without an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of them.
    All,
    /// Those that only remove.
    Removals,
    /// The first one.
    First,
}

impl<'a> Leader<'a> {
    /// Begins the time of the calling thread.
    pub(super) fn begin(engine: &'a Engine) -> Self {
        Self {
            engine,
            own: None,
            members: Vec::new(),
            image: engine.images,
            full: None,
            storage: None,
            poisoned: None,
            commits: 0,
            group_commits_max: 0,
            held: Duration::ZERO,
            handed_over: false,
        }
    }

    /// Begins a group with the leader's `own` commit and moves waiting commits into it.
    ///
    /// # Errors
    /// The refusal if the store is poisoned.
    pub(super) fn drain(&mut self, own: Commit) -> Result<(), Refusal> {
        let len = own.encoded_len();
        self.own = Some(Member::new(None, own));
        let mut queue = self.engine.queue.lock();
        queue.drain(len, |ticket, commit| self.members.push(Member::new(Some(ticket), commit)));
        queue.poisoned().map_or(Ok(()), |reason| Err(Refusal::Poisoned(reason)))
    }

    /// Has `decide` decide the commits of `part`, in order, until it returns `None`: the group is
    /// full.
    pub(super) fn decide(
        &mut self,
        part: Part,
        mut decide: impl FnMut(&Commit) -> Option<Decided>,
    ) {
        let takes = |member: &&mut Member| part != Part::Removals || member.commit.only_removes();
        let limit = if part == Part::First { 1 } else { usize::MAX };
        for member in self.pending().filter(takes).take(limit) {
            member.decided = decide(&member.commit);
            if member.decided.is_none() {
                break;
            }
        }
    }

    /// Puts the members that a full group has not taken back to the head of the queue, in order.
    pub(super) fn put_back(&mut self) {
        let is_left = |member: &Member| member.decided.is_none() && member.outcome.is_none();
        if let Some(first) = self.members.iter().position(is_left) {
            let rest = self.members.drain(first..).rev();
            let rest = rest.map(|member| {
                (member.ticket.expect("all but the leader wait at a ticket"), member.commit)
            });
            self.engine.queue.lock().put_back(rest);
        }
    }

    /// Turns what was decided for each member into its outcome.
    pub(super) fn complete(&mut self, outcome: impl Fn(Decided) -> Result<Outcome>) {
        for member in self.all() {
            if let Some(decided) = member.decided.take() {
                member.outcome = Some(outcome(decided));
            }
        }
    }

    /// Returns the members to make the next group of, after a group of `part` was `made`; `None`
    /// if every member has its outcome.
    ///
    /// A group that does not fit on the disk has changed nothing. A member that would fit without
    /// the others must not fail with them: first those that only remove, which may use the
    /// reserve, then each by itself.
    pub(super) fn next_part(&mut self, part: Part, made: Result<Seq>) -> Option<Part> {
        // A group that was not made is decided again: its members may rest on each other.
        self.all().for_each(|member| member.decided = None);
        match (part, made) {
            (_, Err(error)) if !is_full(&error) => {
                self.fail(&error);
                None
            }
            (Part::All, Ok(_)) => None,
            (Part::All, Err(full)) if self.pending().count() < 2 => {
                self.fail(&full);
                None
            }
            (Part::All, Err(full)) => {
                self.full = Some(full);
                Some(Part::Removals)
            }
            // An image of the whole state is not tried once for each member.
            (Part::Removals, _) if self.image => {
                let full = self.full.take().expect("parts are made of a group that did not fit");
                self.fail(&full);
                None
            }
            (Part::First, Err(full)) => {
                let first = self.pending().next().expect("the group was made of it");
                first.outcome = Some(Err(full));
                self.next_pending()
            }
            (Part::Removals | Part::First, _) => self.next_pending(),
        }
    }

    /// Gives every member without an outcome the same error.
    pub(super) fn fail(&mut self, error: &Error) {
        self.pending().for_each(|member| member.outcome = Some(Err(error.clone())));
    }

    /// Gives the members that put something this error.
    pub(super) fn fail_puts(&mut self, error: &Error) {
        let puts = self.pending().filter(|member| !member.commit.only_removes());
        puts.for_each(|member| member.outcome = Some(Err(error.clone())));
    }

    /// Notes how long readers were kept out of memory.
    pub(super) fn held(&mut self, held: Duration) {
        self.held = self.held.max(held);
    }

    /// Notes how many commits a group has.
    pub(super) fn made(&mut self, commits: usize) {
        let commits = u64::try_from(commits).expect("a count of commits fits in 64 bits");
        self.commits += commits;
        self.group_commits_max = self.group_commits_max.max(commits);
    }

    /// Notes the state of the storage after the group.
    pub(super) fn saw(
        &mut self,
        storage: StorageStats,
        wants_checkpoint: bool,
        poisoned: Option<String>,
    ) {
        self.storage = Some((storage, wants_checkpoint));
        self.poisoned = poisoned;
    }

    /// Hands the lead to the first waiter, or resigns if there is none.
    pub(super) fn hand_over(&mut self) {
        let next = self.resign();
        self.handed_over = true;
        if let Some(Waiter { commit, ticket, .. }) = next {
            ticket.give(Wake::Lead(commit));
        }
    }

    /// Notes the figures of the group, then looks for a waiter, and resigns if there is none.
    fn resign(&mut self) -> Option<Waiter> {
        let mut queue = self.engine.queue.lock();
        let counters = &mut queue.counters;
        if let Some((storage, wants_checkpoint)) = self.storage {
            (counters.storage, counters.wants_checkpoint) = (storage, wants_checkpoint);
        }
        counters.commits += self.commits;
        counters.group_commits_max = counters.group_commits_max.max(self.group_commits_max);
        let held_ns = u64::try_from(self.held.as_nanos()).unwrap_or(u64::MAX);
        counters.data_hold_ns_max = counters.data_hold_ns_max.max(held_ns);
        if let Some((storage, _)) = &self.storage {
            queue.overdue.saw(storage.durable == storage.seq, || self.engine.now());
        }
        if let Some(reason) = &self.poisoned {
            queue.poison(reason);
        }
        // Order: within the same critical section. A request that enters after it finds no leader
        // and leads; one that entered before it is found here.
        queue.hand_over()
    }

    /// Gives the members their outcomes and wakes them. Returns the outcome of the leader's own
    /// commit, if it came with one.
    pub(super) fn wake(&mut self) -> Option<Result<Outcome>> {
        let unwound = || Err(self.engine.poison(UNWOUND));
        for member in self.members.drain(..) {
            let outcome = member.outcome.unwrap_or_else(unwound);
            let ticket = member.ticket.expect("all but the leader wait at a ticket");
            ticket.give(Wake::Done(outcome));
        }
        self.own.take()?.outcome
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Member> {
        self.own.iter_mut().chain(&mut self.members)
    }

    fn pending(&mut self) -> impl Iterator<Item = &mut Member> {
        self.all().filter(|member| member.outcome.is_none())
    }

    fn next_pending(&mut self) -> Option<Part> {
        self.pending().next().map(|_| Part::First)
    }
}

/// A leader that unwinds leaves the disk in an unknown state: nothing is written any more.
impl Drop for Leader<'_> {
    fn drop(&mut self) {
        if self.handed_over {
            return;
        }
        let left = {
            let mut queue = self.engine.queue.lock();
            queue.poison(UNWOUND);
            queue.abdicate()
        };
        self.wake();
        for waiter in left {
            waiter.ticket.give(Wake::Done(Err(self.engine.poison(UNWOUND))));
        }
    }
}

impl Member {
    fn new(ticket: Option<Arc<Ticket>>, commit: Commit) -> Self {
        Self { ticket, commit, decided: None, outcome: None }
    }
}

/// Whether the disk was full for a group, which has changed nothing.
fn is_full(error: &Error) -> bool {
    matches!(error, Error::NoSpace { .. })
}

/// Why a store refuses writes if a leader unwound.
pub(super) const UNWOUND: &str = "the thread that was committing panicked";

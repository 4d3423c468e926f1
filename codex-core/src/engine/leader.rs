//! The work of one thread as the leader. However it ends, each member of its group gets an outcome,
//! and another thread can lead.

use std::sync::Arc;
use std::time::Duration;

use codex_storage::batch::Seq;
use codex_storage::storage::{Durability, StorageStats};
use codex_storage::{Error, Result};

use super::Engine;
use super::feed::Subscriber;
use super::plan::Decided;
use super::queue::{Refusal, Ticket, Waiter, Wake};
use crate::commit::{Commit, Outcome};
use crate::watch::Mailbox;
use crate::{promise, trace};

/// The leader, from the moment at which it has the lead until it hands it over. If it is dropped
/// before that, because of a panic, it poisons the store and answers every waiter.
pub(super) struct Leader<'a> {
    engine: &'a Engine,
    /// The first member of the group: the leader's own commit, or that of the task on whose behalf
    /// a deputy leads.
    own: Option<Member>,
    members: Vec<Member>,
    /// Whether each group passes an image of the state to the storage.
    pub(super) image: bool,
    /// The error of the whole group, if it did not fit on the disk and is made in parts.
    full: Option<Error>,
    /// The statistics of the storage after the group, and whether the log has outgrown the image.
    storage: Option<(StorageStats, bool)>,
    /// The earliest expiry of an entry after the group, in microseconds since 1970.
    pub(super) deadline_us: Option<i64>,
    poisoned: Option<String>,
    /// Whether the group has poisoned the store.
    newly_poisoned: bool,
    commits: u64,
    group_commits_max: u64,
    held: Duration,
    /// The mailboxes that got commits of the group.
    pub(super) filled: Vec<Arc<Mailbox>>,
    /// The watches that end, because the store is poisoned.
    pub(super) ended: Vec<Subscriber>,
    handed_over: bool,
    /// The number of further groups that the thread may lead before it hands over.
    groups_left: u32,
}

/// A member of the group.
pub(super) struct Member {
    /// The ticket at which the member waits; `None` for the leader's own commit.
    ticket: Option<Ticket>,
    /// Kept until the outcome is known, because a group that does not fit is decided again in
    /// parts.
    commit: Commit,
    decided: Option<Decided>,
    outcome: Option<Result<Outcome>>,
}

/// The part of the members without an outcome that the next group consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All members.
    All,
    /// The members that only remove.
    Removals,
    /// The first member.
    First,
}

impl<'a> Leader<'a> {
    /// Begins the work of the calling thread as the leader, with the first member of its group if
    /// it makes one.
    pub(super) fn begin(engine: &'a Engine, own: Option<Member>) -> Self {
        Self {
            engine,
            own,
            members: Vec::new(),
            image: engine.writes_images && engine.durability == Durability::Sync,
            full: None,
            storage: None,
            deadline_us: None,
            poisoned: None,
            newly_poisoned: false,
            commits: 0,
            group_commits_max: 0,
            held: Duration::ZERO,
            filled: Vec::new(),
            ended: Vec::new(),
            handed_over: false,
            groups_left: engine.groups_at_once,
        }
    }

    /// Moves waiting commits into the group. Returns the error for commits that put entries, if
    /// earlier commits are overdue.
    ///
    /// # Errors
    /// The refusal if the store is poisoned.
    pub(super) fn drain(&mut self) -> Result<Option<Error>, Refusal> {
        let len = self.own.as_ref().map_or(0, |own| own.commit.encoded_len());
        let mut queue = self.engine.queue.lock();
        queue.drain(len, self.engine.group_target, |ticket, commit| {
            self.members.push(Member::new(Some(ticket), commit));
        });
        match queue.poisoned() {
            Some(reason) => Err(Refusal::Poisoned(reason)),
            None => Ok(queue.overdue.refusal(|| self.engine.now())),
        }
    }

    /// Calls `decide` for the commits of `part`, in order, until it returns `None` because the
    /// group is full.
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

    /// Returns true if a member puts an entry that expires.
    pub(super) fn puts_expiring(&mut self) -> bool {
        self.pending().any(|member| member.commit.puts_expiring())
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

    /// Converts the decision for each member into its outcome.
    pub(super) fn complete(&mut self, outcome: impl Fn(Decided) -> Result<Outcome>) {
        for member in self.all() {
            if let Some(decided) = member.decided.take() {
                member.outcome = Some(outcome(decided));
            }
        }
    }

    /// Returns the part to make next, after a group of `part` was `made`, or `None` if every member
    /// has its outcome.
    ///
    /// A group that does not fit on the disk has changed nothing. A member that would fit without
    /// the others must not fail with them. So the members that only remove, which may use the
    /// reserve, come first, and then each other member alone.
    pub(super) fn next_part(&mut self, part: Part, made: Result<Seq>) -> Option<Part> {
        // A group that was not made is decided again, because its members may depend on each other.
        self.all().for_each(|member| member.decided = None);
        match (part, made) {
            // Any other error is that of the whole group.
            (_, Err(error)) if !is_full(&error) => {
                self.fail(&error);
                None
            }
            // The whole group is made.
            (Part::All, Ok(_)) => None,
            (Part::All, Err(full)) if self.pending().count() < 2 => {
                self.fail(&full);
                None
            }
            (Part::All, Err(full)) => {
                self.full = Some(full);
                Some(Part::Removals)
            }
            // An image of the whole state is not tried again for each member.
            (Part::Removals, _) if self.image => {
                let full = self.full.take().expect("parts are made of a group that did not fit");
                self.fail(&full);
                None
            }
            // The member does not fit even alone: the error is its own.
            (Part::First, Err(full)) => {
                let first = self.pending().next().expect("the group was made of it");
                first.outcome = Some(Err(full));
                self.next_pending()
            }
            (Part::Removals | Part::First, _) => self.next_pending(),
        }
    }

    /// Gives every member without an outcome the error `error`.
    pub(super) fn fail(&mut self, error: &Error) {
        self.pending().for_each(|member| member.outcome = Some(Err(error.clone())));
    }

    /// Gives the members that put an entry the error `error`.
    pub(super) fn fail_puts(&mut self, error: &Error) {
        let puts = self.pending().filter(|member| !member.commit.only_removes());
        puts.for_each(|member| member.outcome = Some(Err(error.clone())));
    }

    /// Calls `f` for each commit without an outcome, in order. If it fails, the commit has this
    /// outcome.
    #[cfg(feature = "shared")]
    pub(super) fn each_pending(&mut self, mut f: impl FnMut(&Commit) -> Result<()>) {
        self.pending().for_each(|member| member.outcome = f(&member.commit).err().map(Err));
    }

    /// Records for how long applying a group blocked readers.
    pub(super) fn held(&mut self, held: Duration) {
        self.held = self.held.max(held);
    }

    /// Records the number of commits of a group.
    pub(super) fn made(&mut self, commits: usize) {
        let commits = u64::try_from(commits).expect("a count of commits fits in 64 bits");
        self.commits += commits;
        self.group_commits_max = self.group_commits_max.max(commits);
    }

    /// Records the state of the storage after the group.
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
        // Order: mark before the successor wakes. From here on the lead belongs to the successor,
        // and a panic of this thread must not take it back.
        self.handed_over = true;
        self.pass(next);
    }

    /// Hands over the lead, or keeps it for the commit of another thread that waits: returns the
    /// leader of that commit. Groups without a sync take less time than waking a thread to lead.
    ///
    /// The lead does not stay with a thread whose group wakes a task or a watch. A waker is code of
    /// the user, which may wait for the store.
    pub(super) fn hand_over_or_stay(&mut self) -> Option<Leader<'a>> {
        let next = self.resign();
        self.handed_over = true;
        let wakes = !self.filled.is_empty() || !self.ended.is_empty();
        let may_stay = self.groups_left > 0 && !wakes && !self.all().any(Member::is_of_task);
        match next {
            Some(Waiter { commit: Some(commit), ticket: ticket @ Ticket::Thread(_), .. })
                if may_stay && !commit.sync =>
            {
                let first = Member::new(Some(ticket), commit);
                let mut next = Self::begin(self.engine, Some(first));
                next.groups_left = self.groups_left - 1;
                Some(next)
            }
            next => {
                self.pass(next);
                None
            }
        }
    }

    /// Gives the lead to `next`.
    fn pass(&self, next: Option<Waiter>) {
        match next {
            Some(Waiter { commit, ticket: Ticket::Thread(seat), .. }) => {
                seat.give(Wake::Lead(commit));
            }
            // A task never leads, because leading blocks on the disk.
            Some(task) => self.engine.lead_for(task),
            None => {}
        }
    }

    /// Records the statistics of the group. Then returns the first waiter, or resigns if there is
    /// none.
    fn resign(&mut self) -> Option<Waiter> {
        let mut queue = self.engine.queue.lock();
        let (members, waiting) = (self.all().count(), queue.waiting());
        queue.gather.made(members, waiting);
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
        self.newly_poisoned = self.poisoned.as_ref().is_some_and(|reason| queue.poison(reason));
        // Order: in the same critical section. A request that enters after it finds no leader and
        // leads; a request that entered before it is found here.
        queue.hand_over()
    }

    /// Gives the members their outcomes and wakes them, and then wakes or ends the watches. Returns
    /// the outcome of the leader's own commit, if it has one.
    pub(super) fn wake(&mut self) -> Option<Result<Outcome>> {
        let unwound = || Err(self.engine.poison(UNWOUND));
        let (mut own, mut wakers) = (None, Vec::new());
        // The commits are dropped with the leader, after all members are awake.
        for member in self.own.iter_mut().chain(&mut self.members) {
            let outcome = member.outcome.take();
            match &member.ticket {
                Some(ticket) => wakers.extend(ticket.answer(outcome.unwrap_or_else(unwound))),
                None => own = outcome,
            }
        }
        // Order: wake tasks after all members have their outcomes, because a waker is code of the
        // executor and may take long.
        promise::wake(wakers);
        if let Some(reason) = self.poisoned.as_ref().filter(|_| self.newly_poisoned) {
            trace::poisoned(reason);
        }
        for mailbox in self.filled.drain(..) {
            mailbox.wake();
        }
        self.ended.clear();
        own
    }

    /// Returns the number of the last commit that the leader has made, if it made one.
    pub(super) fn last_made(&self) -> Option<Seq> {
        let (storage, _) = self.storage.as_ref().filter(|_| self.commits > 0)?;
        Some(storage.seq)
    }

    /// Returns all members, the leader's own commit first.
    fn all(&mut self) -> impl Iterator<Item = &mut Member> {
        self.own.iter_mut().chain(&mut self.members)
    }

    /// Returns the members without an outcome.
    fn pending(&mut self) -> impl Iterator<Item = &mut Member> {
        self.all().filter(|member| member.outcome.is_none())
    }

    /// Returns the part of the first member without an outcome, if there is one.
    fn next_pending(&mut self) -> Option<Part> {
        self.pending().next().map(|_| Part::First)
    }
}

/// A leader that unwinds leaves the disk in an unknown state, so no later write is allowed.
impl Drop for Leader<'_> {
    fn drop(&mut self) {
        if self.handed_over {
            return;
        }
        // Order: poison and resign in one critical section, before any waiter wakes. A waiter that
        // tries again finds a poisoned store.
        let left = {
            let mut queue = self.engine.queue.lock();
            queue.poison(UNWOUND);
            queue.abdicate()
        };
        self.wake();
        let mut wakers = Vec::new();
        for waiter in left {
            wakers.extend(waiter.ticket.answer(Err(self.engine.poison(UNWOUND))));
        }
        promise::wake(wakers);
        self.engine.end_watches();
    }
}

impl Member {
    /// Returns a member that waits at `ticket`, or the leader's own commit.
    pub(super) fn new(ticket: Option<Ticket>, commit: Commit) -> Self {
        Self { ticket, commit, decided: None, outcome: None }
    }

    /// Returns true if the member is the commit of a task.
    fn is_of_task(&mut self) -> bool {
        matches!(self.ticket, Some(Ticket::Task(_)))
    }
}

/// Returns true if the disk was full for a group, which has changed nothing.
fn is_full(error: &Error) -> bool {
    matches!(error, Error::NoSpace { .. })
}

/// The reason why a store refuses writes after a leader unwound.
pub(super) const UNWOUND: &str = "the thread that was committing panicked";
/// The number of groups without a sync that a thread makes for others before it hands over the
/// lead: for less than a millisecond, which is about the time of a turn of the scheduler.
pub(super) const GROUPS_AT_ONCE: u32 = 64;

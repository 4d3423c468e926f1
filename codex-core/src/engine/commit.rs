//! The path of a commit. One thread at a time makes a group of commits durable, then visible, then
//! gives its members their outcomes.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use codex_storage::batch::{GROUP_LEN_TARGET, Group, Seq};
use codex_storage::seal::Seal;
#[cfg(feature = "shared")]
use codex_storage::shared::Follower;
use codex_storage::storage::Storage;
use codex_storage::{Error, Result};

use super::Engine;
use super::feed::Subscriber;
#[cfg(feature = "shared")]
use super::images::Tail;
use super::leader::{Leader, Member, Part, UNWOUND};
use super::plan::{Decided, Plan, Planned};
use super::queue::{Admission, Wake};
use super::worker::{GroupEffects, sync};
use crate::commit::{Commit, Outcome};
use crate::locks::PersistGuard;
use crate::map::{Freed, Image, Map};
use crate::outer;
use crate::rank::Rank;
use crate::trace;

/// The state that the lock on the disk protects: the storage, and the buffers of a group.
#[derive(Debug)]
pub(super) struct Disk {
    /// `None` after the close.
    pub(super) storage: Option<Box<dyn Storage>>,
    /// The node of a shared log. A leader that unwinds loses it.
    #[cfg(feature = "shared")]
    pub(super) shared: Option<Box<Follower>>,
    /// The log behind the newest image.
    #[cfg(feature = "shared")]
    pub(super) tail: Tail,
    /// The root key of the files, after the storage was closed.
    pub(super) seal: Option<Arc<dyn Seal>>,
    pub(super) group: Group,
    pub(super) plan: Plan,
    /// For how long the last group used the disk; zero if groups do not wait for it.
    pub(super) took: Duration,
    /// The watches.
    pub(super) subscribers: Vec<Subscriber>,
    /// Whether an image is being written beside the commits.
    pub(super) imaging: bool,
    /// Whether a leader has the disk. A leader that finds this set knows that the previous one
    /// unwound.
    is_led: bool,
    /// Whether a leader has unwound. The storage is then in an unknown state and is not called
    /// again.
    pub(super) unwound: bool,
}

/// The result of one group.
struct Made<'a> {
    /// The outcome of the leader's own commit.
    outcome: Option<Result<Outcome>>,
    /// The last commit that was made, if one was.
    last: Option<Seq>,
    effects: GroupEffects,
    /// The leader of the next group, if the thread goes on.
    next: Option<Leader<'a>>,
}

impl Engine {
    /// Makes `commit` durable at the level of the store, then visible, and returns its outcome.
    ///
    /// # Errors
    /// The errors of the storage: nothing was changed, except after `InDoubt`, after which the
    /// store refuses writes. `Closed`; `Poisoned`; `Record` if the commit exceeds a limit.
    pub fn submit(&self, commit: Commit) -> Result<Outcome> {
        // Order: start the thread that syncs before the commit. Without the thread, the commit
        // would be acknowledged and never synced.
        self.start_syncing()?;

        // Enter the queue: lead if no thread does, otherwise wait for an outcome or for the lead.
        let own = match self.enter(Admission::WhileOpen, Some(commit))? {
            Wake::Done(outcome) => return outcome,
            Wake::Lead(own) => own.expect("a commit is handed the lead with itself"),
        };
        let outcome = self.lead(Member::new(None, own));
        outcome.expect("every member of a group has an outcome")
    }

    /// Makes a group that begins with `first`, as the leader, and further groups if the lead stays
    /// with this thread. Returns the outcome of `first`, unless it waits at a ticket.
    pub(super) fn lead(&self, first: Member) -> Option<Result<Outcome>> {
        // Order: begin before the lock. A panic after this line poisons the store and answers every
        // waiter (promise 5).
        let mut made = self.make_group(Leader::begin(self, Some(first)));
        let (outcome, mut last) = (made.outcome.take(), made.last);
        while let Some(leader) = made.next.take() {
            // A panic in a group of other threads poisons the store and answers these. The outcome
            // of `first` is known before.
            let further = catch_unwind(AssertUnwindSafe(|| self.make_group(leader)));
            let Ok(further) = further else { break };
            last = further.last.or(last);
            made = further;
        }
        // Order: tell the backups after the hand-over, which has put the number of the commit into
        // the statistics. They compare it with the statistics, and would miss it otherwise.
        if let Some(seq) = last {
            self.on_commit.call(seq);
        }
        // The effects of the last group are those of the state after all of them.
        self.notice(made.effects);
        outcome
    }

    /// Makes one group.
    fn make_group<'a>(&'a self, mut leader: Leader<'a>) -> Made<'a> {
        let mut freed = Freed::default();
        let _span = trace::commit_group();

        // Lock the disk, then drain: take as many waiting commits as fit in a group.
        // Order: lock before the drain. The log has the commits in the order in which they leave
        // the queue (promise 3).
        let mut disk = self.lock_disk();
        let from = self.gather(&disk);
        let mut part = self.drain(&mut leader, &disk);

        // The group of a shared store goes through its log, together with those of other nodes.
        #[cfg(feature = "shared")]
        if disk.shared.is_some() && part.take().is_some() {
            self.write_shared(&mut leader, &mut disk, &mut freed);
        }

        // One round, unless the group does not fit on the disk: then it is made in parts.
        while let Some(members) = part {
            // Decide: test conditions and resolve removals, against memory and the earlier members.
            self.decide(&mut leader, &mut disk, members);

            // Log: one frame and one sync make the group durable, or nothing has changed.
            // Order: log before apply. Readers see only commits that a crash cannot take back, and
            // a write that failed is never visible (promises 4 and 5).
            let logged = disk.log();
            if let Ok(first) = logged {
                // Apply: swap the prepared group into memory, all of it at once (promise 2).
                self.apply(&mut leader, &mut disk, &mut freed);
                // Order: publish after the apply, with the disk still locked. Watches get whole
                // commits, in the order of the log, which readers already see.
                disk.publish(first, &mut leader);
                // Order: apply before the outcomes. A thread that has its outcome reads its write.
                leader.complete(|decided| self.outcome(decided, first));
                leader.made(disk.group.batches());
            }
            disk.reset_group();
            part = leader.next_part(members, logged);
        }

        disk.took = from.map_or(Duration::ZERO, |from| self.now().saturating_sub(from));
        // Order: unlock before the lead is handed over, or the next leader waits for this one.
        let effects = Self::unlock_disk(disk, &mut leader);
        // Order: hand over before the wake. The next group is written while the members of this one
        // wake up, and a waker may wait for the store.
        let next = leader.hand_over_or_stay();
        let outcome = leader.wake();
        // Order: free last. No thread waits while the replaced entries are freed.
        drop(freed);
        Made { outcome, last: leader.last_made(), effects, next }
    }

    /// Makes `commit` as durable as at the level `Sync`, then visible. The other members of its
    /// group wait for the same sync.
    ///
    /// # Errors
    /// The errors of [`submit`](Self::submit).
    pub fn submit_synced(&self, mut commit: Commit) -> Result<Outcome> {
        commit.sync = true;
        // Order: take the lock of checkpoints before the queue. A form of images makes the commit
        // with an image, which has the temporary name that a checkpoint uses.
        let alone = self.writes_images.then(|| outer::lock(Rank::Checkpoint, &self.checkpoint));
        let outcome = self.submit(commit)?;
        drop(alone);
        // A commit that writes nothing rests on earlier ones. No image was written of its group, so
        // they may not be durable.
        if self.writes_images && outcome.seq().is_none() {
            self.flush()?;
        }
        Ok(outcome)
    }

    /// Locks the disk for a leader.
    pub(super) fn lock_disk(&self) -> PersistGuard<'_, Disk> {
        let mut disk = self.locks.persist();
        // The flag is still set if the previous leader unwound before it unlocked the disk.
        disk.unwound |= mem::replace(&mut disk.is_led, true);
        disk
    }

    /// Unlocks the disk at the end of a leader's work. Returns the background work that is due now.
    pub(super) fn unlock_disk(
        mut disk: PersistGuard<'_, Disk>,
        leader: &mut Leader<'_>,
    ) -> GroupEffects {
        disk.is_led = false;
        let Some(storage) = disk.storage.as_deref().filter(|_| !disk.unwound) else {
            return GroupEffects::default();
        };
        // Take the statistics under the lock, so that they are those of the state after this group.
        let (stats, wants_checkpoint) = (storage.stats(), storage.wants_checkpoint());
        let poisoned = storage.poisoned();
        #[cfg(feature = "shared")]
        let wants_checkpoint = wants_checkpoint || disk.tail.is_due;
        #[cfg(feature = "shared")]
        let poisoned = poisoned.or_else(|| Some(disk.shared.as_ref()?.failed()?.to_string()));
        if poisoned.is_some() {
            leader.ended.append(&mut disk.subscribers);
        }
        leader.saw(stats, wants_checkpoint, poisoned);
        let deadline_us = leader.deadline_us;
        GroupEffects { wants_checkpoint, unsynced: stats.durable < stats.seq, deadline_us }
    }

    /// Moves waiting commits into the group. Returns the part of the members to make first, or
    /// `None` if all are refused.
    fn drain(&self, leader: &mut Leader<'_>, disk: &Disk) -> Option<Part> {
        let drained = leader.drain().map_err(|refusal| self.refused(refusal));
        let drained = drained.and_then(|overdue| match disk.storage {
            Some(_) if disk.unwound => Err(self.poison(UNWOUND)),
            Some(_) => Ok(overdue),
            None => Err(self.closed()),
        });
        let overdue = match drained {
            Ok(overdue) => overdue,
            Err(error) => {
                leader.fail(&error);
                return None;
            }
        };
        if let Some(error) = overdue {
            // Removals can make room for an image. They are made with one, as at `Sync`, unless an
            // image is being written, because it has the temporary name.
            leader.fail_puts(&error);
            if disk.imaging {
                leader.fail(&error);
                return None;
            }
            leader.image = true;
        }
        Some(Part::All)
    }

    /// Decides the outcome of each member of `part`, in order, and encodes it, until the group is
    /// full. Prepares the apply.
    fn decide(&self, leader: &mut Leader<'_>, disk: &mut PersistGuard<'_, Disk>, part: Part) {
        disk.read_with(|disk, map| {
            let writes_images = disk.writes_images();
            let Disk { plan, group, subscribers, .. } = disk;
            plan.feed.begin(!subscribers.is_empty());
            // One time for the group. It matters only if an entry expires.
            let expires = map.ordered_ref().first_deadline().is_some() || leader.puts_expiring();
            plan.now_us = if expires { self.now_us() } else { i64::MIN };
            leader.decide(part, |commit| {
                // The limit applies to the encoded length, because the size of a removal of a range
                // is known only now.
                let takes = group.len() < GROUP_LEN_TARGET;
                takes.then(|| plan.add(map, group, commit))
            });
            // A form of images makes a commit durable with an image, at every level.
            leader.image |= plan.sync && writes_images;
            plan.prepare(map, leader.image);
        });
        if part == Part::All {
            // A full group leaves members undecided: they go to the next group.
            leader.put_back();
        }
    }

    /// Makes the group visible, after it is durable.
    pub(super) fn apply(
        &self,
        leader: &mut Leader<'_>,
        disk: &mut PersistGuard<'_, Disk>,
        freed: &mut Freed,
    ) {
        if disk.plan.work.seq.is_none() {
            return;
        }
        let from = self.now();
        // Measured around the lock, so that the figure includes the wait for readers to finish.
        leader.deadline_us = disk.write(|disk, map| {
            map.apply(&mut disk.plan.work);
            map.ordered_ref().first_deadline()
        });
        leader.held(self.now().saturating_sub(from));
        // The entries are freed by the caller, after the lock is released and the waiters are
        // awake.
        *freed = mem::take(&mut disk.plan.work.freed);
    }

    /// Returns the outcome of a member of a group whose first commit has the number `first`.
    pub(super) fn outcome(&self, decided: Decided, first: Seq) -> Result<Outcome> {
        match decided {
            Ok(Planned::Conflict) => Ok(Outcome::Conflict),
            Ok(Planned::Done { batch, removed, previous }) => {
                let seq = batch.map(|batch| first + batch);
                Ok(Outcome::Done { seq, removed, previous })
            }
            Err(source) => Err(Error::Record { path: self.path.clone(), source }),
        }
    }
}

impl Disk {
    /// Returns the disk of a replayed `storage`.
    pub(super) fn new(storage: Box<dyn Storage>) -> Self {
        Self {
            group: storage.group(),
            storage: Some(storage),
            #[cfg(feature = "shared")]
            shared: None,
            #[cfg(feature = "shared")]
            tail: Tail::default(),
            seal: None,
            plan: Plan::default(),
            took: Duration::ZERO,
            subscribers: Vec::new(),
            imaging: false,
            is_led: false,
            unwound: false,
        }
    }

    /// Returns the storage, for work that is admitted only before the close.
    pub(super) fn storage(&mut self) -> &mut dyn Storage {
        &mut **self.storage.as_mut().expect("the storage is there until the close")
    }

    /// Makes the group durable. Returns the number of its first commit, or 0 if there is nothing to
    /// write.
    pub(super) fn log(&mut self) -> Result<Seq> {
        let Self { storage, group, plan, .. } = self;
        let storage = storage.as_mut().expect("the storage is there until the close");
        if group.is_empty() {
            // A commit that writes nothing rests on earlier ones, which may not be durable.
            if plan.sync {
                sync(&mut **storage)?;
            }
            return Ok(0);
        }
        // A form that writes an image of each group gets the state with the group already applied.
        let image = plan.work.ordered.clone().map(Image);
        let numbers = storage.commit(group, image.as_ref().map(|image| image as _))?;
        // Order: sync before the apply, as a storage of the level `Sync` does. After a sync that
        // failed, the group is not in memory, and the storage refuses writes (promise 5).
        if plan.sync {
            sync(&mut **storage)?;
        }
        plan.committed(numbers.end - 1);
        Ok(numbers.start)
    }

    /// Plans the apply of `commits` to `map`, all of them, as they are in the log. Returns false if
    /// one of them changes nothing, which no writer logs.
    pub(super) fn plan_all(&mut self, map: &Map, commits: &[Commit]) -> bool {
        let Self { plan, group, subscribers, .. } = self;
        plan.feed.begin(!subscribers.is_empty());
        // The writer has decided by its own time. No entry has expired here.
        plan.now_us = i64::MIN;
        let is_planned = commits.iter().all(|commit| {
            matches!(plan.add(map, group, commit), Ok(Planned::Done { batch: Some(_), .. }))
        });
        plan.prepare(map, false);
        plan.committed(map.seq() + u64::try_from(commits.len()).expect("a count fits in 64 bits"));
        is_planned
    }

    /// Returns true if the storage makes commits durable by writing an image.
    fn writes_images(&self) -> bool {
        self.storage.as_ref().is_some_and(|storage| storage.form().writes_images())
    }

    /// Empties the buffers for the next group.
    pub(super) fn reset_group(&mut self) {
        self.group.reset();
        self.plan.reset();
    }
}

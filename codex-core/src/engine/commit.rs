//! The path of a commit: one thread at a time makes a group durable, then visible, then gives its
//! members their outcomes.

use std::mem;
use std::sync::Arc;

use codex_storage::batch::{GROUP_LEN_TARGET, Group, Layout, Seq};
use codex_storage::seal::Seal;
use codex_storage::storage::Storage;
use codex_storage::{Error, Result};

use super::leader::{Leader, Part, UNWOUND};
use super::plan::{Decided, Plan, Planned};
use super::queue::{Admission, Wake};
use super::{Engine, GroupEffects};
use crate::commit::{Commit, Outcome};
use crate::locks::PersistGuard;
use crate::map::{Freed, Image};

/// The state under the lock on the disk: the storage, and the buffers of a group.
#[derive(Debug)]
pub(super) struct Disk {
    /// `None` once closed.
    pub(super) storage: Option<Box<dyn Storage>>,
    /// The root key of the files, once the storage is closed.
    pub(super) seal: Option<Arc<dyn Seal>>,
    group: Group,
    plan: Plan,
    /// An image is being written beside the commits.
    pub(super) imaging: bool,
    /// A leader has the disk. One that finds this set knows that the one before it unwound.
    is_led: bool,
    /// A leader has unwound: the storage is in an unknown state and is not called again.
    pub(super) unwound: bool,
}

impl Engine {
    /// Makes `commit` durable at the level of the store, then visible, and returns its outcome.
    ///
    /// # Errors
    /// Errors of the storage, after which nothing was changed, or `InDoubt`; `Closed`, `Poisoned`,
    /// `Record`.
    pub fn submit(&self, commit: Commit) -> Result<Outcome> {
        self.start_syncing()?;

        // Enter the queue: lead if no thread does, else wait for an outcome or for the lead.
        let own = match self.enter(Admission::WhileOpen, Some(commit))? {
            Wake::Done(outcome) => return outcome,
            Wake::Lead(own) => own.expect("a commit is handed the lead with itself"),
        };
        // Order: before the lock. A panic from here on poisons the store and answers every
        // waiter (promise 5).
        let mut leader = Leader::begin(self);
        let mut freed = Freed::default();

        // Lock the disk, then drain: as many waiting commits as fit in a group.
        // Order: the lock before the drain. The log has the commits in the order in which they
        // leave the queue (promise 3).
        let mut disk = self.lock_disk();
        let mut part = self.drain(&mut leader, &disk, own);

        // One round, unless the group does not fit on the disk: then it is made in parts.
        while let Some(members) = part {
            // Decide: test conditions and resolve removals, against memory and the members before.
            Self::decide(&mut leader, &mut disk, members);

            // Log: one frame and one sync make the group durable, or nothing has changed.
            // Order: log before apply. Readers see only what a crash cannot take back, and a
            // write that failed is never visible (promises 4 and 5).
            let logged = disk.log();
            if let Ok(first) = logged {
                // Apply: swap the prepared group into memory, all of it at once (promise 2).
                self.apply(&mut leader, &mut disk, &mut freed);
                // Order: apply before the outcomes. A thread that has its outcome reads its write.
                leader.complete(|decided| self.outcome(decided, first));
                leader.made(disk.group.batches());
            }
            disk.reset_group();
            part = leader.next_part(members, logged);
        }

        // Order: unlock before the lead is handed over, or the next leader waits for this one.
        let effects = Self::unlock_disk(disk, &mut leader);
        // Order: hand over before the wake. The next group is at the disk while the members of
        // this one wake up.
        leader.hand_over();
        let outcome = leader.wake();
        // Order: last. No thread waits while the replaced entries are freed.
        drop(freed);
        self.notice(effects);
        outcome.expect("every member of a group has an outcome")
    }

    /// Locks the disk for a leader.
    pub(super) fn lock_disk(&self) -> PersistGuard<'_, Disk> {
        let mut disk = self.locks.persist();
        disk.unwound |= mem::replace(&mut disk.is_led, true);
        disk
    }

    /// Unlocks the disk at the end of a leader's work. Returns what its work has made due.
    pub(super) fn unlock_disk(
        mut disk: PersistGuard<'_, Disk>,
        leader: &mut Leader<'_>,
    ) -> GroupEffects {
        disk.is_led = false;
        let Some(storage) = disk.storage.as_deref().filter(|_| !disk.unwound) else {
            return GroupEffects::default();
        };
        let (stats, wants_checkpoint) = (storage.stats(), storage.wants_checkpoint());
        leader.saw(stats, wants_checkpoint, storage.poisoned());
        GroupEffects { wants_checkpoint, unsynced: stats.durable < stats.seq }
    }

    /// Moves waiting commits into the group of `own`. Returns the members to make a group of;
    /// `None` if they are refused.
    fn drain(&self, leader: &mut Leader<'_>, disk: &Disk, own: Commit) -> Option<Part> {
        let refused = leader.drain(own).map_err(|refusal| self.refused(refusal));
        let refused = refused.and_then(|()| match disk.storage {
            Some(_) if disk.unwound => Err(self.poison(UNWOUND)),
            Some(_) => Ok(()),
            None => Err(self.closed()),
        });
        if let Err(error) = refused {
            leader.fail(&error);
            return None;
        }
        let overdue = self.queue.lock().overdue.refusal(|| self.now());
        if let Some(error) = overdue {
            // Removals may make room for an image: they are made with one, as at `Sync`, unless
            // one is being written, which has the temporary name.
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
    fn decide(leader: &mut Leader<'_>, disk: &mut PersistGuard<'_, Disk>, part: Part) {
        // They leave the guard while memory is read through it. Nothing is lost if this unwinds:
        // it poisons.
        let mut plan = mem::take(&mut disk.plan);
        let mut group = mem::replace(&mut disk.group, Group::new(Layout::default()));
        disk.read(|map| {
            leader.decide(part, |commit| {
                // By the encoded length: the size of a removal of a range is known only now.
                let takes = group.len() < GROUP_LEN_TARGET;
                takes.then(|| plan.add(map, &mut group, commit))
            });
            plan.prepare(map, leader.image);
        });
        disk.plan = plan;
        disk.group = group;
        if part == Part::All {
            leader.put_back();
        }
    }

    /// Makes the group visible, once it is durable.
    fn apply(&self, leader: &mut Leader<'_>, disk: &mut PersistGuard<'_, Disk>, freed: &mut Freed) {
        if disk.plan.work.seq.is_none() {
            return;
        }
        let mut work = mem::take(&mut disk.plan.work);
        let from = self.now();
        disk.write(|map| map.apply(&mut work));
        leader.held(self.now().saturating_sub(from));
        *freed = mem::take(&mut work.freed);
        disk.plan.work = work;
    }

    fn outcome(&self, decided: Decided, first: Seq) -> Result<Outcome> {
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
    /// The disk under a replayed `storage`.
    pub(super) fn new(storage: Box<dyn Storage>) -> Self {
        Self {
            group: storage.group(),
            storage: Some(storage),
            seal: None,
            plan: Plan::default(),
            imaging: false,
            is_led: false,
            unwound: false,
        }
    }

    /// The storage, for work that is only admitted while it is there.
    pub(super) fn storage(&mut self) -> &mut dyn Storage {
        &mut **self.storage.as_mut().expect("the storage is there until the close")
    }

    /// Makes the group durable. Returns the number of its first commit; 0 if there is nothing to
    /// write.
    fn log(&mut self) -> Result<Seq> {
        let Self { storage, group, plan, .. } = self;
        if group.is_empty() {
            return Ok(0);
        }
        let storage = storage.as_mut().expect("the storage is there until the close");
        let image = plan.work.ordered.clone().map(Image);
        let numbers = storage.commit(group, image.as_ref().map(|image| image as _))?;
        plan.committed(numbers.end - 1);
        Ok(numbers.start)
    }

    fn reset_group(&mut self) {
        self.group.reset();
        self.plan.reset();
    }
}

//! Leading: one thread at a time makes a group durable, then visible, then tells its members.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use codex_storage::batch::{Group, Layout, Seq};
use codex_storage::storage::{Durability, Storage, StorageStats};
use codex_storage::sync::with_parker;
use codex_storage::vfs::Clock;
use codex_storage::{Error, Result};

use super::plan::{Plan, Planned};
use super::queue::{Entered, Member, Refusal, StateGuard, Ticket, Turn};
use super::{Commit, Outcome, Queue, Reply, Request};
use crate::locks::{Locks, PersistGuard};
use crate::map::{Freed, Image, Map};

/// The commit path: the two locks, the queue, and what leaders need.
pub(crate) struct Core {
    locks: Locks<Disk>,
    queue: Queue,
    path: PathBuf,
    clock: Arc<dyn Clock>,
    /// Whether each commit hands the storage an image of the state.
    image: bool,
}

/// What `persist` guards: the storage, and the room that groups are put together in.
#[derive(Debug)]
pub(crate) struct Disk {
    /// `None` once closed.
    storage: Option<Box<dyn Storage>>,
    group: Group,
    plan: Plan,
}

/// What the leader noticed while it held the disk.
#[derive(Debug, Default)]
pub(crate) struct Noticed {
    /// The log has outgrown the image.
    pub(crate) wants_checkpoint: bool,
    /// There are commits that are not durable yet.
    pub(crate) unsynced: bool,
}

/// The commit path's own figures.
#[derive(Debug, Clone)]
pub(crate) struct CoreStats {
    /// Of the storage, after the last group.
    pub(crate) storage: StorageStats,
    /// Commits since opening.
    pub(crate) commits: u64,
    /// The most commits in one group.
    pub(crate) group_commits_max: u64,
    /// The longest that readers were kept out of memory, in nanoseconds.
    pub(crate) data_hold_ns_max: u64,
    /// Why writes are refused, if they are.
    pub(crate) poisoned: Option<String>,
}

impl Core {
    /// The commit path over a replayed `storage`.
    pub(crate) fn new(
        storage: Box<dyn Storage>,
        map: Map,
        path: PathBuf,
        durability: Durability,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let queue = Queue::new(storage.stats());
        let image = storage.form().writes_images() && durability == Durability::Sync;
        let disk = Disk { group: storage.group(), plan: Plan::default(), storage: Some(storage) };
        Self { locks: Locks::new(disk, map), queue, path, clock, image }
    }

    /// Calls `f` with memory; see [`Locks::read`].
    pub(crate) fn read<R>(&self, f: impl FnOnce(&Map) -> R) -> R {
        self.locks.read(f)
    }

    /// Does what `request` asks in its turn, as the leader or by one; `noticed` hears from the
    /// leader what is to be done in the background.
    ///
    /// # Errors
    /// Of the storage; `Closed`, `Poisoned`.
    pub(crate) fn submit(&self, request: Request, noticed: impl Fn(&Noticed)) -> Result<Reply> {
        with_parker(|parker| {
            let own = match self.queue.enter(request, parker) {
                Err(refusal) => return Err(self.refused(refusal)),
                Ok(Entered::Lead(own)) => own,
                Ok(Entered::Wait(ticket)) => match ticket.wait(parker) {
                    Turn::Done(reply) => return reply,
                    Turn::Lead(own) => own,
                },
            };
            let (reply, seen) = self.lead(own);
            noticed(&seen);
            reply
        })
    }

    /// Lets nobody but the close itself enter from now on; whether this call was the first.
    pub(crate) fn begin_close(&self) -> bool {
        self.queue.begin_close()
    }

    /// Whether the store has been closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.queue.lock().is_closed()
    }

    /// Why writes are refused, if they are.
    pub(crate) fn poisoned(&self) -> Option<String> {
        self.queue.lock().poisoned().map(|reason| reason.to_string())
    }

    /// The figures after the last group.
    pub(crate) fn stats(&self) -> CoreStats {
        let state = self.queue.lock();
        let stats = state.stats.clone();
        CoreStats {
            storage: stats.storage,
            commits: stats.commits,
            group_commits_max: stats.group_commits_max,
            data_hold_ns_max: stats.data_hold_ns_max,
            poisoned: state.poisoned().map(|reason| reason.to_string()),
        }
    }

    /// The error of a store that is closed.
    pub(crate) fn closed(&self) -> Error {
        Error::Closed { path: self.path.clone() }
    }

    /// The error of an image that was given up.
    pub(crate) fn abandoned(&self) -> Error {
        Error::Abandoned { path: self.path.clone() }
    }

    fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Closed => self.closed(),
            Refusal::Poisoned(reason) => {
                Error::Poisoned { path: self.path.clone(), reason: reason.to_string() }
            }
        }
    }

    fn lead(&self, own: Request) -> (Result<Reply>, Noticed) {
        let mut shift = Shift { core: self, members: Vec::new(), ended: false };
        let mut disk = self.locks.persist();
        let (reply, freed) = match own {
            Request::Commit(commit) => self.lead_group(&mut shift, &mut disk, commit),
            control => (self.control(&mut disk, control), Freed::default()),
        };
        let storage = disk.storage.as_deref();
        let noticed = Noticed {
            wants_checkpoint: storage.is_some_and(Storage::wants_checkpoint),
            unsynced: storage.map(Storage::stats).is_some_and(|stats| stats.durable < stats.seq),
        };
        let stats = storage.map(Storage::stats);
        let poisoned = storage.and_then(Storage::poisoned);
        drop(disk);
        shift.end(stats, poisoned);
        drop(freed);
        (reply, noticed)
    }

    /// Makes the commit `own` and those that wait behind it durable as one group, then visible.
    fn lead_group(
        &self,
        shift: &mut Shift<'_>,
        disk: &mut PersistGuard<'_, Disk>,
        own: Commit,
    ) -> (Result<Reply>, Freed) {
        let len = own.encoded_len();
        let refusal = {
            let mut queue = self.queue.lock();
            shift.members.extend(queue.drain(len).into_iter().map(Turned::new));
            queue.poisoned().map(Refusal::Poisoned)
        };
        if let Some(refusal) = refusal {
            let error = self.refused(refusal);
            shift.fail_all(&error);
            return (Err(error), Freed::default());
        }
        let own = self.plan(shift, disk, own);
        match self.log(disk) {
            Err(error) => {
                shift.fail_all(&error);
                disk.group.reset();
                disk.plan.reset();
                (Err(error), Freed::default())
            }
            Ok(first) => {
                let (freed, held_ns) = self.apply(disk, first);
                let commits = u64::try_from(disk.group.batches()).unwrap_or(u64::MAX);
                {
                    let mut queue = self.queue.lock();
                    let stats = &mut queue.stats;
                    stats.commits += commits;
                    stats.group_commits_max = stats.group_commits_max.max(commits);
                    stats.data_hold_ns_max = stats.data_hold_ns_max.max(held_ns);
                }
                for member in &mut shift.members {
                    member.reply =
                        member.planned.take().map(|planned| self.outcome(planned, first));
                }
                disk.group.reset();
                disk.plan.reset();
                (self.outcome(own, first), freed)
            }
        }
    }

    /// Decides what each member does, in order, and encodes it; prepares the apply.
    fn plan(
        &self,
        shift: &mut Shift<'_>,
        disk: &mut PersistGuard<'_, Disk>,
        own: Commit,
    ) -> Decided {
        // Out of the guard, so that memory can be read beside them; no group is lost if this
        // unwinds, since that poisons.
        let mut plan = std::mem::take(&mut disk.plan);
        let mut group = std::mem::replace(&mut disk.group, Group::new(Layout::default()));
        let decided = disk.read(|map| {
            let own = plan.add(map, &mut group, own);
            for member in &mut shift.members {
                member.planned =
                    member.commit.take().map(|commit| plan.add(map, &mut group, commit));
            }
            plan.prepare(map, self.image);
            own
        });
        disk.plan = plan;
        disk.group = group;
        decided
    }

    /// Makes the group durable; the number of its first commit, 0 when it writes nothing.
    fn log(&self, disk: &mut PersistGuard<'_, Disk>) -> Result<Seq> {
        let Disk { storage, group, plan } = &mut **disk;
        let storage = storage.as_mut().ok_or_else(|| self.closed())?;
        if group.is_empty() {
            return Ok(0);
        }
        let image = plan.work.ordered.clone().map(Image);
        let numbers = storage.commit(group, image.as_ref().map(|image| image as _))?;
        plan.committed(numbers.end.saturating_sub(1));
        Ok(numbers.start)
    }

    /// Makes the group visible; what is to be freed, and how long readers were kept out.
    fn apply(&self, disk: &mut PersistGuard<'_, Disk>, first: Seq) -> (Freed, u64) {
        if first == 0 {
            return (Freed::default(), 0);
        }
        let mut work = std::mem::take(&mut disk.plan.work);
        let from = self.clock.monotonic();
        disk.write(|map| map.apply(&mut work));
        let held = self.clock.monotonic().saturating_sub(from);
        let freed = std::mem::take(&mut work.freed);
        disk.plan.work = work;
        (freed, u64::try_from(held.as_nanos()).unwrap_or(u64::MAX))
    }

    fn outcome(&self, decided: Decided, first: Seq) -> Result<Reply> {
        match decided {
            Ok(Planned::Conflict) => Ok(Reply::Outcome(Outcome::Conflict)),
            Ok(Planned::Done { batch, removed, previous }) => {
                let seq = batch.map(|batch| first + u64::try_from(batch).unwrap_or(u64::MAX));
                Ok(Reply::Outcome(Outcome::Done { seq, removed, previous }))
            }
            Err(source) => Err(Error::Record { path: self.path.clone(), source }),
        }
    }

    fn control(&self, disk: &mut PersistGuard<'_, Disk>, request: Request) -> Result<Reply> {
        if let Request::Close = request {
            return self.close(disk);
        }
        let poisoned = self.queue.lock().poisoned();
        let storage = disk.storage.as_mut().ok_or_else(|| self.closed())?;
        match request {
            Request::Synced(outcome) => return storage.synced(outcome).map(|()| Reply::Done),
            Request::FinishCheckpoint(done) => {
                return storage.finish_checkpoint(done).map(|()| Reply::Done);
            }
            _ => {}
        }
        if let Some(reason) = poisoned {
            return Err(self.refused(Refusal::Poisoned(reason)));
        }
        match request {
            Request::Flush => {
                if let Some(point) = storage.sync_point()? {
                    storage.synced(point.sync())?;
                }
                let StorageStats { seq, durable, .. } = storage.stats();
                Ok(Reply::Flushed { seq, durable })
            }
            Request::SyncPoint => {
                let point = storage.sync_point()?;
                let stats = storage.stats();
                let wants_image = point.is_none() && stats.durable < stats.seq;
                Ok(Reply::Point { point, wants_image })
            }
            Request::BeginCheckpoint => {
                let begun = storage.begin_checkpoint()?;
                let ordered = disk.read(Map::ordered);
                Ok(Reply::Begun(begun.map(|begun| (begun, ordered))))
            }
            Request::Anchor => Ok(Reply::Anchor(storage.anchor())),
            _ => Ok(Reply::Done),
        }
    }

    /// Ends the storage and releases its lock; memory stays readable.
    fn close(&self, disk: &mut PersistGuard<'_, Disk>) -> Result<Reply> {
        self.queue.lock().close();
        let state = Image(disk.read(Map::ordered));
        let Some(mut storage) = disk.storage.take() else { return Ok(Reply::Done) };
        storage.close(&state).map(|()| Reply::Done)
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("path", &self.path).finish_non_exhaustive()
    }
}

type Decided = Result<Planned, codex_storage::RecordError>;

/// A member of the group being made.
struct Turned {
    ticket: Arc<Ticket>,
    commit: Option<Commit>,
    planned: Option<Decided>,
    reply: Option<Result<Reply>>,
}

impl Turned {
    fn new(member: Member) -> Self {
        let commit = match member.request {
            Request::Commit(commit) => Some(commit),
            // Only commits are drained.
            _ => None,
        };
        Self { ticket: member.ticket, commit, planned: None, reply: None }
    }
}

/// One thread's time as the leader. However it ends, everybody gets an answer and somebody else
/// can lead.
struct Shift<'a> {
    core: &'a Core,
    members: Vec<Turned>,
    ended: bool,
}

impl Shift<'_> {
    fn fail_all(&mut self, error: &Error) {
        for member in &mut self.members {
            member.reply = Some(Err(error.clone()));
        }
    }

    /// Hands the leadership on and wakes the members, in this order: the next group's disk work
    /// runs while they are woken.
    fn end(mut self, stats: Option<StorageStats>, poisoned: Option<String>) {
        let next = {
            let mut queue = self.core.queue.lock();
            if let Some(stats) = stats {
                queue.stats.storage = stats;
            }
            if let Some(reason) = poisoned {
                queue.poison(&reason);
            }
            hand_over(queue)
        };
        self.ended = true;
        if let Some(next) = next {
            next.ticket.give(Turn::Lead(next.request));
        }
        self.wake();
    }

    fn wake(&mut self) {
        for member in self.members.drain(..) {
            let reply = member.reply.unwrap_or_else(|| Err(self.core.broken()));
            member.ticket.give(Turn::Done(reply));
        }
    }
}

fn hand_over(mut queue: StateGuard<'_>) -> Option<Member> {
    queue.hand_over()
}

impl Core {
    fn broken(&self) -> Error {
        Error::Poisoned { path: self.path.clone(), reason: UNWOUND.to_owned() }
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
            member.ticket.give(Turn::Done(Err(self.core.broken())));
        }
    }
}

const UNWOUND: &str = "the thread that was committing panicked";

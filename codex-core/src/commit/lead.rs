//! Leading: one thread at a time makes a group durable, then visible, then tells its members.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use codex_storage::batch::{GROUP_LEN_TARGET, Group, Layout, Seq};
use codex_storage::seal::Seal;
use codex_storage::storage::{Durability, Storage, StorageStats};
use codex_storage::sync::with_parker;
use codex_storage::vfs::Clock;
use codex_storage::{Error, Result};

use super::plan::{Decided, Plan, Planned};
use super::queue::{Entered, Refusal, Turn};
use super::shift::{Part, Shift};
use super::{Commit, Outcome, Queue, Reply, Request};
use crate::locks::{Locks, PersistGuard};
use crate::map::{Freed, Image, Map};

/// The commit path: the two locks, the queue, and what leaders need.
pub(crate) struct Core {
    pub(super) locks: Locks<Disk>,
    pub(super) queue: Queue,
    path: PathBuf,
    clock: Arc<dyn Clock>,
    /// Whether each commit hands the storage an image of the state.
    image: bool,
}

/// What `persist` guards: the storage, and the room that groups are put together in.
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
    /// A leader is at work; the next one that finds this knows that it unwound.
    busy: bool,
}

/// What a leader noticed while it held the disk.
#[derive(Debug, Clone, Copy, Default)]
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
    /// Requests in the queue.
    pub(crate) waiting: usize,
    /// Commits that were written.
    pub(crate) commits: u64,
    /// The most commits in one group.
    pub(crate) group_commits_max: u64,
    /// The longest that readers were kept out of memory, in nanoseconds.
    pub(crate) data_hold_ns_max: u64,
    /// Why the last image failed, while none has succeeded since.
    pub(crate) image_error: Option<String>,
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
        let writes_images = storage.form().writes_images();
        let limit = match durability {
            Durability::Interval(limit) if writes_images => Some(limit),
            _ => None,
        };
        let queue = Queue::new(storage.stats(), limit);
        let image = writes_images && durability == Durability::Sync;
        let (group, plan) = (storage.group(), Plan::default());
        let storage = Some(storage);
        let disk = Disk { storage, seal: None, group, plan, imaging: false, busy: false };
        Self { locks: Locks::new(disk, map), queue, path, clock, image }
    }

    /// Calls `f` with memory; see [`Locks::read`].
    pub(crate) fn read<R>(&self, f: impl FnOnce(&Map) -> R) -> R {
        self.locks.read(f)
    }

    /// Does what `request` asks in its turn, as the leader or by one; `noticed` hears what a
    /// leader saw.
    ///
    /// # Errors
    /// Of the storage; `Closed`, `Poisoned`, `Record`.
    pub(crate) fn submit(&self, request: Request, noticed: impl Fn(Noticed)) -> Result<Reply> {
        with_parker(|parker| {
            let own = match self.queue.enter(request, parker, || self.now()) {
                Err(refusal) => return Err(self.refused(refusal)),
                Ok(Entered::Lead(own)) => own,
                Ok(Entered::Wait(ticket)) => match ticket.wait(parker) {
                    Turn::Done(reply) => return reply,
                    Turn::Lead(own) => own,
                },
            };
            let (reply, seen) = self.lead(own);
            noticed(seen);
            reply
        })
    }

    /// Lets nobody enter from now on but the close itself and what ends a checkpoint or a sync.
    pub(crate) fn begin_close(&self) {
        self.queue.lock().begin_close();
    }

    /// How many requests wait for the leader.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.lock().waiting()
    }

    /// Whether the log has outgrown the image.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.queue.lock().stats.wants_checkpoint
    }

    /// Whether the store has been closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.queue.lock().is_closed()
    }

    /// Why writes are refused, if they are.
    pub(crate) fn poisoned(&self) -> Option<String> {
        self.queue.lock().poisoned().map(|reason| reason.to_string())
    }

    /// Refuses writes from now on.
    pub(crate) fn refuse_writes(&self, reason: &str) {
        self.queue.lock().poison(reason);
    }

    /// The figures after the last group.
    pub(crate) fn stats(&self) -> CoreStats {
        let state = self.queue.lock();
        CoreStats {
            storage: state.stats.storage,
            waiting: state.waiting(),
            commits: state.stats.commits,
            group_commits_max: state.stats.group_commits_max,
            data_hold_ns_max: state.stats.data_hold_ns_max,
            image_error: state.overdue.failure().map(ToString::to_string),
            poisoned: state.poisoned().map(|reason| reason.to_string()),
        }
    }

    /// The error of a store that is closed.
    pub(crate) fn closed(&self) -> Error {
        Error::Closed { path: self.path.clone() }
    }

    /// The error of a store for which the system starts no thread.
    pub(crate) fn no_thread(&self, source: io::Error) -> Error {
        let source = Arc::new(source);
        Error::Io { action: "start a thread for", path: self.path.clone(), source }
    }

    /// The error of an image that was given up.
    pub(crate) fn abandoned(&self) -> Error {
        Error::Abandoned { path: self.path.clone() }
    }

    pub(super) fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Closed => self.closed(),
            Refusal::Poisoned(reason) => self.poison(&reason),
            Refusal::Overdue(error) => error,
        }
    }

    /// The monotonic time.
    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    pub(super) fn poison(&self, reason: &str) -> Error {
        Error::Poisoned { path: self.path.clone(), reason: reason.to_owned() }
    }

    fn lead(&self, own: Request) -> (Result<Reply>, Noticed) {
        let mut shift = Shift::begin(self);
        let mut disk = self.locks.persist();
        let unwound = std::mem::replace(&mut disk.busy, true);
        let mut freed = Freed::default();
        let reply = match own {
            _ if unwound => self.after_unwinding(&mut disk, &own),
            Request::Commit(commit) => {
                self.lead_group(&mut shift, &mut disk, commit, &mut freed);
                // Every member has an answer by now, the leader too.
                shift.own_reply().unwrap_or_else(|| Err(self.poison(super::shift::UNWOUND)))
            }
            control => self.control(&mut disk, control),
        };
        disk.busy = unwound;
        let mut noticed = Noticed::default();
        if let Some(storage) = disk.storage.as_deref().filter(|_| !unwound) {
            let stats = storage.stats();
            noticed.wants_checkpoint = storage.wants_checkpoint();
            noticed.unsynced = stats.durable < stats.seq;
            shift.saw(stats, noticed.wants_checkpoint);
            shift.poisoned(storage.poisoned());
        }
        drop(disk);
        shift.end();
        // What was replaced is freed when nobody waits for it any more.
        drop(freed);
        (reply, noticed)
    }

    /// Makes the commit `own` and those that wait in the queue durable, then visible. Every member
    /// gets an answer.
    fn lead_group(
        &self,
        shift: &mut Shift<'_>,
        disk: &mut PersistGuard<'_, Disk>,
        own: Commit,
        freed: &mut Freed,
    ) {
        if let Err(refusal) = shift.drain(own) {
            return shift.fail(&self.refused(refusal));
        }
        let mut image = self.image;
        let overdue = self.queue.lock().overdue.refusal(|| self.now());
        if let Some(error) = overdue {
            // Removals may make room for an image: they are made with one, as at `Sync`, unless
            // one is being written, which has the temporary name.
            shift.fail_puts(&error);
            if disk.imaging {
                return shift.fail(&error);
            }
            image = true;
        }
        let Err(full) = self.make(shift, disk, Part::All, image, freed) else { return };
        if !is_full(&full) || shift.unanswered() < 2 {
            return shift.fail(&full);
        }
        // The group does not fit, and nothing has changed. A member that would fit without the
        // others must not fail with them: first those that only remove, which may use the reserve.
        if let Err(error) = self.make(shift, disk, Part::Removals, image, freed)
            && !is_full(&error)
        {
            return shift.fail(&error);
        }
        while !image && shift.unanswered() > 0 {
            match self.make(shift, disk, Part::First, image, freed) {
                Err(error) if is_full(&error) => shift.fail_first(error),
                Err(error) => return shift.fail(&error),
                Ok(()) => {}
            }
        }
        // An image of the whole state is not tried once for each of them.
        shift.fail(&full);
    }

    /// Makes one group of `part`: durable, then visible, then its members have their answers.
    ///
    /// # Errors
    /// Of the storage; the members of the group have no answer then.
    fn make(
        &self,
        shift: &mut Shift<'_>,
        disk: &mut PersistGuard<'_, Disk>,
        part: Part,
        image: bool,
        freed: &mut Freed,
    ) -> Result<()> {
        if Self::decide(shift, disk, part, image) == 0 {
            return Ok(());
        }
        if part == Part::All {
            shift.put_back();
        }
        let logged = self.log(disk);
        let made = logged.map(|first| {
            // Order: apply before the answers, so that a member that has its answer reads its
            // write.
            self.apply(shift, disk, freed);
            shift.complete(|decided| self.outcome(decided, first));
            shift.made(disk.group.batches());
        });
        shift.undecide();
        disk.group.reset();
        disk.plan.reset();
        made
    }

    /// Decides what each member of `part` does, in order, and encodes it, until the group is full;
    /// prepares the apply. Returns how many members were decided.
    fn decide(
        shift: &mut Shift<'_>,
        disk: &mut PersistGuard<'_, Disk>,
        part: Part,
        image: bool,
    ) -> usize {
        // They leave the guard while memory is read through it. Nothing is lost should this
        // unwind: it poisons.
        let mut plan = std::mem::take(&mut disk.plan);
        let mut group = std::mem::replace(&mut disk.group, Group::new(Layout::default()));
        let decided = disk.read(|map| {
            let decided = shift.decide(part, |commit| {
                // By what is encoded: what a removal of a range comes to is known only now.
                let takes = group.len() < GROUP_LEN_TARGET;
                takes.then(|| plan.add(map, &mut group, commit))
            });
            plan.prepare(map, image);
            decided
        });
        disk.plan = plan;
        disk.group = group;
        decided
    }

    /// Makes the group durable; the number of its first commit, 0 when it writes nothing.
    fn log(&self, disk: &mut PersistGuard<'_, Disk>) -> Result<Seq> {
        let Disk { storage, group, plan, .. } = &mut **disk;
        let storage = storage.as_mut().ok_or_else(|| self.closed())?;
        if group.is_empty() {
            return Ok(0);
        }
        let image = plan.work.ordered.clone().map(Image);
        let numbers = storage.commit(group, image.as_ref().map(|image| image as _))?;
        plan.committed(numbers.end.saturating_sub(1));
        Ok(numbers.start)
    }

    /// Makes the group visible, once it is durable.
    fn apply(&self, shift: &mut Shift<'_>, disk: &mut PersistGuard<'_, Disk>, freed: &mut Freed) {
        if disk.plan.work.seq.is_none() {
            return;
        }
        let mut work = std::mem::take(&mut disk.plan.work);
        let from = self.clock.monotonic();
        disk.write(|map| map.apply(&mut work));
        shift.held(self.clock.monotonic().saturating_sub(from));
        *freed = std::mem::take(&mut work.freed);
        disk.plan.work = work;
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

    /// An earlier leader unwound: the storage is in an unknown state and is not called again.
    fn after_unwinding(&self, disk: &mut PersistGuard<'_, Disk>, own: &Request) -> Result<Reply> {
        if matches!(own, Request::Close) {
            self.queue.lock().close();
            disk.storage = None;
        }
        Err(self.poison(super::shift::UNWOUND))
    }
}

/// Whether the disk was full for a group, which has changed nothing.
fn is_full(error: &Error) -> bool {
    matches!(error, Error::NoSpace { .. })
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("path", &self.path).finish_non_exhaustive()
    }
}

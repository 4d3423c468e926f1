//! The engine of a store: the state in memory, the disk, the queue of requests and the background
//! threads.
//!
//! Each request that uses the disk waits for its turn in one queue. [`Engine::submit`] makes a
//! commit; every other request runs as a closure in [`Engine::exclusive`].
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a broken invariant of the engine stops the leader, which poisons the store"
)]

mod archive;
mod checkpoint;
mod commit;
mod copy_source;
mod deputy;
mod feed;
mod follow;
mod gather;
mod horizon;
#[cfg(feature = "shared")]
mod images;
mod leader;
#[cfg(feature = "shared")]
mod orders;
mod overdue;
mod overlay;
mod plan;
mod prepare;
mod queue;
mod seat;
#[cfg(feature = "shared")]
mod shared;
mod sweep;
mod turn;
mod view;
mod worker;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use codex_storage::batch::{GROUP_LEN_TARGET, Seq};
use codex_storage::storage::{Anchor, Durability, Storage};
use codex_storage::sync::Mutex;
use codex_storage::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use codex_storage::vfs::Clock;
use codex_storage::{Error, Result};

use crate::backup::BackupStats;
use crate::locks::{Locks, PersistGuard};
use crate::map::{Image, Map};
use crate::outer;
use crate::rank::Rank;
use crate::stats::Stats;
use crate::trace;
use archive::Ended;
pub use archive::{ArchivePoint, EndedLogs};
use checkpoint::Hook;
pub(crate) use checkpoint::ImageProgress;
use commit::Disk;
pub(crate) use copy_source::{CopyBytes, CopySource};
use deputy::Deputies;
pub use deputy::Task;
use follow::Following;
use horizon::Horizon;
#[cfg(feature = "shared")]
pub(crate) use images::Images;
#[cfg(feature = "shared")]
pub use images::Loaded;
use leader::{GROUPS_AT_ONCE, UNWOUND};
use queue::{Admission, Queue, Refusal};
#[cfg(feature = "shared")]
use shared::Sharing;
pub use view::View;
use worker::{GroupEffects, Signal, Threads};

/// The options of an engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The path of the store, for error texts.
    pub path: PathBuf,
    /// The durability that a commit must reach before its call returns.
    pub durability: Durability,
    /// The source of times.
    pub clock: Arc<dyn Clock>,
    /// Whether threads of the engine sync by interval, write a checkpoint if the log has outgrown
    /// the image, and remove entries that have expired. If not, the owner of the engine calls
    /// [`Engine::tick`], [`Engine::checkpoint`] and [`Engine::sweep`].
    pub background: bool,
    /// The newest time in the files, in microseconds since 1970. A clock that is behind it by up to
    /// an hour counts as this time.
    pub newest_us: i64,
}

/// The memory and the disk of a store, shared by all its handles and by the background threads.
///
/// The threads keep the engine alive, so its owner must call [`close`](Engine::close), which ends
/// them.
pub struct Engine {
    locks: Locks<Disk>,
    queue: Queue,
    path: PathBuf,
    clock: Arc<dyn Clock>,
    durability: Durability,
    /// Whether the form makes commits durable by writing images.
    writes_images: bool,
    /// The number of further groups that a thread may lead for others: 0 if groups wait for a disk.
    groups_at_once: u32,
    /// The encoded length of its commits at which a group takes no more.
    group_target: usize,
    /// The lock of checkpoints: one runs at a time.
    checkpoint: Mutex<()>,
    /// Whether the store closes, so that a running image is abandoned.
    abandon: AtomicBool,
    checkpoints: AtomicU64,
    checkpoint_failures: AtomicU64,
    on_checkpoint: Hook,
    on_commit: Hook,
    ended: Ended,
    /// The threads that lead for tasks.
    deputies: Deputies,
    signal: Signal,
    /// Whether there are background threads.
    background: bool,
    /// The pause before each sync, if the durability level syncs by interval.
    sync_pause: Option<Duration>,
    threads: Mutex<Threads>,
    horizon: Horizon,
    /// The number of expired entries that were removed.
    swept: AtomicU64,
    /// Set if the engine follows a writer.
    following: OnceLock<Following>,
    /// Set if the store is on a shared log.
    #[cfg(feature = "shared")]
    sharing: OnceLock<Sharing>,
    /// Whether the thread that syncs was started.
    is_syncing: AtomicBool,
    /// A weak handle to this engine, for the threads that it starts.
    own: Weak<Self>,
}

impl Engine {
    /// Returns the engine of a replayed `storage`, whose state is `map`. Its threads start when
    /// there is work for them.
    pub fn start(storage: Box<dyn Storage>, map: Map, options: EngineOptions) -> Arc<Self> {
        let waits = storage.stored().is_some();
        Self::start_on(Disk::new(storage), map, options, waits, GROUP_LEN_TARGET)
    }

    /// Returns the same over `disk`. `waits` is true if a group waits for the disk at the level
    /// `Sync`, and `group_target` is the encoded length at which it takes no more commits.
    fn start_on(
        mut disk: Disk,
        map: Map,
        options: EngineOptions,
        waits: bool,
        group_target: usize,
    ) -> Arc<Self> {
        let storage = disk.storage();
        let EngineOptions { path, durability, clock, background, newest_us } = options;
        let writes_images = storage.form().writes_images();
        let (sync_pause, image_limit) = match durability {
            // One image per interval, and no commit waits longer than the interval for one.
            Durability::Interval(interval) if writes_images => (Some(interval), Some(interval)),
            // A log is synced twice per interval, so that a sync that takes up to half an interval
            // still ends in time.
            Durability::Interval(interval) => (Some(interval / 2), None),
            _ => (None, None),
        };
        // A group waits for the disk at the level `Sync`, if there are files, and for an image.
        let is_synced = durability == Durability::Sync && waits;
        let is_short = !is_synced && !writes_images;
        let queue = Queue::new(storage.stats(), image_limit, is_short);
        let deadline_us = map.ordered_ref().first_deadline();
        let engine = Arc::new_cyclic(|own| Self {
            locks: Locks::new(disk, map),
            queue,
            path,
            clock,
            durability,
            writes_images,
            groups_at_once: if is_short { GROUPS_AT_ONCE } else { 0 },
            group_target,
            checkpoint: Mutex::new(()),
            abandon: AtomicBool::new(false),
            checkpoints: AtomicU64::new(0),
            checkpoint_failures: AtomicU64::new(0),
            on_checkpoint: Hook::default(),
            on_commit: Hook::default(),
            ended: Ended::default(),
            deputies: Deputies::default(),
            signal: Signal::default(),
            background,
            sync_pause,
            threads: Mutex::default(),
            horizon: Horizon::new(newest_us),
            swept: AtomicU64::new(0),
            following: OnceLock::new(),
            #[cfg(feature = "shared")]
            sharing: OnceLock::new(),
            is_syncing: AtomicBool::new(false),
            own: own.clone(),
        });
        // Entries of the files may have expired.
        engine.notice(GroupEffects { deadline_us, ..GroupEffects::default() });
        engine
    }

    /// Calls `f` with the state in memory. Does not block other readers. `f` clones handles and
    /// returns: it calls neither the disk nor user code.
    pub fn read<R>(&self, f: impl FnOnce(&Map) -> R) -> R {
        self.locks.read(f)
    }

    /// Returns true if a commit at the level `wanted` is more durable than one at the level of the
    /// store.
    pub(crate) fn is_stronger(&self, wanted: Durability) -> bool {
        match (wanted, self.durability) {
            (Durability::Sync | Durability::Interval(_), Durability::Os)
            | (Durability::Sync, Durability::Interval(_)) => true,
            (Durability::Interval(wanted), Durability::Interval(level)) => wanted < level,
            _ => false,
        }
    }

    /// Returns true if the store is on a shared log.
    #[cfg_attr(
        not(feature = "shared"),
        expect(
            clippy::unused_self,
            reason = "with the feature `shared`, the engine knows the log"
        )
    )]
    pub(crate) fn is_shared(&self) -> bool {
        #[cfg(feature = "shared")]
        return self.sharing.get().is_some();
        #[cfg(not(feature = "shared"))]
        false
    }

    /// Makes all earlier commits durable, and returns the number of the last one.
    ///
    /// # Errors
    /// `InDoubt` if the sync failed, after which the store refuses writes; `Closed`; `Poisoned`;
    /// the errors of the image, if one is needed.
    pub fn flush(&self) -> Result<Seq> {
        self.flush_watched(&|_, _| true)
    }

    /// Returns the anchor of the last commit.
    ///
    /// # Errors
    /// `Closed`, `Poisoned`.
    pub fn anchor(&self) -> Result<Anchor> {
        self.exclusive(Admission::WhileOpen, |disk| Ok(disk.storage().anchor()))
    }

    /// Begins a [`close`](Self::close): refuses later commits and abandons a running image.
    pub(crate) fn begin_close(&self) {
        self.queue.lock().begin_close();
        self.abandon.store(true, Ordering::Relaxed);
        self.signal.stop();
    }

    /// Closes the store. Earlier commits are made, later ones get `Closed`, a running image is
    /// abandoned, and the lock on the files is released last. Memory stays readable. Closing again
    /// does nothing.
    ///
    /// # Errors
    /// The errors of the storage. It is closed even if it returns one.
    pub fn close(&self) -> Result<()> {
        self.begin_close();
        // Order: stop the threads before joining them, and join them before the storage is closed,
        // so that no thread finds a closed storage in the middle of its work.
        self.join_threads();
        let closed = self.close_alone();
        // Order: end the watches after the queue is closed, so that no further one can begin.
        self.end_watches();
        // Order: stop the deputies last. The commits of tasks that wait when the store begins to
        // close come before the close itself in the queue, and a deputy leads for them.
        self.stop_deputies();
        closed
    }

    /// Closes the storage, after the turn of all earlier requests.
    fn close_alone(&self) -> Result<()> {
        // Order: take the checkpoint lock before the close, so that a checkpoint of another thread
        // abandons its image and finishes first.
        let _one = outer::lock(Rank::Checkpoint, &self.checkpoint);
        if self.is_closed() {
            return Ok(());
        }
        let closed = self.exclusive(Admission::ToClose, |disk| {
            // Order: close the storage before the queue. A thread that finds the queue closed knows
            // that the files are unlocked.
            let closed = self.close_storage(disk);
            self.queue.lock().refuse_all();
            closed
        });
        self.ended.shed();
        closed
    }

    /// Returns the statistics since the start. An engine makes no backups, so their part is empty.
    pub fn stats(&self) -> Stats {
        let expiring = self.read(|map| map.ordered_ref().expiring());
        let state = self.queue.lock();
        Stats {
            storage: state.counters.storage,
            waiting: state.waiting(),
            commits: state.counters.commits,
            group_commits_max: state.counters.group_commits_max,
            data_hold_ns_max: state.counters.data_hold_ns_max,
            checkpoints: self.checkpoints.load(Ordering::Relaxed),
            checkpoint_failures: self.checkpoint_failures.load(Ordering::Relaxed),
            image_error: state.overdue.failure().map(ToString::to_string),
            poisoned: state.poisoned().map(|reason| reason.to_string()),
            expiring: u64::try_from(expiring).unwrap_or(u64::MAX),
            swept: self.swept.load(Ordering::Relaxed),
            clock_steps_back: self.horizon.steps_back(),
            backups: BackupStats::default(),
            #[cfg(feature = "remote")]
            archive: None,
            follow: self.follow_stats(),
        }
    }

    /// Returns the reason why writes are refused, if they are.
    pub fn poisoned(&self) -> Option<String> {
        self.queue.lock().poisoned().map(|reason| reason.to_string())
    }

    /// Returns the number of requests that wait for the leader.
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting()
    }

    /// Returns true if the store was closed.
    pub fn is_closed(&self) -> bool {
        self.queue.lock().is_closed()
    }

    /// Closes the storage and drops it, which releases the lock on the files.
    fn close_storage(&self, disk: &mut PersistGuard<'_, Disk>) -> Result<()> {
        if disk.unwound {
            // The storage is in an unknown state and is not called again.
            disk.storage = None;
            return Err(self.poison(UNWOUND));
        }
        let state = Image(disk.read(Map::ordered));
        let mut storage = disk.storage.take().expect("the storage is there until the close");
        disk.seal = storage.seal();
        let ending = self.ended.ending(&mut *storage);
        storage.close(&state)?;
        self.ended.add(ending);
        Ok(())
    }

    /// Makes the store refuse all later writes.
    fn refuse_writes(&self, reason: &str) {
        let is_first = self.queue.lock().poison(reason);
        if is_first {
            trace::poisoned(reason);
        }
        self.end_watches();
    }

    /// Returns the monotonic time.
    fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Returns the error of a refused request.
    fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Closed => self.closed(),
            Refusal::Poisoned(reason) => self.poison(&reason),
            Refusal::Overdue(error) => error,
        }
    }

    /// Returns the error of a closed store.
    fn closed(&self) -> Error {
        Error::Closed { path: self.path.clone() }
    }

    /// Returns the error of a store that refuses writes for `reason`.
    fn poison(&self, reason: &str) -> Error {
        Error::Poisoned { path: self.path.clone(), reason: reason.to_owned() }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("path", &self.path).finish_non_exhaustive()
    }
}

//! The engine of a store: memory, the disk, the queue of writers and the background threads.
//!
//! Everything that touches the disk waits for its turn in one queue. [`Engine::submit`] commits;
//! all else runs as a closure in [`Engine::exclusive`].
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a broken invariant of the engine stops the leader, which poisons the store"
)]

mod checkpoint;
mod commit;
mod leader;
mod overdue;
mod overlay;
mod plan;
mod queue;
mod worker;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use codex_storage::batch::Seq;
use codex_storage::storage::{Anchor, Durability, Storage, StorageStats};
use codex_storage::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use codex_storage::sync::{Mutex, with_parker};
use codex_storage::vfs::Clock;
use codex_storage::{Error, Result};

use crate::commit::Commit;
use crate::locks::{Locks, PersistGuard};
use crate::map::{Image, Map, Ordered};
use crate::rank::{self, Rank};
use checkpoint::Hook;
pub(crate) use checkpoint::ImageProgress;
use commit::Disk;
use leader::{Leader, UNWOUND};
use queue::{Admission, Queue, Refusal, Wake};
use worker::{Signal, Threads};

/// How to run an engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The store's path, for messages.
    pub path: PathBuf,
    /// When a commit counts as done.
    pub durability: Durability,
    /// The source of times.
    pub clock: Arc<dyn Clock>,
    /// Whether threads of the engine sync by interval and checkpoint when the log has outgrown
    /// the image. Otherwise the owner of the engine calls [`Engine::tick`] and
    /// [`Engine::checkpoint`].
    pub background: bool,
}

/// A store's memory and disk, shared by all its handles and by the background threads.
///
/// The threads keep the engine alive: its owner must call [`close`](Engine::close), which ends
/// them.
pub struct Engine {
    locks: Locks<Disk>,
    queue: Queue,
    path: PathBuf,
    clock: Arc<dyn Clock>,
    /// Whether each commit hands the storage an image of the state.
    images: bool,
    /// Held while a checkpoint runs: one at a time.
    checkpoint: Mutex<()>,
    /// The store closes: a running image is to be abandoned.
    abandon: AtomicBool,
    checkpoints: AtomicU64,
    checkpoint_failures: AtomicU64,
    on_checkpoint: Hook,
    signal: Signal,
    /// Whether there are background threads.
    background: bool,
    /// The pause between syncs, if the durability level asks for them.
    sync_pause: Option<Duration>,
    threads: Mutex<Threads>,
    /// The thread that syncs was started.
    is_syncing: AtomicBool,
    /// A handle for the threads that the engine starts.
    own: Weak<Self>,
}

/// A consistent view: all commits up to `seq`, and nothing else.
#[derive(Debug, Clone)]
pub struct View {
    /// The last commit it shows.
    pub seq: Seq,
    /// The entries in key order.
    pub ordered: Ordered,
}

/// Figures of an engine since it was started.
#[derive(Debug, Clone)]
pub struct EngineStats {
    /// Figures of the storage, after the last group.
    pub storage: StorageStats,
    /// Commits and other requests that wait in the queue.
    pub waiting: usize,
    /// Commits that were written.
    pub commits: u64,
    /// The most commits in one group.
    pub group_commits_max: u64,
    /// The longest time that an apply kept readers out of memory, in nanoseconds.
    pub data_hold_ns_max: u64,
    /// Checkpoints that wrote an image.
    pub checkpoints: u64,
    /// Checkpoints that failed.
    pub checkpoint_failures: u64,
    /// Why the last image failed, if none has succeeded since.
    pub image_error: Option<String>,
    /// Why writes are refused, if they are.
    pub poisoned: Option<String>,
}

/// The background work that a group has made due.
#[derive(Debug, Clone, Copy, Default)]
struct GroupEffects {
    /// The log has outgrown the image.
    wants_checkpoint: bool,
    /// There are commits that are not durable yet.
    unsynced: bool,
}

impl Engine {
    /// Returns the engine of a replayed `storage`, whose state is `map`. Its threads start when
    /// there is work for them.
    pub fn start(storage: Box<dyn Storage>, map: Map, options: EngineOptions) -> Arc<Self> {
        let EngineOptions { path, durability, clock, background } = options;
        let writes_images = storage.form().writes_images();
        let (sync_pause, image_limit) = match durability {
            // One image an interval, and no commit waits longer than that for one.
            Durability::Interval(interval) if writes_images => (Some(interval), Some(interval)),
            // A log is synced twice an interval, so that the time of the sync fits in.
            Durability::Interval(interval) => (Some(interval / 2), None),
            Durability::Sync | Durability::Os => (None, None),
        };
        let queue = Queue::new(storage.stats(), image_limit);
        Arc::new_cyclic(|own| Self {
            locks: Locks::new(Disk::new(storage), map),
            queue,
            path,
            clock,
            images: writes_images && durability == Durability::Sync,
            checkpoint: Mutex::new(()),
            abandon: AtomicBool::new(false),
            checkpoints: AtomicU64::new(0),
            checkpoint_failures: AtomicU64::new(0),
            on_checkpoint: Hook::default(),
            signal: Signal::default(),
            background,
            sync_pause,
            threads: Mutex::default(),
            is_syncing: AtomicBool::new(false),
            own: own.clone(),
        })
    }

    /// Calls `f` with memory, beside other readers. `f` takes handles and returns: it calls
    /// neither the disk nor a user's code.
    pub fn read<R>(&self, f: impl FnOnce(&Map) -> R) -> R {
        self.locks.read(f)
    }

    /// Returns the state at a commit boundary; O(1).
    pub fn view(&self) -> View {
        self.read(|map| View { seq: map.seq(), ordered: map.ordered() })
    }

    /// Makes all earlier commits durable and returns the last of them.
    ///
    /// # Errors
    /// `InDoubt` if the sync failed; `Closed`, `Poisoned`; errors of the image, if one is needed.
    pub fn flush(&self) -> Result<Seq> {
        self.flush_watched(&|_, _| true)
    }

    /// Returns the last commit as an anchor.
    ///
    /// # Errors
    /// `Closed`, `Poisoned`.
    pub fn anchor(&self) -> Result<Anchor> {
        self.exclusive(Admission::WhileOpen, |disk| Ok(disk.storage().anchor()))
    }

    /// One step of syncing by interval: syncs beside the writers.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn tick(&self) -> Result<()> {
        let (point, wants_image) = self.exclusive(Admission::WhileOpen, |disk| {
            let point = disk.storage().sync_point()?;
            let stats = disk.storage().stats();
            let wants_image = point.is_none() && stats.durable < stats.seq;
            Ok((point, wants_image))
        })?;
        if let Some(point) = point {
            // Order: without the lock on the disk. Writers go on while the sync runs.
            let outcome = point.sync();
            let failed = outcome.as_ref().err().cloned();
            self.exclusive(Admission::ToFinish, |disk| disk.storage().synced(outcome))?;
            failed.map_or(Ok(()), Err)?;
        }
        if wants_image {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Begins a [`close`](Self::close): refuses later commits, abandons a running image.
    pub(crate) fn begin_close(&self) {
        self.queue.lock().begin_close();
        self.abandon.store(true, Ordering::Relaxed);
        self.signal.stop();
    }

    /// Closes the store: earlier commits are made, later ones get `Closed`, a running image is
    /// abandoned, and the lock on the files is released last. Memory stays readable. Closing
    /// again does nothing.
    ///
    /// # Errors
    /// Errors of the storage; it is closed all the same.
    pub fn close(&self) -> Result<()> {
        self.begin_close();
        self.join_threads();
        // Order: the checkpoint lock before the close, so that a checkpoint of another thread
        // abandons its image and finishes first.
        let _rank = rank::take(Rank::Checkpoint);
        let _one = self.checkpoint.lock();
        if self.is_closed() {
            return Ok(());
        }
        self.exclusive(Admission::ToClose, |disk| {
            let closed = self.close_storage(disk);
            self.queue.lock().close();
            closed
        })
    }

    /// Returns the figures since the start.
    pub fn stats(&self) -> EngineStats {
        let state = self.queue.lock();
        EngineStats {
            storage: state.counters.storage,
            waiting: state.waiting(),
            commits: state.counters.commits,
            group_commits_max: state.counters.group_commits_max,
            data_hold_ns_max: state.counters.data_hold_ns_max,
            checkpoints: self.checkpoints.load(Ordering::Relaxed),
            checkpoint_failures: self.checkpoint_failures.load(Ordering::Relaxed),
            image_error: state.overdue.failure().map(ToString::to_string),
            poisoned: state.poisoned().map(|reason| reason.to_string()),
        }
    }

    /// Returns why writes are refused, if they are.
    pub fn poisoned(&self) -> Option<String> {
        self.queue.lock().poisoned().map(|reason| reason.to_string())
    }

    /// Returns how many requests wait for the thread that leads.
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting()
    }

    /// Whether the store has been closed.
    pub fn is_closed(&self) -> bool {
        self.queue.lock().is_closed()
    }

    /// Waits for the caller's turn in the queue, then calls `work` with the disk locked.
    ///
    /// # Errors
    /// The error of `work`; `Closed` or `Poisoned`, as `admission` demands.
    fn exclusive<R>(
        &self,
        admission: Admission,
        work: impl FnOnce(&mut PersistGuard<'_, Disk>) -> Result<R>,
    ) -> Result<R> {
        if let Wake::Done(outcome) = self.enter(admission, None)? {
            return Err(outcome.expect_err("a leader answers only commits, unless it unwinds"));
        }
        // Order: before the lock. A panic from here on poisons the store (5).
        let mut leader = Leader::begin(self);
        let mut disk = self.lock_disk();
        let done = self.allow(admission, &disk).and_then(|()| work(&mut disk));
        let effects = Self::unlock_disk(disk, &mut leader);
        leader.hand_over();
        leader.wake();
        self.notice(effects);
        done
    }

    /// Waits until the calling thread leads, or until another one has made its commit.
    fn enter(&self, admission: Admission, commit: Option<Commit>) -> Result<Wake> {
        let enter = |parker: &_| self.queue.enter(admission, commit, parker, || self.now());
        with_parker(enter).map_err(|refusal| self.refused(refusal))
    }

    /// Checks again what entering the queue checked: both may have changed in the wait.
    fn allow(&self, admission: Admission, disk: &Disk) -> Result<()> {
        let refusal = match admission {
            Admission::ToClose => None,
            _ if disk.unwound => Some(Refusal::Poisoned(UNWOUND.into())),
            Admission::WhileOpen => self.queue.lock().poisoned().map(Refusal::Poisoned),
            Admission::ToFinish => None,
        };
        let refusal = refusal.or_else(|| {
            let closed = admission != Admission::ToClose && disk.storage.is_none();
            closed.then_some(Refusal::Closed)
        });
        refusal.map_or(Ok(()), |refusal| Err(self.refused(refusal)))
    }

    /// Ends the storage and drops it, which releases the lock on the files.
    fn close_storage(&self, disk: &mut PersistGuard<'_, Disk>) -> Result<()> {
        if disk.unwound {
            // The storage is in an unknown state and is not called again.
            disk.storage = None;
            return Err(self.poison(UNWOUND));
        }
        let state = Image(disk.read(Map::ordered));
        let mut storage = disk.storage.take().expect("the storage is there until the close");
        disk.seal = storage.seal();
        storage.close(&state)
    }

    /// Refuses writes from now on.
    fn refuse_writes(&self, reason: &str) {
        self.queue.lock().poison(reason);
    }

    /// The monotonic time.
    fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            Refusal::Closed => self.closed(),
            Refusal::Poisoned(reason) => self.poison(&reason),
            Refusal::Overdue(error) => error,
        }
    }

    fn closed(&self) -> Error {
        Error::Closed { path: self.path.clone() }
    }

    fn poison(&self, reason: &str) -> Error {
        Error::Poisoned { path: self.path.clone(), reason: reason.to_owned() }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("path", &self.path).finish_non_exhaustive()
    }
}

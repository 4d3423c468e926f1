//! The engine of a store: the commit path with its background work, behind handles.

mod image;
mod keys;
mod threads;

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use codex_storage::Result;
use codex_storage::batch::Seq;
use codex_storage::storage::Form;
use codex_storage::storage::{Anchor, Durability, Storage, StorageStats};
use codex_storage::sync::Mutex;
use codex_storage::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use codex_storage::vfs::Clock;
use codex_storage::{storage::Written, vfs::Vfs};

pub(crate) use image::Going;
use image::Hook;
use threads::Threads;

use crate::commit::{Commit, Core, Noticed, Outcome, Reply, Request};
use crate::map::{Map, Ordered};
use crate::rank::{self, Rank};
use crate::worker::Signal;

/// How to run an engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The store's path, for messages.
    pub path: PathBuf,
    /// When a commit counts as done.
    pub durability: Durability,
    /// Where times come from.
    pub clock: Arc<dyn Clock>,
    /// Whether a thread of its own syncs by interval and checkpoints when the log has outgrown
    /// the image; otherwise whoever owns the engine calls [`Engine::tick`] and
    /// [`Engine::checkpoint`].
    pub background: bool,
}

/// A store's memory and disk, shared by all its handles; dropping the last one closes it.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
}

/// What the handles share with the background threads, which own no handle.
#[derive(Debug)]
pub(crate) struct Shared {
    core: Core,
    /// Held while a checkpoint runs: one at a time.
    checkpoint: Mutex<()>,
    /// A running image is to be given up.
    abandon: AtomicBool,
    checkpoints: AtomicU64,
    checkpoint_failures: AtomicU64,
    on_checkpoint: Hook,
    clock: Arc<dyn Clock>,
    signal: Signal,
    /// Whether threads listen to the signal.
    background: bool,
    /// The pause between syncs, where the level asks for them.
    sync_pause: Option<Duration>,
    threads: Mutex<Threads>,
    /// The thread that syncs was started.
    is_syncing: AtomicBool,
    /// For the threads that it starts.
    own: Weak<Shared>,
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
    /// Of the storage, after the last group.
    pub storage: StorageStats,
    /// How many commits and other requests wait for the group before theirs.
    pub waiting: usize,
    /// Commits.
    pub commits: u64,
    /// The most commits in one group.
    pub group_commits_max: u64,
    /// The longest that readers were kept out of memory, in nanoseconds.
    pub data_hold_ns_max: u64,
    /// Checkpoints that wrote an image.
    pub checkpoints: u64,
    /// Checkpoints that failed, which costs nothing but the room of the log.
    pub checkpoint_failures: u64,
    /// Why the last image failed, while none has succeeded since. In the Snapshot form at
    /// `Interval` writes get this error once an earlier one has waited longer than the interval.
    pub image_error: Option<String>,
    /// Why writes are refused, if they are.
    pub poisoned: Option<String>,
    /// Of the backups, which the engine knows nothing of: [`Store::stats`](crate::Store::stats)
    /// fills it in.
    pub backups: crate::backup::BackupStats,
}

impl Engine {
    /// Starts the engine of a replayed `storage`, whose state is `map`.
    ///
    /// Its threads start when there is work for them.
    ///
    /// # Errors
    /// None today.
    pub fn start(storage: Box<dyn Storage>, map: Map, options: EngineOptions) -> Result<Arc<Self>> {
        let EngineOptions { path, durability, clock, background } = options;
        let sync_pause = match durability {
            // An image an interval; a log is synced twice, so that the sync itself fits in.
            Durability::Interval(interval) if storage.form().writes_images() => Some(interval),
            Durability::Interval(interval) => Some(interval / 2),
            Durability::Sync | Durability::Os => None,
        };
        let shared = Arc::new_cyclic(|own| Shared {
            core: Core::new(storage, map, path, durability, clock.clone()),
            checkpoint: Mutex::new(()),
            abandon: AtomicBool::new(false),
            checkpoints: AtomicU64::new(0),
            checkpoint_failures: AtomicU64::new(0),
            on_checkpoint: Hook::default(),
            clock,
            signal: Signal::default(),
            background,
            sync_pause,
            threads: Mutex::default(),
            is_syncing: AtomicBool::new(false),
            own: own.clone(),
        });
        Ok(Arc::new(Self { shared }))
    }

    /// Makes `commit` durable at the level of the store, then visible.
    ///
    /// # Errors
    /// Of the storage: nothing was changed, or `InDoubt`; `Closed`, `Poisoned`, `Record`.
    pub fn submit(&self, commit: Commit) -> Result<Outcome> {
        self.shared.start_syncing()?;
        match self.shared.submit(Request::Commit(commit))? {
            Reply::Outcome(outcome) => Ok(outcome),
            _ => Err(self.shared.core.closed()),
        }
    }

    /// Calls `f` with memory, beside other readers. `f` takes handles and returns: it calls
    /// neither the disk nor a user's code.
    pub fn read<R>(&self, f: impl FnOnce(&Map) -> R) -> R {
        self.shared.core.read(f)
    }

    /// The state at a commit boundary; O(1).
    pub fn view(&self) -> View {
        self.read(|map| View { seq: map.seq(), ordered: map.ordered() })
    }

    /// Makes all earlier commits durable; the last of them.
    ///
    /// # Errors
    /// `InDoubt` when the sync failed; `Closed`, `Poisoned`; of the image, where one is needed.
    pub fn flush(&self) -> Result<Seq> {
        self.shared.flush(&|_, _| true)
    }

    /// The last commit as an anchor.
    ///
    /// # Errors
    /// `Closed`, `Poisoned`.
    pub fn anchor(&self) -> Result<Anchor> {
        match self.shared.submit(Request::Anchor)? {
            Reply::Anchor(anchor) => Ok(anchor),
            _ => Err(self.shared.core.closed()),
        }
    }

    /// Writes an image of the state beside running writers and drops the log that it replaces;
    /// the last commit that was made before. Nothing happens in forms that keep no log beside
    /// an image.
    ///
    /// # Errors
    /// Of the image: nothing was changed. `Closed`, `Poisoned`, `Abandoned` by a close.
    pub fn checkpoint(&self) -> Result<Seq> {
        self.shared.checkpoint()
    }

    /// As [`flush`](Self::flush), and then, where a log continues an image, as
    /// [`checkpoint`](Self::checkpoint): the files hold all earlier commits, without a log beside
    /// an image. `going` hears of the entries of an image that is written, of how many in all (each
    /// counts twice: written, read back), and says whether to go on.
    ///
    /// # Errors
    /// As those; `Abandoned` where `going` said so.
    pub(crate) fn settle(&self, form: Form, going: &Going<'_>) -> Result<Seq> {
        match form {
            Form::Wal => self.shared.image(Request::BeginCheckpoint, going),
            Form::Snapshot | Form::Ledger => self.shared.flush(going),
        }
    }

    /// Writes memory as an image under the temporary name of the store `name` in the folder of
    /// `to`. Works when the store is poisoned or its folder is gone. `going` is told as in
    /// [`settle`](Self::settle).
    ///
    /// # Errors
    /// Of the other folder; `Closed`; `Abandoned` if `going` returned false.
    pub(crate) fn write_elsewhere(
        &self,
        to: &Vfs,
        name: &str,
        going: &Going<'_>,
    ) -> Result<Written> {
        self.shared.write_elsewhere(to, name, going)
    }

    /// One step of syncing by interval.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn tick(&self) -> Result<()> {
        self.shared.tick()
    }

    /// Has `hook` called behind each checkpoint that wrote an image, by the thread that made it,
    /// while it holds no lock. Only the first hook counts.
    pub(crate) fn on_checkpoint(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.shared.on_checkpoint.set(hook);
    }

    /// The beginning of [`close`](Self::close): refuses what comes, gives up a running image.
    pub(crate) fn begin_close(&self) {
        self.shared.begin_close();
    }

    /// Ends the store: earlier commits are made, later ones get `Closed`, a running image is given
    /// up, and the lock on the store is released last. Reading goes on. Closing again does nothing.
    ///
    /// # Errors
    /// Of the storage; it is closed all the same.
    pub fn close(&self) -> Result<()> {
        self.shared.begin_close();
        self.shared.join();
        self.shared.close()
    }

    /// Figures since the start.
    pub fn stats(&self) -> EngineStats {
        let core = self.shared.core.stats();
        EngineStats {
            storage: core.storage,
            waiting: core.waiting,
            commits: core.commits,
            group_commits_max: core.group_commits_max,
            data_hold_ns_max: core.data_hold_ns_max,
            checkpoints: self.shared.checkpoints.load(Ordering::Relaxed),
            checkpoint_failures: self.shared.checkpoint_failures.load(Ordering::Relaxed),
            image_error: core.image_error,
            poisoned: core.poisoned,
            backups: crate::backup::BackupStats::default(),
        }
    }

    /// Why writes are refused, if they are.
    pub fn poisoned(&self) -> Option<String> {
        self.shared.core.poisoned()
    }

    /// How many requests wait for the thread that leads.
    pub fn waiting(&self) -> usize {
        self.shared.core.waiting()
    }

    /// Whether the store has been closed.
    pub fn is_closed(&self) -> bool {
        self.shared.core.is_closed()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Whoever wants to know how closing went calls `close`.
        let _ = self.close();
    }
}

impl Shared {
    fn submit(&self, request: Request) -> Result<Reply> {
        self.core.submit(request, |noticed| self.noticed(noticed))
    }

    fn noticed(&self, noticed: Noticed) {
        if self.background {
            self.notice(noticed);
        }
    }

    /// Refuses writes from now on.
    pub(crate) fn poison(&self, reason: &str) {
        self.core.refuse_writes(reason);
    }

    pub(crate) fn signal(&self) -> &Signal {
        &self.signal
    }

    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.core.wants_checkpoint()
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    fn flush(&self, going: &Going<'_>) -> Result<Seq> {
        match self.submit(Request::Flush)? {
            Reply::Flushed { seq, durable } if durable < seq => {
                self.image(Request::BeginCheckpoint, going)
            }
            Reply::Flushed { seq, .. } => Ok(seq),
            _ => Err(self.core.closed()),
        }
    }

    pub(crate) fn checkpoint(&self) -> Result<Seq> {
        self.image(Request::BeginCheckpoint, &|_, _| true)
    }

    pub(crate) fn tick(&self) -> Result<()> {
        let Reply::Point { point, wants_image } = self.submit(Request::SyncPoint)? else {
            return Ok(());
        };
        if let Some(point) = point {
            let outcome = point.sync();
            let failed = outcome.as_ref().err().cloned();
            self.submit(Request::Synced(outcome))?;
            failed.map_or(Ok(()), Err)?;
        }
        if wants_image {
            self.checkpoint()?;
        }
        Ok(())
    }

    fn begin_close(&self) {
        self.core.begin_close();
        self.abandon.store(true, Ordering::Relaxed);
        self.signal.stop();
    }

    fn close(&self) -> Result<()> {
        // A checkpoint of another thread gives up its image and reports that first.
        let _rank = rank::take(Rank::Checkpoint);
        let _one = self.checkpoint.lock();
        if self.core.is_closed() {
            return Ok(());
        }
        self.submit(Request::Close).map(|_| ())
    }
}

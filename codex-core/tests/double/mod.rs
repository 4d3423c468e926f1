//! A storage that keeps its log in memory, distinguishes written from durable commits, and fails on
//! demand. It is the only test double of the engine, for std and for loom.
#![allow(
    dead_code,
    clippy::needless_pass_by_value,
    clippy::struct_excessive_bools,
    clippy::type_complexity,
    clippy::disallowed_types,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "each test program uses a part of it; a test fails by panicking; std's mutex keeps \
              the double's own state out of the model checker's sight"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use codex_core::internals::{
    Change, Check, Commit, Engine, EngineOptions, Entry, Map, MapBuilder, Outcome,
};
use codex_storage::batch::{Group, Item, Layout, Op, Seq, TableId};
use codex_storage::seal::{ENVELOPE_LEN, Envelope, Keys, Seal, SealError};
#[cfg(feature = "shared")]
use codex_storage::shared::Meta;
use codex_storage::storage::{
    Anchor, Checkpoint, Durability, Form, State, Storage, StorageStats, SyncPoint, Written,
};
use codex_storage::sync;
use codex_storage::sync::atomic::{AtomicUsize, Ordering};
use codex_storage::vfs::Clock;
#[cfg(feature = "shared")]
use codex_storage::vfs::SeededEntropy;
use codex_storage::{Error, RecordError, Result};

/// The contents of a store.
pub(crate) type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// A fault to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A commit group is refused before a byte is written.
    NoSpace,
    /// The same as `NoSpace`, for each group that puts an entry whose key begins with "large".
    NoSpaceForLarge,
    /// A commit group is written and its sync fails.
    Sync,
    /// Writing a commit group panics half-way.
    Panic,
    /// The same as `Panic`, for a group of several commits.
    PanicInGroup,
    /// A call other than a commit panics.
    PanicAlone,
    /// A background sync fails.
    Background,
    /// Images fail, until the test lets them succeed.
    Image,
}

/// The disk of the double, which the test reads.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// The operations of each commit. The first `durable` of them are durable.
    log: Vec<Vec<(Vec<u8>, Option<Vec<u8>>)>>,
    /// The number of durable commits.
    pub(crate) durable: usize,
    /// The number of commits in each group.
    pub(crate) groups: Vec<usize>,
    /// The thread that has written each group.
    pub(crate) leaders: Vec<std::thread::ThreadId>,
    /// The images in place: the last commit of each, and its contents.
    pub(crate) images: Vec<(Seq, Contents)>,
    pub(crate) poisoned: bool,
    pub(crate) closed: bool,
    pub(crate) dropped: bool,
    /// A checkpoint has begun and not finished.
    pub(crate) checkpointing: bool,
    pub(crate) wants_checkpoint: bool,
    /// Whether the log has outgrown the image after each commit.
    pub(crate) outgrows_each_time: bool,
    fault: Option<Fault>,
}

/// A key that means "everything outside tables was cleared" in the log of the double.
const CLEAR: &[u8] = b"\xff\xffclear";
/// The keys of a table begin with this and the id.
const TABLE: &[u8] = b"\xff\xfftable";

impl Disk {
    /// Returns the contents after the first `commits` commits.
    pub(crate) fn replay(&self, commits: usize) -> Contents {
        let mut contents = Contents::new();
        for (key, value) in self.log[..commits].iter().flatten() {
            match value {
                _ if key == CLEAR => contents.retain(|key, _| key.starts_with(TABLE)),
                // The rest is the beginning of the keys of a table.
                _ if key.starts_with(CLEAR) => {
                    contents.retain(|other, _| !other.starts_with(&key[CLEAR.len()..]));
                }
                Some(value) => drop(contents.insert(key.clone(), value.clone())),
                None => drop(contents.remove(key)),
            }
        }
        contents
    }

    /// Returns the contents that survive a power cut now.
    pub(crate) fn durable_state(&self) -> Contents {
        self.replay(self.durable)
    }

    /// Returns the number of written commits.
    pub(crate) fn written(&self) -> usize {
        self.log.len()
    }

    /// Returns the number of records of each commit after the first `from`.
    pub(crate) fn commit_lens(&self, from: usize) -> Vec<usize> {
        self.log[from..].iter().map(Vec::len).collect()
    }

    /// Writes a group. Returns the numbers of commits before and after it.
    fn append(&mut self, group: &Group) -> (usize, usize) {
        let first = self.log.len();
        self.log.resize(first + group.batches(), Vec::new());
        let record = |batch: usize, op: Op<'_>| {
            self.log[first + batch].push(match op {
                Op::Set(item) => (name(item.table, item.key), Some(stored(item))),
                Op::Remove { table, key } => (name(table, key), None),
                Op::Clear { table } => ([CLEAR, &name(table, &[])].concat(), None),
            });
            Ok::<_, RecordError>(())
        };
        group.for_each(record).unwrap();
        self.groups.push(group.batches());
        self.leaders.push(std::thread::current().id());
        (first, self.log.len())
    }

    /// Makes `fault` once, at the next opportunity.
    pub(crate) fn fail_next(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    fn take(&mut self, fault: Fault) -> bool {
        let now = self.fault == Some(fault);
        if now {
            self.fault = None;
        }
        now
    }
}

/// The handle with which a test controls the disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Probe(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Counts the accesses to the disk, so that the model checker tries them in every order: it
    /// does not see the mutex.
    accesses: AtomicUsize,
    disk: Mutex<Disk>,
    /// The number of groups that reached the double, including those that wait for its disk. The
    /// model checker need not see it.
    begun: std::sync::atomic::AtomicUsize,
    /// Whether a test waits for the work of a thread.
    is_watched: std::sync::atomic::AtomicBool,
    work: sync::Mutex<()>,
    worked: sync::Condvar,
    /// The background syncs that began, each of which waits for `sync_gate`.
    syncs: std::sync::atomic::AtomicUsize,
    sync_gate: Mutex<()>,
    /// Whether background syncs panic.
    sync_panics: std::sync::atomic::AtomicBool,
    /// The images that began to be written, each of which waits for `image_gate`.
    images: std::sync::atomic::AtomicUsize,
    image_gate: Mutex<()>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("disk", &self.disk).finish_non_exhaustive()
    }
}

impl Probe {
    /// Prepares [`wait`](Self::wait). Must be called before the threads start that it waits for.
    pub(crate) fn watch(&self) {
        self.0.is_watched.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    /// Waits until a background thread has made `until` true for the disk. If that never
    /// happens, the model checker reports a deadlock.
    pub(crate) fn wait(&self, until: impl Fn(&Disk) -> bool) {
        let mut work = self.0.work.lock();
        while !until(&self.untracked()) {
            work = self.0.worked.wait(work);
        }
    }

    /// Wakes the test that waits.
    fn worked(&self) {
        if self.0.is_watched.load(std::sync::atomic::Ordering::SeqCst) {
            drop(self.0.work.lock());
            self.0.worked.notify_all();
        }
    }

    /// Makes background syncs wait until the guard is dropped.
    pub(crate) fn hold_syncs(&self) -> MutexGuard<'_, ()> {
        self.0.sync_gate.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Makes background syncs panic, also those that are held.
    pub(crate) fn panic_in_syncs(&self) {
        self.0.sync_panics.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    /// Returns the number of background syncs that have begun, including those that are held.
    pub(crate) fn syncs(&self) -> usize {
        self.0.syncs.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Makes images wait until the guard is dropped.
    pub(crate) fn hold_images(&self) -> MutexGuard<'_, ()> {
        self.0.image_gate.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Returns the number of images that have begun to be written, including those that are held.
    pub(crate) fn images(&self) -> usize {
        self.0.images.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Returns the number of groups that have reached the double.
    pub(crate) fn begun(&self) -> usize {
        self.0.begun.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Locks the disk. While it is locked, nothing may happen that the model checker sees.
    pub(crate) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.accesses.fetch_add(1, Ordering::SeqCst);
        self.untracked()
    }

    /// Makes `fault` once, at the next opportunity.
    pub(crate) fn fail_next(&self, fault: Fault) {
        self.untracked().fail_next(fault);
    }

    /// Returns the number of commit groups, including those that wait for the disk.
    pub(crate) fn handed(&self) -> usize {
        self.0.begun.load(std::sync::atomic::Ordering::SeqCst)
    }

    /// Makes no more faults.
    pub(crate) fn heal(&self) {
        self.untracked().fault = None;
    }

    /// Returns the disk, for accesses whose order the persist lock determines.
    fn untracked(&self) -> MutexGuard<'_, Disk> {
        self.0.disk.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The double.
#[derive(Debug)]
pub(crate) struct Double {
    probe: Probe,
    form: Form,
    durability: Durability,
}

impl Double {
    fn refuse_poisoned(&self) -> Result<()> {
        let disk = self.probe.untracked();
        assert!(!disk.closed, "the storage was called after its close");
        if disk.poisoned {
            return Err(Error::Poisoned { path: PATH.into(), reason: REASON.to_owned() });
        }
        Ok(())
    }
}

impl Storage for Double {
    fn form(&self) -> Form {
        self.form
    }

    fn group(&self) -> Group {
        Group::new(Layout { head: 64, batch_extra: 0 })
    }

    fn commit(&mut self, group: &mut Group, image: Option<&dyn State>) -> Result<Range<Seq>> {
        self.probe.0.begun.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        self.refuse_poisoned()?;
        let no_space = || Err(Error::NoSpace { path: PATH.into(), needed: 1 });
        if self.probe.untracked().take(Fault::NoSpace) {
            return no_space();
        }
        if self.probe.untracked().fault == Some(Fault::NoSpaceForLarge) && is_large(group) {
            return no_space();
        }
        let checkpointing = self.probe.untracked().checkpointing;
        assert!(image.is_none() || !checkpointing, "two images at a time have one temporary name");
        if image.is_some() && self.probe.untracked().fault == Some(Fault::Image) {
            return no_space();
        }
        let (first, last) = self.probe.disk().append(group);
        let mut disk = self.probe.disk();
        let is_group = disk.groups.last() > Some(&1);
        if disk.take(Fault::Panic) || is_group && disk.take(Fault::PanicInGroup) {
            drop(disk);
            // Unwinds without printing a message, because the panic is intended.
            std::panic::resume_unwind(Box::new("the double panics on demand"));
        }
        if disk.take(Fault::Sync) {
            disk.poisoned = true;
            return Err(in_doubt(disk.durable));
        }
        if self.durability == Durability::Sync || image.is_some() {
            disk.durable = last;
            disk.images.extend(image.map(|image| (seq(last), contents_of(image))));
        }
        Ok(seq(first) + 1..seq(last) + 1)
    }

    fn sync_point(&mut self) -> Result<Option<SyncPoint>> {
        self.refuse_poisoned()?;
        let disk = self.probe.untracked();
        let upto = disk.log.len();
        if disk.durable == upto || self.form == Form::Snapshot {
            return Ok(None);
        }
        let probe = self.probe.clone();
        Ok(Some(SyncPoint::new(move || {
            probe.0.syncs.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            drop(probe.hold_syncs());
            if probe.0.sync_panics.load(std::sync::atomic::Ordering::SeqCst) {
                std::panic::resume_unwind(Box::new("the double panics on demand"));
            }
            let mut disk = probe.disk();
            if disk.take(Fault::Background) {
                return Err(in_doubt(disk.durable));
            }
            disk.durable = disk.durable.max(upto);
            drop(disk);
            probe.worked();
            Ok(seq(upto))
        })))
    }

    fn synced(&mut self, outcome: Result<Seq>) -> Result<()> {
        if outcome.is_err() {
            self.probe.untracked().poisoned = true;
        }
        outcome.map(|_| ())
    }

    fn begin_checkpoint(&mut self, _state: &dyn State) -> Result<Option<Checkpoint>> {
        self.refuse_poisoned()?;
        let mut disk = self.probe.untracked();
        assert!(!disk.checkpointing, "a checkpoint began before the last one was finished");
        disk.checkpointing = true;
        disk.wants_checkpoint = false;
        let upto = disk.log.len();
        let probe = self.probe.clone();
        Ok(Some(Checkpoint::new(move |state, progress| {
            if !progress(0) {
                return Err(Error::Abandoned { path: PATH.into() });
            }
            probe.0.images.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            drop(probe.hold_images());
            let contents = contents_of(state);
            let mut disk = probe.disk();
            if disk.fault == Some(Fault::Image) {
                return Err(Error::NoSpace { path: PATH.into(), needed: 1 });
            }
            assert!(!disk.closed, "an image was written after the close");
            disk.images.push((seq(upto), contents));
            Ok(Written { temporary: "t".into(), seq: seq(upto), bytes: 0, generation: 1 })
        })))
    }

    fn finish_checkpoint(&mut self, done: Result<Written>) -> Result<()> {
        let mut disk = self.probe.disk();
        assert!(disk.checkpointing, "a checkpoint was finished that had not begun");
        disk.checkpointing = false;
        if let Ok(written) = done {
            disk.durable = disk.durable.max(usize::try_from(written.seq).unwrap());
        }
        drop(disk);
        self.probe.worked();
        Ok(())
    }

    fn change_key(&mut self, _keys: &dyn Keys) -> Result<()> {
        self.refuse_poisoned()?;
        let disk = self.probe.disk();
        assert!(!disk.checkpointing, "a key was changed while a checkpoint was running");
        Ok(())
    }

    fn wants_checkpoint(&self) -> bool {
        let disk = self.probe.untracked();
        let shown = disk.images.last().map_or(0, |(seq, _)| *seq);
        let is_outgrown = disk.outgrows_each_time && seq(disk.log.len()) > shown;
        disk.wants_checkpoint || is_outgrown && !disk.checkpointing
    }

    fn close(&mut self, state: &dyn State) -> Result<()> {
        self.refuse_poisoned()?;
        let mut disk = self.probe.disk();
        assert!(!disk.checkpointing, "closed while a checkpoint was running");
        disk.closed = true;
        disk.durable = disk.log.len();
        assert_eq!(contents_of(state), disk.durable_state(), "log and memory disagree at close");
        Ok(())
    }

    fn stats(&self) -> StorageStats {
        let disk = self.probe.untracked();
        let mut stats = StorageStats::default();
        (stats.seq, stats.durable) = (seq(disk.log.len()), seq(disk.durable));
        stats.groups = seq(disk.groups.len());
        stats
    }

    fn anchor(&mut self) -> Anchor {
        if self.probe.untracked().take(Fault::PanicAlone) {
            std::panic::resume_unwind(Box::new("the double panics on demand"));
        }
        Anchor::new([0; 16], seq(self.probe.untracked().log.len()), [0; 32])
    }

    fn poisoned(&self) -> Option<String> {
        self.probe.untracked().poisoned.then(|| REASON.to_owned())
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.probe.disk().dropped = true;
    }
}

/// A clock that never advances.
#[derive(Debug)]
struct StoppedClock;

impl Clock for StoppedClock {
    fn now_us(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _duration: Duration) {}
}

/// A key that the double ignores.
#[derive(Debug)]
pub(crate) struct AnyKey;

impl Keys for AnyKey {
    fn create(
        &self,
        _store_id: &[u8; 16],
        _cipher: Option<u8>,
        _old: Option<&Envelope>,
    ) -> Result<(Envelope, Arc<dyn Seal>), SealError> {
        Err(SealError::WrongKey)
    }

    fn wrap(
        &self,
        _store_id: &[u8; 16],
        _root: &dyn Seal,
        _old: &Envelope,
    ) -> Result<Envelope, SealError> {
        Err(SealError::WrongKey)
    }

    fn unlock(
        &self,
        _store_id: &[u8; 16],
        _envelope: &[u8; ENVELOPE_LEN],
    ) -> Result<Arc<dyn Seal>, SealError> {
        Err(SealError::WrongKey)
    }
}

/// The owner of an engine. It closes the engine when dropped, as the handle of a store does.
#[derive(Debug)]
pub(crate) struct Owner(Arc<Engine>);

impl std::ops::Deref for Owner {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.0
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.close();
    }
}

/// Returns an engine over a double.
pub(crate) fn engine(form: Form, durability: Durability, background: bool) -> (Arc<Owner>, Probe) {
    engine_with(form, options(durability, background))
}

/// Returns an engine over a double, with the time of `clock`.
pub(crate) fn engine_at(
    form: Form,
    durability: Durability,
    clock: Arc<dyn Clock>,
    background: bool,
) -> (Arc<Owner>, Probe) {
    engine_with(form, EngineOptions { clock, ..options(durability, background) })
}

fn engine_with(form: Form, options: EngineOptions) -> (Arc<Owner>, Probe) {
    let probe = Probe::default();
    let durability = options.durability;
    let double = Box::new(Double { probe: probe.clone(), form, durability });
    (Arc::new(Owner(Engine::start(double, Map::new(), options))), probe)
}

/// Returns an engine on a shared log, without the thread that follows it.
#[cfg(feature = "shared")]
pub(crate) fn on_log(log: &codex_storage::shared::Client) -> Arc<Owner> {
    on_log_at(log, Arc::new(StoppedClock))
}

/// Returns the same with the time of `clock`.
#[cfg(feature = "shared")]
pub(crate) fn on_log_at(log: &codex_storage::shared::Client, clock: Arc<dyn Clock>) -> Arc<Owner> {
    let options = EngineOptions { clock, ..options(Durability::Sync, false) };
    let timeout = Duration::from_secs(5);
    let entropy = SeededEntropy::new(1);
    let meta = Meta::open(log, None, &entropy, &*options.clock, timeout).unwrap();
    let (log, meta) = (Arc::new(log.clone()), Arc::new(meta));
    let engine = Engine::start_shared(log, &meta, None, options, timeout).unwrap();
    engine.join_log().unwrap();
    Arc::new(Owner(engine))
}

/// Returns an engine over the storage that stores nothing.
pub(crate) fn in_memory() -> Arc<Owner> {
    in_memory_at(Arc::new(StoppedClock))
}

/// Returns the same with the time of `clock`.
pub(crate) fn in_memory_at(clock: Arc<dyn Clock>) -> Arc<Owner> {
    let map = MapBuilder::new().finish(0);
    let options = EngineOptions { clock, ..options(Durability::Sync, false) };
    Arc::new(Owner(Engine::start(codex_storage::null(), map, options)))
}

fn options(durability: Durability, background: bool) -> EngineOptions {
    EngineOptions {
        path: PATH.into(),
        durability,
        clock: Arc::new(StoppedClock),
        background,
        newest_us: i64::MIN,
    }
}

/// Sets the value of `key` to `value`.
pub(crate) fn put(key: &str, value: &str) -> Change {
    Change::Put(Entry::new(key.as_bytes(), value.as_bytes()))
}

/// Removes `key`.
pub(crate) fn remove(key: &str) -> Change {
    Change::Remove(key.as_bytes().into())
}

/// Makes several changes in one commit.
pub(crate) fn batch(changes: Vec<Change>) -> Commit {
    Commit { changes: changes.into(), ..Commit::default() }
}

/// Returns the condition that `key` has no value.
pub(crate) fn absent(key: &str) -> Check {
    Check::Absent(key.as_bytes().into())
}

/// Returns the contents that readers of `engine` see.
pub(crate) fn memory(engine: &Engine) -> Contents {
    let view = engine.view();
    view.ordered.iter().map(|e| (e.key().to_vec(), e.value().to_vec())).collect()
}

/// Returns the value of `key` as text.
pub(crate) fn value(engine: &Engine, key: &str) -> Option<String> {
    let entry = engine.read(|map| map.get(key.as_bytes()))?;
    Some(String::from_utf8(entry.value().to_vec()).unwrap())
}

/// Returns the number of the commit. Panics after a conflict.
pub(crate) fn number(outcome: Outcome) -> Option<Seq> {
    match outcome {
        Outcome::Done { seq, .. } => seq,
        Outcome::Conflict => panic!("a conflict"),
    }
}

fn is_large(group: &Group) -> bool {
    let mut is_large = false;
    let look = |_, op: Op<'_>| {
        is_large |= matches!(op, Op::Set(item) if item.key.starts_with(b"large"));
        Ok::<_, RecordError>(())
    };
    group.for_each(look).unwrap();
    is_large
}

/// Returns the key, after the table if it is in one.
fn name(table: Option<TableId>, key: &[u8]) -> Vec<u8> {
    let table = table.map_or_else(Vec::new, |id| [TABLE, &id.get().to_le_bytes()].concat());
    [&table, key].concat()
}

/// Returns the value, and after it the expiry if there is one.
fn stored(item: Item<'_>) -> Vec<u8> {
    [item.value, &item.expires_us.map_or_else(Vec::new, |time| time.to_le_bytes().to_vec())]
        .concat()
}

fn contents_of(state: &dyn State) -> Contents {
    let mut contents = Contents::new();
    state
        .for_each(&mut |item| {
            contents.insert(name(item.table, item.key), stored(item));
            Ok(())
        })
        .unwrap();
    contents
}

fn in_doubt(durable: usize) -> Error {
    let source = Arc::new(io::Error::other("the sync failed on demand"));
    Error::InDoubt { path: PATH.into(), seq: seq(durable) + 1, source }
}

fn seq(count: usize) -> Seq {
    Seq::try_from(count).unwrap()
}

const PATH: &str = "double.db";
const REASON: &str = "the double failed on demand";

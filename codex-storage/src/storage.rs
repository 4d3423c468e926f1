//! The trait that every form implements, and the types of its calls.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::batch::{Group, Op, Seq};
use crate::error::{Error, Result};
pub use crate::history::History;
use crate::lock::StoreLock;
use crate::seal::{Keys, Seal};
use crate::vfs::Vfs;

/// Durable, ordered commits: an open store, which [`open`](crate::open) has recovered.
///
/// `&mut self` throughout: one writer is a fact of the type. Commits are numbered densely from the
/// recovered seq on, in the order in which they are made.
pub trait Storage: fmt::Debug + Send {
    /// The form of the files.
    fn form(&self) -> Form;

    /// An empty group with the room this storage wants.
    fn group(&self) -> Group;

    /// Makes the batches of `group` durable, at the level the storage was opened with, as one
    /// frame or one image, and returns their numbers. `image` is the state with the group
    /// applied, for forms that write images ([`Form::writes_images`]); `None` for them at
    /// `Durability::Interval`: the commit is then only numbered, and
    /// [`begin_checkpoint`](Storage::begin_checkpoint) gives the image to write, once an interval
    /// and at a flush.
    ///
    /// # Errors
    /// `NoSpace` and `Io`: nothing changed, the next commit may succeed. `InDoubt`: bytes may have
    /// reached the disk; every later call that writes returns `Poisoned`.
    fn commit(&mut self, group: &mut Group, image: Option<&dyn State>) -> Result<Range<Seq>>;

    /// The commits that are perhaps not durable, as something to sync without the lock;
    /// `None` when all is durable (always so at `Durability::Sync`).
    fn sync_point(&mut self) -> Result<Option<SyncPoint>>;

    /// Notes the outcome of [`SyncPoint::sync`]: durable up to its seq, or poisoned.
    fn synced(&mut self, outcome: Result<Seq>) -> Result<()>;

    /// Syncs and switches the log, short; `None` for a ledger, for an image that each commit
    /// writes, and for a checkpoint that would change nothing. `state` is the state now: it goes
    /// to [`Checkpoint::write`] too, which runs without the lock. On a disk that is too full to
    /// switch, the image is written at once, which frees the log, and `None` is returned. Each
    /// checkpoint that began is finished before the next begins and before
    /// [`close`](Storage::close).
    fn begin_checkpoint(&mut self, state: &dyn State) -> Result<Option<Checkpoint>>;

    /// Puts a written image in place and removes what it replaces; or notes that the image
    /// failed, which changes nothing.
    fn finish_checkpoint(&mut self, done: Result<Written>) -> Result<()>;

    /// The files that the last [`finish_checkpoint`](Storage::finish_checkpoint) has replaced and
    /// this storage would close: to be asked for after each, and dropped without the lock.
    fn retired(&mut self) -> Option<Retired> {
        None
    }

    /// Wraps the root key under another user's key, in place of the one before, which opens the
    /// store no longer. No sealed byte is written again. No checkpoint may be running.
    ///
    /// # Errors
    /// `NotEncrypted`, `Seal`, `NoSpace`, `Io`: nothing changed. `InDoubt` and `Poisoned`: either
    /// key may open the store, and every later call that writes returns `Poisoned`.
    fn change_key(&mut self, keys: &dyn Keys) -> Result<()> {
        let _ = keys;
        Err(Error::Contradiction(NO_KEY))
    }

    /// Puts the store under a fresh root key, which `keys` wraps. `state` is the state now. What
    /// takes long is handed out like the image of a checkpoint, with the same obligations: to be
    /// written beside running writers and given to
    /// [`finish_checkpoint`](Storage::finish_checkpoint). `None`: all is done. No checkpoint may be
    /// running.
    ///
    /// # Errors
    /// As [`change_key`](Storage::change_key).
    fn rekey(&mut self, keys: &dyn Keys, state: &dyn State) -> Result<Option<Checkpoint>> {
        let _ = (keys, state);
        Err(Error::Contradiction(NO_KEY))
    }

    /// Whether the log has outgrown the image, so that a checkpoint is due.
    fn wants_checkpoint(&self) -> bool;

    /// Marks the clean end: makes all durable, trims, closes a small store into its image alone
    /// (`state` is the state now). No call but [`stats`](Storage::stats) works afterwards. The
    /// lock on the store is released when the storage is dropped.
    ///
    /// # Errors
    /// `Poisoned`, `InDoubt`: it is closed, and commits that were not durable may be lost.
    /// `NoSpace`, `Io`: the clean end is not marked, and the same commits are durable as before.
    fn close(&mut self, state: &dyn State) -> Result<()>;

    /// Hands out the writing of an image of the state at the last commit, as a store of its own
    /// with the same keys, under the temporary name of the store `name` in the folder of `to`.
    /// Touches no file of this storage, so it works when this storage is poisoned or its folder is
    /// gone.
    ///
    /// # Errors
    /// `BadPath`; the storage has no files.
    fn image_elsewhere(&self, to: &Vfs, name: &str) -> Result<Checkpoint> {
        let _ = (to, name);
        Err(Error::Contradiction("this storage has no files to copy"))
    }

    /// The lock on the store, which this storage holds until it is dropped.
    fn lock(&self) -> Option<Arc<StoreLock>> {
        None
    }

    /// The root key of the files, unlocked; `None` if they are not encrypted. A
    /// [rekey](Storage::rekey) that has come to its end gives another, a change of key does not.
    fn seal(&self) -> Option<Arc<dyn Seal>> {
        None
    }

    /// Sizes and counts.
    fn stats(&self) -> StorageStats;

    /// The last commit as an anchor. The images to come list it, as long as the format's rule
    /// keeps it.
    fn anchor(&mut self) -> Anchor;

    /// The history up to the last commit, for a conversion.
    #[doc(hidden)]
    fn history(&self) -> History {
        History::of_nothing(self.stats().seq)
    }

    /// Why writes are refused, once they are.
    fn poisoned(&self) -> Option<String>;
}

/// A state to write as an image: all entries in key order.
pub trait State {
    /// How many entries there are.
    fn len(&self) -> u64;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Calls `sink` with each key and stored value, keys ascending.
    ///
    /// # Errors
    /// The errors of `sink`.
    fn for_each(&self, sink: &mut EntrySink<'_>) -> Result<()>;
}

/// Takes an operation of the history.
pub type OpSink<'a> = dyn FnMut(Op<'_>) -> Result<()> + 'a;

/// Takes a key and its stored value.
pub type EntrySink<'a> = dyn FnMut(&[u8], &[u8]) -> Result<()> + 'a;

/// The three forms of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// An image and a log: one append and one sync a commit group. The default.
    Wal,
    /// One image, always whole, written again for each commit group.
    Snapshot,
    /// One log that keeps every commit ever, with its time, chained by SHA-256.
    Ledger,
}

impl Form {
    /// Whether each commit writes an image of the whole state.
    pub fn writes_images(self) -> bool {
        self == Self::Snapshot
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wal => "wal",
            Self::Snapshot => "snapshot",
            Self::Ledger => "ledger",
        })
    }
}

/// When a commit counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When it is on disk: survives power loss. The default.
    #[default]
    Sync,
    /// When the operating system has it; a sync of it begins in the background at the latest this
    /// long after it, or when the sync before has ended. Survives a killed process at once, power
    /// loss after that sync.
    Interval(std::time::Duration),
    /// When the operating system has it: survives a killed process.
    Os,
}

/// The findings of an [`open`](crate::open).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Recovered {
    /// The last commit.
    pub seq: Seq,
    /// Commits up to this one were proven durable before this recovery.
    pub durable: Seq,
    /// Whether the store had been closed cleanly.
    pub clean: bool,
    /// Commits read from logs (the rest came from the image).
    pub replayed: u64,
    /// The part that was cut from the end of the log, if any.
    pub cut: Option<Cut>,
    /// The name of the log that a rekey has left which did not come to its end, if there is one. It
    /// holds nothing that the others lack, and a writer removes it before its first write.
    pub stray: Option<String>,
    /// Whether the lock on the store is held: not so for a backup that is read in place, and for
    /// a reader in a folder where it can not be had.
    pub locked: bool,
    /// The result of comparing the anchor; `None` without one.
    pub anchor: Option<AnchorFound>,
}

/// The result of comparing an anchor with a store. A store that is shown not to contain the
/// anchored commit does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnchorFound {
    /// The store contains the anchored commit.
    Compared,
    /// The store is further on, and its files no longer tell; this was accepted.
    Unknown,
}

/// A tail that recovery left out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// The name of the log.
    pub file: String,
    /// Where the intact part ends.
    pub offset: u64,
    /// How many bytes after it, up to the last that is not zero, are not used.
    pub bytes: u64,
    /// The last commit before the cut.
    pub seq: Seq,
}

/// Sizes and counts of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StorageStats {
    /// The last commit.
    pub seq: Seq,
    /// Commits up to this one are durable.
    pub durable: Seq,
    /// Commit groups written since opening.
    pub groups: u64,
    /// Successful fdatasync calls for commits since opening.
    pub syncs: u64,
    /// The bytes of the image.
    pub image_bytes: u64,
    /// The used bytes of the log segments since the image.
    pub log_bytes: u64,
    /// Images written since opening.
    pub images: u64,
    /// Images since opening that failed before they took the place of another, which changes
    /// nothing: the next one is tried in their stead.
    pub images_failed: u64,
}

/// A commit of one store and all that was committed before it, to be kept elsewhere and demanded
/// at open.
///
/// It tells nothing of the contents: its value is a hash whose key is the digest of the
/// history, which begins with random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The id of the store, which conversions and changes of keys keep.
    pub store_id: [u8; 16],
    /// The commit.
    pub seq: Seq,
    /// A hash of both and of the history; see `docs/FORMAT.md`, "Anchor".
    pub value: [u8; 32],
}

/// Committed bytes to make durable without the lock; see [`Storage::sync_point`].
pub struct SyncPoint {
    job: SyncJob,
}

type SyncJob = Box<dyn FnOnce() -> Result<Seq> + Send>;

impl SyncPoint {
    /// A sync point whose `job` makes everything durable up to the seq that it returns.
    pub fn new(job: impl FnOnce() -> Result<Seq> + Send + 'static) -> Self {
        Self { job: Box::new(job) }
    }

    /// Syncs; hand the outcome to [`Storage::synced`].
    ///
    /// # Errors
    /// `InDoubt`: the bytes may be lost, even if a second sync succeeds.
    pub fn sync(self) -> Result<Seq> {
        (self.job)()
    }
}

crate::opaque_debug!(SyncPoint);

/// A checkpoint that has begun: the log is switched, the image is still to be written, beside
/// running writers.
pub struct Checkpoint {
    job: ImageJob,
}

/// Writes the image of a state; the second argument is the progress callback.
type ImageJob = Box<dyn FnOnce(&dyn State, &dyn Fn(u64) -> bool) -> Result<Written> + Send>;

impl Checkpoint {
    /// A checkpoint whose image `job` writes.
    pub fn new(
        job: impl FnOnce(&dyn State, &dyn Fn(u64) -> bool) -> Result<Written> + Send + 'static,
    ) -> Self {
        Self { job: Box::new(job) }
    }

    /// Writes, syncs and reads back the image of `state`, the state at the moment of
    /// [`Storage::begin_checkpoint`]; hand the outcome to [`Storage::finish_checkpoint`]. Takes no
    /// lock. `progress` returns `false` to stop. It gets the progress: of an image, how
    /// many entries are written, and how many of them are then read back in addition (in the end
    /// twice as many as there are); of a ledger under a fresh key, the last commit copied.
    ///
    /// # Errors
    /// `Io`, `NoSpace`; `Abandoned` when `progress` returned false. The temporary file is removed.
    pub fn write(self, state: &dyn State, progress: &dyn Fn(u64) -> bool) -> Result<Written> {
        (self.job)(state, progress)
    }
}

crate::opaque_debug!(Checkpoint);

/// A verified image under its temporary name.
#[derive(Debug)]
pub struct Written {
    /// The temporary name.
    pub temporary: String,
    /// The last commit in the image.
    pub seq: Seq,
    /// Its length in bytes.
    pub bytes: u64,
    /// The generation of the image.
    pub generation: u64,
}

/// Files without a name that are still open. Dropping it closes them, and only then the file system
/// frees their space, which takes long for large ones.
#[derive(Debug)]
pub struct Retired {
    _held: Box<dyn fmt::Debug + Send>,
}

impl Retired {
    /// Keeps `held`, which has the files open.
    pub(crate) fn new(held: impl fmt::Debug + Send + 'static) -> Self {
        Self { _held: Box::new(held) }
    }
}

const NO_KEY: &str = "this storage has no files, and so no key";

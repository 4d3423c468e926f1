//! The trait of all forms, and the types of its calls.

mod findings;
mod log_part;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::batch::{Group, Item, Op, Seq};
use crate::error::{Error, Result};
#[doc(hidden)]
pub use crate::files::Stored;
pub use crate::follow::{Delivered, DeliverySink, Followed};
use crate::lock::StoreLock;
use crate::main_file::MainFile;
use crate::seal::{Keys, Seal};
use crate::separate::SeparateImage;
use crate::vfs::Vfs;
pub use findings::{AnchorFound, Cut, Recovered};
pub use log_part::LogPart;

/// An open store with durable, ordered commits, which [`open`](crate::open) has recovered.
///
/// Calls that write take `&mut self`, so there is one writer at a time. Commits are numbered
/// without gaps from the recovered seq on, in the order in which they are made.
pub trait Storage: fmt::Debug + Send {
    /// Returns the form of the files.
    fn form(&self) -> Form;

    /// Returns an empty group with the room that this storage needs.
    fn group(&self) -> Group;

    /// Writes the batches of `group` as one frame or one image, durably if the storage was opened
    /// at `Durability::Sync`, and returns their numbers.
    ///
    /// `image` is the state after the group, for forms that write images ([`Form::writes_images`]).
    /// It is `None` for these forms at `Durability::Interval`. The commit is then only numbered,
    /// and [`begin_checkpoint`](Storage::begin_checkpoint) returns the image to write, once per
    /// interval and at a flush.
    /// # Errors
    /// - `NoSpace` or `Io` if the commit failed. Nothing has changed, and the next commit may
    ///   succeed.
    /// - `InDoubt` if bytes may have reached the disk. Every later call that writes returns
    ///   `Poisoned`.
    fn commit(&mut self, group: &mut Group, image: Option<&dyn State>) -> Result<Range<Seq>>;

    /// Returns the sync of commits that may not be durable, to run without the lock. Returns `None`
    /// if all commits are durable, as always at `Durability::Sync`.
    fn sync_point(&mut self) -> Result<Option<SyncPoint>>;

    /// Records the result of [`SyncPoint::sync`]: commits up to its seq are durable, or the storage
    /// is poisoned.
    fn synced(&mut self, outcome: Result<Seq>) -> Result<()>;

    /// Syncs and switches the log, and returns the image to write. Takes little time. `state` is
    /// the current state, which the caller also passes to [`Checkpoint::write`], which runs without
    /// the lock.
    ///
    /// Returns `None` for a ledger, for an image that each commit writes, and for a checkpoint that
    /// would change nothing. If the disk is too full for a switch, the image is written at once,
    /// which frees the log, and `None` is returned. Each checkpoint must be finished before the
    /// next one begins, and before [`close`](Storage::close).
    fn begin_checkpoint(&mut self, state: &dyn State) -> Result<Option<Checkpoint>>;

    /// Installs a written image and removes the files that it replaces, or records that the image
    /// failed, which changes nothing.
    fn finish_checkpoint(&mut self, done: Result<Written>) -> Result<()>;

    /// Passes the next group of commits that was made since the opening or since the last call to
    /// `sink`, commit by commit. Only for a storage of [`Access::Follow`](crate::Access::Follow).
    ///
    /// It passes a prefix of the commits of the writer, and none that a crash of the writer can
    /// take back at the writer's level of durability. A commit that the writer has acknowledged
    /// before the call is passed by it or by one of the next calls, before one returns
    /// [`Followed::Idle`].
    ///
    /// # Errors
    /// One variant for each kind of damage, `RestorePending`, `NotFound` or `Io`: nothing was
    /// passed, and a later call tries again. The errors of `sink` and of a commit that this build
    /// does not know: every later call returns [`Followed::Lost`].
    fn follow(&mut self, sink: &mut DeliverySink<'_>) -> Result<Followed> {
        let _ = sink;
        Err(Error::Contradiction(NO_FOLLOWER))
    }

    /// Returns the files that the last [`finish_checkpoint`](Storage::finish_checkpoint) has
    /// replaced, if they are still open. The caller asks after each checkpoint, and drops them
    /// without the lock.
    fn retired(&mut self) -> Option<Retired> {
        None
    }

    /// Puts the root key into an envelope for another key of the user. The former key no longer
    /// opens the store. No sealed byte is written again. No checkpoint may be running.
    ///
    /// # Errors
    /// - `NotEncrypted`, `Seal`, `NoSpace` or `Io` if nothing has changed.
    /// - `InDoubt` or `Poisoned` if either key may open the store. Every later call that writes
    ///   returns `Poisoned`.
    fn change_key(&mut self, keys: &dyn Keys) -> Result<()> {
        let _ = keys;
        Err(Error::Contradiction(NO_KEY))
    }

    /// Puts the store under a fresh root key in an envelope of `keys`. `state` is the current
    /// state.
    ///
    /// The long part of the work is returned like the image of a checkpoint, with the same
    /// obligations: it is written beside running writers, and its result is passed to
    /// [`finish_checkpoint`](Storage::finish_checkpoint). `None` means that the rekey is complete.
    /// No checkpoint may be running.
    ///
    /// # Errors
    /// The errors of [`change_key`](Storage::change_key).
    fn rekey(&mut self, keys: &dyn Keys, state: &dyn State) -> Result<Option<Checkpoint>> {
        let _ = (keys, state);
        Err(Error::Contradiction(NO_KEY))
    }

    /// Returns whether the log has outgrown the image, so that a checkpoint is due.
    fn wants_checkpoint(&self) -> bool;

    /// Marks the clean end: makes all commits durable, trims the log, and closes a small store into
    /// one image. `state` is the current state. After that only [`stats`](Storage::stats) works.
    /// The lock on the store is released when the storage is dropped.
    ///
    /// # Errors
    /// - `Poisoned` or `InDoubt` if the storage is closed and commits that were not durable may be
    ///   lost.
    /// - `Io` if the clean end is not marked. The same commits are durable as before. If only the
    ///   space for the mark is missing, the close succeeds without it.
    fn close(&mut self, state: &dyn State) -> Result<()>;

    /// Hands out the open main file, to be copied without the lock: of a ledger up to the last
    /// commit, of other forms the image in place. A file that takes its name later is another one.
    ///
    /// # Errors
    /// As [`MainFile::open`]; `Poisoned`, `Closed`; the storage has no files.
    fn main_file(&mut self) -> Result<MainFile> {
        Err(Error::Contradiction(NO_FILES))
    }

    /// Returns the logs that continue the image in place, oldest first. The last one is being
    /// written: below the level `Sync`, a [`sync_point`](Storage::sync_point) taken before makes
    /// its part durable. Returns no part if no log continues the image yet, which the first commit
    /// changes.
    ///
    /// # Errors
    /// `Poisoned`, `Closed`; `LogMissing`, `Io` or an error of the header if an earlier log cannot
    /// be opened.
    fn log_parts(&mut self) -> Result<Vec<LogPart>> {
        Ok(Vec::new())
    }

    /// Returns an image of the state at the last commit, which is not written yet. It is a separate
    /// store with the same keys, for the name `name` in the directory of `to`. No file of this
    /// storage is used, so this works even if the storage is poisoned or its directory was removed.
    ///
    /// # Errors
    /// `BadPath` if no store may have the name; `Contradiction` if this storage has no files.
    fn image_elsewhere(&mut self, to: &Vfs, name: &str) -> Result<SeparateImage> {
        let stored = self.stored().ok_or(Error::Contradiction(NO_FILES))?;
        stored.files.image_elsewhere(to, name, stored.header, stored.history)
    }

    /// Returns the lock on the store, which this storage holds until it is dropped.
    fn lock(&self) -> Option<Arc<StoreLock>> {
        self.stored()?.files.lock.clone()
    }

    /// Returns the unlocked root key of the files, or `None` if they are not encrypted. A completed
    /// [rekey](Storage::rekey) replaces it, a change of key does not.
    fn seal(&self) -> Option<Arc<dyn Seal>> {
        self.stored()?.files.seal.clone()
    }

    /// Returns sizes and counts.
    fn stats(&self) -> StorageStats;

    /// Returns the last commit as an anchor. Later images list it as long as the rule of the format
    /// keeps it.
    fn anchor(&mut self) -> Anchor;

    /// Returns the files with their header and history, or `None` for a storage without files.
    #[doc(hidden)]
    fn stored(&self) -> Option<Stored<'_>> {
        None
    }

    /// Returns the reason why writes are refused, or `None` if they are not.
    fn poisoned(&self) -> Option<String>;
}

/// A state that can be written as an image: all entries in key order.
pub trait State {
    /// Returns the number of entries.
    fn len(&self) -> u64;
    /// Returns whether there are no entries.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Calls `sink` with each entry, in ascending order of keys.
    ///
    /// # Errors
    /// The errors of `sink`.
    fn for_each(&self, sink: &mut EntrySink<'_>) -> Result<()>;
}

/// Receives an operation of the history.
pub type OpSink<'a> = dyn FnMut(Op<'_>) -> Result<()> + 'a;

/// Receives an entry.
pub type EntrySink<'a> = dyn FnMut(Item<'_>) -> Result<()> + 'a;

/// The three forms of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Form {
    /// An image and a log. Each commit group is one append and one sync. The default.
    Wal,
    /// One complete image, written again for each commit group.
    Snapshot,
    /// One log with every commit and its time, chained by SHA-256.
    Ledger,
}

impl Form {
    /// Returns whether each commit writes an image of the whole state.
    pub fn writes_images(self) -> bool {
        self == Self::Snapshot
    }
}

/// The time at which a commit is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// When it is on the disk. It survives a power loss. The default.
    #[default]
    Sync,
    /// When the operating system has it. It survives a killed process at once, and a power loss
    /// after the next sync. This sync begins in the background at the latest this long after the
    /// commit, or when the previous sync has ended.
    Interval(std::time::Duration),
    /// When the operating system has it. It survives a killed process.
    Os,
}

/// Sizes and counts of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct StorageStats {
    /// The last commit.
    pub seq: Seq,
    /// The last commit that is durable.
    pub durable: Seq,
    /// The number of commit groups that were written since the store was opened.
    pub groups: u64,
    /// The number of successful fdatasync calls for commits since the store was opened.
    pub syncs: u64,
    /// The length of the image in bytes.
    pub image_bytes: u64,
    /// The used length of the log segments after the image, in bytes.
    pub log_bytes: u64,
    /// The number of images that were written since the store was opened.
    pub images: u64,
    /// The number of images that failed before they were installed since the store was opened. A
    /// failed image changes nothing, and the next one is tried in its place.
    pub images_failed: u64,
}

/// A commit of a store with all commits before it, to be stored elsewhere and compared when the
/// store is opened.
///
/// It reveals nothing of the contents: its value is a hash with the digest of the history as its
/// key, and the history begins with random bytes. To keep it in a file, write its text (`Display`)
/// and parse it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Anchor {
    /// The id of the store, which conversions and changes of keys keep.
    pub store_id: [u8; 16],
    /// The number of the commit.
    pub seq: Seq,
    /// A hash of both and of the history. See `docs/FORMAT.md`, "Anchor".
    pub value: [u8; 32],
}

impl Anchor {
    /// Returns the anchor with these parts, which were taken from one that a store returned.
    pub fn new(store_id: [u8; 16], seq: Seq, value: [u8; 32]) -> Self {
        Self { store_id, seq, value }
    }
}

/// A sync of committed bytes that runs without the lock. See [`Storage::sync_point`].
pub struct SyncPoint {
    job: SyncJob,
}

type SyncJob = Box<dyn FnOnce() -> Result<Seq> + Send>;

impl SyncPoint {
    /// Returns a sync point. `job` makes all commits up to the seq that it returns durable.
    pub fn new(job: impl FnOnce() -> Result<Seq> + Send + 'static) -> Self {
        Self { job: Box::new(job) }
    }

    /// Runs the sync. Pass the result to [`Storage::synced`].
    ///
    /// # Errors
    /// `InDoubt` if the sync fails. The bytes may be lost, even if a second sync succeeds.
    pub fn sync(self) -> Result<Seq> {
        (self.job)()
    }
}

crate::opaque_debug!(SyncPoint);

/// A checkpoint that has begun. The log is switched, and the image is still to be written beside
/// running writers.
pub struct Checkpoint {
    job: ImageJob,
}

/// Writes the image of a state. The second argument is the progress callback.
type ImageJob = Box<dyn FnOnce(&dyn State, &dyn Fn(u64) -> bool) -> Result<Written> + Send>;

impl Checkpoint {
    /// Returns a checkpoint. `job` writes its image.
    pub fn new(
        job: impl FnOnce(&dyn State, &dyn Fn(u64) -> bool) -> Result<Written> + Send + 'static,
    ) -> Self {
        Self { job: Box::new(job) }
    }

    /// Writes the image of `state`, syncs it and reads it back. `state` is the state at the time of
    /// [`Storage::begin_checkpoint`]. Pass the result to [`Storage::finish_checkpoint`]. No lock is
    /// taken.
    ///
    /// `progress` returns `false` to stop. It receives the progress. For an image this is the
    /// number of entries written plus the number read back, at the end twice the number of entries.
    /// For a ledger under a fresh key it is the last commit copied.
    ///
    /// # Errors
    /// `Io` or `NoSpace` if writing fails, `Abandoned` if `progress` returned `false`. The
    /// temporary file is removed.
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
    /// The length of the image in bytes.
    pub bytes: u64,
    /// The generation of the image.
    pub generation: u64,
}

/// Open files that are not needed any more. Dropping this closes them. The file system then frees
/// their space, which takes long for large files.
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

pub(crate) const NO_FILES: &str = "this storage has no files to copy";
pub(crate) const NO_FOLLOWER: &str = "this storage was not opened to follow a writer";
const NO_KEY: &str = "this storage has no files, and so no key";

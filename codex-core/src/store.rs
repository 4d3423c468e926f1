//! The store: what users hold.

use std::fmt;
use std::ops::RangeBounds;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;

use codex_storage::batch::{BATCH_LEN_MAX, KEY_LEN_MAX, Op, Seq, record_len};
use codex_storage::seal::{Keys, Unlocked};
use codex_storage::storage::{Anchor, Form, Recovered};
use codex_storage::{Error as StorageError, RecordError, Verified};
use serde::Serialize;

use crate::batch::Batch;
use crate::commit::{Change, Commit, Outcome};
use crate::cursor::{self, Iter, KeyBound};
use crate::engine::EngineStats;
use crate::entry::Entry;
use crate::error::Result;
use crate::handle::{Done, Handle};
use crate::map::Map;
use crate::options::OpenOptions;
use crate::read::{Read, inherent_reads};
use crate::snapshot::Snapshot;
use crate::value::{Codec, RAW, ValueRef};

/// An embedded key-value store: every read is served from memory, every acknowledged write is on
/// disk.
///
/// A `Store` is a handle. Clones are cheap and share the store; they may be used from any number
/// of threads. Keys are anything that derefs to bytes, up to 65,535 of them; values are any
/// [`serde`] type, or bytes. The store closes when its last handle is dropped, or by
/// [`close`](Store::close), which reports what went wrong.
///
/// Calls that write block until the commit is durable (at the level of
/// [`OpenOptions::durability`]); many threads that write at once share one sync. Under an async
/// runtime, write from its blocking pool.
///
/// ```
/// use codex_core::Store;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct City {
///     name: String,
///     people: u32,
/// }
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("cities.db");
/// let store = Store::open(&path)?;
/// store.set("city:bern", &City { name: "Bern".into(), people: 137_000 })?;
///
/// // On disk, and in memory: reopening gives it back.
/// store.close()?;
/// let store = Store::open(&path)?;
/// let bern: Option<City> = store.get("city:bern")?;
/// assert_eq!(bern.map(|city| city.people), Some(137_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Handle>,
}

impl Store {
    /// Opens the store at `path`, creating it when it is missing. Its files are `path` itself and
    /// some whose names begin with it.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        OpenOptions::new().open(path)
    }

    /// Makes a store that lives in memory only: for tests and for data that may go.
    ///
    /// # Errors
    /// None today; a store that starts a thread may be refused one.
    pub fn in_memory() -> Result<Self> {
        OpenOptions::new().in_memory()
    }

    /// Options to open with: read-only, another form, another durability.
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }

    inherent_reads!();

    /// Gives `key` the value `value`. Setting an equal value is a write like any other.
    ///
    /// # Errors
    /// [`Error::Encode`](crate::Error::Encode) if the codec cannot give the value back (see
    /// [`Codec`]); a key or value beyond its limit; what the disk says. The store is then as
    /// before, unless the error [is in doubt](crate::Error::is_in_doubt).
    pub fn set<T>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<()>
    where
        T: Serialize + ?Sized,
    {
        let key = key.as_ref();
        let put = self.put(key, value)?;
        self.submit(Commit::one(put)).map(|_| ())
    }

    /// Gives `key` the bytes `value`, as they are; read them with
    /// [`get_bytes`](Store::get_bytes).
    ///
    /// # Errors
    /// As [`set`](Store::set).
    pub fn set_bytes(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        let entry = Entry::from_parts(key, RAW, value.as_ref());
        self.check_one(Op::Set { key, value: entry.value() })?;
        self.submit(Commit::one(Change::Put(entry))).map(|_| ())
    }

    /// Removes `key` and says whether it was there. Where it was not, nothing is written.
    ///
    /// # Errors
    /// What the disk says. The key is still there then, unless the error
    /// [is in doubt](crate::Error::is_in_doubt).
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let remove = self.removal(key.as_ref())?;
        Ok(self.submit(Commit::one(remove))?.removed > 0)
    }

    /// Removes every key, in one commit.
    ///
    /// # Errors
    /// What the disk says.
    pub fn clear(&self) -> Result<()> {
        self.submit(Commit::one(Change::Clear)).map(|_| ())
    }

    /// Removes every key that begins with `prefix`, in one commit, and returns how many.
    ///
    /// # Errors
    /// What the disk says.
    pub fn remove_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<u64> {
        self.remove_within(cursor::prefix_bounds(prefix.as_ref()))
    }

    /// Removes every key in `range`, in one commit, and returns how many.
    ///
    /// # Errors
    /// What the disk says.
    pub fn remove_range<K: AsRef<[u8]> + ?Sized>(&self, range: impl RangeBounds<K>) -> Result<u64> {
        self.remove_within(cursor::range_bounds(&range))
    }

    /// An empty batch: several changes that become one commit. It holds a handle to the store, so
    /// that the store stays open while the batch is kept.
    pub fn batch(&self) -> Batch {
        Batch::new(self.clone())
    }

    /// The store as it is now, for as long as the snapshot is kept. Costs the same whatever the
    /// size of the store.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.inner.engine.view())
    }

    /// Makes every commit so far durable, whatever the level, and returns the last one's number.
    /// At the level `Sync` they already are.
    ///
    /// # Errors
    /// What the disk says; a sync that failed leaves the store [poisoned](Store::poisoned).
    pub fn flush(&self) -> Result<Seq> {
        self.inner.check_writable()?;
        Ok(self.inner.engine.flush()?)
    }

    /// Writes an image of the state and begins a new log, beside running readers and writers, and
    /// returns when it is in place. The Wal form does so by itself when the log has outgrown the
    /// image; the other forms have nothing to do.
    ///
    /// Until the image is in place the disk holds the old one, the log and the new one.
    ///
    /// # Errors
    /// What the disk says. An image that could not be written changes nothing.
    pub fn checkpoint(&self) -> Result<()> {
        self.inner.check_writable()?;
        self.inner.engine.checkpoint()?;
        Ok(())
    }

    /// Reads every byte of the files again and checks it against every checksum, count and link
    /// (and tag, where they are encrypted), beside running readers and writers; says what was
    /// read. What is only in memory at a level below `Sync` is not in it: [`flush`](Store::flush)
    /// first.
    ///
    /// # Errors
    /// Damage, each kind by its own variant: the store in memory is still whole then, so a
    /// [`checkpoint`](Store::checkpoint) or a copy by hand may save what the disk no longer has.
    pub fn verify(&self) -> Result<Verified> {
        self.inner.check_process()?;
        let Some(files) = &self.inner.opened.files else {
            let what = "a store in memory has no files to verify";
            return Err(StorageError::Contradiction(what).into());
        };
        let verified = self.inner.engine.under_seal(|seal| {
            let root = seal.map(Unlocked::new);
            let keys = root.as_ref().map(|root| root as &dyn Keys);
            codex_storage::verify(&files.vfs, &files.name, keys)
        });
        Ok(verified?)
    }

    /// Sizes, counts, waits, and what became of the backups.
    pub fn stats(&self) -> EngineStats {
        let mut stats = self.inner.engine.stats();
        if let Some(keeper) = &self.inner.keeper {
            stats.backups = keeper.stats();
        }
        stats
    }

    /// What recovery found when the store was opened, and what it cut from the end of the log, if
    /// anything.
    pub fn recovered(&self) -> &Recovered {
        &self.inner.opened.recovered
    }

    /// Why writes are refused, once an error has left the disk in doubt. Reads go on; reopening
    /// decides.
    pub fn poisoned(&self) -> Option<String> {
        self.inner.engine.poisoned()
    }

    /// The last commit and a value that stands for all history up to it: kept elsewhere and given
    /// to [`OpenOptions::anchor`], it shows whether the files were rolled back. It tells nothing of
    /// what the store holds. Below the level `Sync`, call [`flush`](Store::flush) first: power loss
    /// takes back what is not durable yet.
    ///
    /// The images to come list the commit, so that the anchor can be compared later. A crash before
    /// the next image forgets that it was given, unless the store is then opened with it.
    ///
    /// # Errors
    /// The store is closed or poisoned.
    pub fn anchor(&self) -> Result<Anchor> {
        self.inner.check_process()?;
        Ok(self.inner.engine.anchor()?)
    }

    /// The canonical path of the store; empty in memory.
    pub fn path(&self) -> &Path {
        &self.inner.opened.path
    }

    /// The form of the files; `None` in memory.
    pub fn form(&self) -> Option<Form> {
        self.inner.opened.form
    }

    /// Closes the store for all its handles: earlier writes are made durable, later ones are
    /// refused, the lock is released. Reads go on from memory, with the state as it was closed,
    /// until the last handle is dropped. Closing twice is fine.
    ///
    /// In a child made by `fork`, the store is not the child's to close: closes the child's copies
    /// of the locks, so that they end with the parent, and returns
    /// [`ForkedChild`](crate::Error::ForkedChild). Dropping the last handle does the same.
    ///
    /// # Errors
    /// What the disk says. The store is closed all the same.
    pub fn close(&self) -> Result<()> {
        self.inner.check_process().inspect_err(|_| self.inner.abandon_lock())?;
        self.inner.close()
    }

    pub(crate) fn new(handle: Handle) -> Self {
        Self { inner: Arc::new(handle) }
    }

    pub(crate) fn codec(&self) -> Codec {
        self.inner.codec
    }

    /// Commits what has no condition.
    pub(crate) fn submit(&self, commit: Commit) -> Result<Done> {
        match self.inner.submit(commit)? {
            Outcome::Done { seq, removed, .. } => Ok(Done { seq, removed }),
            Outcome::Conflict => Ok(Done::default()),
        }
    }

    /// Refuses an operation, or the batch of `bytes` that it makes, beyond its limit.
    pub(crate) fn check_size(&self, op: Op<'_>, bytes: usize, limit: usize) -> Result<()> {
        let key_len = match op {
            Op::Set { key, .. } | Op::Remove { key } => key.len(),
            Op::Clear => 0,
        };
        let source = if key_len > KEY_LEN_MAX {
            RecordError::KeyTooLong { len: key_len, limit: KEY_LEN_MAX }
        } else if bytes > limit {
            RecordError::BatchTooLarge { limit }
        } else {
            return Ok(());
        };
        Err(StorageError::Record { path: self.inner.opened.path.clone(), source }.into())
    }

    fn check_one(&self, op: Op<'_>) -> Result<()> {
        self.check_size(op, record_len(op), BATCH_LEN_MAX)
    }

    /// The change that gives `key` the value `value`.
    pub(crate) fn put<T: Serialize + ?Sized>(&self, key: &[u8], value: &T) -> Result<Change> {
        let stored = self.codec().encode(key.len(), value)?;
        self.check_one(Op::Set { key, value: &stored })?;
        Ok(Change::Put(Entry::new(key, &stored)))
    }

    /// The change that removes `key`.
    pub(crate) fn removal(&self, key: &[u8]) -> Result<Change> {
        self.check_one(Op::Remove { key })?;
        Ok(Change::Remove(key.into()))
    }

    fn remove_within(&self, (lower, upper): (KeyBound, KeyBound)) -> Result<u64> {
        if cursor::bounds(&lower, &upper).is_none() {
            return Ok(0);
        }
        Ok(self.submit(Commit::one(Change::RemoveRange(lower, upper)))?.removed)
    }
}

// A panic in a user's code unwinds outside all locks, and a leader that unwinds poisons the
// store, so that every handle stays consistent.
impl UnwindSafe for Store {}
impl RefUnwindSafe for Store {}

impl Read for Store {
    fn get_bytes(&self, key: impl AsRef<[u8]>) -> Option<ValueRef> {
        self.inner.entry(key.as_ref()).map(ValueRef::new)
    }

    fn contains_key(&self, key: impl AsRef<[u8]>) -> bool {
        // The caller's code runs before the lock is taken.
        let key = key.as_ref();
        self.inner.engine.read(|map| map.find(key).is_some())
    }

    fn len(&self) -> usize {
        self.inner.engine.read(Map::len)
    }

    fn range<K: AsRef<[u8]> + ?Sized>(&self, range: impl RangeBounds<K>) -> Iter {
        Read::range(&self.snapshot(), range)
    }

    fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        Read::prefix(&self.snapshot(), prefix)
    }
}

impl IntoIterator for &Store {
    type Item = cursor::Entry;
    type IntoIter = Iter;

    fn into_iter(self) -> Iter {
        self.iter()
    }
}

/// Keys and values appear in no log.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.inner.opened.path)
            .field("form", &self.inner.opened.form)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

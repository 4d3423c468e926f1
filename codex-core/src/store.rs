//! The store: the handle that users hold.

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

use crate::commit::{Change, Commit};
use crate::cursor::{self, Iter, KeyBound};
use crate::entry::Entry;
use crate::error::Result;
use crate::inner::Inner;
use crate::map::Map;
use crate::read::{Read, inherent_reads, sealed};
use crate::snapshot::Snapshot;
use crate::value::{Codec, RAW, ValueRef};

/// An embedded key-value store: every read is served from memory, every acknowledged write is on
/// disk.
///
/// A `Store` is a handle. Clones are cheap and share the store; they may be used from any number
/// of threads. Keys are anything that derefs to bytes, up to 65,535 of them; values are any
/// [`serde`] type, or bytes. The store closes when its last handle is dropped, or by
/// [`close`](Store::close), which returns the error.
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
    pub(crate) inner: Arc<Inner>,
}

impl Store {
    inherent_reads!();

    /// Gives `key` the value `value`. Setting an equal value is a write like any other.
    ///
    /// # Errors
    /// [`Error::Encode`](crate::Error::Encode) if the codec cannot give the value back (see
    /// [`Codec`]); a key or value beyond its limit; errors of the disk. The store is then as
    /// before, unless the error [is in doubt](crate::Error::is_in_doubt).
    pub fn set<T>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<()>
    where
        T: Serialize + ?Sized,
    {
        let key = key.as_ref();
        let put = self.put(key, value)?;
        self.inner.commit(Commit::one(put)).map(|_| ())
    }

    /// Gives `key` the bytes `value`, as they are; read them with
    /// [`get_bytes`](Store::get_bytes).
    ///
    /// # Errors
    /// As [`set`](Store::set).
    pub fn set_bytes(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        self.check_key(key)?;
        let entry = Entry::from_parts(key, RAW, value.as_ref());
        self.check_one(Op::Set { key, value: entry.value() })?;
        self.inner.commit(Commit::one(Change::Put(entry))).map(|_| ())
    }

    /// Removes `key` and returns whether it was there. If it was not, nothing is written.
    ///
    /// # Errors
    /// Errors of the disk. The key is still there then, unless the error
    /// [is in doubt](crate::Error::is_in_doubt).
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let remove = self.removal(key.as_ref())?;
        Ok(self.inner.commit(Commit::one(remove))?.removed() > 0)
    }

    /// Removes every key, in one commit.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn clear(&self) -> Result<()> {
        self.inner.commit(Commit::one(Change::Clear)).map(|_| ())
    }

    /// Removes every key that begins with `prefix`, in one commit, and returns how many.
    ///
    /// # Errors
    /// [Too large](crate::Error::is_too_large) if the keys exceed what one commit holds, 256 MiB;
    /// errors of the disk. Nothing was removed then, unless the error
    /// [is in doubt](crate::Error::is_in_doubt).
    pub fn remove_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<u64> {
        self.remove_within(cursor::prefix_bounds(prefix.as_ref()))
    }

    /// Removes every key in `range`, in one commit, and returns how many.
    ///
    /// # Errors
    /// [Too large](crate::Error::is_too_large) if the keys exceed what one commit holds, 256 MiB;
    /// errors of the disk. Nothing was removed then, unless the error
    /// [is in doubt](crate::Error::is_in_doubt).
    pub fn remove_range<K: AsRef<[u8]> + ?Sized>(&self, range: impl RangeBounds<K>) -> Result<u64> {
        self.remove_within(cursor::range_bounds(&range))
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
    /// Errors of the disk; a sync that failed leaves the store [poisoned](Store::poisoned).
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
    /// Errors of the disk. An image that could not be written changes nothing.
    pub fn checkpoint(&self) -> Result<()> {
        self.inner.check_writable()?;
        self.inner.engine.checkpoint()?;
        Ok(())
    }

    /// Reads every byte of the files again and checks it against every checksum, count and link
    /// (and tag, if they are encrypted), beside running readers and writers; returns what was
    /// read. Commits that are only in memory at a level below `Sync` are not in it:
    /// [`flush`](Store::flush) first.
    ///
    /// # Errors
    /// Damage, each kind by its own variant: the store in memory is still whole then, so a
    /// [`checkpoint`](Store::checkpoint) or a copy by hand may save the data that is lost on the
    /// disk.
    pub fn verify(&self) -> Result<Verified> {
        self.inner.check_process()?;
        let Some(files) = &self.inner.files else {
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

    /// Returns the findings of the recovery when the store was opened, and the cut from the end of
    /// the log, if there was one.
    pub fn recovered(&self) -> &Recovered {
        &self.inner.recovered
    }

    /// Why writes are refused, once an error has left the disk in doubt. Reads go on; reopening
    /// decides.
    pub fn poisoned(&self) -> Option<String> {
        self.inner.engine.poisoned()
    }

    /// The last commit and a value that stands for all history up to it: kept elsewhere and given
    /// to [`OpenOptions::anchor`], it shows whether the files were rolled back. It tells nothing of
    /// the contents. Below the level `Sync`, call [`flush`](Store::flush) first: power loss
    /// takes back commits that are not durable yet.
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
        &self.inner.path
    }

    /// The form of the files; `None` in memory.
    pub fn form(&self) -> Option<Form> {
        self.inner.form
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
    /// Errors of the disk. The store is closed all the same.
    pub fn close(&self) -> Result<()> {
        self.inner.check_process().inspect_err(|_| self.inner.abandon_lock())?;
        self.inner.close()
    }

    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn codec(&self) -> Codec {
        self.inner.codec
    }

    /// Refuses a key beyond its limit, before an entry is made of it.
    pub(crate) fn check_key(&self, key: &[u8]) -> Result<()> {
        let (len, limit) = (key.len(), KEY_LEN_MAX);
        if len <= limit { Ok(()) } else { self.refuse(RecordError::KeyTooLong { len, limit }) }
    }

    /// Refuses a batch of `bytes` beyond the limit.
    pub(crate) fn check_batch(&self, bytes: usize) -> Result<()> {
        let limit = BATCH_LEN_MAX;
        if bytes <= limit { Ok(()) } else { self.refuse(RecordError::BatchTooLarge { limit }) }
    }

    fn refuse(&self, source: RecordError) -> Result<()> {
        Err(StorageError::Record { path: self.inner.path.clone(), source }.into())
    }

    fn check_one(&self, op: Op<'_>) -> Result<()> {
        self.check_batch(record_len(op))
    }

    /// The change that gives `key` the value `value`.
    pub(crate) fn put<T: Serialize + ?Sized>(&self, key: &[u8], value: &T) -> Result<Change> {
        self.check_key(key)?;
        let entry = self.codec().entry(key, value)?;
        self.check_one(Op::Set { key, value: entry.value() })?;
        Ok(Change::Put(entry))
    }

    /// The change that removes `key`.
    pub(crate) fn removal(&self, key: &[u8]) -> Result<Change> {
        self.check_key(key)?;
        Ok(Change::Remove(key.into()))
    }

    fn remove_within(&self, (lower, upper): (KeyBound, KeyBound)) -> Result<u64> {
        if cursor::bounds(&lower, &upper).is_none() {
            return Ok(0);
        }
        Ok(self.inner.commit(Commit::one(Change::RemoveRange(lower, upper)))?.removed())
    }
}

// A panic in a user's code unwinds outside all locks, and a leader that unwinds poisons the
// store, so that every handle stays consistent.
impl UnwindSafe for Store {}
impl RefUnwindSafe for Store {}

impl sealed::Sealed for Store {}

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
            .field("path", &self.inner.path)
            .field("form", &self.inner.form)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

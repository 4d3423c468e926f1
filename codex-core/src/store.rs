//! The handle of an open store.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;

use codex_storage::batch::{BATCH_LEN_MAX, KEY_LEN_MAX, Seq, TableId};
use codex_storage::seal::{Keys, Unlocked};
use codex_storage::storage::{Anchor, Form, Recovered};
use codex_storage::vfs::Vfs;
use codex_storage::{Access, Error as StorageError, RecordError, Verified};
use serde::Serialize;

use crate::backup::BackupScheduler;
use crate::commit::{Change, Commit};
use crate::cursor::{self, Iter};
use crate::entry::{Entry, Name};
use crate::error::Result;
use crate::inner::{Files, Inner};
use crate::progress::{self, OnProgress};
use crate::range::{self, KeyBound, KeyRange, Prefix};
use crate::read::{Readable, inherent_reads, sealed};
use crate::snapshot::Snapshot;
use crate::stats::Stats;
use crate::value::{Codec, RAW};

/// An embedded key-value store. Every read is served from memory, and every acknowledged write is
/// on disk.
///
/// A `Store` is a handle. Clones are cheap, share the store, and may be used from any number of
/// threads. A key is any type that derefs to bytes, with up to 65,535 bytes. A value is any
/// [`serde`] type, or bytes. The store closes when its last handle is dropped, which ignores an
/// error, or by [`close`](Store::close), which returns it.
///
/// A call that writes blocks until its commit is durable, at the level of
/// [`OpenOptions::durability`](crate::OpenOptions::durability). Threads that write at the same time
/// share one sync. In async code, write with an [`AsyncStore`](crate::AsyncStore).
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

    /// Sets the value of `key` to `value`. Setting an equal value is a write like any other. A
    /// [batch](Store::batch) returns the number of the commit:
    /// `store.batch().set(key, &value)?.commit()?`.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.set("visits", &3_u64)?;
    /// store.set("name", "Ada")?;
    /// assert_eq!(store.get::<u64>("visits")?, Some(3));
    /// assert_eq!(store.get::<String>("name")?.as_deref(), Some("Ada"));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Encode`](crate::Error::Encode) if the codec cannot represent the value (see
    /// [`Codec`]). [Too large](crate::Error::is_too_large) if the key has more than 65,535 bytes,
    /// or key and value together exceed 256 MiB. [`Error::Storage`](crate::Error::Storage) if the
    /// disk fails, or the store is read-only, closed or poisoned. The store is unchanged then,
    /// unless the error [is in doubt](crate::Error::is_in_doubt).
    #[doc(alias("insert", "put", "upsert"))]
    pub fn set<T>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<()>
    where
        T: Serialize + ?Sized,
    {
        let key = key.as_ref();
        let put = self.setting(key, value)?;
        self.inner.commit(Commit::one(put)).map(|_| ())
    }

    /// Sets the value of `key` to the bytes `value`, without encoding them. Read them with
    /// [`get_bytes`](Store::get_bytes).
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.set_bytes("icon", b"\x89PNG")?;
    /// assert_eq!(store.get_bytes("icon").as_deref(), Some(&b"\x89PNG"[..]));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set`](Store::set), except `Encode`.
    pub fn set_bytes(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let put = self.put_bytes(key.as_ref(), value.as_ref())?;
        self.inner.commit(Commit::one(put)).map(|_| ())
    }

    /// Removes `key`, and returns true if it had a value. If it had none, nothing is written.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.set("draft", "text")?;
    /// assert!(store.remove("draft")?);
    /// assert!(!store.remove("draft")?);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set`](Store::set), except `Encode`. The key still has its value then, unless
    /// the error [is in doubt](crate::Error::is_in_doubt).
    #[doc(alias("delete", "del", "erase"))]
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let remove = self.removal(key.as_ref())?;
        Ok(self.inner.commit(Commit::one(remove))?.removed() > 0)
    }

    /// Removes all keys, in one commit. If there are none, nothing is written.
    ///
    /// The entries that have expired and are still in memory are removed too, even if there are no
    /// others. So no clock that is set back later shows one of them.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.set("a", &1)?;
    /// store.clear()?;
    /// assert!(store.is_empty());
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// An error of the disk. No key was removed then, unless the error
    /// [is in doubt](crate::Error::is_in_doubt).
    #[doc(alias("truncate", "delete_all"))]
    pub fn clear(&self) -> Result<()> {
        self.inner.commit(Commit::one(Change::Clear(None))).map(|_| ())
    }

    /// Removes all keys that begin with `prefix`, in one commit, and returns their number.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.set("user/1/name", "Ada")?;
    /// store.set("user/1/mail", "ada@example.org")?;
    /// assert_eq!(store.remove_prefix("user/1/")?, 2);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [Too large](crate::Error::is_too_large) if the removed keys together exceed 256 MiB, the
    /// limit of one commit. Otherwise an error of the disk. Nothing was removed then, unless the
    /// error [is in doubt](crate::Error::is_in_doubt).
    #[doc(alias = "delete_prefix")]
    pub fn remove_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<u64> {
        self.remove_range(Prefix(prefix))
    }

    /// Removes all keys in `range`, in one commit, and returns their number.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// for day in ["2026-01-31", "2026-02-01", "2026-02-02"] {
    ///     store.set(day, &1)?;
    /// }
    /// assert_eq!(store.remove_range(.."2026-02")?, 1);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [Too large](crate::Error::is_too_large) if the removed keys together exceed 256 MiB, the
    /// limit of one commit. Otherwise an error of the disk. Nothing was removed then, unless the
    /// error [is in doubt](crate::Error::is_in_doubt).
    #[doc(alias("delete_range", "retain"))]
    pub fn remove_range(&self, range: impl KeyRange) -> Result<u64> {
        let (lower, upper) = range.into_bounds();
        // A range whose bounds cross is empty: there is nothing to commit.
        if range::bounds(&lower, &upper).is_none() {
            return Ok(0);
        }
        Ok(self.inner.commit(Commit::one(Change::RemoveRange(None, lower, upper)))?.removed())
    }

    /// Returns the current state of the store, which stays unchanged while the snapshot is kept.
    /// Takes O(1).
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.set("price", &10)?;
    /// let before = store.snapshot();
    /// store.set("price", &12)?;
    /// assert_eq!(before.get::<i32>("price")?, Some(10));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    #[doc(alias("begin_read", "read_transaction"))]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.inner.engine.view())
    }

    /// Makes all earlier commits durable, at any durability level, and returns the number of the
    /// last one. At the level `Sync` they are already durable.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::Durability;
    /// let store = Store::options().durability(Durability::Os).open(&path)?;
    /// store.set("a", &1)?; // survives a killed process
    /// store.flush()?; // and now power loss
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// An error of the disk. After a failed sync the store is [poisoned](Store::poisoned): it
    /// refuses writes until it is opened again.
    #[doc(alias("sync", "fsync", "persist", "flush_async"))]
    pub fn flush(&self) -> Result<Seq> {
        self.inner.check_writable()?;
        Ok(self.inner.engine.flush()?)
    }

    /// Writes an image of the state and begins a new log, beside running readers and writers.
    /// Returns after the image is in place. The Wal form does this by itself if the log has
    /// outgrown the image. In the other forms this does nothing.
    ///
    /// Until the image is in place, the disk holds the old image, the log and the new image.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let store = Store::open(&path)?;
    /// store.set("a", &1)?;
    /// store.checkpoint()?;
    /// assert_eq!(store.stats().checkpoints, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// An error of the disk. An image that could not be written changes nothing.
    #[doc(alias("compact", "vacuum"))]
    pub fn checkpoint(&self) -> Result<()> {
        self.inner.check_writable()?;
        self.inner.engine.checkpoint()?;
        Ok(())
    }

    /// Reads all files of the store and checks them, beside running readers and writers. Checks
    /// every checksum, count and link, and, if the files are encrypted, every tag. Returns the
    /// facts that it has read.
    ///
    /// Reads and commits continue. Checkpoints wait until the call returns, including automatic
    /// ones and those that a backup or a [`flush`](Store::flush) needs, as do rekeys and changes of
    /// the key. A [`close`](Store::close) ends the call.
    ///
    /// Commits that are only in memory, at a level below `Sync`, are not checked: call
    /// [`flush`](Store::flush) first.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let store = Store::open(&path)?;
    /// store.set("a", &1)?;
    /// assert_eq!(store.verify()?.seq, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// One variant of [`StorageError`](crate::StorageError) for each kind of damage. The state in
    /// memory is still intact then, so a [`checkpoint`](Store::checkpoint) or a copy made with
    /// `backup_to` can save the data that is lost on the disk. `Abandoned` if the store was closed
    /// during the call.
    #[doc(alias("check_integrity", "integrity_check"))]
    pub fn verify(&self) -> Result<Verified> {
        self.inner.check_process()?;
        let inner = Arc::clone(&self.inner);
        let verify = move |on: Option<&OnProgress>| {
            let Some(Files { vfs, name }) = &inner.files else {
                let what = "a store in memory has no files to verify";
                return Err(StorageError::Contradiction(what).into());
            };
            let engine = &inner.engine;
            if inner.access == Access::Follow {
                // Any lock would refuse a writer, and without one the files change meanwhile.
                let what = "a store that follows a writer is verified by the writer";
                return Err(StorageError::Contradiction(what).into());
            }
            let total = || progress::bytes_of(vfs, name);
            if inner.check_writable().is_err() || engine.is_closed() {
                let root = engine.seal().map(Unlocked::new);
                let keys = root.as_ref().map(|root| root as &dyn Keys);
                let verify = |vfs: &Vfs| codex_storage::verify(vfs, name, keys);
                return Ok(progress::metered(on, vfs, total, verify)?);
            }
            Ok(engine.with_files_held(|seal, seq, go_on| {
                let root = seal.map(Unlocked::new);
                let keys = root.as_ref().map(|root| root as &dyn Keys);
                let verify = |vfs: &Vfs| codex_storage::verify_open(vfs, name, keys, seq, go_on);
                progress::metered(on, vfs, total, verify)
            })?)
        };
        progress::beside_locks(self.inner.on_progress.as_ref(), &self.inner.path, verify)
    }

    /// Returns sizes, counts, waiting times, and the outcomes of the backups and of the archive.
    /// Reads no file.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let store = Store::open(&path)?;
    /// store.set("a", &1)?;
    /// assert_eq!(store.stats().commits, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stats(&self) -> Stats {
        let backups = self.inner.backups.as_ref().map(BackupScheduler::stats).unwrap_or_default();
        let stats = Stats { backups, ..self.inner.engine.stats() };
        #[cfg(feature = "remote")]
        let archive = self.inner.archive.as_ref().map(|archive| archive.stats(stats.storage.seq));
        #[cfg(feature = "remote")]
        let stats = Stats { archive, ..stats };
        stats
    }

    /// Returns the findings of the recovery at the opening, with the part that it cut off the end
    /// of the log, if any.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let store = Store::open(&path)?;
    /// if let Some(cut) = &store.recovered().cut {
    ///     println!("the last write was incomplete: {cut:?}");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recovered(&self) -> &Recovered {
        &self.inner.recovered
    }

    /// Returns the reason why writes are refused, if they are: an error that is in doubt, or a
    /// panic of a thread that was writing. Reads continue. Open the store again to write.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let store = Store::open(&path)?;
    /// if let Some(reason) = store.poisoned() {
    ///     eprintln!("open the store again: {reason}");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn poisoned(&self) -> Option<String> {
        self.inner.engine.poisoned()
    }

    /// Returns the last commit, with a digest of the whole history up to it.
    ///
    /// Keep the anchor at another place and give it to
    /// [`OpenOptions::anchor`](crate::OpenOptions::anchor): then a store whose files were rolled
    /// back does not open. The anchor contains nothing of the keys and values. Below the level
    /// `Sync`, call [`flush`](Store::flush) first, because power loss takes back commits that are
    /// not durable.
    ///
    /// Later images list the commit, so that the anchor can still be compared after the log is
    /// dropped. A crash before the next image loses this, unless the store is then opened with the
    /// anchor.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let store = Store::open(&path)?;
    /// store.set("a", &1)?;
    /// let anchor = store.anchor()?; // to be kept at another place
    /// store.close()?;
    /// drop(store);
    ///
    /// let store = Store::options().anchor(anchor).open(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`is_closed`](crate::Error::is_closed) or [`is_poisoned`](crate::Error::is_poisoned).
    pub fn anchor(&self) -> Result<Anchor> {
        self.inner.check_process()?;
        Ok(self.inner.engine.anchor()?)
    }

    /// Returns the canonical path of the store. Empty for a store in memory.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let store = Store::open(&path)?;
    /// assert!(store.path().ends_with("app.db"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Returns the form of the files, or `None` for a store in memory.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::Form;
    /// assert_eq!(Store::open(&path)?.form(), Some(Form::Wal));
    /// assert_eq!(Store::in_memory()?.form(), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn form(&self) -> Option<Form> {
        self.inner.form
    }

    /// Closes the store for all its handles. Earlier writes are made durable, later ones are
    /// refused, and the lock is released. Reads continue from memory, with the state at the close,
    /// until the last handle is dropped. Closing again does nothing.
    ///
    /// In a process that `fork` created, this does not close the store of the parent. It closes the
    /// child's copies of the locks, so that they end with the parent, and returns
    /// [`ForkedChild`](crate::Error::ForkedChild). Dropping the last handle there does the same.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let store = Store::open(&path)?;
    /// let other = store.clone();
    /// store.close()?;
    /// assert!(other.set("a", &1).is_err_and(|error| error.is_closed()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// An error of the disk. The store is closed even then.
    pub fn close(&self) -> Result<()> {
        self.inner.check_process().inspect_err(|_| self.inner.abandon_lock())?;
        self.inner.shut_down()
    }

    pub(crate) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn codec(&self) -> Codec {
        self.inner.codec
    }

    /// Refuses a key that exceeds the limit, before an entry is made of it.
    pub(crate) fn check_key(&self, key: &[u8]) -> Result<()> {
        let (len, limit) = (key.len(), KEY_LEN_MAX);
        if len <= limit { Ok(()) } else { self.refuse(RecordError::KeyTooLong { len, limit }) }
    }

    /// Refuses a batch of `bytes` bytes if it exceeds the limit.
    pub(crate) fn check_batch(&self, bytes: usize) -> Result<()> {
        let limit = BATCH_LEN_MAX;
        if bytes <= limit { Ok(()) } else { self.refuse(RecordError::BatchTooLarge { limit }) }
    }

    /// Returns the error of a record that exceeds a limit.
    fn refuse(&self, source: RecordError) -> Result<()> {
        Err(StorageError::Record { path: self.inner.path.clone(), source }.into())
    }

    /// Returns the change that sets the value of `name` to `value`.
    pub(crate) fn setting<'a, T: Serialize + ?Sized>(
        &self,
        name: impl Into<Name<'a>>,
        value: &T,
    ) -> Result<Change> {
        let name = name.into();
        self.check_key(name.key)?;
        let put = Change::Put(self.codec().entry(name, value)?);
        self.check_batch(put.encoded_len()).map(|()| put)
    }

    /// Returns the change that sets the value of `key` to the bytes `value`.
    pub(crate) fn put_bytes(&self, key: &[u8], value: &[u8]) -> Result<Change> {
        self.put_encoded(key, RAW, value)
    }

    /// Returns the change that sets the value of `key` to the bytes `value` of a codec.
    pub(crate) fn put_encoded(&self, key: &[u8], codec_id: u8, value: &[u8]) -> Result<Change> {
        self.check_key(key)?;
        let put = Change::Put(Entry::from_parts(key, codec_id, value));
        self.check_batch(put.encoded_len()).map(|()| put)
    }

    /// Returns the change that removes `name`.
    pub(crate) fn removal<'a>(&self, name: impl Into<Name<'a>>) -> Result<Change> {
        let name = name.into();
        self.check_key(name.key)?;
        Ok(Change::Remove(name.into()))
    }
}

// A panic in user code unwinds outside all locks, and a leader that unwinds poisons the store. So
// each handle stays consistent.
impl UnwindSafe for Store {}
impl RefUnwindSafe for Store {}

impl sealed::Source for Store {
    fn find(&self, name: Name<'_>) -> Option<Entry> {
        self.inner.entry(name)
    }

    fn has(&self, name: Name<'_>) -> bool {
        let expires_us = self.inner.engine.read(|map| map.find(name).map(Entry::expires_us));
        expires_us.is_some_and(|expires_us| !self.inner.engine.hides(expires_us))
    }

    fn count(&self, table: Option<TableId>) -> usize {
        self.inner.engine.shown_len(table)
    }

    fn scan(&self, table: Option<TableId>, bounds: (KeyBound, KeyBound)) -> Iter {
        let view = self.inner.engine.view();
        Iter::new(view.ordered, view.now_us, table, bounds)
    }
}

// Order: the methods of `Readable` call code of the user, `as_ref` and `into_bounds`, before those
// of `Source` take the lock on memory.
impl Readable for Store {}

impl IntoIterator for &Store {
    type Item = cursor::Entry;
    type IntoIter = Iter;

    fn into_iter(self) -> Iter {
        self.iter()
    }
}

/// Shows neither keys nor values, because programs write `Debug` output to logs.
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

//! The handle for async code: commits as futures, and calls that use the files on threads.

mod submitted;
mod update;

use std::path::PathBuf;

use codex_backup::Rotated;
use codex_storage::Verified;
use codex_storage::batch::{Seq, TableId};
use serde::Serialize;

use crate::batch::Batch;
use crate::commit::{Change, Check, Commit, Outcome};
use crate::cursor::{self, Iter};
use crate::entry::{Entry, Name};
use crate::error::Result;
use crate::options::OpenOptions;
use crate::range::{self, KeyBound, KeyRange, Prefix};
use crate::read::{Readable, inherent_reads, sealed};
use crate::store::Store;
use crate::watch::Watch;
pub use submitted::{Job, Submitted};

/// A handle of a [`Store`] for async code. It needs no particular runtime.
///
/// Reads are plain calls, because they are served from memory. A write enters the queue of commits
/// **when the method is called**, and returns a future that waits for the commit. The thread that
/// calls the method or polls the future does not wait for the disk: threads of the store write and
/// sync. Commits that tasks and threads make at the same time share one sync.
///
/// Dropping the future takes nothing back: the commit is made, or refused, as if the future were
/// still there. So a timeout or a `select` around a write ends the wait and not the write. Commits
/// are made in the order of the calls, also if no future is awaited in between.
///
/// [`update`](Self::update), [`take`](Self::take) and [`transaction`](Self::transaction) read
/// before they write, so they begin when they are polled. If they are dropped between two polls,
/// nothing was written, or a commit of everything is on its way. Calls that read or write whole
/// files, like [`checkpoint`](Self::checkpoint) and [`close`](Self::close), run on a thread of
/// their own.
///
/// Calling a method or polling a future can wait for short sections of other threads: for the mutex
/// of the queue, and, where it reads, for the moment in which a group of commits is applied to
/// memory. A waker runs on the thread that made the commit, under no lock, so it may use the store.
/// It must not wait for another task.
///
/// ```
/// use codex_core::{AsyncStore, Store};
///
/// # smol::block_on(async {
/// let store = AsyncStore::from(Store::in_memory()?);
/// store.set("city:bern", &137_000_u32).await?;
///
/// // Both are on their way, in this order, before the first is awaited.
/// let (a, b) = (store.set("a", &1), store.set("b", &2));
/// a.await?;
/// b.await?;
///
/// let visits = store.update("visits", |n: Option<u64>| Some(n.unwrap_or(0) + 1)).await?;
/// assert_eq!(visits, Some(1));
/// assert_eq!(store.len(), 4);
/// store.close().await?;
/// # Ok::<(), codex_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct AsyncStore {
    store: Store,
}

impl AsyncStore {
    /// Opens the store at `path` with `options`, on a thread of its own.
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// # smol::block_on(async {
    /// let store = AsyncStore::open(Store::options(), path).await?;
    /// store.set("a", &1).await?;
    /// # Ok::<(), codex_core::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The future returns the errors of [`OpenOptions::open`].
    pub fn open(options: OpenOptions, path: impl Into<PathBuf>) -> Job<Self> {
        let path = path.into();
        Job::start(move || options.open(path).map(Self::from))
    }

    /// Returns the handle whose calls block, for the methods that this one does not have. Those
    /// that only read memory, like [`snapshot`](Store::snapshot) and [`stats`](Store::stats), may
    /// be called in a task.
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// assert_eq!(store.blocking().snapshot().seq(), 0);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn blocking(&self) -> &Store {
        &self.store
    }

    inherent_reads!();

    /// Sets the value of `key` to `value`. The value is encoded by the call.
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// store.set("visits", &3_u64).await?;
    /// assert_eq!(store.get::<u64>("visits")?, Some(3));
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The future returns the errors of [`Store::set`], and
    /// [`Error::Backlog`](crate::Error::Backlog) if too many commits wait. An error of the encoding
    /// or of a limit is there at the first poll.
    #[doc(alias("insert", "put", "upsert"))]
    pub fn set<T>(&self, key: impl AsRef<[u8]>, value: &T) -> Submitted<()>
    where
        T: Serialize + ?Sized,
    {
        self.done(self.store.setting(key.as_ref(), value))
    }

    /// Sets the value of `key` to the bytes `value`, without encoding them.
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// store.set_bytes("icon", b"\x89PNG").await?;
    /// assert_eq!(store.get_bytes("icon").as_deref(), Some(&b"\x89PNG"[..]));
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The future returns the errors of [`set`](Self::set), except `Encode`.
    pub fn set_bytes(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Submitted<()> {
        self.done(self.store.put_bytes(key.as_ref(), value.as_ref()))
    }

    /// Removes `key`. The future returns true if it had a value.
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// store.set("draft", "text").await?;
    /// assert!(store.remove("draft").await?);
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The future returns the errors of [`set`](Self::set), except `Encode`.
    #[doc(alias("delete", "del", "erase"))]
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Submitted<bool> {
        let removal = self.store.removal(key.as_ref());
        self.store.submit(removal.map(Commit::one), |_, made| Ok(made.removed() > 0))
    }

    /// Removes all keys, in one commit.
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// store.set("a", &1).await?;
    /// store.clear().await?;
    /// assert!(store.is_empty());
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The future returns the errors of [`Store::clear`].
    #[doc(alias("truncate", "delete_all"))]
    pub fn clear(&self) -> Submitted<()> {
        self.done(Ok(Change::Clear(None)))
    }

    /// Removes all keys that begin with `prefix`, in one commit. The future returns their number.
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// store.set("user/1", "Ada").await?;
    /// assert_eq!(store.remove_prefix("user/").await?, 1);
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The future returns the errors of [`Store::remove_prefix`].
    #[doc(alias = "delete_prefix")]
    pub fn remove_prefix(&self, prefix: impl AsRef<[u8]>) -> Submitted<u64> {
        self.remove_range(Prefix(prefix))
    }

    /// Removes all keys in `range`, in one commit. The future returns their number.
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// store.set("2026-01-31", &1).await?;
    /// assert_eq!(store.remove_range(.."2026-02").await?, 1);
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The future returns the errors of [`Store::remove_range`].
    #[doc(alias("delete_range", "retain"))]
    pub fn remove_range(&self, range: impl KeyRange) -> Submitted<u64> {
        let (lower, upper) = range.into_bounds();
        // A range whose bounds cross is empty: there is nothing to commit.
        if range::bounds(&lower, &upper).is_none() {
            return Submitted::known(Ok(0));
        }
        let commit = Commit::one(Change::RemoveRange(None, lower, upper));
        self.store.submit(Ok(commit), |_, made| Ok(made.removed()))
    }

    /// Sets the value of `key` to `new` if it is `current`. The future returns true if it was.
    /// Otherwise as [`Store::compare_exchange`].
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// assert!(store.compare_exchange("leader", None, Some("ada")).await?);
    /// assert!(!store.compare_exchange("leader", None, Some("bob")).await?);
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The future returns the errors of [`set`](Self::set).
    #[doc(alias("cas", "compare_and_swap", "insert_if_absent", "put_if_absent"))]
    pub fn compare_exchange<T>(
        &self,
        key: impl AsRef<[u8]>,
        current: Option<&T>,
        new: Option<&T>,
    ) -> Submitted<bool>
    where
        T: Serialize + ?Sized,
    {
        let name = Name::plain(key.as_ref());
        let commit = self.store.exchange(name, current, new).map(|(value, change)| {
            Commit::checked(Check::Equals { name: name.into(), value }, change)
        });
        self.store.submit(commit, |_, made| Ok(matches!(made, Outcome::Done { .. })))
    }

    /// Returns an empty batch. Its [`submit`](Batch::submit) returns a future.
    #[track_caller]
    pub fn batch(&self) -> Batch {
        self.store.batch()
    }

    /// Watches the keys that begin with `prefix`. See [`Store::watch`].
    ///
    /// The watch begins between two groups of commits, so the call is made on a thread. Poll the
    /// watch with [`Watch::poll_next`], or take it as a stream with the feature `stream`.
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Notice, Store};
    /// use std::future::poll_fn;
    ///
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// let mut watch = store.watch("note/").await?;
    /// store.set("note/1", "Locks").await?;
    /// let notice = poll_fn(|context| watch.poll_next(context)).await;
    /// assert!(matches!(notice, Some(Notice::Commit(_))));
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The future returns the errors of [`Store::watch`].
    #[doc(alias("subscribe", "watch_prefix"))]
    pub fn watch(&self, prefix: impl AsRef<[u8]>) -> Job<Watch> {
        let prefix = prefix.as_ref().to_vec();
        self.on_thread(move |store| store.watch(prefix))
    }

    /// Makes all earlier commits durable. The future returns the number of the last one.
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Durability, Store};
    /// # let folder = tempfile::tempdir()?;
    /// # let options = Store::options().durability(Durability::Os);
    /// # smol::block_on(async {
    /// let store = AsyncStore::open(options, folder.path().join("app.db")).await?;
    /// store.set("a", &1).await?;
    /// assert_eq!(store.flush().await?, 1);
    /// # Ok::<(), codex_core::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The future returns the errors of [`Store::flush`].
    #[doc(alias("sync", "fsync", "persist", "flush_async"))]
    pub fn flush(&self) -> Job<Seq> {
        self.on_thread(Store::flush)
    }

    /// Writes an image of the state and begins a new log. See [`Store::checkpoint`].
    ///
    /// # Errors
    /// The future returns the errors of [`Store::checkpoint`].
    pub fn checkpoint(&self) -> Job<()> {
        self.on_thread(Store::checkpoint)
    }

    /// Makes a rotating backup. See [`Store::back_up`].
    ///
    /// # Errors
    /// The future returns the errors of [`Store::back_up`].
    pub fn back_up(&self) -> Job<Rotated> {
        self.on_thread(Store::back_up)
    }

    /// Writes a copy of the store to `path`. See [`Store::backup_to`].
    ///
    /// # Errors
    /// The future returns the errors of [`Store::backup_to`].
    pub fn backup_to(&self, path: impl Into<PathBuf>) -> Job<Seq> {
        let path = path.into();
        self.on_thread(move |store| store.backup_to(path))
    }

    /// Reads all files of the store and checks them. See [`Store::verify`].
    ///
    /// # Errors
    /// The future returns the errors of [`Store::verify`].
    pub fn verify(&self) -> Job<Verified> {
        self.on_thread(Store::verify)
    }

    /// Closes the store for all its handles. Commits whose methods were called before are made.
    /// See [`Store::close`].
    ///
    /// # Errors
    /// The future returns the errors of [`Store::close`].
    pub fn close(&self) -> Job<()> {
        self.on_thread(Store::close)
    }

    /// Enters the commit of one change into the queue.
    pub(crate) fn done(&self, change: Result<Change>) -> Submitted<()> {
        self.store.submit(change.map(Commit::one), |_, _| Ok(()))
    }

    /// Calls `work` on a thread of its own.
    pub(crate) fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T> + Send + 'static,
    ) -> Job<T> {
        let store = self.store.clone();
        Job::start(move || work(&store))
    }
}

impl From<Store> for AsyncStore {
    fn from(store: Store) -> Self {
        Self { store }
    }
}

impl sealed::Source for AsyncStore {
    fn find(&self, name: Name<'_>) -> Option<Entry> {
        self.store.find(name)
    }

    fn has(&self, name: Name<'_>) -> bool {
        self.store.has(name)
    }

    fn count(&self, table: Option<TableId>) -> usize {
        self.store.count(table)
    }

    fn scan(&self, table: Option<TableId>, bounds: (KeyBound, KeyBound)) -> Iter {
        self.store.scan(table, bounds)
    }
}

impl Readable for AsyncStore {}

impl IntoIterator for &AsyncStore {
    type Item = cursor::Entry;
    type IntoIter = Iter;

    fn into_iter(self) -> Iter {
        self.iter()
    }
}

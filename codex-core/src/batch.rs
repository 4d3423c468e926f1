//! Several changes as one commit.

use std::fmt;
use std::mem;
#[cfg(debug_assertions)]
use std::panic::Location;
use std::time::SystemTime;

use codex_storage::batch::Seq;
use codex_storage::storage::Durability;
use serde::Serialize;

use crate::commit::{Change, Check, Commit, Outcome};
use crate::engine::Engine;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::range::{self, KeyRange, Prefix};
use crate::store::Store;
use crate::tasks::Submitted;
use crate::value::Codec;

/// Several changes that become one commit. After [`commit`](Batch::commit), readers see all of
/// them. After a crash, all of them are there or none.
///
/// [`Store::batch`] returns an empty batch. Values are encoded when they are added. The changes
/// apply in the order in which they were added, so the last change of a key counts. The keys and
/// values of a batch may take at most 256 MiB together. A batch that is dropped changes nothing. If
/// it has changes then, debug builds print a warning to stderr, which [`discard`](Batch::discard)
/// avoids.
///
/// A batch contains a handle of its store. The store stays open, and locked, while the batch is
/// kept, unless it is [closed](Store::close).
///
/// ```
/// # use codex_core::Store;
/// let store = Store::in_memory()?;
/// store.set("balance:ada", &100_i64)?;
///
/// // In one chain, or change by change.
/// store.batch().set("balance:ada", &70_i64)?.set("balance:bob", &30_i64)?.commit()?;
///
/// let mut batch = store.batch();
/// for name in ["ada", "bob"] {
///     batch.remove(format!("balance:{name}"))?;
/// }
/// let seq = batch.commit()?;
/// assert_eq!((seq, store.len()), (3, 0));
/// # Ok::<(), codex_core::Error>(())
/// ```
#[must_use = "a batch does nothing until `commit` is called"]
pub struct Batch {
    store: Store,
    changes: Vec<Change>,
    /// The encoded length of the changes, in bytes.
    bytes: usize,
    /// The records of the tables to which the changes write.
    tables: Vec<Entry>,
    /// Whether the commit is to be synced, although the level of the store does not require it.
    sync: bool,
    /// The place of the call that made the batch, unless a change was refused.
    #[cfg(debug_assertions)]
    made_at: Option<&'static Location<'static>>,
}

impl Store {
    /// Returns an empty batch, to collect several changes for one commit. It contains a handle of
    /// the store, so the store stays open while the batch is kept.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// let mut batch = store.batch();
    /// batch.set("a", &1)?.set("b", &2)?;
    /// batch.commit()?;
    /// assert_eq!(store.len(), 2);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    #[doc(alias = "write_batch")]
    #[track_caller]
    pub fn batch(&self) -> Batch {
        Batch {
            store: self.clone(),
            changes: Vec::new(),
            bytes: 0,
            tables: Vec::new(),
            sync: false,
            #[cfg(debug_assertions)]
            made_at: Some(Location::caller()),
        }
    }
}

impl Batch {
    /// Adds a change that sets the value of `key` to `value`.
    ///
    /// # Errors
    /// [`Error::Encode`](crate::Error::Encode) if the codec cannot represent the value. [Too
    /// large](crate::Error::is_too_large) if the key has more than 65,535 bytes or the batch
    /// exceeds 256 MiB. The batch is unchanged then.
    pub fn set<T>(&mut self, key: impl AsRef<[u8]>, value: &T) -> Result<&mut Self>
    where
        T: Serialize + ?Sized,
    {
        let put = self.store.setting(key.as_ref(), value);
        self.push(put)
    }

    /// Adds a change that sets the value of `key` to the bytes `value`, without encoding them.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// store.batch().set_bytes("a", "raw")?.set_bytes("b", [0, 1])?.commit()?;
    /// assert_eq!(store.get_bytes("a").as_deref(), Some(&b"raw"[..]));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [Too large](crate::Error::is_too_large) if the key has more than 65,535 bytes or the batch
    /// exceeds 256 MiB. The batch is unchanged then.
    pub fn set_bytes(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<&mut Self> {
        let put = self.store.put_bytes(key.as_ref(), value.as_ref());
        self.push(put)
    }

    /// Adds a change that sets the value of `key` to `bytes`, which are already encoded by `codec`,
    /// and which expire at the time `expires`: the parts of an entry of another store, or of an
    /// export.
    ///
    /// The bytes are not checked. If `codec` cannot decode them, reading them as a type is
    /// [`Error::Decode`](crate::Error::Decode).
    ///
    /// ```
    /// # use codex_core::Store;
    /// let (from, to) = (Store::in_memory()?, Store::in_memory()?);
    /// from.set("list", &[1, 2])?;
    /// let mut batch = to.batch();
    /// for entry in &from {
    ///     let value = entry.value_ref();
    ///     match value.codec() {
    ///         Some(codec) => batch.set_encoded(entry.key(), codec, &value, entry.expires_at())?,
    ///         None => batch.set_bytes(entry.key(), &value)?,
    ///     };
    /// }
    /// batch.commit()?;
    /// assert_eq!(to.get("list")?, Some([1, 2]));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [Too large](crate::Error::is_too_large) if the key has more than 65,535 bytes or the batch
    /// exceeds 256 MiB. The batch is unchanged then.
    pub fn set_encoded(
        &mut self,
        key: impl AsRef<[u8]>,
        codec: Codec,
        bytes: impl AsRef<[u8]>,
        expires: Option<SystemTime>,
    ) -> Result<&mut Self> {
        let put = self.store.put_encoded(key.as_ref(), codec.id(), bytes.as_ref());
        let put = match expires {
            Some(expires) => put.and_then(|put| self.store.expiring(put, expires)),
            None => put,
        };
        self.push(put)
    }

    /// Adds a change that removes `key`, if it has a value.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// store.set("draft", "text")?;
    /// store.batch().set("published", "text")?.remove("draft")?.commit()?;
    /// assert_eq!(store.keys().collect::<Vec<_>>(), ["published"]);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [Too large](crate::Error::is_too_large) if the key has more than 65,535 bytes or the batch
    /// exceeds 256 MiB. The batch is unchanged then.
    pub fn remove(&mut self, key: impl AsRef<[u8]>) -> Result<&mut Self> {
        let removal = self.store.removal(key.as_ref());
        self.push(removal)
    }

    /// Adds a change that removes all keys that begin with `prefix`: those that the store has at
    /// the commit, and those that were set earlier in this batch.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.set("draft/1", "old")?;
    /// store.batch().remove_prefix("draft/")?.set("draft/2", "new")?.commit()?;
    /// assert_eq!(store.len(), 1);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`remove_range`](Batch::remove_range).
    pub fn remove_prefix(&mut self, prefix: impl AsRef<[u8]>) -> Result<&mut Self> {
        self.remove_range(Prefix(prefix))
    }

    /// Adds a change that removes all keys in `range`: those that the store has at the commit, and
    /// those that were set earlier in this batch.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.set("rate/2025", &3)?;
    /// store.batch().remove_range("rate/".."rate0")?.set("rate/2026", &4)?.commit()?;
    /// assert_eq!(store.keys().collect::<Vec<_>>(), ["rate/2026"]);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [Too large](crate::Error::is_too_large) if the batch exceeds 256 MiB. The removed keys count
    /// at the [commit](Batch::commit), which may return the same error. The batch is unchanged
    /// then.
    pub fn remove_range(&mut self, range: impl KeyRange) -> Result<&mut Self> {
        let (lower, upper) = range.into_bounds();
        // A range whose bounds cross is empty.
        if range::bounds(&lower, &upper).is_none() {
            return Ok(self);
        }
        self.push(Ok(Change::RemoveRange(None, lower, upper)))
    }

    /// Adds a change that removes all keys, including those that were set earlier in this batch.
    /// Those of tables stay.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// store.set("old", &1)?;
    /// store.batch().clear().set("new", &2)?.commit()?;
    /// assert_eq!(store.keys().collect::<Vec<_>>(), ["new"]);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn clear(&mut self) -> &mut Self {
        // The earlier changes of keys outside tables have no effect after the clear.
        self.changes.retain(|change| change.table().is_some());
        self.changes.push(Change::Clear(None));
        self.bytes = self.changes.iter().map(Change::encoded_len).fold(0, usize::saturating_add);
        self
    }

    /// Makes the commit at least as durable as the level `level` before [`commit`](Batch::commit)
    /// returns and readers see it. Default: the level of the store,
    /// [`OpenOptions::durability`](crate::OpenOptions::durability).
    ///
    /// A level that is not stronger than that of the store has no effect. A stronger one makes the
    /// commit wait for a sync, and commits that other threads make at the same time may wait with
    /// it. All earlier commits become durable too. In the Snapshot form the sync writes an image.
    ///
    /// ```
    /// use codex_core::{Durability, Store};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("shop.db");
    /// let store = Store::options().durability(Durability::Os).open(path)?;
    /// store.set("cart:7", &3)?; // Survives a killed process.
    /// let mut order = store.batch();
    /// order.set("order:1", &3)?.remove("cart:7")?;
    /// order.durability(Durability::Sync).commit()?; // Survives a power loss.
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn durability(&mut self, level: Durability) -> &mut Self {
        self.sync = self.store.inner.engine.is_stronger(level);
        self
    }

    /// Returns the number of changes in the batch.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Returns true if the batch has no changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Commits the changes and returns the number of the commit. If there is nothing to change,
    /// because the batch is empty or only removes keys without a value, nothing is written, and the
    /// number is that of the last commit.
    ///
    /// The batch is empty afterwards, even after an error, and may be filled again.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// let seq = store.batch().set("a", &1)?.commit()?;
    /// assert_eq!(store.snapshot().seq(), seq);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`Store::set`], except `Encode`. No change of the batch is there then, unless
    /// the error [is in doubt](crate::Error::is_in_doubt).
    pub fn commit(&mut self) -> Result<Seq> {
        let tables = self.tables.clone();
        let commit = self.take_commit();
        match self.store.inner.commit(commit)? {
            Outcome::Conflict => Err(self.store.missing_of(&tables)),
            made @ Outcome::Done { .. } => seq_of(&self.store.inner.engine, made),
        }
    }

    /// Enters the changes into the queue of commits, and returns the future of the number of their
    /// commit. The calling thread does not wait for the disk.
    ///
    /// The commit is on its way when the method returns: it is made even if the future is not
    /// polled, or dropped. Commits are made in the order of the calls. The [`AsyncStore`] has the
    /// other calls for tasks, and describes them.
    ///
    /// With a [`durability`](Batch::durability) above that of the store in the Snapshot form, a
    /// thread of its own makes the commit, and the commit has its place in the order when that
    /// thread begins.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # smol::block_on(async {
    /// let store = Store::in_memory()?;
    /// let mut batch = store.batch();
    /// batch.set("balance:ada", &70_i64)?.set("balance:bob", &30_i64)?;
    /// let seq = batch.submit().await?;
    /// assert_eq!(store.snapshot().seq(), seq);
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The future returns the errors of [`commit`](Batch::commit), and
    /// [`Error::Backlog`](crate::Error::Backlog) if too many commits wait.
    ///
    /// [`AsyncStore`]: crate::AsyncStore
    #[doc(alias = "commit_async")]
    pub fn submit(mut self) -> Submitted<Seq> {
        let commit = self.take_commit();
        self.store.submit(Ok(commit), seq_of)
    }

    /// Drops the batch and its changes. Unlike a plain drop, this prints no warning in debug
    /// builds.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let mut batch = store.batch();
    /// batch.set("a", &1)?;
    /// batch.discard();
    /// assert!(store.is_empty());
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn discard(mut self) {
        drop(self.take());
    }

    /// Returns the commit of the changes, and leaves the batch empty.
    fn take_commit(&mut self) -> Commit {
        let checks: Vec<_> = mem::take(&mut self.tables).into_iter().map(Check::Same).collect();
        let (checks, changes) = (checks.into(), self.take().into());
        Commit { checks, changes, sync: self.sync, ..Commit::default() }
    }

    /// Returns the changes, and leaves the batch empty.
    fn take(&mut self) -> Vec<Change> {
        self.bytes = 0;
        mem::take(&mut self.changes)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Adds the condition that the table of `row`, its record, is there.
    pub(crate) fn write_to_table(&mut self, row: &Entry) {
        if !self.tables.iter().any(|known| known.same(row)) {
            self.tables.push(row.clone());
        }
    }

    /// Adds `change`.
    pub(crate) fn push(&mut self, change: Result<Change>) -> Result<&mut Self> {
        // Check the limit before the change is added, so that a refused change leaves the batch
        // unchanged.
        let fits = change.and_then(|change| {
            let bytes = self.bytes.saturating_add(change.encoded_len());
            self.store.check_batch(bytes).map(|()| (change, bytes))
        });
        // The error of a refused change tells the caller that the batch is not committed, so the
        // drop need not.
        #[cfg(debug_assertions)]
        if fits.is_err() {
            self.made_at = None;
        }
        let (change, bytes) = fits?;
        self.changes.push(change);
        self.bytes = bytes;
        Ok(self)
    }
}

/// Returns the number of a commit with the outcome `made`, or that of the last commit if nothing
/// was written.
#[expect(clippy::needless_pass_by_value, reason = "the answer to a future takes the outcome")]
fn seq_of(engine: &Engine, made: Outcome) -> Result<Seq> {
    match made {
        Outcome::Done { seq, .. } => Ok(seq.unwrap_or_else(|| engine.view().seq)),
        // Only a batch with tables has conditions.
        Outcome::Conflict => Err(Error::NoTable { table: "(one of the batch)".into() }),
    }
}

#[cfg(debug_assertions)]
impl Drop for Batch {
    fn drop(&mut self) {
        let Some(place) = self.made_at.filter(|_| !self.changes.is_empty()) else { return };
        if !codex_storage::sync::thread::panicking() {
            warn(&format!(
                "codex-core: the batch made at {place} was dropped with {} changes and without \
                 `commit`; to drop it on purpose, call `discard`",
                self.changes.len()
            ));
        }
    }
}

/// Shows neither keys nor values, because programs write `Debug` output to logs.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("changes", &self.changes.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Writes a line to stderr. A closed stderr is no error.
#[cfg(all(debug_assertions, not(all(test, not(loom)))))]
fn warn(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(all(debug_assertions, test, not(loom)))]
use tests::warn;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

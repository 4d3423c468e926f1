//! Several changes as one commit.

use std::fmt;

use codex_storage::batch::{Op, Seq, record_len};
use serde::Serialize;

use crate::commit::{Change, Commit, SmallVec};
use crate::entry::Entry;
use crate::error::Result;
use crate::store::Store;
use crate::value::RAW;

/// Several changes that become one commit: after [`commit`](Batch::commit) readers see all of
/// them, and after a crash all of them are there or none.
///
/// Made by [`Store::batch`]. Values are encoded when they are given. Changes apply in the order
/// in which they were given, so the last one to a key counts. A batch that is dropped changes
/// nothing. A batch is a handle to its store: while one is kept, the store stays open (and locked)
/// unless it is [closed](Store::close).
///
/// ```
/// # use codex_core::Store;
/// let store = Store::in_memory()?;
/// store.set("balance:ada", &100_i64)?;
///
/// let mut batch = store.batch();
/// batch.set("balance:ada", &70_i64)?.set("balance:bob", &30_i64)?;
/// batch.commit()?;
///
/// assert_eq!(store.get::<i64>("balance:bob")?, Some(30));
/// # Ok::<(), codex_core::Error>(())
/// ```
#[must_use = "a batch does nothing until `commit` is called"]
pub struct Batch {
    store: Store,
    changes: Vec<Change>,
    /// The encoded length of the changes.
    bytes: usize,
}

impl Store {
    /// Returns an empty batch: several changes that become one commit. It holds a handle to the
    /// store, so that the store stays open while the batch is kept.
    pub fn batch(&self) -> Batch {
        Batch { store: self.clone(), changes: Vec::new(), bytes: 0 }
    }
}

impl Batch {
    /// Gives `key` the value `value`.
    ///
    /// # Errors
    /// [`Error::Encode`](crate::Error::Encode); a key or batch beyond its limit. The batch is as
    /// before then.
    pub fn set<T>(&mut self, key: impl AsRef<[u8]>, value: &T) -> Result<&mut Self>
    where
        T: Serialize + ?Sized,
    {
        let key = key.as_ref();
        self.store.check_key(key)?;
        let entry = self.store.codec().entry(key, value)?;
        self.push(record_len(Op::Set { key, value: entry.value() }), Change::Put(entry))
    }

    /// Gives `key` the bytes `value`, as they are.
    ///
    /// # Errors
    /// A key or batch beyond its limit. The batch is as before then.
    pub fn set_bytes(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<&mut Self> {
        let key = key.as_ref();
        self.store.check_key(key)?;
        let entry = Entry::from_parts(key, RAW, value.as_ref());
        self.push(record_len(Op::Set { key, value: entry.value() }), Change::Put(entry))
    }

    /// Removes `key`, where it is there.
    ///
    /// # Errors
    /// A key or batch beyond its limit. The batch is as before then.
    pub fn remove(&mut self, key: impl AsRef<[u8]>) -> Result<&mut Self> {
        let key = key.as_ref();
        self.store.check_key(key)?;
        self.push(record_len(Op::Remove { key }), Change::Remove(key.into()))
    }

    /// Removes every key, those set earlier in this batch included.
    pub fn clear(&mut self) -> &mut Self {
        self.changes.clear();
        self.changes.push(Change::Clear);
        self.bytes = record_len(Op::Clear);
        self
    }

    /// How many changes the batch holds.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether the batch holds no change.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Commits the changes and returns the number of the commit. Where nothing is to be changed
    /// (no change was given, or only keys that are not there are removed), nothing is written and
    /// the number is that of the last commit.
    ///
    /// # Errors
    /// Errors of the disk. Nothing of the batch is there then, unless the error
    /// [is in doubt](crate::Error::is_in_doubt).
    pub fn commit(self) -> Result<Seq> {
        let commit = Commit { checks: SmallVec::None, changes: self.changes.into() };
        let made = self.store.inner.commit(commit)?;
        Ok(made.seq().unwrap_or_else(|| self.store.snapshot().seq()))
    }

    /// Adds `change`, which encodes to `len` bytes.
    fn push(&mut self, len: usize, change: Change) -> Result<&mut Self> {
        let bytes = self.bytes.saturating_add(len);
        self.store.check_batch(bytes)?;
        self.changes.push(change);
        self.bytes = bytes;
        Ok(self)
    }
}

/// Keys and values appear in no log.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("changes", &self.changes.len())
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

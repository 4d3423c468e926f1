//! Several changes as one commit.

use std::fmt;

use codex_storage::batch::{BATCH_LEN_MAX, Op, Seq, record_len};
use serde::Serialize;

use crate::commit::{Change, Commit, Few};
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
    /// What the changes encode to.
    bytes: usize,
}

impl Batch {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, changes: Vec::new(), bytes: 0 }
    }

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
        let stored = self.store.codec().encode(key.len(), value)?;
        self.push(Op::Set { key, value: &stored }, || Change::Put(Entry::new(key, &stored)))
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
        let (key, value) = (key.as_ref(), value.as_ref());
        let entry = Entry::from_parts(key, RAW, value);
        self.push(Op::Set { key, value: entry.value() }, || Change::Put(entry.clone()))
    }

    /// Removes `key`, where it is there.
    ///
    /// # Errors
    /// A key or batch beyond its limit. The batch is as before then.
    pub fn remove(&mut self, key: impl AsRef<[u8]>) -> Result<&mut Self> {
        let key = key.as_ref();
        self.push(Op::Remove { key }, || Change::Remove(key.into()))
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
    /// What the disk says. Nothing of the batch is there then, unless the error
    /// [is in doubt](crate::Error::is_in_doubt).
    pub fn commit(self) -> Result<Seq> {
        let done = self.store.submit(Commit { checks: Few::None, changes: self.changes.into() })?;
        Ok(done.seq.unwrap_or_else(|| self.store.snapshot().seq()))
    }

    fn push(&mut self, op: Op<'_>, change: impl FnOnce() -> Change) -> Result<&mut Self> {
        let bytes = self.bytes.saturating_add(record_len(op));
        self.store.check_size(op, bytes, BATCH_LEN_MAX)?;
        self.changes.push(change());
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

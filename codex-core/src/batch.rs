//! Several changes as one commit.

use std::fmt;

use codex_storage::batch::{Op, Seq, record_len};
use serde::Serialize;

use crate::commit::{Change, Commit};
use crate::entry::Entry;
use crate::error::Result;
use crate::store::Store;
use crate::value::RAW;

/// Several changes that become one commit. After [`commit`](Batch::commit), readers see all of
/// them. After a crash, all of them are there or none.
///
/// [`Store::batch`] returns an empty batch. Values are encoded when they are added. The changes
/// apply in the order in which they were added, so the last change of a key counts. The keys and
/// values of a batch may take at most 256 MiB together. A batch that is dropped changes nothing.
///
/// A batch contains a handle of its store. The store stays open, and locked, while the batch is
/// kept, unless it is [closed](Store::close).
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
    /// The encoded length of the changes, in bytes.
    bytes: usize,
}

impl Store {
    /// Returns an empty batch, to collect several changes for one commit. It contains a handle of
    /// the store, so the store stays open while the batch is kept.
    #[doc(alias = "write_batch")]
    pub fn batch(&self) -> Batch {
        Batch { store: self.clone(), changes: Vec::new(), bytes: 0 }
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
        let key = key.as_ref();
        self.store.check_key(key)?;
        let entry = self.store.codec().entry(key, value)?;
        self.push(record_len(Op::Set { key, value: entry.value() }), Change::Put(entry))
    }

    /// Adds a change that sets the value of `key` to the bytes `value`, without encoding them.
    ///
    /// # Errors
    /// [Too large](crate::Error::is_too_large) if the key has more than 65,535 bytes or the batch
    /// exceeds 256 MiB. The batch is unchanged then.
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

    /// Adds a change that removes `key`, if it has a value.
    ///
    /// # Errors
    /// [Too large](crate::Error::is_too_large) if the key has more than 65,535 bytes or the batch
    /// exceeds 256 MiB. The batch is unchanged then.
    pub fn remove(&mut self, key: impl AsRef<[u8]>) -> Result<&mut Self> {
        let key = key.as_ref();
        self.store.check_key(key)?;
        self.push(record_len(Op::Remove { key }), Change::Remove(key.into()))
    }

    /// Adds a change that removes all keys, including those that were set earlier in this batch.
    pub fn clear(&mut self) -> &mut Self {
        // The earlier changes have no effect after the clear.
        self.changes.clear();
        self.changes.push(Change::Clear);
        self.bytes = record_len(Op::Clear);
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
    /// # Errors
    /// The errors of [`Store::set`], except `Encode`. No change of the batch is there then, unless
    /// the error [is in doubt](crate::Error::is_in_doubt).
    pub fn commit(self) -> Result<Seq> {
        let commit = Commit { changes: self.changes.into(), ..Commit::default() };
        let made = self.store.inner.commit(commit)?;
        Ok(made.seq().unwrap_or_else(|| self.store.snapshot().seq()))
    }

    /// Adds `change`, whose encoding has `len` bytes.
    fn push(&mut self, len: usize, change: Change) -> Result<&mut Self> {
        // Check the limit before the change is added, so that a refused change leaves the batch
        // unchanged.
        let bytes = self.bytes.saturating_add(len);
        self.store.check_batch(bytes)?;
        self.changes.push(change);
        self.bytes = bytes;
        Ok(self)
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

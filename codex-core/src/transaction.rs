//! Transactions: reads of one state, and writes that become one commit if nothing that was read has
//! changed.

mod reads;
mod write;

use std::cell::RefCell;
use std::time::SystemTime;

use codex_storage::batch::{Seq, TableId, record_len};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::attempt::Attempt;
use crate::commit::{Change, Commit};
use crate::cursor::{self, Iter};
use crate::engine::View;
use crate::entry::{Entry, Name};
use crate::error::{Error, Result};
use crate::expiry::to_us;
use crate::map::Ordered;
use crate::range::{KeyBound, KeyRange, Prefix};
use crate::rank;
use crate::read::sealed::{self, Source as _};
use crate::read::{Readable, inherent_reads};
use crate::store::Store;
use crate::value::{Codec, RAW};
use reads::Reads;
pub(crate) use reads::Scan;
use write::{Write, Writes};

/// A transaction, which [`Store::transaction`] passes to its closure.
///
/// All reads are of one state of the store, with the transaction's own writes on top. The writes
/// become one commit after the closure returns, if no other commit has changed anything that the
/// transaction read: the values of keys, the absence of keys, and the part of each scan that was
/// iterated. So transactions are serializable: each has the effect that it would have if it ran
/// alone, at the time of its commit.
pub struct Transaction {
    store: Store,
    /// The state that is read.
    base: View,
    /// The last write of each key.
    writes: Writes,
    /// The base with the writes, after a scan needed it.
    current: RefCell<Option<Ordered>>,
    /// The encoded length of the writes, in bytes.
    bytes: usize,
    reads: RefCell<Reads>,
}

impl Store {
    /// Calls `body` with a transaction, commits the writes of the transaction, and returns the
    /// result of `body`. The commit is atomic and durable like that of a [batch](Store::batch).
    ///
    /// If another commit has changed something that the transaction read, nothing is written and
    /// `body` is called again, with the new state. So `body` should have no side effects. It runs
    /// outside all locks. It must write only through the transaction: a write through the store is
    /// a commit of its own, and conflicts with the transaction if the transaction reads its key.
    ///
    /// If `body` returns an error or panics, nothing is written. If it writes nothing, nothing is
    /// committed. Each transaction belongs to one store.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// store.set("balance:ada", &100_i64)?;
    /// store.set("balance:bob", &0_i64)?;
    ///
    /// let moved = store.transaction(|tx| {
    ///     let ada: i64 = tx.get("balance:ada")?.unwrap_or(0);
    ///     let bob: i64 = tx.get("balance:bob")?.unwrap_or(0);
    ///     if ada < 30 {
    ///         return Ok(false);
    ///     }
    ///     tx.set("balance:ada", &(ada - 30))?;
    ///     tx.set("balance:bob", &(bob + 30))?;
    ///     Ok(true)
    /// })?;
    /// assert!(moved);
    /// assert_eq!(store.get("balance:bob")?, Some(30_i64));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The error of `body`. [`Error::Contended`] if other writers changed something that was read
    /// during each of 1,000 attempts. The errors of [`set`](Store::set), except `Encode`. Nothing
    /// is written then, unless the error [is in doubt](Error::is_in_doubt).
    #[doc(alias("begin", "begin_write", "write_tx"))]
    pub fn transaction<R>(&self, body: impl FnMut(&mut Transaction) -> Result<R>) -> Result<R> {
        self.try_transaction(body)
    }

    /// Does the same as [`transaction`](Store::transaction), with a `body` that returns an error of
    /// another type.
    ///
    /// ```
    /// # use codex_core::{Error, Store};
    /// #[derive(Debug)]
    /// enum Refused {
    ///     NoSuchAccount,
    ///     Store(Error),
    /// }
    ///
    /// impl From<Error> for Refused {
    ///     fn from(error: Error) -> Self {
    ///         Self::Store(error)
    ///     }
    /// }
    ///
    /// let store = Store::in_memory()?;
    /// let refused = store.try_transaction(|tx| {
    ///     tx.set("audit:1", "a withdrawal")?;
    ///     tx.get::<i64>("balance:eve")?.ok_or(Refused::NoSuchAccount)
    /// });
    /// assert!(matches!(refused, Err(Refused::NoSuchAccount)));
    /// assert!(store.is_empty(), "the entry of the audit was not written either");
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`transaction`](Store::transaction).
    pub fn try_transaction<R, E, F>(&self, body: F) -> Result<R, E>
    where
        E: From<Error>,
        F: FnMut(&mut Transaction) -> Result<R, E>,
    {
        self.retry(READ_OF_TRANSACTION, self.transacting(body))
    }

    /// Returns the attempts of a transaction by `body`.
    pub(crate) fn transacting<R, E>(
        &self,
        mut body: impl FnMut(&mut Transaction) -> Result<R, E>,
    ) -> impl FnMut() -> Result<(R, Option<Attempt>), E> {
        move || {
            rank::leave_memory("a user's closure");
            let mut transaction = Transaction::begin(self);
            let answer = body(&mut transaction)?;
            Ok((answer, transaction.into_attempt()))
        }
    }
}

impl Transaction {
    /// Begins a transaction over the current state.
    pub(crate) fn begin(store: &Store) -> Self {
        Self {
            store: store.clone(),
            base: store.inner.engine.view(),
            writes: Writes::default(),
            current: RefCell::default(),
            bytes: 0,
            reads: RefCell::default(),
        }
    }

    /// Returns the number of the last commit that the transaction reads; 0 before the first commit.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// store.set("a", &1)?;
    /// let seq = store.transaction(|tx| Ok(tx.seq()))?;
    /// assert_eq!(seq, 1);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn seq(&self) -> Seq {
        self.base.seq
    }

    inherent_reads!();

    /// Sets the value of `key` to `value`.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// store.transaction(|tx| {
    ///     let visits = tx.get::<u64>("visits")?.unwrap_or(0);
    ///     tx.set("visits", &(visits + 1))
    /// })?;
    /// assert_eq!(store.get("visits")?, Some(1_u64));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Encode`] if the codec cannot represent the value. [Too large](Error::is_too_large)
    /// if the key has more than 65,535 bytes, or the writes of the transaction together exceed 256
    /// MiB. [`Error::Storage`] if the store is read-only. The transaction is unchanged then.
    pub fn set<T>(&mut self, key: impl AsRef<[u8]>, value: &T) -> Result<()>
    where
        T: Serialize + ?Sized,
    {
        let entry = self.encoded(key.as_ref(), value)?;
        self.put(entry)
    }

    /// Sets the value of `key` to the bytes `value`, without encoding them.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// store.transaction(|tx| tx.set_bytes("logo", [0x89, b'P', b'N', b'G']))?;
    /// assert_eq!(store.get_bytes("logo").map(|logo| logo.len()), Some(4));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set`](Transaction::set), except `Encode`.
    pub fn set_bytes(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let entry = self.raw(key.as_ref(), value.as_ref())?;
        self.put(entry)
    }

    /// Sets the value of `key` to `bytes`, which are already encoded by `codec`, and expire at the
    /// time `expires`, as in [`Batch::set_encoded`](crate::Batch::set_encoded).
    ///
    /// ```
    /// # use codex_core::{Codec, Store};
    /// # let store = Store::in_memory()?;
    /// store.transaction(|tx| tx.set_encoded("port", Codec::Json, "8080", None))?;
    /// assert_eq!(store.get("port")?, Some(8080_u16));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set`](Transaction::set), except `Encode`.
    pub fn set_encoded(
        &mut self,
        key: impl AsRef<[u8]>,
        codec: Codec,
        bytes: impl AsRef<[u8]>,
        expires: Option<SystemTime>,
    ) -> Result<()> {
        self.store.check_key(key.as_ref())?;
        let entry = Entry::from_parts(key.as_ref(), codec.id(), bytes.as_ref());
        self.put(entry.with_expiry(expires.map(to_us)))
    }

    /// Removes `key`, and returns true if it had a value. This reads the key.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// store.set("lock", "ada")?;
    /// let removed = store.transaction(|tx| tx.remove("lock"))?;
    /// assert!(removed && store.is_empty());
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set`](Transaction::set), except `Encode`.
    pub fn remove(&mut self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.remove_name(Name::plain(key.as_ref()))
    }

    /// Removes `key` and returns its value. If the value does not decode as a `T`, it is not
    /// removed.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// store.set("inbox/1", "hello")?;
    /// store.transaction(|tx| {
    ///     if let Some(letter) = tx.take::<String>("inbox/1")? {
    ///         tx.set("read/1", &letter)?;
    ///     }
    ///     Ok(())
    /// })?;
    /// assert_eq!(store.get::<String>("read/1")?.as_deref(), Some("hello"));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`get`](Transaction::get) and [`remove`](Transaction::remove).
    pub fn take<T: DeserializeOwned>(&mut self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        let key = key.as_ref();
        let taken = self.get(key)?;
        self.remove(key)?;
        Ok(taken)
    }

    /// Removes all keys that begin with `prefix`, and returns their number. This reads the whole
    /// prefix.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// store.set("cart/7/apples", &3)?;
    /// store.set("cart/7/pears", &1)?;
    /// store.transaction(|tx| {
    ///     let items = tx.remove_prefix("cart/7/")?;
    ///     tx.set("last order", &items)
    /// })?;
    /// assert_eq!(store.get("last order")?, Some(2_u64));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set`](Transaction::set), except `Encode`.
    pub fn remove_prefix(&mut self, prefix: impl AsRef<[u8]>) -> Result<u64> {
        self.remove_range(Prefix(prefix))
    }

    /// Removes all keys in `range`, and returns their number. This reads the whole range.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// for day in ["2025-12-30", "2025-12-31", "2026-01-01"] {
    ///     store.set(day, &1)?;
    /// }
    /// let removed = store.transaction(|tx| tx.remove_range(.."2026"))?;
    /// assert_eq!((removed, store.len()), (2, 1));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set`](Transaction::set), except `Encode`.
    pub fn remove_range(&mut self, range: impl KeyRange) -> Result<u64> {
        self.remove_within(None, range.into_bounds())
    }

    /// Removes `name`, and returns true if it had a value.
    pub(crate) fn remove_name(&mut self, name: Name<'_>) -> Result<bool> {
        self.store.check_key(name.key)?;
        let is_there = self.find(name).is_some();
        if is_there {
            self.write(Write::Remove(name.into()))?;
        }
        Ok(is_there)
    }

    /// Removes all keys of `table`, or of those outside tables, within `bounds`, and returns their
    /// number.
    pub(crate) fn remove_within(
        &mut self,
        table: Option<TableId>,
        bounds: (KeyBound, KeyBound),
    ) -> Result<u64> {
        // The leader tests that the scan still returns these keys, so each can be removed by name.
        let names: Vec<_> = self.scan(table, bounds).map(|entry| entry.to_name()).collect();
        let removals = names.iter().map(|name| record_len(name.as_name().removal()));
        self.store.check_batch(removals.fold(self.bytes, usize::saturating_add))?;
        let mut removed = 0;
        for name in names {
            self.write(Write::Remove(name))?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Returns the entry of `name` with the encoded `value`.
    pub(crate) fn encoded<'a, T: Serialize + ?Sized>(
        &self,
        name: impl Into<Name<'a>>,
        value: &T,
    ) -> Result<Entry> {
        let name = name.into();
        self.store.check_key(name.key)?;
        self.store.codec().entry(name, value)
    }

    /// Returns the entry of `key` with the bytes `value`.
    pub(crate) fn raw(&self, key: &[u8], value: &[u8]) -> Result<Entry> {
        self.store.check_key(key)?;
        Ok(Entry::from_parts(key, RAW, value))
    }

    /// Writes `entry`.
    pub(crate) fn put(&mut self, entry: Entry) -> Result<()> {
        // The base has no time if nothing in it expires. A time that it has stays, because all
        // reads are of one state.
        if entry.expires_us().is_some() && self.base.now_us == i64::MIN {
            self.base.now_us = self.store.inner.engine.now_us();
        }
        self.write(Write::Put(entry))
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Writes `changes`, each of which puts an entry or removes a key, or none of them.
    pub(crate) fn write_all(&mut self, changes: Vec<Change>) -> Result<()> {
        let lens = changes.iter().map(Change::encoded_len);
        self.store.check_batch(lens.fold(self.bytes, usize::saturating_add))?;
        changes.into_iter().try_for_each(|change| match change {
            Change::Put(entry) => self.put(entry),
            Change::Remove(name) => self.write(Write::Remove(name)),
            other => unreachable!("{other:?} is of one key"),
        })
    }

    /// Replaces the write of the same key.
    fn write(&mut self, write: Write) -> Result<()> {
        self.store.inner.check_access()?;
        // Count the bytes of the last write of each key only, because only that one is committed.
        let replaced = self.writes.get(write.name()).map_or(0, Write::encoded_len);
        let bytes = (self.bytes - replaced).saturating_add(write.encoded_len());
        self.store.check_batch(bytes)?;
        self.bytes = bytes;
        if let Some(current) = self.current.get_mut() {
            write.apply_to(current);
        }
        self.writes.replace(write);
        Ok(())
    }

    /// Returns the base with the writes on top.
    fn current(&self) -> Ordered {
        let mut current = self.current.borrow_mut();
        let current = current.get_or_insert_with(|| {
            let mut ordered = self.base.ordered.clone();
            self.writes.iter().for_each(|write| write.apply_to(&mut ordered));
            ordered
        });
        current.clone()
    }

    /// Returns the commit of the writes, under the condition that nothing that was read has
    /// changed. Returns `None` if there are no writes: all reads are of one state then.
    pub(crate) fn into_attempt(self) -> Option<Attempt> {
        // Only a shared store may have seen less than what other nodes were told.
        let asks = self.store.inner.engine.is_shared();
        let Self { base, writes, reads, .. } = self;
        if writes.is_empty() && !asks {
            return None;
        }
        let changes = writes.into_changes();
        let (checks, scanned) = reads.into_inner().into_checks(&base);
        if checks.is_empty() && changes.is_empty() {
            return None;
        }
        let (checks, changes) = (checks.into(), changes.into());
        let commit = Commit { checks, changes, base: Some(base.base()), ..Commit::default() };
        Some(Attempt { commit, scanned })
    }
}

impl IntoIterator for &Transaction {
    type Item = cursor::Entry;
    type IntoIter = Iter;

    fn into_iter(self) -> Iter {
        self.iter()
    }
}

impl sealed::Source for Transaction {
    /// Records the read unless the transaction wrote the key.
    fn find(&self, name: Name<'_>) -> Option<Entry> {
        if let Some(write) = self.writes.get(name) {
            return write.entry().filter(|entry| !entry.has_expired_at(self.base.now_us)).cloned();
        }
        let entry = self.base.get(name);
        self.reads.borrow_mut().read(name, entry);
        entry.cloned()
    }

    /// Records the entries that the iterator returns.
    fn scan(&self, table: Option<TableId>, bounds: (KeyBound, KeyBound)) -> Iter {
        let scan = self.reads.borrow_mut().scan(table, bounds.clone());
        Iter::new(self.current(), self.base.now_us, table, bounds).recorded(scan)
    }

    fn count(&self, table: Option<TableId>) -> usize {
        let everything = (KeyBound::Unbounded, KeyBound::Unbounded);
        self.reads.borrow_mut().scan(table, everything).returned_from_front(None);
        self.current().len_at(table, self.base.now_us)
    }

    fn has_none(&self, table: Option<TableId>) -> bool {
        // Only the first entry is read.
        self.scan(table, (KeyBound::Unbounded, KeyBound::Unbounded)).next().is_none()
    }
}

// Order: the methods of `Readable` call code of the user, `into_bounds`, before those of `Source`
// borrow the reads.
impl Readable for Transaction {}

// Shows neither keys nor values, because programs write `Debug` output to logs.
codex_storage::opaque_debug!(Transaction);

/// The name of the thing that changed, in the error of a transaction.
pub(crate) const READ_OF_TRANSACTION: &str = "something that the transaction read";

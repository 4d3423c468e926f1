//! Writes to tables in a transaction, and the changes of indexes that belong to a write.

use std::ops::RangeBounds;
use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::key::TableKey;
use super::prefix::TablePrefix;
use super::record::Row;
use super::spec::Indexes;
use super::{Table, bounds_of, encoded};
use crate::commit::{Change, Check, Commit};
use crate::cursor;
use crate::entry::{Entry, OwnedName};
use crate::error::Result;
use crate::range::{KeyBound, prefix_bounds};
use crate::read::sealed::Source as _;
use crate::store::Store;
use crate::transaction::Transaction;

impl<K: TableKey, V> Table<K, V, &mut Transaction> {
    /// Sets the value of `key` to `value`.
    ///
    /// # Errors
    /// The errors of [`Transaction::set`]. [`Error::NotUnique`](crate::Error::NotUnique) if another
    /// row has the same key in a unique index. The transaction is unchanged then.
    #[doc(alias("insert", "put", "upsert"))]
    pub fn set(&mut self, key: K::Ref<'_>, value: &V) -> Result<()>
    where
        V: Serialize,
    {
        let entry = self.named(&key, |name| self.place.encoded(name, value))?;
        self.put(entry)
    }

    /// Sets the value of `key` to `value` until `expires`.
    ///
    /// # Errors
    /// The errors of [`set`](Self::set).
    pub fn set_with_expiry(&mut self, key: K::Ref<'_>, value: &V, expires: SystemTime) -> Result<()>
    where
        V: Serialize,
    {
        let entry = self.named(&key, |name| self.place.encoded(name, value))?;
        self.put(entry.with_expiry(Some(crate::expiry::to_us(expires))))
    }

    /// Removes `key`, and returns true if it had a value. This reads the key.
    ///
    /// # Errors
    /// The errors of [`Transaction::remove`].
    #[doc(alias("delete", "del", "erase"))]
    pub fn remove(&mut self, key: K::Ref<'_>) -> Result<bool> {
        let name = self.named(&key, |name| OwnedName::from(name));
        let Some(indexes) = &self.indexes else { return self.place.remove_name(name.as_name()) };
        let Some(entry) = self.place.find(name.as_name()) else { return Ok(false) };
        let changes =
            indexes.with_change(&self.row, self.place, Some(&entry), Change::Remove(name))?;
        self.place.write_all(changes).map(|()| true)
    }

    /// Removes `key` and returns its value. If the value does not decode, it is not removed.
    ///
    /// # Errors
    /// The errors of [`get`](Self::get) and [`remove`](Self::remove).
    pub fn take(&mut self, key: K::Ref<'_>) -> Result<Option<V>>
    where
        V: DeserializeOwned,
    {
        let taken = self.get_by(&key)?;
        self.remove(key)?;
        Ok(taken)
    }

    /// Removes all keys in `range`, and returns their number. This reads the whole range.
    ///
    /// # Errors
    /// The errors of [`Transaction::remove_range`].
    pub fn remove_range<'a>(&mut self, range: impl RangeBounds<K::Ref<'a>>) -> Result<u64> {
        self.remove_within(bounds_of::<K>(&range))
    }

    /// Removes all keys that begin with `prefix`, and returns their number. This reads the whole
    /// prefix.
    ///
    /// # Errors
    /// The errors of [`Transaction::remove_range`].
    pub fn remove_prefix(&mut self, prefix: impl TablePrefix<K>) -> Result<u64> {
        self.remove_within(prefix_bounds(&encoded(&prefix)))
    }

    /// Removes all keys, and returns their number. This reads the whole table.
    ///
    /// # Errors
    /// The errors of [`Transaction::remove_range`].
    #[doc(alias("truncate", "delete_all"))]
    pub fn clear(&mut self) -> Result<u64> {
        self.remove_within((KeyBound::Unbounded, KeyBound::Unbounded))
    }

    fn remove_within(&mut self, bounds: (KeyBound, KeyBound)) -> Result<u64> {
        let table = Some(self.row.id);
        let Some(indexes) = &self.indexes else { return self.place.remove_within(table, bounds) };
        let rows: Vec<_> = self.place.scan(table, bounds).collect();
        indexes.remove_all(&self.row, self.place, &rows)
    }

    fn put(&mut self, entry: Entry) -> Result<()> {
        let Some(indexes) = &self.indexes else { return self.place.put(entry) };
        let old = self.place.find(entry.name());
        let changes =
            indexes.with_change(&self.row, self.place, old.as_ref(), Change::Put(entry))?;
        self.place.write_all(changes)
    }
}

impl<V> Indexes<V> {
    /// Returns the commit of `change`, of a row that is `seen` now, with the changes of the
    /// indexes.
    pub(super) fn commit(
        &self,
        store: &Store,
        row: &Row,
        seen: Option<Entry>,
        change: Change,
    ) -> Result<Commit> {
        let check = match (&seen, &change) {
            (Some(seen), _) => Check::Same(seen.clone()),
            (None, Change::Put(entry)) => Check::Absent(entry.name().into()),
            (None, Change::Remove(name)) => Check::Absent(name.clone()),
            (None, _) => return Ok(Commit::one(change)),
        };
        self.extend(store, row, Commit::checked(check, change))
    }

    /// Returns `commit`, of one change of one row and of the condition that this row is the one
    /// that was seen, with the changes of the indexes.
    pub(super) fn extend(&self, store: &Store, row: &Row, commit: Commit) -> Result<Commit> {
        let old = match commit.checks.as_slice() {
            [Check::Same(seen), ..] => Some(seen.clone()),
            _ => None,
        };
        let commit = commit.also(Check::Same(row.entry.clone()));
        let mut checks: Vec<_> = commit.checks.into();
        let mut changes: Vec<_> = commit.changes.into();
        let new = match changes.as_slice() {
            [Change::Put(entry), ..] => Some(entry.clone()),
            _ => None,
        };
        changes.extend(self.changes(row, (old.as_ref(), new.as_ref()), |name| {
            let found = store.inner.entry(name);
            checks.push(Check::of(name, found.clone()));
            found
        })?);
        check_keys(store, &changes)?;
        let (checks, changes) = (checks.into(), changes.into());
        let commit = Commit { checks, changes, ..commit };
        store.check_batch(commit.encoded_len()).map(|()| commit)
    }

    /// Returns `change` of the row `old`, with the changes of the indexes.
    fn with_change(
        &self,
        row: &Row,
        tx: &Transaction,
        old: Option<&Entry>,
        change: Change,
    ) -> Result<Vec<Change>> {
        let new = match &change {
            Change::Put(entry) => Some(entry),
            _ => None,
        };
        let mut changes = self.changes(row, (old, new), |name| tx.find(name))?;
        changes.push(change);
        check_keys(tx.store(), &changes)?;
        Ok(changes)
    }

    /// Removes `rows` of the table of `row`, with their entries in the indexes. Returns the number
    /// of the rows.
    pub(super) fn remove_all(
        &self,
        row: &Row,
        tx: &mut Transaction,
        rows: &[cursor::Entry],
    ) -> Result<u64> {
        let (mut changes, mut removed) = (Vec::new(), 0);
        for entry in rows.iter().map(cursor::Entry::shared) {
            let removal = Change::Remove(entry.name().into());
            changes.extend(self.with_change(row, tx, Some(entry), removal)?);
            removed += 1;
        }
        tx.write_all(changes).map(|()| removed)
    }
}

/// Checks the lengths of the keys of `changes`.
fn check_keys(store: &Store, changes: &[Change]) -> Result<()> {
    changes.iter().try_for_each(|change| match change {
        Change::Put(entry) => store.check_key(entry.key()),
        _ => Ok(()),
    })
}

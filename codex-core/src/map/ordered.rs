//! The ordered index, and the order in which its entries expire.

use std::cmp::Ordering;

use codex_storage::batch::TableId;
use imbl::{OrdMap, OrdSet};

use crate::entry::{Entry, Name};
use crate::range::Bounds;

/// The entries in key order, and those that expire in the order of their expiries, both with
/// structural sharing. A clone takes O(1) and is a consistent view that never changes.
///
/// The entries outside tables have an index of their own, and so has each table, so no table takes
/// part in a read of keys outside tables. A method returns the entries outside tables unless it
/// says otherwise.
///
/// An entry that has expired is here until a commit removes it. The methods whose names end in `at`
/// leave out the entries that have expired at a time in microseconds since 1970.
#[derive(Clone, Default)]
pub struct Ordered {
    plain: OrdSet<Entry>,
    /// No set is empty.
    tables: OrdMap<TableId, OrdSet<Entry>>,
    /// Of all tables, and outside them.
    deadlines: OrdSet<Deadline>,
}

impl Ordered {
    /// Returns an empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of entries, including those that have expired.
    pub fn len(&self) -> usize {
        self.plain.len()
    }

    /// Returns the number of all entries, including those in tables and those that have expired.
    pub(crate) fn len_with_tables(&self) -> usize {
        self.len() + self.tables.values().map(OrdSet::len).sum::<usize>()
    }

    /// Returns true if there are entries in tables.
    pub(crate) fn has_tables(&self) -> bool {
        !self.tables.is_empty()
    }

    /// Returns true if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty()
    }

    /// Returns the number of entries that have not expired at `now_us`.
    pub(crate) fn len_at(&self, now_us: i64) -> usize {
        let expired = self.expired_at(now_us).filter(|entry| entry.table().is_none());
        self.len() - expired.count()
    }

    /// Returns the entry of `name`, even if it has expired.
    pub fn get(&self, name: Name<'_>) -> Option<&Entry> {
        self.of(name.table)?.get(name.key)
    }

    /// Returns the entry of `name`, unless it has expired at `now_us`.
    pub(crate) fn get_at(&self, name: Name<'_>, now_us: i64) -> Option<&Entry> {
        self.get(name).filter(|entry| !entry.has_expired_at(now_us))
    }

    /// Returns all entries in key order, including those that have expired.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.plain.iter()
    }

    /// Returns all entries in the order of images: those outside tables, then table by table, each
    /// in key order. Includes those that have expired.
    pub fn iter_with_tables(&self) -> impl Iterator<Item = &Entry> {
        self.plain.iter().chain(self.tables.values().flatten())
    }

    /// Returns the entries within `bounds` that have not expired at `now_us`, in key order.
    pub(crate) fn range_at(
        &self,
        bounds: Bounds<'_>,
        now_us: i64,
    ) -> impl DoubleEndedIterator<Item = &Entry> {
        self.range(bounds).filter(move |entry| !entry.has_expired_at(now_us))
    }

    /// Returns the entries within `bounds` in key order, including those that have expired.
    pub(crate) fn range(&self, bounds: Bounds<'_>) -> impl DoubleEndedIterator<Item = &Entry> {
        self.plain.range::<_, [u8]>(bounds)
    }

    /// Returns the number of entries that expire, in tables and outside them.
    pub(crate) fn expiring(&self) -> usize {
        self.deadlines.len()
    }

    /// Returns the earliest expiry in tables and outside them, in microseconds since 1970.
    pub(crate) fn first_deadline(&self) -> Option<i64> {
        self.deadlines.get_min()?.0.expires_us()
    }

    /// Returns the entries that have expired at `now_us`, in tables and outside them, in the order
    /// of their expiries.
    pub(crate) fn expired_at(&self, now_us: i64) -> impl Iterator<Item = &Entry> {
        let entries = self.deadlines.iter().map(|Deadline(entry)| entry);
        entries.take_while(move |entry| entry.has_expired_at(now_us))
    }

    /// Inserts `entry`, in its table if it has one, in place of the entry with the same name.
    pub fn insert(&mut self, entry: Entry) {
        let expires_us = entry.expires_us();
        if expires_us.is_some() {
            self.deadlines.insert(Deadline(entry.clone()));
        }
        // A replaced entry with the same expiry had the place of this one.
        let replaced = match entry.table() {
            None => self.plain.insert(entry),
            Some(id) => self.tables.entry(id).or_default().insert(entry),
        };
        self.forget_deadline(replaced.filter(|replaced| replaced.expires_us() != expires_us));
    }

    /// Removes the entry of `name`.
    pub(crate) fn remove(&mut self, Name { table, key }: Name<'_>) {
        let removed = match table {
            None => self.plain.remove(key),
            Some(id) => self.remove_from(id, key),
        };
        self.forget_deadline(removed);
    }

    /// Removes all entries of `table`, or all outside tables.
    pub(crate) fn clear(&mut self, table: Option<TableId>) {
        match table {
            None if !self.has_tables() => *self = Self::new(),
            None => self.plain.clear(),
            Some(id) => _ = self.tables.remove(&id),
        }
        let left = self.deadlines.iter().filter(|deadline| deadline.0.table() != table);
        self.deadlines = left.cloned().collect();
    }

    fn remove_from(&mut self, id: TableId, key: &[u8]) -> Option<Entry> {
        let entries = self.tables.get_mut(&id)?;
        let removed = entries.remove(key);
        if entries.is_empty() {
            self.tables.remove(&id);
        }
        removed
    }

    fn of(&self, table: Option<TableId>) -> Option<&OrdSet<Entry>> {
        table.map_or(Some(&self.plain), |id| self.tables.get(&id))
    }

    fn forget_deadline(&mut self, entry: Option<Entry>) {
        if let Some(entry) = entry.filter(|entry| entry.expires_us().is_some()) {
            self.deadlines.remove(&Deadline(entry));
        }
    }
}

/// An entry that expires, ordered by its expiry and then by its key.
#[derive(Clone)]
struct Deadline(Entry);

impl Ord for Deadline {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_time = self.0.expires_us().cmp(&other.0.expires_us());
        by_time.then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Deadline {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Deadline {}

// Shows neither keys nor values, because programs write `Debug` output to logs.
codex_storage::opaque_debug!(Ordered);

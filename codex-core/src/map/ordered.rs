//! The ordered index, and the order in which its entries expire.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::mem;

use codex_storage::batch::{Item, TableId};
use triomphe::Arc;

use super::build::ReplayInto;
use super::tree::{Ascending, Sorted, Tree};
use crate::entry::{Entry, Name, read};
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
    plain: Tree<Entry>,
    /// No set is empty.
    tables: Arc<BTreeMap<TableId, Tree<Entry>>>,
    /// Of all tables, and outside them.
    deadlines: Tree<Deadline>,
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
        self.len() + self.tables.values().map(Tree::len).sum::<usize>()
    }

    /// Returns true if there are entries in tables.
    pub(crate) fn has_tables(&self) -> bool {
        !self.tables.is_empty()
    }

    /// Returns true if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.plain.is_empty()
    }

    /// Returns the number of entries of `table`, or of those outside tables, including those that
    /// have expired.
    pub(crate) fn len_of(&self, table: Option<TableId>) -> usize {
        self.of(table).map_or(0, Tree::len)
    }

    /// Returns the number of entries of `table`, or of those outside tables, that have not expired
    /// at `now_us`.
    pub(crate) fn len_at(&self, table: Option<TableId>, now_us: i64) -> usize {
        if self.first_deadline().is_none_or(|first| first > now_us) {
            return self.len_of(table);
        }
        let expired = self.expired_at(now_us).filter(|entry| entry.table() == table);
        self.len_of(table) - expired.count()
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
        self.plain.iter().chain(self.tables.values().flat_map(Tree::iter))
    }

    /// Returns all entries in the order of images. Frees each node when its entries are returned.
    pub(super) fn into_entries(self) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(self.len_with_tables());
        let tables = Arc::try_unwrap(self.tables).unwrap_or_else(|shared| (*shared).clone());
        for tree in std::iter::once(self.plain).chain(tables.into_values()) {
            tree.move_to(&mut entries);
        }
        entries
    }

    /// Returns the entries of `table`, or those outside tables, within `bounds` that have not
    /// expired at `now_us`, in key order.
    pub(crate) fn range_at(
        &self,
        table: Option<TableId>,
        bounds: Bounds<'_>,
        now_us: i64,
    ) -> impl DoubleEndedIterator<Item = &Entry> {
        self.range(table, bounds).filter(move |entry| !entry.has_expired_at(now_us))
    }

    /// Returns the entries of `table`, or those outside tables, within `bounds` in key order,
    /// including those that have expired.
    pub(crate) fn range(
        &self,
        table: Option<TableId>,
        bounds: Bounds<'_>,
    ) -> impl DoubleEndedIterator<Item = &Entry> {
        self.of(table).into_iter().flat_map(move |entries| entries.range(bounds))
    }

    /// Returns the same entries, leaf by leaf.
    pub(crate) fn leaves(
        &self,
        table: Option<TableId>,
        bounds: Bounds<'_>,
    ) -> impl DoubleEndedIterator<Item = &[Entry]> {
        self.of(table).into_iter().flat_map(move |entries| entries.leaves(bounds))
    }

    /// Returns the number of entries that expire, in tables and outside them.
    pub(crate) fn expiring(&self) -> usize {
        self.deadlines.len()
    }

    /// Returns the earliest expiry in tables and outside them, in microseconds since 1970.
    pub(crate) fn first_deadline(&self) -> Option<i64> {
        self.deadlines.first()?.0.expires_us()
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
            Some(id) => Arc::make_mut(&mut self.tables).entry(id).or_default().insert(entry),
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
            None => self.plain = Tree::default(),
            Some(id) => _ = Arc::make_mut(&mut self.tables).remove(&id),
        }
        let left = self.deadlines.iter().filter(|deadline| deadline.0.table() != table);
        let mut kept = Ascending::default();
        left.for_each(|deadline| kept.push(deadline.clone()));
        self.deadlines = kept.finish();
    }

    fn remove_from(&mut self, id: TableId, key: &[u8]) -> Option<Entry> {
        let tables = Arc::make_mut(&mut self.tables);
        let entries = tables.get_mut(&id)?;
        let removed = entries.remove(key);
        if entries.is_empty() {
            tables.remove(&id);
        }
        removed
    }

    fn of(&self, table: Option<TableId>) -> Option<&Tree<Entry>> {
        table.map_or(Some(&self.plain), |id| self.tables.get(&id))
    }

    fn forget_deadline(&mut self, entry: Option<Entry>) {
        if let Some(entry) = entry.filter(|entry| entry.expires_us().is_some()) {
            self.deadlines.remove(&Deadline(entry));
        }
    }
}

/// Collects entries in the order of images into an [`Ordered`].
#[derive(Default)]
pub(super) struct OrderedBuilder {
    /// The tables before the current one, and the deadlines.
    ordered: Ordered,
    /// The current table, or `None` while the entries are outside tables.
    table: Option<TableId>,
    entries: Ascending<Entry>,
}

impl OrderedBuilder {
    /// Adds `entry`, whose name is the next one.
    fn push(&mut self, entry: Entry) {
        if entry.expires_us().is_some() {
            self.ordered.deadlines.insert(Deadline(entry.clone()));
        }
        if entry.table() != self.table {
            self.end_table();
            self.table = entry.table();
        }
        self.entries.push(entry);
    }

    fn end_table(&mut self) {
        let entries = mem::take(&mut self.entries).finish();
        match self.table {
            None => self.ordered.plain = entries,
            Some(id) => _ = Arc::make_mut(&mut self.ordered.tables).insert(id, entries),
        }
    }
}

impl ReplayInto for OrderedBuilder {
    type Op = Entry;
    type Index = Ordered;

    fn replay(&mut self, entry: Entry) {
        self.push(entry);
    }

    fn finish(mut self) -> Ordered {
        self.end_table();
        self.ordered
    }
}

impl Sorted for Entry {
    type Key = [u8];

    fn key(&self) -> &[u8] {
        self.key()
    }

    fn common(lower: &[u8], upper: &[u8]) -> usize {
        lower.iter().zip(upper).take_while(|(lower, upper)| lower == upper).count()
    }

    #[expect(clippy::big_endian_bytes, reason = "such numbers are in the order of the bytes")]
    fn digest(key: &[u8], skip: usize) -> u32 {
        let rest = key.get(skip..).unwrap_or_default();
        let next = rest.first_chunk().copied().unwrap_or_else(|| {
            let mut next = [0; 4];
            next.iter_mut().zip(rest).for_each(|(to, byte)| *to = *byte);
            next
        });
        u32::from_be_bytes(next)
    }

    fn separator(below: &Self, above: &Self) -> Self {
        let len = Self::common(below.key(), above.key()) + 1;
        Self::new(above.key().get(..len).unwrap_or(above.key()), &[])
    }

    fn read(items: &[Self]) {
        read(items.iter());
    }
}

/// An entry that expires, ordered by its expiry and then by its key.
#[derive(Clone)]
struct Deadline(Entry);

impl Deadline {
    /// Returns the expiry as a number without a sign, in the same order.
    fn time(&self) -> u64 {
        self.0.expires_us().unwrap_or_default().cast_unsigned() ^ (1 << 63)
    }
}

impl Sorted for Deadline {
    type Key = Self;

    fn key(&self) -> &Self {
        self
    }

    /// Returns the number of leading bits of the expiry.
    fn common(lower: &Self, upper: &Self) -> usize {
        let differ = lower.time() ^ upper.time();
        usize::try_from(differ.leading_zeros()).unwrap_or(0)
    }

    fn digest(key: &Self, skip: usize) -> u32 {
        let rest = key.time().unbounded_shl(u32::try_from(skip).unwrap_or(u32::MAX));
        u32::try_from(rest >> 32).unwrap_or(u32::MAX)
    }

    fn separator(_below: &Self, above: &Self) -> Self {
        Self(Entry::from_item(Item { value: &[], ..above.0.item() }))
    }

    fn read(items: &[Self]) {
        read(items.iter().map(|Deadline(entry)| entry));
    }
}

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

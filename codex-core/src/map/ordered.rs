//! The ordered index, and the order in which its entries expire.

use std::cmp::Ordering;

use imbl::OrdSet;

use crate::entry::Entry;
use crate::range::Bounds;

/// The entries in key order, and those that expire in the order of their expiries, both with
/// structural sharing. A clone takes O(1) and is a consistent view that never changes.
///
/// An entry that has expired is here until a commit removes it. The methods whose names end in `at`
/// leave out the entries that have expired at a time in microseconds since 1970.
#[derive(Clone, Default)]
pub struct Ordered {
    entries: OrdSet<Entry>,
    deadlines: OrdSet<Deadline>,
}

impl Ordered {
    /// Returns an empty index.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of entries, including those that have expired.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the number of entries that have not expired at `now_us`.
    pub(crate) fn len_at(&self, now_us: i64) -> usize {
        self.len() - self.expired_at(now_us).count()
    }

    /// Returns the entry of `key`, even if it has expired.
    pub fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Returns the entry of `key`, unless it has expired at `now_us`.
    pub(crate) fn get_at(&self, key: &[u8], now_us: i64) -> Option<&Entry> {
        self.get(key).filter(|entry| !entry.has_expired_at(now_us))
    }

    /// Returns all entries in key order, including those that have expired.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
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
        self.entries.range::<_, [u8]>(bounds)
    }

    /// Returns the number of entries that expire.
    pub(crate) fn expiring(&self) -> usize {
        self.deadlines.len()
    }

    /// Returns the earliest expiry, in microseconds since 1970.
    pub(crate) fn first_deadline(&self) -> Option<i64> {
        self.deadlines.get_min()?.0.expires_us()
    }

    /// Returns the entries that have expired at `now_us`, in the order of their expiries.
    pub(crate) fn expired_at(&self, now_us: i64) -> impl Iterator<Item = &Entry> {
        let entries = self.deadlines.iter().map(|Deadline(entry)| entry);
        entries.take_while(move |entry| entry.has_expired_at(now_us))
    }

    /// Inserts `entry`, in place of the entry with the same key.
    pub fn insert(&mut self, entry: Entry) {
        let expires_us = entry.expires_us();
        if expires_us.is_some() {
            self.deadlines.insert(Deadline(entry.clone()));
        }
        // A replaced entry with the same expiry had the place of this one.
        let replaced = self.entries.insert(entry);
        self.forget_deadline(replaced.filter(|replaced| replaced.expires_us() != expires_us));
    }

    /// Removes the entry of `key`.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        let removed = self.entries.remove(key);
        self.forget_deadline(removed);
    }

    /// Removes all entries.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
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

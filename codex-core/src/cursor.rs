//! Ordered iteration: owned, double-ended cursors over one unchanging view of the keys.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::{Bound, Deref, RangeBounds};
use std::vec;

use serde::de::DeserializeOwned;

use crate::entry;
use crate::error::Result;
use crate::map::Ordered;
use crate::value::{self, ValueRef};

/// Entries in key order, from either end; made by `iter`, `range` and `prefix` of
/// [`Store`](crate::Store) and [`Snapshot`](crate::Snapshot).
///
/// It owns the view that it walks: it borrows nothing, may be sent to another thread, and shows
/// the store as it was when the cursor was made, whatever is written meanwhile.
#[derive(Clone)]
pub struct Iter {
    ordered: Ordered,
    /// What neither end has fetched yet.
    lower: KeyBound,
    upper: KeyBound,
    front: Fetched,
    back: Fetched,
}

impl Iter {
    /// The entries of `ordered` within `bounds`; none where the bounds cross.
    pub(crate) fn new(ordered: Ordered, (lower, upper): (KeyBound, KeyBound)) -> Self {
        Self { ordered, lower, upper, front: Fetched::default(), back: Fetched::default() }
    }

    /// Fetches the next entries from the front of what is left.
    ///
    /// Seeking costs as much as walking many entries, so each fetch takes twice as many as the
    /// one before it: a short range costs little and a long one little more than the walk.
    fn fetch_front(&mut self) {
        let count = self.front.grow();
        let Some(bounds) = bounds(&self.lower, &self.upper) else { return };
        let fetched: Vec<_> = self.ordered.range::<_, [u8]>(bounds).take(count).cloned().collect();
        if let Some(last) = fetched.last() {
            self.lower = Bound::Excluded(last.key().into());
        }
        self.front.entries = fetched.into_iter();
    }

    /// Fetches the next entries from the back of what is left, the last one first.
    fn fetch_back(&mut self) {
        let count = self.back.grow();
        let Some(bounds) = bounds(&self.lower, &self.upper) else { return };
        let fetched: Vec<_> =
            self.ordered.range::<_, [u8]>(bounds).rev().take(count).cloned().collect();
        if let Some(first) = fetched.last() {
            self.upper = Bound::Excluded(first.key().into());
        }
        self.back.entries = fetched.into_iter();
    }
}

impl Iterator for Iter {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        if self.front.entries.len() == 0 {
            self.fetch_front();
        }
        // Once nothing lies between the ends, what the other end has fetched is what is left.
        let next = self.front.entries.next().or_else(|| self.back.entries.next_back());
        next.map(|inner| Entry { inner })
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Entry> {
        if self.back.entries.len() == 0 {
            self.fetch_back();
        }
        let next = self.back.entries.next().or_else(|| self.front.entries.next_back());
        next.map(|inner| Entry { inner })
    }
}

impl FusedIterator for Iter {}

// Keys and values appear in no log.
codex_storage::opaque_debug!(Iter);

/// Keys in order, from either end; made by `keys` of [`Store`](crate::Store) and
/// [`Snapshot`](crate::Snapshot).
#[derive(Debug, Clone)]
pub struct Keys {
    entries: Iter,
}

impl Keys {
    pub(crate) fn new(entries: Iter) -> Self {
        Self { entries }
    }
}

impl Iterator for Keys {
    type Item = Key;

    fn next(&mut self) -> Option<Key> {
        self.entries.next().map(Key)
    }
}

impl DoubleEndedIterator for Keys {
    fn next_back(&mut self) -> Option<Key> {
        self.entries.next_back().map(Key)
    }
}

impl FusedIterator for Keys {}

/// A key with its value: a handle, which copies no bytes and stays as it was when read.
#[derive(Clone)]
pub struct Entry {
    inner: entry::Entry,
}

impl Entry {
    /// The key.
    pub fn key(&self) -> &[u8] {
        self.inner.key()
    }

    /// Decodes the value.
    ///
    /// # Errors
    /// As [`ValueRef::decode`].
    pub fn value<T: DeserializeOwned>(&self) -> Result<T> {
        value::decode(self.inner.key().len(), self.inner.value())
    }

    /// The bytes of the value, as [`ValueRef`] gives them.
    pub fn bytes(&self) -> &[u8] {
        value::payload(self.inner.value())
    }

    /// The value alone, as a handle of its own.
    pub fn value_ref(&self) -> ValueRef {
        ValueRef::new(self.inner.clone())
    }
}

/// Keys and values appear in no log: only the lengths.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({} byte key, {} byte value)", self.key().len(), self.bytes().len())
    }
}

/// A key: a handle that derefs to its bytes.
#[derive(Clone)]
pub struct Key(Entry);

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.key()
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Keys appear in no log: only the length.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.len())
    }
}

/// One end of a range of keys.
pub(crate) type KeyBound = Bound<Box<[u8]>>;

/// Both ends of a range, to look up with.
pub(crate) type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The bounds of a range in the caller's key type, owned.
pub(crate) fn range_bounds<K: AsRef<[u8]> + ?Sized>(
    range: &impl RangeBounds<K>,
) -> (KeyBound, KeyBound) {
    let own = |bound: Bound<&K>| bound.map(|key| key.as_ref().into());
    (own(range.start_bound()), own(range.end_bound()))
}

/// The bounds of all keys that begin with `prefix`.
pub(crate) fn prefix_bounds(prefix: &[u8]) -> (KeyBound, KeyBound) {
    let end = prefix.iter().rposition(|&byte| byte != u8::MAX).and_then(|last| {
        let mut end: Box<[u8]> = prefix.get(..=last)?.into();
        *end.last_mut()? += 1;
        Some(end)
    });
    (Bound::Included(prefix.into()), end.map_or(Bound::Unbounded, Bound::Excluded))
}

/// The bounds to look up with, or `None` where they cross and nothing can lie between them.
pub(crate) fn bounds<'a>(lower: &'a KeyBound, upper: &'a KeyBound) -> Option<Range<'a>> {
    use Bound::{Excluded, Included, Unbounded};
    let bounds = (lower.as_ref().map(|key| &**key), upper.as_ref().map(|key| &**key));
    match bounds {
        (Included(from), Included(to)) if from > to => None,
        (Included(from) | Excluded(from), Excluded(to)) if from >= to => None,
        (Excluded(from), Included(to)) if from >= to => None,
        (Unbounded | Included(_) | Excluded(_), _) => Some(bounds),
    }
}

/// Entries fetched at one end and not yet handed out.
#[derive(Clone, Default)]
struct Fetched {
    entries: vec::IntoIter<entry::Entry>,
    count: usize,
}

impl Fetched {
    /// How many entries the next fetch takes.
    fn grow(&mut self) -> usize {
        self.count = (2 * self.count).clamp(FETCH_MIN, FETCH_MAX);
        self.count
    }
}

const FETCH_MIN: usize = 8;
const FETCH_MAX: usize = 512;

#[cfg(test)]
mod tests;

//! Iteration in key order: owned, double-ended iterators over an unchanging view of the entries.

use std::fmt;
use std::iter::FusedIterator;
use std::ops::{Bound, Deref, RangeBounds};
use std::vec;

use serde::de::DeserializeOwned;

use crate::entry;
use crate::error::Result;
use crate::map::Ordered;
use crate::value::{self, ValueRef};

/// An iterator over entries in key order, from either end. `iter`, `range` and `prefix` of
/// [`Store`](crate::Store) and [`Snapshot`](crate::Snapshot) return it.
///
/// It owns its view: it borrows nothing and can be sent to another thread. It shows the state of
/// the store at the time at which it was made, and no later write changes it.
#[derive(Clone)]
pub struct Iter {
    ordered: Ordered,
    /// The range between the entries that the two ends have fetched.
    lower: KeyBound,
    upper: KeyBound,
    front: Fetched,
    back: Fetched,
}

impl Iter {
    /// Returns the iterator over the entries of `ordered` within `bounds`. It is empty if the
    /// bounds cross.
    pub(crate) fn new(ordered: Ordered, (lower, upper): (KeyBound, KeyBound)) -> Self {
        Self { ordered, lower, upper, front: Fetched::default(), back: Fetched::default() }
    }

    /// Fetches the next entries from the front of the range that is left.
    ///
    /// A seek costs as much as stepping over many entries, so each fetch takes twice as many
    /// entries as the previous one. Then a short range costs little, and a long range costs little
    /// more than the steps.
    fn fetch_front(&mut self) {
        let count = self.front.grow();
        let Some(bounds) = bounds(&self.lower, &self.upper) else { return };
        let fetched: Vec<_> = self.ordered.range::<_, [u8]>(bounds).take(count).cloned().collect();
        // The next fetch continues after the last fetched key.
        if let Some(last) = fetched.last() {
            self.lower = Bound::Excluded(last.key().into());
        }
        self.front.entries = fetched.into_iter();
    }

    /// Fetches the next entries from the back of the range that is left, the last one first.
    fn fetch_back(&mut self) {
        let count = self.back.grow();
        let Some(bounds) = bounds(&self.lower, &self.upper) else { return };
        let fetched: Vec<_> =
            self.ordered.range::<_, [u8]>(bounds).rev().take(count).cloned().collect();
        // The next fetch continues before the first fetched key.
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
        // If no entry is left between the ends, the entries that the other end has fetched are the
        // rest.
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

// Shows neither keys nor values, because programs write `Debug` output to logs.
codex_storage::opaque_debug!(Iter);

/// An iterator over keys in order, from either end. `keys` of [`Store`](crate::Store) and
/// [`Snapshot`](crate::Snapshot) returns it.
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

/// A key with its value. It is a handle: cloning it copies no bytes, and later writes do not change
/// it.
#[derive(Clone)]
pub struct Entry {
    inner: entry::Entry,
}

impl Entry {
    /// Returns the bytes of the key.
    pub fn key(&self) -> &[u8] {
        self.inner.key()
    }

    /// Decodes the value as a `T`.
    ///
    /// # Errors
    /// The errors of [`ValueRef::decode`].
    pub fn value<T: DeserializeOwned>(&self) -> Result<T> {
        value::decode(self.inner.key().len(), self.inner.value())
    }

    /// Returns the bytes of the value, without the codec byte, like [`ValueRef`].
    pub fn bytes(&self) -> &[u8] {
        value::payload(self.inner.value())
    }

    /// Returns a handle of the value alone.
    pub fn value_ref(&self) -> ValueRef {
        ValueRef::new(self.inner.clone())
    }
}

/// Shows only the lengths, because programs write `Debug` output to logs.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({} byte key, {} byte value)", self.key().len(), self.bytes().len())
    }
}

/// A key. It is a handle that derefs to its bytes.
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

/// Shows only the length, because programs write `Debug` output to logs.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.len())
    }
}

/// One end of a range of keys.
pub(crate) type KeyBound = Bound<Box<[u8]>>;

/// Both ends of a range, in the form for a lookup.
pub(crate) type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Returns owned bounds of a range in the caller's key type.
pub(crate) fn range_bounds<K: AsRef<[u8]> + ?Sized>(
    range: &impl RangeBounds<K>,
) -> (KeyBound, KeyBound) {
    let own = |bound: Bound<&K>| bound.map(|key| key.as_ref().into());
    (own(range.start_bound()), own(range.end_bound()))
}

/// Returns the bounds of all keys that begin with `prefix`.
pub(crate) fn prefix_bounds(prefix: &[u8]) -> (KeyBound, KeyBound) {
    // The upper bound is the prefix with its last byte incremented. A byte of 255 cannot be
    // incremented, so trailing ones are cut off first. A prefix of only such bytes has no upper
    // bound.
    let end = prefix.iter().rposition(|&byte| byte != u8::MAX).and_then(|last| {
        let mut end: Box<[u8]> = prefix.get(..=last)?.into();
        *end.last_mut()? += 1;
        Some(end)
    });
    (Bound::Included(prefix.into()), end.map_or(Bound::Unbounded, Bound::Excluded))
}

/// Returns the bounds in the form for a lookup, or `None` if they cross, so that no key can lie
/// between them.
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

/// The entries that were fetched at one end and not yet returned.
#[derive(Clone, Default)]
struct Fetched {
    entries: vec::IntoIter<entry::Entry>,
    count: usize,
}

impl Fetched {
    /// Returns the number of entries for the next fetch.
    fn grow(&mut self) -> usize {
        self.count = (2 * self.count).clamp(FETCH_MIN, FETCH_MAX);
        self.count
    }
}

/// The number of entries in the first fetch of an end.
const FETCH_MIN: usize = 8;
/// The maximum number of entries in one fetch.
const FETCH_MAX: usize = 512;

#[cfg(test)]
mod tests;

//! Iteration in key order: owned, double-ended iterators over an unchanging view of the entries.

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::ops::{Bound, Deref};
use std::sync::Arc;
use std::time::SystemTime;
use std::vec;

use arrayvec::ArrayVec;
use codex_storage::batch::TableId;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::entry;
use crate::error::Result;
use crate::expiry::expiry_of;
use crate::handle::handle_of_bytes;
use crate::map::Ordered;
use crate::range::{KeyBound, bounds};
use crate::transaction::Scan;
use crate::value::{self, ValueRef};

/// An iterator over entries in key order, from either end. `iter`, `range` and `prefix` of
/// [`Store`](crate::Store) and [`Snapshot`](crate::Snapshot) return it.
///
/// It owns its view: it borrows nothing and can be sent to another thread. It shows the state of
/// the store at the time at which it was made, and no later write changes it.
///
/// ```
/// use codex_core::{Entry, Store};
///
/// let store = Store::in_memory()?;
/// store.set("note/1", "Locks")?;
/// for entry in &store {
///     assert_eq!((entry.key(), entry.value()?), (&b"note/1"[..], "Locks"));
/// }
/// // In two handles, which may be kept.
/// for (key, value) in store.iter().map(Entry::into_parts) {
///     assert!(key == "note/1" && value.decode::<&str>()? == "Locks");
/// }
/// # Ok::<(), codex_core::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "an iterator does nothing until it is advanced"]
pub struct Iter {
    ordered: Ordered,
    /// The table, or `None` for the keys outside tables.
    table: Option<TableId>,
    /// The time by which expired entries are left out, in microseconds since 1970.
    now_us: i64,
    /// The range between the entries that the two ends have fetched.
    lower: KeyBound,
    upper: KeyBound,
    front: Fetched,
    back: Fetched,
    /// The record of the entries that were returned, for a transaction.
    scan: Option<Arc<Scan>>,
}

impl Iter {
    /// Returns the iterator over the entries of `table`, or those outside tables, within `bounds`
    /// that have not expired at `now_us`. It is empty if the bounds cross.
    pub(crate) fn new(
        ordered: Ordered,
        now_us: i64,
        table: Option<TableId>,
        (lower, upper): (KeyBound, KeyBound),
    ) -> Self {
        let (front, back) = (Fetched::default(), Fetched::default());
        Self { ordered, table, now_us, lower, upper, front, back, scan: None }
    }

    /// Returns the iterator, which records the entries that it returns in `scan`.
    pub(crate) fn recorded(self, scan: Arc<Scan>) -> Self {
        Self { scan: Some(scan), ..self }
    }

    /// Returns the keys of the entries that are left.
    pub fn keys(self) -> Keys {
        Keys { entries: self }
    }

    /// Returns the decoded values of the entries that are left.
    ///
    /// An item is an error if its value does not decode as a `T`, as in [`ValueRef::decode`]. The
    /// items after it can still be read.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.set("visits:home", &3_u64)?;
    /// store.set("visits:about", &4_u64)?;
    /// let visits: Vec<u64> = store.prefix("visits:").values().collect::<Result<_, _>>()?;
    /// assert_eq!(visits, [4, 3]);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn values<T: DeserializeOwned>(self) -> Values<T> {
        Values { entries: self, of: PhantomData }
    }

    /// Fetches the next entries from the front of the range that is left.
    ///
    /// A seek costs as much as stepping over many entries, so each fetch takes twice as many
    /// entries as the previous one. Then a short range costs little, and a long range costs little
    /// more than the steps.
    fn fetch_front(&mut self) {
        let count = self.front.grow();
        let Some(bounds) = bounds(&self.lower, &self.upper) else { return };
        let leaves = self.ordered.leaves(self.table, bounds);
        let fetched = fetched(leaves.map(|leaf| leaf.iter()), count, self.now_us);
        // The next fetch continues after the last fetched key.
        if let Some(last) = fetched.last() {
            self.lower = Bound::Excluded(last.key().into());
        }
        self.end_if(fetched.len() < count);
        self.front.entries = fetched.into_iter();
    }

    /// Fetches the next entries from the back of the range that is left, the last one first.
    fn fetch_back(&mut self) {
        let count = self.back.grow();
        let Some(bounds) = bounds(&self.lower, &self.upper) else { return };
        let leaves = self.ordered.leaves(self.table, bounds).rev();
        let fetched = fetched(leaves.map(|leaf| leaf.iter().rev()), count, self.now_us);
        // The next fetch continues before the first fetched key.
        if let Some(first) = fetched.last() {
            self.upper = Bound::Excluded(first.key().into());
        }
        self.end_if(fetched.len() < count);
        self.back.entries = fetched.into_iter();
    }

    /// Empties the range if all of it was fetched, so that the entries in it that have expired are
    /// not stepped over again.
    fn end_if(&mut self, is_fetched: bool) {
        if is_fetched {
            self.upper = Bound::Excluded(Box::default());
        }
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
        // Order: record the returned entry and not the fetched ones, which the transaction has not
        // seen.
        if let Some(scan) = &self.scan {
            scan.returned_from_front(next.as_ref());
        }
        next.map(Entry::new)
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Entry> {
        if self.back.entries.len() == 0 {
            self.fetch_back();
        }
        let next = self.back.entries.next().or_else(|| self.front.entries.next_back());
        if let Some(scan) = &self.scan {
            scan.returned_from_back(next.as_ref());
        }
        next.map(Entry::new)
    }
}

impl FusedIterator for Iter {}

// Shows neither keys nor values, because programs write `Debug` output to logs.
codex_storage::opaque_debug!(Iter);

/// An iterator over keys in order, from either end. `keys` of [`Store`](crate::Store) and
/// [`Snapshot`](crate::Snapshot) returns it.
#[derive(Debug, Clone)]
#[must_use = "an iterator does nothing until it is advanced"]
pub struct Keys {
    entries: Iter,
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

/// An iterator over decoded values in the order of their keys, from either end. `values` of
/// [`Store`](crate::Store), [`Snapshot`](crate::Snapshot) and [`Iter`] returns it.
#[derive(Debug, Clone)]
#[must_use = "an iterator does nothing until it is advanced"]
pub struct Values<T> {
    entries: Iter,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Iterator for Values<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        self.entries.next().map(|entry| entry.value())
    }
}

impl<T: DeserializeOwned> DoubleEndedIterator for Values<T> {
    fn next_back(&mut self) -> Option<Result<T>> {
        self.entries.next_back().map(|entry| entry.value())
    }
}

impl<T: DeserializeOwned> FusedIterator for Values<T> {}

/// A key with its value. It is a handle: cloning it copies no bytes, and later writes do not change
/// it.
#[derive(Clone)]
pub struct Entry {
    inner: entry::Entry,
}

impl Entry {
    pub(crate) fn new(inner: entry::Entry) -> Self {
        Self { inner }
    }

    /// Returns the bytes of the key.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// store.set("a", &1)?;
    /// assert_eq!(store.first(..).expect("there is one").key(), b"a");
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn key(&self) -> &[u8] {
        self.inner.key()
    }

    /// Decodes the value as a `T`, which may borrow from the entry, as in [`ValueRef::decode`].
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.set("visits/home", &3_u64)?;
    /// for entry in store.prefix("visits/") {
    ///     assert_eq!(entry.value::<u64>()?, 3);
    /// }
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`ValueRef::decode`].
    pub fn value<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        value::decode(self.inner.key().len(), self.inner.value())
    }

    /// Returns the bytes of the value, without the codec byte, like [`ValueRef`].
    pub fn bytes(&self) -> &[u8] {
        value::payload(self.inner.value())
    }

    /// Returns the time at which the entry expires, or `None` if it does not.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # use std::time::{Duration, SystemTime};
    /// let store = Store::in_memory()?;
    /// let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    /// store.set_with_expiry("session/7", "Ada", expires)?;
    /// let session = store.first(..).expect("there is one");
    /// assert_eq!(session.expires_at(), Some(expires));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    #[doc(alias = "ttl")]
    pub fn expires_at(&self) -> Option<SystemTime> {
        expiry_of(&self.inner)
    }

    /// Returns the entry of the indexes in memory.
    pub(crate) fn shared(&self) -> &entry::Entry {
        &self.inner
    }

    /// Returns the key and its table.
    pub(crate) fn to_name(&self) -> entry::OwnedName {
        self.inner.name().into()
    }

    /// Returns the number of bytes that the entry keeps in memory.
    pub(crate) fn stored_len(&self) -> usize {
        self.inner.key().len() + self.inner.value().len()
    }

    /// Returns a handle of the value alone.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// store.set_bytes("a", "text")?;
    /// let text = store.first(..).expect("there is one").value_ref();
    /// store.clear()?;
    /// assert_eq!(text, "text");
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn value_ref(&self) -> ValueRef {
        ValueRef::new(self.inner.clone())
    }

    /// Returns a handle of the key and one of the value. Copies no bytes.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.set("name", "Ada")?;
    /// let (key, value) = store.first(..).expect("there is one").into_parts();
    /// assert_eq!((&*key, value.decode::<String>()?), (&b"name"[..], "Ada".into()));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn into_parts(self) -> (Key, ValueRef) {
        let value = self.value_ref();
        (Key(self), value)
    }
}

/// Shows only the lengths, because programs write `Debug` output to logs.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({} byte key, {} byte value)", self.key().len(), self.bytes().len())
    }
}

/// A key. It is a handle that derefs to its bytes. Cloning it copies no bytes.
///
/// It is equal to, ordered and hashed like these bytes, so a map with such keys can be searched
/// with bytes. It can be compared with a slice, an array, a string, and all other types that
/// implement `AsRef<[u8]>`.
///
/// ```
/// # use codex_core::{Key, Store};
/// # use std::collections::HashSet;
/// let store = Store::in_memory()?;
/// store.set("note/1", "Locks")?;
/// let keys: HashSet<Key> = store.keys().collect();
/// assert!(keys.contains(&b"note/1"[..]));
/// let key = store.keys().next().expect("there is an entry");
/// assert!(key == "note/1" && key == *b"note/1" && key < "note/2");
/// let bytes: Vec<u8> = key.into();
/// assert_eq!(bytes, b"note/1");
/// # Ok::<(), codex_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Key(Entry);

impl Key {
    pub(crate) fn new(inner: entry::Entry) -> Self {
        Self(Entry::new(inner))
    }

    /// Returns the number of bytes that the key and its value keep in memory.
    pub(crate) fn stored_len(&self) -> usize {
        self.0.stored_len()
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.key()
    }
}

handle_of_bytes!(Key);

/// Shows only the length, because programs write `Debug` output to logs.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.len())
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

/// Returns handles of the next `count` entries of `leaves` that have not expired at `now_us`, or of
/// all if there are fewer.
///
/// The processor waits for many reads of memory at the same time, but only for one increment of a
/// reference count. So all leaves are found before an entry is read, and all entries are read
/// before a handle of the first is made.
fn fetched<'a, L>(
    mut leaves: impl Iterator<Item = L>,
    count: usize,
    now_us: i64,
) -> Vec<entry::Entry>
where
    L: ExactSizeIterator<Item = &'a entry::Entry> + Clone,
{
    let mut fetched = Vec::with_capacity(count);
    // The part of a leaf after the entries that were needed so far.
    let mut rest = None::<L>;
    while fetched.len() < count {
        // Find the leaves of as many entries as are missing.
        let mut missing = count - fetched.len();
        let mut found = ArrayVec::<_, LEAVES_MAX>::new();
        while missing > 0
            && !found.is_full()
            && let Some(mut leaf) = rest.take().or_else(|| leaves.next())
        {
            let here = leaf.clone().take(missing);
            missing -= here.len();
            if here.len() < leaf.len() {
                leaf.nth(here.len() - 1);
                rest = Some(leaf);
            }
            found.push(here);
        }
        if found.is_empty() {
            break;
        }
        // Read whether the entries have expired. The loop does not end at the first, so that all
        // are read.
        let mut hides = false;
        for leaf in &found {
            hides = leaf.clone().fold(hides, |hides, entry| hides | entry.has_expired_at(now_us));
        }
        for leaf in found {
            if hides {
                fetched.extend(leaf.filter(|entry| !entry.has_expired_at(now_us)).cloned());
            } else {
                fetched.extend(leaf.cloned());
            }
        }
    }
    fetched
}

/// The number of entries in the first fetch of an end.
const FETCH_MIN: usize = 8;
/// The maximum number of entries in one fetch.
const FETCH_MAX: usize = 128;
/// The maximum number of leaves whose entries are read together.
const LEAVES_MAX: usize = 16;

#[cfg(test)]
mod tests;

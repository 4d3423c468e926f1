//! A key, its stored value, its expiry and its table in one shared allocation, with a thin pointer
//! to it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the bytes of an entry are laid out here"
)]

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hint::black_box;
use std::iter;
use std::ops::Range;

use arrayvec::ArrayVec;
use codex_storage::batch::{Item, Op, TableId};
use triomphe::ThinArc;

/// A key, its stored value, its expiry and its table. It is immutable, and shared by both indexes,
/// by snapshots and by the handles of users. A clone increments a reference count.
///
/// Entries are compared and ordered by their keys, and those with the same key by their tables.
/// [`same`](Entry::same) compares identity.
#[derive(Clone)]
pub struct Entry {
    /// The first byte is the length of the key, or [`LONG`], with the bit [`EXPIRES`] if the entry
    /// expires, and the bit [`TABLED`] if it is in a table. Then come, if there are these, the 4
    /// bytes of the length of a longer key, the 8 bytes of the expiry, and the 4 bytes of the id of
    /// the table. The key and the stored value are the rest.
    ///
    /// A read of the key, which each lookup compares, so has all but the value in the cache.
    shared: ThinArc<(), u8>,
}

/// The key of an entry, and its table. A store has at most one entry of each name, so the same key
/// outside tables, in a table and in another are three entries.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name<'a> {
    /// The table, or `None` if the entry is outside tables.
    pub table: Option<TableId>,
    /// The key.
    pub key: &'a [u8],
}

impl<'a> Name<'a> {
    /// Returns the name of the entry of `key` outside tables.
    pub fn plain(key: &'a [u8]) -> Self {
        Self { table: None, key }
    }

    /// Returns the operation that removes the entry.
    pub(crate) fn removal(self) -> Op<'a> {
        let Name { table, key } = self;
        Op::Remove { table, key }
    }
}

impl<'a> From<&'a [u8]> for Name<'a> {
    fn from(key: &'a [u8]) -> Self {
        Self::plain(key)
    }
}

/// A [`Name`] that owns its key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OwnedName {
    table: Option<TableId>,
    key: Box<[u8]>,
}

impl OwnedName {
    /// Returns the name.
    pub fn as_name(&self) -> Name<'_> {
        Name { table: self.table, key: &self.key }
    }
}

impl<'a, N: Into<Name<'a>>> From<N> for OwnedName {
    fn from(name: N) -> Self {
        let Name { table, key } = name.into();
        Self { table, key: key.into() }
    }
}

impl Entry {
    /// Copies `key` and the stored `value` into an entry outside tables, without an expiry.
    pub fn new(key: &[u8], value: &[u8]) -> Self {
        Self::concat(Name::plain(key), [value, &[]], None)
    }

    /// Copies `item` into an entry.
    pub fn from_item(Item { table, key, value, expires_us }: Item<'_>) -> Self {
        Self::concat(Name { table, key }, [value, &[]], expires_us)
    }

    /// Returns an entry of `name` without a value and an expiry.
    pub(crate) fn without_value(name: Name<'_>) -> Self {
        Self::concat(name, [&[], &[]], None)
    }

    /// Returns an entry without an expiry, whose stored value is the codec byte `codec`, then
    /// `payload`.
    pub fn from_parts<'a>(name: impl Into<Name<'a>>, codec: u8, payload: &[u8]) -> Self {
        Self::concat(name.into(), [&[codec], payload], None)
    }

    /// Returns the stored form. Each path that copies entries passes it on whole.
    #[inline]
    pub fn item(&self) -> Item<'_> {
        let (Name { table, key }, value) = (self.name(), self.value());
        Item { table, key, value, expires_us: self.expires_us() }
    }

    /// Returns the operation that removes the entry.
    pub(crate) fn removal(&self) -> Op<'_> {
        self.name().removal()
    }

    /// Returns the key and the table.
    pub(crate) fn name(&self) -> Name<'_> {
        Name { table: self.table(), key: self.key() }
    }

    /// Returns the table, or `None` if the entry is outside tables.
    #[inline]
    pub fn table(&self) -> Option<TableId> {
        if self.first() & TABLED == 0 {
            return None;
        }
        let head = &self.shared.slice[..self.key_range().start];
        TableId::new(u32::from_le_bytes(*head.last_chunk()?))
    }

    /// Returns the key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        &self.shared.slice[self.key_range()]
    }

    /// Returns the stored value.
    #[inline]
    pub fn value(&self) -> &[u8] {
        &self.shared.slice[self.key_range().end..]
    }

    /// Returns the time at which the entry expires, in microseconds since 1970, or `None` if it
    /// does not.
    #[inline]
    pub fn expires_us(&self) -> Option<i64> {
        let first = self.first();
        if first & EXPIRES == 0 {
            return None;
        }
        let expiry = self.shared.slice[1 + len_len(first)..].first_chunk();
        expiry.map(|bytes| i64::from_le_bytes(*bytes))
    }

    /// Returns true if the entry is hidden at `now_us`.
    #[inline]
    pub(crate) fn has_expired_at(&self, now_us: i64) -> bool {
        self.expires_us().is_some_and(|expires_us| expires_us <= now_us)
    }

    /// Returns a copy with another expiry or none.
    pub(crate) fn with_expiry(&self, expires_us: Option<i64>) -> Self {
        Self::from_item(Item { expires_us, ..self.item() })
    }

    /// Returns true if both are the same allocation, which an equal entry is not.
    pub fn same(&self, other: &Self) -> bool {
        std::ptr::eq(self.shared.as_ptr(), other.shared.as_ptr())
    }

    #[inline]
    fn first(&self) -> u8 {
        self.shared.slice[0]
    }

    /// Returns the place of the key. That of a short key without other fields takes one comparison.
    #[inline]
    fn key_range(&self) -> Range<usize> {
        let first = self.first();
        if first < LONG {
            return 1..1 + usize::from(first);
        }
        let key_len = match self.shared.slice[1..].first_chunk() {
            Some(len) if first & LONG == LONG => {
                usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX)
            }
            _ => usize::from(first & LONG),
        };
        let from = head_len(first);
        from..from + key_len
    }

    fn concat(name: Name<'_>, [first, second]: [&[u8]; 2], expires_us: Option<i64>) -> Self {
        let head = Head::new(name, expires_us);
        let parts = [head.bytes(), name.key, first, second];
        let len = parts.iter().map(|part| part.len()).sum();
        // The allocation is filled from one slice. A short one is composed on the stack, which
        // saves an allocation.
        let mut small = [0; SMALL];
        if let Some(bytes) = small.get_mut(..len) {
            let mut rest = bytes;
            for part in parts {
                let (here, after) = rest.split_at_mut(part.len());
                here.copy_from_slice(part);
                rest = after;
            }
            return Self::from_bytes(&small[..len]);
        }
        Self::from_bytes(&parts.concat())
    }

    /// Appends to `to` the part of an entry without an expiry that comes before its stored value.
    pub(crate) fn begin(name: Name<'_>, to: &mut Vec<u8>) {
        to.extend_from_slice(Head::new(name, None).bytes());
        to.extend_from_slice(name.key);
    }

    /// Returns an entry of `bytes`: the part that [`begin`](Self::begin) has written, and then the
    /// stored value.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let entry = Self { shared: ThinArc::from_header_and_slice((), bytes) };
        assert!(entry.key_range().end <= bytes.len(), "an entry begins with its whole key");
        entry
    }
}

/// Returns `entries` in their order, each after the memory of many was read.
///
/// The processor waits for many reads of memory at the same time, but only for one change of a
/// reference count. So this makes it faster to clone or to drop entries that are not in the cache.
pub(crate) fn read_ahead<E: Borrow<Entry>>(
    entries: impl Iterator<Item = E>,
) -> impl Iterator<Item = E> {
    let mut entries = entries.fuse();
    let chunks = iter::from_fn(move || {
        let chunk: ArrayVec<E, READ_AT_ONCE> = entries.by_ref().take(READ_AT_ONCE).collect();
        read(chunk.iter().map(E::borrow));
        (!chunk.is_empty()).then_some(chunk)
    });
    chunks.flatten()
}

/// Reads the memory of all `entries`.
pub(crate) fn read<'a>(entries: impl Iterator<Item = &'a Entry>) {
    black_box(entries.fold(0, |all, entry| all | entry.first()));
}

/// The bytes of an entry before its key.
struct Head {
    bytes: [u8; HEAD_MAX],
    len: usize,
}

impl Head {
    fn new(name: Name<'_>, expires_us: Option<i64>) -> Self {
        // A key that is too long for a record is refused when it is encoded.
        let key_len = u32::try_from(name.key.len()).expect("a key has less than 4 GiB");
        let short = u8::try_from(key_len).ok().filter(|len| *len < LONG);
        let flags = expires_us.map_or(0, |_| EXPIRES) | name.table.map_or(0, |_| TABLED);
        let mut head = Self { bytes: [0; HEAD_MAX], len: 0 };
        head.push([flags | short.unwrap_or(LONG)]);
        if short.is_none() {
            head.push(key_len.to_le_bytes());
        }
        if let Some(expires_us) = expires_us {
            head.push(expires_us.to_le_bytes());
        }
        if let Some(table) = name.table {
            head.push(table.get().to_le_bytes());
        }
        head
    }

    fn push<const N: usize>(&mut self, field: [u8; N]) {
        self.bytes[self.len..self.len + N].copy_from_slice(&field);
        self.len += N;
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key()).then_with(|| self.table().cmp(&other.table()))
    }
}

/// Shows only the length, as for [`Entry`].
impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({} byte key)", self.key.len())
    }
}

/// Shows only the length, as for [`Entry`].
impl fmt::Debug for OwnedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_name().fmt(f)
    }
}

/// Shows only the lengths, because programs write `Debug` output to logs.
impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({} byte key, {} byte value)", self.key().len(), self.value().len())
    }
}

/// The maximum length of an entry that is composed on the stack, in bytes.
const SMALL: usize = 256;
/// The number of entries that [`read_ahead`] reads at a time.
const READ_AT_ONCE: usize = 64;
/// The maximum number of bytes before the key of an entry.
const HEAD_MAX: usize = 1 + size_of::<u32>() + size_of::<i64>() + size_of::<TableId>();
/// The bit of the first byte of an entry that expires.
const EXPIRES: u8 = 1 << 7;
/// The bit of the first byte of an entry in a table.
const TABLED: u8 = 1 << 6;
/// The bits of the length of the key in the first byte. All are set if the length does not fit.
const LONG: u8 = TABLED - 1;

/// Returns the number of bytes of the length of a longer key, after the first byte `first`.
#[inline]
fn len_len(first: u8) -> usize {
    if first & LONG == LONG { size_of::<u32>() } else { 0 }
}

/// Returns the number of bytes before the key of an entry that begins with `first`.
#[inline]
fn head_len(first: u8) -> usize {
    let expiry_len = if first & EXPIRES == 0 { 0 } else { size_of::<i64>() };
    let id_len = if first & TABLED == 0 { 0 } else { size_of::<TableId>() };
    1 + len_len(first) + expiry_len + id_len
}

#[cfg(test)]
mod tests {
    use codex_storage::batch::Item;

    use super::{Entry, LONG, READ_AT_ONCE, SMALL, TableId, read_ahead};

    #[test]
    fn an_entry_gives_back_its_parts_at_every_length_around_the_stack_buffer() {
        let long = usize::from(LONG);
        for key_len in [0, 1, 17, long - 1, long, long + 1, SMALL - 1, SMALL, SMALL + 1, 65_536] {
            for value_len in [0, 1, 100, SMALL - 1, SMALL, SMALL + 1] {
                let (key, value) = (vec![7; key_len], vec![9; value_len]);
                for expires_us in [None, Some(-1), Some(i64::MAX)] {
                    for table in [None, Some(TableId::MIN), Some(TableId::MAX)] {
                        let item = Item { table, key: &key, value: &value, expires_us };
                        assert!(Entry::from_item(item).item() == item, "{key_len} {value_len}");
                    }
                }
                let parts = Entry::from_parts(&key[..], 2, &value);
                assert_eq!(parts.value().split_first(), Some((&2, &value[..])));
                assert_eq!(parts.key(), key);
            }
        }
    }

    #[test]
    fn reading_ahead_returns_every_entry_once_and_in_order() {
        for count in [0, 1, READ_AT_ONCE - 1, READ_AT_ONCE, READ_AT_ONCE + 1, 5 * READ_AT_ONCE] {
            let entries = (0_u32..).map(|n| Entry::new(&n.to_le_bytes(), b""));
            let entries: Vec<_> = entries.take(count).collect();
            let read: Vec<_> = read_ahead(entries.iter()).collect();
            assert_eq!(read.len(), count);
            assert!(read.iter().zip(&entries).all(|(read, entry)| read.same(entry)));
        }
    }

    #[test]
    #[should_panic(expected = "an entry begins with its whole key")]
    fn a_key_that_is_longer_than_its_entry_stops_the_writer() {
        Entry::from_bytes(b"\x06short");
    }

    #[test]
    fn entries_compare_by_key_and_differ_by_identity() {
        let (one, two) = (Entry::new(b"k", b"1"), Entry::new(b"k", b"2"));
        assert_eq!(one, two);
        assert!(!one.same(&two) && one.same(&one.clone()));
        assert!(Entry::new(b"a", b"z") < Entry::new(b"b", b"a"));
    }

    #[test]
    fn an_entry_of_a_table_has_another_name_than_its_key_alone() {
        let plain = Item { table: None, key: b"k", value: b"v", expires_us: None };
        let tabled = [1, 2].map(|id| Item { table: TableId::new(id), ..plain });
        let [plain, one, two] = [plain, tabled[0], tabled[1]].map(Entry::from_item);
        assert!(plain < one && one < two && plain != one && one != two);
    }

    #[test]
    fn debug_shows_neither_key_nor_value() {
        let shown = format!("{:?}", Entry::new(b"secret-key", b"secret-value"));
        assert_eq!(shown, "Entry(10 byte key, 12 byte value)");
    }
}

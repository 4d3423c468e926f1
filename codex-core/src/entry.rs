//! A key, its stored value, its expiry and its table in one shared allocation, with a thin pointer
//! to it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the bytes of an entry are laid out here"
)]

use std::cmp::Ordering;
use std::fmt;

use codex_storage::batch::{Item, Op, TableId};
use triomphe::ThinArc;

/// A key, its stored value, its expiry and its table. It is immutable, and shared by both indexes,
/// by snapshots and by the handles of users. A clone increments a reference count.
///
/// Entries are compared and ordered by their keys, and those with the same key by their tables.
/// [`same`](Entry::same) compares identity.
#[derive(Clone)]
pub struct Entry {
    /// The header is the length of the key, with the bit [`EXPIRES`] if the entry expires, and the
    /// bit [`TABLED`] if it is in a table. The bytes are the key, then the stored value, then the 8
    /// bytes of the expiry and the 4 bytes of the id of the table, if there are these.
    shared: ThinArc<u32, u8>,
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
    pub fn table(&self) -> Option<TableId> {
        if self.shared.header.header & TABLED == 0 {
            return None;
        }
        let id = self.shared.slice.last_chunk()?;
        TableId::new(u32::from_le_bytes(*id))
    }

    /// Returns the key.
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "`from_bytes` has checked the length of the key")]
    pub fn key(&self) -> &[u8] {
        &self.shared.slice[..self.key_len()]
    }

    /// Returns the stored value.
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "`from_bytes` has checked the length of the key")]
    pub fn value(&self) -> &[u8] {
        &self.shared.slice[self.key_len()..self.value_end()]
    }

    /// Returns the time at which the entry expires, in microseconds since 1970, or `None` if it
    /// does not.
    #[inline]
    pub fn expires_us(&self) -> Option<i64> {
        if self.shared.header.header & EXPIRES == 0 {
            return None;
        }
        let expiry = self.shared.slice[self.value_end()..].first_chunk();
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
    fn key_len(&self) -> usize {
        let key_len = self.shared.header.header & !(EXPIRES | TABLED);
        usize::try_from(key_len).expect("a key has at most 65,535 bytes")
    }

    fn value_end(&self) -> usize {
        self.shared.slice.len() - tail_len(self.shared.header.header)
    }

    #[expect(clippy::indexing_slicing, reason = "`len` was in the bounds just before")]
    fn concat(
        Name { table, key }: Name<'_>,
        [first, second]: [&[u8]; 2],
        expires_us: Option<i64>,
    ) -> Self {
        let flags = expires_us.map_or(0, |_| EXPIRES) | table.map_or(0, |_| TABLED);
        let expiry = expires_us.unwrap_or_default().to_le_bytes();
        let expiry = if expires_us.is_some() { &expiry[..] } else { &[] };
        let id = table.map_or(0, TableId::get).to_le_bytes();
        let id = if table.is_some() { &id[..] } else { &[] };
        let parts = [key, first, second, expiry, id];
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
            return Self::from_bytes(key.len(), &small[..len], flags);
        }
        Self::from_bytes(key.len(), &parts.concat(), flags)
    }

    /// Returns an entry of `table` without an expiry, of `bytes`: a key of `key_len` bytes, and the
    /// stored value.
    pub(crate) fn from_key_and_value(
        table: Option<TableId>,
        key_len: usize,
        mut bytes: Vec<u8>,
    ) -> Self {
        let Some(id) = table else { return Self::from_bytes(key_len, &bytes, 0) };
        bytes.extend_from_slice(&id.get().to_le_bytes());
        Self::from_bytes(key_len, &bytes, TABLED)
    }

    /// Returns an entry of `bytes`: a key of `key_len` bytes, the stored value, and the fields of
    /// `flags`, which are the bits of the header.
    fn from_bytes(key_len: usize, bytes: &[u8], flags: u32) -> Self {
        assert!(key_len + tail_len(flags) <= bytes.len(), "an entry begins with its whole key");
        let key_len = u32::try_from(key_len).expect("longer keys are refused before");
        Self { shared: ThinArc::from_header_and_slice(key_len | flags, bytes) }
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
/// The bit of the header of an entry that expires. The length of a key is below both bits.
const EXPIRES: u32 = 1 << 31;
/// The bit of the header of an entry in a table.
const TABLED: u32 = 1 << 30;

/// Returns the number of bytes after the value of an entry whose header is `header`.
fn tail_len(header: u32) -> usize {
    let expiry_len = if header & EXPIRES == 0 { 0 } else { size_of::<i64>() };
    let id_len = if header & TABLED == 0 { 0 } else { size_of::<TableId>() };
    expiry_len + id_len
}

#[cfg(test)]
mod tests {
    use codex_storage::batch::Item;

    use super::{Entry, SMALL, TableId};

    #[test]
    fn an_entry_gives_back_its_parts_at_every_length_around_the_stack_buffer() {
        for key_len in [0, 1, 17, SMALL - 1, SMALL, SMALL + 1, 65_535] {
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
    #[should_panic(expected = "an entry begins with its whole key")]
    fn a_key_that_is_longer_than_its_entry_stops_the_writer() {
        Entry::from_key_and_value(None, 6, b"short".to_vec());
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

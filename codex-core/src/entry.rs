//! A key, its stored value and its expiry in one shared allocation, with a thin pointer to it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the bytes of an entry are laid out here"
)]

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;

use codex_storage::batch::Item;
use triomphe::ThinArc;

/// A key, its stored value and its expiry. It is immutable, and shared by both indexes, by
/// snapshots and by the handles of users. A clone increments a reference count.
///
/// Entries are compared and ordered by their keys alone. [`same`](Entry::same) compares identity.
#[derive(Clone)]
pub struct Entry {
    /// The header is the length of the key, with the bit [`EXPIRES`] if the entry expires. The
    /// bytes are the key, then the stored value, then the 8 bytes of the expiry if there is one.
    shared: ThinArc<u32, u8>,
}

impl Entry {
    /// Copies `key` and the stored `value` into an entry without an expiry.
    pub fn new(key: &[u8], value: &[u8]) -> Self {
        Self::from_item(Item { key, value, expires_us: None })
    }

    /// Copies `item` into an entry.
    pub fn from_item(Item { key, value, expires_us }: Item<'_>) -> Self {
        Self::concat(key, [value, &[]], expires_us)
    }

    /// Returns an entry without an expiry, whose stored value is the codec byte `codec`, then
    /// `payload`.
    pub fn from_parts(key: &[u8], codec: u8, payload: &[u8]) -> Self {
        Self::concat(key, [&[codec], payload], None)
    }

    /// Returns the stored form. Each path that copies entries passes it on whole.
    pub fn item(&self) -> Item<'_> {
        Item { key: self.key(), value: self.value(), expires_us: self.expires_us() }
    }

    /// Returns the key.
    #[expect(clippy::indexing_slicing, reason = "`from_bytes` has checked the length of the key")]
    pub fn key(&self) -> &[u8] {
        &self.shared.slice[..self.key_len()]
    }

    /// Returns the stored value.
    #[expect(clippy::indexing_slicing, reason = "`from_bytes` has checked the length of the key")]
    pub fn value(&self) -> &[u8] {
        let expiry_len = if self.expires() { EXPIRY_LEN } else { 0 };
        &self.shared.slice[self.key_len()..self.shared.slice.len() - expiry_len]
    }

    /// Returns the time at which the entry expires, in microseconds since 1970, or `None` if it
    /// does not.
    pub fn expires_us(&self) -> Option<i64> {
        let expiry = self.shared.slice.last_chunk().filter(|_| self.expires());
        expiry.map(|bytes| i64::from_le_bytes(*bytes))
    }

    /// Returns true if the entry is hidden at `now_us`.
    pub(crate) fn has_expired_at(&self, now_us: i64) -> bool {
        self.expires_us().is_some_and(|expires_us| expires_us <= now_us)
    }

    /// Returns a copy with another expiry or none.
    pub(crate) fn with_expiry(&self, expires_us: Option<i64>) -> Self {
        Self::from_item(Item { expires_us, ..self.item() })
    }

    fn expires(&self) -> bool {
        self.shared.header.header & EXPIRES != 0
    }

    /// Returns true if both are the same allocation, which an equal entry is not.
    pub fn same(&self, other: &Self) -> bool {
        std::ptr::eq(self.shared.as_ptr(), other.shared.as_ptr())
    }

    fn key_len(&self) -> usize {
        let key_len = self.shared.header.header & !EXPIRES;
        usize::try_from(key_len).expect("a key has at most 65,535 bytes")
    }

    #[expect(clippy::indexing_slicing, reason = "`len` was in the bounds just before")]
    fn concat(key: &[u8], [first, second]: [&[u8]; 2], expires_us: Option<i64>) -> Self {
        let expiry = expires_us.unwrap_or_default().to_le_bytes();
        let expiry = if expires_us.is_some() { &expiry[..] } else { &[] };
        let parts = [key, first, second, expiry];
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
            return Self::from_bytes(key.len(), &small[..len], expires_us.is_some());
        }
        Self::from_bytes(key.len(), &parts.concat(), expires_us.is_some())
    }

    /// Returns an entry of `bytes`: a key of `key_len` bytes, the stored value, and the expiry if
    /// `expires`.
    pub(crate) fn from_bytes(key_len: usize, bytes: &[u8], expires: bool) -> Self {
        let expiry_len = if expires { EXPIRY_LEN } else { 0 };
        assert!(key_len + expiry_len <= bytes.len(), "an entry begins with its whole key");
        let key_len = u32::try_from(key_len).expect("longer keys are refused before");
        let header = if expires { key_len | EXPIRES } else { key_len };
        Self { shared: ThinArc::from_header_and_slice(header, bytes) }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl Borrow<[u8]> for Entry {
    fn borrow(&self) -> &[u8] {
        self.key()
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
/// The bit of the header of an entry that expires. The length of a key is below it.
const EXPIRES: u32 = 1 << 31;
/// The length of an expiry, in bytes.
const EXPIRY_LEN: usize = size_of::<i64>();

#[cfg(test)]
mod tests {
    use codex_storage::batch::Item;

    use super::{Entry, SMALL};

    #[test]
    fn an_entry_gives_back_its_parts_at_every_length_around_the_stack_buffer() {
        for key_len in [0, 1, 17, SMALL - 1, SMALL, SMALL + 1, 65_535] {
            for value_len in [0, 1, 100, SMALL - 1, SMALL, SMALL + 1] {
                let (key, value) = (vec![7; key_len], vec![9; value_len]);
                for expires_us in [None, Some(-1), Some(i64::MAX)] {
                    let item = Item { key: &key, value: &value, expires_us };
                    assert!(Entry::from_item(item).item() == item, "{key_len} {value_len}");
                }
                let parts = Entry::from_parts(&key, 2, &value);
                assert_eq!(parts.value().split_first(), Some((&2, &value[..])));
                assert_eq!(parts.key(), key);
            }
        }
    }

    #[test]
    #[should_panic(expected = "an entry begins with its whole key")]
    fn a_key_that_is_longer_than_its_entry_stops_the_writer() {
        Entry::from_bytes(6, b"short", false);
    }

    #[test]
    fn entries_compare_by_key_and_differ_by_identity() {
        let (one, two) = (Entry::new(b"k", b"1"), Entry::new(b"k", b"2"));
        assert_eq!(one, two);
        assert!(!one.same(&two) && one.same(&one.clone()));
        assert!(Entry::new(b"a", b"z") < Entry::new(b"b", b"a"));
    }

    #[test]
    fn debug_shows_neither_key_nor_value() {
        let shown = format!("{:?}", Entry::new(b"secret-key", b"secret-value"));
        assert_eq!(shown, "Entry(10 byte key, 12 byte value)");
    }
}

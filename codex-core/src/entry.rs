//! A key and its stored value in one shared allocation, with a thin pointer to it.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "the bytes of an entry are laid out here"
)]

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;

use triomphe::ThinArc;

/// A key and its stored value. It is immutable, and shared by both indexes, by snapshots and by the
/// handles of users. A clone increments a reference count.
///
/// Entries are compared and ordered by their keys alone. [`same`](Entry::same) compares identity.
#[derive(Clone)]
pub struct Entry {
    /// The header is the length of the key; the bytes are the key, then the stored value.
    shared: ThinArc<u32, u8>,
}

impl Entry {
    /// Copies `key` and the stored `value` into an entry.
    pub fn new(key: &[u8], value: &[u8]) -> Self {
        Self::concat(key, [value, &[]])
    }

    /// Returns an entry whose stored value is the codec byte `codec`, then `payload`.
    pub fn from_parts(key: &[u8], codec: u8, payload: &[u8]) -> Self {
        Self::concat(key, [&[codec], payload])
    }

    /// Returns the key.
    #[expect(clippy::indexing_slicing, reason = "`from_bytes` has checked the length of the key")]
    pub fn key(&self) -> &[u8] {
        &self.shared.slice[..self.key_len()]
    }

    /// Returns the stored value.
    #[expect(clippy::indexing_slicing, reason = "`from_bytes` has checked the length of the key")]
    pub fn value(&self) -> &[u8] {
        &self.shared.slice[self.key_len()..]
    }

    /// Returns true if both are the same allocation, which an equal entry is not.
    pub fn same(&self, other: &Self) -> bool {
        std::ptr::eq(self.shared.as_ptr(), other.shared.as_ptr())
    }

    fn key_len(&self) -> usize {
        usize::try_from(self.shared.header.header).expect("a key has at most 65,535 bytes")
    }

    #[expect(clippy::indexing_slicing, reason = "`len` was in the bounds just before")]
    fn concat(key: &[u8], [first, second]: [&[u8]; 2]) -> Self {
        let parts = [key, first, second];
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
            return Self::from_bytes(key.len(), &small[..len]);
        }
        Self::from_bytes(key.len(), &parts.concat())
    }

    /// Returns an entry of `bytes`, which are a key of `key_len` bytes, then the stored value.
    pub(crate) fn from_bytes(key_len: usize, bytes: &[u8]) -> Self {
        assert!(key_len <= bytes.len(), "an entry begins with its whole key");
        let key_len = u32::try_from(key_len).expect("longer keys are refused before");
        Self { shared: ThinArc::from_header_and_slice(key_len, bytes) }
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

#[cfg(test)]
mod tests {
    use super::{Entry, SMALL};

    #[test]
    fn an_entry_gives_back_its_parts_at_every_length_around_the_stack_buffer() {
        for key_len in [0, 1, 17, SMALL - 1, SMALL, SMALL + 1, 65_535] {
            for value_len in [0, 1, 100, SMALL - 1, SMALL, SMALL + 1] {
                let (key, value) = (vec![7; key_len], vec![9; value_len]);
                let whole = Entry::new(&key, &value);
                assert_eq!((whole.key(), whole.value()), (&key[..], &value[..]));
                let parts = Entry::from_parts(&key, 2, &value);
                assert_eq!(parts.value().split_first(), Some((&2, &value[..])));
                assert_eq!(parts.key(), key);
            }
        }
    }

    #[test]
    #[should_panic(expected = "an entry begins with its whole key")]
    fn a_key_that_is_longer_than_its_entry_stops_the_writer() {
        Entry::from_bytes(6, b"short");
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

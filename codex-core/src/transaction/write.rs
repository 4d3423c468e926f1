//! The writes of a transaction, until they become the changes of its commit.

use std::borrow::Borrow;
use std::cmp::Ordering;

use codex_storage::batch::{Op, record_len};

use crate::commit::Change;
use crate::entry::{Entry, Name};
use crate::map::Ordered;

/// A write of a transaction. Compares by key.
pub(super) enum Write {
    Put(Entry),
    Remove(Box<[u8]>),
}

impl Write {
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::Put(entry) => entry.key(),
            Self::Remove(key) => key,
        }
    }

    /// Returns the new entry of the key, if there is one.
    pub(super) fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Put(entry) => Some(entry),
            Self::Remove(_) => None,
        }
    }

    pub(super) fn apply_to(&self, ordered: &mut Ordered) {
        match self {
            Self::Put(entry) => ordered.insert(entry.clone()),
            Self::Remove(key) => ordered.remove(Name::plain(key)),
        }
    }

    /// Returns the encoded length, in bytes.
    pub(super) fn encoded_len(&self) -> usize {
        record_len(match self {
            Self::Put(entry) => Op::Set(entry.item()),
            Self::Remove(key) => Op::remove(key),
        })
    }
}

impl From<Write> for Change {
    fn from(write: Write) -> Self {
        match write {
            Write::Put(entry) => Self::Put(entry),
            Write::Remove(key) => Self::Remove(key),
        }
    }
}

impl Borrow<[u8]> for Write {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Ord for Write {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(other.key())
    }
}

impl PartialOrd for Write {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Write {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Write {}

//! The writes of a transaction, until they become the changes of its commit.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use codex_storage::batch::{Op, TableId, record_len};

use crate::commit::Change;
use crate::entry::{Entry, Name, OwnedName};
use crate::map::Ordered;

/// The last write of each key, in the order of the tables and their keys.
#[derive(Default)]
pub(super) struct Writes {
    of_tables: BTreeMap<Option<TableId>, BTreeSet<Write>>,
}

impl Writes {
    /// Returns the write of `name`.
    pub(super) fn get(&self, name: Name<'_>) -> Option<&Write> {
        self.of_tables.get(&name.table)?.get(name.key)
    }

    /// Replaces the write of the same key.
    pub(super) fn replace(&mut self, write: Write) {
        self.of_tables.entry(write.name().table).or_default().replace(write);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.of_tables.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Write> {
        self.of_tables.values().flatten()
    }

    pub(super) fn into_changes(self) -> Vec<Change> {
        self.of_tables.into_values().flatten().map(Change::from).collect()
    }
}

/// A write of a transaction. Compares by key.
pub(super) enum Write {
    Put(Entry),
    Remove(OwnedName),
}

impl Write {
    pub(super) fn name(&self) -> Name<'_> {
        match self {
            Self::Put(entry) => entry.name(),
            Self::Remove(name) => name.as_name(),
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
            Self::Remove(name) => ordered.remove(name.as_name()),
        }
    }

    /// Returns the encoded length, in bytes.
    pub(super) fn encoded_len(&self) -> usize {
        record_len(match self {
            Self::Put(entry) => Op::Set(entry.item()),
            Self::Remove(name) => name.as_name().removal(),
        })
    }
}

impl From<Write> for Change {
    fn from(write: Write) -> Self {
        match write {
            Write::Put(entry) => Self::Put(entry),
            Write::Remove(name) => Self::Remove(name),
        }
    }
}

impl Borrow<[u8]> for Write {
    fn borrow(&self) -> &[u8] {
        self.name().key
    }
}

impl Ord for Write {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().key.cmp(other.name().key)
    }
}

impl PartialOrd for Write {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Write {
    fn eq(&self, other: &Self) -> bool {
        self.name().key == other.name().key
    }
}

impl Eq for Write {}

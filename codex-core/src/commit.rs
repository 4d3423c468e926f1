//! One commit: its conditions, its changes, its outcome.

use std::fmt;
use std::ops::Bound;

use codex_storage::batch::{Op, Seq, record_len};

use crate::entry::Entry;

/// Changes that become durable and visible together, provided that all checks hold.
#[derive(Debug, Default)]
pub struct Commit {
    /// The conditions: if one does not hold, nothing is changed.
    pub checks: SmallVec<Check>,
    /// The changes, in order.
    pub changes: SmallVec<Change>,
}

impl Commit {
    /// One change without a condition.
    pub fn one(change: Change) -> Self {
        Self { checks: SmallVec::None, changes: SmallVec::One(change) }
    }

    /// One change, provided that `check` holds.
    pub fn checked(check: Check, change: Change) -> Self {
        Self { checks: SmallVec::One(check), changes: SmallVec::One(change) }
    }

    /// Whether it puts no entry: it can only free memory.
    pub(crate) fn only_removes(&self) -> bool {
        !self.changes.as_slice().iter().any(|change| matches!(change, Change::Put(_)))
    }

    /// About how many bytes it encodes to; bulk removals count as one.
    pub(crate) fn encoded_len(&self) -> usize {
        let len = |change: &Change| match change {
            Change::Put(entry) => record_len(Op::Set { key: entry.key(), value: entry.value() }),
            Change::Remove(key) => record_len(Op::Remove { key }),
            Change::Clear | Change::RemoveRange(..) => record_len(Op::Clear),
        };
        self.changes.as_slice().iter().map(len).fold(0, usize::saturating_add)
    }
}

/// A change of the store.
pub enum Change {
    /// The key of the entry has its value now.
    Put(Entry),
    /// The key is gone; where it was not there, nothing is written.
    Remove(Box<[u8]>),
    /// Every key is gone; in an empty store, nothing is written.
    Clear,
    /// Every key within the bounds is gone.
    ///
    /// The leader looks for them while it holds `persist`, so that writers wait for it and readers
    /// do not. The commit has one record a key.
    RemoveRange(Bound<Box<[u8]>>, Bound<Box<[u8]>>),
}

/// Keys and values appear in no log: only the kind of change.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put(_) => "Put",
            Self::Remove(_) => "Remove",
            Self::Clear => "Clear",
            Self::RemoveRange(..) => "RemoveRange",
        })
    }
}

/// A condition of a commit, tested in the order of commits.
pub enum Check {
    /// The very entry that was read is still there, or there is still none.
    Same {
        /// The key that was read.
        key: Box<[u8]>,
        /// The entry that was read.
        seen: Option<Entry>,
    },
    /// The stored value is equal to this one, or there is none.
    Equals {
        /// The key.
        key: Box<[u8]>,
        /// The stored value to be found.
        value: Option<Box<[u8]>>,
    },
    /// The range holds the very entries that were read, and no others.
    Unchanged {
        /// The lower end of the range that was read.
        lower: Bound<Box<[u8]>>,
        /// Its upper end.
        upper: Bound<Box<[u8]>>,
        /// The entries that were read, in key order.
        seen: Vec<Entry>,
    },
}

/// Keys and values appear in no log: only the kind of check.
impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same { .. } => "Same",
            Self::Equals { .. } => "Equals",
            Self::Unchanged { .. } => "Unchanged",
        })
    }
}

/// The outcome of a commit.
#[derive(Debug)]
pub enum Outcome {
    /// It is durable at the level of the store, and visible.
    Done {
        /// Its number; `None` when there was nothing to write.
        seq: Option<Seq>,
        /// How many keys were there and are gone.
        removed: u64,
        /// The entry that its last `Put` or `Remove` replaced.
        previous: Option<Entry>,
    },
    /// A check did not hold; nothing was changed. The state that it was tested against is durable.
    Conflict,
}

impl Outcome {
    /// Returns the number of the commit, if anything was written.
    pub(crate) fn seq(&self) -> Option<Seq> {
        match self {
            Self::Done { seq, .. } => *seq,
            Self::Conflict => None,
        }
    }

    /// Returns how many keys were there and are gone.
    pub(crate) fn removed(&self) -> u64 {
        match self {
            Self::Done { removed, .. } => *removed,
            Self::Conflict => 0,
        }
    }
}

/// None, one or several, the first two without an allocation.
#[derive(Debug, Default)]
pub enum SmallVec<T> {
    /// None.
    #[default]
    None,
    /// One.
    One(T),
    /// Several.
    Many(Vec<T>),
}

impl<T> SmallVec<T> {
    /// Returns all of them.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl<T> From<Vec<T>> for SmallVec<T> {
    fn from(many: Vec<T>) -> Self {
        Self::Many(many)
    }
}

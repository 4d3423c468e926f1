//! Building a map from the operations that a storage replays.

use codex_storage::batch::{Op, Seq};

use super::{Hash, Map, Ordered};
use crate::entry::Entry;

/// Gathers replayed operations into a [`Map`].
#[derive(Debug, Default)]
pub struct MapBuilder {
    hash: Hash,
    ordered: Ordered,
}

impl MapBuilder {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next operation.
    pub fn push(&mut self, op: Op<'_>) {
        match op {
            Op::Set { key, value } => {
                let entry = Entry::new(key, value);
                self.ordered.insert(entry.clone());
                self.hash.insert(self.hash.hasher().hash(key), entry);
            }
            Op::Remove { key } => {
                self.ordered.remove(key);
                self.hash.remove(self.hash.hasher().hash(key), key);
            }
            Op::Clear => *self = Self::default(),
        }
    }

    /// The map, which shows everything up to the commit `seq`.
    pub fn finish(self, seq: Seq) -> Map {
        Map { hash: self.hash, ordered: self.ordered, seq }
    }
}

//! The memory of a store: two indexes over the same shared entries.

mod build;
mod hash;

use std::fmt;
use std::mem;

use codex_storage::batch::Seq;
use codex_storage::storage::{EntrySink, State};

pub use build::MapBuilder;
pub(crate) use hash::{Hash, SHARDS, Table, shard};

use crate::entry::Entry;

/// The entries in key order, with structural sharing: an O(1) clone is a consistent view for ever.
pub type Ordered = imbl::OrdSet<Entry>;

/// All entries: a hash index for point reads and an ordered one for everything else.
pub struct Map {
    hash: Hash,
    ordered: Ordered,
    seq: Seq,
}

impl Map {
    /// An empty map, at the beginning of all commits.
    pub fn new() -> Self {
        Self { hash: Hash::new(), ordered: Ordered::new(), seq: 0 }
    }

    /// The entry of `key`.
    pub fn get(&self, key: &[u8]) -> Option<Entry> {
        self.find(key).cloned()
    }

    /// The entry of `key`, without counting a reference.
    pub fn find(&self, key: &[u8]) -> Option<&Entry> {
        self.hash.find(self.hash.hasher().hash(key), key)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.ordered.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.ordered.is_empty()
    }

    /// The entries in key order, as they are now; O(1).
    pub fn ordered(&self) -> Ordered {
        self.ordered.clone()
    }

    /// The ordered index, in place.
    pub(crate) fn ordered_ref(&self) -> &Ordered {
        &self.ordered
    }

    /// The last commit that the map shows.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The hash index.
    pub(crate) fn hash(&self) -> &Hash {
        &self.hash
    }

    /// Makes `work` visible. Infallible and short: `work` holds every table that is needed, and
    /// takes along every entry that is no longer, so that nothing grows and nothing is freed here.
    pub(crate) fn apply(&mut self, work: &mut Work) {
        if work.clear {
            let fresh = Hash::with_hasher(self.hash.hasher().clone());
            work.freed.hashes.push(mem::replace(&mut self.hash, fresh));
            work.freed.ordered.push(mem::take(&mut self.ordered));
        }
        for (shard, table) in work.tables.drain(..) {
            work.freed.tables.extend(self.hash.replace(shard, table));
        }
        if let Some(ordered) = work.ordered.take() {
            work.freed.ordered.push(mem::replace(&mut self.ordered, ordered));
        } else {
            work.apply_to(&mut self.ordered);
        }
        if work.hash_done {
            // The old tables hold what was replaced; the steps are freed with the rest.
            work.freed.steps = mem::take(&mut work.steps);
        }
        for Step { entry, hash, kind } in work.steps.drain(..) {
            match kind {
                StepKind::Put { .. } => {
                    work.freed.entries.extend(self.hash.insert(hash, entry));
                }
                StepKind::Remove => {
                    work.freed.entries.extend(self.hash.remove(hash, entry.key()));
                    work.freed.entries.push(entry);
                }
            }
        }
        if let Some(seq) = work.seq.take() {
            self.seq = seq;
        }
    }
}

impl Default for Map {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("len", &self.len())
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

/// What a commit group does to a [`Map`], prepared so that [`Map::apply`] has nothing left to
/// build or to free. `freed` must have room for two entries a step.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Whether everything is removed before the steps.
    pub(crate) clear: bool,
    /// Larger hash tables, each with the index that it replaces.
    pub(crate) tables: Vec<(usize, Table)>,
    /// Whether the tables are all there are, with the steps already applied.
    pub(crate) hash_done: bool,
    /// The ordered index with the steps already applied, where the caller built it.
    pub(crate) ordered: Option<Ordered>,
    /// What happens, in order.
    pub(crate) steps: Vec<Step>,
    /// The last commit of the group.
    pub(crate) seq: Option<Seq>,
    /// What the map no longer holds, to be freed without the lock.
    pub(crate) freed: Freed,
}

impl Work {
    /// Applies the steps to a copy of the ordered index, for [`Work::ordered`].
    pub(crate) fn apply_to(&self, ordered: &mut Ordered) {
        for step in &self.steps {
            match step.kind {
                StepKind::Put { .. } => ordered.insert(step.entry.clone()),
                StepKind::Remove => ordered.remove(step.entry.key()),
            };
        }
    }
}

/// One change of a [`Map`].
#[derive(Debug)]
pub(crate) struct Step {
    /// The new entry, or the one to remove.
    pub(crate) entry: Entry,
    /// The hash of its key.
    pub(crate) hash: u64,
    /// What happens to it.
    pub(crate) kind: StepKind,
}

/// What a [`Step`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepKind {
    /// The entry takes the place of one with its key, or comes in anew.
    Put {
        /// Whether there is none with its key before.
        new: bool,
    },
    /// The entry is gone.
    Remove,
}

/// What an apply took out of a [`Map`].
#[derive(Debug, Default)]
pub(crate) struct Freed {
    /// Steps that were applied beforehand.
    pub(crate) steps: Vec<Step>,
    /// Replaced and removed entries.
    pub(crate) entries: Vec<Entry>,
    /// Tables that have been outgrown.
    pub(crate) tables: Vec<Table>,
    /// Cleared hash indexes.
    pub(crate) hashes: Vec<Hash>,
    /// Cleared or replaced ordered indexes.
    pub(crate) ordered: Vec<Ordered>,
}

/// An ordered index as a state to write an image of.
pub(crate) struct Image(pub(crate) Ordered);

impl State for Image {
    fn len(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap_or(u64::MAX)
    }

    fn for_each(&self, sink: &mut EntrySink<'_>) -> codex_storage::Result<()> {
        self.0.iter().try_for_each(|entry| sink(entry.key(), entry.value()))
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({} entries)", self.0.len())
    }
}

#[cfg(test)]
mod tests;

//! The memory of a store: two indexes of the same shared entries.

mod build;
mod hash;
mod ordered;
mod replay;
mod tree;

use std::fmt;
use std::hint;
use std::mem;

use arrayvec::ArrayVec;
use codex_storage::batch::Seq;
use codex_storage::storage::{EntrySink, State};

pub use build::MapBuilder;
pub(crate) use build::{Replay, ReplayInto, Replayed};
pub(crate) use hash::{Hash, SHARDS, Table, shard};
pub use ordered::Ordered;
pub(crate) use replay::OrderedReplay;

use crate::entry::{Entry, Name, read_ahead};

/// All entries, in a hash index for point reads and an ordered index for all other operations.
pub struct Map {
    hash: Hash,
    ordered: Ordered,
    seq: Seq,
}

impl Map {
    /// Returns an empty map, which shows the state before the first commit.
    pub fn new() -> Self {
        Self { hash: Hash::new(), ordered: Ordered::new(), seq: 0 }
    }

    /// Returns the entry of `key` outside tables, even if it has expired.
    pub fn get(&self, key: &[u8]) -> Option<Entry> {
        self.find(Name::plain(key)).cloned()
    }

    /// Returns the entry of `name`, even if it has expired.
    pub fn find(&self, name: Name<'_>) -> Option<&Entry> {
        self.hash.find(self.hash.hasher().hash(name), name)
    }

    /// Returns the number of entries outside tables, including those that have expired.
    pub fn len(&self) -> usize {
        self.ordered.len()
    }

    /// Returns true if there are no entries outside tables.
    pub fn is_empty(&self) -> bool {
        self.ordered.is_empty()
    }

    /// Returns the current entries in key order. Takes O(1).
    pub fn ordered(&self) -> Ordered {
        self.ordered.clone()
    }

    /// Returns a reference to the ordered index.
    pub(crate) fn ordered_ref(&self) -> &Ordered {
        &self.ordered
    }

    /// Returns the last commit that the map contains.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Returns the hash index.
    pub(crate) fn hash(&self) -> &Hash {
        &self.hash
    }

    /// Makes `work` visible. Short, and cannot fail: `work` contains each table that is needed, and
    /// receives each removed entry, so that this call grows no table and frees no entry.
    pub(crate) fn apply(&mut self, work: &mut Work) {
        // Order: the clear comes before the tables and the steps, which contain the state after it.
        if work.clear {
            let fresh = self.hash.cleared(false);
            work.freed.hashes.push(mem::replace(&mut self.hash, fresh));
            work.freed.ordered.push(mem::take(&mut self.ordered));
        }
        // Larger tables replace theirs before the steps, so that no insertion grows a table.
        for (shard, table) in work.tables.drain(..) {
            work.freed.tables.extend(self.hash.replace(shard, table));
        }
        if let Some(ordered) = work.ordered.take() {
            work.freed.ordered.push(mem::replace(&mut self.ordered, ordered));
        } else {
            work.apply_to(&mut self.ordered);
        }
        if work.hash_done {
            // The replaced tables hold the removed entries, so the steps are freed with them.
            work.freed.steps = mem::take(&mut work.steps);
        }
        // Replaced and removed entries move to `freed`, whose owner drops them without the lock.
        for Step { entry, hash, kind } in work.steps.drain(..) {
            match kind {
                StepKind::Put { .. } => {
                    work.freed.entries.extend(self.hash.insert(hash, entry));
                }
                StepKind::Remove => {
                    work.freed.entries.extend(self.hash.remove(hash, entry.name()));
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

/// The changes of a commit group to a [`Map`], prepared so that [`Map::apply`] grows no table and
/// frees no entry. `freed` must have room for two entries for each step.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Whether all entries outside tables are removed before the steps. If there are entries in
    /// tables, `hash_done` is true and `ordered` is there.
    pub(crate) clear: bool,
    /// Larger hash tables, each with the index of the shard whose table it replaces.
    pub(crate) tables: Vec<(usize, Table)>,
    /// Whether `tables` replaces all tables, and the steps are already applied to them.
    pub(crate) hash_done: bool,
    /// The ordered index with the steps already applied, if the caller has built it.
    pub(crate) ordered: Option<Ordered>,
    /// The changes, in order.
    pub(crate) steps: Vec<Step>,
    /// The last commit of the group.
    pub(crate) seq: Option<Seq>,
    /// The parts that the map no longer uses. They are freed after the lock was released.
    pub(crate) freed: Freed,
}

impl Work {
    /// Applies the steps to a copy of the ordered index, for [`Work::ordered`].
    pub(crate) fn apply_to(&self, ordered: &mut Ordered) {
        for step in &self.steps {
            match step.kind {
                StepKind::Put { .. } => ordered.insert(step.entry.clone()),
                StepKind::Remove => ordered.remove(step.entry.name()),
            }
        }
    }
}

/// One change of a [`Map`].
#[derive(Debug)]
pub(crate) struct Step {
    /// The new entry, or the entry to remove.
    pub(crate) entry: Entry,
    /// The hash of its key.
    pub(crate) hash: u64,
    /// The kind of the change.
    pub(crate) kind: StepKind,
}

impl Step {
    /// Returns true if the step, number `number` of its group, has no effect because of a clear
    /// before the step `cleared`. A clear leaves the entries of tables.
    pub(crate) fn is_void(&self, number: usize, cleared: usize) -> bool {
        number < cleared && self.entry.table().is_none()
    }
}

/// The kind of a [`Step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepKind {
    /// The entry is added, or replaces the entry with the same key.
    Put {
        /// Whether no entry with this key exists before.
        new: bool,
    },
    /// The entry is removed.
    Remove,
}

/// The parts that [`Map::apply`] has removed from a [`Map`].
#[derive(Debug, Default)]
pub(crate) struct Freed {
    /// Steps that were applied to the tables beforehand.
    pub(crate) steps: Vec<Step>,
    /// Replaced and removed entries.
    pub(crate) entries: Vec<Entry>,
    /// Tables that larger ones have replaced.
    pub(crate) tables: Vec<Table>,
    /// Cleared hash indexes.
    pub(crate) hashes: Vec<Hash>,
    /// Cleared or replaced ordered indexes.
    pub(crate) ordered: Vec<Ordered>,
}

#[cfg(feature = "shared")]
impl Freed {
    /// Moves all parts of `other` to the end of these.
    pub(crate) fn append(&mut self, other: &mut Self) {
        self.steps.append(&mut other.steps);
        self.entries.append(&mut other.entries);
        self.tables.append(&mut other.tables);
        self.hashes.append(&mut other.hashes);
        self.ordered.append(&mut other.ordered);
    }
}

/// Frees many entries faster than dropping them one by one would.
impl Drop for Freed {
    fn drop(&mut self) {
        if self.entries.len() > FEW {
            read_ahead(self.entries.drain(..)).for_each(drop);
        }
        self.tables.drain(..).for_each(|table| read_ahead(table.into_iter()).for_each(drop));
    }
}

/// The number of entries for which reading ahead takes longer than it saves.
const FEW: usize = 4;

/// An ordered index, as the state of which an image is written.
pub(crate) struct Image(pub(crate) Ordered);

impl State for Image {
    fn len(&self) -> u64 {
        u64::try_from(self.0.len_with_tables()).unwrap_or(u64::MAX)
    }

    fn for_each(&self, sink: &mut EntrySink<'_>) -> codex_storage::Result<()> {
        let mut entries = self.0.iter_with_tables();
        loop {
            let next: ArrayVec<_, AHEAD> = entries.by_ref().take(AHEAD).collect();
            if next.is_empty() {
                return Ok(());
            }
            // Entries lie where the allocator put them. The processor fetches several at once if
            // each of them is touched before the first is used.
            // `read_ahead` touches their beginnings only, with which a checkpoint takes 1.1 times
            // as long.
            let touched = next.iter().map(|entry| touch(entry.value()));
            hint::black_box(touched.sum::<u32>());
            next.into_iter().try_for_each(|entry| sink(entry.item()))?;
        }
    }
}

/// Reads from the lines of the cache that the first bytes of `value` are in, and from the last one.
fn touch(value: &[u8]) -> u32 {
    let lines = value.iter().step_by(LINE_BYTES).take(LINES_AHEAD);
    lines.chain(value.last()).map(|byte| u32::from(*byte)).sum()
}

/// The length of a line of the cache of the processor.
const LINE_BYTES: usize = 64;
/// The number of lines of a value that are fetched. The processor itself fetches those after them.
const LINES_AHEAD: usize = 4;
/// The number of entries that are fetched into the cache of the processor together.
const AHEAD: usize = 32;

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({} entries)", self.len())
    }
}

#[cfg(test)]
mod tests;

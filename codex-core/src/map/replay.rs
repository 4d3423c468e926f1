//! The replay of operations into the indexes. They are sorted, and many are applied together.
//!
//! Operations of a log come in any order of keys, so each of them alone would be a search of memory
//! that is not in the cache.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::mem;

use codex_storage::batch::TableId;

use super::build::{Replay, ReplayInto, Replayed};
use super::hash::{Hash, Hashed};
use super::ordered::{Ordered, OrderedBuilder};
use super::tree::Sorted;
use crate::entry::{Entry, Name, read_ahead};

/// Collects operations by their hash table, and fills table after table when they take up
/// [`HELD_BYTES_MAX`].
#[derive(Default)]
pub(super) struct HashReplay {
    hash: Hash,
    held: Hashed,
    held_bytes: usize,
}

impl HashReplay {
    fn apply(&mut self) {
        self.held_bytes = 0;
        mem::take(&mut self.held).apply(&mut self.hash);
    }

    fn push(&mut self, entry: Entry, is_removal: bool) {
        self.held_bytes += held_bytes(&entry);
        let hash = self.hash.hasher().hash(entry.name());
        self.held.push_change(hash, entry, is_removal);
        if self.held_bytes >= HELD_BYTES_MAX {
            self.apply();
        }
    }
}

impl ReplayInto for HashReplay {
    type Op = Replayed;
    type Index = Hash;

    fn replay(&mut self, op: Replayed) {
        match op {
            // Each entry that is held is part of the index in the end, so none is too many.
            Replayed::Next(entry) => {
                self.held.push(self.hash.hasher().hash(entry.name()), entry);
            }
            Replayed::Set(entry) => self.push(entry, false),
            Replayed::Remove(entry) => self.push(entry, true),
            Replayed::Clear(table) => {
                if self.held.clear(table) >= CLEARS_MAX {
                    self.apply();
                }
            }
        }
    }

    fn finish(mut self) -> Hash {
        self.apply();
        self.hash
    }
}

/// The tables that were cleared, or the entries outside tables, each with the number of changes
/// before the last time.
///
/// All of them are cleared together: one by one, each would read every entry of the store.
#[derive(Default)]
pub(super) struct Clears(BTreeMap<Option<TableId>, usize>);

impl Clears {
    /// Clears `table` after `before` changes. Returns the number of tables.
    pub(super) fn add(&mut self, table: Option<TableId>, before: usize) -> usize {
        self.0.insert(table, before);
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether the entries of `table` before all changes are cleared.
    pub(super) fn contains(&self, table: Option<TableId>) -> bool {
        self.0.contains_key(&table)
    }

    /// Returns whether `table` was cleared after change number `at`.
    pub(super) fn is_after(&self, at: usize, table: Option<TableId>) -> bool {
        self.0.get(&table).is_some_and(|before| at < *before)
    }
}

/// Collects operations, and merges them with the entries when they take up [`HELD_BYTES_MAX`], or a
/// quarter of the entries. An [`Ordered`] is built in the end.
#[derive(Default)]
pub(crate) struct OrderedReplay {
    /// The entries before the first change. If there is no change, they make the index.
    run: Option<Replay<OrderedBuilder>>,
    /// The entries that were merged, in the order of images.
    entries: Vec<Entry>,
    /// The memory, in bytes, that the entries took up when they were merged.
    entries_bytes: usize,
    /// The operations after these. The first are sorted, [`CHUNK`] by chunk.
    changes: Vec<Change>,
    sorted: usize,
    clears: Clears,
    /// The number of bytes with which all keys of `changes` begin.
    common: usize,
    /// The value of `common` for which the ranks of the sorted changes were made.
    common_of_ranks: usize,
    held_bytes: usize,
}

/// A change of the entry of one name.
struct Change {
    table: Option<TableId>,
    /// The number of changes before it.
    at: usize,
    /// Whether the entry of this name is removed, rather than replaced by `entry`.
    is_removal: bool,
    /// The next bytes of the key after those that all keys have in common. A comparison of two
    /// changes reads their keys only if these are the same.
    rank: u64,
    entry: Entry,
}

impl OrderedReplay {
    fn push(&mut self, entry: Entry, is_removal: bool) {
        self.end_run();
        let Name { table, key } = entry.name();
        self.common = match self.changes.first() {
            None => key.len(),
            Some(first) => Entry::common(first.entry.key(), key).min(self.common),
        };
        self.held_bytes += held_bytes(&entry);
        let at = self.changes.len();
        self.changes.push(Change { table, at, is_removal, rank: 0, entry });
        if self.changes.len() - self.sorted >= CHUNK {
            self.sort_chunk();
        }
        if self.held_bytes >= HELD_BYTES_MAX.max(self.entries_bytes / 4) {
            self.apply();
        }
    }

    fn clear(&mut self, table: Option<TableId>) {
        self.end_run();
        if self.clears.add(table, self.changes.len()) >= CLEARS_MAX {
            self.apply();
        }
    }

    fn end_run(&mut self) {
        if let Some(run) = self.run.take() {
            self.entries = run.finish().into_entries();
            self.entries_bytes = self.entries.iter().map(held_bytes).sum();
        }
    }

    /// Sorts the changes after those that are sorted.
    fn sort_chunk(&mut self) {
        // A rank after a longer beginning is not comparable with those after a shorter one.
        let is_shorter = mem::replace(&mut self.common_of_ranks, self.common) != self.common;
        let unranked = if is_shorter { 0 } else { self.sorted };
        for change in self.changes.iter_mut().skip(unranked) {
            change.rank = rank(change.entry.key(), self.common);
        }
        if let Some(chunk) = self.changes.get_mut(self.sorted..) {
            chunk.sort_by(Change::order);
        }
        self.sorted = self.changes.len();
    }

    /// Merges the changes with the entries.
    fn apply(&mut self) {
        let mut merged = Vec::with_capacity(self.entries.len() + self.changes.len());
        let mut bytes = 0;
        self.merge(|entry| {
            bytes += held_bytes(&entry);
            merged.push(entry);
        });
        (self.entries, self.entries_bytes) = (merged, bytes);
    }

    /// Calls `take` with all entries after the changes, in order.
    fn merge(&mut self, mut take: impl FnMut(Entry)) {
        self.sort_chunk();
        let clears = mem::take(&mut self.clears);
        if !clears.is_empty() {
            self.changes.retain(|change| !clears.is_after(change.at, change.table));
            self.entries.retain(|entry| !clears.contains(entry.table()));
        }
        // The sort is stable, so the changes of one name stay in order. It merges sorted chunks.
        self.changes.sort_by(Change::order);
        // Of the changes of one name, the last one counts.
        self.changes.dedup_by(|next, kept| {
            let is_same = next.order(kept).is_eq();
            if is_same {
                mem::swap(next, kept);
            }
            is_same
        });
        (self.sorted, self.held_bytes) = (0, 0);
        let (entries, changes) = (mem::take(&mut self.entries), mem::take(&mut self.changes));
        let mut changes = read_ahead(changes.into_iter()).peekable();
        for entry in read_ahead(entries.into_iter()) {
            let mut is_replaced = false;
            while let Some(change) = changes.next_if(|change| {
                let order = change.order_to(&entry);
                is_replaced |= order.is_eq();
                order.is_le()
            }) {
                change.put(&mut take);
            }
            if !is_replaced {
                take(entry);
            }
        }
        changes.for_each(|change| change.put(&mut take));
    }
}

impl ReplayInto for OrderedReplay {
    type Op = Replayed;
    type Index = Ordered;

    fn replay(&mut self, op: Replayed) {
        match op {
            Replayed::Next(entry) => self.run.get_or_insert_with(builder).push(entry),
            Replayed::Set(entry) => self.push(entry, false),
            Replayed::Remove(entry) => self.push(entry, true),
            Replayed::Clear(table) => self.clear(table),
        }
    }

    fn finish(mut self) -> Ordered {
        if let Some(run) = self.run {
            return run.finish();
        }
        // One thread merges, another one builds the nodes.
        let mut merged = builder();
        self.merge(|entry| merged.push(entry));
        merged.finish()
    }
}

fn builder() -> Replay<OrderedBuilder> {
    Replay::new("codexdb-tree", OrderedBuilder::default())
}

impl Change {
    /// Compares the names. Entries outside tables come first.
    fn order(&self, other: &Self) -> Ordering {
        let ranks = (self.table, self.rank).cmp(&(other.table, other.rank));
        ranks.then_with(|| self.entry.key().cmp(other.entry.key()))
    }

    /// Compares the name with that of `entry`.
    fn order_to(&self, entry: &Entry) -> Ordering {
        self.table.cmp(&entry.table()).then_with(|| self.entry.key().cmp(entry.key()))
    }

    fn put(self, take: &mut impl FnMut(Entry)) {
        if !self.is_removal {
            take(self.entry);
        }
    }
}

impl Borrow<Entry> for Change {
    fn borrow(&self) -> &Entry {
        &self.entry
    }
}

/// Returns the memory, in bytes, that a change of `entry` takes up.
fn held_bytes(entry: &Entry) -> usize {
    HELD_BYTES_EACH + entry.key().len() + entry.value().len()
}

/// Returns the bytes of `key` after the first `common` as a number.
#[expect(clippy::big_endian_bytes, reason = "such numbers are in the order of the bytes")]
fn rank(key: &[u8], common: usize) -> u64 {
    let mut next = [0; 8];
    next.iter_mut().zip(key.iter().skip(common)).for_each(|(to, byte)| *to = *byte);
    u64::from_be_bytes(next)
}

/// The number of changes that are sorted at a time, while the next ones are read.
const CHUNK: usize = 32_768;
/// The memory, in bytes, that changes may take up before they are applied. Entries that are
/// replaced by later operations are kept until then.
pub(super) const HELD_BYTES_MAX: usize = 128 << 20;
/// The memory that a change takes up besides its key and its value, in bytes.
const HELD_BYTES_EACH: usize = 48;
/// The number of cleared tables at which the operations are applied.
const CLEARS_MAX: usize = 1024;

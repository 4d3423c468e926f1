//! The construction of a map from the operations that a storage replays.
//!
//! The entries of an image come first and have ascending keys, so the indexes need not look them
//! up. All later operations are sorted, and applied many at a time.

use std::mem;
use std::panic;
use std::sync::Arc;

use codex_storage::batch::{Item, Op, Seq, TableId};
use codex_storage::sync::Mutex;
use codex_storage::sync::channel::{SyncSender, sync_channel};
use codex_storage::sync::thread::{self, JoinHandle};

use super::Map;
use super::replay::{HashReplay, OrderedReplay};
use crate::entry::{Entry, Name};

/// Collects replayed operations into a [`Map`].
///
/// The two indexes are independent, so each replays all operations by itself.
pub struct MapBuilder {
    hash: Replay<HashReplay>,
    ordered: Replay<OrderedReplay>,
    run: Option<Run>,
}

/// The last of the entries so far, which have ascending names.
#[derive(Default)]
struct Run {
    table: Option<TableId>,
    /// `None` before the first entry.
    key: Option<Vec<u8>>,
}

/// The replay of operations into an index, on a thread of its own, beside the thread that reads
/// them. For a few operations no thread is started.
pub(crate) struct Replay<I: ReplayInto> {
    /// The name of the thread.
    name: &'static str,
    /// The operations that were not passed on yet.
    batch: Vec<I::Op>,
    place: Place<I>,
}

/// The place of an index, with all operations that were passed on.
enum Place<I: ReplayInto> {
    /// The index is here. It is taken out only while a thread starts.
    Here(Option<I>),
    /// A thread has the index.
    Elsewhere { batches: SyncSender<Vec<I::Op>>, thread: JoinHandle<I::Index> },
}

/// An operation that is replayed.
#[derive(Clone)]
pub(crate) enum Replayed {
    /// Sets an entry whose name comes after those of all operations before.
    Next(Entry),
    Set(Entry),
    /// An entry of the same name, without a value.
    Remove(Entry),
    Clear(Option<TableId>),
}

/// An index to which operations are applied, in order.
pub(crate) trait ReplayInto: Send + 'static {
    /// An operation.
    type Op: Send;
    /// The index with all operations.
    type Index: Send;

    fn replay(&mut self, op: Self::Op);

    fn finish(self) -> Self::Index;
}

impl MapBuilder {
    /// Returns a builder without operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next operation.
    pub fn push(&mut self, op: Op<'_>) {
        let op = match op {
            Op::Set(item) if self.run.as_mut().is_some_and(|run| run.goes_on(item)) => {
                Replayed::Next(Entry::from_item(item))
            }
            _ => {
                self.run = None;
                Replayed::from(op)
            }
        };
        self.hash.push(op.clone());
        self.ordered.push(op);
    }

    /// Returns the map, which contains all commits up to `seq`.
    pub fn finish(self, seq: Seq) -> Map {
        Map { hash: self.hash.finish(), ordered: self.ordered.finish(), seq }
    }
}

impl Default for MapBuilder {
    fn default() -> Self {
        Self {
            hash: Replay::new("codexdb-hash", HashReplay::default()),
            ordered: Replay::new("codexdb-order", OrderedReplay::default()),
            run: Some(Run::default()),
        }
    }
}

impl Run {
    /// Returns whether `item` comes after all entries so far, and is the last one from now on.
    fn goes_on(&mut self, Item { table, key, .. }: Item<'_>) -> bool {
        let last = self.key.as_deref().map(|key| (self.table, key));
        if last.is_some_and(|last| last >= (table, key)) {
            return false;
        }
        self.table = table;
        let last = self.key.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        true
    }
}

impl<I: ReplayInto> Replay<I> {
    /// Returns a replay that continues with `index`. The thread would have the name `name`.
    pub(crate) fn new(name: &'static str, index: I) -> Self {
        Self { name, batch: Vec::new(), place: Place::Here(Some(index)) }
    }

    /// Adds the next operation.
    pub(crate) fn push(&mut self, op: I::Op) {
        self.batch.push(op);
        if self.batch.len() >= BATCH {
            if let Place::Here(index) = &mut self.place {
                self.place = Place::start(self.name, index.take().expect(IS_HERE));
            }
            let batch = mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
            self.place.pass_on(batch);
        }
    }

    /// Returns the index with all operations.
    pub(crate) fn finish(mut self) -> I::Index {
        self.place.pass_on(self.batch);
        match self.place {
            Place::Here(index) => index.expect(IS_HERE).finish(),
            Place::Elsewhere { batches, thread } => {
                // Order: close the channel before the join. The thread ends when the channel is
                // closed and empty.
                drop(batches);
                thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
            }
        }
    }
}

impl<I: ReplayInto> Place<I> {
    /// Starts a thread that continues with `index`, or none if the system cannot start one.
    fn start(name: &str, index: I) -> Self {
        let (batches, passed_on) = sync_channel::<Vec<I::Op>>(BATCHES_WAITING);
        // A thread that cannot start drops its function, but not the index.
        let index = Arc::new(Mutex::new(Some(index)));
        let theirs = Arc::clone(&index);
        let spawned = thread::spawn(name, move || {
            let mut index = theirs.lock().take().expect("only this thread takes the index");
            passed_on.iter().flatten().for_each(|op| index.replay(op));
            index.finish()
        });
        match spawned {
            Ok(thread) => Self::Elsewhere { batches, thread },
            Err(_) => Self::Here(index.lock().take()),
        }
    }

    fn pass_on(&mut self, batch: Vec<I::Op>) {
        match self {
            Self::Here(index) => {
                let index = index.as_mut().expect(IS_HERE);
                for op in batch {
                    index.replay(op);
                }
            }
            // Sending fails only if the thread panicked, and `finish` passes its panic on.
            Self::Elsewhere { batches, .. } => _ = batches.send(batch),
        }
    }
}

impl From<Op<'_>> for Replayed {
    fn from(op: Op<'_>) -> Self {
        match op {
            Op::Set(item) => Self::Set(Entry::from_item(item)),
            Op::Remove { table, key } => Self::Remove(Entry::without_value(Name { table, key })),
            Op::Clear { table } => Self::Clear(table),
        }
    }
}

codex_storage::opaque_debug!(MapBuilder);

/// The number of operations in a batch.
const BATCH: usize = 4096;
/// The maximum number of batches that wait for a thread. It limits the memory of the channel.
const BATCHES_WAITING: usize = 8;
const IS_HERE: &str = "the index is here unless a thread starts";

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use codex_storage::batch::{Item, Op, TableId};
    use codex_storage::vfs::SeededEntropy;

    use super::super::replay::HELD_BYTES_MAX;
    use super::{BATCH, MapBuilder};
    use crate::entry::{Entry, Name};
    use crate::map::Map;

    /// The value and the expiry of each entry, in the order of images.
    type Model = BTreeMap<(Option<TableId>, Vec<u8>), (Vec<u8>, Option<i64>)>;

    /// A builder, and what it must build.
    #[derive(Default)]
    struct Both {
        builder: MapBuilder,
        model: Model,
    }

    impl Both {
        /// Sets a key of the table `id`, or outside tables if that is 0, to `n`. Every third value
        /// expires.
        fn set(&mut self, id: u32, key: &[u8], n: u32) {
            let (table, value) = (TableId::new(id), n.to_le_bytes());
            let expires_us = n.is_multiple_of(3).then_some(i64::from(n % 1_000) - 500);
            self.builder.push(Op::Set(Item { table, key, value: &value, expires_us }));
            self.model.insert((table, key.to_vec()), (value.to_vec(), expires_us));
        }

        fn remove(&mut self, id: u32, key: &[u8]) {
            let table = TableId::new(id);
            self.builder.push(Op::Remove { table, key });
            self.model.remove(&(table, key.to_vec()));
        }

        fn clear(&mut self, id: u32) {
            let table = TableId::new(id);
            self.builder.push(Op::Clear { table });
            self.model.retain(|(of, _), _| *of != table);
        }

        fn check(self) {
            let (map, model) = (self.builder.finish(7), self.model);
            assert_eq!(map.seq(), 7);
            // The entries in the order of images, with the plain ones alone too.
            let all = map.ordered();
            let found = all.iter_with_tables().map(parts);
            let wanted = model.iter().map(|(name, entry)| (name.clone(), entry.clone()));
            assert!(found.eq(wanted), "{} entries", model.len());
            let plain = model.keys().filter(|(table, _)| table.is_none());
            assert!(all.iter().map(Entry::key).eq(plain.clone().map(|(_, key)| &key[..])));
            assert_eq!((map.len(), all.len_with_tables()), (plain.count(), model.len()));
            // Those that expire, in the order of their expiries.
            let mut due: Vec<_> = all.expired_at(i64::MAX).map(parts).collect();
            assert!(due.is_sorted_by_key(|(_, (_, expires_us))| *expires_us));
            assert_eq!(all.first_deadline(), due.first().and_then(|(_, (_, first))| *first));
            due.sort();
            let wanted = model.iter().filter(|(_, (_, expires_us))| expires_us.is_some());
            assert_eq!(all.expiring(), due.len());
            assert!(due.iter().map(|(name, entry)| (name, entry)).eq(wanted));
            // Each entry of the one index is that of the other.
            all.iter_with_tables().for_each(|entry| {
                let found = hashed(&map, entry.name()).expect("the hash index has the entry");
                assert!(found.same(entry) && all.get(entry.name()).is_some_and(|e| e.same(entry)));
            });
            for (table, key) in model.keys() {
                let missing = [key, &b"-"[..]].concat();
                assert!(hashed(&map, Name { table: *table, key: &missing }).is_none());
            }
        }
    }

    /// Table and key of an entry, then its value and its expiry.
    type Parts = ((Option<TableId>, Vec<u8>), (Vec<u8>, Option<i64>));

    fn parts(entry: &Entry) -> Parts {
        let value = (entry.value().to_vec(), entry.expires_us());
        ((entry.table(), entry.key().to_vec()), value)
    }

    fn hashed<'a>(map: &'a Map, name: Name<'_>) -> Option<&'a Entry> {
        map.hash().find(map.hash().hasher().hash(name), name)
    }

    fn key(n: u32) -> Vec<u8> {
        format!("user:{n:07}").into_bytes()
    }

    /// Runs of entries outside tables and in three tables, as an image has them.
    #[test]
    fn a_run_of_plain_entries_and_tables_builds_both_indexes() {
        // The second is so large that a second thread fills some of the hash tables.
        for counts in [[0, 0, 0, 0], [20_000, 9_000, 1, 4_000], [0, 500, 0, 500], [5, 0, 0, 0]] {
            let mut both = Both::default();
            for (id, count) in [0, 1, 7, u32::MAX].into_iter().zip(counts) {
                (0..count).for_each(|n| both.set(id, &key(n), n));
            }
            assert!(both.builder.run.is_some(), "each entry is part of it");
            both.check();
        }
    }

    /// A run, then the operations of a log.
    #[test]
    fn operations_after_a_run_change_both_indexes() {
        for ops in [1, 100, BATCH, 3 * BATCH] {
            let (mut both, random) = (Both::default(), SeededEntropy::new(1));
            let below = |bound| u32::try_from(random.below(bound)).unwrap();
            for id in [0, 1, 2] {
                (0..3_000).for_each(|n| both.set(id, &key(n), n));
            }
            for n in 0..ops {
                let (id, at) = (below(4), below(4_000));
                match below(2_000) {
                    0 => both.clear(id),
                    1..600 => both.remove(id, &key(at)),
                    _ => both.set(id, &key(at), u32::try_from(n).unwrap()),
                }
            }
            both.check();
        }
    }

    /// Each of these is no part of the run before it.
    #[test]
    fn an_entry_that_is_not_the_next_one_ends_the_run() {
        for (id, at) in [(1, 9), (1, 8), (0, 10), (0, 3), (1, 0)] {
            let mut both = Both::default();
            for table in [0, 1] {
                (0..10).for_each(|n| both.set(table, &key(n), n));
            }
            both.set(id, &key(at), 77);
            assert!(both.builder.run.is_none(), "{id} {at}");
            both.check();
        }
    }

    /// More changes than are sorted at a time, first of keys that begin alike, then of others.
    #[test]
    fn changes_that_are_sorted_in_parts_build_both_indexes() {
        let mut both = Both::default();
        (0..100).for_each(|n| both.set(0, &key(n * 1_000), n));
        for n in 0..40_000_u32 {
            both.set(0, &key(n.wrapping_mul(7_919) % 100_003), n);
        }
        (0..1_000).for_each(|n| both.set(0, format!("a{n}").as_bytes(), n));
        (0..1_000).for_each(|n| both.remove(0, &key(n)));
        both.check();
    }

    /// Changes that take up more memory than may be held are merged in the middle, and are then
    /// replaced, removed and cleared.
    #[test]
    fn changes_that_are_merged_in_the_middle_build_both_indexes() {
        let mut both = Both::default();
        (0..100).for_each(|n| both.set(0, &key(n), n));
        both.set(1, b"cleared", 1);
        for n in 0..3 * u32::try_from(HELD_BYTES_MAX / LARGE_KEY).unwrap() {
            let mut large = vec![7; LARGE_KEY];
            large[0] = n.wrapping_mul(7_919).to_le_bytes()[0];
            match n % 5 {
                4 => both.remove(0, &large),
                _ => both.set(0, &large, n),
            }
        }
        both.clear(1);
        both.set(1, b"kept", 2);
        both.check();
    }

    /// More cleared tables than are kept: they are cleared together, and those that are filled
    /// again before or after keep the later entries alone.
    #[test]
    fn tables_that_are_cleared_together_lose_what_was_before_and_keep_what_came_after() {
        let mut both = Both::default();
        for id in 0..40 {
            (0..3).for_each(|n| both.set(id, &key(n), n));
        }
        for round in 0..4 {
            for id in 0..40 {
                both.set(id, &key(round), round);
                both.clear(id);
                if id % (round + 2) == 0 {
                    both.set(id, &key(1), 10 + round);
                }
            }
        }
        (1_000..3_500).for_each(|id| both.clear(id));
        both.set(0, b"last", 1);
        both.check();
    }

    const LARGE_KEY: usize = 60_000;

    #[test]
    fn both_indexes_agree_whether_they_were_built_here_or_by_threads() {
        for count in [0, 1, BATCH - 1, BATCH, BATCH + 1, 20 * BATCH] {
            let mut both = Both::default();
            for n in 0..count {
                let key = (n * 7919 % 10_007).to_string().into_bytes();
                match n % 9 {
                    8 => both.remove(0, &key),
                    _ if n == count / 2 => both.clear(0),
                    _ => both.set(0, &key, u32::try_from(n).unwrap()),
                }
            }
            both.check();
        }
    }
}

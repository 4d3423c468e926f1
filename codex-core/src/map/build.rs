//! The construction of a map from the operations that a storage replays.
//!
//! The entries of an image come first and have ascending keys. They form a [`Run`], of which both
//! indexes are built at their final size. All later operations are applied to these indexes.

use std::mem;
use std::panic;

use codex_storage::batch::{Op, Seq, TableId};
use codex_storage::sync::channel::{Sender, bounded};
use codex_storage::sync::thread::{self, JoinHandle};

use super::hash::{Hashed, Hasher};
use super::ordered::OrderedBuilder;
use super::{Hash, Map, Ordered};
use crate::entry::{Entry, Name};

/// Collects replayed operations into a [`Map`].
///
/// The two indexes are independent, so each replays the operations after the first run by itself.
#[derive(Default)]
pub struct MapBuilder {
    indexes: Indexes,
}

/// The indexes, or the operations from which they are built.
enum Indexes {
    /// All operations so far are a run.
    Run(Box<Run>),
    Replay(Box<(Replay<Hash>, Replay<Ordered>)>),
}

/// Entries in ascending order of their keys.
#[derive(Default)]
struct Run {
    hasher: Hasher,
    hashed: Hashed,
    ordered: OrderedBuilder,
}

/// The replay of operations into an index, on a thread of its own, beside the thread that reads
/// them. For a few operations no thread is started.
pub(crate) struct Replay<I> {
    /// The name of the thread.
    name: &'static str,
    /// The operations that were not passed on yet.
    batch: Vec<Replayed>,
    place: Place<I>,
}

/// The place of an index, with all operations that were passed on.
enum Place<I> {
    /// The index is here. It is taken out only while a thread starts.
    Here(Option<I>),
    /// A thread has the index.
    Elsewhere { batches: Sender<Vec<Replayed>>, thread: JoinHandle<I> },
}

/// An operation that is replayed.
#[derive(Clone)]
pub(crate) enum Replayed {
    Set(Entry),
    /// An entry of the same name, without a value.
    Remove(Entry),
    Clear(Option<TableId>),
}

/// An index that can replay operations.
pub(crate) trait ReplayInto: Send + 'static {
    fn replay(&mut self, op: Replayed);
}

impl MapBuilder {
    /// Returns a builder without operations.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next operation.
    pub fn push(&mut self, op: Op<'_>) {
        if let Indexes::Run(run) = &mut self.indexes {
            match op {
                Op::Set(item) if run.ordered.is_next(Name { table: item.table, key: item.key }) => {
                    return run.push(Entry::from_item(item));
                }
                _ => {
                    let (hash, ordered) = mem::take(&mut **run).build();
                    let hash = Replay::new("codexdb-hash", hash);
                    let ordered = Replay::new("codexdb-order", ordered);
                    self.indexes = Indexes::Replay(Box::new((hash, ordered)));
                }
            }
        }
        if let Indexes::Replay(indexes) = &mut self.indexes {
            let op = Replayed::from(op);
            indexes.0.push(op.clone());
            indexes.1.push(op);
        }
    }

    /// Returns the map, which contains all commits up to `seq`.
    pub fn finish(self, seq: Seq) -> Map {
        let (hash, ordered) = match self.indexes {
            Indexes::Run(run) => run.build(),
            Indexes::Replay(indexes) => (indexes.0.finish(), indexes.1.finish()),
        };
        Map { hash, ordered, seq }
    }
}

impl Run {
    /// Adds `entry`, whose name comes after all others. Does all that reads the key while it is in
    /// the cache.
    fn push(&mut self, entry: Entry) {
        self.hashed.push(self.hasher.hash(entry.name()), entry.clone());
        self.ordered.push(entry);
    }

    fn build(self) -> (Hash, Ordered) {
        (self.hashed.build(self.hasher), self.ordered.finish())
    }
}

impl Default for Indexes {
    fn default() -> Self {
        Self::Run(Box::default())
    }
}

impl<I: ReplayInto> Replay<I> {
    /// Returns a replay that continues with `index`. The thread would have the name `name`.
    pub(crate) fn new(name: &'static str, index: I) -> Self {
        Self { name, batch: Vec::new(), place: Place::Here(Some(index)) }
    }

    /// Adds the next operation.
    pub(crate) fn push(&mut self, op: Replayed) {
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
    pub(crate) fn finish(mut self) -> I {
        self.place.pass_on(self.batch);
        match self.place {
            Place::Here(index) => index.expect(IS_HERE),
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
        let (batches, passed_on) = bounded::<Vec<Replayed>>(BATCHES_WAITING);
        let (give, taken) = bounded::<I>(1);
        let spawned = thread::spawn(name, move || {
            let mut index = taken.recv().expect("the index is sent right after the start");
            passed_on.iter().flatten().for_each(|op| index.replay(op));
            index
        });
        // Order: send the index after the start. A thread that cannot start would drop it.
        let Ok(thread) = spawned else { return Self::Here(Some(index)) };
        let sent = give.send(index);
        sent.expect("the thread waits for the index");
        Self::Elsewhere { batches, thread }
    }

    fn pass_on(&mut self, batch: Vec<Replayed>) {
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

impl ReplayInto for Hash {
    fn replay(&mut self, op: Replayed) {
        match op {
            Replayed::Set(entry) => {
                self.insert(self.hasher().hash(entry.name()), entry);
            }
            Replayed::Remove(entry) => {
                self.remove(self.hasher().hash(entry.name()), entry.name());
            }
            Replayed::Clear(table) => self.clear(table),
        }
    }
}

impl ReplayInto for Ordered {
    fn replay(&mut self, op: Replayed) {
        match op {
            Replayed::Set(entry) => self.insert(entry),
            Replayed::Remove(entry) => self.remove(entry.name()),
            Replayed::Clear(table) => self.clear(table),
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

    use super::{BATCH, Indexes, MapBuilder};
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
            assert!(matches!(both.builder.indexes, Indexes::Run(_)), "each entry is part of it");
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
            assert!(matches!(both.builder.indexes, Indexes::Replay(_)), "{id} {at}");
            both.check();
        }
    }

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

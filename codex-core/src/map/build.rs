//! The construction of a map from the operations that a storage replays.
//!
//! The entries of an image come first and have ascending keys. They form a [`Run`], of which both
//! indexes are built at their final size. All later operations are applied to these indexes.

use std::mem;
use std::panic;
use std::sync::Arc;

use codex_storage::batch::{Op, Seq, TableId};
use codex_storage::sync::channel::{Sender, bounded};
use codex_storage::sync::thread::{self, JoinHandle};

use super::hash::{Hashed, Hasher};
use super::ordered::OrderedBuilder;
use super::{Hash, Map, Ordered};
use crate::entry::{Entry, Name};

/// Collects replayed operations into a [`Map`].
///
/// The two indexes are independent, so a thread for each replays the operations after the first
/// run, beside the thread that reads them. For a few operations no threads are started.
#[derive(Default)]
pub struct MapBuilder {
    batch: Vec<Replayed>,
    indexes: Indexes,
}

/// Entries in ascending order of their keys.
#[derive(Default)]
struct Run {
    hasher: Hasher,
    hashed: Hashed,
    ordered: OrderedBuilder,
}

/// An operation to be applied to both indexes.
enum Replayed {
    Set(Entry),
    /// An entry of the same name, without a value.
    Remove(Entry),
    Clear(Option<TableId>),
}

/// The indexes, with all operations except those of the current batch.
enum Indexes {
    /// They are not built yet.
    Run(Box<Run>),
    /// The thread that calls `push` builds them.
    Here(Box<(Hash, Ordered)>),
    /// Two threads build them.
    Elsewhere(Replay<Hash>, Replay<Ordered>),
}

/// A thread that replays batches into an index.
struct Replay<I> {
    batches: Sender<Arc<[Replayed]>>,
    thread: JoinHandle<I>,
}

/// An index that can replay operations.
trait Index: Send + 'static {
    fn replay(&mut self, op: &Replayed);

    fn replay_all(&mut self, ops: &[Replayed]) {
        for op in ops {
            self.replay(op);
        }
    }
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
                _ => self.indexes = Indexes::Here(Box::new(mem::take(&mut **run).build())),
            }
        }
        self.batch.push(match op {
            Op::Set(item) => Replayed::Set(Entry::from_item(item)),
            Op::Remove { table, key } => {
                Replayed::Remove(Entry::without_value(Name { table, key }))
            }
            Op::Clear { table } => Replayed::Clear(table),
        });
        if self.batch.len() >= BATCH {
            if let Indexes::Here(indexes) = &mut self.indexes {
                self.indexes = Indexes::start(mem::take(&mut **indexes));
            }
            self.pass_on();
        }
    }

    /// Returns the map, which contains all commits up to `seq`.
    pub fn finish(mut self, seq: Seq) -> Map {
        self.pass_on();
        let (hash, ordered) = match self.indexes {
            Indexes::Run(run) => run.build(),
            Indexes::Here(indexes) => *indexes,
            Indexes::Elsewhere(hash, ordered) => (hash.finish(), ordered.finish()),
        };
        Map { hash, ordered, seq }
    }

    fn pass_on(&mut self) {
        let batch = mem::take(&mut self.batch);
        match &mut self.indexes {
            // An operation that is not part of the run ends it.
            Indexes::Run(_) => {}
            Indexes::Here(indexes) => {
                indexes.0.replay_all(&batch);
                indexes.1.replay_all(&batch);
            }
            Indexes::Elsewhere(hash, ordered) => {
                // Both threads share the batch and its entries.
                let batch: Arc<[Replayed]> = batch.into();
                hash.pass_on(batch.clone());
                ordered.pass_on(batch);
                self.batch.reserve(BATCH);
            }
        }
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

impl Indexes {
    /// Starts two threads that continue with these indexes, or none if the system cannot start
    /// them.
    fn start((hash, ordered): (Hash, Ordered)) -> Self {
        let hash = match Replay::start("codexdb-hash", hash) {
            Ok(hash) => hash,
            Err(hash) => return Self::Here(Box::new((hash, ordered))),
        };
        match Replay::start("codexdb-order", ordered) {
            Ok(ordered) => Self::Elsewhere(hash, ordered),
            Err(ordered) => Self::Here(Box::new((hash.finish(), ordered))),
        }
    }
}

impl Default for Indexes {
    fn default() -> Self {
        Self::Run(Box::default())
    }
}

impl<I: Index> Replay<I> {
    /// Starts the thread. Returns the index if the system cannot start one.
    fn start(name: &str, index: I) -> Result<Self, I> {
        let (batches, passed_on) = bounded::<Arc<[Replayed]>>(BATCHES_WAITING);
        let (give, taken) = bounded::<I>(1);
        let spawned = thread::spawn(name, move || {
            let mut index = taken.recv().expect("the index is sent right after the start");
            for batch in passed_on {
                index.replay_all(&batch);
            }
            index
        });
        // Order: send the index after the start. A thread that cannot start would drop it.
        match spawned {
            Ok(thread) => {
                let sent = give.send(index);
                sent.expect("the thread waits for the index");
                Ok(Self { batches, thread })
            }
            Err(_) => Err(index),
        }
    }

    fn pass_on(&self, batch: Arc<[Replayed]>) {
        // Sending fails only if the thread panicked, and `finish` passes its panic on.
        let _ = self.batches.send(batch);
    }

    fn finish(self) -> I {
        // Order: close the channel before the join. The thread ends when the channel is closed and
        // empty.
        drop(self.batches);
        self.thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    }
}

impl Index for Hash {
    fn replay(&mut self, op: &Replayed) {
        match op {
            Replayed::Set(entry) => {
                self.insert(self.hasher().hash(entry.name()), entry.clone());
            }
            Replayed::Remove(entry) => {
                self.remove(self.hasher().hash(entry.name()), entry.name());
            }
            Replayed::Clear(table) => self.clear(*table),
        }
    }
}

impl Index for Ordered {
    fn replay(&mut self, op: &Replayed) {
        match op {
            Replayed::Set(entry) => {
                self.insert(entry.clone());
            }
            Replayed::Remove(entry) => self.remove(entry.name()),
            Replayed::Clear(table) => self.clear(*table),
        }
    }
}

codex_storage::opaque_debug!(MapBuilder);

/// The number of operations in a batch.
const BATCH: usize = 4096;
/// The maximum number of batches that wait for a thread. It limits the memory of the channel.
const BATCHES_WAITING: usize = 8;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use codex_storage::batch::{Item, Op, TableId};
    use codex_storage::vfs::SeededEntropy;

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
            assert!(both.builder.batch.is_empty(), "each entry is part of the run");
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
            assert_eq!(both.builder.batch.len(), 1, "{id} {at}");
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

//! The construction of a map from the operations that a storage replays.

use std::io;
use std::mem;
use std::panic;
use std::sync::Arc;

use codex_storage::batch::{Item, Op, Seq, TableId};
use codex_storage::sync::channel::{Sender, bounded};
use codex_storage::sync::thread::{self, JoinHandle};

use super::{Hash, Map, Ordered};
use crate::entry::Entry;

/// Collects replayed operations into a [`Map`].
///
/// The two indexes are independent, so a thread for each replays the operations, beside the thread
/// that reads them. For a few operations no threads are started.
#[derive(Default)]
pub struct MapBuilder {
    batch: Vec<Replayed>,
    indexes: Indexes,
}

/// An operation to be applied to both indexes.
enum Replayed {
    Set(Entry),
    /// An entry of the same name, without a value.
    Remove(Entry),
    Clear(Option<TableId>),
}

/// The indexes, with all batches that were passed on.
#[derive(Default)]
enum Indexes {
    /// No batch was passed on yet.
    #[default]
    None,
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
trait Index: Default + Send + 'static {
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
        self.batch.push(match op {
            Op::Set(item) => Replayed::Set(Entry::from_item(item)),
            Op::Remove { table, key } => {
                let item = Item { table, key, value: &[], expires_us: None };
                Replayed::Remove(Entry::from_item(item))
            }
            Op::Clear { table } => Replayed::Clear(table),
        });
        if self.batch.len() >= BATCH {
            self.pass_on();
        }
    }

    /// Returns the map, which contains all commits up to `seq`.
    pub fn finish(mut self, seq: Seq) -> Map {
        if let Indexes::None = self.indexes {
            self.indexes = Indexes::Here(Box::default());
        }
        self.pass_on();
        match self.indexes {
            Indexes::None => Map { seq, ..Map::new() },
            Indexes::Here(indexes) => Map { hash: indexes.0, ordered: indexes.1, seq },
            Indexes::Elsewhere(hash, ordered) => {
                Map { hash: hash.finish(), ordered: ordered.finish(), seq }
            }
        }
    }

    fn pass_on(&mut self) {
        if let Indexes::None = self.indexes {
            self.indexes = Indexes::start();
        }
        let batch = mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        match &mut self.indexes {
            Indexes::None => {}
            Indexes::Here(indexes) => {
                indexes.0.replay_all(&batch);
                indexes.1.replay_all(&batch);
            }
            Indexes::Elsewhere(hash, ordered) => {
                // Both threads share the batch and its entries.
                let batch: Arc<[Replayed]> = batch.into();
                hash.pass_on(batch.clone());
                ordered.pass_on(batch);
            }
        }
    }
}

impl Indexes {
    /// Starts two threads, or none if the system cannot start them.
    fn start() -> Self {
        let threads = Replay::start("codexdb-hash").and_then(|hash| {
            let ordered = Replay::start("codexdb-order")?;
            Ok(Self::Elsewhere(hash, ordered))
        });
        threads.unwrap_or_else(|_| Self::Here(Box::default()))
    }
}

impl<I: Index> Replay<I> {
    fn start(name: &str) -> io::Result<Self> {
        let (batches, passed_on) = bounded::<Arc<[Replayed]>>(BATCHES_WAITING);
        let thread = thread::spawn(name, move || {
            let mut index = I::default();
            for batch in passed_on {
                index.replay_all(&batch);
            }
            index
        })?;
        Ok(Self { batches, thread })
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

    use codex_storage::batch::Op;

    use super::{BATCH, MapBuilder};
    use crate::entry::Entry;

    #[test]
    fn both_indexes_agree_whether_they_were_built_here_or_by_threads() {
        for count in [0, 1, BATCH - 1, BATCH, BATCH + 1, 20 * BATCH] {
            let (mut builder, mut model) = (MapBuilder::new(), BTreeMap::new());
            for n in 0..count {
                let key = (n * 7919 % 10_007).to_string().into_bytes();
                match n % 9 {
                    8 => {
                        builder.push(Op::remove(&key));
                        model.remove(&key);
                    }
                    _ if n == count / 2 => {
                        builder.push(Op::CLEAR);
                        model.clear();
                    }
                    _ => {
                        let value = n.to_string().into_bytes();
                        builder.push(Op::set(&key, &value));
                        model.insert(key, value);
                    }
                }
            }
            let map = builder.finish(7);
            assert_eq!((map.len(), map.seq()), (model.len(), 7));
            let both = |key: &Vec<u8>, entry: &Entry| {
                map.find(key).is_some_and(|found| found.same(entry)) && model[key] == entry.value()
            };
            assert!(map.ordered().iter().all(|entry| both(&entry.key().to_vec(), entry)));
        }
    }
}

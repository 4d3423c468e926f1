//! A storage with its state in memory, like the store of the layer above, for tests of the forms.

use std::collections::BTreeMap;
use std::ops::Range;

use codex_storage::batch::{Item, Op, Seq, TableId};
use codex_storage::storage::{
    Checkpoint, Durability, EntrySink, Recovered, State, Storage, Written,
};
use codex_storage::{Config, Error, Result};

/// Keys and values in ascending order of keys, the expiries of those that have one, and the
/// entries of tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Map(pub BTreeMap<Vec<u8>, Vec<u8>>, pub BTreeMap<Vec<u8>, i64>, pub Tables);

/// The entries of tables by table and key: the value and the expiry.
pub type Tables = BTreeMap<(TableId, Vec<u8>), (Vec<u8>, Option<i64>)>;

impl Map {
    /// Applies the operation.
    pub fn apply(&mut self, op: Op<'_>) {
        match op {
            Op::Set(Item { table: Some(id), key, value, expires_us }) => {
                self.2.insert((id, key.to_vec()), (value.to_vec(), expires_us));
            }
            Op::Set(Item { table: None, key, value, expires_us }) => {
                self.0.insert(key.to_vec(), value.to_vec());
                self.1.remove(key);
                self.1.extend(expires_us.map(|expires_us| (key.to_vec(), expires_us)));
            }
            Op::Remove { table: Some(id), key } => drop(self.2.remove(&(id, key.to_vec()))),
            Op::Remove { table: None, key } => {
                self.0.remove(key);
                self.1.remove(key);
            }
            Op::Clear { table: Some(id) } => self.2.retain(|(table, _), _| *table != id),
            Op::Clear { table: None } => {
                self.0.clear();
                self.1.clear();
            }
        }
    }
}

impl State for Map {
    fn len(&self) -> u64 {
        (self.0.len() + self.2.len()) as u64
    }

    fn for_each(&self, sink: &mut EntrySink<'_>) -> Result<()> {
        self.0.iter().try_for_each(|(key, value)| {
            sink(Item { table: None, key, value, expires_us: self.1.get(key).copied() })
        })?;
        self.2.iter().try_for_each(|((id, key), (value, expires_us))| {
            sink(Item { table: Some(*id), key, value, expires_us: *expires_us })
        })
    }
}

/// An open storage.
#[derive(Debug)]
pub struct Store {
    /// The storage to test.
    pub storage: Box<dyn Storage>,
    /// The state after the last commit.
    pub map: Map,
    /// The findings of the opening.
    pub recovered: Recovered,
    lazy: bool,
}

impl Store {
    /// Opens the storage and reads its state.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a test makes a configuration for one opening"
    )]
    pub fn open(config: Config) -> Result<Self> {
        let lazy = config.durability != Durability::Sync;
        let mut map = Map::default();
        let (storage, recovered) = codex_storage::open(&config, &mut |op| {
            map.apply(op);
            Ok(())
        })?;
        Ok(Self { storage, map, recovered, lazy })
    }

    /// Commits batches as one group, and applies it after the commit.
    pub fn commit(&mut self, batches: &[&[Op<'_>]]) -> Result<Range<Seq>> {
        let mut group = self.storage.group();
        let mut after = self.map.clone();
        for batch in batches {
            for op in *batch {
                group.push(*op).unwrap();
                after.apply(*op);
            }
            group.finish();
        }
        let with_image = self.storage.form().writes_images() && !self.lazy;
        let image: Option<&dyn State> = if with_image { Some(&after) } else { None };
        let seqs = self.storage.commit(&mut group, image)?;
        self.map = after;
        Ok(seqs)
    }

    /// Commits one key in its own batch.
    pub fn set(&mut self, key: &str, value: &str) -> Result<Seq> {
        let op = Op::set(key.as_bytes(), value.as_bytes());
        Ok(self.commit(&[&[op]])?.start)
    }

    /// Begins a checkpoint of the current state.
    pub fn begin(&mut self) -> Result<Option<Checkpoint>> {
        self.storage.begin_checkpoint(&self.map)
    }

    /// Writes an image with no commit beside it. Returns whether there was an image to write.
    pub fn checkpoint(&mut self) -> Result<bool> {
        let Some(checkpoint) = self.begin()? else { return Ok(false) };
        let written = checkpoint.write(&self.map, &|_| true);
        self.storage.finish_checkpoint(written).map(|()| true)
    }

    /// Makes all commits durable, at any level.
    pub fn flush(&mut self) -> Result<()> {
        if self.storage.form().writes_images() {
            return self.checkpoint().map(|_| ());
        }
        match self.storage.sync_point()? {
            Some(point) => self.storage.synced(point.sync()),
            None => Ok(()),
        }
    }

    /// Closes the store.
    pub fn close(mut self) -> Result<()> {
        self.storage.close(&self.map)
    }

    /// Begins and abandons a checkpoint.
    pub fn abandoned(&mut self) -> Result<()> {
        let Some(checkpoint) = self.begin()? else { return Ok(()) };
        let written: Result<Written> = checkpoint.write(&self.map, &|_| false);
        match self.storage.finish_checkpoint(written) {
            Err(Error::Abandoned { .. }) => Ok(()),
            other => other,
        }
    }
}

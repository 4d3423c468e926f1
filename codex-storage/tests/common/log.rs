//! Ledgers as plain bytes, for tests that cut, flip and join them.

use std::collections::BTreeMap;

use codex_storage::batch::{Op, Seq};
use codex_storage::storage::{Durability, Form};
use codex_storage::vfs::{Mode, Open, SeededEntropy, Vfs};
use codex_storage::{Access, Config, Result, read_commits};

use super::store::{Map, Store};
use super::{Bed, NAME, bytes};

/// The file of a ledger with one commit per frame.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The form and the key with which it is opened.
    pub bed: Bed,
    /// The bytes of the file.
    pub bytes: Vec<u8>,
    /// The end of the frame of each commit. The first number is the offset of the first frame.
    pub ends: Vec<usize>,
}

impl Sample {
    /// Returns a ledger with one commit for each value, closed or left open.
    pub fn new(sealed: bool, level: Durability, values: &[Vec<u8>], closed: bool) -> Self {
        Self::with_seed(7, sealed, level, values, closed)
    }

    /// Like [`Sample::new`], with other ids and salts for another seed.
    pub fn with_seed(
        seed: u64,
        sealed: bool,
        level: Durability,
        values: &[Vec<u8>],
        closed: bool,
    ) -> Self {
        Self::in_bed(Bed::new(Vfs::mem(seed), Form::Ledger, sealed), level, values, closed)
    }

    /// Like [`Sample::new`], for a new ledger in `bed`.
    pub fn in_bed(bed: Bed, level: Durability, values: &[Vec<u8>], closed: bool) -> Self {
        let mut store = Store::open(bed.at(level)).unwrap();
        for (n, value) in values.iter().enumerate() {
            put(&mut store, n as u64 + 1, value).unwrap();
        }
        if closed {
            store.close().unwrap();
        }
        Self::of(bed)
    }

    /// Returns the ledger in the directory of `bed`.
    pub fn of(bed: Bed) -> Self {
        let mut ends = Vec::new();
        for upto in 0.. {
            let keys = bed.keys.as_deref();
            let cut = read_commits(&bed.vfs, NAME, keys, upto, &mut |_| Ok(())).unwrap();
            if cut.seq < upto {
                break;
            }
            ends.push(cut.offset as usize);
        }
        Self { bytes: bytes(&bed.vfs, NAME), bed, ends }
    }

    /// Returns the number of commits.
    pub fn commits(&self) -> u64 {
        self.ends.len() as u64 - 1
    }

    /// Returns the bytes of the frame of commit `n`.
    pub fn frame(&self, n: usize) -> &[u8] {
        &self.bytes[self.ends[n - 1]..self.ends[n]]
    }

    /// Returns a store with other bytes under the same key.
    pub fn config(&self, bytes: &[u8], access: Access) -> Config {
        let vfs = Vfs::mem(11);
        let file = vfs.dir.open(NAME, Open::CreateNew(Mode::Private)).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let mut config = Bed { vfs, ..self.bed.clone() }.config();
        config.access = access;
        config
    }

    /// Opens other bytes with the same key, for reading.
    pub fn read(&self, bytes: &[u8]) -> Result<Store> {
        Store::open(self.config(bytes, Access::ReadOnly))
    }
}

/// Commits `value` under a key with the number of the commit.
pub fn put(store: &mut Store, n: Seq, value: &[u8]) -> Result<()> {
    let key = format!("key {n}").into_bytes();
    store.commit(&[&[Op::set(&key, value)]]).map(|_| ())
}

/// Returns the state after the first `commits` of these values.
pub fn model(values: &[Vec<u8>], commits: u64) -> Map {
    let entries = values.iter().take(commits as usize).enumerate();
    Map(
        entries.map(|(n, value)| (format!("key {}", n + 1).into_bytes(), value.clone())).collect(),
        BTreeMap::new(),
        BTreeMap::new(),
    )
}

/// Returns `len` bytes, none of which is zero.
pub fn dense(seed: u64, len: usize) -> Vec<u8> {
    let random = SeededEntropy::new(seed);
    (0..len).map(|_| random.below(255) as u8 + 1).collect()
}

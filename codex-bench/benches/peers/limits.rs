//! The limits: the disk without a store, and structures in memory without a disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, RwLock};

use codex_bench::Outcome;
use codex_bench::report::Group;
use hashbrown::HashMap;

use crate::engine::{Engine, Kind, Pair, Promise, Visit, read};

pub(crate) const KINDS: [Kind; 4] = [
    Kind {
        name: RAW,
        package: "",
        group: Group::Limit,
        promises: &[Promise::Sync, Promise::Os],
        weaker: &[],
        settings: "a write in place into allocated space under a mutex; fdatasync / none",
        open: |folder, promise| Ok(Box::new(Raw::open(folder, promise)?)),
    },
    Kind {
        name: "RwLock<HashMap>",
        package: "",
        group: Group::Limit,
        promises: &[Promise::Memory],
        weaker: &[],
        settings: "hashbrown::HashMap<Vec<u8>, Vec<u8>>; no order",
        open: |_, _| Ok(Box::new(RwLock::new(HashMap::<Vec<u8>, Vec<u8>>::new()))),
    },
    Kind {
        name: "RwLock<BTreeMap>",
        package: "",
        group: Group::Limit,
        promises: &[Promise::Memory],
        weaker: &[],
        settings: "BTreeMap<Vec<u8>, Vec<u8>>",
        open: |_, _| Ok(Box::new(RwLock::new(BTreeMap::<Vec<u8>, Vec<u8>>::new()))),
    },
    Kind {
        name: BARE,
        package: "",
        group: Group::Limit,
        promises: &[],
        weaker: &[],
        settings: "HashMap<[u8; 17], Box<[u8]>> without a lock; no writes, no order",
        open: |_, _| Err("is made of its entries".into()),
    },
];

/// The name of the disk alone.
pub(crate) const RAW: &str = "raw file";
/// The name of the table that is not written.
pub(crate) const BARE: &str = "hashbrown";

/// A file that is overwritten in place.
struct Raw {
    state: Mutex<State>,
    promise: Promise,
}

struct State {
    file: File,
    at: u64,
}

impl Raw {
    fn open(folder: &Path, promise: Promise) -> Outcome<Self> {
        let path = folder.join("raw");
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.write_all_at(&vec![0; SPACE_BYTES], 0)?;
        file.sync_all()?;
        Ok(Self { state: Mutex::new(State { file, at: 0 }), promise })
    }

    fn write(&self, record: &[u8]) -> Outcome {
        let mut state = self.state.lock().map_err(|_| "a writer panicked")?;
        if state.at + record.len() as u64 > SPACE_BYTES as u64 {
            state.at = 0;
        }
        state.file.write_all_at(record, state.at)?;
        state.at += record.len() as u64;
        if self.promise == Promise::Sync {
            state.file.sync_data()?;
        }
        Ok(())
    }
}

impl Engine for Raw {
    fn set(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.write(&[key, value].concat())
    }

    fn load(&self, pairs: &[Pair]) -> Outcome {
        let whole: Vec<u8> =
            pairs.iter().flat_map(|(key, value)| [&**key, value].concat()).collect();
        self.write(&whole)
    }

    fn get(&self, _key: &[u8]) -> Outcome<Option<usize>> {
        Err("the disk alone has no keys".into())
    }

    fn scan(&self, _from: &[u8], _visit: &mut Visit<'_>) -> Outcome {
        Err("the disk alone has no keys".into())
    }
}

const SPACE_BYTES: usize = 16 << 20;

impl Engine for RwLock<HashMap<Vec<u8>, Vec<u8>>> {
    fn set(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.write().map_err(|_| POISONED)?.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn load(&self, pairs: &[Pair]) -> Outcome {
        self.write().map_err(|_| POISONED)?.extend(pairs.iter().cloned());
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<usize>> {
        Ok(self.read().map_err(|_| POISONED)?.get(key).map(|value| read(value)))
    }

    fn scan(&self, _from: &[u8], _visit: &mut Visit<'_>) -> Outcome {
        Err("a hash table has no order".into())
    }
}

impl Engine for RwLock<BTreeMap<Vec<u8>, Vec<u8>>> {
    fn set(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.write().map_err(|_| POISONED)?.insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn load(&self, pairs: &[Pair]) -> Outcome {
        self.write().map_err(|_| POISONED)?.extend(pairs.iter().cloned());
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<usize>> {
        Ok(self.read().map_err(|_| POISONED)?.get(key).map(|value| read(value)))
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Outcome {
        let map = self.read().map_err(|_| POISONED)?;
        for (key, value) in map.range(from.to_vec()..) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}

const POISONED: &str = "a writer panicked";

/// A table with its keys inside and without a lock, for reads alone.
pub(crate) struct Bare(HashMap<[u8; 17], Box<[u8]>>);

impl Bare {
    pub(crate) fn of(pairs: impl Iterator<Item = Pair>) -> Outcome<Self> {
        let mut table = HashMap::new();
        for (key, value) in pairs {
            table.insert(key.as_slice().try_into()?, value.into());
        }
        Ok(Self(table))
    }
}

impl Engine for Bare {
    fn set(&self, _key: &[u8], _value: &[u8]) -> Outcome {
        Err("the table is not written".into())
    }

    fn load(&self, _pairs: &[Pair]) -> Outcome {
        Err("the table is not written".into())
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<usize>> {
        let key: &[u8; 17] = key.try_into()?;
        Ok(self.0.get(key).map(|value| read(value)))
    }

    fn scan(&self, _from: &[u8], _visit: &mut Visit<'_>) -> Outcome {
        Err("a hash table has no order".into())
    }
}

//! Maps in memory, with one lock or none.

use std::collections::BTreeMap;
use std::sync::RwLock;

use codex_bench::Outcome;
use hashbrown::HashMap;

use crate::engine::{Engine, Pair, Visit, read};

type Bytes = Vec<u8>;
pub(super) type Hash = HashMap<Bytes, Bytes>;
pub(super) type Tree = BTreeMap<Bytes, Bytes>;

/// A map, in order or not.
pub(super) trait Map: Send + Sync + Extend<Pair> {
    fn set(&mut self, key: Bytes, value: Bytes);
    fn get(&self, key: &[u8]) -> Option<&Bytes>;
    /// Returns the entries from a key on, or nothing if the map has no order.
    fn from(&self, key: &[u8]) -> Option<impl Iterator<Item = (&Bytes, &Bytes)>>;
}

impl Map for Hash {
    fn set(&mut self, key: Bytes, value: Bytes) {
        self.insert(key, value);
    }

    fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.get(key)
    }

    fn from(&self, _key: &[u8]) -> Option<impl Iterator<Item = (&Bytes, &Bytes)>> {
        None::<std::iter::Empty<_>>
    }
}

impl Map for Tree {
    fn set(&mut self, key: Bytes, value: Bytes) {
        self.insert(key, value);
    }

    fn get(&self, key: &[u8]) -> Option<&Bytes> {
        self.get(key)
    }

    fn from(&self, key: &[u8]) -> Option<impl Iterator<Item = (&Bytes, &Bytes)>> {
        Some(self.range(key.to_vec()..))
    }
}

impl<M: Map> Engine for RwLock<M> {
    fn set(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.write().map_err(|_| POISONED)?.set(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn load(&self, pairs: &[Pair]) -> Outcome {
        self.write().map_err(|_| POISONED)?.extend(pairs.iter().cloned());
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Outcome<Option<usize>> {
        Ok(self.read().map_err(|_| POISONED)?.get(key).map(|value| read(value)))
    }

    fn has_order(&self) -> bool {
        self.read().is_ok_and(|map| map.from(&[]).is_some())
    }

    fn scan(&self, from: &[u8], visit: &mut Visit<'_>) -> Outcome {
        let map = self.read().map_err(|_| POISONED)?;
        for (key, value) in map.from(from).ok_or(UNORDERED)? {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}

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

    fn has_order(&self) -> bool {
        false
    }

    fn scan(&self, _from: &[u8], _visit: &mut Visit<'_>) -> Outcome {
        Err(UNORDERED.into())
    }
}

const POISONED: &str = "a writer panicked";
const UNORDERED: &str = "a hash table has no order";

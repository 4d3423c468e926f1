//! The two locks of a store, and the one order in which they may be taken.
//!
//! `persist` guards the disk, `data` guards memory: **`persist` before `data`**. The types
//! hold the order: memory is changed by a method of [`PersistGuard`], which only a holder of
//! `persist` has, and memory is reached through closures, so that no guard escapes.
//!
//! ```
//! use codex_core::internals::{Locks, Map};
//! let locks = Locks::new((), Map::new());
//! let mut disk = locks.persist();
//! disk.write(|map| assert!(map.is_empty()));
//! ```
//!
//! Memory cannot be changed without the lock on the disk:
//!
//! ```compile_fail
//! use codex_core::internals::{Locks, Map};
//! let locks = Locks::new((), Map::new());
//! locks.write(|map| assert!(map.is_empty()));
//! ```
//!
//! The map cannot be carried out of the lock on memory:
//!
//! ```compile_fail
//! use codex_core::internals::{Locks, Map};
//! let locks = Locks::new((), Map::new());
//! let escaped = locks.read(|map| map);
//! ```
//!
//! Nor can the lock on the disk be taken away while memory is being changed:
//!
//! ```compile_fail
//! use codex_core::internals::{Locks, Map};
//! let locks = Locks::new((), Map::new());
//! let mut disk = locks.persist();
//! disk.write(|map| drop(disk));
//! ```

use std::fmt;
use std::ops::{Deref, DerefMut};

use codex_storage::sync::{Mutex, MutexGuard, RwLock};

use crate::map::Map;
use crate::rank::{self, Held, Rank};

/// The lock on the disk, around `D`, and the lock on memory.
pub struct Locks<D> {
    persist: Mutex<D>,
    data: RwLock<Map>,
}

impl<D> Locks<D> {
    /// Free locks.
    pub fn new(disk: D, map: Map) -> Self {
        Self { persist: Mutex::new(disk), data: RwLock::new(map) }
    }

    /// Waits for the lock on the disk and takes it.
    pub fn persist(&self) -> PersistGuard<'_, D> {
        let held = rank::take(Rank::Persist);
        PersistGuard { disk: self.persist.lock(), data: &self.data, _held: held }
    }

    /// Calls `f` with memory as it is, beside other readers; waits for an apply at most. `f` takes
    /// handles and returns: it calls neither the disk nor a user's code.
    pub fn read<R>(&self, f: impl FnOnce(&Map) -> R) -> R {
        let _held = rank::take(Rank::Data);
        let map = self.data.read();
        f(&map)
    }
}

impl<D> fmt::Debug for Locks<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locks")
    }
}

/// The lock on the disk, held. It derefs to the disk, and it alone gives write access to memory.
#[must_use]
pub struct PersistGuard<'a, D> {
    disk: MutexGuard<'a, D>,
    data: &'a RwLock<Map>,
    _held: Held,
}

impl<D> PersistGuard<'_, D> {
    /// Calls `f` with memory, to read.
    pub fn read<R>(&self, f: impl FnOnce(&Map) -> R) -> R {
        let _held = rank::take(Rank::Data);
        f(&self.data.read())
    }

    /// Calls `f` with memory to change, while no thread reads. `f` is short, cannot fail, and frees
    /// nothing.
    pub fn write<R>(&mut self, f: impl FnOnce(&mut Map) -> R) -> R {
        let _held = rank::take(Rank::Data);
        f(&mut self.data.write())
    }
}

impl<D> Deref for PersistGuard<'_, D> {
    type Target = D;

    fn deref(&self) -> &D {
        &self.disk
    }
}

impl<D> DerefMut for PersistGuard<'_, D> {
    fn deref_mut(&mut self) -> &mut D {
        &mut self.disk
    }
}

impl<D> fmt::Debug for PersistGuard<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PersistGuard")
    }
}

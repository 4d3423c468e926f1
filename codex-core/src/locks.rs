//! The two locks of a store, and the order in which they may be taken.
//!
//! `persist` protects the disk, `data` protects memory, and **`persist` is taken before `data`**.
//! The types enforce the order. Only a method of [`PersistGuard`] changes memory, and only a holder
//! of `persist` has that guard. Memory is accessed in closures, so that no guard escapes.
//!
//! ```
//! use codex_core::internals::{Locks, Map};
//! let locks = Locks::new((), Map::new());
//! let mut disk = locks.persist();
//! disk.write(|_, map| assert!(map.is_empty()));
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
//! The map cannot leave the closure that reads memory:
//!
//! ```compile_fail
//! use codex_core::internals::{Locks, Map};
//! let locks = Locks::new((), Map::new());
//! let escaped = locks.read(|map| map);
//! ```
//!
//! The lock on the disk cannot be dropped while memory is being changed:
//!
//! ```compile_fail
//! use codex_core::internals::{Locks, Map};
//! let locks = Locks::new((), Map::new());
//! let mut disk = locks.persist();
//! disk.write(|_, map| drop(disk));
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
    /// Returns the locks, which nobody holds.
    pub fn new(disk: D, map: Map) -> Self {
        Self { persist: Mutex::new(disk), data: RwLock::new(map) }
    }

    /// Waits for the lock on the disk and takes it.
    pub fn persist(&self) -> PersistGuard<'_, D> {
        // Order: check the rank before the wait. A forbidden order panics instead of blocking
        // forever.
        let held = rank::take(Rank::Persist);
        PersistGuard { disk: self.persist.lock(), data: &self.data, _held: held }
    }

    /// Calls `f` with the state in memory. Does not block other readers, and waits at most for an
    /// apply. `f` clones handles and returns: it calls neither the disk nor user code.
    pub fn read<R>(&self, f: impl FnOnce(&Map) -> R) -> R {
        // Order: check the rank before the wait, as above.
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

/// The held lock on the disk. It derefs to the disk, and only it gives write access to memory.
#[must_use]
pub struct PersistGuard<'a, D> {
    disk: MutexGuard<'a, D>,
    data: &'a RwLock<Map>,
    _held: Held,
}

impl<D> PersistGuard<'_, D> {
    /// Calls `f` with the state in memory, to read it.
    pub fn read<R>(&self, f: impl FnOnce(&Map) -> R) -> R {
        let _held = rank::take(Rank::Data);
        f(&self.data.read())
    }

    /// Calls `f` with the disk, whose buffers it may change, and the state in memory, to read it.
    pub fn read_with<R>(&mut self, f: impl FnOnce(&mut D, &Map) -> R) -> R {
        let _held = rank::take(Rank::Data);
        f(&mut self.disk, &self.data.read())
    }

    /// Calls `f` with the disk, whose buffers it may change, and the state in memory, to change it
    /// while no thread reads. `f` is short, cannot fail, and frees nothing.
    pub fn write<R>(&mut self, f: impl FnOnce(&mut D, &mut Map) -> R) -> R {
        let _held = rank::take(Rank::Data);
        f(&mut self.disk, &mut self.data.write())
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

//! Ascending numbers for keys, reserved in blocks, so that most of them cost no commit.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use codex_storage::Error as StorageError;
use codex_storage::sync::Mutex;

use crate::commit::{Change, Check, Commit};
use crate::error::Result;
use crate::inner::Inner;
use crate::outer;
use crate::rank::{self, Rank};
use crate::store::Store;
use crate::tasks::{AsyncStore, Job};

/// The ids that an open store has reserved and not returned yet, by the key of the reservation.
#[derive(Default)]
pub(crate) struct Ids {
    blocks: Mutex<HashMap<Box<[u8]>, Block>>,
}

/// The rest of the last reserved block.
type Block = Arc<Mutex<Range<u64>>>;

impl Store {
    /// Returns an id that no earlier call with the same `key` has returned, and that is larger than
    /// theirs. The first one is 1.
    ///
    /// `key` is an ordinary key of the store, chosen by the caller. Its value is a `u64`, the first
    /// id that is not reserved. It appears in scans, and nothing else should write it. A call that
    /// finds no reserved id left reserves the next 256 with one commit, at the durability level of
    /// the store. All other calls write nothing.
    ///
    /// [`close`](Store::close) gives back the ids that were reserved and not returned. A crash
    /// loses them, at most 256: ids ascend, but have gaps. If the power fails at a level below
    /// `Sync`, the reservation can be lost with the commits after it, and its ids are returned
    /// again. If the key is removed, the ids still ascend until the store is closed, and begin with
    /// 1 when it is opened again. In keys, write an id with a fixed width, so that it has its place
    /// in the order.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// for job in ["wash", "shop"] {
    ///     let id = store.next_id("next job")?;
    ///     store.set(format!("jobs/{id:020}"), job)?;
    /// }
    /// let jobs: Vec<String> = store.prefix("jobs/").values().collect::<Result<_, _>>()?;
    /// assert_eq!(jobs, ["wash", "shop"]);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`update`](Store::update), [`Error::Decode`](crate::Error::Decode) if the key
    /// has a value that is no `u64`. No id was used then.
    #[doc(alias("sequence", "generate_id", "autoincrement"))]
    pub fn next_id(&self, key: impl AsRef<[u8]>) -> Result<u64> {
        let key = key.as_ref();
        self.inner.check_writable()?;
        let block = self.inner.ids.block(key);
        // Order: the lock is held during the reservation, and all ids of the key are taken under
        // it. So a thread cannot return an id of an older block after one of a newer block.
        let mut block = outer::lock(Rank::Ids, &block);
        if block.is_empty() {
            *block = self.reserve(key, block.end)?;
        }
        let id = block.start;
        block.start += 1;
        Ok(id)
    }

    /// Returns the next id if one is reserved and no call is reserving others. Waits for nothing.
    fn reserved_id(&self, key: &[u8]) -> Result<Option<u64>> {
        self.inner.check_writable()?;
        let block = self.inner.ids.block(key);
        let _rank = rank::take(Rank::Ids);
        let id = block.try_lock().and_then(|mut block| block.next());
        Ok(id)
    }

    /// Reserves the next ids of `key`, none of them below `floor`.
    fn reserve(&self, key: &[u8], floor: u64) -> Result<Range<u64>> {
        let mut start = 0;
        let end = self.try_update(key, |stored: Option<u64>| -> Result<_> {
            start = stored.unwrap_or(FIRST_ID).max(floor).max(FIRST_ID);
            let end = start.checked_add(BLOCK_LEN);
            end.map(Some).ok_or_else(|| StorageError::Contradiction(USED_UP).into())
        })?;
        Ok(start..end.unwrap_or(start))
    }
}

impl AsyncStore {
    /// Returns an id that no earlier call with the same `key` has returned. Otherwise as
    /// [`Store::next_id`]. An id that is reserved is there at the first poll. If none is left, or
    /// another call reserves some, the call is made on a thread of its own.
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// assert_eq!(store.next_id("next job").await?, 1);
    /// assert_eq!(store.next_id("next job").await?, 2);
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The future returns the errors of [`Store::next_id`].
    #[doc(alias("sequence", "generate_id", "autoincrement"))]
    pub fn next_id(&self, key: impl AsRef<[u8]>) -> Job<u64> {
        let key = key.as_ref();
        match self.blocking().reserved_id(key) {
            Ok(Some(id)) => Job::known(Ok(id)),
            Ok(None) => {
                let key = key.to_vec();
                self.on_thread(move |store| store.next_id(key))
            }
            Err(error) => Job::known(Err(error)),
        }
    }
}

impl Inner {
    /// Gives back the ids that were reserved and not returned.
    pub(crate) fn give_back_ids(&self) {
        let blocks: Vec<_> = {
            let _rank = rank::take(Rank::Queue);
            let blocks = self.ids.blocks.lock();
            blocks.iter().map(|(key, block)| (key.clone(), Arc::clone(block))).collect()
        };
        for (key, block) in blocks {
            let mut block = outer::lock(Rank::Ids, &block);
            if !block.is_empty() {
                // If the key was written by another call, or the commit fails, the ids are lost.
                let _ = self.give_back(&key, &block);
                // Order: after the commit, and even if it failed. The same ids may be reserved
                // again when the store is opened, so this process must not return them.
                block.start = block.end;
            }
        }
    }

    fn give_back(&self, key: &[u8], block: &Range<u64>) -> Result<()> {
        let reserved = self.codec.encode(key.len(), &block.end)?;
        let check = Check::Equals { name: key.into(), value: Some(reserved.into()) };
        let put = Change::Put(self.codec.entry(key, &block.start)?);
        self.commit(Commit::checked(check, put)).map(drop)
    }
}

impl Ids {
    fn block(&self, key: &[u8]) -> Block {
        let _rank = rank::take(Rank::Queue);
        let mut blocks = self.blocks.lock();
        match blocks.get(key) {
            Some(block) => Arc::clone(block),
            None => Arc::clone(blocks.entry(key.into()).or_default()),
        }
    }
}

/// Shows no keys, because programs write `Debug` output to logs.
impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ids")
    }
}

const FIRST_ID: u64 = 1;
/// The number of ids in a block.
const BLOCK_LEN: u64 = 256;
const USED_UP: &str = "all ids of this key are used up: use another key";

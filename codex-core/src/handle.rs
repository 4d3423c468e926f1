//! What all handles of a store share: the engine, and what it was opened with.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use codex_storage::batch::Seq;
use codex_storage::storage::{Form, Recovered};
use codex_storage::vfs::Vfs;
use codex_storage::{Access, Error as StorageError, StoreLock};

use crate::commit::{Commit, Outcome};
use crate::engine::Engine;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::own;
use crate::value::Codec;

/// What opening found.
pub(crate) struct Opened {
    /// The canonical path; empty in memory.
    pub(crate) path: PathBuf,
    pub(crate) form: Option<Form>,
    pub(crate) access: Access,
    pub(crate) recovered: Recovered,
    /// `None` in memory.
    pub(crate) files: Option<Files>,
    /// What a damaged store was replaced with.
    pub(crate) restored: Option<codex_backup::Restored>,
}

/// Where the files are.
pub(crate) struct Files {
    pub(crate) vfs: Vfs,
    pub(crate) name: String,
}

/// What an unconditional commit did.
#[derive(Default)]
pub(crate) struct Done {
    /// Its number; `None` when there was nothing to write.
    pub(crate) seq: Option<Seq>,
    /// How many keys were there and are gone.
    pub(crate) removed: u64,
}

/// What all handles of a store share; dropping it closes the store.
pub(crate) struct Handle {
    pub(crate) engine: Arc<Engine>,
    pub(crate) codec: Codec,
    pub(crate) opened: Opened,
    /// The lock on the files, which the storage holds.
    pub(crate) lock: Option<Weak<StoreLock>>,
    /// The process whose threads and locks these are.
    pub(crate) opened_by: u32,
    /// Keeps the backups of a store that is open for writing.
    pub(crate) keeper: Option<crate::backup::Keeper>,
}

impl Handle {
    pub(crate) fn submit(&self, commit: Commit) -> Result<Outcome> {
        self.check_writable()?;
        if let Some(refusal) = self.keeper.as_ref().and_then(crate::backup::Keeper::refusal) {
            return Err(refusal);
        }
        let own = own::written_by(self, &commit);
        let outcome = self.engine.submit(commit)?;
        if matches!(outcome, Outcome::Done { seq: Some(_), .. }) {
            own::made(&own);
        }
        if let (Some(keeper), Outcome::Done { seq: Some(seq), .. }) = (&self.keeper, &outcome) {
            keeper.committed(*seq);
        }
        Ok(outcome)
    }

    /// Ends the background work and the engine.
    pub(crate) fn close(&self) -> Result<()> {
        if let Some(keeper) = &self.keeper {
            // First what a rotation may be at, its checkpoint too, so that it ends soon.
            keeper.begin_stop();
            self.engine.begin_close();
            keeper.stop();
        }
        Ok(self.engine.close()?)
    }

    pub(crate) fn entry(&self, key: &[u8]) -> Option<Entry> {
        self.engine.read(|map| map.get(key))
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.opened.access == Access::ReadOnly {
            return Err(StorageError::ReadOnly { path: self.opened.path.clone() }.into());
        }
        self.check_process()
    }

    /// In a forked child, closes its copies of the locks, so that they end with the parent.
    pub(crate) fn abandon_lock(&self) {
        if let Some(lock) = self.lock.as_ref().and_then(Weak::upgrade) {
            lock.abandon();
        }
    }

    /// A child made by `fork` has copies of the locks and none of the threads. It is told by the
    /// id of its process. That is the same as the parent's only where the first process of one pid
    /// namespace forks into another one; `/proc` would tell, but is not read at every write for
    /// the sake of that case.
    pub(crate) fn check_process(&self) -> Result<()> {
        let used_by = std::process::id();
        if used_by == self.opened_by {
            return Ok(());
        }
        let path = self.opened.path.clone();
        Err(Error::ForkedChild { path, opened_by: self.opened_by, used_by })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.check_process().is_ok() {
            // Whoever wants to know what went wrong calls `close`.
            let _ = self.close();
        } else {
            // In a forked child the threads, and the mutexes that they hold, are the parent's:
            // nothing of them is touched.
            self.abandon_lock();
            std::mem::forget(Arc::clone(&self.engine));
            std::mem::forget(self.keeper.take());
        }
    }
}

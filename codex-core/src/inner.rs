//! The state that all handles of a store share.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use codex_backup::Restored;
use codex_storage::storage::{Form, Recovered};
use codex_storage::vfs::Vfs;
use codex_storage::{Access, Error as StorageError, StoreLock};

use crate::backup::BackupScheduler;
use crate::commit::{Commit, Outcome};
use crate::engine::Engine;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::own;
use crate::value::Codec;

/// The state that all handles of a store share. Dropping it closes the store.
pub(crate) struct Inner {
    pub(crate) engine: Arc<Engine>,
    /// The backups of a store that is open for writing and has files.
    pub(crate) backups: Option<BackupScheduler>,
    pub(crate) codec: Codec,
    /// The canonical path; empty in memory.
    pub(crate) path: PathBuf,
    /// `None` in memory.
    pub(crate) form: Option<Form>,
    pub(crate) access: Access,
    pub(crate) recovered: Recovered,
    /// `None` in memory.
    pub(crate) files: Option<Files>,
    /// The backup that replaced a damaged store.
    pub(crate) restored: Option<Restored>,
    /// The lock on the files, which the storage holds.
    pub(crate) lock: Option<Weak<StoreLock>>,
    /// The process that opened the store: its threads and locks are of that process.
    pub(crate) opened_by: u32,
}

/// The directory and the name of a store's files.
pub(crate) struct Files {
    pub(crate) vfs: Vfs,
    pub(crate) name: String,
}

impl Inner {
    /// Makes `commit`, if the store and its backups allow it.
    pub(crate) fn commit(&self, commit: Commit) -> Result<Outcome> {
        self.check_writable()?;
        if let Some(refusal) = self.backups.as_ref().and_then(BackupScheduler::refusal) {
            return Err(refusal);
        }
        let own = own::written_by(self.id(), &commit);
        let outcome = self.engine.submit(commit)?;
        if let Some(seq) = outcome.seq() {
            own::made(&own);
            if let Some(backups) = &self.backups {
                backups.committed(seq);
            }
        }
        Ok(outcome)
    }

    /// Ends the backups and the engine.
    pub(crate) fn close(&self) -> Result<()> {
        if let Some(backups) = &self.backups {
            // Order: before the engine is closed. A backup that is being made, and its checkpoint,
            // are abandoned, so that the thread that makes them ends soon.
            backups.begin_stop();
            self.engine.begin_close();
            backups.stop();
        }
        Ok(self.engine.close()?)
    }

    /// The identity of the store among those that are open.
    pub(crate) fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    pub(crate) fn entry(&self, key: &[u8]) -> Option<Entry> {
        self.engine.read(|map| map.get(key))
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.access == Access::ReadOnly {
            return Err(StorageError::ReadOnly { path: self.path.clone() }.into());
        }
        self.check_process()
    }

    /// In a forked child, closes its copies of the locks, so that they end with the parent.
    pub(crate) fn abandon_lock(&self) {
        if let Some(lock) = self.lock.as_ref().and_then(Weak::upgrade) {
            lock.abandon();
        }
    }

    /// Refuses a child made by `fork`, which has copies of the locks and none of the threads. It
    /// has another process id, unless the first process of one pid namespace forks into
    /// another one. `/proc` would tell, but is not read at every write for the sake of that case.
    pub(crate) fn check_process(&self) -> Result<()> {
        let used_by = std::process::id();
        if used_by == self.opened_by {
            return Ok(());
        }
        Err(Error::ForkedChild { path: self.path.clone(), opened_by: self.opened_by, used_by })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.check_process().is_ok() {
            // A caller that needs the error calls `close`.
            let _ = self.close();
        } else {
            // In a forked child the threads, and the mutexes that they hold, are the parent's:
            // none of them is touched.
            self.abandon_lock();
            std::mem::forget(Arc::clone(&self.engine));
            std::mem::forget(self.backups.take());
        }
    }
}

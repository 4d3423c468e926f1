//! The state that all handles of a store share.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use codex_backup::Restored;
use codex_storage::storage::{Form, Recovered};
use codex_storage::vfs::Vfs;
use codex_storage::{Access, Error as StorageError, StoreLock};

#[cfg(feature = "remote")]
use crate::archive::Archiver;
use crate::backup::BackupScheduler;
use crate::commit::{Commit, Outcome, SmallVec};
use crate::engine::{Engine, Task};
use crate::entry::{Entry, Name};
use crate::error::{Error, Result};
use crate::history::Past;
use crate::ids::Ids;
use crate::own;
use crate::progress::OnProgress;
use crate::value::Codec;

/// The state that all handles of a store share. Dropping it closes the store.
pub(crate) struct Inner {
    pub(crate) engine: Arc<Engine>,
    /// The backups, if the store has files and is open for writing.
    pub(crate) backups: Option<BackupScheduler>,
    /// The archive, if the options have one.
    #[cfg(feature = "remote")]
    pub(crate) archive: Option<Archiver>,
    pub(crate) codec: Codec,
    /// The function that receives the progress of long calls.
    pub(crate) on_progress: Option<OnProgress>,
    /// The canonical path; empty for a store in memory.
    pub(crate) path: PathBuf,
    /// The form of the files; `None` for a store in memory.
    pub(crate) form: Option<Form>,
    pub(crate) access: Access,
    pub(crate) recovered: Recovered,
    /// The files; `None` for a store in memory.
    pub(crate) files: Option<Files>,
    /// The backup that replaced a damaged store.
    pub(crate) restored: Option<Restored>,
    /// The lock on the files, which the storage holds.
    pub(crate) lock: Option<Weak<StoreLock>>,
    /// The ids that are reserved and not returned yet.
    pub(crate) ids: Ids,
    /// The index of the past of a ledger.
    pub(crate) past: Past,
    /// The id of the process that opened the store. Its threads and locks belong to that process.
    pub(crate) opened_by: u32,
}

/// The directory and the name of a store's files.
pub(crate) struct Files {
    pub(crate) vfs: Vfs,
    pub(crate) name: String,
}

impl Inner {
    /// Makes `commit`, if the store and its backups allow writes.
    pub(crate) fn commit(&self, commit: Commit) -> Result<Outcome> {
        self.check_commit()?;
        // Order: find the updates of this thread before the commit is moved, and mark them only
        // after it was made. An update fails only if its key was really written.
        let own = own::written_by(self.id(), &commit);
        let outcome = if commit.sync {
            self.engine.submit_synced(commit)?
        } else {
            self.engine.submit(commit)?
        };
        if outcome.seq().is_some() {
            own::made(&own);
        }
        Ok(outcome)
    }

    /// Enters `commit` into the queue, if the store and its backups allow writes, and returns the
    /// future of its outcome. The commit must not need [a thread](Self::needs_thread).
    pub(crate) fn submit(&self, commit: Commit) -> Result<Task> {
        self.check_commit()?;
        // The closure of an update on this thread must not write the key of the update. Its write
        // comes before the commit of the update in the queue, so it counts as made from here on,
        // unless it has a condition.
        let own = match commit.checks.as_slice() {
            [] => own::written_by(self.id(), &commit),
            _ => SmallVec::None,
        };
        let task = self.engine.submit_task(commit)?;
        own::made(&own);
        Ok(task)
    }

    /// Returns true if only a thread that may block can make `commit`: it is to be synced, and the
    /// form of the store writes an image for that.
    pub(crate) fn needs_thread(&self, commit: &Commit) -> bool {
        commit.sync && self.form.is_some_and(Form::writes_images)
    }

    /// Refuses a commit that the store, its backups or its archive do not allow.
    fn check_commit(&self) -> Result<()> {
        self.check_writable()?;
        #[cfg(feature = "remote")]
        if let Some(refusal) = self.archive_refusal() {
            return Err(refusal);
        }
        self.backups.as_ref().and_then(BackupScheduler::refusal).map_or(Ok(()), Err)
    }

    /// Returns the error with which the archive refuses writes, if it does.
    #[cfg(feature = "remote")]
    pub(crate) fn archive_refusal(&self) -> Option<Error> {
        self.archive.as_ref()?.refusal(&self.engine)
    }

    /// Stops the backups, closes the engine, and ends the archive.
    pub(crate) fn shut_down(&self) -> Result<()> {
        self.give_back_ids();
        // Order: before the engine is closed, while it still hands out its main file.
        #[cfg(feature = "remote")]
        if let Some(archive) = &self.archive {
            archive.before_close(&self.engine);
        }
        if let Some(backups) = &self.backups {
            // Order: stop the backups before the engine is closed. A running backup and its
            // checkpoint are abandoned, so that the thread that makes them ends soon.
            backups.begin_stop();
            self.engine.begin_close();
            backups.stop();
        }
        let closed = self.engine.close();
        // Order: end the archive after the engine was closed. It then has all commits to send.
        #[cfg(feature = "remote")]
        if let Some(archive) = &self.archive {
            archive.stop();
        }
        Ok(closed?)
    }

    /// Returns a number that differs from those of all other open stores.
    pub(crate) fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Returns the entry of `name`, unless it has expired.
    pub(crate) fn entry(&self, name: Name<'_>) -> Option<Entry> {
        let entry = self.engine.read(|map| map.find(name).cloned())?;
        (!self.engine.hides(entry.expires_us())).then_some(entry)
    }

    /// Refuses a read-only store and a forked child.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_access()?;
        self.check_process()
    }

    /// Refuses a store in which no commit comes, and a forked child.
    pub(crate) fn check_watchable(&self) -> Result<()> {
        if self.access == Access::ReadOnly {
            self.check_access()?;
        }
        self.check_process()
    }

    /// Refuses a read-only store.
    pub(crate) fn check_access(&self) -> Result<()> {
        if self.access != Access::ReadWrite {
            return Err(StorageError::ReadOnly { path: self.path.clone() }.into());
        }
        Ok(())
    }

    /// Closes the copies of the locks that a forked child has, so that the locks end with the
    /// parent.
    pub(crate) fn abandon_lock(&self) {
        if let Some(lock) = self.lock.as_ref().and_then(Weak::upgrade) {
            lock.abandon();
        }
    }

    /// Refuses a process that `fork` created, which has copies of the locks but none of the
    /// threads. Its process id differs, unless the first process of one pid namespace forks into
    /// another namespace. `/proc` would show that case, but reading it at each write would cost too
    /// much. The process id is a system call, so each commit asks for it once.
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
            // A caller that needs the error calls `close` before the drop.
            let _ = self.shut_down();
        } else {
            // In a forked child, the threads and the mutexes that they hold belong to the parent,
            // so the engine, the backups and the archive must not be dropped.
            self.abandon_lock();
            std::mem::forget(Arc::clone(&self.engine));
            std::mem::forget(self.backups.take());
            #[cfg(feature = "remote")]
            std::mem::forget(self.archive.take());
        }
    }
}

//! Where backups join the store: rotation beside running writers, hot copies, and the tools for a
//! store that is closed.

mod elsewhere;
mod join;
mod scheduler;
mod store;
mod tools;
mod watch;

use std::cell::Cell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use codex_storage::Error as StorageError;
use codex_storage::batch::Seq;
use codex_storage::storage::Form;

pub(crate) use scheduler::BackupScheduler;
pub use tools::Backups;

use crate::error::Error;

/// How an open store keeps its backups.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct BackupOptions {
    pub(crate) policy: Option<codex_backup::Policy>,
    /// Refuse writes while the last backup failed.
    pub(crate) required: bool,
    pub(crate) on_event: Option<Callback>,
}

impl BackupOptions {
    /// Refuses what contradicts itself, or `form` where that is known.
    pub(crate) fn check(&self, form: Option<Form>) -> Result<(), StorageError> {
        let Some(policy) = self.policy else { return Ok(()) };
        if !(1..=KEEP_MAX).contains(&policy.keep) {
            return Err(StorageError::Contradiction(
                "a backup policy keeps 1 to 9,999 backups: to make none, set no policy",
            ));
        }
        if policy.on_checkpoint && form.is_some_and(|form| form != Form::Wal) {
            return Err(StorageError::Contradiction(
                "only the Wal form checkpoints: for a backup, let commits or time make it due",
            ));
        }
        Ok(())
    }
}

/// What became of a backup that was due; see
/// [`OpenOptions::on_backup`](crate::OpenOptions::on_backup).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum BackupEvent {
    /// The newest backup is of this commit.
    Made {
        /// The commit.
        seq: Seq,
    },
    /// No backup was made; every older one is as good as before. It is tried again.
    Failed {
        /// Why.
        error: Error,
    },
}

/// Figures of the backups of an open store, part of [`Stats`](crate::Stats).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupStats {
    /// Backups made since opening.
    pub made: u64,
    /// Attempts that failed since opening.
    pub failed: u64,
    /// The commit of the newest backup made or found unchanged since opening.
    pub last_seq: Option<Seq>,
    /// Why the last attempt failed; `None` when it did not.
    pub last_error: Option<String>,
}

codex_storage::sync::thread_local! {
    /// Whether this thread is in a user's function that hears of backups.
    #[allow(clippy::missing_const_for_thread_local, reason = "loom's macro takes no const")]
    static CALLING: Cell<bool> = Cell::new(false);
}

/// A user's function that hears of backups.
#[derive(Clone)]
pub(crate) struct Callback(Arc<dyn Fn(&BackupEvent) + Send + Sync>);

impl Callback {
    pub(crate) fn new(f: impl Fn(&BackupEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(f))
    }

    /// Calls the function. It does not hear of what it causes itself, nor take down who calls it.
    fn call(&self, event: &BackupEvent) {
        if CALLING.with(|calling| calling.replace(true)) {
            return;
        }
        // The panic has been printed.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| (self.0)(event)));
        CALLING.with(|calling| calling.set(false));
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

impl PartialEq for Callback {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The most backups that a policy may keep.
const KEEP_MAX: u32 = 9_999;

//! The backups of a store: rotations and hot copies beside running writers, and the tools for a
//! store that is closed.

mod join;
#[cfg(feature = "remote")]
mod remote;
mod scheduler;
mod store;
mod tools;
mod watch;

use std::cell::Cell;

use codex_storage::Error as StorageError;
use codex_storage::batch::Seq;
use codex_storage::storage::Form;

#[cfg(feature = "remote")]
pub(crate) use join::StoreFile;
pub(crate) use scheduler::BackupScheduler;
pub use tools::Backups;

use crate::callback::Callback;
use crate::error::Error;

/// The options for the backups of an open store.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct BackupOptions {
    /// The policy of automatic backups. If `None`, backups are made only on request.
    pub(crate) policy: Option<codex_backup::BackupPolicy>,
    /// Whether writes are refused after a failed backup, until one succeeds.
    pub(crate) required: bool,
    /// The function that is called with the outcome of each backup.
    pub(crate) on_event: Option<OnBackup>,
}

impl BackupOptions {
    /// Returns `Contradiction` if the options contradict each other, or `form` if that is known.
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

/// The outcome of a backup of an open store; see
/// [`OpenOptions::on_backup`](crate::OpenOptions::on_backup).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum BackupEvent {
    /// There is a new backup, or, after an attempt that failed, the newest one was found to be up
    /// to date.
    Made {
        /// The last commit in the backup.
        seq: Seq,
    },
    /// No backup was made. The older backups are not affected. An automatic backup is tried again.
    Failed {
        /// The reason.
        error: Error,
    },
}

/// The counters of the backups of an open store, part of [`Stats`](crate::Stats).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct BackupStats {
    /// The number of backups that were made since the opening.
    pub made: u64,
    /// The number of attempts that failed since the opening.
    pub failed: u64,
    /// The last commit in the newest backup, if a backup was made since the opening, or was found
    /// to have the last commit already.
    pub last_seq: Option<Seq>,
    /// The error of the last attempt, or `None` if it succeeded or none was made.
    pub last_error: Option<String>,
}

codex_storage::sync::thread_local! {
    /// Whether this thread runs the callback of a user.
    #[allow(clippy::missing_const_for_thread_local, reason = "loom's macro takes no const")]
    static CALLING: Cell<bool> = Cell::new(false);
}

/// The function of a user that is called with the outcome of each backup.
pub(crate) type OnBackup = Callback<dyn Fn(&BackupEvent) + Send + Sync>;

/// Calls the function. It is not called for a backup that it makes itself.
fn call(on_backup: &OnBackup, event: &BackupEvent) {
    if CALLING.with(|calling| calling.replace(true)) {
        return;
    }
    on_backup.run(|on_backup| on_backup(event));
    CALLING.with(|calling| calling.set(false));
}

/// The maximum number of backups that a policy may keep.
const KEEP_MAX: u32 = 9_999;

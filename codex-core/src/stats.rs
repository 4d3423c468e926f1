//! The figures of an open store.

use codex_storage::storage::StorageStats;

use crate::backup::{BackupScheduler, BackupStats};
use crate::engine::EngineStats;
use crate::store::Store;

/// Figures of a store since it was opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stats {
    /// Figures of the files, after the last commit.
    pub storage: StorageStats,
    /// How many commits and other requests wait for the group before theirs.
    pub waiting: usize,
    /// Commits.
    pub commits: u64,
    /// The most commits in one group.
    pub group_commits_max: u64,
    /// The longest that readers were kept out of memory, in nanoseconds.
    pub data_hold_ns_max: u64,
    /// Checkpoints that wrote an image.
    pub checkpoints: u64,
    /// Checkpoints that failed, which costs nothing but the room of the log.
    pub checkpoint_failures: u64,
    /// Why the last image failed, if none has succeeded since. In the Snapshot form at `Interval`
    /// writes get this error once an earlier one has waited longer than the interval.
    pub image_error: Option<String>,
    /// Why writes are refused, if they are.
    pub poisoned: Option<String>,
    /// Figures of the backups.
    pub backups: BackupStats,
}

impl Store {
    /// Returns sizes, counts, waits, and the outcomes of the backups.
    pub fn stats(&self) -> Stats {
        let EngineStats {
            storage,
            waiting,
            commits,
            group_commits_max,
            data_hold_ns_max,
            checkpoints,
            checkpoint_failures,
            image_error,
            poisoned,
        } = self.inner.engine.stats();
        Stats {
            storage,
            waiting,
            commits,
            group_commits_max,
            data_hold_ns_max,
            checkpoints,
            checkpoint_failures,
            image_error,
            poisoned,
            backups: self.inner.backups.as_ref().map(BackupScheduler::stats).unwrap_or_default(),
        }
    }
}

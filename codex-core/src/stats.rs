//! The statistics of an open store.

use codex_storage::storage::StorageStats;

use crate::backup::{BackupScheduler, BackupStats};
use crate::engine::EngineStats;
use crate::store::Store;

/// Statistics of a store since it was opened, from [`Store::stats`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stats {
    /// Statistics of the files after the last commit.
    pub storage: StorageStats,
    /// The number of commits and other requests that wait for the current group to end.
    pub waiting: usize,
    /// The number of commits.
    pub commits: u64,
    /// The maximum number of commits in one group.
    pub group_commits_max: u64,
    /// The longest time for which a commit group blocked readers, in nanoseconds.
    pub data_hold_ns_max: u64,
    /// The number of checkpoints that wrote an image.
    pub checkpoints: u64,
    /// The number of checkpoints that failed. The only effect of a failure is that the log keeps
    /// its size.
    pub checkpoint_failures: u64,
    /// The error of the last image, if it failed and none has succeeded since. In the Snapshot form
    /// at `Interval`, writes return this error after an earlier write has waited longer than the
    /// interval.
    pub image_error: Option<String>,
    /// The reason why writes are refused, if they are.
    pub poisoned: Option<String>,
    /// Statistics of the backups.
    pub backups: BackupStats,
}

impl Store {
    /// Returns sizes, counts, waiting times, and the outcomes of the backups. Reads no file.
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

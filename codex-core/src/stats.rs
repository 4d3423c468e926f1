//! The statistics of an open store.

use codex_storage::storage::StorageStats;

use crate::backup::BackupStats;

/// Statistics of a store since it was opened, from [`Store::stats`](crate::Store::stats).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Stats {
    /// Statistics of the files after the last commit group.
    pub storage: StorageStats,
    /// The number of commits and other requests that wait for the current group to end.
    pub waiting: usize,
    /// The number of commits that were written.
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

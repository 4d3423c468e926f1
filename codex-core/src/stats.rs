//! The statistics of an open store.

use std::fmt;

use codex_storage::storage::StorageStats;

#[cfg(feature = "remote")]
use crate::archive::ArchiveStats;
use crate::backup::BackupStats;

/// Statistics of a store since it was opened, from [`Store::stats`](crate::Store::stats).
#[derive(Debug, Clone, serde::Serialize)]
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
    /// The number of entries that expire, including those that have expired and were not removed
    /// yet.
    pub expiring: u64,
    /// The number of expired entries that were removed.
    pub swept: u64,
    /// The number of times that the clock went back by more than an hour. Entries that had expired
    /// and were not removed yet may have been shown again then.
    pub clock_steps_back: u64,
    /// Statistics of the backups.
    pub backups: BackupStats,
    /// Statistics of the archive, if the store was opened with one.
    #[cfg(feature = "remote")]
    pub archive: Option<ArchiveStats>,
    /// Statistics of reading beside a writer, if the store was opened for that.
    pub follow: Option<FollowStats>,
}

/// Statistics of a store that was opened with [`OpenOptions::follow`](crate::OpenOptions::follow).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct FollowStats {
    /// The time from the announcement of the last shown commit to the moment when it was shown, in
    /// microseconds. 0 while it is not known; below the level `Sync` it is measured at syncs alone.
    pub lag_us: u64,
    /// The number of times that the whole store was read again, because the files did not show how
    /// they continue.
    pub reloads: u64,
    /// The error of the last look at the files, if it failed.
    pub last_error: Option<String>,
}

/// One line of `name=value`, for a log. Serialize the statistics for anything else.
impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { storage, backups, .. } = self;
        write!(f, "seq={} durable={} groups={}", storage.seq, storage.durable, storage.groups)?;
        write!(f, " syncs={} image_bytes={}", storage.syncs, storage.image_bytes)?;
        write!(f, " log_bytes={} images={}", storage.log_bytes, storage.images)?;
        write!(f, " images_failed={} waiting={}", storage.images_failed, self.waiting)?;
        write!(f, " commits={} group_commits_max={}", self.commits, self.group_commits_max)?;
        write!(f, " data_hold_ns_max={}", self.data_hold_ns_max)?;
        write!(f, " checkpoints={}", self.checkpoints)?;
        write!(f, " checkpoint_failures={}", self.checkpoint_failures)?;
        write!(f, " expiring={} swept={}", self.expiring, self.swept)?;
        write!(f, " clock_steps_back={}", self.clock_steps_back)?;
        write!(f, " backups={} backups_failed={}", backups.made, backups.failed)?;
        if let Some(seq) = backups.last_seq {
            write!(f, " backup_seq={seq}")?;
        }
        #[cfg(feature = "remote")]
        if let Some(archive) = &self.archive {
            write!(f, " {archive}")?;
        }
        if let Some(follow) = &self.follow {
            write!(f, " lag_us={} reloads={}", follow.lag_us, follow.reloads)?;
        }
        let follow_error = self.follow.as_ref().and_then(|follow| follow.last_error.clone());
        let errors = [
            ("follow_error", &follow_error),
            ("image_error", &self.image_error),
            ("backup_error", &backups.last_error),
            ("poisoned", &self.poisoned),
        ];
        for (name, error) in errors {
            if let Some(error) = error {
                write!(f, " {name}={error:?}")?;
            }
        }
        Ok(())
    }
}

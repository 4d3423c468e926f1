//! The health of an open store, for probes.

use std::fmt;

use codex_storage::Access;

use crate::backup::BackupScheduler;
use crate::store::Store;

/// The health of an open store, from [`Store::health`]. `Display` is one line for a log.
///
/// A readiness probe of a program that writes returns [`is_writable`](Self::is_writable). A
/// liveness probe fails only for [`Writes::Poisoned`], which ends when the store is opened again.
/// `checkpoint_error`, `backup_error` and `archive_error` are for an alarm: the store still works,
/// but its log grows, or its backups or its archive grow old.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Whether writes are accepted. Reads always are.
    pub writes: Writes,
    /// The error of the last image, if it failed and none has succeeded since.
    pub checkpoint_error: Option<String>,
    /// The error of the last backup, if it failed.
    pub backup_error: Option<String>,
    /// The error of the archive, if its last attempt failed.
    pub archive_error: Option<String>,
}

/// Whether a store accepts writes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Writes {
    /// Yes. A write may still fail, for example on a full disk.
    Accepted,
    /// No: the store was opened read-only.
    ReadOnly,
    /// No: the store was closed.
    Closed,
    /// No: an earlier error [poisoned](Store::poisoned) the store. Open it again.
    Poisoned {
        /// The text of the first error.
        reason: String,
    },
    /// No, until a backup succeeds: the last one failed, and
    /// [`OpenOptions::require_backups`](crate::OpenOptions::require_backups) is set.
    BackupRequired,
    /// No, until the archive has all commits: one has waited for longer than the options of the
    /// archive allow.
    ArchiveBehind,
}

impl Health {
    /// Returns whether writes are accepted.
    pub fn is_writable(&self) -> bool {
        self.writes == Writes::Accepted
    }

    /// Returns whether nothing is wrong: the store accepts writes or was opened read-only, and
    /// neither the last image, nor the last backup, nor the last attempt of the archive has failed.
    pub fn is_well(&self) -> bool {
        let is_as_opened = matches!(self.writes, Writes::Accepted | Writes::ReadOnly);
        let errors = [&self.checkpoint_error, &self.backup_error, &self.archive_error];
        is_as_opened && errors.iter().all(|error| error.is_none())
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.writes {
            Writes::Accepted => f.write_str("writable")?,
            Writes::ReadOnly => f.write_str("read-only")?,
            Writes::Closed => f.write_str("closed")?,
            Writes::Poisoned { reason } => write!(f, "poisoned: {reason}")?,
            Writes::BackupRequired => f.write_str("refuses writes until a backup succeeds")?,
            Writes::ArchiveBehind => {
                f.write_str("refuses writes until the archive has caught up")?;
            }
        }
        if let Some(error) = &self.checkpoint_error {
            write!(f, "; the last image failed: {error}")?;
        }
        if let Some(error) = &self.backup_error {
            write!(f, "; the last backup failed: {error}")?;
        }
        if let Some(error) = &self.archive_error {
            write!(f, "; the archive is behind: {error}")?;
        }
        Ok(())
    }
}

impl Store {
    /// Returns whether the store accepts writes, and the errors of its last image, its last backup
    /// and its archive. Reads no file, so a probe may call this often.
    ///
    /// ```
    /// let store = codex_core::Store::in_memory()?;
    /// assert!(store.health().is_writable());
    /// store.close()?;
    /// assert_eq!(store.health().to_string(), "closed");
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn health(&self) -> Health {
        let stats = self.stats();
        let is_refused = self.inner.backups.as_ref().and_then(BackupScheduler::refusal).is_some();
        #[cfg(feature = "remote")]
        let is_behind = self.inner.archive_refusal().is_some();
        #[cfg(not(feature = "remote"))]
        let is_behind = false;
        let writes = if let Some(reason) = stats.poisoned {
            Writes::Poisoned { reason }
        } else if self.inner.engine.is_closed() {
            Writes::Closed
        } else if self.inner.access != Access::ReadWrite {
            Writes::ReadOnly
        } else if is_refused {
            Writes::BackupRequired
        } else if is_behind {
            Writes::ArchiveBehind
        } else {
            Writes::Accepted
        };
        #[cfg(feature = "remote")]
        let archive_error = stats.archive.and_then(|archive| archive.last_error);
        #[cfg(not(feature = "remote"))]
        let archive_error = None;
        let (checkpoint_error, backup_error) = (stats.image_error, stats.backups.last_error);
        Health { writes, checkpoint_error, backup_error, archive_error }
    }
}

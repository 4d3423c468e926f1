//! What can go wrong with a backup, each with the file it concerns and the next step.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use codex_storage::vfs::Dir;

use crate::inspect::InspectError;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller's own code reported while it produced the bytes of a copy.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What went wrong. No error leaves fewer good backups than there were before the call.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk reported an error. What the call was about to replace is still there.
    #[error(
        "{path}: cannot {action}: {source}; \
         the backups made before are untouched; check the disk and the permissions, and try again"
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// The copy does not fit. Found before the first byte was written, or by the disk itself.
    #[error(
        "{path}: needs {needed} bytes, {available} are available; \
         free some space or keep fewer backups"
    )]
    NoSpace {
        /// The copy that was to be made.
        path: PathBuf,
        /// Bytes it needs.
        needed: u64,
        /// Bytes an unprivileged writer can still allocate there.
        available: u64,
    },
    /// Something that this crate did not make stands where a backup belongs. Nothing was moved.
    #[error("{path}: is {what}, not a backup of {of}; move it elsewhere, nothing was touched")]
    Foreign {
        /// What is in the way.
        path: PathBuf,
        /// The file whose backups were asked for.
        of: PathBuf,
        /// What it is.
        what: String,
    },
    /// A restore would replace another file than the one that was backed up.
    #[error(
        "{path}: is another store than the one of the backup, and was not touched; to replace it \
         (it is kept as `*.replaced.*`), ask for that with `replace_unrelated`"
    )]
    Unrelated {
        /// What stands in the place of the file.
        path: PathBuf,
    },
    /// A file is not whole.
    #[error("{path}: damaged at byte {offset}: {what}; use another backup (list shows them)")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damage shows.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The file's inspector does not know this kind of file.
    #[error("{path}: not a file of the expected kind: {what}; name the right file")]
    Alien {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        what: String,
    },
    /// The check asked for needs a key that was not given.
    #[error(
        "{path}: cannot be checked without its key: {what}; give the key or verify checksums only"
    )]
    NeedsKey {
        /// The file.
        path: PathBuf,
        /// Which key.
        what: String,
    },
    /// A file is not authentic under the key that was given. Nothing was done with it.
    #[error(
        "{path}: is not authentic under the key given: {what}; it counts as no backup; \
         use another one (list shows them)"
    )]
    Unauthentic {
        /// The file.
        path: PathBuf,
        /// Why not.
        what: String,
    },
    /// The copy is whole but not of the version that was to be copied: the source changed
    /// meanwhile. The copy was removed.
    #[error(
        "{path}: changed while it was copied (expected {expected}, copied {found}); \
         try again while nobody writes to it"
    )]
    Changed {
        /// The source, or the copy where the source has no name.
        path: PathBuf,
        /// The version asked for.
        expected: String,
        /// The version found in the copy.
        found: String,
    },
    /// Another thread or process rotates, prunes or restores the same file, or copies to it.
    #[error(
        "{path}: held by another rotation, restore or copy, waited {waited:?}; try again later"
    )]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// How long this call waited.
        waited: Duration,
    },
    /// There is no such file.
    #[error("{path}: does not exist; list shows the backups there are")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The destination exists and was not to be replaced.
    #[error("{path}: exists already, and was not touched; choose another name, or move it away")]
    Exists {
        /// The destination.
        path: PathBuf,
    },
    /// A restore was interrupted. Until it is finished the file must not be used.
    #[error(
        "{path}: a restore from {from} was interrupted; \
         open for writing (or call finish_restore) to finish it"
    )]
    RestorePending {
        /// The file being restored.
        path: PathBuf,
        /// What it is being restored from.
        from: String,
    },
    /// The record of an interrupted restore, or what it needs, is unusable.
    #[error(
        "{path}: an interrupted restore cannot be finished: {what}; the files it replaced are \
         named `*.replaced.*`: put the wanted ones back under their names, then remove this file"
    )]
    RestoreBroken {
        /// The record.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// A name or a setting that cannot work.
    #[error("{value}: {why}")]
    Invalid {
        /// What was given.
        value: String,
        /// Why not, and what instead.
        why: &'static str,
    },
    /// The caller's own code failed to produce the bytes of the copy, which was removed.
    #[error("{path}: its contents could not be produced: {cause}; nothing was replaced, try again")]
    Source {
        /// The copy that was to be made.
        path: PathBuf,
        /// What the caller's code said.
        cause: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The watch of the copy asked to stop it. What there was of it was removed.
    #[error("{path}: stopped by its caller; nothing was replaced")]
    Stopped {
        /// The copy that was to be made.
        path: PathBuf,
    },
}

impl Error {
    /// The file the error is about, where there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Io { path, .. }
            | Self::NoSpace { path, .. }
            | Self::Foreign { path, .. }
            | Self::Damaged { path, .. }
            | Self::Alien { path, .. }
            | Self::NeedsKey { path, .. }
            | Self::Unauthentic { path, .. }
            | Self::Changed { path, .. }
            | Self::Busy { path, .. }
            | Self::Missing { path }
            | Self::Exists { path }
            | Self::Unrelated { path }
            | Self::RestorePending { path, .. }
            | Self::RestoreBroken { path, .. }
            | Self::Source { path, .. }
            | Self::Stopped { path } => Some(path),
            Self::Invalid { .. } => None,
        }
    }

    /// What an inspector found, with the file it looked at.
    pub(crate) fn from_inspect(path: PathBuf, error: InspectError) -> Self {
        match error {
            InspectError::Read(source) => {
                Self::Io { action: "read", path, source: Arc::new(source) }
            }
            InspectError::Damaged { offset, what } => Self::Damaged { path, offset, what },
            InspectError::Alien { what } => Self::Alien { path, what },
            InspectError::NeedsKey { what } => Self::NeedsKey { path, what },
            InspectError::Unauthentic { what } => Self::Unauthentic { path, what },
            InspectError::Stopped => Self::Stopped { path },
        }
    }
}

/// Names the file and the action behind an error of the disk; a missing file and a full disk
/// become errors of their own.
pub(crate) trait Named<T> {
    fn named(self, action: &'static str, dir: &dyn Dir, name: &str) -> Result<T>;
    /// Like `named`, for what allocates `needed` bytes.
    fn filling(self, action: &'static str, dir: &dyn Dir, name: &str, needed: u64) -> Result<T>;
}

impl<T> Named<T> for io::Result<T> {
    fn named(self, action: &'static str, dir: &dyn Dir, name: &str) -> Result<T> {
        self.filling(action, dir, name, 0)
    }

    fn filling(self, action: &'static str, dir: &dyn Dir, name: &str, needed: u64) -> Result<T> {
        self.map_err(|source| {
            let path = dir.path(name);
            match source.kind() {
                io::ErrorKind::NotFound => Error::Missing { path },
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    let available = dir.available_bytes().ok().flatten().unwrap_or(0);
                    Error::NoSpace { path, needed, available }
                }
                _ => Error::Io { action, path, source: Arc::new(source) },
            }
        })
    }
}

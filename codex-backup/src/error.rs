//! The errors of the crate. Each names the file it concerns and the next step.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use codex_storage::vfs::Dir;

use crate::inspect::InspectError;

/// The result type of the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the caller's own code, reported while it produced the bytes of a copy.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The errors of the crate. After any error there are at least as many good backups as before the
/// call.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk reported an error. The file that the call was about to replace is still there.
    #[error(
        "{path}: cannot {action}: {source}; \
         the backups made before are untouched; check the disk and the permissions, and try again"
    )]
    Io {
        /// The action that failed.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the disk.
        source: Arc<io::Error>,
    },
    /// The copy does not fit on the disk. Detected before the first byte is written, or by the
    /// disk.
    #[error(
        "{path}: needs {needed} bytes, {available} are available; \
         free some space or keep fewer backups"
    )]
    NoSpace {
        /// The copy that was being made.
        path: PathBuf,
        /// The number of bytes the copy needs.
        needed: u64,
        /// The number of bytes that an unprivileged writer can still allocate.
        available: u64,
    },
    /// A file that is not a backup has the name of a backup. No file was moved.
    #[error("{path}: is {what}, not a backup of {of}; nothing was changed; move it elsewhere")]
    Foreign {
        /// The file that is in the way.
        path: PathBuf,
        /// The file whose backups were requested.
        of: PathBuf,
        /// A description of the file that is in the way.
        what: String,
    },
    /// A restore would replace a file that is not a version of the backup.
    #[error(
        "{path}: is not a version of the file in the backup, and was not changed; to replace it, \
         set `replace_unrelated` (it is then kept as `*.replaced.*`)"
    )]
    Unrelated {
        /// The file that would be replaced.
        path: PathBuf,
    },
    /// A file is damaged.
    #[error("{path}: damaged at byte {offset}: {what}; use another backup (list shows them)")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The offset of the damage, in bytes.
        offset: u64,
        /// A description of the damage.
        what: String,
    },
    /// The inspector does not recognize the format of the file.
    #[error("{path}: not a file of the expected kind: {what}; name the right file")]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// A description of the contents.
        what: String,
    },
    /// The requested check needs a key that was not given.
    #[error(
        "{path}: cannot be checked without its key: {what}; give the key or verify checksums only"
    )]
    NeedsKey {
        /// The file.
        path: PathBuf,
        /// The key that is needed.
        what: String,
    },
    /// A file is not authentic under the given key. It was not used.
    #[error(
        "{path}: is not authentic under the key given: {what}; it does not count as a \
         backup; use another one (list shows them)"
    )]
    Unauthentic {
        /// The file.
        path: PathBuf,
        /// The reason.
        what: String,
    },
    /// The copy is complete, but not of the requested version: the source was changed in place
    /// during the copy, or its bytes contradict the version that the caller gave. The copy was
    /// removed.
    #[error(
        "{path}: changed while it was copied (expected {expected}, copied {found}); \
         try again while nobody writes to it"
    )]
    Changed {
        /// The source, or the copy if the source has no name.
        path: PathBuf,
        /// The requested version.
        expected: String,
        /// The version of the copy.
        found: String,
    },
    /// Another thread or process is rotating, pruning or restoring the same file, or copying to it.
    #[error(
        "{path}: held by another rotation, restore or copy, waited {waited:?}; try again later"
    )]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// The time that this call waited.
        waited: Duration,
    },
    /// The file does not exist.
    #[error("{path}: does not exist; list shows the backups there are")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The destination exists.
    #[error("{path}: already exists, and was not changed; choose another name, or move it away")]
    Exists {
        /// The destination.
        path: PathBuf,
    },
    /// A restore was interrupted. The file must not be used until the restore is finished.
    #[error(
        "{path}: a restore from {from} was interrupted; \
         open for writing (or call finish_restore) to finish it"
    )]
    RestorePending {
        /// The file that is being restored.
        path: PathBuf,
        /// The source of the restore.
        from: String,
    },
    /// An interrupted restore cannot be finished, because its record or a file it needs is
    /// unusable.
    #[error(
        "{path}: an interrupted restore cannot be finished: {what}; the files it replaced are \
         named `*.replaced.*`: rename the wanted ones back, then remove this file"
    )]
    RestoreBroken {
        /// The record.
        path: PathBuf,
        /// The reason.
        what: String,
    },
    /// A name or a setting is invalid.
    #[error("{value}: {why}")]
    Invalid {
        /// The given value.
        value: String,
        /// The reason, and a valid alternative.
        why: &'static str,
    },
    /// The caller's own code failed to produce the bytes of the copy. The copy was removed.
    #[error("{path}: its contents could not be produced: {cause}; nothing was replaced, try again")]
    Source {
        /// The copy that was being made.
        path: PathBuf,
        /// The error of the caller's code.
        cause: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A place outside of the machine, or an object there.
    #[cfg(feature = "remote")]
    #[error("{path}: {fault}")]
    Remote {
        /// The object, or the place as a whole.
        path: PathBuf,
        /// The reason.
        fault: crate::remote::Fault,
    },
    /// The progress callback stopped the copy. The unfinished copy was removed.
    #[error("{path}: stopped by its caller; nothing was replaced")]
    Stopped {
        /// The copy that was being made.
        path: PathBuf,
    },
}

#[cfg(not(feature = "remote"))]
codex_storage::debug_as_display!(
    Error: Io, NoSpace, Foreign, Unrelated, Damaged, UnknownFormat, NeedsKey, Unauthentic,
    Changed, Busy, Missing, Exists, RestorePending, RestoreBroken, Invalid, Source, Stopped
);
#[cfg(feature = "remote")]
codex_storage::debug_as_display!(
    Error: Io, NoSpace, Foreign, Unrelated, Damaged, UnknownFormat, NeedsKey, Unauthentic,
    Changed, Busy, Missing, Exists, RestorePending, RestoreBroken, Invalid, Source, Remote, Stopped
);

/// The kind is [`Error::io_kind`], and [`io::Error::get_ref`] returns this error.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.io_kind(), error)
    }
}

impl Error {
    /// Returns the kind of the [`io::Error`] that this error converts to. It is never
    /// `Interrupted`, on which callers would make the same call again.
    pub fn io_kind(&self) -> io::ErrorKind {
        use io::ErrorKind as Kind;
        match self {
            Self::Io { source, .. } if source.kind() != Kind::Interrupted => source.kind(),
            Self::NoSpace { .. } => Kind::StorageFull,
            Self::Foreign { .. } | Self::Unrelated { .. } | Self::Invalid { .. } => {
                Kind::InvalidInput
            }
            Self::Damaged { .. } | Self::UnknownFormat { .. } | Self::Unauthentic { .. } => {
                Kind::InvalidData
            }
            Self::NeedsKey { .. } => Kind::PermissionDenied,
            Self::Busy { .. } => Kind::WouldBlock,
            Self::Missing { .. } => Kind::NotFound,
            Self::Exists { .. } => Kind::AlreadyExists,
            #[cfg(feature = "remote")]
            Self::Remote { fault, .. } => fault.io_kind(),
            Self::Io { .. }
            | Self::Changed { .. }
            | Self::RestorePending { .. }
            | Self::RestoreBroken { .. }
            | Self::Source { .. }
            | Self::Stopped { .. } => Kind::Other,
        }
    }

    /// Returns the file that the error concerns, or `None` if the error concerns a setting.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Io { path, .. }
            | Self::NoSpace { path, .. }
            | Self::Foreign { path, .. }
            | Self::Damaged { path, .. }
            | Self::UnknownFormat { path, .. }
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
            #[cfg(feature = "remote")]
            Self::Remote { path, .. } => Some(path),
            Self::Invalid { .. } => None,
        }
    }

    /// Converts the error of an inspector. `path` is the inspected file.
    pub(crate) fn from_inspect(path: PathBuf, error: InspectError) -> Self {
        match error {
            InspectError::Read(source) => {
                #[cfg(feature = "remote")]
                if let Some(fault) = crate::remote::Fault::of(&source) {
                    return Self::Remote { path, fault };
                }
                Self::Io { action: "read", path, source: Arc::new(source) }
            }
            InspectError::Damaged { offset, what } => Self::Damaged { path, offset, what },
            InspectError::UnknownFormat { what } => Self::UnknownFormat { path, what },
            InspectError::NeedsKey { what } => Self::NeedsKey { path, what },
            InspectError::Unauthentic { what } => Self::Unauthentic { path, what },
            InspectError::Stopped => Self::Stopped { path },
        }
    }
}

/// Adds the file and the action to an error of the disk. A missing file becomes [`Error::Missing`],
/// and a full disk [`Error::NoSpace`].
pub(crate) trait Named<T> {
    fn named(self, action: &'static str, dir: &dyn Dir, name: &str) -> Result<T>;
    /// Like `named`, for an action that allocates `needed` bytes.
    fn filling(self, action: &'static str, dir: &dyn Dir, name: &str, needed: u64) -> Result<T>;
}

impl<T> Named<T> for io::Result<T> {
    fn named(self, action: &'static str, dir: &dyn Dir, name: &str) -> Result<T> {
        self.filling(action, dir, name, 0)
    }

    fn filling(self, action: &'static str, dir: &dyn Dir, name: &str, needed: u64) -> Result<T> {
        self.map_err(|source| named(source, action, dir, name, needed))
    }
}

fn named(source: io::Error, action: &'static str, dir: &dyn Dir, name: &str, needed: u64) -> Error {
    let path = dir.path(name);
    #[cfg(feature = "remote")]
    if let Some(fault) = crate::remote::Fault::of(&source) {
        return Error::Remote { path, fault };
    }
    match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { path },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            let available = dir.available_bytes().ok().flatten().unwrap_or(0);
            Error::NoSpace { path, needed, available }
        }
        _ => Error::Io { action, path, source: Arc::new(source) },
    }
}

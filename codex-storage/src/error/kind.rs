//! The kind, the `Debug` text and the construction of an error.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Error, RecordError};
#[cfg(feature = "shared")]
use crate::shared::SharedError;

crate::debug_as_display!(
    Error: Io, NotFound, OnlyBackups, NoFolder, AlreadyExists, BadPath, NotAFile, NotADatabase,
    EmptyFile, NewerVersion, Unsupported, WrongForm, IsBackup, FileReadOnly, Damaged, TailSuspect,
    LogMissing, ImageMissing, Gap, ForeignLog, Locked, RestorePending, NoSpace, InDoubt, Poisoned,
    ReadOnly, Closed, Abandoned, Record, KeyRequired, NotEncrypted, WrongKey, Tampered, Seal,
    AnchorMismatch, AnchorUnknown, NotInHistory, Contradiction;
    #[cfg(feature = "shared")] Shared
);

crate::debug_as_display!(
    RecordError: KeyTooLong, BatchTooLarge, UnknownKind, UnknownFlags, Malformed
);

impl Error {
    /// Returns the kind of the [`io::Error`] that this error converts to. It is never
    /// `Interrupted`, on which callers would make the same call again.
    pub fn io_kind(&self) -> io::ErrorKind {
        use io::ErrorKind as Kind;
        match self {
            Self::Io { source, .. } if source.kind() != Kind::Interrupted => source.kind(),
            Self::NotFound { .. } | Self::OnlyBackups { .. } | Self::NoFolder { .. } => {
                Kind::NotFound
            }
            Self::AlreadyExists { .. } => Kind::AlreadyExists,
            Self::BadPath { .. }
            | Self::NotAFile { .. }
            | Self::WrongForm { .. }
            | Self::NotEncrypted { .. }
            | Self::NotInHistory { .. }
            | Self::Contradiction(_)
            | Self::Record {
                source: RecordError::KeyTooLong { .. } | RecordError::BatchTooLarge { .. },
                ..
            } => Kind::InvalidInput,
            Self::NewerVersion { .. } | Self::Unsupported { .. } => Kind::Unsupported,
            Self::IsBackup { .. }
            | Self::FileReadOnly { .. }
            | Self::ReadOnly { .. }
            | Self::KeyRequired { .. }
            | Self::WrongKey { .. } => Kind::PermissionDenied,
            Self::NotADatabase { .. }
            | Self::EmptyFile { .. }
            | Self::Damaged { .. }
            | Self::TailSuspect { .. }
            | Self::LogMissing { .. }
            | Self::ImageMissing { .. }
            | Self::Gap { .. }
            | Self::ForeignLog { .. }
            | Self::Record { .. }
            | Self::Tampered { .. }
            | Self::AnchorMismatch { .. }
            | Self::AnchorUnknown { .. } => Kind::InvalidData,
            Self::Locked { .. } => Kind::WouldBlock,
            Self::NoSpace { .. } => Kind::StorageFull,
            #[cfg(feature = "shared")]
            Self::Shared(source) => source.io_kind(),
            Self::Io { .. }
            | Self::RestorePending { .. }
            | Self::InDoubt { .. }
            | Self::Poisoned { .. }
            | Self::Closed { .. }
            | Self::Abandoned { .. }
            | Self::Seal { .. } => Kind::Other,
        }
    }

    /// Returns true if a commit may or may not have been made.
    #[doc(hidden)]
    pub fn is_in_doubt(&self) -> bool {
        match self {
            #[cfg(feature = "shared")]
            Self::Shared(error) => {
                use SharedError::{FailedInDoubt, Unanswered};
                matches!(error, Unanswered { .. } | FailedInDoubt { .. })
            }
            error => matches!(error, Self::InDoubt { .. }),
        }
    }

    /// Returns true if there was no room for a commit, and nothing was changed.
    #[doc(hidden)]
    pub fn is_no_space(&self) -> bool {
        match self {
            #[cfg(feature = "shared")]
            Self::Shared(error) => matches!(error, SharedError::Full { .. }),
            error => matches!(error, Self::NoSpace { .. }),
        }
    }

    /// Returns the error of a failed attempt to open an existing file for writing: `FileReadOnly`
    /// if permission was denied, otherwise `Io`.
    pub(crate) fn not_writable(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::FileReadOnly { path: path.to_owned() },
            _ => Self::io("open for writing", path, source),
        }
    }

    /// Wraps the error of a call that wrote no part of a commit.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }
}

/// The kind is [`Error::io_kind`], and [`io::Error::get_ref`] returns this error.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.io_kind(), error)
    }
}

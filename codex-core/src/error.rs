//! The errors of a store: what is wrong, where, and what to do next.

use std::path::PathBuf;

use crate::value::Codec;

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a store could not do what was asked.
///
/// No variant carries a key or a value, nor what a decoder says of one: errors end in logs.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk, the files or the options: see [`codex_storage::Error`], one variant for each
    /// cause.
    #[error(transparent)]
    Storage(#[from] codex_storage::Error),
    /// A value could not be encoded, or what its codec would have written does not read back as
    /// the same value.
    #[error(
        "a {type_name} cannot be encoded as {codec} for a key of {key_len} bytes: {why}; \
         change the type, or store bytes with `set_bytes`"
    )]
    Encode {
        /// The type of the value.
        type_name: &'static str,
        /// The length of the key in bytes.
        key_len: usize,
        /// The codec that was to encode it.
        codec: Codec,
        /// What the codec objects to.
        why: &'static str,
    },
    /// A stored value is not what the type asks for: most often another type was stored, or the
    /// type has gained or lost a field since.
    #[error(
        "the value of a key of {key_len} bytes, stored as {codec}, does not decode as \
         {type_name}: {why}; read it as the type that was stored, or with `get_bytes`"
    )]
    Decode {
        /// The type asked for.
        type_name: &'static str,
        /// The length of the key in bytes.
        key_len: usize,
        /// The codec that the value was stored with.
        codec: Codec,
        /// What the codec objects to.
        why: &'static str,
    },
    /// A value was stored as raw bytes and read as a type.
    #[error(
        "the value of a key of {key_len} bytes is raw bytes, not an encoded {type_name}; \
         read it with `get_bytes`"
    )]
    RawValue {
        /// The type asked for.
        type_name: &'static str,
        /// The length of the key in bytes.
        key_len: usize,
    },
    /// A value was stored with a codec that this build does not know.
    #[error(
        "the value of a key of {key_len} bytes was stored with codec {codec_id}, which this build \
         cannot decode as {type_name}; enable the feature `json` for codec 2, or use a newer build"
    )]
    UnknownCodec {
        /// The type asked for.
        type_name: &'static str,
        /// The length of the key in bytes.
        key_len: usize,
        /// The codec's number.
        codec_id: u8,
    },
    /// The closure of an `update` wrote the key that it updates. The closure's own write stays; the
    /// value that it returned was not written.
    #[error(
        "the closure of `update` writes the key of {key_len} bytes that it updates; return the \
         new value from the closure instead"
    )]
    UpdatesItself {
        /// The length of the key in bytes.
        key_len: usize,
    },
    /// An `update` lost against other writers of its key again and again.
    #[error(
        "the key of {key_len} bytes changed under {rounds} attempts to update it; \
         try again, or let fewer threads update one key"
    )]
    Contended {
        /// The length of the key in bytes.
        key_len: usize,
        /// How often it was tried.
        rounds: u32,
    },
    /// A backup, or a copy of one, could not be made, read or put back.
    #[error("{0}")]
    Backup(std::sync::Arc<codex_backup::Error>),
    /// The last backup failed, and the options demand backups: writes are refused until one
    /// succeeds.
    #[error(
        "{path}: writes are refused until a backup succeeds; the last one failed: {why}; mend the \
         cause, then write again or call `back_up`"
    )]
    BackupRequired {
        /// The store.
        path: PathBuf,
        /// Why the last backup failed.
        why: String,
    },
    /// The handle was copied into another process by `fork`, where its locks and threads do not
    /// exist.
    #[error(
        "{path} was opened by process {opened_by} and is used in its forked child {used_by}; \
         open the store after forking"
    )]
    ForkedChild {
        /// The store.
        path: PathBuf,
        /// The process that opened it.
        opened_by: u32,
        /// The process that used it.
        used_by: u32,
    },
}

impl From<codex_backup::Error> for Error {
    fn from(error: codex_backup::Error) -> Self {
        Self::Backup(std::sync::Arc::new(error))
    }
}

impl Error {
    /// Whether the write may or may not be on disk, which only reopening decides.
    ///
    /// Every other error means that the write is not there and will not be.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self, Self::Storage(codex_storage::Error::InDoubt { .. }))
    }

    /// Whether an earlier failure makes this handle refuse writes until the store is reopened.
    pub fn is_poisoned(&self) -> bool {
        matches!(self, Self::Storage(codex_storage::Error::Poisoned { .. }))
    }

    /// Whether the store was closed.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Storage(codex_storage::Error::Closed { .. }))
    }

    /// Whether the store is open elsewhere.
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Storage(codex_storage::Error::Locked { .. }))
    }

    /// Whether the disk is full; nothing was changed.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::Storage(codex_storage::Error::NoSpace { .. }))
    }

    /// Whether a key, a value or a batch exceeds its limit.
    pub fn is_too_large(&self) -> bool {
        use codex_storage::RecordError::{BatchTooLarge, KeyTooLong};
        matches!(
            self,
            Self::Storage(codex_storage::Error::Record {
                source: KeyTooLong { .. } | BatchTooLarge { .. },
                ..
            })
        )
    }

    /// Whether the files were found damaged, incomplete or changed by others.
    pub fn is_damage(&self) -> bool {
        use codex_storage::Error as E;
        matches!(
            self,
            Self::Storage(
                E::Damaged { .. }
                    | E::TailSuspect { .. }
                    | E::LogMissing { .. }
                    | E::ImageMissing { .. }
                    | E::Gap { .. }
                    | E::ForeignLog { .. }
                    | E::EmptyFile { .. }
                    | E::NotADatabase { .. }
                    | E::Tampered { .. }
                    | E::AnchorMismatch { .. }
            )
        )
    }
}

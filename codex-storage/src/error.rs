//! The errors of this crate: what is wrong, in which file, at which offset, and what to do next.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::Seq;
use crate::seal::SealError;
use crate::storage::Form;

/// The result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a storage could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused; nothing of a commit was handed to a file.
    #[error("cannot {action} {path}: {source}; check the disk and the permissions, then try again")]
    Io {
        /// What was tried, as a verb: "open", "rename".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's own error.
        source: Arc<io::Error>,
    },
    /// There is no store at the path, and it was not to be created.
    #[error(
        "{path}: there is no store; restore a backup, or open it with `create` and without an \
         anchor to make one"
    )]
    NotFound {
        /// The path asked for.
        path: PathBuf,
    },
    /// There is no store at the path, but backups of one: an empty store in its place would disown
    /// them.
    #[error(
        "{path}: there is no store, but its backup {backup}; restore it (`Backups::restore`, or \
         open with `fall_back_to_backup`), or move the backups elsewhere to begin an empty store"
    )]
    OnlyBackups {
        /// The path asked for.
        path: PathBuf,
        /// The name of the newest backup.
        backup: String,
    },
    /// The parent folder is missing.
    #[error("{path}: its folder does not exist; create the folder first")]
    NoFolder {
        /// The path asked for.
        path: PathBuf,
    },
    /// A store was to be created where something already is.
    #[error("{path} already exists; open it without `create_new`, or choose another path")]
    AlreadyExists {
        /// The path asked for.
        path: PathBuf,
    },
    /// The path cannot name a store.
    #[error("{path}: {why}")]
    BadPath {
        /// The path asked for.
        path: PathBuf,
        /// What is wrong with it and what to do.
        why: &'static str,
    },
    /// What stands at the path is a directory, a symbolic link, a FIFO or a device.
    #[error("{path} is {what}, not a regular file; name the file itself")]
    NotAFile {
        /// The path asked for.
        path: PathBuf,
        /// What stands there.
        what: &'static str,
    },
    /// The file does not begin like a file of this program.
    #[error("{path} is not a CodexDB file (no signature at offset 0); it was left untouched")]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The file has no bytes: not a store, and not taken for an empty one.
    #[error(
        "{path} is empty, which no store ever is; restore a backup, or remove it to start anew"
    )]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of the program wrote the file.
    #[error(
        "{path} has format version {found}, this build reads up to {supported}; use a newer build"
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest version that this build reads.
        supported: u16,
    },
    /// The file uses what only a newer version of the program knows, within this format version.
    #[error("{path} uses {what}, which this build does not know; use a newer build")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not known.
        what: &'static str,
    },
    /// The file is of another form than asked for.
    #[error("{path} has the form {found}, not {wanted}; open it without a form, or convert it")]
    WrongForm {
        /// The file.
        path: PathBuf,
        /// The form in its header.
        found: Form,
        /// The form asked for.
        wanted: Form,
    },
    /// A backup was opened for writing.
    #[error("{path} is a backup; open it read-only, or restore it to its store's path")]
    IsBackup {
        /// The file.
        path: PathBuf,
    },
    /// The file may not be written: it is a copy of a backup, whose mode is 0400, or another
    /// user's.
    #[error(
        "{path} is read-only, as a backup is (mode 0400) and a copy of one made by hand; open it \
         with `read_only`, restore the backup to its store's path, or allow writing \
         (`chmod u+w`)"
    )]
    FileReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// Bytes that were durable are no longer what was written.
    #[error(
        "{path}: damage at offset {offset}: {what}; nothing was changed; restore a backup or \
         salvage what precedes it"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damage was found.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The end of a log is neither intact nor shaped like a torn write.
    #[error(
        "{path}: the {bytes} bytes from offset {offset} (behind commit {seq}) are neither \
         intact nor a torn write; nothing was changed; look for another cause, or open with \
         `on_damage` set to cut the tail"
    )]
    TailSuspect {
        /// The log.
        path: PathBuf,
        /// Where the intact part ends.
        offset: u64,
        /// The last intact commit.
        seq: Seq,
        /// How many bytes would be cut.
        bytes: u64,
    },
    /// The image says that a log continues it, and that log is missing.
    #[error("{path}: its log {log} is missing; put the log beside it, or restore a backup")]
    LogMissing {
        /// The image.
        path: PathBuf,
        /// The log's file name.
        log: String,
    },
    /// A log is there without its image.
    #[error(
        "{path} is missing but its log {log} is there; put the image back, or restore a backup"
    )]
    ImageMissing {
        /// The image.
        path: PathBuf,
        /// The log's file name.
        log: String,
    },
    /// A log does not begin where the image or the log before it ends.
    #[error(
        "{path} begins behind commit {found}, but what precedes it ends at commit {expected}; \
         put the missing log back, or restore a backup"
    )]
    Gap {
        /// The log.
        path: PathBuf,
        /// The last commit before it.
        expected: Seq,
        /// The commit that it says it follows.
        found: Seq,
    },
    /// A log beside the image belongs to another store, or to another state of this one.
    #[error(
        "{path} belongs to another store or to another state of this one; it was left \
         untouched: move it away, or restore a backup with its own files"
    )]
    ForeignLog {
        /// The log.
        path: PathBuf,
    },
    /// Somebody else has the store open.
    #[error(
        "{path} is open elsewhere (waited {waited_ms} ms); close the other handle, or set a \
         longer `lock_timeout`"
    )]
    Locked {
        /// The store.
        path: PathBuf,
        /// How long the lock was waited for, in milliseconds.
        waited_ms: u64,
    },
    /// A restore was begun and not finished.
    #[error("{path}: a restore is pending; open the store for writing once to finish it")]
    RestorePending {
        /// The store.
        path: PathBuf,
    },
    /// The disk is full; nothing was changed and writing goes on once space is free.
    #[error("{path}: no space for {needed} bytes; nothing was changed; free space and try again")]
    NoSpace {
        /// The file that could not grow.
        path: PathBuf,
        /// How many bytes were asked for.
        needed: u64,
    },
    /// Bytes of the commit may or may not be on disk: only reopening decides.
    #[error(
        "{path}: commit {seq} is in doubt ({source}); the store refuses writes now: reopen \
         it, recovery decides"
    )]
    InDoubt {
        /// The file.
        path: PathBuf,
        /// The first commit in doubt.
        seq: Seq,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// An earlier failure left the disk in doubt.
    #[error(
        "{path}: an earlier error poisoned the store ({reason}); reads go on, writes need a \
         reopening"
    )]
    Poisoned {
        /// The store.
        path: PathBuf,
        /// The first failure, in words.
        reason: String,
    },
    /// The storage was opened to read.
    #[error("{path} is open read-only; open it for writing")]
    ReadOnly {
        /// The store.
        path: PathBuf,
    },
    /// The storage is closed.
    #[error("{path} is closed; open it again")]
    Closed {
        /// The store.
        path: PathBuf,
    },
    /// Something long, such as an image, was given up: the store closes, or its caller said so.
    #[error("{path}: given up before its end: the store is closing, or it was stopped")]
    Abandoned {
        /// The file.
        path: PathBuf,
    },
    /// A record cannot be encoded or decoded.
    #[error("{path}: {source}")]
    Record {
        /// The store or file.
        path: PathBuf,
        /// What is wrong with it.
        source: RecordError,
    },
    /// The store is encrypted and no key was given.
    #[error("{path} is encrypted; open it with its key or passphrase")]
    KeyRequired {
        /// The store.
        path: PathBuf,
    },
    /// A key was given for a store that is not encrypted.
    #[error("{path} is not encrypted; open it without a key, or convert it")]
    NotEncrypted {
        /// The store.
        path: PathBuf,
    },
    /// The key does not open the store.
    #[error("{path}: the key or passphrase does not open this store")]
    WrongKey {
        /// The store.
        path: PathBuf,
    },
    /// Sealed bytes were changed, moved or replaced.
    #[error(
        "{path}: the bytes at offset {offset} fail authentication: changed, moved or \
         replaced; restore a backup"
    )]
    Tampered {
        /// The file.
        path: PathBuf,
        /// Where the sealed bytes begin.
        offset: u64,
    },
    /// Encryption could not be used.
    #[error("{path}: {source}")]
    Seal {
        /// The store.
        path: PathBuf,
        /// Why.
        source: SealError,
    },
    /// The store does not contain the commit that the anchor names.
    #[error(
        "{path}: the store does not contain the anchored commit {seq}: it was rolled back or \
         replaced; restore newer files"
    )]
    AnchorMismatch {
        /// The store.
        path: PathBuf,
        /// The anchored commit.
        seq: Seq,
    },
    /// The store has gone on behind the commit that the anchor names, and its files no longer tell
    /// whether that commit is in its history.
    #[error(
        "{path}: the store is further on than the anchored commit {seq}, and no longer lists it: \
         it may be another history of this store; compare with a newer anchor, or check the \
         contents by other means and open with `accept_unknown_anchor`"
    )]
    AnchorUnknown {
        /// The store.
        path: PathBuf,
        /// The anchored commit.
        seq: Seq,
    },
    /// Two options, or an option and a form, contradict each other.
    #[error("{0}")]
    Contradiction(&'static str),
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The key is longer than a record can hold.
    #[error("the key has {len} bytes, the limit is {limit}; store a digest of it instead")]
    KeyTooLong {
        /// Its length.
        len: usize,
        /// The longest that fits.
        limit: usize,
    },
    /// The batch does not fit one commit.
    #[error("the commit encodes to more than {limit} bytes; split it")]
    BatchTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// A record kind that this build does not know.
    #[error("record kind {0} is not known to this build; use a newer one")]
    UnknownKind(u8),
    /// Record flags that this build does not know.
    #[error("record flags {0:#04x} are not known to this build; use a newer one")]
    UnknownFlags(u8),
    /// Lengths or counts do not add up.
    #[error("malformed record: {0}")]
    Malformed(&'static str),
}

impl Error {
    /// Wraps a failed call that changed nothing of a commit: `NoSpace` where the disk is full.
    /// An existing file could not be opened for writing.
    pub(crate) fn not_writable(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::FileReadOnly { path: path.to_owned() },
            _ => Self::io("open for writing", path, source),
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }
}

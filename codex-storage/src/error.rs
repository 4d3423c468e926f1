//! The errors of this crate. An error names the file, the offset if there is one, and the next
//! step.

mod kind;
mod message;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::batch::Seq;
use crate::seal::SealError;
use crate::storage::Form;
use crate::vfs::LockHolder;

/// The result of each fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason for which an operation of a storage failed.
#[derive(Clone)]
#[non_exhaustive]
pub enum Error {
    /// A call of the operating system failed. No part of a commit was written to a file.
    Io {
        /// The call that failed, as a verb: "open", "rename".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },
    /// The path has no store, and the options do not allow creating one.
    NotFound {
        /// The path of the store.
        path: PathBuf,
    },
    /// The path has no store, but it has backups of one. An empty store is not created, because the
    /// backups would no longer belong to the store at the path.
    OnlyBackups {
        /// The path of the store.
        path: PathBuf,
        /// The name of the newest backup.
        backup: String,
    },
    /// The folder of the path does not exist.
    NoFolder {
        /// The path of the store.
        path: PathBuf,
    },
    /// A new store was requested, and a file is at the path.
    AlreadyExists {
        /// The path of the store.
        path: PathBuf,
    },
    /// The path is not allowed for a store.
    BadPath {
        /// The path of the store.
        path: PathBuf,
        /// The reason, and the next step.
        why: &'static str,
    },
    /// The path leads to a directory, a symbolic link, a FIFO or a device.
    NotAFile {
        /// The path of the store.
        path: PathBuf,
        /// The kind of file, with its article.
        what: &'static str,
    },
    /// The file does not begin with the signature of a file of this program.
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The file has no bytes. It is not opened as an empty store.
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// A newer version of the program wrote the file.
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u16,
        /// The newest version that this build reads.
        supported: u16,
    },
    /// The file uses a feature of a newer version of the program, within this format version.
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The feature that this build does not know.
        what: &'static str,
    },
    /// The form of the store is not the requested form.
    WrongForm {
        /// The file.
        path: PathBuf,
        /// The form in its header.
        found: Form,
        /// The requested form.
        wanted: Form,
    },
    /// A backup was opened for writing, which is not allowed.
    IsBackup {
        /// The file.
        path: PathBuf,
    },
    /// The mode of the file does not allow writing. The file is a copy of a backup, whose mode is
    /// 0400, or belongs to another user.
    FileReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// Bytes that were durable have changed since they were written.
    Damaged {
        /// The file.
        path: PathBuf,
        /// The offset of the damage.
        offset: u64,
        /// The check that failed there.
        what: &'static str,
    },
    /// The end of a log is neither intact nor shaped like a torn write.
    TailSuspect {
        /// The log.
        path: PathBuf,
        /// The offset at which the intact part ends.
        offset: u64,
        /// The last intact commit.
        seq: Seq,
        /// The number of bytes that `OnDamage::CutTail` would remove.
        bytes: u64,
    },
    /// The image names a log that continues it, and the log is missing.
    LogMissing {
        /// The image.
        path: PathBuf,
        /// The file name of the log.
        log: String,
    },
    /// The image is missing, and its log is present.
    ImageMissing {
        /// The image.
        path: PathBuf,
        /// The file name of the log.
        log: String,
    },
    /// A log does not begin at the end of the image or of the log before it.
    Gap {
        /// The log.
        path: PathBuf,
        /// The last commit of the image or log before it.
        expected: Seq,
        /// The commit after which the log begins, by its header.
        found: Seq,
    },
    /// A log beside the image belongs to another store, or to another state of this store.
    ForeignLog {
        /// The log.
        path: PathBuf,
    },
    /// Another handle has the store open.
    Locked {
        /// The store.
        path: PathBuf,
        /// The process that holds the lock, as far as it is known.
        holder: LockHolder,
        /// The time that was spent waiting for the lock, in milliseconds.
        waited_ms: u64,
    },
    /// A restore was begun and has not been finished.
    RestorePending {
        /// The store.
        path: PathBuf,
    },
    /// The disk is full. Nothing was changed, and writes succeed again after space was freed.
    NoSpace {
        /// The file that could not grow.
        path: PathBuf,
        /// The number of bytes that were requested.
        needed: u64,
    },
    /// A commit may or may not be on the disk. Recovery decides when the store is opened again.
    InDoubt {
        /// The file.
        path: PathBuf,
        /// The first commit in doubt.
        seq: Seq,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },
    /// An earlier error poisoned the store: a write to the disk may or may not have succeeded.
    Poisoned {
        /// The store.
        path: PathBuf,
        /// The text of the first error.
        reason: String,
    },
    /// The storage was opened read-only.
    ReadOnly {
        /// The store.
        path: PathBuf,
    },
    /// The storage is closed.
    Closed {
        /// The store.
        path: PathBuf,
    },
    /// A long operation, such as the writing of an image, was stopped before its end, by its caller
    /// or because the store is closing.
    Abandoned {
        /// The file.
        path: PathBuf,
    },
    /// A record cannot be encoded or decoded.
    Record {
        /// The store or file.
        path: PathBuf,
        /// The fault of the record.
        source: RecordError,
    },
    /// The store is encrypted and no key was given.
    KeyRequired {
        /// The store.
        path: PathBuf,
    },
    /// A key was given for a store that is not encrypted.
    NotEncrypted {
        /// The store.
        path: PathBuf,
    },
    /// The key does not open the store.
    WrongKey {
        /// The store.
        path: PathBuf,
    },
    /// Authentication failed: sealed bytes were changed, moved or replaced.
    Tampered {
        /// The file.
        path: PathBuf,
        /// The offset at which the sealed bytes begin.
        offset: u64,
    },
    /// The encryption failed for another reason than the key or the bytes.
    Seal {
        /// The store.
        path: PathBuf,
        /// The reason.
        source: SealError,
    },
    /// The store does not contain the commit of the anchor.
    AnchorMismatch {
        /// The store.
        path: PathBuf,
        /// The anchored commit.
        seq: Seq,
    },
    /// The store has commits after the commit of the anchor, and its files no longer show whether
    /// that commit is in its history.
    AnchorUnknown {
        /// The store.
        path: PathBuf,
        /// The anchored commit.
        seq: Seq,
    },
    /// The ledger, or the archive, does not have the state at the requested point.
    NotInHistory {
        /// The ledger, or the image of the archive.
        path: PathBuf,
        /// The commits after which it has the state; 0 stands for the empty store.
        states: std::ops::RangeInclusive<Seq>,
    },
    /// Two options, or an option and a form, contradict each other.
    Contradiction(&'static str),
    /// A shared log could not be read or written.
    #[cfg(feature = "shared")]
    Shared(crate::shared::SharedError),
}

/// The fault of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// The key is longer than a record can hold.
    KeyTooLong {
        /// The length of the key, in bytes.
        len: usize,
        /// The maximum length of a key, in bytes.
        limit: usize,
    },
    /// The batch is too large for one commit.
    BatchTooLarge {
        /// The maximum length of an encoded commit, in bytes.
        limit: usize,
    },
    /// The kind of the record is not known to this build.
    UnknownKind(u8),
    /// The flags of the record are not known to this build.
    UnknownFlags(u8),
    /// The lengths or counts of the record contradict each other.
    Malformed(&'static str),
}

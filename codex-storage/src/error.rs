//! The errors of this crate. An error names the file, the offset if there is one, and the next
//! step.

mod kind;

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
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A call of the operating system failed. No part of a commit was written to a file.
    #[error("cannot {action} {path}: {source}; check the disk and the permissions, then try again")]
    Io {
        /// The call that failed, as a verb: "open", "rename".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },
    /// The path has no store, and the options do not allow creating one.
    #[error(
        "{path}: there is no store; restore a backup, or open it with `create` and without an \
         anchor to make one"
    )]
    NotFound {
        /// The path of the store.
        path: PathBuf,
    },
    /// The path has no store, but it has backups of one. An empty store is not created, because the
    /// backups would no longer belong to the store at the path.
    #[error(
        "{path}: there is no store, but its backup {backup}; restore it (`Backups::restore`, or \
         open with `fall_back_to_backup`), or move the backups elsewhere to begin an empty store"
    )]
    OnlyBackups {
        /// The path of the store.
        path: PathBuf,
        /// The name of the newest backup.
        backup: String,
    },
    /// The folder of the path does not exist.
    #[error("{path}: its folder does not exist; create the folder first")]
    NoFolder {
        /// The path of the store.
        path: PathBuf,
    },
    /// A new store was requested, and a file is at the path.
    #[error("{path} already exists; open it without `create_new`, or choose another path")]
    AlreadyExists {
        /// The path of the store.
        path: PathBuf,
    },
    /// The path is not allowed for a store.
    #[error("{path}: {why}")]
    BadPath {
        /// The path of the store.
        path: PathBuf,
        /// The reason, and the next step.
        why: &'static str,
    },
    /// The path leads to a directory, a symbolic link, a FIFO or a device.
    #[error("{path} is {what}, not a regular file; name the file itself")]
    NotAFile {
        /// The path of the store.
        path: PathBuf,
        /// The kind of file, with its article.
        what: &'static str,
    },
    /// The file does not begin with the signature of a file of this program.
    #[error("{path} is not a CodexDB file (no signature at offset 0); it was left untouched")]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The file has no bytes. It is not opened as an empty store.
    #[error(
        "{path} is empty, which no store is; restore a backup, or remove it to create a new store"
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
    /// The file uses a feature of a newer version of the program, within this format version.
    #[error("{path} uses {what}, which this build does not know; use a newer build")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The feature that this build does not know.
        what: &'static str,
    },
    /// The form of the store is not the requested form.
    #[error("{path} has the form {found}, not {wanted}; open it without a form, or convert it")]
    WrongForm {
        /// The file.
        path: PathBuf,
        /// The form in its header.
        found: Form,
        /// The requested form.
        wanted: Form,
    },
    /// A backup was opened for writing, which is not allowed.
    #[error("{path} is a backup; open it read-only, or restore it to its store's path")]
    IsBackup {
        /// The file.
        path: PathBuf,
    },
    /// The mode of the file does not allow writing. The file is a copy of a backup, whose mode is
    /// 0400, or belongs to another user.
    #[error(
        "{path} is read-only, as is a backup (mode 0400) and a copy of one; open it with \
         `read_only`, restore the backup to its store's path, or allow writing (`chmod u+w`)"
    )]
    FileReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// Bytes that were durable have changed since they were written.
    #[error(
        "{path}: damage at offset {offset}: {what}; nothing was changed; restore a backup or \
         salvage the data before it"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The offset of the damage.
        offset: u64,
        /// The check that failed there.
        what: &'static str,
    },
    /// The end of a log is neither intact nor shaped like a torn write.
    #[error(
        "{path}: the {bytes} bytes from offset {offset} (after commit {seq}) are neither \
         intact nor a torn write; nothing was changed; look for another cause, or open with \
         `on_damage` set to cut the tail"
    )]
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
    #[error("{path}: its log {log} is missing; put the log beside it, or restore a backup")]
    LogMissing {
        /// The image.
        path: PathBuf,
        /// The file name of the log.
        log: String,
    },
    /// The image is missing, and its log is present.
    #[error(
        "{path} is missing but its log {log} is there; put the image back, or restore a backup"
    )]
    ImageMissing {
        /// The image.
        path: PathBuf,
        /// The file name of the log.
        log: String,
    },
    /// A log does not begin at the end of the image or of the log before it.
    #[error(
        "{path} begins after commit {found}, but the file before it ends at commit {expected}; \
         put the missing log back, or restore a backup"
    )]
    Gap {
        /// The log.
        path: PathBuf,
        /// The last commit of the image or log before it.
        expected: Seq,
        /// The commit after which the log begins, by its header.
        found: Seq,
    },
    /// A log beside the image belongs to another store, or to another state of this store.
    #[error(
        "{path} belongs to another store or to another state of this one; it was left \
         untouched: move it away, or restore a backup with its own files"
    )]
    ForeignLog {
        /// The log.
        path: PathBuf,
    },
    /// Another handle has the store open.
    #[error(
        "{path} is open {holder} (waited {waited_ms} ms); close the other handle, or set a \
         longer `lock_timeout`"
    )]
    Locked {
        /// The store.
        path: PathBuf,
        /// The process that holds the lock, as far as it is known.
        holder: LockHolder,
        /// The time that was spent waiting for the lock, in milliseconds.
        waited_ms: u64,
    },
    /// A restore was begun and has not been finished.
    #[error("{path}: a restore is pending; open the store for writing once to finish it")]
    RestorePending {
        /// The store.
        path: PathBuf,
    },
    /// The disk is full. Nothing was changed, and writes succeed again after space was freed.
    #[error("{path}: no space for {needed} bytes; nothing was changed; free space and try again")]
    NoSpace {
        /// The file that could not grow.
        path: PathBuf,
        /// The number of bytes that were requested.
        needed: u64,
    },
    /// A commit may or may not be on the disk. Recovery decides when the store is opened again.
    #[error(
        "{path}: commit {seq} is in doubt ({source}); the store refuses writes now: open it \
         again, and recovery decides"
    )]
    InDoubt {
        /// The file.
        path: PathBuf,
        /// The first commit in doubt.
        seq: Seq,
        /// The error of the operating system.
        source: Arc<io::Error>,
    },
    /// An earlier error poisoned the store: a write to the disk may or may not have succeeded.
    #[error(
        "{path}: an earlier error poisoned the store ({reason}); reads still succeed; to write, \
         open the store again"
    )]
    Poisoned {
        /// The store.
        path: PathBuf,
        /// The text of the first error.
        reason: String,
    },
    /// The storage was opened read-only.
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
    /// A long operation, such as the writing of an image, was stopped before its end, by its caller
    /// or because the store is closing.
    #[error("{path}: stopped before its end: the store is closing, or the caller stopped it")]
    Abandoned {
        /// The file.
        path: PathBuf,
    },
    /// A record cannot be encoded or decoded.
    #[error("{path}: {source}")]
    Record {
        /// The store or file.
        path: PathBuf,
        /// The fault of the record.
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
    /// Authentication failed: sealed bytes were changed, moved or replaced.
    #[error(
        "{path}: the bytes at offset {offset} fail authentication: changed, moved or \
         replaced; restore a backup"
    )]
    Tampered {
        /// The file.
        path: PathBuf,
        /// The offset at which the sealed bytes begin.
        offset: u64,
    },
    /// The encryption failed for another reason than the key or the bytes.
    #[error("{path}: {source}")]
    Seal {
        /// The store.
        path: PathBuf,
        /// The reason.
        source: SealError,
    },
    /// The store does not contain the commit of the anchor.
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
    /// The store has commits after the commit of the anchor, and its files no longer show whether
    /// that commit is in its history.
    #[error(
        "{path}: the store has commits after the anchored commit {seq} and no longer lists that \
         commit, so this may be another history of the store; compare with a newer anchor, or \
         check the contents by other means and open with `accept_unknown_anchor`"
    )]
    AnchorUnknown {
        /// The store.
        path: PathBuf,
        /// The anchored commit.
        seq: Seq,
    },
    /// The ledger, or the archive, does not have the state at the requested point.
    #[error("{path}: it has the states after the commits {states:?}; name one of these")]
    NotInHistory {
        /// The ledger, or the image of the archive.
        path: PathBuf,
        /// The commits after which it has the state; 0 stands for the empty store.
        states: std::ops::RangeInclusive<Seq>,
    },
    /// Two options, or an option and a form, contradict each other.
    #[error("{0}")]
    Contradiction(&'static str),
    /// A shared log could not be read or written.
    #[cfg(feature = "shared")]
    #[error("{0}")]
    Shared(crate::shared::SharedError),
}

/// The fault of a record.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The key is longer than a record can hold.
    #[error("the key has {len} bytes, the limit is {limit}; store a digest of it instead")]
    KeyTooLong {
        /// The length of the key, in bytes.
        len: usize,
        /// The maximum length of a key, in bytes.
        limit: usize,
    },
    /// The batch is too large for one commit.
    #[error("the commit encodes to more than {limit} bytes; split it")]
    BatchTooLarge {
        /// The maximum length of an encoded commit, in bytes.
        limit: usize,
    },
    /// The kind of the record is not known to this build.
    #[error("record kind {0} is not known to this build; use a newer one")]
    UnknownKind(u8),
    /// The flags of the record are not known to this build.
    #[error("record flags {0:#04x} are not known to this build; use a newer one")]
    UnknownFlags(u8),
    /// The lengths or counts of the record contradict each other.
    #[error("malformed record: {0}")]
    Malformed(&'static str),
}

//! The texts of the errors.

use super::{Error, RecordError};

crate::messages! {
    Error {
        Io { action, path, source } =>
            "cannot {action} {path}: {source}; check the disk and the permissions, then try again",
            path = path.display();
        NotFound { path } =>
            "{path}: there is no store; restore a backup, or open it with `create` and without \
             an anchor to make one", path = path.display();
        OnlyBackups { path, backup } =>
            "{path}: there is no store, but its backup {backup}; restore it (`Backups::restore`, \
             or open with `fall_back_to_backup`), or move the backups elsewhere to begin an empty \
             store", path = path.display();
        NoFolder { path } =>
            "{path}: its folder does not exist; create the folder first", path = path.display();
        AlreadyExists { path } =>
            "{path} already exists; open it without `create_new`, or choose another path",
            path = path.display();
        BadPath { path, why } => "{path}: {why}", path = path.display();
        NotAFile { path, what } =>
            "{path} is {what}, not a regular file; name the file itself", path = path.display();
        NotADatabase { path } =>
            "{path} is not a CodexDB file (no signature at offset 0); it was left untouched",
            path = path.display();
        EmptyFile { path } =>
            "{path} is empty, which no store is; restore a backup, or remove it to create a new \
             store", path = path.display();
        NewerVersion { path, found, supported } =>
            "{path} has format version {found}, this build reads up to {supported}; use a newer \
             build", path = path.display();
        Unsupported { path, what } =>
            "{path} uses {what}, which this build does not know; use a newer build",
            path = path.display();
        WrongForm { path, found, wanted } =>
            "{path} has the form {found}, not {wanted}; open it without a form, or convert it",
            path = path.display();
        IsBackup { path } =>
            "{path} is a backup; open it read-only, or restore it to its store's path",
            path = path.display();
        FileReadOnly { path } =>
            "{path} is read-only, as is a backup (mode 0400) and a copy of one; open it with \
             `read_only`, restore the backup to its store's path, or allow writing (`chmod u+w`)",
            path = path.display();
        Damaged { path, offset, what } =>
            "{path}: damage at offset {offset}: {what}; nothing was changed; restore a backup or \
             salvage the data before it", path = path.display();
        TailSuspect { path, offset, seq, bytes } =>
            "{path}: the {bytes} bytes from offset {offset} (after commit {seq}) are neither \
             intact nor a torn write; nothing was changed; look for another cause, or open with \
             `on_damage` set to cut the tail", path = path.display();
        LogMissing { path, log } =>
            "{path}: its log {log} is missing; put the log beside it, or restore a backup",
            path = path.display();
        ImageMissing { path, log } =>
            "{path} is missing but its log {log} is there; put the image back, or restore a \
             backup", path = path.display();
        Gap { path, expected, found } =>
            "{path} begins after commit {found}, but the file before it ends at commit \
             {expected}; put the missing log back, or restore a backup", path = path.display();
        ForeignLog { path } =>
            "{path} belongs to another store or to another state of this one; it was left \
             untouched: move it away, or restore a backup with its own files",
            path = path.display();
        Locked { path, holder, waited_ms } =>
            "{path} is open {holder} (waited {waited_ms} ms); close the other handle, or set a \
             longer `lock_timeout`", path = path.display();
        RestorePending { path } =>
            "{path}: a restore is pending; open the store for writing once to finish it",
            path = path.display();
        NoSpace { path, needed } =>
            "{path}: no space for {needed} bytes; nothing was changed; free space and try again",
            path = path.display();
        InDoubt { path, seq, source } =>
            "{path}: commit {seq} is in doubt ({source}); the store refuses writes now: open it \
             again, and recovery decides", path = path.display();
        Poisoned { path, reason } =>
            "{path}: an earlier error poisoned the store ({reason}); reads still succeed; to \
             write, open the store again", path = path.display();
        ReadOnly { path } => "{path} is open read-only; open it for writing", path = path.display();
        Closed { path } => "{path} is closed; open it again", path = path.display();
        Abandoned { path } =>
            "{path}: stopped before its end: the store is closing, or the caller stopped it",
            path = path.display();
        Record { path, source } => "{path}: {source}", path = path.display();
        KeyRequired { path } =>
            "{path} is encrypted; open it with its key or passphrase", path = path.display();
        NotEncrypted { path } =>
            "{path} is not encrypted; open it without a key, or convert it", path = path.display();
        WrongKey { path } =>
            "{path}: the key or passphrase does not open this store", path = path.display();
        Tampered { path, offset } =>
            "{path}: the bytes at offset {offset} fail authentication: changed, moved or \
             replaced; restore a backup", path = path.display();
        Seal { path, source } => "{path}: {source}", path = path.display();
        AnchorMismatch { path, seq } =>
            "{path}: the store does not contain the anchored commit {seq}: it was rolled back or \
             replaced; restore newer files", path = path.display();
        AnchorUnknown { path, seq } =>
            "{path}: the store has commits after the anchored commit {seq} and no longer lists \
             that commit, so this may be another history of the store; compare with a newer \
             anchor, or check the contents by other means and open with `accept_unknown_anchor`",
            path = path.display();
        NotInHistory { path, states } =>
            "{path}: it has the states after the commits {states:?}; name one of these",
            path = path.display();
        Contradiction(why) => "{why}";
    } wraps {
        #[cfg(feature = "shared")] Shared,
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::InDoubt { source, .. } => Some(source),
            Self::Record { source, .. } => Some(source),
            Self::Seal { source, .. } => Some(source),
            _ => None,
        }
    }
}

crate::messages! {
    RecordError {
        KeyTooLong { len, limit } =>
            "the key has {len} bytes, the limit is {limit}; store a digest of it instead";
        BatchTooLarge { limit } => "the commit encodes to more than {limit} bytes; split it";
        UnknownKind(number) => "record kind {number} is not known to this build; use a newer one";
        UnknownFlags(number) =>
            "record flags {number:#04x} are not known to this build; use a newer one";
        Malformed(why) => "malformed record: {why}";
    }
}

impl std::error::Error for RecordError {}

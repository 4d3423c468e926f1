//! The errors of a shared log.

use std::io;
use std::time::Duration;

use super::{Position, Session, Slot};
use crate::batch::Seq;
use crate::error::Error;

/// The reason for which an operation on a shared log failed.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SharedError {
    /// A commit may or may not be in the log.
    #[error(
        "the commit in slot {slot} is in doubt: the shared log gave no answer for {waited:?}; the \
         next write of this store settles it before it begins: read then whether the commit is \
         there, or absent for ever"
    )]
    Unanswered {
        /// The slot of the commit.
        slot: Slot,
        /// The time that was spent waiting.
        waited: Duration,
    },
    /// A commit may or may not be in the log, and this node can no longer find out.
    #[error(
        "the commit in slot {slot} is in doubt: this node has failed before it has read whether it \
         is in the shared log: {failed}"
    )]
    FailedInDoubt {
        /// The slot of the commit.
        slot: Slot,
        /// The error after which this node reads no further.
        failed: Box<Self>,
    },
    /// An earlier commit is in doubt, and the log gave no answer that settles it.
    #[error(
        "nothing was written: the earlier commit in slot {slot} is in doubt, and the shared log \
         does not answer; try again when it does"
    )]
    Unsettled {
        /// The slot of the earlier commit.
        slot: Slot,
    },
    /// The log gave no answer to a call that changes nothing.
    #[error(
        "the shared log did not {what} within {waited:?}; check the network and the servers of \
         the log, then try again"
    )]
    Away {
        /// The missing answer, as a verb: "return its head".
        what: &'static str,
        /// The time that was spent waiting.
        waited: Duration,
    },
    /// The session of the node ended, and so did the one after it.
    #[error(
        "nothing was written: two sessions of this node ended one after the other; check that its \
         clock and network keep a session alive, then try again"
    )]
    Fenced,
    /// The log has no room.
    #[error(
        "the shared log is full: {used} of {limit} bytes; nothing was written; {next}, then try \
         again"
    )]
    Full {
        /// The bytes in the log.
        used: u64,
        /// The maximum number of bytes.
        limit: u64,
        /// The next step.
        next: &'static str,
    },
    /// The servers of the log refuse this program, or are not what the options say.
    #[error("{at}: {why}")]
    Engine {
        /// The server, or the option.
        at: String,
        /// The kind of fault.
        fault: EngineFault,
        /// The reason, and the next step.
        why: String,
    },
    /// The log no longer has the entries after the last one that was read.
    #[error(
        "the shared log was trimmed up to {trimmed:?}, and this node has read it up to {applied:?} \
         alone: reads go on with the state up to there; open the store again"
    )]
    Trimmed {
        /// The last position that was read.
        applied: Position,
        /// The last position that was trimmed.
        trimmed: Position,
    },
    /// The log ends before the last entry that was read from it.
    #[error(
        "the shared log ends at {head:?}, before the last commit that was read from it, at \
         {applied:?}: it was restored from an older state; reads go on; find out what was lost, \
         then open the store again"
    )]
    RolledBack {
        /// The last position that was read.
        applied: Position,
        /// The end of the log.
        head: Position,
    },
    /// The log left out a part.
    #[error(
        "the shared log passed part {found} of session {session:?} where part {expected} was due: \
         reads go on; open the store again, which reads the log from its beginning"
    )]
    Gap {
        /// The session.
        session: Session,
        /// The number of the part that is missing.
        expected: u64,
        /// The number of the part that came.
        found: u64,
    },
    /// Another node had another state after the same commit.
    #[error(
        "this node and the node of session {session:?} disagree about the state after commit \
         {seq}: one of them has decided differently or has missed a commit; writes are refused \
         and reads go on; open the store again on each node, which reads the log from its \
         beginning, and compare them"
    )]
    Diverged {
        /// The commit.
        seq: Seq,
        /// The session of the other node.
        session: Session,
    },
    /// The log has entries, and no record that says whose they are.
    #[error(
        "the shared log has entries or an image, and no record `meta` that says whose they are: \
         another program uses its prefix, or the record was removed; choose another prefix, or \
         restore the log"
    )]
    NoMeta,
    /// The record of the store is no longer the one with which it was opened.
    #[error(
        "the record `meta` of the shared log {what}: the store was removed or replaced; writes \
         are refused and reads go on; find out by whom, then open the store again"
    )]
    MetaChanged {
        /// What has become of it, as a verb: "is gone".
        what: &'static str,
    },
    /// A part was changed, moved, or made without the key of the store.
    #[error(
        "the part in slot {slot} of the shared log fails authentication: it was changed, moved or \
         left out, or made without the key; no later commit is shown; find out who has written \
         to the log, and restore it"
    )]
    Tampered {
        /// The slot.
        slot: Slot,
    },
    /// The store needs a newer build.
    #[error("{what}: open the store with a newer version of this library")]
    Newer {
        /// What this build does not know.
        what: &'static str,
    },
    /// An image is too large to be kept beside the log.
    #[error(
        "an image of {len} bytes is too large to be kept beside the shared log, which takes up to \
         {limit}: name another place for images with the option `images`; until then the log is \
         not trimmed"
    )]
    ImageTooLarge {
        /// The length of the image.
        len: u64,
        /// The maximum length.
        limit: u64,
    },
    /// A frame in the log cannot be read by this build.
    #[error(
        "the frame in slot {slot} of the shared log cannot be read ({what}); no later commit is \
         shown; use a newer build, or find out who has written it"
    )]
    BadFrame {
        /// The slot.
        slot: Slot,
        /// The check that failed.
        what: &'static str,
    },
}

crate::debug_as_display!(
    SharedError: Unanswered, FailedInDoubt, Unsettled, Away, Fenced, Full, Engine, Trimmed,
    RolledBack, Gap, Diverged, NoMeta, MetaChanged, Tampered, BadFrame, Newer, ImageTooLarge
);

impl SharedError {
    /// Returns true if this node can no longer read on. It refuses writes until it is opened again.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Trimmed { .. }
            | Self::RolledBack { .. }
            | Self::Gap { .. }
            | Self::Diverged { .. }
            | Self::NoMeta
            | Self::MetaChanged { .. }
            | Self::Tampered { .. }
            | Self::Newer { .. }
            | Self::FailedInDoubt { .. }
            | Self::BadFrame { .. } => true,
            Self::Unanswered { .. }
            | Self::Unsettled { .. }
            | Self::Away { .. }
            | Self::Fenced
            | Self::ImageTooLarge { .. }
            | Self::Full { .. }
            | Self::Engine { .. } => false,
        }
    }

    /// Returns the kind of the [`io::Error`] that this error converts to.
    pub(crate) fn io_kind(&self) -> io::ErrorKind {
        match self {
            Self::Unanswered { .. } | Self::Unsettled { .. } | Self::Away { .. } => {
                io::ErrorKind::TimedOut
            }
            Self::Full { .. } | Self::ImageTooLarge { .. } => io::ErrorKind::StorageFull,
            Self::Newer { .. } => io::ErrorKind::Unsupported,
            Self::FailedInDoubt { failed, .. } => failed.io_kind(),
            Self::Fenced => io::ErrorKind::ConnectionAborted,
            Self::Engine { fault, .. } => match fault {
                EngineFault::Unreachable => io::ErrorKind::TimedOut,
                EngineFault::Password | EngineFault::Denied => io::ErrorKind::PermissionDenied,
                _ => io::ErrorKind::InvalidInput,
            },
            Self::Trimmed { .. }
            | Self::RolledBack { .. }
            | Self::Gap { .. }
            | Self::Diverged { .. }
            | Self::NoMeta
            | Self::MetaChanged { .. }
            | Self::Tampered { .. }
            | Self::BadFrame { .. } => io::ErrorKind::InvalidData,
        }
    }
}

/// The kind of an [`Engine`](SharedError::Engine) error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EngineFault {
    /// An option is wrong, such as the address of a server.
    Option,
    /// No server was reached.
    Unreachable,
    /// The certificate of the server, or that of this program, is not accepted.
    Tls,
    /// The certificate of this program has a common name, which the server refuses.
    CommonName,
    /// The user or the password is wrong, or missing.
    Password,
    /// The user may not use the keys of the store.
    Denied,
    /// The prefix has other keys and no store.
    OtherKeys,
    /// The version of the server is too old, or it is no such server.
    Version,
    /// The server refuses the length of a request.
    TooLarge,
    /// The server refuses the request for another reason.
    Refused,
}

impl From<SharedError> for Error {
    fn from(error: SharedError) -> Self {
        Self::Shared(error)
    }
}

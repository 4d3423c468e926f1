//! The faults of a place for backups outside of the machine, each with the next step.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::text::utc;

/// The reason why a call to a [`Target`](super::Target) failed, or why an object cannot be used.
/// The error that contains it names the object.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The connection or the disk failed. A call that was to change something may have done so.
    #[error(
        "cannot {action}: {source}; the backups made before are untouched; \
         check the connection, or the disk, and try again"
    )]
    Io {
        /// The action that failed.
        action: &'static str,
        /// The error of the connection or of the disk.
        source: Arc<io::Error>,
    },
    /// The source of an upload cannot be read. Nothing was uploaded.
    #[error("its source cannot be read: {0}; check the disk of the store, and try again")]
    Source(Arc<io::Error>),
    /// The object does not exist.
    #[error("does not exist; another prune may have removed it; list shows what there is")]
    Missing,
    /// An upload ended before its last byte. No object has the name.
    #[error(
        "the upload ended after {sent} of {total} bytes; the backups made before are untouched; \
         put it again; the next prune removes what is left of it"
    )]
    HalfUpload {
        /// The number of bytes that were sent.
        sent: u64,
        /// The length of the object.
        total: u64,
    },
    /// The object is shorter or longer than what was uploaded.
    #[error("has {found} bytes instead of {expected}; use another image, or put a new one")]
    Truncated {
        /// The length that was uploaded.
        expected: u64,
        /// The length of the object.
        found: u64,
    },
    /// The object has the right length and other bytes.
    #[error("its bytes are not those that were uploaded; use another image, or put a new one")]
    Altered,
    /// No manifest can be read.
    #[error(
        "is no manifest of this version: {0}; no image was changed; \
         put a new backup, which writes a manifest after it"
    )]
    BadManifest(&'static str),
    /// A manifest was written by a newer version.
    #[error("was written by a newer version; update this program")]
    NewerFormat,
    /// The place has the backups of another file.
    #[error("has the backups of another file; choose another bucket, prefix or folder")]
    OtherFile,
    /// The file is not encrypted, and plain objects are not allowed.
    #[error(
        "would get a file that is not encrypted, which others may then read; \
         encrypt it, or allow it with `plain_objects(true)`"
    )]
    Plain,
    /// Another prune has given the upload up, because it was in no manifest for too long.
    #[error("was given up by another prune before it was listed; put it again")]
    GivenUp,
    /// Another archive sends to the same place: a copy of this machine, or a second program.
    #[error(
        "another archive sends to this place, so this one stops; what it has sent is kept; \
         end one of the two, or give each a bucket, prefix or folder of its own, \
         and open the store again"
    )]
    Fenced,
    /// There are no images.
    #[error("has no images; put one first")]
    NoImages,
    /// All images are later than the moment.
    #[error(
        "begins with commit {seq} ({}), which is after the moment; \
         name that commit or a later moment", utc(*time_us)
    )]
    Before {
        /// The commit of the oldest image.
        seq: u64,
        /// The time of that image, in microseconds since 1970 (UTC).
        time_us: i64,
    },
    /// No image leads to the moment: the log was not sent so far, or a piece is lost or damaged.
    #[error(
        "does not reach the moment; nothing was restored; the last commit before it that can be \
         restored is {seq} ({}): name that one{}",
        utc(*time_us), why(damage.as_ref())
    )]
    NotReached {
        /// The last commit before the moment that can be restored.
        seq: u64,
        /// The time before which it was made, in microseconds since 1970 (UTC).
        time_us: i64,
        /// The object at which the log ends, if it is damaged.
        damage: Option<Arc<Damage>>,
    },
    /// Other writers wrote a manifest each time that this one was about to.
    #[error("other writers came first {0} times; try again while they rest")]
    Contended(u32),
    /// The place replaces an object when another one of its name is created.
    #[error(
        "replaces objects that exist, so two writers would lose backups; \
         use a server that honours `If-None-Match: *`"
    )]
    NoCreateOnly,
    /// The server does not accept the credentials.
    #[error("the credentials are refused ({0}); check the key id, the secret and the token")]
    Credentials(String),
    /// The credentials are accepted and do not permit the call.
    #[error(
        "the credentials do not permit this ({0}); \
         let them get, put, list and delete the objects under this prefix"
    )]
    Denied(String),
    /// The bucket does not exist at this server.
    #[error("there is no such bucket here ({0}); check its name, the region and the endpoint")]
    NoBucket(String),
    /// The clock of this machine and that of the server differ too much for signatures.
    #[error("the clock of this machine is {off:?} off that of the server; set it, and try again")]
    ClockOff {
        /// The difference, if the server told its time.
        off: Option<Duration>,
    },
    /// The server answered with another error.
    #[error("the server answers {status} {code}; see its documentation, and try again")]
    Refused {
        /// The status of HTTP.
        status: u16,
        /// The code of the error, as the server names it.
        code: String,
    },
    /// A setting is invalid.
    #[error("{0}")]
    Invalid(String),
    /// The progress callback returned `Break`.
    #[error("stopped by its caller; the backups made before are untouched")]
    Stopped,
}

/// An object that cannot be used.
#[derive(Debug, Clone)]
pub struct Damage {
    /// The place of the object.
    pub path: PathBuf,
    /// The reason.
    pub fault: Fault,
}

/// Returns the reason why a log ends, as the end of a message.
fn why(damage: Option<&Arc<Damage>>) -> String {
    let text = |damage: &Arc<Damage>| {
        format!(" (the log ends there, because {} {})", damage.path.display(), damage.fault)
    };
    damage.map(text).unwrap_or_default()
}

impl Fault {
    /// Returns the fault of a call that failed with `source`, or the one that `source` was made
    /// of.
    pub fn io(action: &'static str, source: io::Error) -> Self {
        match Self::of(&source) {
            Some(fault) => fault,
            None => Self::Io { action, source: Arc::new(source) },
        }
    }

    /// Returns the fault that the error was made of, if it was made of one.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()).cloned()
    }

    /// Returns the kind of the [`io::Error`] that this fault converts to.
    pub fn io_kind(&self) -> io::ErrorKind {
        use io::ErrorKind as Kind;
        match self {
            Self::Io { source, .. } | Self::Source(source) => match source.kind() {
                // Callers would make the same call again.
                Kind::Interrupted => Kind::Other,
                kind => kind,
            },
            Self::Missing | Self::NoBucket(_) | Self::NoImages => Kind::NotFound,
            Self::Truncated { .. } | Self::Altered | Self::BadManifest(_) => Kind::InvalidData,
            Self::Credentials(_) | Self::Denied(_) => Kind::PermissionDenied,
            Self::OtherFile | Self::Plain | Self::Invalid(_) => Kind::InvalidInput,
            Self::NoCreateOnly | Self::NewerFormat => Kind::Unsupported,
            _ => Kind::Other,
        }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::new(fault.io_kind(), fault)
    }
}

/// The text, as of the other errors of the crate.
impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

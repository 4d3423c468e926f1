//! A log that the nodes of one store share, in the place of files.
//!
//! The log keeps parts of frames in one order for all nodes. It decides nothing: a frame has orders
//! with their conditions, and each node decides them in the order of the log. See `docs/FORMAT.md`,
//! section "Shared log".
//!
//! [`SharedLog`] is what an engine provides, [`Follower`] is the part that is the same for all
//! engines, and [`Memory`] is an engine in memory, with faults, for tests.

mod error;
#[cfg(feature = "etcd")]
mod etcd;
mod follower;
mod frame;
mod image;
mod memory;
mod meta;
mod order;
mod resume;
mod sealing;
mod sender;

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};
#[cfg(feature = "etcd")]
pub use crate::net::Tls;
pub use error::{EngineFault, SharedError};
#[cfg(feature = "etcd")]
pub use etcd::Etcd;
pub use follower::{Follower, FrameSink, Mark};
pub use frame::{Frame, Orders};
pub use image::ImageRecord;
pub use memory::{Client, Memory, ReadFault, WriteFault};
pub use meta::Meta;
pub use order::{Digests, KeyRange, Order, Seen, SeenEntries, digest_of_value, orders};

/// A log that several nodes append to and read, for example on a cluster of etcd.
///
/// A part is appended to a slot, which only the session of the slot writes, and which is taken once
/// and for all. So a call whose answer is lost can be made again.
///
/// The calls may take as long as their timeout, and wait for a network. No lock on memory is held.
pub trait SharedLog: fmt::Debug + Send + Sync {
    /// Returns the limits of this log.
    fn limits(&self) -> Limits;

    /// Begins a session: the right of one node to append. It has an id that no other session has
    /// had.
    ///
    /// # Errors
    /// `Away` if there was no answer.
    fn begin_session(&self, timeout: Duration) -> Result<Session>;

    /// Puts `part`, which is not empty, into `slot`, unless the slot is taken or the session has
    /// ended. Returns the position of the part. A call that is made again with the same bytes
    /// returns the position of the first one.
    ///
    /// # Errors
    /// See [`AppendError`].
    fn append(&self, slot: Slot, part: &[u8], timeout: Duration) -> Result<Position, AppendError>;

    /// Settles a doubt: puts an empty part into `slot`, unless the slot is taken. After that, no
    /// append to the slot succeeds which has not succeeded before.
    ///
    /// # Errors
    /// See [`AppendError`].
    fn bury(&self, slot: Slot, timeout: Duration) -> Result<Buried, AppendError>;

    /// Passes entries after the position `after` to `sink`, in the order of the log and without
    /// leaving one out. Returns the position up to which it has passed all. It may pass only some,
    /// or an entry twice.
    ///
    /// # Errors
    /// `Trimmed` or `RolledBack` if the log does not continue at `after`; `Away`; the errors of
    /// `sink`.
    fn read(&self, after: Position, sink: &mut PartSink<'_>) -> Result<Position>;

    /// Waits until there is an entry after the position `after`. Returns false if there was none
    /// for `timeout`. It may return early.
    ///
    /// # Errors
    /// `Away`.
    fn wait(&self, after: Position, timeout: Duration) -> Result<bool>;

    /// Returns a position that is not before any append which was answered before this call.
    ///
    /// # Errors
    /// `Away`.
    fn head(&self, timeout: Duration) -> Result<Position>;

    /// Removes entries up to the position `upto`, or some of them. A node that has not read them
    /// yet gets `Trimmed` from [`read`](Self::read). A slot whose entry was removed may be free
    /// again, so only entries are removed that every node knows from an image.
    ///
    /// # Errors
    /// `Away`. Then some may have been removed.
    fn trim(&self, upto: Position, timeout: Duration) -> Result<()>;

    /// Returns the bytes that the log keeps, records and objects included, and their maximum.
    ///
    /// # Errors
    /// `Away`.
    fn usage(&self, timeout: Duration) -> Result<Usage>;

    /// Returns a record, as it is after all exchanges that were answered before this call.
    ///
    /// # Errors
    /// `Away`.
    fn record(&self, name: RecordName, timeout: Duration) -> Result<Option<Versioned>>;

    /// Replaces a record if it still has the version `was`, or creates it if there is none and
    /// `was` is `None`. Returns false if it is another one, and changes nothing then.
    ///
    /// # Errors
    /// `Away`. Then the record may be replaced, or not, or later.
    fn set_record(
        &self,
        name: RecordName,
        was: Option<u64>,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<bool>;

    /// Puts a piece of at most [`part_max`](Limits::part_max) bytes into a large object beside the
    /// log. A piece that exists is not replaced. There is room for pieces when there is none for
    /// further entries: the log is trimmed after an image.
    ///
    /// # Errors
    /// `Away`. Then the piece may be there, or not, or later. `Full`.
    fn put_piece(&self, object: &str, n: u32, bytes: &[u8], timeout: Duration) -> Result<()>;

    /// Returns a piece of an object.
    ///
    /// # Errors
    /// `Away`.
    fn piece(&self, object: &str, n: u32, timeout: Duration) -> Result<Option<Vec<u8>>>;

    /// Returns the names of the objects that have a piece.
    ///
    /// # Errors
    /// `Away`.
    fn objects(&self, timeout: Duration) -> Result<Vec<String>>;

    /// Removes all pieces of an object, first the piece 0.
    ///
    /// # Errors
    /// `Away`. Then some may have been removed.
    fn remove_object(&self, object: &str, timeout: Duration) -> Result<()>;
}

/// A record beside the log, which is exchanged as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordName {
    /// Who the store is, and the envelope of its key.
    Meta,
    /// The newest image, from which a node begins.
    Image,
}

/// A record, and its version.
#[derive(Clone, PartialEq, Eq)]
pub struct Versioned {
    /// No other contents of the record have this version.
    pub version: u64,
    /// The contents.
    pub bytes: Vec<u8>,
}

/// Shows no bytes of the record.
impl fmt::Debug for Versioned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Versioned({} bytes of version {})", self.bytes.len(), self.version)
    }
}

/// The bytes that a log keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The bytes that are kept.
    pub used: u64,
    /// Their maximum, above which writes are refused.
    pub limit: u64,
}

/// Receives an entry of the log.
pub type PartSink<'a> = dyn FnMut(Entry<'_>) -> Result<()> + 'a;

/// The limits of a log, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The length of a part, including its header.
    pub part_max: usize,
    /// The length at which a frame takes no more commits.
    pub frame_target: usize,
    /// The encoded length of one commit.
    pub commit_max: usize,
}

/// A place in the log. Later entries have higher positions. 0 is before the first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(pub u64);

/// The id of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u64);

/// A place for one part, which the session fills in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The session that may fill it.
    pub session: Session,
    /// The number of the part within its session, from 0.
    pub n: u64,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}/{}", self.session.0, self.n)
    }
}

/// An entry of the log.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// The position of the entry.
    pub position: Position,
    /// The slot that it fills.
    pub slot: Slot,
    /// The part, or no bytes if the slot was buried.
    pub part: &'a [u8],
}

/// Shows no bytes of the part.
impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, slot, part } = self;
        write!(f, "Entry({} bytes in slot {slot} at {})", part.len(), position.0)
    }
}

/// The reason why a part may not be in the log.
#[derive(Debug)]
pub enum AppendError {
    /// This call has put nothing into the slot, and will not.
    Absent(Error),
    /// The session has ended and the slot is free, so it stays free: nothing is appended to a slot
    /// of a session that has ended.
    Fenced,
    /// There was no answer. The part is in the log, or not, or comes late.
    Unanswered,
}

/// The result of burying a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buried {
    /// The slot was free. It holds an empty part for ever.
    Absent,
    /// The slot was taken before, by the part at this position.
    Committed(Position),
}

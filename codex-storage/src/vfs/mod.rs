//! Small traits for the disk, the clock and entropy, which the operating system implements. The
//! feature `fault` adds a directory in memory and a faulty disk for tests. No other module of the
//! crate calls the operating system.
//!
//! Names and bytes become durable separately, as on a real file system. [`File::sync`] makes the
//! bytes of a file and its length durable. [`Dir::sync`] makes names durable. A new file needs
//! both.

mod call;
mod clock;
mod entropy;
#[cfg(feature = "fault")]
pub mod fault;
#[cfg(feature = "fault")]
mod locks;
#[cfg(feature = "fault")]
mod mem;
mod observed;
mod os;
mod paced;

use std::any::Any;
use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::usize_of;
pub use call::{Call, CallKind};
pub(crate) use clock::unix_us;
pub use clock::{OsClock, SimClock};
pub use entropy::{OsEntropy, SeededEntropy};
#[cfg(feature = "fault")]
pub use mem::MemDir;
pub use observed::Observed;
pub use os::OsDir;
#[doc(hidden)]
pub use paced::Paced;
pub use paced::WaitedFor;

#[cfg(feature = "fault")]
use locks::LockTable;

/// A directory: the names of files, and the files themselves.
///
/// Names are plain file names without a separator. All methods may be called from several threads.
pub trait Dir: fmt::Debug + Send + Sync {
    /// Opens or creates the file `name`. Follows no symbolic link.
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn File>>;
    /// Renames the file `from` to `to`, atomically for observers. A file with the name `to` is
    /// replaced. Durable only after [`Dir::sync`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Creates the file `to`, whose name must be free, as a copy of the open file `from` that
    /// shares its blocks. Returns `Unsupported`, and creates nothing, if the file system cannot
    /// share blocks, or if `from` is not a file of this file system.
    fn reflink(&self, from: &Arc<dyn File>, to: &str, mode: Mode) -> io::Result<()>;
    /// Removes the name `name`.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Returns the names in this directory, in no order. Names that are not UTF-8 are left out.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Returns the metadata of `name` without following a symbolic link, or `None` if it does not
    /// exist.
    fn metadata(&self, name: &str) -> io::Result<Option<Metadata>>;
    /// Makes the current names of this directory durable.
    fn sync(&self) -> io::Result<()>;
    /// Takes the advisory lock on the file `name`. The file is created if it is missing, and is
    /// never renamed or removed. Returns `None` if another handle or process holds a lock that
    /// excludes this one.
    fn try_lock(&self, name: &str, kind: LockKind) -> io::Result<Option<Box<dyn LockGuard>>>;
    /// Like [`Dir::try_lock`], for an existing file that is opened only for reading. Returns
    /// `NotFound` if the file does not exist, and `Unsupported` if such a file cannot be locked.
    /// The lock belongs to the file and stays with it when it is renamed.
    fn lock_existing(&self, name: &str, kind: LockKind) -> io::Result<Option<Box<dyn LockGuard>>>;
    /// Records in the lock file `name`, whose exclusive lock the caller holds, that this process
    /// holds it, or no longer does. The record only serves error texts, so errors are ignored. A
    /// directory that has no other processes records nothing.
    fn sign_lock(&self, name: &str, is_held: bool) {
        let _ = (name, is_held);
    }
    /// Returns the process that [signed](Dir::sign_lock) the lock file `name`, if there is one. The
    /// record of a process that crashed stays: only the lock itself tells whether it is held.
    fn lock_signer(&self, name: &str) -> Option<LockHolder> {
        let _ = name;
        None
    }
    /// Gives the file `to` the owner, the group and the permissions of the file `from`, which it
    /// will replace. If the two files are of different kinds, `mode` adds or removes the permission
    /// to write, as for a new file. An owner or group that this process may not assign is left out,
    /// together with the permissions of such a group.
    fn inherit(&self, from: &str, to: &str, mode: Option<Mode>) -> io::Result<()>;
    /// Returns the number of bytes that an unprivileged writer can still allocate in this file
    /// system, or `None` if the file system does not report it.
    fn available_bytes(&self) -> io::Result<Option<u64>>;
    /// Returns the path of `name`, for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// The bytes of one open file. Every call has an explicit offset.
pub trait File: Any + fmt::Debug + Send + Sync {
    /// Returns the length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Returns whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buf` from `offset`. Returns `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf` at `offset`, and extends the file if needed. After an error any part of
    /// `buf` may have been written.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Sets the length. Added bytes read as zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space for `[offset, offset + len)`, so that a write there cannot fail because the
    /// disk is full. If the file is shorter, its length becomes the end of the range. Returns
    /// `StorageFull` if there is no space.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Makes the bytes that were written before this call, and the length, durable (fdatasync).
    /// After an error their state is unknown, and success of a second call proves nothing. Never
    /// retry.
    fn sync(&self) -> io::Result<()>;
    /// Returns the [identity](Metadata::identity) of the file.
    fn identity(&self) -> io::Result<u64> {
        self.inner().map_or(Ok(0), |inner| inner.identity())
    }
    /// Returns the file to which this one passes all calls unchanged, if it is such a wrapper. A
    /// copy of that file is a copy of this one.
    fn inner(&self) -> Option<&Arc<dyn File>> {
        None
    }
}

/// A held advisory lock. Dropping it releases the lock at once, even if child processes have copies
/// of its descriptor. In a forked child, dropping it only closes the copy of the child.
pub trait LockGuard: fmt::Debug + Send + Sync {
    /// Returns the [identity](Metadata::identity) of the locked file.
    fn identity(&self) -> u64;
    /// In a forked child, closes its copy of the lock, which could otherwise outlive the parent.
    /// Does nothing in the process that took the lock.
    fn abandon(&self) {}
}

/// The process that holds the lock of a store, for error texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockHolder {
    /// This process, through another handle.
    ThisProcess,
    /// A writer in another process, with the id that it sees itself under. A process in another
    /// container has its own ids.
    Process(u32),
    /// One or more handles that are open for reading, which record no id.
    Readers,
    /// Not known: the file was locked under another path, or by a process that could not record its
    /// id.
    Unknown,
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ThisProcess => f.write_str("in this process"),
            Self::Process(id) => write!(f, "in another process (id {id}, as it sees itself)"),
            Self::Readers => f.write_str("for reading, through another handle"),
            Self::Unknown => f.write_str("elsewhere"),
        }
    }
}

/// The mode of [`Dir::open`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    Write,
    /// A new file, to read and write. Returns `AlreadyExists` if the name exists.
    CreateNew(Mode),
}

/// The permissions of a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Read and write for the owner (0600): logs and locks.
    Private,
    /// Read for the owner (0400): images and backups, which are only replaced. The descriptor that
    /// created the file can write to it.
    Frozen,
}

/// The kind of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// For readers: any number at the same time, but no writer.
    Shared,
    /// For a writer: no other holder.
    Exclusive,
}

/// The result of [`Dir::metadata`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// The kind of the file.
    pub kind: Kind,
    /// The length in bytes.
    pub len: u64,
    /// The time of the last change, in microseconds since 1970 (UTC).
    pub modified_us: i64,
    /// The inode number, which two names of one file share. 0 if the system does not report it.
    pub identity: u64,
}

/// The kind of an entry in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A FIFO, a socket or a device.
    Other,
}

/// A source of time.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns microseconds since 1970 (UTC). May jump in both directions.
    fn now_us(&self) -> i64;
    /// Returns the same, or a time that is up to a second earlier, where that takes less time.
    fn coarse_us(&self) -> i64 {
        self.now_us()
    }
    /// Returns the time since a fixed point in the past. Never decreases.
    fn monotonic(&self) -> Duration;
    /// Waits about `duration`. A simulated clock advances its time instead.
    fn sleep(&self, duration: Duration);
}

/// A source of random bytes.
pub trait Entropy: fmt::Debug + Send + Sync {
    /// Fills `buf` with bytes that are suitable for ids and keys.
    fn fill(&self, buf: &mut [u8]) -> io::Result<()>;
}

impl dyn Clock + '_ {
    /// Waits for a lock: calls `attempt` until it returns `Some`, or until `timeout` is over. The
    /// pauses between two calls grow. Returns the result of the last call, and the time waited.
    ///
    /// # Errors
    /// The first error of `attempt`, which ends the wait.
    pub fn wait_for<T, E>(
        &self,
        timeout: Duration,
        mut attempt: impl FnMut() -> Result<Option<T>, E>,
    ) -> Result<(Option<T>, Duration), E> {
        let (start, mut pause) = (self.monotonic(), PAUSE_MIN);
        loop {
            let done = attempt()?;
            // Measured after the attempt, so that at least one attempt is made with a timeout of
            // zero.
            let waited = self.monotonic().saturating_sub(start);
            if done.is_some() || waited >= timeout {
                return Ok((done, waited));
            }
            self.sleep(pause.min(timeout.saturating_sub(waited)));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// The first pause of a wait for a lock. Each later pause is twice as long, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// A directory with its clock and entropy: the whole environment of a storage.
#[derive(Debug, Clone)]
pub struct Vfs {
    /// The directory that holds the files.
    pub dir: Arc<dyn Dir>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of random bytes.
    pub entropy: Arc<dyn Entropy>,
    /// The writes for which commits wait. Long writes beside them are paced only while there are
    /// some.
    pub waited_for: WaitedFor,
}

/// Calls `f` for each piece of `range`, in order, with a buffer of the length of the piece and with
/// the offset of the piece. Every copy of a file is made in this loop, with memory for one piece.
///
/// # Errors
/// The first error of `f`, which ends the loop.
#[doc(hidden)]
pub fn in_pieces<E>(
    range: Range<u64>,
    mut f: impl FnMut(&mut [u8], u64) -> Result<(), E>,
) -> Result<(), E> {
    let (mut buf, mut at) = (Vec::new(), range.start);
    while at < range.end {
        let piece = (range.end - at).min(PIECE_BYTES);
        buf.resize(usize_of(piece), 0);
        f(&mut buf, at)?;
        at += piece;
    }
    Ok(())
}

/// The largest length of a piece, in bytes.
#[doc(hidden)]
pub const PIECE_BYTES: u64 = 256 << 10;

/// Returns an error if `name` is not the name of a file in this directory.
fn check_name(name: &str) -> io::Result<()> {
    let is_plain = !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
    if is_plain && name.len() <= NAME_LEN_MAX {
        return Ok(());
    }
    Err(io::Error::new(ErrorKind::InvalidFilename, format!("{name:?} is not a plain file name")))
}

/// Checks two names.
fn check_names(from: &str, to: &str) -> io::Result<()> {
    check_name(from)?;
    check_name(to)
}

/// Returns the end of `len` bytes at `offset`.
fn range_end(offset: u64, len: usize) -> io::Result<u64> {
    let len = u64::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?;
    offset.checked_add(len).ok_or_else(|| ErrorKind::FileTooLarge.into())
}

/// Returns the file, or the file in its wrappers, as the type that this directory opens, or
/// `Unsupported` for any other.
fn same_system<F: File>(mut file: &Arc<dyn File>) -> io::Result<&F> {
    loop {
        let any: &dyn Any = &**file;
        if let Some(file) = any.downcast_ref() {
            return Ok(file);
        }
        file = file.inner().ok_or(ErrorKind::Unsupported)?;
    }
}

/// The longest name that ext4, XFS, Btrfs, APFS and NTFS all allow, in bytes.
const NAME_LEN_MAX: usize = 255;

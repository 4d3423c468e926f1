//! The only way to a disk, a clock and entropy: small traits, which the operating system
//! implements, and for tests (feature `fault`) a directory in memory and a faulty disk.
//!
//! Names and bytes have separate durability, as on a real file system: [`File::sync`] makes the
//! bytes of a file (and its length) durable, [`Dir::sync`] makes names durable. A new file needs
//! both.

#[cfg(feature = "fault")]
mod call;
mod clock;
mod entropy;
#[cfg(feature = "fault")]
pub mod fault;
#[cfg(feature = "fault")]
mod locks;
#[cfg(feature = "fault")]
mod mem;
#[cfg(feature = "fault")]
mod observed;
mod os;
mod paced;

use std::fmt;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::codec::usize_of;
#[cfg(feature = "fault")]
pub use call::{Call, CallKind};
pub use clock::{OsClock, SimClock};
pub use entropy::{OsEntropy, SeededEntropy};
#[cfg(feature = "fault")]
pub use mem::MemDir;
#[cfg(feature = "fault")]
pub use observed::Observed;
pub use os::OsDir;
pub use paced::Paced;

#[cfg(feature = "fault")]
use locks::LockTable;

/// One directory: names of files, and the files behind them.
///
/// Names are plain file names without a separator. All methods may be called from several threads.
pub trait Dir: fmt::Debug + Send + Sync {
    /// Opens or creates the file `name`. Follows no symbolic link.
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn File>>;
    /// Gives the file `from` the name `to`, replacing what had that name, atomically to observers;
    /// durable only after [`Dir::sync`].
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Makes `to` (which must be free) a copy of `from` that shares its blocks, where the file
    /// system can; `Unsupported` where it cannot (then nothing was created).
    fn reflink(&self, from: &str, to: &str, mode: Mode) -> io::Result<()>;
    /// Removes the name `name`.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names in this directory, in no order; names that are not UTF-8 are left out.
    fn list(&self) -> io::Result<Vec<String>>;
    /// What stands behind `name`, without following a symbolic link; `None` where nothing does.
    fn metadata(&self, name: &str) -> io::Result<Option<Metadata>>;
    /// Makes the names of this directory durable as they are now.
    fn sync(&self) -> io::Result<()>;
    /// Takes the advisory lock on the file `name` (created when missing, never renamed or
    /// removed), or returns `None` if another handle or process holds a lock that excludes it.
    fn try_lock(&self, name: &str, kind: LockKind) -> io::Result<Option<Box<dyn LockGuard>>>;
    /// As [`Dir::try_lock`] of a file that exists (`NotFound` if it does not), opened for reading
    /// only. The lock belongs to the file: it goes along when the file is renamed. `Unsupported`
    /// where such a file cannot be locked.
    fn lock_existing(&self, name: &str, kind: LockKind) -> io::Result<Option<Box<dyn LockGuard>>>;
    /// Gives the file `to` the owner, the group and the permissions of the file `from`, which it
    /// is about to replace. A `mode` adds or takes the right to write, as in the mode of a new
    /// file, where the two files are of different kinds. An owner or a group that this process
    /// may not give is left out, and the permissions of such a group with it.
    fn inherit(&self, from: &str, to: &str, mode: Option<Mode>) -> io::Result<()>;
    /// Bytes that an unprivileged writer can still allocate in this file system; `None` if the
    /// file system does not report it.
    fn available_bytes(&self) -> io::Result<Option<u64>>;
    /// The path of `name`, for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// The bytes of one open file, at explicit offsets.
pub trait File: fmt::Debug + Send + Sync {
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buf` from `offset`; `UnexpectedEof` when the file ends before that.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `buf` at `offset`, growing the file where needed. After an error any part of
    /// it may have been written.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// Sets the length; growing reads as zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space for `[offset, offset + len)` and sets the length to its end where the file
    /// is shorter, so that writing there cannot fail for want of space. `StorageFull` when it
    /// cannot.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Makes the bytes written before this call, and the length, durable (fdatasync). After an
    /// error nothing is known of them, and calling again proves nothing: never retry.
    fn sync(&self) -> io::Result<()>;
}

/// A held advisory lock. Dropping it releases the lock at once, whatever children of this process
/// hold copies of its descriptor. Dropped in a forked child, it closes the copy of that child and
/// releases nothing.
pub trait LockGuard: fmt::Debug + Send + Sync {
    /// The [identity](Metadata::identity) of the locked file.
    fn identity(&self) -> u64;
    /// In a forked child, closes its copy of the lock, which would otherwise outlive the parent.
    /// Does nothing in the process that took the lock.
    fn abandon(&self) {}
}

/// How [`Dir::open`] opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    Write,
    /// A new file, to read and write; `AlreadyExists` when the name is taken.
    CreateNew(Mode),
}

/// The permissions of a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Its owner reads and writes (0600): logs, locks.
    Private,
    /// Its owner reads (0400): images and backups, which are only ever replaced. The descriptor
    /// that created it may write.
    Frozen,
}

/// Whether a lock admits others of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// Readers: any number at once, no writer.
    Shared,
    /// A writer: nobody else.
    Exclusive,
}

/// What [`Dir::metadata`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What kind of thing has the name.
    pub kind: Kind,
    /// Its length in bytes.
    pub len: u64,
    /// The time of its last change, in microseconds since 1970 (UTC).
    pub modified_us: i64,
    /// An identity that two names of one file share (inode number); 0 where the system tells none.
    pub identity: u64,
}

/// The kinds of things a name can stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A FIFO, a socket, a device.
    Other,
}

/// Where times come from.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Microseconds since 1970 (UTC); may jump either way.
    fn now_us(&self) -> i64;
    /// Time since a fixed point in the past; never runs backwards.
    fn monotonic(&self) -> Duration;
    /// Waits about `duration`; a simulated clock advances itself instead.
    fn sleep(&self, duration: Duration);
}

/// Where random bytes come from.
pub trait Entropy: fmt::Debug + Send + Sync {
    /// Fills `buf` with bytes fit for ids and keys.
    fn fill(&self, buf: &mut [u8]) -> io::Result<()>;
}

impl dyn Clock + '_ {
    /// Waits for a lock: calls `attempt` until it returns something, or until `timeout` is over.
    /// The pauses between two calls grow. Returns the result of the last call, and the time waited.
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
            let waited = self.monotonic().saturating_sub(start);
            if done.is_some() || waited >= timeout {
                return Ok((done, waited));
            }
            self.sleep(pause.min(timeout.saturating_sub(waited)));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// The first pause of a wait for a lock; each further one is twice as long, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(20);

/// A directory with its clock and entropy: all that a storage needs of the world.
#[derive(Debug, Clone)]
pub struct Vfs {
    /// The directory that holds the files.
    pub dir: Arc<dyn Dir>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of random bytes.
    pub entropy: Arc<dyn Entropy>,
}

/// Calls `f` for each piece of `range`, in order, with a buffer of the length of the piece and with
/// the offset at which the piece begins. Every copy of a file is made in this loop, with as little
/// memory as one piece takes.
///
/// # Errors
/// The first error of `f`, which ends the loop.
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

/// How much of a file is copied at a time, in bytes.
pub const PIECE_BYTES: u64 = 256 << 10;

/// Refuses what is not the name of a file in this directory.
fn check_name(name: &str) -> io::Result<()> {
    let is_plain = !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
    if is_plain && name.len() <= NAME_LEN_MAX {
        return Ok(());
    }
    Err(io::Error::new(ErrorKind::InvalidFilename, format!("{name:?} is not a plain file name")))
}

fn check_names(from: &str, to: &str) -> io::Result<()> {
    check_name(from)?;
    check_name(to)
}

/// The end of `len` bytes at `offset`.
fn range_end(offset: u64, len: usize) -> io::Result<u64> {
    let len = u64::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?;
    offset.checked_add(len).ok_or_else(|| ErrorKind::FileTooLarge.into())
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("there is no file {name}"))
}

fn taken(name: &str) -> io::Error {
    io::Error::new(ErrorKind::AlreadyExists, format!("the name {name} is taken"))
}

fn handle_is_read_only() -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, "the file was opened for reading only")
}

/// What ext4, XFS, Btrfs, APFS and NTFS have in common.
const NAME_LEN_MAX: usize = 255;

//! A directory in memory, for stores that need no disk and for tests.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::{
    Clock, Dir, File, Kind, LockGuard, LockKind, LockTable, Metadata, Mode, Open, SeededEntropy,
    SimClock, Vfs, WaitedFor, check_name, check_names, range_end, same_system,
};
use crate::sync::{Mutex, MutexGuard};

impl Vfs {
    /// Creates a directory in memory, with a simulated clock and with entropy that `seed`
    /// determines. Do not use this entropy for keys.
    pub fn mem(seed: u64) -> Self {
        let clock = SimClock::new();
        Self {
            dir: Arc::new(MemDir::with_clock(Arc::new(clock.clone()))),
            clock: Arc::new(clock),
            entropy: Arc::new(SeededEntropy::new(seed)),
            waited_for: WaitedFor::default(),
        }
    }
}

/// A directory in memory. Clones are handles of the same directory, and their locks exclude each
/// other like the locks of two processes.
///
/// Every change is durable at once. The maximum length of a file is 64 GiB.
#[derive(Debug, Clone)]
pub struct MemDir {
    shared: Arc<Shared>,
}

impl MemDir {
    /// Creates an empty directory whose clock does not advance.
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SimClock::new()))
    }

    /// Creates an empty directory. `clock` gives the time at which a file is changed.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        let names = Mutex::new(BTreeMap::new());
        Self { shared: Arc::new(Shared { names, next_identity: AtomicU64::new(1), clock }) }
    }

    fn names(&self) -> MutexGuard<'_, NameTable> {
        self.shared.names.lock()
    }

    fn new_inode(&self, mode: Mode, bytes: Vec<u8>) -> Arc<MemInode> {
        Arc::new(MemInode {
            identity: self.shared.next_identity.fetch_add(1, Ordering::Relaxed),
            mode: Mutex::new(mode),
            modified_us: AtomicI64::new(self.shared.clock.now_us()),
            bytes: Mutex::new(bytes),
            locks: Arc::new(LockTable::default()),
        })
    }

    fn file(&self, inode: Arc<MemInode>, writable: bool) -> Arc<dyn File> {
        Arc::new(MemFile { inode, writable, shared: Arc::clone(&self.shared) })
    }
}

impl Default for MemDir {
    fn default() -> Self {
        Self::new()
    }
}

impl Dir for MemDir {
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn File>> {
        check_name(name)?;
        let mut names = self.names();
        match (how, names.get(name)) {
            (Open::CreateNew(_), Some(_)) => Err(taken(name)),
            (Open::CreateNew(mode), None) => {
                let inode = self.new_inode(mode, Vec::new());
                names.insert(name.to_owned(), Arc::clone(&inode));
                Ok(self.file(inode, true))
            }
            (_, None) => Err(not_found(name)),
            (Open::Write, Some(inode)) if *inode.mode.lock() == Mode::Frozen => {
                Err(io::Error::new(ErrorKind::PermissionDenied, format!("{name} is read-only")))
            }
            (how, Some(inode)) => Ok(self.file(Arc::clone(inode), how == Open::Write)),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_names(from, to)?;
        let mut names = self.names();
        let moved = names.remove(from).ok_or_else(|| not_found(from))?;
        names.insert(to.to_owned(), moved);
        Ok(())
    }

    fn reflink(&self, from: &Arc<dyn File>, to: &str, mode: Mode) -> io::Result<()> {
        check_name(to)?;
        let from: &MemFile = same_system(from)?;
        if !Arc::ptr_eq(&from.shared, &self.shared) {
            return Err(ErrorKind::Unsupported.into());
        }
        let mut names = self.names();
        if names.contains_key(to) {
            return Err(taken(to));
        }
        let bytes = from.inode.bytes.lock().clone();
        names.insert(to.to_owned(), self.new_inode(mode, bytes));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        self.names().remove(name).map(drop).ok_or_else(|| not_found(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names().keys().cloned().collect())
    }

    fn metadata(&self, name: &str) -> io::Result<Option<Metadata>> {
        check_name(name)?;
        let Some(inode) = self.names().get(name).cloned() else {
            return Ok(None);
        };
        Ok(Some(Metadata {
            kind: Kind::File,
            len: inode.len(),
            modified_us: inode.modified_us.load(Ordering::Relaxed),
            identity: inode.identity,
        }))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self, name: &str, kind: LockKind) -> io::Result<Option<Box<dyn LockGuard>>> {
        check_name(name)?;
        let mut names = self.names();
        let inode = names
            .entry(name.to_owned())
            .or_insert_with(|| self.new_inode(Mode::Private, Vec::new()));
        Ok(inode.locks.try_lock(kind, inode.identity))
    }

    fn lock_existing(&self, name: &str, kind: LockKind) -> io::Result<Option<Box<dyn LockGuard>>> {
        check_name(name)?;
        let names = self.names();
        let inode = names.get(name).ok_or_else(|| not_found(name))?;
        Ok(inode.locks.try_lock(kind, inode.identity))
    }

    fn inherit(&self, from: &str, to: &str, mode: Option<Mode>) -> io::Result<()> {
        check_names(from, to)?;
        let names = self.names();
        let inode = |name| names.get(name).ok_or_else(|| not_found(name));
        let mode = mode.unwrap_or(*inode(from)?.mode.lock());
        *inode(to)?.mode.lock() = mode;
        Ok(())
    }

    fn available_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(":memory:").join(name)
    }
}

struct Shared {
    names: Mutex<NameTable>,
    next_identity: AtomicU64,
    clock: Arc<dyn Clock>,
}

type NameTable = BTreeMap<String, Arc<MemInode>>;

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names.lock().keys()).finish()
    }
}

struct MemInode {
    identity: u64,
    mode: Mutex<Mode>,
    modified_us: AtomicI64,
    bytes: Mutex<Vec<u8>>,
    locks: Arc<LockTable>,
}

impl MemInode {
    fn len(&self) -> u64 {
        u64::try_from(self.bytes.lock().len()).unwrap_or(u64::MAX)
    }
}

struct MemFile {
    inode: Arc<MemInode>,
    writable: bool,
    shared: Arc<Shared>,
}

impl MemFile {
    /// Locks the bytes for a change up to `end`, and sets the time of change. Returns `end` as an
    /// index.
    fn change(&self, end: u64) -> io::Result<(MutexGuard<'_, Vec<u8>>, usize)> {
        if !self.writable {
            return Err(handle_is_read_only());
        }
        if end > LEN_MAX {
            return Err(ErrorKind::FileTooLarge.into());
        }
        self.inode.modified_us.store(self.shared.clock.now_us(), Ordering::Relaxed);
        let end = usize::try_from(end).map_err(|_| ErrorKind::FileTooLarge)?;
        Ok((self.inode.bytes.lock(), end))
    }
}

impl fmt::Debug for MemFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemFile").field("len", &self.inode.len()).finish_non_exhaustive()
    }
}

impl File for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inode.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.inode.bytes.lock();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buf.len());
        if buf.is_empty() {
            return Ok(());
        }
        buf.copy_from_slice(bytes.get(start..end).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let (mut bytes, end) = self.change(range_end(offset, buf.len())?)?;
        if buf.is_empty() {
            return Ok(());
        }
        // A write after the end of the file fills the gap with zeros.
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        if let Some(to) = bytes.get_mut(end - buf.len()..end) {
            to.copy_from_slice(buf);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (mut bytes, len) = self.change(len)?;
        bytes.resize(len, 0);
        Ok(())
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.checked_add(len).ok_or(ErrorKind::FileTooLarge)?;
        let (mut bytes, end) = self.change(end)?;
        if len > 0 && bytes.len() < end {
            bytes.resize(end, 0);
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn identity(&self) -> io::Result<u64> {
        Ok(self.inode.identity)
    }
}

/// The maximum length of a file, in bytes. It makes a wrong offset an error, and not an exhausted
/// memory.
const LEN_MAX: u64 = 1 << 36;

/// Returns the error of a missing file.
pub(super) fn not_found(name: &str) -> io::Error {
    io::Error::new(ErrorKind::NotFound, format!("there is no file {name}"))
}

/// Returns the error of a name that exists already.
pub(super) fn taken(name: &str) -> io::Error {
    io::Error::new(ErrorKind::AlreadyExists, format!("the name {name} is taken"))
}

/// Returns the error of a write through a handle for reading.
pub(super) fn handle_is_read_only() -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, "the file was opened for reading only")
}

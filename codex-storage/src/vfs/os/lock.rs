//! Advisory locks of the operating system, with flock.

use std::fs::{File as StdFile, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::OnceLock;

use rustix::fs::OFlags;

use super::OsDir;
use crate::sync::Mutex;
use crate::vfs::{Dir, Entropy, LockGuard, LockHolder, LockKind, OsEntropy};

impl OsDir {
    /// Locks the open file `file`, and checks that it still has the name `name`.
    pub(super) fn lock_opened(
        &self,
        name: &str,
        file: StdFile,
        kind: LockKind,
    ) -> io::Result<Tried> {
        let identity = file.metadata()?.ino();
        match try_flock(&file, kind) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Tried::HeldByOther),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let lock = OsLock::new(file, identity);
        // Order: the name is looked up after the lock was taken. A file that lost its name before
        // that would be locked in vain, because another process would lock the new file.
        let found = self.metadata(name)?;
        let is_named = found.is_some_and(|found| found.identity == identity);
        Ok(if is_named { Tried::Locked(lock) } else { Tried::Renamed })
    }

    /// Locks the file that `open` opens, and tries again if `name` refers to another file
    /// afterwards.
    pub(super) fn lock_named(
        &self,
        name: &str,
        kind: LockKind,
        open: impl Fn() -> io::Result<StdFile>,
    ) -> io::Result<Option<Box<dyn LockGuard>>> {
        loop {
            match self.lock_opened(name, open()?, kind)? {
                Tried::Locked(lock) => return Ok(Some(Box::new(lock))),
                Tried::HeldByOther => return Ok(None),
                Tried::Renamed => {}
            }
        }
    }
}

/// The signature of a process in a lock file: see `docs/FORMAT.md`, "Files".
impl OsDir {
    /// Writes the signature of this process into the lock file `name`, or removes it.
    pub(super) fn sign(&self, name: &str, is_held: bool) -> io::Result<()> {
        let file = self.open_existing(name, OFlags::RDWR)?;
        let own = own_signature();
        if is_held {
            return file.write_all_at(&own, SIGNATURE_AT);
        }
        // A forked child has copies of the locks, and must not remove the signature of its parent.
        if read_signature(&file)? == own {
            file.write_all_at(&[0; SIGNATURE_LEN], SIGNATURE_AT)?;
        }
        Ok(())
    }

    /// Returns the process whose signature is in the lock file `name`.
    pub(super) fn signer(&self, name: &str) -> io::Result<Option<LockHolder>> {
        let found = read_signature(&self.open_existing(name, OFlags::RDONLY)?)?;
        let [a, b, c, d, ..] = found;
        Ok(match u32::from_le_bytes([a, b, c, d]) {
            _ if found == own_signature() => Some(LockHolder::ThisProcess),
            0 => None,
            id => Some(LockHolder::Process(id)),
        })
    }
}

/// The signature of this process: its id, and random bytes. The id alone does not identify it,
/// because each container has a process 1.
fn own_signature() -> [u8; SIGNATURE_LEN] {
    static RANDOM: OnceLock<[u8; 8]> = OnceLock::new();
    let random = RANDOM.get_or_init(|| {
        let mut random = [0; 8];
        // Without entropy the id alone has to do: the signature only serves error texts.
        let _ = OsEntropy.fill(&mut random);
        random
    });
    let mut own = [0; SIGNATURE_LEN];
    let (id, rest) = own.split_at_mut(4);
    id.copy_from_slice(&std::process::id().to_le_bytes());
    rest.copy_from_slice(random);
    own
}

fn read_signature(file: &StdFile) -> io::Result<[u8; SIGNATURE_LEN]> {
    let mut found = [0; SIGNATURE_LEN];
    file.read_exact_at(&mut found, SIGNATURE_AT)?;
    Ok(found)
}

/// The offset of the signature, which begins after the note of a Snapshot.
const SIGNATURE_AT: u64 = 16;
const SIGNATURE_LEN: usize = 12;

/// The result of locking an open file.
#[derive(Debug)]
pub(super) enum Tried {
    Locked(OsLock),
    HeldByOther,
    /// The file lost its name between opening and locking. Such a lock excludes no other process.
    Renamed,
}

/// A lock of the standard library (flock). It belongs to the open file, which forked children
/// share: closing a descriptor releases it only if no copy exists.
#[derive(Debug)]
pub(super) struct OsLock {
    /// Taken out only by [`LockGuard::abandon`], so the mutex is never held while a process forks.
    pub(super) file: Mutex<Option<StdFile>>,
    pub(super) identity: u64,
    /// The process that took the lock. Only this process may release it.
    pub(super) taken_by: u32,
}

impl OsLock {
    fn new(file: StdFile, identity: u64) -> Self {
        Self { file: Mutex::new(Some(file)), identity, taken_by: std::process::id() }
    }

    /// Returns whether this is the copy of a forked child.
    fn is_copy(&self) -> bool {
        self.taken_by != std::process::id()
    }
}

impl LockGuard for OsLock {
    fn identity(&self) -> u64 {
        self.identity
    }

    fn abandon(&self) {
        if self.is_copy() {
            *self.file.lock() = None;
        }
    }
}

impl Drop for OsLock {
    fn drop(&mut self) {
        if let Some(file) = self.file.lock().take()
            && !self.is_copy()
        {
            // Closing the descriptor afterwards also releases the lock, but only if no copy exists.
            let _ = file.unlock();
        }
    }
}

/// Tries to lock `file`, again if a signal interrupts the call.
fn try_flock(file: &StdFile, kind: LockKind) -> Result<(), TryLockError> {
    loop {
        let tried = match kind {
            LockKind::Shared => file.try_lock_shared(),
            LockKind::Exclusive => file.try_lock(),
        };
        match tried {
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Interrupted => {}
            tried => return tried,
        }
    }
}

//! A directory of the operating system through std alone, where there is no Unix. It compiles and
//! is untested: directories cannot be synced there, and permissions are those of the parent.
#![expect(clippy::disallowed_types, reason = "this is the seam that the lint points to")]
#![expect(clippy::disallowed_methods, reason = "this is the seam that the lint points to")]

use std::fs::{self, File as StdFile, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    Dir, File, Kind, LockGuard, LockKind, Metadata, Mode, Open, OsClock, OsEntropy, Vfs,
    check_name, check_names, handle_is_read_only, taken,
};
use crate::sync::{Mutex, MutexGuard};

impl Vfs {
    /// The existing directory `path` of the operating system, with its clock and entropy.
    ///
    /// # Errors
    ///
    /// `NotFound` or `NotADirectory`; other errors with the number of the operating system.
    pub fn os(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self {
            dir: Arc::new(OsDir::open(path)?),
            clock: Arc::new(OsClock::new()),
            entropy: Arc::new(OsEntropy),
        })
    }
}

/// A directory of the operating system, by its canonical path.
#[derive(Debug)]
pub struct OsDir {
    path: PathBuf,
}

impl OsDir {
    /// Opens the existing directory `path`; an empty path is the working directory.
    ///
    /// # Errors
    ///
    /// `NotFound` or `NotADirectory`; other errors with the number of the operating system.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let path = fs::canonicalize(path)?;
        if fs::metadata(&path)?.is_dir() {
            return Ok(Self { path });
        }
        Err(ErrorKind::NotADirectory.into())
    }

    /// The path behind `path` once every symbolic link is followed, one at its end included.
    ///
    /// # Errors
    ///
    /// `NotFound` where one leads nowhere; other errors with the number of the operating system.
    pub fn resolve(path: impl AsRef<Path>) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn existing(&self, name: &str, options: &OpenOptions) -> io::Result<StdFile> {
        let found = fs::symlink_metadata(self.path(name))?;
        if found.is_file() {
            return options.open(self.path(name));
        }
        let message = format!("{name} is not a regular file");
        Err(io::Error::new(ErrorKind::InvalidInput, message))
    }
}

impl Dir for OsDir {
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn File>> {
        check_name(name)?;
        let mut options = OpenOptions::new();
        options.read(true).write(how != Open::Read);
        let file = match how {
            Open::Read | Open::Write => self.existing(name, &options)?,
            Open::CreateNew(_) => options.create_new(true).open(self.path(name))?,
        };
        Ok(Arc::new(OsFile { file: Mutex::new(file), writable: how != Open::Read }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_names(from, to)?;
        fs::rename(self.path(from), self.path(to))
    }

    fn reflink(&self, _from: &str, to: &str, _mode: Mode) -> io::Result<()> {
        match self.metadata(to)? {
            Some(_) => Err(taken(to)),
            None => Err(ErrorKind::Unsupported.into()),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        fs::remove_file(self.path(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names =
            fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn metadata(&self, name: &str) -> io::Result<Option<Metadata>> {
        check_name(name)?;
        let found = match fs::symlink_metadata(self.path(name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            found => found?,
        };
        let kind = match found.file_type() {
            kind if kind.is_file() => Kind::File,
            kind if kind.is_dir() => Kind::Dir,
            kind if kind.is_symlink() => Kind::Symlink,
            _ => Kind::Other,
        };
        let modified_us = super::clock::unix_us(found.modified()?);
        Ok(Some(Metadata { kind, len: found.len(), modified_us, identity: 0 }))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self, name: &str, kind: LockKind) -> io::Result<Option<Box<dyn LockGuard>>> {
        check_name(name)?;
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).open(self.path(name))?;
        let tried = match kind {
            LockKind::Shared => file.try_lock_shared(),
            LockKind::Exclusive => file.try_lock(),
        };
        match tried {
            Ok(()) => Ok(Some(Box::new(OsLock { file }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Locks are mandatory on Windows: one on the file would keep others from reading it.
    fn lock_existing(&self, _: &str, _: LockKind) -> io::Result<Option<Box<dyn LockGuard>>> {
        Err(ErrorKind::Unsupported.into())
    }

    fn inherit(&self, from: &str, to: &str, _mode: Option<Mode>) -> io::Result<()> {
        check_names(from, to)
    }

    fn available_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// std has a common position only, so one call at a time uses the file.
#[derive(Debug)]
struct OsFile {
    file: Mutex<StdFile>,
    writable: bool,
}

impl OsFile {
    fn file(&self) -> MutexGuard<'_, StdFile> {
        self.file.lock()
    }
}

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file().metadata()?.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut file = self.file();
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(buf)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut file = self.file();
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(buf)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file().set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.checked_add(len).ok_or(ErrorKind::FileTooLarge)?;
        let mut file = self.file();
        let len_before = file.metadata()?.len();
        let missing = if len == 0 { 0 } else { end.saturating_sub(len_before) };
        file.seek(SeekFrom::Start(len_before))?;
        let done = io::copy(&mut io::repeat(0).take(missing), &mut *file);
        if done.is_err() {
            file.set_len(len_before)?;
        }
        done.map(drop)
    }

    fn sync(&self) -> io::Result<()> {
        if self.writable {
            return self.file().sync_data();
        }
        Err(handle_is_read_only())
    }
}

/// A lock of std, released on drop.
#[derive(Debug)]
struct OsLock {
    file: StdFile,
}

impl LockGuard for OsLock {
    fn identity(&self) -> u64 {
        0
    }
}

impl Drop for OsLock {
    fn drop(&mut self) {
        // Closing the handle, which follows, releases it too, if perhaps later.
        let _ = self.file.unlock();
    }
}

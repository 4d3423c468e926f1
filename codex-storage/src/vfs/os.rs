//! A directory of the operating system: Linux and macOS.
#![expect(clippy::disallowed_types, reason = "this is the seam that the lint points to")]

mod folders;
mod inherit;
mod lock;

use std::fs::File as StdFile;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::{
    Dir, File, Kind, LockGuard, LockHolder, LockKind, Metadata, Mode, Open, OsClock, OsEntropy,
    Vfs, WaitedFor, check_name, check_names, range_end, same_system,
};

impl Vfs {
    /// Returns the existing directory `path` of the operating system, with its clock and entropy.
    ///
    /// # Errors
    ///
    /// `NotFound` or `NotADirectory`; other errors with the number of the operating system.
    pub fn os(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self {
            dir: Arc::new(OsDir::open(path)?),
            clock: Arc::new(OsClock::new()),
            entropy: Arc::new(OsEntropy),
            waited_for: WaitedFor::default(),
        })
    }
}

/// A directory of the operating system, held open. If the directory is renamed, or another one
/// takes its path, the handle still refers to the directory that was opened.
///
/// Interrupted calls are repeated. Other errors have the number of the operating system, unless a
/// message replaces it.
#[derive(Debug)]
pub struct OsDir {
    fd: StdFile,
    path: PathBuf,
}

impl OsDir {
    /// Opens the existing directory `path`. An empty path is the working directory.
    ///
    /// # Errors
    ///
    /// `NotFound` or `NotADirectory`; other errors with the number of the operating system.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        #[expect(clippy::disallowed_methods, reason = "this is the seam that the lint points to")]
        let path = std::fs::canonicalize(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = retry_on_intr(|| fs::open(&path, flags, fs::Mode::empty()))?;
        Ok(Self { fd: StdFile::from(fd), path })
    }

    /// Follows every symbolic link in `path`, including one at its end. Returns the path to which
    /// they lead.
    ///
    /// # Errors
    ///
    /// `NotFound` if a link leads to no file; other errors with the number of the operating system.
    pub fn resolve(path: impl AsRef<Path>) -> io::Result<PathBuf> {
        #[expect(clippy::disallowed_methods, reason = "this is the seam that the lint points to")]
        let path = std::fs::canonicalize(path)?;
        Ok(path)
    }

    /// Opens `name` and follows no symbolic link. Does not wait for the other end of a FIFO.
    fn open_at(&self, name: &str, flags: OFlags, mode: fs::Mode) -> io::Result<StdFile> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(StdFile::from(retry_on_intr(|| fs::openat(&self.fd, name, flags, mode))?))
    }

    /// Opens an existing regular file. Returns an error if `name` is of another kind, or if it
    /// would be opened for writing and its mode is read-only.
    fn open_existing(&self, name: &str, flags: OFlags) -> io::Result<StdFile> {
        let file = self.open_at(name, flags, fs::Mode::empty())?;
        let metadata = file.metadata()?;
        let refused = |kind, what| Err(io::Error::new(kind, format!("{name} is {what}")));
        if metadata.is_dir() {
            return refused(ErrorKind::IsADirectory, "a directory");
        }
        if !metadata.is_file() {
            return refused(ErrorKind::InvalidInput, "not a regular file");
        }
        // The operating system lets the superuser open a read-only file for writing. Such a file is
        // only replaced, so it must not be written to.
        if flags.contains(OFlags::RDWR) && metadata.mode() & 0o200 == 0 {
            return refused(ErrorKind::PermissionDenied, "read-only");
        }
        Ok(file)
    }

    /// Creates the file `name`, which must not exist, with exactly this mode.
    fn create(&self, name: &str, mode: Mode) -> io::Result<StdFile> {
        let mode = match mode {
            Mode::Private => fs::Mode::RUSR | fs::Mode::WUSR,
            Mode::Frozen => fs::Mode::RUSR,
        };
        let file = self.open_at(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, mode)?;
        // The umask may have removed bits of the mode, so it is set again.
        if let Err(error) = retry_on_intr(|| fs::fchmod(&file, mode)) {
            self.forget(name);
            return Err(error.into());
        }
        Ok(file)
    }

    /// Opens the lock file, and creates it if it does not exist. A reader without write permission
    /// can still share a lock whose file exists.
    fn open_lock(&self, name: &str, kind: LockKind) -> io::Result<StdFile> {
        let created = loop {
            match self.create(name, Mode::Private) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => break created,
            }
            match self.open_existing(name, OFlags::RDWR) {
                // Another process removed the file between the two calls. Try again.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                opened => break opened,
            }
        };
        match created {
            Err(error) if kind == LockKind::Shared => {
                self.open_existing(name, OFlags::RDONLY).map_err(|_| error)
            }
            created => created,
        }
    }

    /// Removes a file that a failed call created. An error is ignored, because the caller returns
    /// the first one.
    fn forget(&self, name: &str) {
        let _ = fs::unlinkat(&self.fd, name, AtFlags::empty());
    }
}

impl Dir for OsDir {
    fn open(&self, name: &str, how: Open) -> io::Result<Arc<dyn File>> {
        check_name(name)?;
        let file = match how {
            Open::Read => self.open_existing(name, OFlags::RDONLY),
            Open::Write => self.open_existing(name, OFlags::RDWR),
            Open::CreateNew(mode) => self.create(name, mode),
        }?;
        Ok(Arc::new(OsFile { file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_names(from, to)?;
        retry_on_intr(|| fs::renameat(&self.fd, from, &self.fd, to)).map_err(|errno| {
            let error = io::Error::from(errno);
            match errno {
                // The target is a mount point: a single file was mounted into a container.
                Errno::BUSY | Errno::XDEV => {
                    let why = format!("{to} is mounted by itself: mount its folder ({errno})");
                    io::Error::new(error.kind(), why)
                }
                _ => error,
            }
        })
    }

    fn reflink(&self, from: &Arc<dyn File>, to: &str, mode: Mode) -> io::Result<()> {
        check_name(to)?;
        let from: &OsFile = same_system(from)?;
        let copy = self.create(to, mode)?;
        share_blocks(&copy, &from.file).inspect_err(|_| self.forget(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        Ok(retry_on_intr(|| fs::unlinkat(&self.fd, name, AtFlags::empty()))?)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(&self.fd)? {
            if let Ok(name) = entry?.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn metadata(&self, name: &str) -> io::Result<Option<Metadata>> {
        check_name(name)?;
        let found = retry_on_intr(|| fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW));
        match found {
            Ok(stat) => Ok(Some(told_by(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.fd.sync_all()
    }

    fn try_lock(&self, name: &str, kind: LockKind) -> io::Result<Option<Box<dyn LockGuard>>> {
        check_name(name)?;
        self.lock_named(name, kind, || self.open_lock(name, kind))
    }

    fn lock_existing(&self, name: &str, kind: LockKind) -> io::Result<Option<Box<dyn LockGuard>>> {
        check_name(name)?;
        self.lock_named(name, kind, || self.open_existing(name, OFlags::RDONLY)).map_err(|error| {
            // A network file system may require a file that is open for writing to lock it
            // exclusively.
            match Errno::from_io_error(&error) {
                Some(errno @ Errno::BADF) => unsupported("lock on a file open for reading", errno),
                Some(Errno::LOOP) => ErrorKind::InvalidInput.into(),
                _ => error,
            }
        })
    }

    fn sign_lock(&self, name: &str, is_held: bool) {
        let _ = self.sign(name, is_held);
    }

    fn lock_signer(&self, name: &str) -> Option<LockHolder> {
        self.signer(name).ok().flatten()
    }

    fn inherit(&self, from: &str, to: &str, mode: Option<Mode>) -> io::Result<()> {
        check_names(from, to)?;
        let stat = retry_on_intr(|| fs::statat(&self.fd, from, AtFlags::SYMLINK_NOFOLLOW))?;
        inherit::take_over(&stat, &self.open_existing(to, OFlags::RDONLY)?, mode)
    }

    fn available_bytes(&self) -> io::Result<Option<u64>> {
        match retry_on_intr(|| fs::fstatvfs(&self.fd)) {
            // A file system without blocks has no limit, or does not report one.
            Ok(found) if found.f_blocks == 0 => Ok(None),
            Ok(found) => Ok(Some(found.f_bavail.saturating_mul(found.f_frsize))),
            Err(Errno::NOSYS | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// An open file of the operating system.
#[derive(Debug)]
struct OsFile {
    file: StdFile,
}

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.allocate_by(reserve, offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn identity(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.ino())
    }
}

impl OsFile {
    /// Allocates with `reserve`, or by writing zeros if `reserve` returns `Unsupported`. If neither
    /// works, the length is the same as before.
    fn allocate_by(
        &self,
        reserve: impl FnOnce(&StdFile, u64, u64, u64) -> io::Result<()>,
        offset: u64,
        len: u64,
    ) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let end = offset.checked_add(len).ok_or(ErrorKind::FileTooLarge)?;
        let len_before = self.len()?;
        let done = match reserve(&self.file, offset, len, len_before) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                self.write_zeros(len_before, end)
            }
            done => done,
        };
        if done.is_err() && self.len()? > len_before {
            self.set_len(len_before)?;
        }
        done
    }

    /// Writes zeros from `offset` to `end`, for file systems that cannot reserve space.
    fn write_zeros(&self, mut offset: u64, end: u64) -> io::Result<()> {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        while offset < end {
            let len = usize::try_from(end - offset).unwrap_or(usize::MAX).min(ZEROS.len());
            let zeros = ZEROS.get(..len).unwrap_or(&ZEROS);
            self.write_all_at(zeros, offset)?;
            offset = range_end(offset, zeros.len())?;
        }
        Ok(())
    }
}

/// Reserves space with fallocate. Returns `Unsupported` if the file system does not have it.
fn reserve(file: &StdFile, offset: u64, len: u64, len_before: u64) -> io::Result<()> {
    // On macOS, fallocate on a range within the file would cut the file.
    if cfg!(target_os = "macos") && offset.saturating_add(len) <= len_before {
        return Ok(());
    }
    let done = retry_on_intr(|| fs::fallocate(file, fs::FallocateFlags::empty(), offset, len));
    done.map_err(|errno| match errno {
        Errno::OPNOTSUPP | Errno::NOSYS => unsupported("space reservation", errno),
        _ => errno.into(),
    })
}

#[cfg(target_os = "linux")]
fn share_blocks(copy: &StdFile, source: &StdFile) -> io::Result<()> {
    retry_on_intr(|| fs::ioctl_ficlone(copy, source)).map_err(|errno| match errno {
        Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOTTY | Errno::INVAL | Errno::XDEV => {
            unsupported("reflink", errno)
        }
        _ => errno.into(),
    })
}

#[cfg(target_os = "macos")]
fn share_blocks(_copy: &StdFile, _source: &StdFile) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Returns an error of the kind `Unsupported` that names the operation.
fn unsupported(what: &str, errno: Errno) -> io::Error {
    let message = format!("the file system refuses a {what} ({errno})");
    io::Error::new(ErrorKind::Unsupported, message)
}

#[allow(
    clippy::useless_conversion,
    clippy::unnecessary_fallible_conversions,
    reason = "the fields have other widths on other systems"
)]
fn told_by(stat: &fs::Stat) -> Metadata {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Other,
    };
    let micros = i64::try_from(stat.st_mtime_nsec).unwrap_or(0) / 1_000;
    Metadata {
        kind,
        len: u64::try_from(stat.st_size).unwrap_or(0),
        modified_us: i64::from(stat.st_mtime).saturating_mul(1_000_000).saturating_add(micros),
        identity: u64::from(stat.st_ino),
    }
}

/// Returns the time of the last tick of the kernel, in microseconds since 1970.
#[cfg(target_os = "linux")]
pub(super) fn tick_us() -> i64 {
    let tick = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    tick.tv_sec.saturating_mul(1_000_000).saturating_add(tick.tv_nsec / 1_000)
}

#[cfg(test)]
mod tests;

//! A folder as a place for objects, such as a second disk or a mounted share.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use codex_storage::vfs::{Kind, LockGuard, LockKind, Mode, Open, Vfs, in_pieces};

use super::fault::Fault;
use super::target::{Body, Created, Listed, Target, check_name};
use crate::error::{Error, Result};
use crate::text::hex;

/// A folder that holds the objects as files: the object `image/1` is the file `image.1`. Its bytes
/// and its name are synced before it counts as created.
///
/// The file `lock` makes creations of one name by several writers exclude each other. On a network
/// file system without locks that work between machines, only one machine may write.
#[derive(Debug, Clone)]
pub struct Folder {
    vfs: Vfs,
}

impl Folder {
    /// Returns the existing folder `path`.
    ///
    /// # Errors
    /// [`Fault::Io`] if there is no folder at `path`.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Vfs::os(path).map(Self::of).map_err(|error| {
            let fault = Fault::io("open the folder", error);
            Error::Remote { path: path.to_owned(), fault }
        })
    }

    /// Returns the directory of `vfs`, which may be simulated.
    pub fn of(vfs: Vfs) -> Self {
        Self { vfs }
    }

    /// Writes a temporary file and gives it the name `file`, unless a file has that name.
    fn place(
        &self,
        temporary: &str,
        file: &str,
        body: &mut Body<'_, '_>,
    ) -> Result<Created, Fault> {
        let dir = &*self.vfs.dir;
        let new = dir.open(temporary, Open::CreateNew(Mode::Frozen)).map_err(writing)?;
        in_pieces(0..body.len(), |piece, at| {
            body.read_exact_at(piece, at)?;
            new.write_all_at(piece, at).map_err(writing)
        })?;
        // Order: the bytes are durable before the name can be seen.
        new.sync().map_err(writing)?;
        let lock = self.lock()?;
        // Order: the name is looked at under the lock, under which alone names are given.
        if dir.metadata(file).map_err(writing)?.is_some() {
            return Ok(Created::Exists);
        }
        dir.rename(temporary, file).map_err(writing)?;
        drop(lock);
        // Order: the name is durable before the object counts as created.
        dir.sync().map_err(writing)?;
        Ok(Created::New)
    }

    fn lock(&self) -> Result<Box<dyn LockGuard>, Fault> {
        let attempt = || self.vfs.dir.try_lock(LOCK, LockKind::Exclusive).map_err(writing);
        let (lock, _) = self.vfs.clock.wait_for(LOCK_TIMEOUT, attempt)?;
        lock.ok_or_else(|| Fault::io("take the file `lock`", io::ErrorKind::WouldBlock.into()))
    }

    /// Calls `sink` with the name of each file, its length and its age.
    fn each(&self, sink: &mut dyn FnMut(String, u64, Duration)) -> io::Result<()> {
        let now = self.vfs.clock.now_us();
        for file in self.vfs.dir.list()? {
            // A file may be removed between the two calls.
            let Some(found) = self.vfs.dir.metadata(&file)? else { continue };
            if found.kind == Kind::File {
                let age = u64::try_from(now.saturating_sub(found.modified_us)).unwrap_or(0);
                sink(file, found.len, Duration::from_micros(age));
            }
        }
        Ok(())
    }
}

impl Target for Folder {
    fn create(&self, name: &str, body: &mut Body<'_, '_>) -> Result<Created, Fault> {
        check_name(name)?;
        let mut id = [0; 16];
        self.vfs.entropy.fill(&mut id).map_err(writing)?;
        let temporary = format!("{UPLOAD}{}", hex(&id));
        let created = self.place(&temporary, &file_of(name), body);
        if !matches!(created, Ok(Created::New)) {
            // If this fails too, a later sweep removes the file.
            let _ = self.vfs.dir.remove(&temporary);
        }
        created
    }

    fn read_at(&self, name: &str, buf: &mut [u8], at: u64) -> Result<(), Fault> {
        let file = self.vfs.dir.open(&file_of(name), Open::Read).map_err(reading)?;
        let (found, expected) = (file.len().map_err(reading)?, at + buf.len() as u64);
        if found < expected {
            return Err(Fault::Truncated { expected, found });
        }
        file.read_exact_at(buf, at).map_err(reading)
    }

    fn size(&self, name: &str) -> Result<Option<u64>, Fault> {
        let found = self.vfs.dir.metadata(&file_of(name)).map_err(reading)?;
        Ok(found.filter(|found| found.kind == Kind::File).map(|found| found.len))
    }

    fn list(&self, prefix: &str, sink: &mut dyn FnMut(Listed)) -> Result<(), Fault> {
        let mut listed = |file: String, len, age| {
            // The names of other files have other characters.
            let name = file.replace('.', "/");
            if name.starts_with(prefix) && check_name(&name).is_ok() && name.contains('/') {
                sink(Listed { name, len, age });
            }
        };
        self.each(&mut listed).map_err(reading)
    }

    fn remove(&self, name: &str) -> Result<(), Fault> {
        match self.vfs.dir.remove(&file_of(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(writing(error)),
            _ => self.vfs.dir.sync().map_err(writing),
        }
    }

    fn sweep(&self, age: Duration) -> Result<u64, Fault> {
        let mut old = Vec::new();
        self.each(&mut |file, _, found| {
            if file.starts_with(UPLOAD) && found >= age {
                old.push(file);
            }
        })
        .map_err(reading)?;
        for file in &old {
            self.vfs.dir.remove(file).map_err(writing)?;
        }
        Ok(old.len() as u64)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.vfs.dir.path(&file_of(name))
    }
}

/// Returns the name of the file of an object.
fn file_of(name: &str) -> String {
    name.replace('/', ".")
}

fn reading(error: io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::NotFound => Fault::Missing,
        _ => Fault::io("read it", error),
    }
}

fn writing(error: io::Error) -> Fault {
    Fault::io("write it", error)
}

/// The lock of creations. It names no object, because those have a `.`.
const LOCK: &str = "lock";
/// The beginning of the names of unfinished uploads, which name no objects because of the `_`.
const UPLOAD: &str = "upload_";
/// The maximum wait for another creation, which holds the lock for one rename.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

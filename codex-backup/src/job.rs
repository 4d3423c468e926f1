//! One copy to be made: the cheapest allowed way, synced and verified.

use std::io;
use std::io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks, Unsupported};
use std::sync::Arc;

use codex_storage::sync::atomic::{AtomicU64, Ordering};
use codex_storage::vfs::{Dir, File, Mode, Open};

use crate::copy::{Copied, Method, Progress, Source, Watch, Writer};
use crate::error::{Error, Named, Result};
use crate::inspect::{CHUNK_BYTES, Depth, Facts, Inspect};

/// One copy to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) from: &'a dyn Dir,
    pub(crate) to: &'a dyn Dir,
    /// The name of the copy, which is free.
    pub(crate) to_name: &'a str,
    /// Whether source and copy are in one directory, so that blocks and names can be shared.
    pub(crate) same_dir: bool,
    /// The size above which a frozen file gets a second name where blocks cannot be shared.
    pub(crate) link_above: Option<u64>,
    pub(crate) mode: Mode,
    pub(crate) depth: Depth,
    pub(crate) inspect: &'a dyn Inspect,
    /// The version the copy must have, where that is known.
    pub(crate) about: Option<&'a Facts>,
}

impl Job<'_> {
    /// Makes the copy, syncs its bytes and verifies it. On an error the caller discards it. The
    /// name itself is not yet durable.
    pub(crate) fn run(&self, source: Source<'_>, watch: &mut Watch<'_>) -> Result<Copied> {
        let proven = matches!(source, Source::Frozen { proven: true, .. });
        let label = source.path(self.from).unwrap_or_else(|| self.to.path(self.to_name));
        let method = self.place(source, watch)?;
        let file = self.to.open(self.to_name, Open::Read).named("open", self.to, self.to_name)?;
        if matches!(method, Method::Reflink | Method::Link) {
            file.sync().named("sync", self.to, self.to_name)?;
        }
        let unread = cfg!(codex_mutant = "backup_unverified");
        let facts = if unread || (method == Method::Link && proven) {
            self.inspect.facts(&file)
        } else {
            self.inspect.verify(&file, self.depth)
        };
        let facts = facts.map_err(|flaw| Error::from_flaw(self.to.path(self.to_name), flaw))?;
        if let Some(about) = self.about.filter(|about| !about.same_version(&facts)) {
            let (expected, found) = (about.version(), facts.version());
            return Err(Error::Changed { path: label, expected, found });
        }
        Ok(Copied { facts, method })
    }

    /// Brings the bytes there, the cheapest allowed way first.
    fn place(&self, source: Source<'_>, watch: &mut Watch<'_>) -> Result<Method> {
        let (name, upto) = match source {
            Source::Write { size, write } => return self.write_out(size, write),
            Source::Growing { name, upto } => (name, upto),
            Source::Frozen { name, .. } => {
                let found = self.from.metadata(name).named("look at", self.from, name)?;
                let len = found.map_or(0, |found| found.len);
                if let Some(method) = self.share(name, len)? {
                    let _ = watch(Progress { done: len, total: len });
                    return Ok(method);
                }
                (name, len)
            }
        };
        self.copy_bytes(name, upto, watch)?;
        Ok(Method::Copy)
    }

    /// Shares the blocks or the whole file, where that is allowed and possible.
    fn share(&self, name: &str, len: u64) -> Result<Option<Method>> {
        if !self.same_dir {
            return Ok(None);
        }
        match self.from.reflink(name, self.to_name, self.mode) {
            Ok(()) => return Ok(Some(Method::Reflink)),
            Err(error) if cannot(&error) => {}
            Err(error) => return Err(error).named("share the blocks of", self.from, name),
        }
        let links_all = cfg!(codex_mutant = "backup_links_all");
        if !links_all && self.link_above.is_none_or(|above| len <= above) {
            return Ok(None);
        }
        match self.from.link(name, self.to_name) {
            Ok(()) => Ok(Some(Method::Link)),
            Err(error) if cannot(&error) => Ok(None),
            Err(error) => Err(error).named("link", self.from, name),
        }
    }

    fn write_out(&self, size: u64, write: &mut Writer<'_>) -> Result<Method> {
        let file = self.create(size)?;
        let path = || self.to.path(self.to_name);
        let paced = Paced { file: &*file, unsynced: AtomicU64::new(0) };
        write(&paced).map_err(|cause| Error::Source { path: path(), cause: cause.into() })?;
        if !cfg!(codex_mutant = "backup_unsynced") {
            file.sync().filling("sync", self.to, self.to_name, size)?;
        }
        Ok(Method::Written)
    }

    fn copy_bytes(&self, name: &str, total: u64, watch: &mut Watch<'_>) -> Result<()> {
        let (to, to_name) = (self.to, self.to_name);
        let input = self.from.open(name, Open::Read).named("open", self.from, name)?;
        let output = self.create(total)?;
        let mut buffer = vec![0; CHUNK_BYTES];
        let (mut done, mut unsynced) = (0, 0);
        while done < total {
            let here = usize::try_from(total - done).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            let Some(chunk) = buffer.get_mut(..here) else { break };
            input.read_exact_at(chunk, done).named("read", self.from, name)?;
            output.write_all_at(chunk, done).filling("write", to, to_name, total)?;
            done += here as u64;
            unsynced += here as u64;
            if unsynced >= SYNC_EVERY_BYTES {
                output.sync().filling("sync", to, to_name, total)?;
                unsynced = 0;
            }
            if watch(Progress { done, total }).is_break() {
                return Err(Error::Stopped { path: to.path(to_name) });
            }
        }
        output.sync().filling("sync", to, to_name, total)
    }

    /// Creates the copy, empty, if there is room for `needed` bytes.
    fn create(&self, needed: u64) -> Result<Arc<dyn File>> {
        let (to, name) = (self.to, self.to_name);
        let available = to.available_bytes().named("ask for the free space at", to, name)?;
        if available < needed {
            return Err(Error::NoSpace { path: to.path(name), needed, available });
        }
        to.open(name, Open::CreateNew(self.mode)).filling("create", to, name, needed)
    }
}

/// Whether the file system cannot do it at all, so that another way is worth a try: no such
/// function, too many names already, or links to others' files forbidden.
fn cannot(error: &std::io::Error) -> bool {
    matches!(error.kind(), Unsupported | TooManyLinks | PermissionDenied | CrossesDevices)
}

/// A file that its writer fills without pause, synced every so many bytes.
#[derive(Debug)]
struct Paced<'a> {
    file: &'a dyn File,
    unsynced: AtomicU64,
}

impl File for Paced<'_> {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(buf, offset)?;
        let here = buf.len() as u64;
        if self.unsynced.fetch_add(here, Ordering::Relaxed) + here >= SYNC_EVERY_BYTES {
            self.unsynced.store(0, Ordering::Relaxed);
            self.file.sync()?;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.allocate(offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// Bytes written between two syncs of a copy. Without them a large copy ends in one sync of all
/// its bytes, behind which every other sync of the file system waits.
const SYNC_EVERY_BYTES: u64 = 8 * 1024 * 1024;

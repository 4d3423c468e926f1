//! Makes one copy by the cheapest allowed method, then syncs and verifies it.

use std::io;
use std::io::ErrorKind::{CrossesDevices, PermissionDenied, Unsupported};
use std::ops::ControlFlow;
use std::sync::Arc;

use codex_storage::vfs::{Dir, File, Mode, Open, Paced, Vfs, in_pieces};

use crate::copy::{Copied, Method, Phase, Source, Watch, Writer};
use crate::error::{Error, Named, Result};
use crate::inspect::{Depth, Facts, Inspect};
use crate::meter::Meter;

/// A copy to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) from: &'a dyn Dir,
    pub(crate) to: &'a dyn Dir,
    /// The name of the copy. No file has this name.
    pub(crate) to_name: &'a str,
    pub(crate) mode: Mode,
    pub(crate) inspect: &'a dyn Inspect,
    /// The version that the copy must have, if it is known.
    pub(crate) about: Option<&'a Facts>,
    /// The directory of the store that may be open for writing. Its commits pace the copy.
    pub(crate) pace: Option<&'a Vfs>,
}

impl Job<'_> {
    /// Makes the copy, syncs its bytes and verifies it. If an error is returned, the caller removes
    /// the copy. The name of the copy is not durable yet.
    pub(crate) fn run(&self, source: Source<'_>, watch: &mut Watch<'_>) -> Result<Copied> {
        let path = self.to.path(self.to_name);
        let label = source.path(self.from).unwrap_or_else(|| path.clone());
        // The bytes of a file were authenticated when the file was made.
        let depth = match &source {
            Source::File { .. } => Depth::Checksums,
            Source::Write { .. } => self.inspect.deepest(),
        };
        let method = self.place(source, watch)?;
        let file = self.to.open(self.to_name, Open::Read).named("open", self.to, self.to_name)?;
        // Order: the bytes are durable before the caller renames the copy. The other methods have
        // synced them in `fill`.
        if method == Method::Reflink {
            file.sync().named("sync", self.to, self.to_name)?;
        }
        // Order: the copy is verified after the sync and before the caller renames it, so that no
        // backup has its name unverified.
        let len = file.len().named("look at", self.to, self.to_name)?;
        let mut meter = Meter::new(watch, Phase::Verifying, len);
        let mut read = |done| meter.reach(done);
        let facts = self.inspect.verify(&file, depth, &mut read);
        let facts = facts.map_err(|error| Error::from_inspect(path.clone(), error))?;
        meter.end(&path)?;
        if let Some(about) = self.about.filter(|about| !about.same_version(&facts)) {
            let (expected, found) = (about.version(), facts.version());
            return Err(Error::Changed { path: label, expected, found });
        }
        Ok(Copied { facts, method })
    }

    /// Creates the copy and fills it, by the cheapest allowed method.
    fn place(&self, source: Source<'_>, watch: &mut Watch<'_>) -> Result<Method> {
        let (name, file) = match source {
            Source::Write { size, write } => return self.write_out(size, write, watch),
            Source::File { name, file } => (name, file),
        };
        let len = file.len().named("look at", self.from, name)?;
        if self.share(name, &file)? {
            let mut meter = Meter::new(watch, Phase::Copying, len);
            let _ = meter.reach(len);
            meter.end(&self.to.path(self.to_name))?;
            return Ok(Method::Reflink);
        }
        self.copy_bytes(name, &*file, len, watch)?;
        Ok(Method::Copy)
    }

    /// Shares the blocks of the source. Returns false if the file system cannot.
    fn share(&self, name: &str, file: &Arc<dyn File>) -> Result<bool> {
        match self.to.reflink(file, self.to_name, self.mode) {
            Ok(()) => Ok(true),
            Err(error) if cannot(&error) => Ok(false),
            Err(error) => Err(error).named("share the blocks of", self.from, name),
        }
    }

    /// Creates the copy from the bytes that the caller's code produces.
    fn write_out(
        &self,
        size: u64,
        write: &mut Writer<'_>,
        watch: &mut Watch<'_>,
    ) -> Result<Method> {
        let path = || self.to.path(self.to_name);
        self.fill(size, watch, |output| {
            let mut failed = None;
            let written = write(&mut |bytes, at| {
                output.write(bytes, at).map_err(|error| {
                    let text = error.to_string();
                    failed = Some(error);
                    io::Error::other(text)
                })
            });
            // An error of a write is returned even if the caller's code ignored it.
            failed.map_or(Ok(()), Err)?;
            written.map_err(|cause| Error::Source { path: path(), cause: cause.into() })
        })?;
        Ok(Method::Written)
    }

    /// Creates the copy from the first `total` bytes of `input`.
    fn copy_bytes(
        &self,
        name: &str,
        input: &dyn File,
        total: u64,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        self.fill(total, watch, |output| {
            in_pieces(0..total, |piece, at| {
                input.read_exact_at(piece, at).named("read", self.from, name)?;
                output.write(piece, at)
            })
        })
    }

    /// Creates the copy, calls `f` to write it, and syncs it.
    fn fill(
        &self,
        size: u64,
        watch: &mut Watch<'_>,
        f: impl FnOnce(&mut Output<'_, '_, '_>) -> Result<()>,
    ) -> Result<()> {
        let file = self.create(size)?;
        let meter = Meter::new(watch, Phase::Copying, size);
        let output = match self.pace {
            Some(store) => Paced::new(file, store),
            None => Paced::hurried(file),
        };
        let mut output = Output { job: self, size, file: output, written: 0, meter };
        f(&mut output)?;
        output.meter.end(&self.to.path(self.to_name))?;
        output.file.sync().filling("sync", self.to, self.to_name, size)
    }

    /// Creates the empty copy. Returns [`Error::NoSpace`] if fewer than `needed` bytes are free.
    fn create(&self, needed: u64) -> Result<Arc<dyn File>> {
        let (to, name) = (self.to, self.to_name);
        let available = to.available_bytes().named("ask for the free space at", to, name)?;
        // If the file system does not report its free space, the write fails instead.
        if let Some(available) = available.filter(|&available| available < needed) {
            return Err(Error::NoSpace { path: to.path(name), needed, available });
        }
        to.open(name, Open::CreateNew(self.mode)).filling("create", to, name, needed)
    }
}

/// Returns whether the error means that the file system cannot share blocks, so that copying may
/// work.
fn cannot(error: &std::io::Error) -> bool {
    matches!(error.kind(), Unsupported | PermissionDenied | CrossesDevices)
}

/// A copy that is being written.
struct Output<'a, 'm, 'w> {
    job: &'a Job<'a>,
    size: u64,
    file: Paced<'a>,
    written: u64,
    meter: Meter<'m, 'w>,
}

impl Output<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8], at: u64) -> Result<()> {
        let (to, name) = (self.job.to, self.job.to_name);
        self.file.write_all_at(bytes, at).filling("write", to, name, self.size)?;
        self.written += bytes.len() as u64;
        match self.meter.reach(self.written) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Stopped { path: to.path(name) }),
        }
    }
}

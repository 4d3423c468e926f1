//! Makes one complete, synced, verified copy of a file, by sharing its blocks or byte by byte.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use codex_storage::names::{BackupTemporary, Names, Role};
use codex_storage::vfs::{Dir, File, Kind, LockGuard, LockKind, Mode, Open, Vfs};

use crate::backups::names_of;
use crate::error::{Cause, Error, Named, Result};
use crate::inspect::{Facts, Inspect};
use crate::job::Job;
use crate::meter::Meter;

/// The source of the bytes of a copy.
pub enum Source<'a> {
    /// An open file. It is the source even if another file takes its name during the copy. Its
    /// blocks are shared if the file system can share them ([`Dir::reflink`]). Of a file that may
    /// change in place or grow, pass the [`Prefix`](crate::Prefix) of a length: its bytes are
    /// copied, never shared.
    File {
        /// The name of the file, for messages and for the record of a restore.
        name: &'a str,
        /// The open file.
        file: Arc<dyn File>,
    },
    /// Bytes that the caller produces. This crate writes and syncs them.
    Write {
        /// The approximate number of bytes, for the check of free space and for [`Progress`].
        size: u64,
        /// Produces the bytes.
        write: &'a mut Writer<'a>,
    },
}

/// A function of the caller that writes a whole file in pieces. It passes each piece to [`WriteAt`]
/// and returns the errors of that. An error of `WriteAt` ends the copy, even if the function
/// returns `Ok`.
pub type Writer<'a> = dyn FnMut(&mut WriteAt<'_>) -> Result<(), Cause> + 'a;

/// Writes bytes at an offset, in bytes from the start of the file.
pub type WriteAt<'a> = dyn FnMut(&[u8], u64) -> io::Result<()> + 'a;

/// Progress callback. If it returns `Break`, the copy is stopped with [`Error::Stopped`], and its
/// bytes are removed.
pub type Watch<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// The progress of a copy. The phases follow each other, and `done` rises to `total` in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The current phase. A phase without work may be left out.
    pub phase: Phase,
    /// The work done in this phase, in bytes; in entries during [`Phase::Preparing`] of an open
    /// store.
    pub done: u64,
    /// The total work of the phase. If the estimate was too low, it rises with `done`.
    pub total: u64,
}

/// A phase of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Phase {
    /// The source is prepared. A file that has to be read for its version is read. An open store
    /// that first has to write its image reads it back, too; both passes count entries. While older
    /// backups are read, the callback receives 0 of 0 as a sign of life.
    Preparing,
    /// Bytes are copied, or written from memory. If blocks are shared, only the end is reported.
    Copying,
    /// The copy is read back and checked.
    Verifying,
}

/// A [`Watch`] that ignores all reports.
pub fn unwatched(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The way in which a copy was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// The copy shares the blocks of its source. A later change of one file does not change the
    /// other.
    Reflink,
    /// The bytes were copied.
    Copy,
    /// The caller wrote the bytes.
    Written,
}

/// Options of [`copy_to`].
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// The permissions of the copy.
    pub mode: Mode,
    /// The version that the copy must have. If it is `None`, the copy must have the version of the
    /// source when the call began. A [`Source::Write`] has no version of its own, so it is checked
    /// only if this is set.
    pub about: Option<Facts>,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self { mode: Mode::Frozen, about: None }
    }
}

/// A finished copy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// The facts that were read back from the copy.
    pub facts: Facts,
    /// The way in which the copy was made.
    pub method: Method,
}

/// Copies `source`, a file of the directory `from`, atomically to `name` in `to`, where no file may
/// exist.
///
/// After a crash either no file is at `name`, or the whole copy, synced and verified. A crash may
/// also leave one temporary file. The next copy to that name, or the next
/// [`adopt`](crate::Backups::adopt) there, removes it. If two calls copy to one name at the same
/// time, one of them fails.
///
/// # Errors
///
/// - [`Error::Invalid`] if no store may have the name; [`Error::Exists`] if a file is in the way;
///   [`Error::Busy`] if another call holds the lock. In these cases nothing was written.
/// - [`Error::NoSpace`] if the copy does not fit. It is returned before anything is written if the
///   file system reports its free space.
/// - [`Error::Changed`] if the copy does not have the expected version: the source was changed in
///   place, or its bytes contradict [`CopyOptions::about`].
/// - [`Error::Stopped`] if `watch` returned `Break`.
///
/// After any error no file is at `name`, with one exception: if the last sync of the directory
/// fails, either no file or the whole copy is there.
pub fn copy_to(
    from: &Vfs,
    source: Source<'_>,
    to: &Vfs,
    name: &str,
    inspect: &dyn Inspect,
    options: &CopyOptions,
    watch: &mut Watch<'_>,
) -> Result<Copied> {
    check_destination(to, name)?;
    let names = names_of(to, name)?;
    // The caller knows the copy by its name, so the error names that and not the temporary.
    let by_name = |error| match error {
        Error::Stopped { .. } => Error::Stopped { path: to.dir.path(name) },
        other => other,
    };
    let lock = CopyLock::take(to, &names)?;
    // Order: checked again under the lock, because another copy may have finished before the lock
    // was taken.
    check_destination(to, name)?;
    let about = match &options.about {
        Some(about) => Some(about.clone()),
        None => source_facts(&*from.dir, &source, inspect, watch).map_err(by_name)?,
    };
    let temporary = names.backup_temporary(BackupTemporary::Copying);
    if to.dir.metadata(&temporary).named("look at", &*to.dir, &temporary)?.is_some() {
        // Left by a crash.
        to.dir.remove(&temporary).named("remove", &*to.dir, &temporary)?;
    }
    let job = Job {
        from: &*from.dir,
        to: &*to.dir,
        to_name: &temporary,
        mode: options.mode,
        inspect,
        about: about.as_ref(),
        pace: Some(from),
    };
    // Order: the job syncs and verifies the temporary before the rename, so that a file at `name`
    // is always complete.
    let made = job.run(source, watch).and_then(|copied| {
        to.dir.rename(&temporary, name).named("rename a finished copy to", &*to.dir, name)?;
        Ok(copied)
    });
    let copied = made.inspect_err(|_| discard(&*to.dir, &temporary)).map_err(by_name)?;
    // Order: dropping the lock may remove its file, so it comes before the sync, which makes both
    // the removal and the new name durable.
    drop(lock);
    to.dir.sync().named("sync the folder of", &*to.dir, name)?;
    Ok(copied)
}

/// Returns the facts of the source, or `None` if the caller produces the bytes.
pub(crate) fn source_facts(
    from: &dyn Dir,
    source: &Source<'_>,
    inspect: &dyn Inspect,
    watch: &mut Watch<'_>,
) -> Result<Option<Facts>> {
    let Source::File { name, file } = source else { return Ok(None) };
    let len = file.len().named("look at", from, name)?;
    let mut meter = Meter::new(watch, Phase::Preparing, len);
    let facts = inspect.facts(file, &mut |done| meter.reach(done));
    let facts = facts.map_err(|error| Error::from_inspect(from.path(name), error))?;
    meter.end(&from.path(name))?;
    Ok(Some(facts))
}

/// Removes an unfinished copy. Errors are ignored: the next rotation, copy or open removes the
/// file.
pub(crate) fn discard(dir: &dyn Dir, name: &str) {
    let _ = dir.remove(name);
}

/// Returns whether the file `name` is a regular file, or [`Error::Missing`] if it does not exist.
pub(crate) fn is_file(dir: &dyn Dir, name: &str) -> Result<bool> {
    match dir.metadata(name).named("look at", dir, name)? {
        Some(found) => Ok(found.kind == Kind::File),
        None => Err(Error::Missing { path: dir.path(name) }),
    }
}

/// Returns the error for a file that is not a regular file.
pub(crate) fn not_a_file(dir: &dyn Dir, name: &str, of: &str) -> Error {
    let what = match dir.metadata(name) {
        Ok(Some(found)) => kind_in_words(found.kind),
        _ => "something else",
    };
    Error::Foreign { path: dir.path(name), of: dir.path(of), what: what.to_owned() }
}

pub(crate) fn kind_in_words(kind: Kind) -> &'static str {
    match kind {
        Kind::File => "a file",
        Kind::Dir => "a directory",
        Kind::Symlink => "a symbolic link",
        Kind::Other => "a device, socket or pipe",
    }
}

impl<'a> Source<'a> {
    /// Opens the file `name` in `from`. The file must be one that is only replaced, never changed
    /// in place, because its blocks may be shared.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`]; [`Error::Foreign`] if it is not a regular file; [`Error::Io`].
    pub fn open(from: &Vfs, name: &'a str) -> Result<Self> {
        let dir = &*from.dir;
        if !is_file(dir, name)? {
            return Err(not_a_file(dir, name, name));
        }
        let file = dir.open(name, Open::Read).named("open", dir, name)?;
        Ok(Self::File { name, file })
    }

    /// Returns the path of the source, or `None` if it has no name.
    pub(crate) fn path(&self, dir: &dyn Dir) -> Option<PathBuf> {
        match self {
            Self::File { name, .. } => Some(dir.path(name)),
            Self::Write { .. } => None,
        }
    }
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, .. } => f.debug_struct("File").field("name", name).finish(),
            Self::Write { size, .. } => f.debug_struct("Write").field("size", size).finish(),
        }
    }
}

/// The lock against other copies to the same name. Dropping it also removes the lock file, unless
/// the file holds receipts, so that a copy leaves no other file.
struct CopyLock<'a> {
    dir: &'a dyn Dir,
    name: String,
    is_empty: bool,
    _guard: Box<dyn LockGuard>,
}

impl<'a> CopyLock<'a> {
    /// Takes the lock. Returns [`Error::Busy`] without waiting if another call holds it.
    fn take(to: &'a Vfs, names: &Names) -> Result<Self> {
        let (dir, name) = (&*to.dir, names.backup_lock());
        let found = dir.metadata(&name).named("look at", dir, &name)?;
        let is_empty = found.is_none_or(|found| found.len == 0);
        let guard = dir.try_lock(&name, LockKind::Exclusive).named("lock", dir, &name)?;
        let busy = || Error::Busy { path: dir.path(&name), waited: Duration::ZERO };
        let guard = guard.ok_or_else(busy)?;
        Ok(Self { dir, name, is_empty, _guard: guard })
    }
}

impl Drop for CopyLock<'_> {
    fn drop(&mut self) {
        if self.is_empty {
            // Order: the file is removed while the lock is held. A process that locks the removed
            // file afterwards notices that its name is gone, and creates a new one.
            discard(self.dir, &self.name);
        }
    }
}

/// Checks that a copy to `name` would replace nothing. Refuses a file at `name`, and a file next to
/// it that a store of that name would use as its own, such as an old log segment.
///
/// # Errors
///
/// [`Error::Exists`] with the path of the file that is in the way; [`Error::Invalid`] if `name` is
/// a directory or a name that no store may have.
pub fn check_destination(to: &Vfs, name: &str) -> Result<()> {
    let names = names_of(to, name)?;
    let dir = &*to.dir;
    match dir.metadata(name).named("look at", dir, name)?.map(|found| found.kind) {
        None => {}
        Some(Kind::Dir) => {
            let value = dir.path(name).display().to_string();
            return Err(Error::Invalid { value, why: "this is a folder; name a file in it" });
        }
        Some(_) => return Err(Error::Exists { path: dir.path(name) }),
    }
    let is_taken_for_ours = |candidate: &String| match names.role(candidate) {
        Some(Role::Segment(_) | Role::Backup(_) | Role::RestoreRecord) => true,
        Some(Role::BackupTemporary(what)) => what != BackupTemporary::Copying,
        _ => false,
    };
    match dir.list().named("list the folder of", dir, name)?.into_iter().find(is_taken_for_ours) {
        Some(companion) => Err(Error::Exists { path: dir.path(&companion) }),
        None => Ok(()),
    }
}

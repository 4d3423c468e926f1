//! Makes one whole, synced, verified copy of a file: by sharing its blocks, or byte by byte.

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
use crate::inspect::{Facts, Inspect, Prefix};
use crate::job::Job;
use crate::meter::Meter;

/// Where the bytes of a copy come from.
pub enum Source<'a> {
    /// A file that is only ever replaced, never changed in place: its blocks may be shared.
    Frozen {
        /// Its name.
        name: &'a str,
    },
    /// A file that grows at its end: its first bytes are copied, never shared. Also right for a
    /// plain file that may be changed in place, with the length it has now.
    Growing {
        /// Its name.
        name: &'a str,
        /// How many bytes.
        upto: u64,
    },
    /// The first bytes of a file that is open: the same file, whatever takes its name meanwhile.
    /// They are copied, never shared.
    Opened {
        /// Its name, for messages.
        name: &'a str,
        /// The file.
        file: &'a Arc<dyn File>,
        /// How many bytes.
        upto: u64,
    },
    /// The caller produces the bytes. This crate writes and syncs them.
    Write {
        /// About how many bytes that will be, for the check of free space and for [`Progress`].
        size: u64,
        /// Produces them.
        write: &'a mut Writer<'a>,
    },
}

/// Code of the caller that produces a whole file, piece by piece. It hands each piece on and passes
/// on the errors of that, which end the copy whatever it returns itself.
pub type Writer<'a> = dyn FnMut(&mut WriteAt<'_>) -> Result<(), Cause> + 'a;

/// Writes bytes at an offset.
pub type WriteAt<'a> = dyn FnMut(&[u8], u64) -> io::Result<()> + 'a;

/// Hears how far a copy has come; `Break`, at whatever report, stops it with [`Error::Stopped`],
/// and what there is of it is removed.
pub type Watch<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// How far a copy has come: the phases follow each other, in each `done` rises to `total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is going on. A phase that has nothing to do, or is done at once, may be left out.
    pub phase: Phase,
    /// What is done of it: bytes, but for what [`Phase::Preparing`] says.
    pub done: u64,
    /// What there is to do. Where that was estimated too low, it rises with `done`.
    pub total: u64,
}

/// What a copy is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Phase {
    /// What it needs is looked at or brought about: files that tell their version only when they
    /// are read are read; an open store writes its image first, counted in entries, twice: written
    /// and read back. While older backups are read, 0 of 0 is reported, as a sign of life.
    Preparing,
    /// Bytes are copied. Sharing blocks reports only its end.
    Copying,
    /// The copy is read back and checked.
    Verifying,
}

/// A [`Watch`] that looks away.
pub fn unwatched(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// How a copy was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// It shares the blocks of its source, which neither can change for the other.
    Reflink,
    /// Byte by byte.
    Copy,
    /// Its caller wrote it.
    Written,
}

/// What a copy is to be.
#[derive(Debug, Clone)]
pub struct CopyOptions {
    /// The permissions of the copy.
    pub mode: Mode,
    /// The version the copy must have. `None` takes the source's word; needed to hold a
    /// [`Source::Write`] to a version.
    pub about: Option<Facts>,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self { mode: Mode::Frozen, about: None }
    }
}

/// A copy that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// What the copy says of itself.
    pub facts: Facts,
    /// How it was made.
    pub method: Method,
}

/// Copies `source`, a file in `from`, to `name` in `to`, where nothing may stand: atomically. A
/// crash leaves nothing there or the whole copy, synced and verified, and at most a temporary that
/// the next copy to that name, or the next [`adopt`](crate::Backups::adopt) there, removes. Of two
/// copies to one name at the same time one fails.
///
/// # Errors
///
/// [`Error::Invalid`] for a name that no store may have, [`Error::Exists`] and [`Error::Busy`]
/// before anything is written, [`Error::NoSpace`] before it where the file system tells; after any
/// error nothing is at `name`, except when the directory itself could not be synced last: then
/// nothing is there, or the whole copy.
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
    // Whatever was at hand when it was stopped: the caller knows the copy by its name.
    let by_name = |error| match error {
        Error::Stopped { .. } => Error::Stopped { path: to.dir.path(name) },
        other => other,
    };
    let lock = CopyLock::take(to, &names)?;
    // Order: again under the lock, since another copy may have ended meanwhile.
    check_destination(to, name)?;
    let about = match &options.about {
        Some(about) => Some(about.clone()),
        None => source_facts(&*from.dir, &source, inspect, watch).map_err(by_name)?,
    };
    let temporary = names.backup_temporary(BackupTemporary::Copying);
    if to.dir.metadata(&temporary).named("look at", &*to.dir, &temporary)?.is_some() {
        // A crash left it.
        to.dir.remove(&temporary).named("remove", &*to.dir, &temporary)?;
    }
    let job = Job {
        from: &*from.dir,
        to: &*to.dir,
        to_name: &temporary,
        same_dir: Arc::ptr_eq(&from.dir, &to.dir),
        mode: options.mode,
        inspect,
        about: about.as_ref(),
        pace: Some(&*to.clock),
    };
    let made = job.run(source, watch).and_then(|copied| {
        to.dir.rename(&temporary, name).named("rename a finished copy to", &*to.dir, name)?;
        Ok(copied)
    });
    let copied = made.inspect_err(|_| discard(&*to.dir, &temporary)).map_err(by_name)?;
    drop(lock);
    to.dir.sync().named("sync the folder of", &*to.dir, name)?;
    Ok(copied)
}

/// What the source says of itself; `None` where only its caller knows.
pub(crate) fn source_facts(
    from: &dyn Dir,
    source: &Source<'_>,
    inspect: &dyn Inspect,
    watch: &mut Watch<'_>,
) -> Result<Option<Facts>> {
    let open = |name| {
        if !is_file(from, name)? {
            return Err(not_a_file(from, name, name));
        }
        from.open(name, Open::Read).named("open", from, name)
    };
    let (name, file): (&str, Arc<dyn File>) = match *source {
        Source::Frozen { name } => (name, open(name)?),
        Source::Growing { name, upto } => (name, Arc::new(Prefix::new(open(name)?, upto))),
        Source::Opened { name, file, upto } => {
            (name, Arc::new(Prefix::new(Arc::clone(file), upto)))
        }
        Source::Write { .. } => return Ok(None),
    };
    let len = file.len().named("look at", from, name)?;
    let mut meter = Meter::new(watch, Phase::Preparing, len);
    let facts = inspect.facts(&file, &mut |done| meter.reach(done));
    let facts = facts.map_err(|error| Error::from_inspect(from.path(name), error))?;
    meter.end(&from.path(name))?;
    Ok(Some(facts))
}

/// Removes a copy that came to nothing. Best effort: what stays is removed by the next rotation,
/// copy or open.
pub(crate) fn discard(dir: &dyn Dir, name: &str) {
    let _ = dir.remove(name);
}

/// Whether a regular file has this name; `Missing` where nothing has.
pub(crate) fn is_file(dir: &dyn Dir, name: &str) -> Result<bool> {
    match dir.metadata(name).named("look at", dir, name)? {
        Some(found) => Ok(found.kind == Kind::File),
        None => Err(Error::Missing { path: dir.path(name) }),
    }
}

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

impl Source<'_> {
    pub(crate) fn path(&self, dir: &dyn Dir) -> Option<PathBuf> {
        match self {
            Self::Frozen { name } | Self::Growing { name, .. } | Self::Opened { name, .. } => {
                Some(dir.path(name))
            }
            Self::Write { .. } => None,
        }
    }
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frozen { name } => f.debug_struct("Frozen").field("name", name).finish(),
            Self::Growing { name, upto } => {
                f.debug_struct("Growing").field("name", name).field("upto", upto).finish()
            }
            Self::Opened { name, upto, .. } => {
                f.debug_struct("Opened").field("name", name).field("upto", upto).finish()
            }
            Self::Write { size, .. } => f.debug_struct("Write").field("size", size).finish(),
        }
    }
}

/// Keeps other copies to the same name away. The lock file goes with it unless it holds times of
/// verifications, so that a copy comes alone.
struct CopyLock<'a> {
    dir: &'a dyn Dir,
    name: String,
    is_empty: bool,
    _guard: Box<dyn LockGuard>,
}

impl<'a> CopyLock<'a> {
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
            // Order: while the lock is held. Who locks the file after that finds that it has lost
            // its name, and makes another.
            discard(self.dir, &self.name);
        }
    }
}

/// Refuses a destination of a copy where something stands already: a file, or a file beside it that
/// a store of that name would take for its own, such as an old log segment.
///
/// # Errors
///
/// [`Error::Exists`] with the path of what is there; [`Error::Invalid`] for a folder and for a name
/// that no store may have.
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

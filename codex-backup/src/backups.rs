//! The handle on the backups of one file: its settings, its lock, its directory.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use codex_storage::Error as StorageError;
use codex_storage::names::Names;
use codex_storage::vfs::{Dir, Kind, LockGuard, LockKind, Mode, Vfs};

use crate::copy::{Watch, unwatched};
use crate::error::{Error, Named, Result};
use crate::inspect::{Depth, Facts, Inspect};
use crate::job::Job;
use crate::meter::sign_of_life;
use crate::receipts::{Receipts, Verified};
use crate::slots::{self, Slot};

/// The backups of one file: `NAME.bak.1` (the newest) to `NAME.bak.<keep>`, in its directory.
///
/// A handle holds no file open and no lock; any number of them, in any number of processes, may
/// stand for the same file. Whatever changes names takes the lock `NAME.bak.lock` meanwhile.
/// Nothing here opens the file as a store, and nothing needs it to be closed except a restore.
#[derive(Clone)]
pub struct Backups {
    pub(crate) vfs: Vfs,
    pub(crate) names: Names,
    pub(crate) inspect: Arc<dyn Inspect>,
    pub(crate) options: Options,
}

/// How [`Backups`] are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How many to keep, 1 to 9,999.
    pub keep: u32,
    /// How long to wait for another rotation, prune or restore of the same file.
    pub lock_timeout: Duration,
    /// Whether a restore replaces a file that is not a version of the one that was backed up, and
    /// a list shows backups of any file.
    pub replace_unrelated: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { keep: 3, lock_timeout: Duration::from_secs(10), replace_unrelated: false }
    }
}

impl Backups {
    /// The backups of the file `name` in the directory of `vfs`. Touches nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a name that no store may have (see [`Names::new`]) or that is a
    /// backup itself, or a number of backups to keep outside 1 to 9,999.
    pub fn new(vfs: Vfs, name: &str, inspect: Arc<dyn Inspect>, options: Options) -> Result<Self> {
        let names = names_of(&vfs, name)?;
        if !(1..=9_999).contains(&options.keep) {
            let why = "backups cannot be kept; keep 1 to 9,999, or make none";
            return Err(Error::Invalid { value: options.keep.to_string(), why });
        }
        Ok(Self { vfs, names, inspect, options })
    }

    /// The same backups, read by another inspector: one with the key that the file has now.
    #[must_use]
    pub fn with_inspect(&self, inspect: Arc<dyn Inspect>) -> Self {
        Self { inspect, ..self.clone() }
    }

    /// The name of the file whose backups these are.
    pub fn name(&self) -> &str {
        self.names.main()
    }

    /// Notes that the backup `name` was verified. Called under the lock.
    pub(crate) fn note(&self, name: &str, facts: &Facts, verified: Verified) {
        let Ok(slots) = self.scan() else { return };
        let Some(slot) = slots.iter().find(|slot| slot.name == name) else { return };
        let mut receipts = Receipts::load(self.dir(), &self.names);
        receipts.add(&slot.found, facts, verified);
        let still: Vec<_> = slots.iter().map(|slot| slot.found).collect();
        receipts.save(self.dir(), &self.names, &still);
    }

    /// Notes that the backup `name` was verified just now.
    pub(crate) fn note_now(&self, name: &str, facts: &Facts, depth: Depth) {
        let at_us = self.vfs.clock.now_us();
        self.note(name, facts, Verified { at_us, depth });
    }

    pub(crate) fn job<'a>(
        &'a self,
        to_name: &'a str,
        mode: Mode,
        about: Option<&'a Facts>,
    ) -> Job<'a> {
        Job {
            from: self.dir(),
            to: self.dir(),
            to_name,
            same_dir: true,
            mode,
            inspect: &*self.inspect,
            about,
            pace: Some(&*self.vfs.clock),
        }
    }

    /// Whose backups these are, as far as the file tells or a pending restore of it; `None` where
    /// that plays no part.
    pub(crate) fn owner(&self) -> Result<Option<Vec<u8>>> {
        if self.options.replace_unrelated {
            return Ok(None);
        }
        match self.intent() {
            Ok(Some(intent)) => Ok(Some(intent.facts.id)),
            _ => slots::owner_of(self.dir(), self.name(), &*self.inspect),
        }
    }

    pub(crate) fn scan(&self) -> Result<Vec<Slot>> {
        slots::scan(self.dir(), &self.names, &*self.inspect)
    }

    /// Gives the file `to` the owner and the permissions of the live file, if there is one, and the
    /// right to write that `mode` says.
    pub(crate) fn inherit(&self, to: &str, mode: Mode) -> Result<()> {
        let (dir, main) = (self.dir(), self.name());
        match dir.metadata(main).named("look at", dir, main)? {
            Some(found) if found.kind == Kind::File => {
                dir.inherit(main, to, Some(mode)).named("give its owner to", dir, to)
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.dir().rename(from, to).named("rename", self.dir(), from)
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.dir().sync().named("sync the folder of", self.dir(), self.name())
    }

    pub(crate) fn dir(&self) -> &dyn Dir {
        &*self.vfs.dir
    }

    /// Takes the rotation lock, waiting as long as the options say.
    pub(crate) fn lock(&self) -> Result<Box<dyn LockGuard>> {
        self.lock_watched(&mut unwatched)
    }

    /// As [`lock`](Self::lock), while `watch` may end the wait.
    pub(crate) fn lock_watched(&self, watch: &mut Watch<'_>) -> Result<Box<dyn LockGuard>> {
        let start = self.vfs.clock.monotonic();
        loop {
            if let Some(lock) = self.try_lock()? {
                return Ok(lock);
            }
            if sign_of_life(watch).is_break() {
                return Err(Error::Stopped { path: self.dir().path(self.name()) });
            }
            let waited = self.vfs.clock.monotonic().saturating_sub(start);
            if waited >= self.options.lock_timeout {
                let path = self.dir().path(&self.names.backup_lock());
                return Err(Error::Busy { path, waited });
            }
            self.vfs.clock.sleep(LOCK_POLL.min(self.options.lock_timeout));
        }
    }

    pub(crate) fn try_lock(&self) -> Result<Option<Box<dyn LockGuard>>> {
        let name = self.names.backup_lock();
        self.dir().try_lock(&name, LockKind::Exclusive).named("lock", self.dir(), &name)
    }
}

impl fmt::Debug for Backups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backups")
            .field("path", &self.dir().path(self.name()))
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// The names around the file `name`.
pub(crate) fn names_of(vfs: &Vfs, name: &str) -> Result<Names> {
    let invalid = |why| Error::Invalid { value: vfs.dir.path(name).display().to_string(), why };
    match Names::new(name, &vfs.dir.path(name)) {
        Ok(names) if names.is_backup() => Err(invalid("a backup has no backups; name its store")),
        Ok(names) => Ok(names),
        Err(StorageError::BadPath { why, .. }) => Err(invalid(why)),
        Err(_) => Err(invalid("no store may have this name")),
    }
}

/// How often a held lock is tried again.
const LOCK_POLL: Duration = Duration::from_millis(10);

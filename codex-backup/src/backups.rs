//! The handle to the backups of one file: its settings, its lock and its directory.

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

/// The backups of one file: `NAME.bak.1` (the newest) to `NAME.bak.<keep>`, in the directory of the
/// file.
///
/// A handle holds no open file and no lock. Any number of handles, in any number of processes, may
/// refer to the same file. Each call that changes names holds the lock `NAME.bak.lock`. No method
/// opens the file as a store, and only a restore needs the file to be closed.
#[derive(Clone)]
pub struct Backups {
    pub(crate) vfs: Vfs,
    pub(crate) names: Names,
    pub(crate) inspect: Arc<dyn Inspect>,
    pub(crate) options: Options,
}

/// Settings of [`Backups`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Number of backups to keep, 1 to 9,999.
    pub keep: u32,
    /// The maximum wait for another rotation, prune or restore of the same file.
    pub lock_timeout: Duration,
    /// If set, a restore also replaces a file that is not a version of the file that was backed up,
    /// and a list also shows the backups of other files.
    pub replace_unrelated: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { keep: 3, lock_timeout: Duration::from_secs(10), replace_unrelated: false }
    }
}

impl Backups {
    /// Creates a handle to the backups of the file `name` in the directory of `vfs`. Accesses no
    /// file.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if no store may have the name (see [`Names::new`]), if the name is that
    /// of a backup, or if the number of backups to keep is not between 1 and 9,999.
    pub fn new(vfs: Vfs, name: &str, inspect: Arc<dyn Inspect>, options: Options) -> Result<Self> {
        let names = names_of(&vfs, name)?;
        if !(1..=9_999).contains(&options.keep) {
            let why = "backups cannot be kept; keep 1 to 9,999, or make none";
            return Err(Error::Invalid { value: options.keep.to_string(), why });
        }
        Ok(Self { vfs, names, inspect, options })
    }

    /// Returns a handle to the same backups with another inspector, such as one with the current
    /// key of the file.
    #[must_use]
    pub fn with_inspect(&self, inspect: Arc<dyn Inspect>) -> Self {
        Self { inspect, ..self.clone() }
    }

    /// Returns the name of the file.
    pub fn name(&self) -> &str {
        self.names.main()
    }

    /// Stores the time when the backup `name` was verified. The caller holds the lock.
    pub(crate) fn note(&self, name: &str, facts: &Facts, verified: Verified) {
        let Ok(slots) = self.scan() else { return };
        let Some(slot) = slots.iter().find(|slot| slot.name == name) else { return };
        // Order: the stored receipts are loaded under the lock before one is added, so that no
        // other receipt is lost.
        let mut receipts = Receipts::load(self.dir(), &self.names);
        receipts.add(&slot.found, facts, verified);
        // Receipts of files that no longer exist are dropped.
        let still: Vec<_> = slots.iter().map(|slot| slot.found).collect();
        receipts.save(self.dir(), &self.names, &still);
    }

    /// Stores the current time as the time when the backup `name` was verified.
    pub(crate) fn note_now(&self, name: &str, facts: &Facts, depth: Depth) {
        let at_us = self.vfs.clock.now_us();
        self.note(name, facts, Verified { at_us, depth });
    }

    /// Returns the job of a copy to `to_name` in the same directory. The commits of an open store
    /// pace it.
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
            mode,
            inspect: &*self.inspect,
            about,
            pace: Some(&self.vfs),
        }
    }

    /// Returns the identity of the file, from the file or from a pending restore of it. Returns
    /// `None` if the identity is unknown or does not matter.
    pub(crate) fn owner(&self) -> Result<Option<Vec<u8>>> {
        if self.options.replace_unrelated {
            return Ok(None);
        }
        // During a restore the file may be missing or old, so the record identifies it.
        match self.intent() {
            Ok(Some(intent)) => Ok(Some(intent.facts.id)),
            _ => slots::owner_of(self.dir(), self.name(), &*self.inspect),
        }
    }

    /// Returns the backups by name, newest first.
    pub(crate) fn scan(&self) -> Result<Vec<Slot>> {
        slots::scan(self.dir(), &self.names, &*self.inspect)
    }

    /// Gives the file `to` the owner and the permissions of the live file, if there is one, with
    /// the write permission of `mode`.
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

    /// Takes the rotation lock. Waits up to [`Options::lock_timeout`].
    pub(crate) fn lock(&self) -> Result<Box<dyn LockGuard>> {
        self.lock_watched(&mut unwatched)
    }

    /// Like [`lock`](Self::lock). `watch` can end the wait with [`Error::Stopped`].
    pub(crate) fn lock_watched(&self, watch: &mut Watch<'_>) -> Result<Box<dyn LockGuard>> {
        let mut attempt = || {
            let lock = self.try_lock()?;
            if lock.is_none() && sign_of_life(watch).is_break() {
                return Err(Error::Stopped { path: self.dir().path(self.name()) });
            }
            Ok(lock)
        };
        let (lock, waited) = self.vfs.clock.wait_for(self.options.lock_timeout, &mut attempt)?;
        let path = || self.dir().path(&self.names.backup_lock());
        lock.ok_or_else(|| Error::Busy { path: path(), waited })
    }

    /// Takes the rotation lock, or returns `None` if another handle holds it.
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

/// Returns the names of the files that belong to the file `name`.
pub(crate) fn names_of(vfs: &Vfs, name: &str) -> Result<Names> {
    let invalid = |why| Error::Invalid { value: vfs.dir.path(name).display().to_string(), why };
    match Names::new(name, &vfs.dir.path(name)) {
        Ok(names) if names.is_backup() => Err(invalid("a backup has no backups; name its store")),
        Ok(names) => Ok(names),
        Err(StorageError::BadPath { why, .. }) => Err(invalid(why)),
        Err(_) => Err(invalid("no store may have this name")),
    }
}

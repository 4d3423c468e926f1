//! The handle on the backups of one file: its settings, its lock, its directory.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use codex_storage::vfs::{Dir, LockGuard, LockKind, Mode, Vfs};

use crate::error::{Error, Named, Result};
use crate::inspect::{Depth, Facts, Inspect};
use crate::job::Job;
use crate::names;
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
    pub(crate) name: String,
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
}

impl Default for Options {
    fn default() -> Self {
        Self { keep: 3, lock_timeout: Duration::from_secs(10) }
    }
}

impl Backups {
    /// The backups of the file `name` in the directory of `vfs`. Touches nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a name with a separator in it, or a number of backups to keep
    /// outside 1 to 9,999.
    pub fn new(
        vfs: Vfs,
        name: impl Into<String>,
        inspect: Arc<dyn Inspect>,
        options: Options,
    ) -> Result<Self> {
        let name = name.into();
        names::check(&name)?;
        if !(1..=9_999).contains(&options.keep) {
            let why = "backups cannot be kept; keep 1 to 9,999, or make none";
            return Err(Error::Invalid { value: options.keep.to_string(), why });
        }
        Ok(Self { vfs, name, inspect, options })
    }

    /// The name of the file whose backups these are.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Notes that the backup `name` was verified. Called under the lock.
    pub(crate) fn note(&self, name: &str, facts: &Facts, verified: Verified) {
        let Ok(slots) = self.scan() else { return };
        let Some(slot) = slots.iter().find(|slot| slot.name == name) else { return };
        let mut receipts = Receipts::load(self.dir(), &self.name);
        receipts.add(&slot.found, facts, verified);
        let still: Vec<_> = slots.iter().map(|slot| slot.found).collect();
        receipts.save(self.dir(), &self.name, &still);
    }

    /// Notes that the checksums of the backup `name` were verified just now.
    pub(crate) fn note_now(&self, name: &str, facts: &Facts) {
        let at_us = self.vfs.clock.now_us();
        self.note(name, facts, Verified { at_us, depth: Depth::Checksums });
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

    pub(crate) fn scan(&self) -> Result<Vec<Slot>> {
        slots::scan(self.dir(), &self.name, &*self.inspect)
    }

    pub(crate) fn own(&self, slots: &[Slot], id: &[u8]) -> Result<()> {
        slots::own(self.dir(), &self.name, slots, id, self.options.keep)
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.dir().rename(from, to).named("rename", self.dir(), from)
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.dir().sync().named("sync the folder of", self.dir(), &self.name)
    }

    pub(crate) fn dir(&self) -> &dyn Dir {
        &*self.vfs.dir
    }

    /// Takes the rotation lock, waiting as long as the options say.
    pub(crate) fn lock(&self) -> Result<Box<dyn LockGuard>> {
        let start = self.vfs.clock.monotonic();
        loop {
            if let Some(lock) = self.try_lock()? {
                return Ok(lock);
            }
            let waited = self.vfs.clock.monotonic().saturating_sub(start);
            if waited >= self.options.lock_timeout {
                let path = self.dir().path(&names::lock_name(&self.name));
                return Err(Error::Busy { path, waited });
            }
            self.vfs.clock.sleep(LOCK_POLL.min(self.options.lock_timeout));
        }
    }

    pub(crate) fn try_lock(&self) -> Result<Option<Box<dyn LockGuard>>> {
        let name = names::lock_name(&self.name);
        self.dir().try_lock(&name, LockKind::Exclusive).named("lock", self.dir(), &name)
    }
}

impl fmt::Debug for Backups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backups")
            .field("path", &self.dir().path(&self.name))
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// How often a held lock is tried again.
const LOCK_POLL: Duration = Duration::from_millis(10);

//! Where backups join the store: rotation beside running writers, hot copies, and the tools for a
//! store that is closed.

mod elsewhere;
mod join;
mod keeper;
mod moment;
mod tools;
mod watch;

use std::cell::Cell;
use std::fmt;
use std::ops::ControlFlow;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;

use codex_backup::{
    CopyOptions, Phase, Progress, Rotated, Watch, check_destination, copy_to, unwatched,
};
use codex_storage::Error as StorageError;
use codex_storage::batch::Seq;
use codex_storage::names::Names;
use codex_storage::seal::Seal;
use codex_storage::storage::Form;
use codex_storage::sync::thread;
use codex_storage::vfs::{Mode, Vfs};
use crossbeam::channel::unbounded;

pub(crate) use join::StoreFile;
pub(crate) use keeper::Keeper;
pub use moment::Moment;
pub use tools::Backups;

use self::join::{Grown, Take};
use crate::engine::{Engine, Going};
use crate::error::{Error, Result};
use crate::handle::Files;
use crate::open;
use crate::store::Store;

/// How an open store keeps its backups.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct BackupOptions {
    pub(crate) policy: Option<codex_backup::Policy>,
    /// Refuse writes while the last backup failed.
    pub(crate) required: bool,
    pub(crate) on_event: Option<Callback>,
}

impl BackupOptions {
    /// Refuses what contradicts itself, or `form` where that is known.
    pub(crate) fn check(&self, form: Option<Form>) -> Result<(), StorageError> {
        let Some(policy) = self.policy else { return Ok(()) };
        if !(1..=KEEP_MAX).contains(&policy.keep) {
            return Err(StorageError::Contradiction(
                "a backup policy keeps 1 to 9,999 backups: to make none, set no policy",
            ));
        }
        if policy.on_checkpoint && form.is_some_and(|form| form != Form::Wal) {
            return Err(StorageError::Contradiction(
                "only the Wal form checkpoints: for a backup, let commits or time make it due",
            ));
        }
        Ok(())
    }
}

/// What became of a backup that was due; see
/// [`OpenOptions::on_backup`](crate::OpenOptions::on_backup).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum BackupEvent {
    /// The newest backup is of this commit.
    Made {
        /// The commit.
        seq: Seq,
    },
    /// No backup was made; every older one is as good as before. It is tried again.
    Failed {
        /// Why.
        error: Error,
    },
}

/// Figures of the backups of an open store, part of [`Stats`](crate::Stats).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupStats {
    /// Backups made since opening.
    pub made: u64,
    /// Attempts that failed since opening.
    pub failed: u64,
    /// The commit of the newest backup made or found unchanged since opening.
    pub last_seq: Option<Seq>,
    /// Why the last attempt failed; `None` when it did not.
    pub last_error: Option<String>,
}

codex_storage::sync::thread_local! {
    /// Whether this thread is in a user's function that hears of backups.
    #[allow(clippy::missing_const_for_thread_local, reason = "loom's macro takes no const")]
    static CALLING: Cell<bool> = Cell::new(false);
}

/// A user's function that hears of backups.
#[derive(Clone)]
pub(crate) struct Callback(Arc<dyn Fn(&BackupEvent) + Send + Sync>);

impl Callback {
    pub(crate) fn new(f: impl Fn(&BackupEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(f))
    }

    /// Calls the function. It does not hear of what it causes itself, nor take down who calls it.
    fn call(&self, event: &BackupEvent) {
        if CALLING.with(|calling| calling.replace(true)) {
            return;
        }
        // The panic has been printed.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| (self.0)(event)));
        CALLING.with(|calling| calling.set(false));
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callback")
    }
}

impl PartialEq for Callback {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Store {
    /// Makes a backup now, beside running readers and writers: complete, synced and verified before
    /// it becomes `.bak.1` and the older ones move up. Nothing rotates when the newest backup is
    /// of the last commit already, and under the key that the store has now: it is read whole to
    /// be sure. Of an encrypted store, files that are not authentic under its root key count as no
    /// backups: they push no other out, and those of before a rekey go as new ones are made.
    ///
    /// # Errors
    /// Of the disk and of the files at the backups' names; every older backup is as good as before.
    /// A store in memory has no files: a contradiction.
    pub fn back_up(&self) -> Result<Rotated> {
        self.inner.check_writable()?;
        let keeper = self.inner.keeper.as_ref().ok_or(NO_FILES)?;
        keeper.rotate(&self.inner.engine)
    }

    /// Copies the store to `path`, a file of its own, beside running readers and writers: the state
    /// after some commit at or behind this call, whole and verified before it has its name. Nothing
    /// may stand at `path`, nor beside it what a store of that name would take for its own, such as
    /// the log segments of an earlier one.
    ///
    /// Works for a [poisoned](Store::poisoned) store too, and for one whose folder was removed:
    /// all that is acknowledged is then written from memory, as an image with the same keys (a
    /// ledger becomes a store of the form Wal).
    ///
    /// # Errors
    /// [`BackupError::Exists`](codex_backup::Error::Exists) with what stands there, and
    /// [`BadPath`](codex_storage::Error::BadPath) for a name that no store may have, before
    /// anything is written; of the disk. The destination is as it was.
    pub fn backup_to(&self, path: impl AsRef<Path>) -> Result<Seq> {
        self.backup_to_watched(path, &mut unwatched)
    }

    /// As [`backup_to`](Self::backup_to); `watch` hears how far it has come and may stop it: then
    /// nothing stays of the copy. In the Wal form an image of the store is written first
    /// ([`Phase::Preparing`]); then the bytes are copied, then read back and checked. `watch` is
    /// called by this thread, while no lock is held, so it may use the store. Should another image
    /// replace the one that is copied, the copy begins anew, and so do the reports.
    ///
    /// # Errors
    /// As [`backup_to`](Self::backup_to);
    /// [`BackupError::Stopped`](codex_backup::Error::Stopped) where `watch` broke.
    pub fn backup_to_watched(
        &self,
        path: impl AsRef<Path>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Seq> {
        let (to, name) = open::locate(path.as_ref())?;
        self.backup_to_in(&to, &name, watch)
    }

    /// As [`backup_to_watched`](Self::backup_to_watched), into a directory that may be simulated.
    ///
    /// # Errors
    /// As [`backup_to`](Self::backup_to).
    pub fn backup_to_in(
        &self,
        to: &Vfs,
        name: &str,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Seq> {
        self.inner.check_writable()?;
        let path = to.dir.path(name);
        if Names::new(name, &path)?.is_backup() {
            let why = "names like this belong to rotating backups, which come and go; \
                       choose another for a copy that is to stay";
            return Err(StorageError::BadPath { path, why }.into());
        }
        // Before an image is written for it.
        check_destination(to, name)?;
        let home = self.inner.opened.files.as_ref().ok_or(NO_FILES)?;
        let form = self.form().ok_or(NO_FILES)?;
        // Images are only ever replaced; a ledger goes on growing where it is opened.
        let mode = if form == Form::Ledger { Mode::Private } else { Mode::Frozen };
        let mut rounds = 0;
        loop {
            let engine = &self.inner.engine;
            let settled = settle_watched(engine, home, form, &to.dir.path(name), watch);
            let Settled { grown, seal } = match settled {
                // Its files may be gone, and are not written any more: memory is whole.
                Err(_) if engine.poisoned().is_some() => {
                    return self.write_memory_to(to, name, watch);
                }
                settled => settled?,
            };
            let take = Take::after(rounds, grown.as_ref());
            let inspect = StoreFile::under(seal.clone());
            let copied = join::with_source(&home.vfs, &home.name, take, |source, about| {
                let options = CopyOptions { mode, about: about.cloned() };
                copy_to(&home.vfs, source, to, name, &inspect, &options, watch)
            })?;
            match copied {
                Err(error) if rounds < ROUNDS_MAX && is_outrun(&error, engine, seal.as_deref()) => {
                    rounds += 1;
                }
                copied => return Ok(copied?.facts.seq),
            }
        }
    }

    /// What opening put in place of a damaged store, where
    /// [`OpenOptions::fall_back_to_backup`](crate::OpenOptions::fall_back_to_backup) allowed it.
    pub fn restored(&self) -> Option<&codex_backup::Restored> {
        self.inner.opened.restored.as_ref()
    }
}

/// A main file that has the last commit.
struct Settled {
    /// The file, if it is a ledger, and is copied whatever takes its name; `None` for an image.
    grown: Option<Grown>,
    /// The root key that it was under then.
    seal: Option<Arc<dyn Seal>>,
}

/// Brings the main file `name` up to the last commit.
fn settle(
    engine: &Engine,
    vfs: &Vfs,
    name: &str,
    form: Form,
    going: &Going<'_>,
) -> Result<Settled> {
    if form != Form::Ledger {
        engine.settle(form, going)?;
        return Ok(Settled { grown: None, seal: engine.seal() });
    }
    let reached = || {
        engine.settle(form, going)?;
        let stats = engine.stats().storage;
        Ok((stats.log_bytes, stats.seq))
    };
    loop {
        let grown = join::settle_ledger(vfs, name, reached)?;
        let seal = engine.seal();
        // A rekey may have ended in between.
        if grown.is_under(seal.as_deref(), &vfs.dir.path(name))? {
            return Ok(Settled { grown: Some(grown), seal });
        }
    }
}

/// Whether a copy failed because another file took the store's name meanwhile, or because a rekey
/// that ended gave it another root key than `seal`.
fn is_outrun(error: &codex_backup::Error, engine: &Engine, seal: Option<&dyn Seal>) -> bool {
    let root = |seal: Option<&dyn Seal>| seal.map(Seal::root_id);
    matches!(error, codex_backup::Error::Changed { .. })
        || root(engine.seal().as_deref()) != root(seal)
}

/// As [`settle`], for a copy to `path`. Another thread writes the image, so that `watch` runs while
/// this one holds no lock: whatever it calls, it waits for nobody who waits for it.
fn settle_watched(
    engine: &Arc<Engine>,
    home: &Files,
    form: Form,
    path: &Path,
    watch: &mut Watch<'_>,
) -> Result<Settled> {
    let (report, reports) = unbounded();
    let working = Arc::clone(engine);
    let (vfs, name) = (home.vfs.clone(), home.name.clone());
    let work = move || {
        let going = |done, total| report.send((done, total)).is_ok();
        settle(&working, &vfs, &name, form, &going)
    };
    let worker = thread::spawn("codexdb-copy", work).map_err(|source| StorageError::Io {
        action: "start a thread for",
        path: path.to_owned(),
        source: Arc::new(source),
    })?;
    // Where `watch` breaks or panics, nobody listens any more, and the thread gives the image up.
    let mut told = None;
    let stopped = reports.into_iter().any(|(done, total)| {
        let is_news = told.replace(done) != Some(done);
        is_news && watch(Progress { phase: Phase::Preparing, done, total }).is_break()
    });
    let settled = worker.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
    if stopped {
        return Err(codex_backup::Error::Stopped { path: path.to_owned() }.into());
    }
    settled
}

const NO_FILES: Error =
    Error::Storage(StorageError::Contradiction("a store in memory has no files to back up"));
/// The most backups that a policy may keep.
const KEEP_MAX: u32 = 9_999;
/// How often a copy begins anew because the image was replaced meanwhile.
const ROUNDS_MAX: u32 = 10;

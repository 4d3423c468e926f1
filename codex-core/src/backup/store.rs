//! The backups and hot copies that an open store makes on request.

use std::ops::ControlFlow;
use std::panic;
use std::path::Path;
use std::sync::Arc;

use codex_backup::{
    CopyOptions, Phase, Progress, Restored, Rotated, Watch, check_destination, copy_to, unwatched,
};
use codex_storage::batch::Seq;
use codex_storage::names::Names;
use codex_storage::seal::Seal;
use codex_storage::storage::Form;
use codex_storage::sync::channel::unbounded;
use codex_storage::sync::thread;
use codex_storage::vfs::{Mode, Vfs};
use codex_storage::{Error as StorageError, MainFile};

use super::join::{self, StoreFile};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::locate::locate;
use crate::store::Store;

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
        let backups = self.inner.backups.as_ref().ok_or(NO_FILES)?;
        backups.rotate(&self.inner.engine)
    }

    /// Copies the store to `path`, a file of its own, beside running readers and writers: the state
    /// after some commit at or after this call, whole and verified before it has its name. Nothing
    /// may be at `path`, nor any file beside it that a store of that name would take for its own,
    /// such as the log segments of an earlier one.
    ///
    /// Works for a [poisoned](Store::poisoned) store too, and for one whose folder was removed:
    /// all that is acknowledged is then written from memory, as an image with the same keys (a
    /// ledger becomes a store of the form Wal).
    ///
    /// # Errors
    /// [`BackupError::Exists`](codex_backup::Error::Exists) if there is a file already, and
    /// [`BadPath`](codex_storage::Error::BadPath) for a name that no store may have, before
    /// anything is written; of the disk. The destination is as it was.
    pub fn backup_to(&self, path: impl AsRef<Path>) -> Result<Seq> {
        self.backup_to_watched(path, &mut unwatched)
    }

    /// As [`backup_to`](Self::backup_to); `watch` is called with the progress and may stop it: then
    /// nothing stays of the copy. In the Wal form an image of the store is written first
    /// ([`Phase::Preparing`]); then the bytes are copied, then read back and checked. `watch` is
    /// called by this thread, while no lock is held, so it may use the store. The copy is of the
    /// main file as it is after [`Phase::Preparing`], even if another file replaces that meanwhile.
    ///
    /// # Errors
    /// As [`backup_to`](Self::backup_to);
    /// [`BackupError::Stopped`](codex_backup::Error::Stopped) where `watch` broke.
    pub fn backup_to_watched(
        &self,
        path: impl AsRef<Path>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Seq> {
        let (to, name) = locate(path.as_ref())?;
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
        let home = self.inner.files.as_ref().ok_or(NO_FILES)?;
        let form = self.form().ok_or(NO_FILES)?;
        // Images are only ever replaced; a ledger goes on growing where it is opened.
        let mode = if form == Form::Ledger { Mode::Private } else { Mode::Frozen };
        let engine = &self.inner.engine;
        let (main, seal) = match settle(engine, form, &path, watch) {
            // Its files may be gone, and are not written any more: memory is whole.
            Err(_) if engine.poisoned().is_some() => {
                return self.write_memory_to(to, name, watch);
            }
            settled => settled?,
        };
        let (source, about) = join::source(&main, &home.name)?;
        let inspect = StoreFile::under(seal);
        let options = CopyOptions { mode, about };
        let copied = copy_to(&home.vfs, source, to, name, &inspect, &options, watch)?;
        Ok(copied.facts.seq)
    }

    /// Returns the backup that opening put in the place of a damaged store, if
    /// [`OpenOptions::fall_back_to_backup`](crate::OpenOptions::fall_back_to_backup) allowed it.
    pub fn restored(&self) -> Option<&Restored> {
        self.inner.restored.as_ref()
    }
}

/// Brings the main file up to the last commit and returns it, for a copy to `path`, with the root
/// key that it is under. Another thread writes the image, so that `watch` runs while this one holds
/// no lock: no call that it makes waits for a thread that waits for it.
fn settle(
    engine: &Arc<Engine>,
    form: Form,
    path: &Path,
    watch: &mut Watch<'_>,
) -> Result<(MainFile, Option<Arc<dyn Seal>>)> {
    let (report, reports) = unbounded();
    let working = Arc::clone(engine);
    let work = move || {
        let progress = |done, total| report.send((done, total)).is_ok();
        working.settle(form, &progress)?;
        working.main_file()
    };
    let worker = thread::spawn("codexdb-copy", work).map_err(|source| StorageError::Io {
        action: "start a thread for",
        path: path.to_owned(),
        source: Arc::new(source),
    })?;
    // If `watch` breaks or panics, the receiver is dropped, and the thread abandons the image.
    let mut told = None;
    let stopped = reports.into_iter().any(|(done, total)| {
        let is_news = told.replace(done) != Some(done);
        is_news && watch(Progress { phase: Phase::Preparing, done, total }).is_break()
    });
    let settled = worker.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
    if stopped {
        return Err(codex_backup::Error::Stopped { path: path.to_owned() }.into());
    }
    Ok(settled?)
}

const NO_FILES: Error =
    Error::Storage(StorageError::Contradiction("a store in memory has no files to back up"));

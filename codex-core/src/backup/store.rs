//! The backups and hot copies that an open store makes on request.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use codex_backup::{
    CopyOptions, Phase, Progress, Restored, Rotated, Watch, check_destination, copy_to, unwatched,
};
use codex_storage::batch::Seq;
use codex_storage::names::Names;
use codex_storage::storage::Form;
use codex_storage::sync::channel::Sender;
use codex_storage::vfs::{Mode, Vfs};
use codex_storage::{Error as StorageError, Result as StorageResult};

use super::join::{self, StoreFile};
use crate::engine::{CopyBytes, CopySource, Engine, ImageProgress};
use crate::error::{Error, Result};
use crate::locate::locate;
use crate::progress::on_thread;
use crate::store::Store;

impl Store {
    /// Makes a backup now, beside running readers and writers. The backup is complete, synced and
    /// verified before it becomes `.bak.1` and the older ones move up.
    ///
    /// If the newest backup already has the last commit, under the current key of the store, it is
    /// read completely and verified, and no new one is made. If the store is encrypted, a file that
    /// is not authentic under its root key does not count as a backup. It does not replace one that
    /// counts. Backups from before a rekey are removed as new ones are made.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let store = Store::open(&path)?;
    /// store.set("a", &1)?;
    /// store.back_up()?;
    /// assert!(folder.path().join("app.db.bak.1").is_file());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// An error of the disk, or of a file that has the name of a backup. The older backups are not
    /// affected. `Contradiction` if the store is in memory, because it has no files.
    #[doc(alias = "backup")]
    pub fn back_up(&self) -> Result<Rotated> {
        self.inner.check_writable()?;
        let backups = self.inner.backups.as_ref().ok_or(NO_FILES)?;
        backups.rotate(&self.inner.engine)
    }

    /// Copies the store to the file `path`, beside running readers and writers. Returns the last
    /// commit in the copy. The copy has all commits that were acknowledged before this call. It is
    /// complete and verified before it gets its name. No file may be at `path`, and no file beside
    /// it that belongs to a store of that name, such as the log segments of an earlier store.
    ///
    /// The call also works if the store is [poisoned](Store::poisoned), or if its folder was
    /// removed. In that case all acknowledged commits are written from memory, as an image under
    /// the same key. The copy of a ledger then has the form Wal. So it is with a store on a shared
    /// log, which has no files.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let store = Store::open(&path)?;
    /// store.set("a", &1)?;
    /// store.backup_to(folder.path().join("copy.db"))?;
    /// assert_eq!(Store::open(folder.path().join("copy.db"))?.len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`BackupError::Exists`](crate::BackupError::Exists) if there is a file already, and
    /// [`BadPath`](crate::StorageError::BadPath) if no store may have the name. Both are returned
    /// before anything is written. Otherwise an error of the disk. No file is at `path` then,
    /// unless the last sync of its folder failed.
    #[doc(alias("export", "copy"))]
    pub fn backup_to(&self, path: impl AsRef<Path>) -> Result<Seq> {
        self.backup_to_watched(path, &mut unwatched)
    }

    /// As [`backup_to`](Self::backup_to), with a progress callback. If `watch` returns `Break`, the
    /// call ends and the copy is removed.
    ///
    /// In the Wal form the state in memory is written as an image ([`Phase::Copying`]), unless the
    /// image of the store has all commits; then its bytes are copied, even if another image
    /// replaces it meanwhile. Then the copy is read back and checked. `watch` is called by this
    /// thread, while no lock of the store is held, so it may use the store.
    ///
    /// # Errors
    /// As [`backup_to`](Self::backup_to);
    /// [`BackupError::Stopped`](crate::BackupError::Stopped) if `watch` returned `Break`.
    pub fn backup_to_watched(
        &self,
        path: impl AsRef<Path>,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Seq> {
        let (to, name) = locate(path.as_ref())?;
        self.backup_to_in(&to, &name, watch)
    }

    /// As [`backup_to_watched`](Self::backup_to_watched), to the file `name` in the directory of
    /// `to`, which may be simulated.
    ///
    /// # Errors
    /// As [`backup_to_watched`](Self::backup_to_watched).
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
        // Order: the destination is checked before an image is written for the copy.
        check_destination(to, name)?;
        let engine = &self.inner.engine;
        // A store on a shared log has no files.
        let (home, own_name) = match &self.inner.files {
            Some(home) => (&home.vfs, &*home.name),
            None if engine.is_shared() => (to, name),
            None => return Err(NO_FILES),
        };
        let CopySource { bytes, seal } = match self.settled_source(to, name, watch) {
            // A poisoned store writes its files no more, and they may be gone. Memory still has all
            // acknowledged commits.
            Err(_) if engine.poisoned().is_some() => engine.memory_source(to, name)?,
            source => source?,
        };
        // An image is only replaced, so its copy is read-only. The copy of a ledger may be opened
        // and appended to.
        let is_ledger = matches!(&bytes, CopyBytes::Main(main) if main.image_seq().is_none());
        let mode = if is_ledger { Mode::Private } else { Mode::Frozen };
        let inspect = StoreFile::under(seal).beside(home);
        let go_on = || !engine.is_closing();
        join::with_source(bytes, own_name, (to, &path), &go_on, |source, about| {
            let options = CopyOptions { mode, about };
            let copied = copy_to(home, source, to, name, &inspect, &options, watch)?;
            Ok(copied.facts.seq)
        })
    }

    /// Returns the source of a copy that has all earlier commits, which are durable.
    fn settled_source(&self, to: &Vfs, name: &str, watch: &mut Watch<'_>) -> Result<CopySource> {
        let engine = &self.inner.engine;
        if engine.is_shared() {
            return Ok(engine.memory_source(to, name)?);
        }
        // The state of a Wal is made durable when it is taken.
        let mut is_settled = self.form() == Some(Form::Wal);
        let (path, to, name) = (to.dir.path(name), to.clone(), name.to_owned());
        prepare(engine, &path, watch, move |engine, progress| {
            loop {
                if !is_settled {
                    engine.flush_watched(progress)?;
                }
                if let Some(source) = engine.copy_source(&to, &name)? {
                    return Ok(source);
                }
                is_settled = false;
            }
        })
    }

    /// Returns the backup that opening put in the place of a damaged store, if
    /// [`OpenOptions::fall_back_to_backup`](crate::OpenOptions::fall_back_to_backup) allowed it.
    pub fn restored(&self) -> Option<&Restored> {
        self.inner.restored.as_ref()
    }
}

/// Calls `work` on another thread, whose reports are those of [`Phase::Preparing`]. Messages name
/// `path`, the destination of the copy.
///
/// This thread holds no lock while `watch` runs. Otherwise a call of `watch` to the store could
/// wait for a lock that this thread holds.
pub(super) fn prepare<R: Send + 'static>(
    engine: &Arc<Engine>,
    path: &Path,
    watch: &mut Watch<'_>,
    work: impl FnOnce(&Engine, &ImageProgress<'_>) -> StorageResult<R> + Send + 'static,
) -> Result<R> {
    let working = Arc::clone(engine);
    let work = move |report: Sender<(u64, u64)>| {
        // If `watch` breaks or panics, the receiver is dropped, and the thread abandons the image.
        work(&working, &|done, total| report.send((done, total)).is_ok())
    };
    let (mut told, mut stopped) = (None, false);
    let prepared = on_thread(path, work, &mut |(done, total)| {
        let is_news = told.replace(done) != Some(done);
        stopped = is_news && watch(Progress { phase: Phase::Preparing, done, total }).is_break();
        !stopped
    })?;
    if stopped {
        return Err(codex_backup::Error::Stopped { path: path.to_owned() }.into());
    }
    Ok(prepared?)
}

pub(super) const NO_FILES: Error =
    Error::Storage(StorageError::Contradiction("a store in memory has no files to back up"));

//! Images that are written beside running writers. One is written at a time, and a close abandons
//! it. Also changes of the key, because a rekey writes an image.

use std::sync::{Arc, OnceLock};

use codex_storage::batch::Seq;
use codex_storage::seal::{Keys, Seal};
use codex_storage::storage::{Checkpoint, Durability, Form, Retired, State, Written};
use codex_storage::sync::atomic::Ordering;
use codex_storage::{Error, Result};

use super::Engine;
use super::commit::Disk;
use super::queue::Admission;
use super::worker::sync;
use crate::locks::PersistGuard;
use crate::map::{Image, Map, Ordered};
use crate::outer;
use crate::rank::Rank;
use crate::trace;

/// Progress callback of an image: `(entries_done, entries_total)`. Each entry counts twice, once
/// when it is written and once when it is read back. Returns `false` to abandon the image.
pub(crate) type ImageProgress<'a> = dyn Fn(u64, u64) -> bool + 'a;

/// The outcome of beginning an image.
enum Begun {
    /// There is no image to write.
    Nothing,
    /// The image is already in place.
    Written,
    /// The image of this state is to be written beside the commits.
    Beside(Checkpoint, Ordered),
}

impl Engine {
    /// Writes an image of the state beside running writers, and drops the log that it replaces.
    /// Returns the last commit before it. Does nothing in forms that have no log beside an image.
    ///
    /// # Errors
    /// The errors of the image, after which nothing was changed; `Closed`; `Poisoned`; `Abandoned`
    /// if the store closes.
    pub fn checkpoint(&self) -> Result<Seq> {
        self.write_image(None, &|_, _| true)
    }

    /// Makes all earlier commits durable in the main file alone: writes a
    /// [`checkpoint`](Self::checkpoint) if the form has a log beside an image, and otherwise calls
    /// [`flush`](Self::flush). Returns the open file, to be copied while the store goes on, and the
    /// root key that it is under. Of a ledger it ends with the last commit.
    ///
    /// # Errors
    /// The errors of those two; `Abandoned` if `progress` returned `false`; as
    /// [`Storage::main_file`](codex_storage::storage::Storage::main_file).
    #[cfg(feature = "remote")]
    pub(crate) fn whole_main_file(
        &self,
        form: Form,
        progress: &ImageProgress<'_>,
    ) -> Result<(codex_storage::MainFile, Option<Arc<dyn Seal>>)> {
        match form {
            Form::Wal => self.write_image(None, progress)?,
            _ => self.flush_watched(progress)?,
        };
        self.exclusive(Admission::WhileOpen, |disk| {
            let file = disk.storage().main_file()?;
            Ok((file, disk.storage().seal()))
        })
    }

    /// Does the same as [`flush`](Self::flush), and reports the progress of the image that it may
    /// need.
    pub(crate) fn flush_watched(&self, progress: &ImageProgress<'_>) -> Result<Seq> {
        let (seq, durable) = self.exclusive(Admission::WhileOpen, |disk| {
            sync(disk.storage())?;
            let stats = disk.storage().stats();
            Ok((stats.seq, stats.durable))
        })?;
        // Without a sync point, only an image makes the commits durable.
        if durable < seq { self.write_image(None, progress) } else { Ok(seq) }
    }

    /// Sets the function that is called after each checkpoint that wrote an image, on the thread
    /// that wrote it, while that thread holds no lock. Only the first call sets it.
    pub(crate) fn on_checkpoint(&self, hook: impl Fn(Seq) + Send + Sync + 'static) {
        self.on_checkpoint.set(hook);
    }

    /// Sets the function that is called once after each group of commits, with the number of the
    /// last one, on the thread that led the group, while that thread holds no lock. The statistics
    /// contain the group then. Only the first call sets it.
    pub(crate) fn on_commit(&self, hook: impl Fn(Seq) + Send + Sync + 'static) {
        self.on_commit.set(hook);
    }

    /// Makes `keys` open the store from now on, instead of the previous key.
    ///
    /// # Errors
    /// `NotEncrypted`, `Seal` or an error of the disk: nothing was changed. `InDoubt` or
    /// `Poisoned`: either of the two keys may open the store. `Closed`.
    pub fn change_key(&self, keys: &dyn Keys) -> Result<()> {
        // Order: the checkpoint lock first. An image that is being written would bring the old
        // envelope back.
        let _one = outer::lock(Rank::Checkpoint, &self.checkpoint);
        self.exclusive(Admission::WhileOpen, |disk| disk.storage().change_key(keys))
    }

    /// Encrypts the store under a new root key, which `keys` wraps, beside running writers.
    ///
    /// # Errors
    /// The errors of [`change_key`](Self::change_key); `Abandoned` if the store closes, or if
    /// `progress` returned `false`.
    pub fn rekey(&self, keys: &dyn Keys, progress: &ImageProgress<'_>) -> Result<()> {
        self.write_image(Some(keys), progress).map(|_| ())
    }

    /// Returns the root key of the files, also after the close, or `None` if they are not
    /// encrypted. Waits for the group that is being written.
    pub(crate) fn seal(&self) -> Option<Arc<dyn Seal>> {
        let disk = self.locks.persist();
        disk.storage.as_ref().map_or_else(|| disk.seal.clone(), |storage| storage.seal())
    }

    /// Calls `f` with the root key of the files, the last commit, and a function that returns
    /// whether to go on. No checkpoint, no change of the key and no close runs meanwhile.
    ///
    /// # Errors
    /// As `f`; `Closed`.
    pub(crate) fn with_files_held<R>(
        &self,
        f: impl FnOnce(Option<Arc<dyn Seal>>, Seq, &dyn Fn() -> bool) -> Result<R>,
    ) -> Result<R> {
        let _one = outer::lock(Rank::Checkpoint, &self.checkpoint);
        let (seal, seq) = {
            let mut disk = self.locks.persist();
            let storage = disk.storage.as_mut().ok_or_else(|| self.closed())?;
            (storage.seal(), storage.stats().seq)
        };
        f(seal, seq, &|| !self.abandon.load(Ordering::Relaxed))
    }

    /// Writes an image beside running writers, or, with `keys`, runs a rekey, which also writes
    /// one. Then calls the hook if an image was written.
    fn write_image(&self, keys: Option<&dyn Keys>, progress: &ImageProgress<'_>) -> Result<Seq> {
        let (seq, is_new) = {
            let _span = trace::checkpoint();
            self.write_image_alone(keys, progress)?
        };
        if is_new {
            self.on_checkpoint.call(seq);
        }
        Ok(seq)
    }

    /// Does the work of [`write_image`](Self::write_image), one image at a time. Returns the last
    /// commit, and whether an image was written.
    fn write_image_alone(
        &self,
        keys: Option<&dyn Keys>,
        progress: &ImageProgress<'_>,
    ) -> Result<(Seq, bool)> {
        let _one = outer::lock(Rank::Checkpoint, &self.checkpoint);
        #[cfg(feature = "shared")]
        if keys.is_none()
            && let Some(images) = self.sharing.get().and_then(|sharing| sharing.images.get())
        {
            let written = self.write_shared_image(images, progress);
            let failed = written.as_ref().err();
            self.queue.lock().overdue.ended(failed);
            match &written {
                Ok((_, is_new)) => {
                    self.checkpoints.fetch_add(u64::from(*is_new), Ordering::Relaxed);
                }
                Err(error) => self.count_failure(error),
            }
            return written;
        }
        self.sync_ahead().inspect_err(|error| self.count_failure(error))?;
        // Begin under the lock on the disk: take the state, and switch the log.
        let begun = self.exclusive(Admission::WhileOpen, |disk| self.begin_image(disk, keys));
        self.ended.shed();
        let (checkpoint, ordered) = match begun.inspect_err(|error| self.count_failure(error))? {
            Begun::Nothing => return Ok((self.stats().storage.seq, false)),
            Begun::Written => {
                self.checkpoints.fetch_add(1, Ordering::Relaxed);
                return Ok((self.stats().storage.seq, true));
            }
            Begun::Beside(checkpoint, ordered) => (checkpoint, ordered),
        };
        let mut unfinished = Unfinished { engine: self, finished: false };
        let image = Image(ordered);
        // Write without the lock. Each entry is written once and read back once.
        let total = 2 * image.len();
        let go_on = |done| !self.abandon.load(Ordering::Relaxed) && progress(done, total);
        let written = checkpoint.write(&image, &go_on);
        // Order: drop the view before the end. Writers copy each node that a view still holds.
        drop(image);
        unfinished.finished = true;
        let failed = written.as_ref().err().cloned();
        let seq = written.as_ref().map_or(0, |written| written.seq);
        let finished = self.finish_image(written);
        if let Some(error) = failed.as_ref().or(finished.as_ref().err()) {
            self.count_failure(error);
            return Err(error.clone());
        }
        // Close the replaced files here, where no thread waits: closing large files takes long.
        drop(finished);
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok((seq, true))
    }

    /// Syncs the log beside the commits, if a checkpoint will switch it. The switch syncs it too,
    /// while commits wait, and has little left to sync after this.
    fn sync_ahead(&self) -> Result<()> {
        if self.durability == Durability::Sync {
            return Ok(());
        }
        let point = self.exclusive(Admission::WhileOpen, |disk| {
            let has_log = disk.storage().form() == Form::Wal;
            if has_log { disk.storage().sync_point() } else { Ok(None) }
        })?;
        self.finish_sync(point)
    }

    /// Begins an image of the state, which the caller writes beside the commits.
    fn begin_image(
        &self,
        disk: &mut PersistGuard<'_, Disk>,
        keys: Option<&dyn Keys>,
    ) -> Result<Begun> {
        // Order: read the state and begin the image in one hold of the disk. The image contains
        // exactly the commits of the log that it replaces (promise 3).
        let ordered = disk.read(Map::ordered);
        let before = disk.storage().stats().images;
        let state = Image(ordered.clone());
        self.queue.lock().overdue.began(self.now());
        // Order: before the log switches. Below the level `Sync` only the switch makes it durable.
        let has_log = disk.storage().form() == Form::Wal;
        let ending = has_log.then(|| self.ended.ending(disk.storage())).flatten();
        let begun = match keys {
            Some(keys) => disk.storage().rekey(keys, &state),
            None => disk.storage().begin_checkpoint(&state),
        };
        let begun = begun.inspect_err(|error| self.queue.lock().overdue.ended(Some(error)))?;
        if let Some(checkpoint) = begun {
            disk.imaging = true;
            self.ended.add(ending);
            return Ok(Begun::Beside(checkpoint, ordered));
        }
        // Without a checkpoint to write, the storage has either written the image itself or has
        // nothing to do.
        if disk.storage().stats().images == before {
            return Ok(Begun::Nothing);
        }
        self.queue.lock().overdue.ended(None);
        self.ended.add(ending);
        Ok(Begun::Written)
    }

    /// Ends an image. Returns the replaced files, which the caller closes without the lock.
    fn finish_image(&self, done: Result<Written>) -> Result<Option<Retired>> {
        self.exclusive(Admission::ToFinish, |disk| {
            disk.imaging = false;
            // For a failed image the storage may return `Ok`, because it has only recorded the
            // failure.
            let failed = done.as_ref().err().cloned();
            let finished = disk.storage().finish_checkpoint(done);
            let failed = failed.as_ref().or(finished.as_ref().err());
            self.queue.lock().overdue.ended(failed);
            finished.map(|()| disk.storage().retired())
        })
    }

    /// Counts a failed checkpoint. A close or a poisoned store is not one.
    fn count_failure(&self, error: &Error) {
        let is_failure = !matches!(
            error,
            Error::Abandoned { .. } | Error::Closed { .. } | Error::Poisoned { .. }
        );
        if is_failure {
            self.checkpoint_failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A function that is called with the number of a commit, after each checkpoint or after each
/// group. Set at most once, before the first of them.
#[derive(Default)]
pub(super) struct Hook(OnceLock<Box<dyn Fn(Seq) + Send + Sync>>);

impl Hook {
    fn set(&self, hook: impl Fn(Seq) + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(hook));
    }

    pub(super) fn call(&self, seq: Seq) {
        if let Some(hook) = self.0.get() {
            hook(seq);
        }
    }
}

/// Ends an image whose writer panicked.
struct Unfinished<'a> {
    engine: &'a Engine,
    finished: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let path = self.engine.path.clone();
            // The error is ignored, because the panic that is unwinding has the cause.
            let _ = self.engine.finish_image(Err(Error::Abandoned { path }));
        }
    }
}

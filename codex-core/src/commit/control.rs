//! What the queue does besides commits: flushes, syncs, checkpoints, the close.

use std::sync::Arc;

use codex_storage::Result;
use codex_storage::seal::Seal;
use codex_storage::storage::Checkpoint;
use codex_storage::storage::{StorageStats, Written};
use codex_storage::vfs::Vfs;

use super::lead::Disk;
use super::queue::{Begun, Refusal};
use super::{Core, Reply, Request};
use crate::locks::PersistGuard;
use crate::map::Ordered;
use crate::map::{Image, Map};

impl Core {
    /// Does what `request`, which is no commit, asks.
    pub(super) fn control(
        &self,
        disk: &mut PersistGuard<'_, Disk>,
        request: Request,
    ) -> Result<Reply> {
        let poisoned = self.queue.lock().poisoned();
        match request {
            Request::Close => return self.close(disk),
            // What has begun ends, poisoned or not: the storage knows what may still be written.
            Request::Synced(_) | Request::FinishCheckpoint(_) => {}
            _ => {
                if let Some(reason) = poisoned {
                    return Err(self.refused(Refusal::Poisoned(reason)));
                }
            }
        }
        if disk.storage.is_none() {
            return Err(self.closed());
        }
        match request {
            Request::BeginCheckpoint | Request::Rekey(_) => return self.begin_image(disk, request),
            Request::FinishCheckpoint(done) => return self.finish_image(disk, done),
            _ => {}
        }
        let storage = disk.storage.as_mut().ok_or_else(|| self.closed())?;
        match request {
            Request::Synced(outcome) => storage.synced(outcome).map(|()| Reply::Done),
            Request::Flush => {
                if let Some(point) = storage.sync_point()? {
                    let outcome = point.sync();
                    let failed = outcome.as_ref().err().cloned();
                    storage.synced(outcome)?;
                    failed.map_or(Ok(()), Err)?;
                }
                let StorageStats { seq, durable, .. } = storage.stats();
                Ok(Reply::Flushed { seq, durable })
            }
            Request::SyncPoint => {
                let point = storage.sync_point()?;
                let stats = storage.stats();
                let wants_image = point.is_none() && stats.durable < stats.seq;
                Ok(Reply::Point { point, wants_image })
            }
            Request::ChangeKey(keys) => storage.change_key(&*keys).map(|()| Reply::Done),
            Request::Anchor => Ok(Reply::Anchor(storage.anchor())),
            // Dealt with above, or not led here.
            Request::BeginCheckpoint
            | Request::Rekey(_)
            | Request::FinishCheckpoint(_)
            | Request::Commit(_)
            | Request::Close => Ok(Reply::Done),
        }
    }

    /// Begins an image of memory as a store of its own, `name` in another folder, whatever became
    /// of the files of this one: it may be poisoned.
    pub(crate) fn image_elsewhere(&self, to: &Vfs, name: &str) -> Result<(Checkpoint, Ordered)> {
        let disk = self.locks.persist();
        let storage = disk.storage.as_ref().ok_or_else(|| self.closed())?;
        let checkpoint = storage.image_elsewhere(to, name)?;
        Ok((checkpoint, disk.read(Map::ordered)))
    }

    /// The root key that the files are under now, or were when the store was closed; `None` if they
    /// are not encrypted.
    pub(crate) fn seal(&self) -> Option<Arc<dyn Seal>> {
        let disk = self.locks.persist();
        disk.storage.as_ref().map_or_else(|| disk.seal.clone(), |storage| storage.seal())
    }

    /// Begins an image of the state, which the caller writes beside the commits.
    fn begin_image(&self, disk: &mut PersistGuard<'_, Disk>, request: Request) -> Result<Reply> {
        // In the same hold: the image shows exactly what the switched log contains.
        let ordered = disk.read(Map::ordered);
        let storage = disk.storage.as_mut().ok_or_else(|| self.closed())?;
        let before = storage.stats().images;
        let state = Image(ordered.clone());
        self.queue.lock().overdue.began(self.now());
        let begun = match request {
            Request::Rekey(keys) => storage.rekey(&*keys, &state),
            _ => storage.begin_checkpoint(&state),
        };
        match begun {
            Ok(Some(begun)) => {
                disk.imaging = true;
                Ok(Reply::Begun(Begun::Beside(begun, ordered)))
            }
            Ok(None) => {
                let is_written = storage.stats().images > before;
                if is_written {
                    self.queue.lock().overdue.ended(None);
                }
                Ok(Reply::Begun(if is_written { Begun::Written } else { Begun::Nothing }))
            }
            Err(error) => {
                self.queue.lock().overdue.ended(Some(&error));
                Err(error)
            }
        }
    }

    /// Ends the image that was begun.
    fn finish_image(
        &self,
        disk: &mut PersistGuard<'_, Disk>,
        done: Result<Written>,
    ) -> Result<Reply> {
        disk.imaging = false;
        let storage = disk.storage.as_mut().ok_or_else(|| self.closed())?;
        // The storage may say no more than that it has noted a failure.
        let failed = done.as_ref().err().cloned();
        let finished = storage.finish_checkpoint(done);
        let failed = failed.as_ref().or(finished.as_ref().err());
        self.queue.lock().overdue.ended(failed);
        finished.map(|()| Reply::Finished(storage.retired()))
    }

    /// Ends the storage and then drops it, which releases the lock on the store. Memory stays
    /// readable.
    fn close(&self, disk: &mut PersistGuard<'_, Disk>) -> Result<Reply> {
        let state = Image(disk.read(Map::ordered));
        let closed = match disk.storage.take() {
            Some(mut storage) => {
                disk.seal = storage.seal();
                storage.close(&state)
            }
            None => Ok(()),
        };
        self.queue.lock().close();
        closed.map(|()| Reply::Done)
    }
}

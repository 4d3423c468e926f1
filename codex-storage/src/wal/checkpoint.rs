//! New images: written beside the running writers, and the last one when the store is closed.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::{Earlier, Pending, Start, Wal};
use crate::error::{Error, Result};
use crate::files::{NotInstalled, StoreFiles};
use crate::header::{BODY_OFFSET, Header, following, fresh_id};
use crate::history::Position;
use crate::image::{ImageSpec, in_blocks, is_at_most};
use crate::log::{LogWriter, SPACE_MIN};
use crate::seal::HEADER_TAG_LEN;
use crate::storage::{Checkpoint, Retired, State, Written};

impl Wal {
    /// Switches to a new segment and returns the image to write. Writes the image at once if the
    /// disk has no room for a segment. Returns `None` if there is nothing to write.
    pub(super) fn begin(&mut self, state: &dyn State) -> Result<Option<Checkpoint>> {
        self.written()?;
        if self.pending.is_some() {
            return Err(Error::Contradiction("a checkpoint is running: finish it first"));
        }
        // An image is needed if commits were made since the last one, if segments continue it, or
        // if a segment has lost its name.
        let is_new = self.seq != self.image.base_seq || !self.earlier.is_empty();
        if !is_new && self.lost.is_none() {
            if self.image_is_named {
                self.remove_leftovers();
            }
            if self.image_is_named || self.leftovers.is_empty() {
                return Ok(None);
            }
        }
        self.writer()?;
        // Order: the segments switch before the image is written, so that the image contains
        // exactly the commits of the segments up to the switch, and each later commit is in the new
        // segment.
        let continued = match self.switch() {
            Err(full @ Error::NoSpace { .. }) => {
                return self.checkpoint_alone(state, full).map(|()| None);
            }
            switched => switched?,
        };
        // The image takes the place of the segments before the new one, which it names.
        let header = Header {
            file_id: fresh_id(&self.files.vfs, self.write_state.path())?,
            compression: self.files.compression,
            generation: continued.generation - 1,
            base_seq: continued.base_seq,
            created_us: self.files.vfs.clock.now_us(),
            next_generation: continued.generation,
            base_chain: continued.base_chain,
            base_digest: continued.base_digest,
            neighbour: continued.file_id,
            ..self.image.clone()
        };
        self.pending = Some(Pending { header: header.clone(), fresh: None });
        let spec = ImageSpec { beside_writers: true, ..self.files.image(header) };
        let history = self.history.clone();
        let write = move |state: &dyn State, progress: &dyn Fn(u64) -> bool| {
            spec.write(state, &history, progress)
        };
        Ok(Some(Checkpoint::new(write)))
    }

    /// Replaces the image and its log by a self-contained image of `state`, which frees the log.
    /// Called if the disk is `full` and has no room for the next segment.
    ///
    /// # Errors
    /// `full` if there is no room for the image either. Nothing has changed, and the log has its
    /// reserve again.
    fn checkpoint_alone(&mut self, state: &dyn State, full: Error) -> Result<()> {
        let log = &mut self.writer()?.log;
        // Order: sync, then trim, then the image. The log must be durable while it is still the
        // only copy, and the image may need the space of its unused end.
        log.sync()?;
        let before = log.trim()?;
        self.durable = log.durable();
        let done = self.become_image(state);
        // Close the replaced files, which frees their space.
        self.retired = None;
        // The space of the removed file (the log, or the failed image) becomes free on every file
        // system when the removal of its name is durable. No promise depends on this sync.
        let _ = self.files.vfs.dir.sync();
        if let Ok(true) = done {
            return Ok(());
        }
        if let Some(current) = &mut self.current
            && current.log.poisoned().is_none()
        {
            // If the reserve cannot be taken back, removals still use the free space.
            let _ = current.log.take_back(before);
        }
        done.and(Err(full))
    }

    /// Ends the current segment and begins the next one. Does nothing if the current segment has no
    /// frames. Returns the header of the segment that receives the next commit.
    pub(super) fn switch(&mut self) -> Result<Header> {
        let lost = self.lost;
        let current = self.writer()?;
        let is_lost = lost == Some(current.header.generation);
        if current.log.end().offset == BODY_OFFSET && !is_lost {
            return Ok(current.header.clone());
        }
        // Order: the old segment is durable before the next one has a name. An opening takes the
        // base of the next segment as proof that all commits before it are durable.
        current.log.seal_off()?;
        let end = *current.log.end();
        let digest = self.history_now().end().digest;
        let current = self.writer()?;
        let (mut header, log) = (current.header.clone(), *current.log.log());
        header.file_id = fresh_id(&self.files.vfs, self.write_state.path())?;
        header.generation = following(header.generation, self.write_state.path())?;
        header.created_us = self.files.vfs.clock.now_us();
        header.stray_proof = [0; HEADER_TAG_LEN];
        header.compression = self.files.compression;
        end.continue_in(&mut header, &log, digest);
        // Order: the next segment is written and synced under a temporary name, and only then
        // named, so that an error before the rename changes nothing.
        let next = self.new_segment(header.clone())?;
        let next = match self.publish(next) {
            Ok(next) => next,
            Err(e) => return Err(self.poison("naming the next segment failed", &e)),
        };
        if let Some(mut previous) = self.current.replace(next) {
            // Order: after the next segment exists, because this segment still needs its reserve if
            // the next one could not be made. A failed trim only wastes space.
            let _ = previous.log.trim();
            self.past.add(previous.log.counts());
            // The file stays open until its name is removed. Its space is then freed when the
            // caller closes it, without the lock.
            self.retired = Some(Retired::new(previous));
        }
        self.durable = end.seq;
        self.earlier.push(Earlier { generation: log.generation, bytes: end.offset });
        Ok(header)
    }

    /// Installs the written image, or records that it failed.
    pub(super) fn finish(&mut self, done: Result<Written>) -> Result<()> {
        let header = match self.pending.take() {
            Some(Pending { header, fresh: Some(fresh) }) => {
                return self.finish_rekey(done, header, fresh);
            }
            Some(Pending { header, fresh: None }) => Some(header),
            None => None,
        };
        let written = done.inspect_err(|_| self.image_failed())?;
        self.writer()?;
        let header = header.ok_or(Error::Contradiction("no checkpoint has begun"))?;
        self.install(&written, header)
    }

    /// Makes all commits durable and marks the clean end: with a self-contained image if the state
    /// is small, otherwise with a mark in the log.
    pub(super) fn close_writing(&mut self, state: &dyn State) -> Result<()> {
        match self.start {
            Start::Continue(..) if self.policy.close_into_image_bytes_max == u64::MAX => {
                self.start()?;
            }
            // The previous handle did not close the store. This close marks it, if there is room.
            Start::Segment(_) | Start::Both(_) => match self.start() {
                Err(Error::NoSpace { .. }) => {}
                started => started?,
            },
            _ => {}
        }
        // Nothing was written by this handle.
        let Some(log) = self.written()? else { return Ok(()) };
        // Order: sync before anything is removed or marked. The mark of a close proves that all
        // commits before it are durable.
        log.sync()?;
        self.durable = log.durable();
        self.check_names_now()?;
        if let Some(generation) = self.lost {
            return self.close_without(generation, state);
        }
        if self.image_is_named {
            self.remove_leftovers();
        }
        // Order: before the image, which may need the space. The mark of a close needs little.
        if let Some(log) = self.written()? {
            let _ = log.trim();
        }
        if is_at_most(state, self.policy.close_into_image_bytes_max) && self.become_image(state)? {
            return Ok(());
        }
        self.written()?.map_or(Ok(()), LogWriter::close)
    }

    /// Closes into an image, because the segment `generation` has lost its name.
    fn close_without(&mut self, generation: u64, state: &dyn State) -> Result<()> {
        if self.become_image(state)? {
            return Ok(());
        }
        let name = self.files.names.segment(generation);
        let what = format!("the log {name} was removed, and no image could be written");
        self.write_state.poison(what.clone());
        let source = Arc::new(io::Error::new(ErrorKind::NotFound, what));
        let path = self.write_state.path().to_owned();
        Err(Error::InDoubt { path, seq: self.image.base_seq + 1, source })
    }

    /// Turns the store into one image, which has to be attached to a log before the next write.
    /// Returns whether it did. If the image cannot be written, nothing has changed.
    fn become_image(&mut self, state: &dyn State) -> Result<bool> {
        // Beside a self-contained image the stray segment would look like a foreign log.
        if let Some(stray) = self.stray {
            self.remove_stray(stray);
        }
        let (Some(current), None) = (&self.current, self.stray) else { return Ok(false) };
        let generation = current.header.generation;
        let history = self.history_now().clone();
        let header = Header {
            file_id: fresh_id(&self.files.vfs, self.write_state.path())?,
            compression: self.files.compression,
            generation,
            base_seq: history.seq(),
            created_us: self.files.vfs.clock.now_us(),
            next_generation: 0,
            base_chain: 0,
            base_digest: history.end().digest,
            neighbour: [0; 16],
            ..self.image.clone()
        };
        let spec = self.files.image(header.clone());
        // Order: the image is written, synced and read back before it replaces the image and the
        // log.
        let Ok(written) = spec.write(state, &history, &|_| true) else {
            self.image_failed();
            return Ok(false);
        };
        if !self.can_attach(&written) {
            // An error is ignored: the next open removes the file.
            drop(self.files.vfs.dir.remove(&written.temporary));
            self.image_failed();
            return Ok(false);
        }
        // Order: the segment is listed before the image is installed, because installing it removes
        // the listed segments.
        self.leftovers.push(generation);
        if let Err(e) = self.install(&written, header) {
            self.leftovers.retain(|&leftover| leftover != generation);
            return if self.write_state.poisoned().is_some() { Err(e) } else { Ok(false) };
        }
        Ok(true)
    }

    /// Returns whether the disk will have room to write to the store again when it is only this
    /// image: for a segment, and for a copy of the image that names it. Without that room, no entry
    /// could ever be removed.
    fn can_attach(&self, written: &Written) -> bool {
        let needed = in_blocks(written.bytes).saturating_add(SPACE_MIN);
        let freed = in_blocks(self.image_bytes).saturating_add(self.log_bytes());
        // If the file system does not report its free space, it is assumed to suffice.
        let free = self.files.vfs.dir.available_bytes().ok().flatten().unwrap_or(u64::MAX);
        free.saturating_add(freed) >= needed
    }

    /// Gives a written image the name of the store, and removes the segments whose commits it
    /// contains.
    pub(super) fn install(&mut self, written: &Written, header: Header) -> Result<()> {
        let replaced = match self.files.install(&written.temporary) {
            Ok(replaced) => replaced,
            Err(NotInstalled { source, in_doubt: true }) => {
                return Err(self.poison("putting the image in place failed", &source));
            }
            Err(NotInstalled { source, in_doubt: false }) => {
                self.image_failed();
                drop(self.files.vfs.dir.remove(&written.temporary));
                return Err(Error::io("replace", self.write_state.path(), source));
            }
        };
        self.retired = Some(Retired::new((self.retired.take(), replaced)));
        // Order: the name of the image is durable from here on, so the segments that it replaces
        // can be removed.
        self.history.list(Position::base(&header));
        self.image = header;
        self.image_bytes = written.bytes;
        self.images += 1;
        self.retry_at_bytes = 0;
        self.image_is_named = true;
        let contained = self.image.generation;
        self.lost = self.lost.filter(|&lost| lost > contained);
        let done = self.earlier.extract_if(.., |segment| segment.generation <= contained);
        self.leftovers.extend(done.map(|segment| segment.generation));
        if self.image.next_generation == 0
            && let Some(current) = self.current.take()
        {
            // Its space becomes free when its name is removed and no handle is open.
            self.past.add(current.log.counts());
            self.start = Start::Attach;
        }
        self.remove_leftovers();
        Ok(())
    }

    /// Removes the segments that no image needs. The name of the image in place must be durable. If
    /// a segment cannot be removed, it is tried again after the next image, at a requested
    /// checkpoint and at the close. No image is written only for this.
    pub(super) fn remove_leftovers(&mut self) {
        let StoreFiles { vfs, names, .. } = &self.files;
        self.leftovers.retain(|&generation| match vfs.dir.remove(&names.segment(generation)) {
            Ok(()) => false,
            Err(e) => e.kind() != ErrorKind::NotFound,
        });
    }

    /// Counts a failed image, and sets the length of the log at which the next one is tried.
    pub(super) fn image_failed(&mut self) {
        self.images_failed += 1;
        let more = self.policy.floor_bytes.max(RETRY_BYTES_MIN);
        self.retry_at_bytes = self.log_bytes().saturating_add(more);
    }
}

/// The least growth of the log between two attempts after a failed image, in bytes.
const RETRY_BYTES_MIN: u64 = 64 << 10;

//! New images: written beside the running writers, and the last one when the store closes.

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
use crate::storage::{Checkpoint, State, Written};

impl Wal {
    /// Switches to a new segment and hands out the image to write. On a disk without room for a
    /// segment it writes the image at once.
    pub(super) fn begin(&mut self, state: &dyn State) -> Result<Option<Checkpoint>> {
        self.written()?;
        if self.pending.is_some() {
            return Err(Error::Contradiction("a checkpoint is running: finish it first"));
        }
        let is_new = self.history.seq() != self.image.base_seq || !self.earlier.is_empty();
        if !is_new && self.lost.is_none() {
            if self.image_is_named {
                self.remove_leftovers();
            }
            if self.image_is_named || self.leftovers.is_empty() {
                return Ok(None);
            }
        }
        self.writer()?;
        let continued = match self.switch() {
            Err(full @ Error::NoSpace { .. }) => {
                return self.checkpoint_alone(state, full).map(|()| None);
            }
            switched => switched?,
        };
        let header = Header {
            file_id: fresh_id(&self.files.vfs, self.write_state.path())?,
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

    /// Puts an image of `state` that is whole by itself in the place of the image and its log,
    /// which frees the log. The disk is `full`: it has no room for the next segment.
    ///
    /// # Errors
    /// `full`: not for the image either. Nothing has changed, and the log has its reserve.
    fn checkpoint_alone(&mut self, state: &dyn State, full: Error) -> Result<()> {
        let log = &mut self.writer()?.log;
        log.sync()?;
        let before = log.trim()?;
        self.durable = log.durable();
        let done = self.become_image(state);
        // The space of the removed file, be it the log or that of the attempt, is free on every
        // file system once its name is durably gone. Nothing else rests on this sync.
        let _ = self.files.vfs.dir.sync();
        if let Ok(true) = done {
            return Ok(());
        }
        if let Some(current) = &mut self.current
            && current.log.poisoned().is_none()
        {
            // Without the reserve, removals still take the free space.
            let _ = current.log.take_back(before);
        }
        done.and(Err(full))
    }

    /// Ends the segment that is written and begins the next, unless nothing was written to it;
    /// returns the header of the one that goes on.
    pub(super) fn switch(&mut self) -> Result<Header> {
        let lost = self.lost;
        let current = self.writer()?;
        let is_lost = lost == Some(current.header.generation);
        if current.log.end().offset == BODY_OFFSET && !is_lost {
            return Ok(current.header.clone());
        }
        current.log.seal_off()?;
        let end = *current.log.end();
        let (mut header, log) = (current.header.clone(), *current.log.log());
        header.file_id = fresh_id(&self.files.vfs, self.write_state.path())?;
        header.generation = following(header.generation, self.write_state.path())?;
        header.created_us = self.files.vfs.clock.now_us();
        header.stray_proof = [0; HEADER_TAG_LEN];
        end.continue_in(&mut header, &log);
        let next = self.new_segment(header.clone())?;
        let next = match self.publish(next) {
            Ok(next) => next,
            Err(e) => return Err(self.poison("naming the next segment failed", &e)),
        };
        if let Some(mut previous) = self.current.replace(next) {
            // Order: once the next segment exists. A segment that could not be made must not cost
            // this one its reserve. If it fails, that only takes space.
            let _ = previous.log.trim();
            self.past.add(previous.log.counts());
        }
        self.durable = end.seq;
        self.earlier.push(Earlier { generation: log.generation, bytes: end.offset });
        Ok(header)
    }

    /// Puts the written image in place, or notes that it failed.
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

    /// Makes all durable and marks the clean end: by an image that is whole by itself where the
    /// state is small, else by a mark in the log.
    pub(super) fn close_writing(&mut self, state: &dyn State) -> Result<()> {
        match self.start {
            Start::Continue(..) if self.policy.close_into_image_bytes_max == u64::MAX => {
                self.start()?;
            }
            // The handle before did not close the store: this close marks it, if there is room.
            Start::Segment(_) | Start::Both(_) => match self.start() {
                Err(Error::NoSpace { .. } | Error::Io { .. }) => {}
                started => started?,
            },
            _ => {}
        }
        // Nothing was written.
        let Some(log) = self.written()? else { return Ok(()) };
        log.sync()?;
        self.durable = log.durable();
        self.check_names_now()?;
        if let Some(generation) = self.lost {
            return self.close_without(generation, state);
        }
        if self.image_is_named {
            self.remove_leftovers();
        }
        // Order: before the image, which may need that space. The mark of a close needs little.
        if let Some(log) = self.written()? {
            let _ = log.trim();
        }
        if is_at_most(state, self.policy.close_into_image_bytes_max) && self.become_image(state)? {
            return Ok(());
        }
        self.written()?.map_or(Ok(()), LogWriter::close)
    }

    /// Closes into an image, since the segment `generation` has lost its name.
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

    /// Whether the store is now one image, which takes no more writes before it is attached to a
    /// log again. One that could not be written changes nothing.
    fn become_image(&mut self, state: &dyn State) -> Result<bool> {
        let Some(current) = &self.current else { return Ok(false) };
        if self.stray.is_some() {
            return Ok(false);
        }
        let generation = current.header.generation;
        let header = Header {
            file_id: fresh_id(&self.files.vfs, self.write_state.path())?,
            generation,
            base_seq: self.history.seq(),
            created_us: self.files.vfs.clock.now_us(),
            next_generation: 0,
            base_chain: 0,
            base_digest: self.history.end().digest,
            neighbour: [0; 16],
            ..self.image.clone()
        };
        let spec = self.files.image(header.clone());
        let Ok(written) = spec.write(state, &self.history, &|_| true) else {
            self.image_failed();
            return Ok(false);
        };
        if !self.can_attach(&written) {
            // A file that stays costs nothing but a name: the next open removes it.
            drop(self.files.vfs.dir.remove(&written.temporary));
            self.image_failed();
            return Ok(false);
        }
        self.leftovers.push(generation);
        if let Err(e) = self.install(&written, header) {
            self.leftovers.retain(|&leftover| leftover != generation);
            return if self.write_state.poisoned().is_some() { Err(e) } else { Ok(false) };
        }
        Ok(true)
    }

    /// Whether the disk will have room to write to the store again once it is this image alone: for
    /// a segment, and for a copy of the image that names it. Otherwise nothing could be removed
    /// from it any more.
    fn can_attach(&self, written: &Written) -> bool {
        let needed = in_blocks(written.bytes).saturating_add(SPACE_MIN);
        let freed = in_blocks(self.image_bytes).saturating_add(self.log_bytes());
        // Where the file system does not tell, it is tried.
        let free = self.files.vfs.dir.available_bytes().ok().flatten().unwrap_or(u64::MAX);
        free.saturating_add(freed) >= needed
    }

    /// Gives a written image the store's name, and removes the segments that it contains.
    pub(super) fn install(&mut self, written: &Written, header: Header) -> Result<()> {
        if let Err(NotInstalled { source, in_doubt }) = self.files.install(&written.temporary) {
            if in_doubt {
                return Err(self.poison("putting the image in place failed", &source));
            }
            self.image_failed();
            drop(self.files.vfs.dir.remove(&written.temporary));
            return Err(Error::io("replace", self.write_state.path(), source));
        }
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
            // Its space is free once its name is gone and no handle is left.
            self.past.add(current.log.counts());
            self.start = Start::Attach;
        }
        self.remove_leftovers();
        Ok(())
    }

    /// Removes the segments that no image needs, once the name of the image in place is durable.
    /// A segment that can not be removed is tried again after the next image, at a checkpoint on
    /// request and at the close: images are not written for its sake.
    pub(super) fn remove_leftovers(&mut self) {
        let StoreFiles { vfs, names, .. } = &self.files;
        self.leftovers.retain(|&generation| match vfs.dir.remove(&names.segment(generation)) {
            Ok(()) => false,
            Err(e) => e.kind() != ErrorKind::NotFound,
        });
    }

    /// Counts a failed image, and lets the log grow a while before the next try.
    pub(super) fn image_failed(&mut self) {
        self.images_failed += 1;
        let more = self.policy.floor_bytes.max(RETRY_BYTES_MIN);
        self.retry_at_bytes = self.log_bytes().saturating_add(more);
    }
}

/// How much the log grows at least between two tries after a failed image, in bytes.
const RETRY_BYTES_MIN: u64 = 64 << 10;

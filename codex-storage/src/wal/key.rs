//! Another key for a Wal: a new envelope, or a new image and log under a fresh root key.

use std::sync::Arc;

use super::segments::Segment;
use super::{Current, Fresh, Pending, Wal};
use crate::config::OnDamage;
use crate::error::{Error, Result};
use crate::header::{Header, following, fresh_id};
use crate::image::ImageSpec;
use crate::log::{LogCopy, LogPlace, SharedLogCopy};
use crate::names::Temporary;
use crate::seal::Keys;
use crate::storage::{Checkpoint, Retired, Written};

impl Wal {
    /// Writes the blocks of the image again, after a header with another envelope.
    pub(super) fn change(&mut self, keys: &dyn Keys) -> Result<()> {
        self.writer()?;
        self.refuse_while_pending()?;
        let (written, header) = self.files.image_under(keys)?;
        self.install(&written, header)
    }

    /// Switches to a new segment and returns the image to write under a fresh root key. All frames
    /// are under the root key of the old image until the new image is in place.
    pub(super) fn begin_rekey(&mut self, keys: &dyn Keys) -> Result<Checkpoint> {
        self.writer()?;
        self.refuse_while_pending()?;
        let path = self.write_state.path().to_owned();
        let Some(before) = self.files.seal.clone() else {
            return Err(Error::NotEncrypted { path });
        };
        let (image, seal) = self.image.under_fresh_root(keys, &path)?;
        // Order: as for a checkpoint, the segments switch first. The image contains the commits
        // before the switch, and the copy of the new segment the commits after it.
        let continued = self.switch()?;
        // The segment under the fresh key gets the generation after the current one, and continues
        // the same commit.
        let segment = Header {
            file_id: fresh_id(&self.files.vfs, &path)?,
            generation: following(continued.generation, &path)?,
            compression: self.files.compression,
            created_us: self.files.vfs.clock.now_us(),
            root_id: image.root_id,
            base_tag: image.base_tag,
            neighbour: continued.file_id,
            ..continued.clone()
        };
        // The old key proves that a rekey made this segment, so that an opening can remove it if
        // the rekey does not finish.
        let segment = segment.proven_stray(&*before, &*seal);
        let header = Header {
            file_id: fresh_id(&self.files.vfs, &path)?,
            compression: self.files.compression,
            generation: continued.generation,
            base_seq: continued.base_seq,
            created_us: segment.created_us,
            next_generation: segment.generation,
            slot_counter: following(image.slot_counter, &path)?,
            base_chain: segment.base_chain,
            base_digest: segment.base_digest,
            neighbour: segment.file_id,
            ..image
        };
        let mut spec = ImageSpec { beside_writers: true, ..self.files.image(header.clone()) };
        spec.seal = Some(Arc::clone(&seal));
        // The current segment is read while it is written, and each of its groups is copied.
        let from = Segment::at(&self.files, continued)?;
        let from = from.reader(&self.files, 0, OnDamage::Refuse)?;
        let to = LogPlace { seal: Some(Arc::clone(&seal)), ..self.log_place(segment.generation) };
        let (copy, position) = (SharedLogCopy::default(), self.writer()?.log.position());
        let fresh = Fresh {
            seal,
            segment,
            copy: copy.clone(),
            image_temporary: spec.temporary.clone(),
            segment_temporary: self.files.names.temporary(Temporary::Rekey),
        };
        let (segment, temporary) = (fresh.segment.clone(), fresh.segment_temporary.clone());
        self.pending = Some(Pending { header, fresh: Some(fresh) });
        let history = self.history.clone();
        Ok(Checkpoint::new(move |state, progress| {
            // Order: the image first. It takes long, and the copy then needs to catch up only once.
            let written = spec.write(state, &history, progress)?;
            copy.begin(LogCopy::begin(from, to, &segment, temporary)?);
            // The image is completely written and read back at this point, so its progress stays at
            // the total.
            copy.catch_up(&position, &|_| progress(2 * state.len()))?;
            Ok(written)
        }))
    }

    /// Copies the last frames that were written beside the image, and installs the image. Before
    /// that, only names have changed.
    pub(super) fn finish_rekey(
        &mut self,
        done: Result<Written>,
        header: Header,
        fresh: Fresh,
    ) -> Result<()> {
        let completed = done.and_then(|written| Ok((written, self.complete(&fresh)?)));
        let (written, current) = completed.inspect_err(|_| {
            self.image_failed();
            for temporary in [&fresh.image_temporary, &fresh.segment_temporary] {
                // An error is ignored: the next open removes the file.
                drop(self.files.vfs.dir.remove(temporary));
            }
        })?;
        // Order: the segment under the fresh key is complete and named, and only then the image
        // that names it replaces the old one. A crash between the two leaves the old image with its
        // own segments.
        let last = self.current.take();
        let contained = last.as_ref().map(|last| last.header.generation);
        if let Err(e) = self.install(&written, header) {
            self.current = last;
            if self.write_state.poisoned().is_none() {
                // The store is still under the old key, beside which the new segment would be in
                // the way.
                self.remove_stray(fresh.segment.generation);
            }
            return Err(e);
        }
        if let Some(last) = &last {
            self.past.add(last.log.counts());
        }
        // Order: the new writer and key take over before the former segments are removed.
        self.retired = Some(Retired::new((self.retired.take(), last)));
        self.current = Some(current);
        self.files.seal = Some(fresh.seal);
        self.leftovers.extend(contained);
        self.remove_former()
    }

    /// Removes the segments under the former root key, durably: after a power cut no file may exist
    /// that the former key opens.
    ///
    /// # Errors
    /// `Poisoned` if such a file still exists or may exist again. The store is under the fresh root
    /// key.
    fn remove_former(&mut self) -> Result<()> {
        self.remove_leftovers();
        let vfs = &self.files.vfs;
        let done = match self.leftovers.first() {
            Some(&left) => Err(format!("{} is still there", self.files.names.segment(left))),
            None => vfs.dir.sync().map_err(|e| e.to_string()),
        };
        done.map_err(|e| self.poison("removing the log under the former key failed", &e))
    }

    /// Removes the segment of a rekey that did not finish. While it exists, the store does not
    /// close into an image, beside which the segment would look like a foreign log.
    pub(super) fn remove_stray(&mut self, generation: u64) {
        let dir = &self.files.vfs.dir;
        let name = self.files.names.segment(generation);
        let gone = match dir.remove(&name) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => dir.sync(),
        };
        self.stray = gone.is_err().then_some(generation);
    }

    /// Returns the segment under the fresh root key with all commits of the current one, durable
    /// and named.
    fn complete(&mut self, fresh: &Fresh) -> Result<Current> {
        let log = &mut self.writer()?.log;
        // Order: the current segment is durable before the copy is used, so that no commit is lost
        // if the rekey fails after this point.
        log.sync()?;
        let upto = log.end().seq;
        self.durable = upto;
        let log = fresh.copy.complete(upto)?;
        self.inherit(&fresh.segment_temporary)?;
        let dir = &self.files.vfs.dir;
        let name = self.files.names.segment(fresh.segment.generation);
        // Order: the copy was synced and read back by `complete`, so the name refers to a complete
        // segment.
        if let Err(e) = dir.rename(&fresh.segment_temporary, &name).and_then(|()| dir.sync()) {
            let error = Error::io("name the new segment", &dir.path(&name), e);
            self.remove_stray(fresh.segment.generation);
            return Err(error);
        }
        Ok(self.current(log, fresh.segment.clone()))
    }

    /// Returns an error if a checkpoint is running.
    fn refuse_while_pending(&self) -> Result<()> {
        match self.pending {
            Some(_) => Err(Error::Contradiction("a checkpoint is running: finish it first")),
            None => Ok(()),
        }
    }
}

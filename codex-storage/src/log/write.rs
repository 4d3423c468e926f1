//! Appending to a log: one frame, one write and one sync for each group.

use std::fmt;
use std::io;
use std::mem;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::copy::LogPosition;
use super::epoch::Epochs;
use super::gate::SyncGate;
use super::recovery::Deferred;
use super::segment::LogPlace;
use super::space::{LogSpace, SpaceError};
use super::{LogCounts, LogEnd, layout};
use crate::batch::{BATCH_LEN_MAX, Group, Seq};
use crate::codec::{put, usize_of};
use crate::digest::stamp;
use crate::error::{Error, RecordError, Result};
use crate::frame::{
    ALIGN, CLOSE, FRAME_HEAD, FrameHeader, GROUP, LAZY, LogId, SALT_LEN, SALTED, finish, padded,
};
use crate::header::{Header, NUMBER_MAX};
use crate::pack::Packer;
use crate::seal::TAG_LEN;
use crate::storage::{Durability, Form, SyncPoint};
use crate::vfs::File;

/// Writes one log. After an error that leaves bytes in doubt, it refuses all further writes.
pub(crate) struct LogWriter {
    pub(super) place: LogPlace,
    pub(super) file: Arc<dyn File>,
    pub(super) gate: Arc<SyncGate>,
    log: LogId,
    form: Form,
    pub(super) end: LogEnd,
    durable: Seq,
    pub(super) space: LogSpace,
    epochs: Epochs,
    pub(super) deferred: Deferred,
    poison: Option<String>,
    counts: LogCounts,
    packer: Packer,
    pub(super) position: Arc<LogPosition>,
}

impl LogWriter {
    /// Returns a writer that continues the log at `end`. All commits up to there are durable.
    pub(super) fn new(
        place: LogPlace,
        file: Arc<dyn File>,
        header: &Header,
        end: LogEnd,
        space: LogSpace,
    ) -> Self {
        let gate = Arc::new(SyncGate::new(Arc::clone(&file)));
        Self {
            position: Arc::new(LogPosition::of(&place, &gate)),
            place,
            gate,
            file,
            log: LogId { file_id: header.file_id, generation: header.generation },
            form: header.form,
            durable: end.seq,
            end,
            space,
            epochs: Epochs::default(),
            deferred: Deferred::default(),
            poison: None,
            counts: LogCounts::default(),
            packer: Packer::new(header.compression),
        }
    }

    /// Writes the group as one frame and returns its commits. At the level `Sync` the frame is
    /// durable when this function returns.
    ///
    /// The buffer of the group becomes the frame, so its operations cannot be read afterwards.
    ///
    /// # Errors
    /// - `NoSpace`, `Io`, `Seal` or `Record` if the frame could not be made. Nothing has changed,
    ///   and the caller can try again.
    /// - `InDoubt` if bytes of the frame may have reached the disk. Each later call returns
    ///   `Poisoned`.
    pub(crate) fn append(&mut self, group: &mut Group) -> Result<Range<Seq>> {
        self.refuse_if_poisoned()?;
        let own = layout(self.form, self.place.seal.is_some());
        assert_eq!(group.layout(), own, "a group has the layout of the log that it is written to");
        group.abandon();
        let first = self.end.seq + 1;
        let count = group.batches();
        if count == 0 {
            return Ok(first..first);
        }
        // The whole payload must fit the 32 bits of its length.
        let whole = u32::try_from(group.len() + SALT_LEN + TAG_LEN);
        let (Ok(batches), Ok(_)) = (u32::try_from(count), whole) else {
            let source = RecordError::BatchTooLarge { limit: BATCH_LEN_MAX };
            return Err(Error::Record { path: self.path(), source });
        };
        if self.end.seq + u64::from(batches) > NUMBER_MAX {
            return Err(Error::Contradiction("the store has reached the largest commit number"));
        }
        // Long writes beside this one make room for it from now on.
        self.place.vfs.waited_for.add();
        // Order: before the frame is made. Recovery may move the end, which is part of the frame.
        self.begin_writing()?;
        let (digest, time_us) = match self.form {
            Form::Ledger => {
                // The times of a ledger never decrease, also if the clock of the system does.
                let now_us = self.place.vfs.clock.now_us().max(self.end.time_us);
                (stamp(group, &self.end.digest, first, now_us), now_us)
            }
            // The history of a Wal computes its digest later.
            _ => (self.end.digest, self.end.time_us),
        };
        let lazy = self.place.durability != Durability::Sync;
        let flags = if lazy { LAZY } else { 0 };
        let may_use_reserve = group.only_removals();
        self.group_frame(flags, batches, group.buffer_mut(), may_use_reserve)?;
        // Order: the end advances only after the frame is written, so that a failed group leaves
        // the next one at the same place with the same commit number.
        self.end.seq += u64::from(batches);
        self.end.digest = digest;
        self.end.time_us = time_us;
        self.position.set(&self.end);
        self.counts.groups += 1;
        // At the level `Sync`, `frame` has synced the file.
        if !lazy {
            self.durable = self.end.seq;
        }
        Ok(first..self.end.seq + 1)
    }

    /// Returns a sync of the commits that are written and perhaps not durable. The caller can run
    /// it without holding the writer. Returns `None` if all commits are durable.
    pub(crate) fn sync_point(&mut self) -> Result<Option<SyncPoint>> {
        self.refuse_if_poisoned()?;
        if self.durable == self.end.seq {
            return Ok(None);
        }
        // Order: the last commit is noted before the sync begins. Commits written during the sync
        // are not covered by it.
        let (gate, upto) = (Arc::clone(&self.gate), self.end.seq);
        let (path, first) = (self.place.path(), self.durable + 1);
        Ok(Some(SyncPoint::new(move || {
            let synced = gate.sync();
            synced.map_err(|source| Error::InDoubt { path, seq: first, source })?;
            Ok(upto)
        })))
    }

    /// Records the result of a sync point.
    ///
    /// # Errors
    /// The error of the sync, after which the writer refuses writes. `Poisoned` if it already did.
    pub(crate) fn synced(&mut self, outcome: Result<Seq>) -> Result<()> {
        self.refuse_if_poisoned()?;
        match outcome {
            Ok(upto) => {
                self.durable = self.durable.max(upto.min(self.end.seq));
                self.counts.syncs += 1;
                Ok(())
            }
            Err(error) => {
                self.poison(&error);
                Err(error)
            }
        }
    }

    /// Syncs the log. All commits are durable afterwards.
    ///
    /// # Errors
    /// `InDoubt` if the sync fails, after which the writer refuses writes.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.refuse_if_poisoned()?;
        if self.durable == self.end.seq {
            return Ok(());
        }
        self.gate.sync().map_err(|e| self.in_doubt(self.durable + 1, e))?;
        self.durable = self.end.seq;
        self.counts.syncs += 1;
        Ok(())
    }

    /// Returns the end of the log. The digest is that of a ledger or a copy: the log of a Wal that
    /// was written to has that of its base.
    pub(crate) fn end(&self) -> &LogEnd {
        &self.end
    }

    /// Returns the identity of the file.
    pub(crate) fn identity(&self) -> io::Result<u64> {
        self.file.identity()
    }

    /// Returns the present time, in microseconds since 1970.
    pub(crate) fn now_us(&self) -> i64 {
        self.place.vfs.clock.now_us()
    }

    /// Returns the id of the log.
    pub(crate) fn log(&self) -> &LogId {
        &self.log
    }

    /// Returns the last commit that is known to be durable.
    pub(crate) fn durable(&self) -> Seq {
        self.durable
    }

    /// Returns the position up to which the log is written, for a copy that is made beside this
    /// writer. The writer updates it after each group.
    pub(crate) fn position(&self) -> Arc<LogPosition> {
        self.position.set(&self.end);
        Arc::clone(&self.position)
    }

    /// Returns the counts since the log was opened.
    pub(crate) fn counts(&self) -> LogCounts {
        self.counts
    }

    /// Returns the reason why the writer refuses writes, or `None` if it does not.
    pub(crate) fn poisoned(&self) -> Option<&str> {
        self.poison.as_deref()
    }

    /// Makes the writer refuse writes because of `error`. The first reason is kept.
    pub(crate) fn poison(&mut self, error: &Error) {
        self.poison.get_or_insert_with(|| error.to_string());
    }

    /// Returns an empty group with the room that this log needs.
    #[cfg(test)]
    pub(crate) fn group(&self) -> Group {
        Group::new(layout(self.form, self.place.seal.is_some()))
    }

    /// Returns `Poisoned` if the writer refuses writes.
    pub(crate) fn refuse_if_poisoned(&self) -> Result<()> {
        match &self.poison {
            None => Ok(()),
            Some(reason) => Err(Error::Poisoned { path: self.path(), reason: reason.clone() }),
        }
    }

    /// Returns the path of the log.
    pub(crate) fn path(&self) -> PathBuf {
        self.place.path()
    }

    /// Returns a buffer with room for a frame header, then `payload`.
    pub(super) fn control_buffer(&self, payload: &[u8]) -> Vec<u8> {
        let mut buf = vec![0; layout(self.form, self.place.seal.is_some()).head];
        buf.extend_from_slice(payload);
        buf
    }

    /// Makes the batches in `buf` the next frame, like [`frame`](Self::frame).
    pub(super) fn group_frame(
        &mut self,
        flags: u8,
        batches: u32,
        buf: &mut Vec<u8>,
        may_use_reserve: bool,
    ) -> Result<()> {
        // Order: after the history digest, which covers the batches as they are in memory, and
        // before the seal. Sealed bytes cannot be compressed.
        let mut packer = mem::take(&mut self.packer);
        let body = layout(self.form, self.place.seal.is_some()).head;
        let framed = self.frame(GROUP, flags, batches, packer.pack(buf, body), may_use_reserve);
        self.packer = packer;
        framed
    }

    /// Makes `buf` the next frame, writes it, and syncs the file unless the frame is lazy. `buf`
    /// has the room of [`layout`] before its payload.
    ///
    /// # Panics
    /// If the buffer does not have this layout. Nothing is written in this case.
    #[expect(clippy::indexing_slicing, reason = "the buffer has the room that `layout` gives")]
    pub(super) fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        batches: u32,
        buf: &mut Vec<u8>,
        may_use_reserve: bool,
    ) -> Result<()> {
        let sealed = self.place.seal.is_some();
        let body = layout(self.form, sealed).head;
        let (id, salt) = self.epochs.begin(&self.place, &self.log)?;
        let salt_len = salt.map_or(0, |_| SALT_LEN);
        // The header is put directly before the payload: after the room for a salt if this frame
        // has none.
        let start = body - FRAME_HEAD - salt_len;
        let tag_len = if sealed { TAG_LEN } else { 0 };
        let payload_len = salt_len + (buf.len() - body) + tag_len;
        let mut header = FrameHeader {
            kind,
            flags: flags | if salt.is_some() { SALTED } else { 0 },
            seq: self.end.seq + 1,
            durable: self.durable,
            epoch: id,
            counter: 0,
            previous: self.end.chain,
            batches,
            payload_len: u32::try_from(payload_len).expect("`append` bounds the length of a group"),
        };
        // Order: reserve before the counter advances, so that a full disk never uses up a nonce.
        let reserved =
            self.space.reserve(self.end.offset, padded(header.len()), may_use_reserve, &self.gate);
        reserved.map_err(|e| self.space_error(e))?;
        // Order: the counter advances before the bytes are sealed. A nonce is never used twice,
        // even if the write fails and the group is tried again.
        header.counter = self.epochs.next_counter(&self.place)?;
        buf.reserve(tag_len + usize_of(ALIGN));
        if let Some(salt) = salt {
            put(buf, start + FRAME_HEAD, salt);
        }
        // The offset and the tag of the frame before are authenticated, so that no frame can be
        // moved.
        if sealed {
            let aad = header.aad(&self.log, self.end.offset, &self.end.tag);
            self.epochs.seal(&self.place, header.counter, &aad, buf, body)?;
        }
        // Order: checksums are computed over the sealed bytes, so that damage is found without the
        // key.
        let chain = finish(&header, &self.log, self.end.offset, buf, start);
        let tag = if sealed {
            let payload = &buf[..start + FRAME_HEAD + payload_len];
            *payload.last_chunk().expect("a sealed payload ends in its tag")
        } else {
            [0; TAG_LEN]
        };
        // Order: the frame is in the file before its salt counts as written and before the end
        // advances. After an error here the writer refuses writes.
        self.put(&buf[start..], flags & LAZY == 0)?;
        self.epochs.salt_is_written();
        self.end.offset += padded(header.len());
        self.end.chain = chain;
        // A resume frame can follow the mark of a close. The log is then open again.
        self.end.closed = kind == CLOSE;
        self.end.tag = tag;
        Ok(())
    }

    /// Writes a frame to the file. After any error the frame is in doubt, and the writer refuses
    /// writes.
    fn put(&mut self, frame: &[u8], durably: bool) -> Result<()> {
        let seq = self.end.seq + 1;
        let written = self.file.write_all_at(frame, self.end.offset);
        written.map_err(|e| self.in_doubt(seq, Arc::new(e)))?;
        if durably {
            self.gate.sync().map_err(|e| self.in_doubt(seq, e))?;
            self.counts.syncs += 1;
        }
        Ok(())
    }

    /// Returns the error for space that could not be reserved.
    pub(super) fn space_error(&mut self, error: SpaceError) -> Error {
        match error {
            SpaceError::Full { needed } => Error::NoSpace { path: self.path(), needed },
            SpaceError::Io { action, source } => self.io_error(action, source),
            // Frames that were written before and not synced may be lost together with the space.
            SpaceError::Sync(source) if self.durable < self.end.seq => {
                self.in_doubt(self.durable + 1, source)
            }
            SpaceError::Sync(source) => self.io_error("sync the space of", source),
        }
    }

    /// Returns `InDoubt` for commits from `seq` on, and makes the writer refuse writes.
    pub(super) fn in_doubt(&mut self, seq: Seq, source: Arc<io::Error>) -> Error {
        let error = Error::InDoubt { path: self.path(), seq, source };
        self.poison(&error);
        error
    }

    /// Returns `Io` with the path of the log. The writer is not affected.
    pub(super) fn io_error(&self, action: &'static str, source: Arc<io::Error>) -> Error {
        Error::Io { action, path: self.path(), source }
    }
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogWriter")
            .field("name", &self.place.name)
            .field("seq", &self.end.seq)
            .field("offset", &self.end.offset)
            .field("poison", &self.poison)
            .finish_non_exhaustive()
    }
}

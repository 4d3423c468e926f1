//! Appending to a log: one frame a group, one write, one sync.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::copy::LogPosition;
use super::epoch::Epochs;
use super::gate::SyncGate;
use super::recovery::Deferred;
use super::segment::LogPlace;
use super::space::{Space, SpaceError};
use super::{LogCounts, LogEnd, layout};
use crate::batch::{BATCH_LEN_MAX, Group, Seq};
use crate::codec::{put, u64_of, usize_of};
use crate::digest::stamp;
use crate::error::{Error, RecordError, Result};
use crate::frame::{
    ALIGN, CLOSE, END, FRAME_HEAD, FrameHeader, GROUP, LAZY, LogId, SALT_LEN, SALTED, padded,
};
use crate::header::{Header, NUMBER_MAX};
use crate::history;
use crate::seal::TAG_LEN;
use crate::storage::{Durability, Form, SyncPoint};
use crate::vfs::File;

/// Writes one log. After an error that leaves bytes in doubt it writes nothing more.
pub(crate) struct LogWriter {
    pub(super) place: LogPlace,
    pub(super) file: Arc<dyn File>,
    pub(super) gate: Arc<SyncGate>,
    log: LogId,
    form: Form,
    pub(super) end: LogEnd,
    durable: Seq,
    pub(super) space: Space,
    epochs: Epochs,
    pub(super) deferred: Deferred,
    poison: Option<String>,
    counts: LogCounts,
    pub(super) position: Arc<LogPosition>,
}

impl LogWriter {
    pub(super) fn new(
        place: LogPlace,
        file: Arc<dyn File>,
        header: &Header,
        end: LogEnd,
        space: Space,
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
        }
    }

    /// Writes the group as one frame, at the level `Sync` durably, and returns its commits.
    ///
    /// The buffer of the group becomes the frame: its operations can not be read afterwards.
    ///
    /// # Errors
    /// `NoSpace`, `Io`, `Seal`, `Record`: nothing changed, and the group can be tried again.
    /// `InDoubt`: bytes may have reached the disk; each later call returns `Poisoned`.
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
        let whole = u32::try_from(group.len() + SALT_LEN + TAG_LEN);
        let (Ok(batches), Ok(_)) = (u32::try_from(count), whole) else {
            let source = RecordError::BatchTooLarge { limit: BATCH_LEN_MAX };
            return Err(Error::Record { path: self.path(), source });
        };
        if self.end.seq + u64::from(batches) > NUMBER_MAX {
            return Err(Error::Contradiction("the store has the last commit that there can be"));
        }
        self.begin_writing()?;
        let now_us = self.place.vfs.clock.now_us().max(self.end.time_us);
        let (digest, time_us) = match self.form {
            Form::Ledger => (stamp(group, &self.end.digest, first, now_us), now_us),
            _ => (
                history::extend(&self.end.digest, first, batches, group.payload()),
                self.end.time_us,
            ),
        };
        let lazy = self.place.durability != Durability::Sync;
        let flags = if lazy { LAZY } else { 0 };
        let may_use_reserve = group.only_removals();
        self.frame(GROUP, flags, batches, group.buffer_mut(), may_use_reserve)?;
        self.end.seq += u64::from(batches);
        self.end.digest = digest;
        self.end.time_us = time_us;
        self.position.set(&self.end);
        self.counts.groups += 1;
        if !lazy {
            self.durable = self.end.seq;
        }
        Ok(first..self.end.seq + 1)
    }

    /// The commits that are written but perhaps not durable, to be synced without the writer.
    pub(crate) fn sync_point(&mut self) -> Result<Option<SyncPoint>> {
        self.refuse_if_poisoned()?;
        if self.durable == self.end.seq {
            return Ok(None);
        }
        let (gate, upto) = (Arc::clone(&self.gate), self.end.seq);
        let (path, first) = (self.place.path(), self.durable + 1);
        Ok(Some(SyncPoint::new(move || {
            let synced = gate.sync();
            synced.map_err(|source| Error::InDoubt { path, seq: first, source })?;
            Ok(upto)
        })))
    }

    /// Notes the outcome of a sync point.
    ///
    /// # Errors
    /// The failure, which poisons; `Poisoned` when it came later.
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

    /// Makes everything durable now.
    ///
    /// # Errors
    /// `InDoubt`, which poisons.
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

    /// Where the log ends.
    pub(crate) fn end(&self) -> &LogEnd {
        &self.end
    }

    /// The id of the log.
    pub(crate) fn log(&self) -> &LogId {
        &self.log
    }

    /// Commits up to this one are durable.
    pub(crate) fn durable(&self) -> Seq {
        self.durable
    }

    /// How far the log is written from now on, for a copy that is made beside this writer.
    pub(crate) fn position(&self) -> Arc<LogPosition> {
        self.position.set(&self.end);
        Arc::clone(&self.position)
    }

    /// The counts since opening.
    pub(crate) fn counts(&self) -> LogCounts {
        self.counts
    }

    /// Why the writer refuses, once it does.
    pub(crate) fn poisoned(&self) -> Option<&str> {
        self.poison.as_deref()
    }

    /// Refuses from now on to write, because of `error`; the first reason stays.
    pub(crate) fn poison(&mut self, error: &Error) {
        self.poison.get_or_insert_with(|| error.to_string());
    }

    /// An empty group with the room that this log wants.
    #[cfg(test)]
    pub(crate) fn group(&self) -> Group {
        Group::new(layout(self.form, self.place.seal.is_some()))
    }

    /// # Errors
    /// `Poisoned`.
    pub(crate) fn refuse_if_poisoned(&self) -> Result<()> {
        match &self.poison {
            None => Ok(()),
            Some(reason) => Err(Error::Poisoned { path: self.path(), reason: reason.clone() }),
        }
    }

    /// The path of the log.
    pub(crate) fn path(&self) -> PathBuf {
        self.place.path()
    }

    /// A buffer with room for a frame header and this payload.
    pub(super) fn control_buffer(&self, payload: &[u8]) -> Vec<u8> {
        let mut buf = vec![0; layout(self.form, self.place.seal.is_some()).head];
        buf.extend_from_slice(payload);
        buf
    }

    /// Makes `buf`, which has the room of [`layout`] in front of its payload, the next frame, and
    /// writes it; syncs it unless it is lazy.
    ///
    /// # Panics
    /// If the buffer is not laid out so. Nothing is written then.
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
        let reserved =
            self.space.reserve(self.end.offset, padded(header.len()), may_use_reserve, &self.gate);
        reserved.map_err(|e| self.space_error(e))?;
        header.counter = self.epochs.next_counter(&self.place)?;
        buf.reserve(tag_len + usize_of(ALIGN));
        if let Some(salt) = salt {
            put(buf, start + FRAME_HEAD, salt);
        }
        let aad = header.aad(&self.log, self.end.offset, &self.end.tag);
        self.epochs.seal(&self.place, header.counter, &aad, buf, body)?;
        let chain = finish(&header, &self.log, self.end.offset, buf, start);
        let tag = if sealed {
            let payload = &buf[..start + FRAME_HEAD + payload_len];
            *payload.last_chunk().expect("a sealed payload ends in its tag")
        } else {
            [0; TAG_LEN]
        };
        self.put(&buf[start..], flags & LAZY == 0)?;
        self.epochs.salt_is_written();
        self.end.offset += padded(header.len());
        self.end.chain = chain;
        // A resume frame after the mark of a close: the log is in service again.
        self.end.closed = kind == CLOSE;
        self.end.tag = tag;
        Ok(())
    }

    /// Hands a frame to the file: from here on every error leaves it in doubt.
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

    pub(super) fn space_error(&mut self, error: SpaceError) -> Error {
        match error {
            SpaceError::Full { needed } => Error::NoSpace { path: self.path(), needed },
            SpaceError::Io { action, source } => self.io_error(action, source),
            // Frames that were written before and not yet synced may be lost with it.
            SpaceError::Sync(source) if self.durable < self.end.seq => {
                self.in_doubt(self.durable + 1, source)
            }
            SpaceError::Sync(source) => self.io_error("sync the space of", source),
        }
    }

    pub(super) fn in_doubt(&mut self, seq: Seq, source: Arc<io::Error>) -> Error {
        let error = Error::InDoubt { path: self.path(), seq, source };
        self.poison(&error);
        error
    }

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

/// Ends the payload in `buf`, puts the header in front of it at `start`, and returns the chain
/// value.
///
/// # Panics
/// If the payload has another length than its header: nothing is written then.
#[expect(clippy::indexing_slicing, reason = "`start` leaves the room of a frame header")]
pub(super) fn finish(
    header: &FrameHeader,
    log: &LogId,
    offset: u64,
    buf: &mut Vec<u8>,
    start: usize,
) -> u64 {
    let payload = &buf[start + FRAME_HEAD..];
    let told = u64::from(header.payload_len);
    assert_eq!(u64_of(payload.len()), told, "the header of a frame has the length of its payload");
    let payload_crc = crc32c::crc32c(payload);
    buf.push(END);
    buf.resize(start + usize_of(padded(header.len())), 0);
    let (bytes, chain) = header.encode(log, offset, payload_crc);
    put(buf, start, bytes);
    chain
}

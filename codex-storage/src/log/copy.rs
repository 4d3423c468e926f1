//! Copying a log under another root key, group by group, with the same history.

use std::path::Path;
use std::sync::Arc;

use super::gate::SyncGate;
use super::recovery::Deferred;
use super::space::Space;
use super::{LogEnd, LogPlace, LogReader, LogWriter, NewLog};
use crate::batch::Seq;
use crate::config::OnDamage;
use crate::error::{Error, Result};
use crate::frame::{GROUP, LAZY};
use crate::header::{Found, Header};
use crate::storage::Durability;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::vfs::File;

/// A log and its copy. The log may grow meanwhile.
#[derive(Debug)]
pub(crate) struct LogCopy {
    from: LogReader,
    to: LogWriter,
    /// Reads the copy back.
    check: LogReader,
    /// The plaintext of the group at hand.
    group: Vec<u8>,
}

impl LogCopy {
    /// Begins the copy: a log without frames and without a name, under the temporary name
    /// `temporary`. `header` has the base of the log that `from` reads.
    ///
    /// # Errors
    /// As [`NewLog::write`].
    pub(crate) fn begin(
        from: LogReader,
        place: LogPlace,
        header: &Header,
        temporary: String,
    ) -> Result<Self> {
        let (path, seal) = (place.path(), place.seal.clone());
        let (to, file) = NewLog::write(place, header.clone(), temporary)?.unnamed();
        let check = LogReader::new(file, &path, header, seal, 0, OnDamage::Refuse)?;
        Ok(Self { from, to, check, group: Vec::new() })
    }

    /// Copies the groups up to the one that ends with commit `upto`, durably, and reads them
    /// back. `progress` gets the last commit copied, and returns `false` to stop.
    ///
    /// # Errors
    /// Of reading and of writing, which concern the copy alone; `Abandoned`.
    pub(crate) fn advance(&mut self, upto: Seq, progress: &dyn Fn(u64) -> bool) -> Result<()> {
        self.from.refresh()?;
        while self.from.end().seq < upto {
            let Some(group) = self.from.next()? else { return Err(self.damaged()) };
            let count = group.count;
            self.group.clear();
            self.group.extend_from_slice(group.payload);
            self.to.copy(&self.group, count, self.from.end()).map_err(of_the_copy)?;
            if !progress(self.from.end().seq) {
                return Err(Error::Abandoned { path: self.to.path() });
            }
        }
        self.to.sync().map_err(of_the_copy)?;
        self.check.refresh()?;
        while self.check.end().seq < upto {
            if self.check.next()?.is_none() {
                return Err(self.damaged());
            }
        }
        let same = self.check.end() == self.to.end()
            && self.check.end().digest == self.from.end().digest
            && self.from.end().seq == upto;
        if same { Ok(()) } else { Err(self.damaged()) }
    }

    /// Copies round by round, while the log grows, until little is left. A writer that outpaces
    /// the copy ends this too: the rest is then about as much as it writes in one round.
    fn catch_up(&mut self, position: &LogPosition, progress: &dyn Fn(u64) -> bool) -> Result<()> {
        let (mut least, mut in_vain) = (u64::MAX, 0);
        while in_vain < ROUNDS_IN_VAIN_MAX {
            self.advance(position.seq.load(Ordering::Acquire), progress)?;
            position.settle();
            let written = position.offset.load(Ordering::Acquire);
            let left = written.saturating_sub(self.from.end().offset);
            if left <= LEFT_BYTES_MAX {
                break;
            }
            // By a quarter at least, so that the number of rounds is bounded.
            if left <= least / 4 * 3 {
                (least, in_vain) = (left, 0);
            } else {
                in_vain += 1;
            }
        }
        Ok(())
    }

    fn damaged(&self) -> Error {
        not_as_written(&self.to.path(), self.to.end().offset)
    }
}

/// A [`LogCopy`] that goes on beside the writer of its log, and that the holder of that writer
/// completes.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedLogCopy(Arc<Mutex<Option<LogCopy>>>);

impl SharedLogCopy {
    /// Takes a copy that has begun.
    pub(crate) fn begin(&self, copy: LogCopy) {
        *self.0.lock() = Some(copy);
    }

    /// Copies until little is left up to the `position` of the log, and returns where the copy
    /// ends. The commits need not be durable in the log: the copy counts for nothing until the
    /// log is synced.
    ///
    /// # Errors
    /// As [`LogCopy::advance`].
    pub(crate) fn catch_up(
        &self,
        position: &LogPosition,
        progress: &dyn Fn(u64) -> bool,
    ) -> Result<LogEnd> {
        let mut copy = self.0.lock();
        let copy = copy.as_mut().ok_or(NO_COPY)?;
        copy.catch_up(position, progress)?;
        Ok(*copy.to.end())
    }

    /// Copies the rest up to commit `upto`, and gives out the copy, to be written to from now on.
    ///
    /// # Errors
    /// As [`LogCopy::advance`].
    pub(crate) fn complete(&self, upto: Seq) -> Result<LogWriter> {
        let mut copy = self.0.lock().take().ok_or(NO_COPY)?;
        copy.advance(upto, &|_| true)?;
        Ok(copy.to)
    }
}

/// How far a log is written: its writer sets this for a reader of the same log.
#[derive(Debug)]
pub(crate) struct LogPosition {
    seq: AtomicU64,
    offset: AtomicU64,
    /// Of a log whose commits do not wait for a sync.
    lazy: Option<Arc<SyncGate>>,
}

impl LogPosition {
    /// Of the log in `place`, which syncs through `gate`.
    pub(super) fn of(place: &LogPlace, gate: &Arc<SyncGate>) -> Self {
        let is_lazy = place.durability != Durability::Sync;
        let lazy = is_lazy.then(|| Arc::clone(gate));
        Self { seq: AtomicU64::new(0), offset: AtomicU64::new(0), lazy }
    }

    /// Syncs the log beside its writer, which then has little left to sync.
    fn settle(&self) {
        if let Some(gate) = &self.lazy {
            // The gate remembers a failure: the writer's own sync, before the copy counts, fails
            // too, and poisons.
            drop(gate.sync());
        }
    }

    /// The frames up to `end` are in the file.
    pub(super) fn set(&self, end: &LogEnd) {
        self.offset.store(end.offset, Ordering::Release);
        self.seq.store(end.seq, Ordering::Release);
    }
}

impl LogWriter {
    /// Appends a group of another log, which ends at `end` there, as it is; not yet durable.
    fn copy(&mut self, payload: &[u8], batches: u32, end: &LogEnd) -> Result<()> {
        let mut buf = self.control_buffer(payload);
        self.frame(GROUP, LAZY, batches, &mut buf, false)?;
        self.end.seq += u64::from(batches);
        self.end.digest = end.digest;
        self.end.time_us = end.time_us;
        self.end.closed = false;
        Ok(())
    }

    /// Gives a complete copy of a ledger, which has no name yet, its header, and reads it back.
    /// The header names the last commit of the copy, as `oldest` perhaps too.
    ///
    /// # Errors
    /// `Io`, which concerns the copy alone.
    pub(crate) fn finish_copy(&mut self, header: &Header) -> Result<Header> {
        let header = Header { named_seq: self.end.seq, ..header.clone() };
        let seal = self.place.seal.as_deref();
        let written = self.file.write_all_at(&header.encode(seal), 0).map_err(Arc::new);
        let synced = written.and_then(|()| self.gate.sync());
        let path = self.path();
        synced.map_err(|source| Error::Io { action: "copy", path: path.clone(), source })?;
        let found = Found::read(&*self.file, &path)?.authenticate(seal, &path)?;
        if found == header { Ok(header) } else { Err(not_as_written(&path, 0)) }
    }

    /// Goes on in `file`, a durable copy of the log up to its end, of the length `len`; returns
    /// the file that it replaces.
    pub(crate) fn move_to(&mut self, file: Arc<dyn File>, len: u64) -> Arc<dyn File> {
        self.gate = Arc::new(SyncGate::new(Arc::clone(&file)));
        self.position = Arc::new(LogPosition::of(&self.place, &self.gate));
        self.space = Space::existing(Arc::clone(&file), len);
        self.deferred = Deferred::default();
        std::mem::replace(&mut self.file, file)
    }
}

impl NewLog {
    /// The log as a writer, still under its temporary name, and its file.
    pub(crate) fn unnamed(self) -> (LogWriter, Arc<dyn File>) {
        let file = Arc::clone(&self.file);
        (self.into_writer(), file)
    }
}

/// An error of a file that is no part of the store: nothing of the store is in doubt.
pub(crate) fn of_the_copy(error: Error) -> Error {
    match error {
        Error::InDoubt { path, source, .. } => Error::Io { action: "copy", path, source },
        other => other,
    }
}

/// The error of a copy at `path` that does not read back as it was written.
pub(crate) fn not_as_written(path: &Path, offset: u64) -> Error {
    let what = "the copy of the log does not read back as it was written";
    Error::Damaged { path: path.to_owned(), offset, what }
}

const NO_COPY: Error = Error::Contradiction("the copy of the log is complete, or has not begun");
/// How much may be left to be copied while writers wait, in bytes: a few milliseconds' work.
const LEFT_BYTES_MAX: u64 = 256 << 10;
/// How many rounds may leave about as much as one before.
const ROUNDS_IN_VAIN_MAX: u32 = 3;

//! Copying a log under another root key, group by group, with the same history.

use std::path::Path;
use std::sync::Arc;

use super::gate::SyncGate;
use super::recovery::Deferred;
use super::space::LogSpace;
use super::{LogEnd, LogPlace, LogReader, LogWriter, NewLog};
use crate::batch::Seq;
use crate::config::OnDamage;
use crate::error::{Error, Result};
use crate::frame::LAZY;
use crate::header::{Found, Header};
use crate::storage::Durability;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::vfs::File;

/// A log and its copy. The log may grow during the copy.
#[derive(Debug)]
pub(crate) struct LogCopy {
    from: LogReader,
    to: LogWriter,
    /// The reader that reads the copy back.
    check: LogReader,
    /// The plaintext of the current group.
    group: Vec<u8>,
}

impl LogCopy {
    /// Begins the copy with a log without frames, under the temporary name `temporary`. `header`
    /// has the base of the log that `from` reads.
    ///
    /// # Errors
    /// The errors of [`NewLog::write`].
    pub(crate) fn begin(
        from: LogReader,
        place: LogPlace,
        header: &Header,
        temporary: String,
    ) -> Result<Self> {
        let (path, seal) = (place.path(), place.seal.clone());
        let (to, file) = NewLog::write(place, header.clone(), temporary, 0)?.unnamed();
        let check = LogReader::new(file, &path, header, seal, 0, OnDamage::Refuse)?;
        Ok(Self { from, to, check, group: Vec::new() })
    }

    /// Copies the groups up to the one that ends with commit `upto`, syncs them, and reads them
    /// back. `progress` receives the last copied commit, and returns `false` to stop the copy.
    ///
    /// # Errors
    /// `Abandoned` if `progress` returned `false`, `Damaged` if the copy does not read back as
    /// written, and the errors of reading and writing. They concern only the copy.
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
        // Order: sync, then read back, so that the bytes that were checked are the bytes on the
        // disk.
        self.to.sync().map_err(of_the_copy)?;
        self.check.refresh()?;
        while self.check.end().seq < upto {
            if self.check.next()?.is_none() {
                return Err(self.damaged());
            }
        }
        // The same history: the digest does not depend on the key.
        let same = self.check.end() == self.to.end()
            && self.check.end().digest == self.from.end().digest
            && self.from.end().seq == upto;
        if same { Ok(()) } else { Err(self.damaged()) }
    }

    /// Copies in rounds, while the log grows, until little is left. Also ends if the writer is
    /// faster than the copy: the rest is then about as much as it writes in one round.
    fn catch_up(&mut self, position: &LogPosition, progress: &dyn Fn(u64) -> bool) -> Result<()> {
        let (mut least, mut in_vain) = (u64::MAX, 0);
        while in_vain < ROUNDS_IN_VAIN_MAX {
            // Order: copy, sync the log, then measure. The final sync of the log, which writers
            // wait for, then has little to do.
            self.advance(position.seq.load(Ordering::Acquire), progress)?;
            position.settle();
            let written = position.offset.load(Ordering::Acquire);
            let left = written.saturating_sub(self.from.end().offset);
            if left <= LEFT_BYTES_MAX {
                break;
            }
            // The rest must shrink by at least a quarter, which limits the number of rounds.
            if left <= least / 4 * 3 {
                (least, in_vain) = (left, 0);
            } else {
                in_vain += 1;
            }
        }
        Ok(())
    }

    /// Returns `Damaged` at the end of the copy.
    fn damaged(&self) -> Error {
        not_as_written(&self.to.path(), self.to.end().offset)
    }
}

/// A [`LogCopy`] that runs beside the writer of its log. The holder of the writer completes it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedLogCopy(Arc<Mutex<Option<LogCopy>>>);

impl SharedLogCopy {
    /// Stores a copy that has begun.
    pub(crate) fn begin(&self, copy: LogCopy) {
        *self.0.lock() = Some(copy);
    }

    /// Copies until little is left before the `position` of the log, and returns the end of the
    /// copy. The copied commits need not be durable in the log, because the copy is not used until
    /// the log is synced.
    ///
    /// # Errors
    /// The errors of [`LogCopy::advance`].
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

    /// Copies the rest up to commit `upto`, and returns the writer of the copy.
    ///
    /// # Errors
    /// The errors of [`LogCopy::advance`].
    pub(crate) fn complete(&self, upto: Seq) -> Result<LogWriter> {
        let mut copy = self.0.lock().take().ok_or(NO_COPY)?;
        copy.advance(upto, &|_| true)?;
        Ok(copy.to)
    }
}

/// The position up to which a log is written. Its writer sets it for a reader of the same log.
#[derive(Debug)]
pub(crate) struct LogPosition {
    seq: AtomicU64,
    offset: AtomicU64,
    /// The gate of a log whose commits do not wait for a sync.
    lazy: Option<Arc<SyncGate>>,
}

impl LogPosition {
    /// Returns the position of the log in `place`, which syncs through `gate`.
    pub(super) fn of(place: &LogPlace, gate: &Arc<SyncGate>) -> Self {
        let is_lazy = place.durability != Durability::Sync;
        let lazy = is_lazy.then(|| Arc::clone(gate));
        Self { seq: AtomicU64::new(0), offset: AtomicU64::new(0), lazy }
    }

    /// Syncs the log beside its writer, which then has little left to sync.
    fn settle(&self) {
        if let Some(gate) = &self.lazy {
            // The error is ignored here because the gate remembers it: the sync of the writer,
            // before the copy is used, fails too and poisons the writer.
            drop(gate.sync());
        }
    }

    /// Records that the frames up to `end` are in the file.
    pub(super) fn set(&self, end: &LogEnd) {
        // Order: the offset before the seq. A reader that loads the new seq finds all of its frames
        // below the offset.
        self.offset.store(end.offset, Ordering::Release);
        self.seq.store(end.seq, Ordering::Release);
    }
}

impl LogWriter {
    /// Appends a group of another log, or its first `batches` commits, which end at `end` there,
    /// with the same digest and time. They are not durable yet.
    pub(crate) fn copy(&mut self, payload: &[u8], batches: u32, end: &LogEnd) -> Result<()> {
        let mut buf = self.control_buffer(payload);
        self.group_frame(LAZY, batches, &mut buf, false)?;
        self.end.seq += u64::from(batches);
        self.end.digest = end.digest;
        self.end.time_us = end.time_us;
        self.end.closed = false;
        Ok(())
    }

    /// Writes the header of a complete copy of a ledger, which has no name yet, syncs it and reads
    /// it back. The header names the last commit of the copy, and possibly a new `oldest`.
    ///
    /// # Errors
    /// `Io` if writing or reading fails, `Damaged` if the header does not read back as written.
    /// They concern only the copy.
    pub(crate) fn finish_copy(&mut self, header: &Header) -> Result<Header> {
        let header = Header { named_seq: self.end.seq, ..header.clone() };
        let seal = self.place.seal.as_deref();
        // Order: all frames are durable before the header that names the last of them.
        let written = self.file.write_all_at(&header.encode(seal), 0).map_err(Arc::new);
        let synced = written.and_then(|()| self.gate.sync());
        let path = self.path();
        synced.map_err(|source| Error::Io { action: "copy", path: path.clone(), source })?;
        let found = Found::read(&*self.file, &path)?.authenticate(seal, &path)?;
        if found == header { Ok(header) } else { Err(not_as_written(&path, 0)) }
    }

    /// Continues in `file`, a durable copy of the log up to its end with a length of `len` bytes.
    /// Returns the file that it replaces.
    pub(crate) fn move_to(&mut self, file: Arc<dyn File>, len: u64) -> Arc<dyn File> {
        self.gate = Arc::new(SyncGate::new(Arc::clone(&file)));
        self.position = Arc::new(LogPosition::of(&self.place, &self.gate));
        self.space = LogSpace::existing(Arc::clone(&file), len, self.place.durability);
        self.deferred = Deferred::default();
        std::mem::replace(&mut self.file, file)
    }
}

impl NewLog {
    /// Returns the writer of the log, still under its temporary name, and its file.
    pub(crate) fn unnamed(self) -> (LogWriter, Arc<dyn File>) {
        let file = Arc::clone(&self.file);
        (self.into_writer(), file)
    }
}

/// Converts an error of a file that is not part of the store: no commit of the store is in doubt.
pub(crate) fn of_the_copy(error: Error) -> Error {
    match error {
        Error::InDoubt { path, source, .. } => Error::Io { action: "copy", path, source },
        other => other,
    }
}

/// Returns the error of a copy at `path` that does not read back as it was written.
pub(crate) fn not_as_written(path: &Path, offset: u64) -> Error {
    let what = "the copy of the log does not read back as it was written";
    Error::Damaged { path: path.to_owned(), offset, what }
}

const NO_COPY: Error = Error::Contradiction("the copy of the log is complete, or has not begun");
/// The number of bytes that may be left to copy while writers wait: a few milliseconds of work.
const LEFT_BYTES_MAX: u64 = 256 << 10;
/// The number of rounds that may leave about as much as the best one before.
const ROUNDS_IN_VAIN_MAX: u32 = 3;

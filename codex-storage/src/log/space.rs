//! Space ahead of a log: allocated, zeroed and synced before a frame is written into it.
//!
//! The length of a log in service is a multiple of [`UNIT`]; that of a closed one is none.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::gate::SyncGate;
use crate::frame::{ALIGN, SECTOR};
use crate::vfs::File;

/// The space of one log.
#[derive(Debug)]
pub(super) struct Space {
    file: Arc<dyn File>,
    /// Up to here the file is allocated, and zero behind the last frame.
    end: u64,
    /// The length of the file: more than `end` where it has holes that a full disk cannot fill.
    len: u64,
    /// Whether the space was allocated by this handle. What an earlier one left may have holes.
    is_sure: bool,
}

/// Why there is no space.
#[derive(Debug)]
pub(super) enum SpaceError {
    /// The disk is full.
    Full { needed: u64 },
    /// A call failed before any frame was touched.
    Io { action: &'static str, source: Arc<io::Error> },
    /// Zeroed space could not be synced.
    Sync(Arc<io::Error>),
}

impl Space {
    /// The space of a file whose bytes up to `end` exist, and are zero where no frame is.
    pub(super) fn existing(file: Arc<dyn File>, end: u64) -> Self {
        Self { file, end, len: end, is_sure: false }
    }

    /// The space of a file that was just made with `end` allocated bytes.
    pub(super) fn fresh(file: Arc<dyn File>, end: u64) -> Self {
        Self { file, end, len: end, is_sure: true }
    }

    /// Makes sure that `len` bytes at `offset`, the end of the log, can be written without
    /// allocating. The last of the space is kept for those who may use the reserve.
    pub(super) fn reserve(
        &mut self,
        offset: u64,
        len: u64,
        may_use_reserve: bool,
        gate: &SyncGate,
    ) -> Result<(), SpaceError> {
        self.make_sure(offset)?;
        let needed = offset.saturating_add(len);
        if needed.saturating_add(RESERVE) <= self.end {
            return Ok(());
        }
        let wanted = needed.saturating_add(RESERVE).next_multiple_of(UNIT);
        let step = self.end.clamp(STEP_MIN, STEP_MAX);
        let large = wanted.max(self.end.saturating_add(step)).next_multiple_of(STEP_MIN);
        match self.grow(large, gate) {
            Err(SpaceError::Full { .. }) => {}
            done => return done,
        }
        match self.grow(wanted, gate) {
            Err(SpaceError::Full { .. }) if may_use_reserve && needed <= self.end => Ok(()),
            Err(SpaceError::Full { .. }) if may_use_reserve => {
                self.grow(needed.next_multiple_of(UNIT), gate)
            }
            done => done,
        }
    }

    /// Takes the reserve behind `offset` again that a [`trim`](Space::trim) has cut off: as much of
    /// it as there was, when the space ended at `before`.
    pub(super) fn take_back(
        &mut self,
        offset: u64,
        before: u64,
        gate: &SyncGate,
    ) -> Result<(), SpaceError> {
        let wanted = before.min(offset.saturating_add(RESERVE).next_multiple_of(UNIT));
        if wanted <= self.end { Ok(()) } else { self.grow(wanted, gate) }
    }

    /// Where the space ends.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Gives the file the length `len`; behind its frames it is zero.
    pub(super) fn trim(&mut self, len: u64) -> io::Result<()> {
        if len == self.len {
            return Ok(());
        }
        // Order: before the call, which may have its effect and fail. No frame is then written
        // where there is no space.
        self.end = self.end.min(len);
        self.file.set_len(len)?;
        self.len = len;
        Ok(())
    }

    /// The length of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills holes in what an earlier handle left, so that a full disk is noticed here and not
    /// when a frame is half written.
    fn make_sure(&mut self, offset: u64) -> Result<(), SpaceError> {
        if self.is_sure || self.end <= offset {
            return Ok(());
        }
        match self.file.allocate(offset, self.end - offset) {
            Ok(()) => self.is_sure = true,
            Err(e) if is_full(&e) => self.end = offset,
            Err(e) => return Err(io_error("allocate space in", e)),
        }
        Ok(())
    }

    fn grow(&mut self, end: u64, gate: &SyncGate) -> Result<(), SpaceError> {
        let from = self.end;
        let failed = |action, e| {
            // Gives back what was allocated of it; without success the file is only longer.
            let _ = self.file.set_len(self.len);
            if is_full(&e) {
                return SpaceError::Full { needed: end - from };
            }
            io_error(action, e)
        };
        let allocated = self.file.allocate(from, end - from);
        allocated.map_err(|e| failed("allocate space in", e))?;
        // Order: the length is durable before anything is written at its end. A part of such a
        // write could otherwise leave the length of a closed log.
        let sync = || gate.sync_space().map_err(SpaceError::Sync);
        sync()?;
        let zeroed = write_zeros(&*self.file, from, end);
        zeroed.map_err(|e| failed("zero the space of", e))?;
        sync()?;
        self.end = end;
        self.len = self.len.max(end);
        Ok(())
    }
}

/// The length of a log whose frames end at `offset`, the last of them the mark of a close: the
/// next number that is no multiple of [`UNIT`].
pub(super) fn closed_len(offset: u64) -> u64 {
    if offset.is_multiple_of(UNIT) { offset + ALIGN } else { offset }
}

/// Overwrites `[from, end)` with zeros, in pieces that end at multiples of [`UNIT`].
pub(super) fn write_zeros(file: &dyn File, from: u64, end: u64) -> io::Result<()> {
    let mut at = from;
    while at < end {
        let piece_end = (at + 1).next_multiple_of(STEP_MIN).min(end);
        let len = usize::try_from(piece_end - at).unwrap_or(ZEROS.len()).min(ZEROS.len());
        let (zeros, _) = ZEROS.split_at(len);
        file.write_all_at(zeros, at)?;
        at += crate::codec::u64_of(len);
    }
    Ok(())
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn io_error(action: &'static str, source: io::Error) -> SpaceError {
    SpaceError::Io { action, source: Arc::new(source) }
}

/// The length of a log in service is a multiple of this, in bytes; that of a closed one is not, so
/// that zeros in the place of its end are told from space that was never used.
pub(crate) const UNIT: u64 = SECTOR;
/// The first space of a log and the smallest step, in bytes.
pub(super) const STEP_MIN: u64 = 64 << 10;
/// The first space of a log on a disk that has no room for more, in bytes: a header, a small
/// frame and the reserve.
pub(crate) const SPACE_MIN: u64 = (4 << 10) + RESERVE;
/// The largest step, in bytes.
const STEP_MAX: u64 = 16 << 20;
/// What is kept for groups that only remove, so that a full disk can be freed, in bytes.
const RESERVE: u64 = 16 << 10;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

//! Free space at the end of a log. It is allocated and synced before a frame is written into it.
//!
//! At the level `Sync` it is also zeroed, and synced again: a sync of a frame then has no blocks to
//! mark as written, which takes time. At the other levels few frames are synced, and allocated
//! space reads as zeros without that.
//!
//! The length of a log in use is a multiple of [`UNIT`]. The length of a closed log is not.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use super::gate::SyncGate;
use crate::frame::{ALIGN, SECTOR};
use crate::storage::Durability;
use crate::vfs::File;

/// The free space at the end of one log.
#[derive(Debug)]
pub(super) struct LogSpace {
    file: Arc<dyn File>,
    /// The end of the allocated space. All bytes between the last frame and this offset are zero.
    end: u64,
    /// The length of the file. It exceeds `end` if the file has holes that a full disk cannot fill.
    len: u64,
    /// Whether this handle allocated the space. The space of an earlier handle may have holes.
    is_sure: bool,
    /// Whether zeros are written into new space.
    writes_zeros: bool,
}

/// The reason for which space could not be provided.
#[derive(Debug)]
pub(super) enum SpaceError {
    /// The disk is full.
    Full { needed: u64 },
    /// A call failed before a frame was written.
    Io { action: &'static str, source: Arc<io::Error> },
    /// The zeroed space could not be synced.
    Sync(Arc<io::Error>),
}

impl LogSpace {
    /// Creates the space of a file whose bytes up to `end` exist, and are zero after the last
    /// frame.
    pub(super) fn existing(file: Arc<dyn File>, end: u64, durability: Durability) -> Self {
        let writes_zeros = durability == Durability::Sync;
        Self { file, end, len: end, is_sure: false, writes_zeros }
    }

    /// Creates the space of a new file with `end` allocated bytes.
    pub(super) fn fresh(file: Arc<dyn File>, end: u64, durability: Durability) -> Self {
        Self { is_sure: true, ..Self::existing(file, end, durability) }
    }

    /// Ensures that `len` bytes at `offset`, the end of the log, can be written without allocating.
    /// The last [`RESERVE`] bytes are used only if `may_use_reserve` is true.
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
        // First a large step, so that most groups find enough space.
        let step = self.end.clamp(STEP_MIN, STEP_MAX);
        let large = wanted.max(self.end.saturating_add(step)).next_multiple_of(STEP_MIN);
        match self.grow(large, gate) {
            Err(SpaceError::Full { .. }) => {}
            done => return done,
        }
        // If the disk is too full for that, only the space for this group and the reserve. If that
        // fails too, a group that may use the reserve takes it, or grows the file by its own
        // length.
        match self.grow(wanted, gate) {
            Err(SpaceError::Full { .. }) if may_use_reserve && needed <= self.end => Ok(()),
            Err(SpaceError::Full { .. }) if may_use_reserve => {
                self.grow(needed.next_multiple_of(UNIT), gate)
            }
            done => done,
        }
    }

    /// Allocates again the reserve after `offset` that a [`trim`](LogSpace::trim) has removed. The
    /// space does not extend beyond `before`, its end before the trim.
    pub(super) fn take_back(
        &mut self,
        offset: u64,
        before: u64,
        gate: &SyncGate,
    ) -> Result<(), SpaceError> {
        let wanted = before.min(offset.saturating_add(RESERVE).next_multiple_of(UNIT));
        if wanted <= self.end { Ok(()) } else { self.grow(wanted, gate) }
    }

    /// Returns the end of the space.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Sets the length of the file to `len`. The bytes after its frames are zero.
    pub(super) fn trim(&mut self, len: u64) -> io::Result<()> {
        if len == self.len {
            return Ok(());
        }
        // Order: `end` is lowered before the call, which may have its effect and still return an
        // error. No frame is then written where there is no space.
        self.end = self.end.min(len);
        self.file.set_len(len)?;
        self.len = len;
        Ok(())
    }

    /// Returns the length of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills the holes in the space of an earlier handle, so that a full disk is detected here and
    /// not in the middle of writing a frame.
    fn make_sure(&mut self, offset: u64) -> Result<(), SpaceError> {
        if self.is_sure || self.end <= offset {
            return Ok(());
        }
        // Allocating a range that exists fills its holes.
        match self.file.allocate(offset, self.end - offset) {
            Ok(()) => self.is_sure = true,
            // The holes cannot be filled, so no frame may be written there.
            Err(e) if is_full(&e) => self.end = offset,
            Err(e) => return Err(io_error("allocate space in", e)),
        }
        Ok(())
    }

    /// Extends the space to `end`: allocates and syncs the length, then writes zeros and syncs them
    /// if the level asks for it.
    fn grow(&mut self, end: u64, gate: &SyncGate) -> Result<(), SpaceError> {
        let from = self.end;
        let failed = |action, e| {
            // Frees the space that was allocated. If this fails too, the file is only longer.
            let _ = self.file.set_len(self.len);
            if is_full(&e) {
                return SpaceError::Full { needed: end - from };
            }
            io_error(action, e)
        };
        let allocated = self.file.allocate(from, end - from);
        allocated.map_err(|e| failed("allocate space in", e))?;
        // Order: the length is durable before anything is written there. A torn write could
        // otherwise leave a file with the length of a closed log.
        let sync = || gate.sync_space().map_err(SpaceError::Sync);
        sync()?;
        if self.writes_zeros {
            let zeroed = write_zeros(&*self.file, from, end);
            zeroed.map_err(|e| failed("zero the space of", e))?;
            // Order: the zeros are durable before `end` allows a frame there.
            sync()?;
        }
        self.end = end;
        self.len = self.len.max(end);
        Ok(())
    }
}

/// Returns the length of a closed log whose frames, with the mark of the close, end at `offset`:
/// the next offset that is not a multiple of [`UNIT`].
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

/// Returns true if `error` means that the disk is full or that a quota is used up.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn io_error(action: &'static str, source: io::Error) -> SpaceError {
    SpaceError::Io { action, source: Arc::new(source) }
}

/// The unit of the length of a log, in bytes. The length of a log in use is a multiple of it. The
/// length of a closed log is not, so that zeros over its end are distinguished from unused space.
pub(crate) const UNIT: u64 = SECTOR;
/// The first space of a log and the minimum step of growth, in bytes.
pub(super) const STEP_MIN: u64 = 64 << 10;
/// The first space of a log if the disk has no room for more, in bytes: a header, a small frame and
/// the reserve.
pub(crate) const SPACE_MIN: u64 = (4 << 10) + RESERVE;
/// The maximum step of growth, in bytes.
pub(super) const STEP_MAX: u64 = 16 << 20;
/// The space that is kept for groups that only remove entries, so that removing is possible on a
/// full disk, in bytes.
const RESERVE: u64 = 16 << 10;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

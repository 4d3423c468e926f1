//! The end of the intact frames: the end of the log, a gap to cross, damage, or a torn write.
//!
//! The five rules are in `docs/FORMAT.md`, section "Reading a log".

use super::read::{LogReader, NextFrame, RESUME_PAYLOAD_MAX};
use super::space::{UNIT, closed_len};
use crate::codec::{is_zero, len_without_zeros, u64_of};
use crate::config::OnDamage;
use crate::error::{Error, Result};
use crate::frame::{ALIGN, FRAME_HEAD, FrameHeader, Parsed, RESUME, SECTOR, padded};

/// The end of a log.
#[derive(Debug)]
pub(super) struct Tail {
    /// The offset after the last nonzero byte, or `None` if only zeros follow the end.
    pub(super) last_nonzero: Option<u64>,
}

impl LogReader {
    /// Decides how the log continues at the end of the intact frames, where `found` is the result
    /// of looking for the next frame. Continues after a gap, records the end of the log, or returns
    /// the error for damage.
    pub(super) fn resolve(&mut self, found: &NextFrame) -> Result<()> {
        let at = self.end.offset;
        let seq = self.end.seq.saturating_add(1);
        // Order: the search for a resume comes before all other rules, since a frame that a
        // recovery wrote after the gap shows that the log was continued there.
        let last_nonzero = self.window.last_nonzero(at)?;
        if let Some(last) = last_nonzero
            && self.cross_or_refuse(at, last)?
        {
            if self.wasted > self.window.file_len().saturating_mul(WASTED_MAX) {
                return Err(self.damaged(at, "the log has more torn frames than crashes can leave"));
            }
            return Ok(());
        }
        // Nothing continues the log here. If another file or the header proves the next commit
        // durable, the commit was lost, and this is damage.
        if self.proven >= seq {
            let what = "a commit is missing that another file continues or the header names";
            return Err(self.damaged(at, what));
        }
        // Only zeros follow, so this is the normal end of a log.
        let Some(last) = last_nonzero else {
            self.refuse_if_closed_further(at)?;
            self.tail = Some(Tail { last_nonzero });
            return Ok(());
        };
        // Bytes follow that are no frame. They may be cut only if a torn write can have left them.
        let is_torn = match found {
            NextFrame::NoHeader => self.is_header_torn(at)?,
            NextFrame::Torn(parsed) => self.is_body_torn(at, last, parsed)?,
            NextFrame::Damage(what) => return Err(self.damaged(at, what)),
            NextFrame::Tampered | NextFrame::Next(_) => {
                return Err(Error::Tampered { path: self.window.path().to_owned(), offset: at });
            }
        };
        self.refuse_if_closed_further(at)?;
        let is_cut = is_torn || self.on_damage == OnDamage::CutTail;
        if !is_cut {
            return Err(Error::TailSuspect {
                path: self.window.path().to_owned(),
                offset: at,
                seq: self.end.seq,
                bytes: last - at,
            });
        }
        self.tail = Some(Tail { last_nonzero });
        Ok(())
    }

    /// Returns `Damaged` if the length of the file is the one of a closed log, and the last frame,
    /// which ends at `at`, is not the mark of that close.
    fn refuse_if_closed_further(&self, at: u64) -> Result<()> {
        let len = self.window.file_len();
        // The length of an open log is a multiple of the unit. A close cuts the file to a length
        // that is not.
        let is_in_service = len.is_multiple_of(UNIT);
        if is_in_service || self.end.closed && closed_len(at) == len {
            return Ok(());
        }
        Err(self.damaged(at, "the log has the length of a closed one, but its end is missing"))
    }

    /// Searches after `at` for a resume frame that continues the log there, and returns true if
    /// there is one. Returns `Damaged` if a later frame proves the next commit durable.
    fn cross_or_refuse(&mut self, at: u64, last: u64) -> Result<bool> {
        let seq = self.end.seq.saturating_add(1);
        let mut offset = at + ALIGN;
        while offset < last {
            if let Some(parsed) = self.parse(offset)? {
                if self.try_resume(offset, &parsed)? {
                    return Ok(true);
                }
                // The header alone is proof, because its checksum covers `durable` and its place.
                if parsed.header.durable >= seq {
                    let what = "a commit that a later frame proves durable is not intact";
                    return Err(self.damaged(at, what));
                }
            }
            offset += ALIGN;
        }
        Ok(false)
    }

    /// Returns whether the header at `at` was written only partly: from some byte of it to the end
    /// of its sector there are zeros.
    fn is_header_torn(&mut self, at: u64) -> Result<bool> {
        let last_byte = at + u64_of(FRAME_HEAD) - 1;
        let len = sector_end(at) - last_byte;
        // A disk writes a sector whole or a prefix of it. So if only a part of the header arrived,
        // its last byte and the rest of the sector are zero.
        let bytes = self.window.bytes(last_byte, usize::try_from(len).unwrap_or(0))?;
        Ok(is_zero(bytes))
    }

    /// Returns whether a sector of the frame was not written, or only partly. If the frame is not
    /// lazy, nothing was written after it before its sync, so nothing but torn resumes may follow
    /// it.
    fn is_body_torn(&mut self, at: u64, last: u64, parsed: &Parsed) -> Result<bool> {
        let header = &parsed.header;
        let end = at.saturating_add(header.len());
        let has_torn_sector = end > self.window.file_len() || self.ends_in_zero(at, end)?;
        if !has_torn_sector || header.is_lazy() {
            return Ok(has_torn_sector);
        }
        self.only_torn_resumes(at.saturating_add(padded(header.len())), last)
    }

    /// Returns whether a sector of `[at, end)` ends in a zero byte.
    fn ends_in_zero(&mut self, at: u64, end: u64) -> Result<bool> {
        let mut sector = sector_end(at);
        while sector < end {
            if is_zero(self.window.bytes(sector - 1, 1)?) {
                return Ok(true);
            }
            sector += SECTOR;
        }
        Ok(is_zero(self.window.bytes(end - 1, 1)?))
    }

    /// Returns whether `[from, last)` contains nothing except resume frames of recoveries that were
    /// interrupted while they wrote them.
    fn only_torn_resumes(&mut self, from: u64, last: u64) -> Result<bool> {
        let resume = FrameHeader {
            kind: RESUME,
            flags: 0,
            seq: self.end.seq.saturating_add(1),
            durable: self.end.seq,
            epoch: [0; 8],
            counter: 0,
            previous: self.end.chain,
            batches: 0,
            payload_len: 0,
        };
        // Each sector must be zero, or begin with a prefix of the resume frame.
        let mut at = from;
        while at < last {
            let len = usize::try_from(sector_end(at) - at).unwrap_or(0);
            let bytes = self.window.bytes(at, len)?;
            if !is_zero(bytes) && (!at.is_multiple_of(SECTOR) || !begins_like(bytes, &resume)) {
                return Ok(false);
            }
            at = sector_end(at);
        }
        Ok(true)
    }
}

/// The number of times that the length of the file may be read for torn frames which recoveries
/// have left out. This keeps reading linear for any lengths in these frames.
const WASTED_MAX: u64 = 64;

/// Returns whether a sector contains a prefix of a resume frame with these fields, and then zeros.
/// Flags, epoch, counter and length are ignored, because each recovery has its own.
fn begins_like(sector: &[u8], resume: &FrameHeader) -> bool {
    let used = len_without_zeros(sector);
    let longest = FRAME_HEAD + usize::try_from(RESUME_PAYLOAD_MAX).unwrap_or(0) + 1;
    let expected = resume.prefix();
    let known = sector.iter().zip(&expected).take(used).enumerate();
    used <= longest
        && known
            .filter(|(at, _)| !matches!(at, 5 | 24..40 | 52..))
            .all(|(_, (byte, expected))| byte == expected)
}

/// Returns the end of the sector that contains `offset`.
fn sector_end(offset: u64) -> u64 {
    (offset / SECTOR).saturating_add(1).saturating_mul(SECTOR)
}

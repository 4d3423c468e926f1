//! Preparing a log that was read for further writes.
//!
//! The steps, and why they are safe, are in `docs/FORMAT.md`, section "Recovery for writing".

use std::sync::Arc;

use super::read::LogState;
use super::segment::LogPlace;
use super::space::LogSpace;
use super::write::LogWriter;
use crate::error::{Error, Result};
use crate::frame::{RESUME, SECTOR};
use crate::header::Header;
use crate::vfs::{File, in_pieces};

/// Makes all commits that were read durable. The other steps that the log needs before it can
/// continue are left to the first write, so that opening the log changes nothing and needs no
/// space.
///
/// # Errors
/// `Io` if a frame cannot be written again or synced. No durable commit is lost, and the caller can
/// open the log again.
pub(crate) fn recover(
    place: LogPlace,
    file: Arc<dyn File>,
    header: &Header,
    state: &LogState,
) -> Result<LogWriter> {
    let mut deferred = Deferred {
        unproven: state.unproven.clone(),
        resume: state.tail_end.map(|end| end.next_multiple_of(SECTOR)),
    };
    // Order: rewrite, sync, then return the writer. A reader may show the commits to its caller as
    // soon as this function returns, so they must survive a power cut.
    if state.durable < state.end.seq {
        rewrite(&place, &*file, &deferred.unproven)?;
        file.sync().map_err(|e| Error::io("sync", &place.path(), e))?;
        deferred.unproven.clear();
    }
    let space = LogSpace::existing(Arc::clone(&file), state.file_len, place.durability);
    let mut writer = LogWriter::new(place, file, header, state.end, space);
    writer.deferred = deferred;
    Ok(writer)
}

/// The steps that recovery leaves to the first write.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    /// Runs of frames that no later frame proves durable. They contain no commit, but the next
    /// frame chains to them.
    unproven: Vec<(u64, u64)>,
    /// The offset at which the log continues after a torn tail.
    resume: Option<u64>,
}

impl LogWriter {
    /// Carries out the deferred steps of recovery before the first write.
    ///
    /// # Errors
    /// `NoSpace` or `Io` if a step fails: the next write tries again. `InDoubt` if a sync fails,
    /// after which the log refuses writes.
    pub(super) fn begin_writing(&mut self) -> Result<()> {
        // Order: the frames before the resume. The resume chains to them, so they must be durable
        // first.
        if !self.deferred.unproven.is_empty() {
            rewrite(&self.place, &*self.file, &self.deferred.unproven)?;
            self.gate.sync().map_err(|e| self.in_doubt(self.end.seq + 1, e))?;
            self.deferred.unproven.clear();
        }
        if let Some(offset) = self.deferred.resume {
            self.resume_at(offset)?;
            // Order: cleared only after the frame is written, so that a failed write leaves the
            // step to the next attempt.
            self.deferred.resume = None;
        }
        Ok(())
    }

    /// Writes a resume frame at `offset`, after the torn tail in `[end, offset)`.
    fn resume_at(&mut self, offset: u64) -> Result<()> {
        let before = self.end.offset;
        // The frame contains the end that it continues, which a reader compares with its own.
        let named = [before, self.end.seq, self.end.chain].map(u64::to_le_bytes);
        let mut buf = self.control_buffer(&named.concat());
        self.end.offset = offset;
        self.frame(RESUME, 0, 0, &mut buf, true).inspect_err(|_| self.end.offset = before)
    }
}

/// Writes the frames that are not proven durable again, with the same bytes. After a failed sync
/// the page cache may show bytes which the disk does not have. Such pages are clean, so a sync
/// alone would never write them.
fn rewrite(place: &LogPlace, file: &dyn File, runs: &[(u64, u64)]) -> Result<()> {
    let io = |action, e| Error::io(action, &place.path(), e);
    runs.iter().try_for_each(|&(offset, len)| {
        in_pieces(offset..offset + len, |piece, at| {
            file.read_exact_at(piece, at).map_err(|e| io("read", e))?;
            file.write_all_at(piece, at).map_err(|e| io("write the last frames of", e))
        })
    })
}

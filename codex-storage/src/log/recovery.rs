//! Making a log that was read ready to be continued.
//!
//! The steps and why they are safe are `docs/FORMAT.md`, section "Recovery for writing".

use std::sync::Arc;

use super::read::LogState;
use super::segment::LogPlace;
use super::space::Space;
use super::write::LogWriter;
use crate::error::{Error, Result};
use crate::frame::{RESUME, SECTOR};
use crate::header::Header;
use crate::vfs::{File, in_pieces};

/// Makes all commits that were read durable. The rest that the log needs before it is continued is
/// left to its first write, so that opening it changes nothing and needs no space.
///
/// # Errors
/// `Io`: nothing that was durable is lost; opening again tries again.
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
    if state.durable < state.end.seq {
        rewrite(&place, &*file, &deferred.unproven)?;
        file.sync().map_err(|e| Error::io("sync", &place.path(), e))?;
        deferred.unproven.clear();
    }
    let space = Space::existing(Arc::clone(&file), state.file_len);
    let mut writer = LogWriter::new(place, file, header, state.end, space);
    writer.deferred = deferred;
    Ok(writer)
}

/// What recovery leaves to the first write.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    /// Runs of frames that nothing proves durable. They hold no commit, but the next frame chains
    /// to them.
    unproven: Vec<(u64, u64)>,
    /// Where the log goes on behind a torn tail.
    resume: Option<u64>,
}

impl LogWriter {
    /// Does what recovery has left to do before the first write.
    ///
    /// # Errors
    /// `NoSpace`, `Io`: the next write tries again; `InDoubt`, which poisons.
    pub(super) fn begin_writing(&mut self) -> Result<()> {
        if !self.deferred.unproven.is_empty() {
            rewrite(&self.place, &*self.file, &self.deferred.unproven)?;
            self.gate.sync().map_err(|e| self.in_doubt(self.end.seq + 1, e))?;
            self.deferred.unproven.clear();
        }
        if let Some(offset) = self.deferred.resume {
            self.resume_at(offset)?;
            self.deferred.resume = None;
        }
        Ok(())
    }

    /// Marks the place behind a tail, `[end, offset)`, where the log goes on.
    fn resume_at(&mut self, offset: u64) -> Result<()> {
        let before = self.end.offset;
        let named = [before, self.end.seq, self.end.chain].map(u64::to_le_bytes);
        let mut buf = self.control_buffer(&named.concat());
        self.end.offset = offset;
        self.frame(RESUME, 0, 0, &mut buf, true).inspect_err(|_| self.end.offset = before)
    }
}

/// Writes the frames that nothing proves durable once more with the same bytes: the cache may
/// show what a failed sync has lost, clean and never to be written by a sync alone.
fn rewrite(place: &LogPlace, file: &dyn File, runs: &[(u64, u64)]) -> Result<()> {
    let io = |action, e| Error::io(action, &place.path(), e);
    runs.iter().try_for_each(|&(offset, len)| {
        in_pieces(offset..offset + len, |piece, at| {
            file.read_exact_at(piece, at).map_err(|e| io("read", e))?;
            file.write_all_at(piece, at).map_err(|e| io("write the last frames of", e))
        })
    })
}

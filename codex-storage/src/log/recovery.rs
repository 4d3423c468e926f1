//! Making a log that was read ready to be continued.
//!
//! The steps and why they are safe are `docs/FORMAT.md`, section "Recovery for writing".

use std::sync::Arc;

use super::read::LogState;
use super::segment::LogPlace;
use super::space::Space;
use super::write::LogWriter;
use crate::codec::u64_of;
use crate::error::{Error, Result};
use crate::frame::SECTOR;
use crate::header::Header;
use crate::vfs::File;

/// Makes everything that was read durable, and marks the place behind a torn tail.
///
/// # Errors
/// `Io`, `InDoubt`, `NoSpace`: nothing that was durable is lost; opening again tries again.
pub(crate) fn recover(
    place: LogPlace,
    file: Arc<dyn File>,
    header: &Header,
    state: &LogState,
) -> Result<LogWriter> {
    rewrite(&place, &*file, state)?;
    let resume = state.tail_end.map(|end| end.next_multiple_of(SECTOR));
    let space = Space::existing(Arc::clone(&file), state.file_len);
    let mut writer = LogWriter::new(place, file, header, state.end, space);
    if let Some(offset) = resume {
        writer.resume_at(offset)?;
    }
    Ok(writer)
}

/// Writes the frames that nothing proves durable once more with the same bytes: the cache may
/// show what a failed sync has lost, clean and never to be written by a sync alone.
fn rewrite(place: &LogPlace, file: &dyn File, state: &LogState) -> Result<()> {
    let io = |action, e| Error::io(action, &place.path(), e);
    let mut buf = Vec::new();
    for &(offset, len) in &state.unproven {
        let mut at = offset;
        while at < offset + len {
            let piece = usize::try_from(offset + len - at).unwrap_or(PIECE).min(PIECE);
            buf.resize(piece, 0);
            file.read_exact_at(&mut buf, at).map_err(|e| io("read", e))?;
            if !cfg!(codex_mutant = "skip_rewrite") {
                file.write_all_at(&buf, at).map_err(|e| io("write the last frames of", e))?;
            }
            at += u64_of(piece);
        }
    }
    if state.unproven.is_empty() {
        return Ok(());
    }
    file.sync().map_err(|e| io("sync", e))
}

/// How much is written again at a time, in bytes.
const PIECE: usize = 256 << 10;

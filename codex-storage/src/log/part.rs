//! The durable bytes of a log, for a copy of it in another place.

use std::sync::Arc;

use super::LogEnd;
use super::write::LogWriter;
use crate::header::Header;
use crate::storage::LogPart;
use crate::vfs::File;

impl LogPart {
    /// Returns the part of the log in `file`, whose header is `header`, up to `end`.
    pub(crate) fn new(header: &Header, file: Arc<dyn File>, end: &LogEnd) -> Self {
        // A rekeyed segment names the segment whose commits it has under another key, and does not
        // continue it.
        let is_first = header.is_ledger() || header.is_rekeyed();
        Self {
            file,
            file_id: header.file_id,
            follows: if is_first { [0; 16] } else { header.neighbour },
            base_seq: header.base_seq,
            end: end.offset,
            seq: end.seq,
        }
    }
}

impl LogWriter {
    /// Returns the part of this log, whose header is `header`, up to its last frame.
    pub(crate) fn part(&self, header: &Header) -> LogPart {
        LogPart::new(header, Arc::clone(&self.file), &self.end)
    }
}

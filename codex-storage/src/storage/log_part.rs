//! A log that continues an image, for a copy of it in another place.

use std::sync::Arc;

use crate::batch::Seq;
use crate::vfs::File;

/// The beginning of an open log up to a commit: of a segment of a Wal, or of a ledger.
///
/// The file stays readable when its name is removed. Its bytes before [`end`](Self::end) do not
/// change any more.
#[derive(Debug, Clone)]
pub struct LogPart {
    /// The file.
    pub file: Arc<dyn File>,
    /// The id of the file.
    pub file_id: [u8; 16],
    /// The id of the segment that this one continues. Zeros in a ledger, and in a segment that only
    /// an image comes before.
    pub follows: [u8; 16],
    /// The last commit before the log.
    pub base_seq: Seq,
    /// The offset after the last frame of the part.
    pub end: u64,
    /// The last commit of the part.
    pub seq: Seq,
}

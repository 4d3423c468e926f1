//! Places in a log, to which a reader can go back.

use std::sync::Arc;

use super::LogEnd;
use super::read::{EpochId, LogReader};
use crate::seal::Opener;

/// A place at which a reader of a log was: the end of a frame, and the key epoch after it.
#[derive(Debug, Clone)]
pub(crate) struct ReadPlace {
    end: LogEnd,
    opener: Option<(EpochId, Arc<dyn Opener>)>,
}

impl ReadPlace {
    /// Returns the offset of the next frame.
    pub(crate) fn offset(&self) -> u64 {
        self.end.offset
    }
}

impl LogReader {
    /// Returns the place after the last group that [`LogReader::next`] returned.
    pub(crate) fn place(&self) -> ReadPlace {
        ReadPlace { end: self.end, opener: self.opener.clone() }
    }

    /// Goes to a place at which a reader of the same log was.
    pub(crate) fn go_to(&mut self, place: &ReadPlace) {
        self.end = place.end;
        self.opener.clone_from(&place.opener);
        (self.tail, self.wasted) = (None, 0);
    }
}

//! The log: a header, then one frame for each commit group. The forms Wal and Ledger use it.
//!
//! [`LogWriter`] makes a log and appends to it. [`LogReader`] reads a log and distinguishes a torn
//! tail from damage. [`recover`] prepares a log that was read for further writes.

mod close;
mod copy;
mod epoch;
mod gate;
mod group;
mod live;
mod part;
mod place;
mod read;
mod recovery;
mod segment;
mod space;
mod tail;
mod unproven;
mod window;
mod write;

pub(crate) use copy::{LogCopy, SharedLogCopy, not_as_written, of_the_copy};
pub(crate) use group::{CommitRef, GroupRef};
pub(crate) use place::ReadPlace;
pub(crate) use read::{LogReader, LogState};
pub(crate) use recovery::recover;
pub(crate) use segment::{LogPlace, NewLog};
pub(crate) use space::{SPACE_MIN, UNIT, is_full};
pub(crate) use write::LogWriter;

use crate::batch::{Layout, Seq};
use crate::digest::{HistoryDigest, STAMP_LEN};
use crate::frame::{FRAME_HEAD, LogId, SALT_LEN};
use crate::header::{BODY_OFFSET, Header};
use crate::seal::TAG_LEN;
use crate::storage::Form;

/// The end of a log, which the next frame, or the header of the next segment, continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogEnd {
    /// The offset of the next frame.
    pub(crate) offset: u64,
    /// The number of the last commit.
    pub(crate) seq: Seq,
    /// The chain value of the last frame.
    pub(crate) chain: u64,
    /// The tag of the last sealed frame; zero in a plain store.
    pub(crate) tag: [u8; TAG_LEN],
    /// The history digest after the last commit.
    pub(crate) digest: HistoryDigest,
    /// The time of the last commit of a ledger, else `i64::MIN`.
    pub(crate) time_us: i64,
    /// Whether the last frame is the mark of a clean close.
    pub(crate) closed: bool,
}

impl LogEnd {
    /// Returns the end of a log that has no frames yet.
    pub(crate) fn base(header: &Header) -> Self {
        Self {
            offset: BODY_OFFSET,
            seq: header.base_seq,
            chain: header.base_chain,
            tag: header.base_tag,
            digest: header.base_digest,
            time_us: i64::MIN,
            closed: false,
        }
    }

    /// Fills in the base of `header`, so that the next segment continues this log, which has the id
    /// `log`, at the end of a history with the digest `digest`.
    pub(crate) fn continue_in(&self, header: &mut Header, log: &LogId, digest: HistoryDigest) {
        header.base_seq = self.seq;
        header.base_chain = self.chain;
        header.base_tag = self.tag;
        header.base_digest = digest;
        header.neighbour = log.file_id;
    }
}

/// The counts of a writer since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LogCounts {
    /// Commit groups.
    pub(crate) groups: u64,
    /// Successful syncs of frames.
    pub(crate) syncs: u64,
}

impl LogCounts {
    /// Adds the counts of another writer.
    pub(crate) fn add(&mut self, other: Self) {
        self.groups += other.groups;
        self.syncs += other.syncs;
    }
}

/// Returns the room that a group needs around its payload, so that its buffer can become the frame.
///
/// If the store is encrypted, the room before the group includes the salt of its epoch. The header
/// of a frame without a salt begins after that room.
pub(crate) fn layout(form: Form, sealed: bool) -> Layout {
    Layout {
        head: if sealed { FRAME_HEAD + SALT_LEN } else { FRAME_HEAD },
        batch_extra: batch_extra(form),
    }
}

/// Returns the number of bytes between the lengths and the records of a batch.
pub(crate) fn batch_extra(form: Form) -> usize {
    if form == Form::Ledger { STAMP_LEN } else { 0 }
}

#[cfg(test)]
#[cfg(feature = "fault")]
mod tests;

//! A group of a log, in the form in which the reader passes it on.

// The numbers of a group come from files.
#![warn(clippy::arithmetic_side_effects)]

use std::path::Path;

use super::{LogEnd, batch_extra};
use crate::batch::{BatchRef, Batches, Op, Seq};
use crate::digest::{HistoryDigest, Stamp, of_commit};
use crate::error::{Error, RecordError, Result};
use crate::frame::FrameHeader;
use crate::history;
use crate::storage::Form;

/// One group of a log.
pub(crate) struct GroupRef<'a> {
    /// The seq of its first commit.
    pub(crate) first: Seq,
    /// The number of its commits.
    pub(crate) count: u32,
    /// The offset of its frame.
    pub(crate) offset: u64,
    /// The history digest after its last commit.
    pub(crate) digest: HistoryDigest,
    /// Its batches.
    pub(crate) payload: &'a [u8],
    pub(super) batch_extra: usize,
    pub(crate) path: &'a Path,
}

impl GroupRef<'_> {
    /// Calls `sink` with each operation of each commit, in order.
    ///
    /// # Errors
    /// `Record` if this build does not know a record; `Damaged` if a record is malformed; any error
    /// of `sink`.
    pub(crate) fn for_each(&self, sink: &mut dyn FnMut(Op<'_>) -> Result<()>) -> Result<()> {
        self.for_each_commit(&mut |commit| {
            for op in commit.batch.ops() {
                sink(op.map_err(|e| record_error(self.path, self.offset, e))?)?;
            }
            Ok(())
        })
    }

    /// Returns the group without the first commit that `includes` does not accept and those after
    /// it. The digest stays that of the whole group.
    pub(crate) fn upto(&self, mut includes: impl FnMut(CommitRef<'_>) -> bool) -> Result<Self> {
        let (mut count, mut len, mut is_over) = (0_u32, 0_usize, false);
        self.for_each_commit(&mut |commit| {
            is_over = is_over || !includes(commit);
            if !is_over {
                count = count.saturating_add(1);
                len = len.saturating_add(commit.batch.encoded_len());
            }
            Ok(())
        })?;
        let payload = self.payload.get(..len).unwrap_or_default();
        Ok(Self { count, payload, ..*self })
    }

    /// Calls `sink` with each commit, in order.
    pub(crate) fn for_each_commit(
        &self,
        sink: &mut dyn FnMut(CommitRef<'_>) -> Result<()>,
    ) -> Result<()> {
        let batches = Batches::new(self.payload, self.batch_extra);
        for (seq, batch) in (self.first..).zip(batches) {
            let batch = batch.map_err(|e| record_error(self.path, self.offset, e))?;
            sink(CommitRef { seq, batch })?;
        }
        Ok(())
    }
}

/// One commit of a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommitRef<'a> {
    pub(crate) seq: Seq,
    pub(crate) batch: BatchRef<'a>,
}

/// Checks the batches of a group. Returns the history digest and the time after its last commit, or
/// the check that failed.
pub(super) fn check_group(
    payload: &[u8],
    form: Form,
    header: &FrameHeader,
    before: &LogEnd,
) -> Result<(HistoryDigest, i64), &'static str> {
    let mut end = (before.digest, before.time_us);
    let mut count = 0_u32;
    for batch in Batches::new(payload, batch_extra(form)) {
        let batch = batch.map_err(|_| "a batch runs past its group")?;
        // In a ledger each commit carries its own digest and time, which continue those before it.
        if form == Form::Ledger {
            let stamp = Stamp::read(batch.extra);
            let seq = header.seq.saturating_add(u64::from(count));
            let digest = of_commit(&end.0, seq, stamp.time_us, batch.count(), batch.records);
            if stamp.digest != digest {
                return Err("the history digest of a commit does not match");
            }
            if stamp.time_us < end.1 {
                return Err("the times of the commits run backwards");
            }
            end = (digest, stamp.time_us);
        }
        count = count.saturating_add(1);
    }
    if count != header.batches {
        return Err("a group has another number of commits than its header declares");
    }
    // In the other forms the digest is computed over the whole group.
    if form != Form::Ledger {
        end.0 = history::extend(&before.digest, header.seq, count, payload);
    }
    Ok(end)
}

/// Returns the error of a record that cannot be read: damage if the record is malformed, otherwise
/// `Record`, because a newer build may have written it.
fn record_error(path: &Path, offset: u64, source: RecordError) -> Error {
    let path = path.to_owned();
    match source {
        RecordError::Malformed(what) => Error::Damaged { path, offset, what },
        source => Error::Record { path, source },
    }
}

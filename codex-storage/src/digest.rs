//! The history digest of a ledger: SHA-256, chained over its commits and stored in each of them.
//!
//! The input of the hash is in `docs/FORMAT.md`, section "History digest".

use sha2::{Digest, Sha256};

use crate::batch::{BATCH_HEAD, Group, Seq};
use crate::codec::{Fields, put};

/// The SHA-256 of a history.
pub(crate) type HistoryDigest = [u8; 32];

/// Returns the digest after one commit of a ledger.
pub(crate) fn of_commit(
    before: &HistoryDigest,
    seq: Seq,
    time_us: i64,
    count: u32,
    records: &[u8],
) -> HistoryDigest {
    let mut sha = Sha256::new();
    sha.update(b"codexdb ledger 1");
    sha.update(before);
    sha.update(seq.to_le_bytes());
    sha.update(time_us.to_le_bytes());
    sha.update(count.to_le_bytes());
    sha.update(records);
    sha.finalize().into()
}

/// The bytes between the lengths and the records of a batch of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The time of the commit, in microseconds since 1970 (UTC).
    pub(crate) time_us: i64,
    /// The digest of the history up to this commit.
    pub(crate) digest: HistoryDigest,
}

impl Stamp {
    /// Reads the stamp from the extra bytes of a batch.
    pub(crate) fn read(extra: &[u8]) -> Self {
        let mut fields = Fields::new(extra);
        Self { time_us: fields.i64(), digest: fields.array() }
    }
}

/// Writes time and digest into each batch of `group`, whose first batch is commit `first`. Returns
/// the digest after the last batch.
///
/// # Panics
/// If a batch has no room for them, because the group was laid out for another form.
#[expect(clippy::indexing_slicing, reason = "a group ends with its last batch")]
pub(crate) fn stamp(
    group: &mut Group,
    before: &HistoryDigest,
    first: Seq,
    time_us: i64,
) -> HistoryDigest {
    // Each digest is the input of the next one, so the batches are stamped in the order of commits.
    let mut digest = *before;
    let ends = group.ends().to_vec();
    let len = group.len();
    let mut start = group.buffer_mut().len() - len;
    for (seq, end) in (first..).zip(ends) {
        digest = stamp_batch(&mut group.buffer_mut()[start..end], &digest, seq, time_us);
        start = end;
    }
    digest
}

/// Stamps one batch, and returns the digest after it.
#[expect(clippy::indexing_slicing, reason = "a batch begins with its head")]
fn stamp_batch(batch: &mut [u8], before: &HistoryDigest, seq: Seq, time_us: i64) -> HistoryDigest {
    let count = Fields::new(batch).u32();
    let (stamp, records) = batch[BATCH_HEAD..].split_at_mut(STAMP_LEN);
    let digest = of_commit(before, seq, time_us, count, records);
    put(stamp, 0, time_us.to_le_bytes());
    put(stamp, 8, digest);
    digest
}

/// The length of time and digest, in bytes.
pub(crate) const STAMP_LEN: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Batches, Layout, Op};

    #[test]
    #[should_panic(expected = "mid > len")]
    fn a_batch_without_room_for_its_stamp_stops_the_writer() {
        let mut group = Group::new(Layout { head: 64, batch_extra: 0 });
        group.push(Op::set(b"a", b"value")).unwrap();
        group.finish();
        stamp(&mut group, &[1; 32], 5, 99);
    }

    #[test]
    fn a_stamp_is_read_back_and_chains_over_every_field() {
        let mut group = Group::new(Layout { head: 64, batch_extra: STAMP_LEN });
        for key in [b"a", b"b"] {
            group.push(Op::set(key, b"value")).unwrap();
            group.finish();
        }
        let last = stamp(&mut group, &[1; 32], 5, 99);
        let batches = Batches::new(group.payload(), STAMP_LEN).map(Result::unwrap);
        let mut digest = [1; 32];
        for (seq, batch) in (5..).zip(batches) {
            let stamp = Stamp::read(batch.extra);
            digest = of_commit(&digest, seq, 99, 1, batch.records);
            assert_eq!(stamp, Stamp { time_us: 99, digest });
        }
        assert_eq!(last, digest);
        let base = of_commit(&[1; 32], 5, 99, 1, b"records");
        assert_ne!(base, of_commit(&[2; 32], 5, 99, 1, b"records"));
        assert_ne!(base, of_commit(&[1; 32], 6, 99, 1, b"records"));
        assert_ne!(base, of_commit(&[1; 32], 5, 98, 1, b"records"));
        assert_ne!(base, of_commit(&[1; 32], 5, 99, 2, b"records"));
        assert_ne!(base, of_commit(&[1; 32], 5, 99, 1, b"record"));
    }
}

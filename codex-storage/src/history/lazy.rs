//! The history digest of a Wal, which is computed after its commits.
//!
//! A Wal needs the digest for the base of a segment or an image, and for an anchor, and not for a
//! commit. SHA-256 takes as long as the write of the same bytes into the page cache, so the writer
//! keeps the plaintext of its groups, and another thread computes the digest of many of them.

use std::fmt;
use std::mem;
use std::sync::Arc;

use super::extend;
use crate::batch::Seq;
use crate::digest::HistoryDigest;
use crate::sync::thread::{self, JoinHandle};

/// The digest of a history to which groups are added.
pub(crate) struct LazyDigest {
    /// The digest of the history before the groups of the job and those after them.
    digest: HistoryDigest,
    job: Option<Job>,
    groups: Groups,
    /// The number of the groups that are part of the history. There may be one more, whose commit
    /// was begun.
    confirmed: usize,
    /// The digest after the group whose commit was begun, if it was too long to be kept.
    noted: Option<HistoryDigest>,
    /// The buffers of the last job.
    spare: Groups,
}

/// A thread that computes the digest after some groups.
struct Job {
    thread: JoinHandle<HistoryDigest>,
    groups: Arc<Groups>,
}

/// Groups, one after another.
#[derive(Default)]
struct Groups {
    /// The plaintext of the batches of all groups.
    bytes: Vec<u8>,
    marks: Vec<Mark>,
}

/// One of the groups.
struct Mark {
    /// The number of its first commit.
    first: Seq,
    batches: u32,
    /// Where its plaintext ends.
    end: usize,
}

impl LazyDigest {
    /// Returns the digest of a history with the digest `digest`.
    pub(crate) fn new(digest: HistoryDigest) -> Self {
        let (groups, spare) = Default::default();
        Self { digest, job: None, groups, confirmed: 0, noted: None, spare }
    }

    /// Notes the group that a commit is about to write: `batches` commits from `first` on, with
    /// the plaintext `payload`. It becomes part of the history if it is confirmed before the next
    /// one is noted. A group without a commit is none.
    pub(crate) fn note(&mut self, first: Seq, batches: u32, payload: &[u8]) {
        // Order: a group that was not confirmed has failed, and the next one takes its place.
        self.forget();
        if batches == 0 {
            return;
        }
        if payload.len() > KEPT_MAX {
            self.noted = Some(extend(&self.settle(), first, batches, payload));
        } else {
            self.groups.push(first, batches, payload);
        }
    }

    /// Makes the group that was noted last part of the history.
    pub(crate) fn confirm(&mut self) {
        if let Some(digest) = self.noted.take() {
            self.digest = digest;
        }
        self.confirmed = self.groups.marks.len();
        let len = self.groups.bytes.len();
        let is_running = self.job.as_ref().is_some_and(Job::is_running);
        // A job that still runs gets more time, until too much is kept.
        if len >= if is_running { KEPT_MAX } else { JOB_LEN } {
            self.begin_job();
        }
    }

    /// Returns the digest of the history, after all groups that were confirmed.
    pub(crate) fn settle(&mut self) -> HistoryDigest {
        self.forget();
        self.end_job();
        self.digest = self.groups.extend(&self.digest);
        self.groups.clear();
        self.confirmed = 0;
        self.digest
    }

    /// Removes the group that was noted and not confirmed.
    fn forget(&mut self) {
        self.noted = None;
        self.groups.truncate(self.confirmed);
    }

    fn begin_job(&mut self) {
        self.end_job();
        let groups = Arc::new(mem::replace(&mut self.groups, mem::take(&mut self.spare)));
        self.confirmed = 0;
        let (before, of_job) = (self.digest, Arc::clone(&groups));
        match thread::spawn("codexdb-digest", move || of_job.extend(&before)) {
            Ok(thread) => self.job = Some(Job { thread, groups }),
            // The system has no thread to give.
            Err(_) => self.digest = groups.extend(&before),
        }
    }

    /// Waits for the job, if there is one.
    fn end_job(&mut self) {
        let Some(Job { thread, groups }) = self.job.take() else { return };
        self.digest = thread.join().unwrap_or_else(|_| groups.extend(&self.digest));
        if let Some(mut groups) = Arc::into_inner(groups) {
            groups.clear();
            self.spare = groups;
        }
    }
}

/// No thread of a store outlives it.
impl Drop for LazyDigest {
    fn drop(&mut self) {
        self.end_job();
    }
}

impl Job {
    /// Returns false after the thread has dropped its groups.
    fn is_running(&self) -> bool {
        Arc::strong_count(&self.groups) > 1
    }
}

impl Groups {
    fn push(&mut self, first: Seq, batches: u32, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
        self.marks.push(Mark { first, batches, end: self.bytes.len() });
    }

    /// Keeps the first `count` groups.
    fn truncate(&mut self, count: usize) {
        self.marks.truncate(count);
        self.bytes.truncate(self.marks.last().map_or(0, |last| last.end));
    }

    /// Empties the buffers. A buffer for one long group is not kept.
    fn clear(&mut self) {
        self.truncate(0);
        self.bytes.shrink_to(2 * JOB_LEN);
    }

    /// Returns the digest after these groups of a history with the digest `before`.
    #[expect(clippy::indexing_slicing, reason = "the marks ascend up to the length of the bytes")]
    fn extend(&self, before: &HistoryDigest) -> HistoryDigest {
        let (mut digest, mut start) = (*before, 0);
        for &Mark { first, batches, end } in &self.marks {
            digest = extend(&digest, first, batches, &self.bytes[start..end]);
            start = end;
        }
        digest
    }
}

impl fmt::Debug for LazyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyDigest").field("groups", &self.confirmed).finish_non_exhaustive()
    }
}

/// The length of the groups from which on another thread computes their digest, in bytes: about
/// 0.2 ms of SHA-256 with the instructions for it, beside 20 us for the start of a thread.
const JOB_LEN: usize = 256 << 10;
/// The length of the groups that are kept beside those of a job, in bytes. The writer waits for the
/// job if there are more, and computes the digest of a longer group itself.
const KEPT_MAX: usize = 4 << 20;

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    /// Adds groups of the lengths `lens` to a lazy digest, each after a group that fails, and
    /// compares it with the digest that is computed at once, after every `each` groups.
    fn compare(lens: &[usize], each: usize) {
        let mut lazy = LazyDigest::new([7; 32]);
        let (mut digest, mut seq) = ([7; 32], 41);
        for (number, &len) in lens.iter().enumerate() {
            lazy.note(seq + 1, 1, b"a group that is not written");
            let payload = vec![u8::try_from(number % 251).unwrap(); len];
            let batches = u32::try_from(number % 5 + 1).unwrap();
            lazy.note(seq + 1, batches, &payload);
            lazy.confirm();
            digest = extend(&digest, seq + 1, batches, &payload);
            seq += u64::from(batches);
            if number % each == each - 1 {
                assert_eq!(
                    lazy.settle(),
                    digest,
                    "after group {number} of {} bytes",
                    payload.len()
                );
            }
        }
        lazy.note(seq + 1, 1, b"another one");
        assert_eq!(lazy.settle(), digest, "after the last group");
        assert_eq!(lazy.settle(), digest, "nothing is added twice");
    }

    #[test]
    fn the_digest_is_that_of_all_confirmed_groups_in_their_order() {
        compare(&[], 1);
        for each in [1, 3, 1_000] {
            compare(&[100; 20], each);
            compare(&[JOB_LEN / 3; 40], each);
            compare(
                &[JOB_LEN, 1, JOB_LEN - 1, KEPT_MAX, 5, KEPT_MAX + 1, 0, KEPT_MAX + 1, 9],
                each,
            );
        }
    }

    #[test]
    fn a_long_group_that_fails_is_not_part_of_the_history() {
        let mut lazy = LazyDigest::new([7; 32]);
        lazy.note(1, 1, &vec![0; KEPT_MAX + 1]);
        lazy.note(1, 1, b"short");
        lazy.confirm();
        lazy.note(2, 1, b"fails");
        lazy.note(2, 0, b"");
        lazy.confirm();
        assert_eq!(lazy.settle(), extend(&[7; 32], 1, 1, b"short"));
    }

    #[test]
    fn groups_are_handed_over_and_their_buffers_come_back() {
        let mut lazy = LazyDigest::new([7; 32]);
        let mut handed_over = 0;
        for seq in 1..=20_000 {
            lazy.note(seq, 1, &[1; 100]);
            lazy.confirm();
            handed_over += usize::from(lazy.groups.marks.is_empty());
            assert!(lazy.groups.bytes.len() < KEPT_MAX);
        }
        // Each job has at least the groups of its length, and the last ones may wait.
        assert!((1..=20_000 * 100 / JOB_LEN).contains(&handed_over), "{handed_over}");
        lazy.settle();
        assert!(lazy.job.is_none() && lazy.groups.bytes.is_empty());
        assert!(lazy.spare.bytes.capacity() >= JOB_LEN, "{}", lazy.spare.bytes.capacity());
    }
}

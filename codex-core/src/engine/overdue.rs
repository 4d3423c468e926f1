//! Commits that only an image makes durable, and the refusal of writes while images fail.

use std::time::Duration;

use codex_storage::Error;

/// The time for which commits have waited for an image, and the error of the last image.
///
/// At `Durability::Interval`, a commit of the Snapshot form is acknowledged before it is durable,
/// because an image follows within the interval. If an image fails and the oldest such commit has
/// waited longer than the interval, writes are refused until an image succeeds.
#[derive(Debug, Default)]
pub(super) struct Overdue {
    /// The longest time for which a commit may wait for an image; `None` if commits do not wait for
    /// images.
    limit: Option<Duration>,
    /// The time of the oldest commit that is not durable, by the monotonic clock.
    since: Option<Duration>,
    /// The time at which the current image began.
    began: Option<Duration>,
    /// The error of the last image, if it failed.
    failed: Option<Error>,
}

impl Overdue {
    /// Returns the state without waiting commits. `limit` is the longest time for which a commit
    /// may wait for an image.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Records that an image begins at the time `now`. It contains all earlier commits.
    pub(super) fn began(&mut self, now: Duration) {
        self.began = Some(now);
    }

    /// Records the outcome of an image. An abandoned image does not change the state.
    pub(super) fn ended(&mut self, failed: Option<&Error>) {
        let began = self.began.take();
        match failed {
            Some(Error::Abandoned { .. }) => {}
            Some(error) => self.failed = Some(error.clone()),
            None => {
                self.failed = None;
                // Commits after the begin of the image are not in it. The oldest of them is at
                // least as late as the begin.
                self.since = self.since.and(began);
            }
        }
    }

    /// Records whether all commits are durable after a group that was made at the time `now`.
    pub(super) fn saw(&mut self, all_durable: bool, now: impl FnOnce() -> Duration) {
        if self.limit.is_none() {
            return;
        }
        if all_durable {
            self.since = None;
            self.failed = None;
        } else if self.since.is_none() {
            self.since = Some(now());
        }
    }

    /// Returns the error of the last image, if it failed and none has succeeded since.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Returns the error for a write at the time `now`, if an earlier commit has waited too long.
    pub(super) fn refusal(&self, now: impl FnOnce() -> Duration) -> Option<Error> {
        let (error, limit, since) = (self.failed.as_ref()?, self.limit?, self.since?);
        (now().saturating_sub(since) >= limit).then(|| error.clone())
    }
}

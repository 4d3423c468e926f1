//! Commits that only an image makes durable, and writes that are refused while no image succeeds.

use std::time::Duration;

use codex_storage::Error;

/// How long commits have waited for an image, and why the last image failed.
///
/// At `Durability::Interval` a commit of the Snapshot form is acknowledged before it is durable,
/// on the promise that an image follows within the interval. If an image fails and the promise of
/// the oldest such commit is broken, no further promise is given until an image succeeds.
#[derive(Debug, Default)]
pub(super) struct Overdue {
    /// How long a commit may wait for an image; `None` where none does.
    limit: Option<Duration>,
    /// When the oldest commit was made that is not durable, by the monotonic clock.
    since: Option<Duration>,
    /// When the image that is being written began.
    began: Option<Duration>,
    /// Why the last image failed.
    failed: Option<Error>,
}

impl Overdue {
    /// Nothing waits yet; `limit` is how long a commit may wait for an image.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Notes that an image begins `now`. It will show all commits that were made before.
    pub(super) fn began(&mut self, now: Duration) {
        self.began = Some(now);
    }

    /// Notes the outcome of an image. An abandoned image shows nothing about the disk.
    pub(super) fn ended(&mut self, failed: Option<&Error>) {
        let began = self.began.take();
        match failed {
            Some(Error::Abandoned { .. }) => {}
            Some(error) => self.failed = Some(error.clone()),
            None => {
                self.failed = None;
                self.since = self.since.and(began);
            }
        }
    }

    /// Notes whether all commits are durable after a group that was made `now`.
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

    /// Returns why the last image failed, if none has succeeded since.
    pub(super) fn failure(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// Returns the error that a write gets `now`, if the promise of an earlier one is broken.
    pub(super) fn refusal(&self, now: impl FnOnce() -> Duration) -> Option<Error> {
        let (error, limit, since) = (self.failed.as_ref()?, self.limit?, self.since?);
        (now().saturating_sub(since) >= limit).then(|| error.clone())
    }
}

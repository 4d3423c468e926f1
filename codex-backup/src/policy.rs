//! Decides when a rotation is due, from values that the caller passes in.

use std::time::Duration;

/// The conditions for a rotation, and the number of backups to keep. Each condition makes a
/// rotation due by itself. Without any condition, only [`Event::Hand`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupPolicy {
    /// After this many commits; 0 counts as 1.
    pub every_commits: Option<u64>,
    /// When this time has passed since the last rotation, if anything changed.
    pub every: Option<Duration>,
    /// After each checkpoint.
    pub on_checkpoint: bool,
    /// When the store is opened.
    pub on_open: bool,
    /// The number of backups to keep, at least 1.
    pub keep: u32,
}

impl BackupPolicy {
    /// Creates a policy that rotates only on request, and keeps the newest `keep` backups.
    pub fn keep(keep: u32) -> Self {
        Self { every_commits: None, every: None, on_checkpoint: false, on_open: false, keep }
    }

    /// Adds a rotation after every `commits` commits.
    #[must_use]
    pub fn every_commits(mut self, commits: u64) -> Self {
        self.every_commits = Some(commits);
        self
    }

    /// Adds a rotation after each `interval`.
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Self {
        self.every = Some(interval);
        self
    }

    /// Adds a rotation after each checkpoint.
    #[must_use]
    pub fn on_checkpoint(mut self) -> Self {
        self.on_checkpoint = true;
        self
    }

    /// Adds a rotation when the store is opened.
    #[must_use]
    pub fn on_open(mut self) -> Self {
        self.on_open = true;
        self
    }

    /// Returns whether a rotation is due. If nothing has changed since the newest backup, returns
    /// false for every event.
    pub fn due(&self, state: State) -> bool {
        if !state.changed() {
            return false;
        }
        match state.event {
            Event::Hand => return true,
            Event::Checkpoint if self.on_checkpoint => return true,
            Event::Open if self.on_open => return true,
            Event::Open | Event::Checkpoint | Event::Commit | Event::Tick => {}
        }
        let enough = self.every_commits.is_some_and(|n| state.commits() >= n.max(1));
        enough || self.wait(state) == Some(Duration::ZERO)
    }

    /// Returns the time until the interval makes a rotation due, for a timer. Returns `None`
    /// without an interval, or if nothing has changed.
    pub fn wait(&self, state: State) -> Option<Duration> {
        let every = self.every.filter(|_| state.changed())?;
        let Some(last) = state.last else { return Some(Duration::ZERO) };
        Some(every.saturating_sub(state.now.saturating_sub(last.at)))
    }
}

/// An event, and the state at that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// The event.
    pub event: Event,
    /// The version that a rotation would back up now.
    pub seq: u64,
    /// The newest backup, or `None` if there is none.
    pub last: Option<Last>,
    /// The current time, on the clock of [`Last::at`].
    pub now: Duration,
}

impl State {
    fn changed(&self) -> bool {
        self.last.is_none_or(|last| last.diverged || last.seq != self.seq)
    }

    /// Returns the number of commits since the newest backup. If that backup belongs to another
    /// history, its number cannot be compared, so all commits are counted.
    fn commits(&self) -> u64 {
        let same = self.last.filter(|last| !last.diverged);
        same.map_or(self.seq, |last| self.seq.abs_diff(last.seq))
    }
}

/// The newest backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// The version of the backup.
    pub seq: u64,
    /// The time when the backup was made, on any monotonic clock.
    pub at: Duration,
    /// Whether the backup may belong to another history than the current state, for example after
    /// an older version was restored. If so, an equal `seq` does not mean that nothing changed.
    pub diverged: bool,
}

/// An event after which the caller asks whether a rotation is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A commit, or a group of commits.
    Commit,
    /// The passing of time.
    Tick,
    /// The end of a checkpoint.
    Checkpoint,
    /// The opening of the store.
    Open,
    /// A request of the user.
    Hand,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(event: Event, seq: u64, last: Option<(u64, u64)>, now: u64) -> State {
        let last = last.map(|(seq, at)| Last { seq, at: Duration::from_secs(at), diverged: false });
        State { event, seq, last, now: Duration::from_secs(now) }
    }

    const EVENTS: [Event; 5] =
        [Event::Commit, Event::Tick, Event::Checkpoint, Event::Open, Event::Hand];

    #[test]
    fn nothing_is_due_when_nothing_changed() {
        let every = BackupPolicy::keep(3).every_commits(1).every(Duration::ZERO);
        let every = every.on_checkpoint().on_open();
        for event in EVENTS {
            assert!(!every.due(state(event, 7, Some((7, 0)), 1_000)), "{event:?}");
        }
    }

    #[test]
    fn an_empty_policy_rotates_by_hand_alone() {
        for event in EVENTS {
            let due = BackupPolicy::keep(3).due(state(event, 8, Some((7, 0)), 1_000_000));
            assert_eq!(due, event == Event::Hand, "{event:?}");
        }
    }

    #[test]
    fn commits_are_counted_from_the_newest_backup() {
        let policy = BackupPolicy::keep(3).every_commits(10);
        assert!(!policy.due(state(Event::Commit, 16, Some((7, 0)), 0)));
        assert!(policy.due(state(Event::Commit, 17, Some((7, 0)), 0)));
        assert!(policy.due(state(Event::Commit, 10, None, 0)), "no backup yet");
        assert!(!policy.due(state(Event::Commit, 9, None, 0)));
        let restored = state(Event::Commit, 90, Some((100, 0)), 0);
        assert!(policy.due(restored), "an older version was restored");
        assert!(BackupPolicy::keep(1).every_commits(0).due(state(
            Event::Commit,
            8,
            Some((7, 0)),
            0
        )));
    }

    #[test]
    fn an_equal_number_of_another_history_is_a_change() {
        let mut state = state(Event::Commit, 7, Some((7, 0)), 0);
        let policies =
            [BackupPolicy::keep(1).every_commits(7), BackupPolicy::keep(1).every(Duration::ZERO)];
        assert!(!policies.iter().any(|policy| policy.due(state)));
        state.last = state.last.map(|last| Last { diverged: true, ..last });
        assert!(policies.iter().all(|policy| policy.due(state)));
    }

    #[test]
    fn an_interval_is_due_only_when_it_has_passed_and_something_changed() {
        let policy = BackupPolicy::keep(3).every(Duration::from_secs(60));
        assert!(!policy.due(state(Event::Tick, 8, Some((7, 100)), 159)));
        assert!(policy.due(state(Event::Tick, 8, Some((7, 100)), 160)));
        assert!(!policy.due(state(Event::Tick, 7, Some((7, 100)), 160)));
        assert!(!policy.due(state(Event::Tick, 8, Some((7, 100)), 50)), "a clock behind");
        assert_eq!(
            policy.wait(state(Event::Tick, 8, Some((7, 100)), 130)),
            Some(Duration::from_secs(30))
        );
        assert_eq!(policy.wait(state(Event::Tick, 7, Some((7, 100)), 130)), None);
        assert!(policy.due(state(Event::Tick, 1, None, 0)), "no backup yet");
    }

    #[test]
    fn checkpoint_and_open_count_only_where_asked_for() {
        let changed = |event| state(event, 8, Some((7, 0)), 0);
        assert!(BackupPolicy::keep(1).on_checkpoint().due(changed(Event::Checkpoint)));
        assert!(!BackupPolicy::keep(1).on_checkpoint().due(changed(Event::Open)));
        assert!(BackupPolicy::keep(1).on_open().due(changed(Event::Open)));
        assert!(!BackupPolicy::keep(1).on_open().due(changed(Event::Checkpoint)));
        let both = BackupPolicy::keep(1).on_open().every_commits(1);
        assert!(both.due(changed(Event::Commit)));
    }
}

//! When a rotation is due: pure decisions on numbers that the caller passes in.

use std::time::Duration;

/// When to rotate, and how many backups to keep. The conditions combine: each makes a rotation
/// due by itself. Without any, only [`Event::Hand`] does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// After this many commits; 0 counts as 1.
    pub every_commits: Option<u64>,
    /// When this much time has passed since the last rotation, and something changed.
    pub every: Option<Duration>,
    /// With each checkpoint.
    pub on_checkpoint: bool,
    /// When the store is opened.
    pub on_open: bool,
    /// How many backups to keep, at least 1.
    pub keep: u32,
}

impl Policy {
    /// By hand only, keeping the newest `keep`.
    pub fn keep(keep: u32) -> Self {
        Self { every_commits: None, every: None, on_checkpoint: false, on_open: false, keep }
    }

    /// Also after every `commits` commits.
    #[must_use]
    pub fn every_commits(mut self, commits: u64) -> Self {
        self.every_commits = Some(commits);
        self
    }

    /// Also when `interval` has passed.
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Self {
        self.every = Some(interval);
        self
    }

    /// Also with each checkpoint.
    #[must_use]
    pub fn on_checkpoint(mut self) -> Self {
        self.on_checkpoint = true;
        self
    }

    /// Also when the store is opened.
    #[must_use]
    pub fn on_open(mut self) -> Self {
        self.on_open = true;
        self
    }

    /// Whether a rotation is due. Never when nothing changed since the newest backup, whatever
    /// the event.
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

    /// How long until the interval makes a rotation due, if it will: what a timer waits for.
    /// `None` without an interval, or while nothing has changed.
    pub fn wait(&self, state: State) -> Option<Duration> {
        let every = self.every.filter(|_| state.changed())?;
        let Some(last) = state.last else { return Some(Duration::ZERO) };
        Some(every.saturating_sub(state.now.saturating_sub(last.at)))
    }
}

/// What happened, and where things stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// What happened.
    pub event: Event,
    /// The version that a rotation would back up now.
    pub seq: u64,
    /// The newest backup; `None` where there is none yet.
    pub last: Option<Last>,
    /// The time now, on the clock of [`Last::at`].
    pub now: Duration,
}

impl State {
    fn changed(&self) -> bool {
        self.last.is_none_or(|last| last.diverged || last.seq != self.seq)
    }

    /// Commits since the newest backup. If that is of another history, the number does not say how
    /// many: as many as there are.
    fn commits(&self) -> u64 {
        let same = self.last.filter(|last| !last.diverged);
        same.map_or(self.seq, |last| self.seq.abs_diff(last.seq))
    }
}

/// The newest backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// Its version.
    pub seq: u64,
    /// When it was made, on any clock that does not run backwards.
    pub at: Duration,
    /// Whether it may be of another history than the state now, as after an older version was
    /// restored: then an equal `seq` does not mean that nothing changed.
    pub diverged: bool,
}

/// What makes somebody ask whether a rotation is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A commit, or a group of them.
    Commit,
    /// Time passed.
    Tick,
    /// A checkpoint ended.
    Checkpoint,
    /// The store was opened.
    Open,
    /// The user asked.
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
        let every = Policy::keep(3).every_commits(1).every(Duration::ZERO);
        let every = every.on_checkpoint().on_open();
        for event in EVENTS {
            assert!(!every.due(state(event, 7, Some((7, 0)), 1_000)), "{event:?}");
        }
    }

    #[test]
    fn an_empty_policy_rotates_by_hand_alone() {
        for event in EVENTS {
            let due = Policy::keep(3).due(state(event, 8, Some((7, 0)), 1_000_000));
            assert_eq!(due, event == Event::Hand, "{event:?}");
        }
    }

    #[test]
    fn commits_are_counted_from_the_newest_backup() {
        let policy = Policy::keep(3).every_commits(10);
        assert!(!policy.due(state(Event::Commit, 16, Some((7, 0)), 0)));
        assert!(policy.due(state(Event::Commit, 17, Some((7, 0)), 0)));
        assert!(policy.due(state(Event::Commit, 10, None, 0)), "no backup yet");
        assert!(!policy.due(state(Event::Commit, 9, None, 0)));
        let restored = state(Event::Commit, 90, Some((100, 0)), 0);
        assert!(policy.due(restored), "an older version was restored");
        assert!(Policy::keep(1).every_commits(0).due(state(Event::Commit, 8, Some((7, 0)), 0)));
    }

    #[test]
    fn an_equal_number_of_another_history_is_a_change() {
        let mut state = state(Event::Commit, 7, Some((7, 0)), 0);
        let policies = [Policy::keep(1).every_commits(7), Policy::keep(1).every(Duration::ZERO)];
        assert!(!policies.iter().any(|policy| policy.due(state)));
        state.last = state.last.map(|last| Last { diverged: true, ..last });
        assert!(policies.iter().all(|policy| policy.due(state)));
    }

    #[test]
    fn an_interval_is_due_only_when_it_has_passed_and_something_changed() {
        let policy = Policy::keep(3).every(Duration::from_mins(1));
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
        assert!(Policy::keep(1).on_checkpoint().due(changed(Event::Checkpoint)));
        assert!(!Policy::keep(1).on_checkpoint().due(changed(Event::Open)));
        assert!(Policy::keep(1).on_open().due(changed(Event::Open)));
        assert!(!Policy::keep(1).on_open().due(changed(Event::Checkpoint)));
        let both = Policy::keep(1).on_open().every_commits(1);
        assert!(both.due(changed(Event::Commit)));
    }
}

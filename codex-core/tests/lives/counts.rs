//! The counts of the steps and events of the histories.

use std::collections::BTreeMap;

/// The numbers of steps of a kind that succeeded, were refused, and were interrupted by a fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcomes {
    pub done: u64,
    pub refused: u64,
    pub struck: u64,
}

/// The counts of many histories.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls to the disk.
    pub calls: u64,
    events: BTreeMap<&'static str, u64>,
    steps: BTreeMap<&'static str, Outcomes>,
}

impl Counts {
    pub fn add(&mut self, event: &'static str) {
        *self.events.entry(event).or_default() += 1;
    }

    pub fn done<T>(&mut self, step: &'static str, result: &codex_core::Result<T>, disturbed: bool) {
        let outcomes = self.steps.entry(step).or_default();
        match result {
            Ok(_) => outcomes.done += 1,
            Err(_) if disturbed => outcomes.struck += 1,
            Err(_) => outcomes.refused += 1,
        }
    }

    pub fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        for (event, count) in &other.events {
            *self.events.entry(event).or_default() += count;
        }
        for (step, other) in &other.steps {
            let outcomes = self.steps.entry(step).or_default();
            outcomes.done += other.done;
            outcomes.refused += other.refused;
            outcomes.struck += other.struck;
        }
    }

    pub fn of(&self, event: &str) -> u64 {
        self.events.get(event).copied().unwrap_or_default()
    }

    pub fn outcomes(&self, step: &str) -> Outcomes {
        self.steps.get(step).copied().unwrap_or_default()
    }

    pub fn steps(&self) -> impl Iterator<Item = (&'static str, Outcomes)> {
        self.steps.iter().map(|(step, outcomes)| (*step, *outcomes))
    }

    /// Returns the events and steps that occurred too rarely for this number of histories.
    pub fn missing(&self, histories: u64) -> Vec<String> {
        let floor = |per_1000: u64| per_1000 * histories / 1_000;
        let events = EVENTS.iter().filter(|(event, per_1000)| self.of(event) < floor(*per_1000));
        let events = events.map(|(event, _)| format!("{event}: {}", self.of(event)));
        let few = |&(step, done, struck): &(&str, u64, u64)| {
            let found = self.outcomes(step);
            let enough = found.done >= floor(done) && found.struck >= floor(struck);
            (!enough).then(|| format!("{step}: {found:?}"))
        };
        events.chain(STEPS.iter().filter_map(few)).collect()
    }
}

/// The minimum number of each event in 1,000 histories: about half of the usual number.
const EVENTS: &[(&str, u64)] = &[
    ("lives", 3_000),
    ("power cuts", 1_500),
    ("kills", 600),
    ("drops", 150),
    ("doubts", 150),
    ("shutdowns", 10),
    ("disks filled", 20),
    ("peeks", 500),
    ("looks at backups", 500),
    ("copies opened", 5),
];

/// The minimum numbers of each step that succeeded and that a fault interrupted, in 1,000
/// histories.
const STEPS: &[(&str, u64, u64)] = &[
    ("open", 2_000, 350),
    ("open to read", 180, 15),
    ("close", 800, 20),
    ("commit", 2_000, 100),
    ("flush", 80, 0),
    ("checkpoint", 150, 15),
    ("change of key", 250, 150),
    ("rekey", 100, 80),
    ("backup", 400, 250),
    ("hot copy", 25, 15),
    ("prune", 140, 15),
    ("restore", 50, 80),
    ("restore until", 10, 40),
    ("conversion", 140, 250),
    ("verify", 500, 2),
    ("anchor", 80, 0),
];

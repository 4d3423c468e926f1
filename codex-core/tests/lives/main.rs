//! Tests of whole lives of stores: histories of openings, writes, changes of keys, conversions,
//! backups and restores, with power cuts, kills and errors between and inside them. A model of the
//! acknowledged writes checks each step.
#![cfg(all(feature = "crypto", feature = "fault"))]
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::struct_excessive_bools,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, prints what it ran, and is a program of its own"
)]

mod acts;
mod closed;
#[path = "../common/mod.rs"]
mod common;
mod counts;
mod draw;
mod model;
mod opening;
mod run;
mod shrink;
mod step;
mod stories;
mod words;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use codex_core::vfs::SeededEntropy;
use common::{scaled, seed};
use counts::Counts;
use run::Broken;
use shrink::{judge, shrink};
use step::Plan;

/// Returns the history with this number.
fn history(number: u64) -> Plan {
    Plan::draw(SeededEntropy::new(seed().wrapping_mul(1 << 32).wrapping_add(number)).next_u64())
}

/// Returns the description of a failure.
fn story(number: u64, plan: &Plan, broken: &Broken) -> String {
    let mut text = format!(
        "CODEX_SEED={} CODEX_HISTORY={number}: not kept: {}\n{}\n",
        seed(),
        broken.promise,
        broken.what
    );
    let short = shrink(plan, broken);
    for (title, plan) in [("as it was drawn", plan), ("made short", &short)] {
        let mut lines = Vec::new();
        let again = judge(plan, &mut Counts::default(), Some(&mut lines));
        let _ = writeln!(
            text,
            "\n{title}: {} steps, form {}, key {:?}, keeping {} backups",
            plan.steps.len(),
            plan.form,
            plan.key,
            plan.keep
        );
        for line in lines {
            let _ = writeln!(text, "  {line}");
        }
        let what = again.map_or("kept this time".to_owned(), |again| again.what);
        let _ = writeln!(text, "{what}");
    }
    text
}

/// The first history that broke a promise, and the number of those that did.
struct Failure {
    number: u64,
    broken: Broken,
    histories: u64,
}

/// The findings of one thread, or of all.
#[derive(Default)]
struct Found {
    counts: Counts,
    failures: BTreeMap<&'static str, Failure>,
}

impl Found {
    fn judge(&mut self, number: u64) {
        if let Some(broken) = judge(&history(number), &mut self.counts, None) {
            if KNOWN.iter().any(|words| broken.what.contains(words)) {
                return self.counts.add("known faults");
            }
            self.add(Failure { number, broken, histories: 1 });
        }
    }

    fn add(&mut self, failure: Failure) {
        match self.failures.entry(failure.broken.promise) {
            Entry::Vacant(vacant) => drop(vacant.insert(failure)),
            Entry::Occupied(mut first) => {
                let histories = first.get().histories + failure.histories;
                if failure.number < first.get().number {
                    first.insert(failure);
                }
                first.get_mut().histories = histories;
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.counts.merge(&other.counts);
        other.failures.into_values().for_each(|failure| self.add(failure));
    }

    /// Panics with a description of each broken promise.
    fn tell(&self) {
        let told = self.failures.values().map(|failure| {
            let told = story(failure.number, &history(failure.number), &failure.broken);
            format!("{} histories: {told}", failure.histories)
        });
        let told: Vec<String> = told.collect();
        assert!(told.is_empty(), "{}", told.join("\n\n"));
    }
}

/// Runs the histories with these numbers, on all processors.
fn live(count: u64) -> Found {
    let next = AtomicU64::new(0);
    let work = || {
        let mut found = Found::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return found;
            }
            found.judge(number);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(4);
    let mut all = Found::default();
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in running {
            all.merge(thread.join().unwrap());
        }
    });
    all
}

#[test]
fn lives_keep_what_was_promised() {
    if let Ok(number) = std::env::var("CODEX_HISTORY") {
        let mut found = Found::default();
        found.judge(number.parse().unwrap());
        return found.tell();
    }
    let histories = u64::from(scaled(HISTORIES));
    let found = live(histories);
    print(&found.counts);
    found.tell();
    let missing = found.counts.missing(histories);
    assert!(missing.is_empty(), "too little was tested: {missing:#?}");
}

#[test]
fn a_history_runs_the_same_each_time() {
    for number in 0..u64::from(scaled(60)) {
        let run = || {
            let (mut counts, mut lines) = (Counts::default(), Vec::new());
            let broken = judge(&history(number), &mut counts, Some(&mut lines));
            (broken, lines, counts)
        };
        assert_eq!(run(), run(), "CODEX_SEED={} CODEX_HISTORY={number}", seed());
    }
}

fn print(counts: &Counts) {
    println!(
        "{} lives, {} histories, {} cuts, {} kills, {} drops, {} doubts, {} known, {} calls",
        counts.of("lives"),
        counts.of("histories"),
        counts.of("power cuts"),
        counts.of("kills"),
        counts.of("drops"),
        counts.of("doubts"),
        counts.of("known faults"),
        counts.calls,
    );
    for (step, outcomes) in counts.steps() {
        println!(
            "  {step}: done {}, refused {}, struck {}",
            outcomes.done, outcomes.refused, outcomes.struck
        );
    }
}

/// Words of known faults that are not corrected yet. They are counted, and are no failure.
const KNOWN: &[&str] = &[];

const HISTORIES: u32 = 3_200;

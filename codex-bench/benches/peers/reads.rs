//! Gets and scans.

use std::time::Instant;

use codex_bench::Outcome;
use codex_bench::report::Cell;

use crate::child;
use crate::data::{self, VALUE_BYTES};
use crate::rows::{Context, counted};
use crate::turns::{Case, Plan, Subject, measure};

/// Gets of 10,000 keys.
pub(crate) fn small(context: &mut Context) -> Outcome<Vec<Cell>> {
    let entries = 10_000;
    let subjects = context.open(entries, VALUE_BYTES)?;
    gets(&context.plan, &subjects, entries, "")
}

/// Gets and scans of all entries.
pub(crate) fn large(context: &mut Context) -> Outcome<Vec<Cell>> {
    let entries = context.entries;
    // Reads of memory vary less than the disk does.
    let plan = Plan { rounds: context.plan.rounds.div_ceil(2), ..context.plan.clone() };
    let mut subjects = context.open(entries, VALUE_BYTES)?;
    let mut cells = gets(&plan, &subjects, entries, "get: ")?;
    subjects.retain(|subject| subject.engine.has_order());
    cells.extend(scans(&plan, &subjects, entries)?);
    let case = Case::time("scan: 50 entries", 1);
    cells.extend(measure(&plan, &subjects, &case, |engine, worker| {
        let (mut left, mut bytes) = (50, 0);
        engine.scan(&data::key(worker.random.below(entries)), &mut |key, value| {
            bytes += key.len() + value.len();
            left -= 1;
            left > 0
        })
    })?);
    // As many hexadecimal digits as leave about 15 entries of a million.
    let digits = if entries >= 1_000_000 { 4 } else { 3 };
    let case = Case::time("scan: a prefix", 1);
    cells.extend(measure(&plan, &subjects, &case, |engine, worker| {
        let key = data::key(worker.random.below(entries));
        let prefix = key.get(..=digits).unwrap_or(&key);
        let mut bytes = 0;
        engine.scan(prefix, &mut |key, value| {
            bytes += key.len() + value.len();
            key.starts_with(prefix)
        })
    })?);
    Ok(cells)
}

/// Gets of stored and of missing keys.
fn gets(plan: &Plan, subjects: &[Subject], entries: u64, table: &str) -> Outcome<Vec<Cell>> {
    let mut cells = Vec::new();
    for (name, hit) in [("hit", true), ("miss", false)] {
        for threads in [1, 2] {
            let case = Case {
                key: Some(if hit { data::key } else { data::missing_key }),
                keys: entries,
                ..Case::time(format!("{table}{name}, {}", counted(threads, "thread")), threads)
            };
            cells.extend(measure(plan, subjects, &case, |engine, worker| {
                if engine.get(&worker.key())?.is_some() != hit {
                    return Err("a get found a missing key, or missed another".into());
                }
                Ok(())
            })?);
        }
    }
    Ok(cells)
}

/// Scans all entries of each store, in turns.
fn scans(plan: &Plan, subjects: &[Subject], entries: u64) -> Outcome<Vec<Cell>> {
    let mut cells = Vec::new();
    for _ in 0..plan.rounds.div_ceil(3) {
        for subject in subjects {
            let (mut count, mut bytes) = (0, 0);
            let from = Instant::now();
            subject.engine.scan(&[], &mut |key, value| {
                count += 1;
                bytes += key.len() + value.len();
                true
            })?;
            if count != entries {
                return Err(format!("{}: a scan has {count} entries", subject.name).into());
            }
            let figure = child::mean("scan: an entry of all", from.elapsed(), entries);
            child::add(&mut cells, subject.name, vec![figure]);
        }
    }
    Ok(cells)
}

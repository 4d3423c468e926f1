//! Stores of 10,000 to five million entries, each in a process of its own.

use std::time::{Duration, Instant};

use codex_bench::Outcome;
use codex_bench::report::{Cell, Group, Unit};

use crate::child::{self, Figure, Subject};
use crate::data::{self, Key, Random, VALUE_BYTES};
use crate::engine::{Copying, Engine, Promise};
use crate::rows::Context;

/// Measures all stores at each size.
pub(crate) fn row(context: &mut Context) -> Outcome<Vec<Cell>> {
    let mut cells: Vec<Cell> = Vec::new();
    let mut slow = Vec::new();
    let sizes = SIZES.iter().filter(|(_, entries)| *entries <= 5 * context.entries);
    for (size, entries) in sizes {
        for kind in &context.kinds {
            if slow.contains(&kind.name) {
                continue;
            }
            let start = Instant::now();
            let path = context.place(kind)?;
            let mut figures = child::run("grow", kind, &path, *entries)?;
            if kind.promises != [Promise::Memory] {
                let opened = child::run("open", kind, &path, *entries)?;
                figures.extend(opened.into_iter().filter(|(case, _, _)| case == "open"));
            }
            let named = figures
                .into_iter()
                .map(|(case, unit, figure)| (format!("{case}: {size}"), unit, figure));
            child::add(&mut cells, kind.name, named.collect());
            std::fs::remove_dir_all(&path)?;
            if kind.group == Group::Other && start.elapsed() > SLOW {
                slow.push(kind.name);
            }
        }
    }
    let table = |cell: &Cell| CASES.iter().position(|case| cell.case.starts_with(case));
    cells.sort_by_key(table);
    Ok(cells)
}

/// Fills a store, and measures the costs of its calls then.
pub(crate) fn grow(subject: &Subject<'_>) -> Outcome<Vec<Figure>> {
    let engine = subject.open()?;
    // Small beside the store, since what a batch takes is counted as memory of the store.
    subject.load(&*engine, (subject.entries / 50).min(20_000))?;
    let memory = ("memory".to_owned(), Unit::Times, subject.memory()?);
    let mut figures = vec![memory];
    let mut random = Random::new(1);
    let keys = |random: &mut Random| -> Vec<Key> {
        (0..CALLS).map(|_| data::key(random.below(subject.entries))).collect()
    };
    // The first slice warms up.
    for slice in 0..=SLICES {
        let keys = keys(&mut random);
        let get = slices(&keys, |key| match engine.get(key)? {
            Some(_) => Ok(()),
            None => Err("a key is missing".into()),
        })?;
        let mut value = data::value(VALUE_BYTES);
        let set = slices(&keys, |key| {
            data::change(&mut value, random.next());
            engine.set(key, &value)
        })?;
        if slice > 0 {
            figures.push(child::mean("get", get.0, get.1));
            figures.push(child::mean("set", set.0, set.1));
        }
    }
    figures.extend(scan(&*engine)?);
    let from = Instant::now();
    if engine.copy(Copying::Checkpoint)? {
        figures.push(child::time("checkpoint", from.elapsed()));
    }
    engine.flush()?;
    Ok(figures)
}

/// Calls `call` with the keys for the time of a slice. Returns the time and the number of calls.
fn slices(keys: &[Key], mut call: impl FnMut(&Key) -> Outcome) -> Outcome<(Duration, u64)> {
    let (from, mut calls) = (Instant::now(), 0);
    for keys in keys.chunks(64) {
        for key in keys {
            call(key)?;
        }
        calls += keys.len() as u64;
        if from.elapsed() > SLICE {
            break;
        }
    }
    Ok((from.elapsed(), calls))
}

/// Scans up to a million entries from the first one on. Returns no figure if there is no order.
fn scan(engine: &dyn Engine) -> Outcome<Option<Figure>> {
    if !engine.has_order() {
        return Ok(None);
    }
    let (from, mut entries, mut bytes) = (Instant::now(), 0, 0);
    engine.scan(&[], &mut |key, value| {
        entries += 1;
        bytes += key.len() + value.len();
        entries < 1_000_000
    })?;
    Ok(Some(child::mean("scanned entry", from.elapsed(), entries)))
}

const SIZES: [(&str, u64); 4] =
    [("10 k", 10_000), ("100 k", 100_000), ("1 M", 1_000_000), ("5 M", 5_000_000)];
/// The tables, in their order.
const CASES: [&str; 6] = ["get", "set", "scanned entry", "memory", "open", "checkpoint"];
/// The time at one size after which another store is not measured at the next one.
const SLOW: Duration = Duration::from_secs(8);
const SLICES: usize = 3;
const SLICE: Duration = Duration::from_millis(100);
/// The most calls of a slice.
const CALLS: u64 = 1 << 18;

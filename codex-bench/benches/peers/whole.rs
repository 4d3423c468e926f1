//! Whole stores: loading, opening, memory and files, each in a process of its own.

use std::time::{Duration, Instant};

use codex_bench::Outcome;
use codex_bench::report::Cell;

use crate::child;
use crate::engine::Promise;
use crate::rows::Context;

/// Measures loads and openings of all stores, which take turns.
pub(crate) fn row(context: &mut Context) -> Outcome<Vec<Cell>> {
    let start = Instant::now();
    let mut cells: Vec<Cell> = Vec::new();
    let mut slow = Vec::new();
    for round in 0..ROUNDS {
        for kind in &context.kinds {
            // One round is enough for a store that takes as long as the others together.
            if slow.contains(&kind.name) || (round > 0 && start.elapsed() > BUDGET) {
                continue;
            }
            let start = Instant::now();
            let path = context.place(kind)?;
            let mut figures = child::run("load", kind, &path, context.entries)?;
            if kind.promises != [Promise::Memory] {
                figures.extend(child::run("open", kind, &path, context.entries)?);
            }
            child::add(&mut cells, kind.name, figures);
            std::fs::remove_dir_all(&path)?;
            if start.elapsed() > SLOW {
                slow.push(kind.name);
            }
        }
    }
    cells.sort_by_key(|cell| CASES.iter().position(|case| *case == cell.case));
    Ok(cells)
}

/// The columns of the table.
const CASES: [&str; 6] = ["load", "open", "memory, loaded", "memory, opened", "files", "written"];
const ROUNDS: usize = 3;
/// The time after which no round begins.
const BUDGET: Duration = Duration::from_secs(75);
/// The time of a load and an opening after which a store has no further round.
const SLOW: Duration = Duration::from_secs(8);

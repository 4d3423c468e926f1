//! The rate of `set` beside watches: of other keys, of the written keys without a reader, and with
//! a thread that reads each. `cargo bench -p codex-bench --bench watch`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::path::Path;
use std::thread;
use std::time::Duration;

use codex_bench::crew;
use codex_bench::numbers::median;
use codex_core::Store;

const ROUND: Duration = Duration::from_millis(200);
const ROUNDS: usize = 9;
/// The numbers of watches; none of them first, with which the others are compared.
const WATCHES: [usize; 4] = [0, 1, 16, 256];

fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    println!("sets a second, and in brackets the time of one beside that without watches;");
    println!("medians of {ROUNDS} rounds of {} ms, taken in turn", ROUND.as_millis());
    println!("place   writers  watches     of other keys            unread              read");
    for place in ["memory", "sync"] {
        for writers in [1, 32] {
            compare(folder.path(), place, writers);
        }
    }
}

/// Measures all numbers and kinds of watches in turn, so that a change of the machine's speed
/// concerns all of them.
fn compare(folder: &Path, place: &str, writers: usize) {
    let mut rates = [[(); 3]; WATCHES.len()].map(|kinds| kinds.map(|()| Vec::new()));
    for _ in 0..ROUNDS {
        for (rates, watches) in rates.iter_mut().zip(WATCHES) {
            for (rates, kind) in rates.iter_mut().zip(["other", "unread", "read"]) {
                rates.push(rate(folder, place, writers, watches, kind));
            }
        }
    }
    let rates = rates.map(|kinds| kinds.map(|rates| median(&rates).unwrap()));
    for (of, watches) in rates.iter().zip(WATCHES) {
        print!("{place:<8}{writers:>7} {watches:>8}");
        for (rate, without) in of.iter().zip(&rates[0]) {
            print!("{rate:>10.0} ({:>5.2})", without / rate);
        }
        println!();
    }
}

/// Sets values from `writers` threads for a round, each with keys of its own, beside `watches`
/// watches of a kind. Returns the calls per second.
fn rate(folder: &Path, place: &str, writers: usize, watches: usize, kind: &str) -> f64 {
    let store = open(folder, place);
    let prefix = if kind == "other" { "other/" } else { "key/" };
    let mut watches: Vec<_> = (0..watches).map(|_| store.watch(prefix).unwrap()).collect();
    thread::scope(|scope| {
        if kind == "read" {
            for watch in watches.drain(..) {
                scope.spawn(move || assert!(watch.count() > 0));
            }
        }
        let rate = crew::rate(writers, ROUND, |writer, count| {
            Ok(store.set(format!("key/{writer:02}/{:04}", count % 1_000), &1_u64)?)
        });
        // Ends the threads that read.
        store.close().unwrap();
        rate.unwrap()
    })
}

fn open(folder: &Path, place: &str) -> Store {
    if place == "memory" {
        return Store::in_memory().unwrap();
    }
    Store::open(folder.join("store.db")).unwrap()
}

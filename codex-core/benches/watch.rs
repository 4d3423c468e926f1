//! The rate of `set` beside watches: of other keys, of the written keys without a reader, and with
//! a thread that reads each. `cargo bench -p codex-core --bench watch`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a program that measures: it stands beside the library, on std's own means"
)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

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
    let rates = rates.map(|kinds| kinds.map(median));
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
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let seconds = thread::scope(|scope| {
        if kind == "read" {
            for watch in watches.drain(..) {
                scope.spawn(move || assert!(watch.count() > 0));
            }
        }
        let from = Instant::now();
        let writers: Vec<_> = (0..writers)
            .map(|writer| {
                let (store, stop, done) = (&store, &stop, &done);
                scope.spawn(move || {
                    let mut count = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        let key = format!("key/{writer:02}/{:04}", count % 1_000);
                        store.set(key, &1_u64).unwrap();
                        count += 1;
                    }
                    done.fetch_add(count, Ordering::Relaxed);
                })
            })
            .collect();
        thread::sleep(ROUND);
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().unwrap();
        }
        let seconds = from.elapsed().as_secs_f64();
        // Ends the threads that read.
        store.close().unwrap();
        seconds
    });
    per_second(done.into_inner(), seconds)
}

fn open(folder: &Path, place: &str) -> Store {
    if place == "memory" {
        return Store::in_memory().unwrap();
    }
    Store::open(folder.join("store.db")).unwrap()
}

#[allow(clippy::cast_precision_loss, reason = "a rate for a person")]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

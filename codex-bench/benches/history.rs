//! Questions about the past of a ledger of 1 M commits of 100,000 keys, and durable sets beside
//! them. `cargo bench -p codex-bench --bench history`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "a program that prints")]
#![allow(clippy::cast_precision_loss, reason = "the numbers are printed with two digits")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use codex_bench::crew;
use codex_bench::numbers::median;
use codex_core::{Durability, Form, OpenOptions, Store, internals};

const KEYS: u64 = 100_000;
const REVISIONS: u64 = 10;
const COMMITS: u64 = KEYS * REVISIONS;
const ROUND: Duration = Duration::from_millis(300);
const ROUNDS: usize = 9;

fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("past.db");
    let store = options().durability(Durability::Os).open(&path).unwrap();
    for n in 0..COMMITS {
        store.set_bytes(key(n), [7; 100]).unwrap();
    }
    store.close().unwrap();
    drop(store);
    questions(&path);
    writers(folder.path());
}

fn options() -> OpenOptions {
    Store::options().form(Form::Ledger)
}

/// Returns a key of 17 bytes. The revisions of one are far apart.
fn key(n: u64) -> String {
    format!("key/{:013}", n % KEYS * 7_919 % KEYS)
}

/// Measures openings and states in turn, and then the questions.
fn questions(path: &Path) {
    let (mut openings, mut states) = (Vec::new(), Vec::new());
    let mut store: Option<Store> = None;
    for _ in 0..5 {
        drop(store.take());
        let (opened, open_ms) = timed(|| options().open(path).unwrap());
        let (past, as_of_ms) = timed(|| opened.as_of(COMMITS).unwrap());
        assert_eq!(past.len() as u64, KEYS);
        openings.push(open_ms);
        states.push(as_of_ms);
        store = Some(opened);
    }
    let store = store.unwrap();
    let [open_ms, as_of_ms] = [openings, states].map(|times| median(&times).unwrap());
    let bytes = store.stats().storage.log_bytes as f64;
    println!("{COMMITS} commits of {KEYS} keys, {:.0} MB; medians", bytes / 1e6);
    println!("open {open_ms:.0} ms, as_of {as_of_ms:.0} ms: {:.2}", as_of_ms / open_ms);
    let revisions = |n| store.history(key(n)).unwrap().map(Result::unwrap).count() as u64;
    let (count, first_ms) = timed(|| revisions(0));
    assert_eq!(count, REVISIONS);
    let later: Vec<_> = (1..22).map(|n| timed(|| revisions(n * 4_000)).1).collect();
    let later_ms = median(&later).unwrap();
    println!("history of {REVISIONS} revisions: first {first_ms:.0} ms, later {later_ms:.1} ms");
    let (count, changes_ms) = timed(|| store.changes(0).unwrap().map(Result::unwrap).count());
    assert_eq!(count as u64, COMMITS);
    println!("changes: {:.0} MB/s", bytes / 1e3 / changes_ms);
    let index = internals::index_ledger(&store, 512 << 10, 16 << 20).unwrap() as f64;
    println!("index: {:.1} MB, {:.1}% of the file", index / 1e6, 100.0 * index / bytes);
}

/// Measures durable sets alone and beside a thread that asks for the past, in turn.
fn writers(folder: &Path) {
    for writers in [1, 32] {
        let [mut alone, mut beside] = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            alone.push(sets(folder, writers, None));
            beside.push(sets(folder, writers, Some(Duration::from_millis(10))));
        }
        let [alone, beside] = [alone, beside].map(|rates| median(&rates).unwrap());
        println!(
            "durable sets, {writers} writers: {alone:.0}/s, {beside:.0}/s beside questions: {:.2}",
            beside / alone
        );
    }
}

/// Sets values for a round, beside a thread that asks for the history of a key after each pause.
fn sets(folder: &Path, writers: usize, pause: Option<Duration>) -> f64 {
    let path = folder.join("sets.db");
    let _ = std::fs::remove_file(&path);
    let store = options().open(&path).unwrap();
    let is_ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let (store, is_ended) = (&store, &is_ended);
        if let Some(pause) = pause {
            scope.spawn(move || {
                while !is_ended.load(Ordering::Relaxed) {
                    assert!(store.history(key(1)).unwrap().all(|revision| revision.is_ok()));
                    thread::sleep(pause);
                }
            });
        }
        let rate = crew::rate(writers, ROUND, |writer, count| {
            Ok(store.set_bytes(key(writer as u64 + 32 * count), [7; 100])?)
        });
        is_ended.store(true, Ordering::Relaxed);
        rate.unwrap()
    })
}

fn timed<R>(work: impl FnOnce() -> R) -> (R, f64) {
    let begin = Instant::now();
    let done = work();
    (done, begin.elapsed().as_secs_f64() * 1e3)
}

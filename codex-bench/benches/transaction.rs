//! The rate of transactions of one read and one write, of `update` and of `set`, and the cost of
//! scans in transactions. `cargo bench -p codex-bench --bench transaction`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use codex_bench::crew;
use codex_bench::numbers::median;
use codex_core::{Durability, Store};

const ROUND: Duration = Duration::from_millis(300);
const ROUNDS: usize = 7;

fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    println!("calls a second, medians of {ROUNDS} rounds of {} ms", ROUND.as_millis());
    println!("place   writers       set    update  transaction  update / transaction");
    for place in ["memory", "os", "sync"] {
        for writers in [1, 8, 32] {
            point(folder.path(), place, writers);
        }
    }
    println!();
    println!("transactions that scan and write one key, beside writers of other keys");
    println!("entries  writers  scans/s  sets/s  longest set, us");
    for entries in [10_000, 100_000] {
        for writers in [0, 8] {
            scan(entries, writers);
        }
    }
}

/// Compares calls that read a key and write it.
fn point(folder: &Path, place: &str, writers: usize) {
    let mut rates = [(); 3].map(|()| Vec::new());
    for _ in 0..ROUNDS {
        let store = open(folder, place);
        rates[0].push(rate(writers, |key| store.set(key, &1_u64).unwrap()));
        rates[1].push(rate(writers, |key| {
            store.update(key, |n: Option<u64>| Some(n.unwrap_or(0) + 1)).unwrap();
        }));
        rates[2].push(rate(writers, |key| {
            let add = store.transaction(|tx| {
                let n: u64 = tx.get(key)?.unwrap_or(0);
                tx.set(key, &(n + 1))
            });
            add.unwrap();
        }));
        store.close().unwrap();
    }
    let [set, update, transaction] = rates.map(|rates| median(&rates).unwrap());
    let ratio = update / transaction;
    println!("{place:<8}{writers:>7} {set:>9.0} {update:>9.0} {transaction:>12.0} {ratio:>21.2}");
}

#[allow(clippy::cast_precision_loss, reason = "a rate for a person")]
/// Scans all entries in transactions, beside threads that write other keys.
fn scan(entries: u64, writers: usize) {
    let store = Store::in_memory().unwrap();
    let mut batch = store.batch();
    for n in 0..entries {
        batch.set(format!("n/{n:08}"), &n).unwrap();
    }
    batch.commit().unwrap();
    let (stop, sets, longest) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let mut scans = 0_u64;
    let from = Instant::now();
    thread::scope(|scope| {
        for writer in 0..writers {
            let (store, stop, sets, longest) = (&store, &stop, &sets, &longest);
            scope.spawn(move || {
                let key = format!("w/{writer}");
                while !stop.load(Ordering::Relaxed) {
                    let from = Instant::now();
                    store.set(&key, &1_u64).unwrap();
                    let took = u64::try_from(from.elapsed().as_micros()).unwrap();
                    longest.fetch_max(took, Ordering::Relaxed);
                    sets.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while from.elapsed() < 4 * ROUND {
            let count = store.transaction(|tx| {
                let count = tx.prefix("n/").count();
                tx.set("count", &count).map(|()| count)
            });
            assert_eq!(u64::try_from(count.unwrap()).unwrap(), entries);
            scans += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    let seconds = from.elapsed().as_secs_f64();
    let [scans, sets] = [scans, sets.into_inner()].map(|count| count as f64 / seconds);
    let longest = longest.into_inner();
    println!("{entries:>7} {writers:>8} {scans:>8.1} {sets:>7.0} {longest:>16}");
}

fn open(folder: &Path, place: &str) -> Store {
    let durability = match place {
        "memory" => return Store::in_memory().unwrap(),
        "os" => Durability::Os,
        _ => Durability::Sync,
    };
    let store = Store::options().durability(durability).open(folder.join("store.db")).unwrap();
    store.clear().unwrap();
    store
}

/// Calls `call` from `writers` threads for a round, each with keys of its own, and returns the
/// calls per second.
fn rate(writers: usize, call: impl Fn(&str) + Sync) -> f64 {
    let rate = crew::rate(writers, ROUND, |writer, count| {
        call(&format!("{writer:02}/{:04}", count % 1_000));
        Ok(())
    });
    rate.unwrap()
}

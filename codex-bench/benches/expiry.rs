//! The time of `get_bytes` in stores without and with entries that expire.
//! `cargo bench -p codex-bench --bench expiry`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use codex_bench::numbers::quantile;
use codex_core::Store;

const ROUNDS: usize = 21;
const CALLS: u64 = 100_000;

fn main() {
    println!("ns per get_bytes of a random key, medians of {ROUNDS} rounds, stores in turn");
    println!("entries    none expire  all expire  difference");
    for entries in [10_000, 1_000_000] {
        let stores = [false, true].map(|expire| filled(entries, expire));
        let mut times = [(); 2].map(|()| Vec::new());
        for round in 0..ROUNDS {
            for (store, times) in stores.iter().zip(&mut times) {
                times.push(gets(store, entries, round as u64));
            }
        }
        let [none, all] = times.map(|times| quantile(&times, 1, 2).unwrap());
        println!("{entries:>9} {none:>12} {all:>11} {:>11}", all - none);
    }
}

fn filled(entries: u64, expire: bool) -> Store {
    let store = Store::in_memory().unwrap();
    let in_a_day = SystemTime::now() + Duration::from_secs(86_400);
    let mut batch = store.batch();
    for index in 0..entries {
        let (key, value) = (key(index), [7; 100]);
        if expire {
            batch.set_bytes_with_expiry(key, value, in_a_day).unwrap();
        } else {
            batch.set_bytes(key, value).unwrap();
        }
    }
    batch.commit().unwrap();
    store
}

/// Returns the time of one of [`CALLS`] gets, in ns.
fn gets(store: &Store, entries: u64, seed: u64) -> i64 {
    let keys: Vec<_> = (0..CALLS)
        .map(|n| (n + seed * CALLS).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16)
        .map(|n| key(n % entries))
        .collect();
    let from = Instant::now();
    for key in &keys {
        black_box(store.get_bytes(key).unwrap());
    }
    i64::try_from(from.elapsed().as_nanos() / u128::from(CALLS)).unwrap()
}

fn key(index: u64) -> String {
    format!("key/{index:013}")
}

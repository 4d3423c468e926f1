//! Transfers between accounts by many threads, in four ways: transactions, locks of keys that are
//! held over the commit, one global lock, and loops of `compare_exchange`.
//! `cargo bench -p codex-bench --bench contention`.
//!
//! A transfer reads two of N accounts and writes both. `compare_exchange` writes them one after the
//! other, so that a crash in between loses money: it is the lower bound of what atomicity costs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "a program that prints")]

use std::cell::Cell;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use codex_bench::numbers::median;
use codex_core::{Durability, Store};

type Way = (&'static str, fn(&Bank, &str, &str) -> u32);

const WAYS: [Way; 4] = [
    ("transaction", transaction),
    ("key locks", key_locks),
    ("global lock", global_lock),
    ("exchange", exchange),
];
const ACCOUNTS: [usize; 4] = [2, 10, 100, 10_000];
const WRITERS: [usize; 4] = [1, 8, 32, 64];
const ROUND: Duration = Duration::from_millis(400);
const ROUNDS: usize = 3;
/// The number of locks among which the keys are divided.
const STRIPES: usize = 1_024;

struct Bank {
    store: Store,
    keys: Vec<Mutex<()>>,
    global: Mutex<()>,
}

/// The transfers of one round.
#[derive(Default)]
struct Made {
    seconds: f64,
    /// The number of attempts of each transfer, in ascending order.
    attempts: Vec<u32>,
    /// The time of each transfer, in ascending order.
    times: Vec<Duration>,
}

fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    println!("transfers, medians of {ROUNDS} rounds of {} ms", ROUND.as_millis());
    println!(
        "place   accounts  writers  way            per s  vs locks   attempts p50  p99   max  \
         wasted   p99 us"
    );
    for place in ["memory", "sync"] {
        for accounts in ACCOUNTS {
            for writers in WRITERS {
                compare(folder.path(), place, accounts, writers);
            }
        }
    }
}

/// Measures all ways in turn, and prints a line for each.
fn compare(folder: &Path, place: &str, accounts: usize, writers: usize) {
    let mut all: [Vec<Made>; WAYS.len()] = Default::default();
    for _ in 0..ROUNDS {
        for (way, (_, transfer)) in WAYS.iter().enumerate() {
            let bank = Bank::new(folder, place, accounts);
            all[way].push(bank.run(accounts, writers, *transfer));
            bank.store.close().unwrap();
        }
    }
    let rate = |rounds: &[Made]| {
        let rates: Vec<_> = rounds.iter().map(Made::rate).collect();
        median(&rates).unwrap()
    };
    let locks = rate(&all[1]);
    for (rounds, (name, _)) in all.iter().zip(WAYS) {
        let mut attempts: Vec<u32> = rounds.iter().flat_map(|made| made.attempts.clone()).collect();
        let mut times: Vec<_> = rounds.iter().flat_map(|made| made.times.clone()).collect();
        attempts.sort_unstable();
        times.sort_unstable();
        let at = |percent: usize| (attempts.len() - 1) * percent / 100;
        let total: u64 = attempts.iter().map(|&attempts| u64::from(attempts)).sum();
        let wasted = 100 - 100 * u64::try_from(attempts.len()).unwrap() / total;
        println!(
            "{place:<8}{accounts:>8} {writers:>8}  {name:<12} {:>8.0}  {:>8.2}  {:>13} {:>4} \
             {:>5}  {wasted:>5}%  {:>7}",
            rate(rounds),
            rate(rounds) / locks,
            attempts[at(50)],
            attempts[at(99)],
            attempts[at(100)],
            times[(times.len() - 1) * 99 / 100].as_micros(),
        );
    }
}

impl Made {
    #[allow(clippy::cast_precision_loss, reason = "a rate for a person")]
    fn rate(&self) -> f64 {
        self.attempts.len() as f64 / self.seconds
    }
}

impl Bank {
    fn new(folder: &Path, place: &str, accounts: usize) -> Self {
        let store = if place == "memory" {
            Store::in_memory().unwrap()
        } else {
            let path = folder.join("bank.db");
            let store = Store::options().durability(Durability::Sync).open(path).unwrap();
            store.clear().unwrap();
            store
        };
        let mut batch = store.batch();
        for account in 0..accounts {
            batch.set(name(account), &1_000_i64).unwrap();
        }
        batch.commit().unwrap();
        let keys = (0..STRIPES).map(|_| Mutex::new(())).collect();
        Self { store, keys, global: Mutex::new(()) }
    }

    /// Makes transfers from `writers` threads for a round.
    fn run(&self, accounts: usize, writers: usize, transfer: fn(&Self, &str, &str) -> u32) -> Made {
        let stop = AtomicBool::new(false);
        let from = Instant::now();
        let parts: Vec<Made> = thread::scope(|scope| {
            let threads: Vec<_> = (0..writers)
                .map(|writer| {
                    let stop = &stop;
                    scope.spawn(move || {
                        let (mut made, mut random) = (Made::default(), writer + 1);
                        while !stop.load(Ordering::Relaxed) {
                            let [payer, payee] = pair(&mut random, accounts);
                            let from = Instant::now();
                            made.attempts.push(transfer(self, &name(payer), &name(payee)));
                            made.times.push(from.elapsed());
                        }
                        made
                    })
                })
                .collect();
            thread::sleep(ROUND);
            stop.store(true, Ordering::Relaxed);
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let seconds = from.elapsed().as_secs_f64();
        let total: i64 = self.store.iter().map(|entry| entry.value::<i64>().unwrap()).sum();
        assert_eq!(total, i64::try_from(accounts).unwrap() * 1_000, "money was made or lost");
        let mut made = Made { seconds, ..Made::default() };
        for part in parts {
            made.attempts.extend(part.attempts);
            made.times.extend(part.times);
        }
        made
    }

    fn balance(&self, account: &str) -> i64 {
        self.store.get(account).unwrap().unwrap()
    }

    fn commit(&self, payer: &str, payee: &str) {
        let mut batch = self.store.batch();
        batch.set(payer, &(self.balance(payer) - 1)).unwrap();
        batch.set(payee, &(self.balance(payee) + 1)).unwrap();
        batch.commit().unwrap();
    }
}

fn transaction(bank: &Bank, payer: &str, payee: &str) -> u32 {
    let attempts = Cell::new(0);
    let done = bank.store.transaction(|tx| {
        attempts.set(attempts.get() + 1);
        let (from, to): (i64, i64) = (tx.get(payer)?.unwrap(), tx.get(payee)?.unwrap());
        tx.set(payer, &(from - 1))?;
        tx.set(payee, &(to + 1))
    });
    done.unwrap();
    attempts.get()
}

fn key_locks(bank: &Bank, payer: &str, payee: &str) -> u32 {
    // In ascending order, so that two transfers cannot wait for each other.
    let mut stripes = [payer, payee].map(stripe);
    stripes.sort_unstable();
    let _first: MutexGuard<'_, ()> = bank.keys[stripes[0]].lock().unwrap();
    let _second = (stripes[0] != stripes[1]).then(|| bank.keys[stripes[1]].lock().unwrap());
    bank.commit(payer, payee);
    1
}

fn global_lock(bank: &Bank, payer: &str, payee: &str) -> u32 {
    let _global = bank.global.lock().unwrap();
    bank.commit(payer, payee);
    1
}

fn exchange(bank: &Bank, payer: &str, payee: &str) -> u32 {
    let add = |account: &str, amount: i64| {
        let mut attempts = 1;
        loop {
            let balance = bank.balance(account);
            let new = balance + amount;
            if bank.store.compare_exchange(account, Some(&balance), Some(&new)).unwrap() {
                return attempts;
            }
            attempts += 1;
        }
    };
    add(payer, -1) + add(payee, 1) - 1
}

fn name(account: usize) -> String {
    format!("account/{account:05}")
}

fn stripe(key: &str) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::new().hash_one(key);
    usize::try_from(hash).unwrap() % STRIPES
}

/// Returns two different accounts.
fn pair(random: &mut usize, accounts: usize) -> [usize; 2] {
    // A linear congruential generator is random enough to choose accounts.
    let mut next = |below: usize| {
        *random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (*random >> 33) % below
    };
    let payer = next(accounts);
    let payee = (payer + 1 + next(accounts - 1)) % accounts;
    [payer, payee]
}

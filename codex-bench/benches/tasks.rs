//! Sets by tasks of an async runtime with two workers, beside sets by threads.
//! `cargo bench -p codex-bench --bench tasks`.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(clippy::cast_precision_loss, clippy::print_stdout, reason = "a program that prints")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use codex_bench::crew;
use codex_bench::numbers::median;
use codex_core::{AsyncStore, Durability, Store};
use tokio::runtime::{Builder, Runtime};

const ROUND: Duration = Duration::from_millis(500);
const ROUNDS: usize = 7;
const VALUE: [u8; 100] = [7; 100];

#[derive(Clone, Copy)]
enum Writers {
    Threads(usize),
    Tasks(usize),
}

use Writers::{Tasks, Threads};

const WRITERS: [Writers; 5] = [Threads(1), Tasks(1), Threads(32), Tasks(32), Tasks(1_024)];

fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = Builder::new_multi_thread().worker_threads(2).build().unwrap();
    println!("sets, medians of {ROUNDS} alternating rounds of {} ms", ROUND.as_millis());
    println!("level   writers           per s   us per set of one writer");
    for (name, level) in [("sync", Durability::Sync), ("os", Durability::Os)] {
        let mut rates = WRITERS.map(|_| Vec::new());
        for _ in 0..ROUNDS {
            for (writers, rates) in WRITERS.into_iter().zip(&mut rates) {
                rates.push(rate(folder.path(), level, writers, &runtime));
            }
        }
        let rates = rates.map(|rates| median(&rates).unwrap());
        for (writers, rate) in WRITERS.into_iter().zip(rates) {
            let (count, kind) = match writers {
                Threads(count) => (count, "threads"),
                Tasks(count) => (count, "tasks"),
            };
            let each = count as f64 / rate * 1e6;
            println!("{name:<8}{count:>5} {kind:<9} {rate:>9.0} {each:>10.1}");
        }
        let [thread, task, threads, tasks, many] = rates;
        println!(
            "{name:<8}one task {:.2} times the time of a thread; 32 tasks {:.2} and 1,024 tasks \
             {:.2} times the rate of 32 threads",
            thread / task,
            tasks / threads,
            many / threads
        );
    }
}

/// Returns the number of sets per second.
fn rate(folder: &Path, level: Durability, writers: Writers, runtime: &Runtime) -> f64 {
    let path = folder.join("tasks.db");
    let store = Store::options().durability(level).open(&path).unwrap();
    let made = match writers {
        Threads(count) => by_threads(&store, count),
        Tasks(count) => by_tasks(&store.clone().into(), count, runtime),
    };
    store.close().unwrap();
    Store::destroy(&path).unwrap();
    made
}

fn by_threads(store: &Store, count: usize) -> f64 {
    let keys: Vec<_> = (0..count).map(|writer| format!("writer/{writer:04}")).collect();
    let rate =
        crew::rate(
            count,
            ROUND,
            |writer, _| Ok(store.set_bytes(keys.get(writer).unwrap(), VALUE)?),
        );
    rate.unwrap()
}

fn by_tasks(store: &AsyncStore, count: usize, runtime: &Runtime) -> f64 {
    let (stop, sets) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let from = Instant::now();
    let spawned: Vec<_> = (0..count)
        .map(|writer| {
            let (store, stop, sets) = (store.clone(), Arc::clone(&stop), Arc::clone(&sets));
            runtime.spawn(async move {
                let key = format!("writer/{writer:04}");
                while !stop.load(Ordering::Relaxed) {
                    store.set_bytes(&key, VALUE).await.unwrap();
                    sets.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    thread::sleep(ROUND);
    stop.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        for task in spawned {
            task.await.unwrap();
        }
    });
    sets.load(Ordering::Relaxed) as f64 / from.elapsed().as_secs_f64()
}

//! The time of typed tables beside that of the same records under bytes outside tables.
//! `cargo bench -p codex-bench --bench tables`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "a program that prints")]
#![expect(clippy::big_endian_bytes, reason = "such keys are in the order of their numbers")]

use std::hint::black_box;
use std::time::Instant;

use codex_core::{Store, Table};

const ROUNDS: u64 = 21;
const ENTRIES: u64 = 100_000;
const CALLS: u64 = 20_000;

type Value = (u64, String);
type Call = fn(&Store, &Table<u64, Value>, u64);

fn main() {
    println!("ns per call in memory, {ENTRIES} entries, medians of {ROUNDS} rounds in turn");
    println!("call        bytes  table  ratio");
    let store = Store::in_memory().unwrap();
    let table = store.table::<u64, Value>("t").unwrap();
    let (mut batch, values) = (store.batch(), value());
    for n in 0..ENTRIES {
        batch.set(n.to_be_bytes(), &values).unwrap();
        batch.table(&table).unwrap().set(n, &values).unwrap();
    }
    batch.commit().unwrap();
    let rows: [(&str, u64, [Call; 2]); 4] = [
        (
            "get",
            CALLS,
            [
                |store, _, n| drop(black_box(store.get::<Value>(n.to_be_bytes()).unwrap())),
                |_, table, n| drop(black_box(table.get(n).unwrap())),
            ],
        ),
        (
            "get_bytes",
            CALLS,
            [
                |store, _, n| drop(black_box(store.get_bytes(n.to_be_bytes()))),
                |_, table, n| drop(black_box(table.get_bytes(n).unwrap())),
            ],
        ),
        (
            "set",
            CALLS,
            [
                |store, _, n| store.set(n.to_be_bytes(), &value()).unwrap(),
                |_, table, n| table.set(n, &value()).unwrap(),
            ],
        ),
        (
            "scan",
            1,
            [
                |store, _, _| {
                    store.iter().for_each(|entry| {
                        let key = u64::from_be_bytes(entry.key().try_into().unwrap());
                        black_box((key, entry.value::<Value>().unwrap()));
                    });
                },
                |_, table, _| table.iter().for_each(|row| drop(black_box(row.unwrap()))),
            ],
        ),
    ];
    for (name, calls, both) in rows {
        let [bytes, table] = medians(&store, &table, calls, both);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a ratio of two times needs no exact digits"
        )]
        let ratio = table as f64 / bytes as f64;
        println!("{name:<9} {bytes:>7} {table:>6}  {ratio:.2}");
    }
}

/// Returns the times of both calls in ns.
fn medians(store: &Store, table: &Table<u64, Value>, calls: u64, both: [Call; 2]) -> [u128; 2] {
    let mut times = [(); 2].map(|()| Vec::new());
    for round in 0..ROUNDS {
        for (call, times) in both.iter().zip(&mut times) {
            let from = Instant::now();
            for n in 0..calls {
                let n = (n + round * calls).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
                call(store, table, n % ENTRIES);
            }
            let per_call = if calls == 1 { ENTRIES } else { calls };
            times.push(from.elapsed().as_nanos() / u128::from(per_call));
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    })
}

fn value() -> Value {
    (7, "a name of a user".to_owned())
}

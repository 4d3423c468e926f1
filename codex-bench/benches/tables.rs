//! The time of typed tables beside that of the same records under bytes outside tables, of a set
//! with an index beside one without, of an open of many tables, and of a drop beside a removal.
//! `cargo bench -p codex-bench --bench tables -- [calls] [index] [open] [drop]`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "a program that prints")]
#![expect(clippy::big_endian_bytes, reason = "such keys are in the order of their numbers")]

use std::hint::black_box;
use std::time::Instant;

use codex_core::{Durability, Store, Table, TableSpec};

const ROUNDS: u64 = 21;
const ENTRIES: u64 = 100_000;
const CALLS: u64 = 20_000;

type Value = (u64, String);
type Call = fn(&Store, &Table<u64, Value>, u64);

fn main() {
    let parts: [(&str, fn()); 4] =
        [("calls", calls), ("index", index), ("open", open), ("drop", drop_or_remove)];
    let wanted: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    for (name, part) in parts {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            part();
        }
    }
}

/// A set that changes the key of the row in an index, beside one of a table without an index.
fn index() {
    println!("ns per set that changes one key of an index, medians of {ROUNDS} rounds in turn");
    println!("level       none  index  ratio   unique  ratio");
    let folder = tempfile::tempdir().unwrap();
    let durable = |level, name: &str| {
        Store::options().durability(level).open(folder.path().join(name)).unwrap()
    };
    let stores = [
        ("memory", Store::in_memory().unwrap(), ENTRIES, 5_000),
        ("os", durable(Durability::Os, "os.db"), ENTRIES, 5_000),
        ("sync", durable(Durability::Sync, "sync.db"), 1_000, 100),
    ];
    for (name, store, entries, calls) in stores {
        let tables = [
            TableSpec::<u64, Value>::new("none"),
            TableSpec::new("index").index::<u64>("by_n", |(n, _), keys| keys.add(*n)),
            TableSpec::new("unique").unique::<u64>("by_n", |(n, _), keys| keys.add(*n)),
        ];
        let tables = tables.map(|spec| spec.open(&store).unwrap());
        let value = |n| (n, "a name of a user".to_owned());
        store
            .transaction(|tx| {
                for table in &tables {
                    let mut table = tx.table(table)?;
                    (0..entries).try_for_each(|n| table.set(n, &value(n)))?;
                }
                Ok(())
            })
            .unwrap();
        let mut times = [(); 3].map(|()| Vec::new());
        for round in 0..ROUNDS {
            for (table, times) in tables.iter().zip(&mut times) {
                let from = Instant::now();
                for n in 0..calls {
                    let n = n + round * calls;
                    let row = (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16) % entries;
                    table.set(row, &value(entries + n)).unwrap();
                }
                times.push(from.elapsed().as_nanos() / u128::from(calls));
            }
        }
        let [none, index, unique] = times.map(median);
        let (of_index, of_unique) = (ratio(index, none), ratio(unique, none));
        println!("{name:<9} {none:>7} {index:>6}  {of_index:.2}  {unique:>7}  {of_unique:.2}");
    }
}

/// An open of 1 M rows in 100 tables, beside one of 1 M keys outside tables.
fn open() {
    println!("ms of an open of 1 M entries, medians of 5 rounds in turn");
    let folder = tempfile::tempdir().unwrap();
    let paths = ["plain", "tables"].map(|name| folder.path().join(name));
    for path in &paths {
        let store = Store::options().durability(Durability::Os).open(path).unwrap();
        for of in 0..100_u64 {
            let mut batch = store.batch();
            if path.ends_with("plain") {
                for n in 0..10_000 {
                    batch.set((of * 10_000 + n).to_be_bytes(), &value()).unwrap();
                }
            } else {
                let table = store.table::<u64, Value>(&format!("t{of}")).unwrap();
                let mut table = batch.table(&table).unwrap();
                (0..10_000).for_each(|n| table.set(n, &value()).unwrap());
            }
            batch.commit().unwrap();
        }
        store.checkpoint().unwrap();
        store.close().unwrap();
    }
    let mut times = [(); 2].map(|()| Vec::new());
    for _ in 0..5 {
        for (path, times) in paths.iter().zip(&mut times) {
            let from = Instant::now();
            let store = Store::open(path).unwrap();
            times.push(from.elapsed().as_millis());
            assert!(store.len() == 1_000_000 || store.tables().unwrap().len() == 100);
        }
    }
    let [plain, tables] = times.map(median);
    println!("plain {plain}, tables {tables}: {:.2}", ratio(tables, plain));
}

/// The longest hold of memory while 100,000 rows go: by a drop of the table, and by a bulk removal.
fn drop_or_remove() {
    println!("us of the longest hold of memory, {ENTRIES} rows, medians of 5 rounds in turn");
    let mut holds = [(); 2].map(|()| Vec::new());
    for _ in 0..5 {
        for (at, holds) in holds.iter_mut().enumerate() {
            let store = Store::in_memory().unwrap();
            let table = store.table::<u64, Value>("t").unwrap();
            // Sets of their own, so that no hold of them is longer than that of the removal.
            (0..ENTRIES).for_each(|n| table.set(n, &value()).unwrap());
            if at == 0 {
                store.drop_table("t").unwrap();
            } else {
                table.remove_range(..).unwrap();
            }
            holds.push(u128::from(store.stats().data_hold_ns_max) / 1_000);
        }
    }
    let [drop, removal] = holds.map(median);
    println!("drop {drop}, removal {removal}: {:.2}", ratio(drop, removal));
}

fn calls() {
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
        println!("{name:<9} {bytes:>7} {table:>6}  {:.2}", ratio(table, bytes));
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
    times.map(median)
}

fn median(mut times: Vec<u128>) -> u128 {
    times.sort_unstable();
    times[times.len() / 2]
}

#[expect(clippy::cast_precision_loss, reason = "a ratio of two times needs no exact digits")]
fn ratio(time: u128, of: u128) -> f64 {
    time as f64 / of.max(1) as f64
}

fn value() -> Value {
    (7, "a name of a user".to_owned())
}

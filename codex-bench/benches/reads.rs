//! Reads against the bare structures they stand on: point reads against hashbrown, scans against
//! `BTreeMap`, two threads against one.
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use codex_core::Store;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hashbrown::HashMap;

/// Keys of 17 bytes and values of 100.
struct Filled {
    keys: Vec<[u8; 17]>,
    store: Store,
    hash: HashMap<[u8; 17], Box<[u8; 100]>>,
    tree: BTreeMap<[u8; 17], Box<[u8; 100]>>,
}

impl Filled {
    fn new(entries: u64) -> Self {
        let keys: Vec<[u8; 17]> = (0..entries)
            .map(|index| {
                let mut key = [b'k'; 17];
                let digits = format!("{:016x}", index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                key[1..].copy_from_slice(digits.as_bytes());
                key
            })
            .collect();
        let value = |index: usize| Box::new([u8::try_from(index % 251).unwrap(); 100]);
        let store = Store::in_memory().unwrap();
        for chunk in keys.chunks(10_000) {
            let mut batch = store.batch();
            for (index, key) in chunk.iter().enumerate() {
                batch.set_bytes(key, value(index).as_slice()).unwrap();
            }
            batch.commit().unwrap();
        }
        let pairs = || keys.iter().enumerate().map(|(index, key)| (*key, value(index)));
        let (hash, tree) = (pairs().collect(), pairs().collect());
        Self { keys, store, hash, tree }
    }

    /// Returns the keys in an order that no prefetcher follows.
    fn key(&self, number: u64) -> &[u8; 17] {
        let len = self.keys.len() as u64;
        let at = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
        &self.keys[usize::try_from(at % len).unwrap()]
    }
}

fn point_reads(criterion: &mut Criterion) {
    for entries in [10_000, 1_000_000] {
        let filled = Filled::new(entries);
        let mut group = criterion.benchmark_group(format!("get/{entries}"));
        group.throughput(Throughput::Elements(1));
        let mut number = 0_u64;
        group.bench_function("hashbrown", |bencher| {
            bencher.iter(|| {
                number += 1;
                black_box(filled.hash.get(filled.key(number)).map(|value| value[0]))
            });
        });
        group.bench_function("store", |bencher| {
            bencher.iter(|| {
                number += 1;
                black_box(filled.store.get_bytes(filled.key(number)).map(|value| value[0]))
            });
        });
        for threads in [1_u64, 2] {
            group.throughput(Throughput::Elements(threads));
            let id = BenchmarkId::new("store, threads", threads);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|rounds| {
                    let start = Instant::now();
                    std::thread::scope(|scope| {
                        for thread in 0..threads {
                            let filled = &filled;
                            scope.spawn(move || {
                                for round in 0..rounds {
                                    let key = filled.key(round * 2 + thread);
                                    black_box(filled.store.get_bytes(key).map(|value| value[0]));
                                }
                            });
                        }
                    });
                    start.elapsed()
                });
            });
        }
        group.finish();
    }
}

fn scans(criterion: &mut Criterion) {
    let filled = Filled::new(1_000_000);
    let mut group = criterion.benchmark_group("scan/1000000");
    group.throughput(Throughput::Elements(1_000_000)).sample_size(10);
    group.bench_function("BTreeMap", |bencher| {
        bencher.iter(|| {
            let sum: u64 =
                filled.tree.iter().map(|(k, v)| u64::from(k[16]) + u64::from(v[0])).sum();
            black_box(sum)
        });
    });
    group.bench_function("store", |bencher| {
        bencher.iter(|| {
            let entries = filled.store.iter();
            let sum: u64 = entries.map(|e| u64::from(e.key()[16]) + u64::from(e.bytes()[0])).sum();
            black_box(sum)
        });
    });
    group.finish();
}

criterion_group!(benches, point_reads, scans);
criterion_main!(benches);

//! The rate of durable writes of 1, 8, 32 and 64 threads, compared in the same run with a minimal
//! harness: a queue, a leader, one write and one fdatasync per group, and wakeups of the waiters.
//! Also the rate of the commit path without a disk. `cargo bench -p codex-core --bench commit`.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a program that measures: it stands beside the library, on std's own means"
)]

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use codex_core::{Durability, Store};

fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    println!("commits a second, medians of {ROUNDS} rounds of {} ms", ROUND.as_millis());
    println!(
        "writers      bare       Sync  ratio         Os  in memory  longest hold of memory, ns"
    );
    for writers in [1, 8, 32, 64] {
        let mut rates = [(); 4].map(|()| Vec::new());
        let mut hold = 0;
        for _ in 0..ROUNDS {
            let bare = Bare::new(&folder.path().join("bare"));
            rates[0].push(rate(writers, |key, value| bare.commit(&[key, value].concat())));
            for (at, durability) in [(1, Durability::Sync), (2, Durability::Os)] {
                let store = open(folder.path(), durability);
                rates[at].push(rate(writers, |key, value| store.set_bytes(key, value).unwrap()));
                hold = store.stats().data_hold_ns_max.max(hold);
                store.close().unwrap();
            }
            let store = Store::in_memory().unwrap();
            rates[3].push(rate(writers, |key, value| store.set_bytes(key, value).unwrap()));
        }
        let [bare, sync, os, memory] = rates.map(median);
        let ratio = sync / bare;
        println!(
            "{writers:>7} {bare:>9.0}  {sync:>9.0}  {ratio:>5.2}  {os:>9.0}  {memory:>9.0}  {hold}"
        );
    }
}

fn open(folder: &Path, durability: Durability) -> Store {
    let path = folder.join("store.db");
    let store = Store::options().durability(durability).open(path).unwrap();
    store.clear().unwrap();
    store
}

/// Calls `commit` from `writers` threads for a round, and returns the calls per second.
fn rate(writers: u64, commit: impl Fn(&[u8], &[u8]) + Sync) -> f64 {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let from = Instant::now();
    thread::scope(|scope| {
        for writer in 0..writers {
            let (stop, done, commit) = (&stop, &done, &commit);
            scope.spawn(move || {
                let (mut count, mut value) = (0_u64, [7; 100]);
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("{:017}", (count * 64 + writer) * 7919 % 10_007);
                    value[..8].copy_from_slice(&count.to_le_bytes());
                    commit(key.as_bytes(), &value);
                    count += 1;
                }
                done.fetch_add(count, Ordering::Relaxed);
            });
        }
        thread::sleep(ROUND);
        stop.store(true, Ordering::Relaxed);
    });
    let done = u32::try_from(done.load(Ordering::Relaxed)).unwrap();
    f64::from(done) / from.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// A minimal group commit.
struct Bare {
    queue: Mutex<(VecDeque<Arc<Waiter>>, bool)>,
    file: Mutex<(File, u64)>,
}

struct Waiter {
    bytes: Vec<u8>,
    /// 0 waiting, 1 leading, 2 done.
    turn: AtomicU64,
    thread: Thread,
}

impl Bare {
    fn new(path: &Path) -> Self {
        let file = File::create(path).unwrap();
        // The file is written and synced before, so that the syncs need not allocate.
        file.write_all_at(&vec![0; SPACE], 0).unwrap();
        file.sync_all().unwrap();
        Self { queue: Mutex::default(), file: Mutex::new((file, 0)) }
    }

    fn commit(&self, bytes: &[u8]) {
        let waiter = Arc::new(Waiter {
            bytes: bytes.to_vec(),
            turn: AtomicU64::new(0),
            thread: thread::current(),
        });
        {
            let mut queue = self.queue.lock().unwrap();
            queue.0.push_back(waiter.clone());
            if !queue.1 {
                queue.1 = true;
                waiter.turn.store(1, Ordering::Release);
            }
        }
        loop {
            match waiter.turn.load(Ordering::Acquire) {
                0 => thread::park(),
                1 => return self.lead(),
                _ => return,
            }
        }
    }

    fn lead(&self) {
        let mut file = self.file.lock().unwrap();
        let group: Vec<_> = self.queue.lock().unwrap().0.drain(..).collect();
        let bytes: Vec<u8> = group.iter().flat_map(|waiter| waiter.bytes.clone()).collect();
        let at = file.1 % (SPACE as u64 / 2);
        file.0.write_all_at(&bytes, at).unwrap();
        file.0.sync_data().unwrap();
        file.1 = at + bytes.len() as u64;
        drop(file);
        let next = {
            let mut queue = self.queue.lock().unwrap();
            queue.1 = !queue.0.is_empty();
            queue.0.front().cloned()
        };
        for (waiter, turn) in next.iter().map(|next| (next, 1)).chain(group.iter().map(|w| (w, 2)))
        {
            waiter.turn.store(turn, Ordering::Release);
            waiter.thread.unpark();
        }
    }
}

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(500);
const SPACE: usize = 64 << 20;

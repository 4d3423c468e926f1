//! Tests of many threads on one store, in each form. Updates count exactly, batches are atomic in
//! every snapshot, and disk and memory agree afterwards.

use std::ops::Bound;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::{contents, disk, files, scaled};
use codex_core::vfs::Vfs;
use codex_core::{CheckpointPolicy, Durability, Form, OpenOptions, Prefix, Snapshot, Store};

const ACCOUNTS: u32 = 10;
const EACH: i64 = 1_000;

fn account(n: u32) -> String {
    format!("account/{n:02}")
}

fn total(snapshot: &Snapshot) -> i64 {
    snapshot.prefix("account/").map(|entry| entry.value::<i64>().unwrap()).sum()
}

/// Moves an amount between two accounts in one batch, under a key that only one thread writes at a
/// time: the thread that advanced `turn` may transfer.
fn transfer(store: &Store, thread: u32, round: u32) {
    let (from, to) = ((thread + round) % ACCOUNTS, (thread * 3 + round + 1) % ACCOUNTS);
    while !store.compare_exchange("turn", None, Some(&thread)).unwrap() {
        thread::yield_now();
    }
    if from != to {
        let balance = |n| store.get::<i64>(account(n)).unwrap().unwrap();
        let mut batch = store.batch();
        batch.set(account(from), &(balance(from) - 7)).unwrap();
        batch.set(account(to), &(balance(to) + 7)).unwrap();
        batch.commit().unwrap();
    }
    assert!(store.compare_exchange("turn", Some(&thread), None).unwrap());
}

/// Runs writers of every kind, readers of every kind and checkpoints at the same time, while `tick`
/// advances the time.
fn turmoil(store: &Store, tick: &dyn Fn()) {
    let (rounds, done) = (scaled(30), AtomicBool::new(false));
    for n in 0..ACCOUNTS {
        store.set(account(n), &EACH).unwrap();
    }
    thread::scope(|scope| {
        let counters = (0..4).map(|_| {
            scope.spawn(|| {
                for _ in 0..rounds {
                    let add = |n: Option<u32>| Some(n.unwrap_or(0) + 1);
                    store.update("counter", add).unwrap();
                }
            })
        });
        let tellers =
            (0..3).map(|n| scope.spawn(move || (0..rounds).for_each(|r| transfer(store, n, r))));
        let listers = (0..2).map(|n| {
            scope.spawn(move || {
                for round in 0..rounds {
                    let prefix = format!("list/{n}/");
                    for item in 0..5 {
                        store.set(format!("{prefix}{round}/{item}"), &item).unwrap();
                    }
                    let before = store.prefix(&prefix).count();
                    let removed = store.remove_prefix(format!("{prefix}{round}/")).unwrap();
                    assert_eq!((before, removed), (5, 5), "nobody else writes there");
                }
            })
        });
        let mut writers: Vec<_> = counters.collect();
        writers.extend(tellers);
        writers.extend(listers);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                store.checkpoint().unwrap();
                thread::yield_now();
            }
        });
        scope.spawn(|| {
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                let snapshot = store.snapshot();
                assert!(snapshot.seq() >= last, "commits become visible in their order");
                last = snapshot.seq();
                assert_eq!(total(&snapshot), i64::from(ACCOUNTS) * EACH);
                assert_eq!(snapshot.iter().count(), snapshot.len());
            }
        });
        let mut seen = 0;
        while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
            let now = store.get::<u32>("counter").unwrap().unwrap_or(0);
            assert!(now >= seen, "a counter never runs backwards");
            seen = now;
            tick();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(store.get("counter").unwrap(), Some(4 * rounds));
    assert_eq!(total(&store.snapshot()), i64::from(ACCOUNTS) * EACH);
    assert!(store.prefix("list/").next().is_none() && !store.contains_key("turn"));
}

fn check(options: &OpenOptions) {
    for &sealed in crate::common::SEALED {
        check_one(&crate::common::sealed(options, sealed), sealed);
    }
}

fn check_one(options: &OpenOptions, sealed: bool) {
    let vfs = Vfs::mem(crate::common::seed());
    let store = options.open_in(&vfs, "a.db").unwrap();
    turmoil(&store, &|| vfs.clock.sleep(Duration::from_millis(1)));
    store.flush().unwrap();
    let memory = contents(&store);
    let seq = store.snapshot().seq();
    let killed = options.open_in(&disk(&files(&vfs)), "a.db").unwrap();
    assert_eq!((contents(&killed), killed.snapshot().seq()), (memory.clone(), seq), "{options:?}");
    let verified = store.verify().unwrap();
    assert_eq!((verified.seq, verified.encrypted), (seq, sealed));
    store.close().unwrap();
    let closed = options.open_in(&vfs, "a.db").unwrap();
    assert_eq!((contents(&closed), closed.snapshot().seq()), (memory, seq), "{options:?}");
}

#[test]
fn memory_keeps_its_word_under_many_threads() {
    turmoil(&Store::in_memory().unwrap(), &|| ());
}

#[test]
fn a_wal_keeps_its_word_under_many_threads_and_checkpoints() {
    check(&Store::options().form(Form::Wal));
    let policy = CheckpointPolicy::default().floor_bytes(1_000).ratio(0.5);
    check(&Store::options().form(Form::Wal).checkpoint(policy));
}

#[test]
fn a_snapshot_keeps_its_word_under_many_threads() {
    check(&Store::options().form(Form::Snapshot));
}

#[test]
fn a_ledger_keeps_its_word_under_many_threads() {
    check(&Store::options().form(Form::Ledger));
}

#[test]
fn lazy_levels_keep_their_word_under_many_threads() {
    check(&Store::options().form(Form::Wal).durability(Durability::Os));
    let interval = Durability::Interval(Duration::from_millis(2));
    check(&Store::options().form(Form::Wal).durability(interval));
    check(&Store::options().form(Form::Snapshot).durability(interval));
}

#[test]
fn a_real_disk_keeps_its_word_under_many_threads() {
    let folder = tempfile::tempdir().unwrap();
    for form in crate::common::FORMS {
        let path = folder.path().join(format!("{form}.db"));
        let store = Store::options().form(form).open(&path).unwrap();
        turmoil(&store, &|| ());
        let memory = contents(&store);
        store.verify().unwrap();
        drop(store);
        assert_eq!(contents(&Store::open(&path).unwrap()), memory, "{form}");
    }
}

#[test]
fn a_counter_counts_exactly_under_32_updating_threads() {
    const THREADS: u64 = 32;
    const ROUNDS: u64 = 50;
    let store = Store::in_memory().unwrap();
    let start = Barrier::new(usize::try_from(THREADS).unwrap());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                start.wait();
                for _ in 0..ROUNDS {
                    store.update("n", |n: Option<u64>| Some(n.unwrap_or(0) + 1)).unwrap();
                }
            });
        }
    });
    assert_eq!(store.get("n").unwrap(), Some(THREADS * ROUNDS));
}

#[test]
fn compare_exchange_lets_exactly_one_of_many_threads_win_each_round() {
    const THREADS: u64 = 16;
    const ROUNDS: u64 = 100;
    let store = Store::in_memory().unwrap();
    store.set("n", &0_u64).unwrap();
    let wins: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let swap = |n: u64| store.compare_exchange("n", Some(&n), Some(&(n + 1)));
                    (0..ROUNDS).map(|n| u64::from(swap(n).unwrap())).sum::<u64>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(store.get("n").unwrap(), Some(wins));
    assert!((1..=ROUNDS).contains(&wins), "{wins}");
}

#[test]
fn of_many_takers_exactly_one_gets_the_value() {
    let store = Store::in_memory().unwrap();
    for round in 0..50_u32 {
        store.set("job", &round).unwrap();
        let taken: Vec<u32> = thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| store.take::<u32>("job").unwrap())).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(taken, [round]);
    }
}

/// Each key is written once, so it is counted by one removal or is left at the end.
#[test]
fn ranges_that_are_removed_beside_writers_take_each_key_once() {
    const WRITERS: u32 = 4;
    for form in crate::common::FORMS {
        for &sealed in crate::common::SEALED {
            let vfs = Vfs::mem(crate::common::seed());
            let options = crate::common::sealed(&Store::options().form(form), sealed);
            let store = options.open_in(&vfs, "a.db").unwrap();
            let (rounds, done) = (scaled(200), AtomicBool::new(false));
            let removed: u64 = thread::scope(|scope| {
                let writers: Vec<_> = (0..WRITERS)
                    .map(|writer| {
                        let store = &store;
                        let key = move |n: u32| format!("{:02}/{writer}/{n}", n % 16);
                        scope.spawn(move || {
                            for n in (0..rounds).step_by(2) {
                                store.set(key(n), &n).unwrap();
                                let mut batch = store.batch();
                                batch.set(key(n + 1), &n).unwrap().remove("absent").unwrap();
                                batch.commit().unwrap();
                            }
                        })
                    })
                    .collect();
                let removers: Vec<_> = (0..3)
                    .map(|remover| {
                        let (store, done) = (&store, &done);
                        scope.spawn(move || {
                            let mut removed = 0;
                            for n in (remover..).step_by(3) {
                                if done.load(Ordering::Relaxed) {
                                    break;
                                }
                                let [from, to] = [n % 16, n % 16 + 1 + n % 3];
                                let [from, to] = [from, to].map(|n| format!("{n:02}"));
                                let range = match n % 4 {
                                    0 => (Bound::Included(&*from), Bound::Excluded(&*to)),
                                    1 => (Bound::Excluded(&*from), Bound::Included(&*to)),
                                    2 => (Bound::Unbounded, Bound::Excluded(&*from)),
                                    _ => (Bound::Included(&*to), Bound::Unbounded),
                                };
                                removed += store.remove_range(range).unwrap();
                            }
                            removed
                        })
                    })
                    .collect();
                for writer in writers {
                    writer.join().unwrap();
                }
                done.store(true, Ordering::Relaxed);
                removers.into_iter().map(|remover| remover.join().unwrap()).sum()
            });
            let left = contents(&store);
            let written = u64::from(WRITERS * rounds.next_multiple_of(2));
            assert_eq!(removed + left.len() as u64, written, "{form} {sealed}");
            let killed = options.open_in(&disk(&files(&vfs)), "a.db").unwrap();
            assert_eq!(contents(&killed), left, "{form} {sealed}");
        }
    }
}

#[test]
fn each_snapshot_is_of_the_commit_that_it_names() {
    let store = Store::in_memory().unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 1..=u64::from(scaled(20_000)) {
                store.set("n", &n).unwrap();
            }
        });
        while !writer.is_finished() {
            let snapshot = store.snapshot();
            assert_eq!(snapshot.get::<u64>("n").unwrap().unwrap_or(0), snapshot.seq());
        }
    });
}

#[test]
fn transfers_between_keys_keep_the_total_in_every_snapshot() {
    let store = Store::in_memory().unwrap();
    for n in 0..ACCOUNTS {
        store.set(account(n), &100_i64).unwrap();
    }
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..500_u32 {
                let (from, to) = (n % ACCOUNTS, (n * 3 + 1) % ACCOUNTS);
                if from == to {
                    continue;
                }
                let balance = |n| store.get::<i64>(account(n)).unwrap().unwrap();
                let mut batch = store.batch();
                batch.set(account(from), &(balance(from) - 7)).unwrap();
                batch.set(account(to), &(balance(to) + 7)).unwrap();
                batch.commit().unwrap();
            }
        });
        while !writer.is_finished() {
            assert_eq!(total(&store.snapshot()), i64::from(ACCOUNTS) * 100);
        }
    });
    assert_eq!(total(&store.snapshot()), i64::from(ACCOUNTS) * 100);
}

#[test]
fn of_many_poppers_each_entry_goes_to_exactly_one_and_the_order_holds() {
    const THREADS: usize = 8;
    const JOBS: u32 = 400;
    for form in crate::common::FORMS {
        let store = crate::common::open(&Vfs::mem(crate::common::seed()), form);
        let mut batch = store.batch();
        for job in 0..JOBS {
            batch.set(format!("jobs/{job:04}"), &job).unwrap();
        }
        batch.set("other", &0_u32).unwrap().commit().unwrap();
        let popped: Vec<Vec<u32>> = thread::scope(|scope| {
            let pop = |last: bool| {
                let jobs = Prefix("jobs/");
                let popped =
                    if last { store.pop_last(jobs) } else { store.pop_first(jobs) }.unwrap();
                popped.map(|entry| entry.value::<u32>().unwrap())
            };
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    scope.spawn(move || std::iter::from_fn(|| pop(thread % 4 == 0)).collect())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (thread, popped) in popped.iter().enumerate() {
            let in_order = popped.is_sorted_by(|a, b| if thread % 4 == 0 { a > b } else { a < b });
            assert!(in_order, "{form}: {popped:?}");
        }
        let mut all = popped.concat();
        all.sort_unstable();
        assert_eq!(all, (0..JOBS).collect::<Vec<_>>(), "{form}");
        assert_eq!(store.keys().collect::<Vec<_>>(), ["other"], "{form}");
    }
}

#[test]
fn all_threads_get_the_value_that_one_of_them_inserted() {
    const THREADS: u32 = 8;
    let store = Store::in_memory().unwrap();
    for round in 0..50 {
        let key = format!("{round}");
        let barrier = std::sync::Barrier::new(THREADS as usize);
        let got: Vec<u32> = thread::scope(|scope| {
            let (store, key, barrier) = (&store, &key, &barrier);
            let insert = move |thread| {
                // Every thread finds no value, then offers its own.
                let make = || {
                    barrier.wait();
                    thread
                };
                store.get_or_insert_with(key, make).unwrap()
            };
            let threads: Vec<_> =
                (0..THREADS).map(|thread| scope.spawn(move || insert(thread))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let stored = store.get(&key).unwrap();
        assert!(got.iter().all(|value| Some(*value) == stored), "{got:?}");
    }
}

#[test]
fn each_value_is_returned_by_the_one_call_that_replaced_it() {
    const THREADS: u32 = 8;
    const ROUNDS: u32 = 100;
    let store = Store::in_memory().unwrap();
    let mut replaced: Vec<u32> = thread::scope(|scope| {
        let replace = |value: u32| store.replace("k", &value).unwrap();
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let values = thread * ROUNDS..(thread + 1) * ROUNDS;
                scope.spawn(move || values.filter_map(replace).collect::<Vec<_>>())
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    replaced.extend(store.take::<u32>("k").unwrap());
    replaced.sort_unstable();
    assert_eq!(replaced, (0..THREADS * ROUNDS).collect::<Vec<_>>());
}

//! Tests of transactions: the anomalies that they exclude, their own writes, and their ends.

use std::cell::Cell;
use std::sync::Arc;
use std::thread;

use crate::common::{FORMS, open};
use crate::double::{absent, engine, put};
use codex_core::internals::{Base, Commit, Outcome, View};
use codex_core::vfs::Vfs;
use codex_core::{Error, Readable, Store, Transaction};
use codex_storage::storage::{Durability, Form};

fn store(entries: &[(&str, i64)]) -> Store {
    let store = Store::in_memory().unwrap();
    for (key, value) in entries {
        store.set(key, value).unwrap();
    }
    store
}

fn get(source: &impl Readable, key: &str) -> Option<i64> {
    source.get(key).unwrap()
}

fn all(source: &impl Readable, prefix: &str) -> Vec<(String, i64)> {
    let text = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
    source.prefix(prefix).map(|entry| (text(entry.key()), entry.value().unwrap())).collect()
}

/// Runs a transaction of `body`, in whose first attempt `meanwhile` runs between `reads` and
/// `writes`. Returns the number of attempts.
fn beside(
    store: &Store,
    mut reads: impl FnMut(&mut Transaction),
    meanwhile: impl Fn(),
    mut writes: impl FnMut(&mut Transaction),
) -> u32 {
    let rounds = Cell::new(0);
    store
        .transaction(|tx| {
            rounds.set(rounds.get() + 1);
            reads(tx);
            if rounds.get() == 1 {
                meanwhile();
            }
            writes(tx);
            Ok(())
        })
        .unwrap();
    rounds.get()
}

/// The anomalies of the Hermitage tests (<https://github.com/ept/hermitage>), by their names there.
#[test]
fn g0_writes_of_two_transactions_do_not_mix() {
    let store = store(&[("x", 10), ("y", 20)]);
    let other = || {
        let written = store.transaction(|tx| {
            tx.set("x", &12_i64)?;
            tx.set("y", &22_i64)
        });
        written.unwrap();
    };
    let first = |tx: &mut Transaction| tx.set("x", &11_i64).unwrap();
    beside(&store, first, other, |tx| tx.set("y", &21_i64).unwrap());
    assert_eq!((get(&store, "x"), get(&store, "y")), (Some(11), Some(21)));
}

#[test]
fn g1a_and_g1b_nobody_reads_a_write_before_its_commit() {
    let store = store(&[("x", 10)]);
    let seen = Cell::new(None);
    let other = || seen.set(store.transaction(|tx| tx.get::<i64>("x")).unwrap());
    // An aborted one.
    let aborted: Result<(), Error> = store.transaction(|tx| {
        tx.set("x", &101_i64)?;
        other();
        Err(Error::UpdatesItself { key_len: 0 })
    });
    assert!(aborted.is_err());
    assert_eq!((seen.get(), get(&store, "x")), (Some(10), Some(10)));
    // An intermediate value.
    beside(&store, |tx| tx.set("x", &101_i64).unwrap(), other, |tx| tx.set("x", &11_i64).unwrap());
    assert_eq!((seen.get(), get(&store, "x")), (Some(10), Some(11)));
}

#[test]
fn g1c_two_transactions_do_not_both_miss_the_write_of_the_other() {
    let store = store(&[("x", 10), ("y", 20)]);
    let (x, y) = (Cell::new(None), Cell::new(None));
    let other = || {
        let done = store.transaction(|tx| {
            tx.set("y", &22_i64)?;
            x.set(tx.get::<i64>("x")?);
            Ok(())
        });
        done.unwrap();
    };
    let rounds = beside(
        &store,
        |tx| tx.set("x", &11_i64).unwrap(),
        other,
        |tx| y.set(tx.get::<i64>("y").unwrap()),
    );
    assert_eq!((rounds, x.get(), y.get()), (2, Some(10), Some(22)));
}

#[test]
fn otv_and_g_single_a_transaction_reads_one_state() {
    let store = store(&[("x", 10), ("y", 20)]);
    let (x, y) = (Cell::new(None), Cell::new(None));
    let other = || {
        let mut batch = store.batch();
        batch.set("x", &12_i64).unwrap().set("y", &18_i64).unwrap();
        batch.commit().unwrap();
    };
    let read_x = |tx: &mut Transaction| x.set(get(tx, "x"));
    // A transaction that writes nothing is not repeated: its state is that of its beginning.
    let rounds = beside(&store, read_x, other, |tx| y.set(get(tx, "y")));
    assert_eq!((rounds, x.get(), y.get()), (1, Some(10), Some(20)));
    // One that decides by what it has read is.
    let decide = |tx: &mut Transaction| {
        if get(tx, "y") == Some(20) {
            tx.remove("y").unwrap();
        }
    };
    let other = || store.set("x", &13_i64).unwrap();
    store.set("y", &20_i64).unwrap();
    assert_eq!(beside(&store, read_x, other, decide), 2);
    assert_eq!((x.get(), get(&store, "y")), (Some(13), None));
}

#[test]
fn pmp_a_scan_sees_one_state_and_conflicts_with_an_entry_that_joins_it() {
    let store = store(&[("n:1", 10), ("n:2", 20)]);
    let counts = Cell::new((0, 0));
    let first = |tx: &mut Transaction| counts.set((all(tx, "n:").len(), 0));
    let other = || store.set("n:3", &30_i64).unwrap();
    let rounds = beside(&store, first, other, |tx| {
        counts.set((counts.get().0, all(tx, "n:").len()));
        if counts.get().0 == 2 {
            assert_eq!(counts.get(), (2, 2));
        }
        tx.set("count", &i64::try_from(counts.get().1).unwrap()).unwrap();
    });
    assert_eq!((rounds, counts.get(), get(&store, "count")), (2, (3, 3), Some(3)));
}

#[test]
fn p4_no_update_is_lost() {
    let store = store(&[("x", 10)]);
    let x = Cell::new(0);
    let read = |tx: &mut Transaction| x.set(get(tx, "x").unwrap());
    let other = || assert_eq!(store.update("x", |x| x.map(|x: i64| x + 1)).unwrap(), Some(11));
    let rounds = beside(&store, read, other, |tx| tx.set("x", &(x.get() + 1)).unwrap());
    assert_eq!((rounds, get(&store, "x")), (2, Some(12)));
}

#[test]
fn g2_item_there_is_no_write_skew() {
    let store = store(&[("x", 1), ("y", 1)]);
    // Each leaves the sum at 1 or more, if it runs alone.
    let leave = |tx: &mut Transaction, key: &str| {
        if get(tx, "x").unwrap() + get(tx, "y").unwrap() > 1 {
            tx.set(key, &0_i64).unwrap();
        }
    };
    let other = || {
        let left = store.transaction(|tx| {
            leave(tx, "y");
            Ok(())
        });
        left.unwrap();
    };
    let rounds = beside(&store, |tx| leave(tx, "x"), other, |_| {});
    assert_eq!((rounds, get(&store, "x"), get(&store, "y")), (2, Some(1), Some(0)));
}

#[test]
fn g2_an_entry_that_joins_an_empty_range_is_a_conflict() {
    type Scan = fn(&Transaction) -> bool;
    let store = store(&[("a", 1), ("z", 1)]);
    let other = || store.set("m", &1_i64).unwrap();
    let scans: [Scan; 6] = [
        |tx| tx.range("b".."y").next().is_none(),
        |tx| tx.range("b".."y").next_back().is_none(),
        |tx| tx.prefix("m").next().is_none(),
        |tx| tx.keys().count() == 2,
        |tx| tx.len() == 2,
        |tx| !tx.contains_key("m"),
    ];
    for (index, scan) in scans.into_iter().enumerate() {
        let empty = Cell::new(false);
        let rounds = beside(
            &store,
            |tx| empty.set(scan(tx)),
            other,
            |tx| tx.set("empty", &i64::from(empty.get())).unwrap(),
        );
        assert_eq!((rounds, get(&store, "empty")), (2, Some(0)), "scan {index}");
        store.remove("m").unwrap();
        store.remove("empty").unwrap();
    }
}

#[test]
fn a_scan_that_was_not_iterated_to_its_end_conflicts_only_with_the_part_that_was() {
    type Read<'a> = &'a dyn Fn(&mut Transaction);
    let entries = [("q:1", 1), ("q:3", 3), ("q:5", 5), ("q:7", 7)];
    let first = |tx: &mut Transaction| assert_eq!(tx.prefix("q:").next().unwrap().key(), b"q:1");
    let last = |tx: &mut Transaction| {
        assert_eq!(tx.prefix("q:").next_back().unwrap().key(), b"q:7");
    };
    let both = |tx: &mut Transaction| {
        let mut scan = tx.prefix("q:");
        assert_eq!(scan.next().unwrap().key(), b"q:1");
        assert_eq!(scan.next_back().unwrap().key(), b"q:7");
    };
    let met = |tx: &mut Transaction| {
        let mut scan = tx.prefix("q:");
        assert_eq!(scan.by_ref().take(2).count(), 2);
        assert_eq!(scan.rev().take(2).count(), 2);
    };
    // Where another commit adds an entry, and whether the transaction has seen that place.
    let cases: [(Read<'_>, &str, bool); 11] = [
        (&first, "q:0", true),
        (&first, "q:2", false),
        (&first, "q:8", false),
        (&last, "q:8", true),
        (&last, "q:6", false),
        (&last, "q:0", false),
        (&both, "q:0", true),
        (&both, "q:4", false),
        (&both, "q:8", true),
        (&met, "q:4", false),
        (&met, "q:2", true),
    ];
    for (read, added, conflicts) in cases {
        let store = store(&entries);
        let once = Cell::new(false);
        let rounds = Cell::new(0);
        let done = store.transaction(|tx| {
            rounds.set(rounds.get() + 1);
            if !once.replace(true) {
                read(tx);
                store.set(added, &0_i64)?;
            }
            tx.set("done", &1_i64)
        });
        done.unwrap();
        assert_eq!(rounds.get(), 1 + u32::from(conflicts), "{added}");
    }
}

#[test]
fn what_is_replaced_by_an_equal_value_has_changed() {
    let store = store(&[("x", 1)]);
    let other = || store.set("x", &1_i64).unwrap();
    let write = |tx: &mut Transaction| tx.set("y", &1_i64).unwrap();
    assert_eq!(beside(&store, |tx| assert_eq!(get(tx, "x"), Some(1)), other, write), 2);
    assert_eq!(beside(&store, |tx| assert_eq!(tx.iter().count(), 2), other, write), 2);
}

#[test]
fn a_write_without_a_read_is_no_reason_for_a_conflict() {
    let store = store(&[("x", 1), ("p:1", 1)]);
    let other = || {
        store.set("x", &5_i64).unwrap();
        store.set("z", &5_i64).unwrap();
    };
    let write = |tx: &mut Transaction| {
        tx.set("x", &2_i64).unwrap();
        assert_eq!(get(tx, "x"), Some(2), "reads its own write");
        tx.set_bytes("y", "raw").unwrap();
    };
    assert_eq!(beside(&store, write, other, |_| {}), 1);
    assert_eq!((get(&store, "x"), get(&store, "z")), (Some(2), Some(5)));
    // A removal tells whether there was a value, which is a read.
    let remove = |tx: &mut Transaction| assert!(tx.remove("x").unwrap());
    assert_eq!(beside(&store, remove, || store.set("x", &6_i64).unwrap(), |_| {}), 2);
    let remove = |tx: &mut Transaction| assert!(tx.remove_prefix("p:").unwrap() > 0);
    assert_eq!(beside(&store, remove, || store.set("p:2", &6_i64).unwrap(), |_| {}), 2);
    assert_eq!(all(&store, "p:"), []);
}

#[test]
fn two_that_pop_get_different_entries_and_a_push_disturbs_neither() {
    let store = store(&[("q:1", 1), ("q:2", 2)]);
    let pop = |tx: &Transaction| tx.prefix("q:").next().map(|entry| entry.key().to_vec());
    // A push at the tail costs no second attempt.
    let popped = Cell::new(None);
    let rounds = beside(
        &store,
        |tx| popped.set(pop(tx)),
        || store.set("q:9", &9_i64).unwrap(),
        |tx| {
            let key = popped.take().unwrap();
            assert!(tx.remove(&key).unwrap());
            popped.set(Some(key));
        },
    );
    assert_eq!((rounds, popped.take().unwrap()), (1, b"q:1".to_vec()));
    // Two that pop.
    let all = 400;
    for n in 0..all {
        store.set(format!("q:a{n:03}"), &0_i64).unwrap();
    }
    let popped = thread::scope(|scope| {
        let poppers = [0, 1].map(|_| {
            scope.spawn(|| {
                let mut mine = Vec::new();
                while let Some(key) = store
                    .transaction(|tx| {
                        let Some(key) = pop(tx) else { return Ok(None) };
                        assert!(tx.remove(&key)?);
                        Ok(Some(key))
                    })
                    .unwrap()
                {
                    mine.push(key);
                }
                mine
            })
        });
        poppers.map(|popper| popper.join().unwrap()).concat()
    });
    let different: std::collections::BTreeSet<_> = popped.iter().collect();
    assert_eq!((popped.len(), different.len()), (all + 2, all + 2));
    assert!(store.prefix("q:").next().is_none());
}

#[test]
fn own_writes_are_seen_by_every_read() {
    let store = store(&[("a", 1), ("b", 2), ("c", 3)]);
    let done = store.transaction(|tx| {
        tx.set("b", &20_i64)?;
        tx.set("d", &4_i64)?;
        assert!(tx.remove("a")?);
        assert!(!tx.remove("a")?);
        let expected = [("b", 20), ("c", 3), ("d", 4)].map(|(key, n)| (key.to_owned(), n));
        assert_eq!(all(tx, ""), expected);
        assert_eq!((tx.len(), tx.is_empty(), tx.contains_key("a")), (3, false, false));
        // Writes after a scan are seen by the next one.
        tx.set("c", &30_i64)?;
        let keys: Vec<_> = tx.range("c"..).rev().map(|e| e.value::<i64>().unwrap()).collect();
        assert_eq!(keys, [4, 30]);
        assert_eq!(tx.take::<i64>("c")?, Some(30));
        assert_eq!(get(tx, "c"), None);
        // Set, then removed with a prefix, then set once more.
        assert_eq!(tx.remove_prefix("d")?, 1);
        assert_eq!(tx.remove_range("d"..)?, 0);
        tx.set("d", &5_i64)?;
        assert_eq!(tx.seq(), 3);
        Ok(())
    });
    done.unwrap();
    assert_eq!(all(&store, ""), [("b".to_owned(), 20), ("d".to_owned(), 5)]);
    assert_eq!(store.snapshot().seq(), 4, "one commit");
}

#[test]
fn an_error_a_panic_and_a_transaction_without_writes_commit_nothing() {
    let vfs = Vfs::mem(1);
    let store = open(&vfs, Form::Wal);
    store.set("x", &1_i64).unwrap();
    let before = store.stats();
    let failed: Result<(), Error> = store.transaction(|tx| {
        tx.set("x", &2_i64)?;
        tx.get::<String>("x").map(drop)
    });
    assert!(matches!(failed, Err(Error::Decode { .. })), "{failed:?}");
    let panicked = std::panic::catch_unwind(|| {
        store.transaction(|tx| -> Result<(), Error> {
            tx.set("x", &3_i64)?;
            std::panic::panic_any("the closure panics")
        })
    });
    assert!(panicked.is_err());
    store.transaction(|tx| tx.get::<i64>("x")).unwrap();
    assert!(!store.transaction(|tx| tx.remove("absent")).unwrap());
    assert_eq!(store.stats().storage.groups, before.storage.groups);
    assert_eq!((get(&store, "x"), store.poisoned()), (Some(1), None));
}

#[test]
fn a_closure_that_writes_what_it_reads_through_the_store_is_contended() {
    let store = store(&[("x", 1)]);
    let done = store.transaction(|tx| {
        let x = get(tx, "x").unwrap();
        store.set("x", &(x + 1))?;
        tx.set("y", &x)
    });
    assert!(matches!(done, Err(Error::Contended { rounds: 1_000, .. })), "{done:?}");
    assert_eq!((get(&store, "x"), get(&store, "y")), (Some(1_001), None));
}

#[test]
fn a_commit_that_lost_is_made_before_new_ones_and_after_other_requests() {
    let (engine, probe) = engine(Form::Wal, Durability::Sync, false);
    let old = Commit { rounds: 2, ..Commit::one(put("k", "old")) };
    let older = Commit { rounds: 3, ..Commit::one(put("k", "older")) };
    thread::scope(|scope| {
        let handed = probe.handed();
        let disk = probe.disk();
        let first = scope.spawn(|| engine.submit(Commit::one(put("first", "1"))));
        while probe.handed() == handed {
            thread::yield_now();
        }
        let mut waiting = Vec::new();
        let mut wait = |join| {
            waiting.push(join);
            while engine.waiting() < waiting.len() {
                thread::yield_now();
            }
        };
        let number = |commit| {
            let engine = &engine;
            scope.spawn(move || match engine.submit(commit).unwrap() {
                Outcome::Done { seq, .. } => seq.unwrap(),
                Outcome::Conflict => panic!("no check"),
            })
        };
        wait(scope.spawn(|| engine.flush().unwrap()));
        wait(number(Commit::one(put("k", "new 1"))));
        wait(number(Commit::one(put("k", "new 2"))));
        wait(number(old));
        wait(number(older));
        drop(disk);
        first.join().unwrap().unwrap();
        let numbers: Vec<_> = waiting.into_iter().map(|each| each.join().unwrap()).collect();
        assert_eq!(numbers, [1, 4, 5, 3, 2], "the flush, two new ones, and two that had lost");
    });
}

#[test]
fn checks_of_the_current_state_are_not_tested() {
    let (engine, _) = engine(Form::Wal, Durability::Sync, false);
    engine.submit(Commit::one(put("b", "0"))).unwrap();
    // This check does not hold, so that it shows whether it is tested.
    let commit = |seq, now_us| {
        let base = Some(Base { seq, now_us });
        Commit { base, ..Commit::checked(absent("b"), put("c", "1")) }
    };
    let View { seq, now_us, .. } = engine.view();
    // Another state, and a state at a later time than the present one.
    for (seq, now_us) in [(seq - 1, now_us), (seq + 1, now_us), (seq, now_us + 1)] {
        assert!(matches!(engine.submit(commit(seq, now_us)).unwrap(), Outcome::Conflict));
    }
    assert!(matches!(engine.submit(commit(seq, now_us)).unwrap(), Outcome::Done { .. }));
}

#[test]
fn no_increment_of_64_threads_is_lost_and_none_gives_up() {
    let store = Arc::new(store(&[]));
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let one = |tx: &mut Transaction| {
                        let n = get(tx, "n").unwrap_or(0);
                        tx.set("n", &(n + 1))
                    };
                    store.transaction(one).unwrap();
                }
            });
        }
    });
    assert_eq!(get(&*store, "n"), Some(6_400));
}

#[test]
fn a_write_that_exceeds_a_limit_is_refused_and_the_transaction_goes_on() {
    let store = store(&[]);
    let long = vec![b'k'; 65_536];
    let large = vec![0; 200 << 20];
    let done = store.transaction(|tx| {
        assert!(tx.set(&long, &1_i64).unwrap_err().is_too_large());
        assert!(tx.remove(&long).unwrap_err().is_too_large());
        tx.set_bytes("a", &large)?;
        assert!(tx.set_bytes("b", &large).unwrap_err().is_too_large());
        // The bytes of a write that is replaced count no more.
        tx.set_bytes("a", "small")?;
        tx.set_bytes("b", &large[..1 << 20])
    });
    done.unwrap();
    assert_eq!(store.get_bytes("a").as_deref(), Some(&b"small"[..]));
    assert_eq!(store.get_bytes("b").unwrap().len(), 1 << 20);
}

#[test]
fn a_long_scan_is_tested_before_it_reaches_the_leader() {
    let store = store(&[]);
    let mut batch = store.batch();
    for n in 0..3_000_i64 {
        batch.set(format!("n:{n:05}"), &n).unwrap();
    }
    batch.commit().unwrap();
    let sum = |tx: &Transaction| tx.prefix("n:").map(|e| e.value::<i64>().unwrap()).sum::<i64>();
    let before = sum_of(3_000);
    let commits = store.stats().commits;
    let seen = Cell::new(0);
    let rounds = beside(
        &store,
        |tx| seen.set(sum(tx)),
        || store.set("n:99999", &1_i64).unwrap(),
        |tx| tx.set("sum", &seen.get()).unwrap(),
    );
    assert_eq!((rounds, get(&store, "sum")), (2, Some(before + 1)));
    // A commit outside of the range in between is no conflict.
    let rounds = beside(
        &store,
        |tx| seen.set(sum(tx)),
        || store.set("other", &1_i64).unwrap(),
        |tx| tx.set("sum", &seen.get()).unwrap(),
    );
    assert_eq!(rounds, 1);
    assert_eq!(store.stats().commits, commits + 4);
}

fn sum_of(count: i64) -> i64 {
    (0..count).sum()
}

#[test]
fn all_forms_keep_a_transaction_and_a_read_only_store_refuses_its_writes() {
    for form in FORMS {
        let vfs = Vfs::mem(1);
        let store = open(&vfs, form);
        let moved = store.transaction(|tx| {
            tx.set("a", &1_i64)?;
            tx.set("b", &2_i64)?;
            Ok(tx.seq())
        });
        assert_eq!(moved.unwrap(), 0);
        store.close().unwrap();
        drop(store);
        let store = Store::options().read_only(true).open_in(&vfs, "a.db").unwrap();
        assert_eq!(store.transaction(|tx| Ok(all(tx, "").len())).unwrap(), 2, "{form}");
        let refused = store.transaction(|tx| tx.set("a", &2_i64)).unwrap_err();
        assert!(matches!(
            crate::common::storage(refused),
            codex_core::StorageError::ReadOnly { .. }
        ));
    }
}

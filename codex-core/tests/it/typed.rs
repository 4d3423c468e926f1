//! Typed tables: their names, kinds and ids, their reads and writes in every place, their drop, and
//! their copies.

use std::cmp::Reverse;
use std::ops::ControlFlow;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use codex_core::internals::{Change, Commit, Entry, submit, sweep, view, without_threads};
use codex_core::vfs::fault::{CrashChoice, FaultDir, Survivors, each_power_cut};
use codex_core::vfs::{Clock as _, SimClock, Vfs};
use codex_core::{
    Backups, Change as Shown, Conversion, Error, Form, Notice, Result, Store, Table, TableKey,
    TableSpec,
};
use codex_storage::batch::{Item, TableId};

use crate::common::{FORMS, options, seed};

/// Returns the id of the table, the key and the stored value of each record in tables.
pub(crate) fn records(store: &Store) -> Vec<(u32, Vec<u8>, Vec<u8>)> {
    let ordered = view(store).ordered;
    let entries = ordered.iter_with_tables();
    let record = |e: &Entry| Some((e.table()?.get(), e.key().to_vec(), e.value().to_vec()));
    entries.filter_map(record).collect()
}

fn ids(store: &Store) -> Vec<u32> {
    let mut ids: Vec<_> = records(store).iter().map(|record| record.0).collect();
    ids.dedup();
    ids
}

fn rows<K: TableKey, V: serde::de::DeserializeOwned>(table: &Table<K, V>) -> Vec<(K, V)> {
    table.iter().collect::<Result<_>>().unwrap()
}

fn is_taken<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::NotUnique { .. }))
}

fn is_gone<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::NoTable { table }) if table == "users")
}

#[test]
fn a_name_a_kind_or_a_record_that_does_not_fit_is_an_error_and_creates_nothing() {
    let vfs = Vfs::mem(seed());
    let store = options(Form::Wal).open_in(&vfs, "a.db").unwrap();
    for name in ["", "a\0b", &"n".repeat(256)] {
        let refused = store.table::<u64, u64>(name).unwrap_err();
        assert!(matches!(refused, Error::TableName { len } if len == name.len()));
        assert!(matches!(store.drop_table(name), Err(Error::TableName { .. })));
    }
    assert!(records(&store).is_empty() && !store.drop_table("users").unwrap());
    store.table::<(u32, String), u64>(&"n".repeat(255)).unwrap();
    let users = store.table::<(u32, String), u64>("users").unwrap();
    users.set((7, "a"), &1).unwrap();
    let before = records(&store);
    match store.table::<(u32, Vec<u8>), u64>("users").unwrap_err() {
        Error::TableKey { table, stored, wanted } => {
            assert_eq!((&*table, &*stored, &*wanted), ("users", "(u32, string)", "(u32, bytes)"));
        }
        other => panic!("{other}"),
    }
    // The type of the values is not compared, and reading one as another is an error.
    let wrong = store.table::<(u32, String), String>("users").unwrap();
    assert!(matches!(wrong.get((7, "a")), Err(Error::Decode { .. })));
    assert_eq!(records(&store), before);
    // A record of a newer build, with a flag, another id or more bytes, is refused untouched.
    let [_, (id, key, value)] = &before[1..3] else { panic!("{before:?}") };
    let mut flag = value.clone();
    flag[5] = 1;
    let more = [&value[..], &[0]].concat();
    let mut low = value.clone();
    low[1..5].copy_from_slice(&15_u32.to_le_bytes());
    for value in [flag, more, low, value[..value.len() - 1].to_vec(), vec![0], vec![]] {
        let (table, key) = (TableId::new(*id), &key[..]);
        let row = Entry::from_item(Item { table, key, value: &value, expires_us: None });
        submit(&store, Commit::one(Change::Put(row))).unwrap();
        let before = records(&store);
        let unread = |error| matches!(error, Error::Catalogue { table } if table == "users");
        assert!(unread(store.table::<(u32, String), u64>("users").unwrap_err()));
        assert!(unread(store.drop_table("users").unwrap_err()));
        assert!(unread(store.tables().unwrap_err()));
        assert_eq!(records(&store), before);
    }
    store.close().unwrap();
    let store = options(Form::Wal).read_only(true).open_in(&vfs, "a.db").unwrap();
    assert!(matches!(store.table::<u64, u64>("other"), Err(Error::NoTable { .. })));
}

#[test]
fn equal_keys_outside_tables_and_in_two_tables_do_not_meet() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        let open = |store: &Store| {
            let one = store.table::<String, u64>("one").unwrap();
            (one, store.table::<Vec<u8>, u64>("two").unwrap())
        };
        let (one, two) = open(&store);
        store.set("k", &0_u64).unwrap();
        one.set("k", &1).unwrap();
        two.set(b"k", &2).unwrap();
        let check = |store: &Store| {
            let (one, two) = open(store);
            let values = (store.get("k").unwrap(), one.get("k").unwrap(), two.get(b"k").unwrap());
            assert_eq!(values, (Some(0_u64), Some(1), Some(2)), "{form}");
            assert_eq!((store.len(), one.len().unwrap(), two.len().unwrap()), (1, 1, 1));
            assert_eq!(rows(&one), [("k".to_owned(), 1)]);
            assert_eq!(rows(&two), [(b"k".to_vec(), 2)]);
            let tables = store.tables().unwrap();
            let shown = tables.iter().map(|t| (&*t.name, &*t.keys, &*t.values, t.len));
            let expected = [("one", "string", "u64", 1), ("two", "bytes", "u64", 1)];
            assert!(shown.eq(expected), "{tables:?}");
        };
        check(&store);
        drop((one, two, store));
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        check(&store);
        store.checkpoint().unwrap();
        drop(store);
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        check(&store);
        // A clear of one removes nothing of the others.
        let (one, two) = open(&store);
        store.clear().unwrap();
        assert_eq!((one.len().unwrap(), two.len().unwrap()), (1, 1));
        one.clear().unwrap();
        assert!(one.is_empty().unwrap() && one.get("k").unwrap().is_none());
        assert_eq!(two.get(b"k").unwrap(), Some(2));
        one.set("l", &3).unwrap();
        drop((one, two, store));
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        let (one, two) = open(&store);
        assert_eq!((rows(&one), rows(&two)), (vec![("l".into(), 3)], vec![(b"k".to_vec(), 2)]));
        assert_eq!(one.get("k").unwrap(), None, "{form}: the hash index of a replay");
    }
}

#[test]
fn sixteen_threads_that_open_one_name_get_one_table() {
    let store = Store::in_memory().unwrap();
    let barrier = Arc::new(Barrier::new(16));
    let threads = (0..16_u64).map(|n| {
        let (store, barrier) = (store.clone(), Arc::clone(&barrier));
        thread::spawn(move || {
            barrier.wait();
            store.table::<u64, u64>("users").unwrap().set(n, &n).unwrap();
            store.table::<u64, u64>(&format!("own {n}")).unwrap().set(n, &n).unwrap();
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(store.table::<u64, u64>("users").unwrap().len().unwrap(), 16);
    assert_eq!(ids(&store), [&[1][..], &(16..33).collect::<Vec<_>>()].concat());
    assert_eq!(store.tables().unwrap().len(), 17);
}

#[test]
fn a_dropped_table_takes_no_write_and_its_name_gets_another_id() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        let users = store.table::<u64, String>("users").unwrap();
        users.set(7, &"Ada".into()).unwrap();
        let before = store.snapshot();
        let mut batch = store.batch();
        batch.table(&users).unwrap().set(8, &"Bob".into()).unwrap();
        assert!(store.drop_table("users").unwrap() && !store.drop_table("users").unwrap());
        assert!(store.tables().unwrap().is_empty());
        let check = |users: &Table<u64, String>, store: &Store, mut batch: codex_core::Batch| {
            let written = records(store);
            assert!(is_gone(users.get(7)) && is_gone(users.contains_key(7)));
            assert!(is_gone(users.get_bytes(7)) && is_gone(users.expires_at(7)));
            assert!(is_gone(users.len()) && is_gone(users.is_empty()));
            assert!(is_gone(users.first()) && is_gone(users.last()));
            assert!(users.range(1..).all(is_gone) && users.range(1..).next().is_some());
            assert!(is_gone(users.set(7, &"Ada".into())) && is_gone(users.remove(7)));
            assert!(is_gone(users.take(7)) && is_gone(users.update(7, |name| name)));
            assert!(is_gone(users.update(7, |_| Some("Eve".into()))));
            assert!(is_gone(users.compare_exchange(7, None, Some(&"Eve".into()))));
            assert!(is_gone(users.remove_range(..)) && is_gone(users.remove_range(crossed())));
            assert!(is_gone(users.clear()) && is_gone(users.watch().map(drop)));
            assert!(is_gone(users.replace(7, &"Eve".into())) && is_gone(users.pop_first(..)));
            assert!(is_gone(users.pop_last(..)) && is_gone(users.pop_last(crossed())));
            assert!(is_gone(users.get_or_insert_with(7, || "Eve".into())));
            assert!(is_gone(users.expire_at(7, std::time::SystemTime::UNIX_EPOCH)));
            assert!(is_gone(users.remove_expiry(7)));
            assert!(is_gone(batch.commit()));
            assert_eq!(records(store), written, "{form}");
        };
        check(&users, &store, batch);
        assert!(is_gone(store.transaction(|tx| tx.table(&users).map(drop))));
        assert!(is_gone(store.batch().table(&users).map(drop)));
        // The old state is whole.
        assert_eq!(before.table(&users).unwrap().get(7).unwrap().as_deref(), Some("Ada"));
        // The new table has another id, even in a store that was opened again, and the old handle
        // is not one of it.
        let new = store.table::<u64, String>("users").unwrap();
        new.set(9, &"Eve".into()).unwrap();
        assert!(is_gone(users.get(7)) && is_gone(users.set(7, &"Ada".into())), "{form}");
        assert_eq!((ids(&store), new.len().unwrap()), (vec![1, 17], 1));
        assert_eq!(before.table(&new).unwrap().get(7).unwrap().as_deref(), Some("Ada"));
        assert!(store.drop_table("users").unwrap());
        drop((users, new, before, store));
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        let users = store.table::<u64, String>("users").unwrap();
        users.set(1, &"Kay".into()).unwrap();
        assert_eq!(ids(&store), [1, 18], "{form}");
    }
}

#[test]
fn a_transaction_whose_table_is_dropped_runs_again_and_a_batch_is_refused() {
    let store = Store::in_memory().unwrap();
    let users = store.table::<u64, u64>("users").unwrap();
    let mut rounds = 0;
    let made = store.transaction(|tx| {
        rounds += 1;
        tx.table(&users)?.set(7, &1)?;
        if rounds == 1 {
            store.drop_table("users")?;
        }
        Ok(())
    });
    assert!(is_gone(made) && rounds == 2);
    assert!(records(&store).iter().all(|record| record.0 == 1), "a row of a dropped table");
    let users = store.table::<u64, u64>("users").unwrap();
    let mut batch = store.batch();
    batch.table(&users).unwrap().set(7, &1).unwrap();
    batch.set("k", &1_u64).unwrap();
    store.drop_table("users").unwrap();
    assert!(is_gone(batch.commit()) && store.is_empty(), "half of a batch was made");
}

#[test]
fn reads_and_writes_of_every_place_see_the_rows_in_the_order_of_the_keys() {
    let store = Store::in_memory().unwrap();
    let table = store.table::<(i8, Reverse<String>), u64>("t").unwrap();
    let keys = [(-2, "b"), (-2, "a"), (0, "b"), (3, "ba"), (3, "b"), (3, "")];
    let mut batch = store.batch();
    for (n, key) in keys.iter().enumerate().rev() {
        batch.table(&table).unwrap().set((key.0, Reverse(key.1)), &(n as u64)).unwrap();
    }
    batch.commit().unwrap();
    let values = |rows: codex_core::Rows<_, u64>| -> Vec<u64> {
        rows.map(|row: Result<((i8, Reverse<String>), u64)>| row.unwrap().1).collect()
    };
    assert_eq!(values(table.iter()), [0, 1, 2, 3, 4, 5]);
    assert_eq!(
        table.iter().rev().map(|row| row.unwrap().1).collect::<Vec<_>>(),
        [5, 4, 3, 2, 1, 0]
    );
    assert_eq!(values(table.range((-2, Reverse("a"))..(3, Reverse("b")))), [1, 2, 3]);
    assert_eq!(values(table.range(..=(0, Reverse("b")))), [0, 1, 2]);
    assert!(values(table.range((3, Reverse(""))..(0, Reverse("")))).is_empty());
    assert_eq!(values(table.prefix((3,))), [3, 4, 5]);
    assert_eq!(table.first().unwrap().unwrap(), ((-2, Reverse("b".into())), 0));
    assert_eq!(table.last().unwrap().unwrap().1, 5);
    let snapshot = store.snapshot();
    // A transaction reads its own writes, and a conflict with its reads runs it again.
    let mut rounds = 0;
    store
        .transaction(|tx| {
            rounds += 1;
            let mut inside = tx.table(&table)?;
            assert_eq!(inside.take((3, Reverse("b")))?, Some(4));
            inside.set((3, Reverse("c")), &9)?;
            let expected: &[u64] = if rounds == 2 { &[9, 100, 3, 5] } else { &[9, 3, 5] };
            assert_eq!(values(inside.prefix((3,))), expected);
            assert_eq!(inside.get((3, Reverse("b")))?, None);
            assert_eq!(inside.remove_range(..(0, Reverse("b")))?, 2);
            assert_eq!(inside.remove((100, Reverse("")))?, rounds == 3);
            assert!(!inside.is_empty()?);
            if rounds == 1 {
                // In the range of a scan.
                table.set((3, Reverse("bb")), &100)?;
            } else if rounds == 2 {
                // A key that was read and has no value.
                table.remove((3, Reverse("bb")))?;
                table.set((100, Reverse("")), &100)?;
            } else if rounds == 3 {
                // Neither read nor in a range that was.
                table.set((1, Reverse("")), &100)?;
                store.set("k", &1_u64)?;
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(rounds, 3);
    store.remove("k").unwrap();
    assert_eq!(values(table.iter()), [2, 100, 9, 3, 5]);
    assert_eq!(values(snapshot.table(&table).unwrap().iter()), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_batch_changes_a_table_in_order_and_its_clear_of_other_keys_leaves_tables() {
    let store = Store::in_memory().unwrap();
    let table = store.table::<u64, u64>("t").unwrap();
    table.set(5, &5).unwrap();
    let mut batch = store.batch();
    batch.set("k", &1_u64).unwrap();
    let mut inside = batch.table(&table).unwrap();
    inside.set(9, &9).unwrap();
    inside.clear().unwrap();
    inside.set(1, &1).unwrap();
    inside.set(3, &3).unwrap();
    inside.remove_range(2..4).unwrap();
    inside.remove_range(crossed()).unwrap();
    batch.clear();
    batch.table(&table).unwrap().set(2, &2).unwrap();
    batch.table(&table).unwrap().remove(7).unwrap();
    batch.commit().unwrap();
    assert_eq!((rows(&table), store.len()), (vec![(1, 1), (2, 2)], 0));
    assert_eq!(table.remove_range(2..).unwrap(), 1);
    assert_eq!(store.transaction(|tx| tx.table(&table)?.clear()).unwrap(), 1);
    assert!(table.is_empty().unwrap() && table.first().unwrap().is_none());
}

#[test]
fn conditional_writes_of_a_table_lose_nothing_and_find_keys_of_that_table_alone() {
    let store = Store::in_memory().unwrap();
    let counts = store.table::<String, u64>("counts").unwrap();
    let other = store.table::<String, u64>("other").unwrap();
    let threads = (0..8).map(|_| {
        let counts = counts.clone();
        thread::spawn(move || {
            for _ in 0..50 {
                counts.update("n", |n| Some(n.unwrap_or(0) + 1)).unwrap();
            }
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(counts.get("n").unwrap(), Some(400));
    assert!(!counts.compare_exchange("n", None, Some(&1)).unwrap());
    assert!(other.compare_exchange("n", None, Some(&1)).unwrap());
    assert!(other.compare_exchange("n", Some(&1), Some(&2)).unwrap());
    // The closure of an update may write the same key elsewhere, and not in the table.
    counts.update("n", |n| other.set("n", &9).map(|()| n).unwrap()).unwrap();
    let refused = counts.update("n", |n| counts.set("n", &9).map(|()| n).unwrap());
    assert!(matches!(refused, Err(Error::UpdatesItself { key_len: 1 })));
    assert_eq!((counts.take("n").unwrap(), counts.take("n").unwrap()), (Some(9), None));
    assert_eq!(other.get("n").unwrap(), Some(9));
    assert_eq!(counts.update("n", |_| None).unwrap(), None);
    // Values that are replaced or made, of which threads make one.
    assert_eq!(
        (counts.replace("r", &1).unwrap(), counts.replace("r", &2).unwrap()),
        (None, Some(1))
    );
    assert_eq!((counts.get("r").unwrap(), other.get("r").unwrap()), (Some(2), None));
    let made = (0..8_u64).map(|n| {
        let counts = counts.clone();
        thread::spawn(move || counts.get_or_insert_with("made", || n).unwrap())
    });
    let made: Vec<_> = made.collect::<Vec<_>>().into_iter().map(|t| t.join().unwrap()).collect();
    assert!(made.iter().all(|&n| Some(n) == counts.get("made").unwrap()), "{made:?}");
    let not_called = || panic!("there is a value");
    assert_eq!(counts.get_or_insert_with("r", not_called).unwrap(), 2);
    let refused = counts.update("r", |n| counts.pop_last("r"..).map(|_| n).unwrap());
    assert!(matches!(refused, Err(Error::UpdatesItself { key_len: 1 })));
    assert!(counts.remove("m").is_ok_and(|removed| !removed));
    assert!(counts.set(&"k".repeat(65_536), &1).unwrap_err().is_too_large());
}

#[test]
fn of_threads_that_pop_rows_of_a_table_each_gets_others_in_order_and_no_other_table_is_changed() {
    let store = Store::in_memory().unwrap();
    let plain = store.table::<u64, u64>("plain").unwrap();
    let spec = TableSpec::<u64, u64>::new("indexed");
    let indexed = spec.unique::<u64>("twice", |n, keys| keys.add(2 * n)).open(&store).unwrap();
    let beside = store.table::<u64, u64>("beside").unwrap();
    beside.set(5, &5).unwrap();
    store.set("k", &5_u64).unwrap();
    for table in [plain, indexed] {
        for n in 0..100 {
            table.set(n, &n).unwrap();
        }
        let popper = |is_first: bool| {
            let table = table.clone();
            thread::spawn(move || {
                let next = || {
                    let range = 10..90;
                    if is_first { table.pop_first(range) } else { table.pop_last(range) }.unwrap()
                };
                let row = |entry| table.decode(&entry).unwrap().0;
                std::iter::from_fn(|| next().map(row)).collect::<Vec<_>>()
            })
        };
        let threads = [true, false, true, false].map(|is_first| (is_first, popper(is_first)));
        let mut all = Vec::new();
        for (is_first, thread) in threads {
            let popped = thread.join().unwrap();
            assert!(popped.is_sorted_by(|a, b| (a < b) == is_first && a != b), "{popped:?}");
            all.extend(popped);
        }
        all.sort_unstable();
        assert!(all.into_iter().eq(10..90));
        assert!(rows(&table).into_iter().map(|(n, _)| n).eq((0..10).chain(90..100)));
        assert!(table.pop_first(crossed()).unwrap().is_none());
        assert!(table.verify_indexes().unwrap().is_ok());
    }
    assert_eq!((rows(&beside), store.len()), (vec![(5, 5)], 1));
}

#[test]
fn a_popped_row_whose_value_is_of_another_type_is_not_lost() {
    let store = Store::in_memory().unwrap();
    store.table::<u64, String>("jobs").unwrap().set(1, &"wash".into()).unwrap();
    let numbers = store.table::<u64, (u64, u64)>("jobs").unwrap();
    let popped = numbers.pop_first(..).unwrap().unwrap();
    assert!(numbers.decode(&popped).is_err());
    assert_eq!(popped.value::<String>().unwrap(), "wash");
}

#[test]
fn a_prefix_of_a_table_is_removed_and_watched_in_every_place() {
    let vfs = Vfs::mem(seed());
    let store = options(Form::Ledger).open_in(&vfs, "a.db").unwrap();
    let items = store.table::<(String, u64), u64>("items").unwrap();
    let keys = [("a", 1), ("a", 2), ("a\0", 1), ("aa", 1), ("b", 1)];
    let fill = || keys.iter().for_each(|&key| items.set(key, &1).unwrap());
    let left = || rows(&items).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    let others: Vec<_> = keys[2..].iter().map(|&(name, n)| (name.to_owned(), n)).collect();
    let before = store.snapshot().seq();
    let mut watch = items.watch_prefix(("a",)).unwrap();
    fill();
    assert_eq!((items.remove_prefix(("a",)).unwrap(), left()), (2, others.clone()));
    assert_eq!(items.remove_prefix(("a",)).unwrap(), 0);
    fill();
    store.transaction(|tx| tx.table(&items)?.remove_prefix(("a",))).unwrap();
    assert_eq!(left(), others);
    fill();
    let mut batch = store.batch();
    batch.table(&items).unwrap().remove_prefix(("a",)).unwrap();
    batch.commit().unwrap();
    assert_eq!(left(), others);
    store.set("a", &1_u64).unwrap();
    let mut shown = || {
        let counts = std::iter::from_fn(|| watch.try_next()).map(|notice| match notice {
            Notice::Commit(commit) => commit.changes().len(),
            other => panic!("{other:?}"),
        });
        counts.collect::<Vec<_>>()
    };
    assert_eq!(shown(), [1, 1, 2, 1, 1, 2, 1, 1, 2]);
    watch = items.watch_prefix_from(("a",), before).unwrap();
    let mut again = Vec::new();
    while let Some(Notice::Commit(commit)) = watch.try_next() {
        again.push(commit.changes().len());
    }
    assert_eq!(again, [1, 1, 2, 1, 1, 2, 1, 1, 2]);
}

fn named(name: &str) -> TableSpec<u64, String> {
    let spec = TableSpec::<u64, String>::new(name);
    spec.unique::<String>("by_name", |name, keys| keys.add(name))
}

/// Writes rows of both tables in every place, and removes them again.
fn write_and_remove(store: &Store, users: &Table<u64, String>, other: &Table<u64, u64>) {
    users.set(8, &"Eve".into()).unwrap();
    assert_eq!((users.len().unwrap(), users.get(1).unwrap()), (2, None));
    assert!(is_taken(users.set(9, &"Eve".into())));
    let removed = store.transaction(|tx| tx.table(users)?.remove(8));
    assert!(removed.unwrap() && !users.contains_key(8).unwrap());
    assert_eq!(store.snapshot().table(users).unwrap().len().unwrap(), 1);
    let by_name = users.index::<String>("by_name").unwrap();
    assert_eq!(by_name.get("Ada").unwrap().unwrap().0, 7);
    let mut batch = store.batch();
    batch.table(other).unwrap().set(8, &8).unwrap();
    batch.commit().unwrap();
    assert!(other.remove(8).unwrap());
}

#[test]
fn a_renamed_table_keeps_its_rows_indexes_watches_and_handles() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        let users = named("users").open(&store).unwrap();
        let other = store.table::<u64, u64>("other").unwrap();
        users.set(7, &"Ada".into()).unwrap();
        other.set(7, &7).unwrap();
        let (before, mut watch) = (store.snapshot(), users.watch().unwrap());
        let written = records(&store).into_iter().filter(|record| record.0 != 1);
        let written: Vec<_> = written.collect();
        for to in ["users", "other"] {
            let refused = store.rename_table("users", to).unwrap_err();
            assert!(matches!(refused, Error::TableExists { table } if table == to));
        }
        assert!(matches!(store.rename_table("users", ""), Err(Error::TableName { len: 0 })));
        assert!(!store.rename_table("nobody", "people").unwrap());
        assert!(users.contains_key(7).unwrap());
        let seq = store.snapshot().seq();
        assert!(store.rename_table("users", "people").unwrap());
        assert_eq!(store.snapshot().seq(), seq + 1);
        // The handle goes on in every place, even after another table has its name.
        write_and_remove(&store, &users, &other);
        assert!(store.rename_table("other", "others").unwrap());
        let again = store.table::<u64, String>("users").unwrap();
        again.set(9, &"Kay".into()).unwrap();
        store.table::<u64, u64>("other").unwrap();
        write_and_remove(&store, &users, &other);
        assert_eq!(rows(&again), [(9, "Kay".into())]);
        // So do those of its state before, in which it has its earlier name.
        let people = named("people").open(&store).unwrap();
        for table in [&users, &people] {
            assert_eq!(before.table(table).unwrap().get(7).unwrap().as_deref(), Some("Ada"));
        }
        assert!(store.drop_table("other").unwrap());
        assert!(store.drop_table("users").unwrap());
        let check = |store: &Store| {
            let names: Vec<_> = store.tables().unwrap().into_iter().map(|t| t.name).collect();
            assert_eq!(names, ["others", "people"], "{form}");
            let now = records(store).into_iter().filter(|record| record.0 != 1);
            assert!(now.eq(written.clone()), "{form}: a row was written");
            let people = named("people").open(store).unwrap();
            let by_name = people.index::<String>("by_name").unwrap();
            assert_eq!(by_name.get("Ada").unwrap(), Some((7, "Ada".into())));
            assert!(people.verify_indexes().unwrap().is_ok());
            people
        };
        let people = check(&store);
        // Each check of the handle has set a row and removed it.
        let shown = std::iter::from_fn(|| watch.try_next()).count();
        assert_eq!(shown, 4, "{form}");
        store.close().unwrap();
        drop((users, other, before, people, again, store));
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        let users = check(&store);
        assert!(store.rename_table("people", "users").unwrap());
        assert!(store.drop_table("users").unwrap());
        let gone = [users.set(8, &"Eve".into()).unwrap_err(), users.len().unwrap_err()];
        assert!(gone.iter().all(|e| matches!(e, Error::NoTable { .. })), "{form}");
    }
}

#[test]
fn of_threads_that_give_two_tables_one_name_one_wins() {
    for _ in 0..20 {
        let store = Store::in_memory().unwrap();
        let barrier = Arc::new(Barrier::new(3));
        let act = |act: fn(&Store) -> bool| {
            let (store, barrier) = (store.clone(), Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                act(&store)
            })
        };
        for name in ["one", "two"] {
            store.table::<u64, String>(name).unwrap().set(1, &name.into()).unwrap();
        }
        let threads = [
            act(|store| store.rename_table("one", "to").is_ok()),
            act(|store| store.rename_table("two", "to").is_ok()),
            act(|store| store.table::<u64, String>("to").unwrap().is_empty().unwrap()),
        ];
        let won = threads.map(|thread| thread.join().unwrap());
        let names: Vec<_> = store.tables().unwrap().into_iter().map(|t| (t.name, t.len)).collect();
        let count = 3 - won[..2].iter().filter(|&&won| won).count();
        assert!(count == 3 && !won[1] && !won[0] || count == 2 && won[0] != won[1], "{won:?}");
        assert_eq!(names.iter().map(|(_, len)| len).sum::<usize>(), 2, "{names:?}");
    }
}

#[test]
fn a_row_that_has_expired_is_hidden_in_every_read_and_a_watch_shows_its_table_alone() {
    for form in FORMS {
        let clock = SimClock::new();
        let vfs = Vfs { clock: Arc::new(clock.clone()), ..Vfs::mem(seed()) };
        let options = without_threads(options(form));
        let store = options.open_in(&vfs, "a.db").unwrap();
        let sessions = store.table::<u64, String>("sessions").unwrap();
        let others = store.table::<u64, String>("others").unwrap();
        let (mut watch, mut plain) = (sessions.watch().unwrap(), store.watch("").unwrap());
        let due = std::time::SystemTime::UNIX_EPOCH
            + Duration::from_micros(u64::try_from(clock.now_us()).unwrap() + 1);
        sessions.set_with_expiry(1, &"due".into(), due).unwrap();
        store
            .transaction(|tx| {
                tx.table(&sessions)?.set(2, &"stays".into())?;
                tx.table(&others)?.set_with_expiry(1, &"due".into(), due)
            })
            .unwrap();
        let mut batch = store.batch();
        batch.table(&sessions).unwrap().set_with_expiry(3, &"due".into(), due).unwrap();
        batch.commit().unwrap();
        assert_eq!((sessions.len().unwrap(), sessions.expires_at(3).unwrap()), (3, Some(due)));
        clock.advance(Duration::from_micros(1));
        assert_eq!((sessions.get(1).unwrap(), sessions.expires_at(1).unwrap()), (None, None));
        assert!(!sessions.contains_key(1).unwrap() && others.is_empty().unwrap());
        assert_eq!((sessions.len().unwrap(), others.len().unwrap()), (1, 0));
        assert_eq!(rows(&sessions), [(2, "stays".to_owned())]);
        let inside = store.transaction(|tx| {
            let sessions = tx.table(&sessions)?;
            Ok((sessions.len()?, sessions.get(1)?, sessions.iter().count()))
        });
        assert_eq!(inside.unwrap(), (1, None, 1));
        sweep(&store).unwrap();
        assert_eq!(ids(&store), [1, 16], "{form}: others is empty");
        sessions.clear().unwrap();
        others.set(5, &"x".into()).unwrap();
        store.drop_table("sessions").unwrap();
        store.close().unwrap();
        // Set 1; set 2; set 3; the sweep removes 1 and 3; the clear. The drop of the empty table
        // changes nothing of it.
        let shown: Vec<_> = std::iter::from_fn(|| watch.try_next())
            .map(|notice| match notice {
                Notice::Commit(commit) => commit
                    .changes()
                    .iter()
                    .map(|change| match change {
                        Shown::Set(entry) => sessions.decode(entry).unwrap().0,
                        Shown::Removed(key) => 10 + sessions.decode_key(key).unwrap(),
                        Shown::Cleared => 99,
                        other => panic!("{other:?}"),
                    })
                    .collect::<Vec<_>>(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(shown, [vec![1], vec![2], vec![3], vec![11, 13], vec![99]], "{form}");
        assert!(plain.try_next().is_none(), "{form}: a watch of the keys outside tables");
    }
}

#[test]
fn tables_are_whole_in_every_copy_of_a_store() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        let is_whole = |vfs: &Vfs, form: Form, place: &str| {
            let store = options(form).open_in(vfs, "a.db").unwrap();
            let names: Vec<_> =
                store.tables().unwrap().into_iter().map(|t| (t.name, t.len)).collect();
            assert_eq!(names, [("kept".to_owned(), 2), ("users".to_owned(), 1)], "{form}: {place}");
            let users = store.table::<String, u64>("users").unwrap();
            assert_eq!(users.get("Ada").unwrap(), Some(7), "{form}: {place}");
            // The next table gets a new id.
            assert!(store.drop_table("users").unwrap());
            store.table::<String, u64>("users").unwrap().set("Ada", &7).unwrap();
            *ids(&store).last().unwrap()
        };
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        let kept = store.table::<u64, u64>("kept").unwrap();
        store.table::<String, u64>("users").unwrap().set("Ada", &7).unwrap();
        kept.set(1, &1).unwrap();
        kept.set(2, &2).unwrap();
        store.back_up().unwrap();
        let other = Vfs::mem(seed());
        store.backup_to_in(&other, "a.db", &mut |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(is_whole(&other, form, "a hot copy"), 18);
        store.drop_table("users").unwrap();
        store.close().unwrap();
        Backups::of_in(&vfs, "a.db").restore(1).unwrap();
        assert_eq!(is_whole(&vfs, form, "a restored backup"), 18);
        for (last, form) in (19..).zip([Form::Ledger, Form::Wal, Form::Snapshot, Form::Ledger]) {
            Conversion::new().form(form).convert_in(&vfs, "a.db").unwrap();
            assert_eq!(is_whole(&vfs, form, "a conversion"), last);
        }
    }
}

#[test]
fn a_power_cut_in_a_creation_or_a_drop_leaves_all_of_it_or_nothing() {
    for form in FORMS {
        let disk = FaultDir::new();
        let world = |disk: &FaultDir| disk.vfs(seed() + disk.calls());
        let store = options(form).open_in(&world(&disk), "a.db").unwrap();
        let old = store.table::<u64, u64>("old").unwrap();
        old.set(1, &1).unwrap();
        old.set(2, &2).unwrap();
        store.close().unwrap();
        let disk = disk.reboot(Survivors::Everything);
        let act = |disk: &FaultDir| {
            let mut done = 0;
            let story = |done: &mut u32| -> Result<()> {
                let store = options(form).open_in(&world(disk), "a.db")?;
                let new = store.table::<u64, u64>("new")?;
                *done = 1;
                new.set(1, &1)?;
                *done = 2;
                store.drop_table("old")?;
                *done = 3;
                Ok(())
            };
            let _ = story(&mut done);
            done
        };
        let choice = CrashChoice { seed: seed(), ..CrashChoice::default() };
        let shown = each_power_cut(&disk, &choice, act, |mishap, disk, &done| {
            let store = options(form).open_in(&world(disk), "a.db");
            let store = store.unwrap_or_else(|e| panic!("{form}: {e}; {mishap}"));
            let tables = store.tables().unwrap();
            let shown: Vec<_> = tables.iter().map(|table| (&*table.name, table.len)).collect();
            let steps: [&[_]; 4] = [
                &[("old", 2)],
                &[("new", 0), ("old", 2)],
                &[("new", 1), ("old", 2)],
                &[("new", 1)],
            ];
            let at = steps.iter().position(|step| *step == shown);
            let at = at.unwrap_or_else(|| panic!("{form}: {shown:?}; {mishap}"));
            assert!(at >= done as usize, "{form}: {shown:?} after step {done}; {mishap}");
            // No row is without its table, and no id is used again.
            let newest = if at == 0 { 16 } else { 17 };
            assert!(ids(&store).iter().all(|&id| id == 1 || id == newest || id == 16 && at < 3));
            store.table::<u64, u64>("next").unwrap().set(1, &1).unwrap();
            assert_eq!(ids(&store).last(), Some(&(newest + 1)), "{form}; {mishap}");
        });
        println!("{form}: {shown} disks");
        assert!(shown > 10, "{shown}");
    }
}

#[test]
fn a_table_of_100_000_rows_is_dropped_with_two_records() {
    let vfs = Vfs::mem(seed());
    let rows = 100_000_u32;
    let mut holds = Vec::new();
    for is_dropped in [false, true] {
        let name = format!("{is_dropped}.db");
        let store = options(Form::Wal).open_in(&vfs, &name).unwrap();
        let table = store.table::<u32, u32>("users").unwrap();
        for start in (0..rows).step_by(20_000) {
            let mut batch = store.batch();
            let mut inside = batch.table(&table).unwrap();
            (start..start + 20_000).for_each(|n| inside.set(n, &n).unwrap());
            batch.commit().unwrap();
        }
        let (snapshot, before) = (store.snapshot(), store.stats());
        if is_dropped {
            assert!(store.drop_table("users").unwrap() && is_gone(table.len()));
        } else {
            assert_eq!(table.remove_range(..).unwrap(), u64::from(rows));
            assert!(table.is_empty().unwrap());
        }
        let after = store.stats();
        let written = after.storage.log_bytes - before.storage.log_bytes;
        assert_eq!(written > 1024, !is_dropped, "{written} bytes");
        // Before the removal, the longest hold was that of a batch of 20,000.
        holds.push((before.data_hold_ns_max, after.data_hold_ns_max));
        assert_eq!(snapshot.table(&table).unwrap().len().unwrap(), 100_000);
    }
    println!("longest holds of memory: before and after a removal, and a drop: {holds:?} ns");
}

/// The records are on disk for ever: these bytes never change.
#[test]
fn the_records_of_the_catalogue_are_those_of_the_format() {
    let store = Store::in_memory().unwrap();
    store.table::<(u32, String), u64>("users").unwrap().set((7, "a"), &1).unwrap();
    let hex = |bytes: &[u8]| {
        let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.concat()
    };
    let shown: Vec<_> =
        records(&store).iter().map(|(id, key, value)| (*id, hex(key), hex(value))).collect();
    // Raw bytes, the id 16, no flags, the kind of the keys and the type of the values.
    let kind = "287533322c20737472696e6729";
    let row = format!("00{}000d{kind}03753634", "10000000");
    let expected = [
        (1, String::new(), "0011000000".to_owned()),
        (1, "7573657273".to_owned(), row),
        (16, "0000000761".to_owned(), "010100000000000000".to_owned()),
    ];
    assert_eq!(shown, expected);
}

/// A range whose ends cross.
#[expect(clippy::reversed_empty_ranges, reason = "it is the subject of the tests")]
fn crossed() -> std::ops::Range<u64> {
    2..1
}

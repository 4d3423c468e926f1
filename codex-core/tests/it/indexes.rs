//! Indexes of tables: their entries are those of the rows, after every write, crash and build.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, SystemTime};

use codex_core::internals::{sweep, without_threads};
use codex_core::vfs::fault::{CrashChoice, FaultDir, Survivors, each_power_cut};
use codex_core::vfs::{Clock as _, SimClock, Vfs};
use codex_core::{
    Backups, Conversion, Error, Form, Index, IndexKeys, Result, Store, Table, TableKey, TableSpec,
};
use serde::{Deserialize, Serialize};

use crate::common::{FORMS, options, read, seed, write};
use crate::typed::records;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    email: String,
    tags: Vec<String>,
}

type Users = Table<u64, User>;

fn user(email: &str, tags: &[&str]) -> User {
    User { email: email.into(), tags: tags.iter().map(|&tag| tag.into()).collect() }
}

fn tags(user: &User, keys: &mut IndexKeys<'_, String>) {
    user.tags.iter().for_each(|tag| keys.add(tag));
}

fn spec() -> TableSpec<u64, User> {
    TableSpec::new("users")
        .unique::<String>("by_email", |user: &User, keys| keys.add(&user.email))
        .index("by_tag", tags)
}

fn open(store: &Store) -> Users {
    spec().open(store).unwrap()
}

fn by_email(users: &Users) -> Index<String, u64, User> {
    users.index("by_email").unwrap()
}

fn by_tag(users: &Users) -> Index<String, u64, User> {
    users.index("by_tag").unwrap()
}

fn ids<K: TableKey, V: serde::de::DeserializeOwned>(
    rows: impl Iterator<Item = Result<(K, V)>>,
) -> Vec<K> {
    rows.map(|row| row.unwrap().0).collect()
}

fn is_taken<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::NotUnique { table, index })
        if table == "users" && index == "by_email")
}

fn is_mismatch<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::IndexMismatch { table, .. }) if table == "users")
}

/// Checks the stored entries of both indexes, without the code of the store that makes them.
/// Returns the number of the rows.
fn check(store: &Store, users: &Users, place: &str) -> usize {
    let info = store.tables().unwrap().into_iter().find(|table| table.name == "users").unwrap();
    let shapes = info.indexes.iter().map(|i| (&*i.name, &*i.keys, i.is_unique, i.is_building));
    let expected = [("by_email", "string", true, false), ("by_tag", "string", false, false)];
    assert!(shapes.eq(expected), "{place}: {:?}", info.indexes);
    let rows: Vec<_> = users.iter().collect::<Result<_>>().unwrap();
    let mut expected = [BTreeSet::new(), BTreeSet::new()];
    for (id, user) in &rows {
        let key = id.to_be_bytes();
        let email = [user.email.as_bytes(), &[0, 0]].concat();
        assert!(expected[0].insert((email, [&[0], &key[..]].concat())), "{place}: a second row");
        for tag in &user.tags {
            expected[1].insert(([tag.as_bytes(), &[0, 0], &key].concat(), vec![0]));
        }
    }
    for (expected, info) in expected.iter().zip(&info.indexes) {
        let in_index: BTreeSet<_> = entries_of(store, &info.name).into_iter().collect();
        assert_eq!(&in_index, expected, "{place}: {}", info.name);
        assert_eq!(info.len, expected.len(), "{place}: {}", info.name);
    }
    let report = users.verify_indexes().unwrap();
    assert!(report.is_ok(), "{place}: {report:?}");
    let entries = expected.iter().map(BTreeSet::len).sum::<usize>();
    assert_eq!((report.rows, report.entries), (rows.len() as u64, entries as u64));
    rows.len()
}

/// Returns the keys and values of the entries of an index, which its record in the catalogue names.
fn entries_of(store: &Store, index: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let records = records(store);
    let row = &records.iter().find(|(id, key, _)| (*id, &key[..]) == (1, b"users")).unwrap().2;
    // The id and the flags of an index come before the length of its name.
    let name = [&[u8::try_from(index.len()).unwrap()], index.as_bytes()].concat();
    let at = row.windows(name.len()).position(|part| part == name).unwrap();
    let id = u32::from_le_bytes(row[at - 5..at - 1].try_into().unwrap());
    let of_index = records.into_iter().filter(|record| record.0 == id);
    of_index.map(|(_, key, value)| (key, value)).collect()
}

#[test]
fn each_write_of_a_row_changes_its_entries_in_the_indexes() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        let users = open(&store);
        let (email, tag) = (by_email(&users), by_tag(&users));
        users.set(1, &user("ada@x", &["a", "b", "a"])).unwrap();
        users.set(2, &user("bob@x", &[])).unwrap();
        assert_eq!(email.get("ada@x").unwrap(), Some((1, user("ada@x", &["a", "b", "a"]))));
        assert_eq!((ids(tag.get_all("a")), ids(tag.get_all("b"))), (vec![1], vec![1]));
        check(&store, &users, "set");
        users.set(1, &user("eve@x", &["b", "c"])).unwrap();
        assert_eq!(email.get("ada@x").unwrap(), None);
        assert_eq!((tag.get("a").unwrap(), tag.get("c").unwrap().unwrap().0), (None, 1));
        check(&store, &users, "a set again");
        users.update(2, |bob| Some(User { tags: vec!["c".into()], ..bob.unwrap() })).unwrap();
        assert_eq!(ids(tag.get_all("c")), [1, 2]);
        check(&store, &users, "update");
        let (old, new) = (user("eve@x", &["b", "c"]), user("kay@x", &["d"]));
        assert!(!users.compare_exchange(1, Some(&new), Some(&old)).unwrap());
        assert!(!users.compare_exchange(1, None, Some(&new)).unwrap());
        check(&store, &users, "a refused exchange");
        assert!(users.compare_exchange(1, Some(&old), Some(&new)).unwrap());
        assert!(users.compare_exchange(3, None, Some(&old)).unwrap());
        check(&store, &users, "compare_exchange");
        assert!(users.compare_exchange(3, Some(&old), None).unwrap());
        replace_insert_and_pop(&store, &users);
        assert_eq!(users.take(1).unwrap(), Some(new));
        assert!(users.remove(2).unwrap() && !users.remove(2).unwrap());
        assert_eq!(check(&store, &users, "remove"), 0);
        for n in 0..9 {
            users.set(n, &user(&format!("{n}@x"), &["t", &format!("t{n}")])).unwrap();
        }
        assert_eq!((users.remove_range(..4).unwrap(), tag.len().unwrap()), (4, 10));
        assert_eq!(check(&store, &users, "remove_range"), 5);
        store
            .transaction(|tx| {
                let mut inside = tx.table(&users)?;
                assert!(inside.remove(4)? && !inside.remove(4)?);
                inside.set(5, &user("five@x", &["t5", "new"]))?;
                inside.set(5, &user("5@y", &["new"]))?;
                assert_eq!(inside.take(6)?.unwrap().email, "6@x");
                inside.set(10, &user("4@x", &["t"]))?;
                assert_eq!(inside.remove_range(8..=8)?, 1);
                Ok(())
            })
            .unwrap();
        assert_eq!(check(&store, &users, "a transaction"), 3);
        assert_eq!((ids(tag.get_all("t")), ids(tag.get_all("t5"))), (vec![7, 10], vec![]));
        drop((users, email, tag, store));
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        let users = open(&store);
        assert_eq!(check(&store, &users, "an open again"), 3);
        assert_eq!(store.transaction(|tx| tx.table(&users)?.clear()).unwrap(), 3);
        assert_eq!(check(&store, &users, "clear in a transaction"), 0);
        users.set(1, &user("ada@x", &["a"])).unwrap();
        users.clear().unwrap();
        assert!(by_email(&users).is_empty().unwrap() && by_tag(&users).is_empty().unwrap());
        assert_eq!(check(&store, &users, "clear"), 0);
    }
}

/// Writes that return what was there, and leave two rows.
fn replace_insert_and_pop(store: &Store, users: &Users) {
    let old = user("eve@x", &["b", "c"]);
    assert_eq!(users.replace(4, &user("4@x", &["r"])).unwrap(), None);
    assert_eq!(users.replace(4, &old).unwrap(), Some(user("4@x", &["r"])));
    assert_eq!(users.get_or_insert_with(5, || user("5@x", &["i"])).unwrap().email, "5@x");
    assert_eq!(users.get_or_insert_with(5, || user("6@x", &[])).unwrap().email, "5@x");
    check(store, users, "replace and get_or_insert_with");
    let pop = |range: std::ops::Range<u64>| {
        let popped = users.pop_first(range).unwrap()?;
        Some(users.decode(&popped).unwrap())
    };
    assert_eq!((pop(6..9), pop(4..9)), (None, Some((4, old))));
    let last = users.pop_last(..).unwrap().unwrap();
    assert_eq!(users.decode(&last).unwrap(), (5, user("5@x", &["i"])));
    assert_eq!(check(store, users, "pop"), 2);
}

#[test]
fn a_second_row_with_a_unique_key_is_refused_by_every_write_and_changes_nothing() {
    let store = Store::in_memory().unwrap();
    let users = open(&store);
    users.set(1, &user("ada@x", &["a"])).unwrap();
    users.set(2, &user("bob@x", &["b"])).unwrap();
    let before = records(&store);
    let ada = user("ada@x", &["c"]);
    assert!(is_taken(users.set(2, &ada)) && is_taken(users.set(3, &ada)));
    assert!(is_taken(users.update(2, |_| Some(ada.clone()))));
    assert!(is_taken(users.compare_exchange(3, None, Some(&ada))));
    assert!(is_taken(store.transaction(|tx| tx.table(&users)?.set(3, &ada))));
    assert_eq!(records(&store), before);
    // A transaction that goes on after the refusal commits nothing of the refused write.
    store
        .transaction(|tx| {
            let mut inside = tx.table(&users)?;
            inside.set(4, &user("kay@x", &["k"]))?;
            assert!(is_taken(inside.set(3, &ada)) && is_taken(inside.set(4, &ada)));
            assert!(inside.get(3)?.is_none());
            Ok(())
        })
        .unwrap();
    assert_eq!(check(&store, &users, "after refusals"), 3);
    // The same row may keep its key, and a key that was given up is free.
    users.set(1, &user("ada@x", &["z"])).unwrap();
    users.remove(1).unwrap();
    users.set(3, &ada).unwrap();
    store
        .transaction(|tx| {
            let mut inside = tx.table(&users)?;
            let bob = inside.take(2)?.unwrap();
            inside.set(3, &bob)?;
            inside.set(2, &ada)
        })
        .unwrap();
    assert_eq!(by_email(&users).get("ada@x").unwrap().unwrap().0, 2);
    assert_eq!(check(&store, &users, "after an exchange"), 3);
}

#[test]
fn of_sixteen_threads_that_insert_one_unique_key_one_wins() {
    let store = Store::in_memory().unwrap();
    let users = open(&store);
    for round in 0..20_u64 {
        let barrier = Arc::new(Barrier::new(16));
        let threads = (0..16_u64).map(|n| {
            let (store, users, barrier) = (store.clone(), users.clone(), Arc::clone(&barrier));
            thread::spawn(move || {
                let new = user(&format!("{round}@x"), &["t"]);
                barrier.wait();
                let id = round * 16 + n;
                let made = match n % 3 {
                    0 => users.set(id, &new),
                    1 => users.update(id, |_| Some(new.clone())).map(drop),
                    _ => store.transaction(|tx| tx.table(&users)?.set(id, &new)),
                };
                assert!(made.is_ok() || is_taken(made.clone()), "{made:?}");
                u64::from(made.is_ok())
            })
        });
        let threads: Vec<_> = threads.collect();
        let made: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(made, 1);
    }
    assert_eq!(check(&store, &users, "16 threads"), 20);
}

/// Random writes of eight threads over few keys, then a kill.
#[test]
fn the_entries_of_the_indexes_are_those_of_the_rows_after_any_writes_and_kills() {
    for form in FORMS {
        let disk = FaultDir::new();
        let mut disk = disk.reboot(Survivors::Everything);
        for round in 0..4_u64 {
            let world = disk.vfs(seed() + round);
            let store = options(form).open_in(&world, "a.db").unwrap();
            let users = open(&store);
            check(&store, &users, "after a kill");
            let threads = (0..8_u64).map(|thread| {
                let (store, users) = (store.clone(), users.clone());
                thread::spawn(move || {
                    let mut random = seed() ^ (round << 8 | thread).wrapping_mul(0x9E37_79B9);
                    for _ in 0..40 {
                        random =
                            random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(thread | 1);
                        write_any(&store, &users, random >> 20);
                    }
                })
            });
            let threads: Vec<_> = threads.collect();
            for thread in threads {
                thread.join().unwrap();
            }
            check(&store, &users, "after random writes");
            // The files are as a kill leaves them.
            disk = disk.reboot(Survivors::Everything);
        }
    }
}

fn write_any(store: &Store, users: &Users, random: u64) {
    let (id, email) = (random % 7, format!("{}@x", random / 7 % 5));
    let tag = ["a", "b", "c"][(random / 40 % 3) as usize];
    let new = user(&email, &[tag, "all"]);
    let made = match random / 128 % 7 {
        0 | 1 => users.set(id, &new),
        2 if random.is_multiple_of(2) => users.pop_first(id..).map(drop),
        2 => {
            users.update(id, |old| old.map(|old| User { tags: new.tags.clone(), ..old })).map(drop)
        }
        3 => users.remove(id).map(drop),
        4 => users.take(id).map(drop),
        5 => store.transaction(|tx| {
            let mut inside = tx.table(users)?;
            inside.remove(id)?;
            inside.set((id + 1) % 7, &new)
        }),
        _ => users.remove_range(id..id + 2).map(drop),
    };
    assert!(made.is_ok() || is_taken(made.clone()), "{made:?}");
}

#[test]
fn a_handle_that_does_not_declare_the_indexes_writes_nothing() {
    let vfs = Vfs::mem(seed());
    let store = options(Form::Wal).open_in(&vfs, "a.db").unwrap();
    // The handle is older than the indexes.
    let plain = store.table::<u64, User>("users").unwrap();
    plain.set(1, &user("ada@x", &["a"])).unwrap();
    let mut batch = store.batch();
    batch.table(&plain).unwrap().set(2, &user("bob@x", &[])).unwrap();
    let users = open(&store);
    let before = records(&store);
    let eve = user("eve@x", &["e"]);
    let refused = |plain: &Users| {
        assert!(is_mismatch(plain.set(1, &eve)) && is_mismatch(plain.remove(1)));
        assert!(is_mismatch(plain.take(1)) && is_mismatch(plain.update(1, |_| None)));
        assert!(is_mismatch(plain.compare_exchange(2, None, Some(&eve))));
        assert!(is_mismatch(plain.remove_range(..)) && is_mismatch(plain.clear()));
        assert!(is_mismatch(store.transaction(|tx| tx.table(plain).map(drop))));
    };
    refused(&plain);
    let needs = |made| matches!(made, Error::NeedsTransaction { table } if table == "users");
    assert!(needs(batch.commit().unwrap_err()));
    assert!(needs(store.batch().table(&users).map(drop).unwrap_err()));
    // Its reads go on, and so do those of an index.
    assert_eq!(plain.get(1).unwrap(), Some(user("ada@x", &["a"])));
    assert!(plain.get(9).unwrap().is_none() && plain.len().unwrap() == 1);
    assert_eq!(by_email(&plain).get("ada@x").unwrap().unwrap().0, 1);
    // An open with fewer, with another kind, or otherwise unique.
    assert!(is_mismatch(store.table::<u64, User>("users")));
    let spec = || TableSpec::<u64, User>::new("users").index("by_tag", tags);
    assert!(is_mismatch(spec().open(&store)));
    assert!(is_mismatch(spec().index::<u64>("by_email", |_, keys| keys.add(1)).open(&store)));
    let email = |user: &User, keys: &mut IndexKeys<'_, String>| keys.add(&user.email);
    match spec().index("by_email", email).open(&store).unwrap_err() {
        Error::IndexMismatch { stored, declared, .. } => {
            assert_eq!(stored, "unique `by_email` of string, `by_tag` of string");
            assert_eq!(declared, "`by_email` of string, `by_tag` of string");
        }
        other => panic!("{other}"),
    }
    let twice = spec().index("by_tag", tags).open(&store).unwrap_err();
    assert!(twice.to_string().contains("the same name"), "{twice}");
    for name in ["", "a\0b", &"n".repeat(256)] {
        assert!(matches!(spec().index(name, tags).open(&store), Err(Error::TableName { .. })));
    }
    assert_eq!(records(&store), before);
    // The writes of a handle that declares them, and a read-only store, which needs none.
    users.set(2, &user("bob@x", &["b"])).unwrap();
    check(&store, &users, "declared");
    store.close().unwrap();
    let store = options(Form::Wal).read_only(true).open_in(&vfs, "a.db").unwrap();
    let plain = store.table::<u64, User>("users").unwrap();
    assert_eq!(ids(by_tag(&plain).iter()), [1, 2]);
    assert!(plain.set(1, &eve).unwrap_err().is_read_only());
    assert_eq!(open(&store).get(2).unwrap().unwrap().email, "bob@x");
    let unbuilt = spec().unique("by_email", email).index("new", tags).open(&store);
    assert!(is_mismatch(unbuilt));
}

/// The function of one index adds the other one, after the removal has read the rows.
#[test]
fn a_removal_of_rows_is_refused_if_an_index_is_added_meanwhile() {
    let store = Store::in_memory().unwrap();
    let (is_armed, inner) = (Arc::new(AtomicBool::new(false)), store.clone());
    let of_email = Arc::clone(&is_armed);
    let users = TableSpec::<u64, User>::new("users")
        .unique::<String>("by_email", move |user, keys| {
            keys.add(&user.email);
            if of_email.swap(false, Ordering::Relaxed) {
                open(&inner);
            }
        })
        .open(&store)
        .unwrap();
    let removals: [fn(&Users) -> Result<()>; 3] = [
        |users| users.remove_range(..).map(drop),
        |users| users.pop_first(..).map(drop),
        |users| users.pop_last(..).map(drop),
    ];
    for removal in removals {
        store.drop_index("users", "by_tag").unwrap();
        users.set(1, &user("ada@x", &["a"])).unwrap();
        is_armed.store(true, Ordering::Relaxed);
        assert!(is_mismatch(removal(&users)));
        assert_eq!(check(&store, &open(&store), "a removal"), 1);
    }
}

#[test]
fn a_dropped_index_is_gone_with_its_entries_and_the_handles_that_declare_it_are_refused() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        let plain = store.table::<u64, User>("users").unwrap();
        let users = open(&store);
        let tag = by_tag(&users);
        users.set(1, &user("ada@x", &["a", "b"])).unwrap();
        let before = store.snapshot();
        assert!(store.drop_index("users", "by_tag").unwrap());
        assert!(!store.drop_index("users", "by_tag").unwrap());
        assert!(matches!(store.drop_index("none", "by_tag"), Err(Error::NoTable { .. })));
        assert!(is_mismatch(users.set(1, &user("ada@x", &[]))));
        let is_no_index =
            |error| matches!(error, Error::NoIndex { index, .. } if index == "by_tag");
        assert!(is_no_index(tag.get("a").unwrap_err()) && is_no_index(tag.len().unwrap_err()));
        assert!(is_no_index(tag.iter().next().unwrap().unwrap_err()));
        assert_eq!(ids(before.index(&tag).unwrap().get_all("a")), [1], "{form}: the old state");
        assert!(store.drop_index("users", "by_email").unwrap());
        let left: BTreeSet<_> = records(&store).iter().map(|record| record.0).collect();
        assert_eq!(left, BTreeSet::from([1, 16]), "{form}: the catalogue and the table");
        // A handle from before the indexes writes again: there are none.
        plain.set(2, &user("ada@x", &["a"])).unwrap();
        assert!(plain.compare_exchange(3, None, Some(&user("eve@x", &[]))).unwrap());
        // Indexes of the same names are other ones, and are built again. The rows violate one.
        assert!(is_taken(spec().open(&store)));
        assert!(store.tables().unwrap()[0].indexes.is_empty(), "{form}: a refused build");
        plain.set(2, &user("bob@x", &["a"])).unwrap();
        let users = open(&store);
        assert_eq!(ids(tag.get_all("a")), [1, 2], "{form}: the new index");
        assert_eq!(check(&store, &users, "built again"), 3);
        assert!(store.drop_table("users").unwrap());
        let left: BTreeSet<_> = records(&store).iter().map(|record| record.0).collect();
        assert_eq!(left, BTreeSet::from([1]), "{form}: nothing of a dropped table");
        assert!(matches!(tag.get("a"), Err(Error::NoTable { .. })));
        assert!(matches!(users.set(1, &user("x", &[])), Err(Error::NoTable { .. })));
        // A new table has indexes at once, with ids that were never used.
        let users = open(&store);
        users.set(1, &user("ada@x", &["a"])).unwrap();
        let ids: BTreeSet<_> = records(&store).iter().map(|record| record.0).collect();
        assert!(ids.iter().skip(1).all(|&id| id > 20), "{form}: {ids:?}");
        check(&store, &users, "a new table");
    }
}

/// The function of the index writes rows of the same step through a handle that maintains it, after
/// the builder has read them and before it commits.
#[test]
fn an_index_is_built_beside_writers() {
    let store = Store::in_memory().unwrap();
    let plain = store.table::<u64, User>("users").unwrap();
    let mut batch = store.batch();
    for n in 0..3_000 {
        batch.table(&plain).unwrap().set(n, &user(&format!("{n}@x"), &["old"])).unwrap();
    }
    batch.commit().unwrap();
    let before = store.snapshot().seq();
    let calls = Arc::new(AtomicU32::new(0));
    let (of_tags, inner) = (Arc::clone(&calls), store.clone());
    let users = TableSpec::<u64, User>::new("users")
        .unique::<String>("by_email", |user, keys| keys.add(&user.email))
        .index::<String>("by_tag", move |user, keys| {
            tags(user, keys);
            let with =
                |email: &str, tag: &str| User { email: email.into(), tags: vec![tag.into()] };
            let call = of_tags.fetch_add(1, Ordering::Relaxed);
            // In the middle of the second step, writes that leave nothing of the old entries, so
            // that the builder would put them.
            if call == 1_500 {
                let users = indexed_while_building(&inner);
                users.remove(1_400).unwrap();
                users.set(1_401, &with("1401@y", "new")).unwrap();
                // Before and after the rows of the step.
                users.set(1, &with("new 1@x", "new")).unwrap();
                users.take(2_500).unwrap();
                users.set(2_600, &with("2600@y", "new")).unwrap();
                users.set(9_000, &with("9000@x", "new")).unwrap();
            }
            // In the third one, after that step was made again, another row takes a unique key.
            if call == 3_200 {
                let users = indexed_while_building(&inner);
                users.set(2_101, &with("2101@y", "other")).unwrap();
                users.set(2_100, &with("2101@x", "other")).unwrap();
            }
        })
        .open(&store)
        .unwrap();
    assert!(calls.load(Ordering::Relaxed) > 3_000);
    assert_eq!(check(&store, &users, "built"), 2_999);
    assert_eq!(ids(by_tag(&users).get_all("new")), [1, 1_401, 2_600, 9_000]);
    // The declaration, three steps, eight writes, and the end.
    assert_eq!(store.snapshot().seq() - before, 13);
}

/// Returns a handle of the table that declares both indexes, which are being built, without
/// building them.
fn indexed_while_building(store: &Store) -> Users {
    let info = &store.tables().unwrap()[0].indexes;
    assert!(info.iter().all(|index| index.is_building), "{info:?}");
    // An open of its own would build them, so that nothing would be left for the other one.
    codex_core::internals::open_unbuilt(spec(), store).unwrap()
}

#[test]
fn an_index_is_built_in_steps_beside_threads_that_write() {
    for _ in 0..3 {
        let store = Store::in_memory().unwrap();
        let plain = store.table::<u64, User>("users").unwrap();
        let mut batch = store.batch();
        for n in 0..5_000 {
            batch.table(&plain).unwrap().set(n, &user(&format!("{n}@x"), &["old"])).unwrap();
        }
        batch.commit().unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..4_u64)
            .map(|thread| {
                let (store, ends) = (store.clone(), Arc::clone(&ends));
                thread::spawn(move || {
                    // Two of the threads build it too.
                    let users = open(&store);
                    let mut n = thread;
                    while !ends.load(Ordering::Relaxed) {
                        n += 4;
                        let id = n % 5_003;
                        users.set(id, &user(&format!("{id}@{thread}"), &["new"])).unwrap();
                        users.remove((n * 7) % 4_999).unwrap();
                    }
                })
            })
            .collect();
        let users = open(&store);
        ends.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap();
        }
        check(&store, &users, "built beside threads");
    }
}

#[test]
fn a_build_that_cannot_end_leaves_no_index_and_one_that_panics_is_continued() {
    let store = Store::in_memory().unwrap();
    let plain = store.table::<u64, User>("users").unwrap();
    for n in 0..3 {
        plain.set(n, &user("same@x", &["a"])).unwrap();
    }
    assert!(is_taken(spec().open(&store)));
    assert!(store.tables().unwrap()[0].indexes.is_empty());
    plain.set(0, &user("0@x", &["a"])).unwrap();
    plain.set(1, &user("1@x", &["a"])).unwrap();
    let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        spec()
            .index::<u8>("by_panic", |user, _| assert!(user.email != "1@x", "on purpose"))
            .open(&store)
    }));
    assert!(panics.is_err());
    let building = |store: &Store| store.tables().unwrap()[0].indexes.iter().any(|i| i.is_building);
    assert!(building(&store) && is_mismatch(plain.set(9, &user("9@x", &[]))));
    assert!(store.drop_index("users", "by_panic").unwrap());
    let users = open(&store);
    assert!(!building(&store));
    assert_eq!(check(&store, &users, "continued"), 3);
    // A value that does not decode.
    let others = store.table::<u64, u8>("others").unwrap();
    others.set(1, &1).unwrap();
    let wrong = TableSpec::<u64, String>::new("others").index::<u8>("n", |_, keys| keys.add(1));
    assert!(matches!(wrong.open(&store), Err(Error::Decode { .. })));
    assert_eq!(others.get(1).unwrap(), Some(1));
    others.set(1, &2).unwrap();
}

#[test]
fn the_entries_of_a_row_expire_with_it_in_the_same_microsecond() {
    for form in FORMS {
        let clock = SimClock::new();
        let vfs = Vfs { clock: Arc::new(clock.clone()), ..Vfs::mem(seed()) };
        let options = without_threads(options(form));
        let store = options.open_in(&vfs, "a.db").unwrap();
        let users = open(&store);
        let (email, tag) = (by_email(&users), by_tag(&users));
        let at = |us: u64| {
            let now = u64::try_from(clock.now_us()).unwrap();
            SystemTime::UNIX_EPOCH + Duration::from_micros(now + us)
        };
        users.set_with_expiry(1, &user("ada@x", &["a"]), at(2)).unwrap();
        // An update keeps the expiry, also of entries that it does not change.
        users
            .update(1, |ada| Some(User { tags: vec!["a".into(), "b".into()], ..ada.unwrap() }))
            .unwrap();
        let later = at(9);
        store
            .transaction(|tx| tx.table(&users)?.set_with_expiry(2, &user("bob@x", &["a"]), later))
            .unwrap();
        // The same value with another expiry.
        users.set(3, &user("kay@x", &["a"])).unwrap();
        users.set_with_expiry(3, &user("kay@x", &["a"]), at(2)).unwrap();
        users.set_with_expiry(4, &user("eve@x", &["a"]), at(2)).unwrap();
        users.set(4, &user("eve@x", &["a"])).unwrap();
        let before = store.snapshot();
        clock.advance(Duration::from_micros(1));
        assert_eq!((ids(tag.get_all("a")), tag.len().unwrap()), (vec![1, 2, 3, 4], 5));
        clock.advance(Duration::from_micros(1));
        assert_eq!((ids(tag.get_all("a")), tag.len().unwrap()), (vec![2, 4], 2), "{form}");
        assert_eq!((email.get("ada@x").unwrap(), email.len().unwrap()), (None, 2));
        assert!(users.verify_indexes().unwrap().is_ok());
        assert_eq!(ids(before.index(&tag).unwrap().get_all("a")), [1, 2, 3, 4]);
        // The unique key of a row that has expired is free.
        users.set(5, &user("ada@x", &["z"])).unwrap();
        assert_eq!(email.get("ada@x").unwrap().unwrap().0, 5);
        while sweep(&store).unwrap() {}
        assert_eq!(check(&store, &users, "swept"), 3);
        assert_eq!(store.stats().swept, 6, "{form}: two rows and five entries, less one replaced");
    }
}

#[test]
fn the_keys_are_those_of_the_stored_value() {
    #[derive(Serialize, Deserialize)]
    struct Part {
        stored: u8,
        #[serde(skip)]
        lost: u8,
    }
    let store = Store::in_memory().unwrap();
    let parts = TableSpec::<u64, Part>::new("parts")
        .index::<u8>("by_lost", |part, keys| keys.add(part.lost))
        .open(&store)
        .unwrap();
    parts.set(1, &Part { stored: 1, lost: 9 }).unwrap();
    let by_lost = parts.index::<u8>("by_lost").unwrap();
    assert_eq!((ids(by_lost.get_all(0)), ids(by_lost.get_all(9))), (vec![1], vec![]));
    assert!(parts.verify_indexes().unwrap().is_ok());
    parts.remove(1).unwrap();
    assert!(by_lost.is_empty().unwrap());
    // A function that has changed its meaning is reported.
    parts.set(1, &Part { stored: 1, lost: 0 }).unwrap();
    let other = TableSpec::<u64, Part>::new("parts")
        .index::<u8>("by_lost", |part, keys| keys.add(part.stored))
        .open(&store)
        .unwrap();
    let report = other.verify_indexes().unwrap();
    assert!(!report.is_ok());
    assert_eq!(report.damaged, [("by_lost".to_owned(), 1, 1)]);
}

#[test]
fn an_index_is_read_in_the_order_of_its_keys_within_any_bounds() {
    let store = Store::in_memory().unwrap();
    let table = TableSpec::<u8, (String, u8)>::new("t")
        .index::<String>("name", |(name, _), keys| keys.add(name))
        .unique::<(String, u8)>("both", |(name, n), keys| keys.add((name, *n)))
        .unique::<u8>("n", |(_, n), keys| keys.add(*n))
        .open(&store)
        .unwrap();
    let names = ["", "\0", "a", "a\0", "a\0b", "aa", "ab", "b", "\u{10FFFF}"];
    for (n, name) in (0..).zip(names) {
        table.set(100 - n, &(name.into(), 255 - n)).unwrap();
        table.set(200 - n, &(name.into(), n)).unwrap();
    }
    let name = table.index::<String>("name").unwrap();
    let of = |rows: &mut dyn Iterator<Item = Result<(u8, (String, u8))>>| -> Vec<String> {
        rows.map(|row| row.unwrap().1.0).collect()
    };
    let twice = |names: &[&str]| {
        names.iter().flat_map(|n| [(*n).to_owned(), (*n).to_owned()]).collect::<Vec<_>>()
    };
    assert_eq!(of(&mut name.iter()), twice(&names));
    let mut reversed = of(&mut name.iter().rev());
    reversed.reverse();
    assert_eq!(reversed, twice(&names));
    assert_eq!(ids(name.get_all("a\0")), [97, 197]);
    assert_eq!(name.get("a\0").unwrap().unwrap().0, 97);
    assert!(name.get("c").unwrap().is_none() && name.get_all("c").next().is_none());
    for low in names {
        for high in names {
            let all = [
                (Bound::Included(low), Bound::Included(high)),
                (Bound::Included(low), Bound::Excluded(high)),
                (Bound::Excluded(low), Bound::Included(high)),
                (Bound::Excluded(low), Bound::Excluded(high)),
                (Bound::Unbounded, Bound::Excluded(high)),
                (Bound::Excluded(low), Bound::Unbounded),
            ];
            for (at, bounds) in all.into_iter().enumerate() {
                let is_in = |name: &&&str| {
                    let above = match bounds.0 {
                        Bound::Included(low) => low <= **name,
                        Bound::Excluded(low) => low < **name,
                        Bound::Unbounded => true,
                    };
                    above
                        && match bounds.1 {
                            Bound::Included(high) => **name <= high,
                            Bound::Excluded(high) => **name < high,
                            Bound::Unbounded => true,
                        }
                };
                let expected: Vec<_> = names.iter().filter(is_in).copied().collect();
                let found = of(&mut name.range(bounds));
                assert_eq!(found, twice(&expected), "{low:?} {high:?} {at}");
            }
        }
        let expected: Vec<_> = names.into_iter().filter(|name| name.starts_with(low)).collect();
        assert_eq!(of(&mut name.prefix(low)), twice(&expected), "{low:?}");
        let both = table.index::<(String, u8)>("both").unwrap();
        let exact = [low.to_owned(), low.to_owned()];
        assert_eq!(of(&mut both.prefix((low,))), exact, "{low:?}");
    }
    // The greatest key of all has none after it.
    let n = table.index::<u8>("n").unwrap();
    assert_eq!(ids(n.range(255..)), [100]);
    assert!(n.range((Bound::Excluded(255), Bound::Unbounded)).next().is_none());
    assert_eq!(n.range(..=255).count(), 18);
    assert_eq!(ids(n.range((Bound::Excluded(254), Bound::Included(255)))), [100]);
}

#[test]
fn a_transaction_that_read_an_index_runs_again_if_the_read_rows_change() {
    let store = Store::in_memory().unwrap();
    let users = open(&store);
    let (email, tag) = (by_email(&users), by_tag(&users));
    users.set(1, &user("ada@x", &["a"])).unwrap();
    let mut rounds = 0;
    store
        .transaction(|tx| {
            rounds += 1;
            let found = tx.index(&email)?.get("bob@x")?.map(|(id, _)| id);
            let all = ids(tx.index(&tag)?.get_all("a"));
            let expected = [(None, vec![1]), (Some(2), vec![1]), (Some(2), vec![1, 3])];
            let at = rounds.min(3) - 1;
            assert_eq!((found, all), expected[at]);
            match rounds {
                // The key of an entry that was not there.
                1 => users.set(2, &user("bob@x", &["b"]))?,
                // In the range that was read.
                2 => users.set(3, &user("eve@x", &["a"]))?,
                // A row whose entry was read, which keeps its keys.
                3 => users.set(1, &user("ada@x", &["a", "more"]))?,
                // None of them.
                _ => users.set(9, &user("kay@x", &["z"]))?,
            }
            // The transaction reads its own writes.
            tx.table(&users)?.set(5, &user("five@x", &["five"]))?;
            assert_eq!(tx.index(&email)?.get("five@x")?.unwrap().0, 5);
            assert_eq!(ids(tx.index(&tag)?.prefix("fi")), [5]);
            Ok(())
        })
        .unwrap();
    assert_eq!(rounds, 4);
    check(&store, &users, "a transaction");
    // The closure of an update may not write its own row.
    let refused = users.update(1, |ada| users.set(1, &user("x", &[])).map(|()| ada).unwrap());
    assert!(matches!(refused, Err(Error::UpdatesItself { key_len: 8 })));
    // A key of an index that is too long changes nothing.
    let before = records(&store);
    assert!(users.set(1, &user(&"k".repeat(65_536), &[])).unwrap_err().is_too_large());
    let long = user("long@x", &[&"k".repeat(65_535)]);
    assert!(users.set(1, &long).unwrap_err().is_too_large());
    let inside = store.transaction(|tx| Ok(tx.table(&users)?.set(1, &long)));
    assert!(inside.unwrap().unwrap_err().is_too_large());
    assert_eq!(records(&store), before);
}

#[test]
fn indexes_are_whole_in_every_copy_of_a_store() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        let is_whole = |vfs: &Vfs, form: Form, place: &str| {
            let store = options(form).open_in(vfs, "a.db").unwrap();
            let users = open(&store);
            assert_eq!(check(&store, &users, place), 2, "{form}");
            assert_eq!(by_email(&users).get("bob@x").unwrap().unwrap().0, 2, "{form}: {place}");
        };
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        let users = open(&store);
        users.set(1, &user("ada@x", &["a"])).unwrap();
        users.set(2, &user("bob@x", &["a", "b"])).unwrap();
        store.back_up().unwrap();
        let other = Vfs::mem(seed());
        let on = std::ops::ControlFlow::Continue(());
        store.backup_to_in(&other, "a.db", &mut |_| on).unwrap();
        is_whole(&other, form, "a hot copy");
        store.drop_table("users").unwrap();
        store.close().unwrap();
        Backups::of_in(&vfs, "a.db").restore(1).unwrap();
        is_whole(&vfs, form, "a restored backup");
        for form in [Form::Ledger, Form::Wal, Form::Snapshot, Form::Ledger] {
            Conversion::new().form(form).convert_in(&vfs, "a.db").unwrap();
            is_whole(&vfs, form, "a conversion");
        }
    }
}

#[test]
fn a_power_cut_in_a_build_or_a_drop_of_an_index_leaves_what_the_next_open_completes() {
    let form = Form::Wal;
    let disk = FaultDir::new();
    let world = |disk: &FaultDir| disk.vfs(seed() + disk.calls());
    let store = options(form).open_in(&world(&disk), "a.db").unwrap();
    let plain = store.table::<u64, User>("users").unwrap();
    let mut batch = store.batch();
    for n in 0..1_030_u64 {
        batch.table(&plain).unwrap().set(n, &user(&n.to_string(), &["t"])).unwrap();
    }
    batch.commit().unwrap();
    store.close().unwrap();
    let disk = disk.reboot(Survivors::Everything);
    let act = |disk: &FaultDir| {
        let mut done = 0;
        let story = |done: &mut u32| -> Result<()> {
            let store = options(form).open_in(&world(disk), "a.db")?;
            let users = spec().open(&store)?;
            *done = 1;
            users.set(3, &user("new", &["u"]))?;
            *done = 2;
            store.drop_index("users", "by_tag")?;
            *done = 3;
            Ok(())
        };
        let _ = story(&mut done);
        done
    };
    let choice = CrashChoice { seed: seed(), ..CrashChoice::default() };
    let mut built = [0, 0];
    let shown = each_power_cut(&disk, &choice, act, |mishap, disk, &done| {
        let store = options(form).open_in(&world(disk), "a.db");
        let store = store.unwrap_or_else(|e| panic!("{form}: {e}; {mishap}"));
        let info = &store.tables().unwrap()[0];
        let is_building = info.indexes.iter().any(|index| index.is_building);
        built[usize::from(is_building)] += 1;
        assert!(!is_building || done == 0, "{form}: {mishap}");
        assert!(done < 3 || info.indexes.len() == 1, "{form}: {mishap}");
        let users = spec().open(&store).unwrap_or_else(|e| panic!("{form}: {e}; {mishap}"));
        let report = users.verify_indexes().unwrap();
        assert!(report.is_ok(), "{form}: {report:?}; {mishap}");
        assert_eq!((report.rows, report.entries), (1_030, 2_060), "{form}: {mishap}");
        assert!(store.tables().unwrap()[0].indexes.iter().all(|index| !index.is_building));
        assert!(done < 2 || users.get(3).unwrap().unwrap().email == "new");
    });
    println!("{form}: {shown} disks, {} of them with an index that is not complete", built[1]);
    assert!(shown > 10 && built[1] > 0, "{shown} {built:?}");
}

/// The records are on disk for ever: these bytes never change.
#[test]
fn the_records_of_indexes_are_those_of_the_format() {
    let store = Store::in_memory().unwrap();
    let users = open(&store);
    users.set(7, &user("a\0", &["t"])).unwrap();
    let shown = records(&store);
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let values = text(std::any::type_name::<User>());
    let id = |id: u32| id.to_le_bytes().to_vec();
    let row = [
        vec![0],
        id(16),
        vec![0],
        text("u64"),
        values,
        id(17),
        vec![1],
        text("by_email"),
        text("string"),
        id(18),
        vec![0],
        text("by_tag"),
        text("string"),
    ];
    let key = [0, 0, 0, 0, 0, 0, 0, 7];
    assert_eq!(shown[0], (1, vec![], [vec![0], id(19)].concat()));
    assert_eq!(shown[1], (1, b"users".to_vec(), row.concat()));
    assert_eq!((shown[2].0, &shown[2].1[..]), (16, &key[..]));
    assert_eq!(shown[3], (17, b"a\0\xFF\0\0".to_vec(), [&[0], &key[..]].concat()));
    assert_eq!(shown[4], (18, [b"t\0\0", &key[..]].concat(), vec![0]));
    assert_eq!(shown.len(), 5);
}

/// A file of version 1 that is never written again: two tables, a dropped one, and two indexes.
#[test]
fn a_golden_file_with_tables_and_indexes_is_made_and_read_the_same() {
    let spec = || {
        TableSpec::<u64, u64>::new("rows")
            .index::<u64>("by_half", |n, keys| keys.add(*n / 2))
            .unique::<(bool, u64)>("by_kind", |n, keys| keys.add((*n % 2 == 1, *n)))
    };
    let vfs = Vfs { clock: Arc::new(SimClock::new()), ..Vfs::mem(7) };
    let store = without_threads(options(Form::Wal)).open_in(&vfs, "a.db").unwrap();
    let dropped = store.table::<String, u64>("dropped").unwrap();
    dropped.set("gone", &1).unwrap();
    store.drop_table("dropped").unwrap();
    store.table::<(i8, String), u64>("plain").unwrap().set((-1, "a"), &1).unwrap();
    let rows = spec().open(&store).unwrap();
    (0..4).for_each(|n| rows.set(n, &(n + 10)).unwrap());
    drop((dropped, rows));
    store.close().unwrap();
    let made = read(&vfs, "a.db");
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = folder.join("../codex-storage/testdata/v1/tables.db");
    if std::env::var("CODEX_GOLDEN").is_ok_and(|what| what == "write") {
        assert!(!path.exists(), "golden files are made once");
        std::fs::write(&path, &made).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert_eq!(golden, made, "the file is made otherwise");
    let vfs = Vfs::mem(seed());
    write(&vfs, "a.db", &golden);
    let store = options(Form::Wal).open_in(&vfs, "a.db").unwrap();
    let rows = spec().open(&store).unwrap();
    assert!(rows.verify_indexes().unwrap().is_ok());
    assert_eq!(ids(rows.index::<u64>("by_half").unwrap().get_all(6)), [2, 3]);
    assert_eq!(ids(rows.index::<(bool, u64)>("by_kind").unwrap().iter()), [0, 2, 1, 3]);
    let plain = store.table::<(i8, String), u64>("plain").unwrap();
    assert_eq!((plain.get((-1, "a")).unwrap(), store.tables().unwrap().len()), (Some(1), 2));
}

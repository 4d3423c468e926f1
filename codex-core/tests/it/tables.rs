//! Entries of tables: no read, no change and no watch of the keys outside tables meets them.
//!
//! There is no API of tables, so the tests make their records through the engine.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use codex_core::internals::{
    Change, Check, Commit, End, Entry, Outcome, submit, sweep, view, without_threads,
};
use codex_core::vfs::{Clock as _, SimClock, Vfs};
use codex_core::{Change as Shown, Notice, Prefix, Readable, Store};
use codex_storage::batch::{Item, TableId};
use codex_storage::storage::{Durability, Form};

use crate::common::{FORMS, options, seed};
use crate::double::{engine, put};
use crate::group::together;

fn tabled(id: u32, key: &str, value: &str, expires_us: Option<i64>) -> Entry {
    let (table, key, value) = (TableId::new(id), key.as_bytes(), value.as_bytes());
    Entry::from_item(Item { table, key, value, expires_us })
}

fn put_all(store: &Store, entries: Vec<Entry>) {
    let changes = entries.into_iter().map(Change::Put).collect::<Vec<_>>().into();
    submit(store, Commit { changes, ..Commit::default() }).unwrap();
}

/// Returns the table, the key and the value of each entry of a table.
fn tables(store: &Store) -> Vec<(u32, String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let ordered = view(store).ordered;
    let entries = ordered.iter_with_tables();
    let row = |e: &Entry| Some((e.table()?.get(), text(e.key()), text(e.value())));
    entries.filter_map(row).collect()
}

/// The entries of a store with tables: some of the keys are outside tables too, and others are
/// before, between and after those.
fn rows() -> Vec<Entry> {
    let keys = ["", "a", "b", "bb", "c", "z"];
    let row = |id| keys.map(|key| tabled(id, key, &format!("{id} {key}"), None));
    [row(1), row(7), row(u32::MAX)].concat()
}

fn check_reads(source: &impl Readable) {
    for key in ["", "a", "bb", "z", "\0\0\0\u{1}a"] {
        assert_eq!(source.get::<u64>(key).unwrap(), None);
        assert!(source.get_bytes(key).is_none() && !source.contains_key(key));
        assert_eq!(source.expires_at(key), None);
    }
    assert_eq!((source.get("b").unwrap(), source.get("c").unwrap()), (Some(2_u64), Some(3_u64)));
    assert_eq!((source.len(), source.is_empty()), (2, false));
    assert_eq!(source.keys().collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(source.iter().rev().map(|entry| entry.key()[0]).collect::<Vec<_>>(), [b'c', b'b']);
    assert_eq!(source.range("a".."c").count(), 1);
    assert_eq!(source.range("c"..).count(), 1);
    assert_eq!((source.prefix("b").count(), source.prefix("").count()), (1, 2));
}

#[test]
fn no_read_of_the_keys_outside_tables_shows_an_entry_of_a_table() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        put_all(&store, rows());
        assert!(store.is_empty() && store.snapshot().is_empty() && store.iter().next().is_none());
        store.set("b", &2_u64).unwrap();
        store.set("c", &3_u64).unwrap();
        let check = |store: &Store| {
            check_reads(store);
            check_reads(&store.snapshot());
            store
                .transaction(|tx| {
                    check_reads(tx);
                    Ok::<_, codex_core::Error>(())
                })
                .unwrap();
            assert_eq!(tables(store).len(), rows().len());
        };
        check(&store);
        store.checkpoint().unwrap();
        drop(store);
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        check(&store);
        store.close().unwrap();
        check(&options(form).open_in(&vfs, "a.db").unwrap());
    }
}

#[test]
fn no_change_of_the_keys_outside_tables_changes_an_entry_of_a_table() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        put_all(&store, rows());
        let before = tables(&store);
        let watch = store.watch("").unwrap();
        // What is absent outside tables is absent to every condition and every removal.
        assert!(!store.remove("a").unwrap() && store.take::<u64>("bb").unwrap().is_none());
        assert!(store.pop_first(..).unwrap().is_none());
        assert!(store.pop_last(Prefix("b")).unwrap().is_none());
        assert_eq!(store.remove_range(..).unwrap(), 0);
        store.clear().unwrap();
        assert!(store.compare_exchange("a", None, Some(&1_u64)).unwrap());
        store.update("b", |seen: Option<u64>| Some(seen.map_or(2, |_| 0))).unwrap();
        store.set("c", &3_u64).unwrap();
        let values = ["a", "b", "c"].map(|key| store.get::<u64>(key).unwrap());
        assert_eq!(values, [Some(1), Some(2), Some(3)]);
        assert_eq!(store.pop_first(..).unwrap().unwrap().key(), b"a");
        assert_eq!(store.remove_prefix("b").unwrap(), 1);
        put_all(&store, vec![tabled(7, "c", "other", None)]);
        store.clear().unwrap();
        assert!(store.is_empty());
        // A group of many steps is applied to copies of the indexes.
        for count in [2, 3_000_u32, 2] {
            let mut batch = store.batch();
            batch.clear();
            for n in 0..count {
                batch.set(n.to_le_bytes(), &n).unwrap();
            }
            batch.commit().unwrap();
            assert_eq!(store.len(), count as usize);
        }
        let mut expected = before;
        expected.iter_mut().filter(|row| (row.0, &*row.1) == (7, "c")).for_each(|row| {
            row.2 = "other".into();
        });
        assert_eq!(tables(&store), expected, "{form}");
        drop(store);
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        assert_eq!((store.len(), tables(&store)), (2, expected), "{form}: reopened");
        // The row that was put is in no notice.
        let cleared = |change: &Shown| matches!(change, Shown::Cleared);
        let notices: Vec<_> = watch.collect();
        let shown = notices.iter().map(|notice| match notice {
            Notice::Commit(commit) => {
                (commit.changes().len(), commit.changes().iter().any(cleared))
            }
            notice => panic!("{notice:?}"),
        });
        let one = (1, false);
        let expected = [one, one, one, one, one, (1, true), (2, false), (3_001, true), (3, true)];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn an_entry_of_a_table_that_has_expired_is_swept_from_its_table_alone() {
    for form in FORMS {
        let clock = SimClock::new();
        let vfs = Vfs { clock: Arc::new(clock.clone()), ..Vfs::mem(seed()) };
        let options = without_threads(options(form));
        let store = options.open_in(&vfs, "a.db").unwrap();
        let due = clock.now_us();
        store.set("k", &1_u64).unwrap();
        put_all(&store, vec![tabled(1, "k", "due", Some(due + 1)), tabled(2, "k", "stays", None)]);
        clock.advance(Duration::from_micros(1));
        let mut watch = store.watch("").unwrap();
        // A table that has entries which are due does not change the number of others.
        assert_eq!((store.len(), store.snapshot().len()), (1, 1));
        sweep(&store).unwrap();
        let left = [(2, "k".to_owned(), "stays".to_owned())];
        assert_eq!((tables(&store), store.get("k").unwrap()), (left.to_vec(), Some(1_u64)));
        assert_eq!((store.stats().swept, store.stats().expiring), (1, 0));
        assert!(watch.try_next().is_none());
        drop(store);
        let store = options.open_in(&vfs, "a.db").unwrap();
        assert_eq!((tables(&store), store.get("k").unwrap()), (left.to_vec(), Some(1_u64)));
    }
}

#[test]
fn in_a_group_a_clear_leaves_the_entries_of_tables() {
    let (engine, probe) = engine(Form::Wal, Durability::Sync, false);
    let old = tabled(1, "old", "1", None);
    engine.submit(Commit::one(Change::Put(old.clone()))).unwrap();
    let new = tabled(1, "a", "1", None);
    let bound = |key: &str| Bound::Included(key.as_bytes().into());
    let unchanged =
        Check::Unchanged { table: None, lower: bound("a"), upper: bound("b"), base: engine.view() };
    let outcomes = together(
        &engine,
        &probe,
        vec![
            Commit::one(Change::Put(new.clone())),
            // A row is no change of a range outside tables.
            Commit::checked(unchanged, put("a", "1")),
            Commit::one(Change::Clear(None)),
            // Both rows are still there, and the keys are not.
            Commit::checked(Check::Same(old.clone()), put("x", "1")),
            Commit::checked(Check::Same(new.clone()), put("y", "1")),
            Commit::one(Change::Remove(b"a"[..].into())),
            Commit::one(Change::Pop(None, bound("a"), bound("z"), End::First)),
            Commit::one(Change::Clear(None)),
        ],
    );
    let removed: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| match outcome.unwrap() {
            Outcome::Done { seq, removed, .. } => (seq.is_some(), removed),
            Outcome::Conflict => panic!("a conflict"),
        })
        .collect();
    let (put, none) = ((true, 0), (false, 0));
    // The first clear removes `first` and `a`, the second one `y`.
    assert_eq!(removed, [put, put, (true, 2), put, put, none, (true, 1), (true, 1)]);
    let ordered = engine.view().ordered;
    assert!(ordered.is_empty());
    assert!(ordered.iter_with_tables().eq([&new, &old]));
    let seen: Vec<_> = ordered.iter_with_tables().map(Entry::table).collect();
    assert_eq!(seen, [TableId::new(1); 2]);
}

#[test]
fn in_a_group_the_changes_of_a_table_see_those_before_them_and_a_clear_is_one_record() {
    let (engine, probe) = engine(Form::Wal, Durability::Sync, false);
    let one = TableId::new(1);
    for row in
        [tabled(1, "a", "1", None), tabled(1, "b", "1", Some(i64::MAX)), tabled(2, "a", "1", None)]
    {
        engine.submit(Commit::one(Change::Put(row))).unwrap();
    }
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    let bound = |key: &str| Bound::Included(key.as_bytes().into());
    let unchanged = |upper: &str| Check::Unchanged {
        table: one,
        lower: bound("a"),
        upper: bound(upper),
        base: engine.view(),
    };
    let checks = [unchanged("b"), unchanged("c")];
    let [held, broken] = checks;
    let before = probe.disk().written();
    let outcomes = together(
        &engine,
        &probe,
        vec![
            Commit::one(Change::Put(tabled(1, "c", "1", None))),
            Commit::checked(held, put("x", "1")),
            Commit::checked(broken, put("y", "1")),
            Commit::one(Change::RemoveRange(one, bound("a"), bound("b"))),
            Commit::one(Change::Pop(one, Bound::Unbounded, Bound::Unbounded, End::Last)),
            // Nothing is left of the table.
            Commit::one(Change::Clear(one)),
            Commit::one(Change::Put(tabled(1, "d", "1", Some(i64::MIN)))),
            Commit::one(Change::Put(tabled(1, "e", "1", None))),
            // An entry that has expired is removed too.
            Commit::one(Change::Clear(one)),
            Commit::one(Change::Put(tabled(1, "f", "1", None))),
            Commit::one(Change::Clear(None)),
        ],
    );
    let done: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| match outcome.unwrap() {
            Outcome::Done { seq, removed, .. } => Some((seq.is_some(), removed)),
            Outcome::Conflict => None,
        })
        .collect();
    let (set, two) = (Some((true, 0)), Some((true, 2)));
    let expected = [set, set, None, two, Some((true, 1)), Some((false, 0)), set, set, two];
    // The last clear removes `a`, `x` and the key with which the group begins.
    assert_eq!(done, [&expected[..], &[set, Some((true, 3))]].concat());
    let records = probe.disk().commit_lens(before);
    assert_eq!(records, [1, 1, 1, 2, 1, 1, 1, 1, 1, 1], "a clear is one record");
    let ordered = engine.view().ordered;
    let left = ordered.iter_with_tables().map(|e| (e.table().map(TableId::get), e.key()[0]));
    assert_eq!(left.collect::<Vec<_>>(), [(Some(1), b'f'), (Some(2), b'a')]);
    // The hash index agrees.
    for row in ordered.iter_with_tables() {
        let check = Check::Same(row.clone());
        let made = engine.submit(Commit::checked(check, Change::Remove(b"none"[..].into())));
        assert!(matches!(made.unwrap(), Outcome::Done { .. }));
    }
    assert_eq!(probe.disk().durable_state().len(), 2);
}

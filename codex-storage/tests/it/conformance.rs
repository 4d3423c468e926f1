//! One suite for every form, plain and sealed, on every disk.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use codex_storage::batch::{Item, Op, TableId};
use codex_storage::storage::{Anchor, Durability, Form};
use codex_storage::sync::atomic::{AtomicU64, Ordering};
use codex_storage::vfs::{Mode, Open, SimClock};
use codex_storage::{Access, Config, Conversion, Create, Error, RestorePoint, convert, ledger_at};

use crate::common::store::{Map, Store};
use crate::common::{Bed, NAME, bytes, files, keys, mem_with};

/// Runs each named function on each form and each disk, plain and sealed, as a separate test.
macro_rules! conformance {
    ($form:ident, $module:ident: $($test:ident),* $(,)?) => {
        mod $module {
            use codex_storage::storage::Form;
            use codex_storage::vfs::Vfs;
            use crate::common::Bed;
            $(#[test] fn $test() {
                for sealed in [false, true] {
                    crate::conformance::$test(&Bed::new(Vfs::mem(7), Form::$form, sealed));
                    let dir = tempfile::tempdir().unwrap();
                    let vfs = Vfs::os(dir.path()).unwrap();
                    crate::conformance::$test(&Bed::new(vfs, Form::$form, sealed));
                }
            })*
        }
    };
}

macro_rules! all_forms {
    ($($tests:tt)*) => {
        conformance!(Snapshot, snapshot: $($tests)*);
        conformance!(Wal, wal: $($tests)*);
        conformance!(Ledger, ledger: $($tests)*);
    };
}

all_forms!(
    a_new_store_is_empty_and_opens_again,
    commits_are_numbered_densely_and_survive_reopening,
    the_batches_of_a_group_are_commits_in_order,
    a_group_without_batches_is_no_commit,
    removals_and_clears_survive_reopening,
    keys_and_values_of_every_length_survive,
    a_record_keeps_its_expiry_and_its_table_through_everything,
    a_checkpoint_and_an_abandoned_one_change_no_state,
    a_store_without_a_clean_end_reopens_whole,
    every_level_is_durable_after_a_clean_end,
    the_anchor_survives_and_is_demanded,
    a_second_writer_is_locked_out_and_the_lock_outlives_nothing,
    readers_share_and_change_no_byte,
    a_reader_refuses_every_change,
    what_stands_at_the_path_decides_the_error,
    creating_is_asked_for_and_refused_by_name,
    keys_are_asked_for_by_name,
    another_form_is_refused_by_name,
    companions_of_a_store_are_no_stores,
    temporary_files_are_removed_by_a_writer_only,
    a_closed_store_refuses_by_name,
    no_key_or_value_is_printed,
    verifying_reads_all_beside_a_writer_and_changes_nothing,
    verifying_beside_a_writing_thread_finds_no_fault,
);

fn a_new_store_is_empty_and_opens_again(bed: &Bed) {
    let store = Store::open(bed.config()).unwrap();
    assert_eq!((store.recovered.seq, store.map.0.len()), (0, 0));
    assert_eq!(store.storage.form(), bed.form);
    store.close().unwrap();
    let store = Store::open(bed.config()).unwrap();
    assert!(store.recovered.clean && store.recovered.locked);
    assert_eq!((store.recovered.seq, store.map.0.len()), (0, 0));
}

fn commits_are_numbered_densely_and_survive_reopening(bed: &Bed) {
    let mut expected = Map::default();
    for round in 0..3 {
        let mut store = Store::open(bed.config()).unwrap();
        assert_eq!(store.recovered.seq, round * 5);
        assert_eq!(store.map, expected);
        for n in 1..=5 {
            let seq = store.set(&format!("key {n}"), &format!("value {n} of {round}")).unwrap();
            assert_eq!(seq, round * 5 + n);
        }
        let stats = store.storage.stats();
        assert_eq!((stats.seq, stats.durable, stats.groups), (round * 5 + 5, round * 5 + 5, 5));
        expected = store.map.clone();
        store.close().unwrap();
    }
    assert_eq!(Store::open(bed.config()).unwrap().map, expected);
}

fn the_batches_of_a_group_are_commits_in_order(bed: &Bed) {
    let mut store = Store::open(bed.config()).unwrap();
    let first = [Op::set(b"a", b"1"), Op::set(b"b", b"1")];
    let second = [Op::set(b"a", b"2"), Op::remove(b"b")];
    assert_eq!(store.commit(&[&first, &second, &[]]).unwrap(), 1..4);
    drop(store);
    let store = Store::open(bed.config()).unwrap();
    assert_eq!(store.recovered.seq, 3);
    assert_eq!(store.map.0.into_iter().collect::<Vec<_>>(), [(b"a".to_vec(), b"2".to_vec())]);
}

fn a_group_without_batches_is_no_commit(bed: &Bed) {
    let mut store = Store::open(bed.config()).unwrap();
    store.set("a", "1").unwrap();
    let before = files(&bed.vfs);
    assert_eq!(store.commit(&[]).unwrap(), 2..2);
    assert_eq!(files(&bed.vfs), before);
    assert_eq!(store.set("b", "2").unwrap(), 2);
}

fn removals_and_clears_survive_reopening(bed: &Bed) {
    let mut store = Store::open(bed.config()).unwrap();
    store.set("a", "1").unwrap();
    store.commit(&[&[Op::CLEAR, Op::set(b"b", b"2")]]).unwrap();
    store.commit(&[&[Op::remove(b"b"), Op::set(b"c", b"3")]]).unwrap();
    drop(store);
    let store = Store::open(bed.config()).unwrap();
    assert_eq!(store.map.0.into_iter().collect::<Vec<_>>(), [(b"c".to_vec(), b"3".to_vec())]);
}

fn keys_and_values_of_every_length_survive(bed: &Bed) {
    let mut store = Store::open(bed.config()).unwrap();
    let (long_key, large) = (vec![7; 65_535], vec![9; 300_000]);
    store
        .commit(&[&[Op::set(b"", b""), Op::set(b"\xff\xfe", &large), Op::set(&long_key, b"end")]])
        .unwrap();
    let numbered: Vec<([u8; 1], Vec<u8>)> =
        (0..200_u8).map(|n| ([n], vec![n; usize::from(n) * 16])).collect();
    let ops: Vec<Op<'_>> = numbered.iter().map(|(key, value)| Op::set(key, value)).collect();
    store.commit(&[&ops]).unwrap();
    let map = store.map.clone();
    store.checkpoint().unwrap();
    store.close().unwrap();
    assert_eq!(Store::open(bed.config()).unwrap().map, map);
}

/// Commits records with expiries and tables. Returns the state after them.
fn filled(bed: &Bed) -> Map {
    let mut store = Store::open(bed.config()).unwrap();
    let tabled = |table, key, expires_us| Op::Set(Item { table, key, value: b"value", expires_us });
    let item = |key, expires_us| tabled(None, key, expires_us);
    let [one, two, last] = [TableId::MIN, TableId::new(2).unwrap(), TableId::MAX];
    store
        .commit(&[&[
            item(b"", Some(i64::MIN)),
            item(b"a", Some(0)),
            item(b"b", Some(i64::MAX)),
            item(b"c", None),
            item(b"d", Some(1)),
            item(b"e", Some(1)),
            tabled(Some(last), b"", Some(3)),
            tabled(Some(two), b"a", None),
            tabled(Some(two), b"b", None),
            tabled(Some(one), b"b", Some(4)),
            tabled(Some(one), b"c", None),
            Op::CLEAR,
        ]])
        .unwrap();
    // A clear of the keys outside tables leaves those of tables.
    assert_eq!((store.map.0.len(), store.map.2.len()), (0, 5));
    store
        .commit(&[&[
            item(b"", Some(i64::MIN)),
            item(b"a", Some(0)),
            item(b"b", Some(i64::MAX)),
            item(b"c", None),
            item(b"d", Some(1)),
            item(b"e", Some(1)),
            Op::Remove { table: Some(one), key: b"c" },
            Op::Clear { table: Some(two) },
            tabled(Some(two), b"a", None),
        ]])
        .unwrap();
    // A set gives its own expiry or none, and a removal has none.
    store.commit(&[&[item(b"d", Some(2)), item(b"e", None), Op::remove(b"b")]]).unwrap();
    let map = store.map;
    let expiries: Vec<_> = map.1.iter().map(|(key, time)| (&key[..], *time)).collect();
    assert_eq!(expiries, [(&b""[..], i64::MIN), (b"a", 0), (b"d", 2)]);
    let tables: Vec<_> =
        map.2.iter().map(|((id, key), (_, time))| (*id, &key[..], *time)).collect();
    assert_eq!(tables, [(one, &b"b"[..], Some(4)), (two, b"a", None), (last, b"", Some(3))]);
    map
}

/// Each path that copies records: the log, the image, a checkpoint, a change of the root key, a
/// copy beside the open store, a conversion to each form and back, a ledger up to a commit.
fn a_record_keeps_its_expiry_and_its_table_through_everything(bed: &Bed) {
    let map = filled(bed);
    let is_whole = |bed: &Bed, place: &str| {
        let store = Store::open(bed.config()).unwrap();
        assert_eq!(store.map, map, "{place}");
        store
    };
    let copy_is_whole = |bed: &Bed, bytes: Vec<u8>, place: &str| {
        let bed = Bed { vfs: mem_with(&[(NAME.to_owned(), bytes)]), ..bed.clone() };
        let config = Config { access: Access::ReadOnly, ..bed.config() };
        assert_eq!(Store::open(config).unwrap().map, map, "{place}");
    };
    let mut store = is_whole(bed, "the log");
    store.checkpoint().unwrap();
    let (copy, _) = store.storage.main_file().unwrap().to_copy().unwrap();
    let mut copied = vec![0; usize::try_from(copy.len().unwrap()).unwrap()];
    copy.read_exact_at(&mut copied, 0).unwrap();
    copy_is_whole(bed, copied, "a hot copy");
    drop(store);
    let mut store = is_whole(bed, "the image");
    let mut bed = bed.clone();
    if bed.keys.is_some() {
        let new = keys("another");
        if let Some(rekey) = store.storage.rekey(&*new, &store.map).unwrap() {
            let written = rekey.write(&store.map, &|_| true);
            store.storage.finish_checkpoint(written).unwrap();
        }
        bed.keys = Some(new);
    }
    store.close().unwrap();
    is_whole(&bed, "a rekey").close().unwrap();
    for form in [Form::Ledger, Form::Wal, Form::Ledger, Form::Snapshot, bed.form] {
        convert(
            bed.config(),
            &Conversion { form: Some(form), keys: bed.keys.clone(), compression: None },
        )
        .unwrap();
        bed.form = form;
        let seq = is_whole(&bed, "a conversion").recovered.seq;
        if form == Form::Ledger {
            let point = RestorePoint::Seq(seq);
            let earlier = ledger_at(&bed.vfs, NAME, bed.keys.as_deref(), point).unwrap();
            copy_is_whole(&bed, bytes(&bed.vfs, earlier.name()), "up to a commit");
        }
    }
}

fn a_checkpoint_and_an_abandoned_one_change_no_state(bed: &Bed) {
    let mut store = Store::open(bed.at(Durability::Interval(Duration::from_secs(1)))).unwrap();
    store.set("a", "1").unwrap();
    store.abandoned().unwrap();
    store.set("b", "2").unwrap();
    store.checkpoint().unwrap();
    assert!(!store.checkpoint().unwrap(), "nothing is new");
    store.set("c", "3").unwrap();
    store.abandoned().unwrap();
    store.flush().unwrap();
    let map = store.map.clone();
    drop(store);
    let store = Store::open(bed.config()).unwrap();
    assert_eq!((store.recovered.seq, &store.map), (3, &map));
}

fn a_store_without_a_clean_end_reopens_whole(bed: &Bed) {
    for n in 1..=4 {
        let mut store = Store::open(bed.config()).unwrap();
        assert_eq!(store.recovered.seq, n - 1);
        store.set(&n.to_string(), "kept").unwrap();
        drop(store);
    }
    assert_eq!(Store::open(bed.config()).unwrap().map.0.len(), 4);
}

fn every_level_is_durable_after_a_clean_end(bed: &Bed) {
    let levels = [Durability::Sync, Durability::Interval(Duration::from_secs(9)), Durability::Os];
    let mut commits = 0;
    for level in levels {
        if bed.form == Form::Snapshot && level == Durability::Os {
            let refused = Store::open(bed.at(level));
            assert!(matches!(refused, Err(Error::Contradiction(_))), "{refused:?}");
            continue;
        }
        let mut store = Store::open(bed.at(level)).unwrap();
        store.set("level", &format!("{level:?}")).unwrap();
        commits += 1;
        let map = store.map.clone();
        store.close().unwrap();
        let store = Store::open(bed.config()).unwrap();
        assert_eq!((store.recovered.seq, &store.map), (commits, &map));
        assert_eq!(store.recovered.durable, commits);
    }
}

fn the_anchor_survives_and_is_demanded(bed: &Bed) {
    let mut store = Store::open(bed.config()).unwrap();
    let mut anchors = vec![store.storage.anchor()];
    for n in 0..3 {
        store.set("key", &n.to_string()).unwrap();
        anchors.push(store.storage.anchor());
    }
    assert_eq!(anchors[3].seq, 3);
    assert!(anchors.windows(2).all(|pair| pair[0].value != pair[1].value));
    store.close().unwrap();
    let open = |anchor| {
        let mut config = bed.config();
        config.anchor = Some(anchor);
        Store::open(config)
    };
    for anchor in &anchors {
        let mut store = open(*anchor).unwrap();
        assert_eq!(store.storage.anchor(), anchors[3]);
        store.close().unwrap();
    }
    let last = anchors[3];
    for wrong in [
        Anchor::new(last.store_id, 4, last.value),
        Anchor::new(last.store_id, last.seq, [1; 32]),
        Anchor::new([1; 16], last.seq, last.value),
    ] {
        let refused = open(wrong);
        assert!(matches!(refused, Err(Error::AnchorMismatch { .. })), "{refused:?}");
    }
}

fn a_second_writer_is_locked_out_and_the_lock_outlives_nothing(bed: &Bed) {
    let store = Store::open(bed.config()).unwrap();
    for access in [Access::ReadWrite, Access::ReadOnly] {
        let mut config = bed.config();
        config.access = access;
        config.lock_timeout = Duration::from_millis(5);
        config.vfs.clock = Arc::new(SimClock::new());
        let refused = Store::open(config);
        assert!(matches!(refused, Err(Error::Locked { waited_ms: 5, .. })), "{refused:?}");
    }
    drop(store);
    // A failed opening holds no lock.
    let mut config = bed.config();
    config.anchor = Some(Anchor::new([0; 16], 99, [0; 32]));
    let refused = Store::open(config);
    assert!(matches!(refused, Err(Error::AnchorMismatch { .. })), "{refused:?}");
    assert!(Store::open(bed.config()).is_ok());
}

fn readers_share_and_change_no_byte(bed: &Bed) {
    let mut store = Store::open(bed.config()).unwrap();
    store.set("a", "1").unwrap();
    let map = store.map.clone();
    drop(store);
    let before = files(&bed.vfs);
    let mut config = bed.config();
    config.access = Access::ReadOnly;
    let one = Store::open(config.clone()).unwrap();
    let two = Store::open(config).unwrap();
    assert_eq!((&one.map, &two.map), (&map, &map));
    assert!(matches!(Store::open(bed.config()), Err(Error::Locked { .. })));
    one.close().unwrap();
    drop(two);
    assert_eq!(files(&bed.vfs), before);
}

fn a_reader_refuses_every_change(bed: &Bed) {
    let mut store = Store::open(bed.config()).unwrap();
    store.set("a", "1").unwrap();
    store.close().unwrap();
    let mut config = bed.config();
    config.access = Access::ReadOnly;
    let before = files(&bed.vfs);
    let mut store = Store::open(config).unwrap();
    let found = store.storage.stats();
    assert_eq!((store.storage.form(), found.seq, found.durable), (bed.form, 1, 1));
    assert!(found.image_bytes + found.log_bytes > 0 && !store.storage.wants_checkpoint());
    let refusals = |store: &mut Store| {
        let mut group = store.storage.group();
        group.push(Op::CLEAR).unwrap();
        group.finish();
        let keys = keys("another");
        let (map, storage) = (&store.map, &mut store.storage);
        [
            storage.commit(&mut group, Some(map)).map(drop),
            storage.sync_point().map(drop),
            storage.synced(Ok(1)),
            storage.begin_checkpoint(map).map(drop),
            storage.finish_checkpoint(Err(Error::Contradiction("none"))),
            storage.change_key(&*keys),
            storage.rekey(&*keys, map).map(drop),
        ]
    };
    for refused in refusals(&mut store) {
        assert!(matches!(refused, Err(Error::ReadOnly { .. })), "{refused:?}");
    }
    store.storage.close(&store.map).unwrap();
    for refused in refusals(&mut store) {
        assert!(matches!(refused, Err(Error::Closed { .. })), "{refused:?}");
    }
    // A closed reader keeps its facts, and its state can be written to another directory.
    let elsewhere = store.storage.image_elsewhere(&codex_storage::vfs::Vfs::mem(9), NAME).unwrap();
    assert_eq!(elsewhere.write(&store.map, &|_| true).unwrap().seq, 1);
    assert_eq!((store.storage.stats(), files(&bed.vfs)), (found, before));
}

fn what_stands_at_the_path_decides_the_error(bed: &Bed) {
    let put = |bytes: &[u8]| {
        drop(bed.vfs.dir.remove(NAME));
        let file = bed.vfs.dir.open(NAME, Open::CreateNew(Mode::Private)).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        let refused = Store::open(bed.config()).unwrap_err();
        let locks = bed.vfs.dir.list().unwrap();
        assert_eq!(locks, [NAME], "a file that is no store gets no companion");
        refused
    };
    assert!(matches!(put(b""), Error::EmptyFile { .. }));
    assert!(matches!(put(b"hello, I am a letter"), Error::NotADatabase { .. }));
    assert!(matches!(put(&[0; 4096]), Error::NotADatabase { .. }));
    assert!(matches!(put(b"\x89CDX"), Error::NotADatabase { .. }));
    let mut newer = b"\x89CDXDB\r\n".to_vec();
    assert!(matches!(put(&newer), Error::Damaged { .. }));
    newer.extend([2, 0, 1, 1]);
    newer.resize(600, 9);
    let refused = put(&newer);
    assert!(matches!(refused, Error::NewerVersion { found: 2, supported: 1, .. }), "{refused:?}");
}

fn creating_is_asked_for_and_refused_by_name(bed: &Bed) {
    let open = |create, access| {
        let mut config = bed.config();
        (config.create, config.access) = (create, access);
        Store::open(config)
    };
    let missing = [(Create::Never, Access::ReadWrite), (Create::IfMissing, Access::ReadOnly)];
    for (create, access) in missing {
        assert!(matches!(open(create, access), Err(Error::NotFound { .. })));
    }
    assert!(bed.vfs.dir.list().unwrap().is_empty(), "a missing store gets no companion");
    let refused = open(Create::New, Access::ReadOnly);
    assert!(matches!(refused, Err(Error::Contradiction(_))), "{refused:?}");
    open(Create::New, Access::ReadWrite).unwrap().close().unwrap();
    let refused = open(Create::New, Access::ReadWrite);
    assert!(matches!(refused, Err(Error::AlreadyExists { .. })), "{refused:?}");
    open(Create::Never, Access::ReadWrite).unwrap();
}

fn keys_are_asked_for_by_name(bed: &Bed) {
    Store::open(bed.config()).unwrap().close().unwrap();
    let before = files(&bed.vfs);
    let open = |keys| {
        let mut config = bed.config();
        config.keys = keys;
        Store::open(config)
    };
    if bed.keys.is_some() {
        assert!(matches!(open(None), Err(Error::KeyRequired { .. })));
        assert!(matches!(open(Some(keys("guess"))), Err(Error::WrongKey { .. })));
    } else {
        assert!(matches!(open(Some(keys("guess"))), Err(Error::NotEncrypted { .. })));
    }
    assert_eq!(files(&bed.vfs), before);
}

fn another_form_is_refused_by_name(bed: &Bed) {
    Store::open(bed.config()).unwrap().close().unwrap();
    let before = files(&bed.vfs);
    for form in [Form::Wal, Form::Snapshot, Form::Ledger] {
        let mut config = bed.config();
        config.form = Some(form);
        if form == bed.form {
            continue;
        }
        match Store::open(config) {
            Err(Error::WrongForm { found, wanted, .. }) => {
                assert_eq!((found, wanted), (bed.form, form));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(files(&bed.vfs), before);
    let mut config = bed.config();
    config.form = None;
    assert_eq!(Store::open(config).unwrap().storage.form(), bed.form);
}

fn companions_of_a_store_are_no_stores(bed: &Bed) {
    let open = |name: &str| {
        let mut config = bed.config();
        name.clone_into(&mut config.name);
        Store::open(config)
    };
    for name in ["app.db.lock", "app.db.tmp.image", "app.db.wal.00000000000000000001", "a/b", ""] {
        let refused = open(name);
        assert!(matches!(refused, Err(Error::BadPath { .. })), "{name}: {refused:?}");
    }
    assert!(matches!(open("app.db.bak.1"), Err(Error::IsBackup { .. })));
    assert!(bed.vfs.dir.list().unwrap().is_empty());
}

fn temporary_files_are_removed_by_a_writer_only(bed: &Bed) {
    Store::open(bed.config()).unwrap().close().unwrap();
    let mine = ["image", "ledger", "segment", "rekey", "convert", "earlier"];
    let mine = mine.map(|what| format!("app.db.tmp.{what}"));
    let others = ["app.db.tmp.notes", "app.db.bak.tmp", "app.dbtmp", "other.db.tmp.image"];
    let others = others.map(str::to_owned);
    for name in mine.iter().chain(&others) {
        bed.vfs.dir.open(name, Open::CreateNew(Mode::Private)).unwrap();
    }
    let there = |name: &String| bed.vfs.dir.metadata(name).unwrap().is_some();
    let mut config = bed.config();
    config.access = Access::ReadOnly;
    Store::open(config).unwrap();
    assert!(mine.iter().all(there));
    Store::open(bed.config()).unwrap().close().unwrap();
    assert!(!mine.iter().any(there));
    assert!(others.iter().all(there));
}

fn a_closed_store_refuses_by_name(bed: &Bed) {
    let mut store = Store::open(bed.config()).unwrap();
    store.set("a", "1").unwrap();
    store.storage.close(&store.map).unwrap();
    assert!(matches!(store.set("b", "2"), Err(Error::Closed { .. })));
    assert!(matches!(store.checkpoint(), Err(Error::Closed { .. })));
    assert_eq!(store.storage.stats().seq, 1);
}

fn no_key_or_value_is_printed(bed: &Bed) {
    let mut store = Store::open(bed.config()).unwrap();
    store.set("Rumpelstiltskin", "a straw spun to gold").unwrap();
    let mut group = store.storage.group();
    group.push(Op::set(b"Rumpelstiltskin", b"a straw spun to gold")).unwrap();
    let printed = format!("{:?} {group:?} {:?}", store.storage, store.storage.stats());
    assert!(!printed.contains("Rumpel") && !printed.contains("straw"), "{printed}");
    let bytes = b"Rumpelstiltskin".map(|byte| byte.to_string()).join(", ");
    assert!(!printed.contains(&bytes), "{printed}");
    let on_disk = files(&bed.vfs);
    let hit = on_disk.iter().any(|(_, file)| {
        file.windows(15).any(|window| window == b"Rumpelstiltskin")
            || file.windows(20).any(|window| window == b"a straw spun to gold")
    });
    assert_eq!(hit, bed.keys.is_none(), "sealed files show nothing, plain ones are the control");
}

fn verifying_reads_all_beside_a_writer_and_changes_nothing(bed: &Bed) {
    let keys = bed.keys.as_deref();
    let missing = codex_storage::verify(&bed.vfs, NAME, keys);
    assert!(matches!(missing, Err(Error::NotFound { .. })), "{missing:?}");
    let mut store = Store::open(bed.config()).unwrap();
    for n in 0..20 {
        store.set(&format!("key {n}"), "value").unwrap();
        let before = files(&bed.vfs);
        let refused = codex_storage::verify(&bed.vfs, NAME, keys);
        assert!(matches!(refused, Err(Error::Locked { .. })), "{refused:?}");
        let verified = codex_storage::verify_open(&bed.vfs, NAME, keys, n + 1, &|| true).unwrap();
        let anchor = store.storage.anchor();
        assert_eq!((verified.form, verified.seq), (bed.form, n + 1));
        assert_eq!((verified.seq, verified.anchor), (anchor.seq, Some(anchor)));
        assert_eq!((verified.encrypted, verified.authenticated), (keys.is_some(), keys.is_some()));
        assert_eq!(files(&bed.vfs), before);
        if n == 10 {
            store.checkpoint().unwrap();
        }
    }
    let blind = codex_storage::verify_open(&bed.vfs, NAME, None, 20, &|| true).unwrap();
    assert_eq!((blind.seq, blind.authenticated), (20, false), "the checksums alone");
    // A caller can stop it at each place where it is asked, in the image and in the log.
    let stopped_after = |asked_max| {
        let asked = Cell::new(0_u32);
        let go_on = || {
            asked.set(asked.get() + 1);
            asked.get() <= asked_max
        };
        let verified = codex_storage::verify_open(&bed.vfs, NAME, keys, 20, &go_on);
        (verified, asked.get())
    };
    let (verified, asked_max) = stopped_after(u32::MAX);
    verified.unwrap();
    assert!(asked_max > 0);
    for asked in 0..asked_max {
        let (stopped, last) = stopped_after(asked);
        assert!(matches!(stopped, Err(Error::Abandoned { .. })), "{asked}: {stopped:?}");
        assert_eq!(last, asked + 1);
    }
    store.close().unwrap();
    let verified = codex_storage::verify(&bed.vfs, NAME, keys).unwrap();
    let total: usize = files(&bed.vfs).iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!(verified.bytes, total as u64);
    assert_eq!(verified.entries, if bed.form == Form::Ledger { 0 } else { 20 });
    if bed.form != Form::Ledger {
        // Without the key only the checksums of the image are checked.
        let blind = codex_storage::verify(&bed.vfs, NAME, None).unwrap();
        assert_eq!((blind.entries, blind.authenticated), (20, false));
    }
    let guess = crate::common::keys("guess");
    let refused = codex_storage::verify(&bed.vfs, NAME, Some(&*guess));
    match bed.keys {
        Some(_) => assert!(matches!(refused, Err(Error::WrongKey { .. })), "{refused:?}"),
        None => assert!(matches!(refused, Err(Error::NotEncrypted { .. })), "{refused:?}"),
    }
}

fn verifying_beside_a_writing_thread_finds_no_fault(bed: &Bed) {
    let store = Store::open(bed.config()).unwrap();
    let reached = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut store = store;
            for n in 0..60 {
                let seq = store.set(&format!("key {}", n % 7), &"x".repeat(n * 20)).unwrap();
                reached.store(seq, Ordering::SeqCst);
            }
        });
        while reached.load(Ordering::SeqCst) < 60 {
            let (upto, keys) = (reached.load(Ordering::SeqCst), bed.keys.as_deref());
            let verified = codex_storage::verify_open(&bed.vfs, NAME, keys, upto, &|| true);
            let verified = verified.unwrap_or_else(|e| panic!("{}: {e}", bed.form));
            // A log is read up to this commit; an image may be of a later one.
            let is_exact = bed.form != Form::Snapshot;
            assert!(verified.seq == upto || !is_exact && verified.seq > upto, "{}", bed.form);
        }
    });
    let verified = codex_storage::verify(&bed.vfs, NAME, bed.keys.as_deref()).unwrap();
    assert_eq!(verified.seq, 60);
}

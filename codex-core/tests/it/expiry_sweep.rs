//! The sweep: commits that remove what has expired, and nothing else.

use std::ops::Bound;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use codex_core::internals::{Change, Check, Commit, End, Entry, Outcome, sweep, without_threads};
use codex_core::vfs::fault::{CrashChoice, Fault, FaultDir, each_fault, each_power_cut};
use codex_core::vfs::{Clock as _, SimClock, Vfs};
use codex_core::{Form, OpenOptions, Store};
use codex_storage::batch::Item;
use codex_storage::storage::Durability;

use crate::common::{FORMS, seed, until};
use crate::double::{absent, engine_at, put};
use crate::group::together;

fn options(form: Form) -> OpenOptions {
    without_threads(crate::common::options(form))
}

fn at(time_us: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(time_us).unwrap())
}

fn expiring(key: &str, expires_us: i64) -> Entry {
    let key = key.as_bytes();
    Entry::from_item(Item { table: None, key, value: b"v", expires_us: Some(expires_us) })
}

#[test]
fn the_sweep_removes_the_very_entry_that_it_found_and_only_if_it_has_expired() {
    let clock = SimClock::new();
    let time = Arc::new(clock.clone());
    let (engine, probe) = engine_at(Form::Wal, Durability::Sync, time, false);
    let found = expiring("k", clock.now_us());
    engine.submit(Commit::one(Change::Put(found.clone()))).unwrap();
    let later = expiring("later", clock.now_us() + 1);
    engine.submit(Commit::one(Change::Put(later.clone()))).unwrap();
    // Another entry of the key, equal to it, and one that has not expired.
    engine.submit(Commit::one(Change::Put(expiring("k", clock.now_us())))).unwrap();
    for entry in [found, later] {
        let outcome = engine.submit(Commit::one(Change::Sweep(entry))).unwrap();
        assert!(matches!(outcome, Outcome::Done { seq: None, removed: 0, .. }), "{outcome:?}");
    }
    assert_eq!(engine.stats().expiring, 2);
    assert!(!engine.sweep().unwrap());
    assert_eq!((engine.stats().expiring, engine.stats().swept), (1, 1));
    assert_eq!(probe.disk().durable_state().len(), 1);
}

#[test]
fn in_a_group_what_has_expired_is_absent_and_its_removal_changes_nothing() {
    let clock = SimClock::new();
    let time = Arc::new(clock.clone());
    let (engine, probe) = engine_at(Form::Wal, Durability::Sync, time, false);
    let due = expiring("due", clock.now_us());
    engine.submit(Commit::one(Change::Put(due.clone()))).unwrap();
    let base = engine.view();
    let bound = |key: &str| Bound::Included(key.as_bytes().into());
    let unchanged = Check::Unchanged { table: None, lower: bound("d"), upper: bound("e"), base };
    let outcomes = together(
        &engine,
        &probe,
        vec![
            Commit::one(Change::Sweep(due)),
            Commit::checked(unchanged, put("a", "1")),
            Commit::one(Change::Put(expiring("past", clock.now_us()))),
            Commit::checked(absent("past"), put("b", "1")),
            Commit::one(Change::Remove(b"past"[..].into())),
            Commit::one(Change::RemoveRange(None, bound("p"), bound("q"))),
            Commit::one(Change::Pop(None, bound("p"), bound("q"), End::Last)),
        ],
    );
    let found: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| match outcome.unwrap() {
            Outcome::Done { seq, removed, previous } => (seq, removed, previous.is_some()),
            Outcome::Conflict => panic!("a conflict"),
        })
        .collect();
    let nothing = (None, 0, false);
    let (swept, put) = ((Some(3), 1, false), |seq| (Some(seq), 0, false));
    assert_eq!(found, [swept, put(4), put(5), put(6), nothing, nothing, nothing]);
    assert_eq!(engine.stats().expiring, 1);
}

#[test]
fn a_hundred_thousand_due_at_once_go_in_commits_of_512_beside_four_writers() {
    let clock = SimClock::new();
    let time = Arc::new(clock.clone());
    let (engine, probe) = engine_at(Form::Wal, Durability::Sync, time, true);
    let count = 100_000_usize;
    let due = |n| Change::Put(expiring(&format!("due {n}"), clock.now_us() + 1));
    let changes: Vec<_> = (0..count).map(due).collect();
    engine.submit(Commit { changes: changes.into(), ..Commit::default() }).unwrap();
    let before = probe.disk().written();
    clock.advance(Duration::from_micros(1));
    thread::scope(|scope| {
        for writer in 0..4 {
            let engine = &engine;
            scope.spawn(move || {
                for n in 0..200 {
                    engine.submit(Commit::one(put(&format!("{writer} {n}"), "v"))).unwrap();
                }
            });
        }
    });
    until("all are removed", || engine.stats().expiring == 0);
    let disk = probe.disk();
    let lens = disk.commit_lens(before);
    assert!(lens.iter().all(|&len| len <= 512), "{:?}", lens.iter().max());
    assert_eq!(lens.iter().sum::<usize>(), count + 800);
    assert_eq!(disk.durable_state().len(), 800);
}

#[test]
fn a_form_of_images_sweeps_in_one_image() {
    let clock = SimClock::new();
    let vfs = Vfs { clock: Arc::new(clock.clone()), ..Vfs::mem(seed()) };
    let store = options(Form::Snapshot).open_in(&vfs, "a.db").unwrap();
    let mut batch = store.batch();
    for n in 0..1_000 {
        batch.set_with_expiry(n.to_string(), &n, at(clock.now_us())).unwrap();
    }
    batch.set("stays", &1).unwrap().commit().unwrap();
    let images = store.stats().storage.images;
    assert!(!sweep(&store).unwrap());
    assert_eq!(store.stats().storage.images, images + 1);
    assert_eq!((store.stats().swept, store.stats().expiring, store.len()), (1_000, 0, 1));
}

/// Returns the disk of a store with 600 entries that have expired and 3 that have not.
fn due(form: Form, clock: &SimClock) -> FaultDir {
    let disk = FaultDir::new();
    let store = options(form).open_in(&world(&disk, clock), "a.db").unwrap();
    let mut batch = store.batch();
    for n in 0..600 {
        batch.set_with_expiry(format!("due {n}"), &n, at(clock.now_us())).unwrap();
    }
    for n in 0..3 {
        batch.set_with_expiry(format!("later {n}"), &n, at(clock.now_us() + 1)).unwrap();
    }
    batch.commit().unwrap();
    store.close().unwrap();
    disk
}

fn world(disk: &FaultDir, clock: &SimClock) -> Vfs {
    Vfs { clock: Arc::new(clock.clone()), ..disk.vfs(seed()) }
}

/// Sweeps to the end, unless a call fails.
fn sweep_all(disk: &FaultDir, form: Form, clock: &SimClock) -> codex_core::Result<()> {
    let store = options(form).open_in(&world(disk, clock), "a.db")?;
    while sweep(&store)? {}
    store.close()
}

/// Whatever interrupts a sweep, what has not expired is there, the rest is hidden, and the next
/// sweep ends.
fn is_whole(disk: &FaultDir, form: Form, clock: &SimClock, what: &str) {
    let store = options(form).open_in(&world(disk, clock), "a.db").unwrap();
    assert_eq!((store.len(), store.iter().count()), (3, 3), "{what}");
    let left = store.stats().expiring;
    assert!([3, 91, 603].contains(&left), "{what}: {left} left, not of whole commits");
    while sweep(&store).unwrap() {}
    assert_eq!((store.len(), store.stats().expiring), (3, 3), "{what}");
}

#[test]
fn a_power_cut_or_a_failing_call_in_a_sweep_costs_nothing_that_has_not_expired() {
    let choice = CrashChoice { seed: seed(), images_max: 16, samples: 8, ..CrashChoice::default() };
    for form in FORMS {
        let clock = SimClock::new();
        let base = due(form, &clock);
        let act = |disk: &FaultDir| sweep_all(disk, form, &clock);
        let cuts = each_power_cut(&base, &choice, act, |mishap, image, _| {
            is_whole(image, form, &clock, &format!("{form}\n{mishap}"));
        });
        let faults = each_fault(&base, &[Fault::Eio, Fault::Enospc], act, |mishap, disk, _| {
            is_whole(disk, form, &clock, &format!("{form}\n{mishap}"));
        });
        println!("{form}: {cuts} power cuts, {faults} faults");
        assert!(cuts > 10 && faults > 10, "{form}: {cuts} {faults}");
    }
}

/// The thread begins with the first entry that expires, and when a store with such entries is
/// opened. In memory it does the same. A reader hides, and removes nothing.
#[test]
fn the_thread_sweeps_what_is_due_in_files_and_in_memory_and_a_reader_does_not() {
    let past = UNIX_EPOCH + Duration::from_secs(1);
    let vfs = Vfs::mem(seed());
    let store = options(Form::Wal).open_in(&vfs, "a.db").unwrap();
    store.set_with_expiry("a", &1, past).unwrap();
    store.set("stays", &1).unwrap();
    store.close().unwrap();
    let reader = crate::common::options(Form::Wal).read_only(true).open_in(&vfs, "a.db").unwrap();
    assert_eq!((reader.len(), reader.stats().expiring, reader.stats().swept), (1, 1, 0));
    reader.close().unwrap();
    let again = crate::common::options(Form::Wal).open_in(&vfs, "a.db").unwrap();
    until("the entry of the files is removed", || again.stats().swept == 1);
    let in_files = crate::common::options(Form::Ledger).open_in(&Vfs::mem(1), "a.db").unwrap();
    for store in [in_files, Store::in_memory().unwrap()] {
        store.set("stays", &1).unwrap();
        store.set_with_expiry("b", &1, past).unwrap();
        assert!(!store.contains_key("b"));
        until("the entry is removed", || store.stats().swept == 1);
        assert_eq!((store.stats().expiring, store.len()), (0, 1));
        store.close().unwrap();
    }
}

//! An error at every call of a ledger: it is typed, and either nothing has changed or a commit is
//! in doubt.

use codex_storage::batch::Op;
use codex_storage::storage::{Durability, Form};
use codex_storage::vfs::CallKind;
use codex_storage::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side, Space};
use codex_storage::{Error, Result};

use crate::common::log::{dense, model, put};
use crate::common::store::Store;
use crate::common::{Bed, NAME, seed};

/// The result of a script: the acknowledged values, and one that may or may not be found.
#[derive(Debug, Default)]
struct Done {
    acknowledged: Vec<Vec<u8>>,
    in_doubt: Option<Vec<u8>>,
    /// The number of the first call after the error that left a commit in doubt.
    silent_from: Option<u64>,
}

/// Commits `value`, and tries again while an error means that nothing has changed.
fn commit(disk: &FaultDir, store: &mut Store, value: Vec<u8>, done: &mut Done) -> Result<()> {
    let n = done.acknowledged.len() as u64 + 1;
    for _ in 0..3 {
        match put(store, n, &value) {
            Ok(()) => {
                done.acknowledged.push(value);
                return Ok(());
            }
            Err(Error::NoSpace { .. } | Error::Io { .. }) => {}
            Err(error) => {
                assert!(matches!(error, Error::InDoubt { seq, .. } if seq == n), "{error}");
                done.in_doubt = Some(value);
                done.silent_from = Some(disk.calls());
                let refused = put(store, n, b"more");
                assert!(matches!(refused, Err(Error::Poisoned { .. })), "{refused:?}");
                assert!(store.storage.poisoned().is_some());
                return Err(error);
            }
        }
    }
    Err(Error::Contradiction("the error stays"))
}

/// Creates, commits small and large values, closes, opens again, and commits.
fn script(disk: &FaultDir, bed: &Bed, done: &mut Done) -> Result<()> {
    let mut store = Store::open(bed.config())?;
    for len in [10, 3000, 80_000] {
        commit(disk, &mut store, dense(len, len as usize), done)?;
    }
    store.close()?;
    let mut store = Store::open(bed.config())?;
    let len = done.acknowledged.len() as u64;
    assert_eq!(store.map, model(&done.acknowledged, len));
    commit(disk, &mut store, dense(1, 700), done)
}

fn faults() -> Vec<(Fault, Lasting, Side)> {
    let mut all = Vec::new();
    for lasting in [Lasting::Once, Lasting::Sticky] {
        for fault in [Fault::Eio, Fault::Enospc, Fault::Eintr] {
            for side in [Side::Before, Side::After] {
                all.push((fault, lasting, side));
            }
        }
        for len in [0, 1, 63, 64, 600] {
            all.push((Fault::ShortWrite(len), lasting, Side::Before));
        }
    }
    all
}

#[test]
fn an_error_at_any_call_changes_nothing_or_is_in_doubt() {
    let mut cases = 0;
    for sealed in [false, true] {
        let disk = FaultDir::new();
        let bed = Bed::new(disk.vfs(seed()), Form::Ledger, sealed);
        script(&disk, &bed, &mut Done::default()).unwrap();
        for call in 0..disk.calls() {
            for (fault, lasting, side) in faults() {
                let what = format!("{fault:?} {lasting:?} {side:?} at call {call}");
                let disk = FaultDir::new();
                disk.record_trace(true);
                disk.fail_at(call, fault, lasting, side);
                let bed = Bed { vfs: disk.vfs(seed()), ..bed.clone() };
                let mut done = Done::default();
                drop(script(&disk, &bed, &mut done));
                if disk.faults_fired() == 0 {
                    continue;
                }
                check_silence(&disk, &done, &what);
                disk.clear_plan();
                check_reopening(&disk.crash_process(), &bed, &done, &what);
                cases += 1;
            }
        }
    }
    assert!(cases > 500, "only {cases} cases");
}

/// No file is written, cut or renamed after a commit is in doubt.
fn check_silence(disk: &FaultDir, done: &Done, what: &str) {
    let Some(from) = done.silent_from else { return };
    let loud = disk.trace().into_iter().find(|call| call.index >= from && call.kind.changes());
    assert!(loud.is_none(), "{what}: {} after a commit in doubt", loud.unwrap());
}

fn check_reopening(disk: &FaultDir, bed: &Bed, done: &Done, what: &str) {
    let bed = Bed { vfs: disk.vfs(seed() + 1), ..bed.clone() };
    let mut store = Store::open(bed.config()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut values = done.acknowledged.clone();
    let least = values.len() as u64;
    let found = store.recovered.seq;
    values.extend(done.in_doubt.clone());
    let most = values.len() as u64;
    assert!((least..=most).contains(&found), "{what}: {found} of {least} to {most} commits");
    assert_eq!(store.map, model(&values, found), "{what}");
    put(&mut store, found + 1, b"it goes on").unwrap_or_else(|e| panic!("{what}: {e}"));
    let names = crate::common::files(&bed.vfs);
    assert_eq!(names.len(), 1, "{what}: stray files {names:?}");
}

#[test]
fn a_full_disk_takes_no_more_values_but_lets_them_be_removed() {
    for sealed in [false, true] {
        for space in [300_000, 170_000, 100_000] {
            let disk = FaultDir::new();
            disk.set_space(Space::AtOnce(space));
            let bed = Bed::new(disk.vfs(seed()), Form::Ledger, sealed);
            let mut store = Store::open(bed.config()).unwrap();
            let mut n = 0;
            let refused = loop {
                match put(&mut store, n + 1, &dense(n, 5_000)) {
                    Ok(()) => n += 1,
                    Err(error) => break error,
                }
            };
            assert!(matches!(refused, Error::NoSpace { .. }), "{refused}");
            assert!(n > 5, "only {n} commits went into {space} bytes");
            assert!(matches!(put(&mut store, n + 1, &[1; 5_000]), Err(Error::NoSpace { .. })));
            for removed in 1..=5 {
                let key = format!("key {removed}").into_bytes();
                store.commit(&[&[Op::remove(&key)]]).unwrap();
            }
            store.commit(&[&[Op::CLEAR]]).unwrap();
            assert!(store.storage.poisoned().is_none());
            disk.set_space(Space::Unlimited);
            put(&mut store, n + 7, b"there is room again").unwrap();
            let map = store.map.clone();
            drop(store);
            let store = Store::open(bed.config()).unwrap();
            assert_eq!((store.recovered.seq, &store.map), (n + 7, &map));
        }
    }
}

#[test]
fn a_full_disk_that_shows_only_at_the_sync_loses_no_acknowledged_commit() {
    for space in [90_000, 100_000, 200_000] {
        let disk = FaultDir::new();
        disk.set_space(Space::AtSync(space));
        let bed = Bed::new(disk.vfs(seed()), Form::Ledger, false);
        let mut store = Store::open(bed.config()).unwrap();
        let mut values = Vec::new();
        let refused = loop {
            let value = dense(values.len() as u64, 9_000);
            match put(&mut store, values.len() as u64 + 1, &value) {
                Ok(()) => values.push(value),
                Err(error) => break error,
            }
        };
        // Space is allocated before it is written to, so no commit is ever in doubt.
        assert!(matches!(refused, Error::NoSpace { .. }), "{refused}");
        drop(store);
        disk.cut_power();
        for image in disk.crash_images(&codex_storage::vfs::fault::CrashChoice::default()) {
            let bed = Bed { vfs: image.vfs(seed() + 2), ..bed.clone() };
            let store = Store::open(bed.config()).unwrap();
            assert_eq!(store.map, model(&values, values.len() as u64));
        }
    }
}

#[test]
fn a_background_sync_that_failed_poisons_and_is_never_retried() {
    let disk = FaultDir::new();
    let bed = Bed::new(disk.vfs(seed()), Form::Ledger, false);
    let mut store = Store::open(bed.at(Durability::Os)).unwrap();
    put(&mut store, 1, b"one").unwrap();
    let point = store.storage.sync_point().unwrap().unwrap();
    let second = store.storage.sync_point().unwrap().unwrap();
    put(&mut store, 2, b"two").unwrap();
    let eio = Fault::Eio;
    disk.fail_on(Calls::of(CallKind::Sync), 1, eio, Lasting::Once, Side::Before);
    let failed = point.sync();
    assert!(matches!(failed, Err(Error::InDoubt { seq: 1, .. })), "{failed:?}");
    disk.record_trace(true);
    let again = second.sync();
    let is_in_doubt = matches!(again, Err(Error::InDoubt { .. }));
    assert!(is_in_doubt, "a sync after a failed one proves nothing: {again:?}");
    assert_eq!(disk.trace(), [], "and the disk is not asked");
    assert!(matches!(store.storage.synced(failed), Err(Error::InDoubt { .. })));
    assert!(store.storage.poisoned().is_some());
    assert!(matches!(put(&mut store, 3, b"three"), Err(Error::Poisoned { .. })));
    assert!(matches!(store.storage.sync_point(), Err(Error::Poisoned { .. })));
    assert_eq!(store.storage.stats().durable, 0);
    assert!(matches!(store.close(), Err(Error::Poisoned { .. })));
    assert!(!disk.trace().iter().any(|call| call.kind.changes()), "nothing more is written");
    assert!(bed.vfs.dir.metadata(NAME).unwrap().is_some());
}

#[test]
fn space_that_could_not_be_synced_poisons_only_what_was_written_before() {
    for (level, poisons) in [(Durability::Sync, false), (Durability::Os, true)] {
        let disk = FaultDir::new();
        let bed = Bed::new(disk.vfs(seed()), Form::Ledger, false);
        let mut store = Store::open(bed.at(level)).unwrap();
        put(&mut store, 1, b"one").unwrap();
        let eio = Fault::Eio;
        disk.fail_on(Calls::of(CallKind::Sync), 1, eio, Lasting::Once, Side::Before);
        let refused = put(&mut store, 2, &dense(7, 100_000));
        assert_eq!(store.storage.poisoned().is_some(), poisons, "{refused:?}");
        if poisons {
            assert!(matches!(refused, Err(Error::InDoubt { seq: 1, .. })), "{refused:?}");
        } else {
            assert!(matches!(refused, Err(Error::Io { .. })), "{refused:?}");
            put(&mut store, 2, &dense(7, 100_000)).unwrap();
        }
    }
}

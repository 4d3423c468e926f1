//! The parts of the Snapshot form that differ from the others: failures, and the image in place.

use std::time::Duration;

use codex_storage::storage::{Durability, Form};
use codex_storage::vfs::fault::{
    Calls, CrashChoice, Fault, FaultDir, Lasting, Side, Space, Survivors,
};
use codex_storage::vfs::{CallKind, Dir, Mode, Open};
use codex_storage::{Access, Error};

use crate::common::store::Store;
use crate::common::{Bed, NAME, files};

const INTERVAL: Durability = Durability::Interval(Duration::from_secs(1));

#[test]
fn a_commit_that_fails_before_the_rename_changes_nothing_and_the_next_one_succeeds() {
    let temporary = |kind| Calls::of(kind).on("app.db.tmp.*");
    let faults = [
        (temporary(CallKind::Create), Fault::Enospc),
        (temporary(CallKind::Create), Fault::Eio),
        (temporary(CallKind::Write), Fault::Enospc),
        (temporary(CallKind::Write), Fault::ShortWrite(100)),
        (temporary(CallKind::Sync), Fault::Eio),
        (temporary(CallKind::Sync), Fault::Enospc),
        (temporary(CallKind::Read), Fault::Eio),
    ];
    for (calls, fault) in faults {
        let disk = FaultDir::new();
        let bed = Bed::new(disk.vfs(1), Form::Snapshot, false);
        let mut store = Store::open(bed.config()).unwrap();
        store.set("a", "1").unwrap();
        let before = files(&bed.vfs);
        disk.fail_on(calls.clone(), 1, fault, Lasting::Once, Side::Before);
        let failed = store.set("a", "2").unwrap_err();
        match fault {
            Fault::Enospc => assert!(matches!(failed, Error::NoSpace { .. }), "{failed:?}"),
            _ => assert!(matches!(failed, Error::Io { .. }), "{failed:?}"),
        }
        assert_eq!(files(&bed.vfs), before, "{calls:?} {fault:?}: no file is left behind");
        assert!(store.storage.poisoned().is_none());
        assert_eq!(store.storage.stats().images_failed, 1);
        assert_eq!(store.set("a", "3").unwrap(), 2, "the number of the failed commit is free");
    }
}

#[test]
fn a_removal_that_fails_hides_no_error_and_stops_no_later_commit() {
    let disk = FaultDir::new();
    let bed = Bed::new(disk.vfs(1), Form::Snapshot, false);
    let mut store = Store::open(bed.config()).unwrap();
    disk.fail_on(Calls::of(CallKind::Sync), 1, Fault::Enospc, Lasting::Once, Side::Before);
    disk.fail_on(Calls::of(CallKind::Remove), 1, Fault::Eio, Lasting::Once, Side::Before);
    let failed = store.set("a", "1").unwrap_err();
    assert!(matches!(failed, Error::NoSpace { .. }), "{failed:?}");
    assert_eq!(disk.faults_fired(), 2);
    assert_eq!(store.set("a", "2").unwrap(), 1);
    assert_eq!(files(&bed.vfs).len(), 1, "the next commit cleans up");
}

#[test]
fn from_the_rename_until_the_directory_is_synced_a_failure_is_in_doubt_and_poisons() {
    for kind in [CallKind::Rename, CallKind::SyncDir] {
        for side in [Side::Before, Side::After] {
            let disk = FaultDir::new();
            let bed = Bed::new(disk.vfs(1), Form::Snapshot, false);
            let mut store = Store::open(bed.config()).unwrap();
            store.set("a", "1").unwrap();
            disk.fail_on(Calls::of(kind), 1, Fault::Eio, Lasting::Once, side);
            let failed = store.set("a", "2").unwrap_err();
            assert!(matches!(failed, Error::InDoubt { seq: 2, .. }), "{failed:?}");
            disk.record_trace(true);
            assert!(matches!(store.set("a", "3"), Err(Error::Poisoned { .. })));
            assert!(matches!(store.checkpoint(), Err(Error::Poisoned { .. })));
            assert!(store.storage.poisoned().is_some());
            let closed = store.close();
            assert!(matches!(closed, Err(Error::Poisoned { .. })), "{closed:?}");
            let calls = disk.trace();
            assert!(!calls.iter().any(|call| call.kind.changes()), "{calls:?}");
        }
    }
}

/// Linux forgets that a sync of the directory failed. The visible names may be gone after a power
/// cut, even if later syncs succeed.
#[test]
fn a_name_on_a_failed_sync_is_given_once_more_before_anybody_reads_it() {
    let disk = FaultDir::new();
    let bed = Bed::new(disk.vfs(1), Form::Snapshot, false);
    let mut store = Store::open(bed.config()).unwrap();
    store.set("a", "1").unwrap();
    disk.fail_on(Calls::of(CallKind::SyncDir), 1, Fault::Eio, Lasting::Once, Side::Before);
    store.set("a", "2").unwrap_err();
    drop(store);
    let disk = disk.crash_process();
    let store = Store::open(Bed::new(disk.vfs(2), Form::Snapshot, false).config()).unwrap();
    assert_eq!(store.recovered.seq, 2, "the image in doubt is visible in the same boot");
    for image in disk.crash_images(&CrashChoice::default()) {
        let bed = Bed::new(image.vfs(3), Form::Snapshot, false);
        assert_eq!(Store::open(bed.config()).unwrap().recovered.seq, 2, "it was read, so it stays");
    }
}

#[test]
fn at_an_interval_commits_are_numbered_and_one_image_makes_them_durable() {
    let disk = FaultDir::new();
    let bed = Bed::new(disk.vfs(1), Form::Snapshot, false);
    let mut store = Store::open(bed.at(INTERVAL)).unwrap();
    let before = files(&bed.vfs);
    for n in 1..=50 {
        assert_eq!(store.set("key", &n.to_string()).unwrap(), n);
    }
    assert_eq!(files(&bed.vfs), before, "a commit writes nothing");
    assert_eq!((store.storage.stats().seq, store.storage.stats().durable), (50, 0));
    let checkpoint = store.begin().unwrap().unwrap();
    let state = store.map.clone();
    store.set("key", "beside the image").unwrap();
    let written = checkpoint.write(&state, &|_| true);
    store.storage.finish_checkpoint(written).unwrap();
    assert_eq!((store.storage.stats().durable, store.storage.stats().images), (50, 1));
    let found = |disk: &FaultDir| {
        let bed = Bed::new(disk.reboot(Survivors::Nothing).vfs(2), Form::Snapshot, false);
        Store::open(bed.config()).unwrap().recovered.seq
    };
    assert_eq!(found(&disk), 50);
    store.close().unwrap();
    assert_eq!(found(&disk), 51);
}

#[test]
fn a_full_disk_fails_commits_until_there_is_room_again() {
    for space in [Space::AtOnce(3 * 4096), Space::AtSync(3 * 4096)] {
        let disk = FaultDir::new();
        let bed = Bed::new(disk.vfs(1), Form::Snapshot, false);
        let mut store = Store::open(bed.config()).unwrap();
        disk.set_space(space);
        store.set("small", "1").unwrap();
        let failed = store.set("large", &"x".repeat(40_000)).unwrap_err();
        assert!(matches!(failed, Error::NoSpace { .. }), "{failed:?}");
        // The simulated disk frees the blocks of a removed file when the removal of its name is
        // durable.
        bed.vfs.dir.sync().unwrap();
        assert_eq!(store.set("small", "2").unwrap(), 2);
        disk.set_space(Space::Unlimited);
        assert_eq!(store.set("large", &"x".repeat(40_000)).unwrap(), 3);
    }
}

#[test]
fn an_image_never_changes_in_place_so_a_copy_of_it_is_a_store() {
    let bed = Bed::mem(Form::Snapshot, false);
    let mut store = Store::open(bed.config()).unwrap();
    store.set("a", "1").unwrap();
    reflink(&*bed.vfs.dir, NAME, "copy.db");
    store.set("a", "2").unwrap();
    let mut config = bed.config();
    config.name = "copy.db".to_owned();
    config.access = Access::ReadOnly;
    let copy = Store::open(config).unwrap();
    assert_eq!(copy.map.0[b"a".as_slice()], b"1");
}

#[test]
fn a_backup_is_read_in_place_without_a_lock_and_refused_for_writing() {
    for form in [Form::Snapshot, Form::Wal, Form::Ledger] {
        let bed = Bed::mem(form, true);
        let mut store = Store::open(bed.config()).unwrap();
        store.set("a", "1").unwrap();
        store.checkpoint().unwrap();
        reflink(&*bed.vfs.dir, NAME, "app.db.bak.1");
        let mut config = bed.config();
        config.name = "app.db.bak.1".to_owned();
        let refused = Store::open(config.clone());
        assert!(matches!(refused, Err(Error::IsBackup { .. })), "{refused:?}");
        config.access = Access::ReadOnly;
        let backup = Store::open(config).unwrap();
        assert_eq!(backup.map.0[b"a".as_slice()], b"1", "{form}");
        assert!(!backup.recovered.locked);
        let keys = bed.keys.as_deref();
        assert_eq!(codex_storage::verify(&bed.vfs, "app.db.bak.1", keys).unwrap().seq, 1);
        let names = bed.vfs.dir.list().unwrap();
        assert!(!names.contains(&"app.db.bak.1.lock".to_owned()), "{names:?}");
    }
}

/// Copies the file `from` to the name `to`.
fn reflink(dir: &dyn Dir, from: &str, to: &str) {
    let from = dir.open(from, Open::Read).unwrap();
    dir.reflink(&from, to, Mode::Frozen).unwrap();
}

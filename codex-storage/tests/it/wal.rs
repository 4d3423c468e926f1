//! The parts of the Wal form that differ from the others: segments and checkpoints.

use std::time::Duration;

use codex_storage::storage::{Durability, Form};
use codex_storage::vfs::fault::{Calls, CrashChoice, Fault, FaultDir, Lasting, Side, Survivors};
use codex_storage::vfs::{CallKind, Vfs};
use codex_storage::{Access, Config, Error};

use crate::common::model::no_stray_files;
use crate::common::store::Store;
use crate::common::{Bed, NAME, files, mem_with};

#[test]
fn a_small_store_closes_into_one_file_that_can_be_copied_alone() {
    for sealed in [false, true] {
        let bed = Bed::mem(Form::Wal, sealed);
        let mut store = Store::open(bed.config()).unwrap();
        store.set("a", "1").unwrap();
        store.checkpoint().unwrap();
        store.set("b", "2").unwrap();
        let map = store.map.clone();
        store.close().unwrap();
        let left = files(&bed.vfs);
        assert_eq!(left.len(), 1, "{left:?}");
        let copy = Bed { vfs: mem_with(&left), ..bed };
        let store = Store::open(copy.config()).unwrap();
        assert_eq!((&store.map, store.recovered.seq, store.recovered.clean), (&map, 2, true));
    }
}

#[test]
fn a_large_store_closes_with_a_mark_and_keeps_its_log() {
    let bed = Bed::mem(Form::Wal, false);
    let config = || {
        let mut config = bed.config();
        config.checkpoint.close_into_image_bytes_max = 0;
        config
    };
    let mut store = Store::open(config()).unwrap();
    store.set("a", "1").unwrap();
    let map = store.map.clone();
    store.close().unwrap();
    assert_eq!(segments(&bed.vfs), [1]);
    let closed = files(&bed.vfs);
    assert!(closed.iter().all(|(_, bytes)| bytes.len() < 4096), "the unused space is cut off");
    // Opening and closing without a commit changes nothing.
    let store = Store::open(config()).unwrap();
    assert_eq!((&store.map, store.recovered.clean, store.recovered.replayed), (&map, true, 1));
    store.close().unwrap();
    assert_eq!(files(&bed.vfs), closed);
    // Commits continue after the mark.
    let mut store = Store::open(config()).unwrap();
    assert_eq!(store.set("b", "2").unwrap(), 2);
    drop(store);
    let store = Store::open(config()).unwrap();
    assert_eq!((store.recovered.seq, store.recovered.clean), (2, false));
}

#[test]
fn a_checkpoint_writes_beside_commits_and_removes_the_segments_it_contains() {
    let bed = Bed::mem(Form::Wal, true);
    let mut store = Store::open(bed.config()).unwrap();
    assert!(store.begin().unwrap().is_none(), "nothing is new");
    for round in 0..5_u64 {
        store.set("before", &round.to_string()).unwrap();
        let checkpoint = store.begin().unwrap().unwrap();
        let again = store.begin();
        assert!(matches!(again, Err(Error::Contradiction(_))), "one at a time");
        let state = store.map.clone();
        store.set("beside", &round.to_string()).unwrap();
        assert_eq!(segments(&bed.vfs), [round + 1, round + 2]);
        let written = checkpoint.write(&state, &|_| true).unwrap();
        assert_eq!(written.seq, round * 2 + 1);
        store.storage.finish_checkpoint(Ok(written)).unwrap();
        assert_eq!(segments(&bed.vfs), [round + 2]);
        // The caller closes the old segment and the old main file, which has the former lock.
        let retired = format!("{:?}", store.storage.retired());
        assert!(retired.contains("LogWriter") && retired.contains("Locked("), "{retired}");
        assert!(store.storage.retired().is_none());
        assert_eq!(store.storage.stats().images, round + 1);
        // The same files, as another handle sees them.
        let copy = bed.copy();
        let found = Store::open(copy.config()).unwrap();
        assert_eq!((&found.map, found.recovered.replayed), (&store.map, 1));
    }
    let anchor = store.storage.anchor();
    drop(store);
    let mut config = bed.config();
    config.anchor = Some(anchor);
    assert_eq!(Store::open(config).unwrap().storage.anchor(), anchor);
}

#[test]
fn the_history_that_a_writer_digests_later_is_that_of_its_files() {
    for sealed in [false, true] {
        let bed = Bed::mem(Form::Wal, sealed);
        let mut store = Store::open(bed.config()).unwrap();
        // Anchors, segments and images after less and after more than a thread digests at once.
        for len in [10, 100_000, 300_000, 5_000_000, 20] {
            for key in ["a", "b", "c"] {
                store.set(key, &"v".repeat(len)).unwrap();
            }
            let anchor = store.storage.anchor();
            store.set("after", "the anchor").unwrap();
            drop(store);
            // A reader digests each group when it reads it.
            let mut config = bed.config();
            config.anchor = Some(anchor);
            store = Store::open(config).unwrap();
            store.set("d", &"w".repeat(len)).unwrap();
            store.checkpoint().unwrap();
            store.set("e", "after the image").unwrap();
        }
    }
}

#[test]
fn failed_images_change_nothing_and_the_next_contains_all_segments() {
    let disk = FaultDir::new();
    let bed = Bed::new(disk.vfs(1), Form::Wal, false);
    let mut store = Store::open(bed.config()).unwrap();
    for round in 1..=3 {
        store.set(&format!("key {round}"), "value").unwrap();
        let image = Calls::of(CallKind::Sync).on("app.db.tmp.image");
        disk.fail_on(image, 1, Fault::Enospc, Lasting::Once, Side::Before);
        let failed = store.checkpoint().unwrap_err();
        assert!(matches!(failed, Error::NoSpace { .. }), "{failed:?}");
        assert_eq!(store.storage.stats().images_failed, round);
        assert!(disk.peek("app.db.tmp.image").is_err(), "the failed image is removed");
        assert!(store.storage.poisoned().is_none());
    }
    assert_eq!(segments(&bed.vfs), [1, 2, 3, 4]);
    assert_eq!(Store::open(bed.copy().config()).unwrap().map, store.map);
    store.checkpoint().unwrap();
    assert_eq!(segments(&bed.vfs), [4]);
    assert_eq!(Store::open(bed.copy().config()).unwrap().map, store.map);
}

#[test]
fn an_image_that_fails_at_the_close_leaves_the_mark_in_the_log() {
    let disk = FaultDir::new();
    let bed = Bed::new(disk.vfs(1), Form::Wal, false);
    let mut store = Store::open(bed.config()).unwrap();
    store.set("a", "1").unwrap();
    let image = Calls::of(CallKind::Write).on("app.db.tmp.image");
    disk.fail_on(image, 1, Fault::Enospc, Lasting::Sticky, Side::Before);
    store.close().unwrap();
    disk.clear_plan();
    assert_eq!(segments(&bed.vfs), [1]);
    let store = Store::open(bed.config()).unwrap();
    assert_eq!((store.recovered.seq, store.recovered.clean), (1, true));
}

#[test]
fn a_close_without_an_error_is_recognised_as_a_clean_one() {
    let bed = |disk: &FaultDir| Bed::new(disk.vfs(1), Form::Wal, false);
    let fresh = FaultDir::new();
    Store::open(bed(&fresh).config()).unwrap().close().unwrap();
    let (mut closed, mut refused) = (0, 0);
    // The handle before was not closed: its first write failed while it named the log, or it made
    // one commit.
    for names in [Some(1), Some(2), None] {
        let disk = fresh.duplicate();
        let mut store = Store::open(bed(&disk).config()).unwrap();
        if let Some(nth) = names {
            let names = Calls::of(CallKind::SyncDir);
            disk.fail_on(names, nth, Fault::Eio, Lasting::Once, Side::Before);
        }
        assert_eq!(store.set("a", "1").is_err(), names.is_some());
        drop(store);
        let left = disk.crash_process();
        for keeps_log in [false, true] {
            for (nth, side) in (1..).flat_map(|nth| [(nth, Side::Before), (nth, Side::After)]) {
                let context = format!("{names:?}, keeps log {keeps_log}, call {nth} {side:?}");
                let disk = left.duplicate();
                let mut config = bed(&disk).config();
                if keeps_log {
                    config.checkpoint.close_into_image_bytes_max = 0;
                }
                let store = Store::open(config).unwrap();
                let fired = disk.faults_fired();
                disk.fail_on(Calls::any(), nth, Fault::Eio, Lasting::Once, side);
                let done = store.close();
                let is_over = disk.faults_fired() == fired;
                disk.clear_plan();
                let store = Store::open(bed(&disk).config()).unwrap();
                assert!(done.is_err() || store.recovered.clean, "{context}: {done:?}");
                closed += u32::from(done.is_ok());
                refused += u32::from(done.is_err());
                if is_over {
                    break;
                }
            }
        }
    }
    println!("{closed} closed, {refused} refused");
    assert!(closed > 20 && refused > 20, "{closed} closed, {refused} refused");
}

#[test]
fn a_failure_while_names_change_poisons_and_loses_nothing() {
    // The renames and syncs of a checkpoint: first those of the new segment, then those of the
    // image.
    for (kind, nth) in [
        (CallKind::Rename, 1),
        (CallKind::SyncDir, 1),
        (CallKind::Rename, 2),
        (CallKind::SyncDir, 2),
    ] {
        for side in [Side::Before, Side::After] {
            let disk = FaultDir::new();
            let bed = Bed::new(disk.vfs(1), Form::Wal, false);
            let mut store = Store::open(bed.config()).unwrap();
            store.set("a", "1").unwrap();
            disk.fail_on(Calls::of(kind), nth, Fault::Eio, Lasting::Once, side);
            let failed = store.checkpoint().unwrap_err();
            assert!(matches!(failed, Error::Poisoned { .. }), "{kind:?} {nth}: {failed:?}");
            assert!(matches!(store.set("b", "2"), Err(Error::Poisoned { .. })));
            assert!(!store.storage.wants_checkpoint());
            let names = disk.crash_process().vfs(2).dir.list().unwrap();
            assert!(names.contains(&segment(1)), "a poisoned store removes nothing: {names:?}");
            drop(store);
            survives_a_cut_after_reopening(&disk, 1);
        }
    }
}

/// Opens in the same boot, commits, and cuts the power: every crash image has all commits.
fn survives_a_cut_after_reopening(disk: &FaultDir, commits: u64) {
    let disk = disk.crash_process();
    let bed = Bed::new(disk.vfs(5), Form::Wal, false);
    let mut store = Store::open(bed.config()).unwrap();
    assert_eq!(store.recovered.seq, commits);
    let check = |seq: u64, map: &crate::common::store::Map| {
        for image in disk.crash_images(&CrashChoice::default()) {
            let bed = Bed::new(image.vfs(6), Form::Wal, false);
            let found = Store::open(bed.config()).unwrap();
            assert_eq!((found.recovered.seq, &found.map), (seq, map));
        }
    };
    check(commits, &store.map);
    store.set("after", "reopening").unwrap();
    check(commits + 1, &store.map);
    store.checkpoint().unwrap();
    store.set("after", "a checkpoint").unwrap();
    check(commits + 2, &store.map);
    assert_eq!(segments(&bed.vfs).len(), 1, "what the failure left is removed");
    let map = store.map.clone();
    store.close().unwrap();
    check(commits + 2, &map);
    no_stray_files(&bed.vfs, Form::Wal, true);
}

#[test]
fn a_name_that_an_attach_could_not_make_durable_is_given_once_more() {
    let disk = FaultDir::new();
    let bed = |disk: &FaultDir| Bed::new(disk.vfs(1), Form::Wal, false);
    Store::open(bed(&disk).config()).unwrap().close().unwrap();
    // The first write syncs the directory for the segment, then for the image.
    for nth in [1, 2] {
        let disk = disk.duplicate();
        let mut store = Store::open(bed(&disk).config()).unwrap();
        disk.fail_on(Calls::of(CallKind::SyncDir), nth, Fault::Eio, Lasting::Once, Side::Before);
        let failed = store.set("a", "1");
        assert!(matches!(failed, Err(Error::Poisoned { .. })), "{failed:?}");
        drop(store);
        survives_a_cut_after_reopening(&disk, 0);
    }
}

#[test]
fn a_close_into_the_image_that_was_not_made_durable_loses_nothing() {
    let disk = FaultDir::new();
    let bed = Bed::new(disk.vfs(1), Form::Wal, false);
    let mut store = Store::open(bed.config()).unwrap();
    store.set("a", "1").unwrap();
    disk.fail_on(Calls::of(CallKind::SyncDir), 1, Fault::Eio, Lasting::Once, Side::Before);
    let failed = store.close();
    assert!(matches!(failed, Err(Error::Poisoned { .. })), "{failed:?}");
    survives_a_cut_after_reopening(&disk, 1);
}

#[test]
fn a_switch_of_segments_makes_lazy_commits_durable() {
    for level in [Durability::Interval(Duration::from_secs(1)), Durability::Os] {
        let disk = FaultDir::new();
        let bed = Bed::new(disk.vfs(1), Form::Wal, false);
        let mut store = Store::open(bed.at(level)).unwrap();
        store.set("a", "1").unwrap();
        assert_eq!(store.storage.stats().durable, 0);
        let checkpoint = store.begin().unwrap().unwrap();
        assert_eq!(store.storage.stats().durable, 1);
        store.set("b", "2").unwrap();
        drop(checkpoint);
        for image in disk.crash_images(&CrashChoice::default()) {
            let bed = Bed::new(image.vfs(2), Form::Wal, false);
            let found = Store::open(bed.config()).unwrap().recovered.seq;
            assert!((1..=2).contains(&found), "{found}");
        }
    }
}

#[test]
fn a_sync_point_makes_durable_what_was_committed_before_it() {
    let disk = FaultDir::new();
    let bed = Bed::new(disk.vfs(1), Form::Wal, false);
    let mut store = Store::open(bed.at(Durability::Os)).unwrap();
    store.set("a", "1").unwrap();
    let point = store.storage.sync_point().unwrap().unwrap();
    store.set("b", "2").unwrap();
    // The segment is switched while the sync point waits, so it syncs the old file.
    store.checkpoint().unwrap();
    store.set("c", "3").unwrap();
    let synced = point.sync();
    store.storage.synced(synced).unwrap();
    assert_eq!(store.storage.stats().durable, 2);
    let point = store.storage.sync_point().unwrap().unwrap();
    let synced = point.sync();
    store.storage.synced(synced).unwrap();
    assert_eq!(store.storage.stats().durable, 3);
    assert!(store.storage.sync_point().unwrap().is_none());
    let disk = disk.reboot(Survivors::Nothing);
    let found = Store::open(Bed::new(disk.vfs(2), Form::Wal, false).config()).unwrap();
    assert_eq!(found.recovered.seq, 3);
}

#[test]
fn a_checkpoint_is_due_by_floor_and_ratio_and_not_again_at_once_after_a_failure() {
    let disk = FaultDir::new();
    let bed = Bed::new(disk.vfs(1), Form::Wal, false);
    let mut config = bed.config();
    config.checkpoint.floor_bytes = 4096;
    config.checkpoint.ratio = 2.0;
    let mut store = Store::open(config).unwrap();
    let large = "x".repeat(1000);
    let until_due = |store: &mut Store| {
        (0..200).find(|n| {
            store.set(&format!("key {}", n % 10), &large).unwrap();
            store.storage.wants_checkpoint()
        })
    };
    assert_eq!(until_due(&mut store), Some(3), "four frames of 1 KiB are the floor");
    store.checkpoint().unwrap();
    assert!(!store.storage.wants_checkpoint());
    let image = store.storage.stats().image_bytes;
    until_due(&mut store).unwrap();
    let log = store.storage.stats().log_bytes;
    assert!(log >= 2 * image && log < 2 * image + 2048, "{log} is twice {image}");
    let sync = Calls::of(CallKind::Sync).on("app.db.tmp.image");
    disk.fail_on(sync, 1, Fault::Eio, Lasting::Once, Side::Before);
    store.checkpoint().unwrap_err();
    assert!(!store.storage.wants_checkpoint(), "not at once");
    assert!(until_due(&mut store).unwrap() > 30, "after the log has grown");
    store.checkpoint().unwrap();
}

/// After a failed image the log grows by the floor, or by 64 KiB where the floor is lower, before
/// the next one is due. Frames of 1 KiB tell that exactly, and the log is long enough to see it.
#[test]
fn after_a_failed_image_the_next_is_due_once_the_log_has_grown_by_the_floor() {
    const FRAME: u64 = 1 << 10;
    for (floor_bytes, wait) in [(4 << 10, 64 << 10), (64 << 10, 64 << 10), (160 << 10, 160 << 10)] {
        let disk = FaultDir::new();
        let bed = Bed::new(disk.vfs(1), Form::Wal, false);
        let mut config = bed.config();
        config.checkpoint.floor_bytes = floor_bytes;
        config.checkpoint.ratio = 1.0;
        let mut store = Store::open(config).unwrap();
        // Always the same key, so that the image stays small.
        let value = "x".repeat(FRAME as usize - 100);
        let grow = |store: &mut Store| {
            let before = store.storage.stats().log_bytes;
            store.set("key", &value).unwrap();
            let after = store.storage.stats().log_bytes;
            assert_eq!(after - before, FRAME);
            after
        };
        // The first has the header of the segment before it.
        store.set("key", &value).unwrap();
        while !store.storage.wants_checkpoint() {
            grow(&mut store);
        }
        for round in 1..=3 {
            let sync = Calls::of(CallKind::Sync).on("app.db.tmp.image");
            disk.fail_on(sync, 1, Fault::Eio, Lasting::Once, Side::Before);
            store.checkpoint().unwrap_err();
            // The segment that was begun for it belongs to the log.
            let failed_at = store.storage.stats().log_bytes;
            assert!(!store.storage.wants_checkpoint(), "{floor_bytes}, {round}");
            let due_at = loop {
                let now = grow(&mut store);
                if store.storage.wants_checkpoint() {
                    break now;
                }
            };
            let context = format!("floor {floor_bytes}, failure {round}");
            assert_eq!(due_at, failed_at + wait, "{context}");
        }
        // One that succeeds forgets the failures.
        store.checkpoint().unwrap();
        while !store.storage.wants_checkpoint() {
            grow(&mut store);
        }
        let stats = store.storage.stats();
        assert!(stats.log_bytes < floor_bytes + 2 * FRAME, "{floor_bytes}: {stats:?}");
    }
}

#[test]
fn reading_changes_nothing_and_needs_no_repair() {
    let disk = FaultDir::new();
    let bed = Bed::new(disk.vfs(1), Form::Wal, false);
    let mut store = Store::open(bed.config()).unwrap();
    for n in 0..5 {
        store.set(&n.to_string(), "value").unwrap();
    }
    drop(store.begin().unwrap());
    store.set("last", "value").unwrap();
    let map = store.map.clone();
    drop(store);
    let disk = disk.reboot(Survivors::Nothing);
    disk.record_trace(true);
    let mut config = Config::new(disk.vfs(2), NAME);
    config.access = Access::ReadOnly;
    let store = Store::open(config).unwrap();
    assert_eq!((&store.map, store.recovered.seq), (&map, 6));
    store.close().unwrap();
    let changes: Vec<_> = disk.trace().into_iter().filter(|call| call.kind.changes()).collect();
    assert!(changes.iter().all(|call| call.kind == CallKind::TryLock), "{changes:?}");
}

fn segment(generation: u64) -> String {
    format!("app.db.wal.{generation:020}")
}

fn segments(vfs: &Vfs) -> Vec<u64> {
    let names = vfs.dir.list().unwrap();
    let mut found: Vec<u64> =
        names.iter().filter_map(|name| name.strip_prefix("app.db.wal.")?.parse().ok()).collect();
    found.sort_unstable();
    found
}

//! What was seen before the lock was taken is not believed after it: another process does its work
//! right before a call takes the lock.

use std::sync::{Arc, Mutex};

use codex_backup::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side};
use codex_backup::vfs::{CallKind, Dir, Observed, Vfs};
use codex_backup::{CopyOptions, Error, Source, copy_to, unwatched};

use crate::common::sim::{self, LOG, Way, backups_of, disk, store_is};
use crate::common::{Card, OURS, bytes, card, names, put, replace, versions};

/// This disk as another process sees it, in which `work` is done right before its first attempt to
/// take a lock.
fn before_lock(disk: &FaultDir, work: impl FnOnce(&FaultDir) + Send + 'static) -> Vfs {
    let (other, work) = (disk.clone(), Mutex::new(Some(work)));
    Observed::vfs(&disk.vfs(100), move |call| {
        if call.kind == CallKind::TryLock
            && let Some(work) = work.lock().unwrap().take()
        {
            work(&other);
        }
    })
}

fn rotate(disk: &FaultDir, seq: u64) {
    replace(disk, "a.db", &card(OURS, seq, 700));
    sim::rotate(&disk.vfs(7), Way::Copy, seq).unwrap();
}

#[test]
fn a_rotation_works_on_the_backups_as_they_are_under_the_lock() {
    // The other rotation has shifted all names, and backed up the very version.
    let base = disk(9, &[(1, 8), (2, 7), (3, 6)]);
    let vfs = before_lock(&base, |disk| rotate(disk, 9));
    assert_eq!(sim::rotate(&vfs, Way::Copy, 9).unwrap().method, None);
    assert_eq!(versions(&vfs, "a.db"), [(1, 9), (2, 8), (3, 7)]);
    // It has made a newer one.
    let base = disk(9, &[(1, 8), (2, 7)]);
    let vfs = before_lock(&base, |disk| rotate(disk, 10));
    assert!(sim::rotate(&vfs, Way::Write, 11).unwrap().method.is_some());
    assert_eq!(versions(&vfs, "a.db"), [(1, 11), (2, 10), (3, 8)]);
    // It has removed all of them.
    let base = disk(9, &[(1, 8), (2, 7)]);
    let vfs = before_lock(&base, |disk| drop(backups_of(&disk.vfs(7)).prune(0).unwrap()));
    sim::rotate(&vfs, Way::Copy, 9).unwrap();
    assert_eq!(versions(&vfs, "a.db"), [(1, 9)]);
}

#[test]
fn a_pruning_keeps_the_newest_as_they_are_under_the_lock() {
    let base = disk(9, &[(1, 8), (2, 7), (3, 6)]);
    let vfs = before_lock(&base, |disk| {
        rotate(disk, 9);
        rotate(disk, 10);
    });
    assert_eq!(backups_of(&vfs).prune(1).unwrap(), ["a.db.bak.2", "a.db.bak.3"]);
    assert_eq!(versions(&vfs, "a.db"), [(1, 10)]);
}

#[test]
fn an_adoption_leaves_what_another_one_has_adopted() {
    let base = disk(9, &[(1, 8), (2, 7)]);
    put(&base, "a.db.bak.new", &card(OURS, 9, 700));
    let vfs = before_lock(&base, |disk| {
        assert!(backups_of(&disk.vfs(7)).adopt().unwrap().adopted.is_some());
    });
    let done = backups_of(&vfs).adopt().unwrap();
    assert_eq!((done.adopted, done.removed, done.left), (None, vec![], vec![]));
    assert_eq!(versions(&vfs, "a.db"), [(1, 9), (2, 8), (3, 7)]);
}

/// A list takes no lock, so that a rotation can come between any two of its calls.
#[test]
fn a_list_beside_a_rotation_has_no_backup_that_is_missing() {
    let mut call = 0;
    loop {
        let base = disk(9, &[(1, 8), (2, 7)]);
        let (other, counted) = (base.clone(), Mutex::new(0));
        let vfs = Observed::vfs(&base.vfs(100), move |_| {
            let mut counted = counted.lock().unwrap();
            if *counted == call {
                // The oldest backups leave their names, and no new one takes the first name.
                let dir = other.vfs(7).dir;
                dir.rename("a.db.bak.2", "a.db.bak.3").unwrap();
                dir.rename("a.db.bak.1", "a.db.bak.2").unwrap();
            }
            *counted += 1;
        });
        for entry in backups_of(&vfs).list().unwrap() {
            let facts = entry.facts.unwrap_or_else(|error| panic!("call {call}: {error}"));
            assert!([8, 7].contains(&facts.seq), "call {call}");
        }
        if base.vfs(7).dir.metadata("a.db.bak.1").unwrap().is_some() {
            break; // The list made fewer calls.
        }
        call += 1;
    }
    assert!(call > 6, "only {call} calls were tried");
}

/// A disk with a restore of version 2 that was decided and cut off before its first move.
fn pending() -> FaultDir {
    let base = disk(9, &[(1, 3), (2, 2)]);
    let restore = |disk: &FaultDir| {
        let _ = backups_of(&disk.vfs(1)).restore(2, &[LOG.to_owned()], &mut unwatched);
    };
    let cut = (0..sim::calls_of(&base, &restore)).map(|call| {
        let disk = base.duplicate();
        disk.fail_at(call, Fault::Eio, Lasting::Sticky, Side::Before);
        restore(&disk);
        disk.clear_plan();
        disk
    });
    let is_pending = |disk: &FaultDir| {
        let moved = disk.metadata("a.db.replaced.1").unwrap().is_some();
        !moved && backups_of(&disk.vfs(2)).pending_restore().unwrap().is_some()
    };
    cut.into_iter().find(is_pending).unwrap()
}

#[test]
fn a_restore_that_another_process_finished_is_not_finished_again() {
    let base = pending();
    let vfs = before_lock(&base, |disk| {
        assert!(backups_of(&disk.vfs(7)).finish_restore().unwrap().is_some());
        // The store goes on from there.
        replace(disk, "a.db", &card(OURS, 20, 700));
    });
    assert_eq!(backups_of(&vfs).finish_restore().unwrap(), None);
    let context = || "finished twice".to_owned();
    store_is(&base, 20, false, &context);
    assert!(!names(&base).iter().any(|name| name.starts_with("a.db.replaced.2")));
}

#[test]
fn a_restore_and_a_rotation_are_refused_beside_one_that_was_decided_meanwhile() {
    for rotates in [false, true] {
        let decided = pending();
        let record = bytes(&decided, "a.db.bak.restore");
        let base = disk(9, &[(1, 3), (2, 2)]);
        let planted = record.clone();
        let vfs = before_lock(&base, move |disk| {
            put(disk, "a.db.bak.stage", &card(OURS, 2, 700));
            put(disk, "a.db.bak.restore", &planted);
        });
        let refused = if rotates {
            sim::rotate(&vfs, Way::Copy, 9).map(drop)
        } else {
            backups_of(&vfs).restore(1, &[LOG.to_owned()], &mut unwatched).map(drop)
        };
        assert!(matches!(refused, Err(Error::RestorePending { .. })), "{refused:?}");
        store_is(&base, 9, true, &|| "refused".to_owned());
        assert_eq!(bytes(&base, "a.db.bak.restore"), record);
        assert_eq!(bytes(&base, "a.db.bak.stage"), card(OURS, 2, 700));
    }
}

/// The record of a restore that was done is removed, and its removal is not durable yet.
#[test]
fn a_second_restore_is_not_mixed_up_with_the_record_of_the_first() {
    let base = disk(9, &[(1, 3), (2, 2)]);
    let restore = |disk: &FaultDir, seed| {
        backups_of(&disk.vfs(seed)).restore(2, &[LOG.to_owned()], &mut unwatched)
    };
    base.fail_on(Calls::of(CallKind::Remove), 1, Fault::Eio, Lasting::Once, Side::After);
    restore(&base, 1).unwrap_err();
    base.clear_plan();
    assert!(names(&base).iter().all(|name| !name.contains(".bak.restore")));
    let act = |disk: &FaultDir| restore(disk, 2).is_ok();
    let images = sim::each_power_cut(&base, &act, &mut |image, _, context| {
        let finished = backups_of(&image.vfs(3)).finish_restore();
        finished.unwrap_or_else(|e| panic!("{e}; {}", context()));
        assert_eq!(bytes(image, "a.db"), card(OURS, 2, 700), "{}", context());
    });
    assert!(images > 50, "{images}");
}

#[test]
fn a_copy_does_not_replace_one_that_another_process_made_meanwhile() {
    let base = disk(9, &[]);
    let copy = |vfs: &Vfs| {
        let source = Source::open(vfs, "a.db")?;
        let options = CopyOptions::default();
        copy_to(vfs, source, vfs, "copy.db", &Card, &options, &mut unwatched)
    };
    let vfs = before_lock(&base, move |disk| {
        copy(&disk.vfs(7)).unwrap();
        replace(disk, "a.db", &card(OURS, 10, 700));
    });
    let refused = copy(&vfs);
    assert!(matches!(refused, Err(Error::Exists { .. })), "{refused:?}");
    assert_eq!(bytes(&base, "copy.db"), card(OURS, 9, 700));
    let left = ["a.db", LOG, "copy.db"];
    assert_eq!(names(&base), left);
}

/// The observer is the other process: it must have done its work.
#[test]
fn the_other_process_comes_in_between() {
    let base = disk(9, &[]);
    let told = Arc::new(Mutex::new(0));
    let done = Arc::clone(&told);
    let vfs = before_lock(&base, move |_| *done.lock().unwrap() += 1);
    sim::rotate(&vfs, Way::Copy, 9).unwrap();
    sim::rotate(&vfs, Way::Copy, 9).unwrap();
    assert_eq!(*told.lock().unwrap(), 1);
}

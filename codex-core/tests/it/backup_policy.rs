//! Tests of the backups that an open store makes by itself: their times, their callback, and the
//! effects of a failure.

use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::{Duration, UNIX_EPOCH};

use crate::common::{FORMS, scaled, seed, until};
use codex_core::internals::{sweep, without_threads};
use codex_core::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side};
use codex_core::vfs::{CallKind, Vfs};
use codex_core::{
    BackupEvent, BackupPolicy, Backups, Error, Form, OpenOptions, StorageError, Store,
};

fn seqs(vfs: &Vfs) -> Vec<u64> {
    let listed = Backups::of_in(vfs, "a.db").list().unwrap();
    listed.into_iter().map(|entry| entry.facts.unwrap().seq).collect()
}

fn keep(count: u32) -> BackupPolicy {
    BackupPolicy::keep(count)
}

fn with(policy: BackupPolicy) -> OpenOptions {
    Store::options().backups(policy)
}

const SECOND: Duration = Duration::from_secs(1);

/// Fails each write of a backup from now on.
fn break_backups(disk: &FaultDir) {
    let reflinks = Calls::of(CallKind::Reflink);
    disk.fail_on(reflinks, 1, Fault::Unsupported, Lasting::Sticky, Side::Before);
    let creations = Calls::of(CallKind::Create).on("a.db.bak.tmp");
    disk.fail_on(creations, 1, Fault::Enospc, Lasting::Sticky, Side::Before);
}

#[test]
fn every_n_commits_makes_a_backup_and_a_write_that_changes_nothing_makes_none() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        let store = with(keep(3).every_commits(3)).form(form).open_in(&vfs, "a.db").unwrap();
        for n in 1..=2_u64 {
            store.set("n", &n).unwrap();
        }
        for _ in 0..10 {
            assert!(!store.remove("absent").unwrap());
            assert_eq!(store.remove_prefix("absent").unwrap(), 0);
        }
        store.set("n", &3_u64).unwrap();
        until("the third commit is backed up", || store.stats().backups.made == 1);
        assert_eq!(seqs(&vfs), [3], "{form}");
        for n in 4..=6_u64 {
            store.set("n", &n).unwrap();
        }
        // The statistics follow the file.
        until("the sixth commit is backed up", || store.stats().backups.made == 2);
        assert_eq!(store.stats().backups.last_seq, Some(6));
        assert_eq!(seqs(&vfs), [6, 3], "{form}");
    }
}

#[test]
fn an_interval_makes_a_backup_of_what_changed_and_only_then() {
    let disk = FaultDir::new();
    let (vfs, clock) = (disk.vfs(seed()), disk.clock());
    let store = Store::options().open_in(&vfs, "a.db").unwrap();
    store.set("n", &1_u64).unwrap();
    store.back_up().unwrap();
    store.close().unwrap();
    drop(store);
    let store = with(keep(5).every(Duration::from_secs(600))).open_in(&vfs, "a.db").unwrap();
    for n in 2..=4_u64 {
        clock.advance(Duration::from_secs(3600));
        // The interval ended long ago, so the commit itself makes a backup due.
        store.set("n", &n).unwrap();
        until("the change is backed up", || store.stats().backups.made == n - 1);
    }
    // One backup for each change, and no other, however much time has passed.
    assert_eq!(seqs(&vfs), [4, 3, 2, 1]);
    store.set("n", &5_u64).unwrap();
    store.close().unwrap();
    assert_eq!(seqs(&vfs), [4, 3, 2, 1], "the interval had begun anew");
}

#[test]
fn an_interval_ends_by_itself_without_a_commit_to_end_it() {
    const INTERVAL: Duration = Duration::from_millis(30);
    let disk = FaultDir::new();
    let vfs = disk.vfs(seed());
    let store = with(keep(3).every(INTERVAL)).open_in(&vfs, "a.db").unwrap();
    store.set("n", &1_u64).unwrap();
    store.back_up().unwrap();
    store.set("n", &2_u64).unwrap();
    // No commit follows. A rotation that the thread began before may end after an advance, and the
    // next interval counts from its end.
    until("the interval is over", || {
        disk.clock().advance(INTERVAL);
        seqs(&vfs).first() == Some(&2)
    });
}

#[test]
fn a_checkpoint_makes_a_backup_where_asked_for_also_with_other_conditions() {
    let vfs = Vfs::mem(seed());
    let policy = keep(3).on_checkpoint().every_commits(100);
    let store = with(policy).open_in(&vfs, "a.db").unwrap();
    store.set("n", &1_u64).unwrap();
    store.checkpoint().unwrap();
    until("the checkpoint is backed up", || store.stats().backups.made == 1);
    for n in 2..=101_u64 {
        store.set("n", &n).unwrap();
    }
    until("a hundred commits are backed up", || seqs(&vfs).first() == Some(&101));
    store.set("n", &102_u64).unwrap();
    store.checkpoint().unwrap();
    until("the next checkpoint is backed up", || store.stats().backups.made == 3);
    store.close().unwrap();
    assert_eq!(seqs(&vfs), [102, 101, 1], "the backups' own checkpoints are not news");
}

#[test]
fn a_checkpoint_beside_a_backup_makes_the_next_one_due() {
    let disk = FaultDir::new();
    let reflinks = Calls::of(CallKind::Reflink);
    disk.fail_on(reflinks, 1, Fault::Unsupported, Lasting::Sticky, Side::Before);
    let vfs = disk.vfs(seed());
    let store = with(keep(3).on_checkpoint()).open_in(&vfs, "a.db").unwrap();
    let gate = disk.hold(Calls::of(CallKind::Write).on("a.db.bak.tmp"));
    store.set("n", &1_u64).unwrap();
    store.checkpoint().unwrap();
    gate.wait_for(1);
    store.set("n", &2_u64).unwrap();
    store.checkpoint().unwrap();
    gate.release();
    until("the second checkpoint is backed up", || store.stats().backups.made == 2);
    assert_eq!(seqs(&vfs), [2, 1]);
}

/// The thread reads the newest backup before its first look, which counts as the opening.
#[test]
fn a_checkpoint_before_the_first_look_makes_a_backup() {
    let disk = FaultDir::new();
    let vfs = disk.vfs(seed());
    let store = Store::options().open_in(&vfs, "a.db").unwrap();
    store.set("n", &1_u64).unwrap();
    store.back_up().unwrap();
    store.close().unwrap();
    let gate = disk.hold(Calls::of(CallKind::Read).on("a.db.bak.1"));
    let store = with(keep(3).on_checkpoint()).open_in(&vfs, "a.db").unwrap();
    gate.wait_for(1);
    store.set("n", &2_u64).unwrap();
    store.checkpoint().unwrap();
    gate.release();
    until("the checkpoint is backed up", || store.stats().backups.made == 1);
    assert_eq!(seqs(&vfs), [2, 1]);
}

#[test]
fn opening_makes_a_backup_where_asked_for_and_none_of_what_has_one() {
    let vfs = Vfs::mem(seed());
    let store = Store::options().open_in(&vfs, "a.db").unwrap();
    store.set("n", &1_u64).unwrap();
    store.close().unwrap();
    for _ in 0..2 {
        let store = with(keep(3).on_open()).open_in(&vfs, "a.db").unwrap();
        until("the open is backed up", || seqs(&vfs) == [1]);
        store.close().unwrap();
    }
    assert_eq!(seqs(&vfs), [1]);
}

#[test]
fn a_policy_that_the_form_cannot_follow_is_refused_before_anything_is_created() {
    for form in [Form::Snapshot, Form::Ledger] {
        let vfs = Vfs::mem(seed());
        let refused = with(keep(1).on_checkpoint()).form(form).open_in(&vfs, "a.db").unwrap_err();
        let refused = crate::common::storage(refused);
        assert!(matches!(refused, StorageError::Contradiction(_)), "{refused}");
        assert_eq!(vfs.dir.list().unwrap(), [""; 0]);
        drop(Store::options().form(form).open_in(&vfs, "a.db").unwrap());
        let refused = with(keep(1).on_checkpoint()).open_in(&vfs, "a.db").unwrap_err();
        assert!(matches!(crate::common::storage(refused), StorageError::Contradiction(_)));
    }
    let vfs = Vfs::mem(seed());
    let refused = crate::common::storage(with(keep(0)).open_in(&vfs, "a.db").unwrap_err());
    assert!(matches!(refused, StorageError::Contradiction(_)), "{refused}");
    assert_eq!(vfs.dir.list().unwrap(), [""; 0]);
}

#[test]
fn a_lower_number_to_keep_removes_the_oldest_with_the_next_rotation() {
    let vfs = Vfs::mem(seed());
    let store = with(keep(4)).open_in(&vfs, "a.db").unwrap();
    for n in 1..=4_u64 {
        store.set("n", &n).unwrap();
        store.back_up().unwrap();
    }
    store.close().unwrap();
    drop(store);
    let store = with(keep(2)).open_in(&vfs, "a.db").unwrap();
    assert_eq!(store.back_up().unwrap().pruned.len(), 2);
    assert_eq!(seqs(&vfs), [4, 3]);
}

#[test]
fn a_failing_backup_fails_no_commit_shows_everywhere_and_is_tried_again() {
    let disk = FaultDir::new();
    let vfs = disk.vfs(seed());
    let (heard, events) = mpsc::channel();
    let heard = Mutex::new(heard);
    let options = with(keep(3).every_commits(1));
    let options =
        options.on_backup(move |event| heard.lock().unwrap().send(event.clone()).unwrap());
    let store = options.open_in(&vfs, "a.db").unwrap();
    store.set("n", &0_u64).unwrap();
    assert!(matches!(events.recv(), Ok(BackupEvent::Made { seq: 1 })));
    break_backups(&disk);
    for n in 1..=50_u64 {
        store.set("n", &n).unwrap();
    }
    match events.recv().unwrap() {
        BackupEvent::Failed { error } => {
            assert!(error.to_string().contains("a.db.bak."), "{error}");
        }
        other => panic!("{other:?}"),
    }
    // The clock of the store does not advance, so the pause after the failure does not end.
    for n in 1..=1_000_u64 {
        store.set("n", &n).unwrap();
        std::thread::yield_now();
    }
    let stats = store.stats().backups;
    assert!(stats.last_error.unwrap().contains("a.db.bak."));
    assert_eq!(stats.failed, 1, "a commit hurried another attempt");
    disk.clear_plan();
    // Without another commit.
    until("it is tried again", || {
        disk.clock().advance(SECOND);
        store.stats().backups.last_error.is_none()
    });
    assert_eq!(seqs(&vfs), [1_051, 1]);
    let last = events.recv().unwrap();
    assert!(matches!(last, BackupEvent::Made { seq: 1_051 }), "{last:?}");
}

#[test]
fn writes_are_refused_while_a_required_backup_fails() {
    let disk = FaultDir::new();
    let vfs = disk.vfs(seed());
    let slot: Arc<OnceLock<Store>> = Arc::default();
    let in_callback = Arc::clone(&slot);
    let options = with(keep(3).every_commits(1)).require_backups(true);
    // A callback that writes gets the same refusal, and no thread waits for another. The test looks
    // at the answers, because a panic of a callback ends nothing.
    let (heard, answers) = mpsc::channel();
    let heard = Mutex::new(heard);
    let options = options.on_backup(move |event| {
        let Some(store) = in_callback.get() else { return };
        let answer = (event.clone(), store.set("heard", &1_u64));
        heard.lock().unwrap().send(answer).unwrap();
    });
    let store = options.open_in(&vfs, "a.db").unwrap();
    assert!(slot.set(store.clone()).is_ok());
    break_backups(&disk);
    store.set("n", &1_u64).unwrap();
    until("writes are refused", || store.set("n", &2_u64).is_err());
    let refused = store.set("n", &3_u64).unwrap_err();
    assert!(matches!(refused, Error::BackupRequired { .. }), "{refused}");
    assert!(refused.to_string().contains("a.db"), "{refused}");
    assert!(store.get::<u64>("n").unwrap().is_some(), "reads go on");
    disk.clear_plan();
    until("writes go on", || {
        disk.clock().advance(SECOND);
        store.set("n", &4_u64).is_ok()
    });
    let mut made = false;
    while !made {
        let (event, answer) = answers.recv().unwrap();
        made = matches!(event, BackupEvent::Made { .. });
        let is_refused = matches!(answer, Err(Error::BackupRequired { .. }));
        assert_eq!(is_refused, !made, "{event:?}: {answer:?}");
    }
    store.close().unwrap();
}

#[test]
fn a_required_backup_that_failed_by_hand_is_tried_again_without_one() {
    let disk = FaultDir::new();
    let options = with(keep(3).every_commits(100)).require_backups(true);
    let store = options.open_in(&disk.vfs(seed()), "a.db").unwrap();
    store.set("n", &1_u64).unwrap();
    break_backups(&disk);
    store.back_up().unwrap_err();
    assert!(matches!(store.set("n", &2_u64), Err(Error::BackupRequired { .. })));
    disk.clear_plan();
    // There are fewer than a hundred commits, and no other backup was requested.
    until("writes go on", || {
        disk.clock().advance(SECOND);
        store.set("n", &3_u64).is_ok()
    });
    assert_eq!(seqs(&disk.vfs(seed() + 1)), [1]);
}

/// The removal changes nothing that a reader sees, so it needs no backup.
#[test]
fn what_has_expired_is_removed_while_a_required_backup_fails() {
    for form in FORMS {
        let disk = FaultDir::new();
        let options = without_threads(with(keep(3)).require_backups(true).form(form));
        let store = options.open_in(&disk.vfs(seed()), "a.db").unwrap();
        store.set("stays", &1).unwrap();
        store.set_with_expiry("past", &1, UNIX_EPOCH).unwrap();
        break_backups(&disk);
        store.back_up().unwrap_err();
        let refused = store.remove("stays").unwrap_err();
        assert!(matches!(refused, Error::BackupRequired { .. }), "{refused}");
        assert!(!sweep(&store).unwrap());
        assert_eq!((store.stats().swept, store.stats().expiring, store.len()), (1, 0, 1), "{form}");
        disk.clear_plan();
        store.back_up().unwrap();
        assert!(store.remove("stays").unwrap());
    }
}

#[test]
fn a_callback_may_close_the_store_or_drop_its_last_handle() {
    for closes in [true, false] {
        let vfs = Vfs::mem(seed());
        let slot: Arc<Mutex<Option<Store>>> = Arc::default();
        let in_callback = Arc::clone(&slot);
        let (done, is_done) = mpsc::channel();
        let done = Mutex::new(done);
        let options = with(keep(3).every_commits(1)).on_backup(move |_| {
            let store = in_callback.lock().unwrap().take();
            if closes && let Some(store) = &store {
                store.close().unwrap();
            }
            drop(store);
            done.lock().unwrap().send(()).unwrap();
        });
        let store = options.open_in(&vfs, "a.db").unwrap();
        let writer = store.clone();
        *slot.lock().unwrap() = Some(store);
        writer.set("n", &1_u64).unwrap();
        if !closes {
            drop(writer);
        }
        is_done.recv().unwrap();
        // The lock is free, so the engine was dropped.
        until("the store opens again", || Store::options().open_in(&vfs, "a.db").is_ok());
        assert_eq!(seqs(&vfs), [1]);
    }
}

#[test]
fn a_callback_that_backs_up_or_panics_ends_nothing() {
    let vfs = Vfs::mem(seed());
    let slot: Arc<OnceLock<Store>> = Arc::default();
    let in_callback = Arc::clone(&slot);
    let options = with(keep(3).every_commits(1)).on_backup(move |_| {
        if let Some(store) = in_callback.get() {
            store.set("from the callback", &1_u64).unwrap();
            store.back_up().unwrap();
            panic!("on purpose");
        }
    });
    let store = options.open_in(&vfs, "a.db").unwrap();
    assert!(slot.set(store.clone()).is_ok());
    for n in 1..=3_u64 {
        let made = store.stats().backups.made;
        store.set("n", &n).unwrap();
        until("a backup and the callback's own are made", || {
            store.stats().backups.made >= made + 2
        });
    }
    store.close().unwrap();
}

#[test]
fn closing_gives_up_a_backup_that_takes_long() {
    let disk = FaultDir::new();
    let vfs = disk.vfs(seed());
    let store = with(keep(3).every_commits(2)).form(Form::Ledger).open_in(&vfs, "a.db").unwrap();
    let reflinks = Calls::of(CallKind::Reflink);
    disk.fail_on(reflinks, 1, Fault::Unsupported, Lasting::Sticky, Side::Before);
    store.set_bytes("n", vec![b'x'; 16 << 20]).unwrap();
    let writes = Calls::of(CallKind::Write).on("a.db.bak.tmp");
    disk.record_trace(true);
    let gate = disk.hold(writes.clone());
    store.set_bytes("m", "1").unwrap();
    let is_at_it = || vfs.dir.list().unwrap().iter().any(|name| name.contains(".bak.tmp"));
    until("the copy has begun", || gate.waiting() > 0);
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| store.close());
        until("the close has begun", || store.anchor().is_err());
        gate.release();
        closing.join().unwrap().unwrap();
    });
    let made = disk.trace().iter().filter(|call| writes.include(call)).count();
    assert!(made <= 2, "{made} writes of the copy");
    assert_eq!(store.stats().backups.failed, 0, "nothing failed");
    assert!(!is_at_it(), "a temporary is left");
}

#[test]
fn sixteen_writers_lose_nothing_with_a_backup_after_each_commit() {
    for run in 0..u64::from(scaled(200)) {
        let form = FORMS[usize::try_from(run % 3).unwrap()];
        let disk = FaultDir::new();
        let options = with(keep(3).every_commits(1)).form(form);
        let store = options.open_in(&disk.vfs(seed() + run), "a.db").unwrap();
        let acknowledged = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for writer in 0..16_u64 {
                let (store, acknowledged) = (store.clone(), &acknowledged);
                scope.spawn(move || {
                    for n in 0..10_u64 {
                        let key = format!("{writer}/{n}");
                        if store.set(&key, &(writer * 100 + n)).is_err() {
                            return;
                        }
                        acknowledged.lock().unwrap().push((key, writer * 100 + n));
                    }
                });
            }
            if run % 2 == 1 {
                // The process is killed at some point.
                let some = usize::try_from(run * 7 % 120).unwrap();
                until("some are written", || acknowledged.lock().unwrap().len() >= some);
                let _ = disk.crash_process();
            }
        });
        if run % 2 == 0 {
            until("the last commit is backed up", || store.stats().backups.last_seq == Some(160));
        }
        drop(store);
        let disk = disk.crash_process();
        let vfs = disk.vfs(seed() + run + 1_000_000);
        let store = Store::options().open_in(&vfs, "a.db").unwrap();
        let acknowledged = acknowledged.into_inner().unwrap();
        for (key, value) in &acknowledged {
            assert_eq!(store.get::<u64>(key).unwrap(), Some(*value), "{key} of run {run}, {form}");
        }
        let backups = Backups::of_in(&vfs, "a.db");
        let listed = backups.list().unwrap();
        let found: Vec<_> =
            listed.iter().map(|entry| backups.verify(entry.index).unwrap().facts.seq).collect();
        assert!(found.is_sorted_by(|newer, older| newer > older), "{found:?} of run {run}");
        assert!(run % 2 == 1 || found.first() == Some(&160), "{found:?} of run {run}");
    }
}

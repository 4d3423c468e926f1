//! Tests of backups of open and closed stores: rotation, hot copies, restore, point in time.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::common::until;
use codex_core::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side, Survivors};
use codex_core::vfs::{CallKind, Observed, Vfs};
use codex_core::{BackupPolicy, Backups, Durability, Form, OpenOptions, RestorePoint, Store};

const FORMS: [Form; 3] = [Form::Wal, Form::Snapshot, Form::Ledger];

fn options(form: Form) -> OpenOptions {
    Store::options().form(form)
}

fn value_in(vfs: &Vfs, name: &str, key: &str) -> Option<u64> {
    let store = Store::options().read_only(true).open_in(vfs, name).unwrap();
    store.get(key).unwrap()
}

#[test]
fn each_rotation_keeps_the_state_of_its_moment_in_every_form() {
    for form in FORMS {
        let vfs = Vfs::mem(1);
        let store = options(form).backups(BackupPolicy::keep(3)).open_in(&vfs, "a.db").unwrap();
        for n in 1..=5_u64 {
            store.set("n", &n).unwrap();
            store.back_up().unwrap();
        }
        // Nothing has changed, so nothing rotates.
        assert!(store.back_up().unwrap().method.is_none());
        let backups = Backups::of_in(&vfs, "a.db");
        let seqs: Vec<_> =
            backups.list().unwrap().into_iter().map(|e| e.facts.unwrap().seq).collect();
        assert_eq!(seqs, [5, 4, 3], "{form}");
        for (index, n) in [(1, 5), (2, 4), (3, 3)] {
            assert_eq!(backups.verify(index).unwrap().facts.seq, n);
            assert_eq!(value_in(&vfs, &format!("a.db.bak.{index}"), "n"), Some(n), "{form}");
        }
        store.close().unwrap();
    }
}

#[test]
fn a_restored_store_has_the_old_state_and_what_it_replaced_is_kept() {
    for form in FORMS {
        let vfs = Vfs::mem(2);
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        store.set("n", &1_u64).unwrap();
        store.back_up().unwrap();
        store.set("n", &2_u64).unwrap();
        // The store is not closed, so its log and its lock are there.
        assert!(Backups::of_in(&vfs, "a.db").restore(1).unwrap_err().is_locked());
        drop(store);
        let restored = Backups::of_in(&vfs, "a.db").restore(1).unwrap();
        assert!(!restored.replaced.is_empty());
        let store = Store::options().open_in(&vfs, "a.db").unwrap();
        assert_eq!(store.get::<u64>("n").unwrap(), Some(1), "{form}");
        store.set("n", &3_u64).unwrap();
        drop(store);
        assert_eq!(value_in(&vfs, "a.db", "n"), Some(3), "{form}");
    }
}

#[test]
fn a_hot_copy_is_a_store_of_its_own() {
    for form in FORMS {
        let vfs = Vfs::mem(3);
        let store = options(form).open_in(&vfs, "a.db").unwrap();
        for n in 0..100_u64 {
            store.set(format!("k{n}"), &n).unwrap();
        }
        let seq = store.backup_to_in(&vfs, "copy.db", &mut |_| std::ops::ControlFlow::Continue(()));
        assert_eq!(seq.unwrap(), 100);
        store.set("k0", &7_u64).unwrap();
        let copy = Store::options().open_in(&vfs, "copy.db").unwrap();
        assert_eq!(copy.len(), 100);
        assert_eq!(copy.get::<u64>("k0").unwrap(), Some(0));
        copy.set("k0", &9_u64).unwrap();
        assert_eq!(store.get::<u64>("k0").unwrap(), Some(7));
    }
}

#[test]
fn a_ledger_goes_back_to_any_commit_even_inside_a_group() {
    let vfs = Vfs::mem(4);
    let store = options(Form::Ledger).open_in(&vfs, "a.db").unwrap();
    for n in 1..=20_u64 {
        store.set("n", &n).unwrap();
    }
    let anchor = store.anchor().unwrap();
    drop(store);
    for seq in [7_u64, 20, 1] {
        // Each restore starts from the whole history, which the previous restore kept.
        let copy = Vfs::mem(5);
        let bytes = {
            let file = vfs.dir.open("a.db", codex_core::vfs::Open::Read).unwrap();
            let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        let file = copy
            .dir
            .open("a.db", codex_core::vfs::Open::CreateNew(codex_core::vfs::Mode::Private))
            .unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        Backups::of_in(&copy, "a.db").restore_until(RestorePoint::Seq(seq)).unwrap();
        let store = Store::options().open_in(&copy, "a.db").unwrap();
        assert_eq!(store.get::<u64>("n").unwrap(), Some(seq));
        assert_eq!(store.anchor().unwrap().seq, seq);
        if seq == 20 {
            assert_eq!(store.anchor().unwrap(), anchor, "the same history has the same digest");
        }
    }
    let refused = Backups::of_in(&vfs, "a.db").restore_until(RestorePoint::Seq(21)).unwrap_err();
    assert!(refused.to_string().contains("commits 0..=20;"), "{refused}");
}

#[test]
fn a_damaged_store_falls_back_when_asked_to_and_says_so() {
    let vfs = Vfs::mem(6);
    let store = Store::options().open_in(&vfs, "a.db").unwrap();
    store.set("n", &1_u64).unwrap();
    store.back_up().unwrap();
    store.close().unwrap();
    drop(store);
    vfs.dir.remove("a.db").unwrap();
    let file = vfs
        .dir
        .open("a.db", codex_core::vfs::Open::CreateNew(codex_core::vfs::Mode::Private))
        .unwrap();
    file.write_all_at(b"garbage", 0).unwrap();
    assert!(Store::options().open_in(&vfs, "a.db").unwrap_err().is_damage());
    let store = Store::options().fall_back_to_backup(true).open_in(&vfs, "a.db").unwrap();
    assert_eq!(store.get::<u64>("n").unwrap(), Some(1));
    assert!(store.restored().is_some());
}

#[test]
fn a_store_that_lost_only_its_first_header_is_repaired_and_no_backup_takes_its_place() {
    for form in [Form::Wal, Form::Snapshot] {
        let vfs = Vfs::mem(6);
        let options = Store::options().form(form);
        let store = options.open_in(&vfs, "a.db").unwrap();
        store.set("n", &1_u64).unwrap();
        store.back_up().unwrap();
        store.set("n", &2_u64).unwrap();
        store.close().unwrap();
        drop(store);
        let mut bytes = crate::common::read(&vfs, "a.db");
        bytes[..512].fill(0);
        crate::common::write(&vfs, "a.db", &bytes);
        assert!(options.open_in(&vfs, "a.db").is_err());
        let store = options.clone().fall_back_to_backup(true).open_in(&vfs, "a.db").unwrap();
        assert_eq!(store.get::<u64>("n").unwrap(), Some(2), "{form}");
        assert!(store.restored().is_none(), "{form}");
    }
}

/// One rotation is held at its copy, and two wait for it. Either of them may be the next.
#[test]
fn a_backup_that_waited_for_another_is_of_the_state_after_the_wait() {
    for form in [Form::Wal, Form::Ledger] {
        let disk = FaultDir::new();
        let reflinks = Calls::of(CallKind::Reflink);
        disk.fail_on(reflinks, 1, Fault::Unsupported, Lasting::Sticky, Side::Before);
        let vfs = disk.vfs(9);
        let options = options(form).durability(Durability::Os).backups(BackupPolicy::keep(5));
        let store = options.open_in(&vfs, "a.db").unwrap();
        let gate = disk.hold(Calls::of(CallKind::Write).on("a.db.bak.tmp"));
        let made = std::thread::scope(|scope| {
            let rotations: Vec<_> = (1..=3_u64)
                .map(|n| {
                    store.set("n", &n).unwrap();
                    let rotation = scope.spawn(|| store.back_up().unwrap().facts.seq);
                    match form {
                        _ if n == 1 => gate.wait_for(1),
                        // A rotation of a Wal makes no call before its wait that a test could see.
                        // If it is later than this, the test asserts less, and does not fail.
                        Form::Wal => std::thread::sleep(Duration::from_millis(20)),
                        _ => until("it was flushed", || store.stats().storage.durable == n),
                    }
                    rotation
                })
                .collect();
            gate.release();
            rotations.into_iter().map(|rotation| rotation.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(made, [1, 3, 3], "{form}");
        let backups = Backups::of_in(&vfs, "a.db").list().unwrap();
        let seqs: Vec<_> = backups.into_iter().map(|entry| entry.facts.unwrap().seq).collect();
        assert_eq!(seqs, [3, 1], "{form}");
    }
}

/// A copy with a commit that the store then lost would be of another history: a later commit would
/// get the same number.
#[test]
fn a_power_cut_takes_no_commit_from_the_store_that_a_backup_has() {
    for form in [Form::Wal, Form::Ledger] {
        let disk = FaultDir::new();
        let vfs = disk.vfs(9);
        let options = options(form).durability(Durability::Os).backups(BackupPolicy::keep(5));
        let store = options.open_in(&vfs, "a.db").unwrap();
        for n in [1, 2_u64] {
            store.set("n", &n).unwrap();
            let copied = match n {
                1 => store.back_up().unwrap().facts.seq,
                _ => store.backup_to_in(&vfs, "copy", &mut |_| ControlFlow::Continue(())).unwrap(),
            };
            assert_eq!(copied, n);
            assert_eq!(store.stats().checkpoints, 0, "an image would have made it durable");
            let left = disk.reboot(Survivors::Nothing).vfs(10);
            let reopened = options.open_in(&left, "a.db").unwrap();
            assert_eq!(reopened.get::<u64>("n").unwrap(), Some(n), "{form}");
        }
    }
}

/// Before each call of a backup to the disk, a commit replaces the image. If it is opened by name,
/// no two calls see the same file.
#[test]
fn backups_and_hot_copies_are_of_the_file_that_was_handed_out_when_they_began() {
    let store: Arc<OnceLock<Store>> = Arc::default();
    let writing = Arc::new(AtomicBool::new(false));
    let (writer, may_write) = (Arc::clone(&store), Arc::clone(&writing));
    let add_one = |store: &Store| {
        store.update("n", |n: Option<u64>| Some(n.unwrap_or(0) + 1)).unwrap();
    };
    let vfs = Observed::vfs(&Vfs::mem(7), move |call| {
        // The commit puts another image in the place of the one that is about to be shared.
        let begins = &*call.name == "a.db" && call.kind == CallKind::Reflink;
        if begins && may_write.swap(false, Ordering::SeqCst) {
            add_one(writer.get().unwrap());
        }
    });
    let options = options(Form::Snapshot).backups(BackupPolicy::keep(2));
    let store = store.get_or_init(|| options.open_in(&vfs, "a.db").unwrap());
    store.set("n", &1_u64).unwrap();
    let elsewhere = Vfs::mem(8);
    let now = || store.get::<u64>("n").unwrap().unwrap();
    for round in 0..5 {
        let (before, seq) = (now(), store.stats().storage.seq);
        writing.store(true, Ordering::SeqCst);
        let rotated = store.back_up().unwrap();
        assert_eq!((rotated.facts.seq, now()), (seq, before + 1));
        assert_eq!(value_in(&vfs, "a.db.bak.1", "n"), Some(before));
        let (name, mut reports) = (format!("copy.{round}"), 0);
        let copied = store.backup_to_in(&elsewhere, &name, &mut |_| {
            reports += 1;
            add_one(store);
            ControlFlow::Continue(())
        });
        assert_eq!(copied.unwrap(), seq + 1);
        assert_eq!(value_in(&elsewhere, &name, "n"), Some(before + 1));
        assert_eq!(now(), before + 1 + reports);
        assert!(reports > 0);
    }
    store.close().unwrap();
}

//! Tests that a check before a lock is taken is repeated under the lock. Between the check and the
//! lock another process acts: at a call to the disk, so that it happens each time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::common::{FORMS, files, seed};
use codex_core::vfs::fault::{FaultDir, Side, Survivors};
use codex_core::vfs::{Call, CallKind, Vfs};
use codex_core::{BackupPolicy, Backups, CheckpointPolicy, Form, OpenOptions, Store};
use codex_storage::vfs::Observed;

/// Returns the same directory. Calls `act` once, before the call number `nth` (from 1) of those
/// that `is_it` selects.
fn before_call(
    inner: &Vfs,
    nth: usize,
    is_it: impl Fn(&Call) -> bool + Send + Sync + 'static,
    act: impl FnOnce() + Send + 'static,
) -> Vfs {
    let (calls, act) = (AtomicUsize::new(0), Mutex::new(Some(act)));
    Observed::vfs(inner, move |call| {
        if is_it(call) && calls.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            let act = act.lock().unwrap().take().expect("the call comes once");
            act();
        }
    })
}

fn is_lock(call: &Call) -> bool {
    call.kind == CallKind::TryLock && &*call.name == "a.db.lock"
}

/// Returns the options of a store whose log stays after the close.
fn options(form: Form) -> OpenOptions {
    let options = Store::options().form(form).backups(BackupPolicy::keep(3));
    if form != Form::Wal {
        return options;
    }
    options.checkpoint(CheckpointPolicy::default().close_into_image_bytes_max(0))
}

/// Returns a closed store at 2, with a backup of 1.
fn backed_up(form: Form) -> Vfs {
    let vfs = Vfs::mem(seed());
    let store = options(form).open_in(&vfs, "a.db").unwrap();
    store.set("n", &1_u64).unwrap();
    store.back_up().unwrap();
    store.set("n", &2_u64).unwrap();
    store.close().unwrap();
    vfs
}

fn value(vfs: &Vfs, name: &str) -> Option<u64> {
    let store = Store::options().read_only(true).open_in(vfs, name).unwrap();
    store.get("n").unwrap()
}

/// Returns the same as [`backed_up`], with a restore of 1 that was decided and interrupted.
fn pending(form: Form) -> Vfs {
    let base = FaultDir::new();
    for (name, bytes) in files(&backed_up(form)) {
        crate::common::write(&base.vfs(seed()), &name, &bytes);
    }
    for call in 0.. {
        let disk = base.duplicate();
        disk.cut_power_at(disk.calls() + call, Side::Before);
        let done = Backups::of_in(&disk.vfs(seed()), "a.db").restore(1);
        let vfs = disk.reboot(Survivors::Everything).vfs(seed());
        if vfs.dir.metadata("a.db.bak.restore").unwrap().is_some() {
            return vfs;
        }
        assert!(done.is_err(), "{form}: no restore was interrupted");
    }
    unreachable!("a restore ends")
}

/// Returns the number of times that an opening that falls back to a backup takes the lock of the
/// store.
fn locks_of_a_fall_back(form: Form) -> usize {
    let vfs = backed_up(form);
    vfs.dir.remove("a.db").unwrap();
    let locks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&locks);
    let watched = Observed::vfs(&vfs, move |call| {
        counted.fetch_add(usize::from(is_lock(call)), Ordering::SeqCst);
    });
    let falling = options(form).fall_back_to_backup(true);
    drop(falling.open_in(&watched, "a.db").unwrap());
    locks.load(Ordering::SeqCst)
}

#[test]
fn a_store_that_another_process_has_mended_meanwhile_is_not_replaced_with_a_backup() {
    for form in FORMS {
        let locks = locks_of_a_fall_back(form);
        assert!(locks >= 2, "{form}: to replace it, and to read what took its place");
        // The store is missing at first, and is there again when the lock is taken again.
        for nth in 1..=locks {
            let vfs = backed_up(form);
            vfs.dir.remove("a.db").unwrap();
            let inner = vfs.clone();
            let watched = before_call(&vfs, nth, is_lock, move || {
                let falling = options(form).fall_back_to_backup(true);
                let other = falling.open_in(&inner, "a.db").unwrap();
                other.set("n", &3_u64).unwrap();
                other.close().unwrap();
            });
            let falling = options(form).fall_back_to_backup(true);
            let store = falling.open_in(&watched, "a.db").unwrap();
            assert_eq!(store.get::<u64>("n").unwrap(), Some(3), "{form}: at lock {nth}");
            store.close().unwrap();
            assert_eq!(value(&vfs, "a.db"), Some(3), "{form}: at lock {nth}");
        }
    }
}

/// Another process finishes a restore that was pending at the first check.
#[test]
fn a_restore_that_another_process_has_finished_meanwhile_is_not_finished_again() {
    for form in FORMS {
        // For opening, and for removing backups.
        type Enter = fn(&Vfs);
        let entries: [Enter; 2] = [
            |vfs| drop(Store::options().open_in(vfs, "a.db").unwrap()),
            |vfs| drop(Backups::of_in(vfs, "a.db").prune(1).unwrap()),
        ];
        for enter in entries {
            let vfs = pending(form);
            let inner = vfs.clone();
            let watched = before_call(&vfs, 1, is_lock, move || {
                let other = options(form).open_in(&inner, "a.db").unwrap();
                assert_eq!(other.get::<u64>("n").unwrap(), Some(1), "{form}");
                other.set("n", &3_u64).unwrap();
                other.close().unwrap();
            });
            enter(&watched);
            assert_eq!(value(&vfs, "a.db"), Some(3), "{form}");
            assert_eq!(value(&vfs, "a.db.replaced.1"), Some(2), "{form}");
            assert!(vfs.dir.metadata("a.db.replaced.2").unwrap().is_none(), "{form}");
        }
    }
}

/// The files to keep, including the log of a Wal store, are determined under the lock.
#[test]
fn a_restore_keeps_what_was_written_until_it_had_the_lock() {
    for form in FORMS {
        let vfs = backed_up(form);
        let inner = vfs.clone();
        let watched = before_call(&vfs, 1, is_lock, move || {
            let other = options(form).open_in(&inner, "a.db").unwrap();
            other.checkpoint().unwrap();
            other.set("n", &3_u64).unwrap();
            other.close().unwrap();
        });
        let restored = Backups::of_in(&watched, "a.db").restore(1).unwrap();
        let wal = usize::from(form == Form::Wal);
        assert_eq!(restored.replaced.len(), 1 + wal, "{form}: {restored:?}");
        assert_eq!(value(&vfs, "a.db"), Some(1), "{form}");
        assert_eq!(value(&vfs, "a.db.replaced.1"), Some(3), "{form}");
        let segments = files(&vfs).into_keys().filter(|name| name.starts_with("a.db.wal."));
        assert_eq!(segments.count(), 0, "{form}: a log beside an image that does not continue it");
    }
}

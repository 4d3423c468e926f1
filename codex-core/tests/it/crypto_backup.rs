//! Tests of keys and backups: each backup opens with the key that the store had when it was made.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::{FORMS, Pace, scaled, seed};
use codex_core::crypto::Key;
use codex_core::vfs::Vfs;
use codex_core::vfs::fault::{
    CrashChoice, Fault, FaultDir, Mishap, Survivors, each_fault, each_power_cut,
};
use codex_core::{
    BackupPolicy, Backups, CheckpointPolicy, Conversion, Error, Form, OpenOptions, Result,
    StorageError, Store,
};

pub(crate) const NAME: &str = "a.db";

pub(crate) fn key(n: u8) -> Key {
    Key::raw(&[n; 32]).unwrap()
}

pub(crate) fn options(form: Form) -> OpenOptions {
    let options = Store::options().form(form).backups(BackupPolicy::keep(4));
    if form != Form::Wal {
        return options;
    }
    // Makes the close leave a log.
    options.checkpoint(CheckpointPolicy::default().close_into_image_bytes_max(0))
}

/// Returns which of the keys 1, 2 and 3 open the file `name`, and the value of `n` in it.
fn opened_by_any(vfs: &Vfs, name: &str, context: &dyn std::fmt::Display) -> Vec<(u8, u64)> {
    let tried = [1, 2, 3].map(|n| {
        let options = Store::options().read_only(true).key(key(n));
        match options.open_in(vfs, name) {
            Ok(store) => Some((n, store.get("n").unwrap().unwrap())),
            Err(Error::Storage(StorageError::WrongKey { .. })) => None,
            Err(error) => panic!("{name} with key {n}: {error}; {context}"),
        }
    });
    tried.into_iter().flatten().collect()
}

/// Does the same as [`opened_by_any`] for a file that exactly one key opens.
fn opened_by(vfs: &Vfs, name: &str, context: &dyn std::fmt::Display) -> (u8, u64) {
    match *opened_by_any(vfs, name, context) {
        [one] => one,
        ref found => panic!("{name}: {found:?}; {context}"),
    }
}

/// Returns the key that opens each backup, and its contents, the newest first.
pub(crate) fn backups(vfs: &Vfs, context: &dyn std::fmt::Display) -> Vec<(u8, u64)> {
    let listed = Backups::of_in(vfs, NAME).list().unwrap();
    let names = listed.into_iter().map(|entry| {
        entry.facts.unwrap_or_else(|e| panic!("{e}; {context}"));
        let (n, value) = opened_by(vfs, &entry.name, context);
        let full = Backups::of_in(vfs, NAME).key(key(n)).verify(entry.index);
        full.unwrap_or_else(|e| panic!("{e}; {context}"));
        (n, value)
    });
    names.collect()
}

#[test]
fn a_store_that_closed_into_another_image_of_the_same_state_is_unchanged() {
    let vfs = Vfs::mem(1);
    let open = || Store::options().key(key(1)).open_in(&vfs, NAME).unwrap();
    let store = open();
    store.set("n", &1_u64).unwrap();
    assert!(store.back_up().unwrap().method.is_some());
    store.close().unwrap();
    drop(store);
    assert!(open().back_up().unwrap().method.is_none(), "the same history in another file");
}

#[test]
fn after_a_rekey_or_a_change_of_key_the_next_backup_opens_with_the_new_key_alone() {
    for form in FORMS {
        let vfs = Vfs::mem(1);
        let store = options(form).key(key(1)).open_in(&vfs, NAME).unwrap();
        let rotates = || store.back_up().unwrap().method.is_some();
        store.set("n", &1_u64).unwrap();
        assert!(rotates() && !rotates(), "{form}");
        // The same commits under another root.
        store.rekey(key(2)).unwrap();
        assert_eq!(backups(&vfs, &form), [(1, 1)]);
        assert!(rotates() && !rotates(), "{form}: a rekey alone");
        assert_eq!(backups(&vfs, &form), [(2, 1), (1, 1)], "{form}");
        // The same root under another key.
        store.change_key(key(3)).unwrap();
        assert!(rotates() && !rotates(), "{form}: a change of key alone");
        assert_eq!(backups(&vfs, &form), [(3, 1), (2, 1), (1, 1)], "{form}");
        store.set("n", &2_u64).unwrap();
        store.rekey(key(1)).unwrap();
        assert!(rotates() && !rotates(), "{form}: a commit and a rekey");
        let all = [(1, 2), (3, 1), (2, 1), (1, 1)];
        assert_eq!(backups(&vfs, &form), all, "{form}");
        store.close().unwrap();
        drop(store);
        // Neither opening again nor a restore changes the key.
        let store = options(form).key(key(1)).open_in(&vfs, NAME).unwrap();
        assert!(store.back_up().unwrap().method.is_none(), "{form}: opened again");
        drop(store);
        Backups::of_in(&vfs, NAME).restore(3).unwrap();
        assert_eq!(opened_by(&vfs, NAME, &form), (2, 1), "{form}");
        assert_eq!(backups(&vfs, &form), all, "{form}");
        let store = options(form).key(key(2)).open_in(&vfs, NAME).unwrap();
        store.set("n", &3_u64).unwrap();
        store.back_up().unwrap();
        assert_eq!(backups(&vfs, &form)[..2], [(2, 3), (1, 2)], "{form}");
    }
}

#[test]
fn the_first_backup_of_a_store_that_was_encrypted_since_is_encrypted() {
    for form in FORMS {
        let vfs = Vfs::mem(2);
        let store = options(form).open_in(&vfs, NAME).unwrap();
        store.set("n", &1_u64).unwrap();
        store.back_up().unwrap();
        store.close().unwrap();
        drop(store);
        Conversion::new().encrypt(key(1)).convert_in(&vfs, NAME).unwrap();
        let store = options(form).key(key(1)).open_in(&vfs, NAME).unwrap();
        assert!(store.back_up().unwrap().method.is_some(), "{form}");
        assert_eq!(opened_by(&vfs, "a.db.bak.1", &form), (1, 1), "{form}");
        assert!(store.back_up().unwrap().method.is_none(), "{form}");
    }
}

#[test]
fn backups_beside_rekeys_and_writers_are_whole() {
    for form in FORMS {
        let vfs = Vfs::mem(3);
        for n in 0..3_u64 {
            // Each opening leaves frames in a ledger that a rekey does not copy, so the offsets
            // differ.
            let store = options(form).key(key(1)).open_in(&vfs, NAME).unwrap();
            store.set("n", &n).unwrap();
        }
        let store = options(form).key(key(1)).open_in(&vfs, NAME).unwrap();
        let (pace, rounds) = (Pace::default(), scaled(100));
        let rekeys = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pace.each(|n| (0..5).for_each(|_| store.set("n", &u64::from(n)).unwrap()));
            });
            // One per round: a backup begins again a few times if the image is replaced.
            scope.spawn(|| {
                pace.each(|_| {
                    store.rekey(key(1)).unwrap();
                    rekeys.fetch_add(1, Ordering::Relaxed);
                });
            });
            let _end = pace.end();
            for round in 0..rounds {
                pace.allow(1);
                let before = store.snapshot().seq();
                let seq = store.back_up().unwrap().facts.seq;
                assert!(seq >= before, "{form}: {seq}, and {before} was there");
                Backups::of_in(&vfs, NAME).key(key(1)).verify(1).unwrap();
                let copy = format!("copy {round}");
                let on = &mut |_| ControlFlow::Continue(());
                assert!(store.backup_to_in(&vfs, &copy, on).unwrap() >= seq, "{form}");
                let copied = Store::options().key(key(1)).read_only(true).open_in(&vfs, &copy);
                assert_eq!(copied.unwrap().recovered().cut, None, "{form}");
                vfs.dir.remove(&copy).unwrap();
            }
        });
        assert_eq!(rekeys.into_inner(), rounds, "{form}");
    }
}

/// The method of replacing the key.
#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Change,
    Rekey,
}

/// Returns a closed store under key 1 with a backup of its last commit and one of an earlier
/// commit.
fn base(form: Form) -> FaultDir {
    let disk = FaultDir::new();
    let store = options(form).key(key(1)).open_in(&disk.vfs(seed()), NAME).unwrap();
    for n in 1..=2_u64 {
        store.set("n", &n).unwrap();
        store.back_up().unwrap();
    }
    store.close().unwrap();
    disk.reboot(Survivors::Everything)
}

/// The progress of a story before it was cut or failed.
#[derive(Default)]
struct Told {
    replaced: bool,
    done: bool,
}

/// Opens the store, replaces its key, and makes a backup.
fn story(disk: &FaultDir, form: Form, what: What) -> Told {
    let mut told = Told::default();
    let run = |told: &mut Told| -> Result<()> {
        let vfs = disk.vfs(seed() + disk.calls());
        let store = options(form).key(key(1)).open_in(&vfs, NAME)?;
        match what {
            What::Change => store.change_key(key(2))?,
            What::Rekey => store.rekey(key(2))?,
        }
        told.replaced = true;
        store.back_up()?;
        told.done = true;
        store.close()
    };
    // The progress shows which step failed.
    drop(run(&mut told));
    told
}

/// Checks a disk after any interruption. One key opens the store, each backup opens with the key
/// under which it was made, none is lost, and the next backup opens with the key of the store.
fn goes_on(disk: &FaultDir, form: Form, told: &Told, context: &Mishap<'_>) {
    let vfs = disk.vfs(seed() + disk.calls());
    let found = backups(&vfs, context);
    let (old, new) = ([(1, 2), (1, 1)], [(2, 2), (1, 2), (1, 1)]);
    assert!(found == new || (found == old && !told.done), "{found:?}; {context}");
    // While the header of a ledger is being replaced, either key opens it.
    let opening = opened_by_any(&vfs, NAME, context);
    let fair: &[&[(u8, u64)]] =
        if told.replaced { &[&[(2, 2)]] } else { &[&[(1, 2)], &[(2, 2)], &[(1, 2), (2, 2)]] };
    assert!(fair.contains(&&*opening), "{opening:?}; {context}");
    let now = opening.first().unwrap().0;
    let store = options(form).key(key(now)).open_in(&vfs, NAME);
    let store = store.unwrap_or_else(|e| panic!("{e}; {context}"));
    store.back_up().unwrap_or_else(|e| panic!("{e}; {context}"));
    assert_eq!(opened_by(&vfs, "a.db.bak.1", context), (now, 2), "{context}");
    assert!(store.back_up().unwrap().method.is_none(), "{context}");
    assert!(backups(&vfs, context).ends_with(&[(1, 2), (1, 1)]), "{context}");
    store.close().unwrap();
    for name in vfs.dir.list().unwrap() {
        let fine = [NAME, "a.db.lock", "a.db.bak.lock"].contains(&&*name)
            || name.starts_with("a.db.wal.")
            || codex_backup::backup_index(NAME, &name).is_some();
        assert!(fine, "{name} is left; {context}");
    }
}

#[test]
fn a_power_cut_between_a_new_key_and_its_backup_leaves_each_file_under_one_of_the_keys() {
    for form in FORMS {
        for what in [What::Change, What::Rekey] {
            let choice = CrashChoice {
                seed: seed(),
                images_max: usize::try_from(scaled(12)).unwrap(),
                subset_units_max: 3,
                samples: 2,
                ..Default::default()
            };
            let act = |disk: &FaultDir| story(disk, form, what);
            let shown = each_power_cut(&base(form), &choice, act, |mishap, disk, told| {
                goes_on(disk, form, told, mishap);
            });
            println!("{form} {what:?}: {shown} disks");
            assert!(shown > 40, "{shown}");
        }
    }
}

#[test]
fn an_error_between_a_new_key_and_its_backup_leaves_each_file_under_one_of_the_keys() {
    for form in FORMS {
        for what in [What::Change, What::Rekey] {
            let act = |disk: &FaultDir| story(disk, form, what);
            let faults = [Fault::Eio, Fault::Enospc];
            let runs = each_fault(&base(form), &faults, act, |mishap, disk, told| {
                goes_on(disk, form, told, mishap);
            });
            println!("{form} {what:?}: {runs} runs");
            assert!(runs > 100, "{runs}");
        }
    }
}

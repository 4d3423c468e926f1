//! Tests with power cuts and failing calls at every call of a backup, a hot copy and a restore. No
//! good backup is lost, the store opens, no stray file is left, and errors name the file.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::common::{FORMS, scaled, seed};
use codex_core::vfs::fault::{
    Calls, CrashChoice, Fault, FaultDir, Lasting, Mishap, Side, Space, Survivors, each_fault,
    each_power_cut,
};
use codex_core::vfs::{CallKind, Vfs};
use codex_core::{
    BackupPolicy, Backups, CheckpointPolicy, Error, Form, OpenOptions, RestorePoint, Result,
    StorageError, Store,
};

/// The form of a store, and whether it is encrypted.
#[derive(Debug, Clone, Copy)]
struct Kept {
    form: Form,
    encrypted: bool,
}

impl Kept {
    const fn plain(form: Form) -> Self {
        Self { form, encrypted: false }
    }

    #[cfg(feature = "crypto")]
    const fn sealed(form: Form) -> Self {
        Self { form, encrypted: true }
    }

    fn options(self) -> OpenOptions {
        let mut options =
            self.keyed(Store::options()).form(self.form).backups(BackupPolicy::keep(2));
        if self.form == Form::Wal {
            // The log stays after the close, and a restore must move it away.
            let close_into_image_bytes_max = 0;
            let policy =
                CheckpointPolicy::default().close_into_image_bytes_max(close_into_image_bytes_max);
            options = options.checkpoint(policy);
        }
        options
    }

    #[cfg(feature = "crypto")]
    fn keyed(self, options: OpenOptions) -> OpenOptions {
        if self.encrypted { options.key(key()) } else { options }
    }

    #[cfg(not(feature = "crypto"))]
    fn keyed(self, options: OpenOptions) -> OpenOptions {
        options
    }

    fn open(self, vfs: &Vfs) -> Result<Store> {
        self.options().open_in(vfs, "a.db")
    }

    fn backups(self, vfs: &Vfs) -> Backups {
        let backups = Backups::of_in(vfs, "a.db");
        #[cfg(feature = "crypto")]
        if self.encrypted {
            return backups.key(key());
        }
        backups
    }

    /// Returns the value of `n` in a file, opened at its place.
    fn value_in(self, vfs: &Vfs, name: &str) -> Option<u64> {
        let options = self.keyed(Store::options()).read_only(true);
        options.open_in(vfs, name).unwrap().get("n").unwrap()
    }

    /// Returns a disk with a closed store at commit 3, and with backups of its commits 2 and 1.
    fn disk(self) -> FaultDir {
        let disk = FaultDir::new();
        let store = self.open(&world(&disk)).unwrap();
        for n in 1..=3_u64 {
            store.set("n", &n).unwrap();
            if n < 3 {
                store.back_up().unwrap();
            }
        }
        store.close().unwrap();
        disk.reboot(Survivors::Everything)
    }
}

#[cfg(feature = "crypto")]
fn key() -> codex_core::crypto::Key {
    codex_core::crypto::Key::raw(&[7; 32]).unwrap()
}

/// Returns the disk for a new process. No two processes draw the same random names.
fn world(disk: &FaultDir) -> Vfs {
    disk.vfs(seed() + disk.calls())
}

/// A disk that cannot share blocks, like ext4.
fn no_reflinks(disk: &FaultDir) {
    let reflinks = Calls::of(CallKind::Reflink);
    disk.fail_on(reflinks, 1, Fault::Unsupported, Lasting::Sticky, Side::Before);
}

/// The results of a story before it was cut or failed.
#[derive(Default)]
struct Told {
    store: Option<Store>,
    committed: bool,
    done: bool,
    error: Option<Error>,
    /// The number of changes of bytes and of names that a power cut at its end can lose.
    unsynced: (usize, usize),
}

impl Told {
    fn of(story: impl FnOnce(&mut Self) -> Result<()>) -> Self {
        let mut told = Self::default();
        told.error = story(&mut told).err();
        told
    }

    fn and_unsynced(self, disk: &FaultDir) -> Self {
        Self { unsynced: disk.crash_images(&choice()).unsynced(), ..self }
    }
}

fn back_up(disk: &FaultDir, kept: Kept) -> Told {
    if kept.form == Form::Snapshot {
        no_reflinks(disk);
    }
    Told::of(|told| {
        let store = told.store.insert(kept.open(&world(disk))?).clone();
        store.set("n", &4_u64)?;
        told.committed = true;
        store.back_up()?;
        told.done = true;
        Ok(())
    })
}

fn copy(disk: &FaultDir, kept: Kept) -> Told {
    Told::of(|told| {
        let vfs = world(disk);
        let store = told.store.insert(kept.open(&vfs)?).clone();
        store.set("n", &4_u64)?;
        told.committed = true;
        store.backup_to_in(&vfs, "copy.db", &mut |_| ControlFlow::Continue(()))?;
        told.done = true;
        Ok(())
    })
}

fn restore(disk: &FaultDir, kept: Kept) -> Told {
    Told::of(|told| {
        kept.backups(&world(disk)).restore(2)?;
        told.done = true;
        Ok(())
    })
}

fn restore_until(disk: &FaultDir, kept: Kept) -> Told {
    Told::of(|told| {
        kept.backups(&world(disk)).restore_until(RestorePoint::Seq(2))?;
        told.done = true;
        Ok(())
    })
}

/// Returns the commits of the backups, the newest first. Each must be good.
fn good(kept: Kept, vfs: &Vfs, context: &dyn std::fmt::Display) -> Vec<u64> {
    let backups = kept.backups(vfs);
    let verify = |index| backups.verify(index).unwrap_or_else(|e| panic!("{e}; {context}"));
    let listed = backups.list().unwrap_or_else(|e| panic!("{e}; {context}"));
    listed.iter().map(|entry| verify(entry.index).facts.seq).collect()
}

/// Checks that there are no files except the store, its backups, the copy, replaced files, and
/// locks.
fn no_strays(vfs: &Vfs, context: &dyn std::fmt::Display) {
    for name in vfs.dir.list().unwrap() {
        let known =
            ["a.db", "a.db.lock", "a.db.bak.lock", "copy.db", "copy.db.lock", "copy.db.bak.lock"];
        let fine = known.contains(&&*name)
            || ["a.db.wal.", "copy.db.wal.", "a.db.replaced."]
                .iter()
                .any(|it| name.starts_with(it))
            || codex_backup::backup_index("a.db", &name).is_some();
        assert!(fine, "{name} is left; {context}");
    }
}

/// Returns all subsets of the names and writes that are not durable, up to eight of each. They are
/// combined if that makes few disks; otherwise each is tried with all and none of the others.
/// Beyond eight, returns samples.
fn choice() -> CrashChoice {
    let samples = u64::from(scaled(16));
    CrashChoice {
        seed: seed(),
        images_max: 1_100,
        subset_units_max: 8,
        samples,
        ..Default::default()
    }
}

/// Checks that the store opens with one of `fair`, that its backups are good, and that it can be
/// written.
fn goes_on(kept: Kept, disk: &FaultDir, fair: &[u64], context: &Mishap<'_>) -> Vec<u64> {
    let vfs = world(disk);
    let store = kept.open(&vfs).unwrap_or_else(|e| panic!("{e}; {context}"));
    let n: u64 = store.get("n").unwrap().unwrap();
    assert!(fair.contains(&n), "{n} is not in {fair:?}; {context}");
    no_strays(&vfs, context);
    let found = good(kept, &vfs, context);
    store.set("n", &9_u64).unwrap();
    store.back_up().unwrap_or_else(|e| panic!("{e}; {context}"));
    store.close().unwrap();
    assert_eq!(kept.value_in(&vfs, "a.db.bak.1"), Some(9), "{context}");
    assert_eq!(good(kept, &vfs, context).len(), 2, "{context}");
    no_strays(&vfs, context);
    found
}

/// Cuts the power at each call of `story`, and calls `check` for every disk that this can leave.
fn each_cut(
    kept: Kept,
    story: fn(&FaultDir, Kept) -> Told,
    mut check: impl FnMut(&Mishap<'_>, &FaultDir, &Told),
) {
    let (mut bytes, mut names) = (0, 0);
    let act = |disk: &FaultDir| story(disk, kept).and_unsynced(disk);
    let shown = each_power_cut(&kept.disk(), &choice(), act, |mishap, disk, told| {
        (bytes, names) = (bytes.max(told.unsynced.0), names.max(told.unsynced.1));
        check(mishap, disk, told);
    });
    println!("{kept:?}: {shown} disks, up to {bytes} writes and {names} names unsynced");
    // With more names, not all of their subsets would be tested.
    assert!((1..=8).contains(&names), "{names}");
    assert!(shown > 20, "{shown}");
}

fn cut_in_a_backup(kept: Kept) {
    each_cut(kept, back_up, |mishap, disk, told| {
        good(kept, &world(disk), mishap);
        let fair: &[u64] = if told.committed { &[4] } else { &[3, 4] };
        let found = goes_on(kept, disk, fair, mishap);
        // One backup too many may be left, which the next rotation removes.
        let newest_first = found == [4, 2] || found == [4, 2, 1];
        let fair = newest_first || (!told.done && found == [2, 1]);
        assert!(fair, "{kept:?}: backups of {found:?}; {mishap}");
    });
}

fn cut_in_a_hot_copy(kept: Kept) {
    each_cut(kept, copy, |mishap, disk, told| {
        let vfs = world(disk);
        let is_there = vfs.dir.metadata("copy.db").unwrap().is_some();
        assert!(is_there || !told.done, "{mishap}");
        if !is_there {
            let store = kept.open(&vfs).unwrap_or_else(|e| panic!("{e}; {mishap}"));
            store.set("n", &4_u64).unwrap();
            store.backup_to_in(&vfs, "copy.db", &mut |_| ControlFlow::Continue(())).unwrap();
        }
        let copy = kept.options().open_in(&vfs, "copy.db");
        let copy = copy.unwrap_or_else(|e| panic!("{e}; {mishap}"));
        assert_eq!(copy.get::<u64>("n").unwrap(), Some(4), "{mishap}");
        copy.close().unwrap();
        let fair: &[u64] = if told.committed { &[4] } else { &[3, 4] };
        assert_eq!(goes_on(kept, disk, fair, mishap), [2, 1], "{mishap}");
    });
}

/// Checks a disk after a restore: the store opens in the state before it or in the restored state.
fn restored_or_not(kept: Kept, disk: &FaultDir, done: bool, new: u64, context: &Mishap<'_>) {
    let vfs = world(disk);
    good(kept, &vfs, context);
    let reading = kept.keyed(Store::options()).read_only(true).open_in(&vfs, "a.db");
    let pending = match &reading {
        Ok(_) => false,
        Err(Error::Storage(StorageError::RestorePending { .. })) => true,
        Err(other) => panic!("{other}; {context}"),
    };
    drop(reading);
    assert!(!(pending && done), "{context}");
    let fair: &[u64] = if pending || done { &[new] } else { &[3, new] };
    assert_eq!(goes_on(kept, disk, fair, context), [2, 1], "{context}");
    if vfs.dir.metadata("a.db.replaced.1").unwrap().is_some() {
        assert_eq!(kept.value_in(&vfs, "a.db.replaced.1"), Some(3), "{context}");
    } else {
        assert!(!pending && !done, "{context}");
    }
}

fn cut_in_a_restore(kept: Kept) {
    let mut interrupted = BTreeMap::new();
    each_cut(kept, restore, |mishap, disk, told| {
        let vfs = world(disk);
        if kept.backups(&vfs).pending().unwrap().is_some() {
            let mut names = vfs.dir.list().unwrap();
            names.sort();
            // One disk is enough of those with equal names.
            interrupted.entry(names).or_insert_with(|| disk.duplicate());
        }
        restored_or_not(kept, disk, told.done, 1, mishap);
    });
    assert!(interrupted.len() > 2, "{}", interrupted.len());
    // The power is cut again while the next open finishes the restore.
    let mut shown = 0;
    for base in interrupted.values() {
        let act = |disk: &FaultDir| kept.open(&world(disk)).is_ok();
        shown += each_power_cut(base, &choice(), act, |mishap, disk, _| {
            restored_or_not(kept, disk, false, 1, mishap);
        });
    }
    println!("{kept:?}: {} interrupted restores, {shown} disks", interrupted.len());
}

#[test]
fn a_power_cut_on_the_way_to_an_earlier_commit_ends_in_the_old_ledger_or_the_new_one() {
    for encrypted in [false, cfg!(feature = "crypto")] {
        let kept = Kept { form: Form::Ledger, encrypted };
        each_cut(kept, restore_until, |mishap, disk, told| {
            restored_or_not(kept, disk, told.done, 2, mishap);
        });
    }
}

/// Defines the tests of one kind of store, separate from the others so that they run in parallel.
macro_rules! kept {
    ($($(#[$cfg:meta])? $name:ident: $kept:expr;)*) => {$(
        $(#[$cfg])?
        mod $name {
            use super::*;

            const KEPT: Kept = $kept;

            #[test]
            fn a_power_cut_in_a_backup_costs_no_good_one_and_no_commit() {
                cut_in_a_backup(KEPT);
            }

            #[test]
            fn a_power_cut_in_a_hot_copy_leaves_all_of_it_or_nothing() {
                cut_in_a_hot_copy(KEPT);
            }

            #[test]
            fn a_power_cut_in_a_restore_ends_in_the_old_store_or_the_new_one() {
                cut_in_a_restore(KEPT);
            }

            #[test]
            fn an_error_in_a_backup_costs_no_good_one_and_the_store_goes_on() {
                error_in_a_backup(KEPT);
            }

            #[test]
            fn an_error_in_a_hot_copy_leaves_all_of_it_or_nothing() {
                error_in_a_hot_copy(KEPT);
            }

            #[test]
            fn an_error_in_a_restore_ends_in_the_old_store_or_the_new_one() {
                error_in_a_restore(KEPT);
            }
        }
    )*};
}

kept! {
    wal: Kept::plain(Form::Wal);
    snapshot: Kept::plain(Form::Snapshot);
    ledger: Kept::plain(Form::Ledger);
    #[cfg(feature = "crypto")] sealed_wal: Kept::sealed(Form::Wal);
    #[cfg(feature = "crypto")] sealed_snapshot: Kept::sealed(Form::Snapshot);
    #[cfg(feature = "crypto")] sealed_ledger: Kept::sealed(Form::Ledger);
}

/// Checks a store after an error: the open store continues or is poisoned, and then opens again.
fn survives(kept: Kept, disk: &FaultDir, told: &Told, mishap: &Mishap<'_>) {
    if let Some(error) = &told.error {
        let text = error.to_string();
        assert!(text.contains("a.db") || text.contains("copy.db"), "{text}: no file; {mishap}");
    }
    let Some(store) = &told.store else { return };
    if store.poisoned().is_none() {
        store.set("m", &1_u64).unwrap_or_else(|e| panic!("{e}; {mishap}"));
        store.back_up().unwrap_or_else(|e| panic!("{e}; {mishap}"));
        assert_eq!(good(kept, &world(disk), mishap).len(), 2, "{mishap}");
    }
    // The reported error was checked before.
    let _ = store.close();
}

const FAULTS: [Fault; 2] = [Fault::Eio, Fault::Enospc];

fn error_in_a_backup(kept: Kept) {
    let act = |disk: &FaultDir| back_up(disk, kept);
    let runs = each_fault(&kept.disk(), &FAULTS, act, |mishap, disk, told| {
        let found = good(kept, &world(disk), mishap);
        // A name that was already moved leaves a gap, and the new backup waits for its name.
        let kept_all = found == [2, 1] || found == [4, 2] || found == [2];
        assert!(kept_all, "{kept:?}: backups of {found:?}; {mishap}");
        assert!(told.done || told.error.is_some(), "{mishap}");
        survives(kept, disk, told, mishap);
        goes_on(kept, disk, &[3, 4], mishap);
    });
    println!("{kept:?}: {runs} runs");
    assert!(runs > 100, "{runs}");
}

fn error_in_a_hot_copy(kept: Kept) {
    let act = |disk: &FaultDir| copy(disk, kept);
    let runs = each_fault(&kept.disk(), &FAULTS, act, |mishap, disk, told| {
        let vfs = world(disk);
        assert!(told.done || told.error.is_some(), "{mishap}");
        if vfs.dir.metadata("copy.db").unwrap().is_some() {
            assert_eq!(kept.value_in(&vfs, "copy.db"), Some(4), "{mishap}");
        } else {
            assert!(!told.done, "{mishap}");
        }
        survives(kept, disk, told, mishap);
        for name in vfs.dir.list().unwrap() {
            if name == "copy.db.bak.copy" {
                // The file could not be removed. The next copy with that name does it.
                let store = kept.open(&vfs).unwrap();
                let _ = vfs.dir.remove("copy.db");
                let on = &mut |_| ControlFlow::Continue(());
                store.backup_to_in(&vfs, "copy.db", on).unwrap();
                store.close().unwrap();
            }
        }
        goes_on(kept, disk, &[3, 4], mishap);
    });
    println!("{kept:?}: {runs} runs");
    assert!(runs > 100, "{runs}");
}

fn error_in_a_restore(kept: Kept) {
    let act = |disk: &FaultDir| restore(disk, kept);
    let runs = each_fault(&kept.disk(), &FAULTS, act, |mishap, disk, told| {
        survives(kept, disk, told, mishap);
        assert!(told.done || told.error.is_some(), "{mishap}");
        restored_or_not(kept, disk, told.done, 1, mishap);
    });
    println!("{kept:?}: {runs} runs");
    assert!(runs > 50, "{runs}");
}

/// The removal of the record may not be durable when the store is written again.
#[test]
fn no_power_cut_after_a_restore_that_returned_an_error_takes_later_commits_back() {
    let kept = Kept::plain(Form::Wal);
    let act = |disk: &FaultDir| restore(disk, kept);
    let mut written = 0;
    each_fault(&kept.disk(), &FAULTS, act, |mishap, disk, told| {
        // A restore that is not finished is not of interest here.
        if kept.backups(&world(disk)).pending().unwrap().is_some() {
            return;
        }
        let store = kept.open(&world(disk)).unwrap();
        store.set("n", &9_u64).unwrap();
        std::mem::forget(store);
        written += u32::from(told.error.is_some());
        let images = disk.crash_images(&choice());
        for image in images {
            let reading = Store::options().read_only(true).open_in(&world(&image), "a.db");
            let store = reading.unwrap_or_else(|error| panic!("{error}; {mishap}"));
            assert_eq!(store.get::<u64>("n").unwrap(), Some(9), "{mishap}");
        }
    });
    assert!(written > 10, "{written}");
}

#[test]
fn an_error_on_the_way_to_an_earlier_commit_ends_in_the_old_ledger_or_the_new_one() {
    let kept = Kept::plain(Form::Ledger);
    let act = |disk: &FaultDir| restore_until(disk, kept);
    each_fault(&kept.disk(), &FAULTS, act, |mishap, disk, told| {
        survives(kept, disk, told, mishap);
        restored_or_not(kept, disk, told.done, 2, mishap);
    });
}

#[test]
fn three_failing_backups_on_a_full_disk_cost_none_of_the_three_there_are() {
    for form in FORMS {
        for late in [false, true] {
            let disk = FaultDir::new();
            no_reflinks(&disk);
            let vfs = disk.vfs(seed());
            let store = Store::options().form(form).backups(BackupPolicy::keep(3));
            let store = store.open_in(&vfs, "a.db").unwrap();
            for n in 1..=3_u64 {
                store.set_bytes("n", n.to_le_bytes().repeat(2_000)).unwrap();
                store.back_up().unwrap();
            }
            // There is room for a larger image, but not for a backup of it.
            let room = if form == Form::Snapshot { 11 * 4096 } else { 0 };
            // A checkpoint that frees the log of a Wal would make room for a backup.
            let freed = if form == Form::Wal { 128 << 10 } else { 0 };
            let used = (used_bytes(&vfs) + room).saturating_sub(freed);
            disk.set_space(if late { Space::AtSync(used) } else { Space::AtOnce(used) });
            for n in 4..=6_u64 {
                let written = store.set_bytes(
                    "n",
                    n.to_le_bytes().repeat(if n == 4 || room > 0 { 5_000 } else { 9 }),
                );
                // If the write found no room either, there is nothing to back up.
                let failed = store.back_up();
                assert!(failed.is_err() || written.is_err(), "{form} {late}: {failed:?}");
                let backups = Backups::of_in(&vfs, "a.db");
                let seqs = [1, 2, 3].map(|index| backups.verify(index).unwrap().facts.seq);
                assert_eq!(seqs, [3, 2, 1], "{form} {late}");
            }
            // A store that could not write has nothing to back up.
            if store.back_up().is_err() {
                assert!(store.stats().backups.last_error.unwrap().contains("a.db"));
            } else {
                assert_eq!(store.stats().storage.seq, 3, "{form} {late}");
            }
            disk.set_space(Space::Unlimited);
            let store = if store.poisoned().is_some() {
                drop(store);
                Store::options().backups(BackupPolicy::keep(3)).open_in(&vfs, "a.db").unwrap()
            } else {
                store
            };
            store.set("n", &7_u64).unwrap();
            store.back_up().unwrap();
            let context = format!("{form} {late}");
            no_strays(&vfs, &context);
            assert_eq!(Backups::of_in(&vfs, "a.db").list().unwrap().len(), 3, "{context}");
        }
    }
}

/// Returns the disk space of the files, in whole blocks, counting each block once.
fn used_bytes(vfs: &Vfs) -> u64 {
    let found = |name: &String| vfs.dir.metadata(name).unwrap().unwrap();
    let names = vfs.dir.list().unwrap();
    names.iter().map(|name| found(name).len.div_ceil(4096) * 4096).sum()
}

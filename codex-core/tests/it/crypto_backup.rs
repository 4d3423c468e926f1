//! Keys and backups: each backup opens with the key that was the store's when it was made.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::common::{FORMS, scaled, seed};
use codex_core::crypto::Key;
use codex_core::vfs::Vfs;
use codex_core::vfs::fault::{
    CrashChoice, Fault, FaultDir, Mishap, Survivors, each_fault, each_power_cut,
};
use codex_core::{
    BackupPolicy, Backups, CheckpointPolicy, Conversion, Error, Form, OpenOptions, Result,
    StorageError, Store, Trust,
};

const NAME: &str = "a.db";

fn key(n: u8) -> Key {
    Key::raw(&[n; 32]).unwrap()
}

fn options(form: Form) -> OpenOptions {
    let options = Store::options().form(form).backups(BackupPolicy::keep(4));
    if form != Form::Wal {
        return options;
    }
    // So that closing leaves a log.
    options.checkpoint(CheckpointPolicy { close_into_image_bytes_max: 0, ..Default::default() })
}

/// Which of the keys 1, 2 and 3 open the file `name`, and the value of `n` that it has then.
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

/// As [`opened_by_any`], of a file that exactly one key opens.
fn opened_by(vfs: &Vfs, name: &str, context: &dyn std::fmt::Display) -> (u8, u64) {
    match *opened_by_any(vfs, name, context) {
        [one] => one,
        ref found => panic!("{name}: {found:?}; {context}"),
    }
}

/// By which key each backup opens and what it holds, newest first.
fn backups(vfs: &Vfs, context: &dyn std::fmt::Display) -> Vec<(u8, u64)> {
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
        // Opening again is no change of key, nor is a restore.
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

/// Tells the other threads to end, also when this one panics.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn backups_beside_rekeys_and_writers_are_whole() {
    for form in FORMS {
        let vfs = Vfs::mem(3);
        for n in 0..3_u64 {
            // Each open leaves frames in a ledger that a rekey does not copy, so offsets differ.
            let store = options(form).key(key(1)).open_in(&vfs, NAME).unwrap();
            store.set("n", &n).unwrap();
        }
        let store = options(form).key(key(1)).open_in(&vfs, NAME).unwrap();
        let stop = AtomicBool::new(false);
        let (rekeys, rounds) = (AtomicU32::new(0), scaled(100));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    store.set("n", &n).unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    store.rekey(key(1)).unwrap();
                    rekeys.fetch_add(1, Ordering::Relaxed);
                    // A backup begins anew when the image is replaced, a few times.
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let _stop = StopAtEnd(&stop);
            for round in 0..rounds {
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
        let rekeys = rekeys.into_inner();
        println!("{form}: {rounds} backups and copies beside {rekeys} rekeys");
        assert!(rekeys > 0);
    }
}

/// How the key is replaced.
#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Change,
    Rekey,
}

/// A closed store under key 1 with a backup of its last commit and one before it.
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

/// How far a story came before it was cut or failed.
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
    // What failed shows in how far it came.
    drop(run(&mut told));
    told
}

/// Whatever was interrupted: one key opens the store, every backup opens with the key it was made
/// under, none was lost, and the next backup opens with the key of the store.
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

/// A store with a backup of each of its two commits; at most two are kept.
fn twice_backed_up(vfs: &Vfs, form: Form) -> Store {
    let options = options(form).backups(BackupPolicy::keep(2));
    let store = options.key(key(1)).open_in(vfs, NAME).unwrap();
    for n in 1..=2_u64 {
        store.set("n", &n).unwrap();
        store.back_up().unwrap();
    }
    store
}

/// What a person plants who can write files and has no key.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Planted {
    /// A file of this store's id that is not encrypted.
    Plain,
    /// One that is encrypted under their own key.
    OtherRoot,
    /// The newest backup with a changed block, and checksums that are right.
    Altered,
}

const PLANTED: [Planted; 3] = [Planted::Plain, Planted::OtherRoot, Planted::Altered];

/// The bytes of such a file, of the store's last commit.
fn planted(vfs: &Vfs, form: Form, what: Planted) -> Vec<u8> {
    let genuine = crate::common::read(vfs, "a.db.bak.1");
    if what == Planted::Altered {
        return altered(genuine, form);
    }
    let theirs = Vfs::mem(99);
    let options = Store::options().form(form);
    let options = if what == Planted::Plain { options } else { options.key(key(9)) };
    let store = options.open_in(&theirs, NAME).unwrap();
    store.set("n", &1_u64).unwrap();
    store.set("n", &77_u64).unwrap();
    store.close().unwrap();
    let mut bytes = crate::common::read(&theirs, NAME);
    bytes[16..32].copy_from_slice(&genuine[16..32]);
    let sum = crc32c::crc32c(&bytes[..508]);
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
    if form != Form::Ledger {
        // An image has its header twice.
        let second = bytes.len() - 512;
        bytes.copy_within(..512, second);
    }
    bytes
}

/// The same file with a flipped bit in its last block or frame, below checksums that are right.
fn altered(mut bytes: Vec<u8>, form: Form) -> Vec<u8> {
    let file_id = crc32c::crc32c(&bytes[32..48]);
    let repair = |bytes: &mut [u8], at: usize, len: usize| {
        let sum = crc32c::crc32c_append(file_id, &bytes[at..at + len]);
        bytes[at + len..at + len + 4].copy_from_slice(&sum.to_le_bytes());
    };
    assert_ne!(form, Form::Ledger);
    let (block, footer) = (512, bytes.len() - 512 - 96);
    let len = u32::from_le_bytes(bytes[block + 12..block + 16].try_into().unwrap()) as usize;
    let payload = block + 32..block + 32 + len;
    bytes[payload.start] ^= 1;
    let sum = crc32c::crc32c(&bytes[payload]).to_le_bytes();
    bytes[block + 24..block + 28].copy_from_slice(&sum);
    repair(&mut bytes, block, 28);
    let sum = crc32c::crc32c(&sum).to_le_bytes();
    bytes[footer + 4..footer + 8].copy_from_slice(&sum);
    repair(&mut bytes, footer, 92);
    bytes
}

/// Every kind of planted file, in every form that has one.
fn each_planted() -> impl Iterator<Item = (Form, Planted)> {
    let all = FORMS.into_iter().flat_map(|form| PLANTED.map(|what| (form, what)));
    all.filter(|case| *case != (Form::Ledger, Planted::Altered))
}

fn tools(vfs: &Vfs) -> Backups {
    Backups::of_in(vfs, NAME).key(key(1))
}

/// The values in the backups that the store's key opens, newest first.
fn genuine(vfs: &Vfs) -> Vec<u64> {
    let names = (1..20).map(|index| format!("{NAME}.bak.{index}"));
    let value = |name: String| {
        let store = Store::options().read_only(true).key(key(1)).open_in(vfs, &name).ok()?;
        store.get("n").unwrap()
    };
    names.filter_map(value).collect()
}

/// Damages the store's own header, of an image both: one would be repaired.
fn damage_main(vfs: &Vfs) {
    let mut bytes = crate::common::read(vfs, NAME);
    let second = bytes.len() - 512;
    bytes[100] ^= 1;
    bytes[second + 100] ^= 1;
    crate::common::write(vfs, NAME, &bytes);
}

#[test]
fn a_planted_backup_counts_for_nothing_where_the_key_is_known() {
    for (form, what) in each_planted() {
        let vfs = Vfs::mem(5);
        let case = format!("{form} {what:?}");
        let store = twice_backed_up(&vfs, form);
        let bytes = planted(&vfs, form, what);
        vfs.dir.rename("a.db.bak.2", "a.db.bak.3").unwrap();
        vfs.dir.rename("a.db.bak.1", "a.db.bak.2").unwrap();
        crate::common::write(&vfs, "a.db.bak.1", &bytes);
        assert_eq!(genuine(&vfs), [2, 1], "{case}");
        // The tools.
        let trust = |tools: Backups| tools.list().unwrap().iter().map(|it| it.trust).collect();
        let (listed, unkeyed): (Vec<_>, Vec<_>) =
            (trust(tools(&vfs)), trust(Backups::of_in(&vfs, NAME)));
        let seen = match what {
            Planted::Plain => Trust::Plain,
            Planted::OtherRoot => Trust::OtherKey,
            Planted::Altered => Trust::Authentic, // Its header is.
        };
        assert_eq!(listed, [seen, Trust::Authentic, Trust::Authentic], "{case}");
        assert_eq!(unkeyed, [Trust::Unchecked; 3], "{case}");
        let why = match what {
            Planted::Plain => "is not authentic under the key",
            Planted::OtherRoot => "the one given does not open it",
            Planted::Altered => "the bytes at offset 512 were changed, moved or replaced",
        };
        let refused = tools(&vfs).verify(1).unwrap_err().to_string();
        assert!(refused.contains(why), "{case}: {refused}");
        let found = tools(&vfs).newest_good().unwrap();
        assert_eq!(found.good.unwrap().index, 2, "{case}");
        assert_eq!(tools(&vfs).prune(2).unwrap(), [""; 0], "{case}");
        store.close().unwrap();
        drop(store);
        let refused = tools(&vfs).restore(1).unwrap_err().to_string();
        assert!(refused.contains(why), "{case}: {refused}");
        // A damaged store falls back to a genuine one, and to the older state if asked to.
        damage_main(&vfs);
        let falling = options(form).key(key(1)).fall_back_to_backup(true);
        let store = falling.open_in(&vfs, NAME).unwrap();
        assert_eq!(store.get::<u64>("n").unwrap(), Some(2), "{case}");
        assert_eq!(store.restored().unwrap().from.as_deref(), Some("a.db.bak.2"), "{case}");
        drop(store);
        // A rotation: nothing is unchanged, and the planted one pushes no genuine one out.
        let policy = BackupPolicy::keep(2);
        let store = options(form).backups(policy).key(key(1)).open_in(&vfs, NAME).unwrap();
        assert!(store.back_up().unwrap().method.is_some(), "{case}");
        assert_eq!(genuine(&vfs)[..2], [2, 2], "{case}");
        store.set("n", &3_u64).unwrap();
        store.back_up().unwrap();
        assert_eq!(genuine(&vfs), [3, 2], "{case}");
        assert_eq!(Backups::of_in(&vfs, NAME).list().unwrap().len(), 2, "{case}");
    }
}

#[test]
fn only_planted_backups_leave_a_damaged_store_as_it_is() {
    for (form, what) in each_planted() {
        let vfs = Vfs::mem(5);
        let store = twice_backed_up(&vfs, form);
        let bytes = planted(&vfs, form, what);
        store.close().unwrap();
        drop(store);
        crate::common::write(&vfs, "a.db.bak.1", &bytes);
        vfs.dir.rename("a.db.bak.2", "a.db.bak.new").unwrap();
        crate::common::write(&vfs, "a.db.bak.new", &bytes);
        damage_main(&vfs);
        let before = crate::common::read(&vfs, NAME);
        let falling = options(form).key(key(1)).fall_back_to_backup(true);
        let error = falling.open_in(&vfs, NAME).unwrap_err();
        assert!(error.is_damage(), "{form} {what:?}: {error}");
        assert!(!error.to_string().contains("without"), "{form} {what:?}: {error}");
        assert_eq!(crate::common::read(&vfs, NAME), before, "{form} {what:?}");
    }
}

#[test]
fn a_planted_backup_without_its_name_is_left_and_stops_no_rotation() {
    for (form, what) in each_planted() {
        let vfs = Vfs::mem(5);
        let case = format!("{form} {what:?}");
        let store = twice_backed_up(&vfs, form);
        let bytes = planted(&vfs, form, what);
        drop(store);
        crate::common::write(&vfs, "a.db.bak.new", &bytes);
        let options = options(form).backups(BackupPolicy::keep(2)).key(key(1));
        let store = options.open_in(&vfs, NAME).unwrap();
        assert_eq!(store.stats().backups.last_error, None, "{case}");
        assert_eq!(genuine(&vfs), [2, 1], "{case}: after opening");
        for n in 3..=5_u64 {
            store.set("n", &n).unwrap();
            let rotated = store.back_up().unwrap();
            assert_eq!(rotated.adopted.left, ["a.db.bak.new"], "{case}");
            assert_eq!(genuine(&vfs), [n, n - 1], "{case}");
        }
        assert_eq!(crate::common::read(&vfs, "a.db.bak.new"), bytes, "{case}");
    }
}

#[test]
fn a_rotten_backup_is_not_taken_for_the_newest_version() {
    for form in FORMS {
        for encrypted in [false, true] {
            let vfs = Vfs::mem(5);
            let options = options(form);
            let options = if encrypted { options.key(key(1)) } else { options };
            let store = options.open_in(&vfs, NAME).unwrap();
            store.set("n", &1_u64).unwrap();
            store.back_up().unwrap();
            assert!(store.back_up().unwrap().method.is_none(), "{form} {encrypted}");
            let mut bytes = crate::common::read(&vfs, "a.db.bak.1");
            // In the first block of an image: behind its head, which the facts of a file show.
            bytes[512 + 40] ^= 1;
            crate::common::write(&vfs, "a.db.bak.1", &bytes);
            assert!(store.back_up().unwrap().method.is_some(), "{form} {encrypted}");
            assert!(store.back_up().unwrap().method.is_none(), "{form} {encrypted}");
            // Nor does a rotten one take the place of a good one that waits for its name.
            drop(store);
            vfs.dir.rename("a.db.bak.1", "a.db.bak.new").unwrap();
            crate::common::write(&vfs, "a.db.bak.1", &bytes);
            let store = options.open_in(&vfs, NAME).unwrap();
            assert!(store.back_up().unwrap().method.is_none(), "{form} {encrypted}");
            assert!(Backups::of_in(&vfs, NAME).verify(1).is_ok(), "{form} {encrypted}");
        }
    }
}

#[test]
fn forged_times_of_verification_disown_no_backup() {
    for form in FORMS {
        let vfs = Vfs::mem(5);
        let store = twice_backed_up(&vfs, form);
        let found = vfs.dir.metadata("a.db.bak.1").unwrap().unwrap();
        let mut forged = b"CDXBKRC1\x01\0\0\0".to_vec();
        forged.extend(found.identity.to_le_bytes());
        forged.extend(found.len.to_le_bytes());
        forged.extend(found.modified_us.to_le_bytes());
        forged.extend(7_i64.to_le_bytes());
        forged.push(1);
        forged.extend([9; 32]);
        forged.extend(crc32c::crc32c(&forged).to_le_bytes());
        let lock = vfs.dir.open("a.db.bak.lock", codex_core::vfs::Open::Write).unwrap();
        lock.set_len(0).unwrap();
        lock.write_all_at(&forged, 0).unwrap();
        let listed = Backups::of_in(&vfs, NAME).list().unwrap();
        assert_eq!(listed[0].verified.unwrap().at_us, 7, "the test forges receipts as they are");
        assert_eq!(tools(&vfs).newest_good().unwrap().good.unwrap().index, 1, "{form}");
        assert!(Backups::of_in(&vfs, NAME).verify(1).is_ok(), "{form}");
        assert!(store.back_up().unwrap().method.is_none(), "{form}");
    }
}

#[test]
fn backups_from_before_a_rekey_stay_until_as_many_new_ones_are_there() {
    for form in FORMS {
        let vfs = Vfs::mem(5);
        let store = twice_backed_up(&vfs, form);
        store.rekey(key(2)).unwrap();
        store.back_up().unwrap();
        assert_eq!(backups(&vfs, &form), [(2, 2), (1, 2), (1, 1)], "{form}");
        store.set("n", &3_u64).unwrap();
        store.back_up().unwrap();
        assert_eq!(backups(&vfs, &form), [(2, 3), (2, 2)], "{form}");
        store.set("n", &4_u64).unwrap();
        store.back_up().unwrap();
        assert_eq!(backups(&vfs, &form), [(2, 4), (2, 3)], "{form}");
    }
}

#[test]
fn a_lone_backup_without_its_name_is_restored() {
    for form in FORMS {
        for falls_back in [false, true] {
            let vfs = Vfs::mem(5);
            twice_backed_up(&vfs, form).close().unwrap();
            vfs.dir.rename("a.db.bak.1", "a.db.bak.new").unwrap();
            vfs.dir.remove("a.db.bak.2").unwrap();
            for name in vfs.dir.list().unwrap() {
                if name == NAME || name.starts_with("a.db.wal.") {
                    vfs.dir.remove(&name).unwrap();
                }
            }
            let plain = options(form).key(key(1)).open_in(&vfs, NAME);
            let plain = plain.map_err(crate::common::storage).map(drop);
            assert!(matches!(plain, Err(StorageError::OnlyBackups { .. })), "{form} {plain:?}");
            if !falls_back {
                tools(&vfs).restore(1).unwrap();
            }
            let falling = options(form).key(key(1)).fall_back_to_backup(falls_back);
            let store = falling.open_in(&vfs, NAME).unwrap();
            assert_eq!(store.get::<u64>("n").unwrap(), Some(2), "{form}");
            assert_eq!(store.restored().is_some(), falls_back, "{form}");
        }
    }
}

#[test]
fn falling_back_honours_the_anchor() {
    for form in FORMS {
        let vfs = Vfs::mem(5);
        let store = twice_backed_up(&vfs, form);
        let early = store.anchor().unwrap();
        store.set("n", &3_u64).unwrap();
        let late = store.anchor().unwrap();
        store.close().unwrap();
        drop(store);
        damage_main(&vfs);
        let before = crate::common::read(&vfs, NAME);
        let falling = options(form).key(key(1)).fall_back_to_backup(true);
        let error = falling.clone().anchor(late).open_in(&vfs, NAME).unwrap_err();
        assert!(error.is_damage(), "{form}: {error}");
        assert_eq!(crate::common::read(&vfs, NAME), before, "{form}");
        let store = falling.anchor(early).open_in(&vfs, NAME).unwrap();
        assert_eq!(store.get::<u64>("n").unwrap(), Some(2), "{form}");
    }
}

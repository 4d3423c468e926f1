//! Tests of files that a person without the key has planted, and of files that decay: which backups
//! count, which are restored, and which are left unchanged.

use crate::common::FORMS;
use codex_core::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side};
use codex_core::vfs::{CallKind, Vfs};
use codex_core::{BackupPolicy, Backups, Conversion, Form, StorageError, Store, Trust};

use super::crypto_backup::{NAME, backups, key, options};

/// Returns a store with a backup of each of its two commits. At most two are kept.
fn twice_backed_up(vfs: &Vfs, form: Form) -> Store {
    let options = options(form).backups(BackupPolicy::keep(2));
    let store = options.key(key(1)).open_in(vfs, NAME).unwrap();
    for n in 1..=2_u64 {
        store.set("n", &n).unwrap();
        store.back_up().unwrap();
    }
    store
}

/// A file that a person with write access, but without the key, plants.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Planted {
    /// A file with the id of this store that is not encrypted.
    Plain,
    /// A file that is encrypted under the person's own key.
    OtherRoot,
    /// The newest backup with a changed block and correct checksums.
    Altered,
}

const PLANTED: [Planted; 3] = [Planted::Plain, Planted::OtherRoot, Planted::Altered];

/// Returns the bytes of such a file, with the last commit of the store.
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

/// Returns the same file with a flipped bit in its last block or frame, and correct checksums.
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

/// Returns every kind of planted file, in every form that has it.
fn each_planted() -> impl Iterator<Item = (Form, Planted)> {
    let all = FORMS.into_iter().flat_map(|form| PLANTED.map(|what| (form, what)));
    all.filter(|case| *case != (Form::Ledger, Planted::Altered))
}

fn tools(vfs: &Vfs) -> Backups {
    Backups::of_in(vfs, NAME).key(key(1))
}

/// Returns the values in the backups that the key of the store opens, the newest first.
fn genuine(vfs: &Vfs) -> Vec<u64> {
    let names = (1..20).map(|index| format!("{NAME}.bak.{index}"));
    let value = |name: String| {
        let store = Store::options().read_only(true).key(key(1)).open_in(vfs, &name).ok()?;
        store.get("n").unwrap()
    };
    names.filter_map(value).collect()
}

/// Damages the header of the store, or both headers of an image, because a single one would be
/// repaired.
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
        // A damaged store falls back to a genuine backup, which has an older state if the options
        // demand it.
        damage_main(&vfs);
        let falling = options(form).key(key(1)).fall_back_to_backup(true);
        let store = falling.open_in(&vfs, NAME).unwrap();
        assert_eq!(store.get::<u64>("n").unwrap(), Some(2), "{case}");
        assert_eq!(store.restored().unwrap().from.as_deref(), Some("a.db.bak.2"), "{case}");
        drop(store);
        // A rotation makes a new backup, and the planted file displaces no genuine one.
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
fn a_planted_backup_at_the_last_name_that_is_kept_pushes_no_genuine_one_out() {
    for (form, what) in each_planted() {
        let vfs = Vfs::mem(5);
        let case = format!("{form} {what:?}");
        let store = twice_backed_up(&vfs, form);
        let bytes = planted(&vfs, form, what);
        crate::common::write(&vfs, "a.db.bak.2", &bytes);
        assert_eq!(genuine(&vfs), [2], "{case}");
        for n in 3..=4_u64 {
            store.set("n", &n).unwrap();
            store.back_up().unwrap();
            assert_eq!(genuine(&vfs), [n, n - 1], "{case}");
            assert_eq!(Backups::of_in(&vfs, NAME).list().unwrap().len(), 2, "{case}");
        }
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
fn a_planted_backup_without_its_number_displaces_no_genuine_one() {
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
        assert!(vfs.dir.metadata("a.db.bak.new").unwrap().is_none(), "{case}");
        // One that is altered can never be good. Another key might open the others.
        let has_number = crate::common::read(&vfs, "a.db.bak.1") == bytes;
        assert_eq!(has_number, what != Planted::Altered, "{case}");
        for n in 3..=5_u64 {
            store.set("n", &n).unwrap();
            let rotated = store.back_up().unwrap();
            assert_eq!(rotated.adopted.left, [""; 0], "{case}");
            assert_eq!(genuine(&vfs)[..2], [n, n - 1], "{case}");
        }
        assert_eq!(Backups::of_in(&vfs, NAME).list().unwrap().len(), 2, "{case}");
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
            // In the first block of an image: after its header, which listing reads.
            bytes[512 + 40] ^= 1;
            crate::common::write(&vfs, "a.db.bak.1", &bytes);
            assert!(store.back_up().unwrap().method.is_some(), "{form} {encrypted}");
            assert!(store.back_up().unwrap().method.is_none(), "{form} {encrypted}");
            // A decayed backup does not displace a good one that waits for its name.
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

/// The order of the numbers is that of the rotations, even if one was interrupted before the key
/// was changed.
#[test]
fn a_backup_that_was_interrupted_before_a_rekey_stays_older_than_those_after_it() {
    for form in FORMS {
        for converts in [false, true] {
            let case = format!("{form}, converted {converts}");
            let disk = FaultDir::new();
            let store = twice_backed_up(&disk.vfs(5), form);
            store.set("n", &3_u64).unwrap();
            let shift = Calls::of(CallKind::Rename).on("a.db.bak.1");
            disk.fail_on(shift, 1, Fault::Eio, Lasting::Once, Side::Before);
            store.back_up().unwrap_err();
            assert!(disk.peek("a.db.bak.new").is_ok(), "{case}");
            let store = if converts {
                store.close().unwrap();
                drop(store);
                let conversion = Conversion::new().key(key(1)).encrypt(key(2));
                conversion.convert_in(&disk.vfs(6), NAME).unwrap();
                let options = options(form).backups(BackupPolicy::keep(2));
                options.key(key(2)).open_in(&disk.vfs(7), NAME).unwrap()
            } else {
                store.rekey(key(2)).unwrap();
                store
            };
            store.set("n", &4_u64).unwrap();
            store.back_up().unwrap();
            let vfs = disk.vfs(8);
            let expected = [(2, 4), (1, 3), (1, 2), (1, 1)];
            assert_eq!(backups(&vfs, &case), expected, "{case}");
            // With the former key again, nothing takes the first place.
            store.close().unwrap();
            drop(store);
            Conversion::new().key(key(2)).decrypt().convert_in(&vfs, NAME).unwrap();
            Store::options().open_in(&vfs, NAME).unwrap();
            assert_eq!(backups(&vfs, &case), expected, "{case}");
        }
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

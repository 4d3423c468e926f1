//! The defects of the Go program that this store follows, each with a test that shows that this
//! one does not have it.

use std::sync::Barrier;
use std::thread;

use crate::common::{FORMS, Files, contents, disk, files, log_name, open, options, storage};
use codex_core::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side, Survivors};
use codex_core::vfs::{CallKind, Vfs};
use codex_core::{Durability, Error, Form, Store};
use codex_storage::Error as E;

/// The forms that keep a log.
const LOGS: [Form; 2] = [Form::Wal, Form::Ledger];

/// Opens or creates `a.db` on the simulated disk.
fn open_on(dir: &FaultDir, form: Form) -> Store {
    options(form).open_in(&dir.vfs(crate::common::seed()), "a.db").unwrap()
}

/// The files of a store with these keys, each set by a commit of its own, that was killed.
fn killed(form: Form, keys: &[&str]) -> Files {
    let vfs = Vfs::mem(crate::common::seed());
    let store = open(&vfs, form);
    for key in keys {
        store.set(key, key).unwrap();
    }
    files(&vfs)
}

/// Where the log of these files ends: behind its last byte that is not zero.
fn end(log: &[u8]) -> usize {
    log.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

fn keys(store: &Store) -> Vec<String> {
    store.keys().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect()
}

#[test]
fn a1_what_is_written_after_a_recovery_is_there_after_the_next() {
    for form in LOGS {
        let mut files = killed(form, &["a", "b"]);
        let log = files.get_mut(&log_name(&files, form)).unwrap();
        // The last bytes of the last frame never arrived.
        let cut = (end(log) - 1) / 64 * 64;
        log[cut..].fill(0);
        let vfs = disk(&files);
        for round in 0..5 {
            let store = open(&vfs, form);
            assert_eq!(store.recovered().cut.is_some(), round == 0, "{form} {round}");
            store.set(format!("later {round}"), &round).unwrap();
            assert_eq!(store.len(), 2 + round, "{form}: a, and one for each round");
        }
        assert_eq!(open(&vfs, form).len(), 6);
    }
}

#[test]
fn a2_a_torn_first_frame_is_reported_and_a_changed_header_is_an_error() {
    for form in LOGS {
        let mut files = killed(form, &["a"]);
        let log = files.get_mut(&log_name(&files, form)).unwrap();
        let cut = (end(log) - 1) / 64 * 64;
        log[cut..].fill(0);
        let store = open(&disk(&files), form);
        assert!(store.is_empty());
        let cut = store.recovered().cut.as_ref().unwrap();
        assert!(cut.bytes > 0 && cut.seq == 0, "{form}: {cut:?}");
    }
    for form in FORMS {
        let files = killed(form, &["a"]);
        for byte in 0..512 {
            let mut changed = files.clone();
            changed.get_mut("a.db").unwrap()[byte] ^= 1;
            let error = Store::options().open_in(&disk(&changed), "a.db").unwrap_err();
            let named = error.is_damage() || matches!(storage(error), E::NewerVersion { .. });
            assert!(named, "{form}, byte {byte}");
        }
    }
}

#[cfg(feature = "crypto")]
#[test]
fn a2_a_wrong_or_missing_key_is_an_error_and_not_an_empty_store() {
    use codex_core::crypto::Key;
    let key = |byte: u8| Key::raw(&[byte; 32]).unwrap();
    for form in FORMS {
        let vfs = Vfs::mem(crate::common::seed());
        let store = options(form).key(key(1)).open_in(&vfs, "a.db").unwrap();
        store.set("a", "a").unwrap();
        store.close().unwrap();
        let before = files(&vfs);
        let wrong = options(form).key(key(2)).open_in(&vfs, "a.db").unwrap_err();
        assert!(matches!(storage(wrong), E::WrongKey { .. }));
        let missing = options(form).open_in(&vfs, "a.db").unwrap_err();
        assert!(matches!(storage(missing), E::KeyRequired { .. }));
        assert_eq!(files(&vfs), before);
        assert_eq!(options(form).key(key(1)).open_in(&vfs, "a.db").unwrap().len(), 1);
    }
}

#[test]
fn a3_one_flipped_bit_is_an_error_and_not_a_shorter_store() {
    for form in LOGS {
        let names: Vec<String> = (0..20).map(|n| format!("key {n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let files = killed(form, &names);
        let log = log_name(&files, form);
        let bytes = &files[&log];
        // The last frame of a killed log is not covered by a later one.
        let last = end(bytes) - 300;
        let start = bytes[512..].iter().position(|byte| *byte != 0).unwrap() + 512;
        for bit in (start * 8..last * 8).step_by(37) {
            let mut flipped = files.clone();
            flipped.get_mut(&log).unwrap()[bit / 8] ^= 1 << (bit % 8);
            match options(form).open_in(&disk(&flipped), "a.db") {
                Err(error) => assert!(error.is_damage(), "{form}, bit {bit}: {error}"),
                Ok(store) => panic!("{form}: bit {bit} flipped, {} keys of 20", store.len()),
            }
        }
    }
}

#[test]
fn a3_a_lost_sector_that_was_once_durable_is_damage_at_every_level() {
    for form in LOGS {
        for durability in [Durability::Sync, Durability::Os] {
            let vfs = Vfs::mem(crate::common::seed());
            let options = options(form).durability(durability);
            let store = options.open_in(&vfs, "a.db").unwrap();
            for n in 0..12 {
                store.set_bytes(format!("key {n}"), [7; 300]).unwrap();
            }
            store.flush().unwrap();
            let (before, log) = (files(&vfs), log_name(&files(&vfs), form));
            store.set_bytes("behind the flush", [7; 300]).unwrap();
            let after = files(&vfs);
            let start = before[&log].windows(4).position(|bytes| bytes == b"CDXF").unwrap();
            for sector in (start..end(&before[&log]) - 512).step_by(512) {
                let mut lost = after.clone();
                lost.get_mut(&log).unwrap()[sector..sector + 512].fill(0);
                let error = storage(options.open_in(&disk(&lost), "a.db").unwrap_err());
                let damage = matches!(error, E::Damaged { .. });
                assert!(damage, "{form} {durability:?}, sector at {sector}: {error}");
            }
        }
    }
}

#[test]
fn a4_a_failed_append_swallows_nothing_that_follows_it() {
    for form in FORMS {
        for fault in [Fault::Eio, Fault::ShortWrite(70), Fault::Enospc] {
            let dir = FaultDir::new();
            let store = open_on(&dir, form);
            store.set("a", "a").unwrap();
            dir.fail_on(Calls::of(CallKind::Write), 1, fault, Lasting::Once, Side::Before);
            let failed = store.set("b", "b").unwrap_err();
            assert_eq!(keys(&store), ["a"], "{form}: {failed}");
            if failed.is_in_doubt() {
                assert!(store.set("c", "c").unwrap_err().is_poisoned(), "{form}");
            }
            drop(store);
            dir.clear_plan();
            let store = open_on(&dir, form);
            store.set("c", "c").unwrap();
            store.set("d", "d").unwrap();
            drop(store);
            let found = keys(&open_on(&dir, form));
            assert!(found.ends_with(&["c".into(), "d".into()]), "{form} {fault:?}: {found:?}");
        }
    }
}

#[test]
fn a5_a_batch_is_one_frame_and_torn_anywhere_it_is_wholly_absent() {
    for form in LOGS {
        let vfs = Vfs::mem(crate::common::seed());
        let store = open(&vfs, form);
        store.set("before", &0).unwrap();
        let groups = store.stats().storage.groups;
        let (before, log) = (files(&vfs), log_name(&files(&vfs), form));
        let mut batch = store.batch();
        for n in 0..20 {
            batch.set(format!("key {n}"), &n).unwrap();
        }
        batch.commit().unwrap();
        assert_eq!(store.stats().storage.groups, groups + 1, "{form}: one frame");
        let after = files(&vfs);
        assert_eq!(open(&disk(&after), form).len(), 21);
        let (from, to) = (end(&before[&log]), end(&after[&log]));
        for cut in from..to {
            let mut torn = after.clone();
            torn.get_mut(&log).unwrap()[cut..to].fill(0);
            let store = open(&disk(&torn), form);
            assert_eq!(keys(&store), ["before"], "{form} torn at {cut}");
        }
    }
}

#[test]
fn a6_failing_backups_on_a_full_disk_cost_no_backup_and_idle_writes_rotate_nothing() {
    use codex_core::vfs::fault::Space;
    use codex_core::{BackupPolicy, Backups};

    let seqs = |dir: &FaultDir| -> Vec<u64> {
        let backups = Backups::of_in(&dir.vfs(1), "a.db");
        (1..=3).map(|index| backups.verify(index).unwrap().facts.seq).collect()
    };
    for form in FORMS {
        let dir = FaultDir::new();
        let vfs = dir.vfs(crate::common::seed());
        let options = options(form).backups(BackupPolicy::keep(3));
        let store = options.open_in(&vfs, "a.db").unwrap();
        for n in 1..=3_u64 {
            store.set_bytes("a", vec![u8::try_from(n).unwrap(); 5_000]).unwrap();
            store.back_up().unwrap();
        }
        assert_eq!(seqs(&dir), [3, 2, 1]);
        // What changes nothing makes no backup, and burns no slot.
        assert!(!store.remove("absent").unwrap());
        store.back_up().unwrap();
        assert_eq!(seqs(&dir), [3, 2, 1], "{form}");

        store.set_bytes("b", [4; 100]).unwrap();
        dir.set_space(Space::AtOnce(0));
        for _ in 0..3 {
            let full = store.set_bytes("c", vec![5; 200_000]).unwrap_err();
            assert!(full.is_no_space(), "{form}: {full}");
            // A copy that shares its blocks needs no room: the one that is due succeeds then.
            let kept = if store.back_up().is_ok() { [4, 3, 2] } else { [3, 2, 1] };
            assert_eq!(seqs(&dir), kept, "{form}: every older backup is as good as before");
            // After a power cut, too.
            assert_eq!(seqs(&dir.reboot(Survivors::Nothing)), kept, "{form}");
        }
        dir.set_space(Space::Unlimited);
        store.back_up().unwrap();
        assert_eq!(seqs(&dir), [4, 3, 2], "{form}");
    }
}

#[test]
fn a7_many_writers_lose_nothing_in_any_form() {
    const THREADS: usize = 16;
    const KEYS: usize = 25;
    for form in FORMS {
        let vfs = Vfs::mem(crate::common::seed());
        let store = open(&vfs, form);
        let start = Barrier::new(THREADS);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (store, start) = (&store, &start);
                scope.spawn(move || {
                    start.wait();
                    for n in 0..KEYS {
                        store.set(format!("{thread} {n}"), &(thread, n)).unwrap();
                        store.set("last", &(thread, n)).unwrap();
                    }
                });
            }
        });
        let before = contents(&store);
        assert_eq!(before.len(), THREADS * KEYS + 1);
        // Killed and closed, the disk has what memory had: the same writer was last, too.
        assert_eq!(contents(&open(&disk(&files(&vfs)), form)), before, "{form} killed");
        drop(store);
        assert_eq!(contents(&open(&vfs, form)), before, "{form} closed");
    }
}

#[test]
fn a8_another_form_is_refused_and_left_as_it_is() {
    for found in FORMS {
        for wanted in FORMS.into_iter().filter(|wanted| *wanted != found) {
            let vfs = disk(&killed(found, &["a", "b"]));
            let before = files(&vfs);
            let error = options(wanted).open_in(&vfs, "a.db").unwrap_err();
            assert!(matches!(storage(error), E::WrongForm { .. }));
            assert_eq!(files(&vfs), before);
            assert_eq!(open(&vfs, found).len(), 2, "and it can still be written");
        }
    }
}

#[test]
fn a9_a_checksum_is_never_optional() {
    for form in LOGS {
        let files = killed(form, &["a", "b", "c"]);
        let log = log_name(&files, form);
        let frame = files[&log].windows(4).position(|bytes| bytes == b"CDXF").unwrap();
        for checksum in [frame + 56, frame + 60] {
            let mut without = files.clone();
            without.get_mut(&log).unwrap()[checksum..checksum + 4].fill(0);
            let error = options(form).open_in(&disk(&without), "a.db").unwrap_err();
            assert!(error.is_damage(), "{form}: {error}");
        }
    }
    for form in [Form::Wal, Form::Snapshot] {
        let vfs = Vfs::mem(crate::common::seed());
        let store = open(&vfs, form);
        store.set("a", "a").unwrap();
        store.close().unwrap();
        let files = files(&vfs);
        let image = &files["a.db"];
        // Of the header, of the first block's payload and header, of all blocks, of the footer, of
        // the second header.
        let second = image.len() - 512;
        for checksum in [508, 512 + 24, 512 + 28, second - 92, second - 4, second + 508] {
            let mut without = files.clone();
            without.get_mut("a.db").unwrap()[checksum..checksum + 4].fill(0);
            let error = options(form).open_in(&disk(&without), "a.db").unwrap_err();
            assert!(error.is_damage(), "{form} at {checksum}: {error}");
        }
    }
}

#[test]
fn a10_a_write_that_fails_is_never_seen_in_memory() {
    let mut failed = 0;
    for form in FORMS {
        for kind in [CallKind::Write, CallKind::Sync, CallKind::Allocate, CallKind::Rename] {
            let dir = FaultDir::new();
            let store = open_on(&dir, form);
            store.set("a", &1).unwrap();
            dir.fail_on(Calls::of(kind), 1, Fault::Eio, Lasting::Sticky, Side::Before);
            let long = vec![7_u8; 200_000];
            let writes: [&dyn Fn() -> Result<(), Error>; 6] = [
                &|| store.set_bytes("a", &long),
                &|| store.set_bytes("b", &long),
                &|| store.update("a", |_: Option<i32>| Some(2)).map(|_| ()),
                &|| store.compare_exchange("a", Some(&1), Some(&2)).map(|_| ()),
                &|| store.remove("a").map(|_| ()),
                &|| store.clear(),
            ];
            for (number, write) in writes.iter().enumerate() {
                let before = contents(&store);
                if let Err(error) = write() {
                    let unchanged = contents(&store) == before;
                    assert!(unchanged, "{form} {kind:?}, write {number}: {error}");
                    failed += 1;
                }
            }
        }
    }
    assert!(failed > 20, "{failed} writes failed");
}

#[test]
fn a11_a_failed_open_keeps_no_lock() {
    for form in FORMS {
        let mut damaged = killed(form, &["a"]);
        let whole = damaged.clone();
        damaged.get_mut("a.db").unwrap()[40] ^= 1;
        let vfs = disk(&damaged);
        for _ in 0..3 {
            assert!(options(form).open_in(&vfs, "a.db").unwrap_err().is_damage());
        }
        crate::common::write(&vfs, "a.db", &whole["a.db"]);
        assert_eq!(open(&vfs, form).len(), 1, "{form}: the same directory, the same lock file");
    }
}

#[test]
fn a12_a_write_after_close_is_refused_and_touches_nobody_elses_data() {
    for form in FORMS {
        let vfs = Vfs::mem(crate::common::seed());
        let first = open(&vfs, form);
        first.set("a", "first").unwrap();
        let mut batch = first.batch();
        batch.set("a", "late").unwrap();
        first.close().unwrap();
        let second = open(&vfs, form);
        second.set("a", "second").unwrap();
        assert!(first.set("a", "late").unwrap_err().is_closed());
        assert!(batch.commit().unwrap_err().is_closed());
        assert!(first.flush().unwrap_err().is_closed());
        first.close().unwrap();
        drop(first);
        second.set("b", "second").unwrap();
        drop(second);
        let store = open(&vfs, form);
        assert_eq!(store.get::<String>("a").unwrap().as_deref(), Some("second"), "{form}");
        assert_eq!(keys(&store), ["a", "b"]);
    }
}

#[test]
fn a13_new_files_and_their_names_are_synced_and_no_temporary_file_stays() {
    for form in FORMS {
        let dir = FaultDir::new();
        let store = open_on(&dir, form);
        store.set("a", "a").unwrap();
        // Nothing that was not synced survives: neither bytes nor names.
        let after = dir.reboot(Survivors::Nothing);
        assert_eq!(keys(&open_on(&after, form)), ["a"], "{form}");
        store.checkpoint().unwrap();
        store.set("b", "b").unwrap();
        let after = dir.reboot(Survivors::Nothing);
        assert_eq!(keys(&open_on(&after, form)), ["a", "b"], "{form}");
        store.close().unwrap();
        let left = files(&dir.vfs(1));
        assert!(left.keys().all(|name| !name.contains("tmp")), "{form}: {:?}", left.keys());
    }
}

#[test]
fn a13_a_symbolic_link_stays_one_and_leads_to_the_store() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("disk")).unwrap();
    let (real, link) = (folder.path().join("disk/a.db"), folder.path().join("a.db"));
    for form in FORMS {
        drop(options(form).open(&real).unwrap());
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let store = options(form).open(&link).unwrap();
        store.set("a", "a").unwrap();
        store.checkpoint().unwrap();
        drop(store);
        assert!(link.is_symlink(), "{form}");
        assert_eq!(options(form).open(&real).unwrap().len(), 1, "{form}");
        std::fs::remove_file(&link).unwrap();
        std::fs::remove_dir_all(folder.path().join("disk")).unwrap();
        std::fs::create_dir(folder.path().join("disk")).unwrap();
    }
}

#[test]
fn a14_keys_that_are_not_utf_8_stay_apart() {
    for form in FORMS {
        let vfs = Vfs::mem(crate::common::seed());
        let store = open(&vfs, form);
        // Read as text, the first three are all the replacement character.
        let raw: [&[u8]; 5] = [b"\xFF", b"\xFE", b"\xC3\x28", "\u{FFFD}".as_bytes(), b""];
        for (n, key) in raw.iter().enumerate() {
            store.set(key, &n).unwrap();
        }
        store.close().unwrap();
        let store = open(&vfs, form);
        assert_eq!(store.len(), raw.len());
        for (n, key) in raw.iter().enumerate() {
            assert_eq!(store.get(key).unwrap(), Some(n), "{form}");
        }
    }
}

#[test]
fn c4_user_code_runs_under_no_lock() {
    /// A value whose encoding and decoding use the store, as a user's may.
    #[derive(Debug, PartialEq)]
    struct Nosy(u32);

    thread_local! {
        static STORE: std::cell::RefCell<Option<Store>> = const { std::cell::RefCell::new(None) };
    }
    fn touch() {
        let store = STORE.with(|store| store.borrow().clone()).unwrap();
        store.set("touched", &1).unwrap();
        assert!(store.iter().count() >= 1 && store.get::<i32>("touched").unwrap().is_some());
    }
    impl serde::Serialize for Nosy {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            touch();
            self.0.serialize(serializer)
        }
    }
    impl<'de> serde::Deserialize<'de> for Nosy {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            touch();
            u32::deserialize(deserializer).map(Self)
        }
    }

    /// A key that does so when it is asked for its bytes.
    struct NosyKey(&'static str);
    impl AsRef<[u8]> for NosyKey {
        fn as_ref(&self) -> &[u8] {
            touch();
            self.0.as_bytes()
        }
    }

    for form in FORMS {
        let vfs = Vfs::mem(crate::common::seed());
        let store = open(&vfs, form);
        STORE.set(Some(store.clone()));
        store.set(NosyKey("k"), &1_u8).unwrap();
        assert!(store.contains_key(NosyKey("k")) && store.get_bytes(NosyKey("k")).is_some());
        assert_eq!(store.range(NosyKey("k")..=NosyKey("k")).count(), 1);
        assert_eq!(store.prefix(NosyKey("k")).count(), 1);
        assert!(store.snapshot().contains_key(NosyKey("k")));
        assert!(store.update(NosyKey("k"), |_: Option<u8>| None).unwrap().is_none());
        assert!(!store.remove(NosyKey("k")).unwrap());
        assert_eq!(store.remove_prefix(NosyKey("k")).unwrap(), 0);
        store.set("n", &Nosy(1)).unwrap();
        assert_eq!(store.get("n").unwrap(), Some(Nosy(1)));
        let add = |n: Option<Nosy>| {
            store.update("inner", |n: Option<u32>| Some(n.unwrap_or(0) + 1)).unwrap();
            store.remove("touched").unwrap();
            n.map(|n| Nosy(n.0 + 1))
        };
        assert_eq!(store.update("n", add).unwrap(), Some(Nosy(2)));
        assert!(store.compare_exchange("n", Some(&Nosy(2)), Some(&Nosy(3))).unwrap());
        let mut batch = store.batch();
        batch.set("m", &Nosy(4)).unwrap();
        batch.commit().unwrap();
        let all: Result<Vec<Nosy>, Error> = store.range("m"..="n").map(|e| e.value()).collect();
        assert_eq!(all.unwrap(), [Nosy(4), Nosy(3)], "{form}");
        STORE.set(None);
    }
}

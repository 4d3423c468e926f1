//! Tests of every kind of file that can be at the path, each with its own typed error or its
//! documented success.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use crate::common::{
    FORMS, Files, closed, contents, disk, files, fill, killed, log_name, open, options, read,
    storage,
};
use codex_core::vfs::{CallKind, LockKind, Observed, Vfs};
use codex_core::{Durability, Form, OnDamage, OpenOptions, Store};
use codex_storage::Error as E;

/// Returns the error of opening, after checking that it changed no file and left no lock.
fn refusal(vfs: &Vfs, options: &OpenOptions, name: &str) -> E {
    let before = files(vfs);
    let error = storage(options.open_in(vfs, name).unwrap_err());
    assert_eq!(files(vfs), before, "{error}: a failed open changes nothing");
    if !matches!(error, E::Locked { .. }) {
        let lock = vfs.dir.try_lock(&format!("{name}.lock"), LockKind::Exclusive).unwrap();
        assert!(lock.is_some(), "{error}: a failed open lets go of its lock");
    }
    error
}

#[test]
fn a_new_store_is_created_and_found_again_in_each_form() {
    for form in FORMS {
        let vfs = Vfs::mem(crate::common::seed());
        let store = open(&vfs, form);
        assert_eq!(store.form(), Some(form));
        assert!(store.path().ends_with("a.db"), "{}", store.path().display());
        assert_eq!((store.len(), store.recovered().seq), (0, 0));
        let before = contents(&fill(&store));
        store.close().unwrap();
        drop(store);
        // Without a requested form, any form opens.
        let store = Store::options().open_in(&vfs, "a.db").unwrap();
        assert_eq!(store.form(), Some(form));
        assert_eq!(contents(&store), before);
        assert_eq!(store.recovered().seq, 3);
        assert!(store.recovered().clean);
    }
}

#[test]
fn dropping_the_last_handle_closes_cleanly() {
    for form in FORMS {
        let vfs = Vfs::mem(crate::common::seed());
        drop(fill(&open(&vfs, form)));
        let store = open(&vfs, form);
        assert!(store.recovered().clean, "{form}");
        assert_eq!(store.len(), 3);
    }
}

#[test]
fn a_killed_store_is_recovered_and_says_that_it_was_not_closed() {
    for form in [Form::Wal, Form::Ledger] {
        let store = open(&disk(&killed(form)), form);
        assert_eq!(store.len(), 3, "{form}");
        let recovered = store.recovered();
        assert_eq!((recovered.seq, recovered.replayed, recovered.clean), (3, 3, false), "{form}");
        assert_eq!(recovered.cut, None);
    }
}

#[test]
fn a_garbage_file_is_not_a_database() {
    for garbage in [&b"x"[..], b"SQLite format 3\0", &[0; 600], &[0xAA; 9_000]] {
        let vfs = disk(&Files::from([("a.db".to_owned(), garbage.to_vec())]));
        for options in [Store::options(), options(Form::Ledger), Store::options().read_only(true)] {
            let error = refusal(&vfs, &options, "a.db");
            assert!(matches!(error, E::NotADatabase { .. }), "{error}");
        }
    }
}

#[test]
fn an_empty_file_is_not_taken_for_an_empty_store() {
    let vfs = disk(&Files::from([("a.db".to_owned(), vec![])]));
    for options in [Store::options(), options(Form::Snapshot), Store::options().read_only(true)] {
        let error = refusal(&vfs, &options, "a.db");
        assert!(matches!(error, E::EmptyFile { .. }), "{error}");
    }
}

#[test]
fn another_form_is_named_together_with_the_one_asked_for() {
    for found in FORMS {
        for wanted in FORMS.into_iter().filter(|wanted| *wanted != found) {
            for files in [closed(found), killed(found)] {
                let error = refusal(&disk(&files), &options(wanted), "a.db");
                let named = matches!(
                    error,
                    E::WrongForm { found: f, wanted: w, .. } if (f, w) == (found, wanted)
                );
                assert!(named, "{error}");
            }
        }
    }
}

#[test]
fn a_newer_version_asks_for_a_newer_build() {
    for form in FORMS {
        let mut files = closed(form);
        let file = files.get_mut("a.db").unwrap();
        file[8] = 2;
        if form != Form::Ledger {
            // An image has its header twice.
            let second = file.len() - 512;
            file[second + 8] = 2;
        }
        let error = refusal(&disk(&files), &Store::options(), "a.db");
        assert!(matches!(error, E::NewerVersion { found: 2, supported: 1, .. }), "{error}");
    }
}

#[test]
fn a_missing_store_is_created_only_where_that_is_wanted() {
    let vfs = Vfs::mem(crate::common::seed());
    for options in [Store::options().create(false), Store::options().read_only(true)] {
        let error = refusal(&vfs, &options, "a.db");
        assert!(matches!(error, E::NotFound { .. }), "{error}");
        assert!(files(&vfs).is_empty());
    }
    drop(Store::options().create_new(true).open_in(&vfs, "a.db").unwrap());
    let error = refusal(&vfs, &Store::options().create_new(true), "a.db");
    assert!(matches!(error, E::AlreadyExists { .. }), "{error}");
    drop(Store::options().create(false).open_in(&vfs, "a.db").unwrap());
}

#[test]
fn a_closed_file_cut_at_any_length_is_a_typed_error_or_a_prefix_that_was_not_closed() {
    for form in FORMS {
        let files = closed(form);
        for len in 0..files["a.db"].len() {
            let mut cut = files.clone();
            cut.get_mut("a.db").unwrap().truncate(len);
            match options(form).open_in(&disk(&cut), "a.db") {
                Err(error) => assert!(error.is_damage(), "{form} at {len}: {error}"),
                // An image has a footer. A ledger that is cut between two frames shows the cut only
                // by the missing mark of its close; an anchor would detect it.
                Ok(store) => {
                    assert_eq!(form, Form::Ledger, "an image cut at {len} opened");
                    assert_prefix(&store);
                    let clean = store.recovered().clean;
                    assert!(!clean || matches!(store.len(), 0 | 3), "{form} at {len}");
                }
            }
        }
    }
}

/// Checks that the store has the commits of [`fill`] up to some number, and that number.
fn assert_prefix(store: &Store) {
    let keys: Vec<_> = store.keys().map(|key| key.to_vec()).collect();
    assert!([b"a", b"b", b"c"].iter().zip(&keys).all(|(ours, key)| key == ours), "{keys:?}");
    assert_eq!(store.recovered().seq, u64::try_from(keys.len()).unwrap());
}

#[test]
fn a_killed_log_cut_at_any_length_gives_a_prefix_of_the_commits_or_a_typed_error() {
    for form in [Form::Wal, Form::Ledger] {
        let files = killed(form);
        let log = log_name(&files, form);
        let end = files[&log].iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for len in 0..end {
            let mut cut = files.clone();
            cut.get_mut(&log).unwrap().truncate(len);
            let vfs = disk(&cut);
            match options(form).open_in(&vfs, "a.db") {
                Err(error) => assert!(error.is_damage(), "{form} at {len}: {error}"),
                Ok(store) => {
                    assert_prefix(&store);
                    assert!(store.len() < 3, "{form} {len}: the last frame is not whole");
                    // Writing continues after the cut, and the new data is there afterwards.
                    let expected = contents(&fill(&store));
                    drop(store);
                    assert_eq!(contents(&open(&vfs, form)), expected, "{form} {len}");
                }
            }
        }
    }
}

#[test]
fn a_tail_that_no_torn_write_leaves_is_suspect_and_cut_only_on_request() {
    for form in [Form::Wal, Form::Ledger] {
        let files = killed(form);
        let log = log_name(&files, form);
        let end = files[&log].iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let behind = end.next_multiple_of(64);
        // After the last frame, and in it.
        for from in [behind, end - 10] {
            let mut odd = files.clone();
            odd.get_mut(&log).unwrap()[from..from + 300].fill(0xFF);
            for options in [options(form), options(form).read_only(true)] {
                let error = refusal(&disk(&odd), &options, "a.db");
                let E::TailSuspect { offset, seq, bytes, .. } = error else {
                    panic!("{form}: {error}");
                };
                assert!(usize::try_from(offset).unwrap() <= from && bytes >= 300, "{form}");
                assert_eq!(seq, if from == behind { 3 } else { 2 }, "{form}");
            }
            let vfs = disk(&odd);
            let store = options(form).on_damage(OnDamage::CutTail).open_in(&vfs, "a.db").unwrap();
            assert_prefix(&store);
            assert!(store.recovered().cut.as_ref().unwrap().bytes >= 300);
            let expected = contents(&fill(&store));
            drop(store);
            assert_eq!(contents(&open(&vfs, form)), expected, "{form}: cut once and for all");
        }
    }
}

#[test]
fn an_image_without_its_log_is_not_served_as_an_older_state() {
    let mut files = killed(Form::Wal);
    files.retain(|name, _| name == "a.db");
    let error = refusal(&disk(&files), &Store::options(), "a.db");
    assert!(matches!(error, E::LogMissing { .. }), "{error}");
    let error = refusal(&disk(&files), &Store::options().read_only(true), "a.db");
    assert!(matches!(error, E::LogMissing { .. }), "{error}");
}

#[test]
fn a_small_wal_that_was_closed_is_one_file_that_can_be_copied() {
    let mut files = closed(Form::Wal);
    assert_eq!(files.keys().collect::<Vec<_>>(), ["a.db"]);
    let bytes = files.remove("a.db").unwrap();
    let vfs = disk(&Files::from([("copy.db".to_owned(), bytes)]));
    assert_eq!(Store::options().open_in(&vfs, "copy.db").unwrap().len(), 3);
}

#[test]
fn a_log_without_its_image_is_not_an_empty_store() {
    let mut files = killed(Form::Wal);
    files.remove("a.db").unwrap();
    for options in [Store::options(), Store::options().create_new(true)] {
        let error = refusal(&disk(&files), &options, "a.db");
        assert!(matches!(error, E::ImageMissing { .. }), "{error}");
    }
}

#[test]
fn the_log_of_another_store_is_not_replayed() {
    let (mut files, others) = (killed(Form::Wal), {
        let vfs = Vfs::mem(crate::common::seed() + 1);
        let store = fill(&open(&vfs, Form::Wal));
        let others = crate::common::files(&vfs);
        drop(store);
        others
    });
    let log = log_name(&files, Form::Wal);
    files.insert(log.clone(), others[&log].clone());
    let error = refusal(&disk(&files), &Store::options(), "a.db");
    assert!(matches!(error, E::ForeignLog { .. }), "{error}");
}

#[test]
fn a_backup_is_not_opened_for_writing_and_opens_for_reading() {
    let bytes = closed(Form::Wal).remove("a.db").unwrap();
    let vfs = disk(&Files::from([("a.db.bak.1".to_owned(), bytes)]));
    let error = refusal(&vfs, &Store::options(), "a.db.bak.1");
    assert!(matches!(error, E::IsBackup { .. }), "{error}");
    let store = Store::options().read_only(true).open_in(&vfs, "a.db.bak.1").unwrap();
    assert_eq!(store.len(), 3);
}

#[test]
fn the_companions_of_a_store_are_no_stores() {
    let files = killed(Form::Wal);
    let vfs = disk(&files);
    let names = [log_name(&files, Form::Wal), "a.db.lock".to_owned(), "a.db.tmp.image".to_owned()];
    for name in names {
        let error = storage(Store::options().open_in(&vfs, &name).unwrap_err());
        assert!(matches!(error, E::BadPath { .. }), "{name}: {error}");
    }
}

#[test]
fn temporary_files_of_a_crash_are_removed_and_those_of_others_are_not() {
    for form in FORMS {
        let mut files = killed(form);
        files.insert("a.db.tmp.image".to_owned(), b"half an image".to_vec());
        files.insert("b.db.tmp.image".to_owned(), b"another's".to_vec());
        files.insert("a.db2".to_owned(), b"another's".to_vec());
        let vfs = disk(&files);
        let reader = Store::options().read_only(true).open_in(&vfs, "a.db").unwrap();
        assert_eq!(reader.len(), 3);
        drop(reader);
        assert_eq!(crate::common::files(&vfs), files, "a reader removes nothing");
        assert_eq!(open(&vfs, form).len(), 3);
        assert!(vfs.dir.metadata("a.db.tmp.image").unwrap().is_none());
        assert_eq!(read(&vfs, "b.db.tmp.image"), b"another's");
        assert_eq!(read(&vfs, "a.db2"), b"another's");
    }
}

#[test]
fn verifying_reads_the_files_once_up_to_the_last_commit_before_it() {
    for form in FORMS {
        let opened = Arc::new(OnceLock::<Store>::new());
        let (writer, acting) = (Arc::clone(&opened), Arc::new(AtomicBool::new(false)));
        let (acts, opens) = (Arc::clone(&acting), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&opens);
        let vfs = Observed::vfs(&Vfs::mem(crate::common::seed()), move |call| {
            let is_main = &*call.name == "a.db";
            counted
                .fetch_add(usize::from(is_main && call.kind == CallKind::Open), Ordering::SeqCst);
            // A commit while the files are read. In the Snapshot form it replaces the main file.
            if is_main && call.kind == CallKind::Read && acts.swap(false, Ordering::SeqCst) {
                writer.get().unwrap().set("later", &4_u32).unwrap();
            }
        });
        let store = opened.get_or_init(|| open(&vfs, form));
        fill(store);
        if form == Form::Wal {
            store.checkpoint().unwrap();
        }
        let anchor = store.anchor().unwrap();
        opens.store(0, Ordering::SeqCst);
        acting.store(true, Ordering::SeqCst);
        let verified = store.verify().unwrap();
        assert_eq!((verified.seq, verified.anchor), (3, Some(anchor)), "{form}");
        assert_eq!(opens.load(Ordering::SeqCst), 1, "{form}");
        assert_eq!(store.stats().storage.seq, 4, "{form}");
        let locked = codex_storage::verify(&vfs, "a.db", None);
        assert!(matches!(locked, Err(E::Locked { .. })), "{form}: {locked:?}");
        store.close().unwrap();
        assert_eq!(codex_storage::verify(&vfs, "a.db", None).unwrap().seq, 4, "{form}");
    }
}

/// While the files are read, another thread begins to replace them, and waits for the end, which a
/// close brings about.
#[test]
fn verifying_keeps_checkpoints_and_closes_waiting() {
    type Act = fn(&Store);
    let acts: [(Act, bool); 2] =
        [(|store| store.checkpoint().unwrap(), false), (|store| store.close().unwrap(), true)];
    for (act, abandons) in acts {
        let opened = Arc::new(OnceLock::<Store>::new());
        let (store, acting) = (Arc::clone(&opened), Arc::new(AtomicBool::new(false)));
        let (acts, other) = (Arc::clone(&acting), Arc::new(Mutex::new(None)));
        let started = Arc::clone(&other);
        let vfs = Observed::vfs(&Vfs::mem(crate::common::seed()), move |call| {
            if call.kind == CallKind::Read && acts.swap(false, Ordering::SeqCst) {
                let store = store.get().unwrap().clone();
                let other = std::thread::spawn(move || act(&store));
                // If it does not wait, it ends here, and the log that is to be read next is gone.
                for _ in 0..10_000 {
                    std::thread::yield_now();
                }
                assert!(!other.is_finished());
                *started.lock().unwrap() = Some(other);
            }
        });
        let store = opened.get_or_init(|| open(&vfs, Form::Wal));
        fill(store).checkpoint().unwrap();
        store.set("d", &4_u32).unwrap();
        acting.store(true, Ordering::SeqCst);
        match store.verify().map_err(crate::common::storage) {
            Ok(verified) => assert_eq!((verified.seq, abandons), (4, false)),
            Err(error) => assert!(abandons && matches!(error, E::Abandoned { .. }), "{error}"),
        }
        other.lock().unwrap().take().unwrap().join().unwrap();
    }
}

#[test]
fn verifying_reads_every_byte_beside_a_running_store() {
    for form in FORMS {
        let vfs = Vfs::mem(crate::common::seed());
        let store = fill(&open(&vfs, form));
        let verified = store.verify().unwrap();
        assert_eq!((verified.form, verified.seq), (form, 3));
        assert_eq!(verified.anchor, Some(store.anchor().unwrap()), "{form}");
        store.close().unwrap();
        let store = Store::options().read_only(true).open_in(&vfs, "a.db").unwrap();
        let whole = read(&vfs, "a.db");
        let mut found = 0;
        for byte in (0..whole.len()).step_by(7).filter(|byte| whole[*byte] != 0) {
            let mut damaged = whole.clone();
            damaged[byte] ^= 0x10;
            crate::common::write(&vfs, "a.db", &damaged);
            let error = store.verify().unwrap_err();
            assert!(error.is_damage(), "{form}, byte {byte}: {error}");
            found += 1;
        }
        assert!(found > 20, "{form}");
    }
    let refused = crate::common::storage(Store::in_memory().unwrap().verify().unwrap_err());
    assert!(matches!(refused, E::Contradiction(_)), "{refused}");
}

#[test]
fn an_anchor_shows_that_the_files_were_rolled_back() {
    for form in FORMS {
        let vfs = Vfs::mem(crate::common::seed());
        let store = fill(&open(&vfs, form));
        store.flush().unwrap();
        let older = files(&vfs);
        store.set("d", "fourth").unwrap();
        let anchor = store.anchor().unwrap();
        store.close().unwrap();
        drop(store);
        let anchored = Store::options().anchor(anchor);
        assert_eq!(anchored.open_in(&vfs, "a.db").unwrap().len(), 4, "{form}");
        let error = refusal(&disk(&older), &anchored, "a.db");
        assert!(matches!(error, E::AnchorMismatch { seq: 4, .. }), "{form}: {error}");
    }
}

/// The forms that keep a log.
const LOGS: [Form; 2] = [Form::Wal, Form::Ledger];

/// Returns the end of the log in these files: after its last byte that is not zero.
fn end(log: &[u8]) -> usize {
    log.iter().rposition(|byte| *byte != 0).unwrap() + 1
}

#[test]
fn a_lost_sector_that_was_once_durable_is_damage_at_every_level() {
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
fn a_batch_is_one_frame_and_torn_anywhere_it_is_wholly_absent() {
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
            assert!(store.len() == 1 && store.contains_key("before"), "{form} torn at {cut}");
        }
    }
}

#[test]
fn a_checksum_of_zero_is_checked_like_any_other() {
    for form in LOGS {
        let files = killed(form);
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
        fill(&open(&vfs, form)).close().unwrap();
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

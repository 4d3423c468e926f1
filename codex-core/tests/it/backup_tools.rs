//! Tests of the tools for a closed store: point in time, keys, foreign files, symbolic links and
//! copies by hand.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::common::{FORMS, disk, files, seed};
use codex_core::vfs::fault::{Calls, FaultDir};
use codex_core::vfs::{CallKind, Vfs};
use codex_core::{
    Anchor, AnchorFound, BackupPolicy, Backups, CheckpointPolicy, Error, Form, OpenOptions,
    RestorePoint, StorageError, Store,
};

#[cfg(feature = "crypto")]
fn key() -> codex_core::crypto::Key {
    codex_core::crypto::Key::raw(&[7; 32]).unwrap()
}

/// Returns options with the key, if there is one.
fn keyed(encrypted: bool) -> OpenOptions {
    #[cfg(feature = "crypto")]
    if encrypted {
        return Store::options().key(key());
    }
    assert!(!encrypted);
    Store::options()
}

fn tools(vfs: &Vfs, encrypted: bool) -> Backups {
    let backups = Backups::of_in(vfs, "a.db");
    #[cfg(feature = "crypto")]
    if encrypted {
        return backups.key(key());
    }
    assert!(!encrypted);
    backups
}

fn backup_error(error: Error) -> codex_backup::Error {
    match error {
        Error::Backup(error) => (*error).clone(),
        other => panic!("not an error of a backup: {other}"),
    }
}

fn ways() -> impl Iterator<Item = bool> {
    [false].into_iter().chain(cfg!(feature = "crypto").then_some(true))
}

/// Returns a ledger that has groups of several commits.
fn grouped_ledger(encrypted: bool) -> Vfs {
    let dir = FaultDir::new();
    let vfs = dir.vfs(seed());
    let store = keyed(encrypted).form(Form::Ledger).open_in(&vfs, "a.db").unwrap();
    // The disk is held until all writers have entered the queue.
    let gate = dir.hold(Calls::of(CallKind::Sync));
    let until = |holds: &dyn Fn() -> bool| {
        while !holds() {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| store.set("first", &0_u64).unwrap());
        until(&|| gate.waiting() == 1);
        for writer in 0..8_u64 {
            let store = store.clone();
            scope.spawn(move || {
                for n in 0..5_u64 {
                    let mut batch = store.batch();
                    batch.set(format!("{writer}"), &n).unwrap().remove("absent").unwrap();
                    batch.set("last", &(writer, n)).unwrap();
                    batch.commit().unwrap();
                }
            });
        }
        until(&|| store.stats().waiting == 8);
        gate.release();
    });
    store.clear().unwrap();
    store.set("n", &1_u64).unwrap();
    assert_eq!(store.stats().group_commits_max, 8);
    store.close().unwrap();
    vfs
}

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// Returns the contents and the anchor after each commit of the ledger.
fn history(vfs: &Vfs) -> Vec<(Contents, Anchor)> {
    use codex_storage::batch::Op;
    let (mut states, mut state) = (Vec::new(), Contents::new());
    codex_storage::read_commits(vfs, "a.db", None, u64::MAX, &mut |commit| {
        let anchor = commit.anchor();
        for op in commit.ops {
            match op.unwrap() {
                Op::Set(item) => _ = state.insert(item.key.to_vec(), item.value.to_vec()),
                Op::Remove { key, .. } => _ = state.remove(key),
                Op::Clear { .. } => state.clear(),
            }
        }
        states.push((state.clone(), anchor));
        Ok(())
    })
    .unwrap();
    states
}

#[test]
fn a_ledger_goes_back_to_each_commit_of_each_group_with_the_anchor_it_had() {
    let vfs = grouped_ledger(false);
    let history = history(&vfs);
    let original = files(&vfs);
    for (seq, (contents, anchor)) in (1_u64..).zip(&history) {
        let vfs = disk(&original);
        let restored = tools(&vfs, false).restore_until(RestorePoint::Seq(seq)).unwrap();
        assert_eq!(restored.from, None);
        let store = Store::options().open_in(&vfs, "a.db").unwrap();
        let found = store.anchor().unwrap();
        assert_eq!((found.seq, found), (seq, *anchor));
        assert_eq!(store.len(), contents.len(), "commit {seq}");
        // It continues as a ledger.
        store.set("on", &1_u64).unwrap();
        store.close().unwrap();
        assert_eq!(
            Store::options().open_in(&vfs, "a.db").unwrap().anchor().unwrap().seq,
            found.seq + 1
        );
    }
    let past_the_end =
        tools(&vfs, false).restore_until(RestorePoint::Seq(history.len() as u64 + 1));
    let error = crate::common::storage(past_the_end.unwrap_err());
    assert!(error.to_string().contains("commits 0..=43;"), "{error}");
    assert!(error.to_string().contains("a.db"), "{error}");
}

#[test]
fn an_encrypted_ledger_goes_back_to_a_commit_that_its_whole_history_contains() {
    for encrypted in ways().filter(|encrypted| *encrypted) {
        let vfs = grouped_ledger(encrypted);
        let original = files(&vfs);
        let without_key =
            Backups::of_in(&disk(&original), "a.db").restore_until(RestorePoint::Seq(3));
        let error = crate::common::storage(without_key.unwrap_err());
        assert!(matches!(error, StorageError::KeyRequired { .. }), "{error}");
        for seq in (1..=42_u64).step_by(3) {
            let vfs = disk(&original);
            tools(&vfs, encrypted).restore_until(RestorePoint::Seq(seq)).unwrap();
            let store = keyed(encrypted).open_in(&vfs, "a.db").unwrap();
            let anchor = store.anchor().unwrap();
            assert_eq!(anchor.seq, seq);
            // The original proves that its history contains this commit with this digest.
            keyed(encrypted).anchor(anchor).open_in(&disk(&original), "a.db").unwrap();
            let other = Anchor::new(anchor.store_id, anchor.seq, [1; 32]);
            let mismatch = keyed(encrypted).anchor(other).open_in(&disk(&original), "a.db");
            let mismatch = crate::common::storage(mismatch.unwrap_err());
            assert!(matches!(mismatch, StorageError::AnchorMismatch { .. }), "{mismatch}");
        }
    }
}

#[test]
fn a_ledger_goes_back_to_a_time() {
    for encrypted in ways() {
        let dir = FaultDir::new();
        let (vfs, clock) = (dir.vfs(seed()), dir.clock());
        let store = keyed(encrypted).form(Form::Ledger).open_in(&vfs, "a.db").unwrap();
        let mut moments = Vec::new();
        for n in 1..=6_u64 {
            clock.advance(Duration::from_secs(10));
            store.set("n", &n).unwrap();
            moments.push((n, vfs.clock.now_us(), store.anchor().unwrap()));
        }
        store.close().unwrap();
        let original = files(&vfs);
        for (n, at_us, anchor) in moments {
            for moment_us in [at_us, at_us + 9_999_999] {
                let vfs = disk(&original);
                tools(&vfs, encrypted).restore_until(RestorePoint::TimeUs(moment_us)).unwrap();
                let store = keyed(encrypted).open_in(&vfs, "a.db").unwrap();
                assert_eq!(store.get::<u64>("n").unwrap(), Some(n));
                assert_eq!(store.anchor().unwrap(), anchor);
            }
        }
        let vfs = disk(&original);
        tools(&vfs, encrypted).restore_until(RestorePoint::TimeUs(0)).unwrap();
        assert!(keyed(encrypted).open_in(&vfs, "a.db").unwrap().is_empty());
    }
}

#[test]
fn only_a_ledger_goes_back_and_the_others_say_so() {
    for form in [Form::Wal, Form::Snapshot] {
        let vfs = Vfs::mem(seed());
        let store = Store::options().form(form).open_in(&vfs, "a.db").unwrap();
        store.set("n", &1_u64).unwrap();
        store.close().unwrap();
        let before = files(&vfs);
        let error = tools(&vfs, false).restore_until(RestorePoint::Seq(1)).unwrap_err().to_string();
        assert!(error.contains("a.db") && error.contains("ledger"), "{error}");
        assert_eq!(files(&vfs), before);
    }
}

#[test]
fn without_the_key_encrypted_backups_are_listed_checked_and_restored_and_with_it_opened() {
    for encrypted in ways().filter(|encrypted| *encrypted) {
        for form in FORMS {
            let vfs = Vfs::mem(seed());
            // The log stays, so that the image is continued by a log.
            let store = keyed(encrypted).form(form).open_in(&vfs, "a.db").unwrap();
            for n in 1..=2_u64 {
                store.set("n", &n).unwrap();
                store.back_up().unwrap();
            }
            drop(store);
            let blind = Backups::of_in(&vfs, "a.db");
            let listed = blind.list().unwrap();
            let facts = listed[0].facts.as_ref().unwrap();
            assert!(facts.encrypted && facts.seq == 2 && facts.form == form.to_string());
            assert_eq!(blind.verify(2).unwrap().verified.depth, codex_backup::Depth::Checksums);
            let with_key = tools(&vfs, encrypted).verify(2).unwrap();
            assert_eq!(with_key.verified.depth, codex_backup::Depth::Full);
            let wrong = codex_core::crypto::Key::raw(&[8; 32]).unwrap();
            let error = Backups::of_in(&vfs, "a.db").key(wrong).verify(2).unwrap_err();
            assert!(matches!(backup_error(error), codex_backup::Error::NeedsKey { .. }));
            blind.restore(2).unwrap();
            let store = keyed(encrypted).open_in(&vfs, "a.db").unwrap();
            assert_eq!(store.get::<u64>("n").unwrap(), Some(1), "{form}");
        }
    }
}

#[test]
fn another_stores_file_at_a_backups_name_is_neither_moved_nor_restored() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        let other = Store::options().form(form).open_in(&vfs, "other.db").unwrap();
        other.set("n", &77_u64).unwrap();
        other.close().unwrap();
        drop(other);
        let store = Store::options().form(form).open_in(&vfs, "a.db").unwrap();
        store.set("n", &1_u64).unwrap();
        vfs.dir.rename("other.db", "a.db.bak.1").unwrap();
        let theirs = crate::common::read(&vfs, "a.db.bak.1");
        let is_foreign = |error| matches!(backup_error(error), codex_backup::Error::Foreign { .. });
        assert!(is_foreign(store.back_up().unwrap_err()));
        store.set("n", &2_u64).unwrap();
        assert!(store.stats().backups.last_error.unwrap().contains("a.db.bak.1"));
        drop(store);
        let tools = Backups::of_in(&vfs, "a.db");
        assert!(tools.list().unwrap()[0].facts.is_err());
        let unrelated = backup_error(tools.restore(1).unwrap_err());
        assert!(matches!(unrelated, codex_backup::Error::Unrelated { .. }), "{unrelated}");
        assert_eq!(tools.prune(0).unwrap(), [""; 0]);
        assert_eq!(crate::common::read(&vfs, "a.db.bak.1"), theirs);
        let store = Store::options().open_in(&vfs, "a.db").unwrap();
        assert_eq!(store.get::<u64>("n").unwrap(), Some(2), "{form}");
        let missing = backup_error(Backups::of_in(&vfs, "b.db").restore(1).unwrap_err());
        assert!(matches!(missing, codex_backup::Error::Missing { .. }), "{missing}");
    }
}

#[test]
fn a_backup_opens_in_place_for_reading_and_for_nothing_else() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        let store = Store::options().form(form).open_in(&vfs, "a.db").unwrap();
        store.set("n", &1_u64).unwrap();
        store.back_up().unwrap();
        store.set("n", &2_u64).unwrap();
        let before = files(&vfs);
        let reader = Store::options().read_only(true).open_in(&vfs, "a.db.bak.1").unwrap();
        assert_eq!(reader.get::<u64>("n").unwrap(), Some(1), "{form}");
        drop(reader);
        let refused = Store::options().open_in(&vfs, "a.db.bak.1").unwrap_err();
        assert!(matches!(crate::common::storage(refused), StorageError::IsBackup { .. }));
        assert_eq!(files(&vfs), before);
    }
}

#[test]
fn a_missing_store_falls_back_to_its_backup_and_an_anchor_is_not_overruled() {
    let vfs = Vfs::mem(seed());
    let store = Store::options().open_in(&vfs, "a.db").unwrap();
    store.set("n", &1_u64).unwrap();
    let in_backup = store.anchor().unwrap();
    store.back_up().unwrap();
    store.set("n", &2_u64).unwrap();
    let later = store.anchor().unwrap();
    let anchor = Anchor::new(later.store_id, 3, later.value);
    store.close().unwrap();
    drop(store);
    let falling = Store::options().fall_back_to_backup(true);
    let before = files(&vfs);
    let refused = falling.clone().anchor(anchor).open_in(&vfs, "a.db").unwrap_err();
    let refused = crate::common::storage(refused);
    assert!(matches!(refused, StorageError::AnchorMismatch { .. }), "{refused}");
    assert_eq!(files(&vfs), before, "whole files were replaced by an older state");
    vfs.dir.remove("a.db").unwrap();
    let missing = files(&vfs);
    for anchor in [later, anchor, Anchor::new(in_backup.store_id, in_backup.seq, [1; 32])] {
        for options in [Store::options(), falling.clone()] {
            let refused = options.anchor(anchor).open_in(&vfs, "a.db").unwrap_err();
            assert!(matches!(crate::common::storage(refused), StorageError::NotFound { .. }));
            assert_eq!(files(&vfs), missing, "no backup contains that commit");
        }
    }
    let store = falling.anchor(in_backup).open_in(&vfs, "a.db").unwrap();
    assert_eq!(store.get::<u64>("n").unwrap(), Some(1));
    assert!(store.restored().is_some());
    assert_eq!(store.recovered().anchor, Some(AnchorFound::Compared));
}

#[test]
fn a_hot_copy_never_takes_a_name_that_belongs_to_a_store() {
    let vfs = Vfs::mem(seed());
    let store = Store::options().open_in(&vfs, "a.db").unwrap();
    let on = &mut |_| std::ops::ControlFlow::Continue(());
    let side = ["a.db.wal.00000000000000000009", "a.db.lock", "a.db.tmp.image", "a.db"];
    // A rotation would move and remove these files.
    let rotating = ["a.db.bak.7", "b.db.bak.1", "a.db.bak.lock", "a.db.bak.restore"];
    for name in side.into_iter().chain(rotating) {
        let error = store.backup_to_in(&vfs, name, on).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
    assert!(Backups::of_in(&vfs, "a.db").list().unwrap().is_empty());
}

#[test]
fn a_backup_copied_over_the_store_by_hand_changes_no_other_backup() {
    for form in FORMS {
        for keeps_log in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            let mut options = Store::options().form(form).backups(BackupPolicy::keep(3));
            if form == Form::Wal && keeps_log {
                let close_into_image_bytes_max = 0;
                let policy = CheckpointPolicy::default()
                    .close_into_image_bytes_max(close_into_image_bytes_max);
                options = options.checkpoint(policy);
            }
            let store = options.open(path("app.db")).unwrap();
            for n in 1..=4_u64 {
                store.set("n", &n).unwrap();
                if n < 4 {
                    store.back_up().unwrap();
                }
            }
            store.close().unwrap();
            drop(store);
            let bytes = |index| std::fs::read(path(&format!("app.db.bak.{index}"))).unwrap();
            let before = [1, 2, 3].map(bytes);
            // The same as `cp -f`: writes into the file if that is allowed, otherwise replaces it.
            let (copied, to) = (bytes(2), path("app.db"));
            if std::fs::write(&to, &copied).is_err() {
                std::fs::remove_file(&to).unwrap();
                std::fs::write(&to, &copied).unwrap();
            }
            assert_eq!([1, 2, 3].map(bytes), before, "{form}");
            match options.open(&to) {
                Ok(store) => {
                    assert!(!(form == Form::Wal && keeps_log), "the log of another state was used");
                    assert_eq!(store.get::<u64>("n").unwrap(), Some(2), "{form}");
                    store.set("n", &5_u64).unwrap();
                    store.back_up().unwrap();
                }
                // The log belongs to another image: the error names that, and nothing is lost.
                Err(error) => {
                    assert!(form == Form::Wal && keeps_log && error.is_damage(), "{form}: {error}");
                    assert_eq!([1, 2, 3].map(bytes), before, "{form}");
                    Backups::of(&to).unwrap().restore(2).unwrap();
                    let store = options.open(&to).unwrap();
                    assert_eq!(store.get::<u64>("n").unwrap(), Some(2));
                }
            }
        }
    }
}

/// Returns the names and bytes of the files below `folder` whose names begin with `begins`.
fn snapshot_of(folder: &Path, begins: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path));
    let ours = named.filter(|(name, _)| name.starts_with(begins));
    ours.map(|(name, path)| (name, std::fs::read(path).unwrap())).collect()
}

#[cfg(unix)]
#[test]
fn symbolic_links_lead_to_the_backups_of_the_file_behind_them_and_are_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let open = |name: &str| Store::options().backups(BackupPolicy::keep(2)).open(path(name));
    let store = open("real.db").unwrap();
    store.set("n", &1_u64).unwrap();
    store.close().unwrap();
    drop(store);
    std::os::unix::fs::symlink(path("real.db"), path("link.db")).unwrap();
    let store = open("link.db").unwrap();
    store.back_up().unwrap();
    store.set("n", &2_u64).unwrap();
    drop(store);
    assert!(path("real.db.bak.1").exists() && !path("link.db.bak.1").exists());
    let other = open("other.db").unwrap();
    other.set("n", &9_u64).unwrap();
    other.close().unwrap();
    drop(other);
    // A link in place of a backup, to a foreign store.
    std::fs::remove_file(path("real.db.bak.1")).unwrap();
    std::os::unix::fs::symlink(path("other.db"), path("real.db.bak.1")).unwrap();
    let theirs = snapshot_of(folder.path(), "other.db");
    let store = open("link.db").unwrap();
    let error = backup_error(store.back_up().unwrap_err());
    assert!(matches!(error, codex_backup::Error::Foreign { .. }), "{error}");
    drop(store);
    let refused = Backups::of(path("link.db")).unwrap().restore(1).unwrap_err();
    let refused = backup_error(refused);
    assert!(matches!(refused, codex_backup::Error::Foreign { .. }), "{refused}");
    assert_eq!(snapshot_of(folder.path(), "other.db"), theirs);
    assert!(path("link.db").is_symlink() && path("real.db.bak.1").is_symlink());
}

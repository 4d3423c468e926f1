//! Tests of the files of a store that is not open: which they are, and their removal with a power
//! cut at every call.

use std::os::unix::fs::PermissionsExt;

use codex_core::internals::destroy_in;
use codex_core::vfs::fault::{
    Calls, CrashChoice, Fault, FaultDir, Lasting, Side, Survivors, each_power_cut,
};
use codex_core::vfs::{CallKind, Vfs};
use codex_core::{
    Backups, CheckpointPolicy, Error, FileRole, Form, OpenOptions, StorageError, Store,
};

use crate::common::{FORMS, seed, storage};

fn options(form: Form) -> OpenOptions {
    let options = Store::options().form(form);
    if form != Form::Wal {
        return options;
    }
    // The log stays after the close.
    let large = CheckpointPolicy::default().floor_bytes(1 << 30).close_into_image_bytes_max(0);
    options.checkpoint(large)
}

/// Returns a closed store at commit 3 with backups of its commits 1 and 2. A Wal has two segments,
/// because its last checkpoint failed after it had switched the log.
fn disk(form: Form) -> FaultDir {
    let disk = FaultDir::new();
    let store = options(form).open_in(&world(&disk), "a.db").unwrap();
    for n in 1..=2_u64 {
        store.set("n", &n).unwrap();
        store.back_up().unwrap();
    }
    if form == Form::Wal {
        let image = Calls::of(CallKind::Write).on("a.db.tmp.image");
        store.set("m", &0_u64).unwrap();
        store.remove("m").unwrap();
        disk.fail_on(image, 1, Fault::Eio, Lasting::Sticky, Side::Before);
        store.checkpoint().unwrap_err();
        disk.clear_plan();
    }
    store.set("n", &3_u64).unwrap();
    store.close().unwrap();
    disk.reboot(Survivors::Everything)
}

fn world(disk: &FaultDir) -> Vfs {
    disk.vfs(seed() + disk.calls())
}

/// Returns the roles of the files that are left, each once.
fn roles(vfs: &Vfs) -> Vec<FileRole> {
    let files = codex_storage::files(vfs, "a.db").unwrap();
    let mut roles: Vec<_> = files.into_iter().map(|file| file.role).collect();
    roles.dedup();
    roles
}

#[test]
fn a_power_cut_during_a_removal_leaves_the_store_or_nothing_that_opens_as_one() {
    let choice = CrashChoice { seed: seed(), ..CrashChoice::default() };
    for (form, with_backups) in FORMS.into_iter().flat_map(|form| [(form, false), (form, true)]) {
        let base = disk(form);
        let act = |disk: &FaultDir| destroy_in(&world(disk), "a.db", with_backups);
        let (mut whole, mut gone) = (0, 0);
        let cuts = each_power_cut(&base, &choice, act, |mishap, image, _| {
            let vfs = world(image);
            let was_there = roles(&vfs).contains(&FileRole::Store);
            let mut opening = options(form);
            if with_backups {
                // No older state takes the place of a store whose removal has begun.
                opening = opening.fall_back_to_backup(true);
            }
            match opening.open_in(&vfs, "a.db") {
                Ok(store) if was_there => {
                    assert_eq!(store.get::<u64>("n").unwrap(), Some(3), "{form}\n{mishap}");
                    whole += 1;
                }
                Ok(store) => {
                    assert!(store.is_empty(), "{form}\n{mishap}");
                    gone += 1;
                }
                Err(Error::Storage(StorageError::ImageMissing { .. })) => {
                    assert_eq!(form, Form::Wal, "{mishap}");
                }
                Err(Error::Storage(StorageError::OnlyBackups { .. })) => {
                    assert!(!with_backups && !was_there, "{form}\n{mishap}");
                    gone += 1;
                }
                Err(error) => panic!("{form}: {error}\n{mishap}"),
            }
            // A second call removes the rest.
            let vfs = world(&image.crash_process());
            let again = destroy_in(&vfs, "a.db", with_backups);
            assert!(again.as_ref().is_ok() || again.as_ref().unwrap_err().is_not_found());
            let left = roles(&vfs);
            let all = [FileRole::Backup, FileRole::BackupWork];
            let may_stay = if with_backups { &[][..] } else { &all[..] };
            assert!(left.iter().all(|role| may_stay.contains(role)), "{form} {left:?}\n{mishap}");
        });
        assert!(cuts > 3 && whole > 0 && gone > 0, "{form} {cuts} {whole} {gone}");
    }
}

#[test]
fn an_interrupted_restore_is_finished_before_a_removal() {
    let base = disk(Form::Wal);
    let restore = |disk: &FaultDir| Backups::of_in(&world(disk), "a.db").restore(1);
    let choice = CrashChoice { seed: seed(), ..CrashChoice::default() };
    let mut pending = 0;
    each_power_cut(
        &base,
        &choice,
        |disk| restore(disk).is_ok(),
        |mishap, image, _| {
            let vfs = world(image);
            pending += u64::from(Backups::of_in(&vfs, "a.db").pending().unwrap().is_some());
            destroy_in(&vfs, "a.db", false).unwrap();
            let left = roles(&vfs);
            let of_store = [FileRole::Store, FileRole::Lock, FileRole::Temporary];
            assert!(!left.iter().any(|role| of_store.contains(role)), "{left:?}\n{mishap}");
            assert!(Backups::of_in(&vfs, "a.db").pending().unwrap().is_none(), "{mishap}");
            let opened = storage(Store::options().open_in(&vfs, "a.db").unwrap_err());
            assert!(matches!(opened, StorageError::OnlyBackups { .. }), "{opened}\n{mishap}");
        },
    );
    assert!(pending > 0);
}

#[test]
fn the_files_of_a_store_are_listed_and_removed_by_their_roles() {
    use FileRole::{Backup, BackupWork, Replaced};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let neighbours = ["a.db.txt", "a.db.wal.1", "a.db2", "b.db"];
    for name in neighbours {
        std::fs::write(folder.path().join(name), "kept").unwrap();
    }
    assert!(Store::destroy(&path).unwrap_err().is_not_found());
    assert_eq!(Store::files(&path).unwrap(), []);
    let store = options(Form::Wal).open(&path).unwrap();
    store.set("k", "v").unwrap();
    store.back_up().unwrap();
    store.set("k", "w").unwrap();
    for destroyed in [Store::destroy(&path), Store::destroy_with_backups(&path)] {
        assert!(destroyed.unwrap_err().is_locked());
    }
    store.close().unwrap();
    drop(store);
    let reader = Store::options().read_only(true).open(&path).unwrap();
    assert!(Store::destroy(&path).unwrap_err().is_locked());
    drop(reader);
    Backups::of(&path).unwrap().restore(1).unwrap();
    let found = Store::files(&path).unwrap();
    let named: Vec<_> = found
        .iter()
        .map(|file| (file.path.file_name().unwrap().to_str().unwrap(), file.role))
        .collect();
    assert_eq!(
        named,
        [
            ("a.db", FileRole::Store),
            ("a.db.bak.1", FileRole::Backup),
            ("a.db.bak.lock", FileRole::BackupWork),
            ("a.db.lock", FileRole::Lock),
            ("a.db.replaced.1", FileRole::Replaced),
            ("a.db.replaced.1.wal.00000000000000000001", FileRole::Replaced),
        ]
    );
    for file in &found {
        assert_eq!(file.bytes, std::fs::metadata(&file.path).unwrap().len());
    }
    Store::destroy(&path).unwrap();
    let left: Vec<_> = Store::files(&path).unwrap().into_iter().map(|file| file.role).collect();
    assert_eq!(left, [Backup, BackupWork, Replaced, Replaced]);
    assert!(Store::open(&path).unwrap_err().is_not_found());
    Store::destroy_with_backups(&path).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, neighbours);
}

#[test]
fn files_that_are_none_of_a_store_are_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    std::fs::write(&path, "not a store, but longer than a signature").unwrap();
    let error = storage(Store::destroy(&path).unwrap_err());
    assert!(matches!(error, StorageError::NotADatabase { .. }), "{error}");
    std::fs::remove_file(&path).unwrap();
    Store::open(&path).unwrap().close().unwrap();
    let error = storage(Store::destroy(folder.path().join("a.db.bak.1")).unwrap_err());
    assert!(matches!(error, StorageError::IsBackup { .. }), "{error}");
    std::fs::create_dir(folder.path().join("a.db.bak.1")).unwrap();
    let error = storage(Store::destroy_with_backups(&path).unwrap_err());
    assert!(matches!(error, StorageError::NotAFile { .. }), "{error}");
    // A store that is damaged can be removed, and a link to it stays.
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, &bytes[..100]).unwrap();
    let link = folder.path().join("link.db");
    std::os::unix::fs::symlink("a.db", &link).unwrap();
    Store::destroy(&link).unwrap();
    assert!(!path.exists());
    assert!(link.is_symlink());
}

#[test]
fn the_folders_of_a_new_store_are_created_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("one/two/a.db");
    assert!(Store::open(&path).unwrap_err().is_not_found());
    let options = Store::options().create_folder(true);
    options.open(&path).unwrap().close().unwrap();
    for folder in [path.parent().unwrap(), path.parent().unwrap().parent().unwrap()] {
        assert_eq!(std::fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
    }
    options.open(&path).unwrap();
    let anchor = Store::open(folder.path().join("b.db")).unwrap().anchor().unwrap();
    let never = [
        options.clone().create(false),
        options.clone().read_only(true),
        options.clone().anchor(anchor),
    ];
    for options in never {
        let other = folder.path().join("three/a.db");
        let error = storage(options.open(&other).unwrap_err());
        assert!(matches!(error, StorageError::Contradiction(_)), "{error}");
        assert!(!other.parent().unwrap().exists());
    }
    std::fs::write(folder.path().join("file"), "").unwrap();
    let below = storage(options.open(folder.path().join("file/a.db")).unwrap_err());
    assert!(matches!(below, StorageError::BadPath { .. }), "{below}");
}

//! Tests of files that lose their name while the store is open: a removed directory, a removed or
//! replaced main file, a removed log. No write is acknowledged that a later opening does not find,
//! and the state in memory can be saved.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use codex_core::crypto::Key;
use codex_core::{
    Backups, CheckpointPolicy, Durability, Error, Form, OpenOptions, StorageError, Store,
};

const FORMS: [Form; 3] = [Form::Wal, Form::Snapshot, Form::Ledger];

struct World {
    folder: tempfile::TempDir,
    path: PathBuf,
    store: Store,
}

/// Returns a store in its own directory with one acknowledged commit.
fn world(options: OpenOptions) -> World {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("home")).unwrap();
    let path = folder.path().join("home/a.db");
    let store = options.open(&path).unwrap();
    store.set("k", &1_u64).unwrap();
    World { folder, path, store }
}

impl World {
    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Checks that the acknowledged commits can be saved, and no others.
    fn save(&self, options: OpenOptions) {
        let copy = self.folder.path().join("copy.db");
        let seq = self.store.backup_to(&copy).unwrap();
        assert_eq!(self.store.get::<u64>("k").unwrap(), Some(1));
        let saved = options.create(false).open(&copy).unwrap();
        assert_eq!(saved.recovered().seq, seq);
        assert_eq!(saved.get::<u64>("k").unwrap(), Some(1));
        assert_eq!(saved.len(), 1);
        saved.set("k", &2_u64).unwrap();
        saved.close().unwrap();
        let taken = self.store.backup_to(&copy).unwrap_err();
        assert!(taken.to_string().contains("copy.db"), "{taken}");
    }
}

fn is_in_doubt<T: std::fmt::Debug>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Storage(StorageError::InDoubt { .. })))
}

#[test]
fn no_write_into_a_removed_folder_is_acknowledged_and_memory_can_be_saved() {
    let key = || Key::raw(&[7; 32]).unwrap();
    for form in FORMS {
        for encrypted in [false, true] {
            let options = || {
                let options = Store::options();
                if encrypted { options.key(key()) } else { options }
            };
            let world = world(options().form(form));
            std::fs::remove_dir_all(world.home()).unwrap();
            let error = world.store.set("lost", &2_u64).unwrap_err();
            if form != Form::Snapshot {
                assert!(error.to_string().contains("backup_to"), "{form}: {error}");
                assert!(is_in_doubt::<()>(Err(error)), "{form}");
            }
            let refused = world.store.flush().unwrap_err();
            assert!(refused.is_poisoned() || refused.is_in_doubt(), "{form}: {refused}");
            assert!(world.store.poisoned().is_some(), "{form}");
            world.save(options());
            let refused = world.store.close().unwrap_err();
            assert!(refused.is_poisoned(), "{form}: {refused}");
        }
    }
}

#[test]
fn a_copy_that_finds_that_the_folder_is_gone_is_written_from_memory() {
    for form in [Form::Wal, Form::Ledger] {
        let world = world(Store::options().form(form).durability(Durability::Os));
        std::fs::remove_dir_all(world.home()).unwrap();
        assert!(world.store.poisoned().is_none(), "{form}: nothing has noticed it yet");
        world.save(Store::options());
        assert!(world.store.poisoned().is_some(), "{form}");
    }
}

#[test]
fn a_flush_a_checkpoint_and_a_close_find_that_the_folder_is_gone() {
    type Act = fn(&Store) -> Result<(), Error>;
    let acts: [Act; 3] = [|store| store.flush().map(drop), Store::checkpoint, Store::close];
    for form in FORMS {
        for act in acts {
            let level = if form == Form::Snapshot { Durability::Sync } else { Durability::Os };
            let world = world(Store::options().form(form).durability(level));
            std::fs::remove_dir_all(world.home()).unwrap();
            assert!(is_in_doubt(act(&world.store)), "{form}");
        }
    }
}

#[test]
fn no_write_beside_a_removed_or_replaced_main_file_is_acknowledged() {
    let mishaps: [fn(&Path); 3] = [
        |path| std::fs::remove_file(path).unwrap(),
        |path| std::fs::rename(path, path.with_extension("moved")).unwrap(),
        |path| {
            std::fs::copy(path, path.with_extension("other")).unwrap();
            std::fs::rename(path.with_extension("other"), path).unwrap();
        },
    ];
    for form in [Form::Wal, Form::Ledger] {
        for mishap in mishaps {
            let world = world(Store::options().form(form));
            mishap(&world.path);
            assert!(is_in_doubt(world.store.set("lost", &2_u64)), "{form}");
            world.save(Store::options());
        }
    }
    // A Snapshot replaces only its own file.
    let world = world(Store::options().form(Form::Snapshot));
    mishaps[2](&world.path);
    world.store.set("lost", &2_u64).unwrap_err();
    assert_eq!(world.store.get::<u64>("lost").unwrap(), None);
}

#[test]
fn a_store_whose_log_was_removed_heals_at_the_next_flush_or_close() {
    type Act = fn(&Store) -> Result<(), Error>;
    let acts: [(&str, Act); 3] = [
        ("flush", |store| store.flush().map(drop)),
        ("checkpoint", Store::checkpoint),
        ("close", Store::close),
    ];
    // With and without a commit after the log was removed, and with too much data for the close to
    // write an image.
    for (commits, close_into) in [(1_usize, u64::MAX), (0, u64::MAX), (1, 0)] {
        for (name, act) in acts {
            let policy = CheckpointPolicy::default().close_into_image_bytes_max(close_into);
            let world = world(Store::options().checkpoint(policy));
            for entry in std::fs::read_dir(world.home()).unwrap() {
                let entry = entry.unwrap().path();
                if entry.to_str().unwrap().contains(".wal.") {
                    std::fs::remove_file(entry).unwrap();
                }
            }
            for n in 0..commits {
                world.store.set("n", &n).unwrap();
            }
            act(&world.store).unwrap();
            let copy = world.folder.path().join("elsewhere");
            std::fs::create_dir(&copy).unwrap();
            for entry in std::fs::read_dir(world.home()).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
            }
            let found = Store::options().create(false).open(copy.join("a.db")).unwrap();
            assert_eq!(found.get::<u64>("k").unwrap(), Some(1), "{name}");
            assert_eq!(found.len(), 1 + commits, "{name} {commits} {close_into}");
        }
    }
}

/// The permissions and the owner that the user gave to the file of a store stay with its name.
#[test]
fn each_file_that_replaces_another_takes_over_its_permissions_and_its_owner() {
    let set_mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
    for (form, given) in [
        (Form::Wal, 0o440),
        (Form::Wal, 0o400),
        (Form::Snapshot, 0o444),
        (Form::Ledger, 0o640),
        (Form::Ledger, 0o600),
    ] {
        let World { folder, path, store } = world(Store::options().form(form));
        set_mode(&path, given);
        // Only the superuser may change the owner of a file.
        let given_away = std::os::unix::fs::chown(&path, Some(4_321), Some(1_234)).is_ok();
        let check = |when: &str| {
            assert_eq!(mode(&path), given, "{form} {when}");
            let found = std::fs::metadata(&path).unwrap();
            if given_away {
                assert_eq!((found.uid(), found.gid()), (4_321, 1_234), "{form} {when}");
            }
        };
        store.set("k", &2_u64).unwrap();
        store.checkpoint().unwrap();
        check("after a checkpoint");
        for entry in std::fs::read_dir(folder.path().join("home")).unwrap() {
            let entry = entry.unwrap().path();
            if entry.to_str().unwrap().contains(".wal.") {
                assert_eq!(mode(&entry), given | 0o600, "{form}");
            }
        }
        store.back_up().unwrap();
        let backup = PathBuf::from(format!("{}.bak.1", path.display()));
        assert_eq!(mode(&backup), (given & !0o222) | 0o400, "{form}");
        store.close().unwrap();
        check("after a close");
        drop(store);
        Store::open(&path).unwrap().set("k", &3_u64).unwrap();
        check("after an opening");
        Backups::of(&path).unwrap().restore(1).unwrap();
        check("after a restore");
    }
}

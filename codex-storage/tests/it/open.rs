//! Opening on a real disk: files that may be at the path, modes of files, locks between processes.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use codex_storage::batch::Op;
use codex_storage::storage::Form;
use codex_storage::vfs::fault::FaultDir;
use codex_storage::vfs::{CallKind, LockKind, Observed, Vfs};
use codex_storage::{Access, Error};

use crate::common::store::Store;
use crate::common::{Bed, NAME, keys};

const FORMS: [Form; 3] = [Form::Wal, Form::Snapshot, Form::Ledger];

/// The directory may contain a hundred thousand other files.
#[test]
fn opening_an_existing_store_lists_no_folder() {
    for form in FORMS {
        for (access, closes) in [
            (Access::ReadWrite, true),
            (Access::ReadWrite, false),
            (Access::ReadOnly, true),
            (Access::ReadOnly, false),
        ] {
            let disk = FaultDir::new();
            let mut config = Bed::new(disk.vfs(1), form, false).config();
            let mut store = Store::open(config.clone()).unwrap();
            store.commit(&[&[Op::set(b"k", b"1")]]).unwrap();
            if closes {
                store.close().unwrap();
            } else {
                drop(store);
            }
            disk.record_trace(true);
            config.access = access;
            let store = Store::open(config).unwrap();
            assert_eq!(store.map.0.len(), 1);
            let lists = disk.trace().iter().filter(|call| call.kind == CallKind::List).count();
            assert_eq!(lists, 0, "{form} {access:?} {closes}");
        }
    }
}

#[test]
fn a_directory_a_symbolic_link_and_a_fifo_are_refused_by_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("folder.db")).unwrap();
    // A link is refused even if its target is a good store, because a new file would replace the
    // link.
    Store::open(config(dir.path(), NAME, Form::Wal)).unwrap().close().unwrap();
    symlink(path(NAME), path("link.db")).unwrap();
    symlink(path("nowhere"), path("dangling.db")).unwrap();
    assert!(Command::new("mkfifo").arg(path("fifo.db")).status().unwrap().success());
    for (name, expected) in [
        ("folder.db", "a folder"),
        ("link.db", "a symbolic link"),
        ("dangling.db", "a symbolic link"),
        ("fifo.db", "a FIFO, a socket or a device"),
    ] {
        for form in FORMS {
            for access in [Access::ReadWrite, Access::ReadOnly] {
                let mut config = config(dir.path(), name, form);
                config.access = access;
                match Store::open(config) {
                    Err(Error::NotAFile { what, .. }) => assert_eq!(what, expected),
                    other => panic!("{name}: {other:?}"),
                }
            }
        }
        assert!(!path(&format!("{name}.lock")).exists(), "{name} gets no companion");
    }
}

#[test]
fn images_are_read_only_and_logs_and_locks_private() {
    for (form, main) in [(Form::Wal, 0o400), (Form::Snapshot, 0o400), (Form::Ledger, 0o600)] {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(config(dir.path(), NAME, form)).unwrap();
        store.set("a", "1").unwrap();
        let check = || {
            for entry in std::fs::read_dir(dir.path()).unwrap() {
                let entry = entry.unwrap();
                let mode = entry.metadata().unwrap().permissions().mode() & 0o7777;
                let expected = if entry.file_name() == NAME { main } else { 0o600 };
                assert_eq!(mode, expected, "{form}: {:?} has {mode:o}", entry.file_name());
            }
        };
        check();
        store.checkpoint().unwrap();
        store.set("b", "2").unwrap();
        check();
        store.close().unwrap();
        check();
    }
}

#[test]
fn the_lock_file_outlives_every_handle_as_the_same_file() {
    for form in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let lock = || std::fs::metadata(dir.path().join("app.db.lock")).unwrap().ino();
        let mut store = Store::open(config(dir.path(), NAME, form)).unwrap();
        let first = lock();
        store.set("a", "1").unwrap();
        store.checkpoint().unwrap();
        store.close().unwrap();
        assert_eq!(lock(), first);
        drop(Store::open(config(dir.path(), NAME, form)).unwrap());
        assert_eq!(lock(), first, "{form}: a lock on another file would exclude nobody");
    }
}

/// The lock file may be removed at any time. After that, only the lock on the main file excludes
/// another process.
#[test]
fn each_file_is_locked_from_the_first_moment_that_it_has_the_name_of_the_store() {
    for form in FORMS {
        let (world, files) = (Vfs::mem(1), Arc::new(Mutex::new(BTreeSet::new())));
        let (dir, seen) = (Arc::clone(&world.dir), Arc::clone(&files));
        let vfs = Observed::vfs(&world, move |call| {
            let Some(found) = dir.metadata(NAME).unwrap() else { return };
            let lock = dir.lock_existing(NAME, LockKind::Shared).unwrap();
            assert!(lock.is_none(), "{form}: the main file is not locked at {call:?}");
            seen.lock().unwrap().insert(found.identity);
        });
        let mut store = Store::open(Bed::new(vfs, form, true).config()).unwrap();
        store.set("a", "1").unwrap();
        store.checkpoint().unwrap();
        store.storage.change_key(&*keys("another")).unwrap();
        if let Some(rekey) = store.storage.rekey(&*keys("a third"), &store.map).unwrap() {
            let written = rekey.write(&store.map, &|_| true);
            store.storage.finish_checkpoint(written).unwrap();
        }
        store.set("b", "2").unwrap();
        store.close().unwrap();
        assert!(files.lock().unwrap().len() > 2, "{form}: {files:?}");
    }
}

#[test]
fn two_stores_whose_names_begin_alike_do_not_touch_each_other() {
    for form in FORMS {
        let dir = tempfile::tempdir().unwrap();
        let names = ["app.db", "app.db2", "app.db.wal", "app"];
        for name in names {
            let mut store = Store::open(config(dir.path(), name, form)).unwrap();
            store.set("name", name).unwrap();
        }
        for name in names {
            let mut store = Store::open(config(dir.path(), name, form)).unwrap();
            assert_eq!(store.map.0[b"name".as_slice()], name.as_bytes());
            store.set("again", name).unwrap();
            store.close().unwrap();
        }
        for name in names {
            let store = Store::open(config(dir.path(), name, form)).unwrap();
            assert_eq!((store.recovered.seq, store.map.0.len()), (2, 2), "{form} {name}");
        }
    }
}

#[test]
fn an_image_cut_to_any_length_is_refused_on_a_real_disk_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(config(dir.path(), NAME, Form::Wal)).unwrap();
    store.set("a", "1").unwrap();
    store.close().unwrap();
    let path = dir.path().join(NAME);
    let image = std::fs::read(&path).unwrap();
    for len in 0..image.len() {
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &image[..len]).unwrap();
        let refused = Store::open(config(dir.path(), NAME, Form::Wal)).unwrap_err();
        let is_typed = match len {
            0 => matches!(refused, Error::EmptyFile { .. }),
            1..8 => matches!(refused, Error::NotADatabase { .. }),
            _ => matches!(refused, Error::Damaged { .. }),
        };
        assert!(is_typed, "{len} bytes: {refused:?}");
        assert_eq!(std::fs::read(&path).unwrap(), image[..len], "what is refused is left alone");
    }
}

fn config(dir: &Path, name: &str, form: Form) -> codex_storage::Config {
    let mut config = Bed::new(Vfs::os(dir).unwrap(), form, false).config();
    name.clone_into(&mut config.name);
    config
}

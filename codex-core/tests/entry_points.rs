//! What every way into a store does first, beside `open` too: names, pending restores, backups of a
//! store that is missing, and what an opening costs.
#![cfg(feature = "backup")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::ops::ControlFlow;

use codex_core::vfs::Vfs;
use codex_core::{
    BackupPolicy, Backups, CheckpointPolicy, Conversion, Error, Form, OpenOptions, StorageError,
    Store,
};
use common::{FORMS, files, seed};

/// Options of a store whose log stays when it closes.
fn options(form: Form) -> OpenOptions {
    let options = Store::options().form(form).backups(BackupPolicy::keep(3));
    if form != Form::Wal {
        return options;
    }
    let close_into_image_bytes_max = 0;
    options.checkpoint(CheckpointPolicy { close_into_image_bytes_max, ..Default::default() })
}

#[test]
fn a_name_whose_files_would_be_taken_for_those_of_another_store_is_refused_everywhere() {
    let long = "n".repeat(211);
    let names = ["a.db.bak", "a.db.lock", "a.db.bak.tmp", "a.db.tmp.image", "a.db.bak.restore"];
    for name in names.into_iter().chain([&*long]) {
        let vfs = Vfs::mem(seed());
        let store = options(Form::Wal).open_in(&vfs, "b.db").unwrap();
        let there = files(&vfs);
        let copied = store.backup_to_in(&vfs, name, &mut |_| ControlFlow::Continue(()));
        let backups = Backups::of_in(&vfs, name);
        let refused = [
            ("open", options(Form::Wal).open_in(&vfs, name).map(drop)),
            ("read", Store::options().read_only(true).open_in(&vfs, name).map(drop)),
            ("convert", Conversion::new().convert_in(&vfs, name).map(drop)),
            ("list", backups.list().map(drop)),
            ("verify", backups.verify(1).map(drop)),
            ("restore", backups.restore(1).map(drop)),
            ("prune", backups.prune(1).map(drop)),
            ("copy", copied.map(drop)),
        ];
        for (entry, refused) in refused {
            let refused = refused.expect_err(entry);
            let is_bad = matches!(refused, Error::Storage(StorageError::BadPath { .. }));
            assert!(is_bad, "{entry} {name}: {refused}");
        }
        assert_eq!(files(&vfs), there, "{name}");
    }
    // Nothing in the folder of a store is mistaken for its own.
    let vfs = Vfs::mem(seed());
    common::write(&vfs, "a.db.tmp.notes", b"somebody's");
    options(Form::Wal).open_in(&vfs, "a.db").unwrap().close().unwrap();
    assert_eq!(common::read(&vfs, "a.db.tmp.notes"), b"somebody's");
}

#[test]
fn a_store_under_the_longest_name_is_backed_up_restored_and_converted() {
    let name = "n".repeat(210);
    for form in FORMS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(&name);
        let store = options(form).open(&path).unwrap();
        for n in 1..=3_u64 {
            store.set("n", &n).unwrap();
            store.back_up().unwrap();
        }
        store.set("n", &4_u64).unwrap();
        store.close().unwrap();
        drop(store);
        let backups = Backups::of(&path).unwrap();
        let restored = backups.restore(2).unwrap();
        assert_eq!(restored.replaced.len(), if form == Form::Wal { 2 } else { 1 }, "{form}");
        Conversion::new().form(Form::Snapshot).convert(&path).unwrap();
        let store = Store::options().open(&path).unwrap();
        assert_eq!(store.get::<u64>("n").unwrap(), Some(2), "{form}");
    }
}

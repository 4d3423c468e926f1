//! What was seen before a lock was taken is not believed after it.
//!
//! Another process does its work right before a call of the first one takes the lock, so there is
//! nothing to wait for: the observer of the calls runs it.

use std::sync::Arc;

use codex_storage::storage::Form;
use codex_storage::sync::Mutex;
use codex_storage::vfs::fault::FaultDir;
use codex_storage::vfs::{CallKind, Dir, Mode, Observed, Open, Vfs};
use codex_storage::{Access, Config, Conversion, Create, Error, convert, repair_header};

use crate::common::store::Store;
use crate::common::{Bed, NAME, keys, put};

const FORMS: [Form; 3] = [Form::Wal, Form::Snapshot, Form::Ledger];

fn config(vfs: Vfs, form: Form) -> Config {
    let mut config = Bed::new(vfs, form, false).config();
    config.checkpoint.close_into_image_bytes_max = 0;
    config
}

/// Opens a store, sets `key` in it and closes it.
fn add(disk: &FaultDir, seed: u64, form: Form, key: &str) {
    let mut store = Store::open(config(disk.vfs(seed), form)).unwrap();
    store.set(key, "value").unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
}

/// This disk as another process sees it, in which `work` is done right before its `nth` attempt to
/// take the lock of the store, of `app.db.lock` or `app.db.bak.lock`.
fn before_lock(disk: &FaultDir, nth: u32, work: impl FnOnce() + Send + 'static) -> Vfs {
    let left = Mutex::new((nth, Some(work)));
    Observed::vfs(&disk.vfs(100), move |call| {
        if call.kind != CallKind::TryLock {
            return;
        }
        let mut left = left.lock();
        left.0 = left.0.saturating_sub(1);
        if left.0 == 0
            && let Some(work) = left.1.take()
        {
            work();
        }
    })
}

fn keys_of(store: &Store) -> Vec<String> {
    store.map.0.keys().map(|key| String::from_utf8(key.clone()).unwrap()).collect()
}

#[test]
fn a_store_that_another_process_made_meanwhile_is_opened_and_not_made_again() {
    for form in FORMS {
        let disk = FaultDir::new();
        let other = disk.clone();
        let vfs = before_lock(&disk, 1, move || add(&other, 1, form, "theirs"));
        let mut store = Store::open(config(vfs, form)).unwrap();
        assert_eq!((keys_of(&store), store.recovered.seq), (vec!["theirs".to_owned()], 1));
        store.set("ours", "value").unwrap();
        drop(store);
        assert_eq!(Store::open(config(disk.vfs(2), form)).unwrap().map.0.len(), 2, "{form}");

        let disk = FaultDir::new();
        let other = disk.clone();
        let vfs = before_lock(&disk, 1, move || add(&other, 1, form, "theirs"));
        let refused = Store::open(Config { create: Create::New, ..config(vfs, form) });
        assert!(matches!(refused, Err(Error::AlreadyExists { .. })), "{form}: {refused:?}");
        assert_eq!(Store::open(config(disk.vfs(2), form)).unwrap().map.0.len(), 1, "{form}");
    }
}

#[test]
fn a_store_that_went_on_meanwhile_is_read_as_it_is_now() {
    for form in FORMS {
        for access in [Access::ReadWrite, Access::ReadOnly] {
            let disk = FaultDir::new();
            add(&disk, 1, form, "first");
            let other = disk.clone();
            let vfs = before_lock(&disk, 1, move || {
                add(&other, 2, form, "second");
                add(&other, 3, form, "third");
            });
            let store = Store::open(Config { access, ..config(vfs, form) }).unwrap();
            assert_eq!(keys_of(&store), ["first", "second", "third"], "{form} {access:?}");
            assert_eq!(store.recovered.seq, 3);
        }
    }
}

#[test]
fn what_a_handle_did_while_its_lock_was_waited_for_is_read() {
    for form in FORMS {
        for access in [Access::ReadWrite, Access::ReadOnly] {
            let disk = FaultDir::new();
            let mut theirs = Store::open(config(disk.vfs(1), form)).unwrap();
            theirs.set("first", "value").unwrap();
            // The first two attempts find the lock held.
            let vfs = before_lock(&disk, 3, move || {
                theirs.set("second", "value").unwrap();
                theirs.checkpoint().unwrap();
                theirs.set("third", "value").unwrap();
                theirs.close().unwrap();
            });
            let lock_timeout = std::time::Duration::from_secs(3600);
            let store = Store::open(Config { access, lock_timeout, ..config(vfs, form) }).unwrap();
            assert_eq!(keys_of(&store), ["first", "second", "third"], "{form} {access:?}");
        }
    }
}

#[test]
fn a_store_that_is_gone_or_other_than_it_was_is_refused_as_what_it_is_now() {
    for form in FORMS {
        let opened = |create, work: fn(&FaultDir)| {
            let disk = FaultDir::new();
            add(&disk, 1, form, "first");
            let other = disk.clone();
            let vfs = before_lock(&disk, 1, move || work(&other));
            let opened = Store::open(Config { create, form: None, ..config(vfs, form) });
            (opened.map(|store| store.map.0.len()), disk)
        };
        let (removed, _) = opened(Create::Never, |disk| {
            for name in disk.list().unwrap() {
                disk.remove(&name).unwrap();
            }
        });
        assert!(matches!(removed, Err(Error::NotFound { .. })), "{form}: {removed:?}");
        let (pending, _) = opened(Create::IfMissing, |disk| {
            disk.open("app.db.bak.restore", Open::CreateNew(Mode::Private)).unwrap();
        });
        assert!(matches!(pending, Err(Error::RestorePending { .. })), "{form}: {pending:?}");
        let (encrypted, disk) = opened(Create::IfMissing, |disk| {
            let to = Conversion { form: None, keys: Some(keys("new")), compression: None };
            convert(Config::new(disk.vfs(5), NAME), &to).unwrap();
        });
        assert!(matches!(encrypted, Err(Error::KeyRequired { .. })), "{form}: {encrypted:?}");
        let mut with_key = Config::new(disk.vfs(6), NAME);
        with_key.keys = Some(keys("new"));
        assert_eq!(Store::open(with_key).unwrap().map.0.len(), 1, "{form}");
    }
}

#[test]
fn an_image_that_was_repaired_meanwhile_is_not_put_back() {
    for form in [Form::Wal, Form::Snapshot] {
        let disk = FaultDir::new();
        let mut store = Store::open(Bed::new(disk.vfs(1), form, false).config()).unwrap();
        store.set("first", "value").unwrap();
        store.close().unwrap();
        let mut damaged = disk.peek(NAME).unwrap();
        let end = damaged.len() - 512;
        damaged[end..].fill(0);
        put(&disk.vfs(2), NAME, &damaged);
        let other = disk.clone();
        let vfs = before_lock(&disk, 1, move || {
            assert!(repair_header(&other.vfs(3), NAME, None).unwrap());
            add(&other, 4, form, "second");
        });
        assert!(!repair_header(&vfs, NAME, None).unwrap(), "{form}: there is nothing to mend");
        let store = Store::open(config(disk.vfs(5), form)).unwrap();
        assert_eq!(keys_of(&store), ["first", "second"], "{form}");
    }
}

#[test]
fn a_store_that_went_on_before_its_conversion_is_converted_as_it_is_now() {
    for form in FORMS {
        let disk = FaultDir::new();
        add(&disk, 1, form, "first");
        let other = disk.clone();
        let vfs = before_lock(&disk, 1, move || add(&other, 2, form, "second"));
        let to =
            Conversion { form: Some(Form::Ledger), keys: Some(keys("new")), compression: None };
        convert(config(vfs, form), &to).unwrap();
        let bed = Bed { keys: Some(keys("new")), ..Bed::new(disk.vfs(3), Form::Ledger, false) };
        assert_eq!(keys_of(&Store::open(bed.config()).unwrap()), ["first", "second"], "{form}");
    }
}

/// The observer is the other process: it must have done its work.
#[test]
fn the_other_process_comes_in_between() {
    let disk = FaultDir::new();
    let done = Arc::new(Mutex::new(false));
    let told = Arc::clone(&done);
    let vfs = before_lock(&disk, 2, move || *told.lock() = true);
    drop(Store::open(config(vfs.clone(), Form::Wal)).unwrap());
    assert!(!*done.lock());
    drop(Store::open(config(vfs, Form::Wal)).unwrap());
    assert!(*done.lock());
}

//! The limit of messages under one key. A log begins a new epoch in time, and an image that would
//! exceed the limit is refused. Neither loses a commit.

use std::sync::Arc;

use crate::common::seal::ToyKeys;
use crate::common::store::Store;
use crate::common::{Bed, SEED, bytes};
use codex_storage::storage::Form;
use codex_storage::vfs::{SeededEntropy, Vfs};
use codex_storage::{Error, Result, verify};

const LIMIT: u64 = 20;
const FORMS: [Form; 3] = [Form::Wal, Form::Snapshot, Form::Ledger];

/// A store whose epochs seal 20 messages.
fn bed(form: Form) -> Bed {
    let keys = ToyKeys::limited("open sesame", Arc::new(SeededEntropy::new(SEED)), LIMIT);
    Bed { keys: Some(keys), ..Bed::new(Vfs::mem(SEED), form, false) }
}

/// Commits a value that fills a block of an image.
fn block(store: &mut Store, n: u64) -> Result<()> {
    store.set(&format!("block {n:03}"), &"v".repeat(64 << 10)).map(drop)
}

fn is_refused<T: std::fmt::Debug>(done: Result<T>) {
    match done {
        Err(error @ Error::Seal { .. }) => {
            let text = error.to_string();
            assert!(text.contains("app.db") && text.contains("limit"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

/// Checks that no file of the refused image is left, and that all commits are found.
fn is_whole(bed: &Bed, store: Store) {
    let names = bed.vfs.dir.list().unwrap();
    assert!(names.iter().all(|name| !name.contains(".tmp.")), "{names:?}");
    let map = store.map.clone();
    store.close().unwrap();
    verify(&bed.vfs, crate::common::NAME, bed.keys.as_deref()).unwrap();
    let mut store = Store::open(bed.config()).unwrap();
    assert!(store.map == map && store.recovered.clean);
    store.set("then", "value").unwrap();
}

#[test]
fn a_log_begins_a_new_epoch_long_before_its_key_is_worn_out() {
    for form in [Form::Wal, Form::Ledger] {
        let bed = bed(form);
        let mut store = Store::open(bed.config()).unwrap();
        for n in 0..10 * LIMIT {
            store.set(&format!("key {n}"), "value").unwrap();
        }
        let name =
            if form == Form::Wal { "app.db.wal.00000000000000000001" } else { crate::common::NAME };
        let log = bytes(&bed.vfs, name);
        let frames: Vec<_> = log.chunks(64).filter(|head| head.starts_with(b"CDXF")).collect();
        assert_eq!(frames.len(), 10 * usize::try_from(LIMIT).unwrap(), "{form}");
        let counter = |head: &[u8]| u64::from_le_bytes(*head[32..].first_chunk().unwrap());
        let used = frames.iter().map(|head| counter(head)).max().unwrap();
        let salted = frames.iter().filter(|head| head[5] & 2 != 0).count();
        assert_eq!((used, salted), (LIMIT / 2, 20), "{form}: counters used, and epochs");
        is_whole(&bed, store);
    }
}

#[test]
fn an_image_that_would_exhaust_its_epoch_never_takes_the_place_of_the_old_one() {
    let bed = bed(Form::Wal);
    let mut store = Store::open(bed.config()).unwrap();
    // 20 messages, including the section and the footer.
    for n in 0..LIMIT - 2 {
        block(&mut store, n).unwrap();
    }
    assert!(store.checkpoint().unwrap());
    let image = bytes(&bed.vfs, crate::common::NAME);
    for n in LIMIT - 2..LIMIT + 4 {
        block(&mut store, n).unwrap();
        is_refused(store.checkpoint());
        assert_eq!(bytes(&bed.vfs, crate::common::NAME), image);
        store.set("beside", &format!("{n}")).unwrap();
    }
    assert_eq!(store.storage.stats().images_failed, 6);
    let new = ToyKeys::limited("other", Arc::new(SeededEntropy::new(7)), LIMIT);
    let job = store.storage.rekey(&*new, &store.map).unwrap().unwrap();
    let written = job.write(&store.map, &|_| true);
    is_refused(store.storage.finish_checkpoint(written));
    assert_eq!(bytes(&bed.vfs, crate::common::NAME), image);
    // If no image can be written at the close, the log gets the mark of a clean close.
    is_whole(&bed, store);
    let mut store = Store::open(bed.config()).unwrap();
    for n in 0..10 {
        let key = format!("block {n:03}");
        store.commit(&[&[codex_storage::batch::Op::remove(key.as_bytes())]]).unwrap();
    }
    assert!(store.checkpoint().unwrap(), "a smaller state fits again");
    is_whole(&bed, store);
}

#[test]
fn a_commit_of_a_snapshot_whose_image_would_exhaust_its_epoch_is_refused_and_absent() {
    let bed = bed(Form::Snapshot);
    let mut store = Store::open(bed.config()).unwrap();
    for n in 0..LIMIT - 2 {
        block(&mut store, n).unwrap();
    }
    let (map, anchor) = (store.map.clone(), store.storage.anchor());
    is_refused(block(&mut store, LIMIT));
    assert_eq!((&store.map, store.storage.anchor()), (&map, anchor));
    store.set("block 000", "smaller").unwrap();
    is_whole(&bed, store);
}

#[test]
fn a_rekey_begins_as_many_epochs_as_a_long_history_needs() {
    for form in FORMS {
        let bed = bed(form);
        let mut store = Store::open(bed.config()).unwrap();
        for n in 0..3 * LIMIT {
            store.set(&format!("key {n}"), "value").unwrap();
        }
        let new = ToyKeys::limited("other", Arc::new(SeededEntropy::new(7)), LIMIT);
        if let Some(job) = store.storage.rekey(&*new, &store.map).unwrap() {
            let state = store.map.clone();
            for n in 0..3 * LIMIT {
                store.set(&format!("beside {n}"), "value").unwrap();
            }
            let written = job.write(&state, &|_| true);
            store.storage.finish_checkpoint(written).unwrap();
        }
        is_whole(&Bed { keys: Some(new), ..bed }, store);
    }
}

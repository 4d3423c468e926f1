//! Images of format version 1 and the logs that continue them. This build writes the same bytes,
//! and reads them.

use std::sync::Arc;

use codex_storage::Access;
use codex_storage::batch::Op;
use codex_storage::storage::Form;
use codex_storage::vfs::{SeededEntropy, Vfs};

use crate::common::seal::ToyKeys;
use crate::common::store::Store;
use crate::common::{Bed, NAME, files, golden, mem_with};

#[test]
fn a_golden_snapshot_is_made_and_read_the_same() {
    check("snapshot", Form::Snapshot, false, |bed| {
        let mut store = Store::open(bed.config()).unwrap();
        fill(&mut store);
        store
    });
}

#[test]
fn a_golden_sealed_snapshot_is_made_and_read_the_same() {
    check("snapshot-toy-seal", Form::Snapshot, true, |bed| {
        let mut store = Store::open(bed.config()).unwrap();
        fill(&mut store);
        store
    });
}

#[test]
fn a_golden_wal_that_closed_into_its_image_is_made_and_read_the_same() {
    check("wal-whole", Form::Wal, false, |bed| {
        let mut store = Store::open(bed.config()).unwrap();
        fill(&mut store);
        store
    });
}

#[test]
fn a_golden_wal_with_two_segments_is_made_and_read_the_same() {
    for (name, sealed) in [("wal", false), ("wal-toy-seal", true)] {
        check(name, Form::Wal, sealed, |bed| {
            let mut config = bed.config();
            config.checkpoint.close_into_image_bytes_max = 0;
            let mut store = Store::open(config).unwrap();
            fill(&mut store);
            store.checkpoint().unwrap();
            store.set("behind", "the image").unwrap();
            drop(store.begin().unwrap());
            store.set("in another", "segment").unwrap();
            store
        });
    }
}

/// Returns entries of all kinds: empty, binary, longer than a block, and a removal.
fn fill(store: &mut Store) {
    let large = vec![0x5A; 70_000];
    store.set("", "the empty key").unwrap();
    store.set("empty", "").unwrap();
    store
        .commit(&[
            &[Op::set(b"large", &large), Op::set(b"gone", b"soon")],
            &[Op::set(b"\x00\xff binary", b"\xff\x00")],
        ])
        .unwrap();
    store.commit(&[&[Op::remove(b"gone")]]).unwrap();
}

/// Makes the store, closes it, compares each of its files with the golden file, and reads the
/// golden files.
fn check(name: &str, form: Form, sealed: bool, make: impl Fn(&Bed) -> Store) {
    let mut bed = Bed::new(Vfs::mem(3_001), form, false);
    if sealed {
        bed.keys = Some(ToyKeys::new("golden", Arc::new(SeededEntropy::new(3_002))));
    }
    let mut store = make(&bed);
    let (map, anchor) = (store.map.clone(), store.storage.anchor());
    store.close().unwrap();
    let kept: Vec<(String, Vec<u8>)> = files(&bed.vfs)
        .iter()
        .map(|(file, made)| (file.clone(), golden::check(&golden_name(name, file), made)))
        .collect();
    let read = Bed { vfs: mem_with(&kept), ..bed };
    let mut config = read.config();
    config.access = Access::ReadOnly;
    config.anchor = Some(anchor);
    let store = Store::open(config).unwrap();
    assert_eq!((&store.map, store.recovered.clean), (&map, true));
    let verified = codex_storage::verify(&read.vfs, NAME, read.keys.as_deref()).unwrap();
    assert_eq!((verified.seq, verified.anchor), (anchor.seq, Some(anchor)));
}

/// Returns `wal.db` for the image, and `wal.segment-3.log` for a segment.
fn golden_name(name: &str, file: &str) -> String {
    match file.strip_prefix("app.db.wal.") {
        Some(digits) => format!("{name}.segment-{}.log", digits.trim_start_matches('0')),
        None => format!("{name}.db"),
    }
}

//! Images, segments and anchors that do not belong together: each is refused by its own error.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use codex_storage::storage::{Anchor, Form};
use codex_storage::vfs::Vfs;
use codex_storage::{Access, Error, Result};

use common::store::Store;
use common::{Bed, NAME, bytes, files, put};

#[test]
fn a_log_without_its_image_and_an_image_without_its_log_are_named() {
    for sealed in [false, true] {
        let bed = used(sealed);
        let copy = bed.copy();
        copy.vfs.dir.remove(NAME).unwrap();
        let refused = unchanged(&copy);
        assert!(matches!(&refused, Error::ImageMissing { log, .. } if *log == segment(2)));
        let copy = bed.copy();
        copy.vfs.dir.remove(&segment(2)).unwrap();
        let refused = unchanged(&copy);
        assert!(matches!(&refused, Error::LogMissing { log, .. } if *log == segment(2)));
        let refused = codex_storage::verify(&copy.vfs, NAME, copy.keys.as_deref());
        assert!(matches!(refused, Err(Error::LogMissing { .. })), "{refused:?}");
    }
}

#[test]
fn an_older_image_put_back_by_hand_never_serves_an_older_state() {
    for sealed in [false, true] {
        let bed = Bed::mem(Form::Wal, sealed);
        Store::open(bed.config()).unwrap().close().unwrap();
        let whole = bytes(&bed.vfs, NAME);
        let mut store = Store::open(bed.config()).unwrap();
        store.set("a", "1").unwrap();
        let attached = bytes(&bed.vfs, NAME);
        store.checkpoint().unwrap();
        store.set("b", "2").unwrap();
        drop(store);
        // The whole image knows no log, but one with commits is there.
        let copy = bed.copy();
        put(&copy.vfs, NAME, &whole);
        assert!(matches!(unchanged(&copy), Error::ForeignLog { .. }));
        // The attached one names a segment that the checkpoint has removed.
        let copy = bed.copy();
        put(&copy.vfs, NAME, &attached);
        assert!(matches!(unchanged(&copy), Error::LogMissing { .. }));
    }
}

#[test]
fn a_segment_of_another_store_is_foreign() {
    for sealed in [false, true] {
        let (bed, other) = (used(sealed), Bed::new(Vfs::mem(99), Form::Wal, sealed));
        let mut store = Store::open(other.config()).unwrap();
        store.set("a", "1").unwrap();
        store.checkpoint().unwrap();
        store.set("foreign", "2").unwrap();
        drop(store);
        let copy = bed.copy();
        put(&copy.vfs, &segment(2), &bytes(&other.vfs, &segment(2)));
        assert!(matches!(unchanged(&copy), Error::ForeignLog { .. }));
    }
}

#[test]
fn two_lives_of_one_copied_store_do_not_mix() {
    for sealed in [false, true] {
        let bed = Bed::mem(Form::Wal, sealed);
        let mut store = Store::open(bed.config()).unwrap();
        store.set("before", "both").unwrap();
        store.close().unwrap();
        let branch = bed.copy();
        for (bed, value) in [(&bed, "here"), (&branch, "there")] {
            let mut store = Store::open(bed.config()).unwrap();
            store.set("lived", value).unwrap();
        }
        // Both segments have the same generation, seq and digest as their base.
        let copy = bed.copy();
        put(&copy.vfs, &segment(2), &bytes(&branch.vfs, &segment(2)));
        assert!(matches!(unchanged(&copy), Error::ForeignLog { .. }));
        // Further on, the ends of their first segments differ.
        for bed in [&bed, &branch] {
            let mut store = Store::open(bed.config()).unwrap();
            drop(store.begin().unwrap());
            store.set("b", "2").unwrap();
        }
        let copy = bed.copy();
        put(&copy.vfs, &segment(3), &bytes(&branch.vfs, &segment(3)));
        assert!(matches!(unchanged(&copy), Error::ForeignLog { .. }));
    }
}

#[test]
fn a_segment_that_does_not_reach_the_next_is_damaged() {
    let bed = Bed::mem(Form::Wal, false);
    let mut store = Store::open(bed.config()).unwrap();
    store.set("a", "1").unwrap();
    let short = bytes(&bed.vfs, &segment(1));
    store.set("b", "2").unwrap();
    drop(store.begin().unwrap());
    store.set("c", "3").unwrap();
    drop(store);
    let copy = bed.copy();
    put(&copy.vfs, &segment(1), &short);
    let refused = unchanged(&copy);
    assert!(matches!(refused, Error::Damaged { .. }), "{refused:?}");
    let verified = codex_storage::verify(&copy.vfs, NAME, None);
    assert!(matches!(verified, Err(Error::Damaged { .. })), "{verified:?}");
    // Bytes behind its end.
    let copy = bed.copy();
    let mut longer = bytes(&bed.vfs, &segment(1));
    longer.extend([1; 64]);
    put(&copy.vfs, &segment(1), &longer);
    let refused = unchanged(&copy);
    assert!(matches!(refused, Error::Damaged { .. } | Error::TailSuspect { .. }), "{refused:?}");
    let copy = bed.copy();
    copy.vfs.dir.remove(&segment(1)).unwrap();
    assert!(matches!(unchanged(&copy), Error::LogMissing { .. }));
}

#[test]
fn each_flipped_bit_of_a_segment_that_is_not_the_last_is_a_typed_error() {
    for sealed in [false, true] {
        let bed = Bed::mem(Form::Wal, sealed);
        let mut store = Store::open(bed.config()).unwrap();
        store.set("a", "1").unwrap();
        drop(store.begin().unwrap());
        store.set("b", "2").unwrap();
        drop(store);
        let intact = bytes(&bed.vfs, &segment(1));
        for at in 0..intact.len() {
            let mut damaged = intact.clone();
            damaged[at] ^= 1 << (at % 8);
            let copy = bed.copy();
            put(&copy.vfs, &segment(1), &damaged);
            let mut config = copy.config();
            config.access = Access::ReadOnly;
            let refused = Store::open(config).map(|_| ());
            let is_typed = matches!(
                refused,
                Err(Error::Damaged { .. }
                    | Error::Tampered { .. }
                    | Error::NotADatabase { .. }
                    | Error::NewerVersion { .. }
                    | Error::ForeignLog { .. }
                    | Error::TailSuspect { .. })
            );
            assert!(is_typed, "byte {at}: {refused:?}");
        }
    }
}

#[test]
fn a_segment_under_another_name_is_no_store() {
    let bed = used(false);
    put(&bed.vfs, "other.db", &bytes(&bed.vfs, &segment(2)));
    let mut config = bed.config();
    config.name = "other.db".to_owned();
    let refused = Store::open(config);
    assert!(matches!(refused, Err(Error::BadPath { .. })), "{refused:?}");
}

#[test]
fn an_anchor_is_found_in_the_log_and_a_rolled_back_store_is_refused() {
    for sealed in [false, true] {
        let bed = Bed::mem(Form::Wal, sealed);
        let mut store = Store::open(bed.config()).unwrap();
        let mut anchors = Vec::new();
        let mut copies = Vec::new();
        for n in 0..4 {
            store.set("key", &n.to_string()).unwrap();
            anchors.push(store.storage.anchor());
            copies.push(bed.copy());
            if n == 1 {
                store.checkpoint().unwrap();
            }
        }
        for (at, copy) in copies.iter().enumerate() {
            for (wanted, anchor) in anchors.iter().enumerate() {
                let mut config = copy.config();
                config.access = Access::ReadOnly;
                config.anchor = Some(*anchor);
                let opened = Store::open(config.clone());
                assert_eq!(opened.is_ok(), wanted <= at, "{wanted} at {at}: {opened:?}");
                config.anchor = Some(Anchor { digest: [7; 32], ..*anchor });
                let known = wanted >= 1 || at < 2;
                assert_eq!(Store::open(config).is_err(), known, "{wanted} at {at}");
            }
        }
    }
}

/// A store with an image, a segment behind it and commits in both.
fn used(sealed: bool) -> Bed {
    let bed = Bed::mem(Form::Wal, sealed);
    let mut store = Store::open(bed.config()).unwrap();
    store.set("a", "1").unwrap();
    store.checkpoint().unwrap();
    store.set("b", "2").unwrap();
    bed
}

/// The error of opening, which has changed no byte.
fn unchanged(bed: &Bed) -> Error {
    let before = files(&bed.vfs);
    let refused: Result<Store> = Store::open(bed.config());
    assert_eq!(files(&bed.vfs), before);
    refused.unwrap_err()
}

fn segment(generation: u64) -> String {
    format!("app.db.wal.{generation:020}")
}

//! Images, segments and anchors that do not belong together. Each is refused with its own error.

use codex_storage::batch::Op;
use codex_storage::storage::{Anchor, AnchorFound, Form};
use codex_storage::vfs::Vfs;
use codex_storage::{Access, Config, Conversion, Create, Error, MainFile, Result};

use crate::common::store::Store;
use crate::common::{Bed, NAME, bytes, files, keys, put};

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
        // The self-contained image names no log, but a log with commits is there.
        let copy = bed.copy();
        put(&copy.vfs, NAME, &whole);
        assert!(matches!(unchanged(&copy), Error::ForeignLog { .. }));
        // The attached image names a segment that the checkpoint has removed.
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
        // In the next segments the ends of the first segments differ.
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
    // Bytes after its end.
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
        let copy = bed.copy();
        for (at, bit) in (0..intact.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut damaged = intact.clone();
            damaged[at] ^= 1 << bit;
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
            assert!(is_typed, "bit {bit} of byte {at}: {refused:?}");
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
                config.anchor = Some(Anchor::new(anchor.store_id, anchor.seq, [7; 32]));
                // The anchors before the image are listed in it.
                let refused = Store::open(config);
                let is_named = matches!(refused, Err(Error::AnchorMismatch { .. }));
                assert!(is_named, "{wanted} at {at}: {refused:?}");
            }
        }
    }
}

const IMAGES: [(Form, bool); 4] =
    [(Form::Wal, false), (Form::Wal, true), (Form::Snapshot, false), (Form::Snapshot, true)];

/// Opens the store with the anchor.
fn anchored(bed: &Bed, anchor: Anchor, accept_unknown_anchor: bool) -> Result<Store> {
    Store::open(Config { anchor: Some(anchor), accept_unknown_anchor, ..bed.config() })
}

/// Makes `count` commits of `value`, with a checkpoint after each.
fn go_on(bed: &Bed, value: &str, count: u32) -> Store {
    let mut store = Store::open(bed.config()).unwrap();
    for n in 0..count {
        store.set(&format!("key {n}"), value).unwrap();
        store.checkpoint().unwrap();
    }
    store
}

/// Two histories of one store that continue from a common commit, both past the anchor and past a
/// checkpoint.
#[test]
fn a_fork_is_refused_with_an_anchor_of_the_other_history() {
    for (form, sealed) in IMAGES {
        let bed = Bed::mem(form, sealed);
        let common = go_on(&bed, "common", 3).storage.anchor();
        let (told, untold) = (bed.copy(), bed.copy());
        let mut ends = Vec::new();
        for (bed, value) in [(&bed, "own"), (&told, "other")] {
            ends.push(go_on(bed, value, 2).storage.anchor());
            go_on(bed, value, 4).close().unwrap();
        }
        go_on(&untold, "another", 6).close().unwrap();
        let [own, other] = ends[..] else { panic!("two ends") };
        assert_eq!((own.seq, own.store_id), (other.seq, other.store_id));
        assert_ne!(own.value, other.value);
        for (bed, end) in [(&bed, own), (&told, other)] {
            for anchor in [common, end] {
                let found = anchored(bed, anchor, false).unwrap().recovered.anchor;
                assert_eq!(found, Some(AnchorFound::Compared), "{form} {sealed}");
            }
        }
        for accepts in [false, true] {
            let refused = anchored(&bed, other, accepts);
            assert!(matches!(refused, Err(Error::AnchorMismatch { .. })), "{form}: {refused:?}");
        }
        if form == Form::Snapshot {
            // No position was listed at that commit, so the files do not show it.
            let refused = anchored(&untold, own, false);
            assert!(matches!(refused, Err(Error::AnchorUnknown { .. })), "{form}: {refused:?}");
            let found = anchored(&untold, own, true).unwrap().recovered.anchor;
            assert_eq!(found, Some(AnchorFound::Unknown));
        } else {
            // The base of each image is listed.
            let refused = anchored(&untold, own, true);
            assert!(matches!(refused, Err(Error::AnchorMismatch { .. })), "{form}: {refused:?}");
        }
    }
}

#[test]
fn another_store_under_the_same_key_is_refused_with_the_anchor_of_this_one() {
    for (form, sealed) in IMAGES.into_iter().chain([(Form::Ledger, true)]) {
        let (bed, other) = (Bed::mem(form, sealed), Bed::new(Vfs::mem(77), form, sealed));
        let anchor = go_on(&bed, "own", 2).storage.anchor();
        go_on(&other, "own", 5).close().unwrap();
        for accepts in [false, true] {
            let refused = anchored(&other, anchor, accepts);
            assert!(matches!(refused, Err(Error::AnchorMismatch { .. })), "{form}: {refused:?}");
        }
    }
}

#[test]
fn an_anchor_survives_changes_of_keys_conversions_and_copies() {
    for form in [Form::Wal, Form::Snapshot, Form::Ledger] {
        let bed = Bed::mem(form, true);
        let mut store = go_on(&bed, "value", 2);
        let anchor = store.storage.anchor();
        store.set("more", "of it").unwrap();
        store.close().unwrap();
        let compared = |bed: &Bed, what: &str| {
            let store = anchored(bed, anchor, false);
            let mut store = store.unwrap_or_else(|e| panic!("{form}, {what}: {e}"));
            assert_eq!(store.recovered.anchor, Some(AnchorFound::Compared), "{form}, {what}");
            store.set("still", what).unwrap();
            store.checkpoint().unwrap();
            store.close().unwrap();
        };
        compared(&bed, "as it is");
        let mut store = Store::open(bed.config()).unwrap();
        store.storage.change_key(&*keys("another")).unwrap();
        store.set("after", "the change").unwrap();
        store.close().unwrap();
        let bed = Bed { keys: Some(keys("another")), ..bed };
        compared(&bed, "after a change of the key");
        let mut store = Store::open(bed.config()).unwrap();
        if let Some(rekey) = store.storage.rekey(&*keys("fresh"), &store.map).unwrap() {
            let written = rekey.write(&store.map, &|_| true);
            store.storage.finish_checkpoint(written).unwrap();
        }
        store.close().unwrap();
        let mut bed = Bed { keys: Some(keys("fresh")), ..bed };
        compared(&bed, "after a rekey");
        for (to, passphrase) in [(Form::Snapshot, Some("last")), (Form::Wal, None)] {
            let keys = passphrase.map(keys);
            let conversion = Conversion { form: Some(to), keys: keys.clone(), compression: None };
            let done = codex_storage::convert(bed.config(), &conversion).unwrap();
            bed = Bed { form: to, keys, ..bed };
            assert!(anchored(&bed, done.anchor, false).is_ok());
            compared(&bed, "after a conversion");
        }
        let (image, _) = MainFile::open(&bed.vfs, NAME).unwrap().to_copy().unwrap();
        let mut copied = vec![0; usize::try_from(image.len().unwrap()).unwrap()];
        image.read_exact_at(&mut copied, 0).unwrap();
        put(&bed.vfs, NAME, &copied);
        compared(&bed, "after a copy");
        // A ledger that is made from it begins after the positions that the image lists.
        let conversion = Conversion { form: Some(Form::Ledger), keys: None, compression: None };
        let last = Store::open(bed.config()).unwrap().storage.anchor();
        codex_storage::convert(bed.config(), &conversion).unwrap();
        let bed = Bed { form: Form::Ledger, ..bed };
        let unknown = anchored(&bed, anchor, false);
        assert!(matches!(unknown, Err(Error::AnchorUnknown { .. })), "{unknown:?}");
        assert_eq!(
            anchored(&bed, last, false).unwrap().recovered.anchor,
            Some(AnchorFound::Compared)
        );
    }
}

/// An anchor that this handle did not return but was opened with is listed in the next images.
#[test]
fn an_anchor_that_was_compared_or_found_at_an_open_is_listed() {
    for (form, sealed) in IMAGES {
        let bed = Bed::mem(form, sealed);
        drop(go_on(&bed, "value", 2));
        let read = Store::open(Config { access: Access::ReadOnly, ..bed.config() });
        let given = read.unwrap().storage.anchor();
        drop(anchored(&bed, given, false).unwrap());
        go_on(&bed, "value", 3).close().unwrap();
        let found = anchored(&bed, given, false).unwrap().recovered.anchor;
        assert_eq!(found, Some(AnchorFound::Compared), "{form} {sealed}");
    }
}

#[test]
fn an_anchor_inside_a_group_is_a_mismatch_and_one_of_long_ago_unknown() {
    for (form, sealed) in IMAGES {
        let bed = Bed::mem(form, sealed);
        let mut store = Store::open(bed.config()).unwrap();
        let set = Op::set(b"k", b"v");
        store.commit(&[&[set], &[set], &[set]]).unwrap();
        let end = store.storage.anchor();
        drop(store);
        let inside = Anchor::new(end.store_id, 2, end.value);
        let refused = anchored(&bed, inside, true).map(|store| store.recovered.anchor);
        match refused {
            Err(Error::AnchorMismatch { seq: 2, .. }) => assert_eq!(form, Form::Wal),
            // An image has no groups.
            Ok(Some(AnchorFound::Unknown)) => assert_eq!(form, Form::Snapshot),
            other => panic!("{form}: {other:?}"),
        }
    }
}

#[test]
fn a_missing_store_is_not_created_where_an_anchor_is_demanded() {
    let anchor = go_on(&Bed::mem(Form::Wal, false), "value", 1).storage.anchor();
    for form in [Form::Wal, Form::Snapshot, Form::Ledger] {
        for (create, access) in [
            (Create::IfMissing, Access::ReadWrite),
            (Create::New, Access::ReadWrite),
            (Create::Never, Access::ReadWrite),
            (Create::IfMissing, Access::ReadOnly),
        ] {
            for with_backup in [false, true] {
                let bed = Bed::mem(form, false);
                if with_backup {
                    put(&bed.vfs, "app.db.bak.1", b"whatever");
                }
                let before = files(&bed.vfs);
                let config = Config { create, access, ..bed.config() };
                let refused = Store::open(Config { anchor: Some(anchor), ..config.clone() });
                assert!(matches!(refused, Err(Error::NotFound { .. })), "{form}: {refused:?}");
                let conversion =
                    Conversion { form: Some(Form::Snapshot), keys: None, compression: None };
                let config = Config { anchor: Some(anchor), ..config };
                let refused = codex_storage::convert(config, &conversion);
                assert!(matches!(refused, Err(Error::NotFound { .. })), "{form}: {refused:?}");
                assert_eq!(files(&bed.vfs), before, "nothing was made");
            }
        }
    }
}

/// A store with an image, a segment after it, and commits in both.
fn used(sealed: bool) -> Bed {
    let bed = Bed::mem(Form::Wal, sealed);
    let mut store = Store::open(bed.config()).unwrap();
    store.set("a", "1").unwrap();
    store.checkpoint().unwrap();
    store.set("b", "2").unwrap();
    bed
}

/// Returns the error of opening, and checks that it has changed no byte.
fn unchanged(bed: &Bed) -> Error {
    let before = files(&bed.vfs);
    let refused: Result<Store> = Store::open(bed.config());
    assert_eq!(files(&bed.vfs), before);
    refused.unwrap_err()
}

fn segment(generation: u64) -> String {
    format!("app.db.wal.{generation:020}")
}

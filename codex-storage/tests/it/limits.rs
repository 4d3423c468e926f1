//! The limits of names, keys and listed positions: each is accepted at its limit, and names and
//! keys are refused above it.

use codex_storage::batch::{KEY_LEN_MAX, Op};
use codex_storage::storage::Form;
use codex_storage::vfs::Vfs;
use codex_storage::{Config, Error, RecordError};

use crate::common::Bed;
use crate::common::store::Store;

const FORMS: [Form; 3] = [Form::Wal, Form::Snapshot, Form::Ledger];

#[test]
fn the_longest_name_of_a_store_leaves_room_for_every_name_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let vfs = Vfs::os(folder.path()).unwrap();
    for form in FORMS {
        let name = format!("{form}{}", "n".repeat(210 - form.to_string().len()));
        let config = |name: &str| Config { form: Some(form), ..Config::new(vfs.clone(), name) };
        let mut store = Store::open(config(&name)).unwrap();
        store.set("a", "1").unwrap();
        store.checkpoint().unwrap();
        store.set("b", "2").unwrap();
        drop(store);
        assert_eq!(Store::open(config(&name)).unwrap().map.0.len(), 2, "{form}");
        let longer = Store::open(config(&format!("{name}n")));
        assert!(matches!(longer, Err(Error::BadPath { .. })), "{form}: {longer:?}");
    }
    // The longest name that a file beside a store can have is one that a restore has kept.
    let base = "n".repeat(210);
    let names = codex_storage::names::Names::new(&base, folder.path()).unwrap();
    let kept = names.replaced(u32::MAX, &names.segment(u64::MAX)).unwrap();
    assert_eq!(kept.len(), 255);
    std::fs::write(folder.path().join(&kept), "").unwrap();
}

#[test]
fn the_longest_key_is_stored_and_one_byte_more_is_refused() {
    assert_eq!(KEY_LEN_MAX, 65_535);
    let (longest, longer) = (vec![b'k'; KEY_LEN_MAX], vec![b'k'; KEY_LEN_MAX + 1]);
    for form in FORMS {
        for sealed in [false, true] {
            let bed = Bed::mem(form, sealed);
            let mut store = Store::open(bed.config()).unwrap();
            store.commit(&[&[Op::set(&longest, b"value")]]).unwrap();
            let mut group = store.storage.group();
            for op in [Op::set(&longer, b""), Op::remove(&longer)] {
                let refused = group.push(op).unwrap_err();
                let RecordError::KeyTooLong { len, limit } = refused else { panic!("{refused}") };
                assert_eq!((len, limit), (KEY_LEN_MAX + 1, KEY_LEN_MAX));
            }
            store.checkpoint().unwrap();
            drop(store);
            let mut store = Store::open(bed.config()).unwrap();
            assert_eq!(store.map.0[&longest], b"value", "{form}");
            store.commit(&[&[Op::remove(&longest)]]).unwrap();
            drop(store);
            assert!(Store::open(bed.config()).unwrap().map.0.is_empty(), "{form}");
        }
    }
}

/// An image lists at most 128 earlier positions; those beyond are thinned out.
#[test]
fn an_image_with_as_many_listed_positions_as_there_can_be_is_read() {
    for form in [Form::Wal, Form::Snapshot] {
        for anchors in 120..136 {
            let bed = Bed::mem(form, false);
            let mut store = Store::open(bed.config()).unwrap();
            for n in 0..anchors {
                store.set("key", &n.to_string()).unwrap();
                store.storage.anchor();
            }
            store.set("key", "last").unwrap();
            store.checkpoint().unwrap();
            drop(store);
            let store = Store::open(bed.config());
            let seq = store.unwrap_or_else(|e| panic!("{form}, {anchors}: {e}")).recovered.seq;
            assert_eq!(seq, anchors + 1);
        }
    }
}

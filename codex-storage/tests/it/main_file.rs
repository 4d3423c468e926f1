//! The main file that an open storage hands out, and the copy that is made of it later.

use codex_storage::storage::Form;
use codex_storage::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side, Survivors};
use codex_storage::vfs::{CallKind, Dir, File, Mode, Open, PIECE_BYTES, Vfs};
use codex_storage::{Access, Error, MainFile};

use crate::common::store::Store;
use crate::common::{Bed, NAME, keys, put};

/// The storage is changed in this way after it has handed out its main file.
#[derive(Debug, Clone, Copy)]
enum Then {
    Commit,
    Checkpoint,
    ChangeKey,
    Rekey,
    Close,
}

#[test]
fn a_copy_of_the_file_handed_out_is_of_that_state_whatever_is_done_to_the_store() {
    let mut count = 0;
    for form in [Form::Wal, Form::Snapshot, Form::Ledger] {
        for then in [Then::Commit, Then::Checkpoint, Then::ChangeKey, Then::Rekey, Then::Close] {
            let bed = Bed::mem(form, true);
            let mut store = Store::open(bed.config()).unwrap();
            for n in 0..3 {
                store.set(&n.to_string(), "before").unwrap();
            }
            store.checkpoint().unwrap();
            let main = store.storage.main_file().unwrap();
            let (map, anchor) = (store.map.clone(), store.storage.anchor());
            store.set("3", "after").unwrap();
            change(store, then);
            // After the changes, as a copy reads while the store goes on.
            let (file, _) = main.to_copy().unwrap();
            let copy = Bed { vfs: copied(&*file), ..bed.clone() };
            let facts = MainFile::open(&copy.vfs, NAME).unwrap().verify(None, true, &mut |_| true);
            assert_eq!(facts.unwrap().seq, 3, "{form} {then:?}");
            let mut store =
                Store::open(codex_storage::Config { access: Access::ReadOnly, ..copy.config() })
                    .unwrap();
            assert_eq!(store.map, map, "{form} {then:?}");
            assert_eq!(store.storage.anchor(), anchor, "{form} {then:?}");
            count += 1;
        }
    }
    assert_eq!(count, 15);
}

/// Changes the store so that another file takes the name of its main file, or that file grows.
fn change(mut store: Store, then: Then) {
    match then {
        Then::Commit => {}
        Then::Checkpoint => _ = store.checkpoint().unwrap(),
        Then::ChangeKey => store.storage.change_key(&*keys("another")).unwrap(),
        Then::Rekey => {
            let begun = store.storage.rekey(&*keys("another"), &store.map).unwrap();
            if let Some(rekey) = begun {
                let written = rekey.write(&store.map, &|_| true);
                store.storage.finish_checkpoint(written).unwrap();
            }
        }
        Then::Close => store.close().unwrap(),
    }
}

/// Returns a directory with a copy of `file` as the main file of a store.
fn copied(file: &dyn File) -> Vfs {
    let vfs = Vfs::mem(7);
    put(&vfs, NAME, &read(file));
    vfs
}

/// Returns the bytes of `file`.
fn read(file: &dyn File) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Pieces that begin and end inside both headers of an image.
    let (len, mut at) = (file.len().unwrap(), 0);
    while at < len {
        // A buffer that was used before: what lies beyond the end is read as zeros.
        let mut piece = vec![0xAA; usize::try_from(len - at).unwrap().min(200)];
        file.read_exact_at(&mut piece, at).unwrap();
        at += piece.len() as u64;
        bytes.extend(piece);
    }
    bytes
}

/// The sync of the folder fails after a copy got its name. A later sync does not show that the name
/// is durable.
#[test]
fn a_copy_of_a_ledger_makes_its_name_durable_before_its_first_commit() {
    for sealed in [false, true] {
        let bed = Bed::mem(Form::Ledger, sealed);
        let mut store = Store::open(bed.config()).unwrap();
        store.set("a", "1").unwrap();
        store.set("b", "2").unwrap();
        let (file, _) = store.storage.main_file().unwrap().to_copy().unwrap();
        let disk = FaultDir::new();
        let copy = disk.open(NAME, Open::CreateNew(Mode::Private)).unwrap();
        copy.write_all_at(&read(&*file), 0).unwrap();
        copy.sync().unwrap();
        disk.fail_on(Calls::of(CallKind::SyncDir), 1, Fault::Eio, Lasting::Once, Side::Before);
        disk.sync().unwrap_err();
        let bed = Bed { vfs: disk.vfs(1), ..bed };
        let mut store = Store::open(bed.config()).unwrap();
        store.set("c", "3").unwrap();
        let bed = Bed { vfs: disk.reboot(Survivors::Nothing).vfs(2), ..bed };
        let found = Store::open(bed.config()).unwrap();
        assert_eq!((found.recovered.seq, found.map), (3, store.map), "sealed: {sealed}");
    }
}

#[test]
fn only_a_file_with_headers_of_its_own_can_share_its_blocks() {
    for (form, shares) in [(Form::Wal, false), (Form::Snapshot, true), (Form::Ledger, false)] {
        let bed = Bed::mem(form, false);
        let mut store = Store::open(bed.config()).unwrap();
        store.set("a", "1").unwrap();
        store.checkpoint().unwrap();
        store.set("a", "2").unwrap();
        let (file, _) = store.storage.main_file().unwrap().to_copy().unwrap();
        let shared = bed.vfs.dir.reflink(&file, "copy.db", codex_storage::vfs::Mode::Frozen);
        assert_eq!(shared.is_ok(), shares, "{form}");
        assert_eq!(bed.vfs.dir.open("copy.db", Open::Read).is_ok(), shares, "{form}");
    }
}

#[test]
fn reading_the_facts_of_a_long_ledger_tells_its_progress_and_can_be_stopped() {
    let bed = Bed::mem(Form::Ledger, false);
    let mut store = Store::open(bed.config()).unwrap();
    let value = "x".repeat(usize::try_from(PIECE_BYTES).unwrap());
    for n in 0..3 {
        store.set(&n.to_string(), &value).unwrap();
    }
    store.close().unwrap();
    let main = MainFile::open(&bed.vfs, NAME).unwrap();
    let mut told = Vec::new();
    let facts = main.facts(&mut |offset| {
        told.push(offset);
        true
    });
    assert_eq!(facts.unwrap().seq, 3);
    assert!(told.len() >= 3 && told.is_sorted(), "{told:?}");
    let mut told = 0;
    let stopped = main.facts(&mut |_| {
        told += 1;
        told < 2
    });
    assert!(matches!(stopped, Err(Error::Abandoned { .. })), "{stopped:?}");
    assert_eq!(told, 2);
}

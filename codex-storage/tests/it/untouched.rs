//! Opening a log for writing and closing it changes nothing on the disk without a write.

use crate::common::store::Store;
use crate::common::{Bed, NAME, bytes};
use codex_storage::batch::Op;
use codex_storage::storage::Form;
use codex_storage::vfs::fault::{FaultDir, Space, Survivors};
use codex_storage::vfs::{CallKind, Open};

/// Returns a ledger with a few commits on its own disk.
fn ledger(sealed: bool, closed: bool) -> (FaultDir, Bed) {
    let disk = FaultDir::new();
    let bed = Bed::new(disk.vfs(1), Form::Ledger, sealed);
    let mut store = Store::open(bed.config()).unwrap();
    for n in 0..3 {
        store.set(&format!("key {n}"), &"value ".repeat(30)).unwrap();
    }
    if closed {
        store.close().unwrap();
    }
    (disk, bed)
}

/// Returns the calls of `f` that change the bytes or the length of a file, or a name, except locks.
fn changes(disk: &FaultDir, f: impl FnOnce()) -> Vec<CallKind> {
    disk.record_trace(true);
    f();
    let trace = disk.trace();
    disk.record_trace(false);
    let kinds = trace.iter().map(|call| call.kind);
    let of_files = |kind: &CallKind| !matches!(kind, CallKind::SyncDir | CallKind::TryLock);
    kinds.filter(|kind| kind.changes() && of_files(kind)).collect()
}

#[test]
fn a_closed_ledger_is_opened_and_closed_without_a_change() {
    for sealed in [false, true] {
        let (disk, bed) = ledger(sealed, true);
        let before = bytes(&bed.vfs, NAME);
        let made = changes(&disk, || {
            let store = Store::open(bed.config()).unwrap();
            assert!(store.recovered.clean);
            store.close().unwrap();
            drop(Store::open(bed.config()).unwrap());
        });
        assert_eq!(made, []);
        assert_eq!(bytes(&bed.vfs, NAME), before);
        // The same for a store that was never written to.
        let bed = Bed { vfs: FaultDir::new().vfs(1), ..bed };
        Store::open(bed.config()).unwrap().close().unwrap();
        let before = bytes(&bed.vfs, NAME);
        Store::open(bed.config()).unwrap().close().unwrap();
        assert_eq!(bytes(&bed.vfs, NAME), before);
        let mut store = Store::open(bed.config()).unwrap();
        assert!(store.recovered.clean);
        store.set("first", "value").unwrap();
    }
}

#[test]
fn a_torn_ledger_is_opened_without_a_change_and_goes_on_behind_the_tail() {
    for sealed in [false, true] {
        let (disk, bed) = ledger(sealed, false);
        let file = bed.vfs.dir.open(NAME, Open::Write).unwrap();
        let end = bytes(&bed.vfs, NAME).iter().rposition(|&byte| byte != 0).unwrap() as u64;
        file.write_all_at(&[0; 20], end - 19).unwrap();
        file.sync().unwrap();
        let before = bytes(&bed.vfs, NAME);
        let mut store = Store::open(bed.config()).unwrap();
        assert_eq!(store.recovered.cut.as_ref().unwrap().seq, 2);
        assert_eq!(bytes(&bed.vfs, NAME), before);
        store.set("key 2", "again").unwrap();
        let map = store.map.clone();
        drop(store);
        let cut = disk.crash_process().reboot(Survivors::Nothing);
        let store = Store::open(Bed { vfs: cut.vfs(2), ..bed }.config()).unwrap();
        assert_eq!((store.map, store.recovered.cut), (map, None));
    }
}

#[test]
fn a_ledger_opens_and_closes_on_a_full_disk_and_takes_a_removal_into_what_it_has() {
    for closed in [false, true] {
        let (disk, bed) = ledger(false, closed);
        let disk = disk.crash_process();
        let bed = Bed { vfs: disk.vfs(2), ..bed };
        let used = bytes(&bed.vfs, NAME).len() as u64;
        disk.set_space(Space::AtOnce(used.next_multiple_of(4096)));
        let mut store = Store::open(bed.config()).unwrap();
        assert_eq!(store.map.0.len(), 3);
        store.commit(&[&[Op::remove(b"key 0")]]).unwrap();
        store.close().unwrap();
        let store = Store::open(bed.config()).unwrap();
        assert_eq!(store.map.0.len(), 2);
        store.close().unwrap();
    }
}

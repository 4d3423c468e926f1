//! The space of logs on a nearly full disk: holes, the space of a failed call, and the unused tail
//! of a closed log.

use codex_storage::batch::Op;
use codex_storage::storage::Form;
use codex_storage::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side, Space};
use codex_storage::vfs::{CallKind, Dir, Mode, Observed, Open};
use codex_storage::{Config, Error};

use crate::common::store::Store;
use crate::common::{Bed, NAME};

const SEGMENT: &str = "app.db.wal.00000000000000000001";
/// The first reserved length of a log, in bytes.
const STEP: u64 = 64 << 10;

fn free(disk: &FaultDir) -> u64 {
    disk.available_bytes().unwrap().unwrap()
}

fn len(disk: &FaultDir, name: &str) -> u64 {
    disk.metadata(name).unwrap().unwrap().len
}

/// Writes another file that takes all free space.
fn fill(disk: &FaultDir, name: &str) {
    let ballast = disk.open(name, Open::CreateNew(Mode::Private)).unwrap();
    ballast.allocate(0, free(disk)).unwrap();
    assert_eq!(free(disk), 0);
}

/// Returns an open store whose close writes the mark into its log.
fn config(disk: &FaultDir, seed: u64, form: Form) -> Config {
    let mut config = Bed::new(disk.vfs(seed), form, false).config();
    config.checkpoint.close_into_image_bytes_max = 0;
    config
}

#[test]
fn holes_that_an_earlier_handle_left_are_found_before_a_frame_is_written() {
    for (form, name) in [(Form::Wal, SEGMENT), (Form::Ledger, NAME)] {
        let disk = FaultDir::new();
        disk.set_space(Space::AtOnce(1 << 20));
        let mut store = Store::open(config(&disk, 1, form)).unwrap();
        store.set("before", "value").unwrap();
        drop(store);
        assert_eq!(len(&disk, name), STEP, "in service");
        // After a file system has lost its reserved space, the length stays, but no block follows
        // the first one.
        let log = disk.open(name, Open::Write).unwrap();
        log.set_len(4 << 10).unwrap();
        log.set_len(STEP).unwrap();
        fill(&disk, "ballast");

        let mut store = Store::open(config(&disk, 2, form)).unwrap();
        for _ in 0..2 {
            let refused = store.set("large", &"x".repeat(8 << 10));
            assert!(matches!(refused, Err(Error::NoSpace { .. })), "{form}: {refused:?}");
            assert_eq!(store.storage.poisoned(), None, "{form}");
            assert_eq!(free(&disk), 0, "{form}");
        }
        disk.remove("ballast").unwrap();
        disk.sync().unwrap();
        drop(store);
        // If there is space again, only the holes are filled before a frame is written.
        let mut store = Store::open(config(&disk, 3, form)).unwrap();
        let before = free(&disk);
        store.set("large", &"x".repeat(8 << 10)).unwrap();
        assert_eq!(before - free(&disk), STEP - (4 << 10), "{form}");
        drop(store);
        let store = Store::open(config(&disk, 4, form)).unwrap();
        assert_eq!((store.map.0.len(), store.recovered.seq), (2, 2), "{form}");
    }
}

#[test]
fn what_a_failed_growth_took_is_given_back() {
    for (form, name) in [(Form::Wal, SEGMENT), (Form::Ledger, NAME)] {
        for (fault, kind) in [
            (Fault::Enospc, CallKind::Write),
            (Fault::Eio, CallKind::Write),
            (Fault::Enospc, CallKind::Allocate),
        ] {
            let disk = FaultDir::new();
            disk.set_space(Space::AtOnce(1 << 20));
            let mut store = Store::open(config(&disk, 1, form)).unwrap();
            store.set("before", "value").unwrap();
            let before = (free(&disk), len(&disk, name));
            // The zeros after the frames are written before the frame.
            disk.fail_on(Calls::of(kind).on(name), 1, fault, Lasting::Sticky, Side::After);
            let refused = store.set("large", &"x".repeat(100 << 10));
            let is_named = matches!(refused, Err(Error::NoSpace { .. } | Error::Io { .. }));
            assert!(is_named, "{form} {fault:?} {kind:?}: {refused:?}");
            assert_eq!((free(&disk), len(&disk, name)), before, "{form} {fault:?} {kind:?}");
            disk.clear_plan();
            assert_eq!(store.storage.poisoned(), None, "{form}");
            store.set("large", &"x".repeat(100 << 10)).unwrap();
        }
    }
}

#[test]
fn the_unused_tail_of_a_log_is_given_back_at_the_switch_and_at_the_close() {
    let disk = FaultDir::new();
    disk.set_space(Space::AtOnce(1 << 20));
    let mut store = Store::open(config(&disk, 1, Form::Wal)).unwrap();
    store.set("a", "1").unwrap();
    let before = free(&disk);
    let next = SEGMENT.replace("01", "02");
    // The image is never finished, so both segments stay.
    drop(store.begin().unwrap().unwrap());
    assert_eq!((len(&disk, SEGMENT), len(&disk, &next)), (1024, STEP));
    assert_eq!(free(&disk), before - (4 << 10), "the next segment took what the tail gave");
    store.set("b", "2").unwrap();
    let map = store.map.clone();
    store.close().unwrap();
    assert!(len(&disk, &next) < 1024);
    assert_eq!(free(&disk), before + STEP - (8 << 10));
    assert_eq!(Store::open(config(&disk, 2, Form::Wal)).unwrap().map, map);
}

#[test]
fn a_close_on_a_full_disk_gives_the_image_the_space_of_the_logs_tail() {
    let disk = FaultDir::new();
    disk.set_space(Space::AtOnce(1 << 20));
    let mut store = Store::open(Bed::new(disk.vfs(1), Form::Wal, false).config()).unwrap();
    store.set("a", &"x".repeat(10_000)).unwrap();
    fill(&disk, "ballast");
    let map = store.map.clone();
    store.close().unwrap();
    disk.sync().unwrap();
    assert!(disk.metadata(SEGMENT).unwrap().is_none(), "closed into the image");
    let store = Store::open(Bed::new(disk.vfs(2), Form::Wal, false).config()).unwrap();
    assert_eq!(store.map, map);
}

/// The image is then given a log again under another header, with the salt of its own blocks.
#[test]
fn an_encrypted_log_that_became_an_image_on_a_full_disk_takes_commits_again() {
    for sealed in [false, true] {
        let disk = FaultDir::new();
        disk.set_space(Space::AtOnce(1 << 20));
        let bed = Bed::new(disk.vfs(1), Form::Wal, sealed);
        let mut store = Store::open(bed.config()).unwrap();
        // The log gives back more than the image and another log need.
        for _ in 0..7 {
            store.set("a", &"x".repeat(10_000)).unwrap();
        }
        fill(&disk, "ballast");
        store.checkpoint().unwrap();
        let names = disk.list().unwrap();
        assert!(!names.iter().any(|name| name.contains(".wal.")), "not alone: {names:?}");
        disk.remove("ballast").unwrap();
        store.set("b", "2").unwrap();
        store.checkpoint().unwrap();
        store.set("c", "3").unwrap();
        let map = store.map.clone();
        drop(store);
        let bed = Bed { vfs: disk.vfs(2), ..bed };
        assert_eq!(Store::open(bed.config()).unwrap().map, map);
    }
}

#[test]
fn a_checkpoint_that_finds_no_room_costs_removals_nothing() {
    let disk = FaultDir::new();
    disk.set_space(Space::AtOnce(1 << 20));
    let mut store = Store::open(config(&disk, 1, Form::Wal)).unwrap();
    // An image of this entry needs more space than the log can give back.
    store.set("a", &"x".repeat(150_000)).unwrap();
    fill(&disk, "ballast");
    let before = len(&disk, SEGMENT);
    for n in 0..5 {
        let full = store.checkpoint();
        assert!(matches!(full, Err(Error::NoSpace { .. })), "{full:?}");
        assert!(len(&disk, SEGMENT) <= before);
        // The space that the log gave to the image, and could not take back, goes to another file.
        fill(&disk, &format!("ballast {n}"));
        // In all more than the blocks of the log have left, and less than its reserve.
        for m in 0..20 {
            let key = format!("never set {n} {m}");
            store.commit(&[&[Op::remove(key.as_bytes())]]).unwrap();
        }
    }
    assert_eq!(store.storage.poisoned(), None);
}

/// While the image is written, another file takes most of the space that the log gave to it.
#[test]
fn after_a_checkpoint_without_room_a_log_has_its_reserve_though_another_file_took_the_rest() {
    const LEFT: u64 = 20 << 10;
    let disk = FaultDir::new();
    disk.set_space(Space::AtOnce(1 << 20));
    let other = disk.clone();
    let vfs = Observed::vfs(&disk.vfs(1), move |call| {
        let is_image = call.kind == CallKind::Create && call.name.contains(".tmp.image");
        if is_image && other.metadata("ballast").unwrap().is_some() {
            let file = other.open("other", Open::CreateNew(Mode::Private)).unwrap();
            file.allocate(0, free(&other) - LEFT).unwrap();
        }
    });
    let mut store = Store::open(Config { vfs, ..config(&disk, 1, Form::Wal) }).unwrap();
    store.set("a", &"x".repeat(150_000)).unwrap();
    fill(&disk, "ballast");
    let before = len(&disk, SEGMENT);
    let full = store.checkpoint();
    assert!(matches!(full, Err(Error::NoSpace { .. })), "{full:?}");
    let after = len(&disk, SEGMENT);
    assert!(before - after > LEFT, "{before} and {after}: the other file took nothing");
    fill(&disk, "rest");
    let mut removals = 0;
    while store.commit(&[&[Op::remove(b"never set")]]).is_ok() {
        removals += 1;
    }
    assert!(removals * 128 >= 16 << 10, "{removals} removals");
    assert_eq!(store.storage.poisoned(), None);
}

#[test]
fn on_a_full_disk_a_log_keeps_16_kibibytes_for_removals() {
    const FRAME: u64 = 128;
    for (form, name) in [(Form::Wal, SEGMENT), (Form::Ledger, NAME)] {
        let disk = FaultDir::new();
        disk.set_space(Space::AtOnce(1 << 20));
        let mut store = Store::open(config(&disk, 1, form)).unwrap();
        store.set("key", "v").unwrap();
        fill(&disk, "ballast");
        let mut counts = [0; 2];
        for (count, op) in counts.iter_mut().zip([Op::set(b"key", b"v"), Op::remove(b"key")]) {
            let refused = loop {
                match store.commit(&[&[op]]) {
                    Ok(_) => *count += 1,
                    Err(error) => break error,
                }
            };
            assert!(matches!(refused, Error::NoSpace { .. }), "{form}: {refused}");
        }
        assert_eq!(store.storage.poisoned(), None, "{form}");
        let [sets, removals] = counts;
        assert_eq!(removals * FRAME, 16 << 10, "{form}");
        // The header and the first set are in the file too.
        assert_eq!((sets + removals + 1) * FRAME + 512, len(&disk, name), "{form}");
    }
}

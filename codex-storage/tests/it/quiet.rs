//! An opening that writes nothing changes no file, and also works if nothing can be written.

use std::time::Duration;

use crate::common::store::Store;
use crate::common::{Bed, NAME};
use codex_storage::Error;
use codex_storage::batch::Op;
use codex_storage::storage::Form;
use codex_storage::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side, Space};
use codex_storage::vfs::{CallKind, Vfs};

/// The past of a store before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Past {
    /// It was closed without entries.
    Empty,
    /// It was closed into its image, if the form can.
    Small,
    /// It was closed with a mark in its log, if the form has one.
    Large,
    /// It was closed while an older segment could not be removed.
    Leftover,
}

const PASTS: [Past; 4] = [Past::Empty, Past::Small, Past::Large, Past::Leftover];

fn config(vfs: &Vfs, form: Form, past: Past) -> codex_storage::Config {
    let mut config = Bed::new(vfs.clone(), form, false).config();
    if past == Past::Large {
        config.checkpoint.close_into_image_bytes_max = 0;
    }
    config
}

/// Returns a closed store with this past.
fn disk(form: Form, past: Past) -> FaultDir {
    let disk = FaultDir::new();
    let mut store = Store::open(config(&disk.vfs(1), form, past)).unwrap();
    if past != Past::Empty {
        store.set("a", "1").unwrap();
        store.set("b", "2").unwrap();
    }
    if past == Past::Leftover {
        let removals = Calls::of(CallKind::Remove).on("*.wal.*");
        disk.fail_on(removals, 1, Fault::Eio, Lasting::Sticky, Side::Before);
    }
    store.close().unwrap();
    disk.clear_plan();
    disk
}

/// Returns the names, lengths, times and bytes of all files, including the lock file.
fn all_of(disk: &FaultDir) -> Vec<(String, u64, i64, Vec<u8>)> {
    let dir = disk.vfs(9).dir;
    let mut names = dir.list().unwrap();
    names.sort();
    let all = names.into_iter().map(|name| {
        let found = dir.metadata(&name).unwrap().unwrap();
        let bytes = disk.peek(&name).unwrap();
        (name, found.len, found.modified_us, bytes)
    });
    all.collect()
}

#[test]
fn opening_and_closing_without_a_write_leaves_every_file_as_it_was() {
    let mut cases = 0;
    for form in [Form::Wal, Form::Snapshot] {
        for past in PASTS {
            let disk = disk(form, past);
            let before = all_of(&disk);
            for _ in 0..3 {
                disk.clock().advance(Duration::from_secs(60));
                let mut store = Store::open(config(&disk.vfs(2), form, past)).unwrap();
                assert_eq!(store.map.0.len(), if past == Past::Empty { 0 } else { 2 });
                store.flush().unwrap();
                assert!(store.storage.anchor().seq == store.recovered.seq);
                store.close().unwrap();
                assert!(all_of(&disk) == before, "{form} {past:?}");
                cases += 1;
            }
            // Also if it is dropped without a close.
            drop(Store::open(config(&disk.vfs(2), form, past)).unwrap());
            assert!(all_of(&disk) == before, "{form} {past:?}");
        }
    }
    assert_eq!(cases, 24);
}

#[test]
fn an_opening_writes_nothing_on_a_full_disk_and_the_first_write_tells_of_it() {
    for form in [Form::Wal, Form::Snapshot] {
        for past in PASTS {
            let disk = disk(form, past);
            let before = all_of(&disk);
            disk.set_space(Space::AtOnce(0));
            let mut store = Store::open(config(&disk.vfs(2), form, past)).unwrap();
            assert_eq!(store.map.0.len(), if past == Past::Empty { 0 } else { 2 });
            let refused = store.set("c", &"x".repeat(5_000));
            assert!(matches!(refused, Err(Error::NoSpace { .. })), "{form} {past:?}: {refused:?}");
            assert!(store.storage.poisoned().is_none());
            // If there is space again, commits continue.
            disk.set_space(Space::Unlimited);
            store.set("c", "3").unwrap();
            let map = store.map.clone();
            store.close().unwrap();
            let found = Store::open(config(&disk.vfs(3), form, past)).unwrap();
            assert_eq!(found.map, map, "{form} {past:?}");
            assert!(all_of(&disk) != before);
        }
    }
}

#[test]
fn a_segment_that_cannot_be_removed_costs_no_images() {
    let disk = FaultDir::new();
    let bed = Bed::new(disk.vfs(1), Form::Wal, false);
    let mut store = Store::open(bed.config()).unwrap();
    store.set("a", "1").unwrap();
    let removals = Calls::of(CallKind::Remove).on("*.wal.*");
    disk.fail_on(removals, 1, Fault::Eio, Lasting::Sticky, Side::Before);
    store.checkpoint().unwrap();
    let files = bed.vfs.dir.list().unwrap().len();
    for n in 0..200 {
        store.set("a", &n.to_string()).unwrap();
        if store.storage.wants_checkpoint() {
            store.checkpoint().unwrap();
        }
    }
    assert_eq!(store.storage.stats().images, 1, "200 commits of a few bytes");
    assert_eq!(bed.vfs.dir.list().unwrap().len(), files);
    // A requested checkpoint writes an image for new commits, and removes the files that can be
    // removed.
    disk.clear_plan();
    store.checkpoint().unwrap();
    assert_eq!(store.storage.stats().images, 2);
    let segments = || bed.vfs.dir.list().unwrap().iter().filter(|n| n.contains(".wal.")).count();
    assert_eq!(segments(), 1);
    // Without new commits it only tries the removal again.
    let removals = Calls::of(CallKind::Remove).on("*.wal.*");
    disk.fail_on(removals, 1, Fault::Eio, Lasting::Once, Side::Before);
    store.set("a", "last").unwrap();
    store.checkpoint().unwrap();
    assert_eq!((segments(), store.storage.stats().images), (2, 3));
    assert!(!store.checkpoint().unwrap());
    assert_eq!((segments(), store.storage.stats().images), (1, 3));
}

#[test]
fn a_note_of_another_boot_or_of_another_image_is_not_believed() {
    let disk = disk(Form::Snapshot, Past::Small);
    let bed = Bed::new(disk.vfs(2), Form::Snapshot, false);
    let images = |disk: &FaultDir| {
        disk.record_trace(true);
        drop(Store::open(Bed::new(disk.vfs(3), Form::Snapshot, false).config()).unwrap());
        let renames = disk.trace().iter().filter(|call| call.kind == CallKind::Rename).count();
        disk.record_trace(false);
        renames
    };
    assert_eq!(images(&disk), 0);
    // A handle that is dropped without a close leaves another image than the one in the note.
    let mut store = Store::open(bed.config()).unwrap();
    store.set("c", "3").unwrap();
    drop(store);
    assert_eq!(images(&disk), 1, "the image gets its name once more");
    // The same holds for a lock file that was removed, or emptied by a power cut.
    Store::open(bed.config()).unwrap().close().unwrap();
    assert_eq!(images(&disk), 0);
    bed.vfs.dir.remove(&format!("{NAME}.lock")).unwrap();
    assert_eq!(images(&disk), 1);
}

/// Returns a disk with this number of free blocks of 4 KiB, besides the blocks in use.
fn with_free_blocks(disk: &FaultDir, blocks: u64) {
    // A copy of the same disk with a large limit shows the number of used blocks.
    const LIMIT: u64 = 1 << 30;
    disk.set_space(Space::AtOnce(LIMIT));
    let used = LIMIT - disk.vfs(9).dir.available_bytes().unwrap().unwrap();
    disk.set_space(Space::AtOnce(used + blocks * 4096));
}

fn is_full<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::NoSpace { .. }))
}

/// Sets keys until the disk with `blocks` free blocks is full, then removes, checkpoints, closes,
/// opens and removes, as the test describes. Returns the number of sets and checkpoints.
fn fill_and_free(form: Form, blocks: u64, len: usize) -> (u64, u64) {
    let place = format!("{form}, {blocks} blocks, values of {len}");
    let disk = FaultDir::new();
    disk.set_space(Space::AtOnce(blocks * 4096));
    let opened = Store::open(Bed::new(disk.vfs(1), form, false).config());
    let Ok(mut store) = opened else {
        assert!(is_full(&opened.map(drop)), "{place}: creating");
        return (0, 0);
    };
    let (mut sets, mut images) = (0, 0);
    let value = "x".repeat(len);
    let small = value.get(..len.min(400)).unwrap_or_default();
    for value in [value.as_str(), small] {
        loop {
            match store.set(&format!("key {sets:05}"), value) {
                Ok(_) => sets += 1,
                Err(Error::NoSpace { .. }) => break,
                Err(e) => panic!("{place}: {e}"),
            }
        }
    }
    let checkpoint = |store: &mut Store| match store.checkpoint() {
        Ok(done) => u64::from(done),
        Err(Error::NoSpace { .. }) => 0,
        Err(e) => panic!("{place}: {e}"),
    };
    let remove = |store: &mut Store, n: u64, when: &str| {
        let key = format!("key {n:05}");
        store
            .commit(&[&[Op::remove(key.as_bytes())]])
            .unwrap_or_else(|e| panic!("{place}, of {sets} sets: removing {n} {when}: {e}"));
    };
    if sets > 0 {
        for n in 0..3 {
            images += checkpoint(&mut store);
            if form == Form::Wal {
                remove(&mut store, n, "beside checkpoints");
            }
        }
        for n in 3..6 {
            remove(&mut store, n, "at the end");
        }
    }
    let map = store.map.clone();
    let closed = store.close();
    assert!(closed.is_ok() || is_full(&closed), "{place}: {closed:?}");
    for round in 0..2 {
        let opened = Store::open(Bed::new(disk.vfs(2 + round), form, false).config());
        let mut store = opened.unwrap_or_else(|e| panic!("{place}: opening: {e}"));
        if round == 0 {
            assert_eq!(store.map, map, "{place}");
        }
        if sets > 0 {
            remove(&mut store, 10 + round, "after opening");
            store.commit(&[&[Op::CLEAR]]).unwrap_or_else(|e| panic!("{place}: clearing: {e}"));
            images += checkpoint(&mut store);
            // The simulated disk frees a removed file when the removal of its name is durable.
            disk.vfs(9).dir.sync().unwrap();
            let again = store.set("again", small);
            // With fewer blocks, an image, its copy and two logs do not fit at the same time.
            assert!(again.is_ok() || blocks < 12 && is_full(&again), "{place}: {again:?}");
            store.commit(&[&[Op::CLEAR]]).unwrap_or_else(|e| panic!("{place}: clearing: {e}"));
            let set = store.set("key 00011", small);
            assert!(set.is_ok() || blocks < 12 && is_full(&set), "{place}: {set:?}");
        }
        let closed = store.close();
        assert!(closed.is_ok() || is_full(&closed), "{place}: {closed:?}");
    }
    (sets, images)
}

#[test]
fn on_a_disk_of_any_size_removing_and_opening_always_work() {
    let (mut sets, mut images, mut rooms) = (0, 0, 0);
    for form in [Form::Wal, Form::Snapshot] {
        // An image that each commit writes should not have thousands of entries.
        let smallest = if form == Form::Snapshot { 500 } else { 3 };
        for len in [smallest, 3_000, 20_000] {
            for blocks in (0..30).chain((30..90).step_by(11)) {
                // Two images fill the disk. The simulated disk frees the one that an opening has
                // open, and names again, only at the next sync of the directory.
                if form == Form::Snapshot && blocks == 2 {
                    continue;
                }
                let (set, image) = fill_and_free(form, blocks, len);
                rooms += u64::from(set > 0);
                sets += set;
                images += image;
            }
        }
    }
    println!("{rooms} disks with room, {sets} sets, {images} images");
    assert!(rooms > 150 && sets > 5_000 && images > 80, "{rooms} {sets} {images}");
}

#[test]
fn a_store_that_is_opened_beside_any_number_of_free_blocks_reads_and_says_what_is_missing() {
    let mut counts = [0; 2];
    for form in [Form::Wal, Form::Snapshot] {
        for past in PASTS {
            for blocks in 0..40 {
                let disk = disk(form, past);
                with_free_blocks(&disk, blocks);
                let mut store = Store::open(config(&disk.vfs(2), form, past)).unwrap();
                let set = store.set("c", "3");
                assert!(set.is_ok() || is_full(&set), "{set:?}");
                counts[usize::from(set.is_ok())] += 1;
                let map = store.map.clone();
                let checkpoint = store.checkpoint();
                assert!(checkpoint.is_ok() || is_full(&checkpoint), "{checkpoint:?}");
                if set.is_ok() {
                    store
                        .commit(&[&[Op::remove(b"c")]])
                        .unwrap_or_else(|e| panic!("{form} {past:?} {blocks}: {e}"));
                    store.commit(&[&[Op::set(b"c", b"3")]]).ok();
                }
                let map = if set.is_ok() { store.map.clone() } else { map };
                let closed = store.close();
                assert!(closed.is_ok() || is_full(&closed), "{closed:?}");
                let found = Store::open(config(&disk.vfs(3), form, past)).unwrap();
                assert_eq!(found.map, map, "{form} {past:?} {blocks}");
            }
        }
    }
    assert!(counts.iter().all(|&count| count > 15), "{counts:?}");
}

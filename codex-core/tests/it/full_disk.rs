//! Tests of stores on full disks: a small simulated one, and a real one of 3 MB if the test may
//! mount it. Also tests of options with extreme values.

use std::process::Command;
use std::time::Duration;

use codex_core::{CheckpointPolicy, Durability, Error, Form, OpenOptions, Store};
use codex_storage::Error as StorageError;
use codex_storage::vfs::fault::{Calls, Fault, FaultDir, Lasting, Side, Space};
use codex_storage::vfs::{CallKind, Dir};

fn is_full<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Storage(StorageError::NoSpace { .. })))
}

/// Sets values of this length until the disk is full, and returns their number.
fn fill(store: &Store, len: usize) -> u32 {
    let value = vec![0x5A; len];
    for n in 0.. {
        match store.set_bytes(format!("key {n}"), &value) {
            Ok(()) => {}
            Err(Error::Storage(StorageError::NoSpace { .. })) => return n,
            Err(e) => panic!("set {n}: {e}"),
        }
    }
    0
}

/// The story of a disk that the log of a store has filled: removals free space.
fn fill_and_free(open: &dyn Fn() -> Store, settle: &dyn Fn(), used: &dyn Fn() -> u64) {
    let store = open();
    let mut sets = fill(&store, 10_000);
    sets += fill(&store, 10);
    assert!(sets > 100, "{sets} sets");
    for n in 0..3 {
        let checkpoint = store.checkpoint();
        assert!(checkpoint.is_ok() || is_full(&checkpoint), "{checkpoint:?}");
        assert!(store.remove(format!("key {}", 2 * n)).unwrap(), "after {n} checkpoints");
    }
    // Removals succeed beside writers that fail.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let _ = store.set_bytes("large", vec![1; 400_000]);
                }
            });
        }
        for n in 10..40 {
            assert!(store.remove(format!("key {n}")).unwrap(), "beside writers that fail");
        }
    });
    let full = used();
    store.clear().unwrap();
    store.checkpoint().unwrap();
    settle();
    assert!(used() < full / 4, "the log is not freed: {} of {full} bytes", used());
    assert!(fill(&store, 10_000) > 50);
    store.clear().unwrap();
    store.close().unwrap();
    for _ in 0..2 {
        let store = open();
        assert_eq!(store.stats().poisoned, None);
        store.set_bytes("a", b"1").unwrap();
        assert!(store.remove("a").unwrap());
        store.close().unwrap();
    }
}

#[test]
fn a_simulated_disk_that_the_log_has_filled_is_freed_by_a_clear_and_a_checkpoint() {
    let disk = FaultDir::new();
    disk.set_space(Space::AtOnce(3 << 20));
    let free = || disk.available_bytes().unwrap().unwrap();
    fill_and_free(
        &|| OpenOptions::new().open_in(&disk.vfs(1), "app.db").unwrap(),
        // The simulated disk frees a removed file after the removal of its name is durable.
        &|| disk.sync().unwrap(),
        &|| (3 << 20) - free(),
    );
}

#[test]
fn a_real_disk_that_the_log_has_filled_is_freed_by_a_clear_and_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| Command::new(args[0]).args(&args[1..]).status();
    let path = folder.path().to_str().unwrap();
    let mounted = mount(&["mount", "-t", "tmpfs", "-o", "size=3m", "codexdb-test", path]);
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: a tmpfs cannot be mounted here (not root, or no `mount`)");
        return;
    }
    let used = || {
        // The thread that writes checkpoints may remove a file in between.
        let entries = std::fs::read_dir(path).unwrap();
        entries.filter_map(|entry| entry.unwrap().metadata().ok()).map(|found| found.len()).sum()
    };
    let story = || {
        let name = folder.path().join("app.db");
        fill_and_free(&|| Store::open(&name).unwrap(), &|| {}, &used);
    };
    let told = std::panic::catch_unwind(story);
    mount(&["umount", path]).unwrap();
    told.unwrap();
}

#[test]
fn an_existing_store_opens_on_a_full_disk_and_is_read() {
    for form in [Form::Wal, Form::Snapshot] {
        let disk = FaultDir::new();
        let options = OpenOptions::new().form(form);
        let store = options.open_in(&disk.vfs(1), "app.db").unwrap();
        store.set_bytes("a", b"1").unwrap();
        store.close().unwrap();
        disk.set_space(Space::AtOnce(0));
        let store = options.open_in(&disk.vfs(1), "app.db").unwrap();
        assert_eq!(store.get_bytes("a").as_deref(), Some(&b"1"[..]), "{form}");
        assert!(is_full(&store.set_bytes("b", b"1")), "{form}");
        disk.set_space(Space::Unlimited);
        store.set_bytes("b", b"1").unwrap();
        store.close().unwrap();
    }
}

#[test]
fn options_at_the_ends_of_their_ranges_neither_panic_nor_poison() {
    let mut cases = 0;
    for floor_bytes in [0, 1, u64::MAX] {
        for ratio in [f64::MIN_POSITIVE, 1.0, f64::MAX] {
            for close_into_image_bytes_max in [0, u64::MAX] {
                for level in [Duration::from_nanos(1), Duration::MAX] {
                    let policy = CheckpointPolicy::default()
                        .floor_bytes(floor_bytes)
                        .ratio(ratio)
                        .close_into_image_bytes_max(close_into_image_bytes_max);
                    let options = OpenOptions::new()
                        .checkpoint(policy)
                        .lock_timeout(Duration::MAX)
                        .durability(Durability::Interval(level));
                    a_failed_image_costs_nothing(&options);
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 36);
    for level in [Duration::from_nanos(1), Duration::MAX] {
        let options =
            OpenOptions::new().form(Form::Snapshot).durability(Durability::Interval(level));
        let disk = FaultDir::new();
        let store = options.open_in(&disk.vfs(1), "app.db").unwrap();
        store.set_bytes("a", b"1").unwrap();
        store.flush().unwrap();
        store.close().unwrap();
    }
}

fn a_failed_image_costs_nothing(options: &OpenOptions) {
    let disk = FaultDir::new();
    let store = options.open_in(&disk.vfs(1), "app.db").unwrap();
    for n in 0..3 {
        store.set_bytes(format!("key {n}"), b"1").unwrap();
    }
    let image = Calls::of(CallKind::Sync).on("app.db.tmp.image");
    disk.fail_on(image, 1, Fault::Enospc, Lasting::Sticky, Side::Before);
    for n in 0..3 {
        let _ = store.checkpoint();
        store.set_bytes(format!("more {n}"), b"1").unwrap();
    }
    disk.clear_plan();
    store.checkpoint().unwrap();
    store.set_bytes("last", b"1").unwrap();
    assert_eq!(store.stats().poisoned, None);
    store.close().unwrap();
    assert_eq!(options.open_in(&disk.vfs(2), "app.db").unwrap().len(), 7);
}

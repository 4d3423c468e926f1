//! Tests of the heap memory of a store. This is a program of its own, whose allocator counts.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::disallowed_types,
    reason = "a test fails by panicking, and says what it measured"
)]

mod common;

use std::sync::Mutex;

use codex_core::vfs::Vfs;
use codex_core::{CheckpointPolicy, Form, OpenOptions, Store};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The lock of the test that measures.
static ALONE: Mutex<()> = Mutex::new(());

/// Sets `count` keys of 17 bytes, each `rounds` times, in batches.
fn fill(store: &Store, count: u32, rounds: u32, value_len: usize) {
    let value = vec![7; value_len];
    for _ in 0..rounds {
        for from in (0..count).step_by(1_000) {
            let mut batch = store.batch();
            for n in from..(from + 1_000).min(count) {
                // The keys are in no order.
                let n = n.wrapping_mul(2_654_435_761);
                batch.set_bytes(format!("key/{n:013}"), &value).unwrap();
            }
            batch.commit().unwrap();
        }
    }
}

#[test]
fn memory_holds_small_entries_at_no_more_than_1_7_times_their_size() {
    let _alone = ALONE.lock();
    // Between and after the sizes at which a part of the hash index grows.
    for count in [20_000, 30_000, 40_000, 55_000, 80_000] {
        let before = HEAP.current_usage();
        let store = Store::in_memory().unwrap();
        fill(&store, count, 1, 100);
        let size: usize = store.iter().map(|entry| entry.key().len() + entry.bytes().len()).sum();
        assert_eq!(size, 117 * count as usize);
        let taken = HEAP.current_usage() - before;
        println!("{count} entries: {:.2} times keys and values", taken as f64 / size as f64);
        assert!(10 * taken <= 17 * size, "{taken} bytes for {count} entries of {size}");
    }
}

/// Files to open: the number of keys, the number of writes of each, and the length of the values.
const FILLS: [(u32, u32, usize); 4] =
    [(0, 0, 0), (60_000, 1, 0), (900, 10, 100), (4, 1, 2_000_000)];

#[test]
fn opening_takes_at_most_four_times_the_files_and_128_bytes_an_entry_and_a_mebibyte() {
    let _alone = ALONE.lock();
    for form in common::FORMS {
        for &sealed in common::SEALED {
            for fills in FILLS {
                for closes_into_image in [true, false] {
                    if closes_into_image || form == Form::Wal {
                        let options = options(form, closes_into_image);
                        opening(&common::sealed(&options, sealed), fills);
                    }
                }
            }
        }
    }
}

/// Opens a store with these options, and measures the memory during the opening.
fn opening(options: &OpenOptions, (count, rounds, value_len): (u32, u32, usize)) {
    let vfs = Vfs::mem(1);
    let store = options.open_in(&vfs, "a.db").unwrap();
    fill(&store, count, rounds, value_len);
    store.close().unwrap();
    drop(store);
    let len = |name: String| vfs.dir.metadata(&name).unwrap().unwrap().len;
    let bytes: u64 = vfs.dir.list().unwrap().into_iter().map(len).sum();
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let store = options.open_in(&vfs, "a.db").unwrap();
    let taken = HEAP.peak_usage() - before;
    assert_eq!(store.len(), count as usize);
    let limit = 4 * usize::try_from(bytes).unwrap() + 128 * store.len() + (1 << 20);
    println!("{count} entries in {bytes} bytes: {taken} of {limit}");
    assert!(taken <= limit, "{options:?}: {taken} of {limit}, {count} entries in {bytes} bytes");
}

#[test]
fn questions_about_the_past_of_100_mb_take_less_than_8_mib() {
    let _alone = ALONE.lock();
    let vfs = Vfs::mem(1);
    let store = Store::options().form(Form::Ledger).open_in(&vfs, "a.db").unwrap();
    for n in 0..1_000_u32 {
        store.set_bytes(format!("key/{}", n % 2), vec![7; 100_000]).unwrap();
    }
    // The first question makes the index.
    for name in ["history", "history again", "changes"] {
        let before = HEAP.current_usage();
        HEAP.reset_peak_usage();
        let found = match name {
            "changes" => store.changes(0).unwrap().map(Result::unwrap).count(),
            _ => store.history("key/1").unwrap().map(Result::unwrap).count(),
        };
        assert_eq!(found, if name == "changes" { 1_000 } else { 500 });
        let taken = HEAP.peak_usage() - before;
        println!("{name}: {taken} bytes");
        assert!(taken < 8 << 20, "{name}: {taken} bytes");
    }
}

fn options(form: Form, closes_into_image: bool) -> OpenOptions {
    let options = Store::options().form(form);
    if form != Form::Wal || closes_into_image {
        return options;
    }
    options.checkpoint(CheckpointPolicy::default().close_into_image_bytes_max(0))
}

//! Tests of ids: unique and ascending, across handles, threads, closes and crashes.

use std::thread;

use codex_core::vfs::Vfs;
use codex_core::{Error, Store};
use codex_storage::vfs::Observed;

use crate::common::{FORMS, disk, files, open, seed};

/// The number of ids that one commit reserves.
const BLOCK: u64 = 256;

fn ids(store: &Store, count: u64) -> Vec<u64> {
    (0..count).map(|_| store.next_id("id").unwrap()).collect()
}

#[test]
fn ids_ascend_from_one_and_a_block_of_them_costs_one_commit() {
    for form in FORMS {
        let store = open(&Vfs::mem(seed()), form);
        let other = store.clone();
        for n in 0..BLOCK {
            let handle = if n % 2 == 0 { &store } else { &other };
            assert_eq!(handle.next_id("id").unwrap(), n + 1, "{form}");
        }
        assert_eq!((store.snapshot().seq(), store.len()), (1, 1), "{form}");
        assert_eq!(store.next_id("id").unwrap(), BLOCK + 1, "{form}");
        assert_eq!(store.snapshot().seq(), 2, "{form}");
        assert_eq!(store.next_id("another").unwrap(), 1, "{form}");
    }
}

#[test]
fn a_close_gives_back_the_ids_that_were_not_returned_and_a_crash_loses_them() {
    for form in FORMS {
        let vfs = Vfs::mem(seed());
        let store = open(&vfs, form);
        assert_eq!(ids(&store, 3), [1, 2, 3]);
        let crashed = disk(&files(&vfs));
        store.close().unwrap();
        let closed = store.next_id("id").unwrap_err();
        assert!(closed.is_closed(), "{form}: {closed}");
        drop(store);
        assert_eq!(ids(&open(&vfs, form), 3), [4, 5, 6], "{form}");
        // The last handle was dropped, which closes, too.
        assert_eq!(ids(&open(&vfs, form), 1), [7], "{form}");
        // After a crash, none is returned again.
        assert_eq!(ids(&open(&crashed, form), 1), [BLOCK + 1], "{form}");
    }
}

#[test]
fn all_threads_get_different_ids_without_gaps_and_none_after_a_larger_one() {
    const THREADS: u64 = 8;
    // A slow disk, so that all threads find no id left while one of them reserves more.
    let slow = Observed::vfs(&Vfs::mem(seed()), |call| {
        (0..50).filter(|_| call.kind.changes()).for_each(|_| thread::yield_now());
    });
    let store = open(&slow, FORMS[0]);
    let last = std::sync::Mutex::new(0);
    let take = || {
        // Read before the call, so the call must return a larger id.
        let before = *last.lock().unwrap();
        let id = store.next_id("id").unwrap();
        assert!(id > before, "{id} after {before}");
        let mut last = last.lock().unwrap();
        *last = id.max(*last);
        id
    };
    let mut found: Vec<u64> = thread::scope(|scope| {
        let take = || (0..500).map(|_| take()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(take)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    found.sort_unstable();
    assert!(found.into_iter().eq(1..=THREADS * 500), "ids are missing or twice");
}

#[test]
fn ids_go_on_after_their_key_is_removed_until_the_store_is_closed() {
    let vfs = Vfs::mem(seed());
    let store = open(&vfs, FORMS[0]);
    assert_eq!(ids(&store, 2), [1, 2]);
    store.clear().unwrap();
    assert_eq!(ids(&store, BLOCK), (3..BLOCK + 3).collect::<Vec<_>>());
    store.remove("id").unwrap();
    store.close().unwrap();
    drop(store);
    assert_eq!(ids(&open(&vfs, FORMS[0]), 1), [1]);
}

#[test]
fn a_key_that_holds_no_id_is_refused() {
    let store = Store::in_memory().unwrap();
    store.set("id", "text").unwrap();
    let refused = store.next_id("id").unwrap_err();
    assert!(matches!(refused, Error::Decode { .. }), "{refused}");
    store.set("id", &u64::MAX).unwrap();
    let refused = store.next_id("id").unwrap_err();
    assert!(refused.to_string().contains("used up"), "{refused}");
    assert_eq!(store.get::<u64>("id").unwrap(), Some(u64::MAX));
}

//! The costs of the calls that programs make most often, in counts rather than times: allocations
//! of the calling thread, and calls to the disk. This is a program of its own, whose allocator
//! counts.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test fails by panicking, says what it measured, and uses a real folder"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use codex_core::vfs::{CallKind, Observed, Vfs};
use codex_core::{Durability, Store};

/// The number of keys, and of measured calls.
const KEYS: u32 = 1_000;

fn key(n: u32) -> [u8; 17] {
    // The keys are in no order.
    let key = format!("key/{:013}", n.wrapping_mul(2_654_435_761));
    *key.as_bytes().first_chunk().unwrap()
}

/// Returns the numbers of allocations and of allocated bytes by `calls` for all keys, after it has
/// run once.
fn allocations(mut calls: impl FnMut(u32, &[u8])) -> (u64, u64) {
    let keys: Vec<_> = (0..KEYS).map(key).collect();
    let mut run = || (0..).zip(&keys).for_each(|(n, key)| calls(n, key));
    run();
    let counted = allocation_counter::measure(run);
    (counted.count_total, counted.bytes_total)
}

/// A store with [`KEYS`] values of 100 bytes and as many numbers, of which every tenth expires in
/// an hour if `expiry`.
fn filled(store: Store, expiry: bool) -> Store {
    let later = SystemTime::now() + Duration::from_secs(3_600);
    let mut batch = store.batch();
    for n in 0..KEYS {
        if expiry && n % 10 == 0 {
            batch.set_bytes_with_expiry(key(n), [7; 100], later).unwrap();
        } else {
            batch.set_bytes(key(n), [7; 100]).unwrap();
        }
        batch.set([b"number/", &key(n)[..]].concat(), &u64::from(n)).unwrap();
    }
    batch.commit().unwrap();
    store
}

#[test]
fn a_read_allocates_nothing() {
    for expiry in [false, true] {
        let store = filled(Store::in_memory().unwrap(), expiry);
        let read = |calls: &dyn Fn(&[u8])| allocations(|_, key| calls(key)).0;
        let none = [
            ("get_bytes", read(&|key| assert_eq!(store.get_bytes(key).unwrap().len(), 100))),
            (
                "get_bytes of a missing key",
                read(&|key| assert!(store.get_bytes(&key[1..]).is_none())),
            ),
            ("contains_key", read(&|key| assert!(store.contains_key(key)))),
            ("contains_key of a missing key", read(&|key| assert!(!store.contains_key(&key[1..])))),
            ("len", read(&|_| assert_eq!(store.len(), 2 * KEYS as usize))),
            ("get of a number", {
                let mut name = *b"number/key/0000000000000";
                allocations(|n, key| {
                    name[7..].copy_from_slice(key);
                    assert_eq!(store.get::<u64>(&name).unwrap(), Some(u64::from(n)));
                })
                .0
            }),
        ];
        for (what, count) in none {
            assert_eq!(count, 0, "{what}: {count} allocations in {KEYS} calls, expiry {expiry}");
        }
    }
}

#[test]
fn a_scan_allocates_once_for_many_entries() {
    for expiry in [false, true] {
        let store = filled(Store::in_memory().unwrap(), expiry);
        let scan = || store.iter().map(|entry| entry.bytes().len()).sum::<usize>();
        black_box(scan());
        let counted = allocation_counter::measure(|| _ = black_box(scan()));
        println!("scan of {} entries: {} allocations", 2 * KEYS, counted.count_total);
        assert!(counted.count_total <= SCAN_MAX, "{} allocations", counted.count_total);
    }
}

#[test]
fn a_set_allocates_its_entry_and_little_more() {
    let folder = tempfile::tempdir().unwrap();
    let at = |level, name: &str| Store::options().durability(level).open(folder.path().join(name));
    for expiry in [false, true] {
        let stores = [
            ("memory", Store::in_memory().unwrap()),
            ("Os", at(Durability::Os, &format!("os {expiry}")).unwrap()),
            ("Sync", at(Durability::Sync, &format!("sync {expiry}")).unwrap()),
        ];
        for (level, store) in stores {
            let store = filled(store, expiry);
            let (count, bytes) =
                allocations(|n, key| store.set_bytes(key, [n.to_le_bytes()[0]; 100]).unwrap());
            println!("{level}, expiry {expiry}: {count} allocations, {bytes} bytes in {KEYS} sets");
            // At the level `Sync` the name of the main file is looked at, which allocates a path.
            let most = SET_MAX + u64::from(level == "Sync");
            assert!(2 * count < (2 * most + 1) * u64::from(KEYS), "{level}: {count} allocations");
        }
    }
}

/// A commit is one write, and at the level `Sync` one sync, one look at the name of the file and
/// the announcement in the lock file.
#[test]
fn a_set_makes_one_write_and_its_announcement_and_a_read_no_call() {
    let folder = tempfile::tempdir().unwrap();
    for (level, wanted) in [(Durability::Os, [1, 0, 0]), (Durability::Sync, [2, 1, 1])] {
        let counts: Arc<[AtomicU64; 4]> = Arc::default();
        let dir = folder.path().join(format!("{level:?}"));
        std::fs::create_dir(&dir).unwrap();
        let shared = Arc::clone(&counts);
        let vfs = Observed::vfs(&Vfs::os(&dir).unwrap(), move |call| {
            let of = match call.kind {
                CallKind::Write => 0,
                CallKind::Sync => 1,
                CallKind::Metadata => 2,
                _ => 3,
            };
            shared[of].fetch_add(1, Ordering::Relaxed);
        });
        let store = Store::options().durability(level).open_in(&vfs, "app.db").unwrap();
        // So few sets that the log needs no more space.
        (0..50).for_each(|n| store.set_bytes(key(n), [0; 100]).unwrap());
        let taken = || [0, 1, 2, 3].map(|of: usize| counts[of].swap(0, Ordering::Relaxed));
        taken();
        for n in 0..50 {
            store.set_bytes(key(n), [1; 100]).unwrap();
        }
        let [write, sync, look, other] = taken();
        println!(
            "{level:?}: {write} writes, {sync} syncs, {look} looks, {other} others in 50 sets"
        );
        // The name of the segment is looked at too, after each 64 groups.
        let look = look - look / 51;
        assert_eq!([write, sync, look], wanted.map(|of| 50 * of), "{level:?}");
        for n in 0..50 {
            assert!(store.get_bytes(key(n)).is_some());
        }
        assert_eq!(taken(), [0; 4], "a read");
    }
}

/// The most allocations of a scan of 2,000 entries.
const SCAN_MAX: u64 = 80;
/// The allocations of a set: the entry, and the list of the entries that it replaces.
const SET_MAX: u64 = 2;

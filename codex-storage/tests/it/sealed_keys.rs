//! Changing the key and rekeying, interrupted at every call, and the key that opens the store then.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use crate::common::format::resum_header;
use crate::common::store::{Map, Store};
use crate::common::{NAME, keys, put};
use codex_storage::seal::Keys;
use codex_storage::storage::{Durability, Form};
use codex_storage::vfs::fault::{Calls, CrashChoice, Fault, FaultDir, Lasting, Side, Survivors};
use codex_storage::vfs::{Call, CallKind, Dir};
use codex_storage::{Access, Config, Conversion, Error, Result, convert};

/// More than the number of calls in a change of key.
const CALLS: u64 = 20;
const FORMS: [Form; 3] = [Form::Wal, Form::Snapshot, Form::Ledger];

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Change,
    Rekey,
}

fn config(disk: &FaultDir, form: Form, seed: u64, key: &Arc<dyn Keys>) -> Config {
    let mut config = Config::new(disk.vfs(seed), NAME);
    config.form = Some(form);
    config.keys = Some(Arc::clone(key));
    config.checkpoint.close_into_image_bytes_max = 0;
    config
}

/// A store with some history that is open under the key `old`.
fn store(disk: &FaultDir, form: Form, old: &Arc<dyn Keys>) -> Store {
    let mut store = Store::open(config(disk, form, 1, old)).unwrap();
    for n in 0..3 {
        store.set(&format!("before {n}"), "value").unwrap();
    }
    store.checkpoint().unwrap();
    store.set("behind the checkpoint", "value").unwrap();
    store
}

/// Changes the key, with commits beside a rekey.
fn replace(store: &mut Store, what: What, new: &Arc<dyn Keys>) -> Result<()> {
    if what == What::Change {
        return store.storage.change_key(&**new);
    }
    let job = store.storage.rekey(&**new, &store.map)?;
    let Some(job) = job else { return Ok(()) };
    let state = store.map.clone();
    store.set("beside", "value")?;
    let written = job.write(&state, &|_| true);
    store.set("beside too", "value")?;
    store.storage.finish_checkpoint(written)
}

/// Opens with each key and checks the contents, and that the key also converts the store. Returns
/// which of the keys opened the store.
fn opens(
    disk: &FaultDir,
    form: Form,
    pair: &[Arc<dyn Keys>; 2],
    at_least: usize,
    place: &str,
) -> [bool; 2] {
    let opened = [0, 1].map(|n| {
        let (disk, copy) = (disk.duplicate(), disk.duplicate());
        match Store::open(config(&disk, form, 7, &pair[n])) {
            Ok(mut store) => {
                let found = store.map.0.len();
                assert!(found == at_least || found == at_least + 1, "{place}: {found} keys");
                converts(&copy, form, &pair[n], &store.map, place);
                store.set("after", "value").unwrap();
                let map = store.map.clone();
                store.close().unwrap();
                // The commits do not depend on a name that a power cut can take back. The key may,
                // if the change has failed.
                let disk = disk.reboot(Survivors::Nothing);
                let store = Store::open(config(&disk, form, 8, &pair[n]));
                let store = store.or_else(|_| Store::open(config(&disk, form, 8, &pair[1 - n])));
                assert_eq!(store.unwrap_or_else(|e| panic!("{place}: {e}")).map, map, "{place}");
                true
            }
            Err(Error::WrongKey { .. }) => false,
            Err(e) => panic!("{place}: {e}"),
        }
    });
    assert!(opened[0] || opened[1], "{place}: neither key opens the store");
    opened
}

/// Makes the store plain, and checks its contents.
fn converts(disk: &FaultDir, form: Form, key: &Arc<dyn Keys>, map: &Map, place: &str) {
    let plain = Conversion { form: None, keys: None, compression: None };
    let converted = convert(config(disk, form, 9, key), &plain);
    converted.unwrap_or_else(|e| panic!("{place}: not converted: {e}"));
    let store = Store::open(Config::new(disk.vfs(10), NAME)).unwrap();
    assert_eq!(store.map, *map, "{place}: converted");
}

fn pair() -> [Arc<dyn Keys>; 2] {
    [keys("the old key"), keys("the new key")]
}

#[test]
fn the_new_key_opens_the_store_and_the_old_one_no_longer() {
    for form in FORMS {
        for what in [What::Change, What::Rekey] {
            let (disk, pair) = (FaultDir::new(), pair());
            let mut store = store(&disk, form, &pair[0]);
            replace(&mut store, what, &pair[1]).unwrap();
            store.set("then", "value").unwrap();
            store.checkpoint().unwrap();
            store.set("and then", "value").unwrap();
            let anchor = store.storage.anchor();
            let (place, keys) = (format!("{form} {what:?}"), store.map.0.len());
            let cut = disk.reboot(Survivors::Nothing);
            assert_eq!(opens(&cut, form, &pair, keys, &place), [false, true], "{place}");
            store.close().unwrap();
            let mut config = config(&disk, form, 5, &pair[1]);
            config.anchor = Some(anchor);
            let mut store = Store::open(config).unwrap();
            // Changed once more, and back.
            replace(&mut store, what, &pair[0]).unwrap();
            store.close().unwrap();
            assert_eq!(opens(&disk, form, &pair, keys, &place), [true, false]);
        }
    }
}

#[test]
fn a_power_cut_at_every_call_leaves_a_store_that_the_old_or_the_new_key_opens() {
    let mut images = 0;
    for form in FORMS {
        for what in [What::Change, What::Rekey] {
            let pair = pair();
            let calls = {
                let disk = FaultDir::new();
                let mut store = store(&disk, form, &pair[0]);
                let from = disk.calls();
                replace(&mut store, what, &pair[1]).unwrap();
                disk.calls() - from
            };
            for call in 0..calls {
                for side in [Side::Before, Side::After] {
                    let disk = FaultDir::new();
                    let mut store = store(&disk, form, &pair[0]);
                    disk.cut_power_at(disk.calls() + call, side);
                    let done = replace(&mut store, what, &pair[1]);
                    for survivors in
                        [Survivors::Nothing, Survivors::Everything, Survivors::Seeded(call)]
                    {
                        let place = format!("{form} {what:?} call {call} {side:?} {survivors:?}");
                        let keys = store.map.0.len();
                        let opened = opens(&disk.reboot(survivors), form, &pair, keys, &place);
                        assert!(done.is_err() || opened == [false, true], "{place}: {opened:?}");
                        images += 1;
                    }
                    // Also with sectors that are torn at a byte.
                    let choice = CrashChoice { seed: call, images_max: 24, ..Default::default() };
                    for torn in disk.crash_images(&choice) {
                        let place = format!("{form} {what:?} call {call} {side:?}, torn");
                        opens(&torn, form, &pair, store.map.0.len(), &place);
                        images += 1;
                    }
                }
            }
        }
    }
    println!("{images} images");
    assert!(images > 300, "{images}");
}

#[test]
fn two_changes_of_key_that_are_cut_one_after_the_other_leave_a_store_that_a_key_opens() {
    let keys: [Arc<dyn Keys>; 3] = ["first", "second", "third"].map(keys);
    let open = |disk: &FaultDir, form, place: &str| {
        let opened = keys.iter().find_map(|key| match Store::open(config(disk, form, 7, key)) {
            Ok(store) => Some(store),
            Err(Error::WrongKey { .. }) => None,
            Err(e) => panic!("{place}: {e}"),
        });
        opened.unwrap_or_else(|| panic!("{place}: no key opens the store"))
    };
    let mut lives = 0;
    for form in FORMS {
        for sets_before in [0, 3] {
            for (first, second) in (0..CALLS).flat_map(|n| (0..CALLS).map(move |m| (n, m))) {
                let place = format!("{form}, {sets_before} sets, calls {first} and {second}");
                let disk = FaultDir::new();
                let mut store = Store::open(config(&disk, form, 1, &keys[0])).unwrap();
                for n in 0..sets_before {
                    store.set(&format!("before {n}"), "value").unwrap();
                }
                let mut map = store.map.clone();
                let mut disk = disk;
                for (round, call) in [first, second].into_iter().enumerate() {
                    disk.cut_power_at(disk.calls() + call, Side::After);
                    let _ = store.storage.change_key(&*keys[round + 1]);
                    drop(store);
                    disk = disk.reboot(Survivors::Seeded(call + 31 * first));
                    store = open(&disk, form, &place);
                    assert_eq!(store.map, map, "{place}");
                    for n in 0..5 {
                        store.set(&format!("{round} {n}"), "value").unwrap();
                    }
                    map = store.map.clone();
                    lives += 1;
                }
                store.close().unwrap();
            }
        }
    }
    println!("{lives} lives");
    assert!(lives > 1_000, "{lives}");
}

#[test]
fn an_error_at_every_call_changes_nothing_or_leaves_it_to_the_next_open() {
    let mut faults = 0;
    for form in FORMS {
        for what in [What::Change, What::Rekey] {
            let pair = pair();
            for call in 0.. {
                let disk = FaultDir::new();
                let mut store = store(&disk, form, &pair[0]);
                let fault = if call % 2 == 0 { Fault::Eio } else { Fault::Enospc };
                let from = disk.calls();
                disk.fail_at(from + call, fault, Lasting::Once, Side::Before);
                let done = replace(&mut store, what, &pair[1]);
                if disk.calls() - from <= call {
                    break;
                }
                faults += disk.faults_fired();
                let place = format!("{form} {what:?} call {call} {fault:?}: {:?}", done.err());
                if store.storage.poisoned().is_none() {
                    store.set("goes on", "value").unwrap_or_else(|e| panic!("{place}: {e}"));
                }
                // Another process opens the store in the same boot. Then the power is cut.
                let keys = store.map.0.len();
                opens(&disk.crash_process(), form, &pair, keys, &place);
            }
        }
    }
    println!("{faults} faults");
    assert!(faults > 100, "{faults}");
}

#[test]
fn at_an_interval_what_is_not_durable_yet_is_after_a_rekey() {
    for form in FORMS {
        let (disk, pair) = (FaultDir::new(), pair());
        let mut config = config(&disk, form, 1, &pair[0]);
        config.durability = Durability::Interval(std::time::Duration::from_secs(1));
        let mut store = Store::open(config).unwrap();
        store.set("lazy", "value").unwrap();
        replace(&mut store, What::Rekey, &pair[1]).unwrap();
        let cut = disk.reboot(Survivors::Nothing);
        assert_eq!(
            opens(&cut, form, &pair, store.map.0.len(), "interval"),
            [false, true],
            "{form}"
        );
    }
}

#[test]
fn one_handle_changes_and_renews_its_key_again_and_again() {
    for form in FORMS {
        let disk = FaultDir::new();
        let mut store = store(&disk, form, &keys("0"));
        for (n, what) in (1..).zip([What::Rekey, What::Change, What::Rekey, What::Rekey]) {
            let pair = [n - 1, n].map(|n| keys(&n.to_string()));
            replace(&mut store, what, &pair[1]).unwrap();
            store.set("then", &n.to_string()).unwrap();
            let place = format!("{form} {what:?} {n}");
            let killed = disk.duplicate().crash_process();
            let opened = opens(&killed, form, &pair, store.map.0.len(), &place);
            assert_eq!(opened, [false, true], "{place}");
        }
    }
}

/// What a rekey beside commits leaves to do while writers wait.
struct Busy {
    /// The number of commits that were made beside it.
    made: u32,
    /// The number of bytes of the log that are not synced yet.
    unsynced: u64,
    /// The number of bytes that are still to be copied.
    copied: u64,
}

/// Rekeys, and calls `beside` for each piece of work that runs without the lock. `beside` returns
/// the number of commits of 8 KiB to make at this time.
fn busy_rekey(form: Form, level: Durability, beside: &dyn Fn(u32) -> u32) -> Busy {
    let (disk, pair) = (FaultDir::new(), pair());
    let mut config = config(&disk, form, 1, &pair[0]);
    config.durability = level;
    let mut store = Store::open(config).unwrap();
    store.set("before", "value").unwrap();
    let job = store.storage.rekey(&*pair[1], &store.map).unwrap().unwrap();
    let (state, value) = (store.map.clone(), "v".repeat(8 << 10));
    let (shared, asked, made) = (RefCell::new(store), Cell::new(0), Cell::new(0));
    disk.record_trace(true);
    let written = job.write(&state, &|_| {
        asked.set(asked.get() + 1);
        for _ in 0..beside(asked.get()) {
            shared.borrow_mut().set(&format!("beside {}", made.get()), &value).unwrap();
            made.set(made.get() + 1);
        }
        true
    });
    let mut store = shared.into_inner();
    // Without the space ahead, in pieces of 64 KiB, and the header.
    let is_frame =
        |call: &&Call| call.kind == CallKind::Write && (8 << 10..32 << 10).contains(&call.len);
    let (beside, log) = (disk.trace(), if form == Form::Wal { newest(&disk) } else { NAME.into() });
    let since = beside.iter().rev().filter(|call| *call.name == *log);
    let since = since.take_while(|call| call.kind != CallKind::Sync);
    let unsynced = since.filter(is_frame).map(|call| call.len).sum();
    store.storage.finish_checkpoint(written).unwrap();
    let trace = disk.trace().split_off(beside.len());
    assert!(store.storage.retired().is_some(), "{form}: the old log was closed under the lock");
    assert!(store.storage.retired().is_none());
    let copied = trace.iter().filter(is_frame).map(|call| call.len).sum();
    let keys = store.map.0.len();
    let cut = disk.reboot(Survivors::Nothing);
    assert_eq!(opens(&cut, form, &pair, keys, "a busy rekey"), [false, true], "{form}");
    Busy { made: made.get(), unsynced, copied }
}

#[test]
fn what_is_committed_beside_a_rekey_is_copied_and_synced_beside_the_writers_but_for_a_little() {
    for form in [Form::Wal, Form::Ledger] {
        for level in [Durability::Sync, Durability::Os] {
            // A burst of commits, then half as many as are copied.
            let beside = |asked| if asked == 1 { 300 } else { u32::from(asked % 2 == 0) };
            let Busy { made, unsynced, copied } = busy_rekey(form, level, &beside);
            println!(
                "{form} {level:?}: {made} commits, {unsynced} bytes to sync, {copied} to copy"
            );
            assert!(copied <= 264 << 10, "{form} {level:?}: {copied} bytes copied at last");
            assert!(unsynced <= 264 << 10, "{form} {level:?}: {unsynced} bytes synced at last");
            assert!(made > 450, "{made} commits beside");
        }
    }
}

#[test]
fn who_reads_beside_the_writer_sees_the_commits_beside_a_rekey() {
    for form in [Form::Wal, Form::Ledger] {
        let (disk, pair) = (FaultDir::new(), pair());
        let mut store = store(&disk, form, &pair[0]);
        replace(&mut store, What::Rekey, &pair[1]).unwrap();
        let mut beside = config(&disk, form, 2, &pair[1]);
        beside.access = Access::Follow;
        let found = Store::open(beside).unwrap();
        assert_eq!(found.map, store.map, "{form}: before the next commit");
    }
}

#[test]
fn a_rekey_ends_beside_writers_that_outpace_it() {
    for form in [Form::Wal, Form::Ledger] {
        let beside = |asked| if asked == 1 { 60 } else { 2 };
        let Busy { made, copied, .. } = busy_rekey(form, Durability::Sync, &beside);
        println!("{form}: {made} commits beside, {copied} bytes while writers wait");
        assert!((100..2_000).contains(&made), "{form}: {made}");
    }
}

#[test]
fn a_rekey_that_is_given_up_leaves_no_file_behind() {
    for form in [Form::Wal, Form::Ledger] {
        for stop in 1..6 {
            let (disk, pair) = (FaultDir::new(), pair());
            let store = RefCell::new(store(&disk, form, &pair[0]));
            let job = {
                let mut store = store.borrow_mut();
                let map = store.map.clone();
                store.storage.rekey(&*pair[1], &map).unwrap().unwrap()
            };
            let (state, asked) = (store.borrow().map.clone(), Cell::new(0));
            let written = job.write(&state, &|_| {
                asked.set(asked.get() + 1);
                store.borrow_mut().set(&format!("beside {}", asked.get()), "value").unwrap();
                asked.get() < stop
            });
            let mut store = store.into_inner();
            let done = store.storage.finish_checkpoint(written);
            assert!(done.is_ok() || matches!(done, Err(Error::Abandoned { .. })), "{done:?}");
            assert_eq!(done.is_ok(), asked.get() < stop, "{form} {stop}");
            let left = disk.list().unwrap();
            assert!(!left.iter().any(|name| name.contains(".tmp.")), "{form} {stop}: {left:?}");
            store.set("goes on", "value").unwrap();
            let place = format!("{form} given up at {stop}");
            let opened = opens(&disk.crash_process(), form, &pair, store.map.0.len(), &place);
            assert_eq!(opened, [done.is_err(), done.is_ok()], "{place}");
        }
    }
}

#[test]
fn a_plain_store_has_no_key_to_change() {
    for form in FORMS {
        let disk = FaultDir::new();
        let mut config = Config::new(disk.vfs(1), NAME);
        config.form = Some(form);
        let mut store = Store::open(config).unwrap();
        let refused = [
            store.storage.change_key(&*keys("key")).unwrap_err(),
            store.storage.rekey(&*keys("key"), &store.map).unwrap_err(),
        ];
        assert!(refused.iter().all(|e| matches!(e, Error::NotEncrypted { .. })), "{refused:?}");
        store.set("goes on", "value").unwrap();
    }
}

/// Returns the file with a header that has a matching checksum.
fn repaired(mut bytes: Vec<u8>) -> Vec<u8> {
    resum_header(&mut bytes);
    bytes
}

/// Returns the name of the newest segment.
fn newest(disk: &FaultDir) -> String {
    let names = disk.list().unwrap().into_iter();
    names.filter(|name| name.contains(".wal.")).max().unwrap()
}

#[test]
fn a_segment_is_no_stray_because_its_header_says_so() {
    let (disk, pair) = (FaultDir::new(), pair());
    let mut store = store(&disk, Form::Wal, &pair[0]);
    // A checkpoint that is interrupted by a crash leaves commits in two segments.
    drop(store.storage.begin_checkpoint(&store.map.clone()).unwrap());
    store.set("in the newest segment", "value").unwrap();
    let image = disk.crash_process();
    let name = newest(&image);
    let genuine = image.peek(&name).unwrap();
    // Another root id, also with the id of the same root key as the proof.
    for (at, to) in (144..160).flat_map(|at| [(at, 0), (at, 1), (at, 2)]) {
        let mut bytes = genuine.clone();
        bytes[at] ^= 1;
        match to {
            0 => {}
            1 => bytes[224..252].fill(7),
            _ => bytes.copy_within(480..508, 224),
        }
        let forged = repaired(bytes);
        let disk = image.duplicate();
        put(&disk.vfs(9), &name, &forged);
        let mut refused = Store::open(config(&disk, Form::Wal, 9, &pair[0]));
        if let Ok(store) = &mut refused {
            store.set("after", "value").unwrap();
        }
        let refused = refused.map(|store| store.map.0.len());
        let is_named =
            matches!(&refused, Err(Error::Tampered { path, .. }) if path.ends_with(&name));
        assert!(is_named, "byte {at}, {to}: {refused:?}");
        assert_eq!(disk.peek(&name).unwrap(), forged, "byte {at}");
    }
    let store = Store::open(config(&image, Form::Wal, 9, &pair[0])).unwrap();
    assert_eq!(store.recovered.stray, None);
    assert_eq!(store.map.0.len(), 5);
}

#[test]
fn a_stray_of_a_rekey_is_reported_and_removed_if_it_proves_itself_and_else_refused() {
    let (mut strays, mut forgeries) = (0, 0);
    for call in 0.. {
        let (disk, pair) = (FaultDir::new(), pair());
        let mut store = store(&disk, Form::Wal, &pair[0]);
        let from = disk.calls();
        disk.cut_power_at(from + call, Side::After);
        let done = replace(&mut store, What::Rekey, &pair[1]);
        if disk.calls() - from <= call {
            assert!(done.is_ok());
            break;
        }
        let disk = disk.reboot(Survivors::Everything);
        let Ok(found) = Store::open(config(&disk, Form::Wal, 2, &pair[0])) else { continue };
        let Some(stray) = found.recovered.stray.clone() else { continue };
        drop(found);
        assert_eq!(stray, newest(&disk));
        strays += 1;
        // The bytes that the proof covers, and the proof.
        let genuine = disk.peek(&stray).unwrap();
        for at in (64..72).chain(96..128).chain(192..208).chain(224..252) {
            let mut bytes = genuine.clone();
            bytes[at] ^= 1;
            let disk = disk.duplicate();
            put(&disk.vfs(9), &stray, &repaired(bytes));
            let refused = Store::open(config(&disk, Form::Wal, 9, &pair[0])).map(|_| ());
            assert!(matches!(refused, Err(Error::Tampered { .. })), "byte {at}: {refused:?}");
            forgeries += 1;
        }
        // A reader removes nothing.
        let mut reading = config(&disk, Form::Wal, 3, &pair[0]);
        reading.access = Access::ReadOnly;
        assert_eq!(Store::open(reading).unwrap().recovered.stray.as_ref(), Some(&stray));
        let mut store = Store::open(config(&disk, Form::Wal, 3, &pair[0])).unwrap();
        assert!(disk.peek(&stray).is_ok(), "an opening removes nothing");
        store.set("after", "value").unwrap();
        assert!(!disk.list().unwrap().contains(&stray));
        drop(store);
        let store = Store::open(config(&disk, Form::Wal, 4, &pair[0])).unwrap();
        assert_eq!(store.recovered.stray, None);
    }
    println!("{strays} strays, {forgeries} forgeries");
    assert!(strays > 0 && forgeries > 50);
}

/// Beside a self-contained image a stray segment would look like a foreign log, and the store could
/// not be opened any more.
#[test]
fn a_store_with_a_stray_that_cannot_be_removed_closes_with_its_log_and_opens_again() {
    let (disk, pair) = (FaultDir::new(), pair());
    let whole = |seed| {
        let mut config = config(&disk, Form::Wal, seed, &pair[0]);
        config.checkpoint.close_into_image_bytes_max = u64::MAX;
        config
    };
    let mut store = Store::open(whole(1)).unwrap();
    store.set("before", "value").unwrap();
    let removals = Calls::of(CallKind::Remove).on("*.wal.*");
    disk.fail_on(removals.clone(), 1, Fault::Eio, Lasting::Sticky, Side::Before);
    // The directory is synced for the segment that is written beside the rekey, then for the
    // segment of the rekey.
    let sync = Calls::of(CallKind::SyncDir);
    disk.fail_on(sync, 2, Fault::Eio, Lasting::Once, Side::Before);
    replace(&mut store, What::Rekey, &pair[1]).unwrap_err();
    let stray = newest(&disk);
    store.set("after", "value").unwrap();
    let map = store.map.clone();
    store.close().unwrap();
    disk.clear_plan();
    assert!(disk.peek(&stray).is_ok(), "it is still there");
    let found = Store::open(whole(2)).unwrap();
    assert_eq!((&found.map, &found.recovered.stray), (&map, &Some(stray.clone())));
    assert!(found.recovered.clean);
    drop(found);
    // A stray segment that an opening has found and cannot remove either.
    disk.fail_on(removals, 1, Fault::Eio, Lasting::Sticky, Side::Before);
    let mut store = Store::open(whole(3)).unwrap();
    store.set("again", "value").unwrap();
    let map = store.map.clone();
    store.close().unwrap();
    disk.clear_plan();
    let mut store = Store::open(whole(4)).unwrap();
    assert_eq!(store.map, map);
    // When it can be removed, the store closes into its image.
    store.set("last", "value").unwrap();
    store.close().unwrap();
    let segments = disk.list().unwrap().into_iter().filter(|name| name.contains(".wal."));
    assert_eq!(segments.count(), 0);
}

#[test]
fn after_a_rekey_no_power_cut_brings_back_a_file_that_the_former_key_opens() {
    for form in FORMS {
        let (disk, pair) = (FaultDir::new(), pair());
        let mut store = store(&disk, form, &pair[0]);
        // The segments that a checkpoint has left are under the former root key too.
        drop(store.storage.begin_checkpoint(&store.map.clone()).unwrap());
        store.set("in another segment", "value").unwrap();
        let root = |bytes: &[u8]| bytes[144..160].to_vec();
        let former = root(&disk.peek(NAME).unwrap());
        store.storage.finish_checkpoint(Err(Error::Contradiction("given up"))).unwrap_err();
        replace(&mut store, What::Rekey, &pair[1]).unwrap();
        for survivors in [Survivors::Nothing, Survivors::Everything, Survivors::Seeded(1)] {
            let disk = disk.reboot(survivors);
            for name in disk.list().unwrap() {
                let bytes = disk.peek(&name).unwrap();
                let is_former = bytes.len() >= 512 && root(&bytes) == former;
                assert!(!is_former, "{form}: {name} is under the former root");
            }
        }
    }
}

//! Changing the key and rekeying, cut short at every call: what opens the store afterwards.
#![cfg(feature = "fault")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::sync::Arc;

use codex_storage::seal::Keys;
use codex_storage::storage::{Durability, Form};
use codex_storage::vfs::fault::{CrashChoice, Fault, FaultDir, Lasting, Side, Survivors};
use codex_storage::{Config, Error, Result};
use common::store::Store;
use common::{NAME, keys};

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

/// Does it, with commits beside a rekey.
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

/// Opens with either key and looks at what is there; which of them did.
fn opens(
    disk: &FaultDir,
    form: Form,
    pair: &[Arc<dyn Keys>; 2],
    at_least: usize,
    place: &str,
) -> [bool; 2] {
    let opened = [0, 1].map(|n| {
        let disk = disk.duplicate();
        match Store::open(config(&disk, form, 7, &pair[n])) {
            Ok(mut store) => {
                let found = store.map.0.len();
                assert!(found == at_least || found == at_least + 1, "{place}: {found} keys");
                store.set("after", "value").unwrap();
                let map = store.map.clone();
                store.close().unwrap();
                // No commit rests on a name that a power cut takes back; the key may, if changing
                // it failed.
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
            // And once more, and back.
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
                    // Sectors torn at a byte too.
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
                // Another process, in the same boot; then the power goes.
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

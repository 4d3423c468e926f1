//! Salvage: whatever is damaged, no value is wrong, nothing that is lost goes unsaid, and the files
//! stay as they are.

use std::time::Duration;

use codex_storage::batch::Op;
use codex_storage::storage::Form;
use codex_storage::vfs::Vfs;
use codex_storage::{Config, Error, Salvage, salvage};

use crate::common::store::{Map, Store};
use crate::common::{Bed, NAME, files, mem_with, stride};

/// A store of several blocks and a log, and its state after each commit.
fn sample(form: Form, sealed: bool) -> (Bed, Vec<Map>) {
    let bed = Bed::mem(form, sealed);
    let mut store = Store::open(bed.config()).unwrap();
    let mut states = vec![store.map.clone()];
    let texts: Vec<(String, String)> =
        (0..400).map(|n| (format!("key/{n:03}"), format!("{n}").repeat(150))).collect();
    let ops: Vec<Op<'_>> =
        texts.iter().map(|(key, value)| Op::set(key.as_bytes(), value.as_bytes())).collect();
    store.commit(&[&ops]).unwrap();
    states.push(store.map.clone());
    if form != Form::Ledger {
        store.checkpoint().unwrap();
    }
    for n in 0..4 {
        store.set("key/007", &format!("later {n}")).unwrap();
        states.push(store.map.clone());
    }
    store.flush().unwrap();
    drop(store);
    (bed, states)
}

/// Writes what was found to another directory, and returns the state of the new store.
fn written(found: &Salvage, bed: &Bed) -> Map {
    let config = Config { keys: bed.keys.clone(), ..Config::new(Vfs::mem(5), "new.db") };
    found.write_to(config.clone()).unwrap();
    Store::open(config).unwrap().map
}

#[test]
fn damage_anywhere_gives_no_wrong_value_and_is_told() {
    for form in [Form::Wal, Form::Snapshot, Form::Ledger] {
        for sealed in [false, true] {
            let (bed, states) = sample(form, sealed);
            let last = states.last().unwrap();
            let all = files(&bed.vfs);
            let (mut exact, mut partial) = (0, 0);
            for (of, at) in places(&all, stride(5003)) {
                let what = format!("{form} {sealed}, {} at {at}", all[of].0);
                let mut damaged = all.clone();
                damaged[of].1[at] ^= 1 << (at % 8);
                let vfs = mem_with(&damaged);
                let found = salvage(&vfs, NAME, bed.keys.as_deref(), Duration::ZERO);
                assert_eq!(files(&vfs), damaged, "{what}: a file has changed");
                // A damaged header can leave nothing.
                let Ok(found) = found else { continue };
                let map = written(&found, &bed);
                if found.is_exact {
                    exact += 1;
                    let seq = usize::try_from(found.seq).unwrap();
                    assert_eq!(map, states[seq], "{what}: another state than that of {seq}");
                } else {
                    partial += 1;
                    for (key, value) in &map.0 {
                        let is_one = states.iter().any(|state| state.0.get(key) == Some(value));
                        assert!(is_one, "{what}: a value that was never set");
                    }
                    let missing: Vec<&Vec<u8>> =
                        last.0.keys().filter(|key| !map.0.contains_key(*key)).collect();
                    assert!(!missing.is_empty() && !found.lost.is_empty(), "{what}");
                    for key in missing {
                        let is_told = found.lost.iter().any(|lost| {
                            lost.after.as_ref().is_none_or(|after| *key > after.1)
                                && lost.before.as_ref().is_none_or(|before| *key < before.1)
                        });
                        assert!(is_told, "{what}: a lost key is not told");
                    }
                }
                let is_whole = found.is_exact && map == *last;
                assert!(is_whole || !found.faults.is_empty(), "{what}: a loss is not told");
            }
            assert!(exact > 0 && (partial > 5 || form == Form::Ledger), "{exact} and {partial}");
        }
    }
}

/// Returns a file and an offset in it for every `stride` bytes.
fn places(files: &[(String, Vec<u8>)], stride: usize) -> Vec<(usize, usize)> {
    let each = files.iter().enumerate();
    each.flat_map(|(of, (_, bytes))| (0..bytes.len()).step_by(stride).map(move |at| (of, at)))
        .collect()
}

#[test]
fn a_truncated_image_keeps_its_first_blocks() {
    let (bed, states) = sample(Form::Snapshot, false);
    let mut cut = files(&bed.vfs);
    let len = cut[0].1.len() * 3 / 4;
    cut[0].1.truncate(len);
    let found = salvage(&mem_with(&cut), NAME, None, Duration::ZERO).unwrap();
    let map = written(&found, &bed);
    assert!(map.0.len() > 100 && !found.is_exact, "{}", map.0.len());
    assert!(map.0.iter().all(|(key, value)| states.last().unwrap().0.get(key) == Some(value)));
}

#[test]
fn a_log_that_does_not_continue_the_image_is_left_out() {
    let bed = Bed::mem(Form::Wal, false);
    let mut store = Store::open(bed.config()).unwrap();
    store.set("a", "1").unwrap();
    store.checkpoint().unwrap();
    let first = store.map.clone();
    let older = files(&bed.vfs).into_iter().find(|(name, _)| name == NAME).unwrap();
    store.set("b", "2").unwrap();
    store.checkpoint().unwrap();
    store.set("c", "3").unwrap();
    drop(store);
    // The image of the first commit is put back by hand, beside the log after the second one.
    let mut mixed = files(&bed.vfs);
    mixed.retain(|(name, _)| name != NAME);
    mixed.push(older);
    let found = salvage(&mem_with(&mixed), NAME, None, Duration::ZERO).unwrap();
    assert_eq!((found.seq, written(&found, &bed)), (1, first));
    let is_gap = |error: &Error| matches!(error, Error::Gap { expected: 1, found: 2, .. });
    assert!(found.faults.iter().any(is_gap), "{:?}", found.faults);
}

#[test]
fn a_store_of_which_nothing_is_intact_is_an_error_and_no_empty_store() {
    let (bed, _) = sample(Form::Snapshot, false);
    let mut damaged = files(&bed.vfs);
    let main = damaged.iter_mut().find(|(name, _)| name == NAME).unwrap();
    // All blocks and what follows them. The header is intact.
    main.1[4096..].fill(0);
    let error = salvage(&mem_with(&damaged), NAME, None, Duration::ZERO).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

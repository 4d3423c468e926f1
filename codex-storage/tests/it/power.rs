//! A power cut before and after every call of a log, also during recovery.

use std::collections::BTreeMap;

use codex_storage::storage::{Durability, Form};
use codex_storage::vfs::fault::{Calls, CrashChoice, Fault, FaultDir, Lasting, Side, Survivors};
use codex_storage::vfs::{CallKind, SeededEntropy};
use codex_storage::{Error, Result};

use crate::common::store::{Map, Store};
use crate::common::{Bed, scaled, seed};

/// The progress of a script.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    /// The number of commits whose durability was acknowledged, by level `Sync` or by a flush.
    durable: u64,
    /// The number of commits that were passed to the store, acknowledged or not.
    begun: u64,
}

/// Returns the key and the value of commit `n`. Their lengths are around that of a sector, and some
/// have many zeros.
fn entry(n: u64) -> (Vec<u8>, Vec<u8>) {
    let len = [3, 700, 60, 1500, 0, 400][n as usize % 6];
    let fill = if n % 4 == 3 { 0 } else { 0x30 + n as u8 };
    (format!("key {n}").into_bytes(), vec![fill; len])
}

/// Returns the state after `commits` commits.
fn model(commits: u64) -> Map {
    Map((1..=commits).map(entry).collect(), BTreeMap::new(), BTreeMap::new())
}

fn put(store: &mut Store, level: Durability, progress: &mut Progress) -> Result<()> {
    progress.begun += 1;
    let (key, value) = entry(progress.begun);
    store.commit(&[&[codex_storage::batch::Op::set(&key, &value)]])?;
    if level == Durability::Sync {
        progress.durable = progress.begun;
    }
    Ok(())
}

/// Opens, commits three times, closes, opens again, commits, and drops the store without a close.
fn script(bed: &Bed, level: Durability, progress: &mut Progress) -> Result<()> {
    let mut store = Store::open(bed.at(level))?;
    for n in 0..3 {
        put(&mut store, level, progress)?;
        if n == 1 && level != Durability::Sync {
            store.flush()?;
            progress.durable = progress.begun;
        }
    }
    store.close()?;
    progress.durable = progress.begun;
    let mut store = Store::open(bed.at(level))?;
    put(&mut store, level, progress)?;
    put(&mut store, level, progress)
}

/// Checks a store that was found after a power cut: it has the first `k` commits, complete.
fn check(disk: &FaultDir, bed: &Bed, progress: Progress, what: &str) -> u64 {
    let bed = Bed { vfs: disk.vfs(seed() + 77), ..bed.clone() };
    let store = match Store::open(bed.config()) {
        Ok(store) => store,
        Err(error) => panic!("{what}: {error}"),
    };
    let found = store.recovered.seq;
    assert!(
        (progress.durable..=progress.begun).contains(&found),
        "{what}: {found} commits are there, {progress:?}: an acknowledged commit is lost"
    );
    assert_eq!(store.map, model(found), "{what}");
    found
}

/// Opens again, commits, and opens again, to show that recovery has left a complete store.
fn check_goes_on(disk: &FaultDir, bed: &Bed, found: u64, what: &str) {
    let bed = Bed { vfs: disk.vfs(seed() + 99), ..bed.clone() };
    let mut store = Store::open(bed.config()).unwrap_or_else(|e| panic!("{what}: again: {e}"));
    assert_eq!(store.recovered.seq, found, "{what}: recovering twice gives the same");
    let mut progress = Progress { durable: found, begun: found };
    put(&mut store, Durability::Sync, &mut progress)
        .unwrap_or_else(|e| panic!("{what}: writing on: {e}"));
    drop(store);
    let store = Store::open(bed.config()).unwrap_or_else(|e| panic!("{what}: third: {e}"));
    assert_eq!(store.map, model(found + 1), "{what}: after writing on");
}

fn few(images_max: usize, seed: u64) -> CrashChoice {
    CrashChoice { seed, images_max, samples: images_max as u64 / 2, ..CrashChoice::default() }
}

/// Returns the number of calls of the script without a fault.
fn calls_of(bed: &Bed, level: Durability) -> u64 {
    let disk = FaultDir::new();
    let bed = Bed { vfs: disk.vfs(seed()), ..bed.clone() };
    script(&bed, level, &mut Progress::default()).unwrap();
    disk.calls()
}

fn beds() -> impl Iterator<Item = (Bed, Durability)> {
    let levels = [Durability::Sync, Durability::Os];
    levels.into_iter().flat_map(|level| {
        [false, true].into_iter().map(move |sealed| (Bed::mem(Form::Ledger, sealed), level))
    })
}

#[test]
fn a_power_cut_at_any_call_loses_no_acknowledged_commit() {
    let mut images = 0;
    for (bed, level) in beds() {
        for cut in 0..calls_of(&bed, level) {
            for side in [Side::Before, Side::After] {
                let disk = FaultDir::new();
                disk.cut_power_at(cut, side);
                let bed = Bed { vfs: disk.vfs(seed()), ..bed.clone() };
                let mut progress = Progress::default();
                drop(script(&bed, level, &mut progress));
                let mut choices = disk.crash_images(&few(scaled(40), seed() ^ cut));
                while let Some(image) = choices.next() {
                    let what = format!("cut {cut} {side:?}, image {}, {level:?}", choices.number());
                    let found = check(&image, &bed, progress, &what);
                    check_goes_on(&image, &bed, found, &what);
                    images += 1;
                }
            }
        }
    }
    assert!(images > scaled(1_000).min(1_000), "only {images} images");
}

#[test]
fn a_power_cut_during_recovery_two_levels_deep_changes_nothing() {
    let mut images = 0;
    let random = SeededEntropy::new(seed());
    for (bed, level) in beds() {
        let calls = calls_of(&bed, level);
        for _ in 0..scaled(12).max(2) {
            let disk = FaultDir::new();
            disk.cut_power_at(random.below(calls), Side::After);
            let bed = Bed { vfs: disk.vfs(seed()), ..bed.clone() };
            let mut progress = Progress::default();
            drop(script(&bed, level, &mut progress));
            let what = format!("seed {}, {level:?}", seed());
            images += cut_again(&disk, &bed, progress, 2, &random, &what);
        }
    }
    assert!(images > scaled(400), "only {images} images");
}

/// Cuts the power at every call of the recovery of some images, `depth` times in a row.
fn cut_again(
    disk: &FaultDir,
    bed: &Bed,
    progress: Progress,
    depth: u32,
    random: &SeededEntropy,
    what: &str,
) -> usize {
    let mut images = 0;
    for image in disk.crash_images(&few(3, random.next_u64())) {
        let found = check(&image.duplicate(), bed, progress, what);
        images += 1;
        if depth == 0 {
            check_goes_on(&image, bed, found, what);
            continue;
        }
        let mut cut = 0;
        loop {
            let copy = image.duplicate();
            copy.cut_power_at(cut, Side::After);
            let bed = Bed { vfs: copy.vfs(random.next_u64()), ..bed.clone() };
            // An interrupted recovery may have made more commits durable, never fewer.
            let opened = Store::open(bed.config());
            let least = Progress { durable: progress.durable, begun: found };
            let least = if opened.is_ok() { Progress { durable: found, ..least } } else { least };
            if opened.is_ok() {
                copy.cut_power();
            }
            drop(opened);
            if random.below(4) == 0 {
                images += cut_again(&copy, &bed, least, depth - 1, random, what);
            }
            if copy.calls() <= cut {
                break;
            }
            cut += 1;
        }
    }
    images
}

#[test]
fn what_was_read_after_a_failed_sync_survives_a_later_power_cut() {
    let mut images = 0;
    for (bed, level) in beds() {
        for nth in 1..12 {
            let disk = FaultDir::new();
            let eio = Fault::Eio;
            disk.fail_on(Calls::of(CallKind::Sync), nth, eio, Lasting::Once, Side::Before);
            let bed = Bed { vfs: disk.vfs(seed()), ..bed.clone() };
            let mut progress = Progress::default();
            let failed = script(&bed, level, &mut progress).is_err();
            // In the same boot the cache still shows the bytes that the sync has lost.
            disk.clear_plan();
            let reopened = disk.crash_process();
            let what = format!("sync {nth} failed, {level:?}");
            let found = check(&reopened, &bed, progress, &what);
            reopened.cut_power();
            let read = Progress { durable: found, begun: found };
            for image in reopened.crash_images(&few(20, nth)) {
                let what = format!("{what}: what was read is lost");
                let again = check(&image, &bed, read, &what);
                check_goes_on(&image, &bed, again, &what);
                images += 1;
            }
            assert!(failed || nth > 4, "{what}: nobody noticed");
        }
    }
    assert!(images > 40, "only {images} images");
}

#[test]
fn a_creation_whose_folder_could_not_be_synced_is_made_durable_by_the_next_open() {
    for (bed, level) in beds() {
        let disk = FaultDir::new();
        let eio = Fault::Eio;
        disk.fail_on(Calls::of(CallKind::SyncDir), 2, eio, Lasting::Once, Side::Before);
        let bed = Bed { vfs: disk.vfs(seed()), ..bed.clone() };
        let mut progress = Progress::default();
        let refused = script(&bed, level, &mut progress).unwrap_err();
        assert!(matches!(refused, Error::Io { .. }), "{refused}");
        let again = disk.crash_process();
        let bed = Bed { vfs: again.vfs(seed() + 1), ..bed.clone() };
        script(&bed, Durability::Sync, &mut progress).unwrap();
        let image = again.reboot(Survivors::Nothing);
        check(&image, &bed, progress, "the name was lost");
    }
}

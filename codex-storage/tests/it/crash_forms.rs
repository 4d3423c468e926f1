//! Power cuts, failing calls and killed processes at every call of short sequences, in each form.
//!
//! `CODEX_SCALE` multiplies the sequences of each row and the images of each cut. `CODEX_SEED`
//! chooses the order of the sequences and the samples. A row prints its counts and fails if they
//! are below its floors.

use std::sync::Arc;

use codex_storage::Error;
use codex_storage::seal::Keys;
use codex_storage::storage::{Durability, Form};
use codex_storage::sync::Mutex;
use codex_storage::sync::atomic::{AtomicU64, Ordering};
use codex_storage::vfs::fault::{CrashChoice, Fault, FaultDir, Lasting, Side, Survivors};
use codex_storage::vfs::{Observed, SeededEntropy};

use crate::common::model::{
    Model, Run, SEQUENCES, STEPS, holds, levels, no_stray_files, open_with_one_of, sequence,
};
use crate::common::store::Store;
use crate::common::{Bed, scale, scaled, seed};

/// One test for each form, plain and sealed.
macro_rules! rows {
    ($($row:ident: $form:ident, $sealed:expr;)*) => {
        mod power_cut {
            $(#[test] fn $row() {
                super::power_cuts(codex_storage::storage::Form::$form, $sealed);
            })*
        }
        mod failing_call {
            $(#[test] fn $row() {
                super::failing_calls(codex_storage::storage::Form::$form, $sealed);
            })*
        }
    };
}

rows! {
    snapshot: Snapshot, false;
    snapshot_sealed: Snapshot, true;
    wal: Wal, false;
    wal_sealed: Wal, true;
    ledger: Ledger, false;
    ledger_sealed: Ledger, true;
}

/// Recovers all that a power cut could leave, before every call that follows a change.
fn power_cuts(form: Form, sealed: bool) {
    let row = Arc::new(Row::new(form, sealed));
    for number in row.numbers(SEQUENCES_CUT) {
        for level in levels(form) {
            row.run_with_cuts(number, level);
        }
        row.counts.sequences.fetch_add(1, Ordering::Relaxed);
    }
    row.print("power cuts");
    let counts = [&row.counts.cuts, &row.counts.images, &row.counts.twice];
    let [cuts, images, twice] = counts.map(|count| count.load(Ordering::Relaxed));
    let during = row.counts.during_recovery.load(Ordering::Relaxed);
    let sequences = row.counts.sequences.load(Ordering::Relaxed);
    // Each sequence has cuts, most cuts leave several disks, and one of eight disks is recovered in
    // each of these ways.
    assert!(cuts >= 10 * sequences && images >= 2 * cuts, "{:?}", row.counts);
    assert!(20 * twice >= images && 10 * during >= images, "{:?}", row.counts);
}

/// An error at every call: no promised commit is lost, no failed commit returns, and all commits
/// that are read in the same boot survive the next power cut.
fn failing_calls(form: Form, sealed: bool) {
    let row = Row::new(form, sealed);
    for number in row.numbers(SEQUENCES_FAILED) {
        let level = levels(form)[number % levels(form).len()];
        let mut call = 0;
        while row.run_with_failure(number, level, call) {
            call += 1;
        }
        row.counts.sequences.fetch_add(1, Ordering::Relaxed);
    }
    row.print("failing calls");
    let failures = row.counts.failures.load(Ordering::Relaxed);
    let sequences = row.counts.sequences.load(Ordering::Relaxed);
    assert!(failures >= 10 * sequences, "{:?}", row.counts);
}

/// The runs of a row, and their counts.
struct Row {
    form: Form,
    sealed: bool,
    seed: u64,
    random: SeededEntropy,
    images_max: usize,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    sequences: AtomicU64,
    cuts: AtomicU64,
    images: AtomicU64,
    twice: AtomicU64,
    during_recovery: AtomicU64,
    failures: AtomicU64,
}

impl Row {
    fn new(form: Form, sealed: bool) -> Self {
        let seed = seed();
        Self {
            form,
            sealed,
            seed,
            random: SeededEntropy::new(seed),
            images_max: (24.0 * scale()).clamp(4.0, 1024.0) as usize,
            counts: Counts::default(),
        }
    }

    /// Returns the short sequences in order, then the others in an order from the seed, `count` in
    /// total, scaled.
    fn numbers(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        let short = STEPS.len();
        let rest = SEQUENCES - short;
        // 7 does not divide the number of the others, 1872, so each of them occurs once.
        let start = self.seed as usize % rest;
        let all = (0..short).chain((0..rest).map(move |n| short + (start + n * 7) % rest));
        all.take(scaled(count).max(short))
    }

    fn print(&self, what: &str) {
        let sealed = if self.sealed { ", sealed" } else { "" };
        println!("{what}, {}{sealed}, seed {}: {:?}", self.form, self.seed, self.counts);
    }

    /// Like [`Row::bed`], under a key that opened the store before.
    fn bed_under(&self, disk: &FaultDir, keys: Option<&Arc<dyn Keys>>) -> Bed {
        Bed { keys: keys.cloned(), ..self.bed(disk) }
    }

    fn bed(&self, disk: &FaultDir) -> Bed {
        Bed::new(disk.vfs(self.random.next_u64()), self.form, self.sealed)
    }

    fn choice(&self, images_max: usize) -> CrashChoice {
        CrashChoice {
            seed: self.random.next_u64(),
            images_max,
            samples: images_max as u64 / 3,
            ..CrashChoice::default()
        }
    }

    fn run_with_cuts(self: &Arc<Self>, number: usize, level: Durability) {
        let disk = FaultDir::new();
        let model = Arc::new(Mutex::new(Model::default()));
        let (row, inner, shared) = (Arc::clone(self), disk.clone(), Arc::clone(&model));
        let last = AtomicU64::new(0);
        let mut bed = self.bed(&disk);
        bed.vfs = Observed::vfs(&bed.vfs, move |call| {
            // The calls since the last check that changed the disk or the promises.
            let is_new = std::mem::take(&mut shared.lock().is_new);
            if is_new || last.swap(0, Ordering::Relaxed) == 1 {
                row.cut(&inner, &shared, number, &call.to_string());
            }
            last.store(u64::from(call.kind.changes()), Ordering::Relaxed);
        });
        let mut run = Run::new(bed, level, Arc::clone(&model));
        let errors = run.run(&sequence(number));
        assert!(errors.is_empty(), "sequence {number} at {level:?}: {errors:?}");
        run.drop_store();
        self.cut(&disk, &model, number, "the end");
    }

    /// Recovers all disks that a power cut now could leave.
    fn cut(&self, disk: &FaultDir, model: &Mutex<Model>, number: usize, call: &str) {
        self.counts.cuts.fetch_add(1, Ordering::Relaxed);
        let mut images = disk.crash_images(&self.choice(self.images_max));
        while let Some(image) = images.next() {
            self.counts.images.fetch_add(1, Ordering::Relaxed);
            let context = Context::new(format!(
                "{} sequence {number} {:?}, cut before {call}, image {}, seed {}",
                self.form,
                sequence(number),
                images.number(),
                self.seed
            ));
            let model = model.lock();
            let untouched = image.duplicate();
            let (found, key) = self.recovers_under(&image, &model);
            match self.random.below(8) {
                0 => self.recovers_again(&image, found, key.as_ref()),
                1 => self.recovers_from_cut(&untouched, &model),
                2 => self.recovers_from_failure(&untouched, &model),
                _ => {}
            }
            drop(context);
        }
    }

    /// Opens the disk for writing and compares it with the model.
    fn recovers(&self, disk: &FaultDir, model: &Model) -> usize {
        self.recovers_under(disk, model).0
    }

    /// The last commit, and the key that opened the store.
    fn recovers_under(&self, disk: &FaultDir, model: &Model) -> (usize, Option<Arc<dyn Keys>>) {
        let bed = self.bed(disk);
        let (store, key) = open_with_one_of(&bed, Durability::Sync, &model.keys)
            .unwrap_or_else(|e| panic!("{}: opening failed: {e:?}", model.doing));
        no_stray_files(&bed.vfs, self.form, false);
        (holds(&store, model), key)
    }

    /// Checks that the recovered store is the same after another power cut, opens with the same
    /// key, and takes writes.
    fn recovers_again(&self, disk: &FaultDir, found: usize, key: Option<&Arc<dyn Keys>>) {
        self.counts.twice.fetch_add(1, Ordering::Relaxed);
        let found = found as u64;
        let disk = disk.crash_process().reboot(Survivors::Nothing);
        let mut store = Store::open(self.bed_under(&disk, key).config()).unwrap();
        assert_eq!(store.recovered.seq, found, "recovered twice");
        assert_eq!(store.set("after", "the crash").unwrap(), found + 1);
        let map = store.map.clone();
        drop(store);
        let bed = self.bed_under(&disk.crash_process().reboot(Survivors::Nothing), key);
        let store = Store::open(bed.config()).unwrap();
        assert_eq!((&store.map, store.recovered.seq), (&map, found + 1));
        store.close().unwrap();
        no_stray_files(&bed.vfs, self.form, true);
        let store = Store::open(bed.config()).unwrap();
        assert_eq!((&store.map, store.recovered.clean), (&map, true));
    }

    /// A power cut during recovery.
    fn recovers_from_cut(&self, disk: &FaultDir, model: &Model) {
        let calls = self.calls_of_recovery(disk, model);
        let side = if self.random.below(2) == 0 { Side::Before } else { Side::After };
        disk.cut_power_at(disk.calls() + self.random.below(calls), side);
        drop(open_with_one_of(&self.bed(disk), Durability::Sync, &model.keys));
        for image in disk.crash_images(&self.choice(6)) {
            self.counts.during_recovery.fetch_add(1, Ordering::Relaxed);
            self.recovers(&image, model);
        }
    }

    /// An error during recovery, another attempt in the same boot, and a power cut.
    fn recovers_from_failure(&self, disk: &FaultDir, model: &Model) {
        self.counts.during_recovery.fetch_add(1, Ordering::Relaxed);
        let calls = self.calls_of_recovery(disk, model);
        let side = if self.random.below(2) == 0 { Side::Before } else { Side::After };
        let call = disk.calls() + self.random.below(calls);
        disk.fail_at(call, Fault::Eio, Lasting::Once, side);
        drop(open_with_one_of(&self.bed(disk), Durability::Sync, &model.keys));
        disk.clear_plan();
        let disk = disk.crash_process();
        let (found, key) = self.recovers_under(&disk, model);
        let disk = disk.crash_process().reboot(Survivors::Nothing);
        let store = Store::open(self.bed_under(&disk, key.as_ref()).config())
            .unwrap_or_else(|e| panic!("opening failed after a failed recovery: {e:?}"));
        assert_eq!(holds(&store, model), found, "recovered after a failed recovery");
    }

    fn calls_of_recovery(&self, disk: &FaultDir, model: &Model) -> u64 {
        let probe = disk.duplicate();
        self.recovers(&probe, model);
        probe.calls()
    }

    /// Runs the sequence with an error at one call. Returns whether there was such a call.
    fn run_with_failure(&self, number: usize, level: Durability, call: u64) -> bool {
        let faults = [Fault::Eio, Fault::Enospc, Fault::Eintr, Fault::ShortWrite(3)];
        let fault = faults[self.random.below(4) as usize];
        let lasting = if self.random.below(3) == 0 { Lasting::Sticky } else { Lasting::Once };
        let side = if self.random.below(2) == 0 { Side::Before } else { Side::After };
        let disk = FaultDir::new();
        disk.record_trace(true);
        disk.fail_at(call, fault, lasting, side);
        let context = Context::new(format!(
            "{} sequence {number} {:?} at {level:?}, {fault:?} {side:?} call {call} {lasting:?}, \
             seed {}",
            self.form,
            sequence(number),
            self.seed
        ))
        .around(&disk, call);
        let model = Arc::new(Mutex::new(Model::default()));
        let mut run = Run::new(self.bed(&disk), level, Arc::clone(&model));
        let errors = run.run(&sequence(number));
        let happened = disk.calls() > call;
        self.counts.failures.fetch_add(u64::from(happened), Ordering::Relaxed);
        for error in &errors {
            let is_damage = matches!(
                error,
                Error::Damaged { .. } | Error::Tampered { .. } | Error::TailSuspect { .. }
            );
            assert!(!is_damage, "{error}");
        }
        run.drop_store();
        disk.clear_plan();
        let model = model.lock();
        let same_boot = disk.crash_process();
        let found = self.recovers(&same_boot, &model);
        for image in same_boot.crash_images(&self.choice(6)) {
            self.counts.images.fetch_add(1, Ordering::Relaxed);
            // If the directory of a new envelope could not be synced, its name may be lost even
            // after it was read. The earlier key then opens the store, and finds the same commits.
            let after = self.recovers(&image, &model);
            assert_eq!(after, found, "found in the same boot, then cut");
        }
        drop(context);
        happened
    }
}

/// Prints the place of a test when it fails.
struct Context {
    what: String,
    /// The disk whose calls around this one are printed.
    around: Option<(FaultDir, u64)>,
}

impl Context {
    fn new(what: String) -> Self {
        Self { what, around: None }
    }

    fn around(mut self, disk: &FaultDir, call: u64) -> Self {
        self.around = Some((disk.clone(), call));
        self
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed: {}", self.what);
            let Some((disk, at)) = &self.around else { return };
            for call in disk.trace().iter().filter(|call| call.index.abs_diff(*at) < 12) {
                println!("{call}");
            }
        }
    }
}

/// The number of sequences that run with power cuts, and the number with failing calls.
const SEQUENCES_CUT: usize = 40;
const SEQUENCES_FAILED: usize = 24;

//! Tests of whole stores with power cuts and failing calls at every call to the disk. Acknowledged
//! commits are there, failed ones are not, and those in doubt are reported as in doubt. Every other
//! sequence of each form runs encrypted; the next seed encrypts the others. A run interrupts one
//! call in four, the next seed interrupts the next ones, and a whole run interrupts each call.

use std::collections::BTreeMap;

use crate::common::{FORMS, contents, sampled, scaled, seed};
use codex_core::vfs::fault::{CrashChoice, Fault, FaultDir, Lasting, Side, Survivors};
use codex_core::{CheckpointPolicy, Durability, Form, OpenOptions, Result, Store};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone, Copy)]
enum Step {
    Set(&'static str, &'static str),
    /// A value of this many bytes: more than a sector, more than a page.
    SetLong(&'static str, usize),
    Remove(&'static str),
    Batch,
    /// Three keys, with values that depend on what the transaction reads.
    Transact,
    /// A batch that waits for a sync at every level.
    Synced(&'static str),
    Clear,
    Flush,
    Checkpoint,
    Reopen,
}

use Step::{Batch, Checkpoint, Clear, Flush, Remove, Reopen, Set, SetLong, Synced, Transact};

const SEQUENCES: &[&[Step]] = &[
    &[Set("a", "1"), Set("b", "2"), Set("a", "3")],
    &[Set("a", "1"), Batch, Remove("a")],
    &[Set("a", "1"), Checkpoint, Set("b", "2")],
    &[Set("a", "1"), Reopen, Set("b", "2")],
    &[SetLong("a", 1_500), SetLong("b", 5_000), Set("a", "3")],
    &[Batch, Clear, Set("c", "4"), Flush],
    &[Set("a", "1"), Checkpoint, Checkpoint, Remove("a"), Reopen, Batch],
    &[Set("a", "1"), Flush, Flush, Set("b", "2"), Flush, Checkpoint],
    &[Set("b", "1"), Transact, Checkpoint, Set("c", "2"), Transact, Reopen],
    &[Set("a", "1"), Synced("b"), Set("a", "3"), Checkpoint, Synced("c"), Set("b", "2")],
];

impl Step {
    fn apply(self, model: &mut Model) {
        match self {
            Set(key, value) => drop(model.insert(key.into(), value.into())),
            SetLong(key, len) => drop(model.insert(key.into(), vec![b'x'; len])),
            Remove(key) => drop(model.remove(key.as_bytes())),
            Batch => {
                model.insert("p".into(), "5".into());
                model.insert("q".into(), vec![b'y'; 700]);
                model.remove(&b"b"[..]);
            }
            Transact => {
                let len = model.len().to_string();
                model.remove(&b"b"[..]);
                let last = model.keys().next_back().cloned().unwrap_or_default();
                model.insert("last".into(), last);
                model.insert("len".into(), len.into());
            }
            Synced(key) => drop(model.insert(key.into(), "7".into())),
            Clear => model.clear(),
            Flush | Checkpoint | Reopen => {}
        }
    }

    fn run(self, store: &mut Store, open: &impl Fn() -> Result<Store>) -> Result<()> {
        match self {
            Set(key, value) => store.set_bytes(key, value),
            SetLong(key, len) => store.set_bytes(key, vec![b'x'; len]),
            Remove(key) => store.remove(key).map(|_| ()),
            Batch => {
                let mut batch = store.batch();
                batch.set_bytes("p", "5")?.set_bytes("q", [b'y'; 700])?.remove("b")?;
                batch.commit().map(|_| ())
            }
            Transact => store.transaction(|tx| {
                let len = tx.len().to_string();
                tx.remove("b")?;
                let last = tx.keys().next_back().map(|key| key.to_vec()).unwrap_or_default();
                tx.set_bytes("last", last)?;
                tx.set_bytes("len", len)
            }),
            Synced(key) => {
                let mut batch = store.batch();
                batch.set_bytes(key, "7")?.durability(Durability::Sync).commit().map(|_| ())
            }
            Clear => store.clear(),
            Flush => store.flush().map(|_| ()),
            Checkpoint => store.checkpoint(),
            Reopen => {
                // A store that could not close cleanly is still closed.
                let closed = store.close();
                *store = open()?;
                closed
            }
        }
    }

    /// Returns true if all earlier commits are durable after the step has succeeded, at any level.
    fn settles(self, form: Form) -> bool {
        matches!(self, Flush | Reopen | Synced(_))
            || (matches!(self, Checkpoint) && form == Form::Wal)
    }
}

/// The form and the options of a store.
#[derive(Debug, Clone, Copy)]
struct Kept {
    form: Form,
    durability: Durability,
    /// Whether a close writes an image, or only a mark.
    closes_into_image: bool,
    encrypted: bool,
}

impl Kept {
    fn all(durability: Durability) -> impl Iterator<Item = Self> {
        let kept = move |form| Self { form, durability, closes_into_image: true, encrypted: false };
        let marked = Self { closes_into_image: false, ..kept(Form::Wal) };
        let lazy_image =
            move |kept: &Self| durability == Durability::Sync || kept.form != Form::Snapshot;
        FORMS.into_iter().map(kept).chain([marked]).filter(lazy_image)
    }

    /// Returns the options. Every other sequence is encrypted, if the build has encryption.
    fn running(self, sequence: usize) -> Self {
        let turn = seed().wrapping_add(u64::try_from(sequence).unwrap());
        Self { encrypted: cfg!(feature = "crypto") && turn.is_multiple_of(2), ..self }
    }

    /// Returns the options of a follower without a thread.
    fn following(self) -> OpenOptions {
        let options = codex_core::internals::without_threads(Store::options().follow(true));
        crate::common::sealed(&options, self.encrypted)
    }

    fn options(self) -> OpenOptions {
        let options = Store::options().form(self.form).durability(self.durability);
        let options = crate::common::sealed(&options, self.encrypted);
        if self.closes_into_image {
            return options;
        }
        options.checkpoint(CheckpointPolicy::default().close_into_image_bytes_max(0))
    }
}

/// The result of a sequence.
#[derive(Debug, Default)]
struct Ran {
    /// The states after each commit, from the empty one on.
    history: Vec<Model>,
    /// The index of the last state that is durable.
    durable: usize,
    /// The state after a commit in doubt.
    doubt: Option<Model>,
}

impl Ran {
    fn now(&self) -> &Model {
        self.history.last().unwrap()
    }

    /// Counts the state that the follower shows now as durable.
    fn look(&mut self, follower: &Store) {
        // The disk may have no power any more. The follower then shows the state from before.
        let is_there = follower.refresh().is_ok();
        let shown = contents(follower);
        match self.history.iter().rposition(|state| *state == shown) {
            Some(at) if is_there && self.doubt.is_none() => {
                assert_eq!(at, self.history.len() - 1, "a refresh shows what was acknowledged");
            }
            Some(_) => {}
            None => {
                assert_eq!(self.doubt.as_ref(), Some(&shown), "no state of the writer");
                self.history.push(shown);
                self.doubt = None;
                self.durable = self.history.len() - 1;
            }
        }
    }

    /// Returns the states that a power cut may leave.
    fn possible(&self) -> Vec<&Model> {
        self.history.iter().skip(self.durable).chain(&self.doubt).collect()
    }
}

/// Runs `steps` until one fails, whose commit was then in progress.
fn run_until_cut(dir: &FaultDir, kept: Kept, steps: &[Step]) -> Ran {
    run_until_cut_beside(dir, kept, steps, false)
}

/// Does the same as [`run_until_cut`], if `is_followed` with a follower that looks after each step.
/// A state that it has shown counts as durable.
fn run_until_cut_beside(dir: &FaultDir, kept: Kept, steps: &[Step], is_followed: bool) -> Ran {
    let open = || kept.options().open_in(&dir.vfs(seed()), "a.db");
    let mut ran = Ran { history: vec![Model::new()], ..Ran::default() };
    let is_planned = |error: codex_core::Error| {
        let text = error.to_string();
        assert!(text.contains("the power of the simulated disk is off"), "{kept:?}: {text}");
    };
    let mut store = match open() {
        Ok(store) => store,
        Err(error) => {
            is_planned(error);
            return ran;
        }
    };
    let follower = is_followed.then(|| kept.following().open_in(&dir.vfs(seed()), "a.db").ok());
    for step in steps {
        let mut next = ran.now().clone();
        step.apply(&mut next);
        let done = step.run(&mut store, &open);
        let failed = done.is_err();
        if let Err(error) = done {
            is_planned(error);
            ran.doubt = Some(next);
        } else {
            ran.history.push(next);
            if step.settles(kept.form) || kept.durability == Durability::Sync {
                ran.durable = ran.history.len() - 1;
            }
        }
        if let Some(follower) = follower.iter().flatten().next() {
            ran.look(follower);
        }
        if failed {
            break;
        }
    }
    ran
}

/// Opens the files that a power cut left, requires one of the possible states, writes, and opens
/// again.
fn check(dir: &FaultDir, kept: Kept, possible: &[&Model], what: &str) {
    let open = |dir: &FaultDir| {
        let opened = kept.options().open_in(&dir.vfs(seed()), "a.db");
        opened.unwrap_or_else(|error| panic!("{what}: {error}"))
    };
    let store = open(dir);
    let found = contents(&store);
    assert!(possible.contains(&&found), "{what}: {} keys is no possible state", found.len());
    // A state that was read once stays, whether it was durable before or not.
    let again = dir.reboot(Survivors::Nothing);
    let reopened = open(&again);
    assert_eq!(contents(&reopened), found, "{what}: recovered twice");
    reopened.set_bytes("written afterwards", "6").unwrap();
    reopened.flush().unwrap();
    let mut expected = found;
    expected.insert("written afterwards".into(), "6".into());
    assert_eq!(contents(&open(&again.reboot(Survivors::Nothing))), expected, "{what}");
    // A checkpoint may be running. The close abandons it and removes its files.
    reopened.close().unwrap_or_else(|error| panic!("{what}: {error}"));
    let strays: Vec<_> = crate::common::files(&again.vfs(1)).into_keys().collect();
    assert!(strays.iter().all(|name| !name.contains(".tmp.")), "{what}: {strays:?}");
}

fn choice(images_max: u32, salt: u64) -> CrashChoice {
    CrashChoice {
        seed: seed().wrapping_add(salt),
        images_max: usize::try_from(scaled(images_max)).unwrap(),
        samples: 8,
        ..CrashChoice::default()
    }
}

/// The stride of the interrupted calls. A whole run interrupts each.
const STRIDE: usize = 4;

/// Returns the number of calls of the sequence on a healthy disk.
fn calls(kept: Kept, steps: &[Step]) -> u64 {
    let dir = FaultDir::new();
    let ran = run_until_cut(&dir, kept, steps);
    assert_eq!(ran.history.len(), steps.len() + 1, "{kept:?}: a healthy disk fails nothing");
    dir.calls()
}

/// The number of cases that a test ran, and of disks that it checked.
#[derive(Debug, Default)]
struct Counts {
    cases: usize,
    images: usize,
    /// The sequences that were interrupted during a commit.
    doubts: usize,
}

impl Counts {
    /// Fails if fewer cases were run than there are interrupted calls.
    fn at_least(&self, cases: usize, images: usize, doubts: usize) {
        println!("{self:?}");
        // The size of a sample is not exactly its share of all cases.
        let (stride, part) = match crate::common::stride(STRIDE) {
            1 => (1, 1),
            stride => (stride * 4, 3),
        };
        assert!(self.cases * stride >= cases * part, "{self:?}: fewer than {cases} cases");
        assert!(self.images * stride >= images * part, "{self:?}: fewer than {images} images");
        assert!(self.doubts * stride >= doubts * part, "{self:?}: fewer than {doubts} in doubt");
    }
}

fn cut_at_every_call(
    durability: Durability,
    mut check: impl FnMut(&FaultDir, Kept, &Ran, &str) -> usize,
) -> Counts {
    let mut counts = Counts::default();
    for kept in Kept::all(durability) {
        for (number, steps) in SEQUENCES.iter().enumerate() {
            let kept = kept.running(number);
            for call in sampled(0..calls(kept, steps), STRIDE, number) {
                for side in [Side::Before, Side::After] {
                    let dir = FaultDir::new();
                    dir.cut_power_at(call, side);
                    let ran = run_until_cut(&dir, kept, steps);
                    let what = format!(
                        "CODEX_SEED={} {kept:?}, sequence {number}, cut {side:?} call {call}",
                        seed()
                    );
                    counts.cases += 1;
                    counts.doubts += usize::from(ran.doubt.is_some());
                    counts.images += check(&dir, kept, &ran, &what);
                }
            }
        }
    }
    counts
}

/// Checks the disks that a power cut may have left, and returns their number.
fn check_images(dir: &FaultDir, choice: &CrashChoice, kept: Kept, ran: &Ran, what: &str) -> usize {
    let mut images = dir.crash_images(choice);
    let mut count = 0;
    while let Some(image) = images.next() {
        check(&image, kept, &ran.possible(), &format!("{what}, image {}", images.number()));
        count += 1;
    }
    count
}

#[test]
fn a_power_cut_at_any_call_leaves_what_was_acknowledged_and_nothing_else() {
    let counts = cut_at_every_call(Durability::Sync, |dir, kept, ran, what| {
        check_images(dir, &choice(4, 0), kept, ran, what)
    });
    counts.at_least(7_000, 14_000, 3_600);
}

#[test]
fn a_power_cut_takes_back_nothing_that_a_follower_has_shown() {
    let (mut cases, mut shown) = (0, 0);
    for kept in Kept::all(Durability::Sync).filter(|kept| kept.form != Form::Snapshot) {
        for (number, steps) in SEQUENCES.iter().enumerate() {
            let kept = kept.running(number);
            let healthy = FaultDir::new();
            run_until_cut_beside(&healthy, kept, steps, true);
            for call in sampled(0..healthy.calls(), 8 * STRIDE, number) {
                let dir = FaultDir::new();
                dir.cut_power_at(call, Side::After);
                let ran = run_until_cut_beside(&dir, kept, steps, true);
                let what = format!("CODEX_SEED={} {kept:?}, {number}, call {call}", seed());
                check_images(&dir, &choice(2, 3), kept, &ran, &what);
                cases += 1;
                shown += ran.durable;
            }
        }
    }
    println!("{cases} cases, {shown} states");
    assert!(cases > 50 && shown > cases, "{cases} cases, {shown} states");
}

#[test]
fn at_the_level_os_a_power_cut_leaves_a_prefix_of_the_commits() {
    let counts = cut_at_every_call(Durability::Os, |dir, kept, ran, what| {
        check_images(dir, &choice(2, 1), kept, ran, what)
    });
    counts.at_least(4_800, 7_600, 2_500);
}

#[test]
fn a_power_cut_during_recovery_costs_nothing_more() {
    let mut turn = 0_u32;
    let counts = cut_at_every_call(Durability::Sync, |dir, kept, ran, what| {
        // One crash of several, in turn, with a second crash at every call of its recovery.
        turn += 1;
        if !turn.is_multiple_of(13) {
            return 0;
        }
        let Some(image) = dir.crash_images(&choice(3, u64::from(turn))).last() else { return 0 };
        let dry = image.duplicate();
        drop(kept.options().open_in(&dry.vfs(seed()), "a.db").unwrap());
        for call in 0..dry.calls() {
            let again = image.duplicate();
            again.cut_power_at(call, Side::After);
            drop(kept.options().open_in(&again.vfs(seed()), "a.db"));
            for survivors in [Survivors::Nothing, Survivors::Seeded(u64::from(turn))] {
                let what = format!("{what}, then at call {call}, {survivors:?}");
                check(&again.reboot(survivors), kept, &ran.possible(), &what);
            }
        }
        2 * usize::try_from(dry.calls()).unwrap()
    });
    counts.at_least(7_000, 50_000, 3_600);
}

/// Fails if the error has another cause than the fault.
fn assert_caused(error: &codex_core::Error, fault: Fault, what: &str) {
    let cause = match fault {
        Fault::ShortWrite(_) => "bytes were written",
        Fault::Enospc if error.is_no_space() => return,
        Fault::Enospc => "os error 28",
        _ => "os error 5",
    };
    let text = error.to_string();
    assert!(text.contains(cause), "{what}: not by the fault: {text}");
}

/// Runs all `steps` on a disk that may fail. A failed commit must not be there, unless it is in
/// doubt.
fn run_on_failing_disk(
    dir: &FaultDir,
    kept: Kept,
    steps: &[Step],
    fault: Fault,
    what: &str,
) -> Ran {
    let open = || kept.options().open_in(&dir.vfs(seed()), "a.db");
    let is_planned = |error: &codex_core::Error| assert_caused(error, fault, what);
    let mut ran = Ran { history: vec![Model::new()], ..Ran::default() };
    let mut store = match open() {
        Ok(store) => store,
        Err(error) => {
            is_planned(&error);
            return ran;
        }
    };
    for step in steps {
        let mut next = ran.now().clone();
        step.apply(&mut next);
        let writes = next != *ran.now();
        let poisoned = store.poisoned();
        match step.run(&mut store, &open) {
            // Reopening decides about a commit in doubt. The failed step may have been the close or
            // the opening; a write shows whether another store is open.
            reopened if matches!(step, Reopen) => {
                if let Err(error) = &reopened {
                    is_planned(error);
                    if store.set_bytes("probe", "").is_err() {
                        return ran;
                    }
                }
                store.remove("probe").unwrap();
                let found = contents(&store);
                assert!(ran.possible().contains(&&found), "{what}: {step:?}");
                ran = Ran { history: vec![found], ..Ran::default() };
            }
            Ok(()) => {
                assert!(!writes || ran.doubt.is_none(), "{what}: {step:?} after a doubt");
                ran.history.push(next);
                if step.settles(kept.form) || kept.durability == Durability::Sync {
                    ran.durable = ran.history.len() - 1;
                }
            }
            Err(error) if error.is_in_doubt() => {
                is_planned(&error);
                assert!(store.poisoned().is_some(), "{what}: {error}");
                assert!(store.set_bytes("k", "v").unwrap_err().is_poisoned(), "{what}");
                ran.doubt.get_or_insert(next);
            }
            // A checkpoint that fails between two names poisons without a commit in doubt, one
            // in the background at any time.
            Err(error) if error.is_poisoned() => {
                assert!(store.poisoned().is_some(), "{what}: {step:?}: {error}");
            }
            Err(error) => {
                is_planned(&error);
                assert_eq!(poisoned, None, "{what}: {step:?}: poisoned, and not refused");
            }
        }
        assert_eq!(&contents(&store), ran.now(), "{what}: {step:?}: memory shows what is durable");
    }
    ran
}

fn fail_at_every_call(durability: Durability, faults: &[(Fault, Lasting, Side)]) -> Counts {
    let mut counts = Counts::default();
    for kept in Kept::all(durability) {
        for (number, steps) in SEQUENCES.iter().enumerate() {
            let kept = kept.running(number);
            for call in sampled(0..calls(kept, steps), STRIDE, number) {
                for &(fault, lasting, side) in faults {
                    let dir = FaultDir::new();
                    dir.fail_at(call, fault, lasting, side);
                    let what = format!(
                        "CODEX_SEED={} {kept:?}, sequence {number}, {fault:?} {lasting:?} {side:?} \
                         call {call}",
                        seed()
                    );
                    let ran = run_on_failing_disk(&dir, kept, steps, fault, &what);
                    counts.cases += 1;
                    counts.doubts += usize::from(ran.doubt.is_some());
                    counts.images += 2;
                    dir.clear_plan();
                    // Data on which a sync failed is lost, even if a later sync succeeded.
                    check(&dir.reboot(Survivors::Nothing), kept, &ran.possible(), &what);
                    // In the same boot the cache shows bytes that may not be on the disk; a killed
                    // process has lost nothing.
                    let killed: Vec<_> = std::iter::once(ran.now()).chain(&ran.doubt).collect();
                    check(&dir.crash_process(), kept, &killed, &what);
                }
            }
        }
    }
    counts
}

#[test]
fn an_error_at_any_call_means_absent_or_in_doubt_and_reopening_decides_for_good() {
    let counts = fail_at_every_call(
        Durability::Sync,
        &[
            (Fault::Eio, Lasting::Once, Side::Before),
            (Fault::Eio, Lasting::Once, Side::After),
            (Fault::Eio, Lasting::Sticky, Side::Before),
            (Fault::Enospc, Lasting::Once, Side::Before),
            (Fault::Enospc, Lasting::Sticky, Side::Before),
            (Fault::ShortWrite(100), Lasting::Once, Side::Before),
        ],
    );
    counts.at_least(20_000, 40_000, 1_200);
}

#[test]
fn at_the_level_os_a_flush_that_failed_once_never_succeeds_again() {
    let counts = fail_at_every_call(Durability::Os, &[(Fault::Eio, Lasting::Once, Side::Before)]);
    counts.at_least(2_400, 4_800, 60);
}

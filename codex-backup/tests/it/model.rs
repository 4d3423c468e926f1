//! Random sequences of rotations, prunes, restores and interruptions, compared with a model: a
//! list.

use crate::common::sim::{
    self, KEEP, LOG, WAYS, Way, backups_of, calls_of, disk, good, no_strays, rotate, world,
};
use crate::common::{OURS, bytes, card};
use codex_backup::unwatched;
use codex_backup::vfs::Dir;
use codex_backup::vfs::fault::{Fault, FaultDir, Lasting, Side, Survivors};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{RngSeed, TestRunner};

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The store commits.
    Change,
    Rotate(Way),
    Prune(u32),
    Restore(u32),
    Open,
}

/// The end of a step: in time, or by a fault after the given part of its calls (in 256ths).
#[derive(Debug, Clone, Copy)]
enum End {
    InTime,
    PowerCut(u8, Survivors),
    Error(u8, Fault, Lasting, Side),
}

/// The expected state of the store and its backups.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Model {
    seq: u64,
    last_seq: u64,
    has_log: bool,
    /// Index and version of each backup, newest first.
    slots: Vec<(u32, u64)>,
    restores: u32,
}

#[test]
fn any_sequence_of_steps_and_interruptions_keeps_every_promise() {
    let config = ProptestConfig {
        cases: u32::try_from(sim::count_of(1_000.0)).unwrap(),
        rng_seed: RngSeed::Fixed(sim::seed()),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let steps = vec((step(), end()), 1..14);
    TestRunner::new(config)
        .run(&steps, |steps| {
            run(&steps);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("CODEX_SEED={}: {failure}", sim::seed()));
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Change),
        5 => select(&WAYS[..]).prop_map(Step::Rotate),
        1 => (0..5_u32).prop_map(Step::Prune),
        2 => (1..5_u32).prop_map(Step::Restore),
        1 => Just(Step::Open),
    ]
}

fn end() -> impl Strategy<Value = End> {
    let survivors = prop_oneof![
        Just(Survivors::Nothing),
        Just(Survivors::Everything),
        any::<u64>().prop_map(Survivors::Seeded),
    ];
    let fault = select(vec![Fault::Eio, Fault::Enospc, Fault::ShortWrite(9)]);
    let lasting = select(vec![Lasting::Once, Lasting::Sticky]);
    let side = select(vec![Side::Before, Side::After]);
    prop_oneof![
        3 => Just(End::InTime),
        2 => (any::<u8>(), survivors).prop_map(|(at, survivors)| End::PowerCut(at, survivors)),
        2 => (any::<u8>(), fault, lasting, side)
            .prop_map(|(at, fault, lasting, side)| End::Error(at, fault, lasting, side)),
    ]
}

fn run(steps: &[(Step, End)]) {
    let mut machine = disk(1, &[]);
    let mut model = Model { seq: 1, last_seq: 1, has_log: true, slots: Vec::new(), restores: 0 };
    for (step, end) in steps {
        let context = || format!("{step:?} {end:?} after {model:?}");
        let Some(expected) = model.after(*step) else { continue };
        let act = |disk: &FaultDir| take(disk, *step, &model);
        let calls = calls_of(&machine, &act);
        let first = machine.calls();
        let part = |at: u8| first + calls * u64::from(at) / 256;
        let ended = match *end {
            End::InTime => act(&machine),
            End::PowerCut(at, survivors) => {
                machine.cut_power_at(part(at), Side::Before);
                let ended = act(&machine);
                machine = machine.reboot(survivors);
                ended
            }
            End::Error(at, fault, lasting, side) => {
                machine.fail_at(part(at), fault, lasting, side);
                let ended = act(&machine);
                machine.clear_plan();
                machine = machine.reboot(Survivors::Everything);
                ended
            }
        };
        let found = reopen(&machine, &model, &context);
        let in_time = matches!(end, End::InTime);
        assert!(ended || !in_time, "{}", context());
        // If an error hides the newest backup, a rotation may make a second one of the same
        // version.
        if ended && !matches!(end, End::Error(..)) {
            assert_eq!(found, expected, "{}", context());
        } else {
            model.may_become(&found, &expected, *step, &context);
        }
        model = found;
    }
}

/// Performs a step. Returns whether it succeeded.
fn take(disk: &FaultDir, step: Step, model: &Model) -> bool {
    let vfs = world(disk, if let Step::Rotate(way) = step { way } else { Way::Copy });
    let backups = backups_of(&vfs);
    match step {
        Step::Change => change(&*vfs.dir, model.last_seq + 1).is_ok(),
        Step::Rotate(way) => rotate(&vfs, way, model.seq).is_ok(),
        Step::Prune(keep) => backups.prune(keep).is_ok(),
        Step::Restore(index) => {
            let sidecars: Vec<_> = model.has_log.then(|| LOG.to_owned()).into_iter().collect();
            backups.restore(index, &sidecars, &mut unwatched).is_ok()
        }
        Step::Open => backups.adopt().is_ok(),
    }
}

/// The store replaces its image. If a restore moved its log away, it starts none.
fn change(dir: &dyn Dir, seq: u64) -> std::io::Result<()> {
    let frozen = codex_backup::vfs::Open::CreateNew(codex_backup::vfs::Mode::Frozen);
    let name = format!("a.db.wal.next-{seq}");
    let file = dir.open(&name, frozen)?;
    file.write_all_at(&card(OURS, seq, 700), 0)?;
    file.sync()?;
    dir.rename(&name, "a.db")?;
    dir.sync()
}

/// Opens the store for writing, as a program does after any interruption, and checks it.
fn reopen(machine: &FaultDir, model: &Model, context: &dyn Fn() -> String) -> Model {
    let vfs = machine.vfs(sim::seed() + machine.calls() + 1);
    for name in vfs.dir.list().unwrap() {
        if name.starts_with("a.db.wal.next-") {
            vfs.dir.remove(&name).unwrap();
        }
    }
    let backups = backups_of(&vfs);
    backups.finish_restore().unwrap_or_else(|error| panic!("{error}; {}", context()));
    backups.adopt().unwrap_or_else(|error| panic!("{error}; {}", context()));
    vfs.dir.sync().unwrap();
    no_strays(&*vfs.dir, context);
    good(&*vfs.dir, context);
    let contents = bytes(&*vfs.dir, "a.db");
    let seq = (1..=model.last_seq + 1).find(|seq| contents == card(OURS, *seq, 700));
    let kept = |name: &String| name.starts_with("a.db.replaced.") && !name.contains(".wal.");
    let names = vfs.dir.list().unwrap();
    Model {
        seq: seq.unwrap_or_else(|| panic!("the store is not whole; {}", context())),
        last_seq: model.last_seq.max(seq.unwrap_or(0)),
        has_log: names.contains(&LOG.to_owned()),
        slots: crate::common::versions(&vfs, "a.db"),
        restores: u32::try_from(names.iter().filter(|name| kept(name)).count()).unwrap(),
    }
}

impl Model {
    /// Returns the state after the step, or `None` if the step can only be refused.
    fn after(&self, step: Step) -> Option<Self> {
        let mut next = self.clone();
        match step {
            Step::Change => {
                next.last_seq += 1;
                next.seq = next.last_seq;
            }
            Step::Rotate(_) => {
                if self.slots.first().map(|(_, seq)| *seq) != Some(self.seq) {
                    next.shift();
                }
                next.slots.truncate(KEEP as usize);
            }
            Step::Prune(keep) => next.slots.truncate(keep as usize),
            Step::Restore(index) => {
                next.seq = self.slots.iter().find(|slot| slot.0 == index)?.1;
                next.has_log = false;
                next.restores += 1;
            }
            Step::Open => {}
        }
        Some(next)
    }

    fn shift(&mut self) {
        let gap = (1..9).find(|index| self.slots.iter().all(|slot| slot.0 != *index)).unwrap();
        let top = gap.min(KEEP);
        self.slots.retain(|slot| slot.0 != top);
        for slot in self.slots.iter_mut().filter(|slot| slot.0 < top) {
            slot.0 += 1;
        }
        self.slots.push((1, self.seq));
        self.slots.sort_unstable();
    }

    fn versions(&self) -> Vec<u64> {
        self.slots.iter().map(|slot| slot.1).collect()
    }

    /// Returns the states that are allowed after an interrupted step.
    fn may_become(&self, found: &Self, next: &Self, step: Step, context: &dyn Fn() -> String) {
        let (old, new) = (self.versions(), found.versions());
        let store = |model: &Self| (model.seq, model.has_log, model.restores);
        let context = || format!("{} became {found:?}", context());
        assert!(store(found) == store(self) || store(found) == store(next), "{}", context());
        match step {
            Step::Rotate(_) => {
                let kept = |rest: &[u64], must: u32| {
                    rest == old || (old.starts_with(rest) && rest.len() >= must as usize)
                };
                let fresh = new.first() == Some(&self.seq) && kept(&new[1..], KEEP - 1);
                assert!(fresh || kept(&new, KEEP), "{}", context());
            }
            Step::Prune(keep) => {
                let kept: Vec<_> = old.iter().take(keep as usize).copied().collect();
                assert!(new.starts_with(&kept), "{}", context());
                assert!(new.iter().all(|seq| old.contains(seq)), "{}", context());
            }
            Step::Change | Step::Restore(_) | Step::Open => {
                assert_eq!(new, old, "{}", context());
            }
        }
    }
}

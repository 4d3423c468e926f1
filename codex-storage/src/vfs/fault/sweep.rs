//! A power cut, or an error, at every call of an operation.

use std::fmt;

use super::{CrashChoice, Fault, FaultDir, Lasting, Side};
use crate::vfs::Call;

/// Runs `act` on copies of `base`, with the power cut at each of its calls and after the last one.
/// Calls `check` with each disk that a cut can leave, and with the result of `act` at that time.
/// Returns the number of disks.
///
/// A cut before a call covers the cut after the previous call, because the disk is the same and
/// `act` may have received more results. For the same reason there is no cut before a call that
/// only reads. `act` must make the same calls in each run.
pub fn each_power_cut<R>(
    base: &FaultDir,
    choice: &CrashChoice,
    act: impl Fn(&FaultDir) -> R,
    mut check: impl FnMut(&Mishap<'_>, &FaultDir, &R),
) -> u64 {
    let mut shown = 0;
    let calls = calls_of(base, &act);
    let end = u64::try_from(calls.len()).unwrap_or(u64::MAX);
    let cuts = calls.iter().filter(|call| call.kind.changes()).map(|call| call.index).chain([end]);
    for call in cuts {
        let disk = base.duplicate();
        disk.record_trace(true);
        disk.cut_power_at(call, Side::Before);
        let result = act(&disk);
        disk.cut_power();
        let mut images = disk.crash_images(choice);
        while let Some(image) = images.next() {
            let kind = MishapKind::Cut { call, image: images.number(), seed: choice.seed };
            check(&Mishap { disk: &disk, kind }, &image, &result);
            shown += 1;
        }
    }
    shown
}

/// Runs `act` on copies of `base`, each time with one of `faults` at one call: once and sticky,
/// before and after the effect. Calls `check` with the disk, which is healthy again, and the result
/// of `act`. Returns the number of runs.
///
/// `act` must make the same calls in each run until the fault occurs.
pub fn each_fault<R>(
    base: &FaultDir,
    faults: &[Fault],
    act: impl Fn(&FaultDir) -> R,
    mut check: impl FnMut(&Mishap<'_>, &FaultDir, &R),
) -> u64 {
    let mut runs = 0;
    for call in calls_of(base, &act) {
        for fault in faults.iter().filter(|fault| fault.applies_to(call.kind)) {
            for (lasting, side) in WAYS {
                let disk = base.duplicate();
                disk.record_trace(true);
                disk.fail_at(call.index, *fault, lasting, side);
                let result = act(&disk);
                disk.clear_plan();
                let kind = MishapKind::Fault { call: call.index, fault: *fault, lasting, side };
                check(&Mishap { disk: &disk, kind }, &disk, &result);
                runs += 1;
            }
        }
    }
    runs
}

/// The fault of one run. Its `Display` output has all calls of the run, for the message of a failed
/// check.
#[derive(Debug)]
pub struct Mishap<'a> {
    disk: &'a FaultDir,
    kind: MishapKind,
}

impl fmt::Display for Mishap<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            MishapKind::Cut { call, image, seed } => {
                writeln!(f, "the power went before call {call}; image {image} of seed {seed}")?;
            }
            MishapKind::Fault { call, fault, lasting, side } => {
                writeln!(f, "{fault:?} {lasting:?} {side:?} the effect of call {call}")?;
            }
        }
        self.disk.trace().iter().try_for_each(|call| writeln!(f, "{call}"))
    }
}

#[derive(Debug, Clone, Copy)]
enum MishapKind {
    Cut { call: u64, image: u64, seed: u64 },
    Fault { call: u64, fault: Fault, lasting: Lasting, side: Side },
}

const WAYS: [(Lasting, Side); 4] = [
    (Lasting::Once, Side::Before),
    (Lasting::Once, Side::After),
    (Lasting::Sticky, Side::Before),
    (Lasting::Sticky, Side::After),
];

/// Returns the calls that `act` makes on a healthy disk.
fn calls_of<R>(base: &FaultDir, act: impl Fn(&FaultDir) -> R) -> Vec<Call> {
    let disk = base.duplicate();
    disk.record_trace(true);
    act(&disk);
    disk.trace()
}

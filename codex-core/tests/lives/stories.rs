//! Histories that once broke a promise, each in the shortest form that was found.

use codex_core::Form;
use codex_core::vfs::CallKind;
use codex_core::vfs::fault::{Fault, Lasting, Side};

use crate::counts::Counts;
use crate::shrink::judge;
use crate::step::{Aim, Create, End, Opening, Pick, Plan, Planned, Step, Strike, To};

/// Runs a history of these steps with some seeds for the random choices.
fn kept(form: Form, key: Option<u8>, steps: &[Step]) {
    for seed in 1..=64_u64 {
        let planned = |(at, step): (usize, &Step)| {
            let at = u64::try_from(at).unwrap();
            Planned { step: *step, seed: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + at }
        };
        let steps = steps.iter().enumerate().map(planned).collect();
        let plan = Plan { form, key, keep: 3, steps };
        let mut lines = Vec::new();
        if let Some(broken) = judge(&plan, &mut Counts::default(), Some(&mut lines)) {
            panic!("{}: {}\n{}", broken.promise, broken.what, lines.join("\n"));
        }
    }
}

const OPEN: Step = Step::Open(Opening::plain());
const SET: Step = Step::Set { key: 1, len: 40 };

fn open_with(key: Pick) -> Step {
    Step::Open(Opening { key, ..Opening::plain() })
}

fn cut(kind: CallKind, nth: u64, side: Side) -> Step {
    Step::Arm(Aim::Kind(kind, nth), Strike::Cut(side))
}

fn kill(kind: CallKind, nth: u64, side: Side) -> Step {
    Step::Arm(Aim::Kind(kind, nth), Strike::Kill(side))
}

#[test]
fn a_backup_that_counts_as_unchanged_is_there_after_a_power_cut() {
    for nth in 1..=4 {
        let fails = Strike::Fail(Fault::Eio, Lasting::Once, Side::After);
        let arm = Step::Arm(Aim::Kind(CallKind::Rename, nth), fails);
        let cut = Step::End(End::PowerCut);
        kept(Form::Wal, None, &[OPEN, SET, arm, Step::BackUp, Step::BackUp, cut, Step::Look]);
    }
}

#[test]
fn a_conversion_that_was_cut_leaves_no_log_beside_what_it_made() {
    for nth in 1..=6 {
        for side in [Side::Before, Side::After] {
            let convert = |to| Step::Convert { key: Pick::Earlier, form: Some(Form::Snapshot), to };
            let arm = cut(CallKind::SyncDir, nth, side);
            let steps = [
                OPEN,
                SET,
                Step::End(End::Close),
                arm,
                convert(To::Key(0)),
                OPEN,
                Step::End(End::Close),
            ];
            kept(Form::Wal, None, &[&steps[..], &[convert(To::Key(1)), OPEN]].concat());
        }
    }
}

#[test]
fn a_restore_that_was_interrupted_twice_never_ends_in_an_empty_store() {
    for first in 1..=4 {
        for second in 1..=4 {
            let again = open_with(Pick::Later);
            let steps = [OPEN, SET, Step::BackUp, SET, Step::End(End::Close)];
            let twice = [
                kill(CallKind::SyncDir, first, Side::Before),
                Step::Restore(1),
                cut(CallKind::SyncDir, second, Side::Before),
                again,
                Step::End(End::PowerCut),
                Step::Open(Opening { create: Create::Never, ..Opening::plain() }),
            ];
            kept(Form::Wal, None, &[&steps[..], &twice[..]].concat());
        }
    }
}

#[test]
fn a_restore_that_ended_before_its_mark_was_synced_is_not_finished_again() {
    let never = Step::Open(Opening { create: Create::Never, ..Opening::plain() });
    let before = [OPEN, Step::BackUp, SET, Step::BackUp, SET, Step::End(End::Close)];
    for mark in 1..=4 {
        let killed = [kill(CallKind::Write, mark, Side::After), Step::Restore(1)];
        for nth in 1..=6 {
            let again = [cut(CallKind::SyncDir, nth, Side::Before), Step::Restore(2)];
            let steps = [&before[..], &killed, &again, &[Step::Restore(1), never]].concat();
            kept(Form::Wal, None, &steps);
        }
        let later = [never, SET, Step::Checkpoint, Step::End(End::PowerCut), never];
        kept(Form::Wal, None, &[&before[..], &killed, &later].concat());
    }
}

#[test]
fn two_interrupted_changes_of_the_key_leave_a_ledger_that_a_key_opens() {
    for nth in 1..=4 {
        for side in [Side::Before, Side::After] {
            for sets in [0, 1, 5] {
                let mut steps = vec![OPEN];
                for to in [1, 2] {
                    steps.extend([cut(CallKind::Sync, nth, side), Step::ChangeKey(to)]);
                    steps.extend([Step::End(End::PowerCut), open_with(Pick::Earlier)]);
                    steps.extend(std::iter::repeat_n(SET, sets));
                }
                kept(Form::Ledger, Some(0), &steps);
            }
        }
    }
}

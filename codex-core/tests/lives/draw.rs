//! The random choice of histories: their steps, their order, and their faults.

use codex_core::Form;
use codex_core::vfs::fault::{Fault, Lasting, Side};
use codex_core::vfs::{CallKind, SeededEntropy};

use crate::step::{
    Aim, AnchorPick, Create, End, KEYS, Level, Opening, Pick, Plan, Planned, Step, Strike, To,
};

/// The subject of most steps of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Theme {
    Keys,
    Conversions,
    Restores,
    Backups,
    Anything,
}

impl Plan {
    /// Returns the history that `seed` determines.
    pub fn draw(seed: u64) -> Self {
        let mut draw = Draw {
            random: SeededEntropy::new(seed),
            steps: Vec::new(),
            refrain: None,
            terse: false,
        };
        let theme = draw.weighted(&[
            (30, Theme::Keys),
            (25, Theme::Conversions),
            (20, Theme::Restores),
            (10, Theme::Backups),
            (15, Theme::Anything),
        ]);
        let ledgers = theme == Theme::Keys && draw.percent(35);
        let form = if ledgers { Form::Ledger } else { draw.form() };
        let sealed = draw.percent(if theme == Theme::Keys { 95 } else { 50 });
        let key = draw.key();
        let keep = if draw.percent(50) { 2 } else { 3 };
        let lazy = form != Form::Snapshot && draw.percent(15) || draw.percent(5);
        if draw.percent(60) {
            draw.refrain = Some((draw.interruption(), draw.special(theme)));
            draw.terse = draw.percent(60);
        }
        for life in 0..2 + draw.below(6) {
            if life > 0 {
                draw.between(theme);
            }
            draw.life(theme, lazy);
        }
        // A reader checks the end of the history.
        draw.push(Step::Look);
        draw.push(Step::Open(Opening { ..Opening::plain() }));
        draw.push(Step::Verify);
        draw.push(Step::End(End::Close));
        Self { form, key: sealed.then_some(key), keep, steps: draw.steps }
    }
}

struct Draw {
    random: SeededEntropy,
    steps: Vec<Planned>,
    /// The step to interrupt, and the interruption, in one life after another: the second
    /// interruption of a kind finds the files that the first one left.
    refrain: Option<(Step, Step)>,
    /// Whether the lives have few other steps.
    terse: bool,
}

impl Draw {
    fn push(&mut self, step: Step) {
        let seed = self.random.next_u64();
        self.steps.push(Planned { step, seed });
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn small(&self, bound: u64) -> u8 {
        u8::try_from(self.below(bound)).expect("a bound of at most 256")
    }

    fn percent(&self, of_100: u64) -> bool {
        self.below(100) < of_100
    }

    fn weighted<T: Copy>(&self, choices: &[(u64, T)]) -> T {
        let mut at = self.below(choices.iter().map(|(weight, _)| weight).sum());
        for &(weight, choice) in choices {
            match at.checked_sub(weight) {
                Some(rest) => at = rest,
                None => return choice,
            }
        }
        unreachable!("the weights add up")
    }

    fn form(&self) -> Form {
        self.weighted(&[(40, Form::Wal), (20, Form::Snapshot), (40, Form::Ledger)])
    }

    fn key(&self) -> u8 {
        self.small(u64::from(KEYS))
    }

    /// Returns the right key in most cases.
    fn pick(&self) -> Pick {
        let other = Pick::Other(self.small(u64::from(KEYS)) + 1);
        self.weighted(&[(44, Pick::Earlier), (44, Pick::Later), (8, other), (4, Pick::None)])
    }

    fn arm(&mut self, of_100: u64) {
        if self.percent(of_100) {
            let step = self.arming();
            self.push(step);
        }
    }

    fn arming(&self) -> Step {
        let within = self.weighted(&[(3, 5), (4, 25), (2, 120)]);
        let kind = self.weighted(&[
            (5, CallKind::Write),
            (4, CallKind::Sync),
            (4, CallKind::SyncDir),
            (4, CallKind::Rename),
            (4, CallKind::Remove),
            (2, CallKind::Create),
            (1, CallKind::Allocate),
            (1, CallKind::SetLen),
        ]);
        let nth = self.weighted(&[(4, 1), (3, 2), (2, 3), (1, 4)]);
        let aim =
            if self.percent(30) { Aim::Call(self.below(within)) } else { Aim::Kind(kind, nth) };
        let side = if self.percent(50) { Side::Before } else { Side::After };
        let strike = if self.percent(45) {
            Strike::Cut(side)
        } else if self.percent(30) {
            Strike::Kill(side)
        } else {
            let fault = self.weighted(&[
                (12, Fault::Eio),
                (5, Fault::Enospc),
                (2, Fault::ShortWrite(100)),
                (1, Fault::Eintr),
            ]);
            let sticky = fault != Fault::ShortWrite(100) && self.percent(25);
            Strike::Fail(fault, if sticky { Lasting::Sticky } else { Lasting::Once }, side)
        };
        Step::Arm(aim, strike)
    }

    /// Ends the process, or the machine, at a call that changes the disk.
    fn interruption(&self) -> Step {
        let kind = self.weighted(&[
            (5, CallKind::Write),
            (5, CallKind::Sync),
            (4, CallKind::SyncDir),
            (3, CallKind::Rename),
            (3, CallKind::Remove),
        ]);
        let nth = self.weighted(&[(5, 1), (3, 2), (2, 3), (1, 4)]);
        let side = if self.percent(50) { Side::Before } else { Side::After };
        let strike = self.weighted(&[
            (7, Strike::Cut(side)),
            (2, Strike::Kill(side)),
            (1, Strike::Fail(Fault::Eio, Lasting::Once, side)),
        ]);
        Step::Arm(Aim::Kind(kind, nth), strike)
    }

    /// Returns the step of a theme.
    fn special(&self, theme: Theme) -> Step {
        match theme {
            Theme::Keys if self.percent(70) => Step::ChangeKey(self.key()),
            Theme::Keys => Step::Rekey(self.key()),
            Theme::Conversions => self.conversion(),
            Theme::Restores if self.percent(60) => Step::Restore(1 + self.small(2)),
            Theme::Restores => Step::RestoreUntil(self.small(200)),
            Theme::Backups | Theme::Anything => Step::BackUp,
        }
    }

    fn conversion(&self) -> Step {
        let to = self.weighted(&[(5, To::Key(self.key())), (3, To::Plain), (3, To::Same)]);
        Step::Convert { key: self.pick(), form: self.percent(60).then(|| self.form()), to }
    }

    fn repeat(&mut self, while_open: bool) {
        let Some((arming, step)) = self.refrain else { return };
        let needs_open = matches!(step, Step::ChangeKey(_) | Step::Rekey(_) | Step::BackUp);
        if needs_open == while_open && (self.terse || self.percent(75)) {
            self.push(arming);
            self.push(step);
        }
    }

    /// A life with nothing but the refrain.
    fn terse_life(&mut self, lazy: bool) {
        let key = if self.percent(50) { Pick::Earlier } else { Pick::Later };
        let level = self.opening(lazy).level;
        self.push(Step::Open(Opening { key, level, ..Opening::plain() }));
        for _ in 0..self.weighted(&[(5, 0), (3, 1), (2, 5)]) {
            let key = self.small(8);
            self.push(Step::Set { key, len: 40 });
        }
        if matches!(self.refrain, Some((_, Step::Restore(_)))) {
            self.push(Step::BackUp);
            self.push(Step::Set { key: 0, len: 40 });
        }
        self.repeat(true);
        let end = self.weighted(&[(2, End::Close), (4, End::Kill), (4, End::PowerCut)]);
        self.push(Step::End(end));
    }

    fn life(&mut self, theme: Theme, lazy: bool) {
        if self.terse {
            return self.terse_life(lazy);
        }
        if self.percent(8) {
            let opening = Opening { create: self.unwanted(), ..self.opening(lazy) };
            self.push(Step::Open(opening));
            self.push(Step::End(End::Close));
        }
        self.arm(20);
        let opening = self.opening(lazy);
        self.push(Step::Open(opening));
        if !opening.read_only && self.percent(25) {
            // A step that failed before may succeed now.
            self.push(Step::Open(Opening { key: Pick::Earlier, ..Opening::plain() }));
        }
        // A store that was never written to is a separate case.
        let none = if self.steps.len() < 3 { 8 } else { 3 };
        let count = self.weighted(&[(none, 0), (3, 2), (3, 4), (3, 8)]);
        for _ in 0..count {
            self.act(theme);
        }
        if theme == Theme::Restores && self.percent(40) {
            self.push(Step::BackUp);
            self.push(Step::Set { key: 0, len: 40 });
        }
        self.repeat(true);
        let end =
            self.weighted(&[(4, End::Close), (4, End::Drop), (5, End::Kill), (7, End::PowerCut)]);
        if matches!(end, End::Close | End::Drop) {
            self.arm(20);
        }
        self.push(Step::End(end));
    }

    fn unwanted(&self) -> Create {
        if self.percent(50) { Create::New } else { Create::Never }
    }

    fn opening(&self, lazy: bool) -> Opening {
        let level = if lazy {
            self.weighted(&[(2, Level::Sync), (4, Level::Interval), (4, Level::Os)])
        } else {
            Level::Sync
        };
        Opening {
            key: self.pick(),
            form: self.percent(6).then(|| self.form()),
            read_only: self.percent(8),
            level,
            keeps_log: self.percent(60),
            packed: lazy,
            fall_back: self.percent(15),
            anchor: self.weighted(&[
                (80, AnchorPick::None),
                (17, AnchorPick::Noted),
                (3, AnchorPick::Beyond),
            ]),
            create: Create::IfMissing,
        }
    }

    fn act(&mut self, theme: Theme) {
        let weight = |of: Theme| if of == theme { 30 } else { 4 };
        let key = self.key();
        let special = self.weighted(&[
            (60, None),
            (weight(Theme::Keys), Some(Step::ChangeKey(key))),
            (weight(Theme::Keys) / 2, Some(Step::Rekey(key))),
            (weight(Theme::Backups), Some(Step::BackUp)),
            (weight(Theme::Restores) / 2, Some(Step::BackUp)),
            (weight(Theme::Backups) / 3, Some(Step::Copy(self.small(2)))),
            (weight(Theme::Conversions) / 4, Some(Step::Checkpoint)),
            (3, Some(Step::Checkpoint)),
        ]);
        if let Some(step) = special {
            self.arm(45);
            return self.push(step);
        }
        let name = self.small(8);
        let len = self.weighted(&[(6, 40), (2, 700), (1, 5_000)]);
        let step = self.weighted(&[
            (30, Step::Set { key: name, len }),
            (8, Step::Remove(name)),
            (3, Step::RemovePrefix),
            (2, Step::Clear),
            (8, Step::Batch),
            (5, Step::Update(name)),
            (5, Step::Exchange(name)),
            (4, Step::Flush),
            (3, Step::Verify),
            (4, Step::Anchor),
            (3, Step::Look),
            (2, Step::Prune(self.small(3))),
            (2, Step::Open(Opening::plain())),
            (1, Step::OpenCopy(self.small(2))),
            (2, Step::Room(Some(self.below(60_000)))),
            (2, Step::Room(None)),
        ]);
        self.arm(7);
        self.push(step);
    }

    /// Draws the steps while the store is closed.
    fn between(&mut self, theme: Theme) {
        if self.terse {
            return self.repeat(false);
        }
        let count = self.weighted(&[(4, 0), (4, 1), (2, 2), (1, 3)]);
        let weight = |of: Theme| if of == theme { 40 } else { 4 };
        for _ in 0..count {
            let convert = self.conversion();
            let looks = Opening { read_only: true, ..self.opening(false) };
            let step = self.weighted(&[
                (weight(Theme::Conversions), convert),
                (weight(Theme::Restores), Step::Restore(self.small(2) + 1)),
                (weight(Theme::Restores) / 2, Step::RestoreUntil(self.small(200))),
                (6, Step::Look),
                (4, Step::Prune(self.small(4))),
                (8, Step::OpenCopy(self.small(2))),
                (2, Step::RemoveCopy(self.small(2))),
                (4, Step::Evict),
                (6, Step::Open(looks)),
            ]);
            let risky = matches!(
                step,
                Step::Convert { .. } | Step::Restore(_) | Step::RestoreUntil(_) | Step::Prune(_)
            );
            self.arm(if risky { 60 } else { 5 });
            self.push(step);
            if matches!(step, Step::Open(_)) {
                self.push(Step::End(End::Close));
            }
        }
        self.repeat(false);
    }
}

//! Runs a history on a simulated disk, and compares each step with the model.

use std::time::Duration;

use codex_core::vfs::fault::{Calls, Fault, FaultDir, Lasting, Space, Survivors};
use codex_core::vfs::{Dir, Vfs};
use codex_core::{Anchor, Form, Store};

use crate::counts::Counts;
use crate::model::{Bak, Kept, World, add, after_cut};
use crate::step::{Aim, End, Level, Plan, Planned, Step, Strike};
use crate::words::{contents, describe, said, shown};

/// The name of the store.
pub const NAME: &str = "a.db";
/// The names of hot copies.
pub const COPIES: [&str; 2] = ["copy-0.db", "copy-1.db"];
/// The beginning of every value, so that plain text can be found in files.
pub const MARK: &[u8] = b"PLAINTEXT";

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The promise, in words that are the same in each case.
    pub promise: &'static str,
    pub what: String,
}

pub type Held<T = ()> = Result<T, Broken>;

pub fn broken<T>(promise: &'static str, what: impl Into<String>) -> Held<T> {
    Err(Broken { promise, what: what.into() })
}

/// An open store.
pub struct OpenStore {
    pub store: Store,
    pub level: Level,
    pub read_only: bool,
}

pub struct Run<'a> {
    pub plan: &'a Plan,
    pub disk: FaultDir,
    pub open: Option<OpenStore>,
    /// The possible contents of the disk. While a store is open, the first is that of memory.
    pub worlds: Vec<World>,
    /// The contents that a reader has seen since the last change.
    pub seen: Option<Kept>,
    pub baks: Vec<Bak>,
    /// The number of backups that must exist after an interrupted rotation was cleared up.
    pub floor: usize,
    pub cleared_up: bool,
    /// Whether the names of the backups are durable as they are seen.
    pub names_last: bool,
    /// The possible contents of each hot copy.
    pub copies: [Vec<Option<Kept>>; 2],
    pub anchor: Option<Anchor>,
    /// Whether the last life ended with a close that succeeded, and nothing came after it.
    pub closed_cleanly: bool,
    pub is_off: bool,
    /// Whether the disk has a limit.
    pub limited: bool,
    /// The effect of the armed fault in addition to an error.
    strikes: Strikes,
    /// Whether the armed fault is a full disk.
    fills: bool,
    /// Whether the process was killed inside a step.
    pub is_killed: bool,
    /// The seed of the step.
    pub seed: u64,
    pub counts: &'a mut Counts,
    /// The steps in words, where they are asked for.
    pub log: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strikes {
    Errors,
    Cut,
    Kill,
}

/// The counts of the disk before a step.
pub struct Before {
    fired: u64,
    calls: u64,
}

impl<'a> Run<'a> {
    pub fn new(plan: &'a Plan, counts: &'a mut Counts, log: bool) -> Self {
        Self {
            plan,
            disk: FaultDir::new(),
            open: None,
            worlds: vec![World::default()],
            seen: None,
            baks: Vec::new(),
            floor: 0,
            cleared_up: false,
            names_last: true,
            copies: [vec![None], vec![None]],
            anchor: None,
            closed_cleanly: false,
            is_off: false,
            limited: false,
            strikes: Strikes::Errors,
            fills: false,
            is_killed: false,
            seed: 0,
            counts,
            log: log.then(Vec::new),
        }
    }

    pub fn run(&mut self) -> Held {
        for &Planned { step, seed } in &self.plan.steps {
            self.seed = seed;
            if self.is_off {
                self.power_on();
            }
            if self.is_killed {
                self.kill();
            }
            self.disk.clock().advance(Duration::from_millis(10));
            self.note(|| format!("{step:?}"));
            let before = self.before();
            let done = self.step(step);
            self.disturbed(&before)?;
            self.counts.calls += self.disk.calls() - before.calls;
            if self.is_off || self.is_killed {
                let what = if self.is_off { "the power is off" } else { "the process is gone" };
                self.note(|| format!("    {what}"));
            }
            done?;
            self.memory_shows_what_is_acknowledged()?;
        }
        self.counts.add("histories");
        Ok(())
    }

    fn step(&mut self, step: Step) -> Held {
        match step {
            Step::Arm(aim, strike) => self.arm(aim, strike),
            Step::Room(room) => self.room(room),
            Step::Open(opening) => return self.open(opening),
            Step::Set { .. }
            | Step::Remove(_)
            | Step::RemovePrefix
            | Step::Clear
            | Step::Batch
            | Step::Update(_)
            | Step::Exchange(_) => return self.commit(step),
            Step::Flush => return self.flush(),
            Step::Checkpoint => return self.checkpoint(),
            Step::ChangeKey(key) => return self.change_key(key, false),
            Step::Rekey(key) => return self.change_key(key, true),
            Step::BackUp => return self.back_up(),
            Step::Copy(which) => return self.copy(usize::from(which)),
            Step::OpenCopy(which) => return self.open_copy(usize::from(which)),
            Step::RemoveCopy(which) => self.remove_copy(usize::from(which)),
            Step::Verify => return self.verify(),
            Step::Anchor => return self.note_anchor(),
            Step::Look => return self.look(),
            Step::Prune(keep) => return self.prune(u32::from(keep)),
            Step::Convert { key, form, to } => return self.convert(key, form, to),
            Step::Restore(index) => return self.restore(u32::from(index)),
            Step::RestoreUntil(at) => return self.restore_until(at),
            Step::Evict => {
                // Data on which a sync failed is lost from the cache too.
                self.disk.evict_clean_pages();
                self.worlds = after_cut(&self.worlds);
                self.seen = None;
            }
            Step::End(end) => return self.end(end),
        }
        Ok(())
    }

    // What goes wrong.

    fn arm(&mut self, aim: Aim, strike: Strike) {
        self.disk.clear_plan();
        let (calls, nth) = match aim {
            Aim::Call(after) => (Calls::any(), after + 1),
            Aim::Kind(kind, nth) => (Calls::of(kind), nth),
        };
        self.strikes = match strike {
            Strike::Cut(_) => Strikes::Cut,
            Strike::Kill(_) => Strikes::Kill,
            Strike::Fail(..) => Strikes::Errors,
        };
        self.fills = matches!(strike, Strike::Fail(Fault::Enospc, ..));
        match strike {
            Strike::Kill(side) => self.disk.kill_process_on(calls, nth, side),
            Strike::Cut(side) => self.disk.cut_power_on(calls, nth, side),
            Strike::Fail(fault, lasting, side) => {
                // A permanent error affects other calls too.
                let stays = lasting == Lasting::Sticky;
                let calls = if stays { Calls::any() } else { calls };
                self.disk.fail_on(calls, nth, fault, lasting, side);
            }
        }
    }

    fn room(&mut self, room: Option<u64>) {
        let space = match room {
            None => Space::Unlimited,
            Some(room) => {
                let twin = self.disk.duplicate();
                twin.set_space(Space::AtOnce(VAST));
                let free = twin.available_bytes().ok().flatten().expect("a twin has no faults");
                let bytes = VAST - free + room;
                if self.seed.is_multiple_of(3) {
                    Space::AtSync(bytes)
                } else {
                    Space::AtOnce(bytes)
                }
            }
        };
        self.disk.set_space(space);
        self.limited = room.is_some();
        self.counts.add(if self.limited { "disks filled" } else { "disks emptied" });
    }

    pub fn before(&self) -> Before {
        Before { fired: self.disk.faults_fired(), calls: self.disk.calls() }
    }

    /// Returns true if the steps since may fail because of the faults of the disk.
    pub fn disturbed(&mut self, before: &Before) -> Held<bool> {
        let fired = self.disk.faults_fired() > before.fired;
        let calls = self.disk.calls() - before.calls;
        if calls > CALLS_MAX {
            return broken("a step ends", format!("{calls} calls to the disk"));
        }
        if fired {
            self.struck();
        }
        Ok(fired || self.limited || self.is_off || self.is_killed)
    }

    fn struck(&mut self) {
        match self.strikes {
            Strikes::Cut if !self.is_off => {
                self.is_off = true;
                self.counts.add("power cuts");
            }
            Strikes::Kill if !self.is_killed => {
                self.is_killed = true;
                self.counts.add("kills");
            }
            _ => {}
        }
        // A file system whose journal cannot be written refuses all further writes.
        if self.disk.has_doomed_names() && !self.is_off {
            self.disk.cut_power();
            self.is_off = true;
            self.counts.add("shutdowns");
        }
    }

    /// Continues with another process, on the same running machine.
    fn kill(&mut self) {
        let lazy = self.open.as_ref().is_some_and(|open| open.level == Level::Interval);
        self.disk = self.disk.crash_process();
        self.leave();
        self.disk.clear_plan();
        (self.is_killed, self.strikes) = (false, Strikes::Errors);
        if lazy {
            self.images_may_be_late();
        }
    }

    /// In the Snapshot form, at `Interval`, commits are in no file until an image is written.
    fn images_may_be_late(&mut self) {
        let (late, mut worlds): (Vec<World>, Vec<World>) = self
            .worlds
            .drain(..)
            .partition(|world| world.store.as_ref().is_some_and(|k| k.form == Form::Snapshot));
        for world in after_cut(&late) {
            add(&mut worlds, world);
        }
        self.worlds = worlds;
    }

    fn power_on(&mut self) {
        self.leave();
        let survivors = match self.seed % 8 {
            0 => Survivors::Nothing,
            1 => Survivors::Everything,
            _ => Survivors::Seeded(self.seed),
        };
        self.note(|| format!("the power comes back, with {survivors:?}"));
        self.disk = self.disk.reboot(survivors);
        self.worlds = after_cut(&self.worlds);
        (self.seen, self.names_last) = (None, true);
        (self.is_off, self.is_killed, self.strikes) = (false, false, Strikes::Errors);
    }

    /// Drops the store without checking the effects.
    fn leave(&mut self) {
        self.open = None;
        self.closed_cleanly = false;
    }

    fn end(&mut self, end: End) -> Held {
        if end == End::PowerCut {
            self.disk.cut_power();
            self.counts.add("power cuts");
            self.leave();
            self.is_off = true;
            return Ok(());
        }
        let Some(open) = self.open.take() else {
            self.disk.clear_plan();
            return Ok(());
        };
        let lazy = open.level == Level::Interval && !open.read_only;
        let before = self.before();
        let poisoned = open.store.poisoned().is_some();
        let mut certain = false;
        match end {
            End::Kill => {
                self.disk = self.disk.crash_process();
                drop(open.store);
                self.counts.add("kills");
            }
            End::Drop => {
                drop(open.store);
                self.counts.add("drops");
                certain = !self.disturbed(&before)? && !poisoned;
            }
            End::Close | End::PowerCut => {
                let closed = open.store.close();
                drop(open.store);
                let disturbed = self.disturbed(&before)?;
                self.counts.done("close", &closed, disturbed);
                self.note(|| format!("    {}", said(&closed)));
                if let Err(error) = &closed
                    && !disturbed
                    && !poisoned
                {
                    return broken("a close succeeds on a healthy disk", error.to_string());
                }
                certain = closed.is_ok() && !poisoned;
                // On a full disk a close succeeds without its mark.
                let is_full = disturbed && (self.limited || self.fills);
                self.closed_cleanly = certain && !open.read_only && !is_full;
            }
        }
        if certain && !open.read_only {
            let now = self.now().settled();
            self.worlds = vec![World::of(now)];
        } else if lazy {
            self.images_may_be_late();
        }
        if !self.is_off && !self.is_killed {
            self.disk.clear_plan();
            self.strikes = Strikes::Errors;
        }
        Ok(())
    }

    // The contents of memory.

    /// Returns the model of the open store in memory.
    pub fn now(&self) -> &Kept {
        let world = self.worlds.first().and_then(|world| world.store.as_ref());
        world.expect("a store that is open is there")
    }

    fn memory_shows_what_is_acknowledged(&mut self) -> Held {
        let Some(open) = &self.open else { return Ok(()) };
        let found = contents(&open.store);
        if open.read_only {
            let same = self.seen.as_ref().is_some_and(|seen| **seen.contents() == found);
            return if same { Ok(()) } else { broken("a reader's state stands still", "") };
        }
        if found != **self.now().contents() {
            let what = format!("{} instead of {}", shown(&found), shown(self.now().contents()));
            return broken("memory shows what was acknowledged", what);
        }
        Ok(())
    }

    pub fn vfs(&self) -> Vfs {
        self.disk.vfs(self.seed)
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(line());
        }
    }

    pub fn possible(&self) -> String {
        let world = |world: &World| {
            let store = world.store.as_ref().map_or("no store".to_owned(), describe);
            match &world.pending {
                Some(pending) => format!("  possible: {store}, to become {}", describe(pending)),
                None => format!("  possible: {store}"),
            }
        };
        self.worlds.iter().map(world).collect::<Vec<_>>().join("\n")
    }
}

/// More bytes than any disk here has.
const VAST: u64 = 1 << 40;
/// More calls than any step makes.
const CALLS_MAX: u64 = 20_000;

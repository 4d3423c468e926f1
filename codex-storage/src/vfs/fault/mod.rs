//! A simulated disk that can fail, tear, reorder, fill up and lose its power at any call.
//!
//! For every file it keeps the bytes that callers see apart from those that are durable, and for
//! the directory the names: bytes become durable by [`File::sync`], names by [`Dir::sync`], each
//! without the other. A file's sync never makes its name durable, and a directory's sync makes no
//! bytes durable; this is harsher than ext4 and XFS, whose journals keep names in order.
//!
//! A sync that fails does what Linux does: the bytes stay readable, count as clean, and no later
//! sync writes them unless they are written again (here sector by sector). What had been handed to
//! the disk before may be on it or not.
//!
//! [`FaultDir::crash_images`] gives the disks that a power cut can leave, as disks of their own;
//! [`each_power_cut`] and [`each_fault`] do it at every call of a story.
//!
//! ```
//! use codex_storage::vfs::fault::{CrashChoice, FaultDir, each_power_cut};
//! use codex_storage::vfs::{Dir, Mode, Open};
//!
//! /// Replaces the file `a`, in the one order that is safe.
//! fn replace(disk: &FaultDir) -> std::io::Result<()> {
//!     let file = disk.open("a.tmp", Open::CreateNew(Mode::Private))?;
//!     file.write_all_at(b"new", 0)?;
//!     file.sync()?;
//!     disk.rename("a.tmp", "a")?;
//!     disk.sync()
//! }
//!
//! let disk = FaultDir::new();
//! disk.open("a", Open::CreateNew(Mode::Private))?.write_all_at(b"old", 0)?;
//! let disk = disk.reboot(codex_storage::vfs::fault::Survivors::Everything);
//! let images = each_power_cut(&disk, &CrashChoice::default(), replace, |mishap, image, result| {
//!     let found = image.peek("a").expect("one of both is there");
//!     assert!(found == b"new" || found == b"old" && result.is_err(), "{mishap}");
//! });
//! assert!(images > 10);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! [`File::sync`]: super::File::sync
//! [`Dir::sync`]: super::Dir::sync

mod bytes;
mod crash;
mod dir;
mod disk;
mod image;
mod inode;
mod machine;
mod plan;
mod sweep;

use std::fmt;
use std::io;
use std::sync::Arc;

pub use crash::{CrashChoice, CrashImages, NameModel, Survivors};
pub use machine::Gate;
pub use plan::{Calls, Fault, Lasting, Side};
pub use sweep::{Mishap, each_fault, each_power_cut};

use super::{Call, CallKind, SeededEntropy, SimClock, Vfs};
use crate::sync::MutexGuard;
use disk::{Disk, NameState};
use machine::{Ended, Machine, MachineState};
use plan::{Plan, Start, Strike};

/// A directory on a simulated disk. Clones are handles of the same disk.
///
/// Calls are numbered from 0 in their order, reading ones included; opening a file is a call and
/// closing it is none. One thread makes the same calls in the same order each time, so a number
/// that a trace shows can be given to [`FaultDir::fail_at`] in the next run.
#[derive(Clone)]
pub struct FaultDir {
    machine: Arc<Machine>,
    /// The process that this handle belongs to, of those that ran on the machine.
    process: u64,
}

impl FaultDir {
    /// An empty, healthy disk without a limit.
    pub fn new() -> Self {
        Self::with_disk(Disk::default(), SimClock::new())
    }

    /// This disk with its simulated clock, and with entropy that `seed` determines.
    pub fn vfs(&self, seed: u64) -> Vfs {
        Vfs {
            dir: Arc::new(self.clone()),
            clock: Arc::new(self.clock()),
            entropy: Arc::new(SeededEntropy::new(seed)),
        }
    }

    /// The clock that gives the files their times.
    pub fn clock(&self) -> SimClock {
        self.machine.clock.clone()
    }

    /// A disk of its own in the same state, what is not durable included; without plans, traces,
    /// open handles and locks. It costs some allocations per file, whatever its length.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let mut disk = self.state().disk.clone();
        for inode in disk.inodes.values_mut() {
            inode.handles = 0;
            inode.locks = Arc::default();
        }
        Self::with_disk(disk, self.clock())
    }

    /// Cuts the power at the call with this number: it and every later call fail with an error
    /// that [`is_power_off`] knows, and the disk stays as it is for [`FaultDir::crash_images`].
    pub fn cut_power_at(&self, call: u64, side: Side) {
        self.rule(Calls::any(), Start::Index(call), Strike::CutPower(side), Lasting::Once);
    }

    /// Cuts the power at the `nth` (from 1) of these calls, counted from now.
    pub fn cut_power_on(&self, calls: Calls, nth: u64, side: Side) {
        self.rule(calls, nth_from_now(nth), Strike::CutPower(side), Lasting::Once);
    }

    /// Cuts the power now.
    pub fn cut_power(&self) {
        self.state().power_is_off = true;
        self.machine.changed.notify_all();
    }

    /// Kills the process at the `nth` (from 1) of these calls, counted from now: it and every later
    /// call fail with an error that [`is_process_gone`] knows, until
    /// [`FaultDir::crash_process`] starts another one.
    pub fn kill_process_on(&self, calls: Calls, nth: u64, side: Side) {
        self.rule(calls, nth_from_now(nth), Strike::Kill(side), Lasting::Once);
    }

    /// Fails the call with this number; [`Lasting::Sticky`]: and every later one that the fault
    /// can strike. A single fault that cannot strike the call (no space for a read) lapses.
    pub fn fail_at(&self, call: u64, fault: Fault, lasting: Lasting, side: Side) {
        self.rule(Calls::any(), Start::Index(call), Strike::Fail(fault, side), lasting);
    }

    /// Fails the `nth` (from 1) of these calls, counted from now; [`Lasting::Sticky`]: and every
    /// later one of them.
    pub fn fail_on(&self, calls: Calls, nth: u64, fault: Fault, lasting: Lasting, side: Side) {
        self.rule(calls, nth_from_now(nth), Strike::Fail(fault, side), lasting);
    }

    /// Stops these calls, before they do anything, until the gate is released or dropped.
    pub fn hold(&self, calls: Calls) -> Gate {
        let mut state = self.state();
        let id = state.add_gate(calls);
        Gate::new(Arc::clone(&self.machine), id)
    }

    /// Forgets all faults and power cuts that were planned. Gates stay.
    pub fn clear_plan(&self) {
        self.state().plan = Plan::default();
    }

    /// How many calls a planned fault or power cut has struck since the plan was cleared.
    pub fn faults_fired(&self) -> u64 {
        self.state().plan.fired
    }

    /// Whether a sync of the directory has failed, so that some names as they are now will never be
    /// durable, whatever is synced later. File systems with a journal shut down then.
    pub fn has_doomed_names(&self) -> bool {
        self.state().disk.name_changes.iter().any(|change| change.state == NameState::Doomed)
    }

    /// Sets how much room the disk has, and when a write takes it.
    pub fn set_space(&self, space: Space) {
        self.state().disk.set_space(space);
    }

    /// Starts recording calls, from none, or stops it.
    pub fn record_trace(&self, on: bool) {
        self.state().trace = on.then(Vec::new);
    }

    /// The calls recorded so far; none while recording is off. A call prints as one line.
    pub fn trace(&self) -> Vec<Call> {
        self.state().trace.clone().unwrap_or_default()
    }

    /// How many calls there were: the number of the next one.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Ends the process, as SIGKILL does: its handles fail from now on (with an error that
    /// [`is_process_gone`] knows) and its locks are free. The machine runs on with all that was
    /// written in its cache; the handle that is returned belongs to a new process.
    #[must_use]
    pub fn crash_process(&self) -> Self {
        let mut state = self.state();
        state.process += 1;
        state.process_is_gone = false;
        for inode in state.disk.inodes.values_mut() {
            inode.locks = Arc::default();
            inode.handles = 0;
        }
        state.disk.drop_unreachable();
        let process = state.process;
        drop(state);
        self.machine.changed.notify_all();
        Self { machine: Arc::clone(&self.machine), process }
    }

    /// Drops the clean pages from the cache, as memory pressure does: bytes on which a sync failed
    /// read as they are on the disk, which is without them.
    pub fn evict_clean_pages(&self) {
        for inode in self.state().disk.inodes.values_mut() {
            inode.evict_clean();
        }
    }

    /// The disks that a power cut now can leave. A cut between two calls leaves the same ones as
    /// a cut after the first or before the second.
    pub fn crash_images(&self, choice: &CrashChoice) -> CrashImages {
        CrashImages::new(&self.state().disk, choice, self.clock())
    }

    /// The machine after a power cut now, with one choice of what reached the disk.
    #[must_use]
    pub fn reboot(&self, survivors: Survivors) -> Self {
        crash::reboot(&self.state().disk, survivors, self.clock())
    }

    /// The contents of `name` as callers see them; for looking at a disk without making a call.
    pub fn peek(&self, name: &str) -> io::Result<Vec<u8>> {
        let state = self.state();
        let bytes = &state.disk.inode(state.disk.ino(name)?)?.cached;
        let mut found = vec![0; usize::try_from(bytes.len()).unwrap_or(usize::MAX)];
        bytes.read_exact(&mut found, 0)?;
        Ok(found)
    }

    fn with_disk(disk: Disk, clock: SimClock) -> Self {
        Self { machine: Arc::new(Machine::new(disk, clock)), process: 0 }
    }

    fn rule(&self, calls: Calls, start: Start, strike: Strike, lasting: Lasting) {
        self.state().plan.add(calls, start, strike, lasting);
    }

    fn state(&self) -> MutexGuard<'_, MachineState> {
        self.machine.state()
    }
}

impl Default for FaultDir {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FaultDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        let mut shown = f.debug_struct("FaultDir");
        shown.field("names", &state.disk.names.keys()).field("calls", &state.calls);
        shown.field("power_is_off", &state.power_is_off).finish_non_exhaustive()
    }
}

/// How much room a simulated disk has, in bytes; files take blocks of 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Space {
    /// No limit.
    #[default]
    Unlimited,
    /// A write and an allocation take room at once, or fail.
    AtOnce(u64),
    /// An allocation takes room at once; a write takes it at the next sync, which fails and dooms
    /// it where there is none (delayed allocation).
    AtSync(u64),
}

/// Whether `error` says that the simulated power is off.
pub fn is_power_off(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| matches!(inner.downcast_ref(), Some(Ended::PowerIsOff)))
}

/// Whether `error` says that the simulated process of a handle has ended.
pub fn is_process_gone(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| matches!(inner.downcast_ref(), Some(Ended::ProcessIsGone)))
}

fn nth_from_now(nth: u64) -> Start {
    Start::After(nth.saturating_sub(1))
}

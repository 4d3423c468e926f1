//! A simulated disk that can fail, tear, reorder, fill up and lose power at any call.
//!
//! It stores the visible bytes of each file separately from the durable ones, and likewise the
//! names of the directory. [`File::sync`] makes only bytes durable, and [`Dir::sync`] only names.
//! This is harsher than ext4 and XFS, whose journals keep names in order.
//!
//! A failed sync does the same as in Linux: the bytes stay readable and count as clean, and no
//! later sync writes them unless they are written again (here sector by sector). Bytes that were
//! passed to the disk before may or may not be on it.
//!
//! [`FaultDir::crash_images`] returns the disks that a power cut can leave. [`each_power_cut`] and
//! [`each_fault`] run an operation with a cut or a fault at each of its calls.
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

use super::{Call, CallKind, SeededEntropy, SimClock, Vfs, WaitedFor};
use crate::sync::MutexGuard;
use disk::{Disk, NameState};
use machine::{Ended, Machine, MachineState};
use plan::{FirstCall, Plan, Strike};

/// A directory on a simulated disk. Clones are handles to the same disk.
///
/// Calls are numbered from 0 in their order, including calls that only read. Opening a file is a
/// call, closing it is not. One thread makes the same calls in the same order in each run, so a
/// number from a trace can be used in [`FaultDir::fail_at`] in the next run.
#[derive(Clone)]
pub struct FaultDir {
    machine: Arc<Machine>,
    /// The number of the process to which this handle belongs.
    process: u64,
}

impl FaultDir {
    /// Returns an empty, healthy disk without a size limit.
    pub fn new() -> Self {
        Self::with_disk(Disk::default(), SimClock::new())
    }

    /// Returns this disk with its simulated clock, and with entropy from `seed`.
    pub fn vfs(&self, seed: u64) -> Vfs {
        Vfs {
            dir: Arc::new(self.clone()),
            clock: Arc::new(self.clock()),
            entropy: Arc::new(SeededEntropy::new(seed)),
            waited_for: WaitedFor::default(),
        }
    }

    /// Returns the clock that sets the times of files.
    pub fn clock(&self) -> SimClock {
        self.machine.clock.clone()
    }

    /// Returns a separate disk in the same state, including bytes and names that are not durable,
    /// without plans, traces, open handles and locks. Costs a few allocations per file of any
    /// length.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let mut disk = self.state().disk.clone();
        for inode in disk.inodes.values_mut() {
            inode.handles = 0;
            inode.locks = Arc::default();
        }
        Self::with_disk(disk, self.clock())
    }

    /// Cuts the power at the call with this number. This call and all later ones fail with an error
    /// for which [`is_power_off`] returns true. The disk keeps its state for
    /// [`FaultDir::crash_images`].
    pub fn cut_power_at(&self, call: u64, side: Side) {
        self.rule(Calls::any(), FirstCall::Index(call), Strike::CutPower(side), Lasting::Once);
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

    /// Kills the process at the `nth` (from 1) of these calls, counted from now. This call and all
    /// later ones fail with an error for which [`is_process_gone`] returns true, until
    /// [`FaultDir::crash_process`] starts another process.
    pub fn kill_process_on(&self, calls: Calls, nth: u64, side: Side) {
        self.rule(calls, nth_from_now(nth), Strike::Kill(side), Lasting::Once);
    }

    /// Fails the call with this number, and with [`Lasting::Sticky`] every later one to which the
    /// fault applies. A single fault that does not apply to the call (no space for a read) has no
    /// effect.
    pub fn fail_at(&self, call: u64, fault: Fault, lasting: Lasting, side: Side) {
        self.rule(Calls::any(), FirstCall::Index(call), Strike::Fail(fault, side), lasting);
    }

    /// Fails the `nth` (from 1) of these calls, counted from now, and with [`Lasting::Sticky`]
    /// every later one of them.
    pub fn fail_on(&self, calls: Calls, nth: u64, fault: Fault, lasting: Lasting, side: Side) {
        self.rule(calls, nth_from_now(nth), Strike::Fail(fault, side), lasting);
    }

    /// Holds these calls before their effect, until the gate is released or dropped.
    pub fn hold(&self, calls: Calls) -> Gate {
        let mut state = self.state();
        let id = state.add_gate(calls);
        Gate::new(Arc::clone(&self.machine), id)
    }

    /// Removes all planned faults and power cuts. Gates stay.
    pub fn clear_plan(&self) {
        self.state().plan = Plan::default();
    }

    /// Returns the number of calls that a planned fault or power cut has hit since the plan was
    /// cleared.
    pub fn faults_fired(&self) -> u64 {
        self.state().plan.fired
    }

    /// Returns whether a sync of the directory has failed, so that some current names will never be
    /// durable, even after a later sync. File systems with a journal shut down in this case.
    pub fn has_doomed_names(&self) -> bool {
        self.state().disk.name_changes.iter().any(|change| change.state == NameState::Doomed)
    }

    /// Sets the size of the disk, and the time at which a write takes space.
    pub fn set_space(&self, space: Space) {
        self.state().disk.set_space(space);
    }

    /// Starts to record calls with an empty trace, or stops recording.
    pub fn record_trace(&self, on: bool) {
        self.state().trace = on.then(Vec::new);
    }

    /// Returns the recorded calls; none if recording is off. Each call prints as one line.
    pub fn trace(&self) -> Vec<Call> {
        self.state().trace.clone().unwrap_or_default()
    }

    /// Returns the number of calls so far, which is the number of the next call.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Ends the process, like SIGKILL. Its handles fail from now on (with an error for which
    /// [`is_process_gone`] returns true), and its locks are released. The machine keeps all written
    /// bytes in its cache. The returned handle belongs to a new process.
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

    /// Drops the clean pages from the cache, as memory pressure does. Bytes for which a sync has
    /// failed then read as they are on the disk, which does not have them.
    pub fn evict_clean_pages(&self) {
        for inode in self.state().disk.inodes.values_mut() {
            inode.evict_clean();
        }
    }

    /// Returns the disks that a power cut now can leave. A cut between two calls leaves the same
    /// ones as a cut after the first call or before the second.
    pub fn crash_images(&self, choice: &CrashChoice) -> CrashImages {
        CrashImages::new(&self.state().disk, choice, self.clock())
    }

    /// Returns the machine after a power cut now, with one choice of the writes that reached the
    /// disk.
    #[must_use]
    pub fn reboot(&self, survivors: Survivors) -> Self {
        crash::reboot(&self.state().disk, survivors, self.clock())
    }

    /// Returns the visible contents of `name` without making a call.
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

    fn rule(&self, calls: Calls, start: FirstCall, strike: Strike, lasting: Lasting) {
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

/// The space of a simulated disk, in bytes. Files take blocks of 4096 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Space {
    /// No limit.
    #[default]
    Unlimited,
    /// A write and an allocation take space at once, or fail.
    AtOnce(u64),
    /// An allocation takes space at once. A write takes it at the next sync, which fails and dooms
    /// the write if there is none (delayed allocation).
    AtSync(u64),
}

/// Returns whether the cause of `error` is that the simulated power is off.
pub fn is_power_off(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| matches!(inner.downcast_ref(), Some(Ended::PowerIsOff)))
}

/// Returns whether the cause of `error` is that the simulated process of a handle has ended.
pub fn is_process_gone(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| matches!(inner.downcast_ref(), Some(Ended::ProcessIsGone)))
}

fn nth_from_now(nth: u64) -> FirstCall {
    FirstCall::After(nth.saturating_sub(1))
}

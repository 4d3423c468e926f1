//! The machine around a simulated disk. It counts the calls, and lets them wait, fail or pass.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::disk::Disk;
use super::plan::{Calls, Fault, Plan, Side, Strike};
use super::{Call, CallKind};
use crate::sync::{Condvar, Mutex, MutexGuard};
use crate::vfs::SimClock;

/// Calls that are held. Dropping the gate releases them.
#[derive(Debug)]
pub struct Gate {
    machine: Arc<Machine>,
    id: u64,
}

impl Gate {
    pub(super) fn new(machine: Arc<Machine>, id: u64) -> Self {
        Self { machine, id }
    }

    /// Releases the calls, and holds no more calls.
    pub fn release(self) {
        drop(self);
    }

    /// Returns the number of waiting calls.
    pub fn waiting(&self) -> usize {
        self.machine.state().waiting_at(self.id)
    }

    /// Waits until at least `count` calls are waiting.
    pub fn wait_for(&self, count: usize) {
        let mut state = self.machine.state();
        while state.waiting_at(self.id) < count {
            state = self.machine.changed.wait(state);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.machine.state().gates.retain(|held| held.id != self.id);
        self.machine.changed.notify_all();
    }
}

/// The reason why all calls fail.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(super) enum Ended {
    #[error("the power of the simulated disk is off")]
    PowerIsOff,
    #[error("the simulated process of this handle has ended")]
    ProcessIsGone,
}

pub(super) struct Machine {
    state: Mutex<MachineState>,
    /// Notified if a gate opened, a call arrived at a gate, the power went off, or a process ended.
    pub(super) changed: Condvar,
    pub(super) clock: SimClock,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

#[derive(Default)]
pub(super) struct MachineState {
    pub(super) disk: Disk,
    pub(super) plan: Plan,
    pub(super) calls: u64,
    pub(super) trace: Option<Vec<Call>>,
    gates: Vec<HeldCalls>,
    last_gate: u64,
    pub(super) power_is_off: bool,
    pub(super) process: u64,
    /// Whether the process was killed and no other one was started.
    pub(super) process_is_gone: bool,
}

#[derive(Debug)]
struct HeldCalls {
    id: u64,
    calls: Calls,
    waiting: usize,
}

impl MachineState {
    /// Returns an error if the power is off, or if the process `process` has ended.
    pub(super) fn check_alive(&self, process: u64) -> io::Result<()> {
        if self.power_is_off {
            return Err(io::Error::other(Ended::PowerIsOff));
        }
        if self.process_is_gone || self.process != process {
            return Err(io::Error::other(Ended::ProcessIsGone));
        }
        Ok(())
    }

    /// Holds `calls` from now on. Returns the number of the gate.
    pub(super) fn add_gate(&mut self, calls: Calls) -> u64 {
        self.last_gate += 1;
        self.gates.push(HeldCalls { id: self.last_gate, calls, waiting: 0 });
        self.last_gate
    }

    fn gate_before(&self, call: &Call) -> Option<u64> {
        self.gates.iter().find(|held| held.calls.include(call)).map(|held| held.id)
    }

    fn has_gate(&self, id: u64) -> bool {
        self.gates.iter().any(|held| held.id == id)
    }

    fn count_waiting(&mut self, id: u64, change: isize) {
        for held in self.gates.iter_mut().filter(|held| held.id == id) {
            held.waiting = held.waiting.saturating_add_signed(change);
        }
    }

    fn waiting_at(&self, gate: u64) -> usize {
        self.gates.iter().find(|held| held.id == gate).map_or(0, |held| held.waiting)
    }
}

/// A call in the form of its caller.
pub(super) struct Request<'a> {
    pub(super) kind: CallKind,
    pub(super) name: &'a str,
    pub(super) to: Option<&'a str>,
    pub(super) offset: u64,
    pub(super) len: u64,
}

impl Machine {
    pub(super) fn new(disk: Disk, clock: SimClock) -> Self {
        let state = Mutex::new(MachineState { disk, ..MachineState::default() });
        Self { state, changed: Condvar::new(), clock }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, MachineState> {
        self.state.lock()
    }

    /// Makes one call: counts it, applies the plan, and carries out its effect. If a fault prevents
    /// the effect, `failed` is called instead. Both receive the number of the last change before
    /// the call.
    pub(super) fn call<T>(
        &self,
        process: u64,
        request: &Request<'_>,
        effect: impl FnOnce(&mut Disk, Limits) -> io::Result<T>,
        failed: impl FnOnce(&mut Disk, u64),
    ) -> io::Result<T> {
        let mut state = self.state();
        state.check_alive(process)?;
        let call = Call {
            index: state.calls,
            kind: request.kind,
            name: request.name.into(),
            to: request.to.map(Into::into),
            offset: request.offset,
            len: request.len,
        };
        state.calls += 1;
        if let Some(trace) = &mut state.trace {
            trace.push(call.clone());
        }
        // Order: the number is taken before the call waits at a gate. A sync covers the changes
        // before the call, and none that other threads make while it waits.
        let upto = state.disk.seq;
        let strike = state.plan.strike(&call);
        let mut state = self.wait(state, &call);
        // The power may have been cut while the call was waiting.
        state.check_alive(process)?;
        let limits = |write_max| Limits { upto, write_max, is_told: strike.is_none() };
        match strike {
            None => effect(&mut state.disk, limits(None)),
            Some(Strike::CutPower(side)) => {
                if side == Side::After {
                    let _ = effect(&mut state.disk, limits(None));
                }
                state.power_is_off = true;
                self.changed.notify_all();
                Err(io::Error::other(Ended::PowerIsOff))
            }
            Some(Strike::Kill(side)) => {
                if side == Side::After {
                    let _ = effect(&mut state.disk, limits(None));
                }
                state.process_is_gone = true;
                self.changed.notify_all();
                Err(io::Error::other(Ended::ProcessIsGone))
            }
            Some(Strike::Fail(Fault::ShortWrite(len), _)) => {
                effect(&mut state.disk, limits(Some(len)))?;
                Err(Fault::ShortWrite(len).error())
            }
            Some(Strike::Fail(fault, Side::Before)) => {
                failed(&mut state.disk, upto);
                Err(fault.error())
            }
            Some(Strike::Fail(fault, Side::After)) => {
                effect(&mut state.disk, limits(None))?;
                Err(fault.error())
            }
        }
    }

    /// Keeps the call waiting while a gate holds it. Other threads can use the disk meanwhile.
    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, MachineState>,
        call: &Call,
    ) -> MutexGuard<'a, MachineState> {
        let process = state.process;
        while let Some(id) = state.gate_before(call) {
            state.count_waiting(id, 1);
            self.changed.notify_all();
            while state.check_alive(process).is_ok() && state.has_gate(id) {
                state = self.changed.wait(state);
            }
            state.count_waiting(id, -1);
            if state.check_alive(process).is_err() {
                break;
            }
        }
        state
    }
}

/// The limits on the effect of a call.
pub(super) struct Limits {
    /// The last change before the call. A sync covers no later change.
    pub(super) upto: u64,
    /// The largest number of bytes that a write may write.
    pub(super) write_max: Option<usize>,
    /// Whether the caller receives the result of the effect.
    pub(super) is_told: bool,
}

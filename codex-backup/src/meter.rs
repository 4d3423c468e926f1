//! Reports the progress of one phase to a callback, and remembers whether it returned `Break`.

use std::ops::ControlFlow;
use std::path::Path;

use crate::copy::{Phase, Progress, Watch};
use crate::error::{Error, Result};

/// The progress of one phase. The reports never decrease, and end at the total if there are any.
pub(crate) struct Meter<'a, 'w> {
    watch: &'a mut Watch<'w>,
    /// The last report, or the state before the first one.
    now: Progress,
    begun: bool,
    stopped: bool,
}

impl<'a, 'w> Meter<'a, 'w> {
    pub(crate) fn new(watch: &'a mut Watch<'w>, phase: Phase, total: u64) -> Self {
        let now = Progress { phase, done: 0, total };
        Self { watch, now, begun: false, stopped: false }
    }

    /// Reports `done`, if it is greater than the last report. Returns `Break` if the callback has
    /// asked to stop.
    pub(crate) fn reach(&mut self, done: u64) -> ControlFlow<()> {
        if self.stopped {
            return ControlFlow::Break(());
        }
        if done > self.now.done || !self.begun {
            self.now.done = done.max(self.now.done);
            self.now.total = self.now.total.max(done);
            self.begun = true;
            self.stopped = (self.watch)(self.now).is_break();
        }
        if self.stopped { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Ends the phase, which concerns the file at `path`. Reports the total, if anything was
    /// reported.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the callback returned `Break` at any report, even if the phase has
    /// failed or finished since.
    pub(crate) fn end(mut self, path: &Path) -> Result<()> {
        if self.begun {
            let _ = self.reach(self.now.total);
        }
        if self.stopped { Err(Error::Stopped { path: path.to_owned() }) } else { Ok(()) }
    }
}

/// Calls the callback with 0 of 0, as a sign of life during work of unknown length.
pub(crate) fn sign_of_life(watch: &mut Watch<'_>) -> ControlFlow<()> {
    watch(Progress { phase: Phase::Preparing, done: 0, total: 0 })
}

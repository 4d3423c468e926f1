//! Tells a watch how far one phase of a copy has come, and notes whether it wants to stop.

use std::ops::ControlFlow;
use std::path::Path;

use crate::copy::{Phase, Progress, Watch};
use crate::error::{Error, Result};

/// One phase: its reports rise, and end at their total if there are any.
pub(crate) struct Meter<'a, 'w> {
    watch: &'a mut Watch<'w>,
    /// The last report, or what the first one will begin from.
    now: Progress,
    begun: bool,
    stopped: bool,
}

impl<'a, 'w> Meter<'a, 'w> {
    pub(crate) fn new(watch: &'a mut Watch<'w>, phase: Phase, total: u64) -> Self {
        let now = Progress { phase, done: 0, total };
        Self { watch, now, begun: false, stopped: false }
    }

    /// Reports that `done` is done, unless that is no more than was reported.
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

    /// Ends the phase, which concerns the file at `path`: reports its total where anything was
    /// reported.
    ///
    /// # Errors
    /// [`Error::Stopped`] where the watch wanted that, at whatever report, and whatever became of
    /// the phase.
    pub(crate) fn end(mut self, path: &Path) -> Result<()> {
        if self.begun {
            let _ = self.reach(self.now.total);
        }
        if self.stopped { Err(Error::Stopped { path: path.to_owned() }) } else { Ok(()) }
    }
}

/// A sign of life to a watch, where nothing is known of how much there is to do.
pub(crate) fn sign_of_life(watch: &mut Watch<'_>) -> ControlFlow<()> {
    watch(Progress { phase: Phase::Preparing, done: 0, total: 0 })
}

//! The end of a log: before the next segment, at a close, and if the disk is full.

use super::space::{UNIT, closed_len};
use super::write::LogWriter;
use crate::error::{Error, Result};
use crate::frame::CLOSE;

impl LogWriter {
    /// Makes all frames durable and does the work that recovery has left for the first write, so
    /// that another segment can begin at the end of this log.
    ///
    /// # Errors
    /// `NoSpace` if a mark of recovery has no room; `InDoubt` if a write or sync fails, which
    /// poisons.
    pub(crate) fn seal_off(&mut self) -> Result<()> {
        self.sync()?;
        self.begin_writing()
    }

    /// Removes the space after the last frame, including the reserve, and returns its former end.
    /// Writing can still continue.
    ///
    /// # Errors
    /// `Io` if the system cannot change the length. The file then has its old or its new length.
    pub(crate) fn trim(&mut self) -> Result<u64> {
        let before = self.space.end();
        self.trim_to(self.end.offset.next_multiple_of(UNIT))?;
        Ok(before)
    }

    /// Allocates again the reserve that a [`trim`](LogWriter::trim) has removed; `before` is the
    /// value that `trim` returned.
    ///
    /// # Errors
    /// `NoSpace` or `Io` if the reserve cannot be allocated; `InDoubt`, which poisons.
    pub(crate) fn take_back(&mut self, before: u64) -> Result<()> {
        let taken = self.space.take_back(self.end.offset, before, &self.gate);
        taken.map_err(|e| self.space_error(e))
    }

    /// Ends the log durably with the mark of a clean close, and removes the space after it. If the
    /// log is closed already, nothing is changed.
    ///
    /// # Errors
    /// `InDoubt`, which poisons. `Io` if the space cannot be removed: all commits are durable, and
    /// the mark or the removal may be missing.
    pub(crate) fn close(&mut self) -> Result<()> {
        // Order: the frames are durable before the mark that ends them.
        self.sync()?;
        let end = closed_len(self.end.offset);
        // A log that is closed and has its final length is not written again.
        if self.end.closed && self.space.len() == end {
            return Ok(());
        }
        let len = match self.mark_closed() {
            Ok(()) => closed_len(self.end.offset),
            // All commits are durable. Without the mark, the next open cannot distinguish this
            // close from a crash.
            Err(Error::NoSpace { .. }) => self.end.offset.next_multiple_of(UNIT),
            Err(error) => return Err(error),
        };
        // Order: the mark is durable before the length of the file shows a closed log.
        self.trim_to(len)?;
        // Only the length has changed since the frames were synced.
        let synced = self.gate.sync_space();
        synced.map_err(|source| self.io_error("sync", source))
    }

    fn mark_closed(&mut self) -> Result<()> {
        self.begin_writing()?;
        if self.end.closed {
            return Ok(());
        }
        let mut buf = self.control_buffer(&[]);
        self.frame(CLOSE, 0, 0, &mut buf, true)
    }

    fn trim_to(&mut self, len: u64) -> Result<()> {
        let trimmed = self.space.trim(len);
        trimmed.map_err(|e| Error::io("cut the unused space of", &self.place.path(), e))
    }
}

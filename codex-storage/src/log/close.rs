//! The end of a log: before the next segment, at a close, and on a full disk.

use super::space::{UNIT, closed_len};
use super::write::LogWriter;
use crate::error::{Error, Result};
use crate::frame::CLOSE;

impl LogWriter {
    /// Ends the log for now: makes everything durable, and its end a place where the next log can
    /// begin.
    ///
    /// # Errors
    /// `NoSpace`; `InDoubt`, which poisons.
    pub(crate) fn seal_off(&mut self) -> Result<()> {
        self.sync()?;
        self.begin_writing()
    }

    /// Cuts off the space ahead, the reserve too, and returns where it ended. Writing may go on all
    /// the same.
    ///
    /// # Errors
    /// `Io`: the file is as long as it was, or as short as it was to be.
    pub(crate) fn trim(&mut self) -> Result<u64> {
        let before = self.space.end();
        self.trim_to(self.end.offset.next_multiple_of(UNIT))?;
        Ok(before)
    }

    /// Takes the reserve again that a [`trim`](LogWriter::trim) has given away, which returned
    /// `before`.
    ///
    /// # Errors
    /// `NoSpace`, `Io`: there is none. `InDoubt`, which poisons.
    pub(crate) fn take_back(&mut self, before: u64) -> Result<()> {
        let taken = self.space.take_back(self.end.offset, before, &self.gate);
        taken.map_err(|e| self.space_error(e))
    }

    /// Ends the log with the mark of a clean close, durably, and cuts off the space ahead. A log
    /// that is closed already is left as it is.
    ///
    /// # Errors
    /// `InDoubt`, which poisons; `Io`: everything is durable, without the mark or without the cut.
    pub(crate) fn close(&mut self) -> Result<()> {
        self.sync()?;
        let end = closed_len(self.end.offset);
        if self.end.closed && self.space.len() == end {
            return Ok(());
        }
        let len = match self.mark_closed() {
            Ok(()) => closed_len(self.end.offset),
            // All is durable; the next open only can not tell that this was no crash.
            Err(Error::NoSpace { .. }) => self.end.offset.next_multiple_of(UNIT),
            Err(error) => return Err(error),
        };
        // Order: the mark is durable before the length that promises it.
        self.trim_to(len)?;
        // The length is all that changed: what the frames say is durable.
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

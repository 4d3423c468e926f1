//! Reading a log that a writer may be appending to.

use super::group::GroupRef;
use super::read::{LogReader, NextFrame};
use crate::batch::Seq;
use crate::error::{Error, Result};
use crate::frame::{GROUP, Parsed, padded};

impl LogReader {
    /// Returns the next group that a crash cannot take back at the level of its writer, or `None`
    /// if there is none yet. Commits up to `announced` are known to be durable, and the log is
    /// known to have frames up to the offset `upto`.
    ///
    /// Bytes after those may be half written and mean nothing. If the frames end before, the log
    /// continues after a torn tail, whose end a recovery has marked, or it is damaged.
    ///
    /// # Errors
    /// The errors of [`next`](Self::next), except for `TailSuspect`. A read that overlaps a write
    /// can return any of them, and a later one then does not.
    pub(crate) fn next_live(&mut self, announced: Seq, upto: u64) -> Result<Option<GroupRef<'_>>> {
        (self.tail, self.wasted) = (None, 0);
        self.proven = self.proven.max(announced);
        // The bytes of the buffer were read earlier. A frame in them is whole, and anything else is
        // read again once.
        let mut is_fresh = false;
        loop {
            let offset = self.end.offset;
            let has_more = self.proven > self.end.seq || upto > offset;
            match self.inspect(offset)? {
                NextFrame::Next(parsed) if parsed.header.kind != GROUP => {
                    self.advance(offset, &parsed, self.end.digest, self.end.time_us);
                    continue;
                }
                NextFrame::Next(parsed) if self.may_be_shown(offset, &parsed)? => {
                    return self.take_group(offset, &parsed).map(Some);
                }
                NextFrame::Next(_) if is_fresh => return Ok(None),
                NextFrame::Next(_) => {}
                found if is_fresh => {
                    if !has_more {
                        return Ok(None);
                    }
                    match self.resolve(&found) {
                        Err(Error::TailSuspect { .. }) => return Ok(None),
                        resolved => resolved?,
                    }
                    // Without a tail, the log was found to continue.
                    if self.tail.take().is_some() {
                        return Ok(None);
                    }
                    continue;
                }
                // Most often there is no news. That is found out by a short read.
                _ if !has_more && self.window.is_zero_now(offset)? => {
                    return Ok(None);
                }
                _ => {}
            }
            self.window.refresh()?;
            is_fresh = true;
        }
    }

    /// Returns whether no crash can take back the group at `offset` at the level of its writer: it
    /// is known to be durable, or it was acknowledged before it was.
    fn may_be_shown(&mut self, offset: u64, parsed: &Parsed) -> Result<bool> {
        let header = &parsed.header;
        let last = header.last_seq().unwrap_or(Seq::MAX);
        if header.is_lazy() || last <= self.proven {
            return Ok(true);
        }
        // The next frame has the number of the last commit that was durable when it was written.
        let next = self.parse(offset.saturating_add(padded(header.len())))?;
        Ok(next.is_some_and(|next| {
            next.header.previous == parsed.chain && next.header.durable >= last
        }))
    }
}

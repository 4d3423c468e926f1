//! Writing to a shared log: a frame is appended to slots of the session of this node, and is
//! written when it has come back in the order of the log.

use std::time::Duration;

use super::follower::TRY_MAX;
use super::frame::{HEADER_LEN, Header, Orders};
use super::{AppendError, Buried, Follower, FrameSink, SharedError, Slot};
use crate::error::{Error, Result};

/// The end of an attempt to write a frame.
enum Sent {
    /// The frame was delivered.
    Delivered,
    /// The session has ended. Nothing of the frame was delivered, or will be.
    Fenced,
}

impl Follower {
    /// Writes a frame of the commits of `orders`, decided by the time `time_us` or a later one.
    /// Delivers the frames before it, and then the frame itself, with
    /// [`is_awaited`](super::Frame::is_awaited). Meanwhile it delivers what other nodes write.
    ///
    /// # Errors
    /// `Unanswered` if the frame is in doubt. Any other error: the frame is not in the log, and
    /// never will be.
    pub fn write(
        &mut self,
        orders: &Orders,
        time_us: i64,
        timeout: Duration,
        sink: &mut FrameSink<'_>,
    ) -> Result<()> {
        if let Some(failed) = self.failed() {
            return Err(failed.clone().into());
        }
        let begin = self.clock.monotonic();
        let end = begin.saturating_add(timeout);
        // Order: settle before anything new is sent. A frame that was in doubt is in the log before
        // this one, or never.
        self.settle(end, sink)?;
        let time_us = time_us.max(self.heard.time_us);
        let mut sent = self.send(orders, time_us, (begin, end), sink);
        if let Ok(Sent::Fenced) = sent {
            self.own = None;
            sent = self.send(orders, time_us, (begin, end), sink);
        }
        self.heard.awaited = None;
        match sent? {
            Sent::Delivered => Ok(()),
            Sent::Fenced => {
                self.own = None;
                Err(SharedError::Fenced.into())
            }
        }
    }

    /// Appends the parts of a frame, and delivers it.
    fn send(
        &mut self,
        orders: &Orders,
        time_us: i64,
        times: (Duration, Duration),
        sink: &mut FrameSink<'_>,
    ) -> Result<Sent> {
        if self.left(times.1).is_zero() {
            let (what, waited) = ("settle an earlier commit", times.1.saturating_sub(times.0));
            return Err(SharedError::Away { what, waited }.into());
        }
        let (session, first) = if let Some(own) = self.own {
            own
        } else {
            let session = self.log.begin_session(self.left(times.1).min(TRY_MAX))?;
            *self.own.insert((session, 0))
        };
        let (mark, commits) = (self.mark(), orders.commits());
        let payload_max = self.log.limits().part_max.saturating_sub(HEADER_LEN).max(1);
        let chunks = orders.payload().chunks(payload_max);
        let mut slot = Slot { session, n: first };
        let mut left = chunks.len();
        for chunk in chunks {
            left -= 1;
            let (is_first, is_last) = (slot.n == first, left == 0);
            let header = Header { slot, is_first, is_last, mark, time_us, commits };
            self.heard.awaited = is_last.then_some(slot);
            if let Sent::Fenced = self.append(slot, &header.part(chunk), times, sink)? {
                return Ok(Sent::Fenced);
            }
            if is_last {
                break;
            }
            slot.n += 1;
        }
        // Order: wait for the delivery. The answer of the log alone changes nothing: the frame is
        // decided after all before it (promise 3).
        while !self.heard.has(slot) {
            let delivered = self.deliver(sink);
            if self.heard.has(slot) {
                break;
            }
            if self.failed().is_some() || self.left(times.1).is_zero() {
                return Err(self.in_doubt(slot, times.0));
            }
            if delivered.is_ok() {
                let _ = self.log.wait(self.applied(), self.left(times.1).min(TRY_MAX));
            } else {
                self.clock.sleep(PAUSE);
            }
        }
        if self.failed().is_some() {
            return Err(self.in_doubt(slot, times.0));
        }
        Ok(Sent::Delivered)
    }

    /// Puts `part` into `slot`, with as many calls as it takes.
    fn append(
        &mut self,
        slot: Slot,
        part: &[u8],
        (begin, end): (Duration, Duration),
        sink: &mut FrameSink<'_>,
    ) -> Result<Sent> {
        let mut is_sent = false;
        loop {
            match self.log.append(slot, part, self.left(end).min(TRY_MAX)) {
                Ok(_) => break,
                // No call before this one has put the part into the log, and neither has this one.
                Err(AppendError::Absent(error)) if !is_sent => return Err(error),
                // Nor has any call before it, and none will.
                Err(AppendError::Fenced) => return Ok(Sent::Fenced),
                Err(AppendError::Absent(_) | AppendError::Unanswered) => is_sent = true,
            }
            // Order: deliver between two calls, so that readers of this node see what other nodes
            // write while its own write hangs.
            let _ = self.deliver(sink);
            if self.heard.has(slot) {
                break;
            }
            if self.failed().is_some() || self.left(end).is_zero() {
                return Err(self.in_doubt(slot, begin));
            }
            self.clock.sleep(PAUSE.min(self.left(end)));
        }
        if let Some((session, next)) = &mut self.own
            && *session == slot.session
        {
            *next = slot.n + 1;
        }
        Ok(Sent::Delivered)
    }

    /// Settles a doubt of an earlier write, if there is one: its part is in the log and delivered,
    /// or absent for ever.
    ///
    /// # Errors
    /// `Unsettled` if there is no answer until `end`; the errors of delivering.
    fn settle(&mut self, end: Duration, sink: &mut FrameSink<'_>) -> Result<()> {
        let Some(slot) = self.doubt else { return Ok(()) };
        loop {
            match self.log.bury(slot, self.left(end).min(TRY_MAX)) {
                Ok(Buried::Absent) => break,
                Ok(Buried::Committed(position)) => {
                    self.deliver_to(position, end, sink)?;
                    break;
                }
                Err(AppendError::Fenced) => {
                    self.own = None;
                    break;
                }
                Err(AppendError::Absent(error)) => return Err(error),
                Err(AppendError::Unanswered) if self.left(end).is_zero() => {
                    return Err(SharedError::Unsettled { slot }.into());
                }
                Err(AppendError::Unanswered) => self.clock.sleep(PAUSE.min(self.left(end))),
            }
        }
        self.doubt = None;
        if let Some((session, next)) = &mut self.own
            && *session == slot.session
        {
            *next = slot.n + 1;
        }
        Ok(())
    }

    /// Records that the part in `slot` is in doubt, and returns the error.
    fn in_doubt(&mut self, slot: Slot, begin: Duration) -> Error {
        self.doubt = Some(slot);
        let waited = self.clock.monotonic().saturating_sub(begin);
        SharedError::Unanswered { slot, waited }.into()
    }
}

/// The pause between two calls to a log that does not answer.
const PAUSE: Duration = Duration::from_millis(10);

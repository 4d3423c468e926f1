//! Writing to a shared log: a frame is appended to slots of the session of this node, and is
//! written when it has come back in the order of the log.

use std::time::Duration;

use super::follower::TRY_MAX;
use super::frame::{HEADER_LEN, Header, Orders};
use super::sealing::{SEALED_EXTRA, Sealing};
use super::{AppendError, Buried, Follower, FrameSink, Session, SharedError, Slot};
use crate::error::{Error, Result};
use crate::seal::SealError;

/// The session of this node.
#[derive(Debug)]
pub(super) struct Own {
    session: Session,
    /// The number of the next part.
    next: u64,
    /// `None` in a plain store.
    sealing: Option<Sealing>,
}

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
    /// `Unanswered` and `FailedInDoubt` if the frame is in doubt. Any other error: the frame is not
    /// in the log, and never will be.
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
        let is_worn = |own: &Own| own.sealing.as_ref().is_some_and(Sealing::is_worn);
        if self.own.as_ref().is_none_or(is_worn) {
            let own = self.begin(times.1)?;
            self.own = Some(own);
        }
        let (mark, commits) = (self.mark(), orders.commits());
        let extra = if self.meta.seal().is_some() { SEALED_EXTRA } else { 0 };
        let piece_max = self.log.limits().part_max.saturating_sub(HEADER_LEN + extra).max(1);
        let pieces = orders.payload().chunks(piece_max);
        let mut left = pieces.len();
        let mut slot = self.own_slot();
        let first = slot.n;
        for piece in pieces {
            left -= 1;
            let (is_first, is_last) = (slot.n == first, left == 0);
            let header = Header { slot, is_first, is_last, mark, time_us, commits };
            let sealing = self.own.as_mut().and_then(|own| own.sealing.as_mut());
            // Order: one part for all calls, so that a counter seals one text alone.
            let part = header.part(piece, sealing).map_err(refused)?;
            self.heard.awaited = is_last.then_some(slot);
            if let Sent::Fenced = self.append(slot, &part, times, sink)? {
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
        // Every node has given up the frame before its last part.
        if self.heard.awaited.is_some() {
            let (what, waited) = ("take all parts of a long commit", self.clock.monotonic());
            let waited = waited.saturating_sub(times.0);
            return Err(SharedError::Away { what, waited }.into());
        }
        Ok(Sent::Delivered)
    }

    /// Begins a session of this node.
    fn begin(&mut self, end: Duration) -> Result<Own> {
        let session = self.log.begin_session(self.left(end).min(TRY_MAX))?;
        // Order: look after the session has begun, so that a store that was replaced before that is
        // found out.
        self.meta.check(&*self.log, self.left(end).min(TRY_MAX)).map_err(|e| self.fail(e))?;
        let seal = |seal| Sealing::new(seal, self.meta.store_id(), session).map_err(refused);
        let sealing = self.meta.seal().map(|root| seal(&**root)).transpose()?;
        Ok(Own { session, next: 0, sealing })
    }

    /// Returns the next slot of this node.
    fn own_slot(&self) -> Slot {
        let own = self.own.as_ref().expect("a session was begun");
        Slot { session: own.session, n: own.next }
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
                Err(AppendError::Fenced) if !is_sent => return Ok(Sent::Fenced),
                // Nor has any call before it, and none will. Order: read after the answer. If the
                // slot is free because its entry was trimmed, the read has it or fails.
                Err(AppendError::Fenced) => {
                    if self.deliver(sink).is_ok() && !self.heard.has(slot) {
                        return Ok(Sent::Fenced);
                    }
                }
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
        if let Some(own) = &mut self.own {
            own.next = slot.n + 1;
            if let Some(sealing) = &mut own.sealing {
                sealing.goes_on_after(part);
            }
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
            // A slot that was read is not asked for: its entry may have been trimmed since.
            if self.heard.has(slot) {
                break;
            }
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
        if let Some(own) = &mut self.own {
            own.next = slot.n + 1;
            if let (Some(sealing), Some(chain)) = (&mut own.sealing, self.heard.chain(slot)) {
                sealing.goes_on(chain);
            }
        }
        Ok(())
    }

    /// Records that the part in `slot` is in doubt, and returns the error.
    fn in_doubt(&mut self, slot: Slot, begin: Duration) -> Error {
        self.doubt = Some(slot);
        if let Some(failed) = self.failed() {
            return SharedError::FailedInDoubt { slot, failed: Box::new(failed.clone()) }.into();
        }
        let waited = self.clock.monotonic().saturating_sub(begin);
        SharedError::Unanswered { slot, waited }.into()
    }
}

/// Returns the error of a seal. Nothing was written.
fn refused(source: SealError) -> Error {
    Error::Seal { path: "(shared)".into(), source }
}

/// The pause between two calls to a log that does not answer.
const PAUSE: Duration = Duration::from_millis(10);

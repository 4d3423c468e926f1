//! Reading a shared log: parts become frames, and each frame is delivered once, in the order of the
//! log.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::frame::{Frame, Header};
use super::{Entry, Position, Session, SharedError, SharedLog, Slot};
use crate::batch::Seq;
use crate::error::{Error, Result};
use crate::vfs::Clock;

/// Decides and applies a frame. Returns the state after it. An error ends the reading for good.
pub type FrameSink<'a> = dyn FnMut(Frame<'_>) -> Result<Mark, SharedError> + 'a;

/// The state after a frame: the last commit, and a digest of the history up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The number of the last commit.
    pub seq: Seq,
    /// The digest.
    pub digest: [u8; 16],
}

/// One node of a shared log: what it has read, and what it writes.
#[derive(Debug)]
pub struct Follower {
    pub(super) log: Arc<dyn SharedLog>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) heard: Heard,
    /// The session of this node, and the number of its next part.
    pub(super) own: Option<(Session, u64)>,
    /// A slot of which is not known whether it is taken.
    pub(super) doubt: Option<Slot>,
    /// The error after which this node reads no further.
    failed: Option<SharedError>,
}

/// What was read of the log.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) applied: Position,
    senders: HashMap<Session, Sender>,
    /// The states after the last frames, the newest one last. Never empty after the first frame.
    marks: VecDeque<Mark>,
    /// The time of the last frame.
    pub(super) time_us: i64,
    /// The slot of the last part of the frame that this node writes at present.
    pub(super) awaited: Option<Slot>,
}

/// The parts of one session.
#[derive(Debug, Default)]
struct Sender {
    /// The number of the next part.
    next: u64,
    /// The header of the first part of an unfinished frame, and the payloads so far.
    open: Option<(Header, Vec<u8>)>,
}

impl Follower {
    /// Returns a node that has read nothing.
    pub fn new(log: Arc<dyn SharedLog>, clock: Arc<dyn Clock>) -> Self {
        let heard = Heard { time_us: i64::MIN, ..Heard::default() };
        Self { log, clock, heard, own: None, doubt: None, failed: None }
    }

    /// Returns the position up to which all was delivered.
    pub fn applied(&self) -> Position {
        self.heard.applied
    }

    /// Returns the error after which this node reads and writes no further.
    pub fn failed(&self) -> Option<&SharedError> {
        self.failed.as_ref()
    }

    /// Delivers the frames that the log has now, or some of them. Returns the position up to which
    /// all was delivered.
    ///
    /// # Errors
    /// The errors of reading, after which a later call goes on at the same place. If the error
    /// [is final](SharedError::is_final), as those of `sink` are, each later call returns it.
    pub fn deliver(&mut self, sink: &mut FrameSink<'_>) -> Result<Position> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone().into());
        }
        let mut read = self.read(sink);
        // An engine that has lost an event finds the part when it looks again.
        if let Err(Error::Shared(SharedError::Gap { .. })) = read {
            read = self.read(sink);
        }
        if let Err(Error::Shared(error)) = &read
            && error.is_final()
        {
            self.failed = Some(error.clone());
        }
        read
    }

    fn read(&mut self, sink: &mut FrameSink<'_>) -> Result<Position> {
        let Self { log, heard, .. } = self;
        let upto = log.read(heard.applied, &mut |entry| heard.take(entry, sink))?;
        heard.applied = heard.applied.max(upto);
        Ok(heard.applied)
    }

    /// Delivers up to `position`.
    ///
    /// # Errors
    /// As [`deliver`](Self::deliver); `Away` if the log does not pass it until `end`.
    pub(super) fn deliver_to(
        &mut self,
        position: Position,
        end: Duration,
        sink: &mut FrameSink<'_>,
    ) -> Result<()> {
        loop {
            if self.deliver(sink)? >= position {
                return Ok(());
            }
            let left = self.left(end);
            if left.is_zero() {
                let what = "pass the entries that it has";
                return Err(SharedError::Away { what, waited: TRY_MAX }.into());
            }
            self.log.wait(self.heard.applied, left.min(TRY_MAX))?;
        }
    }

    /// Returns the state after the last frame.
    pub(super) fn mark(&self) -> Mark {
        self.heard.marks.back().copied().unwrap_or_default()
    }

    /// Returns the time until `end`.
    pub(super) fn left(&self, end: Duration) -> Duration {
        end.saturating_sub(self.clock.monotonic())
    }
}

impl Heard {
    /// Returns true if the part in `slot`, or what has buried it, was read.
    pub(super) fn has(&self, slot: Slot) -> bool {
        self.senders.get(&slot.session).is_some_and(|sender| sender.next > slot.n)
    }

    /// Takes an entry, and delivers the frame that it completes.
    fn take(&mut self, entry: Entry<'_>, sink: &mut FrameSink<'_>) -> Result<()> {
        if entry.position <= self.applied {
            return Ok(());
        }
        let Entry { position, slot, part } = entry;
        let sender = self.senders.entry(slot.session).or_default();
        if slot.n > sender.next {
            let (session, expected, found) = (slot.session, sender.next, slot.n);
            return Err(SharedError::Gap { session, expected, found }.into());
        }
        // A slot that was filled before is not filled again.
        let whole = if slot.n == sender.next { sender.add(slot, part)? } else { None };
        if let Some((header, payload)) = whole {
            self.decide(slot, header, &payload, sink)?;
        }
        // Order: after the frame was decided. What fails to be decided was not read, and ends this
        // node.
        self.applied = position;
        Ok(())
    }

    /// Delivers a frame whose last part is in `slot`.
    fn decide(
        &mut self,
        slot: Slot,
        header: Header,
        payload: &[u8],
        sink: &mut FrameSink<'_>,
    ) -> Result<()> {
        self.check(header.mark, slot.session)?;
        self.time_us = self.time_us.max(header.time_us);
        let mark = sink(Frame {
            slot,
            is_awaited: self.awaited == Some(slot),
            time_us: self.time_us,
            commits: header.commits,
            payload,
        })?;
        // A frame that changes nothing leaves the state as it was.
        if self.marks.back() != Some(&mark) {
            self.marks.push_back(mark);
        }
        if self.marks.len() > MARKS_MAX {
            self.marks.pop_front();
        }
        Ok(())
    }

    /// Compares the state of a sender with the state that this node had at the same commit.
    ///
    /// The sender had applied less of the log than this node has now, so this node has had the same
    /// state, unless that is too long ago to be known.
    fn check(&self, theirs: Mark, session: Session) -> Result<()> {
        let is_known = theirs == Mark::default() || self.marks.contains(&theirs);
        let is_older = self.marks.len() == MARKS_MAX
            && self.marks.front().is_some_and(|oldest| theirs.seq < oldest.seq);
        if is_known || is_older {
            return Ok(());
        }
        Err(SharedError::Diverged { seq: theirs.seq, session }.into())
    }
}

impl Sender {
    /// Adds the next part. Returns the frame that it completes.
    fn add(&mut self, slot: Slot, part: &[u8]) -> Result<Option<(Header, Vec<u8>)>> {
        if part.is_empty() {
            // The frame of a buried part is not continued.
            self.next += 1;
            self.open = None;
            return Ok(None);
        }
        let bad = |what| Error::from(SharedError::BadFrame { slot, what });
        let (header, payload) = Header::split(part).map_err(bad)?;
        if header.slot != slot {
            return Err(bad("it was made for another slot"));
        }
        self.next += 1;
        if header.is_first {
            self.open = Some((header, payload.to_vec()));
        } else if let Some((_, open)) = &mut self.open {
            open.extend_from_slice(payload);
        }
        Ok(if header.is_last { self.open.take() } else { None })
    }
}

/// The longest time for which one call to the log may wait. Between two calls, the frames of other
/// nodes are delivered.
pub(super) const TRY_MAX: Duration = Duration::from_secs(1);
/// The number of states that are kept, to be compared with those of other nodes.
const MARKS_MAX: usize = 1024;

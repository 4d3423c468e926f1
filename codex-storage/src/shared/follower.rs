//! Reading a shared log: parts become frames, and each frame is delivered once, in the order of the
//! log.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::frame::{Frame, Header};
use super::sealing::Chain;
use super::sender::Own;
use super::{Entry, Meta, Position, Session, SharedError, SharedLog, Slot};
use crate::batch::Seq;
use crate::error::{Error, Result};
use crate::seal::Opener;
use crate::storage::Anchor;
use crate::vfs::Clock;

/// Decides and applies a frame. Returns the state after it. An error ends the reading for good.
pub type FrameSink<'a> = dyn FnMut(Frame<'_>) -> Result<Mark, SharedError> + 'a;

/// The state after a frame: the last commit, and a digest of the history up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The number of the last commit.
    pub seq: Seq,
    /// The first half of the value of the anchor there.
    pub digest: [u8; 16],
}

impl Mark {
    /// Returns the state of the commit of `anchor`.
    pub fn of(anchor: &Anchor) -> Self {
        let mut digest = [0; 16];
        digest.iter_mut().zip(anchor.value).for_each(|(to, from)| *to = from);
        Self { seq: anchor.seq, digest }
    }
}

/// One node of a shared log: what it has read, and what it writes.
#[derive(Debug)]
pub struct Follower {
    pub(super) log: Arc<dyn SharedLog>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) meta: Arc<Meta>,
    pub(super) heard: Heard,
    /// The session of this node, if it has begun one.
    pub(super) own: Option<Own>,
    /// A slot of which is not known whether it is taken.
    pub(super) doubt: Option<Slot>,
    /// The error after which this node reads no further.
    failed: Option<SharedError>,
}

/// What was read of the log.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) applied: Position,
    pub(super) senders: HashMap<Session, Sender>,
    /// The states after the last frames, the newest one last. Never empty.
    pub(super) marks: VecDeque<Mark>,
    /// The time of the last frame.
    pub(super) time_us: i64,
    /// The slot of the last part of the frame that this node writes at present. `None` after the
    /// frame was decided.
    pub(super) awaited: Option<Slot>,
    /// The number of entries that were read.
    pub(super) entries: u64,
}

/// The parts of one session.
#[derive(Debug, Default)]
pub(super) struct Sender {
    /// The number of the next part.
    pub(super) next: u64,
    pub(super) chain: Chain,
    /// The key of the session, if a part was opened with it.
    opener: Option<Box<dyn Opener>>,
    open: Option<Open>,
}

/// A frame whose last part was not read yet.
#[derive(Debug)]
pub(super) struct Open {
    /// The header of the first part.
    header: Header,
    /// The pieces so far.
    payload: Vec<u8>,
    /// The place of the first part, and what its session had there.
    pub(super) began: (Position, u64, Chain),
    /// The number of the entry with the first part, among those that were read.
    entry: u64,
}

impl Follower {
    /// Returns a node of the store `meta` that has read nothing.
    pub fn new(log: Arc<dyn SharedLog>, clock: Arc<dyn Clock>, meta: Arc<Meta>) -> Self {
        let heard = Heard {
            applied: Position::default(),
            senders: HashMap::new(),
            marks: VecDeque::from([Mark::of(&meta.storage().anchor())]),
            time_us: i64::MIN,
            awaited: None,
            entries: 0,
        };
        Self { log, clock, meta, heard, own: None, doubt: None, failed: None }
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
        read.map_err(|error| self.fail(error))
    }

    /// Keeps `error` if it is final, and returns it.
    pub(super) fn fail(&mut self, error: Error) -> Error {
        if let Error::Shared(error) = &error
            && error.is_final()
        {
            self.failed = Some(error.clone());
        }
        error
    }

    fn read(&mut self, sink: &mut FrameSink<'_>) -> Result<Position> {
        let Self { log, heard, meta, .. } = self;
        let upto = log.read(heard.applied, &mut |entry| heard.take(entry, meta, sink))?;
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

    /// Returns the state after the last frame, or before the first one.
    pub fn mark(&self) -> Mark {
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

    /// Returns that with which the part after `slot` is sealed, if `slot` was read last of its
    /// session.
    pub(super) fn chain(&self, slot: Slot) -> Option<Chain> {
        let sender = self.senders.get(&slot.session)?;
        (sender.next == slot.n + 1).then_some(sender.chain)
    }

    /// Takes an entry, and delivers the frame that it completes.
    fn take(&mut self, entry: Entry<'_>, meta: &Meta, sink: &mut FrameSink<'_>) -> Result<()> {
        if entry.position <= self.applied {
            return Ok(());
        }
        let Entry { position, slot, .. } = entry;
        let count = self.entries + 1;
        let sender = self.senders.entry(slot.session).or_default();
        if slot.n > sender.next {
            let (session, expected, found) = (slot.session, sender.next, slot.n);
            return Err(SharedError::Gap { session, expected, found }.into());
        }
        // A slot that was filled before is not filled again.
        let whole = if slot.n == sender.next { sender.add(entry, count, meta)? } else { None };
        if let Some(Open { header, payload, .. }) = whole {
            self.decide(slot, header, &payload, sink)?;
        }
        // Order: after the frame was decided. What fails to be decided was not read, and ends this
        // node.
        (self.applied, self.entries) = (position, count);
        if count.is_multiple_of(OPEN_MAX) {
            self.senders.values_mut().for_each(|sender| sender.give_up(count));
        }
        Ok(())
    }

    /// Returns the unfinished frames.
    pub(super) fn open(&self) -> impl Iterator<Item = &Open> {
        self.senders.values().filter_map(|sender| sender.open(self.entries))
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
            is_awaited: self.awaited.take_if(|awaited| *awaited == slot).is_some(),
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
        let is_known = self.marks.contains(&theirs);
        let is_older = self.marks.front().is_some_and(|oldest| theirs.seq < oldest.seq);
        if is_known || is_older {
            return Ok(());
        }
        Err(SharedError::Diverged { seq: theirs.seq, session }.into())
    }
}

impl Sender {
    /// Returns a session of which parts were read, in another run of the program.
    pub(super) fn continued(next: u64, chain: Chain) -> Self {
        Self { next, chain, ..Self::default() }
    }

    /// Returns the unfinished frame after `entries` entries were read.
    pub(super) fn open(&self, entries: u64) -> Option<&Open> {
        self.open.as_ref().filter(|open| entries.saturating_sub(open.entry) < OPEN_MAX)
    }

    /// Gives up a frame that has been unfinished for too long, at the same entry on every node.
    /// Otherwise that of a node which has ended would keep the log from being trimmed for ever.
    fn give_up(&mut self, entries: u64) {
        if self.open(entries).is_none() {
            self.open = None;
        }
    }

    /// Adds the next part, which is in the entry of the number `count`. Returns the frame that it
    /// completes.
    fn add(&mut self, entry: Entry<'_>, count: u64, meta: &Meta) -> Result<Option<Open>> {
        let Entry { position, slot, part } = entry;
        let began = (position, self.next, self.chain);
        if part.is_empty() {
            // The frame of a buried part is not continued.
            self.next += 1;
            self.open = None;
            return Ok(None);
        }
        let bad = |what| Error::from(SharedError::BadFrame { slot, what });
        let (header, body) = Header::split(part).map_err(bad)?;
        if header.slot != slot {
            return Err(bad("it was made for another slot"));
        }
        let piece = match meta.seal() {
            Some(_) if !body.is_sealed => return Err(bad("it is not sealed in a sealed log")),
            None if body.is_sealed || body.is_salted => {
                return Err(bad("it is sealed, and the store is not encrypted"));
            }
            None => body.bytes.to_vec(),
            Some(seal) => {
                let session = slot.session;
                let opened = self.chain.open(&**seal, meta, session, &body, &mut self.opener);
                opened.map_err(|_| SharedError::Tampered { slot })?
            }
        };
        self.next += 1;
        self.give_up(count);
        if header.is_first {
            self.open = Some(Open { header, payload: piece, began, entry: count });
        } else if let Some(open) = &mut self.open {
            open.payload.extend_from_slice(&piece);
        }
        Ok(if header.is_last { self.open.take() } else { None })
    }
}

/// The longest time for which one call to the log may wait. Between two calls, the frames of other
/// nodes are delivered.
pub(super) const TRY_MAX: Duration = Duration::from_secs(1);
/// The number of states that are kept, to be compared with those of other nodes.
const MARKS_MAX: usize = 1024;
/// The number of entries after which an unfinished frame is given up.
const OPEN_MAX: u64 = 1 << 16;

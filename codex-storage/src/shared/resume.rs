//! The place of a node in the log, from which another node can go on with the same state.
//!
//! The layout is in `docs/FORMAT.md`, section "Shared log".

use super::follower::{Open, Sender};
use super::sealing::Chain;
use super::{Follower, Mark, Position, Session};
use crate::codec::{Fields, u64_of};
use crate::error::{Error, Result};

impl Follower {
    /// Returns the position after which a node reads that [resumes](Self::resume) the
    /// [place](Self::place) of this one. It is before the unfinished frames, and the entries after
    /// it must not be trimmed.
    pub fn resumes_after(&self) -> Position {
        let begin = |open: &Open| Position(open.began.0.0.saturating_sub(1));
        let before = self.heard.open().map(begin);
        before.fold(self.heard.applied, Position::min)
    }

    /// Returns the place of this node in the log: what a node has to know beside the state after
    /// the last frame, to go on there.
    pub fn place(&self) -> Vec<u8> {
        let (mark, is_sealed) = (self.mark(), self.meta.seal().is_some());
        let mut to = Vec::new();
        to.extend_from_slice(&self.resumes_after().0.to_le_bytes());
        to.extend_from_slice(&mark.seq.to_le_bytes());
        to.extend_from_slice(&mark.digest);
        to.extend_from_slice(&self.heard.time_us.to_le_bytes());
        let mut sessions: Vec<_> = self.heard.senders.iter().collect();
        sessions.sort_unstable_by_key(|(session, _)| **session);
        to.extend_from_slice(&u64_of(sessions.len()).to_le_bytes());
        for (session, sender) in sessions {
            let (mut next, mut chain) = (sender.next, sender.chain);
            // The parts of an unfinished frame are read again.
            if let Some(open) = sender.open(self.heard.entries) {
                (_, next, chain) = open.began;
            }
            to.extend_from_slice(&session.0.to_le_bytes());
            to.extend_from_slice(&next.to_le_bytes());
            if is_sealed {
                chain.encode(&mut to);
            }
        }
        to
    }

    /// Makes this node, which has read nothing, go on at a [place](Self::place) of another one,
    /// whose state it has.
    ///
    /// # Errors
    /// `Damaged` if the bytes are not those of a place.
    pub fn resume(&mut self, place: &[u8]) -> Result<()> {
        let is_sealed = self.meta.seal().is_some();
        let mut fields = Fields::new(place);
        let from = Position(fields.u64());
        let mark = Mark { seq: fields.u64(), digest: fields.array() };
        let (time_us, count) = (fields.i64(), fields.u64());
        let each = if is_sealed { SESSION_LEN + CHAIN_LEN } else { SESSION_LEN };
        let sessions = u64_of(place.len()).checked_sub(HEAD_LEN);
        if sessions != count.checked_mul(each) {
            let what = "the place of an image in the log does not have the length of its count";
            return Err(Error::Damaged { path: PATH.into(), offset: 0, what });
        }
        let heard = &mut self.heard;
        (heard.applied, heard.time_us, heard.marks) = (from, time_us, [mark].into());
        for _ in 0..count {
            let (session, next) = (Session(fields.u64()), fields.u64());
            let chain = if is_sealed { Chain::decode(&mut fields) } else { Chain::default() };
            heard.senders.insert(session, Sender::continued(next, chain));
        }
        Ok(())
    }
}

/// The length of a place without sessions, in bytes.
const HEAD_LEN: u64 = 48;
/// The length of the id of a session and the number of its next part.
const SESSION_LEN: u64 = 16;
/// The length of a salt and a tag.
const CHAIN_LEN: u64 = 48;
/// The record, in errors.
const PATH: &str = "the record `image` of the shared log";

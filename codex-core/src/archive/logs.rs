//! The logs of an open store, which are sent piece by piece.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;

use codex_backup::remote::{LogId, LogStart, Remote};
use codex_storage::batch::Seq;
use codex_storage::storage::LogPart;

use super::ArchiveEvent;
use super::archiver::Shared;
use crate::engine::{ArchivePoint, EndedLogs, Engine};
use crate::error::Result;

/// The logs of an open store.
#[derive(Debug, Default)]
pub(super) struct Logs {
    /// Logs that have ended and were not sent completely, oldest first. Their files may have lost
    /// their names.
    ended: VecDeque<LogPart>,
    /// The end of the pieces of each log.
    sent: HashMap<[u8; 16], Sent>,
    /// The place of the pieces of a ledger, which its image decides.
    ledger: Option<LogStart>,
    /// The last log to which the newest image at the place leads.
    reached: Option<[u8; 16]>,
}

/// The end of the pieces of a log at the place.
#[derive(Debug, Clone, Copy)]
struct Sent {
    log: LogId,
    /// The offset behind the last piece.
    upto: u64,
    /// A commit that the pieces have completely, with all before it.
    seq: Seq,
}

/// The outcome of sending logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The place has all that was to be sent.
    Everything,
    /// The place has other bytes of a log than the store, or more of them: the files of the store
    /// are older than the pieces, for example because its machine was set back.
    WentBack,
}

impl Logs {
    /// Sets where the pieces of a ledger begin.
    pub(super) fn begin_ledger(&mut self, start: LogStart) {
        self.ledger = Some(start);
        self.sent.clear();
    }

    /// Notes that the newest image at the place is continued by this log.
    pub(super) fn begin_at(&mut self, log: Option<[u8; 16]>) {
        self.reached = log;
    }

    /// Returns the last commit of `parts`, which were sent, if the newest image at the place leads
    /// to it. It does not after a cut, a rekey, or if the store was set back: the next image does.
    pub(super) fn reaches(&mut self, parts: &[LogPart]) -> Option<Seq> {
        for part in parts {
            self.pass(part);
        }
        parts.last().filter(|last| self.has_reached(last.file_id)).map(|last| last.seq)
    }

    /// Returns whether the newest image at the place leads to this log, as far as it was sent.
    pub(super) fn has_reached(&self, log: [u8; 16]) -> bool {
        self.reached == Some(log)
    }

    fn pass(&mut self, part: &LogPart) {
        if self.reached == Some(part.follows) {
            self.reached = Some(part.file_id);
        }
    }

    /// Notes that the place has another history of this log.
    fn leave(&mut self, part: &LogPart) {
        self.reached = self.reached.filter(|log| *log != part.file_id);
    }

    /// Takes the files of the store as they are now, and sends their logs.
    pub(super) fn catch_up(
        &mut self,
        remote: &Remote,
        shared: &Shared,
        engine: &Engine,
    ) -> Result<(ArchivePoint, Outcome)> {
        let point = self.point(shared, engine)?;
        let outcome = self.send(remote, &point.parts, shared)?;
        Ok((point, outcome))
    }

    /// Takes the files of the store as they are now.
    pub(super) fn point(&mut self, shared: &Shared, engine: &Engine) -> Result<ArchivePoint> {
        let mut point = engine.archive_point()?;
        let ended = EndedLogs { parts: std::mem::take(&mut point.ended), dropped: point.dropped };
        point.dropped = None;
        self.take(ended, shared);
        Ok(point)
    }

    /// Takes the logs that have ended, and gives the oldest ones up if too much waits.
    pub(super) fn take(&mut self, EndedLogs { parts, dropped }: EndedLogs, shared: &Shared) {
        let mut cut = dropped;
        for part in parts {
            // A log may be handed on more than once. The later part has all of the earlier one.
            self.ended.retain(|earlier| earlier.file_id != part.file_id);
            self.ended.push_back(part);
        }
        let mut bytes: u64 = self.ended.iter().map(|part| self.waiting(part)).sum();
        while bytes > shared.options.behind_bytes_max
            && let Some(oldest) = self.ended.pop_front()
        {
            bytes = bytes.saturating_sub(self.waiting(&oldest));
            cut = Some(joined(cut, oldest.base_seq + 1..=oldest.seq));
        }
        if let Some(commits) = cut {
            shared.count(|stats| stats.cut = Some((*commits.start(), *commits.end())));
            shared.tell(&ArchiveEvent::Cut { commits });
        }
    }

    /// Returns the number of bytes of the log that the place does not have.
    fn waiting(&self, part: &LogPart) -> u64 {
        part.end.saturating_sub(self.sent.get(&part.file_id).map_or(0, |sent| sent.upto))
    }

    /// Sends the logs that have ended, and then `parts`, up to the ends that they name. Those are
    /// durable, so the place gets no commit that a power cut takes back (promise 1).
    pub(super) fn send(
        &mut self,
        remote: &Remote,
        parts: &[LogPart],
        shared: &Shared,
    ) -> Result<Outcome> {
        while let Some(part) = self.ended.front().cloned() {
            // The image that ended a log which went back has all of its commits.
            match self.send_part(remote, &part, shared)? {
                Outcome::Everything => self.pass(&part),
                Outcome::WentBack => self.leave(&part),
            }
            self.ended.pop_front();
        }
        self.sent.retain(|id, _| parts.iter().any(|part| part.file_id == *id));
        for part in parts {
            if self.send_part(remote, part, shared)? == Outcome::WentBack {
                self.leave(part);
                return Ok(Outcome::WentBack);
            }
        }
        Ok(Outcome::Everything)
    }

    fn send_part(&mut self, remote: &Remote, part: &LogPart, shared: &Shared) -> Result<Outcome> {
        let known = self.sent.get(&part.file_id).copied();
        let Some(mut sent) = known.map_or_else(|| self.found(remote, part), |s| Ok(Some(s)))?
        else {
            return Ok(Outcome::WentBack);
        };
        if sent.upto > part.end {
            return Ok(Outcome::WentBack);
        }
        while sent.upto < part.end {
            shared.refuse_if_over()?;
            let bytes = shared.read(part, sent.upto)?;
            if sent.upto + bytes.len() as u64 == part.end {
                sent.seq = part.seq;
            }
            // All commits up to `seq` were made before this time.
            let now_us = shared.now_us();
            let upto = remote.put_piece(&sent.log, sent.upto, &bytes, sent.seq, now_us)?;
            sent.upto = upto;
            self.sent.insert(part.file_id, sent);
            shared.count(|stats| stats.pieces += 1);
        }
        self.sent.insert(part.file_id, sent);
        Ok(Outcome::Everything)
    }

    /// Looks up the end of the pieces of the log. Returns `None` if they are of another history.
    fn found(&self, remote: &Remote, part: &LogPart) -> Result<Option<Sent>> {
        let LogStart { log, from } = self.start(part);
        let end = remote.log_end(&log, from, &*part.file)?;
        Ok(end.map(|end| Sent { log, upto: end.offset, seq: end.seq }))
    }

    /// Returns where the pieces of the log begin.
    fn start(&self, part: &LogPart) -> LogStart {
        let LogPart { base_seq, file_id, follows, .. } = *part;
        match self.ledger {
            Some(start) if start.log.file_id == file_id => start,
            _ => LogStart { log: LogId { base_seq, file_id, follows }, from: 0 },
        }
    }
}

/// Returns both ranges of commits as one.
fn joined(one: Option<RangeInclusive<Seq>>, other: RangeInclusive<Seq>) -> RangeInclusive<Seq> {
    match one {
        None => other,
        Some(one) => *one.start().min(other.start())..=*one.end().max(other.end()),
    }
}

//! The pieces that continue an image, from log to log.

use std::collections::BTreeMap;

use super::fault::Fault;
use super::piece::{HEAD_BYTES, Head, LOGS, LogId, PIECE_BYTES};
use super::{Image, Remote};
use crate::error::Result;

/// A commit, and a time before which it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) seq: u64,
    pub(super) time_us: i64,
}

impl Point {
    /// Returns the last commit of the image. A file that is replaced as a whole was made at its
    /// time; one that grows, only begun.
    pub(super) fn of(image: &Image) -> Self {
        let made = image.facts.time_us.filter(|_| image.facts.frozen);
        let time_us = made.map_or(image.listed_us, |made| made.min(image.listed_us));
        Self { seq: image.facts.seq, time_us }
    }
}

/// The pieces of one log that follow each other without a gap.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) log: LogId,
    pub(super) pieces: Pieces,
    /// The last commit of the last piece.
    pub(super) end: Point,
}

/// The offset and the number of bytes of each piece, ascending and without gaps.
pub(super) type Pieces = Vec<(u64, u64)>;

/// An object that ends a chain, because it is damaged.
type Damaged = (String, Fault);

/// An image and the pieces behind it.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) image: Image,
    pub(super) runs: Vec<Run>,
    pub(super) damage: Option<Damaged>,
}

impl Chain {
    /// Follows the logs that continue `image` until `is_enough` or to their end. `named` are the
    /// logs of all images, newest first: of two logs behind one, that of the newer image counts.
    pub(super) fn follow(
        remote: &Remote,
        image: &Image,
        named: &[LogId],
        is_enough: &dyn Fn(Point) -> bool,
    ) -> Result<Self> {
        let mut chain = Self { image: image.clone(), runs: Vec::new(), damage: None };
        let mut next = match &image.log {
            Some(start) => Some((start.log, found(remote, &start.log, start.from)?)),
            None => None,
        };
        while let Some((log, Found { pieces, gap })) =
            next.take().filter(|(log, _)| !chain.has(log))
        {
            let end = chain.end();
            chain.runs.push(Run { log, pieces, end });
            chain.settle(remote)?;
            let lost = gap.map(|at| (log.piece(at), Fault::Missing));
            chain.damage = chain.damage.take().or(lost);
            let is_whole = chain.damage.is_none() && chain.has(&log);
            // A ledger is one log.
            if is_whole && !chain.is_ledger() && !is_enough(chain.end()) {
                next = successor(remote, &log, chain.end().seq, named)?;
            }
        }
        Ok(chain)
    }

    /// Returns the last commit that the chain leads to.
    pub(super) fn end(&self) -> Point {
        self.runs.last().map_or_else(|| Point::of(&self.image), |run| run.end)
    }

    /// Returns whether the log is a part of the chain.
    pub(super) fn has(&self, log: &LogId) -> bool {
        self.runs.iter().any(|run| run.log == *log)
    }

    /// Returns whether the log that continues the image is the file of the image itself.
    pub(super) fn is_ledger(&self) -> bool {
        self.image.log.is_some_and(|start| start.from > 0)
    }

    /// Ends the chain with the first piece at whose commit `is_reached`, and returns whether there
    /// is one. The commits of the pieces ascend, so few of them are read.
    pub(super) fn cut(
        &mut self,
        remote: &Remote,
        is_reached: &dyn Fn(Point) -> bool,
    ) -> Result<bool> {
        let Some(at) = self.runs.iter().position(|run| is_reached(run.end)) else {
            return Ok(false);
        };
        self.runs.truncate(at + 1);
        let Some(run) = self.runs.last_mut() else { return Ok(false) };
        // The pieces before `low` do not reach it. That at `high` does, or is damaged.
        let (mut low, mut high, mut end) = (0, run.pieces.len().saturating_sub(1), Some(run.end));
        while low < high {
            let middle = low + (high - low) / 2;
            match head(remote, run, middle)? {
                Ok(head) if !is_reached(head) => low = middle + 1,
                Ok(head) => (high, end) = (middle, Some(head)),
                Err(damaged) => {
                    (high, end) = (middle, None);
                    self.damage = Some(damaged);
                }
            }
        }
        if let Some(end) = end {
            run.pieces.truncate(high + 1);
            run.end = end;
            self.damage = None;
            return Ok(true);
        }
        run.pieces.truncate(high);
        self.settle(remote)?;
        Ok(false)
    }

    /// Ends the chain with the first piece that has the commit `seq`, and returns whether it leads
    /// to that.
    pub(super) fn cut_to_seq(&mut self, remote: &Remote, seq: u64) -> Result<bool> {
        if self.image.facts.seq >= seq {
            self.runs.clear();
            self.damage = None;
            return Ok(self.image.facts.seq == seq || !self.image.facts.frozen);
        }
        let is_there = self.cut(remote, &|point| point.seq >= seq)?;
        if let Some(run) = self.runs.last_mut().filter(|_| is_there) {
            run.end.seq = seq;
        }
        Ok(is_there)
    }

    /// Takes the last piece away.
    pub(super) fn pop(&mut self, remote: &Remote) -> Result<()> {
        if let Some(run) = self.runs.last_mut() {
            run.pieces.pop();
        }
        self.settle(remote)
    }

    /// Reads the end of the last run. Pieces that are damaged end the chain.
    fn settle(&mut self, remote: &Remote) -> Result<()> {
        let Some(run) = self.runs.last_mut() else { return Ok(()) };
        while let Some(last) = run.pieces.len().checked_sub(1) {
            match head(remote, run, last)? {
                Ok(end) => {
                    run.end = end;
                    return Ok(());
                }
                Err(damaged) => {
                    self.damage = Some(damaged);
                    run.pieces.pop();
                }
            }
        }
        self.runs.pop();
        Ok(())
    }
}

/// The pieces of a log up to the first gap.
struct Found {
    pieces: Pieces,
    /// The offset of a piece that is lost, because there are later ones.
    gap: Option<u64>,
}

/// Returns the pieces of the log from the offset `from` on, up to a gap.
pub(super) fn pieces(remote: &Remote, log: &LogId, from: u64) -> Result<Pieces> {
    Ok(found(remote, log, from)?.pieces)
}

fn found(remote: &Remote, log: &LogId, from: u64) -> Result<Found> {
    let mut logs = list(remote, &log.pieces())?;
    Ok(run(&logs.remove(log).unwrap_or_default(), from))
}

/// Returns the log that follows `log`, which ends with the commit `seq`, and its pieces.
fn successor(
    remote: &Remote,
    log: &LogId,
    seq: u64,
    named: &[LogId],
) -> Result<Option<(LogId, Found)>> {
    let mut logs = list(remote, &format!("{LOGS}{seq:020}-"))?;
    logs.retain(|next, _| next.follows == log.file_id);
    // Of two, one is of a line of history that was given up.
    let named = named.iter().copied().find(|log| logs.contains_key(log));
    let only = logs.keys().next().copied().filter(|_| logs.len() == 1);
    Ok(named.or(only).and_then(|next| Some((next, run(&logs.remove(&next)?, 0)))))
}

/// Returns the pieces of all logs whose names begin with `prefix`: the number of bytes of each by
/// its offset.
fn list(remote: &Remote, prefix: &str) -> Result<BTreeMap<LogId, BTreeMap<u64, u64>>> {
    let mut logs: BTreeMap<LogId, BTreeMap<u64, u64>> = BTreeMap::new();
    let listed = remote.target.list(prefix, &mut |object| {
        if let Some((log, from)) = LogId::of_piece(&object.name) {
            let len = object.len.saturating_sub(HEAD_BYTES as u64);
            logs.entry(log).or_default().insert(from, len);
        }
    });
    listed.map_err(|fault| remote.fault("", fault))?;
    Ok(logs)
}

/// Returns the pieces from the offset `from` on, up to a gap.
fn run(pieces: &BTreeMap<u64, u64>, from: u64) -> Found {
    let (mut end, mut run) = (from, Pieces::new());
    while let Some(&len) = pieces.get(&end) {
        run.push((end, len));
        // One that is too short or too long is the last: its header tells that it is damaged.
        if !(1..=PIECE_BYTES as u64).contains(&len) {
            return Found { pieces: run, gap: None };
        }
        end += len;
    }
    let gap = pieces.range(end..).next().map(|_| end);
    Found { pieces: run, gap }
}

/// Reads the header of a piece of the run. Returns its commit, or the piece if it is damaged.
fn head(remote: &Remote, run: &Run, at: usize) -> Result<std::result::Result<Point, Damaged>> {
    let Some(&(from, len)) = run.pieces.get(at) else { return Ok(Ok(run.end)) };
    let name = run.log.piece(from);
    let mut head = [0; HEAD_BYTES];
    let read = remote.target.read_at(&name, &mut head, 0);
    match read.and_then(|()| Head::decode(run.log.file_id, from, &head)) {
        Ok(head) if head.len == len => Ok(Ok(Point { seq: head.seq, time_us: head.time_us })),
        Ok(head) => {
            let found = HEAD_BYTES as u64 + len;
            Ok(Err((name, Fault::Truncated { expected: head.object_len(), found })))
        }
        Err(fault @ (Fault::Missing | Fault::Truncated { .. } | Fault::Altered)) => {
            Ok(Err((name, fault)))
        }
        Err(fault @ Fault::NewerFormat) => Ok(Err((name, fault))),
        Err(fault) => Err(remote.fault(&name, fault)),
    }
}

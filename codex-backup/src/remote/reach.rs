//! The way to a moment: an image, and the logs that continue it.

use std::path::PathBuf;
use std::sync::Arc;

use codex_storage::vfs::File;

use super::chain::{Chain, Point, Run};
use super::fault::{Damage, Fault};
use super::log_file::LogFile;
use super::piece::LogId;
use super::{Image, Remote};
use crate::error::Result;

/// A moment in the history of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The last commit that the place has.
    Latest,
    /// Right after the commit with this number.
    Seq(u64),
    /// The last commit before this time, in microseconds since 1970 (UTC), as far as the times of
    /// the pieces tell it: of the commits of one piece, those that were made before the time are
    /// taken for later ones. With images alone, the last image.
    TimeUs(i64),
}

/// An image and the logs that lead from it to a moment. Only headers were read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Reached {
    /// The image to begin with.
    pub image: Image,
    /// The logs to go on with, in order, with their places for messages. They end with the piece
    /// that has the commit `seq`, and need not end with a whole frame.
    ///
    /// Of a ledger there is one file: the image up to the end of its last commit, and the pieces
    /// that continue it. Without a log there is none.
    pub logs: Vec<(Arc<dyn File>, PathBuf)>,
    /// The commit at the moment. If the moment is a time in a file that is its own log, its own
    /// times tell the commit, and this is the last one of the file.
    pub seq: u64,
    /// The time before which that commit was made, in microseconds since 1970 (UTC).
    pub time_us: i64,
    /// The object that is lost or damaged and with which the log ends therefore, if the moment is
    /// the end of the log.
    pub damage: Option<Arc<Damage>>,
}

impl Remote {
    /// Returns an image and the logs that lead from it to `moment`. The newest image that leads
    /// there is taken. Images of a line of history that a restore gave up are passed over.
    ///
    /// A time after the last piece is not reached, because what was committed then is not known;
    /// [`Moment::Latest`] always is.
    ///
    /// # Errors
    /// [`Fault::NotReached`] if the logs end before the moment; [`Fault::Before`] and
    /// [`Fault::NoImages`]; the errors of [`list`](Self::list); the faults of the target.
    pub fn reach(&self, moment: Moment) -> Result<Reached> {
        let images = self.list()?.images;
        let named = images.iter().filter_map(|image| image.log);
        let named: Vec<LogId> = named.map(|start| start.log).collect();
        let mut line = Line::new();
        let mut best: Option<Chain> = None;
        for image in &images {
            if !line.takes(image) {
                continue;
            }
            if is_after(image, moment) {
                line.pass(image, u64::MAX, true);
                continue;
            }
            let mut chain = Chain::follow(self, image, &named, &|end| is_past(end, moment))?;
            let limit = line.limit(&chain);
            if chain.end().seq > limit {
                chain.cut_to_seq(self, limit)?;
            }
            let is_known = line.is_before_one;
            line.pass(image, limit, false);
            if !self.is_there(image)? {
                continue;
            }
            if self.lead(&mut chain, moment, is_known)? {
                return Ok(self.reached(chain, moment));
            }
            let has_log = image.log.is_some();
            if best.as_ref().is_none_or(|best| best.end().seq < chain.end().seq) {
                best = Some(chain);
            }
            // The log of an image leads to all that its own line has behind it.
            if moment == Moment::Latest && has_log {
                break;
            }
        }
        match best {
            Some(chain) if moment == Moment::Latest => Ok(self.reached(chain, moment)),
            best => Err(self.fault("", self.unreached(best, line.oldest))),
        }
    }

    /// Cuts the chain behind the moment. Returns whether it leads there. `is_known` tells that the
    /// next image is after the moment.
    fn lead(&self, chain: &mut Chain, moment: Moment, is_known: bool) -> Result<bool> {
        let end = chain.end();
        match moment {
            Moment::Latest => Ok(false),
            Moment::Seq(seq) => chain.cut_to_seq(self, seq),
            // Its own times tell the commit, so all of it may be needed.
            Moment::TimeUs(time_us) if !chain.image.facts.frozen => {
                Ok(end.time_us.max(chain.image.listed_us) >= time_us)
            }
            Moment::TimeUs(time_us) => {
                if chain.cut(self, &|point| point.time_us > time_us)? {
                    chain.pop(self)?;
                    return Ok(chain.damage.is_none());
                }
                let is_known = is_known && chain.image.log.is_none();
                Ok(chain.damage.is_none() && (is_known || chain.end().time_us == time_us))
            }
        }
    }

    fn reached(&self, mut chain: Chain, moment: Moment) -> Reached {
        let end = chain.end();
        let seq = if let Moment::Seq(seq) = moment { seq } else { end.seq };
        let target = || Arc::clone(&self.target);
        let damage = self.damage(chain.damage.take());
        let mut logs: Vec<(Arc<dyn File>, PathBuf)> = Vec::new();
        if let Some(start) = chain.image.log.filter(|_| chain.is_ledger()) {
            let pieces = chain.runs.into_iter().next().map(|run| run.pieces).unwrap_or_default();
            let image = Some((self.file(&chain.image), chain.image.facts.size));
            let file = LogFile::new(target(), start.log, image, pieces);
            logs.push((Arc::new(file), self.path(&chain.image)));
        } else {
            for Run { log, pieces, .. } in chain.runs {
                let path = self.target.path(&log.pieces());
                logs.push((Arc::new(LogFile::new(target(), log, None, pieces)), path));
            }
        }
        Reached { image: chain.image, logs, seq, time_us: end.time_us, damage }
    }

    fn damage(&self, found: Option<(String, Fault)>) -> Option<Arc<Damage>> {
        found.map(|(name, fault)| Arc::new(Damage { path: self.target.path(&name), fault }))
    }

    fn unreached(&self, best: Option<Chain>, oldest: Option<Point>) -> Fault {
        if let Some(chain) = best {
            let Point { seq, time_us } = chain.end();
            return Fault::NotReached { seq, time_us, damage: self.damage(chain.damage) };
        }
        match oldest {
            Some(Point { seq, time_us }) => Fault::Before { seq, time_us },
            None => Fault::NoImages,
        }
    }
}

/// The newest line of history, from its end back. A restore to an earlier commit began it.
#[derive(Debug)]
struct Line {
    /// The least commit of the images so far. An older image with a greater one was given up.
    least: u64,
    /// The last commit that a line that was given up has in common with this one.
    bound: u64,
    /// Of each newer image, the newest first, its log, its commit, and the last commit of the log
    /// that is of this line.
    newer: Vec<(LogId, u64, u64)>,
    /// Whether the nearest newer image is after the moment.
    is_before_one: bool,
    oldest: Option<Point>,
}

impl Line {
    fn new() -> Self {
        let (least, bound) = (u64::MAX, u64::MAX);
        Self { least, bound, newer: Vec::new(), is_before_one: false, oldest: None }
    }

    /// Goes on to the next older image. Returns whether it is of this line.
    fn takes(&mut self, image: &Image) -> bool {
        if image.facts.seq > self.least {
            self.bound = self.bound.min(self.least);
            return false;
        }
        self.least = image.facts.seq;
        self.oldest = Some(Point::of(image));
        true
    }

    /// Returns the last commit of the chain that is of this line. If no log that continues a newer
    /// image is a part of the chain, that of the next image began another line, or comes after a
    /// gap.
    fn limit(&self, chain: &Chain) -> u64 {
        let shared = self.newer.iter().find(|(log, ..)| chain.has(log));
        let next = self.newer.last();
        match (shared, next) {
            (Some((.., limit)), _) => *limit,
            (None, Some((_, seq, _))) => self.bound.min(*seq),
            (None, None) => self.bound,
        }
    }

    /// Leaves the image, whose log is of this line up to the commit `limit`.
    fn pass(&mut self, image: &Image, limit: u64, is_after: bool) {
        self.newer.extend(image.log.map(|start| (start.log, image.facts.seq, limit)));
        self.is_before_one = is_after;
    }
}

/// Returns whether the image does not have the moment, nor anything before it.
fn is_after(image: &Image, moment: Moment) -> bool {
    let is_whole_past = !image.facts.frozen;
    match moment {
        Moment::Latest => false,
        Moment::Seq(seq) => image.facts.seq > seq && !is_whole_past,
        Moment::TimeUs(time_us) if is_whole_past => {
            image.facts.time_us.unwrap_or(image.listed_us) > time_us
        }
        Moment::TimeUs(time_us) => Point::of(image).time_us > time_us,
    }
}

/// Returns whether nothing behind `end` is needed for the moment.
fn is_past(end: Point, moment: Moment) -> bool {
    match moment {
        Moment::Latest => false,
        Moment::Seq(seq) => end.seq >= seq,
        Moment::TimeUs(time_us) => end.time_us > time_us,
    }
}

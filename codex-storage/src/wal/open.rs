//! From the files to a state.

use super::segments::{Replay, Segment, Segments};
use super::{Earlier, Wal};
use crate::batch::Op;
use crate::error::Result;
use crate::image::ImageReader;
use crate::log::LogState;
use crate::storage::{Cut, Recovered};

impl Wal {
    /// Reads the image and the segments, and makes durable what was read where writing is allowed.
    pub(super) fn replay_all(
        &mut self,
        image: &ImageReader,
        sink: &mut dyn FnMut(Op<'_>) -> Result<()>,
    ) -> Result<Recovered> {
        let segments = if self.place.names.is_backup() {
            Segments::default()
        } else {
            Segments::find(&self.place, &self.image)?
        };
        self.history.inherit(image.replay(sink)?);
        self.watch.pass_listed(self.history.listed(), self.condition.path())?;
        self.watch.pass(self.history.end(), self.condition.path())?;
        let mut found = Recovered {
            seq: self.history.seq(),
            durable: self.history.seq(),
            clean: segments.live.is_empty(),
            locked: self.place.is_locked(),
            stray: segments.stray.map(|generation| self.place.names.segment(generation)),
            ..Recovered::default()
        };
        segments.begin_at(&self.place, &self.image)?;
        let state = self.read(&segments.live, sink, &mut found)?;
        found.anchor = self.watch.end(&mut self.history, self.condition.path())?;
        self.history.list(self.history.end());
        self.leftovers = segments.leftovers;
        if self.condition.writes() {
            self.stray = segments.stray;
            self.start = self.ready(&segments.live, state.as_ref())?;
            self.durable = self.history.seq();
        }
        Ok(found)
    }

    /// Reads the segments and returns what was found of the last one.
    fn read(
        &mut self,
        live: &[Segment],
        sink: &mut dyn FnMut(Op<'_>) -> Result<()>,
        found: &mut Recovered,
    ) -> Result<Option<LogState>> {
        let store = self.condition.path().to_owned();
        let mut replay = Replay { sink, watch: &mut self.watch, store: &store, commits: 0 };
        let mut last = None;
        for (at, segment) in live.iter().enumerate() {
            let next = live.get(at + 1).map(|next| &next.header);
            let state = segment.read(&self.place, next, self.on_damage, &mut replay)?;
            if next.is_some() {
                let (generation, bytes) = (segment.header.generation, state.end.offset);
                self.earlier.push(Earlier { generation, bytes });
            } else {
                last = Some(state);
            }
        }
        found.replayed = replay.commits;
        let (Some(state), Some(segment)) = (&last, live.last()) else { return Ok(last) };
        let end = &state.end;
        self.history.go_on(end.seq, end.digest);
        self.durable = state.durable;
        found.seq = end.seq;
        found.durable = state.durable;
        found.clean = end.closed && state.tail_end.is_none();
        found.cut = state.tail_end.map(|behind| Cut {
            file: self.place.names.segment(segment.header.generation),
            offset: end.offset,
            bytes: behind - end.offset,
            seq: end.seq,
        });
        Ok(last)
    }
}

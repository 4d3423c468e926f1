//! From the files to a state, and to a segment that takes the next commit.

use super::key::is_rekeyed;
use super::segments::{Replay, Segment, Segments};
use super::{Current, Earlier, Wal};
use crate::batch::Op;
use crate::error::{Error, Result};
use crate::header::{FileKind, Header, fresh_id};
use crate::image::{ImageReader, Place, following};
use crate::log::{LogState, NewLog, recover};
use crate::names::Temporary;
use crate::storage::{Anchor, Cut, Recovered};
use crate::vfs::{Mode, Open};

impl Wal {
    /// Reads the image and the segments, and makes the log ready to continue where that is
    /// allowed.
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
        self.watch.pass(self.now.seq, &self.now.digest, self.condition.path())?;
        image.replay(sink)?;
        let mut found = Recovered {
            seq: self.now.seq,
            durable: self.now.seq,
            clean: segments.live.is_empty(),
            locked: self.place.is_locked(),
            ..Recovered::default()
        };
        segments.begin_at(&self.image)?;
        let state = self.read(&segments.live, sink, &mut found)?;
        self.watch.end(self.condition.path())?;
        self.leftovers = segments.leftovers;
        if cfg!(codex_mutant = "leftovers_at_open") {
            self.remove_leftovers();
        }
        if self.condition.writes() {
            if let Some(stray) = segments.stray {
                self.remove_stray(stray);
            }
            match (segments.live.last(), &state) {
                (Some(last), Some(state)) => {
                    self.continue_log(last, state, segments.live.len(), image)?;
                }
                _ => self.attach(image)?,
            }
            self.durable = self.now.seq;
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
        self.now = Anchor { seq: end.seq, digest: end.digest, ..self.now };
        self.durable = state.durable;
        found.seq = end.seq;
        found.durable = state.durable;
        found.clean = end.closed;
        found.cut = state.tail_end.map(|behind| Cut {
            file: self.place.names.segment(segment.header.generation),
            offset: end.offset,
            bytes: behind - end.offset,
            seq: end.seq,
        });
        Ok(last)
    }

    /// Makes the last segment ready for the next commit.
    fn continue_log(
        &mut self,
        last: &Segment,
        state: &LogState,
        live: usize,
        image: &ImageReader,
    ) -> Result<()> {
        let header = &last.header;
        let is_blank = state.frames == 0 && state.tail_end.is_none();
        let is_attached = live == 1 && header.neighbour == [0; 16];
        if is_blank && (live > 1 || is_attached) && !cfg!(codex_mutant = "trust_the_name") {
            // Whoever made it may have failed to make its name durable, or that of the image that
            // names it, and a later sync of the directory proves nothing: name them once more.
            let same = self.new_segment(header.clone())?;
            self.current = Some(self.publish(same)?);
            return if is_attached { self.put(image, self.image.clone()) } else { Ok(()) };
        }
        let place = self.log_place(header.generation);
        let file = place.vfs.dir.open(&place.name, Open::Write);
        let file = file.map_err(|e| Error::not_writable(&last.path, e))?;
        let log = recover(place, file, header, state)?;
        self.current = Some(self.current(log, header.clone()));
        if live == 1 && is_rekeyed(header) {
            // As above: commits rest on the name of the image that has the key.
            return self.put(image, self.image.clone());
        }
        Ok(())
    }

    /// Lets a segment continue an image that is whole by itself.
    fn attach(&mut self, image: &ImageReader) -> Result<()> {
        let whole = &self.image;
        let header = Header {
            kind: FileKind::Log,
            file_id: fresh_id(&self.place.vfs, self.condition.path())?,
            generation: following(whole.generation, self.condition.path())?,
            created_us: self.place.vfs.clock.now_us(),
            image_salt: [0; 32],
            envelope: None,
            ..whole.clone()
        };
        let attached = Header {
            next_generation: header.generation,
            neighbour: header.file_id,
            ..whole.clone()
        };
        let new = self.new_segment(header)?;
        self.current = Some(self.publish(new)?);
        self.put(image, attached)
    }

    /// A segment without frames, complete but for its name.
    pub(super) fn new_segment(&self, header: Header) -> Result<(NewLog, Header)> {
        let place = self.log_place(header.generation);
        let temporary = self.place.names.temporary(Temporary::Segment);
        let new = NewLog::write(place, header.clone(), temporary.clone())?;
        self.inherit(&temporary)?;
        Ok((new, header))
    }

    /// Gives a segment in the making the owner and the permissions of the image, and its own right
    /// to be written.
    pub(super) fn inherit(&self, temporary: &str) -> Result<()> {
        let Place { vfs, names, .. } = &self.place;
        let inherited = vfs.dir.inherit(names.main(), temporary, Some(Mode::Private));
        inherited.map_err(|e| Error::io("give its owner to", &vfs.dir.path(temporary), e))
    }

    /// Gives it its name, whatever had it.
    pub(super) fn publish(&mut self, (new, header): (NewLog, Header)) -> Result<Current> {
        let log = new.publish()?;
        self.leftovers.retain(|&generation| generation != header.generation);
        self.stray = self.stray.filter(|&generation| generation != header.generation);
        Ok(self.current(log, header))
    }

    /// Puts the blocks of `image` below another header in the image's place.
    fn put(&mut self, image: &ImageReader, header: Header) -> Result<()> {
        let written = self.place.image(header.clone()).rewrite_header(image)?;
        self.place
            .install(&written.temporary)
            .map_err(|e| Error::io("put the image in place as", self.condition.path(), e.source))?;
        self.image = header;
        self.remove_leftovers();
        Ok(())
    }
}

//! The work before the first write: an opening without a write changes no file.

use super::key::is_rekeyed;
use super::segments::Segment;
use super::{Current, Wal};
use crate::error::{Error, Result};
use crate::files::StoreFiles;
use crate::header::{FileKind, Header, following, fresh_id};
use crate::image::ImageReader;
use crate::log::{LogState, NewLog, recover};
use crate::names::Temporary;
use crate::storage::Written;
use crate::vfs::{Mode, Open};

/// The work to do before the first write.
#[derive(Debug)]
pub(super) enum Start {
    /// Nothing is read that a later write rests on and that may not be durable.
    Ready,
    /// The segment that an unfinished rekey has left is removed.
    RemoveStray,
    /// A segment is made and the image names it: the image is whole by itself.
    Attach,
    /// The segment with this header, which has no frames, is made and named once more. The handle
    /// that made it may have failed to make its name durable, and a later sync of the directory
    /// proves nothing.
    Segment(Header),
    /// As `Segment`, and the image that names it too.
    Both(Header),
    /// The segment with this header and this end, the mark of a clean close, goes on. The mark
    /// proves that all before it is durable, and is written again before anything follows it.
    Continue(Header, Box<LogState>),
    /// The image that is in place is named once more, for the same reason: commits to the segment
    /// that a rekey has made rest on the image that has the key.
    Image,
}

impl Wal {
    /// Makes the commits that were read durable, and returns the work that is left for the first
    /// write.
    pub(super) fn ready(&mut self, live: &[Segment], state: Option<&LogState>) -> Result<Start> {
        let (Some(last), Some(state)) = (live.last(), state) else { return Ok(Start::Attach) };
        let header = &last.header;
        let is_blank = state.frames == 0 && state.tail_end.is_none();
        let is_attached = live.len() == 1 && header.neighbour == [0; 16];
        if is_blank && (live.len() > 1 || is_attached) {
            let again = if is_attached { Start::Both } else { Start::Segment };
            return Ok(again(header.clone()));
        }
        if state.end.closed && state.tail_end.is_none() {
            return Ok(Start::Continue(header.clone(), Box::new(state.clone())));
        }
        self.go_on(header, state)?;
        Ok(match self.stray {
            _ if self.rests_on_a_rekey(header) => Start::Image,
            Some(_) => Start::RemoveStray,
            None => Start::Ready,
        })
    }

    /// Makes the segment that was read ready for the next frame.
    fn go_on(&mut self, header: &Header, state: &LogState) -> Result<()> {
        let log = self.log_place(header.generation);
        let file = log.vfs.dir.open(&log.name, Open::Write);
        let file = file.map_err(|e| Error::not_writable(&log.path(), e))?;
        let log = recover(log, file, header, state)?;
        self.current = Some(self.current(log, header.clone()));
        Ok(())
    }

    fn rests_on_a_rekey(&self, last: &Header) -> bool {
        self.earlier.is_empty() && is_rekeyed(last)
    }

    /// Prepares the first write, once.
    ///
    /// # Errors
    /// `NoSpace`, `Io`: nothing changed, the next call tries again. `Poisoned`: names are in doubt.
    pub(super) fn start(&mut self) -> Result<()> {
        if matches!(self.start, Start::Ready) {
            return Ok(());
        }
        if let Some(stray) = self.stray {
            self.remove_stray(stray);
        }
        match &self.start {
            Start::Ready | Start::RemoveStray => {}
            Start::Continue(header, state) => {
                let (header, state) = (header.clone(), state.clone());
                if self.rests_on_a_rekey(&header) {
                    self.name_again(None, Some(self.image.clone()))?;
                }
                self.go_on(&header, &state)?;
            }
            Start::Attach => {
                let (segment, image) = self.attached()?;
                self.name_again(Some(segment), Some(image))?;
            }
            Start::Segment(header) => self.name_again(Some(header.clone()), None)?,
            Start::Both(header) => {
                self.name_again(Some(header.clone()), Some(self.image.clone()))?;
            }
            Start::Image => self.name_again(None, Some(self.image.clone()))?,
        }
        self.start = Start::Ready;
        Ok(())
    }

    /// A segment without frames, complete but for its name.
    pub(super) fn new_segment(&self, header: Header) -> Result<(NewLog, Header)> {
        let log = self.log_place(header.generation);
        let temporary = self.files.names.temporary(Temporary::Segment);
        let new = NewLog::write(log, header.clone(), temporary.clone())?;
        self.inherit(&temporary)?;
        Ok((new, header))
    }

    /// Gives a segment in the making the owner and the permissions of the image, and its own right
    /// to be written.
    pub(super) fn inherit(&self, temporary: &str) -> Result<()> {
        let StoreFiles { vfs, names, .. } = &self.files;
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

    /// The headers of a new segment, and of the image that is whole by itself once it names it.
    fn attached(&self) -> Result<(Header, Header)> {
        let whole = &self.image;
        let segment = Header {
            kind: FileKind::Log,
            file_id: fresh_id(&self.files.vfs, self.write_state.path())?,
            generation: following(whole.generation, self.write_state.path())?,
            created_us: self.files.vfs.clock.now_us(),
            image_salt: [0; 32],
            envelope: None,
            ..whole.clone()
        };
        let image = Header {
            next_generation: segment.generation,
            neighbour: segment.file_id,
            ..whole.clone()
        };
        Ok((segment, image))
    }

    /// Makes a segment without frames and the image in place under these headers, then names
    /// them, durably.
    fn name_again(&mut self, segment: Option<Header>, image: Option<Header>) -> Result<()> {
        // Order: both are complete before the first has its name. A full disk is found out while
        // nothing has changed. The image comes first: a segment does with less than it would take.
        let written = image.as_ref().map(|header| self.copy_of_image(header)).transpose()?;
        let segment = segment.map(|header| self.new_segment(header)).transpose();
        let segment = segment.inspect_err(|_| {
            if let Some(written) = &written {
                // A file that stays costs nothing but a name: the next open removes it.
                drop(self.files.vfs.dir.remove(&written.temporary));
            }
        })?;
        if let Some(written) = &written {
            let path = self.write_state.path();
            let prepared = self.files.prepare(&written.temporary, None);
            prepared.map_err(|e| Error::io("replace", path, e))?;
        }
        // Order: the segment before the image that names it.
        if let Some(segment) = segment {
            match self.publish(segment) {
                Ok(current) => self.current = Some(current),
                Err(e) => return Err(self.poison("naming the log segment failed", &e)),
            }
        }
        let (Some(written), Some(header)) = (written, image) else { return Ok(()) };
        if let Err(e) = self.files.put_name(&written.temporary) {
            return Err(self.poison("putting the image in place failed", &e));
        }
        self.image = header;
        self.image_is_named = true;
        self.remove_leftovers();
        Ok(())
    }

    /// The blocks of the image in place below another header, under a temporary name.
    fn copy_of_image(&self, header: &Header) -> Result<Written> {
        let (vfs, names, seal) = (&self.files.vfs, &self.files.names, self.files.seal.clone());
        let image = ImageReader::open(vfs, names.main(), seal)?;
        self.files.image(header.clone()).rewrite_header(&image)
    }
}

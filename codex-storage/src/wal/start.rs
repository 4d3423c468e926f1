//! The work before the first write. An opening without a write changes no file.

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
    /// All files that a later write depends on are durable.
    Ready,
    /// The segment of an unfinished rekey is removed.
    RemoveStray,
    /// A segment is made, and the image gets a header that names it. The image is self-contained so
    /// far.
    Attach,
    /// The segment with this header, which has no frames, is made and named again. The handle that
    /// made it may have failed to make its name durable, and a later sync of the directory is no
    /// proof that it is.
    Segment(Header),
    /// Like `Segment`, and the image that names it is named again too.
    Both(Header),
    /// The segment with this header and this end, a mark of a clean close, is continued. The mark
    /// proves that all frames before it are durable. It is written again before the next frame.
    Continue(Header, Box<LogState>),
    /// The image in place is named again, for the same reason: commits to a segment that a rekey
    /// has made depend on the image under the same key.
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
        // An empty segment may have a name that is not durable, so it is made again before the
        // first write.
        if is_blank && (live.len() > 1 || is_attached) {
            let again = if is_attached { Start::Both } else { Start::Segment };
            return Ok(again(header.clone()));
        }
        // A closed log is durable up to its mark, so it is not touched before the first write.
        if state.end.closed && state.tail_end.is_none() {
            return Ok(Start::Continue(header.clone(), Box::new(state.clone())));
        }
        // Order: durable before the opening returns, since its caller may show the commits to
        // others.
        self.go_on(header, state)?;
        Ok(match self.stray {
            _ if self.rests_on_a_rekey(header) => Start::Image,
            Some(_) => Start::RemoveStray,
            None => Start::Ready,
        })
    }

    /// Prepares the segment that was read for the next frame.
    fn go_on(&mut self, header: &Header, state: &LogState) -> Result<()> {
        let log = self.log_place(header.generation);
        let file = log.vfs.dir.open(&log.name, Open::Write);
        let file = file.map_err(|e| Error::not_writable(&log.path(), e))?;
        let log = recover(log, file, header, state)?;
        self.current = Some(self.current(log, header.clone()));
        Ok(())
    }

    /// Returns whether the log begins with the segment `last`, which a rekey has made.
    fn rests_on_a_rekey(&self, last: &Header) -> bool {
        self.earlier.is_empty() && last.is_rekeyed()
    }

    /// Carries out the work before the first write, once.
    ///
    /// # Errors
    /// `NoSpace` or `Io` if a step fails: nothing has changed, and the next call tries again.
    /// `Poisoned` if names are in doubt.
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
                // Order: the name of the image is durable before a commit depends on it.
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
        // Order: set last, so that a failed step is tried again.
        self.start = Start::Ready;
        Ok(())
    }

    /// Writes a segment without frames that is complete except for its name.
    pub(super) fn new_segment(&self, header: Header) -> Result<(NewLog, Header)> {
        let log = self.log_place(header.generation);
        let temporary = self.files.names.temporary(Temporary::Segment);
        // A segment of normal length is followed by one of about the same.
        let expected = self.current.as_ref().map_or(0, |current| current.log.end().offset);
        let new = NewLog::write(log, header.clone(), temporary.clone(), expected)?;
        self.inherit(&temporary)?;
        Ok((new, header))
    }

    /// Gives an unfinished segment the owner and the permissions of the image, and the permission
    /// to write to it.
    pub(super) fn inherit(&self, temporary: &str) -> Result<()> {
        let StoreFiles { vfs, names, .. } = &self.files;
        let inherited = vfs.dir.inherit(names.main(), temporary, Some(Mode::Private));
        inherited.map_err(|e| Error::io("give its owner to", &vfs.dir.path(temporary), e))
    }

    /// Gives the new segment its name. A file that has this name is replaced.
    pub(super) fn publish(&mut self, (new, header): (NewLog, Header)) -> Result<Current> {
        let log = new.publish()?;
        self.leftovers.retain(|&generation| generation != header.generation);
        self.stray = self.stray.filter(|&generation| generation != header.generation);
        Ok(self.current(log, header))
    }

    /// Returns the headers of a new segment, and of the self-contained image after it names the
    /// segment.
    fn attached(&self) -> Result<(Header, Header)> {
        let whole = &self.image;
        let segment = Header {
            kind: FileKind::Log,
            compression: self.files.compression,
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

    /// Makes an empty segment and the image in place again under these headers, then names them,
    /// durably.
    fn name_again(&mut self, segment: Option<Header>, image: Option<Header>) -> Result<()> {
        // Order: both are complete before the first is named, so that a full disk is detected while
        // nothing has changed. The image comes first, because a segment can be made with less space
        // than it would take.
        let written = image.as_ref().map(|header| self.copy_of_image(header)).transpose()?;
        let segment = segment.map(|header| self.new_segment(header)).transpose();
        let segment = segment.inspect_err(|_| {
            if let Some(written) = &written {
                // An error is ignored: the next open removes the file.
                drop(self.files.vfs.dir.remove(&written.temporary));
            }
        })?;
        if let Some(written) = &written {
            let path = self.write_state.path();
            let prepared = self.files.prepare(&written.temporary, None);
            prepared.map_err(|e| Error::io("replace", path, e))?;
        }
        // Order: the segment before the image that names it, so that the image never names a
        // segment that does not exist.
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

    /// Writes the blocks of the image in place under a temporary name, after another header.
    fn copy_of_image(&self, header: &Header) -> Result<Written> {
        let (vfs, names, seal) = (&self.files.vfs, &self.files.names, self.files.seal.clone());
        let image = ImageReader::open(vfs, names.main(), seal)?;
        // The salt of the blocks was drawn when they were written. Only the file has it.
        let header = Header { image_salt: image.header().image_salt, ..header.clone() };
        self.files.image(header).rewrite_header(&image)
    }
}

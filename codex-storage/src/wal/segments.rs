//! Finding the segments that continue an image, and reading them in their order.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::batch::Seq;
use crate::config::OnDamage;
use crate::error::{Error, Result};
use crate::files::StoreFiles;
use crate::header::{FileKind, Found, Header, following};
use crate::history::{AnchorWatch, Position};
use crate::log::{LogReader, LogState};
use crate::storage::{Cut, Form, OpSink, Recovered};
use crate::vfs::{File, Open};

/// An open segment whose header is authentic.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: Header,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
}

/// The segments beside an image.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// Those that continue it, oldest first.
    pub(super) live: Vec<Segment>,
    /// The generations of those that hold nothing the image lacks.
    pub(super) leftovers: Vec<u64>,
    /// The generation of one that a rekey has made which did not come to its end.
    pub(super) stray: Option<u64>,
}

impl Segments {
    /// Finds the segments that continue the image.
    ///
    /// # Errors
    /// `LogMissing`, `ForeignLog`, `Damaged`, `Tampered`, `Io`.
    pub(super) fn find(files: &StoreFiles, image: &Header) -> Result<Self> {
        let (later, leftovers) = generations(files, image.generation)?;
        let mut found = Self { live: Vec::new(), leftovers, stray: None };
        if image.next_generation == 0 {
            found.leave_blank_ones(files, image, &later)?;
            return Ok(found);
        }
        if image.next_generation != following(image.generation, &files.path())? {
            let what = "the image names a log that is not the next one";
            return Err(Error::Damaged { path: files.path(), offset: 0, what });
        }
        let last = later.last().copied().unwrap_or(0).max(image.next_generation);
        let mut neighbour = image.neighbour;
        for generation in image.next_generation..=last {
            let may_be_stray = generation == last && !found.live.is_empty();
            if may_be_stray && Segment::is_stray(files, image, generation, neighbour)? {
                found.stray = Some(generation);
                break;
            }
            let segment = Segment::open(files, image, generation)?;
            let is_first = generation == image.next_generation;
            let names = if is_first { segment.header.file_id } else { segment.header.neighbour };
            if names == neighbour {
                neighbour = segment.header.file_id;
                found.live.push(segment);
            } else if !is_first && generation == last && segment.is_blank(files)? {
                found.leftovers.push(generation);
            } else {
                return Err(Error::ForeignLog { path: segment.path });
            }
        }
        Ok(found)
    }

    /// Checks that the first segment begins where the image ends.
    ///
    /// # Errors
    /// `Gap`, `ForeignLog`.
    pub(super) fn begin_at(&self, files: &StoreFiles, image: &Header) -> Result<()> {
        let Some(Segment { header, path, .. }) = self.live.first() else { return Ok(()) };
        if header.base_seq != image.base_seq {
            let path = path.clone();
            return Err(Error::Gap { path, expected: image.base_seq, found: header.base_seq });
        }
        // Without the key both digests are masked, each for its own file.
        if header.base_chain != image.base_chain
            || header.base_digest != image.base_digest && !files.is_blind(image)
        {
            return Err(Error::ForeignLog { path: path.clone() });
        }
        Ok(())
    }

    /// Reads the groups of all segments into `replay`, oldest first, and returns the findings of
    /// each.
    ///
    /// # Errors
    /// As [`Segment::read`].
    pub(super) fn read(
        &self,
        files: &StoreFiles,
        on_damage: OnDamage,
        replay: &mut Replay<'_>,
    ) -> Result<Vec<LogState>> {
        let next = self.live.iter().skip(1).map(|next| Some(&next.header)).chain([None]);
        let each = self.live.iter().zip(next);
        each.map(|(segment, next)| segment.read(files, next, on_damage, replay)).collect()
    }

    /// The findings of an opening that has read these segments, up to commit `seq`; `last` are
    /// those of the last one.
    pub(super) fn recovered(
        &self,
        files: &StoreFiles,
        seq: Seq,
        last: Option<&LogState>,
    ) -> Recovered {
        let found = Recovered {
            seq,
            locked: files.is_locked(),
            stray: self.stray.map(|generation| files.names.segment(generation)),
            ..Recovered::default()
        };
        let (Some(state), Some(segment)) = (last, self.live.last()) else {
            return Recovered { durable: seq, clean: true, ..found };
        };
        let end = &state.end;
        Recovered {
            durable: state.durable,
            clean: end.closed && state.tail_end.is_none(),
            cut: state.tail_end.map(|tail_end| Cut {
                file: files.names.segment(segment.header.generation),
                offset: end.offset,
                bytes: tail_end - end.offset,
                seq: end.seq,
            }),
            ..found
        }
    }

    /// Beside an image that is whole by itself there may be a segment that an attach has made and
    /// nothing was written to; anything else belongs to another image.
    fn leave_blank_ones(
        &mut self,
        files: &StoreFiles,
        image: &Header,
        later: &[u64],
    ) -> Result<()> {
        for &generation in later {
            let segment = Segment::open(files, image, generation)?;
            if !segment.is_blank(files)? {
                return Err(Error::ForeignLog { path: segment.path });
            }
            self.leftovers.push(generation);
        }
        Ok(())
    }
}

impl Segment {
    /// The segment whose header is known.
    pub(super) fn at(files: &StoreFiles, header: Header) -> Result<Self> {
        let (path, file) = open_file(files, header.generation)?;
        Ok(Self { header, path, file })
    }

    /// Whether the segment was left by a rekey that did not come to its end: it continues the
    /// one with the file id `neighbour` under a root key that the image does not have, and proves
    /// under the image's that a rekey made it. So nothing was committed to it. Without the key
    /// the proof cannot be checked, and nothing is removed.
    fn is_stray(
        files: &StoreFiles,
        image: &Header,
        generation: u64,
        neighbour: [u8; 16],
    ) -> Result<bool> {
        let (path, file) = open_file(files, generation)?;
        let found = Found::read(&*file, &path)?;
        let header = &found.header;
        let seal = files.seal.as_deref();
        Ok(header.store_id == image.store_id
            && (header.kind, header.form) == (FileKind::Log, Form::Wal)
            && header.generation == generation
            && header.neighbour == neighbour
            && header.cipher == image.cipher
            && header.root_id != image.root_id
            && seal.is_none_or(|seal| found.is_stray_of(seal)))
    }

    fn open(files: &StoreFiles, image: &Header, generation: u64) -> Result<Self> {
        let (path, file) = open_file(files, generation)?;
        let found = Found::read(&*file, &path)?;
        let header = &found.header;
        let is_ours = header.store_id == image.store_id
            && (header.kind, header.form) == (FileKind::Log, Form::Wal)
            && header.generation == generation;
        if !is_ours {
            return Err(Error::ForeignLog { path });
        }
        let header = if files.is_blind(image) {
            found.header
        } else {
            found.authenticate(files.seal.as_deref(), &path)?
        };
        Ok(Self { header, path, file })
    }

    /// Reads the groups into `replay`. `next` is the header of the segment after this one.
    ///
    /// # Errors
    /// As [`LogReader::next`]; `Gap` and `Damaged` when this segment does not reach the next; the
    /// errors of the sink.
    pub(super) fn read(
        &self,
        files: &StoreFiles,
        next: Option<&Header>,
        on_damage: OnDamage,
        replay: &mut Replay<'_>,
    ) -> Result<LogState> {
        let (proven, on_damage) = match next {
            Some(next) => (next.base_seq, OnDamage::Refuse),
            None => (self.header.base_seq, on_damage),
        };
        let mut reader = self.reader(files, proven, on_damage)?;
        while let Some(group) = reader.next()? {
            group.for_each(replay.sink)?;
            replay.commits += u64::from(group.count);
            let end = reader.end();
            let position = Position { seq: end.seq, digest: end.digest };
            replay.watch.pass(position, replay.store)?;
        }
        let state = reader.finish();
        if let Some(next) = next {
            self.reaches(&state, next, files)?;
        }
        Ok(state)
    }

    /// Whether nothing was ever written after the header.
    fn is_blank(&self, files: &StoreFiles) -> Result<bool> {
        let mut reader = self.reader(files, self.header.base_seq, OnDamage::Refuse)?;
        if reader.next()?.is_some() {
            return Ok(false);
        }
        let state = reader.finish();
        Ok(state.frames == 0 && state.tail_end.is_none())
    }

    pub(super) fn reader(
        &self,
        files: &StoreFiles,
        proven: u64,
        on_damage: OnDamage,
    ) -> Result<LogReader> {
        let file = Arc::clone(&self.file);
        LogReader::new(file, &self.path, &self.header, files.seal.clone(), proven, on_damage)
    }

    /// Checks that this segment, read to its end, is all that precedes the segment `next`.
    fn reaches(&self, state: &LogState, next: &Header, files: &StoreFiles) -> Result<()> {
        let end = &state.end;
        if end.seq != next.base_seq {
            let path = files.vfs.dir.path(&files.names.segment(next.generation));
            return Err(Error::Gap { path, expected: end.seq, found: next.base_seq });
        }
        let opened = end.digest == next.base_digest && end.tag == next.base_tag;
        let continues = end.chain == next.base_chain
            && (opened || files.is_blind(next))
            && state.tail_end.is_none();
        if continues {
            return Ok(());
        }
        let what = "the end of the segment is not where the next one begins";
        Err(Error::Damaged { path: self.path.clone(), offset: end.offset, what })
    }
}

fn open_file(files: &StoreFiles, generation: u64) -> Result<(PathBuf, Arc<dyn File>)> {
    let name = files.names.segment(generation);
    let path = files.vfs.dir.path(&name);
    match files.vfs.dir.open(&name, Open::Read) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(Error::LogMissing { path: files.path(), log: name })
        }
        Err(e) => Err(Error::io("open", &path, e)),
        Ok(file) => Ok((path, file)),
    }
}

/// Where the operations of segments go.
pub(super) struct Replay<'a> {
    pub(super) sink: &'a mut OpSink<'a>,
    pub(super) watch: &'a mut AnchorWatch,
    /// The path of the store, for messages.
    pub(super) store: &'a Path,
    /// How many commits there were.
    pub(super) commits: u64,
}

/// The generations of the segments beside the image of generation `image`: above it, ascending, up
/// to the first [`GAP`] that are missing; and from it down, to the first [`GAP_BELOW`] that are
/// missing: a power cut can bring back some of the names that were removed. The folder, which may
/// hold many other files, is not listed.
fn generations(files: &StoreFiles, image: u64) -> Result<(Vec<u64>, Vec<u64>)> {
    let dir = &files.vfs.dir;
    let is_there = |generation: &u64| {
        let name = files.names.segment(*generation);
        let found = dir.metadata(&name).map_err(|e| Error::io("look at", &dir.path(&name), e))?;
        Ok(found.is_some())
    };
    let (mut later, mut missing, mut next) = (Vec::new(), 0, image.checked_add(1));
    while let Some(generation) = next.filter(|_| missing < GAP) {
        if is_there(&generation)? {
            later.push(generation);
            missing = 0;
        } else {
            missing += 1;
        }
        next = generation.checked_add(1);
    }
    let (mut leftovers, mut missing, mut next) = (Vec::new(), 0, image);
    while next > 0 && missing < GAP_BELOW {
        if is_there(&next)? {
            leftovers.push(next);
            missing = 0;
        } else {
            missing += 1;
        }
        next -= 1;
    }
    Ok((later, leftovers))
}

/// How many missing segments in a row end the search for later ones: one that was removed from the
/// middle is found, by the one after it.
const GAP: u32 = 2;
/// As [`GAP`], for segments that no image needs.
const GAP_BELOW: u32 = 8;

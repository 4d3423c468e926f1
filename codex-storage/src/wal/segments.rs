//! Finding the segments that continue an image, and reading them in order.

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
pub(crate) struct Segment {
    pub(crate) header: Header,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
}

/// The segments beside an image.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    /// The segments that continue the image, oldest first.
    pub(crate) live: Vec<Segment>,
    /// The generations of segments whose commits the image contains.
    pub(super) leftovers: Vec<u64>,
    /// The generation of a segment from a rekey that did not finish.
    pub(super) stray: Option<u64>,
}

impl Segments {
    /// Finds the segments that continue the image.
    ///
    /// # Errors
    /// - `LogMissing` if the image or a later segment needs a segment that does not exist.
    /// - `ForeignLog` if a segment belongs to another store or continues another file.
    /// - `Damaged`, `Tampered` or `Io` if a header cannot be read.
    pub(crate) fn find(files: &StoreFiles, image: &Header) -> Result<Self> {
        let (later, leftovers) = generations(files, image.generation)?;
        let mut found = Self { live: Vec::new(), leftovers, stray: None };
        // A self-contained image has no segments.
        if image.next_generation == 0 {
            found.leave_blank_ones(files, image, &later)?;
            return Ok(found);
        }
        if image.next_generation != following(image.generation, &files.path())? {
            let what = "the image names a log that is not the next one";
            return Err(Error::Damaged { path: files.path(), offset: 0, what });
        }
        let last = later.last().copied().unwrap_or(0).max(image.next_generation);
        // Each segment names the file id of the one before it. The image names the file id of the
        // first.
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
                // An empty last segment has no commit, so it is a leftover of an earlier attempt.
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
    /// `Gap` if commits are missing between the two, `ForeignLog` if the segment continues another
    /// history.
    pub(crate) fn begin_at(&self, files: &StoreFiles, image: &Header) -> Result<()> {
        let Some(Segment { header, path, .. }) = self.live.first() else { return Ok(()) };
        if header.base_seq != image.base_seq {
            let path = path.clone();
            return Err(Error::Gap { path, expected: image.base_seq, found: header.base_seq });
        }
        // Without the key both digests are masked, each for its own file, and cannot be compared.
        if header.base_chain != image.base_chain
            || header.base_digest != image.base_digest && !files.is_blind(image)
        {
            return Err(Error::ForeignLog { path: path.clone() });
        }
        Ok(())
    }

    /// Reads the groups of all segments into `replay`, oldest first, and returns the findings for
    /// each segment.
    ///
    /// # Errors
    /// The errors of [`Segment::read`].
    pub(super) fn read(
        &self,
        files: &StoreFiles,
        on_damage: OnDamage,
        replay: &mut Replay<'_>,
    ) -> Result<Vec<LogState>> {
        // Each segment is checked against the header of the next one.
        let next = self.live.iter().skip(1).map(|next| Some(&next.header)).chain([None]);
        let each = self.live.iter().zip(next);
        each.map(|(segment, next)| segment.read(files, next, on_damage, replay)).collect()
    }

    /// Returns the time at which the newest of these segments and of `image` was created.
    pub(super) fn newest_us(&self, image: &Header) -> i64 {
        let created = self.live.iter().map(|segment| segment.header.created_us);
        created.fold(image.created_us, i64::max)
    }

    /// Returns the findings of an opening that has read these segments up to commit `seq`. `last`
    /// has the findings of the last segment.
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

    /// Lists the empty segments beside a self-contained image as leftovers. An attach makes such a
    /// segment before anything is written to it. A segment with frames belongs to another image,
    /// and is refused.
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
    /// Opens the segment with a known header.
    pub(super) fn at(files: &StoreFiles, header: Header) -> Result<Self> {
        let (path, file) = open_file(files, header.generation)?;
        Ok(Self { header, path, file })
    }

    /// Returns whether the segment is from a rekey that did not finish, so that nothing was
    /// committed to it. It continues the segment with the file id `neighbour` under a root key that
    /// the image does not have, and it has a proof under the root key of the image that a rekey
    /// made it. Without the key the proof cannot be checked, and nothing is removed.
    pub(super) fn is_stray(
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

    /// Opens the segment `generation` of the store with this image, and authenticates its header.
    pub(super) fn open(files: &StoreFiles, image: &Header, generation: u64) -> Result<Self> {
        let (path, file) = open_file(files, generation)?;
        let found = Found::read(&*file, &path)?;
        let header = &found.header;
        let is_ours = header.store_id == image.store_id
            && (header.kind, header.form) == (FileKind::Log, Form::Wal)
            && header.generation == generation;
        if !is_ours {
            return Err(Error::ForeignLog { path });
        }
        // Without the key only the checksum of the header can be checked.
        let header = if files.is_blind(image) {
            found.header
        } else {
            found.authenticate(files.seal.as_deref(), &path)?
        };
        Ok(Self { header, path, file })
    }

    /// Reads the groups into `replay`. `next` is the header of the next segment.
    ///
    /// # Errors
    /// The errors of [`LogReader::next`] and of the sink. `Gap` or `Damaged` if this segment does
    /// not end where the next one begins.
    pub(super) fn read(
        &self,
        files: &StoreFiles,
        next: Option<&Header>,
        on_damage: OnDamage,
        replay: &mut Replay<'_>,
    ) -> Result<LogState> {
        // The next segment proves all commits of this one durable, so a tail here is damage, even
        // if the caller allows to cut the last one.
        let (proven, on_damage) = match next {
            Some(next) => (next.base_seq, OnDamage::Refuse),
            None => (self.header.base_seq, on_damage),
        };
        let mut reader = self.reader(files, proven, on_damage)?;
        // A segment that another one continues has ended, and is read to its end.
        let upto = if next.is_some() { Seq::MAX } else { replay.upto };
        while reader.end().seq < upto {
            let Some(group) = reader.next()? else { break };
            // Order: the group is applied before the anchor is checked. If the check fails, the
            // opening returns an error and its caller discards the state.
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

    /// Returns whether no frame was ever written after the header.
    fn is_blank(&self, files: &StoreFiles) -> Result<bool> {
        let mut reader = self.reader(files, self.header.base_seq, OnDamage::Refuse)?;
        if reader.next()?.is_some() {
            return Ok(false);
        }
        let state = reader.finish();
        Ok(state.frames == 0 && state.tail_end.is_none())
    }

    /// Returns a reader of the segment. Commits up to `proven` are known to be durable.
    pub(super) fn reader(
        &self,
        files: &StoreFiles,
        proven: u64,
        on_damage: OnDamage,
    ) -> Result<LogReader> {
        let file = Arc::clone(&self.file);
        LogReader::new(file, &self.path, &self.header, files.seal.clone(), proven, on_damage)
    }

    /// Checks that this segment, read to its end, ends where the segment `next` begins.
    fn reaches(&self, state: &LogState, next: &Header, files: &StoreFiles) -> Result<()> {
        let end = &state.end;
        if end.seq != next.base_seq {
            let path = files.vfs.dir.path(&files.names.segment(next.generation));
            return Err(Error::Gap { path, expected: end.seq, found: next.base_seq });
        }
        // Without the key, digest and tag are masked, and only the chain is compared.
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

/// Opens the file of the segment `generation` for reading.
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

/// The receivers of the operations in segments.
pub(super) struct Replay<'a> {
    pub(super) sink: &'a mut OpSink<'a>,
    pub(super) watch: &'a mut AnchorWatch,
    /// The path of the store, for messages.
    pub(super) store: &'a Path,
    /// The commit up to which the last segment is read.
    pub(super) upto: Seq,
    /// The number of commits that were replayed.
    pub(super) commits: u64,
}

impl<'a> Replay<'a> {
    /// Reads the segments to their end.
    pub(super) fn new(
        sink: &'a mut OpSink<'a>,
        watch: &'a mut AnchorWatch,
        store: &'a Path,
    ) -> Self {
        Self { sink, watch, store, upto: Seq::MAX, commits: 0 }
    }
}

/// Returns the generations of the segments around the image of generation `image`. The first list
/// has those above it in ascending order, up to the first [`GAP`] missing ones. The second has
/// those from `image` down, up to the first [`GAP_BELOW`] missing ones, because a power cut can
/// bring back some of the removed names. The directory, which may contain many other files, is not
/// listed.
fn generations(files: &StoreFiles, image: u64) -> Result<(Vec<u64>, Vec<u64>)> {
    let dir = &files.vfs.dir;
    let is_there = |generation: &u64| -> Result<bool> {
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

/// The number of missing segments in a row that ends the search for later ones. If one segment was
/// removed from the middle, it is found missing because of the one after it.
const GAP: u32 = 2;
/// Like [`GAP`], for segments that no image needs.
const GAP_BELOW: u32 = 8;

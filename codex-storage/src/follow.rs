//! Reading on beside a writer: the place in the files of a store up to which they were read.
//!
//! A follower takes no lock, not even for a moment: a shared lock would refuse a writer that does
//! not wait. It holds the files open that it reads, so a writer may remove or replace them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::{Records, Seq};
use crate::config::OnDamage;
use crate::digest::Stamp;
use crate::error::{Error, Result};
use crate::files::StoreFiles;
use crate::header::Header;
use crate::history::{AnchorWatch, History, Position};
use crate::live::{LiveLog, LiveRecord, read_live};
use crate::log::{GroupRef, LogReader};
use crate::open::read_main;
use crate::read_only::ReadOnly;
use crate::storage::{Form, OpSink, Recovered, Storage};
use crate::vfs::File;
use crate::wal::{Segment, Segments};

/// Receives the commits of a writer.
pub type DeliverySink<'a> = dyn FnMut(Delivered<'_>) -> Result<()> + 'a;

/// A commit of a writer, which [`Storage::follow`] passes on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Delivered<'a> {
    /// The number of the commit.
    pub seq: Seq,
    /// The operations of the commit.
    pub ops: Records<'a>,
}

/// The result of [`Storage::follow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Followed {
    /// A group was passed on. There may be more.
    Group {
        /// The time at which the writer has announced the last commit of the group, in microseconds
        /// since 1970. `None` if the writer has announced another commit meanwhile, or none.
        announced_us: Option<i64>,
    },
    /// There are no more commits now.
    Idle,
    /// The files do not show how they continue the commits that were passed on. The store has to be
    /// opened again.
    Lost,
}

/// A place in the files of a store, from which their commits are read on.
#[derive(Debug)]
pub(crate) struct Follower {
    form: Form,
    /// The main file. It is held open, so that no other file gets its identity.
    main: Held,
    /// The log that is read, or `None` after an image that no log continues yet.
    current: Option<Log>,
    /// The segments that continue it, oldest first.
    ahead: VecDeque<Segment>,
    /// The last commit that was passed on.
    position: Position,
    /// The last commit of the image that seems to have taken the place of the current log.
    contained: Option<Position>,
    /// Whether a commit was passed on only in part, so that nothing may be passed on after it.
    is_lost: bool,
}

/// An open file that had the name of the store.
#[derive(Debug)]
struct Held {
    _file: Arc<dyn File>,
    identity: u64,
}

/// An open log.
#[derive(Debug)]
struct Log {
    reader: LogReader,
    generation: u64,
    id: LiveLog,
}

/// Receives a group, and the position after it.
pub(crate) type Pass<'a> = dyn FnMut(&GroupRef<'_>, Position) -> Result<()> + 'a;

impl Follower {
    /// Returns the place after the image with the header `image`, in the file `main`, which the
    /// segments `live` continue.
    pub(crate) fn after_image(
        files: &StoreFiles,
        main: Arc<dyn File>,
        image: &Header,
        live: Vec<Segment>,
    ) -> Result<Self> {
        Ok(Self {
            form: image.form,
            main: Held::new(main, &files.path())?,
            current: None,
            ahead: live.into(),
            position: Position::base(image),
            contained: None,
            is_lost: false,
        })
    }

    /// Returns the place at the beginning of the ledger `main` with the header `header`.
    pub(crate) fn in_ledger(
        files: &StoreFiles,
        main: Arc<dyn File>,
        header: &Header,
    ) -> Result<Self> {
        let current = Log::open(files, header, Arc::clone(&main), &files.path())?;
        let mut follower = Self::after_image(files, main, header, Vec::new())?;
        follower.current = Some(current);
        Ok(follower)
    }

    /// Reads on from this place to the end, and returns the storage that continues from there.
    /// `newest_us` is the newest time in the files that were read before.
    ///
    /// # Errors
    /// As [`open`](crate::open).
    pub(crate) fn open(
        mut self,
        files: StoreFiles,
        header: Header,
        mut history: History,
        mut watch: AnchorWatch,
        newest_us: i64,
        sink: &mut OpSink<'_>,
    ) -> Result<(Box<dyn Storage>, Recovered)> {
        let (path, before) = (files.path(), history.seq());
        let is_ledger = self.form == Form::Ledger;
        let mut pass = |group: &GroupRef<'_>, end: Position| {
            if is_ledger {
                group.for_each_commit(&mut |commit| {
                    let digest = Stamp::read(commit.batch.extra).digest;
                    let position = Position { seq: commit.seq, digest };
                    history.list(position);
                    watch.pass(position, &path)
                })?;
            }
            group.for_each(sink)?;
            history.go_on(end.seq, end.digest);
            if is_ledger { Ok(()) } else { watch.pass(end, &path) }
        };
        // A follower that is lost shows the state up to here, and is opened again.
        while matches!(self.next(&files, &mut pass)?, Followed::Group { .. }) {}
        let anchor = watch.end(&mut history, &path)?;
        history.list(history.end());
        let time_us = self.current.as_ref().map_or(i64::MIN, |log| log.reader.end().time_us);
        let seq = history.seq();
        let recovered = Recovered {
            seq,
            durable: seq,
            newest_us: newest_us.max(time_us),
            replayed: seq - before,
            anchor,
            ..Recovered::default()
        };
        let storage = ReadOnly::following(files, header, history, self);
        Ok((Box::new(storage), recovered))
    }

    /// Returns the used bytes of the log that is read.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.current.as_ref().map_or(0, |log| log.reader.end().offset)
    }

    /// Passes the next group to `pass`, if there is one that no crash can take back.
    ///
    /// # Errors
    /// As [`Storage::follow`](crate::storage::Storage::follow).
    pub(crate) fn next(&mut self, files: &StoreFiles, pass: &mut Pass<'_>) -> Result<Followed> {
        for attempt in 1.. {
            match self.try_next(files, pass) {
                // A read that overlaps a write, or a look at names that are changing, can find
                // anything. The next one then finds the files whole.
                Err(_) if !self.is_lost && attempt < ATTEMPTS_MAX => {
                    files.vfs.clock.sleep(PAUSE);
                    self.read_again()?;
                }
                done => return done,
            }
        }
        unreachable!("the last attempt returns");
    }

    fn try_next(&mut self, files: &StoreFiles, pass: &mut Pass<'_>) -> Result<Followed> {
        let mut is_found = false;
        loop {
            if self.is_lost {
                return Ok(Followed::Lost);
            }
            // Order: the announcement before the frames. All that it announces is in the log by
            // the time at which it is read.
            let live = read_live(&files.vfs, &files.names);
            let read = self.read_on(&live, pass);
            let is_short = self.contained.is_some_and(|end| end != self.position);
            match read {
                Ok(Some(followed)) => return Ok(followed),
                // A restore has put another history in place, whose image does not contain this
                // log.
                _ if is_short && !self.is_lost => {
                    self.is_lost = true;
                    continue;
                }
                Err(error) => return Err(error),
                Ok(None) => {}
            }
            if self.enter_next(files)? {
                continue;
            }
            // The names are looked at after the end of the frames was reached.
            if is_found || !self.has_changed(files)? {
                return Ok(Followed::Idle);
            }
            self.find_place(files)?;
            is_found = true;
        }
    }

    /// Passes the next group of the current log to `pass`, if it has one.
    fn read_on(&mut self, live: &[LiveRecord], pass: &mut Pass<'_>) -> Result<Option<Followed>> {
        let Some(Log { reader, id, .. }) = &mut self.current else { return Ok(None) };
        // Each of them is true. An earlier writer of the same file may have left one of them.
        let own = live.iter().filter(|record| record.log == *id);
        let record = own.max_by_key(|record| record.durable);
        let (announced, upto) = record.map_or((0, 0), |record| (record.durable, record.offset));
        // A segment begins after all commits of the one before it are durable, and so does an
        // image that contains them.
        let next = self.ahead.front().map_or(0, |next| next.header.base_seq);
        let durable = announced.max(next).max(self.contained.map_or(0, |end| end.seq));
        let Some(group) = reader.next_live(durable, upto)? else { return Ok(None) };
        let last = group.first + u64::from(group.count) - 1;
        let position = Position { seq: last, digest: group.digest };
        // Order: lost until the whole group is passed on. The reader is after it already.
        self.is_lost = true;
        pass(&group, position)?;
        (self.is_lost, self.position) = (false, position);
        let announced = record.filter(|record| record.durable == last);
        Ok(Some(Followed::Group { announced_us: announced.map(|record| record.at_us) }))
    }

    /// Goes to the segment that continues the current log. Returns false if none is known.
    ///
    /// # Errors
    /// `Gap` or `Damaged` if the log does not end where the segment begins.
    fn enter_next(&mut self, files: &StoreFiles) -> Result<bool> {
        let Some(next) = self.ahead.front() else { return Ok(false) };
        let (header, position) = (&next.header, self.position);
        if header.base_seq != position.seq {
            let (expected, found) = (position.seq, header.base_seq);
            return Err(Error::Gap { path: next.path.clone(), expected, found });
        }
        if header.base_digest != position.digest {
            let what = "the end of the segment is not where the next one begins";
            let path = files.path();
            return Err(Error::Damaged { path, offset: self.log_bytes(), what });
        }
        self.current = Some(Log::open(files, header, Arc::clone(&next.file), &next.path)?);
        self.ahead.pop_front();
        Ok(true)
    }

    /// Returns whether the names show other files than those that are read.
    fn has_changed(&self, files: &StoreFiles) -> Result<bool> {
        if identity_of(files, files.names.main())? != Some(self.main.identity) {
            return Ok(true);
        }
        let segment = self.current.as_ref().filter(|_| self.form == Form::Wal);
        let Some(Log { generation, id, .. }) = segment else { return Ok(false) };
        // The segment after this one, or this one, made again by a writer that has not written yet.
        let next = files.names.segment(generation.saturating_add(1));
        let own = files.names.segment(*generation);
        Ok(identity_of(files, &next)?.is_some() || identity_of(files, &own)? != Some(id.identity))
    }

    /// Looks for the current place in the files that have the names now, and finds the segments
    /// that continue it. If they do not show the place, this follower is lost.
    fn find_place(&mut self, files: &StoreFiles) -> Result<()> {
        let path = files.path();
        let Some((main, found)) = read_main(&files.vfs, &files.names, &path)? else {
            return Err(Error::NotFound { path });
        };
        let root_id = files.seal.as_ref().map_or([0; 16], |seal| seal.root_id());
        let is_readable = found.header.form == Form::Wal && found.header.root_id == root_id;
        // A ledger has another file only if its frames may be others, too.
        if self.form == Form::Ledger || !is_readable {
            self.is_lost = true;
            return Ok(());
        }
        let image = found.authenticate(files.seal.as_deref(), &path)?;
        let segments = Segments::find(files, &image)?;
        self.is_lost = !self.is_continued_by(files, &image, segments)?;
        self.main = Held::new(main, &path)?;
        Ok(())
    }

    /// Continues with the segments of `image`, and returns true, if they show the current place.
    fn is_continued_by(
        &mut self,
        files: &StoreFiles,
        image: &Header,
        segments: Segments,
    ) -> Result<bool> {
        // After an image that has exactly the commits that were passed on.
        if Position::base(image) == self.position {
            segments.begin_at(files, image)?;
            (self.current, self.ahead, self.contained) = (None, segments.live.into(), None);
            return Ok(true);
        }
        let Some(log) = &self.current else { return Ok(false) };
        // After the last segment that is known, if it is there, or if the first one continues it.
        let last = self.ahead.back().map_or(log.id.file_id, |last| last.header.file_id);
        let mut live = VecDeque::from(segments.live);
        let known = live.iter().position(|segment| segment.header.file_id == last);
        let next = live.front().is_some_and(|first| first.header.neighbour == last);
        match known {
            Some(at) => {
                let mut later = live.split_off(at);
                let known = later.pop_front().filter(|_| self.ahead.is_empty());
                self.ahead.append(&mut later);
                known.map_or(Ok(true), |segment| self.is_read_from(files, &segment))
            }
            None if next => {
                self.ahead.append(&mut live);
                Ok(true)
            }
            // The store was closed into an image, which contains the rest of the last segment.
            None => {
                self.contained = Some(Position::base(image));
                let is_closed = image.next_generation == 0 && image.generation == log.generation;
                Ok(is_closed && self.ahead.is_empty() && image.base_seq > self.position.seq)
            }
        }
    }

    /// Returns true if the current log is the file of `segment`. An empty one that a writer has
    /// made again takes its place.
    fn is_read_from(&mut self, files: &StoreFiles, segment: &Segment) -> Result<bool> {
        let Some(log) = &self.current else { return Ok(false) };
        let found = Log::open(files, &segment.header, Arc::clone(&segment.file), &segment.path)?;
        if found.id == log.id {
            return Ok(true);
        }
        let is_empty = log.reader.end() == found.reader.end();
        self.current = Some(found);
        Ok(is_empty)
    }

    /// Discards the bytes that were read ahead.
    fn read_again(&mut self) -> Result<()> {
        self.current.as_mut().map_or(Ok(()), |log| log.reader.refresh())
    }
}

impl Held {
    fn new(file: Arc<dyn File>, path: &Path) -> Result<Self> {
        let identity = file.identity().map_err(|e| Error::io("look at", path, e))?;
        Ok(Self { _file: file, identity })
    }
}

impl Log {
    fn open(files: &StoreFiles, header: &Header, file: Arc<dyn File>, path: &Path) -> Result<Self> {
        let identity = file.identity().map_err(|e| Error::io("look at", path, e))?;
        let id = LiveLog { file_id: header.file_id, identity };
        let seal = files.seal.clone();
        let reader = LogReader::new(file, path, header, seal, 0, OnDamage::Refuse)?;
        Ok(Self { reader, generation: header.generation, id })
    }
}

/// Returns the identity of the file `name`, or `None` if there is none.
fn identity_of(files: &StoreFiles, name: &str) -> Result<Option<u64>> {
    let dir = &files.vfs.dir;
    let found = dir.metadata(name).map_err(|e| Error::io("look at", &dir.path(name), e))?;
    Ok(found.map(|found| found.identity))
}

/// The number of attempts to find the next group.
const ATTEMPTS_MAX: u32 = 8;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(1);

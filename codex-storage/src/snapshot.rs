//! The Snapshot form: one image that is always whole, written anew for each commit group.
//!
//! At `Durability::Interval` a commit is only numbered, and a checkpoint writes the image once an
//! interval.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::batch::{Group, Layout, Op, Seq};
use crate::condition::Condition;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::header::{Header, NUMBER_MAX, following, fresh_id};
use crate::history::{AnchorWatch, History, Position};
use crate::image::{ImageReader, ImageSpec, NotInstalled, Place, discard, in_blocks};
use crate::lock::StoreLock;
use crate::seal::{Keys, Seal};
use crate::storage::{
    Anchor, Checkpoint, Durability, Form, Recovered, State, Storage, StorageStats, SyncPoint,
    Written,
};
use crate::vfs::{Open, Vfs};

/// An open store of the form Snapshot.
#[derive(Debug)]
pub(crate) struct Snapshot {
    place: Place,
    condition: Condition,
    durability: Durability,
    /// What is read by [`Storage::replay`], and then given up.
    image: Option<ImageReader>,
    /// Of the image in place.
    header: Header,
    /// Of the image that a checkpoint is writing.
    pending: Option<Header>,
    watch: AnchorWatch,
    /// Whether the name of the image in place is known to be durable.
    is_named: bool,
    /// Up to the last commit, in the image or not yet.
    history: History,
    stats: StorageStats,
}

impl Snapshot {
    /// The store whose image was opened.
    pub(crate) fn new(place: Place, config: &Config, image: ImageReader) -> Self {
        let condition = Condition::new(&place.path(), config.access);
        let header = image.header().clone();
        let history = History::base(&header);
        let stats = StorageStats {
            seq: history.seq(),
            durable: history.seq(),
            image_bytes: image.len(),
            ..StorageStats::default()
        };
        Self {
            place,
            condition,
            durability: config.durability,
            image: Some(image),
            header,
            pending: None,
            watch: AnchorWatch::new(config.anchor, config.accept_unknown_anchor),
            is_named: false,
            history,
            stats,
        }
    }

    /// The image to write next, of the state at `at`.
    fn next_image(&self, at: Position) -> Result<ImageSpec> {
        let header = Header {
            file_id: fresh_id(&self.place.vfs, self.condition.path())?,
            generation: following(self.header.generation, self.condition.path())?,
            base_seq: at.seq,
            base_digest: at.digest,
            created_us: self.place.vfs.clock.now_us(),
            ..self.header.clone()
        };
        Ok(self.place.image(header))
    }

    /// Puts a written image in place of the last one.
    fn install(&mut self, written: &Written, header: Header) -> Result<()> {
        if let Err(NotInstalled { source, in_doubt }) = self.place.install(&written.temporary) {
            if !in_doubt {
                self.stats.images_failed += 1;
                drop(self.place.vfs.dir.remove(&written.temporary));
                return Err(Error::io("replace", self.condition.path(), source));
            }
            self.is_named = false;
            self.condition.poison(format!("putting the image in place failed: {source}"));
            return Err(Error::InDoubt {
                path: self.condition.path().to_owned(),
                seq: self.stats.durable + 1,
                source: Arc::new(source),
            });
        }
        self.is_named = true;
        self.history.list_if_apart(Position::base(&header));
        self.header = header;
        self.stats.durable = written.seq;
        self.stats.image_bytes = written.bytes;
        self.stats.images += 1;
        self.stats.syncs += 1;
        Ok(())
    }

    /// Writes the state at `at` and puts it in place. One that `frees` may take the last of the
    /// space; any other leaves room for one more image, or nothing could be removed any more.
    fn write(&mut self, at: Position, state: &dyn State, frees: bool) -> Result<()> {
        let spec = self.next_image(at)?;
        let header = spec.header.clone();
        let written = spec.write(state, &self.history, &|_| true).and_then(|written| {
            if frees || self.leaves_room(&written) {
                return Ok(written);
            }
            let path = self.place.vfs.dir.path(&written.temporary);
            let error = Error::NoSpace { path, needed: written.bytes };
            discard(&self.place.vfs, &written.temporary, &error);
            Err(error)
        });
        match written {
            Ok(written) => self.install(&written, header),
            Err(e) => {
                self.stats.images_failed += 1;
                Err(e)
            }
        }
    }

    /// Whether another image as long as `written` will fit beside it, once it is in place.
    fn leaves_room(&self, written: &Written) -> bool {
        self.free().saturating_add(in_blocks(self.stats.image_bytes)) >= in_blocks(written.bytes)
    }

    /// How much is free on the disk. Where the file system does not tell, it is tried.
    fn free(&self) -> u64 {
        self.place.vfs.dir.available_bytes().ok().flatten().unwrap_or(u64::MAX)
    }

    /// Gives the image its name once more, unless it is known to be durable. An earlier handle may
    /// have failed to make it so, and a later sync of the directory then proves nothing: a power
    /// cut could still bring back the image before it.
    fn settle(&mut self, image: ImageReader) -> Result<()> {
        if self.note() == Some(self.header.file_id) {
            self.is_named = true;
            return Ok(());
        }
        let written = match self.place.image(image.header().clone()).rewrite_header(&image) {
            // The first commit writes another image anyway.
            Err(Error::NoSpace { .. }) => return Ok(()),
            written => written?,
        };
        // Order: before its name goes to the copy, so that its space is free then.
        drop(image);
        self.place.install(&written.temporary).map_err(|e| {
            Error::io("put the image in place again as", self.condition.path(), e.source)
        })?;
        self.is_named = true;
        Ok(())
    }

    /// The id of the image that the last clean close has noted in the lock file. Its name was
    /// durable then. The note itself need not be: after a power cut, what is there is durable.
    fn note(&self) -> Option<[u8; 16]> {
        let file = self.place.vfs.dir.open(&self.place.names.lock(), Open::Read).ok()?;
        let mut id = [0; 16];
        file.read_exact_at(&mut id, 0).ok().map(|()| id)
    }

    /// Notes that the name of the image with this id is durable.
    fn set_note(&self, id: [u8; 16]) -> io::Result<()> {
        let file = self.place.vfs.dir.open(&self.place.names.lock(), Open::Write)?;
        file.write_all_at(&id, 0)
    }

    fn close_writing(&mut self, state: &dyn State) -> Result<()> {
        self.condition.check()?;
        self.check_name()?;
        if self.stats.durable != self.history.seq() {
            self.write(self.history.end(), state, true)?;
        }
        // Without the note the next open gives the image its name once more. The note may take a
        // block, but not from the image that the next commit writes.
        let needed = in_blocks(self.stats.image_bytes).saturating_add(in_blocks(1));
        let is_new = self.note() != Some(self.header.file_id);
        if self.is_named && is_new && self.free() >= needed {
            let _ = self.set_note(self.header.file_id);
        }
        Ok(())
    }

    /// Checks that an opening would find the image, where no other is about to take its place.
    fn check_name(&mut self) -> Result<()> {
        if self.stats.durable == self.history.seq() {
            return self.place.check_name(&mut self.condition, self.history.seq());
        }
        Ok(())
    }

    /// Whether a commit waits for a checkpoint to make it durable.
    fn is_lazy(&self) -> bool {
        self.durability != Durability::Sync
    }
}

impl Storage for Snapshot {
    fn form(&self) -> Form {
        Form::Snapshot
    }

    fn replay(&mut self, sink: &mut dyn FnMut(Op<'_>) -> Result<()>) -> Result<Recovered> {
        let Some(image) = self.image.take() else {
            return Err(Error::Contradiction("a storage is replayed once, before anything else"));
        };
        let path = self.condition.path();
        self.history.inherit(image.replay(sink)?);
        self.watch.pass_listed(self.history.listed(), path)?;
        self.watch.pass(self.history.end(), path)?;
        let anchor = self.watch.end(&mut self.history, path)?;
        self.history.list(self.history.end());
        if self.condition.writes() {
            self.settle(image)?;
        }
        let seq = self.history.seq();
        let locked = self.place.is_locked();
        Ok(Recovered { seq, durable: seq, clean: true, locked, anchor, ..Recovered::default() })
    }

    fn group(&self) -> Group {
        Group::new(Layout::default())
    }

    fn commit(&mut self, group: &mut Group, image: Option<&dyn State>) -> Result<Range<Seq>> {
        self.condition.check()?;
        let first = self.history.seq() + 1;
        if group.is_empty() {
            return Ok(first..first);
        }
        let at = self.history.end().after(group);
        if at.seq > NUMBER_MAX {
            return Err(Error::Contradiction("the store has the last commit that there can be"));
        }
        match image {
            Some(state) => self.write(at, state, group.only_removals())?,
            None if self.is_lazy() => {}
            None => return Err(Error::Contradiction(NEEDS_STATE)),
        }
        self.history.go_on(at.seq, at.digest);
        self.stats.seq = at.seq;
        self.stats.groups += 1;
        Ok(first..at.seq + 1)
    }

    fn sync_point(&mut self) -> Result<Option<SyncPoint>> {
        self.condition.check()?;
        self.check_name()?;
        Ok(None)
    }

    fn synced(&mut self, outcome: Result<Seq>) -> Result<()> {
        outcome.map(|_| ())
    }

    fn begin_checkpoint(&mut self, _state: &dyn State) -> Result<Option<Checkpoint>> {
        self.condition.check()?;
        self.check_name()?;
        if self.stats.durable == self.history.seq() {
            return Ok(None);
        }
        let spec = self.next_image(self.history.end())?;
        self.pending = Some(spec.header.clone());
        let history = self.history.clone();
        let write = move |state: &dyn State, progress: &dyn Fn(u64) -> bool| {
            spec.write(state, &history, progress)
        };
        Ok(Some(Checkpoint::new(write)))
    }

    fn finish_checkpoint(&mut self, done: Result<Written>) -> Result<()> {
        let pending = self.pending.take();
        match (done, pending) {
            (Err(e), _) => {
                self.stats.images_failed += 1;
                Err(e)
            }
            (Ok(_), None) => Err(Error::Contradiction("no checkpoint has begun")),
            (Ok(written), Some(header)) => {
                self.condition.check()?;
                self.install(&written, header)
            }
        }
    }

    fn change_key(&mut self, keys: &dyn Keys) -> Result<()> {
        self.condition.check()?;
        let (seal, path) = (self.place.seal.clone(), self.condition.path());
        if seal.is_none() {
            return Err(Error::NotEncrypted { path: path.to_owned() });
        }
        let image = ImageReader::open(&self.place.vfs, self.place.names.main(), seal.clone())?;
        // As it stands in the file: the salt was drawn when the image was written.
        let header = image.header().rewrapped(seal.as_deref(), keys, path)?;
        let written = self.place.image(header.clone()).rewrite_header(&image)?;
        // Order: before the image takes the name. It has the id that the note may tell, and a name
        // that a failed sync leaves in doubt.
        if self.note() == Some(header.file_id) {
            let forgotten = self.set_note([0; 16]);
            forgotten.map_err(|e| Error::io("write", path, e))?;
        }
        self.install(&written, header)
    }

    fn rekey(&mut self, keys: &dyn Keys, state: &dyn State) -> Result<Option<Checkpoint>> {
        self.condition.check()?;
        if self.place.seal.is_none() {
            return Err(Error::NotEncrypted { path: self.condition.path().to_owned() });
        }
        let mut spec = self.next_image(self.history.end())?;
        let (header, seal) = spec.header.under_fresh_root(keys, self.condition.path())?;
        let slot_counter = following(header.slot_counter, self.condition.path())?;
        spec.header = Header { slot_counter, ..header };
        spec.seal = Some(Arc::clone(&seal));
        let header = spec.header.clone();
        let written = spec
            .write(state, &self.history, &|_| true)
            .inspect_err(|_| self.stats.images_failed += 1)?;
        self.install(&written, header)?;
        self.place.seal = Some(seal);
        Ok(None)
    }

    fn wants_checkpoint(&self) -> bool {
        false
    }

    fn close(&mut self, state: &dyn State) -> Result<()> {
        let done = if self.condition.writes() { self.close_writing(state) } else { Ok(()) };
        if done.is_ok() || self.condition.poisoned().is_some() {
            self.condition.close();
        }
        done
    }

    fn image_elsewhere(&self, to: &Vfs, name: &str) -> Result<Checkpoint> {
        self.place.image_elsewhere(to, name, &self.header, &self.history)
    }

    fn lock(&self) -> Option<Arc<StoreLock>> {
        self.place.lock.clone()
    }

    fn seal(&self) -> Option<Arc<dyn Seal>> {
        self.place.seal.clone()
    }

    fn stats(&self) -> StorageStats {
        self.stats
    }

    fn anchor(&mut self) -> Anchor {
        self.history.anchor()
    }

    fn history(&self) -> History {
        self.history.clone()
    }

    fn poisoned(&self) -> Option<String> {
        self.condition.poisoned()
    }
}

const NEEDS_STATE: &str = "a snapshot at this level needs the state with each commit";

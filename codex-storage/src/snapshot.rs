//! The Snapshot form: one complete image, written again for each commit group.
//!
//! At `Durability::Interval` a commit is only numbered, and a checkpoint writes the image once per
//! interval.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::batch::{Group, Layout, Seq};
use crate::config::{Access, Config};
use crate::error::{Error, Result};
use crate::files::{NotInstalled, StoreFiles, Stored};
use crate::header::{Header, NUMBER_MAX, following, fresh_id};
use crate::history::{History, Position};
use crate::image::{ImageReader, ImageSpec, discard, in_blocks};
use crate::main_file::MainFile;
use crate::open::replay_image;
use crate::read_only::ReadOnly;
use crate::seal::Keys;
use crate::storage::{
    Anchor, Checkpoint, Durability, Form, OpSink, Recovered, State, Storage, StorageStats,
    SyncPoint, Written,
};
use crate::vfs::Open;
use crate::write_state::WriteState;

/// An open store of the form Snapshot.
#[derive(Debug)]
pub(crate) struct Snapshot {
    files: StoreFiles,
    write_state: WriteState,
    durability: Durability,
    /// The header of the image in place.
    header: Header,
    /// The header of the image that a checkpoint is writing.
    pending: Option<Header>,
    /// Whether the name of the image in place is known to be durable.
    is_named: bool,
    /// The history up to the last commit, which may not be in the image yet.
    history: History,
    stats: StorageStats,
}

impl Snapshot {
    /// Opens the store whose image is `image`.
    pub(crate) fn open(
        files: StoreFiles,
        config: &Config,
        image: ImageReader,
        sink: &mut OpSink<'_>,
    ) -> Result<(Box<dyn Storage>, Recovered)> {
        let path = files.path();
        let (mut history, watch) = replay_image(config, &path, &image, sink)?;
        let anchor = watch.end(&mut history, &path)?;
        history.list(history.end());
        let (seq, locked) = (history.seq(), files.is_locked());
        let header = image.header().clone();
        let recovered = Recovered {
            seq,
            durable: seq,
            clean: true,
            newest_us: header.created_us,
            locked,
            anchor,
            ..Recovered::default()
        };
        let image_bytes = image.len();
        let stats = StorageStats { seq, durable: seq, image_bytes, ..StorageStats::default() };
        if config.access == Access::ReadOnly {
            return Ok((Box::new(ReadOnly::new(files, header, history, stats)), recovered));
        }
        let mut snapshot = Self {
            files,
            write_state: WriteState::new(&path),
            durability: config.durability,
            header,
            pending: None,
            is_named: false,
            history,
            stats,
        };
        snapshot.settle(image)?;
        Ok((Box::new(snapshot), recovered))
    }

    /// Returns the specification of the next image, with the state at `at`.
    fn next_image(&self, at: Position) -> Result<ImageSpec> {
        let header = Header {
            file_id: fresh_id(&self.files.vfs, self.write_state.path())?,
            compression: self.files.compression,
            generation: following(self.header.generation, self.write_state.path())?,
            base_seq: at.seq,
            base_digest: at.digest,
            created_us: self.files.vfs.clock.now_us(),
            ..self.header.clone()
        };
        Ok(self.files.image(header))
    }

    /// Installs a written image in place of the last one.
    fn install(&mut self, written: &Written, header: Header) -> Result<()> {
        if let Err(NotInstalled { source, in_doubt }) = self.files.install(&written.temporary) {
            if !in_doubt {
                self.stats.images_failed += 1;
                drop(self.files.vfs.dir.remove(&written.temporary));
                return Err(Error::io("replace", self.write_state.path(), source));
            }
            self.is_named = false;
            self.write_state.poison(format!("putting the image in place failed: {source}"));
            return Err(Error::InDoubt {
                path: self.write_state.path().to_owned(),
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

    /// Writes the state at `at` and installs it. If `frees` is true, the image may use the rest of
    /// the space. Otherwise it must leave room for one more image, because without that no entry
    /// could be removed any more.
    fn write(&mut self, at: Position, state: &dyn State, frees: bool) -> Result<()> {
        let spec = self.next_image(at)?;
        let header = spec.header.clone();
        // Order: the image is written, synced and read back before it replaces the last one.
        let written = spec.write(state, &self.history, &|_| true).and_then(|written| {
            if frees || self.leaves_room(&written) {
                return Ok(written);
            }
            let path = self.files.vfs.dir.path(&written.temporary);
            let error = Error::NoSpace { path, needed: written.bytes };
            discard(&self.files.vfs, &written.temporary, &error);
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

    /// Returns whether another image of the length of `written` will fit after it was installed.
    fn leaves_room(&self, written: &Written) -> bool {
        self.free().saturating_add(in_blocks(self.stats.image_bytes)) >= in_blocks(written.bytes)
    }

    /// Returns the free space of the disk in bytes. If the file system does not report it, the
    /// space is assumed to suffice.
    fn free(&self) -> u64 {
        self.files.vfs.dir.available_bytes().ok().flatten().unwrap_or(u64::MAX)
    }

    /// Gives the image its name again, unless that name is known to be durable. An earlier handle
    /// may have failed to sync it. A later sync of the directory is no proof, because a power cut
    /// could still bring back the image before it.
    fn settle(&mut self, image: ImageReader) -> Result<()> {
        if self.note() == Some(self.header.file_id) {
            self.is_named = true;
            return Ok(());
        }
        let written = match self.files.image(image.header().clone()).rewrite_header(&image) {
            // The first commit writes another image in any case.
            Err(Error::NoSpace { .. }) => return Ok(()),
            written => written?,
        };
        // Order: the old file is closed before its name goes to the copy, so that its space is
        // freed at once.
        drop(image);
        self.files.install(&written.temporary).map_err(|e| {
            Error::io("put the image in place again as", self.write_state.path(), e.source)
        })?;
        self.is_named = true;
        Ok(())
    }

    /// Returns the id in the lock file of the image whose name was durable at the last clean close.
    /// The note need not be durable: after a power cut, everything on the disk is durable.
    fn note(&self) -> Option<[u8; 16]> {
        let file = self.files.vfs.dir.open(&self.files.names.lock(), Open::Read).ok()?;
        let mut id = [0; 16];
        file.read_exact_at(&mut id, 0).ok().map(|()| id)
    }

    /// Writes a note that the name of the image with this id is durable.
    fn set_note(&self, id: [u8; 16]) -> io::Result<()> {
        let file = self.files.vfs.dir.open(&self.files.names.lock(), Open::Write)?;
        file.write_all_at(&id, 0)
    }

    /// Writes the last commits, and the note of a clean close.
    fn close_writing(&mut self, state: &dyn State) -> Result<()> {
        self.write_state.check()?;
        self.check_name()?;
        if self.stats.durable != self.history.seq() {
            self.write(self.history.end(), state, true)?;
        }
        // Without the note the next open gives the image its name again. The note may take a block,
        // but not one that the image of the next commit needs.
        let needed = in_blocks(self.stats.image_bytes).saturating_add(in_blocks(1));
        let is_new = self.note() != Some(self.header.file_id);
        if self.is_named && is_new && self.free() >= needed {
            let _ = self.set_note(self.header.file_id);
        }
        Ok(())
    }

    /// Checks that an opening would find the image, unless another image is about to replace it.
    fn check_name(&mut self) -> Result<()> {
        if self.stats.durable == self.history.seq() {
            return self.files.check_name(&mut self.write_state, self.history.seq());
        }
        Ok(())
    }

    /// Returns whether commits wait for a checkpoint to become durable.
    fn is_lazy(&self) -> bool {
        self.durability != Durability::Sync
    }
}

impl Storage for Snapshot {
    fn form(&self) -> Form {
        Form::Snapshot
    }

    fn group(&self) -> Group {
        Group::new(Layout::default())
    }

    fn commit(&mut self, group: &mut Group, image: Option<&dyn State>) -> Result<Range<Seq>> {
        self.write_state.check()?;
        let first = self.history.seq() + 1;
        if group.is_empty() {
            return Ok(first..first);
        }
        let at = self.history.end().after(group);
        if at.seq > NUMBER_MAX {
            return Err(Error::Contradiction("the store has reached the largest commit number"));
        }
        match image {
            Some(state) => self.write(at, state, group.only_removals())?,
            None if self.is_lazy() => {}
            None => return Err(Error::Contradiction(NEEDS_STATE)),
        }
        // Order: the history advances only after the image is installed, so that a failed commit
        // leaves its number to the next one.
        self.history.go_on(at.seq, at.digest);
        self.stats.seq = at.seq;
        self.stats.groups += 1;
        Ok(first..at.seq + 1)
    }

    fn sync_point(&mut self) -> Result<Option<SyncPoint>> {
        self.write_state.check()?;
        self.check_name()?;
        Ok(None)
    }

    fn synced(&mut self, outcome: Result<Seq>) -> Result<()> {
        outcome.map(|_| ())
    }

    fn begin_checkpoint(&mut self, _state: &dyn State) -> Result<Option<Checkpoint>> {
        self.write_state.check()?;
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
                self.write_state.check()?;
                self.install(&written, header)
            }
        }
    }

    fn change_key(&mut self, keys: &dyn Keys) -> Result<()> {
        self.write_state.check()?;
        let (written, header) = self.files.image_under(keys)?;
        // Order: before the image takes the name. It has the id that may be in the note, and its
        // name is in doubt if the sync fails.
        if self.note() == Some(header.file_id) {
            let forgotten = self.set_note([0; 16]);
            forgotten.map_err(|e| Error::io("write", self.write_state.path(), e))?;
        }
        self.install(&written, header)
    }

    fn rekey(&mut self, keys: &dyn Keys, state: &dyn State) -> Result<Option<Checkpoint>> {
        self.write_state.check()?;
        if self.files.seal.is_none() {
            return Err(Error::NotEncrypted { path: self.write_state.path().to_owned() });
        }
        let mut spec = self.next_image(self.history.end())?;
        let (header, seal) = spec.header.under_fresh_root(keys, self.write_state.path())?;
        let slot_counter = following(header.slot_counter, self.write_state.path())?;
        spec.header = Header { slot_counter, ..header };
        spec.seal = Some(Arc::clone(&seal));
        let header = spec.header.clone();
        let written = spec
            .write(state, &self.history, &|_| true)
            .inspect_err(|_| self.stats.images_failed += 1)?;
        // Order: the key changes only after the image under it has the name.
        self.install(&written, header)?;
        self.files.seal = Some(seal);
        Ok(None)
    }

    fn wants_checkpoint(&self) -> bool {
        false
    }

    fn close(&mut self, state: &dyn State) -> Result<()> {
        let done = self.close_writing(state);
        if done.is_ok() || self.write_state.poisoned().is_some() {
            self.write_state.close();
        }
        done
    }

    fn main_file(&mut self) -> Result<MainFile> {
        self.write_state.check()?;
        MainFile::open(&self.files.vfs, self.files.names.main())
    }

    fn stored(&self) -> Option<Stored<'_>> {
        Some(Stored { files: &self.files, header: &self.header, history: &self.history })
    }

    fn stats(&self) -> StorageStats {
        self.stats
    }

    fn anchor(&mut self) -> Anchor {
        self.history.anchor()
    }

    fn poisoned(&self) -> Option<String> {
        self.write_state.poisoned()
    }
}

const NEEDS_STATE: &str = "a snapshot at this level needs the state with each commit";

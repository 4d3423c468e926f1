//! A store of any form that is opened for reading. It refuses every change. It holds the lock, or
//! reads on beside a writer.

use std::ops::Range;

use crate::batch::{Group, Layout, Seq};
use crate::error::{Error, Result};
use crate::files::{StoreFiles, Stored};
use crate::follow::Follower;
use crate::header::Header;
use crate::history::{History, Position};
use crate::log::{CommitRef, GroupRef};
use crate::main_file::MainFile;
use crate::seal::Keys;
use crate::storage::{
    Anchor, Checkpoint, Delivered, DeliverySink, Followed, Form, NO_FOLLOWER, State, Storage,
    StorageStats, SyncPoint, Written,
};

/// A store that was read to its end and cannot be written.
#[derive(Debug)]
pub(crate) struct ReadOnly {
    files: StoreFiles,
    /// The header of the main file.
    header: Header,
    history: History,
    stats: StorageStats,
    /// The place at which the commits of a writer are read on.
    follower: Option<Follower>,
    closed: bool,
}

impl ReadOnly {
    pub(crate) fn new(
        files: StoreFiles,
        header: Header,
        history: History,
        stats: StorageStats,
    ) -> Self {
        Self { files, header, history, stats, follower: None, closed: false }
    }

    /// Returns a storage that reads on beside a writer, from the place of `follower`.
    pub(crate) fn following(
        files: StoreFiles,
        header: Header,
        history: History,
        follower: Follower,
    ) -> Self {
        let stats = StorageStats::default();
        let follower = Some(follower);
        let mut storage = Self { files, header, history, stats, follower, closed: false };
        storage.count();
        storage
    }

    /// Sets the statistics to the place of the follower.
    fn count(&mut self) {
        let seq = self.history.seq();
        let log_bytes = self.follower.as_ref().map_or(0, Follower::log_bytes);
        self.stats = StorageStats { seq, durable: seq, log_bytes, ..self.stats };
    }

    /// Returns the error of every change.
    fn refuse<T>(&self) -> Result<T> {
        let path = self.files.path();
        Err(if self.closed { Error::Closed { path } } else { Error::ReadOnly { path } })
    }
}

impl Storage for ReadOnly {
    fn form(&self) -> Form {
        self.header.form
    }

    fn group(&self) -> Group {
        Group::new(Layout::default())
    }

    fn commit(&mut self, _group: &mut Group, _image: Option<&dyn State>) -> Result<Range<Seq>> {
        self.refuse()
    }

    fn sync_point(&mut self) -> Result<Option<SyncPoint>> {
        self.refuse()
    }

    fn synced(&mut self, _outcome: Result<Seq>) -> Result<()> {
        self.refuse()
    }

    fn follow(&mut self, sink: &mut DeliverySink<'_>) -> Result<Followed> {
        let Some(follower) = &mut self.follower else {
            return Err(Error::Contradiction(NO_FOLLOWER));
        };
        let mut pass = |group: &GroupRef<'_>, end: Position| {
            group.for_each_commit(&mut |CommitRef { seq, batch }| {
                sink(Delivered { seq, ops: batch.ops() })
            })?;
            self.history.go_on(end.seq, end.digest);
            Ok(())
        };
        let followed = follower.next(&self.files, &mut pass)?;
        self.count();
        Ok(followed)
    }

    fn begin_checkpoint(&mut self, _state: &dyn State) -> Result<Option<Checkpoint>> {
        self.refuse()
    }

    fn finish_checkpoint(&mut self, _done: Result<Written>) -> Result<()> {
        self.refuse()
    }

    fn change_key(&mut self, _keys: &dyn Keys) -> Result<()> {
        self.refuse()
    }

    fn rekey(&mut self, _keys: &dyn Keys, _state: &dyn State) -> Result<Option<Checkpoint>> {
        self.refuse()
    }

    fn wants_checkpoint(&self) -> bool {
        false
    }

    fn close(&mut self, _state: &dyn State) -> Result<()> {
        self.closed = true;
        Ok(())
    }

    fn main_file(&mut self) -> Result<MainFile> {
        self.refuse()
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
        None
    }
}

//! A store of any form that is opened for reading. It holds the lock and refuses every change.

use std::ops::Range;

use crate::batch::{Group, Layout, Seq};
use crate::error::{Error, Result};
use crate::files::{StoreFiles, Stored};
use crate::header::Header;
use crate::history::History;
use crate::main_file::MainFile;
use crate::seal::Keys;
use crate::storage::{Anchor, Checkpoint, Form, State, Storage, StorageStats, SyncPoint, Written};

/// A store that was read to its end and cannot be written.
#[derive(Debug)]
pub(crate) struct ReadOnly {
    files: StoreFiles,
    /// The header of the main file.
    header: Header,
    history: History,
    stats: StorageStats,
    closed: bool,
}

impl ReadOnly {
    pub(crate) fn new(
        files: StoreFiles,
        header: Header,
        history: History,
        stats: StorageStats,
    ) -> Self {
        Self { files, header, history, stats, closed: false }
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

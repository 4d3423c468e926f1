//! A storage without files, for stores in memory. It only numbers commits.

use std::ops::Range;
use std::sync::Arc;

use crate::batch::{Group, Layout, Seq};
use crate::codec::u64_of;
use crate::error::{Error, Result};
use crate::files::StoreFiles;
use crate::header::Header;
use crate::history::History;
use crate::names::Names;
use crate::seal::Seal;
use crate::separate::SeparateImage;
use crate::storage::{
    Anchor, Checkpoint, Form, NO_FILES, State, Storage, StorageStats, SyncPoint, Written,
};
use crate::vfs::Vfs;

/// Returns a storage without files. Commits are numbered and not stored. Every call succeeds.
pub fn null() -> Box<dyn Storage> {
    let history = History::of_nothing(0);
    Box::new(Null { history, groups: 0, shared: None, seal: None })
}

/// Returns a storage without files for a node of a shared log. As [`null`], and its
/// [`anchor`](Storage::anchor) is a digest of all groups, which goes on after `history`. Its images
/// are those of the store with this header.
#[cfg(feature = "shared")]
pub(crate) fn shared(
    header: Header,
    history: History,
    seal: Option<Arc<dyn Seal>>,
) -> Box<dyn Storage> {
    Box::new(Null { history, groups: 0, shared: Some(Box::new(header)), seal })
}

#[derive(Debug)]
struct Null {
    history: History,
    groups: u64,
    /// The header of a store on a shared log, whose history has a digest.
    shared: Option<Box<Header>>,
    seal: Option<Arc<dyn Seal>>,
}

impl Storage for Null {
    fn form(&self) -> Form {
        Form::Wal
    }

    fn group(&self) -> Group {
        Group::new(Layout::default())
    }

    fn commit(&mut self, group: &mut Group, _image: Option<&dyn State>) -> Result<Range<Seq>> {
        let end = self.history.end();
        let seq = end.seq + u64_of(group.batches());
        let digest = if self.shared.is_some() { end.after(group).digest } else { end.digest };
        self.history.go_on(seq, digest);
        self.groups += 1;
        Ok(end.seq + 1..seq + 1)
    }

    fn sync_point(&mut self) -> Result<Option<SyncPoint>> {
        Ok(None)
    }

    fn synced(&mut self, outcome: Result<Seq>) -> Result<()> {
        outcome.map(|_| ())
    }

    fn begin_checkpoint(&mut self, _state: &dyn State) -> Result<Option<Checkpoint>> {
        Ok(None)
    }

    fn finish_checkpoint(&mut self, done: Result<Written>) -> Result<()> {
        done.map(|_| ())
    }

    fn wants_checkpoint(&self) -> bool {
        false
    }

    fn close(&mut self, _state: &dyn State) -> Result<()> {
        Ok(())
    }

    fn stats(&self) -> StorageStats {
        StorageStats {
            seq: self.history.seq(),
            durable: self.history.seq(),
            groups: self.groups,
            ..StorageStats::default()
        }
    }

    fn anchor(&mut self) -> Anchor {
        self.history.end_anchor()
    }

    fn image_elsewhere(&mut self, to: &Vfs, name: &str) -> Result<SeparateImage> {
        let header = self.shared.as_deref().ok_or(Error::Contradiction(NO_FILES))?;
        let files = StoreFiles {
            vfs: to.clone(),
            names: Names::new(name, &to.dir.path(name))?,
            seal: self.seal.clone(),
            compression: header.compression,
            lock: None,
        };
        files.image_elsewhere(to, name, header, &self.history)
    }

    fn seal(&self) -> Option<Arc<dyn Seal>> {
        self.seal.clone()
    }

    fn poisoned(&self) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::null;
    use crate::batch::Op;

    #[test]
    fn commits_in_memory_are_numbered_densely_from_one() {
        let mut storage = null();
        let mut group = storage.group();
        for _ in 0..3 {
            group.push(Op::remove(b"k")).unwrap();
            group.finish();
        }
        assert_eq!(storage.commit(&mut group, None).unwrap(), 1..4);
        group.reset();
        group.finish();
        assert_eq!(storage.commit(&mut group, None).unwrap(), 4..5);
        assert_eq!((storage.stats().seq, storage.stats().durable), (4, 4));
    }
}

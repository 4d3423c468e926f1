//! A storage without files, for stores in memory. It only numbers commits.

use std::ops::Range;

use crate::batch::{Group, Layout, Seq};
use crate::codec::u64_of;
use crate::error::Result;
use crate::history::History;
use crate::storage::{Anchor, Checkpoint, Form, State, Storage, StorageStats, SyncPoint, Written};

/// Returns a storage without files. Commits are numbered and not stored. Every call succeeds.
pub fn null() -> Box<dyn Storage> {
    Box::new(Null { history: History::of_nothing(0), groups: 0, is_chained: false })
}

/// Returns a storage without files for a node of a shared log. As [`null`], and its
/// [`anchor`](Storage::anchor) is a digest of all groups, which is the same on all nodes.
#[cfg(feature = "shared")]
pub fn shared() -> Box<dyn Storage> {
    Box::new(Null { history: History::of_nothing(0), groups: 0, is_chained: true })
}

#[derive(Debug)]
struct Null {
    history: History,
    groups: u64,
    /// Whether the history has a digest.
    is_chained: bool,
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
        let digest = if self.is_chained { end.after(group).digest } else { end.digest };
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
        self.history.end().anchor([0; 16])
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

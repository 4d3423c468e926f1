//! The values that one key had.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::SystemTime;

use codex_storage::batch::{Op, Seq};
use codex_storage::{LedgerIndex, LedgerPlace, LedgerReader};
use serde::de::DeserializeOwned;

use crate::cursor;
use crate::entry::{Entry, Name, OwnedName};
use crate::error::Result;
use crate::expiry::from_us;

/// The values that a key had, the oldest first. [`Store::history`](crate::Store::history) returns
/// it.
///
/// It ends with the last commit at the time of that call. It reads the file as it is advanced. An
/// item is an error if the file is damaged there, and then the last one.
#[must_use = "an iterator does nothing until it is advanced"]
pub struct History {
    reader: LedgerReader,
    index: Arc<LedgerIndex>,
    name: OwnedName,
    /// The region of the index to be read next.
    at: usize,
    /// Whether the key has a value after the commits that were read.
    is_there: bool,
    /// The revisions that were read and not yet returned, then an error.
    revisions: VecDeque<Result<Revision>>,
}

/// A change of a key: the value that a commit has set, or its removal.
#[derive(Debug, Clone)]
pub struct Revision {
    seq: Seq,
    time_us: i64,
    entry: Option<cursor::Entry>,
}

impl History {
    pub(super) fn new(reader: LedgerReader, index: Arc<LedgerIndex>, name: Name<'_>) -> Self {
        let (name, revisions) = (name.into(), VecDeque::new());
        Self { reader, index, name, at: 0, is_there: false, revisions }
    }

    /// Reads the next part of the file in which the key may be changed. Returns false at the end.
    fn read(&mut self) -> bool {
        let key = self.name.as_name();
        let next = self.index.next_region(&mut self.at, (key.table, key.key), self.is_there);
        let Some((start, upto)) = next.map(|(start, upto)| (start.clone(), upto)) else {
            return false;
        };
        if let Err(error) = self.read_region(&start, upto) {
            // No region is left, so the error is the last item.
            self.at = usize::MAX;
            self.revisions.push_back(Err(error));
        }
        true
    }

    fn read_region(&mut self, start: &LedgerPlace, upto: Seq) -> Result<()> {
        let Self { reader, name, is_there, revisions, .. } = self;
        let name = name.as_name();
        reader.go_to(start)?;
        while reader.next(upto, &mut |commit| {
            let (seq, time_us) = (commit.seq, commit.time_us);
            // The last change in the commit counts. A removal of nothing is no change. The reader
            // has decoded each operation before, so none is an error.
            let change = commit.ops.flatten().filter_map(|op| change(op, name)).last();
            if let Some(entry) = change.filter(|entry| entry.is_some() || *is_there) {
                *is_there = entry.is_some();
                revisions.push_back(Ok(Revision { seq, time_us, entry }));
            }
            Ok(())
        })? {}
        Ok(reader.check_passed(upto)?)
    }
}

/// Returns the entry of `name` after `op`, which is none if it was removed, or `None` if `op`
/// changes other keys.
#[expect(clippy::option_option, reason = "the inner one is the entry, if there is one")]
fn change(op: Op<'_>, name: Name<'_>) -> Option<Option<cursor::Entry>> {
    if op.table() != name.table {
        return None;
    }
    match op {
        Op::Set(item) if item.key == name.key => {
            Some(Some(cursor::Entry::new(Entry::from_item(item))))
        }
        Op::Remove { key, .. } if key == name.key => Some(None),
        Op::Clear { .. } => Some(None),
        _ => None,
    }
}

impl Revision {
    /// Returns the number of the commit.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Returns the time of the commit. The times of later commits are never earlier.
    pub fn time(&self) -> SystemTime {
        from_us(self.time_us)
    }

    /// Returns the decoded value, or `None` if the commit has removed the key.
    ///
    /// # Errors
    /// The errors of [`ValueRef::decode`](crate::ValueRef::decode).
    pub fn value<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        self.entry.as_ref().map(cursor::Entry::value).transpose()
    }

    /// Returns the entry with the bytes of the value and its expiry, or `None` if the commit has
    /// removed the key.
    ///
    /// A key that had expired is removed by a later commit, at a time after the expiry of its last
    /// entry.
    pub fn entry(&self) -> Option<&cursor::Entry> {
        self.entry.as_ref()
    }
}

impl Iterator for History {
    type Item = Result<Revision>;

    fn next(&mut self) -> Option<Result<Revision>> {
        loop {
            let revision = self.revisions.pop_front();
            if revision.is_some() || !self.read() {
                return revision;
            }
        }
    }
}

impl FusedIterator for History {}

/// Shows no key, because programs write `Debug` output to logs.
impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History").field("upto", &self.index.upto()).finish_non_exhaustive()
    }
}

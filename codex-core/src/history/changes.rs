//! The commits of a ledger after one of them.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;

use codex_storage::batch::{Op, Seq, TableId};
use codex_storage::{Error as StorageError, LedgerCommit, LedgerReader};

use crate::cursor;
use crate::entry::{Entry, Name};
use crate::error::Result;
use crate::inner::Inner;
use crate::watch::{Change, Committed};

/// The commits of a ledger after one of them, in order. [`Store::changes`](crate::Store::changes)
/// returns it.
///
/// It ends with the last commit at the time of that call. It reads the file group by group and
/// keeps one group in memory. An item is an error if the file is damaged there, and then the last
/// one.
#[must_use = "an iterator does nothing until it is advanced"]
pub struct Changes {
    reader: LedgerReader,
    table: Option<TableId>,
    prefix: Box<[u8]>,
    /// The commit after which they begin.
    after: Seq,
    upto: Seq,
    /// The commits that were read and not yet returned, then an error.
    commits: VecDeque<Result<Committed>>,
    is_ended: bool,
}

impl Inner {
    /// Returns the commits after `after` up to `upto`, or up to the last one, with their changes of
    /// the keys of `table`, or of those outside tables, that begin with `prefix`.
    pub(crate) fn changes(
        &self,
        table: Option<TableId>,
        prefix: &[u8],
        after: Seq,
        upto: Option<Seq>,
    ) -> Result<Changes> {
        let (mut reader, last) = self.ledger()?;
        let upto = upto.unwrap_or(last);
        let states = reader.cut().oldest..=upto;
        // Before its first commit every store was empty.
        if after != 0 && !states.contains(&after) {
            return Err(StorageError::NotInHistory { path: self.path.clone(), states }.into());
        }
        if after != 0 {
            let index = self.past.index(&mut reader, after)?;
            reader.go_to(index.place_before(after))?;
        }
        let (prefix, commits) = (prefix.into(), VecDeque::new());
        Ok(Changes { reader, table, prefix, after, upto, commits, is_ended: false })
    }
}

impl Changes {
    /// Returns the next commit that was read.
    pub(crate) fn take(&mut self) -> Option<Result<Committed>> {
        self.commits.pop_front()
    }

    /// Returns the last commit.
    pub(crate) fn upto(&self) -> Seq {
        self.upto
    }

    /// Reads the next group. Returns false at the end.
    pub(crate) fn read(&mut self) -> bool {
        let Self { reader, table, prefix, after, upto, commits, is_ended } = self;
        if *is_ended {
            return false;
        }
        let read = reader.next(*upto, &mut |commit| {
            if commit.seq > *after {
                commits.push_back(Ok(committed(commit, *table, prefix)));
            }
            Ok(())
        });
        let read = read.and_then(|is_read| {
            *is_ended = !is_read;
            if is_read { Ok(()) } else { reader.check_passed(*upto) }
        });
        if let Err(error) = read {
            *is_ended = true;
            commits.push_back(Err(error.into()));
        }
        true
    }
}

/// Returns a commit with its changes of the keys of `table`, or of those outside tables, that begin
/// with `prefix`.
fn committed(commit: LedgerCommit<'_>, table: Option<TableId>, prefix: &[u8]) -> Committed {
    // The reader of the ledger has decoded each operation before, so none is an error.
    let change = |op: Op<'_>| match op {
        Op::Set(item) if item.key.starts_with(prefix) => {
            Some(Change::Set(cursor::Entry::new(Entry::from_item(item))))
        }
        Op::Remove { table, key } if key.starts_with(prefix) => {
            let entry = Entry::without_value(Name { table, key });
            Some(Change::Removed(cursor::Key::new(entry)))
        }
        Op::Clear { .. } => Some(Change::Cleared),
        _ => None,
    };
    let ops = commit.ops.flatten().filter(|op| op.table() == table);
    let changes = ops.filter_map(change);
    Committed::new(commit.seq, Some(commit.time_us), changes.collect())
}

impl Iterator for Changes {
    type Item = Result<Committed>;

    fn next(&mut self) -> Option<Result<Committed>> {
        loop {
            let commit = self.take();
            if commit.is_some() || !self.read() {
                return commit;
            }
        }
    }
}

impl FusedIterator for Changes {}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Changes");
        shown.field("after", &self.after).field("upto", &self.upto).finish_non_exhaustive()
    }
}

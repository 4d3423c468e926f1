//! The state of the store after one commit.

use std::fmt;

use codex_storage::batch::{Seq, TableId};

use crate::cursor::{self, Iter};
use crate::engine::View;
use crate::entry::{Entry, Name};
use crate::range::KeyBound;
use crate::read::{Readable, inherent_reads, sealed};

/// The state of the store after one commit, unchanged while the snapshot is kept.
///
/// [`Store::snapshot`](crate::Store::snapshot) takes O(1). A snapshot shares its entries with the
/// store, so it takes memory only for entries that are replaced or removed while it is kept. It
/// stays readable after the store is closed. An entry that expires after the snapshot was taken
/// stays in it.
#[derive(Clone)]
#[must_use = "a snapshot only keeps a state readable"]
pub struct Snapshot {
    view: View,
}

impl Snapshot {
    pub(crate) fn new(view: View) -> Self {
        Self { view }
    }

    /// Returns the number of the last commit that the snapshot contains; 0 before the first commit.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.set("a", &1)?;
    /// assert_eq!(store.snapshot().seq(), 1);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn seq(&self) -> Seq {
        self.view.seq
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    inherent_reads!();
}

impl sealed::Source for Snapshot {
    fn find(&self, name: Name<'_>) -> Option<Entry> {
        self.view.get(name).cloned()
    }

    fn scan(&self, table: Option<TableId>, bounds: (KeyBound, KeyBound)) -> Iter {
        Iter::new(self.view.ordered.clone(), self.view.now_us, table, bounds)
    }

    fn count(&self, table: Option<TableId>) -> usize {
        self.view.len(table)
    }
}

impl Readable for Snapshot {}

impl IntoIterator for &Snapshot {
    type Item = cursor::Entry;
    type IntoIter = Iter;

    fn into_iter(self) -> Iter {
        self.iter()
    }
}

/// Shows neither keys nor values, because programs write `Debug` output to logs.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("seq", &self.seq())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

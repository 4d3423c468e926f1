//! The state of the store after one commit.

use std::fmt;
use std::time::SystemTime;

use codex_storage::batch::Seq;

use crate::cursor::{self, Iter};
use crate::engine::View;
use crate::entry::Name;
use crate::expiry::expiry_of;
use crate::range::KeyRange;
use crate::read::{Readable, inherent_reads, sealed};
use crate::value::ValueRef;

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

impl sealed::Sealed for Snapshot {}

impl Readable for Snapshot {
    fn get_bytes(&self, key: impl AsRef<[u8]>) -> Option<ValueRef> {
        self.view.get(Name::plain(key.as_ref())).cloned().map(ValueRef::new)
    }

    fn expires_at(&self, key: impl AsRef<[u8]>) -> Option<SystemTime> {
        self.view.get(Name::plain(key.as_ref())).and_then(expiry_of)
    }

    fn len(&self) -> usize {
        self.view.len()
    }

    fn range(&self, range: impl KeyRange) -> Iter {
        Iter::new(self.view.ordered.clone(), self.view.now_us, range.into_bounds())
    }
}

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

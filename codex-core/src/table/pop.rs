//! Removal of the first or the last row of a range of a table.

use std::ops::RangeBounds;

use super::key::TableKey;
use super::place::Place as _;
use super::{Table, bounds_of};
use crate::commit::{Change, End};
use crate::cursor::Entry;
use crate::error::Result;
use crate::own;
use crate::range;

impl<K: TableKey, V> Table<K, V> {
    /// Removes the row with the smallest key in `range` and returns it as an entry, or `None` if
    /// the range has none. [`decode`](Self::decode) returns its key and value. So a row whose value
    /// is not a `V` is not lost.
    ///
    /// Each row is returned once, as [`Store::pop_first`](crate::Store::pop_first) does it. If the
    /// table has indexes, threads that pop at the same time try again, as those that
    /// [`take`](Self::take) the same key.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// let jobs = store.table::<u64, String>("jobs")?;
    /// jobs.set(1, &"wash".into())?;
    /// jobs.set(2, &"shop".into())?;
    /// while let Some(job) = jobs.pop_first(..)? {
    ///     let (id, job) = jobs.decode(&job)?;
    ///     println!("{id}: {job}");
    /// }
    /// assert!(jobs.is_empty()?);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`remove`](Self::remove).
    #[doc(alias("pop_min", "pop_front", "dequeue"))]
    pub fn pop_first<'a>(&self, range: impl RangeBounds<K::Ref<'a>>) -> Result<Option<Entry>> {
        self.pop(&range, End::First)
    }

    /// Removes the row with the largest key in `range` and returns it as an entry, or `None` if the
    /// range has none. Otherwise as [`pop_first`](Self::pop_first).
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let done = store.table::<u64, String>("done")?;
    /// done.set(1, &"insert".into())?;
    /// done.set(2, &"delete".into())?;
    /// let last = done.pop_last(..)?.expect("there are two");
    /// assert_eq!(done.decode(&last)?, (2, "delete".into()));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`remove`](Self::remove).
    #[doc(alias("pop_max", "pop_back"))]
    pub fn pop_last<'a>(&self, range: impl RangeBounds<K::Ref<'a>>) -> Result<Option<Entry>> {
        self.pop(&range, End::Last)
    }

    fn pop<'a>(&self, range: &impl RangeBounds<K::Ref<'a>>, end: End) -> Result<Option<Entry>> {
        let (lower, upper) = bounds_of::<K>(range);
        if range::bounds(&lower, &upper).is_none() {
            return self.place.confirm(&self.row).map(|()| None);
        }
        let popped = self.commit(Change::Pop(Some(self.row.id), lower, upper, end))?.previous();
        if let Some(entry) = &popped {
            own::popped(self.place.inner.id(), entry.name());
        }
        Ok(popped.map(Entry::new))
    }
}

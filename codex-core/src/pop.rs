//! Removal of the first or the last entry of a range.

use crate::commit::{Change, Commit, End, Outcome};
use crate::cursor::Entry;
use crate::engine::Engine;
use crate::error::Result;
use crate::own;
use crate::range::{self, KeyRange};
use crate::store::Store;
use crate::tasks::{AsyncStore, Submitted};

impl Store {
    /// Removes the entry with the smallest key in `range` and returns it, or `None` if the range
    /// has none. `pop_first(..)` removes the first entry of all.
    ///
    /// Each entry is returned once: threads that pop at the same time get different entries, each
    /// the smallest at its place in the order of commits. They do not try again, and share one
    /// sync. The entry is gone from the store when the call returns, so read its value before it is
    /// dropped.
    ///
    /// ```
    /// # use codex_core::{Prefix, Store};
    /// let store = Store::in_memory()?;
    /// store.set("jobs/0001", "wash")?;
    /// store.set("jobs/0002", "shop")?;
    /// while let Some(job) = store.pop_first(Prefix("jobs/"))? {
    ///     println!("{}", job.value::<String>()?);
    /// }
    /// assert!(store.is_empty());
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`remove`](Store::remove). Nothing was removed then, unless the error [is in
    /// doubt](crate::Error::is_in_doubt).
    #[doc(alias("pop_min", "pop_front", "dequeue"))]
    pub fn pop_first(&self, range: impl KeyRange) -> Result<Option<Entry>> {
        self.pop(range, End::First)
    }

    /// Removes the entry with the largest key in `range` and returns it, or `None` if the range has
    /// none. Otherwise as [`pop_first`](Store::pop_first).
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.set("undo/1", "insert")?;
    /// store.set("undo/2", "delete")?;
    /// let last = store.pop_last("undo/".."undo0")?.expect("there are two");
    /// assert_eq!(last.value::<String>()?, "delete");
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`pop_first`](Store::pop_first).
    #[doc(alias("pop_max", "pop_back"))]
    pub fn pop_last(&self, range: impl KeyRange) -> Result<Option<Entry>> {
        self.pop(range, End::Last)
    }

    fn pop(&self, range: impl KeyRange, end: End) -> Result<Option<Entry>> {
        let Some(commit) = popping(range, end) else { return Ok(None) };
        let popped = self.inner.commit(commit)?.previous();
        if let Some(entry) = &popped {
            own::popped(self.inner.id(), entry.name());
        }
        Ok(popped.map(Entry::new))
    }
}

impl AsyncStore {
    /// Removes the entry with the smallest key in `range`. The future returns it, or `None` if the
    /// range had none. Otherwise as [`Store::pop_first`].
    ///
    /// The entry is removed even if the future is dropped, so a queue whose entries must not be
    /// lost reads the first one, and removes it when it is done.
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Prefix, Store};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// store.set("jobs/0001", "wash").await?;
    /// let job = store.pop_first(Prefix("jobs/")).await?.expect("there is one");
    /// assert_eq!(job.value::<String>()?, "wash");
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The future returns the errors of [`AsyncStore::remove`].
    #[doc(alias("pop_min", "pop_front", "dequeue"))]
    pub fn pop_first(&self, range: impl KeyRange) -> Submitted<Option<Entry>> {
        self.pop(range, End::First)
    }

    /// Removes the entry with the largest key in `range`. Otherwise as
    /// [`pop_first`](AsyncStore::pop_first).
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// store.set("undo/1", "insert").await?;
    /// store.set("undo/2", "delete").await?;
    /// let last = store.pop_last("undo/".."undo0").await?.expect("there are two");
    /// assert_eq!(last.value::<String>()?, "delete");
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The future returns the errors of [`pop_first`](AsyncStore::pop_first).
    #[doc(alias("pop_max", "pop_back"))]
    pub fn pop_last(&self, range: impl KeyRange) -> Submitted<Option<Entry>> {
        self.pop(range, End::Last)
    }

    fn pop(&self, range: impl KeyRange, end: End) -> Submitted<Option<Entry>> {
        match popping(range, end) {
            Some(commit) => {
                let answer = |_: &Engine, made: Outcome| Ok(made.previous().map(Entry::new));
                self.blocking().submit(Ok(commit), answer)
            }
            None => Submitted::known(Ok(None)),
        }
    }
}

/// Returns the commit that removes the entry at `end` of `range`, or `None` if its bounds cross, so
/// that it is empty.
fn popping(range: impl KeyRange, end: End) -> Option<Commit> {
    let (lower, upper) = range.into_bounds();
    range::bounds(&lower, &upper)?;
    Some(Commit::one(Change::Pop(None, lower, upper, end)))
}

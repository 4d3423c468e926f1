//! The updates that the calling thread has in progress. They show whether the closure of an update
//! writes the key that it updates, because such an update could never succeed.

use std::cell::RefCell;

use crate::commit::{Change, Commit, SmallVec};
use crate::entry::{Name, OwnedName};
use crate::range;

/// An update in progress on the calling thread. Dropping it ends the update.
pub(crate) struct Update {
    /// The number of updates that were in progress before it.
    index: usize,
}

/// Records that the calling thread begins to update `name` in the store with the identity `store`.
/// `is_there` is true if it has a value.
pub(crate) fn begin(store: usize, name: Name<'_>, is_there: bool) -> Update {
    let update = Noted { store, name: name.into(), is_there, written: false };
    let push = |updates: &RefCell<Vec<Noted>>| {
        let mut updates = updates.borrow_mut();
        updates.push(update);
        updates.len() - 1
    };
    // A thread that is ending may have dropped its list already.
    Update { index: UPDATES.try_with(push).unwrap_or(usize::MAX) }
}

impl Update {
    /// Returns true if the thread wrote the key since the update began.
    pub(crate) fn was_written(&self) -> bool {
        let written = |updates: &RefCell<Vec<Noted>>| {
            updates.borrow().get(self.index).is_some_and(|update| update.written)
        };
        UPDATES.try_with(written).unwrap_or(false)
    }
}

impl Drop for Update {
    fn drop(&mut self) {
        let _ = UPDATES.try_with(|updates| updates.borrow_mut().truncate(self.index));
    }
}

/// Returns the updates in progress whose key `commit` writes.
pub(crate) fn written_by(store: usize, commit: &Commit) -> SmallVec<usize> {
    let find = |updates: &RefCell<Vec<Noted>>| {
        let updates = updates.borrow();
        if updates.is_empty() {
            return SmallVec::None;
        }
        // Updates can be nested, so more than one can be in progress.
        let writes = |update: &Noted| {
            update.store == store
                && commit.changes.as_slice().iter().any(|change| update.is_written_by(change))
        };
        let found = updates.iter().enumerate().filter(|(_, update)| writes(update));
        SmallVec::Many(found.map(|(index, _)| index).collect())
    };
    UPDATES.try_with(find).unwrap_or(SmallVec::None)
}

/// Records that the commit was made for which [`written_by`] returned `written`.
pub(crate) fn made(written: &SmallVec<usize>) {
    for &index in written.as_slice() {
        let _ = UPDATES.try_with(|updates| {
            if let Some(update) = updates.borrow_mut().get_mut(index) {
                update.written = true;
            }
        });
    }
}

/// Records that the calling thread popped `name` from the store with the identity `store`.
pub(crate) fn popped(store: usize, name: Name<'_>) {
    let _ = UPDATES.try_with(|updates| {
        let mut updates = updates.borrow_mut();
        let of_key = |update: &&mut Noted| update.store == store && update.name.as_name() == name;
        updates.iter_mut().filter(of_key).for_each(|update| update.written = true);
    });
}

/// An update in progress.
struct Noted {
    store: usize,
    name: OwnedName,
    /// Whether the key had a value. If not, removing it changes nothing.
    is_there: bool,
    written: bool,
}

impl Noted {
    /// Returns true if `change` writes the key.
    fn is_written_by(&self, change: &Change) -> bool {
        let name = self.name.as_name();
        match change {
            Change::Put(entry) => entry.name() == name,
            Change::Remove(removed) => self.is_there && removed.as_name() == name,
            Change::RemoveRange(table, lower, upper) => {
                let contains = |bounds| *table == name.table && range::contains(bounds, name.key);
                self.is_there && range::bounds(lower, upper).is_some_and(contains)
            }
            Change::Clear(table) => self.is_there && *table == name.table,
            // The key is known only after the commit: see `popped`. A sweep is no write of a user.
            Change::Pop(..) | Change::Sweep(_) => false,
            #[cfg(feature = "shared")]
            Change::Expire(_) => false,
        }
    }
}

codex_storage::sync::thread_local! {
    #[allow(clippy::missing_const_for_thread_local, reason = "loom's macro takes no const")]
    static UPDATES: RefCell<Vec<Noted>> = RefCell::new(Vec::new());
}

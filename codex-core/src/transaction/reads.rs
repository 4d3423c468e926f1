//! The reads of a transaction, from which its checks are made.

use std::ops::Bound;
use std::sync::Arc;

use codex_storage::batch::TableId;
use codex_storage::sync::Mutex;

use crate::commit::Check;
use crate::engine::View;
use crate::entry::{Entry, Name, OwnedName};
use crate::range::KeyBound;

/// The keys and ranges that a transaction has read.
#[derive(Default)]
pub(super) struct Reads {
    /// The entries that were read by their keys. Some can be there twice.
    found: Vec<Entry>,
    /// The keys that were read and have no entry. Some can be there twice.
    absent: Vec<OwnedName>,
    scans: Vec<Arc<Scan>>,
}

/// A scan of a range, as far as it was iterated. Clones of an iterator share it.
pub(crate) struct Scan {
    table: Option<TableId>,
    lower: KeyBound,
    upper: KeyBound,
    returned: Mutex<Returned>,
}

/// The entries that a scan has returned.
#[derive(Default)]
struct Returned {
    /// The greatest key that was returned from the front.
    front: Option<Box<[u8]>>,
    /// The smallest key that was returned from the back.
    back: Option<Box<[u8]>>,
    /// Whether an end has returned `None`, so that the whole range was read.
    all: bool,
    count: usize,
}

impl Reads {
    /// Records that `name` was read alone, and has this entry in the base.
    pub(super) fn read(&mut self, name: Name<'_>, entry: Option<&Entry>) {
        match entry {
            Some(entry) => add(&mut self.found, entry.clone()),
            None => add(&mut self.absent, name.into()),
        }
    }

    /// Records a scan of a range, of which nothing was returned yet.
    pub(super) fn scan(
        &mut self,
        table: Option<TableId>,
        (lower, upper): (KeyBound, KeyBound),
    ) -> Arc<Scan> {
        let scan = Arc::new(Scan { table, lower, upper, returned: Mutex::default() });
        self.scans.push(Arc::clone(&scan));
        scan
    }

    /// Returns the checks that nothing has changed since the state `base`, and the number of
    /// entries that the scans returned.
    pub(super) fn into_checks(self, base: &View) -> (Vec<Check>, usize) {
        let found = self.found.into_iter().map(Check::Same);
        let mut checks: Vec<_> = found.chain(self.absent.into_iter().map(Check::Absent)).collect();
        let mut count = 0_usize;
        for scan in self.scans {
            let returned = scan.returned.lock();
            count = count.saturating_add(returned.count);
            checks.extend(scan.ranges(&returned).map(|(lower, upper)| Check::Unchanged {
                table: scan.table,
                lower,
                upper,
                base: base.clone(),
            }));
        }
        (checks, count)
    }
}

impl Scan {
    /// Records the entry that the iterator has returned from the front.
    pub(crate) fn returned_from_front(&self, entry: Option<&Entry>) {
        self.returned.lock().add(entry, |returned, key| {
            if returned.front.as_deref().is_none_or(|front| front < key) {
                returned.front = Some(key.into());
            }
        });
    }

    /// Records the entry that the iterator has returned from the back.
    pub(crate) fn returned_from_back(&self, entry: Option<&Entry>) {
        self.returned.lock().add(entry, |returned, key| {
            if returned.back.as_deref().is_none_or(|back| back > key) {
                returned.back = Some(key.into());
            }
        });
    }

    /// Returns the ranges that were read: from the lower end to the last entry that was returned
    /// from the front, and from the last entry that was returned from the back to the upper end.
    fn ranges(&self, returned: &Returned) -> impl Iterator<Item = (KeyBound, KeyBound)> {
        let (lower, upper) = (self.lower.clone(), self.upper.clone());
        let Returned { front, back, all, .. } = returned;
        // If the ends have met, nothing of the range is unread.
        let has_met = front.is_some() && back.is_some() && front >= back;
        let ranges = if *all || has_met {
            [Some((lower, upper)), None]
        } else {
            let front = front.clone().map(|front| (lower, Bound::Included(front)));
            let back = back.clone().map(|back| (Bound::Included(back), upper));
            [front, back]
        };
        ranges.into_iter().flatten()
    }
}

impl Returned {
    fn add(&mut self, entry: Option<&Entry>, mut note: impl FnMut(&mut Self, &[u8])) {
        match entry {
            Some(entry) => {
                self.count = self.count.saturating_add(1);
                note(self, entry.key());
            }
            None => self.all = true,
        }
    }
}

/// Adds an element. Before the list grows, removes the elements that are there twice, so that its
/// length stays proportional to the number of different keys.
fn add<T: Ord>(all: &mut Vec<T>, element: T) {
    if all.len() == all.capacity() {
        all.sort_unstable();
        all.dedup();
        all.reserve(all.len().max(4));
    }
    all.push(element);
}

// Shows no keys, because programs write `Debug` output to logs.
codex_storage::opaque_debug!(Scan);

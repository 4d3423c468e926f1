//! Views of the state at one moment: which entries it has, and which of them have expired.

use codex_storage::batch::{Seq, TableId};

use super::Engine;
use crate::commit::Base;
use crate::entry::{Entry, Name};
use crate::map::Ordered;
use crate::range::Bounds;

/// A consistent view: all commits up to `seq`, and no later one.
#[derive(Debug, Clone)]
pub struct View {
    /// The last commit that the view contains.
    pub seq: Seq,
    /// The entries in key order.
    pub ordered: Ordered,
    /// The time at which the view was taken, in microseconds since 1970: entries that expire at it
    /// or before are hidden. `i64::MIN` if no entry expires.
    pub now_us: i64,
}

impl View {
    /// Returns the entry of `name`, unless it is hidden.
    pub(crate) fn get(&self, name: Name<'_>) -> Option<&Entry> {
        self.ordered.get_at(name, self.now_us)
    }

    /// Returns the entries of `table`, or those outside tables, within `bounds` that are not
    /// hidden, in key order.
    pub(crate) fn range(
        &self,
        table: Option<TableId>,
        bounds: Bounds<'_>,
    ) -> impl DoubleEndedIterator<Item = &Entry> {
        self.ordered.range_at(table, bounds, self.now_us)
    }

    /// Returns the number of entries of `table`, or of those outside tables, that are not hidden.
    pub(crate) fn len(&self, table: Option<TableId>) -> usize {
        self.ordered.len_at(table, self.now_us)
    }

    /// Returns the state, for the checks of a commit.
    pub(crate) fn base(&self) -> Base {
        Base { seq: self.seq, now_us: self.now_us }
    }
}

impl Engine {
    /// Returns the state after the last commit, and the present time. Takes O(1).
    pub fn view(&self) -> View {
        let (seq, ordered) = self.read(|map| (map.seq(), map.ordered()));
        // Order: the time after the state. A commit in the state was decided by this time or by an
        // earlier one, so nothing is shown that the commit took for expired.
        let now_us = ordered.first_deadline().map_or(i64::MIN, |_| self.now_us());
        View { seq, ordered, now_us }
    }

    /// Returns the number of entries of `table`, or of those outside tables, that are not hidden.
    pub(crate) fn shown_len(&self, table: Option<TableId>) -> usize {
        // A view costs more than the number, and is needed only if an entry expires.
        let all = self.read(|map| {
            let ordered = map.ordered_ref();
            (ordered.expiring() == 0).then(|| ordered.len_of(table))
        });
        all.unwrap_or_else(|| self.view().len(table))
    }

    /// Returns the time by which entries expire, in microseconds since 1970.
    pub fn now_us(&self) -> i64 {
        self.horizon.now_us(&*self.clock)
    }

    /// Returns true if an entry with this expiry is hidden now. Asks for the time only if there is
    /// an expiry.
    pub(crate) fn hides(&self, expires_us: Option<i64>) -> bool {
        expires_us.is_some_and(|expires_us| self.horizon.has_passed(expires_us, &*self.clock))
    }
}

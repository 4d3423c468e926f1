//! The effect on each entry of the steps of a group that are decided but not yet applied.

use codex_storage::batch::TableId;
use hashbrown::HashTable;

use crate::entry::{Entry, Name};
use crate::map::{Step, StepKind};
use crate::range::{Bounds, contains};

/// The latest step of each name, by hash. A group of one change needs no overlay, so steps are
/// entered only if a later change reads them.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    latest: HashTable<Latest>,
    /// The number of steps that were entered or skipped.
    entered: usize,
}

#[derive(Debug, Clone, Copy)]
struct Latest {
    hash: u64,
    step: usize,
}

impl Overlay {
    /// Enters the steps that were not entered yet, without those that a clear before the step
    /// `cleared` has made void.
    pub(super) fn enter(&mut self, steps: &[Step], cleared: usize) {
        for (number, step) in steps.iter().enumerate().skip(self.entered) {
            if step.is_void(number, cleared) {
                continue;
            }
            let latest = Latest { hash: step.hash, step: number };
            let same_name = |other: &Latest| steps[other.step].entry == step.entry;
            match self.latest.find_mut(step.hash, same_name) {
                // A later step of the same name replaces the earlier one.
                Some(present) => *present = latest,
                None => {
                    self.latest.insert_unique(step.hash, latest, |latest| latest.hash);
                }
            }
        }
        self.entered = steps.len();
    }

    /// Returns the latest step of `name`, whose hash is `hash`.
    pub(super) fn find<'a>(
        &self,
        steps: &'a [Step],
        hash: u64,
        name: Name<'_>,
    ) -> Option<&'a Step> {
        let same_name = |latest: &Latest| steps[latest.step].entry.name() == name;
        self.latest.find(hash, same_name).map(|latest| &steps[latest.step])
    }

    /// Returns the entries of `table`, or those outside tables, within `bounds` that the steps put,
    /// in no order.
    pub(super) fn puts_within<'a>(
        &self,
        steps: &'a [Step],
        table: Option<TableId>,
        bounds: Bounds<'_>,
    ) -> impl Iterator<Item = &'a Entry> {
        self.latest.iter().filter_map(move |latest| {
            let step = &steps[latest.step];
            let put = matches!(step.kind, StepKind::Put { .. });
            (put && is_within(table, bounds, &step.entry)).then_some(&step.entry)
        })
    }

    /// Returns true if a step changes a key of `table`, or one outside tables, within `bounds`. The
    /// removal of an entry that has expired at `now_us` changes nothing that is read.
    pub(super) fn has_step_within(
        &self,
        steps: &[Step],
        table: Option<TableId>,
        bounds: Bounds<'_>,
        now_us: i64,
    ) -> bool {
        self.latest.iter().any(|latest| {
            let step = &steps[latest.step];
            let is_swept = step.kind == StepKind::Remove && step.entry.has_expired_at(now_us);
            !is_swept && is_within(table, bounds, &step.entry)
        })
    }

    /// Removes all steps, so that they are entered again.
    pub(super) fn clear(&mut self) {
        // A clear writes the whole table, which is as large as the largest group so far. So one
        // large group would make all later ones slow.
        if self.latest.capacity() > CAPACITY_KEPT_MAX {
            self.latest = HashTable::new();
        }
        self.latest.clear();
        self.entered = 0;
    }
}

/// Returns true if `entry` is in `table`, or outside tables, and has a key within `bounds`.
fn is_within(table: Option<TableId>, bounds: Bounds<'_>, entry: &Entry) -> bool {
    entry.table() == table && contains(bounds, entry.key())
}

/// The maximum capacity of the table that is kept for the next group.
const CAPACITY_KEPT_MAX: usize = 1024;

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::{CAPACITY_KEPT_MAX, Overlay};
    use crate::entry::Entry;
    use crate::map::{Step, StepKind};

    #[test]
    fn a_large_group_leaves_no_large_table_that_each_later_group_would_clear() {
        let step = |n: u64| {
            let (entry, kind) = (Entry::new(&n.to_le_bytes(), b"v"), StepKind::Put { new: true });
            Step { entry, hash: n.wrapping_mul(0x9E37_79B9_7F4A_7C15), kind }
        };
        let mut overlay = Overlay::default();
        for count in [10 * CAPACITY_KEPT_MAX, 3] {
            let steps: Vec<_> = (0_u64..).map(step).take(count).collect();
            overlay.enter(&steps, 0);
            for step in &steps {
                let found = overlay.find(&steps, step.hash, step.entry.name());
                assert!(found.is_some_and(|found| found.entry.same(&step.entry)));
            }
            overlay.clear();
            assert!(overlay.latest.is_empty() && overlay.latest.capacity() <= CAPACITY_KEPT_MAX);
        }
    }
}

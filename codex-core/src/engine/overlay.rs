//! The effect on each key of the steps of a group that are decided but not yet applied.

use hashbrown::HashTable;

use crate::entry::Entry;
use crate::map::{Step, StepKind};
use crate::range::{Bounds, contains};

/// The latest step of each key, by hash. A group of one change needs no overlay, so steps are
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
    /// Enters the steps that were not entered yet.
    pub(super) fn enter(&mut self, steps: &[Step]) {
        for (number, step) in steps.iter().enumerate().skip(self.entered) {
            let latest = Latest { hash: step.hash, step: number };
            let same_key = |other: &Latest| steps[other.step].entry.key() == step.entry.key();
            match self.latest.find_mut(step.hash, same_key) {
                // A later step of the same key replaces the earlier one.
                Some(present) => *present = latest,
                None => {
                    self.latest.insert_unique(step.hash, latest, |latest| latest.hash);
                }
            }
        }
        self.entered = steps.len();
    }

    /// Returns the latest step of `key`, whose hash is `hash`.
    pub(super) fn find<'a>(&self, steps: &'a [Step], hash: u64, key: &[u8]) -> Option<&'a Step> {
        let same_key = |latest: &Latest| steps[latest.step].entry.key() == key;
        self.latest.find(hash, same_key).map(|latest| &steps[latest.step])
    }

    /// Returns the entries within `bounds` that the steps put, in no order.
    pub(super) fn puts_within<'a>(
        &self,
        steps: &'a [Step],
        bounds: Bounds<'_>,
    ) -> impl Iterator<Item = &'a Entry> {
        self.latest.iter().filter_map(move |latest| {
            let step = &steps[latest.step];
            let put = matches!(step.kind, StepKind::Put { .. });
            (put && contains(bounds, step.entry.key())).then_some(&step.entry)
        })
    }

    /// Returns true if a step changes a key within `bounds`. The removal of an entry that has
    /// expired at `now_us` changes nothing that is read.
    pub(super) fn has_step_within(&self, steps: &[Step], bounds: Bounds<'_>, now_us: i64) -> bool {
        self.latest.iter().any(|latest| {
            let step = &steps[latest.step];
            let is_swept = step.kind == StepKind::Remove && step.entry.has_expired_at(now_us);
            !is_swept && contains(bounds, step.entry.key())
        })
    }

    /// Removes all steps. Those before the step `from` are not entered again.
    pub(super) fn clear(&mut self, from: usize) {
        self.latest.clear();
        self.entered = from;
    }
}

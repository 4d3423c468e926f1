//! The state that a change of a group finds: memory after the changes that are decided so far.

use codex_storage::batch::TableId;

use super::Plan;
use crate::commit::End;
use crate::entry::{Entry, Name};
use crate::map::{Map, Step, StepKind};
use crate::range::{self, Bounds, KeyBound};

impl Plan {
    /// Returns the entry of `name` after the changes that are decided so far, unless it has
    /// expired.
    pub(super) fn shown<'a>(
        &'a mut self,
        map: &'a Map,
        hash: u64,
        name: Name<'_>,
    ) -> Option<&'a Entry> {
        let now_us = self.now_us;
        self.current(map, hash, name).filter(|entry| !entry.has_expired_at(now_us))
    }

    /// Returns the same even if the entry has expired.
    pub(super) fn current<'a>(
        &'a mut self,
        map: &'a Map,
        hash: u64,
        name: Name<'_>,
    ) -> Option<&'a Entry> {
        self.enter_steps();
        match self.overlay.find(&self.work.steps, hash, name) {
            Some(Step { entry, kind: StepKind::Put { .. }, .. }) => Some(entry),
            Some(Step { kind: StepKind::Remove, .. }) => None,
            None if self.cleared.is_some() && name.table.is_none() => None,
            None => map.hash().find(hash, name),
        }
    }

    /// Returns the number of entries outside tables after these changes, including those that have
    /// expired.
    pub(super) fn len(&self, map: &Map) -> u64 {
        let from = self.cleared.unwrap_or(0);
        // Count from the state before the group, or from an empty state after a clear.
        let before = if self.cleared.is_some() { 0 } else { map.len() };
        let steps = self.work.steps.iter().skip(from);
        let steps = steps.filter(|step| step.entry.table().is_none());
        let len = steps.fold(before, |len, step| match step.kind {
            StepKind::Put { new } => len + usize::from(new),
            StepKind::Remove => len - 1,
        });
        u64::try_from(len).expect("a count of entries fits in 64 bits")
    }

    /// Returns the entries of `table`, or those outside tables, within the bounds after the changes
    /// that are decided so far, in key order, without those that have expired.
    pub(super) fn range(
        &mut self,
        map: &Map,
        table: Option<TableId>,
        lower: &KeyBound,
        upper: &KeyBound,
    ) -> Vec<Entry> {
        self.enter_steps();
        let Some(bounds) = range::bounds(lower, upper) else { return Vec::new() };
        let mut found: Vec<_> = self.unchanged(map, table, bounds).cloned().collect();
        // Then the entries that steps have put, in no order.
        let unchanged = found.len();
        found.extend(self.puts_within(table, bounds).cloned());
        // The entries of the map are already in order.
        if found.len() > unchanged {
            found.sort_unstable();
        }
        found
    }

    /// Returns the entry at `end` of the range after the changes that are decided so far. Skips
    /// those that have expired.
    pub(super) fn edge(
        &mut self,
        map: &Map,
        table: Option<TableId>,
        (lower, upper): (&KeyBound, &KeyBound),
        end: End,
    ) -> Option<Entry> {
        self.enter_steps();
        let bounds = range::bounds(lower, upper)?;
        let mut unchanged = self.unchanged(map, table, bounds);
        let put = self.puts_within(table, bounds);
        let edge = match end {
            End::First => put.chain(unchanged.next()).min(),
            End::Last => put.chain(unchanged.next_back()).max(),
        };
        edge.cloned()
    }

    /// Returns the entries within `bounds` that steps of this group have put, in no order, without
    /// those that have expired. The steps must have been entered.
    pub(super) fn puts_within<'a>(
        &'a self,
        table: Option<TableId>,
        bounds: Bounds<'a>,
    ) -> impl Iterator<Item = &'a Entry> {
        let puts = self.overlay.puts_within(&self.work.steps, table, bounds);
        puts.filter(|entry| !entry.has_expired_at(self.now_us))
    }

    /// Returns the entries of the map within `bounds` that no step of this group has changed, in
    /// key order, without those that have expired. The steps must have been entered.
    pub(super) fn unchanged<'a>(
        &'a self,
        map: &'a Map,
        table: Option<TableId>,
        bounds: Bounds<'a>,
    ) -> impl DoubleEndedIterator<Item = &'a Entry> {
        let (hasher, steps) = (map.hash().hasher(), &self.work.steps);
        self.stored(map, table, bounds).filter(move |entry| {
            let name = entry.name();
            steps.is_empty() || self.overlay.find(steps, hasher.hash(name), name).is_none()
        })
    }

    /// Returns the entries of the map within `bounds` that no clear of this group has removed, in
    /// key order, without those that have expired. A clear of a table is a step for each entry.
    pub(super) fn stored<'a>(
        &self,
        map: &'a Map,
        table: Option<TableId>,
        bounds: Bounds<'a>,
    ) -> impl DoubleEndedIterator<Item = &'a Entry> + use<'a> {
        let is_cleared = self.cleared.is_some() && table.is_none();
        let (ordered, now_us) = (map.ordered_ref(), self.now_us);
        let stored = (!is_cleared).then(|| ordered.range_at(table, bounds, now_us));
        stored.into_iter().flatten()
    }
}

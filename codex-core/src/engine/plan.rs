//! The effect of a group, decided before anything of it is written. Checks are tested and removals
//! are resolved against memory and an overlay of the earlier members of the group.

use codex_storage::RecordError;
use codex_storage::batch::{Group, Op, Seq};

use super::feed::Feed;
use super::overlay::Overlay;
use crate::commit::{Base, Change, Check, Commit, End, are_same, is_same};
use crate::entry::Entry;
use crate::map::{Map, Ordered, SHARDS, Step, StepKind, Table, Work, shard};
use crate::range::{self, Bounds, KeyBound};

/// The effect on memory of the members of a group that are decided so far.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The steps of all members so far, and the tables that are needed to apply them.
    pub(super) work: Work,
    /// The number of the first valid step, if a member cleared the store: the clear makes all
    /// earlier steps void.
    cleared: Option<usize>,
    overlay: Overlay,
    /// The changes, for the watches.
    pub(super) feed: Feed,
    /// Whether a member is to be synced at every level.
    pub(super) sync: bool,
    /// The time of the group, in microseconds since 1970: entries that expire at it or before are
    /// absent. Not used if no entry expires.
    pub(super) now_us: i64,
}

/// The decision for one member.
#[derive(Debug)]
pub(super) enum Planned {
    /// A check does not hold, and nothing is changed.
    Conflict,
    /// The member is in the group.
    Done {
        /// The index of its batch in the group, or `None` if it writes nothing.
        batch: Option<u64>,
        removed: u64,
        previous: Option<Entry>,
    },
}

/// The decision for one member, or the reason why it cannot be a batch.
pub(super) type Decided = Result<Planned, RecordError>;

/// The state of the plan before a member, to be restored if the member is refused.
struct Mark {
    steps: usize,
    cleared: Option<usize>,
    fed: usize,
}

/// The effect of the changes of one commit.
#[derive(Default)]
struct Tally {
    writes: bool,
    removed: u64,
    previous: Option<Entry>,
}

impl Plan {
    /// Decides the effect of `commit` after the earlier members, and encodes it.
    ///
    /// # Errors
    /// `BatchTooLarge` or `KeyTooLong`: nothing of the commit is in the group.
    pub(super) fn add(&mut self, map: &Map, group: &mut Group, commit: &Commit) -> Decided {
        // A commit that has read the current state needs no test, unless an earlier member of the
        // group changes it, or entries have expired.
        let is_current = commit.base.is_some_and(|base| self.is_still(map, base));
        let mut checks = commit.checks.as_slice().iter();
        if !is_current && !checks.all(|check| self.holds(map, check)) {
            return Ok(Planned::Conflict);
        }
        // Make the changes one by one, so that each sees the effect of those before it.
        let (steps, fed) = (self.work.steps.len(), self.feed.len());
        let mark = Mark { steps, cleared: self.cleared, fed };
        let mut tally = Tally::default();
        let mut changes = commit.changes.as_slice().iter();
        let done = changes.try_for_each(|change| self.change(map, group, change, &mut tally));
        if let Err(error) = done {
            // A commit that is too large leaves no trace in the group or in the plan.
            group.abandon();
            self.roll_back(&mark);
            return Err(error);
        }
        self.sync |= commit.sync;
        // A commit that changes nothing writes no batch and gets no number.
        let batch = tally.writes.then(|| {
            group.finish();
            u64::try_from(group.batches() - 1).expect("a count of commits fits in 64 bits")
        });
        Ok(Planned::Done { batch, removed: tally.removed, previous: tally.previous })
    }

    /// Prepares everything that is needed to apply the group to `map`, so that nothing grows during
    /// the apply.
    pub(super) fn prepare(&mut self, map: &Map, image: bool) {
        let work = &mut self.work;
        work.clear = self.cleared.is_some();
        // Drop the steps before the last clear, which have no effect.
        work.steps.drain(..self.cleared.unwrap_or(0));
        // Large groups are applied to a copy of the hash index here, while readers continue. Small
        // groups are applied in place, in tables with enough room.
        work.hash_done = is_bulk_of_hash(work.steps.len(), map.len());
        if work.hash_done {
            work.tables = map.hash().rebuilt(&work.steps, work.clear);
        } else {
            reserve(work, map);
        }
        // The same for the ordered index. An image needs the state after the group before the
        // apply.
        if image || work.steps.len() > BULK_OF_ORDERED {
            let mut ordered = if work.clear { Ordered::new() } else { map.ordered() };
            work.apply_to(&mut ordered);
            work.ordered = Some(ordered);
        }
        // Reserve room for the entries that the apply removes: at most two for each step.
        if !work.hash_done {
            work.freed.entries.reserve(2 * work.steps.len());
        }
        work.freed.tables.reserve(work.tables.len());
        work.freed.hashes.reserve(1);
        work.freed.ordered.reserve(2);
    }

    /// Records the number of the last commit.
    pub(super) fn committed(&mut self, seq: Seq) {
        self.work.seq = Some(seq);
    }

    /// Empties the plan for the next group.
    pub(super) fn reset(&mut self) {
        self.work.clear = false;
        self.work.hash_done = false;
        self.work.tables.clear();
        self.work.ordered = None;
        self.work.steps.clear();
        self.work.seq = None;
        self.work.freed.entries.clear();
        self.cleared = None;
        self.sync = false;
        self.feed.truncate(0);
        self.overlay.clear(0);
    }

    /// Returns true if `check` holds after the earlier members.
    fn holds(&mut self, map: &Map, check: &Check) -> bool {
        match check {
            Check::Same(seen) => {
                let hash = map.hash().hasher().hash(seen.key());
                is_same(self.shown(map, hash, seen.key()), Some(seen))
            }
            Check::Absent(key) => self.shown(map, map.hash().hasher().hash(key), key).is_none(),
            Check::Equals { key, value } => {
                let now = self.shown(map, map.hash().hasher().hash(key), key);
                now.map(Entry::value) == value.as_deref()
            }
            Check::Unchanged { lower, upper, base } => {
                self.enter_steps();
                let Some(bounds) = range::bounds(lower, upper) else { return true };
                // A step of an earlier member within the range is a change of it.
                if self.overlay.has_step_within(&self.work.steps, bounds, self.now_us) {
                    return false;
                }
                let now = self.cleared.is_none().then(|| map.ordered_ref());
                let now_us = self.now_us;
                let now = now.into_iter().flat_map(|now| now.range_at(bounds, now_us));
                are_same(now, base.range(bounds))
            }
        }
    }

    /// Returns true if a reader would find the same now as in `base`: there is no later commit, no
    /// member so far changes anything, and the same entries are hidden because none is.
    fn is_still(&self, map: &Map, base: Base) -> bool {
        let is_unchanged = self.work.steps.is_empty() && self.cleared.is_none();
        let is_hidden =
            map.ordered_ref().first_deadline().is_some_and(|first| first <= self.now_us);
        base.seq == map.seq() && is_unchanged && base.now_us <= self.now_us && !is_hidden
    }

    /// Decides the effect of one change, adds its steps, and encodes its records.
    fn change(
        &mut self,
        map: &Map,
        group: &mut Group,
        change: &Change,
        tally: &mut Tally,
    ) -> Result<(), RecordError> {
        match change {
            Change::Put(entry) => {
                let hash = map.hash().hasher().hash(entry.key());
                let now_us = self.now_us;
                let replaced = self.current(map, hash, entry.key());
                let kind = StepKind::Put { new: replaced.is_none() };
                let shown = replaced.filter(|replaced| !replaced.has_expired_at(now_us));
                tally.previous = shown.cloned();
                group.push(Op::Set(entry.item()))?;
                tally.writes = true;
                self.feed.set(group, entry);
                self.work.steps.push(Step { entry: entry.clone(), hash, kind });
            }
            Change::Remove(key) => {
                let hash = map.hash().hasher().hash(key);
                tally.previous = self.shown(map, hash, key).cloned();
                if let Some(entry) = tally.previous.clone() {
                    self.remove(group, entry, hash, tally)?;
                }
            }
            // Both are tested, so that the sweep never takes a later entry of the key, nor one that
            // is shown again because the clock was set back.
            Change::Sweep(entry) => {
                let hash = map.hash().hasher().hash(entry.key());
                let is_there = is_same(self.current(map, hash, entry.key()), Some(entry));
                if is_there && entry.has_expired_at(self.now_us) {
                    self.remove(group, entry.clone(), hash, tally)?;
                }
            }
            // The log has no record for a range: each removed key gets a record of its own.
            Change::RemoveRange(lower, upper) => {
                for entry in self.range(map, lower, upper) {
                    let hash = map.hash().hasher().hash(entry.key());
                    self.remove(group, entry, hash, tally)?;
                }
            }
            Change::Pop(lower, upper, end) => {
                tally.previous = self.edge(map, lower, upper, *end);
                if let Some(entry) = tally.previous.clone() {
                    let hash = map.hash().hasher().hash(entry.key());
                    self.remove(group, entry, hash, tally)?;
                }
            }
            // Also removes the entries that have expired, and counts them.
            Change::Clear => {
                let there = self.len(map);
                if there > 0 {
                    group.push(Op::Clear)?;
                    tally.writes = true;
                    tally.removed += there;
                    // The earlier changes stay in the feed: each commit shows its own.
                    self.feed.cleared(group);
                    // No later change sees a step or an entry from before the clear.
                    self.cleared = Some(self.work.steps.len());
                    self.overlay.clear(self.work.steps.len());
                }
            }
        }
        Ok(())
    }

    /// Adds the step that removes `entry`, and encodes it.
    fn remove(
        &mut self,
        group: &mut Group,
        entry: Entry,
        hash: u64,
        tally: &mut Tally,
    ) -> Result<(), RecordError> {
        group.push(Op::Remove { key: entry.key() })?;
        tally.writes = true;
        tally.removed += 1;
        self.feed.removed(group, &entry);
        self.work.steps.push(Step { entry, hash, kind: StepKind::Remove });
        Ok(())
    }

    /// Returns the entry of `key` after the changes that are decided so far, unless it has expired.
    fn shown<'a>(&'a mut self, map: &'a Map, hash: u64, key: &[u8]) -> Option<&'a Entry> {
        let now_us = self.now_us;
        self.current(map, hash, key).filter(|entry| !entry.has_expired_at(now_us))
    }

    /// Returns the same even if the entry has expired.
    fn current<'a>(&'a mut self, map: &'a Map, hash: u64, key: &[u8]) -> Option<&'a Entry> {
        self.enter_steps();
        match self.overlay.find(&self.work.steps, hash, key) {
            Some(Step { entry, kind: StepKind::Put { .. }, .. }) => Some(entry),
            Some(Step { kind: StepKind::Remove, .. }) => None,
            None if self.cleared.is_some() => None,
            None => map.hash().find(hash, key),
        }
    }

    /// Returns the number of entries after these changes, including those that have expired.
    fn len(&self, map: &Map) -> u64 {
        let from = self.cleared.unwrap_or(0);
        // Count from the state before the group, or from an empty state after a clear.
        let before = if self.cleared.is_some() { 0 } else { map.len() };
        let steps = self.work.steps.iter().skip(from);
        let len = steps.fold(before, |len, step| match step.kind {
            StepKind::Put { new } => len + usize::from(new),
            StepKind::Remove => len - 1,
        });
        u64::try_from(len).expect("a count of entries fits in 64 bits")
    }

    /// Returns the entries within the bounds after the changes that are decided so far, in key
    /// order, without those that have expired.
    fn range(&mut self, map: &Map, lower: &KeyBound, upper: &KeyBound) -> Vec<Entry> {
        self.enter_steps();
        let Some(bounds) = range::bounds(lower, upper) else { return Vec::new() };
        let mut found: Vec<_> = self.unchanged(map, bounds).cloned().collect();
        // Then the entries that steps have put, in no order.
        let unchanged = found.len();
        found.extend(self.puts_within(bounds).cloned());
        // The entries of the map are already in order.
        if found.len() > unchanged {
            found.sort_unstable();
        }
        found
    }

    /// Returns the entry at `end` of the range after the changes that are decided so far. Skips
    /// those that have expired.
    fn edge(&mut self, map: &Map, lower: &KeyBound, upper: &KeyBound, end: End) -> Option<Entry> {
        self.enter_steps();
        let bounds = range::bounds(lower, upper)?;
        let mut unchanged = self.unchanged(map, bounds);
        let put = self.puts_within(bounds);
        let edge = match end {
            End::First => put.chain(unchanged.next()).min(),
            End::Last => put.chain(unchanged.next_back()).max(),
        };
        edge.cloned()
    }

    /// Returns the entries within `bounds` that steps of this group have put, in no order, without
    /// those that have expired. The steps must have been entered.
    fn puts_within<'a>(&'a self, bounds: Bounds<'a>) -> impl Iterator<Item = &'a Entry> {
        let puts = self.overlay.puts_within(&self.work.steps, bounds);
        puts.filter(|entry| !entry.has_expired_at(self.now_us))
    }

    /// Returns the entries of the map within `bounds` that no step of this group has changed, in
    /// key order, without those that have expired. The steps must have been entered.
    fn unchanged<'a>(
        &'a self,
        map: &'a Map,
        bounds: Bounds<'a>,
    ) -> impl DoubleEndedIterator<Item = &'a Entry> {
        let (hasher, steps) = (map.hash().hasher(), &self.work.steps);
        let stored =
            self.cleared.is_none().then(|| map.ordered_ref().range_at(bounds, self.now_us));
        stored.into_iter().flatten().filter(move |entry| {
            let key = entry.key();
            steps.is_empty() || self.overlay.find(steps, hasher.hash(key), key).is_none()
        })
    }

    /// Adds the latest steps to the overlay.
    fn enter_steps(&mut self) {
        self.overlay.enter(&self.work.steps);
    }

    /// Restores the plan to `mark`. The overlay is built again when it is needed next.
    fn roll_back(&mut self, mark: &Mark) {
        self.work.steps.truncate(mark.steps);
        self.feed.truncate(mark.fed);
        self.cleared = mark.cleared;
        self.overlay.clear(mark.cleared.unwrap_or(0));
    }
}

/// Builds a larger table for each hash table that has no room for its new entries.
fn reserve(work: &mut Work, map: &Map) {
    // Count the new entries of each table. A replaced entry needs no room.
    let mut new = [0_usize; SHARDS];
    for step in &work.steps {
        if step.kind == (StepKind::Put { new: true }) {
            new[shard(step.hash)] += 1;
        }
    }
    for (shard, count) in new.into_iter().enumerate().filter(|(_, count)| *count > 0) {
        // After a clear, the tables are empty and have no room.
        let table = if work.clear {
            Some(Table::with_capacity(count))
        } else {
            map.hash().grown(shard, count)
        };
        work.tables.extend(table.map(|table| (shard, table)));
    }
}

/// Returns true if a group of `steps` steps is to be applied to a copy of the hash index of `len`
/// entries, while readers continue. This holds if the copy takes at most a few times the work, or
/// if an apply in place would block readers for more than about 10 ms.
fn is_bulk_of_hash(steps: usize, len: usize) -> bool {
    steps > BULK_OF_HASH || (steps > BULK_OF_ORDERED && steps > len / 4)
}

/// The maximum number of steps of a group that is applied to the ordered index in place. A longer
/// group is applied to a copy, which shares the nodes that do not change. The copy costs the writer
/// more, but readers do not wait for it.
const BULK_OF_ORDERED: usize = 1024;
/// The maximum number of steps of a group that is applied to the hash index in place, for any
/// number of entries.
const BULK_OF_HASH: usize = 32_768;

//! The effect of a group, decided before anything of it is written. Checks are tested and removals
//! are resolved against memory and an overlay of the earlier members of the group.

mod found;

use std::ops::Bound;

use codex_storage::RecordError;
use codex_storage::batch::{Group, Op, Seq, TableId};

use super::feed::Feed;
use super::overlay::Overlay;
use super::prepare::prepare;
use crate::commit::{Base, Change, Check, Commit, are_same, is_same};
#[cfg(feature = "shared")]
use crate::commit::{is_seen, seen_entries};
use crate::entry::{Entry, Name};
use crate::map::{Map, Step, StepKind, Work};
use crate::range;

/// The effect on memory of the members of a group that are decided so far.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The steps of all members so far, and the tables that are needed to apply them.
    pub(super) work: Work,
    /// The number of the first step after the last clear, if a member cleared the store: the clear
    /// makes all earlier steps of entries outside tables void.
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
        // Drop the steps before the last clear that have no effect.
        if let Some(cleared) = self.cleared {
            let mut number = 0..;
            work.steps.retain(|step| !number.next().is_some_and(|n| step.is_void(n, cleared)));
        }
        prepare(work, map, image);
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
        self.overlay.clear();
    }

    /// Returns true if `check` holds after the earlier members.
    fn holds(&mut self, map: &Map, check: &Check) -> bool {
        match check {
            Check::Same(seen) => {
                let hash = map.hash().hasher().hash(seen.name());
                is_same(self.shown(map, hash, seen.name()), Some(seen))
            }
            Check::Absent(name) => {
                let name = name.as_name();
                self.shown(map, map.hash().hasher().hash(name), name).is_none()
            }
            Check::Equals { name, value } => {
                let name = name.as_name();
                let now = self.shown(map, map.hash().hasher().hash(name), name);
                now.map(Entry::value) == value.as_deref()
            }
            Check::Unchanged { table, lower, upper, base } => {
                self.enter_steps();
                let Some(bounds) = range::bounds(lower, upper) else { return true };
                // A step of an earlier member within the range is a change of it.
                let (table, now_us) = (*table, self.now_us);
                if self.overlay.has_step_within(&self.work.steps, table, bounds, now_us) {
                    return false;
                }
                are_same(self.stored(map, table, bounds), base.range(table, bounds))
            }
            #[cfg(feature = "shared")]
            Check::Seen(name, seen) => {
                let name = name.as_name();
                is_seen(self.shown(map, map.hash().hasher().hash(name), name), *seen)
            }
            #[cfg(feature = "shared")]
            Check::SeenRange(table, lower, upper, seen) => {
                seen_entries(&self.range(map, *table, lower, upper)) == *seen
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
                let hash = map.hash().hasher().hash(entry.name());
                let now_us = self.now_us;
                let replaced = self.current(map, hash, entry.name());
                let kind = StepKind::Put { new: replaced.is_none() };
                let shown = replaced.filter(|replaced| !replaced.has_expired_at(now_us));
                tally.previous = shown.cloned();
                group.push(Op::Set(entry.item()))?;
                tally.writes = true;
                self.feed.set(group, entry);
                self.work.steps.push(Step { entry: entry.clone(), hash, kind });
            }
            Change::Remove(name) => {
                let name = name.as_name();
                let hash = map.hash().hasher().hash(name);
                tally.previous = self.shown(map, hash, name).cloned();
                if let Some(entry) = tally.previous.clone() {
                    self.remove(group, entry, hash, tally)?;
                }
            }
            Change::Sweep(entry) => self.sweep(map, group, entry.name(), Some(entry), tally)?,
            #[cfg(feature = "shared")]
            Change::Expire(name) => self.sweep(map, group, name.as_name(), None, tally)?,
            // The log has no record for a range: each removed key gets a record of its own.
            Change::RemoveRange(table, lower, upper) => {
                for entry in self.range(map, *table, lower, upper) {
                    let hash = map.hash().hasher().hash(entry.name());
                    self.remove(group, entry, hash, tally)?;
                }
            }
            Change::Pop(table, lower, upper, end) => {
                tally.previous = self.edge(map, *table, (lower, upper), *end);
                if let Some(entry) = tally.previous.clone() {
                    let hash = map.hash().hasher().hash(entry.name());
                    self.remove(group, entry, hash, tally)?;
                }
            }
            Change::Clear(Some(table)) => self.clear_table(map, group, *table, tally)?,
            // Also removes the entries that have expired, and writes its record even if it removes
            // nothing else: a clock that is set back must not show them again after the clear.
            Change::Clear(None) => {
                let there = self.len(map);
                if there > 0 {
                    group.push(Op::CLEAR)?;
                    tally.writes = true;
                    tally.removed += there;
                    // The earlier changes stay in the feed: each commit shows its own.
                    self.feed.cleared(group, None);
                    // No later change sees what was before the clear, except in tables.
                    self.cleared = Some(self.work.steps.len());
                    self.overlay.clear();
                }
            }
        }
        Ok(())
    }

    /// Removes the entry of `name` if it has expired, and if it is still `seen`, where that is
    /// known.
    fn sweep(
        &mut self,
        map: &Map,
        group: &mut Group,
        name: Name<'_>,
        seen: Option<&Entry>,
        tally: &mut Tally,
    ) -> Result<(), RecordError> {
        let hash = map.hash().hasher().hash(name);
        let Some(current) = self.current(map, hash, name).cloned() else { return Ok(()) };
        let is_there = seen.is_none() || is_same(Some(&current), seen);
        // Both are tested, so that the sweep never takes a later entry of the key, nor one that is
        // shown again because the clock was set back.
        let entry = seen.unwrap_or(&current);
        if is_there && entry.has_expired_at(self.now_us) {
            self.remove(group, entry.clone(), hash, tally)?;
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
        group.push(entry.removal())?;
        tally.writes = true;
        tally.removed += 1;
        self.feed.removed(group, &entry);
        self.work.steps.push(Step { entry, hash, kind: StepKind::Remove });
        Ok(())
    }

    /// Adds the steps that remove all entries of `table`, and encodes them as one record.
    fn clear_table(
        &mut self,
        map: &Map,
        group: &mut Group,
        table: TableId,
        tally: &mut Tally,
    ) -> Result<(), RecordError> {
        self.enter_steps();
        let (table, bounds) = (Some(table), (Bound::Unbounded, Bound::Unbounded));
        let (hasher, steps) = (map.hash().hasher(), &self.work.steps);
        let mut there: Vec<_> = self.overlay.puts_within(steps, table, bounds).cloned().collect();
        there.extend(
            map.ordered_ref()
                .range(table, bounds)
                .filter(|entry| {
                    let name = entry.name();
                    steps.is_empty() || self.overlay.find(steps, hasher.hash(name), name).is_none()
                })
                .cloned(),
        );
        if there.is_empty() {
            return Ok(());
        }
        group.push(Op::Clear { table })?;
        tally.writes = true;
        self.feed.cleared(group, table);
        // In memory it removes many keys, for which readers wait no longer than for others.
        for entry in there {
            tally.removed += 1;
            let hash = hasher.hash(entry.name());
            self.work.steps.push(Step { entry, hash, kind: StepKind::Remove });
        }
        Ok(())
    }

    /// Adds the latest steps to the overlay.
    fn enter_steps(&mut self) {
        self.overlay.enter(&self.work.steps, self.cleared.unwrap_or(0));
    }

    /// Restores the plan to `mark`. The overlay is built again when it is needed next.
    fn roll_back(&mut self, mark: &Mark) {
        self.work.steps.truncate(mark.steps);
        self.feed.truncate(mark.fed);
        self.cleared = mark.cleared;
        self.overlay.clear();
    }
}

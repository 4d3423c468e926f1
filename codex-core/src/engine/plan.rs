//! Deciding the effect of a group, before anything of it is written: checks are tested and removals
//! resolved against memory plus an overlay of the earlier members of the group.

use std::ops::Bound;

use codex_storage::RecordError;
use codex_storage::batch::{Group, Op, Seq};

use super::overlay::{Overlay, is_empty};
use crate::commit::{Change, Check, Commit};
use crate::entry::Entry;
use crate::map::{Map, Ordered, SHARDS, Step, StepKind, Table, Work, shard};

/// The effect of a group on memory, as far as it has been decided.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The steps of all members so far, and the tables that applying them needs.
    pub(super) work: Work,
    /// The steps before this one are void: everything was cleared there.
    cleared: Option<usize>,
    overlay: Overlay,
}

/// The outcome that was decided for one member.
#[derive(Debug)]
pub(super) enum Planned {
    /// A check does not hold.
    Conflict,
    /// It is in the group.
    Done {
        /// The index of its batch in the group; `None` if it writes nothing.
        batch: Option<u64>,
        removed: u64,
        previous: Option<Entry>,
    },
}

/// The outcome that was decided for one member, or the reason why it cannot be a batch.
pub(super) type Decided = Result<Planned, RecordError>;

/// The plan before a member, to return to if the member is refused.
struct Mark {
    steps: usize,
    cleared: Option<usize>,
}

/// The effect of the changes of one commit.
#[derive(Default)]
struct Tally {
    writes: bool,
    removed: u64,
    previous: Option<Entry>,
}

type KeyBound = Bound<Box<[u8]>>;

impl Plan {
    /// Decides the effect of `commit` after all that was decided before, and encodes it.
    ///
    /// # Errors
    /// The commit is too large for a batch; nothing of it is in the group.
    pub(super) fn add(&mut self, map: &Map, group: &mut Group, commit: &Commit) -> Decided {
        if !commit.checks.as_slice().iter().all(|check| self.holds(map, check)) {
            return Ok(Planned::Conflict);
        }
        let mark = Mark { steps: self.work.steps.len(), cleared: self.cleared };
        let mut tally = Tally::default();
        let mut changes = commit.changes.as_slice().iter();
        let done = changes.try_for_each(|change| self.change(map, group, change, &mut tally));
        if let Err(error) = done {
            group.abandon();
            self.roll_back(&mark);
            return Err(error);
        }
        let batch = tally.writes.then(|| {
            group.finish();
            u64::try_from(group.batches() - 1).expect("a count of commits fits in 64 bits")
        });
        Ok(Planned::Done { batch, removed: tally.removed, previous: tally.previous })
    }

    /// Prepares everything that applying the group to `map` needs, so that nothing grows there.
    pub(super) fn prepare(&mut self, map: &Map, image: bool) {
        let work = &mut self.work;
        work.clear = self.cleared.is_some();
        work.steps.drain(..self.cleared.unwrap_or(0));
        work.hash_done = is_bulk_of_hash(work.steps.len(), map.len());
        if work.hash_done {
            work.tables = map.hash().rebuilt(&work.steps, work.clear);
        } else {
            reserve(work, map);
        }
        if image || work.steps.len() > BULK_OF_ORDERED {
            let mut ordered = if work.clear { Ordered::new() } else { map.ordered() };
            work.apply_to(&mut ordered);
            work.ordered = Some(ordered);
        }
        if !work.hash_done {
            work.freed.entries.reserve(2 * work.steps.len());
        }
        work.freed.tables.reserve(work.tables.len());
        work.freed.hashes.reserve(1);
        work.freed.ordered.reserve(2);
    }

    /// Notes the number of the last commit.
    pub(super) fn committed(&mut self, seq: Seq) {
        self.work.seq = Some(seq);
    }

    /// Forgets everything, for the next group.
    pub(super) fn reset(&mut self) {
        self.work.clear = false;
        self.work.hash_done = false;
        self.work.tables.clear();
        self.work.ordered = None;
        self.work.steps.clear();
        self.work.seq = None;
        self.work.freed.entries.clear();
        self.cleared = None;
        self.overlay.clear(0);
    }

    fn holds(&mut self, map: &Map, check: &Check) -> bool {
        match check {
            Check::Same { key, seen } => {
                match (self.current(map, map.hash().hasher().hash(key), key), seen) {
                    (Some(now), Some(seen)) => now.same(seen),
                    (now, seen) => now.is_none() && seen.is_none(),
                }
            }
            Check::Equals { key, value } => {
                let now = self.current(map, map.hash().hasher().hash(key), key);
                now.map(Entry::value) == value.as_deref()
            }
            Check::Unchanged { lower, upper, seen } => {
                let now = self.range(map, lower, upper);
                now.len() == seen.len() && now.iter().zip(seen).all(|(now, seen)| now.same(seen))
            }
        }
    }

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
                tally.previous = self.current(map, hash, entry.key()).cloned();
                group.push(Op::Set { key: entry.key(), value: entry.value() })?;
                tally.writes = true;
                let kind = StepKind::Put { new: tally.previous.is_none() };
                self.work.steps.push(Step { entry: entry.clone(), hash, kind });
            }
            Change::Remove(key) => {
                let hash = map.hash().hasher().hash(key);
                tally.previous = self.current(map, hash, key).cloned();
                if let Some(entry) = tally.previous.clone() {
                    self.remove(group, entry, hash, tally)?;
                }
            }
            Change::RemoveRange(lower, upper) => {
                for entry in self.range(map, lower, upper) {
                    let hash = map.hash().hasher().hash(entry.key());
                    self.remove(group, entry, hash, tally)?;
                }
            }
            Change::Clear => {
                let there = self.len(map);
                if there > 0 {
                    group.push(Op::Clear)?;
                    tally.writes = true;
                    tally.removed += there;
                    self.cleared = Some(self.work.steps.len());
                    self.overlay.clear(self.work.steps.len());
                }
            }
        }
        Ok(())
    }

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
        self.work.steps.push(Step { entry, hash, kind: StepKind::Remove });
        Ok(())
    }

    /// The entry of `key` after all that was decided.
    fn current<'a>(&'a mut self, map: &'a Map, hash: u64, key: &[u8]) -> Option<&'a Entry> {
        self.enter_steps();
        match self.overlay.find(&self.work.steps, hash, key) {
            Some(Step { entry, kind: StepKind::Put { .. }, .. }) => Some(entry),
            Some(Step { kind: StepKind::Remove, .. }) => None,
            None if self.cleared.is_some() => None,
            None => map.hash().find(hash, key),
        }
    }

    /// How many entries there are after all that was decided.
    fn len(&self, map: &Map) -> u64 {
        let from = self.cleared.unwrap_or(0);
        let before = if self.cleared.is_some() { 0 } else { map.len() };
        let steps = self.work.steps.iter().skip(from);
        let len = steps.fold(before, |len, step| match step.kind {
            StepKind::Put { new } => len + usize::from(new),
            StepKind::Remove => len - 1,
        });
        u64::try_from(len).expect("a count of entries fits in 64 bits")
    }

    /// The entries within the bounds after all that was decided, in key order.
    fn range(&mut self, map: &Map, lower: &KeyBound, upper: &KeyBound) -> Vec<Entry> {
        self.enter_steps();
        let bounds = (lower.as_ref().map(|key| &**key), upper.as_ref().map(|key| &**key));
        if is_empty(bounds) {
            return Vec::new();
        }
        let steps = &self.work.steps;
        let mut found = Vec::new();
        if self.cleared.is_none() {
            let hasher = map.hash().hasher();
            found.extend(
                map.ordered_ref()
                    .range::<_, [u8]>(bounds)
                    .filter(|entry| {
                        let key = entry.key();
                        steps.is_empty()
                            || self.overlay.find(steps, hasher.hash(key), key).is_none()
                    })
                    .cloned(),
            );
        }
        let unchanged = found.len();
        found.extend(self.overlay.puts_within(steps, bounds).cloned());
        if found.len() > unchanged {
            found.sort_unstable();
        }
        found
    }

    fn enter_steps(&mut self) {
        self.overlay.enter(&self.work.steps);
    }

    fn roll_back(&mut self, mark: &Mark) {
        self.work.steps.truncate(mark.steps);
        self.cleared = mark.cleared;
        self.overlay.clear(mark.cleared.unwrap_or(0));
    }
}

/// Builds a larger table for each that has no room for its new entries.
fn reserve(work: &mut Work, map: &Map) {
    let mut new = [0_usize; SHARDS];
    for step in &work.steps {
        if step.kind == (StepKind::Put { new: true }) {
            new[shard(step.hash)] += 1;
        }
    }
    for (shard, count) in new.into_iter().enumerate().filter(|(_, count)| *count > 0) {
        let table = if work.clear {
            Some(Table::with_capacity(count))
        } else {
            map.hash().grown(shard, count)
        };
        work.tables.extend(table.map(|table| (shard, table)));
    }
}

/// Whether a group of `steps` is better applied to a copy of the hash index of `len` entries,
/// beside the readers: where that is no more than some times the work, or where applying it in
/// place would keep them waiting for more than about 10 ms.
fn is_bulk_of_hash(steps: usize, len: usize) -> bool {
    steps > BULK_OF_HASH || (steps > BULK_OF_ORDERED && steps > len / 4)
}

/// A longer group is applied to a copy of the ordered index that shares the nodes which do not
/// change: dearer for the writer, but readers do not wait for it.
const BULK_OF_ORDERED: usize = 1024;
/// A longer group is applied to a copy of the hash index, whatever that costs.
const BULK_OF_HASH: usize = 32_768;

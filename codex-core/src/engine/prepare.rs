//! The preparation of an apply: everything that would take time or memory while readers wait.

use crate::map::{Map, SHARDS, Step, StepKind, Table, Work, shard};

/// Adds to `work`, which has the steps of a group, all that is needed to apply them to `map`
/// without growing a table, and without long work if they are many.
pub(super) fn prepare(work: &mut Work, map: &Map, image: bool) {
    // Large groups are applied to a copy of the hash index here, while readers continue, and so is
    // a clear that leaves the entries of tables. Small groups are applied in place, with enough
    // room.
    let leaves_tables = work.clear && map.ordered_ref().has_tables();
    work.hash_done = leaves_tables || is_bulk_of_hash(work.steps.len(), map.len());
    if work.hash_done {
        let cleared = work.clear.then(|| map.hash().cleared(leaves_tables));
        work.tables = cleared.as_ref().unwrap_or(map.hash()).rebuilt(&work.steps);
    } else {
        reserve(work, map);
    }
    // The same for the ordered index. An image needs the state after the group before the apply.
    if image || leaves_tables || work.steps.len() > BULK_OF_ORDERED {
        let mut ordered = map.ordered();
        if work.clear {
            ordered.clear(None);
        }
        work.apply_to(&mut ordered);
        work.ordered = Some(ordered);
    }
    // Reserve room for the entries that the apply removes: at most two for each step.
    if !work.hash_done {
        work.freed.entries.reserve(2 * work.steps.len());
    }
    work.freed.tables.reserve(work.tables.len());
    if work.clear {
        work.freed.hashes.reserve(1);
    }
    // One that is cleared, and one that is replaced.
    if work.clear || work.ordered.is_some() {
        work.freed.ordered.reserve(2);
    }
}

/// Builds a larger table for each hash table that has no room for its new entries.
fn reserve(work: &mut Work, map: &Map) {
    // Count the new entries of each table. A replaced entry needs no room.
    let is_new = |step: &&Step| step.kind == StepKind::Put { new: true };
    let mut puts = work.steps.iter().filter(is_new).peekable();
    if puts.peek().is_none() {
        return;
    }
    let mut new = [0_usize; SHARDS];
    puts.for_each(|step| new[shard(step.hash)] += 1);
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

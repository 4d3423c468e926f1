//! The hash index: a fixed number of tables, so that growing one is a small step.

use std::hash::{BuildHasher, Hasher as _};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::{Step, StepKind};
use crate::entry::Entry;

/// One table of the index.
pub(crate) type Table = HashTable<Entry>;

/// Entries by the hash of their keys, spread over [`SHARDS`] tables by some of its bits.
///
/// A table grows by being built anew beside the readers and swapped in; with one table that would
/// hold up the writers for as long as it takes to copy all entries (137 ms for a million), with
/// many it holds them up for that fraction of it.
pub(crate) struct Hash {
    tables: [Table; SHARDS],
    hasher: Hasher,
}

/// The keyed hash of the index: nobody outside can make keys that collide.
#[derive(Clone, Default)]
pub(crate) struct Hasher(RandomState);

impl Hasher {
    /// The hash of `key`.
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        let mut state = self.0.build_hasher();
        state.write(key);
        state.finish()
    }
}

codex_storage::opaque_debug!(Hasher);

impl Hash {
    /// An empty index under a fresh key.
    pub(crate) fn new() -> Self {
        Self::with_hasher(Hasher::default())
    }

    /// An empty index that hashes with `hasher`.
    pub(crate) fn with_hasher(hasher: Hasher) -> Self {
        Self { tables: std::array::from_fn(|_| Table::new()), hasher }
    }

    /// The hash of this index.
    pub(crate) fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// The entry of `key`, whose hash is `hash`.
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<&Entry> {
        self.tables.get(shard(hash))?.find(hash, |entry| entry.key() == key)
    }

    /// Puts `entry`, whose key has the hash `hash`, in the place of one with its key, which is
    /// returned, or in a free place. Grows where no place was reserved.
    pub(crate) fn insert(&mut self, hash: u64, entry: Entry) -> Option<Entry> {
        insert(self.tables.get_mut(shard(hash))?, &self.hasher, hash, entry)
    }

    /// Takes out the entry of `key`, whose hash is `hash`.
    pub(crate) fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Entry> {
        remove(self.tables.get_mut(shard(hash))?, hash, key)
    }

    /// All tables, to take the place of those here: with `steps` applied, in order; without what
    /// is here if `clear`.
    pub(crate) fn rebuilt(&self, steps: &[Step], clear: bool) -> Vec<(usize, Table)> {
        let mut tables: Vec<(usize, Table)> = Vec::with_capacity(SHARDS);
        let mut of_shard = steps.iter().collect::<Vec<_>>();
        // Stable: the steps of one key stay in order.
        of_shard.sort_by_key(|step| shard(step.hash));
        let mut rest = of_shard.as_slice();
        for (number, table) in self.tables.iter().enumerate() {
            let count = rest.partition_point(|step| shard(step.hash) == number);
            let (here, others) = rest.split_at(count);
            rest = others;
            let mut table = if clear { Table::new() } else { table.clone() };
            let new = here.iter().filter(|step| step.kind == StepKind::Put { new: true }).count();
            table.reserve(new, |entry| self.hasher.hash(entry.key()));
            for step in here {
                match step.kind {
                    StepKind::Put { .. } => {
                        insert(&mut table, &self.hasher, step.hash, step.entry.clone());
                    }
                    StepKind::Remove => drop(remove(&mut table, step.hash, step.entry.key())),
                }
            }
            // Much was removed: what is left needs less room.
            table.shrink_to(2 * table.len(), |entry| self.hasher.hash(entry.key()));
            tables.push((number, table));
        }
        tables
    }

    /// A table to take the place of the one numbered `shard`, with the same entries and room for
    /// `new` more; `None` when that one has the room.
    pub(crate) fn grown(&self, shard: usize, new: usize) -> Option<Table> {
        let table = self.tables.get(shard)?;
        if table.capacity() - table.len() >= new {
            return None;
        }
        // Removals leave marks that take up room: where those are to blame, as large as before.
        let full = table.num_buckets() / 8 * 7;
        let needed = table.len() + new;
        let wanted = if needed <= full / 2 { needed.max(full) } else { needed.max(full + 1) };
        let mut grown = Table::with_capacity(wanted);
        for entry in table {
            let hash = self.hasher.hash(entry.key());
            grown.insert_unique(hash, entry.clone(), |entry| self.hasher.hash(entry.key()));
        }
        Some(grown)
    }

    /// Puts `table` in the place of the one numbered `shard`, which is returned.
    pub(crate) fn replace(&mut self, shard: usize, table: Table) -> Option<Table> {
        Some(std::mem::replace(self.tables.get_mut(shard)?, table))
    }
}

impl Default for Hash {
    fn default() -> Self {
        Self::new()
    }
}

codex_storage::opaque_debug!(Hash);

fn insert(table: &mut Table, hasher: &Hasher, hash: u64, entry: Entry) -> Option<Entry> {
    // Not `entry()`: it makes room before it looks whether any is needed.
    if let Some(present) = table.find_mut(hash, |present| present.key() == entry.key()) {
        return Some(std::mem::replace(present, entry));
    }
    table.insert_unique(hash, entry, |entry| hasher.hash(entry.key()));
    None
}

fn remove(table: &mut Table, hash: u64, key: &[u8]) -> Option<Entry> {
    let present = table.find_entry(hash, |entry| entry.key() == key).ok()?;
    Some(present.remove().0)
}

/// The number of the table for keys with the hash `hash`.
///
/// A table looks at the low bits first and tags its entries with the highest seven: these are
/// between them.
pub(crate) fn shard(hash: u64) -> usize {
    usize::try_from(hash >> 48).unwrap_or(0) % SHARDS
}

/// How many tables there are.
pub(crate) const SHARDS: usize = 64;

#[cfg(test)]
mod tests {
    use super::{Hash, Hasher, SHARDS, Table, shard};
    use crate::entry::Entry;

    #[test]
    fn keys_spread_evenly_over_the_tables() {
        let hasher = Hasher::default();
        let mut counts = [0_u32; SHARDS];
        for n in 0..64_000_u32 {
            counts[shard(hasher.hash(format!("user:{n:012}").as_bytes()))] += 1;
        }
        // 1,000 each on average. The hash is under a random key, and keys that are alike spread
        // worse under some keys than random bits would.
        assert!(counts.iter().all(|&count| (500..2_000).contains(&count)), "{counts:?}");
    }

    #[test]
    fn a_grown_table_has_room_so_that_inserting_never_grows_in_place() {
        let mut hash = Hash::new();
        for n in 0..5_000_u32 {
            let entry = Entry::new(&n.to_le_bytes(), b"v");
            let at = hash.hasher().hash(entry.key());
            if let Some(table) = hash.grown(shard(at), 1) {
                hash.replace(shard(at), table);
            }
            let before = hash.tables[shard(at)].num_buckets();
            assert!(hash.insert(at, entry).is_none());
            assert_eq!(hash.tables[shard(at)].num_buckets(), before);
        }
        for n in 0..5_000_u32 {
            let key = n.to_le_bytes();
            assert!(hash.find(hash.hasher().hash(&key), &key).is_some());
        }
    }

    #[test]
    fn removing_and_inserting_for_ever_does_not_grow_the_tables_for_ever() {
        let mut hash = Hash::new();
        for n in 0..200_000_u32 {
            let entry = Entry::new(&n.to_le_bytes(), b"v");
            let at = hash.hasher().hash(entry.key());
            if let Some(table) = hash.grown(shard(at), 1) {
                hash.replace(shard(at), table);
            }
            hash.insert(at, entry);
            if let Some(old) = n.checked_sub(1_000) {
                let key = old.to_le_bytes();
                assert!(hash.remove(hash.hasher().hash(&key), &key).is_some());
            }
        }
        let buckets: usize = hash.tables.iter().map(Table::num_buckets).sum();
        assert!(buckets < 64 * 128, "{buckets} buckets for 1,000 entries");
    }
}

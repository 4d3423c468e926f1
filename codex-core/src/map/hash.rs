//! The hash index. It has a fixed number of tables, so that growing one of them takes little time.

use std::hash::{BuildHasher, Hasher as _};

use codex_storage::batch::TableId;
use codex_storage::sync::{Mutex, thread};
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::replay::Clears;
use super::{Step, StepKind};
use crate::entry::{Entry, Name, read, read_ahead};

/// One table of the index.
pub(crate) type Table = HashTable<Entry>;

/// Entries by the hash of their keys, distributed over [`SHARDS`] tables by some bits of the hash.
///
/// To grow, a table is built again beside the readers, and then replaces the old one. With one
/// table, writers would wait until all entries are copied (137 ms for a million entries). With many
/// tables, they wait for a fraction of that time.
pub(crate) struct Hash {
    tables: [Table; SHARDS],
    hasher: Hasher,
}

/// The keyed hash of the index. The key is random, so that no outsider can construct keys that
/// collide.
#[derive(Clone, Default)]
pub(crate) struct Hasher(RandomState);

impl Hasher {
    /// Returns the hash of `name`.
    pub(crate) fn hash(&self, name: Name<'_>) -> u64 {
        let mut state = self.0.build_hasher();
        state.write(name.key);
        if let Some(table) = name.table {
            state.write_u32(table.get());
        }
        state.finish()
    }
}

codex_storage::opaque_debug!(Hasher);

impl Hash {
    /// Returns an empty index with a new hash key.
    pub(crate) fn new() -> Self {
        Self::with_hasher(Hasher::default())
    }

    /// Returns an empty index that uses `hasher`.
    pub(crate) fn with_hasher(hasher: Hasher) -> Self {
        Self { tables: std::array::from_fn(|_| Table::new()), hasher }
    }

    /// Returns the hasher of this index.
    pub(crate) fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// Returns the entry of `name`, whose hash is `hash`.
    pub(crate) fn find(&self, hash: u64, name: Name<'_>) -> Option<&Entry> {
        self.tables.get(shard(hash))?.find(hash, |entry| entry.name() == name)
    }

    /// Inserts `entry`, whose key has the hash `hash`. Returns the entry with the same key that it
    /// replaces. Grows the table if no room was reserved.
    pub(crate) fn insert(&mut self, hash: u64, entry: Entry) -> Option<Entry> {
        insert(self.tables.get_mut(shard(hash))?, &self.hasher, hash, entry)
    }

    /// Removes and returns the entry of `name`, whose hash is `hash`.
    pub(crate) fn remove(&mut self, hash: u64, name: Name<'_>) -> Option<Entry> {
        remove(self.tables.get_mut(shard(hash))?, hash, name)
    }

    /// Removes all entries of the tables of the store, or those outside tables, that are cleared.
    fn clear(&mut self, is_cleared: impl Fn(Option<TableId>) -> bool) {
        for part in &mut self.tables {
            part.retain(|entry| !is_cleared(entry.table()));
            part.shrink_to(2 * part.len(), |entry| self.hasher.hash(entry.name()));
        }
    }

    /// Returns a copy without the entries outside tables of the store, with the same hasher. It is
    /// empty unless `leaves_tables` is true.
    pub(crate) fn cleared(&self, leaves_tables: bool) -> Self {
        if !leaves_tables {
            return Self::with_hasher(self.hasher.clone());
        }
        let mut cleared = Self { tables: self.tables.clone(), hasher: self.hasher.clone() };
        cleared.clear(|table| table.is_none());
        cleared
    }

    /// Returns copies of all tables, each with its number, to which `steps` are applied in order.
    pub(crate) fn rebuilt(&self, steps: &[Step]) -> Vec<(usize, Table)> {
        let mut tables: Vec<(usize, Table)> = Vec::with_capacity(SHARDS);
        let mut of_shard = steps.iter().collect::<Vec<_>>();
        // The sort is stable, so the steps of one key stay in order.
        of_shard.sort_by_key(|step| shard(step.hash));
        let mut rest = of_shard.as_slice();
        for (number, table) in self.tables.iter().enumerate() {
            // Split off the steps of this table.
            let count = rest.partition_point(|step| shard(step.hash) == number);
            let (here, others) = rest.split_at(count);
            rest = others;
            // Apply them to a copy with enough room.
            read(table.iter());
            let mut table = table.clone();
            let new = here.iter().filter(|step| step.kind == StepKind::Put { new: true }).count();
            table.reserve(new, |entry| self.hasher.hash(entry.name()));
            for step in here {
                match step.kind {
                    StepKind::Put { .. } => {
                        insert(&mut table, &self.hasher, step.hash, step.entry.clone());
                    }
                    StepKind::Remove => drop(remove(&mut table, step.hash, step.entry.name())),
                }
            }
            // After many removals, the remaining entries need less room.
            table.shrink_to(2 * table.len(), |entry| self.hasher.hash(entry.name()));
            tables.push((number, table));
        }
        tables
    }

    /// Returns a replacement for the table `shard`, with the same entries and room for `new` more,
    /// or `None` if the table has that room.
    pub(crate) fn grown(&self, shard: usize, new: usize) -> Option<Table> {
        let table = self.tables.get(shard)?;
        if table.capacity() - table.len() >= new {
            return None;
        }
        // Removals leave marks that take up room. If they are the reason, the new table keeps the
        // size.
        let full = table.num_buckets() / 8 * 7;
        let needed = table.len() + new;
        let wanted = if needed <= full / 2 { needed.max(full) } else { needed.max(full + 1) };
        let mut grown = Table::with_capacity(wanted);
        for entry in read_ahead(table.iter()) {
            let hash = self.hasher.hash(entry.name());
            grown.insert_unique(hash, entry.clone(), |entry| self.hasher.hash(entry.name()));
        }
        Some(grown)
    }

    /// Replaces the table `shard` by `table`, and returns the old one.
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

/// Entries and changes with the hashes of their keys, by the number of their table.
///
/// Applied table by table, they find the memory of each table in the cache.
#[derive(Default)]
pub(super) struct Hashed {
    tables: Vec<OfTable>,
    len: usize,
    clears: Clears,
}

#[derive(Clone, Default)]
struct OfTable {
    /// With different keys.
    entries: Vec<(u64, Entry)>,
    /// Later changes, in order.
    changes: Vec<Change>,
}

/// A change of the entry with the name of `entry`.
#[derive(Clone)]
struct Change {
    /// The number of entries and changes before it.
    at: usize,
    hash: u64,
    is_removal: bool,
    entry: Entry,
}

impl Hashed {
    /// Adds `entry` before the changes. Its key has the hash `hash`, and is different from all
    /// others and from those of the index.
    pub(super) fn push(&mut self, hash: u64, entry: Entry) {
        self.of_table(hash).entries.push((hash, entry));
    }

    /// Adds a change of the entry with the name of `entry`, whose key has the hash `hash`.
    pub(super) fn push_change(&mut self, hash: u64, entry: Entry, is_removal: bool) {
        let at = self.len;
        self.of_table(hash).changes.push(Change { at, hash, is_removal, entry });
    }

    /// Clears `table`, or the entries outside tables, after all changes so far. Returns the number
    /// of cleared tables.
    pub(super) fn clear(&mut self, table: Option<TableId>) -> usize {
        self.clears.add(table, self.len)
    }

    /// Applies all to `hash`. If they are many, a second thread does some of the tables.
    pub(super) fn apply(self, hash: &mut Hash) {
        let is_large = self.len >= LARGE;
        let clears = &self.clears;
        if !clears.is_empty() {
            hash.clear(|table| clears.contains(table));
        }
        let Hash { tables, hasher } = hash;
        let jobs = Mutex::new(tables.iter_mut().zip(self.tables));
        // The lock is held for the choice of a table, and not while it is filled.
        let next = || jobs.lock().next();
        let fill_all = || {
            while let Some((table, of_table)) = next() {
                fill(table, hasher, of_table, clears);
            }
        };
        thread::scope(|scope| {
            if is_large {
                // If the system cannot start the thread, this one fills all tables.
                let _ = thread::spawn_scoped(scope, "codexdb-hash", fill_all);
            }
            fill_all();
        });
    }

    #[expect(clippy::indexing_slicing, reason = "there is one for each table")]
    fn of_table(&mut self, hash: u64) -> &mut OfTable {
        if self.tables.is_empty() {
            self.tables.resize(SHARDS, OfTable::default());
        }
        self.len += 1;
        &mut self.tables[shard(hash)]
    }
}

/// Fills a table. The first entries have different keys, so none of them is looked up, and the
/// memory of none is read.
fn fill(table: &mut Table, hasher: &Hasher, of_table: OfTable, clears: &Clears) {
    let OfTable { mut entries, mut changes } = of_table;
    if !clears.is_empty() {
        entries.retain(|(_, entry)| !clears.contains(entry.table()));
        changes.retain(|change| !clears.is_after(change.at, change.entry.table()));
    }
    let rehash = |entry: &Entry| hasher.hash(entry.name());
    table.reserve(entries.len(), rehash);
    for (hash, entry) in entries {
        table.insert_unique(hash, entry, rehash);
    }
    for Change { hash, is_removal, entry, .. } in changes {
        if is_removal {
            remove(table, hash, entry.name());
            continue;
        }
        if table.len() == table.capacity() {
            // Growing reads all keys.
            read(table.iter());
        }
        insert(table, hasher, hash, entry);
    }
}

/// Inserts `entry` into `table`, and returns the entry with the same key that it replaces.
fn insert(table: &mut Table, hasher: &Hasher, hash: u64, entry: Entry) -> Option<Entry> {
    // `entry()` would reserve room before it checks whether any is needed.
    if let Some(present) = table.find_mut(hash, |present| present.name() == entry.name()) {
        return Some(std::mem::replace(present, entry));
    }
    table.insert_unique(hash, entry, |entry| hasher.hash(entry.name()));
    None
}

/// Removes the entry of `name` from `table`, and returns it.
fn remove(table: &mut Table, hash: u64, name: Name<'_>) -> Option<Entry> {
    let present = table.find_entry(hash, |entry| entry.name() == name).ok()?;
    Some(present.remove().0)
}

/// Returns the number of the table for keys with the hash `hash`.
///
/// A table selects a slot by the lowest bits and tags its entries with the highest seven. The bits
/// used here are between them.
#[expect(clippy::indexing_slicing, reason = "the remainder is below the length")]
pub(crate) fn shard(hash: u64) -> usize {
    let part = usize::try_from(hash >> 46).unwrap_or(0) % PARTS;
    usize::from(SHARD_OF[part])
}

/// Returns the number of the table for each part of the hashes.
///
/// A table is between half full and full. If all had the same share of the entries, they would all
/// grow at the same time, and then all be half full. So each has a share that is larger than the
/// one before by the same factor, and the last one has nearly twice that of the first: at any time,
/// half of all are more than 0.7 full.
#[expect(clippy::indexing_slicing, reason = "`part` is below the length")]
const fn shares() -> [u8; PARTS] {
    let mut shard_of = [0; PARTS];
    let (mut shard, mut part, mut end) = (0, 0, SHARE_FACTOR);
    while part < PARTS {
        // The shards up to `shard` have the parts below `PARTS * (SHARE_FACTOR^(shard + 1) - 1)`.
        while part as u64 >= (end - ONE) * PARTS as u64 / ONE {
            end = (end * SHARE_FACTOR).div_ceil(ONE);
            shard += 1;
        }
        shard_of[part] = shard;
        part += 1;
    }
    shard_of
}

/// The number of tables.
pub(crate) const SHARDS: usize = 64;
/// The number of parts of the hashes that are distributed over the tables.
const PARTS: usize = 1024;
/// The number of the table for each part.
static SHARD_OF: [u8; PARTS] = shares();
/// The 64th root of two, rounded up, in units of 1/[`ONE`].
const SHARE_FACTOR: u64 = 2_170_868_212;
const ONE: u64 = 1 << 31;
/// The number of entries from which a second thread helps to fill the tables.
const LARGE: usize = 32_768;

#[cfg(test)]
mod tests {
    use super::{Hash, Hasher, PARTS, SHARD_OF, SHARDS, Table, shard};
    use crate::entry::{Entry, Name};

    #[test]
    fn each_table_has_its_share_of_the_keys() {
        assert_eq!(usize::from(SHARD_OF[PARTS - 1]), SHARDS - 1);
        let hasher = Hasher::default();
        let mut counts = [0_u32; SHARDS];
        for n in 0..64_000_u32 {
            let key = format!("user:{n:012}");
            counts[shard(hasher.hash(Name::plain(key.as_bytes())))] += 1;
        }
        // 700 to 1,400 on average. The hash is under a random key, and keys that are alike spread
        // worse under some keys than random bits would.
        assert!(counts.iter().all(|&count| (350..2_800).contains(&count)), "{counts:?}");
        let [low, high] = [&counts[..32], &counts[32..]].map(|half| half.iter().sum::<u32>());
        assert!(low * 6 / 5 < high, "{low} and {high}");
    }

    #[test]
    fn the_tables_do_not_all_grow_at_the_same_time() {
        let (mut hash, mut wanted) = (Hash::new(), 30_000);
        for n in 0..=60_000_u32 {
            let entry = Entry::new(&n.to_le_bytes(), b"v");
            hash.insert(hash.hasher().hash(entry.name()), entry);
            if n == wanted {
                wanted += 3_000;
                // Of tables that grow together, there is a time with 2.29 slots for each entry.
                let slots: usize = hash.tables.iter().map(Table::num_buckets).sum();
                assert!(slots * 10 < usize::try_from(n).unwrap() * 19, "{slots} slots for {n}");
            }
        }
    }

    #[test]
    fn a_grown_table_has_room_so_that_inserting_never_grows_in_place() {
        let mut hash = Hash::new();
        for n in 0..5_000_u32 {
            let entry = Entry::new(&n.to_le_bytes(), b"v");
            let at = hash.hasher().hash(entry.name());
            if let Some(table) = hash.grown(shard(at), 1) {
                hash.replace(shard(at), table);
            }
            let before = hash.tables[shard(at)].num_buckets();
            assert!(hash.insert(at, entry).is_none());
            assert_eq!(hash.tables[shard(at)].num_buckets(), before);
        }
        for n in 0..5_000_u32 {
            let key = n.to_le_bytes();
            let name = Name::plain(&key);
            assert!(hash.find(hash.hasher().hash(name), name).is_some());
        }
    }

    #[test]
    fn removing_and_inserting_for_ever_does_not_grow_the_tables_for_ever() {
        let mut hash = Hash::new();
        let mut most = [0; SHARDS];
        for n in 0..1_000_000_u32 {
            let entry = Entry::new(&n.to_le_bytes(), b"v");
            let at = hash.hasher().hash(entry.name());
            if let Some(table) = hash.grown(shard(at), 1) {
                hash.replace(shard(at), table);
            }
            hash.insert(at, entry);
            most[shard(at)] = most[shard(at)].max(hash.tables[shard(at)].len());
            if let Some(old) = n.checked_sub(3_000) {
                let key = old.to_le_bytes();
                let name = Name::plain(&key);
                assert!(hash.remove(hash.hasher().hash(name), name).is_some());
            }
        }
        // How many of the entries a table has varies with the random key of the hash. A table that
        // grows to twice its size is more than half full of entries: the marks of those that were
        // removed take up the rest of its room, but give no reason to grow.
        for (table, most) in hash.tables.iter().zip(most) {
            let buckets = table.num_buckets();
            assert!(buckets * 7 <= 4 * 8 * most, "{buckets} buckets for at most {most} entries");
        }
    }
}

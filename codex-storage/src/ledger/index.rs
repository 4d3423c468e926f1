//! An index of a ledger: places to read on from, and the keys that the commits after each change.

use std::mem;
use std::sync::Arc;

use super::past::{LedgerPlace, LedgerReader};
use crate::batch::{Op, Seq, TableId};
use crate::error::Result;

/// An index of the commits of a ledger, in memory only. It leads a [`LedgerReader`] to the commits
/// that may change a key, so that the others are not read.
///
/// The index divides the file into regions. It knows the place where each begins, and a checksum of
/// each key that is changed in it: 4 bytes for each key in each region. If the checksums take more
/// memory than the limit, those of the oldest regions are dropped, and these regions are read for
/// every key.
#[derive(Debug, Clone)]
pub struct LedgerIndex {
    file_id: [u8; 16],
    /// In the order of the file. The last one may be shorter than the others.
    regions: Vec<Arc<Region>>,
    /// The place after the last region.
    end: LedgerPlace,
    limits: Limits,
}

/// The limits of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    /// The number of bytes after which a region ends with a group.
    region_len: u64,
    /// The maximum number of checksums.
    names_max: usize,
}

/// A part of a ledger.
#[derive(Debug, Clone)]
struct Region {
    start: LedgerPlace,
    /// The last commit.
    last: Seq,
    /// The checksums of all names that the commits change, in ascending order, and of all tables
    /// that they clear. `None` if they were dropped.
    names: Option<Vec<u32>>,
}

impl LedgerIndex {
    /// Returns an index without commits, for the ledger of `reader`, which is at its beginning.
    pub fn new(reader: &LedgerReader) -> Self {
        Self::with_limits(reader, REGION_LEN, NAMES_MAX)
    }

    /// Returns an index as [`new`](Self::new) does, with other limits: the minimum length of a
    /// region in bytes, and the maximum number of checksums.
    pub fn with_limits(reader: &LedgerReader, region_len: u64, names_max: usize) -> Self {
        let limits = Limits { region_len, names_max };
        let (file_id, end) = (reader.file_id(), reader.place());
        Self { file_id, regions: Vec::new(), end, limits }
    }

    /// Returns an index without commits, for the ledger of `reader`, with the limits of this one.
    #[must_use]
    pub fn again(&self, reader: &LedgerReader) -> Self {
        let Limits { region_len, names_max } = self.limits;
        Self::with_limits(reader, region_len, names_max)
    }

    /// Returns true if the reader reads the ledger of this index, or a copy with the same frames.
    /// After a rekey the frames are others.
    pub fn is_of(&self, reader: &LedgerReader) -> bool {
        self.file_id == reader.file_id()
    }

    /// Returns the last commit in the index.
    pub fn upto(&self) -> Seq {
        self.end.seq()
    }

    /// Returns about how many bytes of memory the index takes.
    pub fn memory_len(&self) -> usize {
        self.regions.len() * size_of::<Region>() + self.names_len() * size_of::<u32>()
    }

    /// Adds the commits up to `upto`, which is a commit that the writer has acknowledged. Reads
    /// only those that the index does not have.
    ///
    /// # Errors
    /// One variant for each kind of damage. The index is the same as before.
    pub fn extend(&mut self, reader: &mut LedgerReader, upto: Seq) -> Result<()> {
        if self.upto() >= upto {
            return Ok(());
        }
        reader.go_to(&self.end)?;
        // The last region goes on if it is short.
        let is_short = |region: &&Arc<Region>| self.is_short(region, &self.end);
        let begun = self.regions.last().filter(is_short).map(|region| Region::clone(region));
        let kept = self.regions.len() - usize::from(begun.is_some());
        let mut region = begun.unwrap_or_else(|| Region::at(self.end.clone()));
        let mut added: Vec<Arc<Region>> = Vec::new();
        while reader.next(upto, &mut |commit| {
            commit.ops.flatten().for_each(|op| region.add(op));
            region.last = commit.seq;
            Ok(())
        })? {
            let here = reader.place();
            if !self.is_short(&region, &here) {
                added.push(mem::replace(&mut region, Region::at(here)).into_shared());
            }
        }
        reader.check_passed(upto)?;
        if !region.is_empty() {
            added.push(region.into_shared());
        }
        // Order: the index changes after the last error.
        self.regions.truncate(kept);
        self.regions.append(&mut added);
        self.end = reader.place();
        self.drop_names();
        Ok(())
    }

    /// Returns the place of the latest known commit at or before `seq`.
    pub fn place_before(&self, seq: Seq) -> &LedgerPlace {
        let starts = self.regions.iter().map(|region| &region.start).chain([&self.end]);
        let known = starts.take_while(|place| place.seq() <= seq).last();
        known.unwrap_or_else(|| self.regions.first().map_or(&self.end, |region| &region.start))
    }

    /// Finds the next region that may change `key` of `table`, from region `at` on. A region
    /// without the key is one if it clears the table and `is_there` is true because the key has a
    /// value before it.
    ///
    /// Returns the place where the region begins, and its last commit. Moves `at` after it.
    pub fn next_region(
        &self,
        at: &mut usize,
        (table, key): (Option<TableId>, &[u8]),
        is_there: bool,
    ) -> Option<(&LedgerPlace, Seq)> {
        let (set, cleared) = (checksum(table, key), checksum(table, &[]));
        while let Some(region) = self.regions.get(*at) {
            *at += 1;
            if region.may_name(set) || is_there && region.may_name(cleared) {
                return Some((&region.start, region.last));
            }
        }
        None
    }

    fn is_short(&self, region: &Region, end: &LedgerPlace) -> bool {
        end.offset().saturating_sub(region.start.offset()) < self.limits.region_len
    }

    fn names_len(&self) -> usize {
        self.regions.iter().map(|region| region.names.as_ref().map_or(0, Vec::len)).sum()
    }

    /// Drops checksums of the oldest regions if there are too many.
    fn drop_names(&mut self) {
        let mut len = self.names_len();
        for region in &mut self.regions {
            if len <= self.limits.names_max {
                return;
            }
            if let Some(names) = &region.names {
                len -= names.len();
                let (start, last) = (region.start.clone(), region.last);
                *region = Arc::new(Region { start, last, names: None });
            }
        }
    }
}

impl Region {
    /// Returns a region without commits, which begins at `start`.
    fn at(start: LedgerPlace) -> Self {
        Self { last: start.seq(), start, names: Some(Vec::new()) }
    }

    fn is_empty(&self) -> bool {
        self.last == self.start.seq()
    }

    /// Adds the name that `op` changes.
    fn add(&mut self, op: Op<'_>) {
        let Some(names) = &mut self.names else { return };
        names.push(match op {
            Op::Set(item) => checksum(item.table, item.key),
            Op::Remove { table, key } => checksum(table, key),
            Op::Clear { table } => checksum(table, &[]),
        });
    }

    fn into_shared(mut self) -> Arc<Self> {
        if let Some(names) = &mut self.names {
            names.sort_unstable();
            names.dedup();
            names.shrink_to_fit();
        }
        Arc::new(self)
    }

    /// Returns true if a commit may change the name with this checksum.
    fn may_name(&self, name: u32) -> bool {
        self.names.as_ref().is_none_or(|names| names.binary_search(&name).is_ok())
    }
}

/// Returns the checksum of a name. That of a table which is cleared is the one of its empty key.
fn checksum(table: Option<TableId>, key: &[u8]) -> u32 {
    let table = table.map_or(0, TableId::get).to_le_bytes();
    crc32c::crc32c_append(crc32c::crc32c(&table), key)
}

/// The default number of bytes after which a region ends. A read of it takes about a millisecond.
const REGION_LEN: u64 = 512 << 10;
/// The default maximum number of checksums: 64 MiB.
const NAMES_MAX: usize = 16 << 20;

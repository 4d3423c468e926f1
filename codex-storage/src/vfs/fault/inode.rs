//! One simulated file: the bytes that readers see, the bytes on the disk, and the changes between
//! them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::bytes::{Bytes, SECTOR};
use crate::vfs::{LockTable, Mode};

/// A file of the simulated disk.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    /// The bytes that callers read: the page cache.
    pub(super) cached: Bytes,
    /// The bytes that a power cut certainly leaves, apart from the effect of `changes`.
    pub(super) durable: Bytes,
    /// The changes that the disk may or may not contain, in the order of the calls.
    pub(super) changes: Vec<Change>,
    pub(super) mode: Mode,
    pub(super) modified_us: i64,
    /// The latest name of the file.
    pub(super) label: Arc<str>,
    pub(super) locks: Arc<LockTable>,
    pub(super) handles: usize,
    /// The blocks for which the disk has allocated space.
    pub(super) blocks: BTreeSet<u64>,
    /// The blocks that were written, and for which the next sync allocates space.
    pub(super) delayed: BTreeSet<u64>,
}

/// A change of the bytes or the length that no sync has made durable.
#[derive(Debug, Clone)]
pub(super) struct Change {
    /// The position of the change among all changes of the disk.
    pub(super) seq: u64,
    /// Whether a sync of the change failed. In that case no later sync makes it durable.
    pub(super) doomed: bool,
    pub(super) len: LenChange,
    /// The length that callers saw after the change.
    pub(super) len_after: u64,
    /// The number of the first touched sector.
    pub(super) first: usize,
    /// The contents of the touched sectors in the cache after the change.
    pub(super) sectors: Arc<[u8]>,
}

/// The effect of a change on the length of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LenChange {
    Keep,
    AtLeast(u64),
    Exactly(u64),
}

impl LenChange {
    pub(super) fn apply(self, len: u64) -> u64 {
        match self {
            Self::Keep => len,
            Self::AtLeast(end) => len.max(end),
            Self::Exactly(len) => len,
        }
    }
}

impl Change {
    /// Returns the numbers of the touched sectors.
    pub(super) fn touched(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.sectors.len() / SECTOR
    }

    /// Returns the contents of the sector `number` after this change, or `None` if the change did
    /// not touch it.
    pub(super) fn sector(&self, number: usize) -> Option<&[u8]> {
        let at = number.checked_sub(self.first)? * SECTOR;
        self.sectors.get(at..at + SECTOR)
    }
}

impl Inode {
    pub(super) fn new(mode: Mode, label: Arc<str>, modified_us: i64) -> Self {
        Self {
            cached: Bytes::default(),
            durable: Bytes::default(),
            changes: Vec::new(),
            mode,
            modified_us,
            label,
            locks: Arc::default(),
            handles: 0,
            blocks: BTreeSet::new(),
            delayed: BTreeSet::new(),
        }
    }

    /// Returns the file after a boot from a disk that contains `bytes` for it. The cache is empty,
    /// and the disk has space for the blocks of `bytes` only.
    pub(super) fn after_boot(&self, bytes: Bytes) -> Self {
        // A block that was written without space may have got its space before the power cut.
        let mut blocks = self.blocks.clone();
        blocks.extend(&self.delayed);
        let end = bytes.len().div_ceil(BLOCK);
        blocks.split_off(&end);
        let mut inode = Self::new(self.mode, Arc::clone(&self.label), self.modified_us);
        inode.cached = bytes.clone();
        inode.durable = bytes;
        inode.blocks = blocks;
        inode
    }

    pub(super) fn write(&mut self, seq: u64, buf: &[u8], offset: u64) {
        if buf.is_empty() {
            return;
        }
        self.cached.write(buf, offset);
        let end = offset.saturating_add(as_u64(buf.len()));
        self.remember(seq, LenChange::AtLeast(end), offset, end);
    }

    pub(super) fn set_len(&mut self, seq: u64, len: u64) {
        let len_before = self.cached.len();
        self.cached.set_len(len);
        // Growing touches no sector. Shortening zeroes the sectors that would become visible again
        // if the file grew later.
        self.remember(seq, LenChange::Exactly(len), len.min(len_before), len_before);
        self.blocks.split_off(&len.div_ceil(BLOCK));
        self.delayed.split_off(&len.div_ceil(BLOCK));
    }

    pub(super) fn grow(&mut self, seq: u64, end: u64) {
        if end > self.cached.len() {
            self.cached.set_len(end);
            self.remember(seq, LenChange::AtLeast(end), 0, 0);
        }
    }

    /// Applies a successful sync: the changes up to `upto` become durable, except doomed ones.
    pub(super) fn settle(&mut self, upto: u64) {
        let settles = |change: &Change| !change.doomed && change.seq <= upto;
        let (settled, kept): (Vec<Change>, Vec<Change>) =
            std::mem::take(&mut self.changes).into_iter().partition(settles);
        // In the order of the calls, each with the length that callers saw after it.
        for change in &settled {
            self.durable.put_sectors(&change.sectors, change.first);
            self.durable.set_len(change.len_after);
        }
        let last = settled.last().map_or(0, |change| change.seq);
        for mut change in kept {
            // The length after the last settled change includes the effect of all earlier changes.
            if change.seq < last {
                change.len = LenChange::Keep;
            }
            // A later settled change has replaced the whole sector on the disk, so that nothing of
            // the older change can be left in it.
            let later = settled.iter().filter(|settled| settled.seq > change.seq);
            let over: BTreeSet<usize> = later.flat_map(Change::touched).collect();
            self.changes.extend(without(change, &over));
        }
    }

    /// Applies a failed sync as Linux does: the changes stay readable and their pages count as
    /// clean. The disk may contain any of the changes, and no later sync writes them.
    pub(super) fn doom(&mut self, upto: u64) {
        for change in self.changes.iter_mut().filter(|change| change.seq <= upto) {
            change.doomed = true;
        }
        // Pages that count as clean are never written, so their blocks get no space.
        self.delayed.clear();
    }

    /// Applies memory pressure, which discards clean pages: readers see the bytes of the disk
    /// again. The changes whose sync failed are lost.
    pub(super) fn evict_clean(&mut self) {
        self.changes.retain(|change| !change.doomed);
        let len = self.cached.len();
        // Pages with changes that no sync has tried are dirty and stay in the cache.
        self.cached = self.durable.clone();
        for change in &self.changes {
            self.cached.put_sectors(&change.sectors, change.first);
        }
        self.cached.trim_to(len);
    }

    /// Records a change of the bytes `[start, end)` and of the length, after the cache was updated.
    fn remember(&mut self, seq: u64, len: LenChange, start: u64, end: u64) {
        // All sectors that the range touches, even in part, as the cache holds them now.
        let sector = as_u64(SECTOR);
        let first = usize::try_from(start / sector).unwrap_or(usize::MAX);
        let behind = usize::try_from(end.div_ceil(sector)).unwrap_or(usize::MAX);
        let count = if start < end { behind.saturating_sub(first) } else { 0 };
        let sectors = self.cached.sectors(first, count).into();
        let len_after = self.cached.len();
        self.changes.push(Change { seq, doomed: false, len, len_after, first, sectors });
    }
}

/// The unit in which the disk allocates space, in bytes.
pub(super) const BLOCK: u64 = 4096;

/// Returns `change` without the sectors in `over`: one change for each run of sectors that is left,
/// and one for the length.
fn without(change: Change, over: &BTreeSet<usize>) -> Vec<Change> {
    if change.touched().all(|number| !over.contains(&number)) {
        return vec![change];
    }
    let mut parts = Vec::new();
    // The change of the length stays, without sectors.
    if change.len != LenChange::Keep {
        parts.push(Change { sectors: Arc::default(), ..change.clone() });
    }
    let mut run: Vec<u8> = Vec::new();
    for number in change.touched() {
        if let Some(sector) = change.sector(number).filter(|_| !over.contains(&number)) {
            run.extend_from_slice(sector);
        } else {
            parts.extend(run_before(&change, number, std::mem::take(&mut run)));
        }
    }
    parts.extend(run_before(&change, change.touched().end, run));
    parts
}

/// Returns the sectors of `run`, which end before the sector `behind`, as a part of `change`, or
/// `None` if there are none.
fn run_before(change: &Change, behind: usize, run: Vec<u8>) -> Option<Change> {
    let first = behind - run.len() / SECTOR;
    let part = Change { len: LenChange::Keep, first, sectors: run.into(), ..change.clone() };
    (!part.sectors.is_empty()).then_some(part)
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

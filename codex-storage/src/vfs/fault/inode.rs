//! One simulated file: what its readers see, what the disk holds, and what lies between.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::bytes::{Bytes, SECTOR};
use crate::vfs::{LockTable, Mode};

/// A file of the simulated disk.
#[derive(Debug, Clone)]
pub(super) struct Inode {
    /// The bytes that callers read: the page cache.
    pub(super) cached: Bytes,
    /// The bytes that a power cut leaves for certain, unless a change below reached the disk too.
    pub(super) durable: Bytes,
    /// What the disk may or may not hold, in the order of the calls.
    pub(super) changes: Vec<Change>,
    pub(super) mode: Mode,
    pub(super) modified_us: i64,
    /// The name that the file got last.
    pub(super) label: Arc<str>,
    pub(super) locks: Arc<LockTable>,
    pub(super) handles: usize,
    /// The blocks that have space on the disk.
    pub(super) blocks: BTreeSet<u64>,
    /// The blocks that were written and get space only at the next sync.
    pub(super) delayed: BTreeSet<u64>,
}

/// A change of the bytes or the length that no sync has made durable.
#[derive(Debug, Clone)]
pub(super) struct Change {
    /// The order among all changes of the disk.
    pub(super) seq: u64,
    /// Whether a sync failed on it: then no later sync makes it durable.
    pub(super) doomed: bool,
    pub(super) len: LenChange,
    /// The length that callers saw after it.
    pub(super) len_after: u64,
    /// The first sector that it touched.
    pub(super) first: usize,
    /// The touched sectors as the cache held them after the change.
    pub(super) sectors: Arc<[u8]>,
}

/// What a change does to the length.
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
    /// The numbers of the touched sectors.
    pub(super) fn touched(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.sectors.len() / SECTOR
    }

    /// The sector `number` as this change left it.
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

    /// The file as a machine finds it that starts with `bytes` on its disk.
    pub(super) fn after_boot(&self, bytes: Bytes) -> Self {
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
        // Growing touches no sector; shortening zeroes those that a longer file would show again.
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

    /// What a successful sync does: the changes up to `upto` are durable, apart from doomed ones.
    pub(super) fn settle(&mut self, upto: u64) {
        let settles = |change: &Change| !change.doomed && change.seq <= upto;
        let (settled, kept): (Vec<Change>, Vec<Change>) =
            std::mem::take(&mut self.changes).into_iter().partition(settles);
        for change in &settled {
            self.durable.put_sectors(&change.sectors, change.first);
            self.durable.set_len(change.len_after);
        }
        let last = settled.last().map_or(0, |change| change.seq);
        for mut change in kept {
            // The length of the last settled change says what became of the lengths before it.
            if change.seq < last {
                change.len = LenChange::Keep;
            }
            // A sector that was written again is new as a whole, with nothing of the old left.
            let later = settled.iter().filter(|settled| settled.seq > change.seq);
            let over: BTreeSet<usize> = later.flat_map(Change::touched).collect();
            self.changes.extend(without(change, &over));
        }
    }

    /// What a failed sync does on Linux: the changes stay readable and count as clean. The disk
    /// may have any of them; no later sync writes them.
    pub(super) fn doom(&mut self, upto: u64) {
        for change in self.changes.iter_mut().filter(|change| change.seq <= upto) {
            change.doomed = true;
        }
        self.delayed.clear();
    }

    /// What memory pressure does to clean pages: readers see the disk again, where the changes
    /// that a sync failed on are now known to be lost.
    pub(super) fn evict_clean(&mut self) {
        self.changes.retain(|change| !change.doomed);
        let len = self.cached.len();
        self.cached = self.durable.clone();
        for change in &self.changes {
            self.cached.put_sectors(&change.sectors, change.first);
        }
        self.cached.trim_to(len);
    }

    fn remember(&mut self, seq: u64, len: LenChange, start: u64, end: u64) {
        let sector = as_u64(SECTOR);
        let first = usize::try_from(start / sector).unwrap_or(usize::MAX);
        let behind = usize::try_from(end.div_ceil(sector)).unwrap_or(usize::MAX);
        let count = if start < end { behind.saturating_sub(first) } else { 0 };
        let sectors = self.cached.sectors(first, count).into();
        let len_after = self.cached.len();
        self.changes.push(Change { seq, doomed: false, len, len_after, first, sectors });
    }
}

/// What the disk allocates as a whole.
pub(super) const BLOCK: u64 = 4096;

/// `change` without the sectors `over`: one change for each run that is left, and one for the
/// length.
fn without(change: Change, over: &BTreeSet<usize>) -> Vec<Change> {
    if change.touched().all(|number| !over.contains(&number)) {
        return vec![change];
    }
    let mut parts = Vec::new();
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

/// The sectors `run`, which end before `behind`, as a part of `change`.
fn run_before(change: &Change, behind: usize, run: Vec<u8>) -> Option<Change> {
    let first = behind - run.len() / SECTOR;
    let part = Change { len: LenChange::Keep, first, sectors: run.into(), ..change.clone() };
    (!part.sectors.is_empty()).then_some(part)
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

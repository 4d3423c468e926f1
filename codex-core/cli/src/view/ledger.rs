//! The past of a ledger: its states, and the changes between them.
//!
//! The file is read once from its beginning. On the way, the state is kept at marks, so that a
//! later question reads only from the mark before the commit in question. Requests do so one after
//! the other.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use codex_core::crypto::{Cipher, Key};
use codex_core::internals::Moment;
use codex_core::vfs::Vfs;
use codex_core::{Seq, Snapshot, StorageError};
use codex_storage::batch::{Item, Op};
use codex_storage::seal::Keys;
use codex_storage::{LedgerCommit, LedgerPlace, LedgerReader};

use crate::view::answer::{Answer, Refused};
use crate::view::site::locked;
use crate::view::state::State;

/// The file of a ledger, and the part of it that was read.
pub(super) struct Ledger {
    vfs: Vfs,
    name: String,
    keys: Option<Arc<dyn Keys>>,
    limits: Limits,
    read: Mutex<Option<Read>>,
}

/// How many marks are kept.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// The number of bytes of the file between two marks, until there are too many of them.
    stride: u64,
    /// The maximum memory of the marks, in bytes, beside as much as the last state takes.
    memory: u64,
}

/// The part of a ledger that was read.
struct Read {
    reader: LedgerReader,
    index: Index,
    /// The last commit that was read.
    head: Mark,
    marks: Marks,
    recent: VecDeque<(Arc<State>, Mark)>,
}

/// A place in the file, and the state there.
#[derive(Clone)]
struct Mark {
    place: LedgerPlace,
    moment: Moment,
}

/// Marks in the order of the file. The first one is at its beginning.
struct Marks {
    list: Vec<Mark>,
    limits: Limits,
    /// About the memory that the marks take beside the last of them, in bytes.
    memory: u64,
}

/// The times and sizes of all commits up to one.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The earliest state that the ledger has.
    pub(super) oldest: Seq,
    /// The commit after that state.
    first: Seq,
    /// The time of each commit from `first` on, in microseconds since 1970.
    times: Vec<i64>,
    /// The number of operations of each of these commits.
    changes: Vec<u32>,
}

/// The last commit of an earlier state.
pub(super) struct Last {
    /// The state before it.
    pub(super) before: Snapshot,
    /// The keys that it names, outside tables.
    pub(super) keys: BTreeSet<Vec<u8>>,
    pub(super) is_cleared: bool,
    /// The number of its changes in tables.
    pub(super) in_tables: u64,
}

impl Ledger {
    pub(super) fn new(vfs: Vfs, name: String, key: Option<Key>) -> Self {
        let entropy = vfs.entropy.clone();
        // The header names the cipher. This one is for new stores only.
        let keys = key.map(|key| codex_core::internals::keys(key, Cipher::default(), entropy));
        let limits = Limits { stride: MARK_STRIDE, memory: MARKS_MEMORY_MAX };
        Self { vfs, name, keys, limits, read: Mutex::default() }
    }

    /// Calls `sink` with the index of the commits up to `upto`, which is acknowledged.
    pub(super) fn index<T>(&self, upto: Seq, sink: impl FnOnce(&Index) -> T) -> Result<T, Refused> {
        let mut read = locked(&self.read);
        Ok(sink(&self.upto(&mut read, upto)?.index))
    }

    /// Returns the state after the commit `at`, which is acknowledged.
    pub(super) fn state(&self, at: Seq) -> Result<Arc<State>, Refused> {
        let mut read = locked(&self.read);
        let read = self.upto(&mut read, at)?;
        if let Some((known, _)) = read.recent.iter().find(|(state, _)| state.seq == at) {
            return Ok(Arc::clone(known));
        }
        let oldest = read.index.oldest;
        if at < oldest {
            return Err(Answer::refuse(400, &format!("the ledger begins with commit {oldest}")));
        }
        let (state, mark) = read.state(at).map_err(|error| failed(&error))?;
        let state = Arc::new(state);
        read.recent.push_back((Arc::clone(&state), mark));
        if read.recent.len() > STATES_MAX {
            read.recent.pop_front();
        }
        Ok(state)
    }

    /// Reads up to the commit `upto`, if that was not done before.
    fn upto<'a>(&self, read: &'a mut Option<Read>, upto: Seq) -> Result<&'a mut Read, Refused> {
        let known = match read.take() {
            Some(mut known) => known.advance(upto).map(|is_there| is_there.then_some(known)),
            None => Ok(None),
        };
        if let Some(known) = known.map_err(|error| failed(&error))? {
            return Ok(read.insert(known));
        }
        // A file that ends before the commit is no longer the one of the store: a rekey has put
        // another in its place.
        let reader = LedgerReader::open(&self.vfs, &self.name, self.keys.as_deref());
        let mut fresh = Read::new(reader.map_err(|error| failed(&error))?, self.limits);
        if !fresh.advance(upto).map_err(|error| failed(&error))? {
            return Err(Answer::refuse(500, "the ledger ends before its last commit"));
        }
        Ok(read.insert(fresh))
    }
}

impl Read {
    fn new(reader: LedgerReader, limits: Limits) -> Self {
        let head = Mark { place: reader.place(), moment: Moment::default() };
        let index = Index { oldest: reader.cut().oldest, ..Index::default() };
        let marks = Marks { list: vec![head.clone()], limits, memory: 0 };
        Self { reader, index, head, marks, recent: VecDeque::new() }
    }

    /// Reads up to the commit `upto`. Returns false if the file ends before it.
    fn advance(&mut self, upto: Seq) -> Result<bool, StorageError> {
        let Self { reader, index, head, marks, .. } = self;
        if head.moment.seq() >= upto {
            return Ok(true);
        }
        reader.go_to(&head.place)?;
        while reader.next(upto, &mut |commit| {
            if index.times.is_empty() {
                index.first = commit.seq;
            }
            index.times.push(commit.time_us);
            let count = commit.ops.clone().count();
            index.changes.push(u32::try_from(count).unwrap_or(u32::MAX));
            head.moment.apply(commit);
            Ok(())
        })? {
            head.place = reader.place();
            marks.add(head);
        }
        Ok(head.moment.seq() >= upto)
    }

    /// Returns the last known mark before the commit `at`.
    fn before(&self, at: Seq) -> &Mark {
        let recent = self.recent.iter().map(|(_, mark)| mark);
        let known = self.marks.list.iter().chain(recent).chain([&self.head]);
        let before = known.filter(|mark| mark.moment.seq() < at);
        before.max_by_key(|mark| mark.moment.seq()).unwrap_or_else(|| self.marks.first())
    }

    /// Passes the commits after a place up to `upto` to `sink`.
    fn pass(
        &mut self,
        place: &LedgerPlace,
        upto: Seq,
        sink: &mut dyn FnMut(LedgerCommit<'_>),
    ) -> Result<(), StorageError> {
        self.reader.go_to(place)?;
        let mut pass = |commit: LedgerCommit<'_>| {
            sink(commit);
            Ok(())
        };
        while self.reader.next(upto, &mut pass)? {}
        Ok(())
    }

    /// Returns the state after the commit `at`, and the mark there.
    fn state(&mut self, at: Seq) -> Result<(State, Mark), StorageError> {
        let Mark { place, mut moment } = self.before(at).clone();
        let mut last = None;
        self.pass(&place, at, &mut |commit| {
            if commit.seq == at {
                last = Some(Last::of(&moment, &commit));
            }
            moment.apply(commit);
        })?;
        let snapshot = moment.snapshot();
        Ok((State { seq: at, snapshot, last }, Mark { place: self.reader.place(), moment }))
    }
}

impl Last {
    /// Returns a commit that follows the state `before`.
    fn of(before: &Moment, commit: &LedgerCommit<'_>) -> Self {
        let (mut keys, mut is_cleared, mut in_tables) = (BTreeSet::new(), false, 0);
        for op in commit.ops.clone().flatten() {
            match op {
                _ if op.table().is_some() => in_tables += 1,
                Op::Set(Item { key, .. }) | Op::Remove { key, .. } => _ = keys.insert(key.to_vec()),
                Op::Clear { .. } => is_cleared = true,
            }
        }
        Self { before: before.snapshot(), keys, is_cleared, in_tables }
    }
}

impl Marks {
    fn first(&self) -> &Mark {
        self.list.first().expect("the first mark stays")
    }

    /// Keeps a mark at the head if it is far enough from the last mark.
    fn add(&mut self, head: &Mark) {
        let last = self.list.last().unwrap_or(head);
        if head.place.offset().saturating_sub(last.place.offset()) < self.limits.stride {
            return;
        }
        self.memory += last.memory_beside(head);
        self.list.push(head.clone());
        // Marks that are further apart share less, but not more than each has.
        let memory_max = self.limits.memory.saturating_add(head.moment.memory_len());
        while self.memory > memory_max && self.list.len() > 2 {
            let mut is_kept = false;
            self.list.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
            self.limits.stride *= 2;
            let pairs = self.list.iter().zip(self.list.iter().skip(1));
            self.memory = pairs.map(|(mark, next)| mark.memory_beside(next)).sum();
        }
    }
}

impl Mark {
    /// Returns about how much memory the mark takes beside the next one, in bytes.
    fn memory_beside(&self, next: &Self) -> u64 {
        let turnover = next.moment.turnover() - self.moment.turnover();
        MARK_LEN + turnover.min(self.moment.memory_len())
    }
}

impl Index {
    /// Returns the time of a commit.
    pub(super) fn time_us(&self, seq: Seq) -> Option<i64> {
        let at = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.times.get(at).copied()
    }

    /// Returns the number of changes in each of at most `count` stretches of commits.
    pub(super) fn buckets(&self, count: usize) -> Vec<Bucket> {
        let len = self.changes.len().div_ceil(count).max(1);
        let mut seq = self.first;
        let bucket = |changes: &[u32]| {
            let upto = seq + u64::try_from(changes.len()).unwrap_or_default() - 1;
            let found = Bucket { seq, upto, changes: changes.iter().map(|c| u64::from(*c)).sum() };
            seq = upto + 1;
            found
        };
        self.changes.chunks(len).map(bucket).collect()
    }
}

/// A stretch of commits.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Bucket {
    seq: Seq,
    upto: Seq,
    changes: u64,
}

/// Returns the refusal for an error of the ledger.
pub(super) fn failed(error: &dyn std::error::Error) -> Refused {
    Answer::refuse(500, &error.to_string())
}

/// The number of earlier states that are kept.
const STATES_MAX: usize = 4;
/// The number of bytes of the file between two marks, if there are not too many.
const MARK_STRIDE: u64 = 1 << 20;
/// The maximum memory of the marks, beside as much as the last state takes, in bytes.
const MARKS_MEMORY_MAX: u64 = 64 << 20;
/// About the memory of a mark beside its state, in bytes.
const MARK_LEN: u64 = 1024;

#[cfg(test)]
mod tests;

//! The past of a ledger: its states, and the changes between them.
//!
//! The file is read from its beginning for each question, up to the commit in question. Requests do
//! so one after the other.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use codex_core::crypto::{Cipher, Key};
use codex_core::vfs::Vfs;
use codex_core::{Batch, Codec, Error, Seq, Snapshot, Store};
use codex_storage::batch::{Item, Op};
use codex_storage::seal::Keys;
use codex_storage::{LedgerCommit, read_commits};

use crate::view::answer::{Answer, Refused};
use crate::view::site::locked;
use crate::view::state::State;

/// The file of a ledger, and what was read of it.
pub(super) struct Ledger {
    vfs: Vfs,
    name: String,
    keys: Option<Arc<dyn Keys>>,
    read: Mutex<Read>,
}

/// What was read of a ledger.
#[derive(Default)]
struct Read {
    index: Arc<Index>,
    replica: Option<Replica>,
    recent: VecDeque<Arc<State>>,
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

/// A store in memory with an earlier state, from which later ones are made. They share its entries.
struct Replica {
    store: Store,
    seq: Seq,
    expiries: HashMap<Vec<u8>, i64>,
}

/// The last commit of an earlier state.
pub(super) struct Last {
    pub(super) time_us: i64,
    /// The state before it.
    pub(super) before: Snapshot,
    /// The keys that it names.
    pub(super) keys: BTreeSet<Vec<u8>>,
    pub(super) is_cleared: bool,
}

impl Ledger {
    pub(super) fn new(vfs: Vfs, name: String, key: Option<Key>) -> Self {
        let entropy = vfs.entropy.clone();
        // The header names the cipher. This one is for new stores only.
        let keys = key.map(|key| codex_core::internals::keys(key, Cipher::default(), entropy));
        Self { vfs, name, keys, read: Mutex::default() }
    }

    /// Passes each commit up to `upto`, which is acknowledged, to `sink`. Returns the earliest
    /// state that the ledger has.
    pub(super) fn each(
        &self,
        upto: Seq,
        sink: &mut dyn FnMut(LedgerCommit<'_>),
    ) -> Result<Seq, Refused> {
        let keys = self.keys.as_deref();
        let read = read_commits(&self.vfs, &self.name, keys, upto, &mut |commit| {
            sink(commit);
            Ok(())
        });
        Ok(read.map_err(|error| failed(&error))?.oldest)
    }

    /// Returns the index of the commits up to `upto`, which is acknowledged.
    pub(super) fn index(&self, upto: Seq) -> Result<Arc<Index>, Refused> {
        let mut read = locked(&self.read);
        if read.index.next() <= upto {
            let mut index = Index::default();
            let oldest = self.each(upto, &mut |commit| {
                if index.times.is_empty() {
                    index.first = commit.seq;
                }
                index.times.push(commit.time_us);
                index.changes.push(u32::try_from(commit.ops.count()).unwrap_or(u32::MAX));
            })?;
            index.oldest = oldest;
            read.index = Arc::new(index);
        }
        Ok(Arc::clone(&read.index))
    }

    /// Returns the state after the commit `at`.
    pub(super) fn state(&self, at: Seq) -> Result<Arc<State>, Refused> {
        let mut read = locked(&self.read);
        if let Some(known) = read.recent.iter().find(|state| state.seq == at) {
            return Ok(Arc::clone(known));
        }
        // A replica goes forward only.
        let replica = read.replica.take().filter(|replica| replica.seq < at);
        let mut replica = match replica {
            Some(replica) => replica,
            None => Replica::new().map_err(|error| failed(&error))?,
        };
        let (state, oldest) = replica.state(self, at)?;
        if at < oldest {
            return Err(Answer::refuse(400, &format!("the ledger begins with commit {oldest}")));
        }
        let state = Arc::new(state);
        read.replica = Some(replica);
        read.recent.push_back(Arc::clone(&state));
        if read.recent.len() > STATES_MAX {
            read.recent.pop_front();
        }
        Ok(state)
    }
}

impl Index {
    /// Returns the commit after the last one of the index.
    fn next(&self) -> Seq {
        self.first + u64::try_from(self.times.len()).unwrap_or_default()
    }

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

impl Replica {
    fn new() -> Result<Self, Error> {
        Ok(Self { store: Store::in_memory()?, seq: 0, expiries: HashMap::new() })
    }

    /// Goes forward to the commit `at`. Returns the state after it, and the earliest state that the
    /// ledger has.
    fn state(&mut self, ledger: &Ledger, at: Seq) -> Result<(State, Seq), Refused> {
        let known = self.seq;
        let store = self.store.clone();
        let mut pending = Pending { batch: store.batch(), len: 0 };
        let (mut last, mut done) = (None, Ok(()));
        let oldest = ledger.each(at, &mut |commit| {
            if commit.seq > known && done.is_ok() {
                let is_last = commit.seq == at;
                done = self.apply(commit, is_last, &mut pending).map(|found| last = found);
            }
        })?;
        done.and_then(|()| pending.commit()).map_err(|error| failed(&error))?;
        self.seq = at;
        // The store has hidden what expired. Its removal may come in a later commit.
        if let Some(Last { time_us, .. }) = &last {
            for (key, _) in self.expiries.extract_if(|_, expires| *expires <= *time_us) {
                pending.batch.remove(key).map_err(|error| failed(&error))?;
            }
            pending.commit().map_err(|error| failed(&error))?;
        }
        let snapshot = self.store.snapshot();
        Ok((State { seq: at, snapshot, expiries: Some(self.expiries.clone()), last }, oldest))
    }

    /// Applies a commit. If it is the last one, returns what it changes.
    fn apply(
        &mut self,
        commit: LedgerCommit<'_>,
        is_last: bool,
        pending: &mut Pending,
    ) -> Result<Option<Last>, Error> {
        let mut last = None;
        if is_last {
            // Order: the earlier commits are applied before the state without this one is taken.
            pending.commit()?;
            let (before, time_us) = (self.store.snapshot(), commit.time_us);
            last = Some(Last { time_us, before, keys: BTreeSet::new(), is_cleared: false });
        }
        // The page shows the keys outside tables.
        for op in commit.ops.flatten().filter(|op| op.table().is_none()) {
            match op {
                Op::Set(item) => {
                    match item.expires_us {
                        Some(expires) => drop(self.expiries.insert(item.key.to_vec(), expires)),
                        None => drop(self.expiries.remove(item.key)),
                    }
                    pending.set(&item)?;
                }
                Op::Remove { key, .. } => {
                    self.expiries.remove(key);
                    pending.batch.remove(key)?;
                }
                Op::Clear { .. } => {
                    self.expiries.clear();
                    pending.batch.clear();
                }
            }
            if let Some(last) = &mut last {
                match op {
                    Op::Set(Item { key, .. }) | Op::Remove { key, .. } => {
                        last.keys.insert(key.to_vec());
                    }
                    Op::Clear { .. } => last.is_cleared = true,
                }
            }
        }
        pending.commit_if_large()?;
        Ok(last)
    }
}

/// Operations that the replica gets together.
struct Pending {
    batch: Batch,
    len: usize,
}

impl Pending {
    /// Adds an entry without its expiry: the store would not show it when that is over.
    fn set(&mut self, item: &Item<'_>) -> Result<(), Error> {
        self.len += item.key.len() + item.value.len();
        // A stored value is the number of its codec, then its bytes (docs/FORMAT.md, "Values").
        let (codec, bytes) = item.value.split_first().unwrap_or((&0, &[]));
        match codec {
            1 => self.batch.set_encoded(item.key, Codec::Bincode, bytes, None)?,
            2 => self.batch.set_encoded(item.key, Codec::Json, bytes, None)?,
            _ => self.batch.set_bytes(item.key, bytes)?,
        };
        Ok(())
    }

    fn commit_if_large(&mut self) -> Result<(), Error> {
        let is_large = self.len > PENDING_LEN_MAX || self.batch.len() > PENDING_MAX;
        if is_large { self.commit() } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<(), Error> {
        self.len = 0;
        self.batch.commit().map(drop)
    }
}

/// Returns the refusal for an error of the ledger.
pub(super) fn failed(error: &dyn std::error::Error) -> Refused {
    Answer::refuse(500, &error.to_string())
}

/// The number of earlier states that are kept. They share their entries if they were made forward.
const STATES_MAX: usize = 4;
const PENDING_MAX: usize = 10_000;
const PENDING_LEN_MAX: usize = 16 << 20;

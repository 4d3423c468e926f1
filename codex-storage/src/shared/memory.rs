//! A shared log in memory, with faults on request: for tests, and for several stores in one
//! process.

mod client;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{AppendError, Limits, Position, RecordName, Session, SharedError, Slot, Versioned};
use crate::codec::u64_of;
use crate::error::Result;
use crate::sync::{Condvar, Mutex};
use client::ClientState;
pub use client::{Client, ReadFault, WriteFault};

/// A shared log in memory. Each node uses a [`Client`] of it.
#[derive(Debug, Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    entries: BTreeMap<Position, (Slot, Arc<[u8]>)>,
    slots: HashMap<Slot, Position>,
    head: Position,
    trimmed: Position,
    sessions: Vec<Session>,
    last_session: u64,
    quota: u64,
    records: BTreeMap<RecordName, Versioned>,
    /// The last version of any record.
    version: u64,
    objects: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    /// Requests that are done later.
    late: Vec<(Slot, Arc<[u8]>)>,
    clients: Vec<ClientState>,
}

impl Memory {
    /// Returns an empty log with the limits of a small cluster.
    pub fn new() -> Self {
        let limits = Limits { part_max: 512 << 10, frame_target: 128 << 10, commit_max: 64 << 20 };
        Self::with_limits(limits)
    }

    /// Returns an empty log with these limits.
    pub fn with_limits(limits: Limits) -> Self {
        let state = State {
            limits,
            entries: BTreeMap::new(),
            slots: HashMap::new(),
            head: Position(0),
            trimmed: Position(0),
            sessions: Vec::new(),
            last_session: 0,
            quota: u64::MAX,
            records: BTreeMap::new(),
            version: 0,
            objects: BTreeMap::new(),
            late: Vec::new(),
            clients: Vec::new(),
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }) }
    }

    /// Returns the access of one node.
    pub fn client(&self) -> Client {
        let mut state = self.shared.state.lock();
        state.clients.push(ClientState::default());
        Client::new(self.clone(), state.clients.len() - 1)
    }

    /// Ends all sessions, as if their leases had run out.
    pub fn fence(&self) {
        self.shared.state.lock().sessions.clear();
    }

    /// Limits the bytes with which the log takes no more entries. Records and objects have room.
    pub fn set_quota(&self, bytes: u64) {
        self.shared.state.lock().quota = bytes;
    }

    /// Removes all entries up to the position `upto`. Their slots are free again, as those of keys
    /// that were deleted are.
    pub fn trim(&self, upto: Position) {
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        state.trimmed = state.trimmed.max(upto.min(state.head));
        state.entries = state.entries.split_off(&Position(state.trimmed.0 + 1));
        state.slots.retain(|_, position| *position > state.trimmed);
    }

    /// Removes all entries after the position `to`, as a restore from an older state does.
    pub fn roll_back(&self, to: Position) {
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        drop(state.entries.split_off(&Position(to.0 + 1)));
        state.slots.retain(|_, position| *position <= to);
        state.head = state.head.min(to);
    }

    /// Does the requests that were [late](WriteFault::Late). Returns the number of those that have
    /// changed something.
    pub fn land(&self) -> usize {
        let mut state = self.shared.state.lock();
        let late = std::mem::take(&mut state.late);
        let head = state.head;
        let mut put = |slot, part: &[u8]| matches!(state.put(slot, part), Ok((_, false)));
        let put = late.into_iter().filter(|(slot, part)| put(*slot, part)).count();
        let is_new = state.head > head;
        drop(state);
        if is_new {
            self.shared.changed.notify_all();
        }
        put
    }

    /// Returns the position of the last entry.
    pub fn end(&self) -> Position {
        self.shared.state.lock().head
    }

    /// Returns the slots of all entries in the order of the log, and the lengths of their parts.
    pub fn slots(&self) -> Vec<(Slot, usize)> {
        let state = self.shared.state.lock();
        state.entries.values().map(|(slot, part)| (*slot, part.len())).collect()
    }

    /// Replaces the part at `position` by `part`, as a defect of the log does.
    pub fn replace(&self, position: Position, part: &[u8]) {
        let mut state = self.shared.state.lock();
        if let Some((_, stored)) = state.entries.get_mut(&position) {
            *stored = part.into();
        }
    }

    /// Returns all entries in the order of the log.
    pub fn entries(&self) -> Vec<(Slot, Vec<u8>)> {
        let state = self.shared.state.lock();
        state.entries.values().map(|(slot, part)| (*slot, part.to_vec())).collect()
    }

    /// Replaces all entries, as someone does who controls the servers.
    pub fn forge(&self, entries: &[(Slot, Vec<u8>)]) {
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        let all = (1..).map(Position).zip(entries);
        state.head = Position(u64_of(entries.len()));
        state.slots = all.clone().map(|(position, (slot, _))| (*slot, position)).collect();
        state.entries = all.map(|(at, (slot, part))| (at, (*slot, part[..].into()))).collect();
    }

    /// Replaces a record, or removes it, as someone does who controls the servers.
    pub fn forge_record(&self, name: RecordName, bytes: Option<&[u8]>) {
        let mut state = self.shared.state.lock();
        state.version += 1;
        let version = state.version;
        state.records.remove(&name);
        let new = bytes.map(|bytes| Versioned { version, bytes: bytes.to_vec() });
        state.records.extend(new.map(|new| (name, new)));
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// Fills `slot`, unless it is taken or its session has ended. Returns the position, and whether
    /// the slot was taken before.
    fn put(&mut self, slot: Slot, part: &[u8]) -> Result<(Position, bool), AppendError> {
        if let Some(position) = self.slots.get(&slot) {
            return Ok((*position, true));
        }
        if !self.sessions.contains(&slot.session) {
            return Err(AppendError::Fenced);
        }
        self.fits(part.len()).map_err(AppendError::Absent)?;
        self.head.0 += 1;
        self.slots.insert(slot, self.head);
        self.entries.insert(self.head, (slot, part.into()));
        Ok((self.head, false))
    }

    /// Returns an error if there is no room for `len` more bytes.
    fn fits(&self, len: usize) -> Result<()> {
        let (used, limit) = (if self.quota == u64::MAX { 0 } else { self.used() }, self.quota);
        if used.saturating_add(u64_of(len)) > limit {
            let next = "trim the log or raise its limit";
            return Err(SharedError::Full { used, limit, next }.into());
        }
        Ok(())
    }

    /// Returns the bytes that are kept. Tests keep few.
    fn used(&self) -> u64 {
        let parts = self.entries.values().map(|(_, part)| part.len());
        let records = self.records.values().map(|record| record.bytes.len());
        let pieces = self.objects.values().flat_map(BTreeMap::values).map(Vec::len);
        u64_of(parts.chain(records).chain(pieces).sum())
    }
}

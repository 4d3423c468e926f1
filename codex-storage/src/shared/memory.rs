//! A shared log in memory, with faults on request: for tests, and for several stores in one
//! process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{
    AppendError, Buried, Entry, Limits, PartSink, Position, Session, SharedError, SharedLog, Slot,
};
use crate::codec::u64_of;
use crate::error::Result;
use crate::sync::{Condvar, Mutex};
use crate::vfs::SeededEntropy;

/// A shared log in memory. Each node uses a [`Client`] of it.
#[derive(Debug, Clone)]
pub struct Memory {
    shared: Arc<Shared>,
}

/// The access of one node to a [`Memory`]. Faults are those of its connection.
#[derive(Debug, Clone)]
pub struct Client {
    memory: Memory,
    id: usize,
}

/// The way in which the next append or burial of a client goes wrong. It gives no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFault {
    /// The request is lost, and not done.
    Lost,
    /// The request is done, and its answer is lost.
    AnswerLost,
    /// The request is done when [`Memory::land`] is called.
    Late,
}

/// The way in which the next call of a client that reads goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFault {
    /// One entry is passed, and no more.
    Short,
    /// Each entry is passed twice.
    Twice,
    /// The first entry is left out, if there are others.
    Skip,
    /// There is no answer.
    Lost,
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
    used: u64,
    quota: u64,
    /// Requests that are done later.
    late: Vec<(Slot, Arc<[u8]>)>,
    clients: Vec<ClientState>,
}

#[derive(Debug, Default)]
struct ClientState {
    is_cut: bool,
    writes: VecDeque<WriteFault>,
    reads: VecDeque<ReadFault>,
    /// Draws faults, each of a call with the given chance in 100.
    chance: Option<(SeededEntropy, u64)>,
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
            used: 0,
            quota: u64::MAX,
            late: Vec::new(),
            clients: Vec::new(),
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }) }
    }

    /// Returns the access of one node.
    pub fn client(&self) -> Client {
        let mut state = self.shared.state.lock();
        state.clients.push(ClientState::default());
        Client { memory: self.clone(), id: state.clients.len() - 1 }
    }

    /// Ends all sessions, as if their leases had run out.
    pub fn fence(&self) {
        self.shared.state.lock().sessions.clear();
    }

    /// Limits the bytes of the log.
    pub fn set_quota(&self, bytes: u64) {
        self.shared.state.lock().quota = bytes;
    }

    /// Removes all entries up to the position `upto`.
    pub fn trim(&self, upto: Position) {
        let mut state = self.shared.state.lock();
        let state = &mut *state;
        state.trimmed = state.trimmed.max(upto.min(state.head));
        let kept = state.entries.split_off(&Position(state.trimmed.0 + 1));
        state.used = kept.values().map(|(_, part)| u64_of(part.len())).sum();
        state.entries = kept;
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
        let used = self.used + u64_of(part.len());
        if used > self.quota {
            let full = SharedError::Full { used: self.used, limit: self.quota };
            return Err(AppendError::Absent(full.into()));
        }
        self.used = used;
        self.head.0 += 1;
        self.slots.insert(slot, self.head);
        self.entries.insert(self.head, (slot, part.into()));
        Ok((self.head, false))
    }
}

impl ClientState {
    fn write_fault(&mut self) -> Option<WriteFault> {
        if self.is_cut {
            return Some(WriteFault::Lost);
        }
        let drawn = || {
            let (entropy, chance) = self.chance.as_ref()?;
            let all = [WriteFault::Lost, WriteFault::AnswerLost, WriteFault::Late];
            drawn(entropy, *chance, &all)
        };
        self.writes.pop_front().or_else(drawn)
    }

    fn read_fault(&mut self) -> Option<ReadFault> {
        if self.is_cut {
            return Some(ReadFault::Lost);
        }
        let drawn = || {
            let (entropy, chance) = self.chance.as_ref()?;
            drawn(entropy, *chance, &[ReadFault::Short, ReadFault::Twice, ReadFault::Lost])
        };
        self.reads.pop_front().or_else(drawn)
    }
}

/// Draws one of `faults` with the given chance in 100.
fn drawn<T: Copy>(entropy: &SeededEntropy, chance: u64, faults: &[T]) -> Option<T> {
    let is_drawn = entropy.below(100) < chance;
    let which = usize::try_from(entropy.below(u64_of(faults.len()))).ok()?;
    faults.get(which).copied().filter(|_| is_drawn)
}

impl Client {
    /// Makes the next call that appends or buries go wrong, after those that were set before.
    pub fn fail_write(&self, fault: WriteFault) {
        self.on_own(|own| own.writes.push_back(fault));
    }

    /// Makes the next call of [`SharedLog::read`] go wrong, after those that were set before.
    pub fn fail_read(&self, fault: ReadFault) {
        self.on_own(|own| own.reads.push_back(fault));
    }

    /// Makes calls go wrong at random, each with the given chance in 100. No entry is left out.
    pub fn fail_at_random(&self, seed: u64, chance: u64) {
        self.on_own(|own| own.chance = Some((SeededEntropy::new(seed), chance)));
    }

    /// Cuts the connection, or restores it. While it is cut, no call has an answer.
    pub fn cut(&self, is_cut: bool) {
        self.on_own(|own| own.is_cut = is_cut);
    }

    /// Ends all faults of this client. Late requests are still done later.
    pub fn heal(&self) {
        self.on_own(|own| *own = ClientState::default());
    }

    fn on_own<R>(&self, f: impl FnOnce(&mut ClientState) -> R) -> R {
        self.on_state(|_, own| f(own))
    }

    /// Calls `f` with the state of the log and that of this client.
    fn on_state<R>(&self, f: impl FnOnce(&mut State, &mut ClientState) -> R) -> R {
        let mut state = self.memory.shared.state.lock();
        let mut own = state.clients.get_mut(self.id).map(std::mem::take).unwrap_or_default();
        let head = state.head;
        let done = f(&mut state, &mut own);
        if let Some(place) = state.clients.get_mut(self.id) {
            *place = own;
        }
        let is_new = state.head > head;
        drop(state);
        if is_new {
            self.memory.shared.changed.notify_all();
        }
        done
    }

    /// Fills a slot, with the next fault. Returns the position, and whether it was taken before.
    fn put(&self, slot: Slot, part: &[u8]) -> Result<(Position, bool), AppendError> {
        self.on_state(|state, own| match own.write_fault() {
            Some(WriteFault::Lost) => Err(AppendError::Unanswered),
            Some(WriteFault::Late) => {
                state.late.push((slot, part.into()));
                Err(AppendError::Unanswered)
            }
            Some(WriteFault::AnswerLost) => {
                let _ = state.put(slot, part);
                Err(AppendError::Unanswered)
            }
            None => state.put(slot, part),
        })
    }

    /// Returns an error if the connection is cut.
    fn reach(&self, what: &'static str, waited: Duration) -> Result<()> {
        if self.on_own(|own| own.is_cut) {
            return Err(SharedError::Away { what, waited }.into());
        }
        Ok(())
    }
}

impl SharedLog for Client {
    fn limits(&self) -> Limits {
        self.memory.shared.state.lock().limits
    }

    fn begin_session(&self, timeout: Duration) -> Result<Session> {
        self.reach("begin a session", timeout)?;
        Ok(self.on_state(|state, _| {
            state.last_session += 1;
            let session = Session(state.last_session);
            state.sessions.push(session);
            session
        }))
    }

    fn append(&self, slot: Slot, part: &[u8], _: Duration) -> Result<Position, AppendError> {
        self.put(slot, part).map(|(position, _)| position)
    }

    fn bury(&self, slot: Slot, _: Duration) -> Result<Buried, AppendError> {
        let (position, was_taken) = self.put(slot, &[])?;
        // A burial whose answer was lost is found in the log like a part.
        Ok(if was_taken { Buried::Committed(position) } else { Buried::Absent })
    }

    fn read(&self, after: Position, sink: &mut PartSink<'_>) -> Result<Position> {
        let (fault, found) = self.on_state(|state, own| {
            let fault = own.read_fault();
            let (head, trimmed) = (state.head, state.trimmed);
            let found = if fault == Some(ReadFault::Lost) {
                let (what, waited) = ("pass entries", Duration::ZERO);
                Err(SharedError::Away { what, waited })
            } else if head < after {
                Err(SharedError::RolledBack { applied: after, head })
            } else if trimmed > after {
                Err(SharedError::Trimmed { applied: after, trimmed })
            } else {
                let entries = state.entries.range(Position(after.0 + 1)..);
                let copy = |(position, entry): (&Position, &(Slot, _))| (*position, entry.clone());
                Ok(entries.map(copy).take(READ_MAX).collect::<Vec<_>>())
            };
            (fault, found)
        });
        let (mut found, mut upto) = (found?, after);
        match fault {
            Some(ReadFault::Short) => found.truncate(1),
            Some(ReadFault::Skip) if found.len() > 1 => drop(found.remove(0)),
            _ => {}
        }
        for (position, (slot, part)) in found {
            for _ in 0..if fault == Some(ReadFault::Twice) { 2 } else { 1 } {
                sink(Entry { position, slot, part: &part })?;
            }
            upto = position;
        }
        Ok(upto)
    }

    fn wait(&self, after: Position, timeout: Duration) -> Result<bool> {
        self.reach("answer", timeout)?;
        let mut state = self.memory.shared.state.lock();
        // A log that was rolled back is read, which finds that out.
        if state.head == after && !timeout.is_zero() {
            state = self.memory.shared.changed.wait_timeout(state, timeout);
        }
        Ok(state.head != after)
    }

    fn head(&self, timeout: Duration) -> Result<Position> {
        self.reach("return its head", timeout)?;
        Ok(self.memory.end())
    }
}

/// The most entries that are passed by one call.
const READ_MAX: usize = 128;

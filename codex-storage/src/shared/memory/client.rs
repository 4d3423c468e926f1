//! The access of one node to a log in memory, with the faults of its connection.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Memory, State};
use crate::codec::u64_of;
use crate::error::Result;
use crate::shared::{
    AppendError, Buried, Entry, Limits, PartSink, Position, RecordName, Session, SharedError,
    SharedLog, Slot, Usage, Versioned,
};
use crate::vfs::SeededEntropy;

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

#[derive(Debug, Default)]
pub(super) struct ClientState {
    is_cut: bool,
    writes: VecDeque<WriteFault>,
    reads: VecDeque<ReadFault>,
    /// Draws faults, each of a call with the given chance in 100.
    chance: Option<(SeededEntropy, u64)>,
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
    pub(super) fn new(memory: Memory, id: usize) -> Self {
        Self { memory, id }
    }

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

    /// Calls `work`, with the next fault. A late request is lost.
    fn change<R>(
        &self,
        what: &'static str,
        waited: Duration,
        work: impl FnOnce(&mut State) -> Result<R>,
    ) -> Result<R> {
        self.on_state(|state, own| {
            let fault = own.write_fault();
            if fault.is_none_or(|fault| fault == WriteFault::AnswerLost) {
                let done = work(state);
                if fault.is_none() {
                    return done;
                }
            }
            Err(SharedError::Away { what, waited }.into())
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

    fn trim(&self, upto: Position, timeout: Duration) -> Result<()> {
        self.reach("remove entries", timeout)?;
        self.memory.trim(upto);
        Ok(())
    }

    fn usage(&self, timeout: Duration) -> Result<Usage> {
        self.reach("return its size", timeout)?;
        Ok(self.on_state(|state, _| Usage { used: state.used(), limit: state.quota }))
    }

    fn record(&self, name: RecordName, timeout: Duration) -> Result<Option<Versioned>> {
        self.reach("return a record", timeout)?;
        Ok(self.on_state(|state, _| state.records.get(&name).cloned()))
    }

    fn set_record(
        &self,
        name: RecordName,
        was: Option<u64>,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<bool> {
        self.change("replace a record", timeout, |state| {
            if state.records.get(&name).map(|record| record.version) != was {
                return Ok(false);
            }
            state.version += 1;
            let record = Versioned { version: state.version, bytes: bytes.to_vec() };
            state.records.insert(name, record);
            Ok(true)
        })
    }

    fn put_piece(&self, object: &str, n: u32, bytes: &[u8], timeout: Duration) -> Result<()> {
        self.change("store a piece", timeout, |state| {
            let pieces = state.objects.entry(object.to_owned()).or_default();
            pieces.entry(n).or_insert_with(|| bytes.to_vec());
            Ok(())
        })
    }

    fn piece(&self, object: &str, n: u32, timeout: Duration) -> Result<Option<Vec<u8>>> {
        self.reach("return a piece", timeout)?;
        let find = |state: &State| state.objects.get(object)?.get(&n).cloned();
        Ok(self.on_state(|state, _| find(state)))
    }

    fn objects(&self, timeout: Duration) -> Result<Vec<String>> {
        self.reach("list its objects", timeout)?;
        Ok(self.on_state(|state, _| state.objects.keys().cloned().collect()))
    }

    fn remove_object(&self, object: &str, timeout: Duration) -> Result<()> {
        self.change("remove an object", timeout, |state| {
            state.objects.remove(object);
            Ok(())
        })
    }
}

/// The most entries that are passed by one call.
const READ_MAX: usize = 128;

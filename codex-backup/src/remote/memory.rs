//! Objects in memory, with faults on request: for tests.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use codex_storage::sync::Mutex;

use super::fault::Fault;
use super::target::{Body, Created, Listed, Target, check_name};

/// Objects in memory. Calls are counted from 0, and any of them can be made to go wrong.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
}

/// The way in which a call goes wrong. Each but the last two answers with [`Fault::Io`] or
/// [`Fault::HalfUpload`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// The call is not done.
    Refused,
    /// The call is done, and its answer is lost.
    AnswerLost,
    /// The call answers, and is done only when this number of further calls was made.
    Delayed(u64),
    /// A creation ends half-way. It leaves an unfinished upload, and no object. Another call is not
    /// done.
    HalfUpload,
    /// A creation keeps the first half of the bytes, and answers that all is well. Another call is
    /// done well.
    Truncated,
    /// A creation keeps as many bytes, one of which is another, and answers that all is well.
    /// Another call is done well.
    Altered,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    uploads: Vec<Duration>,
    /// The simulated time. It passes only by [`Memory::pass`].
    now: Duration,
    calls: u64,
    mishaps: BTreeMap<u64, Mishap>,
    /// The call from which on all calls are refused.
    down_from: Option<u64>,
    delayed: Vec<(u64, Change)>,
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Vec<u8>,
    created: Duration,
}

/// A call that changes something.
#[derive(Debug)]
enum Change {
    Create(String, Vec<u8>),
    Remove(String),
}

impl Memory {
    /// Returns a place without objects.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the call with this number go wrong.
    pub fn fail(&self, call: u64, mishap: Mishap) {
        self.state.lock().mishaps.insert(call, mishap);
    }

    /// Refuses all calls from this number on, as if the program had been killed before it.
    pub fn go_down_at(&self, call: u64) {
        self.state.lock().down_from = Some(call);
    }

    /// Ends all mishaps. Delayed calls are still done later.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.mishaps.clear();
        state.down_from = None;
    }

    /// Returns the number of calls so far.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.state.lock().now += time;
    }

    /// Returns the names and bytes of all objects.
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state.lock();
        state.objects.iter().map(|(name, object)| (name.clone(), object.bytes.clone())).collect()
    }

    /// Replaces the bytes of an object, or removes it, as a defect of the place does.
    pub fn damage(&self, name: &str, bytes: Option<Vec<u8>>) {
        let mut state = self.state.lock();
        let created = state.now;
        match bytes {
            Some(bytes) => _ = state.objects.insert(name.to_owned(), Object { bytes, created }),
            None => _ = state.objects.remove(name),
        }
    }

    /// Counts a call. Returns the state and the way in which the call goes wrong, if it is done.
    fn call<R>(
        &self,
        action: &'static str,
        work: impl FnOnce(&mut State, Option<Mishap>) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let mut state = self.state.lock();
        let call = state.calls;
        state.calls += 1;
        state.catch_up(call);
        let failed = || Fault::io(action, io::ErrorKind::ConnectionReset.into());
        if state.down_from.is_some_and(|from| call >= from) {
            return Err(failed());
        }
        let mishap = state.mishaps.remove(&call);
        match mishap {
            Some(Mishap::Refused) => Err(failed()),
            Some(Mishap::AnswerLost | Mishap::Delayed(_)) => {
                work(&mut state, mishap).and(Err(failed()))
            }
            _ => work(&mut state, mishap),
        }
    }
}

impl State {
    /// Does the delayed calls that are due.
    fn catch_up(&mut self, call: u64) {
        for (at, change) in std::mem::take(&mut self.delayed) {
            if at <= call {
                self.make(change);
            } else {
                self.delayed.push((at, change));
            }
        }
    }

    /// Does a call that changes something, now or later.
    fn change(&mut self, change: Change, mishap: Option<Mishap>) -> Created {
        if let Some(Mishap::Delayed(calls)) = mishap {
            self.delayed.push((self.calls + calls, change));
            return Created::New;
        }
        self.make(change)
    }

    fn make(&mut self, change: Change) -> Created {
        match change {
            Change::Create(name, _) if self.objects.contains_key(&name) => Created::Exists,
            Change::Create(name, bytes) => {
                self.objects.insert(name, Object { bytes, created: self.now });
                Created::New
            }
            Change::Remove(name) => {
                self.objects.remove(&name);
                Created::New
            }
        }
    }
}

impl Target for Memory {
    fn create(&self, name: &str, body: &mut Body<'_, '_>) -> Result<Created, Fault> {
        check_name(name)?;
        let len = usize::try_from(body.len()).map_err(|_| Fault::Invalid("too long".to_owned()))?;
        let mut bytes = vec![0; len];
        body.read_exact_at(&mut bytes, 0)?;
        self.call("create it", |state, mishap| {
            match mishap {
                Some(Mishap::HalfUpload) => {
                    state.uploads.push(state.now);
                    return Err(Fault::HalfUpload { sent: body.len() / 2, total: body.len() });
                }
                Some(Mishap::Truncated) => bytes.truncate(len / 2),
                Some(Mishap::Altered) => {
                    bytes.iter_mut().skip(len / 2).take(1).for_each(|b| *b ^= 1);
                }
                _ => {}
            }
            Ok(state.change(Change::Create(name.to_owned(), bytes), mishap))
        })
    }

    fn read_at(&self, name: &str, buf: &mut [u8], at: u64) -> Result<(), Fault> {
        self.call("read it", |state, _| {
            let bytes = &state.objects.get(name).ok_or(Fault::Missing)?.bytes;
            let from = usize::try_from(at).ok().and_then(|at| bytes.get(at..));
            match from.and_then(|rest| rest.get(..buf.len())) {
                Some(found) => {
                    buf.copy_from_slice(found);
                    Ok(())
                }
                None => Err(Fault::Truncated {
                    expected: at.saturating_add(buf.len() as u64),
                    found: bytes.len() as u64,
                }),
            }
        })
    }

    fn size(&self, name: &str) -> Result<Option<u64>, Fault> {
        self.call("look at it", |state, _| {
            Ok(state.objects.get(name).map(|object| object.bytes.len() as u64))
        })
    }

    fn list(&self, prefix: &str, sink: &mut dyn FnMut(Listed)) -> Result<(), Fault> {
        let mut found = Vec::new();
        self.call("list it", |state, _| {
            let ours = state.objects.iter().filter(|(name, _)| name.starts_with(prefix));
            found.extend(ours.map(|(name, object)| Listed {
                name: name.clone(),
                len: object.bytes.len() as u64,
                age: state.now.saturating_sub(object.created),
            }));
            Ok(())
        })?;
        found.into_iter().for_each(sink);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), Fault> {
        self.call("remove it", |state, mishap| {
            if mishap == Some(Mishap::HalfUpload) {
                return Err(Fault::io("remove it", io::ErrorKind::ConnectionReset.into()));
            }
            state.change(Change::Remove(name.to_owned()), mishap);
            Ok(())
        })
    }

    fn sweep(&self, age: Duration) -> Result<u64, Fault> {
        self.call("sweep it", |state, _| {
            let before = state.uploads.len();
            let now = state.now;
            state.uploads.retain(|begun| now.saturating_sub(*begun) < age);
            Ok((before - state.uploads.len()) as u64)
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        format!("memory:{name}").into()
    }
}

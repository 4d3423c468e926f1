//! The disk alone: writes in place into allocated space, each for itself or in groups.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};

use codex_bench::Outcome;

use crate::engine::{Engine, Pair, Promise, Visit};

/// A file that is overwritten from its begin to its end, again and again.
struct Space {
    file: File,
    at: u64,
    promise: Promise,
}

impl Space {
    fn new(folder: &Path, promise: Promise) -> Outcome<Self> {
        let path = folder.join("raw");
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        // Written and synced before, so that no later sync has to allocate.
        file.write_all_at(&vec![0; SPACE_BYTES], 0)?;
        file.sync_all()?;
        Ok(Self { file, at: 0, promise })
    }

    fn write(&mut self, bytes: &[u8]) -> Outcome {
        if self.at + bytes.len() as u64 > SPACE_BYTES as u64 {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        if self.promise == Promise::Sync {
            self.file.sync_data()?;
        }
        Ok(())
    }
}

/// Writes under a mutex, one sync for each.
pub(super) struct Raw(Mutex<Space>);

impl Raw {
    pub(super) fn open(folder: &Path, promise: Promise) -> Outcome<Box<dyn Engine>> {
        Ok(Box::new(Self(Mutex::new(Space::new(folder, promise)?))))
    }
}

/// The least that a group commit can do: a queue, a leader that writes and syncs the queued bytes,
/// and a wake-up for each writer of the group.
pub(super) struct Grouped {
    queue: Mutex<Queue>,
    space: Mutex<Space>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Arc<Waiter>>,
    has_leader: bool,
}

struct Waiter {
    bytes: Vec<u8>,
    turn: AtomicU8,
    thread: Thread,
}

impl Grouped {
    pub(super) fn open(folder: &Path, promise: Promise) -> Outcome<Box<dyn Engine>> {
        let space = Mutex::new(Space::new(folder, promise)?);
        Ok(Box::new(Self { queue: Mutex::default(), space }))
    }

    fn lead(&self) -> Outcome {
        let mut space = self.space.lock().map_err(|_| POISONED)?;
        let group = std::mem::take(&mut self.queue.lock().map_err(|_| POISONED)?.waiting);
        let bytes: Vec<u8> = group.iter().flat_map(|waiter| &waiter.bytes).copied().collect();
        space.write(&bytes)?;
        drop(space);
        let mut queue = self.queue.lock().map_err(|_| POISONED)?;
        let next = queue.waiting.first().cloned();
        queue.has_leader = next.is_some();
        drop(queue);
        let done = group.iter().map(|waiter| (waiter, DONE));
        for (waiter, turn) in next.iter().map(|next| (next, LEADS)).chain(done) {
            waiter.turn.store(turn, Ordering::Release);
            waiter.thread.unpark();
        }
        Ok(())
    }
}

/// Writes of records that have no keys and are not read.
trait Records: Send + Sync {
    fn write(&self, record: Vec<u8>) -> Outcome;
}

impl Records for Raw {
    fn write(&self, record: Vec<u8>) -> Outcome {
        self.0.lock().map_err(|_| POISONED)?.write(&record)
    }
}

impl Records for Grouped {
    fn write(&self, bytes: Vec<u8>) -> Outcome {
        let waiter =
            Arc::new(Waiter { bytes, turn: AtomicU8::new(WAITS), thread: thread::current() });
        {
            let mut queue = self.queue.lock().map_err(|_| POISONED)?;
            queue.waiting.push(waiter.clone());
            if !std::mem::replace(&mut queue.has_leader, true) {
                waiter.turn.store(LEADS, Ordering::Release);
            }
        }
        loop {
            match waiter.turn.load(Ordering::Acquire) {
                WAITS => thread::park(),
                LEADS => return self.lead(),
                _ => return Ok(()),
            }
        }
    }
}

impl<R: Records> Engine for R {
    fn set(&self, key: &[u8], value: &[u8]) -> Outcome {
        self.write([key, value].concat())
    }

    fn load(&self, pairs: &[Pair]) -> Outcome {
        self.write(pairs.iter().flat_map(|(key, value)| [&**key, value].concat()).collect())
    }

    fn get(&self, _key: &[u8]) -> Outcome<Option<usize>> {
        Err(KEYLESS.into())
    }

    fn scan(&self, _from: &[u8], _visit: &mut Visit<'_>) -> Outcome {
        Err(KEYLESS.into())
    }
}

const SPACE_BYTES: usize = 16 << 20;
const WAITS: u8 = 0;
const LEADS: u8 = 1;
const DONE: u8 = 2;
const POISONED: &str = "a writer panicked";
const KEYLESS: &str = "the disk alone has no keys";

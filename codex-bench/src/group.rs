//! The disk alone, as the limit of a log: writes in place into allocated space, and groups of them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, Thread};

use crate::Outcome;

/// A file that is overwritten from its begin to its end, again and again.
#[derive(Debug)]
pub struct Space {
    file: File,
    at: u64,
    is_synced: bool,
}

impl Space {
    /// Returns the space of the file `path`, whose writes are synced if `is_synced` is true.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn new(path: &Path, is_synced: bool) -> Outcome<Self> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        // Written and synced before, so that no later sync has to allocate.
        file.write_all_at(&vec![0; SPACE_BYTES], 0)?;
        file.sync_all()?;
        Ok(Self { file, at: 0, is_synced })
    }

    /// Writes `bytes`, and syncs them.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn write(&mut self, bytes: &[u8]) -> Outcome {
        if self.at + bytes.len() as u64 > SPACE_BYTES as u64 {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        if self.is_synced {
            self.file.sync_data()?;
        }
        Ok(())
    }
}

/// The least that a group commit can do: a queue, a leader that writes and syncs the queued bytes,
/// and a wake-up for each writer of the group.
#[derive(Debug)]
pub struct Grouped {
    queue: Mutex<Queue>,
    space: Mutex<Space>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Arc<Waiter>>,
    has_leader: bool,
}

#[derive(Debug)]
struct Waiter {
    bytes: Vec<u8>,
    turn: AtomicU8,
    thread: Thread,
}

impl Grouped {
    /// Returns a group commit into `space`.
    pub fn new(space: Space) -> Self {
        Self { queue: Mutex::default(), space: Mutex::new(space) }
    }

    /// Writes `bytes` with the others that are written at the same time.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn write(&self, bytes: Vec<u8>) -> Outcome {
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

const SPACE_BYTES: usize = 16 << 20;
const WAITS: u8 = 0;
const LEADS: u8 = 1;
const DONE: u8 = 2;
const POISONED: &str = "a writer panicked";

//! The entries of the log that came before they were asked for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::shared::{Position, Slot};
use crate::sync::{Condvar, Mutex};

/// An entry, with its bytes.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) position: Position,
    pub(super) slot: Slot,
    pub(super) part: Arc<[u8]>,
}

/// The entries after a position, without a gap, as they come from the watch and from the appends of
/// this node. A leaf lock.
#[derive(Debug, Default)]
pub(super) struct Tail {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The positions between which all entries are kept, or `None` if the log must be read first.
    known: Option<(u64, u64)>,
    entries: VecDeque<Kept>,
    len: usize,
    /// The number of times that entries were dropped. A watch that began before ends.
    generation: u64,
    /// A position that is in the log, and since when it is known to be.
    expected: (u64, Duration),
    /// The time of the last entry.
    moved: Duration,
    /// Whether there is no watch.
    is_silent: bool,
    is_closed: bool,
}

/// What a reader finds.
#[derive(Debug)]
pub(super) enum Reading {
    /// These entries, which are all up to the position.
    Entries(Vec<Kept>, Position),
    /// The log must be read.
    Elsewhere,
}

/// What a wait has led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// There is something to read.
    New,
    Nothing,
    /// There was no watch, so nothing is known.
    Silent,
}

impl Tail {
    /// Returns entries after `after`, and forgets those before it.
    pub(super) fn after(&self, after: Position) -> Reading {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some((from, upto)) = &mut state.known else { return Reading::Elsewhere };
        if after.0 < *from {
            return Reading::Elsewhere;
        }
        while state.entries.front().is_some_and(|first| first.position <= after) {
            let first = state.entries.pop_front();
            *from = (*from).max(first.as_ref().map_or(0, |first| first.position.0));
            state.len -= first.map_or(0, |first| first.part.len());
        }
        let found: Vec<_> = state.entries.iter().take(READ_MAX).cloned().collect();
        let upto = match found.last() {
            Some(last) if found.len() < state.entries.len() => last.position,
            _ => Position((*upto).max(after.0)),
        };
        Reading::Entries(found, upto)
    }

    /// Adds an entry that follows `before`, the last entry before it. Does nothing if it is not
    /// known that nothing is between the kept entries and `before`.
    pub(super) fn add_own(&self, before: u64, entry: Kept, now: Duration) {
        let mut state = self.state.lock();
        let position = entry.position.0;
        if state.known.is_some_and(|(_, upto)| before <= upto && upto < position) {
            state.push(entry, now);
        } else if state.expected.0 < position {
            state.expected = (position, now);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Adds an entry of the watch that began in `generation`. Returns false if the watch must end.
    pub(super) fn add_watched(&self, generation: u64, entry: Kept, now: Duration) -> bool {
        let mut state = self.state.lock();
        let Some((_, upto)) = state.known.filter(|_| state.generation == generation) else {
            return false;
        };
        if entry.position.0 <= upto {
            return true;
        }
        if state.entries.len() >= KEPT_MAX || state.len + entry.part.len() > KEPT_LEN_MAX {
            state.drop_all();
            return false;
        }
        state.push(entry, now);
        drop(state);
        self.changed.notify_all();
        true
    }

    /// Records that the log was read up to the revision `upto`. The watch goes on after it.
    pub(super) fn begin(&self, upto: u64) {
        let mut state = self.state.lock();
        if state.known.is_none() {
            state.known = Some((upto, upto));
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Drops all entries, because one is missing or wrong.
    pub(super) fn drop_all(&self) {
        self.state.lock().drop_all();
        self.changed.notify_all();
    }

    /// Records that there is an entry at `position`, at the time `now`.
    pub(super) fn expect(&self, position: u64, now: Duration) {
        let mut state = self.state.lock();
        if position > state.expected.0 {
            state.expected = (position, now);
        }
    }

    /// Records whether there is no watch.
    pub(super) fn set_silent(&self, is_silent: bool) {
        self.state.lock().is_silent = is_silent;
    }

    /// Waits until there is something to read after `after`.
    pub(super) fn wait(
        &self,
        after: Position,
        now: &dyn Fn() -> Duration,
        timeout: Duration,
    ) -> Waited {
        let end = now().saturating_add(timeout);
        let mut state = self.state.lock();
        loop {
            let now = now();
            let Some((from, upto)) = state.known.filter(|_| !state.is_closed) else {
                return Waited::New;
            };
            if upto > after.0 || after.0 < from {
                return Waited::New;
            }
            let (expected, since) = state.expected;
            if expected > upto && now.saturating_sub(since.max(state.moved)) > LATE {
                // The watch has lost it, or its member is behind.
                state.drop_all();
                return Waited::New;
            }
            let left = end.saturating_sub(now);
            if left.is_zero() {
                return if state.is_silent { Waited::Silent } else { Waited::Nothing };
            }
            state = self.changed.wait_timeout(state, left.min(LATE));
        }
    }

    /// Waits until the log was read, and returns the generation and the position after which a
    /// watch begins. Returns `None` if the engine is closed.
    pub(super) fn next_watch(&self) -> Option<(u64, u64)> {
        let mut state = self.state.lock();
        loop {
            match state.known {
                _ if state.is_closed => return None,
                Some((_, upto)) => return Some((state.generation, upto)),
                None => state = self.changed.wait(state),
            }
        }
    }

    /// Waits for `limit`, or until the engine is closed. Returns whether it is open.
    pub(super) fn pause(&self, now: &dyn Fn() -> Duration, limit: Duration) -> bool {
        let end = now().saturating_add(limit);
        let mut state = self.state.lock();
        loop {
            let left = end.saturating_sub(now());
            if state.is_closed || left.is_zero() {
                return !state.is_closed;
            }
            state = self.changed.wait_timeout(state, left);
        }
    }

    /// Ends the threads.
    pub(super) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }
}

impl State {
    fn push(&mut self, entry: Kept, now: Duration) {
        self.moved = now;
        if let Some((_, upto)) = &mut self.known {
            *upto = entry.position.0;
        }
        self.len += entry.part.len();
        self.entries.push_back(entry);
    }

    fn drop_all(&mut self) {
        self.known = None;
        self.entries.clear();
        self.len = 0;
        self.generation += 1;
    }
}

/// The most entries that one call passes.
const READ_MAX: usize = 128;
/// The most entries that are kept, and the most bytes of them.
const KEPT_MAX: usize = 8192;
const KEPT_LEN_MAX: usize = 32 << 20;
/// The time after which an entry that is in the log is read if the watch has not brought it.
const LATE: Duration = Duration::from_millis(250);

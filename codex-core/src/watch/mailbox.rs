//! The mailbox of a watch: the commits that wait for it, the gap after them, and the wait for more.

use std::collections::VecDeque;
use std::mem;
use std::task::{Poll, Waker};
use std::time::Duration;

use codex_storage::batch::Seq;
use codex_storage::sync::{Condvar, Mutex};
use codex_storage::vfs::Clock;

use super::{Change, Committed, Notice};
use crate::promise;
use crate::rank::{self, Rank};

/// The commits that wait for one watch. The leader puts them in, and the watch takes them out.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The commits that were put in, each with the bytes that it keeps in memory.
    commits: VecDeque<(Committed, usize)>,
    /// The first and the last commit that did not fit. All of them are later than `commits`.
    gap: Option<(Seq, Seq)>,
    /// The changes and the bytes of `commits`.
    changes: usize,
    bytes: usize,
    changes_max: usize,
    bytes_max: usize,
    /// Whether no further commit comes.
    ended: bool,
    /// Whether a thread waits for a change of the state.
    is_waited_for: bool,
    /// The task to wake.
    waker: Option<Waker>,
}

impl Mailbox {
    /// Puts in the commit `seq` with the changes `matching`, or extends the gap if it does not fit.
    /// The caller [wakes](Self::wake) the watch afterwards.
    pub(crate) fn put<'a>(&self, seq: Seq, matching: impl Iterator<Item = &'a Change> + Clone) {
        self.locked(|state| {
            let (count, bytes) = matching
                .clone()
                .fold((0, 0), |(count, bytes), change| (count + 1, bytes + change.bytes()));
            // A commit that exceeds the limits alone is put into an empty mailbox.
            let fits = state.commits.is_empty()
                || state.changes + count <= state.changes_max
                    && state.bytes + bytes <= state.bytes_max;
            // Order: after a commit that did not fit, no later one is put in before the gap is
            // taken out, even if it is smaller. The watch returns the commits in order.
            if fits && state.gap.is_none() {
                let changes = matching.cloned().collect();
                state.commits.push_back((Committed::new(seq, None, changes), bytes));
                (state.changes, state.bytes) = (state.changes + count, state.bytes + bytes);
            } else {
                let first = state.gap.map_or(seq, |(first, _)| first);
                state.gap = Some((first, seq));
            }
        });
    }

    /// Notes that no commit from `first` to `last` is put in. The caller wakes the watch
    /// afterwards.
    pub(crate) fn lag(&self, first: Seq, last: Seq) {
        self.locked(|state| {
            let first = state.gap.map_or(first, |(first, _)| first);
            state.gap = Some((first, last));
        });
    }

    /// Wakes the thread or the task that waits. The caller holds no lock, because a waker is code
    /// of the user.
    pub(crate) fn wake(&self) {
        let (is_waited_for, waker) = self.locked(|state| (state.is_waited_for, state.waker.take()));
        // A notification costs a call of the system, even if no thread waits.
        if is_waited_for {
            self.changed.notify_one();
        }
        promise::wake(waker);
    }

    /// Ends the watch, after the commits that are in the mailbox.
    pub(crate) fn end(&self) {
        self.locked(|state| state.ended = true);
        self.wake();
    }

    /// Takes out the next notice; `None` at the end of the watch.
    pub(super) fn take(&self) -> Poll<Option<Notice>> {
        self.locked(State::take)
    }

    /// Returns true if the end of the watch is the next to be taken out.
    pub(super) fn is_ended(&self) -> bool {
        self.locked(|state| state.ended && state.commits.is_empty() && state.gap.is_none())
    }

    /// Takes out the next notice, and waits until there is one.
    pub(super) fn wait(&self) -> Option<Notice> {
        let _held = rank::take(Rank::Queue);
        let mut state = self.state.lock();
        loop {
            if let Poll::Ready(notice) = state.take() {
                return notice;
            }
            state.is_waited_for = true;
            state = self.changed.wait(state);
            state.is_waited_for = false;
        }
    }

    /// Takes out the next notice, and waits until there is one or `clock` shows `until`.
    pub(super) fn wait_until(&self, until: Duration, clock: &dyn Clock) -> Option<Notice> {
        let _held = rank::take(Rank::Queue);
        let mut state = self.state.lock();
        loop {
            if let Poll::Ready(notice) = state.take() {
                return notice;
            }
            let left = until.saturating_sub(clock.monotonic());
            if left.is_zero() {
                return None;
            }
            state.is_waited_for = true;
            state = self.changed.wait_timeout(state, left.min(WAIT_MAX));
            state.is_waited_for = false;
        }
    }

    /// Takes out the next notice, or stores `waker` to be woken when there is one.
    pub(super) fn poll(&self, waker: &Waker) -> Poll<Option<Notice>> {
        let is_stored = |state: &State| state.waker.as_ref().is_some_and(|w| w.will_wake(waker));
        let (taken, is_stored) = self.locked(|state| (state.take(), is_stored(state)));
        if taken.is_ready() || is_stored {
            return taken;
        }
        // Order: clone and drop wakers without the lock, because they are code of the user. Then
        // look again, because a commit may have come meanwhile and woken nobody.
        let mut waker = Some(waker.clone());
        let taken = self.locked(|state| {
            mem::swap(&mut state.waker, &mut waker);
            state.take()
        });
        drop(waker);
        taken
    }

    pub(super) fn set_changes_max(&self, count: usize) {
        self.locked(|state| state.changes_max = count);
    }

    pub(super) fn set_bytes_max(&self, count: usize) {
        self.locked(|state| state.bytes_max = count);
    }

    fn locked<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        // Order: check the rank before the wait. A forbidden order panics instead of blocking
        // forever.
        let _held = rank::take(Rank::Queue);
        f(&mut self.state.lock())
    }
}

impl State {
    /// Takes out the commits first, then the gap after them, then the end.
    fn take(&mut self) -> Poll<Option<Notice>> {
        if let Some((commit, bytes)) = self.commits.pop_front() {
            self.changes -= commit.changes.len();
            self.bytes -= bytes;
            return Poll::Ready(Some(Notice::Commit(commit)));
        }
        match self.gap.take() {
            Some((first, last)) => Poll::Ready(Some(Notice::Lagged { first, last })),
            None if self.ended => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self {
            commits: VecDeque::new(),
            gap: None,
            changes: 0,
            bytes: 0,
            changes_max: CHANGES_MAX,
            bytes_max: BYTES_MAX,
            ended: false,
            is_waited_for: false,
            waker: None,
        }
    }
}

/// The default limit of the changes in a mailbox.
const CHANGES_MAX: usize = 4_096;
/// The default limit of the bytes in a mailbox.
const BYTES_MAX: usize = 16 << 20;
/// The longest single wait. Not every system can wait for an unlimited time.
const WAIT_MAX: Duration = Duration::from_secs(3600);

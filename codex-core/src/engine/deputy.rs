//! The commits of tasks. A thread that polls a future must not block on the disk, so deputies lead
//! for tasks: threads of the engine. The first one starts with the first commit of a task.

use std::fmt;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use codex_storage::Result;
use codex_storage::sync::atomic::{AtomicBool, Ordering};
use codex_storage::sync::thread::{self, JoinHandle};
use codex_storage::sync::{Condvar, Mutex};

use super::Engine;
use super::leader::Member;
use super::queue::{TASK_BYTES_MAX, TaskPlace, Waiter};
use super::worker::join;
use crate::commit::{Commit, Outcome};
use crate::error::Error;
use crate::promise::Promise;
use crate::rank::{self, Rank};

/// A commit of a task that is in the queue: the future of its outcome.
///
/// The commit is made whether or not the future is polled, and also if it is dropped.
#[must_use = "the commit is on its way, and the future returns its outcome"]
pub struct Task(Arc<Promise<Result<Outcome>>>);

/// The deputies, and the lead on its way to one of them.
///
/// If all of them are busy, one more is started. A deputy that has made a group wakes its tasks,
/// and a waker may wait for the store: it may write, or close it. The group that it waits for is
/// made by a deputy that is free.
#[derive(Default)]
pub(super) struct Deputies {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether there is a deputy.
    are_started: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The commit of a task that has the lead, until a deputy takes it.
    first: Option<Waiter>,
    /// The number of deputies that neither lead nor wake tasks.
    free: usize,
    threads: Vec<JoinHandle<()>>,
    stopped: bool,
}

impl Engine {
    /// Enters `commit` into the queue and returns the future of its outcome. Waits neither for the
    /// disk nor for a leader. In a form of images, `commit.sync` must not be set:
    /// [`submit_synced`](Self::submit_synced) takes a lock for it.
    ///
    /// # Errors
    /// `Closed`, `Poisoned`, or `Backlog` if too many commits of tasks wait. Other errors are the
    /// outcome.
    pub fn submit_task(&self, commit: Commit) -> Result<Task, Error> {
        debug_assert!(!commit.sync || !self.writes_images, "an image needs the checkpoint lock");
        // Order: start the threads before the commit, which needs them.
        self.start_syncing()?;
        self.start_deputy()?;
        let promise = Arc::new(Promise::new());
        let entered = self.queue.enter_task(commit, Arc::clone(&promise), || self.now());
        match entered.map_err(|refusal| self.refused(refusal))? {
            TaskPlace::Waiting => {}
            TaskPlace::Leading(first) => self.lead_for(first),
            TaskPlace::Refused(bytes) => {
                return Err(Error::Backlog { bytes, limit: TASK_BYTES_MAX });
            }
        }
        Ok(Task(promise))
    }

    /// Passes the lead to a deputy, which makes a group that begins with the commit of `first`.
    pub(super) fn lead_for(&self, first: Waiter) {
        let is_taken = self.deputies.locked(|state| {
            debug_assert!(state.first.is_none(), "there is one lead");
            state.first = Some(first);
            state.free > 0
        });
        self.deputies.changed.notify_one();
        if !is_taken {
            // If the system cannot start a thread, the lead waits for the next deputy that is free.
            let _ = self.add_deputy();
        }
    }

    /// Starts the first deputy.
    fn start_deputy(&self) -> Result<()> {
        if self.deputies.are_started.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.add_deputy().map_err(|error| self.no_thread(error))?;
        self.deputies.are_started.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Starts a deputy, if none is free.
    fn add_deputy(&self) -> io::Result<()> {
        let own = self.own.upgrade().expect("the caller has the engine");
        self.deputies.locked(|state| {
            // Order: check under the lock. Stopping the deputies takes the handles of all that were
            // started.
            if state.free == 0 && !state.stopped {
                state.threads.push(deputy_loop(own)?);
                state.free += 1;
            }
            Ok(())
        })
    }

    /// Ends the deputies after their last group, and waits for them.
    pub(super) fn stop_deputies(&self) {
        let threads = self.deputies.locked(|state| {
            state.stopped = true;
            mem::take(&mut state.threads)
        });
        self.deputies.changed.notify_all();
        // Each deputy catches the panics of the groups that it leads.
        threads.into_iter().for_each(join);
    }
}

impl Future for Task {
    type Output = Result<Outcome>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context)
    }
}

impl Deputies {
    /// Waits for the lead, as a free deputy. Returns `None` if the deputies are stopped.
    fn wait(&self) -> Option<Waiter> {
        let _rank = rank::take(Rank::Queue);
        let mut state = self.state.lock();
        loop {
            // Order: look for the lead first. It is never left to nobody.
            if let Some(first) = state.first.take() {
                state.free -= 1;
                return Some(first);
            }
            if state.stopped {
                return None;
            }
            state = self.changed.wait(state);
        }
    }

    /// Records that a deputy has made its group and woken the tasks.
    fn done(&self) {
        self.locked(|state| state.free += 1);
    }

    fn locked<R>(&self, f: impl FnOnce(&mut State) -> R) -> R {
        let _rank = rank::take(Rank::Queue);
        f(&mut self.state.lock())
    }
}

/// Starts a deputy. It leads for tasks until the store is closed.
fn deputy_loop(engine: Arc<Engine>) -> io::Result<JoinHandle<()>> {
    thread::spawn("codexdb-deputy", move || {
        while let Some(Waiter { commit, ticket, .. }) = engine.deputies.wait() {
            let commit = commit.expect("each task has a commit");
            let first = Member::new(Some(ticket), commit);
            // A leader that unwinds poisons the store and answers all waiters, unless it has
            // already handed over the lead. The store is usable then, so the deputy goes on.
            let _ = catch_unwind(AssertUnwindSafe(|| engine.lead(first)));
            engine.deputies.done();
        }
    })
}

// A task shows nothing of its commit, because programs write `Debug` output to logs.
codex_storage::opaque_debug!(Task);

impl fmt::Debug for Deputies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deputies")
    }
}

//! The futures that the methods for tasks return.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use codex_storage::sync::thread;

use crate::commit::{Commit, Outcome};
use crate::engine::{Engine, Task};
use crate::error::Result;
use crate::promise::{self, Promise};
use crate::store::Store;

/// The future of a commit that is on its way to the disk. It returns the outcome of the commit,
/// after the commit is durable at the level of the store and readers see it.
///
/// The commit was started by the call that returned this future. It is made whether or not the
/// future is polled. Dropping the future takes nothing back.
#[must_use = "the commit is on its way; await the future to learn whether it was made"]
pub struct Submitted<T>(State<T>);

enum State<T> {
    /// The outcome is known; `None` after it was returned.
    Known(Option<Result<T>>),
    /// The commit is in the queue. The function converts its outcome.
    Queued(Task, Arc<Engine>, fn(&Engine, Outcome) -> Result<T>),
    /// A thread makes the commit.
    OnThread(Job<T>),
}

/// The future of a call that may use the files. If it does, a thread of its own makes it.
///
/// The call has begun when the method returns this future, and runs to its end whether or not the
/// future is polled. Dropping the future does not stop it. The store stays open until the call
/// ends.
#[must_use = "the call has begun; await the future to learn how it ended"]
pub struct Job<T>(JobState<T>);

enum JobState<T> {
    /// The outcome is known; `None` after it was returned.
    Known(Option<Result<T>>),
    /// The thread gives the outcome, or its panic.
    Running(Arc<Promise<Ended<T>>>),
}

/// The result of a call on its thread, or its panic.
type Ended<T> = Result<Result<T>, Box<dyn Any + Send>>;

impl Store {
    /// Enters `commit` into the queue. The future converts the outcome with `answer`.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        commit: Result<Commit>,
        answer: fn(&Engine, Outcome) -> Result<T>,
    ) -> Submitted<T> {
        let commit = match commit {
            Ok(commit) if self.inner.needs_thread(&commit) => {
                let store = self.clone();
                return Submitted(State::OnThread(Job::start(move || {
                    answer(&store.inner.engine, store.inner.commit(commit)?)
                })));
            }
            commit => commit,
        };
        match commit.and_then(|commit| self.inner.submit(commit)) {
            Ok(task) => Submitted(State::Queued(task, Arc::clone(&self.inner.engine), answer)),
            Err(error) => Submitted::known(Err(error)),
        }
    }
}

impl<T> Submitted<T> {
    /// Returns the future of an outcome that is already known.
    pub(crate) fn known(outcome: Result<T>) -> Self {
        Self(State::Known(Some(outcome)))
    }
}

// No field is pinned: the outcome is moved out.
impl<T> Unpin for Submitted<T> {}
impl<T> Unpin for Job<T> {}

impl<T> Future for Submitted<T> {
    type Output = Result<T>;

    /// # Panics
    /// If the outcome was already returned.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let outcome = match &mut self.0 {
            #[expect(clippy::expect_used, reason = "a future is not polled after its end")]
            State::Known(outcome) => outcome.take().expect("polled after its end"),
            State::Queued(task, engine, answer) => match Pin::new(task).poll(context) {
                Poll::Ready(Ok(outcome)) => answer(engine, outcome),
                Poll::Ready(Err(error)) => Err(error.into()),
                Poll::Pending => return Poll::Pending,
            },
            State::OnThread(job) => return Pin::new(job).poll(context),
        };
        self.0 = State::Known(None);
        Poll::Ready(outcome)
    }
}

impl<T: Send + 'static> Job<T> {
    /// Starts a thread that calls `work`.
    pub(super) fn start(work: impl FnOnce() -> Result<T> + Send + 'static) -> Self {
        let promise = Arc::new(Promise::new());
        let given = Arc::clone(&promise);
        let started = thread::spawn("codexdb-job", move || {
            // A panic continues in the task that awaits the future, as that of a joined thread.
            promise::wake(given.give(catch_unwind(AssertUnwindSafe(work))));
        });
        Self(match started {
            Ok(_) => JobState::Running(promise),
            Err(source) => {
                let (action, path) = ("start a thread for", "an async call".into());
                let error = codex_storage::Error::Io { action, path, source: Arc::new(source) };
                JobState::Known(Some(Err(error.into())))
            }
        })
    }
}

impl<T> Job<T> {
    /// Returns the future of an outcome that is already known.
    pub(crate) fn known(outcome: Result<T>) -> Self {
        Self(JobState::Known(Some(outcome)))
    }
}

impl<T> Future for Job<T> {
    type Output = Result<T>;

    /// # Panics
    /// If the outcome was already returned, or if the call panicked.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let outcome = match &mut self.0 {
            #[expect(clippy::expect_used, reason = "a future is not polled after its end")]
            JobState::Known(outcome) => outcome.take().expect("polled after its end"),
            JobState::Running(promise) => match promise.poll(context) {
                Poll::Ready(Ok(outcome)) => outcome,
                Poll::Ready(Err(panic)) => resume_unwind(panic),
                Poll::Pending => return Poll::Pending,
            },
        };
        self.0 = JobState::Known(None);
        Poll::Ready(outcome)
    }
}

/// Does not show the outcome, which may contain a value.
impl<T> fmt::Debug for Submitted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Submitted")
    }
}

/// Does not show the outcome, which may contain a value.
impl<T> fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

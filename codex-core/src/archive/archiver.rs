//! The thread of an archive, and the requests of the handles of the store.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use codex_backup::remote::Fault;
use codex_storage::Error as StorageError;
use codex_storage::batch::Seq;
use codex_storage::storage::{Form, LogPart};
use codex_storage::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use codex_storage::sync::channel::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use codex_storage::sync::{Mutex, thread};
use codex_storage::vfs::{Clock, Vfs};

use super::ship::Shipper;
use super::{Archive, ArchiveEvent, ArchiveStats};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::trace;

/// The archive of one open store.
pub(crate) struct Archiver {
    shared: Arc<Shared>,
    form: Form,
    /// `None` after the thread was stopped.
    thread: Mutex<Option<Running>>,
}

/// The thread of an archive.
struct Running {
    /// The thread ends when all senders are dropped.
    ask: SyncSender<Ask>,
    /// Is disconnected when the thread has ended.
    ended: Receiver<()>,
    handle: thread::JoinHandle<()>,
}

/// A request to send all commits. The outcome of the attempt is sent back.
type Ask = SyncSender<Result<Seq>>;

/// The state that the thread shares with the handles of the store.
pub(super) struct Shared {
    pub(super) options: Archive,
    path: PathBuf,
    clock: Arc<dyn Clock>,
    stats: Mutex<ArchiveStats>,
    /// The last commit that can be restored.
    seq: AtomicU64,
    /// The last time at which all commits could be restored, or that of the opening, in
    /// microseconds on the monotonic clock.
    covered_us: AtomicU64,
    /// Whether the store closes, so that an image is given up.
    is_stopping: AtomicBool,
    /// The time at which a store that closes waits no longer, in microseconds on that clock.
    over_us: AtomicU64,
}

impl Archiver {
    /// Starts the archive of the store `name`, which `engine` has open for writing.
    ///
    /// # Errors
    /// `Io` if no thread could be started.
    pub(crate) fn start(
        options: Archive,
        vfs: &Vfs,
        name: &str,
        form: Form,
        engine: &Arc<Engine>,
    ) -> Result<Self> {
        let path = vfs.dir.path(name);
        // Order: before the thread runs, so that a log which ends meanwhile is not missed.
        engine.keep_ended_logs(options.behind_bytes_max);
        let shared = Arc::new(Shared {
            path: path.clone(),
            clock: Arc::clone(&vfs.clock),
            stats: Mutex::default(),
            seq: AtomicU64::new(0),
            covered_us: AtomicU64::new(micros(vfs.clock.monotonic())),
            is_stopping: AtomicBool::new(false),
            over_us: AtomicU64::new(u64::MAX),
            options,
        });
        let shipper = Shipper::new(&shared.options, vfs, form);
        let (ask, asked) = sync_channel(ASKS_MAX);
        let (ends, ended) = sync_channel(0);
        let (working, engine) = (Arc::clone(&shared), Arc::clone(engine));
        let body = move || {
            // Dropped at the end, also by a panic.
            let _ends: SyncSender<()> = ends;
            Worker { shared: &working, engine: &engine, shipper }.run(&asked);
        };
        let handle = thread::spawn("codexdb-archive", body).map_err(|source| StorageError::Io {
            action: "start the archive thread of",
            path,
            source: Arc::new(source),
        })?;
        let running = Running { ask, ended, handle };
        Ok(Self { shared, form, thread: Mutex::new(Some(running)) })
    }

    /// Returns the error with which a write is refused, if a commit has waited too long.
    pub(crate) fn refusal(&self, engine: &Engine) -> Option<Error> {
        let shared = &self.shared;
        let after = shared.options.required_after?;
        // Most often this is one look at the clock.
        if shared.uncovered() < after || engine.stats().storage.seq <= shared.seq() {
            return None;
        }
        let last = shared.stats.lock().last_error.clone();
        let why = last.unwrap_or_else(|| "the last attempt has not ended".to_owned());
        Some(Error::ArchiveBehind { path: shared.path.clone(), after, why })
    }

    /// Sends all commits that were made before this call. Returns the last commit that can be
    /// restored.
    pub(crate) fn send_now(&self) -> Result<Seq> {
        self.send_within(Duration::MAX)
    }

    /// Sends the images that cannot be sent after a close: the first one, and the last one of a
    /// store without a log. Waits as long as the options say.
    pub(crate) fn before_close(&self, engine: &Engine) {
        let has_image = self.shared.stats.lock().image.is_some();
        let is_whole =
            self.form != Form::Snapshot || engine.stats().storage.seq <= self.shared.seq();
        if !has_image || !is_whole {
            // The error is in the statistics.
            let _ = self.send_within(self.shared.close_wait_left());
        }
    }

    /// Does the same as [`send_now`](Self::send_now), and waits for `longest` at most.
    fn send_within(&self, longest: Duration) -> Result<Seq> {
        let closed = || StorageError::Closed { path: self.shared.path.clone() };
        let ask = {
            let running = self.thread.lock();
            let running = running.as_ref().ok_or_else(closed)?;
            if running.handle.thread().id() == thread::current().id() {
                return Err(StorageError::Contradiction(
                    "the callback of an archive cannot wait for the archive",
                )
                .into());
            }
            running.ask.clone()
        };
        let (answer, answered) = sync_channel(1);
        ask.send(answer).map_err(|_| closed())?;
        drop(ask);
        answered.recv_timeout(longest).map_err(|_| closed())?
    }

    /// Returns the statistics since the opening. `last` is the last commit of the store.
    pub(crate) fn stats(&self, last: Seq) -> ArchiveStats {
        let seq = self.shared.seq();
        let lag_us = if last > seq { micros(self.shared.uncovered()) } else { 0 };
        ArchiveStats { seq, lag_us, ..self.shared.stats.lock().clone() }
    }

    /// Sends the last commits of a store that was closed, and ends the thread. Waits as long as the
    /// options say. A call on the thread itself, from the callback of the user, does not wait.
    pub(crate) fn stop(&self) {
        let longest = self.shared.close_wait_left();
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        let Some(Running { ask, ended, handle }) = self.thread.lock().take() else { return };
        drop(ask);
        if handle.thread().id() != thread::current().id() {
            // Nothing is sent: the channel is disconnected, or the time is over. The thread then
            // ends by itself after the call to the place that it waits for.
            let _ = ended.recv_timeout(longest);
        }
    }
}

impl Shared {
    /// Returns the last commit that can be restored.
    pub(super) fn seq(&self) -> Seq {
        self.seq.load(Ordering::Acquire)
    }

    /// Returns the time since all commits could be restored.
    fn uncovered(&self) -> Duration {
        let covered = Duration::from_micros(self.covered_us.load(Ordering::Acquire));
        self.clock.monotonic().saturating_sub(covered)
    }

    /// Returns the time on the monotonic clock.
    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Returns the time, in microseconds since 1970.
    pub(super) fn now_us(&self) -> i64 {
        self.clock.now_us()
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// The outcome of the progress callbacks of long calls, which end if the store closes.
    pub(super) fn go_on(&self) -> ControlFlow<()> {
        if self.is_stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Returns how long a close still waits. The first call begins the wait.
    fn close_wait_left(&self) -> Duration {
        let now = self.now();
        let over_us = micros(now.saturating_add(self.options.close_wait));
        let over_us = over_us.min(self.over_us.fetch_min(over_us, Ordering::Relaxed));
        Duration::from_micros(over_us).saturating_sub(now)
    }

    /// Returns an error if the store was closed and waits no longer.
    pub(super) fn refuse_if_over(&self) -> Result<()> {
        if micros(self.now()) < self.over_us.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(StorageError::Closed { path: self.path.clone() }.into())
    }

    /// Reads the bytes of the next piece of a log.
    pub(super) fn read(&self, part: &LogPart, at: u64) -> Result<Vec<u8>> {
        let len = usize::try_from(part.end - at).map_or(PIECE_BYTES, |len| len.min(PIECE_BYTES));
        let mut bytes = vec![0; len];
        part.file.read_exact_at(&mut bytes, at).map_err(|source| StorageError::Io {
            action: "read the log of",
            path: self.path.clone(),
            source: Arc::new(source),
        })?;
        Ok(bytes)
    }

    /// Notes that all commits up to `seq` can be restored. It was the last one at the time `at`.
    pub(super) fn covers(&self, seq: Seq, at: Duration) {
        // Order: the time first. A reader that sees the commit then sees no earlier time.
        self.covered_us.fetch_max(micros(at), Ordering::AcqRel);
        self.seq.fetch_max(seq, Ordering::Release);
    }

    /// Changes the statistics.
    pub(super) fn count(&self, change: impl FnOnce(&mut ArchiveStats)) {
        change(&mut self.stats.lock());
    }

    /// Calls the function of the user, if there is one. No lock is held.
    pub(super) fn tell(&self, event: &ArchiveEvent) {
        if let Some(callback) = &self.options.on_event {
            callback.run(|on_event| on_event(event));
        }
    }
}

/// The body of the thread.
struct Worker<'a> {
    shared: &'a Shared,
    engine: &'a Engine,
    shipper: Shipper,
}

impl Worker<'_> {
    /// Sends new commits when they are due, until the store closes, and then the rest.
    fn run(mut self, asked: &Receiver<Ask>) {
        let mut retry = RETRY_FIRST;
        // The first attempt is made at once. After one that failed, only time makes the next due.
        let (mut due_at, mut rests) = (Duration::ZERO, false);
        while !self.shared.is_stopping() {
            let now = self.shared.now();
            let mut asks = Vec::new();
            let is_due = self.shipper.is_due(self.shared, self.engine) && !rests;
            if now < due_at && !is_due {
                match asked.recv_timeout(due_at.saturating_sub(now).min(LOOK_EVERY)) {
                    Ok(ask) => asks.push(ask),
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => continue,
                }
            }
            asks.extend(asked.try_iter());
            let done = self.attempt();
            rests = done.is_err();
            let pause = match &done {
                Ok(_) => {
                    retry = RETRY_FIRST;
                    self.shared.options.every
                }
                Err(error) if is_fenced(error) => Duration::MAX,
                Err(_) => {
                    let pause = retry;
                    retry = (2 * retry).min(RETRY_LAST);
                    pause
                }
            };
            due_at = self.shared.now().saturating_add(pause);
            for ask in asks {
                let _ = ask.send(done.clone());
            }
        }
        let _ = self.shipper.finish(self.shared, self.engine);
    }

    /// Sends all commits, and notes the outcome.
    fn attempt(&mut self) -> Result<Seq> {
        let done = {
            let _span = trace::archive();
            self.shipper.send(self.shared, self.engine)
        };
        match &done {
            Ok(seq) => {
                let mut had_failed = false;
                self.shared.count(|stats| had_failed = stats.last_error.take().is_some());
                if had_failed {
                    self.shared.tell(&ArchiveEvent::Resumed { seq: *seq });
                }
            }
            // The store closes.
            Err(Error::Storage(StorageError::Closed { .. })) => {}
            Err(_) if self.shared.is_stopping() => {}
            Err(error) => self.note(error),
        }
        done
    }

    fn note(&self, error: &Error) {
        let is_stopped = is_fenced(error);
        self.shared.count(|stats| {
            stats.failed += 1;
            stats.last_error = Some(error.to_string());
            stats.is_stopped = is_stopped;
        });
        trace::archive_failed(error);
        let error = error.clone();
        self.shared.tell(&if is_stopped {
            ArchiveEvent::Stopped { error }
        } else {
            ArchiveEvent::Failed { error }
        });
    }
}

/// Returns whether another archive has the place, so that no further attempt is made.
fn is_fenced(error: &Error) -> bool {
    let Error::Backup(error) = error else { return false };
    matches!(**error, codex_backup::Error::Remote { fault: Fault::Fenced, .. })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The maximum number of bytes of a log in one piece.
const PIECE_BYTES: usize = 4 << 20;
/// The time between two looks at whether something is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The number of requests that wait before further callers do.
const ASKS_MAX: usize = 64;
/// The pause after the first failed attempt. Each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// The longest pause after a failed attempt.
const RETRY_LAST: Duration = Duration::from_secs(60);

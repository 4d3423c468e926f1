//! The automatic backups of an open store, made on a thread of their own when the policy asks.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use codex_backup::{BackupPolicy, Event, Facts, Last, Rotated, State};
use codex_storage::Error as StorageError;
use codex_storage::batch::Seq;
use codex_storage::seal::Seal;
use codex_storage::storage::Form;
use codex_storage::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use codex_storage::sync::{Mutex, thread};
use codex_storage::vfs::{Clock, Vfs};

use super::join::{self, StoreFile};
use super::watch::{self, Alarm};
use super::{BackupEvent, BackupOptions, BackupStats};
use crate::engine::{CopySource, Engine};
use crate::error::{Error, Result};
use crate::outer;
use crate::rank::Rank;
use crate::trace;

/// Schedules and makes the backups of one open store.
pub(crate) struct BackupScheduler {
    shared: Arc<Shared>,
    /// `None` if the policy asks for no automatic backups, or after the thread was stopped.
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

/// The state that the thread shares with the handles of the store. The thread has no handle.
pub(super) struct Shared {
    vfs: Vfs,
    name: String,
    form: Form,
    /// The backups, read without the key. [`Shared::backups`] adds the key.
    unkeyed: codex_backup::Backups,
    options: BackupOptions,
    /// Held while a rotation runs, so that only one runs at a time.
    rotating: Mutex<()>,
    state: Mutex<BackupStats>,
    /// The newest backup, if one is known.
    last: Mutex<Option<Last>>,
    /// The first commit that wakes the thread.
    due_at: AtomicU64,
    /// Wakes the thread, if there is one.
    pub(super) alarm: Alarm,
    /// The number of checkpoints whose state is in a backup.
    checkpoints_seen: AtomicU64,
    /// Whether writes are refused: the last rotation failed, and the options require a backup.
    refusing: AtomicBool,
    /// Whether the store closes, so that a running rotation gives up.
    stopping: AtomicBool,
}

impl BackupScheduler {
    /// Starts the backups of the store `name`, which `engine` has open for writing.
    ///
    /// An error in the existing backups does not fail this call. It is counted in the statistics
    /// and passed to the callback, like the error of a later backup.
    ///
    /// # Errors
    /// `Contradiction` if the policy does not suit the form; `Io` if no thread could be started.
    pub(crate) fn start(
        vfs: &Vfs,
        name: &str,
        form: Form,
        options: BackupOptions,
        engine: &Arc<Engine>,
    ) -> Result<Self> {
        options.check(Some(form))?;
        let keep = options.policy.map_or(codex_backup::Options::default().keep, |p| p.keep);
        let backups = codex_backup::Backups::new(
            vfs.clone(),
            name,
            Arc::new(StoreFile::default()),
            codex_backup::Options { keep, ..codex_backup::Options::default() },
        )?;
        let shared = Arc::new(Shared {
            vfs: vfs.clone(),
            name: name.to_owned(),
            form,
            unkeyed: backups,
            options,
            rotating: Mutex::new(()),
            state: Mutex::default(),
            last: Mutex::new(None),
            due_at: AtomicU64::new(u64::MAX),
            alarm: Alarm::default(),
            checkpoints_seen: AtomicU64::new(0),
            refusing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        // A verified backup that a crash left without a number gets it. This looks at a few names.
        if let Err(error) = shared.backups(engine.seal()).adopt() {
            shared.note(&Err(error.into()));
        }
        let scheduler = Self { shared, thread: Mutex::new(None) };
        if scheduler.shared.policy().is_some_and(|policy| policy.on_checkpoint) {
            let shared = Arc::clone(&scheduler.shared);
            engine.on_checkpoint(move |_| shared.alarm.wake());
        }
        if scheduler.shared.policy().is_some_and(watch::acts_by_itself) {
            let waker = Arc::clone(&scheduler.shared);
            engine.on_commit(move |seq| waker.committed(seq));
            let (shared, engine) = (Arc::clone(&scheduler.shared), Arc::clone(engine));
            let handle = thread::spawn("codexdb-backup", move || watch::run(&shared, &engine))
                .map_err(|source| StorageError::Io {
                    action: "start the backup thread of",
                    path: vfs.dir.path(name),
                    source: Arc::new(source),
                })?;
            *scheduler.thread.lock() = Some(handle);
        }
        Ok(scheduler)
    }

    /// Returns the error with which a write is refused, if the options require a backup and the
    /// last one failed.
    pub(crate) fn refusal(&self) -> Option<Error> {
        if !self.shared.refusing.load(Ordering::Relaxed) {
            return None;
        }
        let why = self.shared.state.lock().last_error.clone().unwrap_or_default();
        Some(Error::BackupRequired { path: self.shared.vfs.dir.path(&self.shared.name), why })
    }

    /// Makes a backup now, unless the newest one has the current state.
    pub(crate) fn rotate(&self, engine: &Engine) -> Result<Rotated> {
        let done = self.shared.rotate(engine);
        // The thread waits for a commit or a time that it computed from an older backup.
        self.shared.alarm.wake();
        done
    }

    /// Returns the counters since the opening.
    pub(crate) fn stats(&self) -> BackupStats {
        self.shared.state.lock().clone()
    }

    /// Begins the stop: a running backup is given up, because the store is about to close.
    pub(crate) fn begin_stop(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
    }

    /// Stops the thread and waits for its end. A call on the thread itself, from the callback of
    /// the user, does not wait: the thread ends after the callback returns.
    pub(crate) fn stop(&self) {
        self.begin_stop();
        let Some(handle) = self.thread.lock().take() else { return };
        self.shared.alarm.end();
        if handle.thread().id() != thread::current().id() {
            // The panic hook has already printed a panic of the thread.
            let _ = handle.join();
        }
    }
}

impl Shared {
    /// Returns the backups, read with the root key `seal`. If there is one, only backups that are
    /// authentic under it count.
    fn backups(&self, seal: Option<Arc<dyn Seal>>) -> codex_backup::Backups {
        self.unkeyed.with_inspect(Arc::new(StoreFile::under(seal).beside(&self.vfs)))
    }

    pub(super) fn policy(&self) -> Option<BackupPolicy> {
        self.options.policy
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.vfs.clock
    }

    /// Returns whether the options require a backup to succeed.
    pub(super) fn is_required(&self) -> bool {
        self.options.required
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Wakes the thread if the commit `seq` makes a backup due. Otherwise this is one atomic load.
    fn committed(&self, seq: Seq) {
        if seq >= self.due_at.load(Ordering::SeqCst) {
            self.alarm.wake();
        }
    }

    /// Returns whether writes are refused until a backup succeeds. A failed backup on request
    /// counts like an automatic one.
    fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Relaxed)
    }

    /// Returns whether the policy asks for a backup after each checkpoint, and one was made since
    /// the last backup.
    pub(super) fn has_new_checkpoint(&self, engine: &Engine) -> bool {
        self.policy().is_some_and(|policy| policy.on_checkpoint)
            && engine.stats().checkpoints > self.checkpoints_seen.load(Ordering::Relaxed)
    }

    /// Makes a backup if the policy asks for one at `event`, or if writes wait for one. Returns
    /// `None` if neither holds.
    pub(super) fn rotate_if_due(&self, engine: &Engine, event: Event) -> Option<Result<Rotated>> {
        let due = self.policy()?.due(self.state(engine, event));
        (due || self.is_refusing()).then(|| self.rotate(engine))
    }

    /// Returns the time after which the thread must look again, or `None` if only a commit can make
    /// a backup due. Sets the commit that wakes the thread.
    pub(super) fn wait(&self, engine: &Engine, policy: BackupPolicy) -> Option<Duration> {
        let tick = || self.state(engine, Event::Tick);
        let unchanged = policy.wait(tick()).is_none();
        self.due_at.store(due_after(policy, *self.last.lock(), unchanged), Ordering::SeqCst);
        // Order: the state is read again after `due_at` is set. A commit before that may have
        // compared itself with the old value, and has not woken the thread.
        let now = tick();
        if policy.due(now) { Some(Duration::ZERO) } else { policy.wait(now) }
    }

    /// Returns the state with which the policy decides.
    fn state(&self, engine: &Engine, event: Event) -> State {
        let storage = engine.stats().storage;
        let last = *self.last.lock();
        State { event, seq: storage.seq, last, now: self.now() }
    }

    /// Makes a backup of the current state, unless the newest one has it, and notes the outcome.
    fn rotate(&self, engine: &Engine) -> Result<Rotated> {
        let done = {
            let _span = trace::backup();
            self.try_rotate(engine)
        };
        if done.is_err() && self.is_stopping() {
            // The backup was given up because the store closes. This is not counted as a failure.
            return Err(StorageError::Closed { path: self.vfs.dir.path(&self.name) }.into());
        }
        self.note(&done);
        done
    }

    /// Makes a backup of the current state, unless the newest one has it.
    fn try_rotate(&self, engine: &Engine) -> Result<Rotated> {
        // The state of a Wal is made durable when it is taken.
        let mut is_settled = self.form == Form::Wal;
        loop {
            if !is_settled {
                engine.flush_watched(&|_, _| !self.is_stopping())?;
            }
            let _one = outer::lock(Rank::Rotation, &self.rotating);
            // Order: the count is read before the source is taken, so that the source has at least
            // the state of these checkpoints.
            self.checkpoints_seen.store(engine.stats().checkpoints, Ordering::Relaxed);
            // Order: the source is taken after the lock. A state that was taken before may be older
            // than the backup that another rotation has just made.
            let Some(CopySource { bytes, seal }) = engine.copy_source(&self.vfs, &self.name)?
            else {
                // The lock is released before the flush, which may write an image.
                is_settled = false;
                continue;
            };
            let to = (&self.vfs, &*self.vfs.dir.path(&self.name));
            return join::with_source(bytes, &self.name, to, &|| true, |source, about| {
                let mut watch = |_| self.go_on();
                Ok(self.backups(seal).rotate(source, about.as_ref(), &mut watch)?)
            });
        }
    }

    /// Notes the outcome of a rotation for the policy and the statistics, and calls the callback.
    /// No lock is held while the callback runs.
    fn note(&self, done: &Result<Rotated>) {
        let mut stats = self.state.lock();
        let news = match done {
            Ok(rotated) => {
                let mended = stats.last_error.take().is_some();
                stats.made += u64::from(rotated.method.is_some());
                stats.last_seq = Some(rotated.facts.seq);
                self.refusing.store(false, Ordering::Relaxed);
                let (seq, at) = (rotated.facts.seq, self.now());
                self.set_last(Last { seq, at, diverged: false });
                let made = rotated.method.is_some() || rotated.adopted.adopted.is_some();
                (made || mended).then(|| BackupEvent::Made { seq: rotated.facts.seq })
            }
            Err(error) => {
                stats.failed += 1;
                stats.last_error = Some(error.to_string());
                self.refusing.store(self.options.required, Ordering::Relaxed);
                Some(BackupEvent::Failed { error: error.clone() })
            }
        };
        // Order: the lock is released before the callback, which may read the statistics.
        drop(stats);
        if let Err(error) = done {
            trace::backup_failed(error);
        }
        if let (Some(callback), Some(event)) = (&self.options.on_event, news) {
            super::call(callback, &event);
        }
    }

    /// Sets the newest backup, and the commit that makes the next one due.
    fn set_last(&self, last: Last) {
        *self.last.lock() = Some(last);
        if let Some(policy) = self.policy() {
            self.due_at.store(due_after(policy, Some(last), true), Ordering::SeqCst);
        }
    }

    /// Returns the time on a monotonic clock. The clock has an offset, so that the time of a backup
    /// from before this process is not negative.
    fn now(&self) -> Duration {
        CLOCK_OFFSET.saturating_add(self.clock().monotonic())
    }

    /// Finds the newest backup that an earlier handle made. The thread calls this, and not the
    /// opening, because in the form Ledger the whole backup is read.
    pub(super) fn look_back(&self, engine: &Engine) {
        let mut watch = |_| self.go_on();
        // A backup that is not good counts as none. The next rotation reports it if it blocks a
        // name.
        let newest = self.backups(engine.seal()).newest(&mut watch);
        let Ok(Some((facts, made_us))) = newest else { return };
        let age_us = self.vfs.clock.now_us().saturating_sub(made_us);
        let age = Duration::from_micros(u64::try_from(age_us).unwrap_or(0));
        let (seq, at) = (facts.seq, self.now().saturating_sub(age));
        let diverged = !self.is_in_the_history(&facts, engine);
        let mut last = self.last.lock();
        // A backup may have been made on request since, which is newer.
        if last.is_none() {
            *last = Some(Last { seq, at, diverged });
        }
    }

    /// Returns whether the backup with these facts has a state of this store. An earlier commit is
    /// enough, because no later commit can have the same number. At the same number the contents
    /// are compared, or, if the store is a ledger, `false` is returned.
    fn is_in_the_history(&self, facts: &Facts, engine: &Engine) -> bool {
        let seq = engine.stats().storage.seq;
        if facts.seq != seq || self.form == Form::Ledger {
            return facts.seq < seq;
        }
        // The image in place may be of an earlier commit.
        let now = engine.memory_source(&self.vfs, &self.name);
        now.and_then(|now| now.facts()).is_ok_and(|now| {
            let now = join::facts(now);
            now.seq > facts.seq || now.same_version(facts)
        })
    }

    /// The progress callback of a rotation, which ends it if the store closes.
    fn go_on(&self) -> ControlFlow<()> {
        if self.is_stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Returns the first commit that wakes the thread. This is the commit that makes a rotation due. If
/// nothing has changed since the `last` backup and the policy has an interval, it is the next
/// commit, because the interval counts only if there is a change.
fn due_after(policy: BackupPolicy, last: Option<Last>, unchanged: bool) -> Seq {
    let lets_run = policy.every.filter(|_| unchanged).map(|_| 1);
    let enough = policy.every_commits.map(|commits| commits.max(1));
    let commits = lets_run.or(enough).unwrap_or(u64::MAX);
    last.map_or(0, |last| last.seq).saturating_add(commits)
}

/// The offset of the clock: a hundred years.
const CLOCK_OFFSET: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

#[cfg(test)]
mod tests;

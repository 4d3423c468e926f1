//! The backups of an open store: rotates when the policy asks for it, on a thread of its own.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use codex_backup::{Event, Facts, Last, Policy, Rotated, State};
use codex_storage::batch::Seq;
use codex_storage::seal::Seal;
use codex_storage::storage::Form;
use codex_storage::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use codex_storage::sync::channel::{Sender, bounded};
use codex_storage::sync::{Mutex, thread};
use codex_storage::vfs::{Clock, Vfs};
use codex_storage::{Error as StorageError, MainFile};

use super::join::{self, StoreFile};
use super::watch::{self, Wakeups};
use super::{BackupEvent, BackupOptions, BackupStats};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::rank::{self, Rank};

/// Schedules and makes the backups of one open store.
pub(crate) struct BackupScheduler {
    shared: Arc<Shared>,
    /// `None` where the policy asks for nothing by itself.
    thread: Mutex<Option<Running>>,
}

struct Running {
    /// Nothing is sent here: the thread ends when it is dropped.
    open: Sender<()>,
    handle: thread::JoinHandle<()>,
}

/// The state that the thread shares with the handles. The thread owns no handle.
pub(super) struct Shared {
    vfs: Vfs,
    name: String,
    form: Form,
    /// Read without the key; see [`Shared::backups`].
    unkeyed: codex_backup::Backups,
    options: BackupOptions,
    /// Held while a rotation runs: one at a time.
    rotating: Mutex<()>,
    state: Mutex<BackupStats>,
    last: Mutex<Option<Last>>,
    /// From this commit on the thread is to be woken.
    due_at: AtomicU64,
    /// Wakes the thread, where there is one.
    wake: Sender<()>,
    /// The thread was woken and has not looked yet.
    woken: AtomicBool,
    /// The checkpoints up to this count are in a backup, or older than one.
    checkpoints_seen: AtomicU64,
    /// The last rotation failed and the options refuse writes until one succeeds.
    refusing: AtomicBool,
    stopping: AtomicBool,
}

impl BackupScheduler {
    /// Starts keeping the backups of the store `name`, which is open for writing as `engine`.
    ///
    /// An error of the backups that are there already costs no more than one of the next:
    /// it shows in the statistics and is told to the callback.
    ///
    /// # Errors
    /// A policy that the form cannot follow; `Io` when the system has no room for a thread.
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
        let (wake, woken) = bounded(1);
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
            wake,
            woken: AtomicBool::new(false),
            checkpoints_seen: AtomicU64::new(0),
            refusing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        // A verified backup that a crash kept from its name gets it. Costs a look at a few names.
        if let Err(error) = shared.backups(engine.seal()).adopt() {
            shared.note(&Err(error.into()));
        }
        let scheduler = Self { shared, thread: Mutex::new(None) };
        if scheduler.shared.policy().is_some_and(|policy| policy.on_checkpoint) {
            let shared = Arc::clone(&scheduler.shared);
            engine.on_checkpoint(move || shared.wake());
        }
        if scheduler.shared.policy().is_some_and(watch::acts_by_itself) {
            let (open, closed) = bounded(0);
            let (shared, engine) = (Arc::clone(&scheduler.shared), Arc::clone(engine));
            let wakeups = Wakeups { woken, closed };
            let handle =
                thread::spawn("codexdb-backup", move || watch::run(&shared, &engine, &wakeups))
                    .map_err(|source| StorageError::Io {
                        action: "start the backup thread of",
                        path: vfs.dir.path(name),
                        source: Arc::new(source),
                    })?;
            *scheduler.thread.lock() = Some(Running { open, handle });
        }
        Ok(scheduler)
    }

    /// Notes that commits up to `seq` were made. Costs a look, but for the one commit that wakes
    /// the thread.
    pub(crate) fn committed(&self, seq: Seq) {
        let shared = &self.shared;
        if seq >= shared.due_at.load(Ordering::SeqCst) {
            shared.wake();
        }
    }

    /// Why a write is refused, where failing backups are to stop writes.
    pub(crate) fn refusal(&self) -> Option<Error> {
        if !self.shared.refusing.load(Ordering::Relaxed) {
            return None;
        }
        let why = self.shared.state.lock().last_error.clone().unwrap_or_default();
        Some(Error::BackupRequired { path: self.shared.vfs.dir.path(&self.shared.name), why })
    }

    /// Rotates now.
    pub(crate) fn rotate(&self, engine: &Engine) -> Result<Rotated> {
        let done = self.shared.rotate(engine);
        // The thread waits for a commit or a time that an older backup made due.
        self.shared.wake();
        done
    }

    pub(crate) fn stats(&self) -> BackupStats {
        self.shared.state.lock().clone()
    }

    /// Has a copy in progress given up: the store is about to close.
    pub(crate) fn begin_stop(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
    }

    /// Ends the thread and waits for it, unless it is the one that calls: then the callback
    /// closes the store, or drops its last handle, and the thread ends when that returns.
    pub(crate) fn stop(&self) {
        self.begin_stop();
        let Some(Running { open, handle }) = self.thread.lock().take() else { return };
        drop(open);
        if handle.thread().id() != thread::current().id() {
            // The panic of the thread has been printed; no caller waits for it.
            let _ = handle.join();
        }
    }
}

impl Shared {
    /// The backups, of which only those count that are authentic under the root key `seal`, where
    /// there is one.
    fn backups(&self, seal: Option<Arc<dyn Seal>>) -> codex_backup::Backups {
        self.unkeyed.with_inspect(Arc::new(StoreFile::under(seal)))
    }

    pub(super) fn policy(&self) -> Option<Policy> {
        self.options.policy
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.vfs.clock
    }

    pub(super) fn is_required(&self) -> bool {
        self.options.required
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Lets the thread look again.
    fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            // Full: a wake-up that has not been taken yet serves as well. Disconnected: there is
            // no thread, or it has ended, as it does when the store closes.
            let _ = self.wake.try_send(());
        }
    }

    /// Whether writes wait for a backup to succeed, also if the one that failed was made by hand.
    fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Relaxed)
    }

    /// Takes the wake-up: a commit that is made from now on wakes the thread again.
    pub(super) fn awake(&self) {
        self.woken.swap(false, Ordering::AcqRel);
    }

    /// Whether a checkpoint was made of which no backup knows.
    pub(super) fn has_new_checkpoint(&self, engine: &Engine) -> bool {
        self.policy().is_some_and(|policy| policy.on_checkpoint)
            && engine.stats().checkpoints > self.checkpoints_seen.load(Ordering::Relaxed)
    }

    pub(super) fn rotate_if_due(&self, engine: &Engine, event: Event) -> Option<Result<Rotated>> {
        let due = self.policy()?.due(self.state(engine, event));
        (due || self.is_refusing()).then(|| self.rotate(engine))
    }

    /// How long the thread may sleep if no commit wakes it.
    pub(super) fn wait(&self, engine: &Engine, policy: Policy) -> Option<Duration> {
        let tick = || self.state(engine, Event::Tick);
        let unchanged = policy.wait(tick()).is_none();
        self.due_at.store(due_after(policy, *self.last.lock(), unchanged), Ordering::SeqCst);
        // Order: looked again after the note. A commit between the two wakes no thread.
        let now = tick();
        if policy.due(now) { Some(Duration::ZERO) } else { policy.wait(now) }
    }

    fn state(&self, engine: &Engine, event: Event) -> State {
        let storage = engine.stats().storage;
        let last = *self.last.lock();
        State { event, seq: storage.seq, last, now: self.now() }
    }

    /// Makes a backup of the state now, unless the newest one is of that state.
    fn rotate(&self, engine: &Engine) -> Result<Rotated> {
        let done = self.try_rotate(engine);
        if done.is_err() && self.is_stopping() {
            // Given up for the close: nothing failed.
            return Err(StorageError::Closed { path: self.vfs.dir.path(&self.name) }.into());
        }
        self.note(&done);
        done
    }

    fn try_rotate(&self, engine: &Engine) -> Result<Rotated> {
        engine.settle(self.form, &|_, _| !self.is_stopping())?;
        let _rank = rank::take(Rank::Rotation);
        let _one = self.rotating.lock();
        // Order: the count before the file. The file holds these checkpoints at least.
        self.checkpoints_seen.store(engine.stats().checkpoints, Ordering::Relaxed);
        // Order: after the lock. A file that was taken before it may be older than the backup that
        // another rotation has just made.
        let (main, seal) = engine.main_file()?;
        let (source, about) = join::source(&main, &self.name)?;
        let mut watch = |_| self.go_on();
        Ok(self.backups(seal).rotate(source, about.as_ref(), &mut watch)?)
    }

    /// Notes the outcome of a rotation, for the policy, the statistics and the callback. No lock
    /// is held while the callback runs.
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
        drop(stats);
        if let (Some(callback), Some(event)) = (&self.options.on_event, news) {
            callback.call(&event);
        }
    }

    fn set_last(&self, last: Last) {
        *self.last.lock() = Some(last);
        if let Some(policy) = self.policy() {
            self.due_at.store(due_after(policy, Some(last), true), Ordering::SeqCst);
        }
    }

    /// The time on a clock that does not run backwards and began long before this process: the
    /// newest backup may be older than that.
    fn now(&self) -> Duration {
        CLOCK_OFFSET.saturating_add(self.clock().monotonic())
    }

    /// Finds the newest backup that an earlier handle made. Called by the thread of the policy: of
    /// a ledger, this reads that backup.
    pub(super) fn look_back(&self, engine: &Engine) {
        let mut watch = |_| self.go_on();
        // One that is no good counts as none: the next rotation reports it if it is in the way.
        let newest = self.backups(engine.seal()).newest(&mut watch);
        let Ok(Some((facts, made_us))) = newest else { return };
        let age_us = self.vfs.clock.now_us().saturating_sub(made_us);
        let age = Duration::from_micros(u64::try_from(age_us).unwrap_or(0));
        let (seq, at) = (facts.seq, self.now().saturating_sub(age));
        let diverged = !self.is_in_the_history(&facts, engine.stats().storage.seq);
        let mut last = self.last.lock();
        // One may have been made by hand meanwhile.
        if last.is_none() {
            *last = Some(Last { seq, at, diverged });
        }
    }

    /// Whether the backup of `facts` is of a commit in the history of the store, which is at `seq`.
    /// An earlier number is enough: later commits never have it again.
    fn is_in_the_history(&self, facts: &Facts, seq: Seq) -> bool {
        if facts.seq != seq || self.form == Form::Ledger {
            return facts.seq < seq;
        }
        let main = MainFile::open(&self.vfs, &self.name).and_then(|main| main.facts(&mut |_| true));
        main.is_ok_and(|main| join::facts(main).same_version(facts))
    }

    fn go_on(&self) -> ControlFlow<()> {
        if self.is_stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// From which commit on the thread is to be woken: from the one that makes a rotation due, or,
/// while nothing has changed since the `last`, from the first, which lets an interval run.
fn due_after(policy: Policy, last: Option<Last>, unchanged: bool) -> Seq {
    let lets_run = policy.every.filter(|_| unchanged).map(|_| 1);
    let enough = policy.every_commits.map(|commits| commits.max(1));
    let commits = lets_run.or(enough).unwrap_or(u64::MAX);
    last.map_or(0, |last| last.seq).saturating_add(commits)
}

/// A hundred years before the process began.
const CLOCK_OFFSET: Duration = Duration::from_hours(100 * 365 * 24);

//! Keeps the backups of an open store: rotates when the policy says so, on a thread of its own.

use std::sync::Arc;
use std::time::Duration;

use codex_backup::{Event, Last, Policy, Rotated, State};
use codex_storage::batch::Seq;
use codex_storage::storage::Form;
use codex_storage::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use codex_storage::sync::{Mutex, thread};
use codex_storage::vfs::Vfs;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use super::join;
use super::{BackupEvent, BackupOptions, BackupStats, StoreFile};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::rank::{self, Rank};

/// The keeper of one open store's backups.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    /// `None` where the policy asks for nothing by itself.
    thread: Mutex<Option<Running>>,
}

struct Running {
    wake: Sender<()>,
    handle: thread::JoinHandle<()>,
}

/// What the thread shares with the handles. It owns no handle, and the engine only for as long as
/// a rotation takes.
struct Shared {
    vfs: Vfs,
    name: String,
    form: Form,
    backups: codex_backup::Backups,
    options: BackupOptions,
    /// Held while a rotation runs: one at a time.
    rotating: Mutex<()>,
    state: Mutex<BackupStats>,
    last: Mutex<Option<Last>>,
    /// From this commit on a rotation is due.
    due_at: AtomicU64,
    /// The thread waits for a commit, whatever its number.
    idle: AtomicBool,
    /// The last rotation failed and the options refuse writes until one succeeds.
    refusing: AtomicBool,
    stopping: AtomicBool,
}

impl Keeper {
    /// Starts keeping the backups of the store `name`, which is open for writing as `engine`.
    ///
    /// # Errors
    /// Of the backups that are there already; `Io` when the system has no room for a thread.
    pub(crate) fn start(
        vfs: &Vfs,
        name: &str,
        form: Form,
        options: BackupOptions,
        engine: &Arc<Engine>,
    ) -> Result<Self> {
        let keep = options.policy.map_or(codex_backup::Options::default().keep, |p| p.keep);
        let backups = codex_backup::Backups::new(
            vfs.clone(),
            name,
            Arc::new(StoreFile { keys: None }),
            codex_backup::Options {
                keep,
                link_above: options.link_above,
                ..codex_backup::Options::default()
            },
        )?;
        let shared = Arc::new(Shared {
            vfs: vfs.clone(),
            name: name.to_owned(),
            form,
            backups,
            options,
            rotating: Mutex::new(()),
            state: Mutex::default(),
            last: Mutex::new(None),
            due_at: AtomicU64::new(u64::MAX),
            idle: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        shared.look_back()?;
        let keeper = Self { shared, thread: Mutex::new(None) };
        if keeper.shared.policy().is_some_and(acts_by_itself) {
            let (wake, woken) = bounded(1);
            let (shared, engine) = (Arc::clone(&keeper.shared), Arc::downgrade(engine));
            let handle = thread::spawn("codexdb-backup", move || shared.run(&engine, &woken))
                .map_err(|source| codex_storage::Error::Io {
                    action: "start the backup thread of",
                    path: vfs.dir.path(name),
                    source: Arc::new(source),
                })?;
            *keeper.thread.lock() = Some(Running { wake, handle });
        }
        Ok(keeper)
    }

    /// Notes that commits up to `seq` were made.
    pub(crate) fn committed(&self, seq: Seq) {
        let shared = &self.shared;
        let due = seq >= shared.due_at.load(Ordering::Relaxed);
        if (due || shared.idle.load(Ordering::Relaxed))
            && let Some(running) = &*self.thread.lock()
        {
            shared.idle.store(false, Ordering::Relaxed);
            // A full channel holds a wake-up that has not been taken yet: enough.
            if let Err(TrySendError::Disconnected(())) = running.wake.try_send(()) {
                shared.note(&Err(shared.ended()));
            }
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
        self.shared.rotate(engine)
    }

    pub(crate) fn stats(&self) -> BackupStats {
        self.shared.state.lock().clone()
    }

    /// Ends the thread; a copy in progress is given up.
    pub(crate) fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        let Some(Running { wake, handle }) = self.thread.lock().take() else { return };
        drop(wake);
        // A panic of the thread has been printed; there is nobody to hand it to.
        let _ = handle.join();
    }
}

impl Shared {
    fn policy(&self) -> Option<Policy> {
        self.options.policy
    }

    fn run(&self, engine: &std::sync::Weak<Engine>, woken: &Receiver<()>) {
        let mut event = Event::Open;
        let mut checkpoints = 0;
        let mut pause = RETRY_MIN;
        loop {
            let Some(engine) = engine.upgrade() else { return };
            let now = engine.stats().checkpoints;
            if now > checkpoints && self.policy().is_some_and(|policy| policy.on_checkpoint) {
                event = Event::Checkpoint;
            }
            let wait = match self.rotate_if_due(&engine, event) {
                Some(Err(_)) => {
                    pause = (2 * pause).min(RETRY_MAX);
                    Some(pause)
                }
                Some(Ok(_)) => {
                    pause = RETRY_MIN;
                    self.wait(&engine)
                }
                None => self.wait(&engine),
            };
            // Those that the rotation itself made are not counted as news.
            checkpoints = engine.stats().checkpoints;
            drop(engine);
            event = match next(woken, wait) {
                Next::Stop => return,
                Next::Commit => Event::Commit,
                Next::Time => Event::Tick,
            };
            self.idle.store(false, Ordering::Relaxed);
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    fn rotate_if_due(&self, engine: &Engine, event: Event) -> Option<Result<Rotated>> {
        let due = self.policy()?.due(self.state(engine, event));
        due.then(|| self.rotate(engine))
    }

    /// How long the thread may wait by itself; `None`: until a commit wakes it.
    fn wait(&self, engine: &Engine) -> Option<Duration> {
        let policy = self.policy()?;
        let wait = policy.wait(self.state(engine, Event::Tick));
        if policy.on_checkpoint {
            return Some(wait.map_or(CHECKPOINT_POLL, |wait| wait.min(CHECKPOINT_POLL)));
        }
        if wait.is_none() && policy.every.is_some() {
            self.idle.store(true, Ordering::Relaxed);
            // A commit between the look and the flag would not wake anybody.
            return policy.wait(self.state(engine, Event::Tick)).or(None);
        }
        wait
    }

    fn state(&self, engine: &Engine, event: Event) -> State {
        let storage = engine.stats().storage;
        let last = *self.last.lock();
        State { event, seq: storage.seq, last, now: self.vfs.clock.monotonic() }
    }

    /// Makes a backup of the state now, unless the newest one is of that state.
    fn rotate(&self, engine: &Engine) -> Result<Rotated> {
        let done = self.try_rotate(engine);
        self.note(&done);
        done
    }

    fn try_rotate(&self, engine: &Engine) -> Result<Rotated> {
        let mut rounds = 0;
        loop {
            let upto = super::settle(engine, self.form)?;
            let mut watch = |_| {
                if self.stopping.load(Ordering::Relaxed) {
                    std::ops::ControlFlow::Break(())
                } else {
                    std::ops::ControlFlow::Continue(())
                }
            };
            let link_above = self.options.link_above;
            let _rank = rank::take(Rank::Rotation);
            let _one = self.rotating.lock();
            let done =
                join::with_source(&self.vfs, &self.name, link_above, upto, |source, about| {
                    self.backups.rotate(source, about, &mut watch)
                })?;
            match done {
                // Another image took the name between the look and the copy.
                Err(codex_backup::Error::Changed { .. }) if rounds < ROUNDS_MAX => rounds += 1,
                done => return Ok(done?),
            }
        }
    }

    /// Notes what became of a rotation, for the policy, the statistics and the callback.
    fn note(&self, done: &Result<Rotated>) {
        let mut stats = self.state.lock();
        match done {
            Ok(rotated) => {
                stats.made += u64::from(rotated.method.is_some());
                stats.last_seq = Some(rotated.facts.seq);
                stats.last_error = None;
                self.refusing.store(false, Ordering::Relaxed);
                self.set_last(rotated.facts.seq, self.vfs.clock.monotonic());
            }
            Err(error) => {
                stats.failed += 1;
                stats.last_error = Some(error.to_string());
                self.refusing.store(self.options.required, Ordering::Relaxed);
            }
        }
        drop(stats);
        if let Some(callback) = &self.options.on_event {
            callback.call(&match done {
                Ok(rotated) => BackupEvent::Made { seq: rotated.facts.seq },
                Err(error) => BackupEvent::Failed { error: error.clone() },
            });
        }
    }

    fn set_last(&self, seq: Seq, at: Duration) {
        *self.last.lock() = Some(Last { seq, at });
        if let Some(every) = self.policy().and_then(|policy| policy.every_commits) {
            self.due_at.store(seq.saturating_add(every.max(1)), Ordering::Relaxed);
        }
    }

    /// Takes what an earlier handle left: adopts a verified temporary, finds the newest backup.
    fn look_back(&self) -> Result<()> {
        self.backups.adopt()?;
        if !self.policy().is_some_and(acts_by_itself) {
            return Ok(());
        }
        if let Some(every) = self.policy().and_then(|policy| policy.every_commits) {
            self.due_at.store(every.max(1), Ordering::Relaxed);
        }
        let newest = self.backups.list()?.into_iter().find(|entry| entry.index == 1);
        if let Some((seq, name)) =
            newest.and_then(|entry| Some((entry.facts.ok()?.seq, entry.name)))
        {
            let made_us =
                self.vfs.dir.metadata(&name).ok().flatten().map(|found| found.modified_us);
            let age_us = made_us.map_or(0, |made_us| self.vfs.clock.now_us() - made_us);
            let age = Duration::from_micros(u64::try_from(age_us).unwrap_or(0));
            self.set_last(seq, self.vfs.clock.monotonic().saturating_sub(age));
        }
        Ok(())
    }

    fn ended(&self) -> Error {
        let why = "the thread that makes them has ended".to_owned();
        Error::BackupRequired { path: self.vfs.dir.path(&self.name), why }
    }
}

fn acts_by_itself(policy: Policy) -> bool {
    policy.every_commits.is_some()
        || policy.every.is_some()
        || policy.on_checkpoint
        || policy.on_open
}

/// What the thread wakes up to.
enum Next {
    Commit,
    Time,
    Stop,
}

fn next(woken: &Receiver<()>, wait: Option<Duration>) -> Next {
    let Some(wait) = wait else {
        return if woken.recv().is_ok() { Next::Commit } else { Next::Stop };
    };
    match woken.recv_timeout(wait) {
        Ok(()) => Next::Commit,
        Err(RecvTimeoutError::Timeout) => Next::Time,
        Err(RecvTimeoutError::Disconnected) => Next::Stop,
    }
}

/// How often a thread looks whether a checkpoint has been made, where that makes a backup due.
const CHECKPOINT_POLL: Duration = Duration::from_millis(100);
/// The first wait after a failed rotation; each further one is twice as long.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest wait after a failed rotation.
const RETRY_MAX: Duration = Duration::from_mins(1);
/// How often a rotation begins anew because the image was replaced meanwhile.
const ROUNDS_MAX: u32 = 10;

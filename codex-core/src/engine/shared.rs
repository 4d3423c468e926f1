//! A store on a shared log. A group goes through the log, and each frame of the log, of this node
//! or another, is decided and applied in the order of the log.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use codex_storage::batch::Seq;
use codex_storage::shared::{
    Follower, Frame, Mark, Meta, Orders, Position, SharedError, SharedLog,
};
use codex_storage::sync::thread::{self, JoinHandle};
use codex_storage::sync::{Condvar, Mutex};
use codex_storage::{Error, RecordError, Result};

use super::commit::Disk;
use super::images::{Images, Loaded};
use super::leader::{Leader, Part};
use super::queue::Admission;
use super::worker::GroupEffects;
use super::{Engine, EngineOptions, orders};
use crate::commit::Commit;
use crate::locks::PersistGuard;
use crate::map::{Freed, Map};
use crate::shared::Lag;

/// The part of an engine that knows the shared log, for calls without the lock on the disk.
pub(super) struct Sharing {
    log: Arc<dyn SharedLog>,
    /// The longest time for which a write waits for the log.
    write_timeout: Duration,
    /// A leaf mutex: no lock is taken while it is held.
    progress: Mutex<Progress>,
    moved: Condvar,
    /// Set if this node writes images.
    pub(super) images: OnceLock<Images>,
}

codex_storage::opaque_debug!(Sharing);

/// The state of reading the log.
#[derive(Debug, Default)]
struct Progress {
    applied: Position,
    /// The last commit that is shown.
    seq: Seq,
    /// The time of the last answer of the log, by the monotonic clock.
    heard: Duration,
    last_error: Option<String>,
    /// The error after which this node reads no further.
    failed: Option<SharedError>,
    log_bytes: u64,
    image_seq: Option<Seq>,
}

impl Engine {
    /// Returns the engine of a node of the store `meta` on `log`, which begins with the image that
    /// was loaded, or with nothing. Its state is that of the log after
    /// [`join_log`](Self::join_log).
    ///
    /// # Errors
    /// `Damaged` if the record of the image cannot be read.
    pub fn start_shared(
        log: Arc<dyn SharedLog>,
        meta: &Arc<Meta>,
        loaded: Option<Box<Loaded>>,
        options: EngineOptions,
        write_timeout: Duration,
    ) -> Result<Arc<Self>> {
        let target = log.limits().frame_target;
        let follower = Follower::new(log.clone(), options.clock.clone(), Arc::clone(meta));
        let engine = if let Some(loaded) = loaded {
            Self::resume(*loaded, follower, options, target)?
        } else {
            let mut disk = Disk::new(meta.storage());
            disk.shared = Some(Box::new(follower));
            Self::start_on(disk, Map::new(), options, true, target)
        };
        let progress = Mutex::new(Progress { heard: engine.now(), ..Progress::default() });
        let (moved, images) = (Condvar::new(), OnceLock::new());
        let sharing = Sharing { log, write_timeout, progress, moved, images };
        assert!(engine.sharing.set(sharing).is_ok(), "an engine is on one log");
        Ok(engine)
    }

    /// Returns the engine of a node with the state of an image. It is a function of its own because
    /// a map is large, and the stack of a model is not.
    #[inline(never)]
    fn resume(
        loaded: Loaded,
        mut follower: Follower,
        options: EngineOptions,
        target: usize,
    ) -> Result<Arc<Self>> {
        follower.resume(&loaded.record.place)?;
        let tail = loaded.tail();
        let mut disk = Disk::new(loaded.storage);
        (disk.shared, disk.tail) = (Some(Box::new(follower)), tail);
        Ok(Self::start_on(disk, loaded.map, options, true, target))
    }

    /// Makes this node write images, by itself when the log has grown.
    pub(crate) fn write_images_to(&self, images: Images) {
        if let Some(sharing) = self.sharing.get() {
            let _ = sharing.images.set(images);
        }
    }

    /// Delivers all that is in the log, then starts the thread that follows it.
    ///
    /// # Errors
    /// The errors of the log; `Io` if the system cannot start the thread.
    pub fn join_log(&self) -> Result<()> {
        let sharing = self.sharing()?;
        let head = sharing.log.head(sharing.write_timeout)?;
        while self.deliver()? < head {}
        if !self.background {
            return Ok(());
        }
        let started = self.start_thread(|threads| &mut threads.follow, follow_loop);
        started.map_err(|e| self.no_thread(e))
    }

    /// Delivers the frames that the log has now, or some of them. Returns the position up to which
    /// all was delivered.
    ///
    /// # Errors
    /// The errors of the log; `Closed`; `Poisoned`.
    pub fn deliver(&self) -> Result<Position> {
        let (mut freed, mut deadline_us) = (Freed::default(), None);
        let delivered = self.exclusive_as_leader(Admission::WhileOpen, |leader, disk| {
            let read = self.with_follower(disk, |disk, follower| {
                follower.deliver(&mut |frame| self.take_frame(leader, disk, &frame, &mut freed))
            });
            deadline_us = leader.deadline_us;
            read
        });
        // Order: free without the lock on the disk.
        drop(freed);
        self.notice(GroupEffects { deadline_us, ..GroupEffects::default() });
        delivered
    }

    /// Waits until this store shows all that was acknowledged, on any node, before the call.
    /// Returns the last commit that it shows.
    ///
    /// # Errors
    /// `Away` if that takes longer than `timeout`; the error after which this node reads no
    /// further; `Closed`.
    pub(crate) fn read_latest(&self, timeout: Duration) -> Result<Seq> {
        let end = self.now().saturating_add(timeout);
        let head = self.sharing()?.log.head(timeout)?;
        self.wait_until(timeout, end, |progress| progress.applied >= head)
    }

    /// Waits until this store shows commit `seq`. Returns the last commit that it shows.
    ///
    /// # Errors
    /// As [`read_latest`](Self::read_latest).
    pub(crate) fn read_at_least(&self, seq: Seq, timeout: Duration) -> Result<Seq> {
        let end = self.now().saturating_add(timeout);
        self.wait_until(timeout, end, |progress| progress.seq >= seq)
    }

    /// Returns how far this node has read the log.
    ///
    /// # Errors
    /// `Contradiction` if the store is on no shared log.
    pub(crate) fn lag(&self) -> Result<Lag> {
        let progress = self.sharing()?.progress.lock();
        Ok(Lag {
            seq: progress.seq,
            connected: progress.last_error.is_none(),
            silent_for: self.now().saturating_sub(progress.heard),
            last_error: progress.last_error.clone(),
            log_bytes: progress.log_bytes,
            image_seq: progress.image_seq,
        })
    }

    /// Writes the group of `leader` to the log, and applies it where it comes back.
    pub(super) fn write_shared(
        &self,
        leader: &mut Leader<'_>,
        disk: &mut PersistGuard<'_, Disk>,
        freed: &mut Freed,
    ) {
        let sharing = self.sharing.get().expect("a disk with a follower is of a shared store");
        // Encode: conditions become digests of what was seen. No lock on memory is held.
        let mut frame = Orders::new(sharing.log.limits().commit_max);
        leader.each_pending(|commit| {
            let encoded = orders::encode(commit, &mut frame);
            encoded.map_err(|source| Error::Record { path: self.path.clone(), source })
        });
        if frame.is_empty() {
            return;
        }
        // Order: the time after the commits. It is not before the time at which one of them has
        // seen that an entry had expired.
        let (time_us, timeout) = (self.now_us(), sharing.write_timeout);
        let written = self.with_follower(disk, |disk, follower| {
            let sink = &mut |frame: Frame<'_>| self.take_frame(leader, disk, &frame, freed);
            follower.write(&frame, time_us, timeout, sink)
        });
        // The members have their outcomes if the frame has come back.
        if let Err(error) = written {
            leader.fail(&error);
        }
    }

    /// Decides a frame and applies it, as every node does at this place of the log. Answers the
    /// members of `leader` if it is their frame.
    fn take_frame(
        &self,
        leader: &mut Leader<'_>,
        disk: &mut PersistGuard<'_, Disk>,
        frame: &Frame<'_>,
        freed: &mut Freed,
    ) -> Result<Mark, SharedError> {
        let commits = orders::decode(frame).map_err(|fault| {
            let what = match fault {
                RecordError::Malformed(what) => what,
                _ => "it has an order that this build does not know",
            };
            SharedError::BadFrame { slot: frame.slot, what }
        })?;
        // Order: before the apply. No reader of this node shows an entry that the frame has taken
        // for expired.
        self.horizon.reach(frame.time_us);
        let mut decided = disk.read_with(|disk, map| {
            let Disk { plan, group, subscribers, .. } = disk;
            plan.feed.begin(!subscribers.is_empty());
            // The time of the frame, which is the same on all nodes.
            plan.now_us = frame.time_us;
            let add = |commit: &Commit| plan.add(map, group, commit);
            let decided: Vec<_> = commits.iter().map(add).collect();
            plan.prepare(map, false);
            decided.into_iter()
        });
        let first = disk.log().expect("a storage without files does not fail");
        let mut replaced = Freed::default();
        self.apply(leader, disk, &mut replaced);
        freed.append(&mut replaced);
        disk.publish(first, leader);
        if frame.is_awaited {
            leader.decide(Part::All, |_| decided.next());
            leader.complete(|decided| self.outcome(decided, first));
            leader.made(disk.group.batches());
        }
        disk.reset_group();
        if let Some(images) = self.sharing.get().and_then(|sharing| sharing.images.get()) {
            disk.tail.add(frame.len(), frame.is_awaited, images.policy);
        }
        Ok(Mark::of(&disk.storage().anchor()))
    }

    /// Calls `work` with the node of the shared log, and then records how far it has read.
    fn with_follower<R>(
        &self,
        disk: &mut PersistGuard<'_, Disk>,
        work: impl FnOnce(&mut PersistGuard<'_, Disk>, &mut Follower) -> Result<R>,
    ) -> Result<R> {
        let mut follower = disk.shared.take().ok_or(Error::Contradiction(NOT_SHARED))?;
        let done = work(disk, &mut follower);
        let seq = disk.read(Map::seq);
        disk.tail.reach(follower.applied());
        let sharing = self.sharing()?;
        let mut progress = sharing.progress.lock();
        (progress.applied, progress.seq) = (follower.applied(), seq);
        progress.failed = follower.failed().cloned();
        match &done {
            Ok(_) => (progress.heard, progress.last_error) = (self.now(), None),
            Err(error) => progress.last_error = Some(error.to_string()),
        }
        (progress.log_bytes, progress.image_seq) = (disk.tail.len(), disk.tail.image_seq());
        drop(progress);
        sharing.moved.notify_all();
        disk.shared = Some(follower);
        done
    }

    /// Records the log behind the newest image, for [`lag`](Self::lag).
    pub(super) fn show_tail(&self, disk: &Disk) {
        if let Some(sharing) = self.sharing.get() {
            let mut progress = sharing.progress.lock();
            (progress.log_bytes, progress.image_seq) = (disk.tail.len(), disk.tail.image_seq());
        }
    }

    /// Waits until `holds` is true of the progress, or the time is `end`.
    fn wait_until(
        &self,
        timeout: Duration,
        end: Duration,
        holds: impl Fn(&Progress) -> bool,
    ) -> Result<Seq> {
        let sharing = self.sharing()?;
        loop {
            if self.signal.is_stopped() {
                return Err(self.closed());
            }
            let progress = sharing.progress.lock();
            if holds(&progress) {
                return Ok(progress.seq);
            }
            if let Some(failed) = &progress.failed {
                return Err(failed.clone().into());
            }
            let left = end.saturating_sub(self.now());
            if left.is_zero() {
                let what = "pass the commits that were asked for";
                return Err(SharedError::Away { what, waited: timeout }.into());
            }
            if self.background {
                drop(sharing.moved.wait_timeout(progress, left.min(WAIT_MAX)));
            } else {
                let applied = progress.applied;
                drop(progress);
                sharing.log.wait(applied, left.min(WAIT_MAX))?;
                self.deliver()?;
            }
        }
    }

    fn sharing(&self) -> Result<&Sharing> {
        self.sharing.get().ok_or(Error::Contradiction(NOT_SHARED))
    }
}

/// Starts the thread that delivers what other nodes write.
fn follow_loop(engine: Arc<Engine>) -> io::Result<JoinHandle<()>> {
    thread::spawn("codexdb-follow", move || {
        let Ok(sharing) = engine.sharing() else { return };
        while !engine.signal.is_stopped() {
            let applied = sharing.progress.lock().applied;
            // Order: wait without a lock, then deliver in the turn of this thread in the queue.
            let step = sharing.log.wait(applied, WAIT_MAX).and_then(|is_new| {
                if is_new {
                    return engine.deliver().map(drop);
                }
                let mut progress = sharing.progress.lock();
                (progress.heard, progress.last_error) = (engine.now(), None);
                Ok(())
            });
            match step {
                Ok(()) => {}
                Err(Error::Closed { .. } | Error::Poisoned { .. }) => break,
                Err(Error::Shared(error)) if error.is_final() => break,
                Err(error) => {
                    sharing.progress.lock().last_error = Some(error.to_string());
                    if !engine.signal.pause(RETRY) {
                        break;
                    }
                }
            }
        }
    })
}

/// The longest wait after which a thread looks whether the store closes.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// The pause after a call to the log that has failed.
const RETRY: Duration = Duration::from_millis(20);
const NOT_SHARED: &str = "only a store that was opened with `shared` is on a shared log";

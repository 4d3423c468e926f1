//! Reading beside the writer of another process: its commits are read from the files and applied to
//! memory, in groups.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use codex_storage::batch::{BATCH_LEN_MAX, GROUP_LEN_TARGET, Op, Seq};
use codex_storage::seal::Seal;
use codex_storage::storage::{Delivered, Followed, Storage};
use codex_storage::sync::Mutex;
use codex_storage::sync::atomic::{AtomicU64, Ordering};
use codex_storage::sync::thread::{self, JoinHandle};
use codex_storage::{Error, Result};

use super::Engine;
use super::commit::Disk;
use super::queue::Admission;
use crate::commit::{Change, Commit};
use crate::entry::{Entry, Name};
use crate::locks::PersistGuard;
use crate::map::{Freed, Map};
use crate::outer;
use crate::rank::Rank;
use crate::stats::FollowStats;
use crate::watch::Mailbox;

/// Opens the store again, and replays it into a map. Gets the root key of the files so far.
pub(crate) type Reload =
    dyn Fn(Option<Arc<dyn Seal>>) -> Result<(Box<dyn Storage>, Map)> + Send + Sync;

/// The part of an engine that follows a writer.
pub(super) struct Following {
    reload: Box<Reload>,
    lag_us: AtomicU64,
    reloads: AtomicU64,
    last_error: Mutex<Option<String>>,
}

codex_storage::opaque_debug!(Following);

/// The result of reading the commits that a writer has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There are no more.
    Idle,
    /// There may be more.
    More,
    /// The files do not show how they continue what was read.
    Lost,
}

/// Commits that were read from the files.
#[derive(Default)]
struct Received {
    /// The number of the first one.
    first: Seq,
    commits: Vec<Commit>,
    records: usize,
    bytes: usize,
    /// The time at which the writer has announced the last one, in microseconds since 1970.
    announced_us: Option<i64>,
}

impl Engine {
    /// Makes this engine follow a writer, whose files its storage reads. With `polls`, a thread
    /// looks for new commits. Otherwise only [`refresh`](Self::refresh) does. Called once.
    ///
    /// # Errors
    /// `Io` if the system cannot start the thread.
    pub(crate) fn follow(&self, reload: Box<Reload>, polls: bool) -> Result<()> {
        let last_error = Mutex::default();
        let (lag_us, reloads) = (AtomicU64::new(0), AtomicU64::new(0));
        let set = self.following.set(Following { reload, lag_us, reloads, last_error });
        set.expect("an engine follows one writer");
        if !polls {
            return Ok(());
        }
        let started = self.start_thread(|threads| &mut threads.follow, follow_loop);
        started.map_err(|e| self.no_thread(e))
    }

    /// Shows all commits that the writer had acknowledged before the call. Returns the last commit
    /// that is shown.
    ///
    /// # Errors
    /// `Contradiction` if the engine follows no writer; `Closed`; the errors of reading the files,
    /// after which the state is as before, and a later call tries again.
    pub fn refresh(&self) -> Result<Seq> {
        let following = self.following.get().ok_or(Error::Contradiction(NO_FOLLOWER))?;
        let shown = self.catch_up(following);
        if !self.is_closed() {
            *following.last_error.lock() = shown.as_ref().err().map(ToString::to_string);
        }
        shown
    }

    /// Returns the statistics of following a writer, if the engine does that.
    pub(super) fn follow_stats(&self) -> Option<FollowStats> {
        let following = self.following.get()?;
        Some(FollowStats {
            lag_us: following.lag_us.load(Ordering::Relaxed),
            reloads: following.reloads.load(Ordering::Relaxed),
            last_error: following.last_error.lock().clone(),
        })
    }

    /// Reads and applies until there are no more commits.
    fn catch_up(&self, following: &Following) -> Result<Seq> {
        // Nothing else takes this lock in an engine that writes no image. One thread at a time
        // reads on, so that a reload replaces what it was begun for.
        let _one = outer::lock(Rank::Checkpoint, &self.checkpoint);
        let mut reloaded = false;
        loop {
            match self.follow_step(following)? {
                Step::More => {}
                Step::Lost if !reloaded => {
                    self.reload(following)?;
                    reloaded = true;
                }
                // A reload that began after the call has shown all that was acknowledged before.
                Step::Idle | Step::Lost => return Ok(self.read(Map::seq)),
            }
            if self.abandon.load(Ordering::Relaxed) {
                return Err(self.closed());
            }
        }
    }

    /// Reads the next commits, and applies them at once.
    fn follow_step(&self, following: &Following) -> Result<Step> {
        let (mut freed, mut filled, mut announced_us) = (Freed::default(), Vec::new(), None);
        let step = self.exclusive(Admission::WhileOpen, |disk| {
            let mut received = Received::default();
            let step = received.receive(disk.storage());
            announced_us = received.announced_us;
            // Order: what was read is applied even if the next group is an error. The storage
            // passes no commit twice.
            if show(disk, &received, &mut freed, &mut filled) { step } else { Ok(Step::Lost) }
        });
        if let Some(at_us) = announced_us {
            let lag_us = self.clock.now_us().saturating_sub(at_us);
            following.lag_us.store(u64::try_from(lag_us).unwrap_or(0), Ordering::Relaxed);
        }
        // Order: wake and free without the lock on the disk.
        for mailbox in &filled {
            mailbox.wake();
        }
        drop(freed);
        step
    }

    /// Opens the store again, and replaces the state in memory by what it has.
    fn reload(&self, following: &Following) -> Result<()> {
        let (storage, map) = (following.reload)(self.seal())?;
        let mut filled = Vec::new();
        let replaced = self.exclusive(Admission::WhileOpen, |disk| {
            let (shown, last) = (disk.read(Map::seq), map.seq());
            let storage = disk.storage.replace(storage);
            let map = disk.write(|_, shown| mem::replace(shown, map));
            // After a restore the last commit may be an earlier one.
            let first = shown.saturating_add(1).min(last);
            disk.lag(first, last, &mut filled);
            Ok((storage, map))
        })?;
        following.reloads.fetch_add(1, Ordering::Relaxed);
        for mailbox in &filled {
            mailbox.wake();
        }
        drop(replaced);
        Ok(())
    }
}

impl Received {
    /// Reads groups until there are no more, or enough for one apply.
    fn receive(&mut self, storage: &mut dyn Storage) -> Result<Step> {
        while self.bytes < GROUP_LEN_TARGET && self.records < RECORDS_MAX {
            let mut group = Vec::new();
            let followed = storage.follow(&mut |delivered| {
                if self.commits.is_empty() && group.is_empty() {
                    self.first = delivered.seq;
                }
                group.push(commit_of(delivered)?);
                Ok(())
            })?;
            match followed {
                // Order: added only now, when the whole group is read. No part of one is shown.
                Followed::Group { announced_us } => {
                    for commit in group {
                        self.records += commit.changes.as_slice().len();
                        self.bytes += commit.encoded_len().min(BATCH_LEN_MAX);
                        self.commits.push(commit);
                    }
                    self.announced_us = announced_us;
                }
                Followed::Lost => return Ok(Step::Lost),
                _ => return Ok(Step::Idle),
            }
        }
        Ok(Step::More)
    }
}

/// Applies the commits, and puts them into the mailboxes of the watches, which it adds to `filled`.
/// Returns false, and changes nothing, if they do not continue the state in memory.
fn show(
    disk: &mut PersistGuard<'_, Disk>,
    received: &Received,
    freed: &mut Freed,
    filled: &mut Vec<Arc<Mailbox>>,
) -> bool {
    let Received { first, commits, .. } = received;
    if commits.is_empty() {
        return true;
    }
    let is_planned =
        disk.read_with(|disk, map| *first == map.seq() + 1 && disk.plan_all(map, commits));
    if is_planned {
        disk.write(|disk, map| map.apply(&mut disk.plan.work));
        *freed = mem::take(&mut disk.plan.work.freed);
        // Order: publish after the apply, with the disk still locked, as a leader does.
        disk.publish_to(*first, filled);
    }
    disk.reset_group();
    is_planned
}

/// Returns a commit that makes the changes of `delivered` without a condition.
fn commit_of(delivered: Delivered<'_>) -> Result<Commit> {
    let change = |op| {
        Ok(match op {
            Op::Set(item) => Change::Put(Entry::from_item(item)),
            Op::Remove { table, key } => Change::Remove(Name { table, key }.into()),
            Op::Clear { table } => Change::Clear(table),
        })
    };
    let path = std::path::PathBuf::new;
    let ops = delivered
        .ops
        .map(|op| op.map_err(|source| Error::Record { path: path(), source }).and_then(change));
    let changes = ops.collect::<Result<Vec<_>>>()?;
    Ok(Commit { changes: changes.into(), ..Commit::default() })
}

/// Starts the thread that looks for new commits: often while there are some, and seldom while there
/// are none.
fn follow_loop(engine: Arc<Engine>) -> io::Result<JoinHandle<()>> {
    thread::spawn("codexdb-follow", move || {
        let (mut pause, mut shown) = (POLL_MIN, engine.read(Map::seq));
        while engine.signal.pause(pause) {
            pause = match engine.refresh() {
                Ok(seq) if seq == shown => (pause * 2).min(POLL_MAX),
                Ok(seq) => {
                    shown = seq;
                    POLL_MIN
                }
                Err(Error::Closed { .. } | Error::Poisoned { .. }) => break,
                // A store that cannot be read is tried again, but not all the time.
                Err(_) => (pause * 2).min(RETRY_MAX),
            };
        }
    })
}

/// The most records that are applied at once, in groups that are read whole.
const RECORDS_MAX: usize = 4_096;
/// The pause after a look that has found commits.
const POLL_MIN: Duration = Duration::from_millis(1);
/// The longest pause after a look that has found none.
const POLL_MAX: Duration = Duration::from_millis(20);
/// The longest pause after a look that has failed.
const RETRY_MAX: Duration = Duration::from_secs(5);
const NO_FOLLOWER: &str = "only a store that was opened with `follow` can be refreshed";

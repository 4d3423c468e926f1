//! The background threads of an engine, each started when there is work for it.

use std::io;
use std::sync::Arc;

use codex_storage::Result;
use codex_storage::sync::atomic::Ordering;
use codex_storage::sync::thread::JoinHandle;

use super::Shared;
use crate::commit::Noticed;
use crate::worker;

/// The threads that were started, each when there was work for it.
#[derive(Debug, Default)]
pub(super) struct Threads {
    sync: Option<JoinHandle<()>>,
    checkpoint: Option<JoinHandle<()>>,
}

impl Shared {
    /// Wakes the threads for what a leader noticed.
    pub(super) fn notice(&self, noticed: Noticed) {
        if self.signal.notice(noticed, self.clock()) {
            self.start_checkpointing();
        }
    }

    /// Waits for the threads, which were told to end.
    pub(super) fn join(&self) {
        let Threads { sync, checkpoint } = std::mem::take(&mut *self.threads.lock());
        for thread in sync.into_iter().chain(checkpoint) {
            // A background thread that panicked has said so; there is nothing left to undo.
            let _ = thread.join();
        }
    }

    /// Starts the thread that syncs, before the first commit that needs it: without it the commit
    /// would be acknowledged and never synced.
    pub(super) fn start_syncing(&self) -> Result<()> {
        let Some(pause) = self.sync_pause.filter(|_| self.background) else { return Ok(()) };
        if self.is_syncing.load(Ordering::Relaxed) {
            return Ok(());
        }
        let started =
            self.start(|threads| &mut threads.sync, |own| worker::sync_by_interval(own, pause));
        started.map_err(|source| self.core.no_thread(source))?;
        self.is_syncing.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Starts the thread that checkpoints, which the next commit tries again if there is no room.
    fn start_checkpointing(&self) {
        let started =
            self.start(|threads| &mut threads.checkpoint, worker::checkpoint_when_outgrown);
        if started.is_err() {
            self.signal.take_back_outgrown();
        }
    }

    fn start(
        &self,
        slot: impl FnOnce(&mut Threads) -> &mut Option<JoinHandle<()>>,
        start: impl FnOnce(Arc<Self>) -> io::Result<JoinHandle<()>>,
    ) -> io::Result<()> {
        let Some(own) = self.own.upgrade() else { return Ok(()) };
        let mut threads = self.threads.lock();
        let slot = slot(&mut threads);
        // Order: looked at under the lock, so that a close that has stopped them finds each.
        if slot.is_none() && !self.signal.is_stopped() {
            *slot = Some(start(own)?);
        }
        Ok(())
    }
}

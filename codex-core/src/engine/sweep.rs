//! The sweep: commits that remove the entries that have expired.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use codex_storage::batch::BATCH_LEN_MAX;
use codex_storage::sync::atomic::Ordering;
use codex_storage::sync::thread::{self, JoinHandle};
use codex_storage::{Error, Result};

use super::Engine;
use super::worker::retry_after;
use crate::commit::{Change, Commit};

impl Engine {
    /// Removes entries that have expired, in one commit of at most [`STEP_LEN_MAX`] records. A form
    /// that writes an image of each commit removes all of them in one. Returns true if there may be
    /// more.
    ///
    /// This is no write of a user. It goes on while a backup is required, because it changes
    /// nothing that a reader sees, and what it removes needs no backup.
    ///
    /// # Errors
    /// The errors of [`submit`](Self::submit).
    pub fn sweep(&self) -> Result<bool> {
        let step_len = if self.writes_images { usize::MAX } else { STEP_LEN_MAX };
        let (mut bytes, mut is_full) = (0, false);
        let view = self.view();
        let changes: Vec<_> = view
            .ordered
            .expired_at(view.now_us)
            .take(step_len)
            .map(|entry| Change::Sweep(entry.clone()))
            .take_while(|change| {
                bytes += change.encoded_len();
                is_full = bytes > BATCH_LEN_MAX;
                !is_full
            })
            .collect();
        // Order: drop the view before the commit. Writers copy each node that a view still holds.
        drop(view);
        if changes.is_empty() {
            return Ok(false);
        }
        let is_more = is_full || changes.len() == step_len;
        let commit = Commit { changes: changes.into(), ..Commit::default() };
        let removed = self.submit(commit)?.removed();
        self.swept.fetch_add(removed, Ordering::Relaxed);
        Ok(is_more)
    }
}

/// Starts the thread that removes the entries that have expired. It sleeps until the first expiry.
pub(super) fn sweep_loop(engine: Arc<Engine>) -> io::Result<JoinHandle<()>> {
    thread::spawn("codexdb-sweep", move || {
        let (signal, clock) = (&engine.signal, &*engine.clock);
        let mut failed = Duration::ZERO;
        while signal.wait_for_deadline(
            || engine.read(|map| map.ordered_ref().first_deadline()),
            || engine.now_us(),
        ) {
            let swept = engine.sweep();
            failed = if swept.is_ok() { Duration::ZERO } else { retry_after(failed) };
            let pause = match swept {
                // The next step has its turn in the queue after the writers that wait.
                Ok(true) => Duration::ZERO,
                Ok(false) if engine.writes_images => PAUSE_BETWEEN_IMAGES,
                Ok(false) => PAUSE,
                Err(Error::Poisoned { .. } | Error::InDoubt { .. } | Error::Closed { .. }) => break,
                // Wait before the next attempt: a full disk stays full for some time.
                Err(_) => failed,
            };
            if !signal.wait_until(clock.monotonic().saturating_add(pause), clock) {
                break;
            }
        }
    })
}

/// The maximum number of records of a commit of the sweep.
const STEP_LEN_MAX: usize = 512;
/// The time for which expired entries gather after a sweep, so that a commit removes many.
const PAUSE: Duration = Duration::from_secs(1);
/// The same in a form that writes an image of each commit.
const PAUSE_BETWEEN_IMAGES: Duration = Duration::from_secs(60);

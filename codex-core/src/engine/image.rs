//! Images beside running writers: one at a time, given up when the store closes.

use std::fmt;
use std::sync::OnceLock;

use codex_storage::batch::Seq;
use codex_storage::storage::State;
use codex_storage::storage::Written;
use codex_storage::sync::atomic::Ordering;
use codex_storage::vfs::Vfs;
use codex_storage::{Error, Result};

use super::Shared;
use crate::commit::{Begun, Reply, Request};
use crate::map::Image;
use crate::rank::{self, Rank};

/// Hears of what is done of an image, and of how much in all; says whether to go on.
pub(crate) type Going<'a> = dyn Fn(u64, u64) -> bool + 'a;

impl Shared {
    /// Does what `begin` begins: writes something long beside running writers. Whoever wants to
    /// know hears of it.
    pub(super) fn image(&self, begin: Request, going: &Going<'_>) -> Result<Seq> {
        let (seq, is_new) = self.image_alone(begin, going)?;
        if is_new {
            self.on_checkpoint.call();
        }
        Ok(seq)
    }

    /// Writes memory as an image under the temporary name of the store `name` in another folder.
    /// Works when the store is poisoned or its folder is gone.
    pub(super) fn write_elsewhere(
        &self,
        to: &Vfs,
        name: &str,
        going: &Going<'_>,
    ) -> Result<Written> {
        let (checkpoint, ordered) = self.core.image_elsewhere(to, name)?;
        let image = Image(ordered);
        let total = 2 * image.len();
        checkpoint.write(&image, &|done| going(done, total))
    }

    /// As [`image`](Self::image), one at a time; says whether an image was written.
    fn image_alone(&self, begin: Request, going: &Going<'_>) -> Result<(Seq, bool)> {
        let _rank = rank::take(Rank::Checkpoint);
        let _one = self.checkpoint.lock();
        let begun = self.submit(begin).inspect_err(|error| self.count_failure(error));
        let Reply::Begun(begun) = begun? else {
            return Err(self.core.closed());
        };
        let (checkpoint, ordered) = match begun {
            Begun::Nothing => return Ok((self.core.stats().storage.seq, false)),
            Begun::Written => {
                self.checkpoints.fetch_add(1, Ordering::Relaxed);
                return Ok((self.core.stats().storage.seq, true));
            }
            Begun::Beside(checkpoint, ordered) => (checkpoint, ordered),
        };
        let mut unfinished = Unfinished { shared: self, finished: false };
        let image = Image(ordered);
        // Each entry is written, and read back.
        let total = 2 * image.len();
        let go_on = |done| !self.abandon.load(Ordering::Relaxed) && going(done, total);
        let written = checkpoint.write(&image, &go_on);
        // Writers copy what a view still holds.
        drop(image);
        unfinished.finished = true;
        let failed = written.as_ref().err().cloned();
        let seq = written.as_ref().map_or(0, |written| written.seq);
        let finished = self.submit(Request::FinishCheckpoint(written));
        match failed.map_or(finished, Err) {
            Ok(reply) => {
                if let Reply::Finished(retired) = reply {
                    // Here, where nobody waits: closing large files takes long.
                    drop(retired);
                }
                self.checkpoints.fetch_add(1, Ordering::Relaxed);
                Ok((seq, true))
            }
            Err(error) => {
                self.count_failure(&error);
                Err(error)
            }
        }
    }

    fn count_failure(&self, error: &Error) {
        let is_failure = !matches!(
            error,
            Error::Abandoned { .. } | Error::Closed { .. } | Error::Poisoned { .. }
        );
        if is_failure {
            self.checkpoint_failures.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What is called behind each checkpoint: set once at most, before it matters.
#[derive(Default)]
pub(super) struct Hook(OnceLock<Box<dyn Fn() + Send + Sync>>);

impl Hook {
    pub(super) fn set(&self, hook: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.set(Box::new(hook));
    }

    fn call(&self) {
        if let Some(hook) = self.0.get() {
            hook();
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// Reports a checkpoint whose image panicked.
struct Unfinished<'a> {
    shared: &'a Shared,
    finished: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let abandoned = Err(self.shared.core.abandoned());
            // The panic that is under way says more.
            let _ = self.shared.submit(Request::FinishCheckpoint(abandoned));
        }
    }
}

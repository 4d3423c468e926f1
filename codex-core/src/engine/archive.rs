//! The log of a store for an archive of it: the durable parts that continue the image in place, and
//! the parts that have ended since the archive took them last.

use std::collections::VecDeque;
use std::mem;
use std::ops::RangeInclusive;
use std::sync::{Arc, OnceLock};

use codex_storage::batch::Seq;
use codex_storage::seal::Seal;
use codex_storage::storage::{Form, LogPart, Storage};
use codex_storage::sync::Mutex;
use codex_storage::{MainFile, Result};

use super::Engine;
use super::queue::Admission;
use crate::rank::{self, Rank};

/// A durable state of the files of a store, for an archive.
#[derive(Debug)]
pub struct ArchivePoint {
    /// The main file in place.
    pub main: MainFile,
    /// The root key of the files, or `None` if they are not encrypted.
    pub seal: Option<Arc<dyn Seal>>,
    /// The logs that have ended since the previous call and are not among `parts`, oldest first.
    pub ended: Vec<LogPart>,
    /// The logs that continue the main file, oldest first. Empty if the form has no log.
    pub parts: Vec<LogPart>,
    /// The commits of ended logs that were dropped since the previous call.
    pub dropped: Option<RangeInclusive<Seq>>,
}

/// The logs that ended, and that no archive has taken.
#[derive(Debug, Default)]
pub struct EndedLogs {
    /// The logs, oldest first.
    pub parts: Vec<LogPart>,
    /// The commits of further logs, which were dropped or could not be opened.
    pub dropped: Option<RangeInclusive<Seq>>,
}

impl Engine {
    /// Keeps each log that ends from now on open for an archive, until
    /// [`archive_point`](Self::archive_point) or [`take_ended_logs`](Self::take_ended_logs) returns
    /// it. If they have more than `bytes_max` bytes, the oldest are dropped. With 0, none is kept.
    pub fn keep_ended_logs(&self, bytes_max: u64) {
        let seq = self.stats().storage.seq;
        let kept = self.ended.0.get_or_init(Mutex::default);
        {
            let _held = rank::take(Rank::Queue);
            let mut kept = kept.lock();
            kept.bytes_max = bytes_max;
            kept.covered = kept.covered.max(seq);
        }
        self.ended.shed();
    }

    /// Returns the files of the store up to the last commit, after a sync if that commit may not be
    /// durable. The first call makes a log if no log continues the image yet.
    ///
    /// # Errors
    /// `Closed`; `Poisoned`; `InDoubt` if the sync failed, after which the store refuses writes; an
    /// error of the files. The ended logs stay for the next call.
    pub fn archive_point(&self) -> Result<ArchivePoint> {
        // Order: the sync is taken in the same hold as the parts, so that it covers their ends.
        let (main, seal, mut parts, point) = self.exclusive(Admission::WhileOpen, |disk| {
            let storage = disk.storage();
            let point = storage.sync_point()?;
            let mut parts = storage.log_parts()?;
            if parts.is_empty() && storage.form() == Form::Wal {
                // A commit without a batch does the work before the first write.
                storage.commit(&mut storage.group(), None)?;
                parts = storage.log_parts()?;
            }
            Ok((storage.main_file()?, storage.seal(), parts, point))
        })?;
        // Order: the parts are handed on only after the sync has succeeded. A power cut could take
        // back the commits at their ends, and the store would go on with others.
        self.finish_sync(point)?;
        let mut taken = self.ended.take(parts.last().map(|part| part.seq));
        // The image of a log that has ended may not be in place yet.
        for ended in mem::take(&mut taken.parts) {
            match parts.iter_mut().find(|part| part.file_id == ended.file_id) {
                Some(part) if part.end < ended.end => *part = ended,
                Some(_) => {}
                None => taken.parts.push(ended),
            }
        }
        Ok(ArchivePoint { main, seal, ended: taken.parts, parts, dropped: taken.dropped })
    }

    /// Returns the logs that have ended. The last ones of a store come with its close.
    pub fn take_ended_logs(&self) -> EndedLogs {
        self.ended.take(None)
    }
}

/// The logs that have ended, if an archive keeps them.
#[derive(Default)]
pub(super) struct Ended(OnceLock<Mutex<Kept>>);

/// The logs that a call to the storage may end.
pub(super) struct Ending {
    parts: Vec<LogPart>,
    /// The last commit of the store.
    seq: Seq,
}

impl Ended {
    /// Returns the logs of `storage`, before a call that may end them, or `None` if no archive
    /// keeps them.
    pub(super) fn ending(&self, storage: &mut dyn Storage) -> Option<Ending> {
        self.0.get()?;
        let has_log = storage.form() != Form::Snapshot && storage.stored().is_some();
        // A log that cannot be opened must not keep the checkpoint from replacing it.
        has_log.then(|| Ending {
            parts: storage.log_parts().unwrap_or_default(),
            seq: storage.stats().seq,
        })
    }

    /// Keeps the logs after the call has succeeded, which has made them durable.
    pub(super) fn add(&self, ending: Option<Ending>) {
        let (Some(kept), Some(ending)) = (self.0.get(), ending) else { return };
        let _held = rank::take(Rank::Queue);
        kept.lock().add(ending);
    }

    /// Drops the oldest logs while there are too many bytes. The caller holds no lock, because
    /// closing a large file takes long.
    pub(super) fn shed(&self) {
        let Some(kept) = self.0.get() else { return };
        loop {
            let oldest = {
                let _held = rank::take(Rank::Queue);
                kept.lock().excess()
            };
            if oldest.is_none() {
                return;
            }
        }
    }

    /// Returns the logs and forgets them. `covered` is the last commit that the archive has from
    /// elsewhere.
    fn take(&self, covered: Option<Seq>) -> EndedLogs {
        let Some(kept) = self.0.get() else { return EndedLogs::default() };
        let _held = rank::take(Rank::Queue);
        let mut kept = kept.lock();
        kept.covered = kept.covered.max(covered.unwrap_or(0));
        EndedLogs { parts: mem::take(&mut kept.parts).into(), dropped: kept.dropped.take() }
    }
}

#[derive(Debug, Default)]
struct Kept {
    bytes_max: u64,
    /// Oldest first.
    parts: VecDeque<LogPart>,
    /// Commits up to this one were handed on, or were dropped.
    covered: Seq,
    dropped: Option<RangeInclusive<Seq>>,
}

impl Kept {
    fn add(&mut self, ending: Ending) {
        for part in ending.parts {
            self.covered = self.covered.max(part.seq);
            // A checkpoint whose image failed has handed on the same log before.
            match self.parts.iter_mut().find(|known| known.file_id == part.file_id) {
                Some(known) => *known = part,
                None => self.parts.push_back(part),
            }
        }
        self.drop_commits(self.covered, ending.seq);
        self.covered = self.covered.max(ending.seq);
    }

    /// Removes the oldest log if there are too many bytes.
    fn excess(&mut self) -> Option<LogPart> {
        let bytes = self.parts.iter().fold(0, |sum: u64, part| sum.saturating_add(part.end));
        let oldest = (bytes > self.bytes_max).then(|| self.parts.pop_front()).flatten()?;
        self.drop_commits(oldest.base_seq, oldest.seq);
        Some(oldest)
    }

    /// Notes that the commits after `base` up to `last` are not handed on.
    fn drop_commits(&mut self, base: Seq, last: Seq) {
        if base < last {
            let first =
                self.dropped.as_ref().map_or(base + 1, |known| *known.start().min(&(base + 1)));
            let last = self.dropped.as_ref().map_or(last, |known| *known.end().max(&last));
            self.dropped = Some(first..=last);
        }
    }
}

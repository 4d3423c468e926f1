//! The Wal form: an image, and log segments that continue it. A commit group is one append.

mod checkpoint;
mod key;
mod open;
mod segments;
mod start;
mod verify;

use std::ops::Range;
use std::sync::Arc;

use crate::batch::{Group, Seq};
use crate::config::CheckpointPolicy;
use crate::error::{Error, Result};
use crate::files::StoreFiles;
use crate::header::Header;
use crate::history::History;
use crate::lock::StoreLock;
use crate::log::{LogCounts, LogPlace, LogWriter, SharedLogCopy, layout};
use crate::seal::{Keys, Seal};
use crate::storage::{
    Anchor, Checkpoint, Durability, Form, Retired, State, Storage, StorageStats, SyncPoint, Written,
};
use crate::write_state::WriteState;

use crate::vfs::Vfs;
use start::Start;
pub(crate) use verify::verify;

/// An open store of the form Wal.
#[derive(Debug)]
pub(crate) struct Wal {
    files: StoreFiles,
    write_state: WriteState,
    durability: Durability,
    policy: CheckpointPolicy,
    /// Of the image in place.
    image: Header,
    image_bytes: u64,
    /// The work to do before the first write.
    start: Start,
    /// The segment that is written. `None` until the first write if [`Start`] makes or names one
    /// then.
    current: Option<Current>,
    /// The segments between the image and that one, oldest first.
    earlier: Vec<Earlier>,
    /// Segments that no image needs. Until this handle has put an image in place, the name of the
    /// one that replaced them may not be durable, so they stay.
    leftovers: Vec<u64>,
    /// Whether this handle has made the name of the image in place durable.
    image_is_named: bool,
    /// The segment that an unfinished rekey has left, if it could not be removed.
    stray: Option<u64>,
    /// The last segment that was found to have lost its name, as long as an image needs it: the
    /// next checkpoint writes its contents.
    lost: Option<u64>,
    /// The image that a checkpoint is writing.
    pending: Option<Pending>,
    /// The segment that a rekey has replaced.
    retired: Option<Retired>,
    /// How long the log has to be before an image is tried again after a failure, in bytes.
    retry_at_bytes: u64,
    history: History,
    durable: Seq,
    /// The counts of the writers of earlier segments.
    past: LogCounts,
    images: u64,
    images_failed: u64,
}

/// The segment that takes the next commit.
#[derive(Debug)]
struct Current {
    log: LogWriter,
    header: Header,
    /// The identity of its file, if the system told.
    identity: Option<u64>,
}

/// An image that is being written.
#[derive(Debug)]
struct Pending {
    header: Header,
    /// Where it is to be under a fresh root key.
    fresh: Option<Fresh>,
}

/// The parts that a rekey makes beside the image.
#[derive(Debug)]
struct Fresh {
    seal: Arc<dyn Seal>,
    /// The segment that will continue the image.
    segment: Header,
    /// The copy that fills that segment with the groups that are written meanwhile.
    copy: SharedLogCopy,
    /// The names of image and segment until both are complete.
    image_temporary: String,
    segment_temporary: String,
}

/// A segment that is complete, and still needed.
#[derive(Debug)]
struct Earlier {
    generation: u64,
    /// Its used bytes.
    bytes: u64,
}

impl Wal {
    /// The segment to write to, if writing is allowed; prepares the first write.
    fn writer(&mut self) -> Result<&mut Current> {
        self.write_state.check()?;
        self.start()?;
        let current = self.current.as_mut();
        let current = current.expect("a store that is started has a segment to write to");
        current.log.refuse_if_poisoned()?;
        Ok(current)
    }

    /// The log that was written to, if there is one and it is not poisoned.
    fn written(&mut self) -> Result<Option<&mut LogWriter>> {
        self.write_state.check()?;
        match &mut self.current {
            Some(current) => {
                current.log.refuse_if_poisoned()?;
                Ok(Some(&mut current.log))
            }
            None => Ok(None),
        }
    }

    /// Refuses every later change: the names on the disk are in doubt.
    fn poison(&mut self, what: &str, source: &dyn std::fmt::Display) -> Error {
        let reason = format!("{what}: {source}");
        self.write_state.poison(reason.clone());
        Error::Poisoned { path: self.write_state.path().to_owned(), reason }
    }

    fn log_place(&self, generation: u64) -> LogPlace {
        LogPlace {
            vfs: self.files.vfs.clone(),
            name: self.files.names.segment(generation),
            seal: self.files.seal.clone(),
            durability: self.durability,
        }
    }

    /// The segment that is written from now on; it has its name.
    fn current(&self, log: LogWriter, header: Header) -> Current {
        let found = self.files.vfs.dir.metadata(&self.files.names.segment(header.generation));
        Current { log, header, identity: found.ok().flatten().map(|found| found.identity) }
    }

    /// Checks that an opening would find the commits; `seq` is the first that it might not
    /// find. A segment that lost its name is no error: the next checkpoint heals the store.
    fn check_names(&mut self, seq: Seq) -> Result<()> {
        self.files.check_name(&mut self.write_state, seq)?;
        let Some(Current { header, identity, .. }) = &self.current else { return Ok(()) };
        let name = self.files.names.segment(header.generation);
        if let Ok(found) = self.files.vfs.dir.metadata(&name)
            && found.is_none_or(|found| identity.is_some_and(|own| own != found.identity))
        {
            self.lost = Some(header.generation);
        }
        Ok(())
    }

    /// As [`check_names`](Self::check_names), where no commit was just made.
    fn check_names_now(&mut self) -> Result<()> {
        self.check_names(self.history.seq().min(self.durable + 1))
    }

    /// The used bytes of all segments that continue the image.
    fn log_bytes(&self) -> u64 {
        let earlier: u64 = self.earlier.iter().map(|segment| segment.bytes).sum();
        let last = match (&self.current, &self.start) {
            (Some(current), _) => current.log.end().offset,
            (None, Start::Continue(_, state)) => state.end.offset,
            (None, _) => 0,
        };
        earlier + last
    }
}

impl Storage for Wal {
    fn form(&self) -> Form {
        Form::Wal
    }

    fn group(&self) -> Group {
        Group::new(layout(Form::Wal, self.files.seal.is_some()))
    }

    fn commit(&mut self, group: &mut Group, _image: Option<&dyn State>) -> Result<Range<Seq>> {
        let log = &mut self.writer()?.log;
        let seqs = log.append(group)?;
        let (end, durable, groups) = (*log.end(), log.durable(), log.counts().groups);
        // Order: after the frame is durable and before anybody is told, so that no commit is
        // acknowledged which an opening would not find.
        if self.durability == Durability::Sync {
            if groups.is_multiple_of(GROUPS_A_CHECK) {
                self.check_names(seqs.start)?;
            } else {
                self.files.check_name(&mut self.write_state, seqs.start)?;
            }
        }
        self.history.go_on(end.seq, end.digest);
        self.durable = durable;
        Ok(seqs)
    }

    fn sync_point(&mut self) -> Result<Option<SyncPoint>> {
        if self.written()?.is_some() {
            self.check_names_now()?;
        }
        self.written()?.map_or(Ok(None), LogWriter::sync_point)
    }

    fn synced(&mut self, outcome: Result<Seq>) -> Result<()> {
        if let Some(log) = self.written()? {
            log.synced(outcome)?;
            self.durable = log.durable();
        }
        Ok(())
    }

    fn begin_checkpoint(&mut self, state: &dyn State) -> Result<Option<Checkpoint>> {
        if self.written()?.is_some() {
            self.check_names_now()?;
        }
        self.begin(state)
    }

    fn finish_checkpoint(&mut self, done: Result<Written>) -> Result<()> {
        self.finish(done)
    }

    fn retired(&mut self) -> Option<Retired> {
        self.retired.take()
    }

    fn change_key(&mut self, keys: &dyn Keys) -> Result<()> {
        self.change(keys)
    }

    fn rekey(&mut self, keys: &dyn Keys, _state: &dyn State) -> Result<Option<Checkpoint>> {
        self.begin_rekey(keys).map(Some)
    }

    fn wants_checkpoint(&self) -> bool {
        let log_bytes = self.log_bytes();
        let is_idle = self.pending.is_none() && self.poisoned().is_none();
        if !is_idle || self.write_state.check().is_err() || log_bytes < self.retry_at_bytes {
            return false;
        }
        #[expect(clippy::cast_precision_loss, reason = "a threshold needs no exact lengths")]
        let outgrown = log_bytes as f64 >= self.policy.ratio * self.image_bytes as f64;
        self.lost.is_some() || (outgrown && log_bytes >= self.policy.floor_bytes)
    }

    fn close(&mut self, state: &dyn State) -> Result<()> {
        let done = self.close_writing(state);
        if done.is_ok() || self.poisoned().is_some() {
            self.write_state.close();
        }
        done
    }

    fn image_elsewhere(&self, to: &Vfs, name: &str) -> Result<Checkpoint> {
        self.files.image_elsewhere(to, name, &self.image, &self.history)
    }

    fn lock(&self) -> Option<Arc<StoreLock>> {
        self.files.lock.clone()
    }

    fn seal(&self) -> Option<Arc<dyn Seal>> {
        self.files.seal.clone()
    }

    fn stats(&self) -> StorageStats {
        let counts = self.current.as_ref().map(|current| current.log.counts()).unwrap_or_default();
        StorageStats {
            seq: self.history.seq(),
            durable: match self.lost {
                // So that a flush runs a checkpoint.
                Some(_) => self.durable.min(self.history.seq().saturating_sub(1)),
                None => self.durable,
            },
            groups: self.past.groups + counts.groups,
            syncs: self.past.syncs + counts.syncs,
            image_bytes: self.image_bytes,
            log_bytes: self.log_bytes(),
            images: self.images,
            images_failed: self.images_failed,
        }
    }

    fn anchor(&mut self) -> Anchor {
        self.history.anchor()
    }

    fn history(&self) -> History {
        self.history.clone()
    }

    fn poisoned(&self) -> Option<String> {
        let of_log = || self.current.as_ref()?.log.poisoned().map(str::to_owned);
        self.write_state.poisoned().or_else(of_log)
    }
}

/// How many groups are written between two looks at the name of the segment. (The main file's name
/// is looked at with each: one call that takes 1 to 4 us beside a sync of 100 us and more.) A
/// segment without a name costs nothing that the next checkpoint, flush or close does not mend.
const GROUPS_A_CHECK: u64 = 64;

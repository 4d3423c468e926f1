//! The Wal form: an image, and log segments that continue it. Each commit group is one append.

mod archived;
mod checkpoint;
mod key;
mod open;
mod parts;
mod salvage;
mod segments;
mod start;
mod verify;

use std::ops::Range;
use std::sync::Arc;

use crate::batch::{Group, Seq};
use crate::config::CheckpointPolicy;
use crate::error::{Error, Result};
use crate::files::{StoreFiles, Stored};
use crate::header::Header;
use crate::history::{History, LazyDigest};
use crate::live::Announcer;
use crate::log::{LogCounts, LogPlace, LogWriter, SharedLogCopy, layout};
use crate::main_file::MainFile;
use crate::seal::{Keys, Seal};
use crate::separate::SeparateImage;
use crate::storage::{
    Anchor, Checkpoint, Durability, Form, LogPart, Retired, State, Storage, StorageStats,
    SyncPoint, Written,
};
use crate::vfs::Vfs;
use crate::write_state::WriteState;

pub use archived::{Replayed, replay_archived};
pub(crate) use salvage::salvage;
pub(crate) use segments::{Segment, Segments};
use start::Start;
pub(crate) use verify::verify;

/// An open store of the form Wal.
#[derive(Debug)]
pub(crate) struct Wal {
    files: StoreFiles,
    write_state: WriteState,
    durability: Durability,
    policy: CheckpointPolicy,
    live: Announcer,
    /// The header of the image in place.
    image: Header,
    image_bytes: u64,
    /// The work to do before the first write.
    start: Start,
    /// The segment that is written, or `None` if [`Start`] makes or names one at the first write.
    current: Option<Current>,
    /// The segments between the image and the current one, oldest first.
    earlier: Vec<Earlier>,
    /// Segments that no image needs. They stay until this handle has installed an image, because
    /// the name of the image that replaced them may not be durable before.
    leftovers: Vec<u64>,
    /// Whether this handle has made the name of the image in place durable.
    image_is_named: bool,
    /// The segment of an unfinished rekey, if it could not be removed.
    stray: Option<u64>,
    /// The last segment that has lost its name, while an image needs it. The next checkpoint writes
    /// its contents.
    lost: Option<u64>,
    /// The image that a checkpoint is writing.
    pending: Option<Pending>,
    /// The files that the last checkpoint or rekey has replaced, still open.
    retired: Option<Retired>,
    /// The length of the log at which an image is tried again after a failure, in bytes.
    retry_at_bytes: u64,
    /// The history up to the last commit for which its digest was needed.
    history: History,
    /// The digest of the history up to the last commit.
    digest: LazyDigest,
    /// The number of the last commit.
    seq: Seq,
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
    /// The identity of its file, if the file system reported it.
    identity: Option<u64>,
}

/// An image that a checkpoint is writing.
#[derive(Debug)]
struct Pending {
    header: Header,
    /// The new segment and its copy, if the image is under a fresh root key.
    fresh: Option<Fresh>,
}

/// The files that a rekey makes beside the image.
#[derive(Debug)]
struct Fresh {
    seal: Arc<dyn Seal>,
    /// The segment that will continue the image.
    segment: Header,
    /// The copy that fills this segment with the groups that are written during the rekey.
    copy: SharedLogCopy,
    /// The temporary names of the image and the segment, until both are complete.
    image_temporary: String,
    segment_temporary: String,
}

/// A complete segment that is still needed.
#[derive(Debug)]
struct Earlier {
    generation: u64,
    /// The used bytes of the segment.
    bytes: u64,
}

impl Wal {
    /// Returns the segment to write to, after the work before the first write. Returns an error if
    /// the store refuses writes.
    fn writer(&mut self) -> Result<&mut Current> {
        self.write_state.check()?;
        self.start()?;
        let current = self.current.as_mut();
        let current = current.expect("a store that is started has a segment to write to");
        current.log.refuse_if_poisoned()?;
        Ok(current)
    }

    /// Returns the log of this handle, or `None` if nothing was written yet. Returns an error if
    /// the store refuses writes.
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

    /// Makes the store refuse all later changes, because the names on the disk are in doubt.
    fn poison(&mut self, what: &str, source: &dyn std::fmt::Display) -> Error {
        let reason = format!("{what}: {source}");
        self.write_state.poison(reason.clone());
        Error::Poisoned { path: self.write_state.path().to_owned(), reason }
    }

    /// Returns the place of the segment `generation` and the way in which it is written.
    fn log_place(&self, generation: u64) -> LogPlace {
        LogPlace {
            vfs: self.files.vfs.clone(),
            name: self.files.names.segment(generation),
            seal: self.files.seal.clone(),
            durability: self.durability,
        }
    }

    /// Returns the segment that is written from now on. It has its name already.
    fn current(&self, log: LogWriter, header: Header) -> Current {
        let found = self.files.vfs.dir.metadata(&self.files.names.segment(header.generation));
        Current { log, header, identity: found.ok().flatten().map(|found| found.identity) }
    }

    /// Checks that an opening would find the commits. `seq` is the first commit that it might not
    /// find. A segment that lost its name is not an error, because the next checkpoint repairs the
    /// store.
    fn check_names(&mut self, seq: Seq) -> Result<()> {
        self.files.check_name(&mut self.write_state, seq)?;
        let Some(Current { header, identity, .. }) = &self.current else { return Ok(()) };
        let name = self.files.names.segment(header.generation);
        // A file of another identity under the name is not this segment.
        if let Ok(found) = self.files.vfs.dir.metadata(&name)
            && found.is_none_or(|found| identity.is_some_and(|own| own != found.identity))
        {
            self.lost = Some(header.generation);
        }
        Ok(())
    }

    /// Like [`check_names`](Self::check_names), if no commit was made just before.
    fn check_names_now(&mut self) -> Result<()> {
        self.check_names(self.seq.min(self.durable + 1))
    }

    /// Announces how far the commits are durable, to readers in other processes.
    fn announce(&mut self) {
        if let Some(current) = &self.current {
            self.live.announce(&current.log);
        }
    }

    /// Returns the history up to the last commit.
    fn history_now(&mut self) -> &mut History {
        self.history.go_on(self.seq, self.digest.settle());
        &mut self.history
    }

    /// Returns the used bytes of all segments that continue the image.
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
        // Order: before the frame, which takes the buffer of the group.
        group.abandon();
        let batches = u32::try_from(group.batches()).unwrap_or(u32::MAX);
        self.digest.note(self.seq + 1, batches, group.payload());
        let log = &mut self.writer()?.log;
        let seqs = log.append(group)?;
        let (seq, durable, groups) = (log.end().seq, log.durable(), log.counts().groups);
        // Order: after the frame is durable and before the commit is acknowledged, so that no
        // commit is acknowledged which an opening would not find.
        if self.durability == Durability::Sync {
            if groups.is_multiple_of(GROUPS_A_CHECK) {
                self.check_names(seqs.start)?;
            } else {
                self.files.check_name(&mut self.write_state, seqs.start)?;
            }
        }
        // Order: the history advances only after the checks, so that a refused commit is not part
        // of it.
        self.digest.confirm();
        self.seq = seq;
        self.durable = durable;
        // Order: after the frame is durable, so that no reader sees a commit that a crash takes
        // back, and before the commit is acknowledged, so that readers see it from then on. Below
        // the level `Sync` the first frame announces where a log goes on after a torn tail.
        if self.durability == Durability::Sync || groups == 1 {
            self.announce();
        }
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
            self.announce();
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
        // After a failed image the log has to grow first, so that a full disk is not tried at each
        // commit.
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

    fn main_file(&mut self) -> Result<MainFile> {
        self.write_state.check()?;
        MainFile::open(&self.files.vfs, self.files.names.main())
    }

    fn image_elsewhere(&mut self, to: &Vfs, name: &str) -> Result<SeparateImage> {
        self.history_now();
        self.files.image_elsewhere(to, name, &self.image, &self.history)
    }

    fn log_parts(&mut self) -> Result<Vec<LogPart>> {
        self.parts()
    }

    fn stored(&self) -> Option<Stored<'_>> {
        Some(Stored { files: &self.files, header: &self.image, history: &self.history })
    }

    fn stats(&self) -> StorageStats {
        let counts = self.current.as_ref().map(|current| current.log.counts()).unwrap_or_default();
        StorageStats {
            seq: self.seq,
            durable: match self.lost {
                // One less than the last commit, so that a flush runs a checkpoint.
                Some(_) => self.durable.min(self.seq.saturating_sub(1)),
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
        self.history_now().anchor()
    }

    fn poisoned(&self) -> Option<String> {
        let of_log = || self.current.as_ref()?.log.poisoned().map(str::to_owned);
        self.write_state.poisoned().or_else(of_log)
    }
}

/// The number of groups between two checks of the name of the segment. (The name of the main file
/// is checked with each group: one call of 1 to 4 us beside a sync of 100 us and more.) If a
/// segment has no name, the next checkpoint, flush or close repairs that.
const GROUPS_A_CHECK: u64 = 64;

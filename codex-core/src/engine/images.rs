//! Images of a store on a shared log. One node writes an image beside the commits; other nodes
//! begin with it, and the log before it is removed.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use codex_backup::remote::{Remote, Target};
use codex_storage::batch::Seq;
use codex_storage::shared::{
    ImageRecord, Mark, Meta, Position, RecordName, SharedError, SharedLog, Versioned,
};
use codex_storage::storage::{State, Storage, Written};
use codex_storage::sync::atomic::Ordering;
use codex_storage::vfs::Vfs;
use codex_storage::{CheckpointPolicy, Error, MainFile, Result, SeparateImage};

use super::Engine;
use super::checkpoint::ImageProgress;
use super::queue::Admission;
use crate::backup::StoreFile;
use crate::map::{Image, Map, MapBuilder, Ordered};
use crate::shared::Pieces;

/// Where the images of a store on a shared log are.
#[derive(Debug)]
pub(crate) struct Images {
    log: Arc<dyn SharedLog>,
    meta: Arc<Meta>,
    remote: Remote,
    /// Whether the images are beside the log, which takes only small ones.
    are_beside: bool,
    pub(super) policy: CheckpointPolicy,
    timeout: Duration,
    /// The folder for an image that is written.
    temporary: Vfs,
}

/// The record of the newest image, and its version.
type Newest = Option<(u64, ImageRecord)>;

/// An image that is to be written.
struct Begun {
    image: SeparateImage,
    ordered: Ordered,
    record: ImageRecord,
}

codex_storage::opaque_debug!(Loaded);

/// The state of a node that begins with an image.
pub struct Loaded {
    pub(super) storage: Box<dyn Storage>,
    pub(super) map: Map,
    pub(super) record: ImageRecord,
    len: u64,
}

impl Images {
    /// Returns the images at `target`, or beside the log if there is none. They are written in the
    /// folder `temporary` first.
    pub(crate) fn new(
        log: Arc<dyn SharedLog>,
        meta: Arc<Meta>,
        target: Option<Arc<dyn Target>>,
        policy: CheckpointPolicy,
        timeout: Duration,
        temporary: Vfs,
    ) -> Self {
        let are_beside = target.is_none();
        let clock = Arc::clone(&temporary.clock);
        let pieces = || Arc::new(Pieces::new(log.clone(), timeout, clock)) as _;
        let target = target.unwrap_or_else(pieces);
        let inspect = Arc::new(StoreFile::under(meta.seal().cloned()));
        // The store decides whether it is encrypted.
        let remote = Remote::new(target, inspect, &temporary).plain_objects(true);
        Self { log, meta, remote, are_beside, policy, timeout, temporary }
    }

    /// Reads the newest image, if there is one.
    ///
    /// # Errors
    /// `Away`; the errors of the record and of the image.
    pub(crate) fn load(&self) -> Result<Option<Box<Loaded>>> {
        let mut looks = 0;
        loop {
            let Some((version, record)) = self.newest()? else { return Ok(None) };
            match self.read(record) {
                // A newer image may have taken the place of this one meanwhile.
                Err(error) if looks < LOOKS_MAX => {
                    let now = self.newest()?;
                    if now.is_none_or(|(now, _)| now == version) {
                        return Err(error);
                    }
                }
                loaded => return loaded.map(|loaded| Some(Box::new(loaded))),
            }
            looks += 1;
        }
    }

    fn read(&self, record: ImageRecord) -> Result<Loaded> {
        let listed = self.remote.list().map_err(unread)?.images;
        let image = listed.into_iter().find(|image| image.name == record.name);
        let what = "the newest image is missing at its place; open the store on a node that still \
                    has it, or write another image there";
        let lost = || Error::Damaged { path: record.name.clone().into(), offset: 0, what };
        let image = image.ok_or_else(lost)?;
        let main = MainFile::new(self.remote.open(&image).map_err(unread)?, image.name.as_ref())?;
        let mut builder = MapBuilder::new();
        let mut storage = self.meta.load(&main, record.seq, &mut |op| {
            builder.push(op);
            Ok(())
        })?;
        if !record.is_after(Mark::of(&storage.anchor())) {
            let what = "the newest image has another state than its record says";
            return Err(Error::Damaged { path: record.name.into(), offset: 0, what });
        }
        let (map, len) = (builder.finish(record.seq), image.facts.size);
        Ok(Loaded { storage, map, record, len })
    }

    /// Returns a name that no other file in the folder has.
    fn temporary_name(&self) -> Result<String> {
        let mut random = [0; 8];
        let drawn = self.temporary.entropy.fill(&mut random);
        drawn.map_err(|source| failed("draw a name for", source))?;
        Ok(format!("codexdb-image-{:016x}.db", u64::from_le_bytes(random)))
    }

    /// Returns the record of the newest image.
    fn newest(&self) -> Result<Newest> {
        let found = self.log.record(RecordName::Image, self.timeout)?;
        found
            .map(|Versioned { version, bytes }| {
                Ok((version, ImageRecord::decode(&bytes, &self.meta)?))
            })
            .transpose()
    }

    /// Uploads the image that was written, and reads it back. Returns its name and its length.
    fn put(&self, written: &Written, go_on: &dyn Fn() -> bool) -> Result<(String, u64)> {
        let main = MainFile::open(&self.temporary, &written.temporary)?;
        let (file, _) = main.to_copy()?;
        let len = file.len().map_err(|source| failed("measure", source))?;
        if self.are_beside && len > BESIDE_MAX {
            return Err(SharedError::ImageTooLarge { len, limit: BESIDE_MAX }.into());
        }
        let put = self.remote.put(&file, &mut |_| {
            if go_on() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        match put {
            Ok(put) => Ok((put.image.name, len)),
            Err(codex_backup::Error::Stopped { path }) => Err(Error::Abandoned { path }),
            Err(error) => Err(failed("store an image of", error.into())),
        }
    }

    /// Makes `record` the one with which nodes begin. Returns the newest record: this one, or a
    /// later one of another node.
    fn publish(&self, record: &ImageRecord) -> Result<ImageRecord> {
        for _ in 0..LOOKS_MAX {
            let mut record = record.clone();
            let newest = self.newest()?;
            let was = newest.as_ref().map(|(version, _)| *version);
            if let Some((_, newest)) = newest {
                // An image only makes way for a later one. A call whose answer was lost is found
                // here.
                if newest.age() >= record.age() {
                    return Ok(newest);
                }
                record.kept_after = newest.after;
            }
            let bytes = record.encode(&self.meta);
            match self.log.set_record(RecordName::Image, was, &bytes, self.timeout) {
                Ok(true) => return Ok(record),
                Ok(false) | Err(Error::Shared(SharedError::Away { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        let what = "replace the record of the newest image";
        Err(SharedError::Away { what, waited: self.timeout }.into())
    }

    /// Removes what no node needs that begins with `newest`, or that has read the log up to the
    /// image before it.
    fn tidy(&self, newest: &ImageRecord, go_on: &dyn Fn() -> bool) -> Result<()> {
        // Order: after the record was replaced. The log is kept from the image before the newest
        // one on, so nodes that are behind have the time between two images to read on.
        self.log.trim(newest.kept_after, self.timeout)?;
        let kept = if self.are_beside { KEPT_BESIDE } else { KEPT };
        // The newest ones at the place need not have become the one of the record, and the record
        // only makes way for an image of its commit or of a later one.
        let remote = self.remote.clone().keep_from(newest.seq);
        let pruned = remote.prune(kept, &mut |_| {
            if go_on() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        pruned.map(drop).map_err(|error| failed("remove old images of", error.into()))
    }
}

/// The log behind the newest image that this node knows of.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// The bytes of all frames that this node has read.
    read: u64,
    /// The same at positions of the log, not more than one each [`MARK_BYTES`].
    marks: VecDeque<(Position, u64)>,
    /// The bytes up to the newest image.
    imaged: u64,
    /// The newest image that is known: its last commit, and its length.
    image: Option<(Seq, u64)>,
    /// Whether a frame of this node has made the log long enough for an image.
    pub(super) is_due: bool,
}

impl Tail {
    /// Adds a frame of `len` bytes.
    pub(super) fn add(&mut self, len: u64, is_own: bool, policy: CheckpointPolicy) {
        let (before, limit) = (self.len(), self.limit(policy));
        self.read = self.read.saturating_add(len);
        // The node whose frame reaches the limit writes an image. If it does not, because it has
        // ended, the node whose frame reaches the next quarter does.
        let step = |len: u64| len / (limit / 4).max(1);
        self.is_due |= is_own && self.len() >= limit && step(before) < step(self.len());
    }

    /// Records that this node has read up to `position`.
    pub(super) fn reach(&mut self, position: Position) {
        let is_new = self.marks.back().is_none_or(|(_, read)| self.read - read >= MARK_BYTES);
        if is_new && self.marks.back().is_none_or(|(at, _)| *at < position) {
            self.marks.push_back((position, self.read));
        }
    }

    /// Records the newest image. `len` is its length if it is known.
    fn adopt(&mut self, newest: &ImageRecord, len: Option<u64>) {
        if self.image.is_some_and(|(seq, _)| seq >= newest.seq) {
            return;
        }
        let before = self.image.map_or(0, |(_, len)| len);
        self.image = Some((newest.seq, len.unwrap_or(before)));
        while let Some((_, read)) = self.marks.front().filter(|(at, _)| *at <= newest.after) {
            self.imaged = *read;
            self.marks.pop_front();
        }
    }

    /// Returns the bytes of the log behind the newest image.
    pub(super) fn len(&self) -> u64 {
        self.read - self.imaged
    }

    /// Returns the last commit of the newest image.
    pub(super) fn image_seq(&self) -> Option<Seq> {
        self.image.map(|(seq, _)| seq)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a limit need not be exact"
    )]
    fn limit(&self, policy: CheckpointPolicy) -> u64 {
        let image = self.image.map_or(0, |(_, len)| len);
        policy.floor_bytes.max((image as f64 * policy.ratio) as u64)
    }
}

impl Loaded {
    /// Returns the log behind the image, of which nothing was read yet.
    pub(super) fn tail(&self) -> Tail {
        Tail { image: Some((self.record.seq, self.len)), ..Tail::default() }
    }
}

impl Engine {
    /// Writes an image of the state, unless there is one of this commit. Returns the last commit,
    /// and whether an image was written. The caller holds the lock of checkpoints.
    pub(super) fn write_shared_image(
        &self,
        images: &Images,
        progress: &ImageProgress<'_>,
    ) -> Result<(Seq, bool)> {
        let go_on = || !self.abandon.load(Ordering::Relaxed);
        let newest = images.newest()?.map(|(_, newest)| newest);
        let (to, name) = (&images.temporary, images.temporary_name()?);
        // Begin under the lock on the disk.
        let begun = self.exclusive(Admission::WhileOpen, |disk| {
            disk.tail.is_due = false;
            if let Some(newest) = &newest {
                disk.tail.adopt(newest, None);
            }
            let seq = disk.read(Map::seq);
            let follower = disk.shared.as_ref().ok_or_else(|| self.closed())?;
            // Order: the state, and its place in the log, in one hold of the disk. A node that
            // begins with both decides the same frames from there on.
            let record = ImageRecord {
                seq,
                after: follower.resumes_after(),
                kept_after: Position::default(),
                name: String::new(),
                place: follower.place(),
            };
            self.show_tail(disk);
            if newest.as_ref().is_some_and(|newest| newest.age() >= record.age()) {
                return Ok((seq, None));
            }
            let image = disk.storage().image_elsewhere(to, &name)?;
            Ok((seq, Some(Begun { image, ordered: disk.read(Map::ordered), record })))
        })?;
        let (seq, begun) = begun;
        let Some(Begun { image: separate, ordered, record }) = begun else {
            if let Some(newest) = newest {
                images.tidy(&newest, &go_on)?;
            }
            return Ok((seq, false));
        };
        let image = Image(ordered);
        let total = 2 * image.len();
        let written = separate.write(&image, &|done| go_on() && progress(done, total));
        // Order: drop the view before the upload. Writers copy each node that a view still holds.
        drop(image);
        let written = written?;
        let put = images.put(&written, &go_on);
        // The system removes what is left of temporary files, if this fails.
        let _ = to.dir.remove(&written.temporary);
        let (name, len) = put?;
        // Order: the image was read back before nodes begin with it.
        let newest = images.publish(&ImageRecord { name, ..record })?;
        self.exclusive(Admission::ToFinish, |disk| {
            disk.tail.adopt(&newest, (newest.seq == seq).then_some(len));
            self.show_tail(disk);
            Ok(())
        })?;
        images.tidy(&newest, &go_on)?;
        Ok((seq, true))
    }
}

fn unread(error: codex_backup::Error) -> Error {
    failed("read an image of", error.into())
}

fn failed(action: &'static str, source: io::Error) -> Error {
    Error::Io { action, path: "(shared)".into(), source: Arc::new(source) }
}

/// The longest image that is kept beside the log.
const BESIDE_MAX: u64 = 256 << 20;
/// The number of images that are kept. A node may be reading one that is not the newest.
const KEPT: usize = 3;
/// The same beside the log, where there is less room.
const KEPT_BESIDE: usize = 2;
/// The number of looks at the record of the newest image.
const LOOKS_MAX: u32 = 8;
/// The bytes of the log between two marks.
const MARK_BYTES: u64 = 64 << 10;

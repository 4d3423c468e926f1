//! Backups outside of the machine: in object storage, in a folder of another disk, or in memory.
//!
//! A [`Remote`] keeps images of one file at a [`Target`]. [`put`](Remote::put) uploads an image,
//! reads it back, and lists it in a new manifest. The manifest with the highest number counts. Its
//! creation decides: before it the image is no backup, after it the image is one. No object is ever
//! changed or replaced, and no name is given twice.
//!
//! Two writers at one place, such as an open store and a tool, do not disturb each other: of two
//! manifests with one number only one is created, and the other writer begins again with it.

mod archive;
mod chain;
mod fault;
mod file;
mod folder;
mod log_file;
mod manifest;
mod memory;
mod piece;
mod prune;
mod put;
mod reach;
#[cfg(feature = "s3")]
mod s3;
mod target;

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use codex_storage::vfs::{Clock, Entropy, File, Vfs, in_pieces};
use sha2::{Digest, Sha256};

pub use archive::{ArchiveWriter, LogEnd};
pub use fault::{Damage, Fault};
pub use folder::Folder;
pub use memory::{Memory, Mishap};
pub use piece::{LogId, LogStart};
pub use prune::Pruned;
pub use put::Put;
pub use reach::{Moment, Reached};
#[cfg(feature = "s3")]
pub use s3::{S3, S3Keys, S3Options};
pub use target::{Body, Created, Listed, Target};

pub use crate::copy::unwatched;

use crate::backups::Backups;
use crate::copy::{Phase, Source, Watch};
use crate::error::{Error, Result};
use crate::inspect::{Facts, Inspect, Reading};
use crate::meter::Meter;
use crate::restore::Restored;
use file::RemoteFile;
use manifest::{MANIFESTS, Manifest};

/// The backups of one file at a [`Target`].
///
/// A handle holds no connection and no lock. Any number of handles, in any number of processes and
/// on any number of machines, may refer to the same place.
#[derive(Debug, Clone)]
pub struct Remote {
    target: Arc<dyn Target>,
    inspect: Arc<dyn Inspect>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    plain_objects: bool,
    orphans_after: Duration,
    keep_for: Duration,
    keep_from: u64,
}

/// An image that a manifest lists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Image {
    /// The name of the object.
    pub name: String,
    /// The facts of the file, which were read when it was uploaded. The size is that of the object.
    pub facts: Facts,
    /// The SHA-256 of the object.
    pub sha256: [u8; 32],
    /// The time at which the image was read back and listed, in microseconds since 1970 (UTC).
    pub listed_us: i64,
    /// The log that continues the image, if an archive sends one.
    pub log: Option<LogStart>,
}

/// The images of a place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Listing {
    /// The images, newest first.
    pub images: Vec<Image>,
    /// The objects that were passed over: manifests that cannot be read. If there are any, an
    /// older manifest counts, and the newest image may be missing from the list. The next
    /// [`put`](Remote::put) writes a manifest after them.
    pub unreadable: Vec<String>,
}

impl Remote {
    /// Returns the backups at `target`, which `inspect` reads. `vfs` provides the clock and the
    /// random bytes. Nothing is read or written.
    pub fn new(target: Arc<dyn Target>, inspect: Arc<dyn Inspect>, vfs: &Vfs) -> Self {
        let (clock, entropy) = (Arc::clone(&vfs.clock), Arc::clone(&vfs.entropy));
        let (plain_objects, orphans_after, keep_for) = (false, ORPHANS_AFTER, Duration::ZERO);
        let keep_from = u64::MAX;
        Self { target, inspect, clock, entropy, plain_objects, orphans_after, keep_for, keep_from }
    }

    /// Returns the backups at the same place, read with another inspector, such as one with the
    /// current key of the file.
    #[must_use]
    pub fn with_inspect(&self, inspect: Arc<dyn Inspect>) -> Self {
        Self { inspect, ..self.clone() }
    }

    /// Sets whether files that are not encrypted may be uploaded. Default: no.
    #[must_use]
    pub fn plain_objects(mut self, allowed: bool) -> Self {
        self.plain_objects = allowed;
        self
    }

    /// Sets the age from which [`prune`](Self::prune) gives up images that no manifest lists,
    /// pieces of logs that no image leads to, and uploads that have not ended. Default: a day. An
    /// upload that takes longer while another writer prunes fails with [`Fault::GivenUp`].
    #[must_use]
    pub fn orphans_after(mut self, age: Duration) -> Self {
        self.orphans_after = age;
        self
    }

    /// Sets how far back [`prune`](Self::prune) keeps each moment, as far as the place has it: all
    /// images of that time, the newest one before them, and the logs behind these. Default: zero,
    /// so that their number alone decides. The ages are those by the clock of the place.
    #[must_use]
    pub fn keep_for(mut self, time: Duration) -> Self {
        self.keep_for = time;
        self
    }

    /// Sets the commit from which [`prune`](Self::prune) keeps all images, whatever their order and
    /// their number: for a caller that names its image elsewhere, and not always the newest one.
    /// Default: none.
    #[must_use]
    pub fn keep_from(mut self, seq: u64) -> Self {
        self.keep_from = seq;
        self
    }

    /// Returns the images, newest first. Reads a manifest and no image.
    ///
    /// # Errors
    /// [`Fault::BadManifest`] if there are manifests and none can be read;
    /// [`Fault::NewerFormat`]; the faults of the target.
    pub fn list(&self) -> Result<Listing> {
        let Latest { manifest, unreadable } = self.latest()?;
        let unreadable = unreadable.into_iter().map(Manifest::name).collect();
        Ok(Listing { images: manifest.images, unreadable })
    }

    /// Reads every byte of the image and compares its SHA-256 with that of the upload. If the
    /// inspector has a key, the contents are then read a second time, and authenticated.
    ///
    /// # Errors
    /// [`Fault::Missing`], [`Fault::Truncated`], [`Fault::Altered`]; [`Error::Stopped`] if `watch`
    /// returned `Break`; the errors of [`Inspect::verify`].
    pub fn verify(&self, image: &Image, watch: &mut Watch<'_>) -> Result<()> {
        self.check(image, watch)?;
        let depth = self.inspect.deepest();
        if depth == crate::Depth::Full {
            let mut meter = Meter::new(watch, Phase::Verifying, image.facts.size);
            let read = self.inspect.verify(&self.file(image), depth, &mut |done| meter.reach(done));
            let facts = read.map_err(|error| Error::from_inspect(self.path(image), error))?;
            meter.end(&self.path(image))?;
            if !facts.same_version(&image.facts) {
                return Err(self.fault(&image.name, Fault::Altered));
            }
        }
        Ok(())
    }

    /// Returns the image as a file, which reads from the target in pieces of 8 MiB.
    ///
    /// # Errors
    /// [`Fault::Missing`] and [`Fault::Truncated`] if the object has not the length of the image;
    /// the faults of the target.
    pub fn open(&self, image: &Image) -> Result<Arc<dyn File>> {
        self.check_size(image)?;
        Ok(self.file(image))
    }

    /// Puts the image in the place of the file of `backups`, as [`Backups::restore_from`] does:
    /// first the whole image is copied beside the file and verified, then the restore is decided,
    /// and from then on it is finished whatever interrupts it. `sidecars` are the log segments of
    /// the current file.
    ///
    /// # Errors
    /// As [`Backups::restore_from`] and [`open`](Self::open).
    pub fn restore(
        &self,
        image: &Image,
        backups: &Backups,
        sidecars: &[String],
        watch: &mut Watch<'_>,
    ) -> Result<Restored> {
        let source = Source::File { name: &image.name, file: self.open(image)? };
        match backups.restore_from(source, Some(&image.facts), sidecars, watch) {
            Ok(restored) => Ok(Restored { from: Some(image.name.clone()), ..restored }),
            // The copy names its source as if it were beside the file.
            Err(Error::Remote { fault, .. }) => Err(self.fault(&image.name, fault)),
            Err(error) => Err(error),
        }
    }

    /// Returns the manifest that counts: that of the highest number which can be read.
    fn latest(&self) -> Result<Latest> {
        // A manifest that was listed may be removed before it is read, if many newer ones were
        // written in between. Then there is a newer list.
        for _ in 0..LOOKS_MAX {
            let mut numbers = self.numbers()?;
            numbers.sort_unstable();
            let mut latest = Latest::default();
            let (mut reason, mut gone) = (None, false);
            while let Some(number) = numbers.pop() {
                match self.manifest(number) {
                    Ok(manifest) => return Ok(Latest { manifest, ..latest }),
                    Err(fault @ Fault::BadManifest(_)) => {
                        latest.unreadable.push(number);
                        reason.get_or_insert((number, fault));
                    }
                    Err(Fault::Missing) => {
                        gone = true;
                        break;
                    }
                    Err(fault) => return Err(self.fault(&Manifest::name(number), fault)),
                }
            }
            match reason {
                Some((number, fault)) if !gone => {
                    return Err(self.fault(&Manifest::name(number), fault));
                }
                None if !gone => return Ok(latest),
                _ => {}
            }
        }
        Err(self.fault("", Fault::Contended(LOOKS_MAX)))
    }

    /// Waits before the third and each later attempt to write a manifest: a random time, so that
    /// writers that meet do not meet again. The second look only reads back the first attempt.
    fn rest(&self, attempt: u32) -> Result<()> {
        if attempt < 2 {
            return Ok(());
        }
        let mut random = [0];
        self.entropy
            .fill(&mut random)
            .map_err(|error| self.fault("", Fault::io("draw a random number", error)))?;
        let longest = PAUSE_FIRST * (1 << attempt.min(8));
        self.clock.sleep(longest * u32::from(random[0]) / 256);
        Ok(())
    }

    /// Returns the numbers of all manifests.
    fn numbers(&self) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        let listed = self.target.list(MANIFESTS, &mut |listed| {
            numbers.extend(Manifest::number(&listed.name));
        });
        listed.map_err(|fault| self.fault("", fault))?;
        Ok(numbers)
    }

    /// Reads the manifest of this number.
    fn manifest(&self, number: u64) -> Result<Manifest, Fault> {
        let name = Manifest::name(number);
        let size = self.target.size(&name)?.ok_or(Fault::Missing)?;
        let len = usize::try_from(size).ok().filter(|len| *len <= MANIFEST_LEN_MAX);
        let mut bytes = vec![0; len.ok_or(Fault::BadManifest("it is too long"))?];
        self.target.read_at(&name, &mut bytes, 0)?;
        Manifest::decode(number, &bytes)
    }

    /// Returns an error if the object is missing or has not the length of the image.
    fn check_size(&self, image: &Image) -> Result<()> {
        let expected = image.facts.size;
        let checked = match self.target.size(&image.name) {
            Ok(Some(found)) if found == expected => Ok(()),
            Ok(Some(found)) => Err(Fault::Truncated { expected, found }),
            Ok(None) => Err(Fault::Missing),
            Err(fault) => Err(fault),
        };
        checked.map_err(|fault| self.fault(&image.name, fault))
    }

    /// Returns whether the object is there with the length of the image.
    fn is_there(&self, image: &Image) -> Result<bool> {
        match self.check_size(image) {
            Ok(()) => Ok(true),
            Err(error) if is_loss(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads every byte of the image, and returns an error unless it is the one that was uploaded.
    fn check(&self, image: &Image, watch: &mut Watch<'_>) -> Result<()> {
        self.check_size(image)?;
        let mut meter = Meter::new(watch, Phase::Verifying, image.facts.size);
        let file = self.file(image);
        let digest = digest(&*file, image.facts.size, &mut |done| meter.reach(done));
        meter.end(&self.path(image))?;
        let checked = match digest {
            Ok(digest) if digest == image.sha256 => Ok(()),
            Ok(_) => Err(Fault::Altered),
            Err(error) => Err(Fault::io("read it", error)),
        };
        checked.map_err(|fault| self.fault(&image.name, fault))
    }

    fn file(&self, image: &Image) -> Arc<dyn File> {
        let (target, name) = (Arc::clone(&self.target), image.name.clone());
        Arc::new(RemoteFile::new(target, name, image.facts.size))
    }

    fn path(&self, image: &Image) -> PathBuf {
        self.target.path(&image.name)
    }

    /// Adds the object to a fault.
    fn fault(&self, name: &str, fault: Fault) -> Error {
        let path = self.target.path(name);
        match fault {
            Fault::Stopped => Error::Stopped { path },
            fault => Error::Remote { path, fault },
        }
    }
}

/// The manifest that counts, and the higher numbers of those that cannot be read.
#[derive(Debug, Default)]
struct Latest {
    manifest: Manifest,
    unreadable: Vec<u64>,
}

impl Latest {
    /// Returns the number of the next manifest.
    fn next(&self) -> u64 {
        self.unreadable.first().unwrap_or(&self.manifest.number) + 1
    }
}

/// Returns whether the error means that an image is lost, rather than that it cannot be read now.
fn is_loss(error: &Error) -> bool {
    use Fault::{Altered, Missing, Truncated};
    matches!(error, Error::Remote { fault: Missing | Truncated { .. } | Altered, .. })
}

/// Returns the SHA-256 of the first `len` bytes of `file`. Ends with an error if `reading` returns
/// `Break`.
fn digest(file: &dyn File, len: u64, reading: &mut Reading<'_>) -> io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    in_pieces(0..len, |piece, at| {
        file.read_exact_at(piece, at)?;
        digest.update(&*piece);
        match reading(at + piece.len() as u64) {
            ControlFlow::Continue(()) => Ok::<(), io::Error>(()),
            ControlFlow::Break(()) => Err(Fault::Stopped.into()),
        }
    })?;
    Ok(digest.finalize().into())
}

/// The default of [`Remote::orphans_after`].
const ORPHANS_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// The maximum number of looks at the list of manifests, and of attempts to write one.
const LOOKS_MAX: u32 = 16;
/// A unit of the pauses between attempts.
const PAUSE_FIRST: Duration = Duration::from_millis(4);
/// The maximum length of a manifest. A bucket creates longer objects from parts, and not every
/// server does that create-only.
const MANIFEST_LEN_MAX: usize = 16 << 20;

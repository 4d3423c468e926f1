//! The archive of an open store: an image after each checkpoint, and the log behind it piece by
//! piece, at a place outside of the machine.

mod archiver;
mod logs;
mod ship;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use codex_backup::remote::Target;
use codex_storage::Error as StorageError;
use codex_storage::batch::Seq;

pub(crate) use archiver::Archiver;

use crate::callback::Callback;
use crate::error::{Error, Result};
use crate::options::contradiction;
use crate::store::Store;

/// The options of an archive, for [`OpenOptions::archive`](crate::OpenOptions::archive).
///
/// While the store is open, a thread of its own sends each image that a checkpoint puts in place,
/// and every few seconds the part of the log that was written since. No write waits for it. From
/// what is there, [`Backups::restore_archive`](crate::Backups::restore_archive) restores the newest
/// state, or the state after any commit.
///
/// Only durable commits are sent. If the machine is lost, the commits since the last
/// piece are lost with it: those of the last [`every`](Self::every), if the place can be reached.
/// [`Stats::archive`](crate::Stats) has the time for which the oldest of them has waited, and
/// [`require`](Self::require) refuses writes if it waits too long.
///
/// The images and the log are sent as they are on the disk: encrypted, if the store is.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let elsewhere = tempfile::tempdir()?;
/// # let path = folder.path().join("app.db");
/// use codex_core::remote::Folder;
/// use codex_core::{Archive, Backups, Store};
/// use std::sync::Arc;
///
/// // A folder of another disk; with the feature `s3`, a bucket.
/// let place = Arc::new(Folder::open(elsewhere.path())?);
/// let archive = Archive::to(place.clone()).plain_objects(true);
/// let store = Store::options().archive(archive).open(&path)?;
/// store.set("a", &1)?;
/// store.set("a", &2)?;
/// store.close()?;
/// # drop(store);
/// # for file in std::fs::read_dir(folder.path())? { std::fs::remove_file(file?.path())?; }
///
/// // On another machine, or after the disk was lost: the state after the first commit.
/// let backups = Backups::of(&path)?;
/// backups.restore_archive(&backups.remote(place), Some(1.into()))?;
/// assert_eq!(Store::open(&path)?.get("a")?, Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "an archive is made by a store that is opened with it"]
pub struct Archive {
    target: Arc<dyn Target>,
    every: Duration,
    plain_objects: bool,
    required_after: Option<Duration>,
    keep: Option<usize>,
    keep_for: Duration,
    verify_every: Option<Duration>,
    behind_bytes_max: u64,
    close_wait: Duration,
    on_event: Option<OnArchive>,
}

/// The function of a user that is called with the events of an archive.
type OnArchive = Callback<dyn Fn(&ArchiveEvent) + Send + Sync>;

impl Archive {
    /// Returns the options of an archive at `target`. One place is for one store.
    pub fn to(target: Arc<dyn Target>) -> Self {
        Self {
            target,
            every: Duration::from_secs(10),
            plain_objects: false,
            required_after: None,
            keep: None,
            keep_for: Duration::ZERO,
            verify_every: Some(Duration::from_secs(7 * 24 * 60 * 60)),
            behind_bytes_max: 1 << 30,
            close_wait: Duration::from_secs(10),
            on_event: None,
        }
    }

    /// Sets the time after which a commit is sent at the latest. As soon as 4 MiB wait, they are
    /// sent within a second. Default: 10 seconds. In a bucket each piece is one request to write an
    /// object: about 260,000 in a month in which a commit is made every 10 seconds.
    pub fn every(mut self, interval: Duration) -> Self {
        self.every = interval;
        self
    }

    /// Sets whether a store that is not encrypted may be sent. Default: no.
    pub fn plain_objects(mut self, allowed: bool) -> Self {
        self.plain_objects = allowed;
        self
    }

    /// Sets the time after which writes are refused
    /// ([`Error::ArchiveBehind`]) if a commit has waited for that long, until the archive has it.
    /// Until the first image of a new archive is there, no commit is in it. Default: writes are
    /// never refused.
    pub fn require(mut self, after: Duration) -> Self {
        self.required_after = Some(after);
        self
    }

    /// Sets the number of newest images to keep. The older ones, and what leads only from them to
    /// later states, are removed after each new image, as
    /// [`Remote::prune`](crate::remote::Remote::prune) does. Default: nothing is removed.
    pub fn keep(mut self, images: usize) -> Self {
        self.keep = Some(images);
        self
    }

    /// Sets for how long each moment stays restorable, in addition to [`keep`](Self::keep).
    pub fn keep_for(mut self, age: Duration) -> Self {
        self.keep_for = age;
        self
    }

    /// Sets after which time the newest image is read again, completely; `None`: never. An image is
    /// always read back once before it counts. Default: 7 days.
    pub fn verify_every(mut self, interval: Option<Duration>) -> Self {
        self.verify_every = interval;
        self
    }

    /// Sets how many bytes of ended logs wait for the place at most. They keep their space on the
    /// disk meanwhile. If more wait, the oldest are given up: the archive goes on with the next
    /// image, and the states between cannot be restored ([`ArchiveEvent::Cut`]). Default: 1 GiB.
    pub fn behind_max(mut self, bytes: u64) -> Self {
        self.behind_bytes_max = bytes;
        self
    }

    /// Sets how long [`Store::close`](crate::Store::close) waits until the last commits are sent.
    /// Default: 10 seconds. The rest is sent after the next opening.
    pub fn close_wait(mut self, longest: Duration) -> Self {
        self.close_wait = longest;
        self
    }

    /// Sets a function that is called with each event, on the thread of the archive, while no lock
    /// is held: it may read, write and close the store. If it panics, the panic is printed and has
    /// no other effect. Default: none.
    pub fn on_event(mut self, f: impl Fn(&ArchiveEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Callback::new(Arc::new(f)));
        self
    }

    /// Returns `Contradiction` if the options contradict each other.
    pub(crate) fn check(&self) -> Result<()> {
        if self.every.is_zero() {
            return contradiction(
                "an archive that sends every 0 seconds would never rest: use a second or more",
            );
        }
        if self.keep == Some(0) {
            return contradiction("an archive keeps 1 image or more");
        }
        if !self.keep_for.is_zero() && self.keep.is_none() {
            return contradiction(
                "without `keep` an archive removes nothing: set `keep` beside `keep_for`",
            );
        }
        if self.required_after.is_some_and(|after| after <= self.every) {
            return contradiction(
                "an archive cannot be required sooner than it sends: make `require` longer than \
                 `every`",
            );
        }
        Ok(())
    }
}

impl Store {
    /// Sends all commits that were made before this call to the [archive](Archive), and waits for
    /// it. Returns the last commit that can be restored.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::remote::Memory;
    /// use codex_core::{Archive, Store};
    /// use std::sync::Arc;
    /// let archive = Archive::to(Arc::new(Memory::new())).plain_objects(true);
    /// let store = Store::options().archive(archive).open(&path)?;
    /// store.set("order", &1)?;
    /// assert_eq!(store.archive_now()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The fault of the place, after which a later attempt is made as if this call had not been;
    /// `Contradiction` if the store has no archive, or in a callback of it; `Closed`.
    pub fn archive_now(&self) -> Result<Seq> {
        self.inner.check_writable()?;
        let archive = self.inner.archive.as_ref().ok_or(StorageError::Contradiction(NO_ARCHIVE))?;
        archive.send_now()
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (target, every) = (&self.target, &self.every);
        f.debug_struct("Archive")
            .field("target", target)
            .field("every", every)
            .finish_non_exhaustive()
    }
}

/// Two archives are equal if they have the same place and the same options.
impl PartialEq for Archive {
    fn eq(&self, other: &Self) -> bool {
        let Self { target, on_event, every, plain_objects, .. } = self;
        Arc::ptr_eq(target, &other.target)
            && (on_event, every, plain_objects)
                == (&other.on_event, &other.every, &other.plain_objects)
            && (self.required_after, self.keep, self.keep_for, self.verify_every)
                == (other.required_after, other.keep, other.keep_for, other.verify_every)
            && (self.behind_bytes_max, self.close_wait)
                == (other.behind_bytes_max, other.close_wait)
    }
}

// A panic in a method of the target leaves no state of this type behind.
impl std::panic::UnwindSafe for Archive {}
impl std::panic::RefUnwindSafe for Archive {}

/// An event of the archive of an open store.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ArchiveEvent {
    /// A new image was read back and listed.
    Image {
        /// The last commit in it.
        seq: Seq,
    },
    /// The archive has all commits again, after an attempt that failed.
    Resumed {
        /// The last commit in the archive.
        seq: Seq,
    },
    /// An attempt failed. Images and pieces that were sent before are not affected. It is tried
    /// again.
    Failed {
        /// The reason.
        error: Error,
    },
    /// Too much waited for the place. The states after these commits cannot be restored, but later
    /// ones can.
    Cut {
        /// The commits.
        commits: RangeInclusive<Seq>,
    },
    /// Another archive has begun at the place, so this one has ended: two stores would overwrite
    /// each other's history. Open the store again with another place, or end the other archive.
    Stopped {
        /// The reason.
        error: Error,
    },
}

/// Statistics of an archive, part of [`Stats`](crate::Stats).
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct ArchiveStats {
    /// The last commit that can be restored; 0 before the first image.
    pub seq: Seq,
    /// The time for which the oldest commit that cannot be restored has waited at most, in
    /// microseconds. 0 if there is none.
    pub lag_us: u64,
    /// The name of the newest image, which begins the line of states that the archive continues.
    pub image: Option<String>,
    /// The number of images that were sent since the opening.
    pub images: u64,
    /// The number of pieces of logs that were sent since the opening.
    pub pieces: u64,
    /// The number of attempts that failed since the opening.
    pub failed: u64,
    /// The error of the last attempt, if it failed.
    pub last_error: Option<String>,
    /// The first and the last commit of the last [cut](ArchiveEvent::Cut), if there was one since
    /// the opening.
    pub cut: Option<(Seq, Seq)>,
    /// Whether the archive has [ended](ArchiveEvent::Stopped).
    pub is_stopped: bool,
}

/// `name=value` for a log, as the other [`Stats`](crate::Stats) are shown.
impl fmt::Display for ArchiveStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "archive_seq={} archive_lag_us={}", self.seq, self.lag_us)?;
        write!(f, " archive_images={} archive_pieces={}", self.images, self.pieces)?;
        write!(f, " archive_failed={}", self.failed)?;
        if let Some((first, last)) = self.cut {
            write!(f, " archive_cut={first}-{last}")?;
        }
        if let Some(error) = &self.last_error {
            write!(f, " archive_error={error:?}")?;
        }
        Ok(())
    }
}

const NO_ARCHIVE: &str = "the store was opened without an archive: set `archive`";

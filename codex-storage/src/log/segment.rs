//! Making a log: written completely under a temporary name, synced, read back, and then renamed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::LogEnd;
use super::space::{LogSpace, SPACE_MIN, STEP_MAX, STEP_MIN, is_full, write_zeros};
use super::write::LogWriter;
use crate::codec::{is_zero, usize_of};
use crate::error::{Error, Result};
use crate::header::{Found, HEADER_LEN, Header};
use crate::seal::Seal;
use crate::storage::Durability;
use crate::vfs::{File, Mode, Open, Vfs};

/// The file of a log, and the way in which it is written.
#[derive(Debug, Clone)]
pub(crate) struct LogPlace {
    /// The directory, the clock and the entropy.
    pub(crate) vfs: Vfs,
    /// The name of the file of the log.
    pub(crate) name: String,
    /// The root key of the store; `None` in a plain one.
    pub(crate) seal: Option<Arc<dyn Seal>>,
    /// The level at which a commit is acknowledged.
    pub(crate) durability: Durability,
}

impl LogPlace {
    /// Returns the path of the log, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        self.vfs.dir.path(&self.name)
    }
}

/// A log without frames that is complete and durable, except for its name.
#[derive(Debug)]
pub(crate) struct NewLog {
    place: LogPlace,
    header: Header,
    temporary: String,
    pub(super) file: Arc<dyn File>,
    /// The length of the file, in bytes.
    len: u64,
}

impl NewLog {
    /// Writes the log under the name `temporary`, syncs it and reads it back. A file that has this
    /// name is removed first.
    ///
    /// `expected` is the length to which the log is expected to grow, in bytes. It gets this much
    /// space at once if that takes no time, which is so if the space is not zeroed.
    ///
    /// # Errors
    /// `NoSpace` or `Io` if the log cannot be written, `Damaged` if it does not read back as
    /// written. The log has no name yet, and the temporary file is removed if possible.
    pub(crate) fn write(
        place: LogPlace,
        header: Header,
        temporary: String,
        expected: u64,
    ) -> Result<Self> {
        let path = place.vfs.dir.path(&temporary);
        if place.vfs.dir.metadata(&temporary).is_ok_and(|found| found.is_some()) {
            let removed = place.vfs.dir.remove(&temporary);
            removed.map_err(|e| Error::io("remove the leftover", &path, e))?;
        }
        let file = place
            .vfs
            .dir
            .open(&temporary, Open::CreateNew(Mode::Private))
            .map_err(|e| Error::io("create", &path, e))?;
        let len = if place.durability == Durability::Sync { 0 } else { expected };
        // A large part of the free space stays free: for the image, above all.
        let free = place.vfs.dir.available_bytes().ok().flatten().unwrap_or(u64::MAX);
        let len = len.min(free / 8).next_multiple_of(STEP_MIN).clamp(STEP_MIN, STEP_MAX);
        let mut new = Self { place, header, temporary, file, len };
        let mut written = new.fill();
        // If the disk is too full for a segment of normal length, one of the smallest length is
        // tried.
        if matches!(written, Err(Error::NoSpace { .. })) && new.file.set_len(0).is_ok() {
            new.len = SPACE_MIN;
            written = new.fill();
        }
        match written {
            Ok(()) => Ok(new),
            Err(error) => {
                new.discard();
                Err(error)
            }
        }
    }

    /// Removes the log, which does not have its name yet.
    pub(crate) fn discard(self) {
        // An error is ignored: the next open removes a leftover.
        let _ = self.place.vfs.dir.remove(&self.temporary);
    }

    /// Gives the log its name, durably.
    ///
    /// # Errors
    /// `Io` if the rename or the sync of the directory fails. The log may or may not have its name.
    pub(crate) fn publish(self) -> Result<LogWriter> {
        let dir = &self.place.vfs.dir;
        let path = self.place.path();
        // Order: the file was synced before this rename, so that the name never refers to an
        // incomplete log. The sync of the directory comes before the first frame, so that no commit
        // is lost with the name.
        dir.rename(&self.temporary, &self.place.name)
            .map_err(|e| Error::io("rename the new log to", &path, e))?;
        dir.sync().map_err(|e| Error::io("sync the folder of", &path, e))?;
        Ok(self.into_writer())
    }

    /// Returns the writer of the log, which may or may not have its name.
    pub(super) fn into_writer(self) -> LogWriter {
        let end = LogEnd::base(&self.header);
        let space = LogSpace::fresh(Arc::clone(&self.file), self.len, self.place.durability);
        LogWriter::new(self.place, self.file, &self.header, end, space)
    }

    /// Allocates the space, writes the first zeros and the header, syncs them and reads them back.
    fn fill(&self) -> Result<()> {
        let path = self.place.vfs.dir.path(&self.temporary);
        let (file, len) = (&*self.file, self.len);
        let header = self.header.encode(self.place.seal.as_deref());
        // Allocated first, so that a full disk is found before anything is written.
        file.allocate(0, len)
            .and_then(|()| write_zeros(file, 0, len.min(STEP_MIN)))
            .and_then(|()| file.write_all_at(&header, 0))
            .map_err(|e| {
                if is_full(&e) {
                    return Error::NoSpace { path: path.clone(), needed: len };
                }
                Error::io("write", &path, e)
            })?;
        // Order: the sync before reading back, so that the bytes that are checked are durable.
        file.sync().map_err(|e| Error::io("sync", &path, e))?;
        self.read_back(&path)
    }

    /// Reads the bytes that were written again: the header must be the same, and the rest zero.
    #[expect(clippy::indexing_slicing, reason = "a log is longer than its header")]
    fn read_back(&self, path: &Path) -> Result<()> {
        let found = Found::read(&*self.file, path)?;
        let found = found.authenticate(self.place.seal.as_deref(), path)?;
        let mut bytes = vec![0xFF; usize_of(self.len.min(STEP_MIN))];
        self.file.read_exact_at(&mut bytes, 0).map_err(|e| Error::io("read back", path, e))?;
        if found != self.header || !is_zero(&bytes[HEADER_LEN..]) {
            let what = "a new log does not read back as it was written";
            return Err(Error::Damaged { path: path.to_owned(), offset: 0, what });
        }
        Ok(())
    }
}

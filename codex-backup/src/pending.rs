//! Reads the record of an interrupted restore.

use codex_storage::restore_is_pending;
use codex_storage::vfs::{Kind, Open};

use crate::backups::Backups;
use crate::copy;
use crate::error::{Error, Named, Result};
use crate::intent::Intent;

/// An interrupted restore.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pending {
    /// The backup that is restored, or `None` if the caller produced the bytes.
    pub from: Option<String>,
    /// The version that is restored.
    pub seq: u64,
    /// The replaced files: the old name and the name under which each is kept.
    pub replaced: Vec<(String, String)>,
}

impl Backups {
    /// Returns the interrupted restore, or `None` if there is none. While a restore is pending, the
    /// file must not be read either, because it may be missing or still be the old one. Writes
    /// nothing and takes no lock.
    ///
    /// # Errors
    ///
    /// [`Error::RestoreBroken`] if the record is damaged.
    pub fn pending_restore(&self) -> Result<Option<Pending>> {
        let pending = |intent: Intent| Pending {
            seq: intent.facts.seq,
            from: Some(intent.origin).filter(|origin| !origin.is_empty()),
            replaced: intent.moves,
        };
        Ok(self.intent()?.map(pending))
    }

    /// Returns true if there is a record of a restore, also of one that was interrupted after its
    /// last step. [`finish_restore`](Self::finish_restore) then has work to do. Takes no lock.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the disk reports an error.
    pub fn has_restore_record(&self) -> Result<bool> {
        Ok(self.record()?.is_some())
    }

    /// Returns [`Error::RestorePending`] if a restore was interrupted.
    pub(crate) fn refuse_pending(&self) -> Result<()> {
        let Some(intent) = self.intent()? else { return Ok(()) };
        Err(Error::RestorePending { path: self.dir().path(self.name()), from: origin_of(&intent) })
    }

    /// Returns the error for a restore that cannot be finished.
    pub(crate) fn broken(&self, what: &str) -> Error {
        let path = self.dir().path(&self.names.restore_record());
        Error::RestoreBroken { path, what: what.to_owned() }
    }

    /// Returns whether there is a record of a restore that is not finished.
    pub(crate) fn is_pending(&self) -> Result<bool> {
        Ok(self.record()? == Some(true))
    }

    /// Returns whether there is a record, and if so, whether its restore is still to be finished.
    pub(crate) fn record(&self) -> Result<Option<bool>> {
        let found = restore_is_pending(&self.vfs, &self.names);
        found.named("look at", self.dir(), &self.names.restore_record())
    }

    /// Reads the record of a pending restore. Returns `None` if there is none.
    pub(crate) fn intent(&self) -> Result<Option<Intent>> {
        let dir = self.dir();
        let record = self.names.restore_record();
        match dir.metadata(&record).named("look at", dir, &record)? {
            None => return Ok(None),
            Some(found) if found.kind == Kind::File => {}
            Some(_) => return Err(copy::not_a_file(dir, &record, self.name())),
        }
        let file = match dir.open(&record, Open::Read).named("open", dir, &record) {
            // Another process finished the restore between the two calls.
            Err(Error::Missing { .. }) => return Ok(None),
            file => file?,
        };
        let len = file.len().named("read", dir, &record)?;
        let len = usize::try_from(len).ok().filter(|&len| len <= LIMIT_BYTES);
        let mut bytes = vec![0; len.ok_or_else(|| self.broken("its record is too long"))?];
        file.read_exact_at(&mut bytes, 0).named("read", dir, &record)?;
        if bytes.first() == Some(&FINISHED) {
            return Ok(None);
        }
        Intent::decode(&self.names, &bytes).map(Some).map_err(|what| self.broken(what))
    }
}

/// Returns the source of the restore, for messages.
fn origin_of(intent: &Intent) -> String {
    if intent.origin.is_empty() {
        "bytes from the caller".to_owned()
    } else {
        intent.origin.clone()
    }
}

/// The first byte of the record of a finished restore. One byte is written wholly or not at all.
pub(crate) const FINISHED: u8 = 0;

/// The maximum length of a record: more than one with the maximum number of moves and the longest
/// names.
const LIMIT_BYTES: usize = 64 * 1024 * 1024;

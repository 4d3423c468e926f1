//! The record `meta` of a shared log: who the store is, and the envelope of its key.
//!
//! The layout is in `docs/FORMAT.md`, sections "Header" and "Shared log".

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Position, RecordName, SharedError, SharedLog};
use crate::batch::Seq;
use crate::error::{Error, Result};
use crate::header::{FileKind, Found, HEADER_LEN, Header};
use crate::history::History;
use crate::main_file::MainFile;
use crate::null;
use crate::seal::{Keys, Seal, Unlocked};
use crate::storage::{Form, OpSink, Storage};
use crate::vfs::{Clock, Entropy};
use crate::wal::replay_archived;

/// The store on a shared log: its id, and its root key if it is encrypted.
pub struct Meta {
    header: Header,
    seal: Option<Arc<dyn Seal>>,
}

impl Meta {
    /// Returns the store on `log`. If the log is empty, makes a new store, which is encrypted if
    /// there are `keys`. Of several nodes that do this at once, one makes the store.
    ///
    /// # Errors
    /// - `NoMeta` if the log has entries, and no record that says whose they are.
    /// - `KeyRequired`, `NotEncrypted`, `WrongKey`, `Tampered`, `Seal`, and the errors of a header,
    ///   as those of a file.
    /// - `Away`. Then a store may have been made.
    pub fn open(
        log: &dyn SharedLog,
        keys: Option<&dyn Keys>,
        entropy: &dyn Entropy,
        clock: &dyn Clock,
        timeout: Duration,
    ) -> Result<Self> {
        let end = clock.monotonic().saturating_add(timeout);
        let left = || end.saturating_sub(clock.monotonic());
        let mut made: Option<(Self, [u8; HEADER_LEN])> = None;
        loop {
            let found = log.record(RecordName::Meta, left())?;
            let (meta, bytes) = match (found, made.take()) {
                (Some(found), Some((meta, bytes))) if found.bytes == bytes => return Ok(meta),
                (Some(found), _) => return Self::read(&found.bytes, keys),
                (None, Some(made)) => made,
                (None, None) if is_empty(log, left())? => Self::create(keys, entropy, clock)?,
                (None, None) => {
                    // Another node may have made the store, and written, since the first look.
                    let found = log.record(RecordName::Meta, left())?;
                    return Self::read(&found.ok_or(SharedError::NoMeta)?.bytes, keys);
                }
            };
            match log.set_record(RecordName::Meta, None, &bytes, left()) {
                // Order: read what is there now. Another node may have been first, and a call
                // without an answer may have been done.
                Ok(_) => {}
                Err(Error::Shared(SharedError::Away { .. })) if !left().is_zero() => {
                    clock.sleep(PAUSE);
                }
                Err(error) => return Err(error),
            }
            made = Some((meta, bytes));
        }
    }

    /// Checks that the record still is that of this store.
    ///
    /// # Errors
    /// `MetaChanged` if it is not; `Away`.
    pub(super) fn check(&self, log: &dyn SharedLog, timeout: Duration) -> Result<()> {
        let changed = |what| Err(SharedError::MetaChanged { what }.into());
        let Some(now) = log.record(RecordName::Meta, timeout)? else {
            return changed("is gone");
        };
        let Ok(Found { header: now, .. }) = parse(&now.bytes) else {
            return changed("cannot be read");
        };
        // The envelope may be another one.
        if (now.store_id, now.root_id) != (self.header.store_id, self.header.root_id) {
            return changed("names another store");
        }
        Ok(())
    }

    /// Returns the id of the store.
    pub fn store_id(&self) -> &[u8; 16] {
        &self.header.store_id
    }

    /// Returns the root key, if the store is encrypted.
    pub fn seal(&self) -> Option<&Arc<dyn Seal>> {
        self.seal.as_ref()
    }

    /// Returns the storage of a node. It has no files: it numbers commits, and its
    /// [`anchor`](Storage::anchor) is a digest of all groups, which is the same on all nodes.
    pub fn storage(&self) -> Box<dyn Storage> {
        self.storage_after(History::base(&self.header))
    }

    /// Passes the state in the image `main` to `sink`. Returns the storage of a node that has this
    /// state.
    ///
    /// # Errors
    /// `Damaged` if the image is that of another store, or of another commit than `seq`; the errors
    /// of reading an image; those of `sink`.
    pub fn load(
        &self,
        main: &MainFile,
        seq: Seq,
        sink: &mut OpSink<'_>,
    ) -> Result<Box<dyn Storage>> {
        let keys = self.seal.clone().map(Unlocked::new);
        let keys = keys.as_ref().map(|keys| keys as &dyn Keys);
        let replayed = replay_archived(main, &[], keys, seq, sink)?;
        if main.store_id() != *self.store_id() {
            let what = "the newest image is that of another store";
            return Err(Error::Damaged { path: PATH.into(), offset: 0, what });
        }
        Ok(self.storage_after(replayed.into_history()))
    }

    fn storage_after(&self, history: History) -> Box<dyn Storage> {
        null::shared(self.header.clone(), history, self.seal.clone())
    }

    /// Makes a new store. Returns its record too.
    fn create(
        keys: Option<&dyn Keys>,
        entropy: &dyn Entropy,
        clock: &dyn Clock,
    ) -> Result<(Self, [u8; HEADER_LEN])> {
        let (path, now_us) = (Path::new(PATH), clock.now_us());
        let mut header = Header::drawn(entropy, now_us, path, FileKind::Meta, Form::Wal)?;
        let mut seal = None;
        if let Some(keys) = keys {
            let (sealed, root) = header.under_fresh_root(keys, path)?;
            (header, seal) = (sealed, Some(root));
        }
        let bytes = header.encode(seal.as_deref());
        Ok((Self { header, seal }, bytes))
    }

    /// Opens the store of the record `bytes`.
    fn read(bytes: &[u8], keys: Option<&dyn Keys>) -> Result<Self> {
        let (header, seal) = parse(bytes)?.unlock(keys, Path::new(PATH))?;
        Ok(Self { header, seal })
    }
}

impl fmt::Debug for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meta").field("is_sealed", &self.seal.is_some()).finish_non_exhaustive()
    }
}

/// Parses the record. It is not authenticated.
fn parse(bytes: &[u8]) -> Result<Found> {
    let damaged = |what| Error::Damaged { path: PATH.into(), offset: 0, what };
    let found = Found::parse(bytes.get(..HEADER_LEN).unwrap_or(bytes), Path::new(PATH))?;
    if bytes.len() > HEADER_LEN || found.header.kind != FileKind::Meta {
        return Err(damaged("the header is not that of a shared log"));
    }
    Ok(found)
}

/// Returns whether `log` has no entry and no image.
fn is_empty(log: &dyn SharedLog, timeout: Duration) -> Result<bool> {
    if log.record(RecordName::Image, timeout)?.is_some() {
        return Ok(false);
    }
    let head = log.head(timeout)?;
    let (mut at, mut has_entry) = (Position::default(), false);
    while at < head && !has_entry {
        let read = log.read(at, &mut |_| {
            has_entry = true;
            Ok(())
        });
        at = match read {
            Ok(upto) => upto,
            Err(Error::Shared(SharedError::Trimmed { .. })) => return Ok(false),
            Err(error) => return Err(error),
        };
    }
    Ok(!has_entry)
}

/// The record, in errors.
const PATH: &str = "the record `meta` of the shared log";
/// The pause between two calls to a log that does not answer.
const PAUSE: Duration = Duration::from_millis(10);

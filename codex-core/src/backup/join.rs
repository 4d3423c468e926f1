//! What a backup has to know of a store's files, and where the bytes of one come from.

use std::io;
use std::path::Path;
use std::sync::Arc;

use codex_backup::{Cause, Depth, Facts, Flaw, Inspect, Reading, Source, WriteAt};
use codex_storage::seal::Keys;
use codex_storage::storage::Form;
use codex_storage::vfs::{File, Open, Vfs};
use codex_storage::{
    Error as StorageError, FileFacts, file_facts, file_is_encrypted, file_store_id, verify_file,
};

use crate::error::Result;

/// Reads the main files of stores: images and ledgers.
#[derive(Debug, Clone)]
pub(crate) struct StoreFile {
    /// The key, for whoever wants the contents of an encrypted file verified too.
    pub(crate) keys: Option<Arc<dyn Keys>>,
}

impl Inspect for StoreFile {
    fn identity(&self, file: &Arc<dyn File>) -> Result<Vec<u8>, Flaw> {
        file_store_id(&**file, Path::new(LABEL)).map(Vec::from).map_err(flaw)
    }

    fn facts(&self, file: &Arc<dyn File>, reading: &mut Reading<'_>) -> Result<Facts, Flaw> {
        let mut go_on = |bytes| reading(bytes).is_continue();
        file_facts(file, Path::new(LABEL), &mut go_on).map(facts).map_err(flaw)
    }

    fn verify(
        &self,
        file: &Arc<dyn File>,
        depth: Depth,
        reading: &mut Reading<'_>,
    ) -> Result<Facts, Flaw> {
        let keys = match depth {
            Depth::Checksums => None,
            Depth::Full => self.keys_for(file)?,
        };
        let mut go_on = |bytes| reading(bytes).is_continue();
        verify_file(file, Path::new(LABEL), keys, &mut go_on).map(facts).map_err(flaw)
    }
}

impl StoreFile {
    /// What opens the contents of `file`, if they are encrypted.
    fn keys_for(&self, file: &Arc<dyn File>) -> Result<Option<&dyn Keys>, Flaw> {
        if !file_is_encrypted(&**file, Path::new(LABEL)).map_err(flaw)? {
            return Ok(None);
        }
        let needed = || Flaw::NeedsKey { what: "the key of the store".to_owned() };
        self.keys.as_deref().map(Some).ok_or_else(needed)
    }
}

/// Calls `f` with the source of a backup of the main file `name`, and what that file says of
/// itself: one state of it, whatever takes its name meanwhile. A file of more than `link_above`
/// bytes may get a second name. Of a ledger, the first `upto` bytes are taken.
pub(crate) fn with_source<R>(
    vfs: &Vfs,
    name: &str,
    link_above: u64,
    upto: Option<u64>,
    f: impl FnOnce(Source<'_>, Option<&Facts>) -> R,
) -> Result<R> {
    if let Some(upto) = upto {
        return Ok(f(Source::Growing { name, upto }, None));
    }
    let path = vfs.dir.path(name);
    let file = vfs.dir.open(name, Open::Read).map_err(|source| StorageError::Io {
        action: "open",
        path: path.clone(),
        source: Arc::new(source),
    })?;
    let found = file_facts(&file, &path, &mut |_| true)?;
    if found.form == Form::Ledger {
        return Ok(f(Source::Growing { name, upto: found.bytes }, None));
    }
    let about = facts(found.clone());
    if !found.continued || found.bytes > link_above {
        // An image was read back, byte for byte, before it got its name.
        return Ok(f(Source::Frozen { name, proven: true }, Some(&about)));
    }
    let mut write = |to: &mut WriteAt<'_>| {
        codex_storage::write_whole(&file, &path, to).map_err(|error| Cause::from(error.to_string()))
    };
    Ok(f(Source::Write { size: found.bytes, write: &mut write }, Some(&about)))
}

pub(crate) fn facts(found: FileFacts) -> Facts {
    let mut facts = Facts::new(found.store_id, found.seq);
    facts.mark = found.mark;
    facts.time_us = Some(found.created_us);
    facts.form = found.form.to_string();
    facts.encrypted = found.encrypted;
    facts.frozen = found.frozen;
    facts.size = found.bytes;
    facts
}

fn flaw(error: StorageError) -> Flaw {
    match error {
        StorageError::Io { source, .. } => {
            Flaw::Read(io::Error::new(source.kind(), source.to_string()))
        }
        StorageError::Damaged { offset, what, .. } => {
            Flaw::Damaged { offset, what: what.to_owned() }
        }
        StorageError::TailSuspect { offset, .. } => {
            Flaw::Damaged { offset, what: "the end is neither intact nor a torn write".to_owned() }
        }
        StorageError::Tampered { offset, .. } => {
            Flaw::Damaged { offset, what: "the bytes fail authentication".to_owned() }
        }
        StorageError::WrongKey { .. } => {
            Flaw::NeedsKey { what: "the one given does not open it".to_owned() }
        }
        StorageError::Abandoned { .. } => Flaw::Stopped,
        StorageError::EmptyFile { .. } => Flaw::Alien { what: "an empty file".to_owned() },
        StorageError::NotADatabase { .. } => Flaw::Alien { what: "no CodexDB file".to_owned() },
        other => Flaw::Alien { what: other.to_string() },
    }
}

/// Stands for the path in messages that name it themselves.
const LABEL: &str = "the file";

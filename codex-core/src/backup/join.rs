//! What a backup has to know of a store's files, and where the bytes of one come from.

use std::io;
use std::path::Path;
use std::sync::Arc;

use codex_backup::{Cause, Depth, Facts, Inspect, InspectError, Reading, Source, Trust, WriteAt};
use codex_storage::batch::Seq;
use codex_storage::seal::{Keys, Seal, Unlocked};
use codex_storage::storage::Form;
use codex_storage::vfs::{File, Open, Vfs};
use codex_storage::{
    Error as StorageError, FileFacts, file_authenticate, file_facts, file_id, file_root_id,
    file_store_id, ledger_upto, verify_file,
};

use crate::error::Result;

/// Reads the main files of stores: images and ledgers.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoreFile {
    opens: Opens,
}

/// What authenticates the files.
#[derive(Debug, Clone, Default)]
enum Opens {
    /// Nothing: checksums alone speak for them.
    #[default]
    Nothing,
    /// A user's key, which may open files under several roots.
    Key(Arc<dyn Keys>),
    /// The root key of an open store.
    Root(Arc<dyn Seal>),
}

impl StoreFile {
    /// For a caller that has this key, if any.
    pub(crate) fn with_key(keys: Option<Arc<dyn Keys>>) -> Self {
        Self { opens: keys.map_or(Opens::Nothing, Opens::Key) }
    }

    /// For an open store whose root key, if it is encrypted, is `seal`.
    pub(crate) fn under(seal: Option<Arc<dyn Seal>>) -> Self {
        Self { opens: seal.map_or(Opens::Nothing, Opens::Root) }
    }

    /// Authenticates the header of `file`, if there is a key.
    fn authenticate(&self, file: &Arc<dyn File>) -> Result<Trust, StorageError> {
        let (file, path) = (&**file, Path::new(LABEL));
        match &self.opens {
            Opens::Nothing => return Ok(Trust::Unchecked),
            Opens::Key(keys) => file_authenticate(file, path, &**keys)?,
            Opens::Root(seal) => match file_root_id(file, path)? {
                Some(root) if root != seal.root_id() => return Ok(Trust::OtherKey),
                _ => file_authenticate(file, path, &Unlocked::new(Arc::clone(seal)))?,
            },
        }
        Ok(Trust::Authentic)
    }

    /// Refuses a file that does not count.
    fn refuse(&self, file: &Arc<dyn File>) -> Result<(), InspectError> {
        let what = match self.trust(file)? {
            Trust::Plain => "it is not encrypted, and the store is",
            Trust::Forged => "its header was changed",
            Trust::OtherKey => {
                let what = match self.authenticate(file) {
                    Err(StorageError::Seal { source, .. }) => source.to_string(),
                    Ok(_) => "it is under another root key than the store".to_owned(),
                    Err(_) => "the one given does not open it".to_owned(),
                };
                return Err(InspectError::NeedsKey { what });
            }
            _ => return Ok(()),
        };
        Err(InspectError::Unauthentic { what: what.to_owned() })
    }
}

impl Inspect for StoreFile {
    fn identity(&self, file: &Arc<dyn File>) -> Result<Vec<u8>, InspectError> {
        file_store_id(&**file, Path::new(LABEL)).map(Vec::from).map_err(inspect_error)
    }

    fn trust(&self, file: &Arc<dyn File>) -> Result<Trust, InspectError> {
        match self.authenticate(file) {
            Ok(trust) => Ok(trust),
            Err(StorageError::NotEncrypted { .. }) => Ok(Trust::Plain),
            // Not tried, or an envelope that this build does not know.
            Err(StorageError::WrongKey { .. } | StorageError::Seal { .. }) => Ok(Trust::OtherKey),
            Err(StorageError::Tampered { .. }) => Ok(Trust::Forged),
            Err(error) => Err(inspect_error(error)),
        }
    }

    fn facts(
        &self,
        file: &Arc<dyn File>,
        reading: &mut Reading<'_>,
    ) -> Result<Facts, InspectError> {
        let mut go_on = |bytes| reading(bytes).is_continue();
        file_facts(file, Path::new(LABEL), &mut go_on).map(facts).map_err(inspect_error)
    }

    fn verify(
        &self,
        file: &Arc<dyn File>,
        depth: Depth,
        reading: &mut Reading<'_>,
    ) -> Result<Facts, InspectError> {
        self.refuse(file)?;
        let (path, mut go_on) = (Path::new(LABEL), |bytes| reading(bytes).is_continue());
        let mut verify =
            |keys| verify_file(file, path, keys, &mut go_on).map(facts).map_err(inspect_error);
        match (depth, &self.opens) {
            (Depth::Checksums, _) => verify(None),
            (Depth::Full, Opens::Key(keys)) => verify(Some(&**keys)),
            (Depth::Full, Opens::Root(seal)) => verify(Some(&Unlocked::new(Arc::clone(seal)))),
            (Depth::Full, Opens::Nothing) => {
                if file_root_id(&**file, path).map_err(inspect_error)?.is_some() {
                    return Err(InspectError::NeedsKey { what: "the key of the store".to_owned() });
                }
                verify(None)
            }
        }
    }

    fn deepest(&self) -> Depth {
        match self.opens {
            Opens::Nothing => Depth::Checksums,
            Opens::Key(_) | Opens::Root(_) => Depth::Full,
        }
    }
}

/// A ledger up to a commit: the open file, which keeps these bytes whatever takes its name.
#[derive(Debug)]
pub(crate) struct Grown {
    file: Arc<dyn File>,
    seq: Seq,
}

impl Grown {
    /// The commit.
    pub(crate) fn seq(&self) -> Seq {
        self.seq
    }

    /// Whether its root key is `seal`; `None` for a file that is not encrypted. `path` stands in
    /// errors.
    pub(crate) fn is_under(&self, seal: Option<&dyn Seal>, path: &Path) -> Result<bool> {
        Ok(file_root_id(&*self.file, path)? == seal.map(Seal::root_id))
    }
}

/// Settles a ledger by `settle`, which makes it durable and says how long it is then, and which
/// commit is the last.
///
/// A change of the key or a rekey may put a copy in the ledger's place at any moment, which grows
/// instead of it: so the file is opened first, and if it has its name afterwards, the length is of
/// it.
pub(crate) fn settle_ledger(
    vfs: &Vfs,
    name: &str,
    settle: impl Fn() -> Result<(u64, Seq)>,
) -> Result<Grown> {
    let path = vfs.dir.path(name);
    loop {
        let file = open(vfs, name)?;
        let (upto, seq) = settle()?;
        let replaced = file_id(&*file, &path)? != file_id(&*open(vfs, name)?, &path)?;
        if !replaced {
            return Ok(Grown { file: ledger_upto(file, &path, upto, seq)?, seq });
        }
    }
}

/// Which state of a main file a backup takes, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Take<'a> {
    /// The image, or the closed ledger, that has the name now.
    Named,
    /// The same, by its bytes alone: for an image that is replaced again and again.
    Bytes,
    /// A ledger that goes on growing, up to here.
    Grown(&'a Grown),
}

impl<'a> Take<'a> {
    /// What to take after `rounds` in which another image took the name between the look and the
    /// copy.
    pub(crate) fn after(rounds: u32, grown: Option<&'a Grown>) -> Self {
        match grown {
            Some(grown) => Self::Grown(grown),
            None if rounds > 0 => Self::Bytes,
            None => Self::Named,
        }
    }
}

/// Calls `f` with the source of a backup of the main file `name`, and what that file says of
/// itself: one state of it, whatever takes its name meanwhile.
pub(crate) fn with_source<R>(
    vfs: &Vfs,
    name: &str,
    take: Take<'_>,
    f: impl FnOnce(Source<'_>, Option<&Facts>) -> R,
) -> Result<R> {
    let whole = |file: &Arc<dyn File>| {
        file.len().map_err(|source| StorageError::Io {
            action: "look at",
            path: vfs.dir.path(name),
            source: Arc::new(source),
        })
    };
    if let Take::Grown(Grown { file, .. }) = take {
        return Ok(f(Source::Opened { name, file, upto: whole(file)? }, None));
    }
    let path = vfs.dir.path(name);
    let file = open(vfs, name)?;
    let found = file_facts(&file, &path, &mut |_| true)?;
    let upto = found.bytes;
    if found.form == Form::Ledger {
        let file = &ledger_upto(file, &path, upto, found.seq)?;
        return Ok(f(Source::Opened { name, file, upto: whole(file)? }, None));
    }
    let about = facts(found.clone());
    if found.continued {
        let mut write = |to: &mut WriteAt<'_>| {
            let written = codex_storage::write_whole(&file, &path, to);
            written.map_err(|error| Cause::from(error.to_string()))
        };
        return Ok(f(Source::Write { size: upto, write: &mut write }, Some(&about)));
    }
    let source = match take {
        Take::Named => Source::Frozen { name },
        _ => Source::Opened { name, file: &file, upto },
    };
    Ok(f(source, Some(&about)))
}

fn open(vfs: &Vfs, name: &str) -> Result<Arc<dyn File>> {
    let opened = vfs.dir.open(name, Open::Read).map_err(|source| StorageError::Io {
        action: "open",
        path: vfs.dir.path(name),
        source: Arc::new(source),
    });
    Ok(opened?)
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

fn inspect_error(error: StorageError) -> InspectError {
    match error {
        StorageError::Io { source, .. } => {
            InspectError::Read(io::Error::new(source.kind(), source.to_string()))
        }
        StorageError::Damaged { offset, what, .. } => {
            InspectError::Damaged { offset, what: what.to_owned() }
        }
        StorageError::TailSuspect { offset, .. } => InspectError::Damaged {
            offset,
            what: "the end is neither intact nor a torn write".to_owned(),
        },
        StorageError::Tampered { offset, .. } => InspectError::Unauthentic {
            what: format!("the bytes at offset {offset} were changed, moved or replaced"),
        },
        StorageError::NotEncrypted { .. } => {
            InspectError::Unauthentic { what: "it is not encrypted, and the store is".to_owned() }
        }
        StorageError::WrongKey { .. } => {
            InspectError::NeedsKey { what: "the one given does not open it".to_owned() }
        }
        StorageError::Abandoned { .. } => InspectError::Stopped,
        StorageError::EmptyFile { .. } => InspectError::Alien { what: "an empty file".to_owned() },
        StorageError::NotADatabase { .. } => {
            InspectError::Alien { what: "no CodexDB file".to_owned() }
        }
        other => InspectError::Alien { what: other.to_string() },
    }
}

/// Stands for the path in messages that name it themselves.
const LABEL: &str = "the file";

#[cfg(all(test, feature = "crypto", not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::cell::Cell;

    use codex_crypto::Key;

    use super::*;
    use crate::store::Store;

    #[test]
    fn a_ledger_that_a_rekey_replaces_before_its_length_is_known_is_opened_again() {
        let vfs = Vfs::mem(1);
        let key = |n| Key::raw(&[n; 32]).unwrap();
        let options = Store::options().form(Form::Ledger).key(key(1));
        let store = options.open_in(&vfs, "a.db").unwrap();
        store.set("key", &1).unwrap();
        let rounds = Cell::new(0);
        let grown = settle_ledger(&vfs, "a.db", || {
            if rounds.replace(rounds.get() + 1) == 0 {
                store.rekey(key(2)).unwrap();
            }
            let stats = store.stats().storage;
            Ok((stats.log_bytes, stats.seq))
        });
        let grown = grown.unwrap();
        let path = Path::new("a.db");
        let now = file_id(&*open(&vfs, "a.db").unwrap(), path).unwrap();
        assert_eq!(file_id(&*grown.file, path).unwrap(), now, "the file that was replaced");
        assert_eq!(rounds.get(), 2);
    }
}

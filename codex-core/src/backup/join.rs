//! The inspector with which codex-backup reads main files, and the source of a backup.

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::sync::Arc;

use codex_backup::{Depth, Facts, Inspect, InspectError, Reading, Source, Trust};
use codex_storage::seal::{Keys, Seal, Unlocked};
use codex_storage::vfs::{File, Vfs, WaitedFor};
use codex_storage::{Error as StorageError, FileFacts, MainFile, WriteAt};

use crate::engine::CopyBytes;
use crate::error::Result;

/// Reads the main files of stores: images and ledgers.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoreFile {
    opens: Opens,
    /// The writes of the commits to the open store, and their number when this was made.
    commits: Option<(WaitedFor, u64)>,
}

/// The key that authenticates the files.
#[derive(Debug, Clone, Default)]
enum Opens {
    /// No key: only checksums are checked.
    #[default]
    Nothing,
    /// A user's key, which may open files under several roots.
    Key(Arc<dyn Keys>),
    /// The root key of an open store.
    Root(Arc<dyn Seal>),
}

impl StoreFile {
    /// Returns the inspector for a caller that has this key, if any.
    pub(crate) fn with_key(keys: Option<Arc<dyn Keys>>) -> Self {
        Self { opens: keys.map_or(Opens::Nothing, Opens::Key), commits: None }
    }

    /// Returns the inspector for an open store whose root key is `seal`, if it is encrypted.
    pub(crate) fn under(seal: Option<Arc<dyn Seal>>) -> Self {
        Self { opens: seal.map_or(Opens::Nothing, Opens::Root), commits: None }
    }

    /// Returns the inspector for a copy of the open store in `home`. If no commit is made until the
    /// copy is read back, two threads read it.
    pub(crate) fn beside(self, home: &Vfs) -> Self {
        let commits = home.waited_for.clone();
        Self { commits: Some((commits.clone(), commits.count())), ..self }
    }

    /// Returns whether commits may be made at the same time, which the reading should not delay.
    fn is_beside_writers(&self) -> bool {
        self.commits.as_ref().is_none_or(|(commits, before)| commits.count() != *before)
    }

    /// Authenticates the header of `file`, if there is a key. A wrong key, a changed header and a
    /// file that is not encrypted are errors here; [`trust`](Inspect::trust) translates them.
    fn authenticate(&self, file: &Arc<dyn File>) -> Result<Trust, StorageError> {
        match &self.opens {
            Opens::Nothing => return Ok(Trust::Unchecked),
            Opens::Key(keys) => main_file(file)?.authenticate(&**keys)?,
            Opens::Root(seal) => {
                let file = main_file(file)?;
                if file.root_id().is_some_and(|root| root != seal.root_id()) {
                    return Ok(Trust::OtherKey);
                }
                file.authenticate(&Unlocked::new(Arc::clone(seal)))?;
            }
        }
        Ok(Trust::Authentic)
    }

    /// Returns an error if the file does not [count](Trust::counts) as a backup, with the reason.
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
        main_file(file).map(|file| file.store_id().to_vec()).map_err(inspect_error)
    }

    fn trust(&self, file: &Arc<dyn File>) -> Result<Trust, InspectError> {
        match self.authenticate(file) {
            Ok(trust) => Ok(trust),
            Err(StorageError::NotEncrypted { .. }) => Ok(Trust::Plain),
            // `Seal`: the key could not be tried, or this build does not know the envelope.
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
        let found = main_file(file).and_then(|file| file.facts(&mut go_on));
        found.map(facts).map_err(inspect_error)
    }

    fn verify(
        &self,
        file: &Arc<dyn File>,
        depth: Depth,
        reading: &mut Reading<'_>,
    ) -> Result<Facts, InspectError> {
        self.refuse(file)?;
        let file = main_file(file).map_err(inspect_error)?;
        let mut go_on = |bytes| reading(bytes).is_continue();
        let beside_writers = self.is_beside_writers();
        let mut verify = |keys| {
            let verified = file.verify(keys, beside_writers, &mut go_on);
            verified.map(facts).map_err(inspect_error)
        };
        match (depth, &self.opens) {
            (Depth::Checksums, _) => verify(None),
            (Depth::Full, Opens::Key(keys)) => verify(Some(&**keys)),
            (Depth::Full, Opens::Root(seal)) => verify(Some(&Unlocked::new(Arc::clone(seal)))),
            (Depth::Full, Opens::Nothing) => {
                if file.root_id().is_some() {
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

/// Calls `copy` with the source of a backup in the directory of `to`, and its facts if they are
/// known. The name of the store is `name`. Messages name `path`. If
/// `go_on` returns `false`, the writing of an image ends.
///
/// # Errors
/// As `copy`; `Abandoned` if `go_on` returned `false`.
pub(crate) fn with_source<R>(
    bytes: CopyBytes,
    name: &str,
    (to, path): (&Vfs, &Path),
    go_on: &dyn Fn() -> bool,
    copy: impl FnOnce(Source<'_>, Option<Facts>) -> Result<R>,
) -> Result<R> {
    let (image, state, size) = match bytes {
        CopyBytes::Main(main) => {
            let (source, about) = source(&main, name)?;
            return copy(source, about);
        }
        CopyBytes::Memory { image, state, size } => (image, state, size),
    };
    let about = facts(image.facts()?);
    // The size is only about that of the image. If the disk may have no room for as much, the
    // writing shows whether it has.
    let size = size.min(to.dir.available_bytes().ok().flatten().unwrap_or(u64::MAX));
    let (mut memory, abandoned) = (Some((image, state)), Cell::new(false));
    let mut write = |output: &mut WriteAt<'_>| {
        // The state is dropped after the writing. Writers copy each node that a view still holds.
        let (image, state) = memory.take().ok_or("the image was written already")?;
        let going = |_| {
            abandoned.set(!go_on());
            !abandoned.get()
        };
        Ok(image.write_to(&state, output, &going)?)
    };
    match copy(Source::Write { size, write: &mut write }, Some(about)) {
        Err(_) if abandoned.get() => Err(StorageError::Abandoned { path: path.to_owned() }.into()),
        copied => copied,
    }
}

/// Returns the source of a backup of the store `name`, and its facts if they are known. The bytes
/// are those of a copy of `main` that is a store of its own.
pub(crate) fn source<'a>(main: &MainFile, name: &'a str) -> Result<(Source<'a>, Option<Facts>)> {
    let (file, found) = main.to_copy()?;
    Ok((Source::File { name, file }, found.map(facts)))
}

/// Translates the facts of a main file into those of codex-backup.
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

/// Translates an error. The caller adds the path, so the path in `error` is dropped.
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
        StorageError::EmptyFile { .. } => {
            InspectError::UnknownFormat { what: "an empty file".to_owned() }
        }
        StorageError::NotADatabase { .. } => {
            InspectError::UnknownFormat { what: "no CodexDB file".to_owned() }
        }
        other => InspectError::UnknownFormat { what: other.to_string() },
    }
}

/// Reads the header of an open file. The caller adds the path to the errors.
fn main_file(file: &Arc<dyn File>) -> Result<MainFile, StorageError> {
    MainFile::new(Arc::clone(file), Path::new(LABEL))
}

/// The name of a file in an error to which the caller adds the path.
const LABEL: &str = "the file";

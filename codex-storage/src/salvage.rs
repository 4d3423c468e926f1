//! Salvage of a damaged store: what is intact of its image, its log and its newest good backup is
//! read, and written to a new store. The damaged files are not changed.

mod read;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::Seq;
use crate::config::{Access, Config, Create};
use crate::convert::Entries;
use crate::error::{Error, Result};
use crate::image::LostKeys;
use crate::lock::StoreLock;
use crate::names::{Names, Temporary};
use crate::open::{open, open_regular, refuse_pending};
use crate::remove::destroy;
use crate::seal::Keys;
use crate::storage::{Form, State as _, Storage};
use crate::vfs::{File, Mode, Open, Vfs, in_pieces};
use read::Reading;

/// The intact contents of a store whose files may be damaged, in memory.
#[derive(Debug)]
#[non_exhaustive]
pub struct Salvage {
    /// The form of the store.
    pub form: Form,
    /// Whether the store is encrypted.
    pub encrypted: bool,
    /// The damage, in the order in which it was met. Empty if the store is intact.
    pub faults: Vec<Error>,
    /// The files from which something was taken.
    pub taken: Vec<Taken>,
    /// The last commit in the contents.
    pub seq: Seq,
    /// Whether the contents are the state after that commit. If not, entries are lost, or are those
    /// of an earlier commit.
    pub is_exact: bool,
    /// The ranges of keys of which entries of the image are lost. The entries of a good backup take
    /// their place.
    pub lost: Vec<LostKeys>,
    /// The number of lost entries of the image, if it is known.
    pub lost_entries: Option<u64>,
    contents: Contents,
}

/// A file from which something was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Taken {
    /// The file name.
    pub file: String,
    /// The number of entries of an image.
    pub entries: u64,
    /// The number of commits of a log.
    pub commits: u64,
}

/// The contents to be written.
enum Contents {
    Entries(Entries),
    /// A ledger up to its last intact commit.
    Ledger(Arc<dyn File>),
}

/// Reads what is intact of the store `name`. Every byte is read and checked, as
/// [`verify`](crate::verify) does, and damage does not end the reading:
///
/// - Of an image, the entries of each intact block are taken, under either of its two headers.
/// - Of a log, the commits up to the first damage are taken. Commits behind it were made on a state
///   that is not known.
/// - If entries are lost, or the main file is, or a backup has later commits, the newest good
///   backup of the store takes the place of what is lost, and the log continues it if it can.
///
/// No file of the store is changed. The store must not be open for writing; waits up to
/// `lock_timeout` for it.
///
/// ```
/// use codex_storage::vfs::Vfs;
/// use codex_storage::{Config, open, salvage};
///
/// # fn main() -> codex_storage::Result<()> {
/// let vfs = Vfs::mem(1); // `Vfs::os(folder)` keeps it in a folder
/// drop(open(&Config::new(vfs.clone(), "app.db"), &mut |_| Ok(()))?);
/// let found = salvage(&vfs, "app.db", None, std::time::Duration::ZERO)?;
/// assert!(found.faults.is_empty());
/// found.write_to(Config::new(vfs, "repaired.db"))?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `NotFound` if there is neither a store nor a backup of one; `KeyRequired`, `WrongKey`,
/// `NotEncrypted`; `Locked`; `RestorePending`; `NewerVersion` or `Unsupported` if a newer build is
/// needed. The damage itself if nothing is intact.
pub fn salvage(
    vfs: &Vfs,
    name: &str,
    keys: Option<&dyn Keys>,
    lock_timeout: Duration,
) -> Result<Salvage> {
    let path = vfs.dir.path(name);
    let names = Names::new(name, &path)?;
    if names.is_backup() {
        return Err(Error::IsBackup { path });
    }
    refuse_pending(vfs, &names, &path)?;
    // Order: before the lock, because taking it would create a file beside a file that is no store.
    let mut reading = Reading { vfs, names, keys, faults: Vec::new() };
    if open_regular(vfs, &reading.names, &path)?.is_none() && reading.backups()?.is_empty() {
        return Err(Error::NotFound { path });
    }
    let _lock = StoreLock::take(vfs, &reading.names, Access::ReadOnly, lock_timeout)?;
    let part = reading.best()?;
    Ok(Salvage {
        form: part.header.form,
        encrypted: part.header.cipher != 0,
        faults: reading.faults,
        taken: part.taken,
        seq: part.end.seq,
        is_exact: part.is_exact,
        lost: part.lost,
        lost_entries: part.lost_entries,
        contents: part.contents,
    })
}

impl Salvage {
    /// Returns the number of entries, or `None` for a ledger, whose commits are not kept in memory.
    pub fn entries(&self) -> Option<u64> {
        match &self.contents {
            Contents::Entries(entries) => Some(entries.len()),
            Contents::Ledger(_) => None,
        }
    }

    /// Writes the contents to the store that `config` names, which must not exist yet. A ledger is
    /// copied with its history, under its own key; its directory is that of `config`. In the
    /// other forms, the new store has a history of its own that begins with these entries, and the
    /// keys of `config`.
    ///
    /// # Errors
    /// `AlreadyExists`; `KeyRequired` if the damaged store is encrypted and the new one would not
    /// be; the errors of writing. Nothing of the new store stays.
    pub fn write_to(&self, config: Config) -> Result<()> {
        let path = config.vfs.dir.path(&config.name);
        match &self.contents {
            Contents::Ledger(file) => write_ledger(&config, &path, &**file),
            Contents::Entries(_) if self.encrypted && config.keys.is_none() => {
                Err(Error::KeyRequired { path })
            }
            Contents::Entries(entries) => {
                let (create, access) = (Create::New, Access::ReadWrite);
                let config = Config { create, access, form: Some(self.form), ..config };
                let (storage, _) = open(&config, &mut |_| Ok(()))?;
                let written = write_entries(storage, entries);
                written.inspect_err(|_| drop(destroy(&config.vfs, &config.name, false)))
            }
        }
    }
}

/// Writes the entries as the first commits of a new store, and closes it.
fn write_entries(mut storage: Box<dyn Storage>, entries: &Entries) -> Result<()> {
    let mut group = storage.group();
    entries.groups(&mut group, &mut |group| storage.commit(group, Some(entries)).map(drop))?;
    storage.close(entries)
}

/// Copies a ledger to the new store of `config`.
fn write_ledger(config: &Config, path: &Path, from: &dyn File) -> Result<()> {
    let dir = &config.vfs.dir;
    let names = Names::new(&config.name, path)?;
    let io = |action| move |e| Error::io(action, path, e);
    let refuse_existing = || match dir.metadata(names.main()).map_err(io("look at"))? {
        Some(_) => Err(Error::AlreadyExists { path: path.to_owned() }),
        None => Ok(()),
    };
    refuse_existing()?;
    let _lock = StoreLock::take(&config.vfs, &names, Access::ReadWrite, config.lock_timeout)?;
    refuse_existing()?;
    let temporary = names.temporary(Temporary::Convert);
    let copied = dir.open(&temporary, Open::CreateNew(Mode::Private)).and_then(|to| {
        in_pieces(0..from.len()?, |piece, at| {
            from.read_exact_at(piece, at)?;
            to.write_all_at(piece, at)
        })?;
        // Order: the bytes are durable before they have the name.
        to.sync()?;
        dir.rename(&temporary, names.main())?;
        dir.sync()
    });
    copied.map_err(|error| {
        drop(dir.remove(&temporary));
        Error::io("copy the ledger to", path, error)
    })
}

crate::opaque_debug!(Contents);

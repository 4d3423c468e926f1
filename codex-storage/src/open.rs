//! Opens a store: refuses what is none, takes the lock, picks the form.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::condition::Condition;
use crate::config::{Access, Config, Create};
use crate::error::{Error, Result};
use crate::header::{FileKind, Found, Header};
use crate::history::History;
use crate::image::{ImageReader, Place};
use crate::ledger::Ledger;
use crate::lock::StoreLock;
use crate::names::{BackupTemporary, Names, Role, Temporary};
use crate::seal::Seal;
use crate::snapshot::Snapshot;
use crate::storage::{Durability, EntrySink, Form, State, Storage};
use crate::vfs::{Dir, File, Kind, Open, Vfs};
use crate::wal::Wal;

/// Opens the store `config.name`, or creates it; call [`Storage::replay`] next.
///
/// What stands at the path is looked at before anything is created beside it. The lock on the
/// store is held until the storage is dropped. Opening for writing removes the temporary files
/// that an earlier handle left.
///
/// # Errors
/// Each cause has its own variant of [`Error`]; after each, the files are as they were, apart from
/// the lock file and from what an unfinished creation leaves to the next one.
pub fn open(config: Config) -> Result<Box<dyn Storage>> {
    let path = config.vfs.dir.path(&config.name);
    let names = Names::new(&config.name, &path)?;
    let writes = config.access == Access::ReadWrite;
    if config.create == Create::New && !writes {
        return Err(Error::Contradiction("a new store can not be created read-only"));
    }
    if writes && names.is_backup() {
        return Err(Error::IsBackup { path });
    }
    let opening = Opening { config, names, path };
    // Before a lock file is created beside something that is no store.
    opening.look()?;
    let lock = if opening.names.is_backup() { None } else { Some(Arc::new(opening.lock()?)) };
    match opening.look()? {
        Some(main) => opening.open(main, lock),
        None => opening.create(lock),
    }
}

/// Opens for writing a store that is being made under a temporary name, which is no name of a
/// store: without a lock, since the one on the store that it will replace is held.
///
/// # Errors
/// As [`open`]; there is nothing to create.
pub fn open_staged(config: Config) -> Result<Box<dyn Storage>> {
    let path = config.vfs.dir.path(&config.name);
    let names = Names::staged(&config.name);
    let opening = Opening { config, names, path };
    match opening.look()? {
        Some(main) => opening.open(main, None),
        None => Err(Error::NotFound { path: opening.path }),
    }
}

/// What stands at the store's own name.
pub(crate) struct Main {
    pub(crate) file: Arc<dyn File>,
    pub(crate) found: Found,
}

struct Opening {
    config: Config,
    names: Names,
    path: PathBuf,
}

impl Opening {
    /// The store's main file, `None` where it is missing and to be created.
    fn look(&self) -> Result<Option<Main>> {
        let path = || self.path.clone();
        let Some(main) = read_main(&self.config.vfs, &self.names, &self.path)? else {
            let left = Left::beside(&*self.config.vfs.dir, &self.names)?;
            if let Some(log) = left.log {
                return Err(Error::ImageMissing { path: path(), log });
            }
            // An empty store does not contain the anchored commit.
            let creates = self.config.create != Create::Never && self.config.anchor.is_none();
            if creates && self.config.access == Access::ReadWrite {
                // An empty store in its place would disown them.
                if let Some(backup) = left.backup {
                    return Err(Error::OnlyBackups { path: path(), backup });
                }
                check_level(self.form_to_create(), self.config.durability)?;
                return Ok(None);
            }
            return Err(Error::NotFound { path: path() });
        };
        let header = &main.found.header;
        if self.config.create == Create::New {
            return Err(Error::AlreadyExists { path: path() });
        }
        if let Some(wanted) = self.config.form.filter(|&wanted| wanted != header.form) {
            return Err(Error::WrongForm { path: path(), found: header.form, wanted });
        }
        match (header.cipher, &self.config.keys) {
            (0, Some(_)) => return Err(Error::NotEncrypted { path: path() }),
            (1.., None) => return Err(Error::KeyRequired { path: path() }),
            _ => {}
        }
        check_level(header.form, self.config.durability)?;
        Ok(Some(main))
    }

    fn form_to_create(&self) -> Form {
        self.config.form.unwrap_or(Form::Wal)
    }

    fn lock(&self) -> Result<StoreLock> {
        let Config { vfs, access, lock_timeout, .. } = &self.config;
        let lock = StoreLock::take(vfs, &self.names, *access, *lock_timeout)?;
        if *access == Access::ReadWrite {
            self.settle_names()?;
        }
        Ok(lock)
    }

    /// Makes the names that are visible durable, before anything rests on them: an earlier handle
    /// may have failed to. Then removes temporary files.
    fn settle_names(&self) -> Result<()> {
        let dir = &self.config.vfs.dir;
        dir.sync().map_err(|e| Error::io("sync the folder of", &self.path, e))?;
        for name in Temporary::ALL.map(|what| self.names.temporary(what)) {
            let found = dir.metadata(&name);
            if found.map_err(|e| Error::io("look at", &dir.path(&name), e))?.is_some() {
                dir.remove(&name).map_err(|e| Error::io("remove", &dir.path(&name), e))?;
            }
        }
        Ok(())
    }

    fn open(self, main: Main, lock: Option<Arc<StoreLock>>) -> Result<Box<dyn Storage>> {
        let Main { file, found } = main;
        let bytes = found.bytes().to_vec();
        let (header, seal) = found.unlock(self.config.keys.as_deref(), &self.path)?;
        if let Some(anchor) = self.config.anchor.filter(|at| at.store_id != header.store_id) {
            return Err(Error::AnchorMismatch { path: self.path, seq: anchor.seq });
        }
        if header.form == Form::Ledger {
            let (place, condition) = (self.place(seal, lock), self.condition());
            return Ok(Box::new(Ledger::new(place, condition, &self.config, file, header)));
        }
        let image = ImageReader::new(file, &self.path, header, bytes, seal.clone())?;
        let place = self.place(seal, lock);
        Ok(self.with_image(place, image))
    }

    fn create(self, lock: Option<Arc<StoreLock>>) -> Result<Box<dyn Storage>> {
        let form = self.form_to_create();
        if form == Form::Ledger {
            let (header, seal) = self.new_header(FileKind::Log, form)?;
            let (place, condition) = (self.place(seal, lock), self.condition());
            let ledger = Ledger::create(place, condition, &self.config, header)?;
            return Ok(Box::new(ledger));
        }
        let (header, seal) = self.new_header(FileKind::Image, form)?;
        let place = self.place(seal, lock);
        let written =
            place.image(header.clone()).write(&Nothing, &History::base(&header), &|_| true)?;
        place
            .install(&written.temporary)
            .map_err(|e| Error::io("put the new image in place as", &self.path, e.source))?;
        let image = ImageReader::open(&place.vfs, place.names.main(), place.seal.clone())?;
        Ok(self.with_image(place, image))
    }

    fn with_image(&self, place: Place, image: ImageReader) -> Box<dyn Storage> {
        // The header of an image names no ledger.
        if image.header().form == Form::Snapshot {
            return Box::new(Snapshot::new(place, &self.config, image));
        }
        Box::new(Wal::new(place, &self.config, image))
    }

    fn condition(&self) -> Condition {
        Condition::new(&self.path, self.config.access)
    }

    fn place(&self, seal: Option<Arc<dyn Seal>>, lock: Option<Arc<StoreLock>>) -> Place {
        Place { vfs: self.config.vfs.clone(), names: self.names.clone(), seal, lock }
    }

    /// The header of the first file of a new store, and its root key where it is to be encrypted.
    fn new_header(&self, kind: FileKind, form: Form) -> Result<(Header, Option<Arc<dyn Seal>>)> {
        let header = Header::new(&self.config.vfs, &self.path, kind, form)?;
        let Some(keys) = &self.config.keys else { return Ok((header, None)) };
        let (header, seal) = header.under_fresh_root(&**keys, &self.path)?;
        Ok((header, Some(seal)))
    }
}

/// The state of a store in which nothing is.
struct Nothing;

impl State for Nothing {
    fn len(&self) -> u64 {
        0
    }

    fn for_each(&self, _sink: &mut EntrySink<'_>) -> Result<()> {
        Ok(())
    }
}

/// Refuses a store whose restore was decided and not finished: its files are the old ones, the new
/// ones or some of both.
///
/// # Errors
/// `RestorePending`.
pub(crate) fn refuse_pending(vfs: &Vfs, names: &Names, path: &Path) -> Result<()> {
    let found = vfs.dir.metadata(&names.restore_record());
    match found.map_err(|e| Error::io("look for a restore of", path, e))? {
        Some(_) => Err(Error::RestorePending { path: path.to_owned() }),
        None => Ok(()),
    }
}

/// The header and the open file at the store's own name; `None` where there is nothing.
///
/// # Errors
/// `RestorePending`, `NotAFile`, `EmptyFile`, `NotADatabase`, `NewerVersion`, `Damaged`, `BadPath`
/// for a segment under another name.
pub(crate) fn read_main(vfs: &Vfs, names: &Names, path: &Path) -> Result<Option<Main>> {
    refuse_pending(vfs, names, path)?;
    let Some(file) = open_regular(vfs, names, path)? else { return Ok(None) };
    let found = Found::read(&*file, path)?;
    let header = &found.header;
    if header.kind == FileKind::Log && header.form == Form::Wal {
        let why = "this is a log segment under another name; open the store it belongs to";
        return Err(Error::BadPath { path: path.to_owned(), why });
    }
    Ok(Some(Main { file, found }))
}

/// The file at the store's own name, open to be read; `None` where there is nothing.
///
/// # Errors
/// `NotAFile`, `Io`.
pub(crate) fn open_regular(vfs: &Vfs, names: &Names, path: &Path) -> Result<Option<Arc<dyn File>>> {
    let io = |action| move |e| Error::io(action, path, e);
    let what = match vfs.dir.metadata(names.main()).map_err(io("look at"))?.map(|m| m.kind) {
        None => return Ok(None),
        Some(Kind::File) => "",
        Some(Kind::Dir) => "a folder",
        Some(Kind::Symlink) => "a symbolic link",
        Some(Kind::Other) => "a FIFO, a socket or a device",
    };
    if !what.is_empty() {
        return Err(Error::NotAFile { path: path.to_owned(), what });
    }
    match vfs.dir.open(names.main(), Open::Read) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io("open")(e)),
    }
}

/// What is left of a store whose main file is missing.
#[derive(Default)]
struct Left {
    /// The first segment of its log.
    log: Option<String>,
    /// Its newest backup.
    backup: Option<String>,
}

impl Left {
    fn beside(dir: &dyn Dir, names: &Names) -> Result<Self> {
        let io = |e| Error::io("list the folder of", &dir.path(names.main()), e);
        let listed = dir.list().map_err(io)?;
        let roles = || listed.iter().filter_map(|name| Some((names.role(name)?, name)));
        let segments = roles().filter(|(role, _)| matches!(role, Role::Segment(_)));
        let rank = |role| match role {
            Role::BackupTemporary(BackupTemporary::Ready) => Some(0),
            Role::Backup(index) => Some(index),
            _ => None,
        };
        let backups = roles().filter_map(|(role, name)| Some((rank(role)?, name)));
        Ok(Self {
            log: segments.map(|(_, name)| name.clone()).min(),
            backup: backups.min().map(|(_, name)| name.clone()),
        })
    }
}

fn check_level(form: Form, durability: Durability) -> Result<()> {
    if form == Form::Snapshot && durability == Durability::Os {
        return Err(Error::Contradiction(
            "a snapshot is synced whenever it is written: open it at `Sync` or `Interval`",
        ));
    }
    Ok(())
}

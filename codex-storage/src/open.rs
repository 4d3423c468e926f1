//! Opening a store: checking its files, taking the lock, and recovering its state.
//!
//! These types carry the parameters of an open, from the outside in. [`Config`] is filled in by the
//! caller. [`StoreFiles`] has the location of the files, their key and their lock, and the open
//! storage keeps it. [`Found`] is a header that is checked but not authenticated; only `unlock`
//! turns it into a [`Header`].

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use crate::config::{Access, Config, Create};
use crate::error::{Error, Result};
use crate::files::StoreFiles;
use crate::header::{FileKind, Found, Header};
use crate::history::{AnchorWatch, History};
use crate::image::ImageReader;
use crate::ledger::Ledger;
use crate::lock::StoreLock;
use crate::main_file::main_header;
use crate::names::{BackupTemporary, Names, Role, Temporary};
use crate::pack::Compression;
use crate::snapshot::Snapshot;
use crate::storage::{Durability, EntrySink, Form, OpSink, Recovered, State, Storage};
use crate::vfs::{Dir, File, Kind, Open, Vfs};
use crate::wal::Wal;

/// Opens the store `config.name`, or creates it, and recovers its state: calls `sink` with every
/// operation in the order of commits. If the store is opened for writing, its log is ready for the
/// next commit.
///
/// The path is checked before any file is created beside it. The lock on the store is held until
/// the storage is dropped. Opening for writing removes the temporary files of earlier handles.
///
/// # Errors
/// One variant of [`Error`] for each cause, such as damage, missing files or a wrong key, and the
/// errors of `sink`. The lock is released, and the files have not changed, except for the lock file
/// and for the files of an unfinished creation, which the next one replaces.
pub fn open(config: &Config, sink: &mut OpSink<'_>) -> Result<(Box<dyn Storage>, Recovered)> {
    let path = config.vfs.dir.path(&config.name);
    let names = Names::new(&config.name, &path)?;
    let writes = config.access == Access::ReadWrite;
    if config.create == Create::New && !writes {
        return Err(Error::Contradiction("a new store cannot be created read-only"));
    }
    if writes && names.is_backup() {
        return Err(Error::IsBackup { path });
    }
    let follows = config.access == Access::Follow;
    if follows && names.is_backup() {
        return Err(Error::Contradiction("a backup does not change: open it read-only"));
    }
    // Order: before the lock, because taking it would create a file beside a file that is no store.
    look(config, &names, &path)?;
    let takes_lock = !follows && !names.is_backup();
    let lock = takes_lock.then(|| take_lock(config, &names, &path).map(Arc::new)).transpose()?;
    // Order: again under the lock, because another process may have replaced the file before the
    // lock was taken.
    let main = look(config, &names, &path)?;
    let vfs = config.vfs.clone();
    let compression = compression(config, main.as_ref());
    let files = StoreFiles { vfs, names, seal: None, compression, lock };
    match main {
        Some(main) => open_main(config, files, main, sink),
        None => create(config, files, sink),
    }
}

/// Opens for writing a store that is being made under a temporary name, which is not the name of a
/// store. No lock is taken, because the caller holds the lock of the store that it will replace.
///
/// # Errors
/// The errors of [`open`], and `NotFound` if the file does not exist.
pub fn open_staged(
    config: &Config,
    sink: &mut OpSink<'_>,
) -> Result<(Box<dyn Storage>, Recovered)> {
    let path = config.vfs.dir.path(&config.name);
    let names = Names::staged(&config.name);
    let Some(main) = look(config, &names, &path)? else {
        return Err(Error::NotFound { path });
    };
    let vfs = config.vfs.clone();
    let compression = compression(config, Some(&main));
    let files = StoreFiles { vfs, names, seal: None, compression, lock: None };
    open_main(config, files, main, sink)
}

/// Reads the main file of the store and its header. Returns `None` if it is missing and may be
/// created.
fn look(config: &Config, names: &Names, path: &Path) -> Result<Option<Main>> {
    let path = || path.to_owned();
    let Some((file, found)) = read_main(&config.vfs, names, &path())? else {
        let left = OtherFiles::beside(&*config.vfs.dir, names)?;
        if let Some(log) = left.log {
            return Err(Error::ImageMissing { path: path(), log });
        }
        // An empty store does not contain the anchored commit.
        let creates = config.create != Create::Never && config.anchor.is_none();
        if creates && config.access == Access::ReadWrite {
            // An empty store would hide the backups.
            if let Some(backup) = left.backup {
                return Err(Error::OnlyBackups { path: path(), backup });
            }
            check_level(form_to_create(config), config.durability)?;
            return Ok(None);
        }
        return Err(Error::NotFound { path: path() });
    };
    let header = &found.header;
    if config.create == Create::New {
        return Err(Error::AlreadyExists { path: path() });
    }
    if let Some(wanted) = config.form.filter(|&wanted| wanted != header.form) {
        return Err(Error::WrongForm { path: path(), found: header.form, wanted });
    }
    // The key itself is not used yet, because deriving it may take long.
    match (header.cipher, &config.keys) {
        (0, Some(_)) => return Err(Error::NotEncrypted { path: path() }),
        (1.., None) => return Err(Error::KeyRequired { path: path() }),
        _ => {}
    }
    check_level(header.form, config.durability)?;
    Ok(Some((file, found)))
}

/// Returns the compression of new files: that of the options, or of the main file.
fn compression(config: &Config, main: Option<&Main>) -> Compression {
    let own = || main.map(|(_, found)| found.header.compression);
    config.compression.or_else(own).unwrap_or_default()
}

/// Returns the form of a store that is created.
fn form_to_create(config: &Config) -> Form {
    config.form.unwrap_or(Form::Wal)
}

/// Takes the lock. A writer also makes the visible names durable.
fn take_lock(config: &Config, names: &Names, path: &Path) -> Result<StoreLock> {
    let lock = StoreLock::take(&config.vfs, names, config.access, config.lock_timeout)?;
    if config.access == Access::ReadWrite {
        settle_names(&config.vfs, names, path)?;
    }
    Ok(lock)
}

/// Makes the visible names durable, because an earlier handle may have failed to do so, then
/// removes the temporary files.
fn settle_names(vfs: &Vfs, names: &Names, path: &Path) -> Result<()> {
    let dir = &vfs.dir;
    // Order: the sync before any name is relied on. Without it, a power cut could bring back a file
    // that was replaced.
    dir.sync().map_err(|e| Error::io("sync the folder of", path, e))?;
    for name in Temporary::ALL.map(|what| names.temporary(what)) {
        let found = dir.metadata(&name);
        if found.map_err(|e| Error::io("look at", &dir.path(&name), e))?.is_some() {
            dir.remove(&name).map_err(|e| Error::io("remove", &dir.path(&name), e))?;
        }
    }
    Ok(())
}

/// Authenticates the main file, and opens the form that is in its header.
fn open_main(
    config: &Config,
    mut files: StoreFiles,
    (file, found): Main,
    sink: &mut OpSink<'_>,
) -> Result<(Box<dyn Storage>, Recovered)> {
    let path = files.path();
    let bytes = found.bytes().to_vec();
    let (header, seal) = found.unlock(config.keys.as_deref(), &path)?;
    if let Some(anchor) = config.anchor.filter(|at| at.store_id != header.store_id) {
        return Err(Error::AnchorMismatch { path, seq: anchor.seq });
    }
    files.seal = seal;
    if header.form == Form::Ledger {
        return Ledger::open(files, config, file, header, sink);
    }
    let image = ImageReader::new(file, &path, header, bytes, files.seal.clone())?;
    open_image(config, files, image, sink)
}

/// Makes a new store, and opens it.
fn create(
    config: &Config,
    mut files: StoreFiles,
    sink: &mut OpSink<'_>,
) -> Result<(Box<dyn Storage>, Recovered)> {
    let form = form_to_create(config);
    let kind = if form == Form::Ledger { FileKind::Log } else { FileKind::Image };
    let mut header = Header::new(&files.vfs, &files.path(), kind, form)?;
    header.compression = files.compression;
    if let Some(keys) = &config.keys {
        let (sealed, seal) = header.under_fresh_root(&**keys, &files.path())?;
        (header, files.seal) = (sealed, Some(seal));
    }
    if form == Form::Ledger {
        return Ledger::create(files, config, header, sink);
    }
    let written =
        files.image(header.clone()).write(&Nothing, &History::base(&header), &|_| true)?;
    // The image is written, synced and read back at this point.
    files
        .install(&written.temporary)
        .map_err(|e| Error::io("put the new image in place as", &files.path(), e.source))?;
    let image = ImageReader::open(&files.vfs, files.names.main(), files.seal.clone())?;
    open_image(config, files, image, sink)
}

/// Opens a store with an image.
fn open_image(
    config: &Config,
    files: StoreFiles,
    image: ImageReader,
    sink: &mut OpSink<'_>,
) -> Result<(Box<dyn Storage>, Recovered)> {
    // The header of an image is never one of a ledger.
    if image.header().form == Form::Snapshot {
        if config.access == Access::Follow {
            let what = "each commit of a Snapshot writes all of it anew: open it read-only";
            return Err(Error::Contradiction(what));
        }
        return Snapshot::open(files, config, image, sink);
    }
    Wal::open(files, config, &image, sink)
}

/// Passes the entries of `image` to `sink`. Returns the history up to the commit of the image, and
/// the watch for the anchor of `config`, which has checked that history.
pub(crate) fn replay_image(
    config: &Config,
    path: &Path,
    image: &ImageReader,
    sink: &mut OpSink<'_>,
) -> Result<(History, AnchorWatch)> {
    let mut history = History::base(image.header());
    history.inherit(image.replay(sink)?);
    let mut watch = AnchorWatch::new(config.anchor, config.accept_unknown_anchor);
    watch.pass_listed(history.listed(), path)?;
    watch.pass(history.end(), path)?;
    Ok((history, watch))
}

/// The state of an empty store.
struct Nothing;

impl State for Nothing {
    fn len(&self) -> u64 {
        0
    }

    fn for_each(&self, _sink: &mut EntrySink<'_>) -> Result<()> {
        Ok(())
    }
}

/// Returns whether the restore of which there is a record is still to be finished; `None` if there
/// is no record. The first byte of the record of a finished restore is zero.
///
/// # Errors
/// The error of the disk.
pub fn restore_is_pending(vfs: &Vfs, names: &Names) -> io::Result<Option<bool>> {
    let record = names.restore_record();
    let mut first = [0xFF];
    match vfs.dir.metadata(&record)? {
        None => return Ok(None),
        Some(found) if found.kind != Kind::File || found.len == 0 => return Ok(Some(true)),
        Some(_) => {}
    }
    match vfs.dir.open(&record, Open::Read).and_then(|file| file.read_exact_at(&mut first, 0)) {
        Ok(()) => Ok(Some(first != [0])),
        // Another process has removed it since.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns an error if a restore of the store was decided and is not finished. Its files are the
/// old ones, the new ones or some of each.
///
/// # Errors
/// `RestorePending` in that case, `Io` if the record cannot be looked up.
pub(crate) fn refuse_pending(vfs: &Vfs, names: &Names, path: &Path) -> Result<()> {
    let pending = restore_is_pending(vfs, names);
    match pending.map_err(|e| Error::io("look for a restore of", path, e))? {
        Some(true) => Err(Error::RestorePending { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// The open main file of a store, and its header, not yet authenticated.
type Main = (Arc<dyn File>, Found);

/// Opens the file with the name of the store and reads its header. Returns `None` if it does not
/// exist.
///
/// # Errors
/// `RestorePending`, `NotAFile`, `EmptyFile`, `NotADatabase`, `NewerVersion` or `Damaged` if the
/// file is not a store that can be opened. `BadPath` if it is a log segment under another name.
pub(crate) fn read_main(vfs: &Vfs, names: &Names, path: &Path) -> Result<Option<Main>> {
    refuse_pending(vfs, names, path)?;
    let Some(file) = open_regular(vfs, names, path)? else { return Ok(None) };
    let found = main_header(&*file, path)?;
    Ok(Some((file, found)))
}

/// Opens the file with the name of the store for reading. Returns `None` if it does not exist.
///
/// # Errors
/// `NotAFile` if it is not a regular file, `Io` if it cannot be opened.
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
    // The file may have been removed since the call before.
    match vfs.dir.open(names.main(), Open::Read) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io("open")(e)),
    }
}

/// The other files of a store whose main file is missing.
#[derive(Default)]
struct OtherFiles {
    /// The first segment of the log.
    log: Option<String>,
    /// The newest backup.
    backup: Option<String>,
}

impl OtherFiles {
    /// Looks for segments and backups in the directory.
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

/// Returns an error if the form does not support the level of durability.
fn check_level(form: Form, durability: Durability) -> Result<()> {
    if form == Form::Snapshot && durability == Durability::Os {
        return Err(Error::Contradiction(
            "a snapshot is synced whenever it is written: open it at `Sync` or `Interval`",
        ));
    }
    Ok(())
}

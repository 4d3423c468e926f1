//! Opening: from files to a running store.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;

use codex_backup::Restored;
use codex_storage::seal::SealError;
use codex_storage::storage::{Durability, Recovered, Storage};
use codex_storage::vfs::OsClock;
use codex_storage::{Access, Config, Create, Error as StorageError, repair_header, verify};

use crate::backup::{BackupOptions, BackupScheduler, Backups};
use crate::engine::{Engine, EngineOptions};
use crate::error::{Error, Result};
use crate::inner::{Files, Inner};
use crate::map::{Map, MapBuilder};
use crate::rank;
use crate::store::Store;
use crate::value::Codec;

/// The files to open, and how to run the store.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) config: Config,
    pub(crate) codec: Codec,
    /// Whether threads sync and checkpoint by themselves.
    pub(crate) threads: bool,
    pub(crate) backups: BackupOptions,
    /// Put the newest good backup in the place of a damaged store.
    pub(crate) fall_back: bool,
}

/// Opens the files that `wanted` names and replays them into memory. On an error everything is
/// dropped, the lock with it.
pub(crate) fn open(mut wanted: Wanted) -> Result<Store> {
    wanted.config.vfs = rank::watched(&wanted.config.vfs);
    let (loaded, restored) = load_or_restore(&wanted)?;
    let Loaded { storage, map, recovered } = loaded;
    let Config { vfs, name, access, durability, keys, .. } = wanted.config;
    // The storage has the root key, and nothing asks for the user's any more.
    drop(keys);
    let path = vfs.dir.path(&name);
    let form = storage.form();
    let lock = storage.lock().as_ref().map(Arc::downgrade);
    let options = EngineOptions {
        path: path.clone(),
        durability,
        clock: Arc::clone(&vfs.clock),
        background: access == Access::ReadWrite && wanted.threads,
    };
    let engine = Engine::start(storage, map, options);
    let mut inner = Inner {
        engine,
        backups: None,
        codec: wanted.codec,
        path,
        form: Some(form),
        access,
        recovered,
        files: None,
        restored,
        lock,
        opened_by: std::process::id(),
    };
    if access == Access::ReadWrite {
        // An error drops `inner`, which closes the store.
        let options = wanted.backups;
        let backups = BackupScheduler::start(&vfs, &name, form, options, &inner.engine)?;
        inner.backups = Some(backups);
    }
    inner.files = Some(Files { vfs, name });
    Ok(Store::new(inner))
}

/// A store's files, read.
struct Loaded {
    storage: Box<dyn Storage>,
    map: Map,
    recovered: Recovered,
}

fn load(config: &Config) -> Result<Loaded> {
    let mut builder = MapBuilder::new();
    let (storage, recovered) = codex_storage::open(config, &mut |op| {
        builder.push(op);
        Ok(())
    })?;
    let map = builder.finish(recovered.seq);
    Ok(Loaded { storage, map, recovered })
}

/// Reads the files of a store: after a restore that was interrupted is finished, and with its
/// newest backup in its place where that is allowed and needed. A reader finishes nothing: the
/// storage refuses the store then.
fn load_or_restore(wanted: &Wanted) -> Result<(Loaded, Option<Restored>)> {
    let config = &wanted.config;
    let mut restored = None;
    if config.access == Access::ReadWrite {
        let backups = Backups::of_in(&config.vfs, &config.name);
        restored = backups.finish_restore(config.lock_timeout)?;
    }
    for look in [Look::Again, Look::Once] {
        let error = match load(config) {
            Err(error) if wanted.fall_back && is_mended_by_a_backup(config, &error) => error,
            loaded => return Ok((loaded?, restored)),
        };
        // A header that is lost at one end of an image costs no commit, and a backup does.
        if let Ok(true) = repair_header(&config.vfs, &config.name, config.keys.as_deref())
            && let Ok(loaded) = load(config)
        {
            return Ok((loaded, restored));
        }
        if let Some(fallen) = fall_back(config, error, look)? {
            restored = Some(fallen);
            break;
        }
    }
    Ok((load(config)?, restored))
}

/// Whether a store that could not be read is looked at again before a backup takes its place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Again,
    /// It was whole when it was looked at again, and yet it could not be opened.
    Once,
}

/// Puts the newest backup that `config` opens in the place of a store that failed to open with
/// `error`, which is returned if there is none; or the error that a passphrase was not tried on
/// all of them. Returns `None`, and has changed nothing, if the store is whole when it is looked at
/// again.
fn fall_back(config: &Config, error: Error, look: Look) -> Result<Option<Restored>> {
    let backups = Backups::of_in(&config.vfs, &config.name).with_keys(config.keys.clone());
    let left_out = Cell::new(None);
    let opens = |backup: &str| match is_opened_by(config, backup) {
        Err(error @ StorageError::Seal { source: SealError::TooManyEnvelopes { .. }, .. }) => {
            left_out.set(Some(error));
            false
        }
        opened => opened.is_ok(),
    };
    let is_mended = Cell::new(false);
    // Another process may have mended the store since it was read, and have committed to it.
    let is_lost = || {
        let (vfs, keys) = (&config.vfs, config.keys.as_deref());
        let is_whole = look == Look::Again && verify(vfs, &config.name, keys).is_ok();
        is_mended.set(is_whole);
        !is_whole
    };
    let restored = backups.restore_newest(config.lock_timeout, &is_lost, &opens)?;
    if restored.is_none() && !is_mended.get() {
        return Err(left_out.take().map_or(error, Error::from));
    }
    Ok(restored)
}

/// Opens `backup` with these options as if it were in the place of the store: with this key, this
/// form, this anchor. Reads every byte and changes nothing.
fn is_opened_by(config: &Config, backup: &str) -> Result<(), StorageError> {
    let (vfs, name) = (config.vfs.clone(), backup.to_owned());
    let (access, create) = (Access::ReadOnly, Create::Never);
    let trial = Config { vfs, name, access, create, ..config.clone() };
    codex_storage::open(&trial, &mut |_| Ok(()))?;
    verify(&config.vfs, backup, config.keys.as_deref())?;
    Ok(())
}

/// Whether an older state may take the place of the files: not of whole ones that were demanded to
/// be newer, and not where a new store was demanded.
fn is_mended_by_a_backup(config: &Config, error: &Error) -> bool {
    use StorageError::{AnchorMismatch, NotFound, OnlyBackups};
    let is_missing = matches!(error, Error::Storage(NotFound { .. } | OnlyBackups { .. }));
    let is_newer = matches!(error, Error::Storage(AnchorMismatch { .. }));
    config.create != Create::New && (is_missing || error.is_damage() && !is_newer)
}

/// A store without files.
pub(crate) fn in_memory(codec: Codec) -> Store {
    let options = EngineOptions {
        path: PathBuf::from("(in memory)"),
        durability: Durability::Sync,
        clock: Arc::new(OsClock::new()),
        background: false,
    };
    Store::new(Inner {
        engine: Engine::start(codex_storage::null(), Map::new(), options),
        backups: None,
        codec,
        path: PathBuf::new(),
        form: None,
        access: Access::ReadWrite,
        recovered: Recovered::default(),
        files: None,
        restored: None,
        lock: None,
        opened_by: std::process::id(),
    })
}

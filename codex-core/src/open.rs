//! Opening a store: the steps from the files to a running store.
//!
//! Three types carry the parameters of an open. [`OpenOptions`] is filled in by the caller and is
//! validated as a whole. [`Config`] is its part for the storage, with the location of the files.
//! [`EngineOptions`] is the part for the running store, which exists without files too.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use codex_backup::Restored;
use codex_storage::batch::Seq;
use codex_storage::seal::{Seal, SealError, Unlocked};
use codex_storage::storage::{Durability, Recovered, Storage};
use codex_storage::vfs::{OsClock, Vfs};
use codex_storage::{
    Access, Config, Create, Error as StorageError, repair_header, verify, verify_open,
};
#[cfg(feature = "shared")]
use codex_storage::{
    shared::{Meta, SharedLog},
    vfs::{Entropy, OsEntropy},
};

#[cfg(feature = "remote")]
use crate::archive::Archiver;
use crate::backup::{BackupScheduler, Backups};
#[cfg(feature = "shared")]
use crate::engine::Images;
use crate::engine::{Engine, EngineOptions};
use crate::error::{Error, Result};
use crate::history::Past;
use crate::ids::Ids;
use crate::inner::{Files, Inner};
use crate::map::{Map, MapBuilder};
use crate::options::OpenOptions;
use crate::progress;
use crate::rank;
use crate::store::Store;
use crate::trace;
use crate::value::Codec;

/// Opening a store.
impl Store {
    /// Opens the store at `path`, and creates it if it is missing. Its files are `path` itself and
    /// files in the same directory whose names begin with the name of `path`.
    ///
    /// # Errors
    /// The errors of [`OpenOptions::open`].
    #[doc(alias("create", "connect"))]
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        OpenOptions::new().open(path)
    }

    /// Returns a store that is only in memory, for tests and for data that may be lost.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.set("a", &1)?;
    /// assert_eq!(store.len(), 1);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// None today.
    #[doc(alias("open_in_memory", "temporary"))]
    pub fn in_memory() -> Result<Self> {
        OpenOptions::new().in_memory()
    }

    /// Returns the default options, to be changed before opening: read-only, another form, another
    /// durability, and more.
    #[doc(alias("builder", "config"))]
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }
}

/// Opens the files of `config`, which was made of `options`, and replays them into memory. After an
/// error everything is dropped, including the lock.
pub(crate) fn open(mut config: Config, options: &OpenOptions) -> Result<Store> {
    let _span = trace::open(&config.vfs.dir.path(&config.name));
    // Order: watch the disk before anything is opened, so that each call to it is checked.
    config.vfs = rank::watched(&config.vfs);
    let total = || progress::bytes_of(&config.vfs, &config.name);
    let load = |vfs: &Vfs| {
        let config = Config { vfs: vfs.clone(), ..config.clone() };
        if config.access == Access::Follow {
            return Ok((load_beside(&config)?, None));
        }
        load_or_restore(&config, options.fall_back)
    };
    let on_progress = options.on_progress.as_ref();
    let ((storage, map, recovered), restored) =
        progress::metered(on_progress, &config.vfs, total, load)?;
    // A follower opens the store again when the files were replaced, perhaps under another key.
    let again = (config.access == Access::Follow).then(|| config.clone());
    let Config { vfs, name, access, durability, keys, .. } = config;
    // The storage has the root key. Only a follower needs the key of the user again.
    drop(keys);
    let path = vfs.dir.path(&name);
    let form = storage.form();
    let lock = storage.lock().as_ref().map(Arc::downgrade);
    let running = EngineOptions {
        path: path.clone(),
        durability,
        clock: Arc::clone(&vfs.clock),
        background: access == Access::ReadWrite && options.threads.unwrap_or(true),
        newest_us: recovered.newest_us,
    };
    let engine = Engine::start(storage, map, running);
    // The store exists from here on, without backups: an error that drops it also closes it.
    let mut inner = Inner {
        engine,
        backups: None,
        #[cfg(feature = "remote")]
        archive: None,
        codec: options.codec,
        on_progress: options.on_progress.clone(),
        path,
        form: Some(form),
        access,
        recovered,
        files: None,
        restored,
        lock,
        ids: Ids::default(),
        past: Past::default(),
        opened_by: std::process::id(),
    };
    if access == Access::ReadWrite {
        // Order: start the backups last. Their thread may run at once, and it needs the running
        // engine.
        let backups = options.backups.clone();
        let backups = BackupScheduler::start(&vfs, &name, form, backups, &inner.engine)?;
        inner.backups = Some(backups);
        #[cfg(feature = "remote")]
        if let Some(archive) = &options.archive {
            let archive = Archiver::start(archive.clone(), &vfs, &name, form, &inner.engine)?;
            inner.archive = Some(archive);
        }
    }
    inner.files = Some(Files { vfs, name });
    if let Some(config) = again {
        let polls = options.threads.unwrap_or(true);
        inner.engine.follow(Box::new(move |seal| reload(&config, seal)), polls)?;
    }
    Ok(Store::new(inner))
}

/// The open storage, the state that was read from its files, and the findings of the recovery.
type Loaded = (Box<dyn Storage>, Map, Recovered);

/// Opens the files and replays them into a map.
fn load(config: &Config) -> Result<Loaded, StorageError> {
    let _span = trace::recovery();
    let mut builder = MapBuilder::new();
    let (storage, recovered) = codex_storage::open(config, &mut |op| {
        builder.push(op);
        Ok(())
    })?;
    if let Some(cut) = &recovered.cut {
        trace::cut_tail(cut);
    }
    let map = builder.finish(recovered.seq);
    Ok((storage, map, recovered))
}

/// Reads the files beside a writer, which may replace them meanwhile.
fn load_beside(config: &Config) -> Result<Loaded, StorageError> {
    use StorageError::{Damaged, ForeignLog, Gap, ImageMissing, Io, LogMissing, Tampered};
    let mut attempt = 1;
    loop {
        match load(config) {
            Err(
                Damaged { .. }
                | ForeignLog { .. }
                | Gap { .. }
                | ImageMissing { .. }
                | Io { .. }
                | LogMissing { .. }
                | Tampered { .. },
            ) if attempt < ATTEMPTS_MAX => attempt += 1,
            done => return done,
        }
        config.vfs.clock.sleep(PAUSE);
    }
}

/// Opens the files again for a follower that had them under the root key `seal`.
fn reload(
    config: &Config,
    seal: Option<Arc<dyn Seal>>,
) -> Result<(Box<dyn Storage>, Map), StorageError> {
    // Order: the root key first, because deriving it from a passphrase takes long.
    let known =
        seal.map(|seal| Config { keys: Some(Arc::new(Unlocked::new(seal))), ..config.clone() });
    let loaded = match known.map(|known| load(&known)) {
        Some(Ok(loaded)) => loaded,
        _ => load_beside(config)?,
    };
    Ok((loaded.0, loaded.1))
}

/// Reads the files of a store. Before that, finishes a restore that was interrupted. If it is
/// allowed and needed, restores the newest backup and reads that. A reader does not finish a
/// restore: the storage refuses the store then.
fn load_or_restore(config: &Config, falls_back: bool) -> Result<(Loaded, Option<Restored>)> {
    let mut restored = None;
    if config.access == Access::ReadWrite {
        let backups = Backups::of_in(&config.vfs, &config.name);
        restored = backups.finish_restore(config.lock_timeout)?;
    }
    // A damaged store is read at most twice: another process may have repaired it meanwhile.
    for look in [Look::Again, Look::Once] {
        let error = match load(config).map_err(Error::from) {
            Err(error) if falls_back && is_mended_by_a_backup(config, &error) => error,
            loaded => return Ok((loaded?, restored)),
        };
        // First try to repair the header, which loses no commit. A backup loses all commits after
        // it.
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

/// Whether a store that could not be read is verified again before a backup replaces it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Again,
    /// No. It was intact when it was verified again, and still could not be opened.
    Once,
}

/// Replaces a store that failed to open with `error` by the newest backup that `config` opens.
/// Returns `None`, and changes nothing, if the store is intact when it is verified again.
///
/// # Errors
/// `error` if there is no such backup, or `TooManyEnvelopes` if the passphrase was not tried on all
/// of them.
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
    // Order: called under the lock of the store, after the files were read without it. Another
    // process may have repaired the store since, and have committed to it.
    let is_lost = || {
        let (vfs, keys) = (&config.vfs, config.keys.as_deref());
        let is_whole =
            look == Look::Again && verify_open(vfs, &config.name, keys, Seq::MAX, &|| true).is_ok();
        is_mended.set(is_whole);
        !is_whole
    };
    let restored = backups.restore_newest(config.lock_timeout, &is_lost, &opens)?;
    if restored.is_none() && !is_mended.get() {
        return Err(left_out.take().map_or(error, Error::from));
    }
    Ok(restored)
}

/// Opens `backup` with these options as if it were the store: with the same key, form and anchor.
/// Reads every byte and changes nothing.
fn is_opened_by(config: &Config, backup: &str) -> Result<(), StorageError> {
    let (vfs, name) = (config.vfs.clone(), backup.to_owned());
    let (access, create) = (Access::ReadOnly, Create::Never);
    let trial = Config { vfs, name, access, create, ..config.clone() };
    codex_storage::open(&trial, &mut |_| Ok(()))?;
    verify(&config.vfs, backup, config.keys.as_deref())?;
    Ok(())
}

/// Returns true if an older state may replace the files. Returns false if they are intact but older
/// than the anchor, or if the options demand a new store.
fn is_mended_by_a_backup(config: &Config, error: &Error) -> bool {
    use StorageError::{AnchorMismatch, NotFound, OnlyBackups};
    let is_missing = matches!(error, Error::Storage(NotFound { .. } | OnlyBackups { .. }));
    let is_newer = matches!(error, Error::Storage(AnchorMismatch { .. }));
    config.create != Create::New && (is_missing || error.is_damage() && !is_newer)
}

/// The number of attempts to read files that a writer replaces.
const ATTEMPTS_MAX: u32 = 8;
/// The pause between two of them.
const PAUSE: Duration = Duration::from_millis(1);

/// Returns a store without files.
pub(crate) fn in_memory(codec: Codec) -> Store {
    let options = options_of("(in memory)", true);
    without_files(Engine::start(codex_storage::null(), Map::new(), options), codec)
}

/// Opens a store on `log`, and reads the log into memory.
///
/// # Errors
/// Those of [`Meta::open`] and of reading the log.
#[cfg(feature = "shared")]
pub(crate) fn on_log(
    log: Arc<dyn SharedLog>,
    write_timeout: Duration,
    options: &OpenOptions,
) -> Result<Store> {
    let running = options_of("(shared)", options.threads.unwrap_or(true));
    let entropy: Arc<dyn Entropy> = Arc::new(OsEntropy);
    let keys = options.keys(&entropy);
    let meta = Meta::open(&*log, keys.as_deref(), &*entropy, &*running.clock, write_timeout)?;
    // The node has the root key.
    drop(keys);
    let meta = Arc::new(meta);
    let temporary = Vfs::os(std::env::temp_dir()).map_err(|source| {
        let (path, source) = (std::env::temp_dir(), Arc::new(source));
        StorageError::Io { action: "open the folder for temporary files", path, source }
    })?;
    let (target, policy) =
        (options.images.as_ref().map(|place| place.0.clone()), options.image_policy());
    let images =
        Images::new(log.clone(), Arc::clone(&meta), target, policy, write_timeout, temporary);
    let loaded = images.load()?;
    let engine = Engine::start_shared(log, &meta, loaded, running, write_timeout)?;
    engine.write_images_to(images);
    // An error drops the store, which closes the engine.
    let store = without_files(engine, options.codec);
    store.inner.engine.join_log()?;
    Ok(store)
}

fn options_of(path: &str, background: bool) -> EngineOptions {
    EngineOptions {
        path: PathBuf::from(path),
        durability: Durability::Sync,
        clock: Arc::new(OsClock::new()),
        background,
        newest_us: i64::MIN,
    }
}

fn without_files(engine: Arc<Engine>, codec: Codec) -> Store {
    Store::new(Inner {
        engine,
        backups: None,
        #[cfg(feature = "remote")]
        archive: None,
        codec,
        on_progress: None,
        path: PathBuf::new(),
        form: None,
        access: Access::ReadWrite,
        recovered: Recovered::default(),
        files: None,
        restored: None,
        lock: None,
        ids: Ids::default(),
        past: Past::default(),
        opened_by: std::process::id(),
    })
}

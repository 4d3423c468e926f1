//! The store that a command is about, and its opening.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use codex_core::vfs::Vfs;
use codex_core::{Conversion, Durability, Error, OpenOptions, StorageError, Store};

use crate::Outcome;
use crate::failure::Failure;
use crate::out::note;
use crate::progress::Bar;
use crate::secret::{KeyArgs, Secret};

/// The path of a store, its key, and how long to wait for it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    /// The path of the store, or of a backup of one
    #[arg(value_name = "STORE")]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// Wait up to SECONDS until the store is closed elsewhere
    #[arg(long, value_name = "SECONDS", default_value_t = 0, hide_default_value = true)]
    wait: u64,
    #[arg(from_global)]
    json: bool,
}

impl Target {
    /// Opens the store for reading only. Changes no file of it.
    pub(crate) fn read(&self) -> Outcome<Store> {
        self.read_with(self.secret()?.as_ref())
    }

    /// Opens the store for reading only, with a key that was read before.
    pub(crate) fn read_with(&self, secret: Option<&Secret>) -> Outcome<Store> {
        let store = self.options(secret)?.read_only(true).open(&self.path)?;
        report(&store, "is not read");
        Ok(store)
    }

    /// Opens the store for reading, beside a writer if there is one. Changes no file of it.
    pub(crate) fn look(&self) -> Outcome<Store> {
        self.look_with(self.secret()?.as_ref())
    }

    /// Opens the store for reading, beside a writer if there is one, with a key that was read
    /// before.
    pub(crate) fn look_with(&self, secret: Option<&Secret>) -> Outcome<Store> {
        let locked = match self.read_with(secret) {
            Err(Failure::Store(error)) if is_locked(&error) => error,
            read => return read,
        };
        match self.options_without_lock(secret)?.follow(true).open(&self.path) {
            Ok(store) => {
                note("another process has the store open for writing; its commits are shown");
                Ok(store)
            }
            // Each commit of a snapshot writes all of it, which nothing can follow.
            Err(Error::Storage(StorageError::Contradiction(_))) => Err(Failure::Store(locked)),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the store for reading and writing. Creates none.
    pub(crate) fn write(&self) -> Outcome<Store> {
        self.write_with(&self.options(self.secret()?.as_ref())?)
    }

    /// Opens the store for reading and writing, with `options`.
    pub(crate) fn write_with(&self, options: &OpenOptions) -> Outcome<Store> {
        let store = options.open(&self.path)?;
        report(&store, "was cut off");
        Ok(store)
    }

    /// Returns another store, which is opened in the same way.
    pub(crate) fn beside(&self, path: PathBuf) -> Self {
        Self { path, ..self.clone() }
    }

    /// Reads the key, if one is given.
    pub(crate) fn secret(&self) -> Outcome<Option<Secret>> {
        self.key.read(&self.path)
    }

    /// Returns the options of an opening. They create no store.
    pub(crate) fn options(&self, secret: Option<&Secret>) -> Outcome<OpenOptions> {
        Ok(self.options_without_lock(secret)?.lock_timeout(self.wait()))
    }

    fn options_without_lock(&self, secret: Option<&Secret>) -> Outcome<OpenOptions> {
        let options = Store::options().create(false);
        let options = match Bar::of_calls(self.json) {
            Some(draw) => options.on_progress(draw),
            None => options,
        };
        Ok(match secret {
            Some(secret) => options.key(secret.key()?),
            None => options,
        })
    }

    /// Returns a conversion of the store.
    pub(crate) fn conversion(&self) -> Conversion {
        let conversion = Conversion::new().lock_timeout(self.wait());
        match Bar::of_calls(self.json) {
            Some(draw) => conversion.on_progress(draw),
            None => conversion,
        }
    }

    /// Returns how long to wait for the store.
    pub(crate) fn wait(&self) -> Duration {
        Duration::from_secs(self.wait)
    }
}

/// The durability of an import. Its commits are not synced one by one: closing the store makes all
/// of them durable, in every form, before the command tells that they are there.
pub(crate) const BULK: Durability = Durability::Interval(Duration::from_secs(60));

/// Returns the folder and the file name of `path`, for the functions of the storage.
pub(crate) fn place(path: &Path) -> Result<(Vfs, String), Error> {
    let io = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => StorageError::NotFound { path: path.to_owned() },
        _ => {
            StorageError::Io { action: "look at", path: path.to_owned(), source: Arc::new(source) }
        }
    };
    // All names of a store derive from the name of the file itself.
    let real = path.canonicalize().map_err(io)?;
    let bad = |why| StorageError::BadPath { path: path.to_owned(), why };
    let name = real.file_name().ok_or_else(|| bad("the path has no file name; name a file"))?;
    let name = name.to_str().ok_or_else(|| bad("the file name is not UTF-8"))?;
    let vfs = Vfs::os(real.parent().unwrap_or(Path::new("/"))).map_err(io)?;
    Ok((vfs, name.to_owned()))
}

/// Returns the folder and the file name of `path`, where no file needs to be.
pub(crate) fn new_place(path: &Path) -> Result<(Vfs, String), Error> {
    let name = path.file_name().and_then(|name| name.to_str());
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let io = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => StorageError::NoFolder { path: path.to_owned() },
        _ => {
            StorageError::Io { action: "look at", path: path.to_owned(), source: Arc::new(source) }
        }
    };
    let why = "the path has no file name, or one that is not UTF-8; name a file";
    let name = name.ok_or_else(|| StorageError::BadPath { path: path.to_owned(), why })?;
    Ok((Vfs::os(folder).map_err(io)?, name.to_owned()))
}

fn is_locked(error: &Error) -> bool {
    matches!(error, Error::Storage(StorageError::Locked { .. }))
}

/// Tells of the end of a log that an unclean stop has left.
fn report(store: &Store, what: &str) {
    if let Some(cut) = &store.recovered().cut {
        note(&format!(
            "the end of {} {what}: {} bytes of an unfinished write after commit {}",
            cut.file, cut.bytes, cut.seq
        ));
    }
}

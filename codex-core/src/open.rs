//! Opening: from a path to the directory that holds it, and from files to a running store.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use codex_storage::storage::{Durability, Recovered};
use codex_storage::vfs::{Kind, OsClock, OsDir, Vfs};
use codex_storage::{Access, Config, Error as StorageError};

use crate::engine::{Engine, EngineOptions};
use crate::error::Result;
use crate::handle::{Files, Opened};
use crate::map::{Map, MapBuilder};
use crate::rank;
use crate::store::Store;
use crate::value::Codec;

/// The directory and the file name that `path` stands for.
///
/// All names of a store derive from this one, so a symbolic link is followed first: through it and
/// around it, the same lock is taken.
pub(crate) fn locate(path: &Path) -> Result<(Vfs, String)> {
    let (vfs, name) = split(path)?;
    let found = vfs.dir.metadata(&name).map_err(|source| io("look at", path, source))?;
    if found.is_none_or(|found| found.kind != Kind::Symlink) {
        return Ok((vfs, name));
    }
    let target = OsDir::resolve(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => StorageError::NotAFile {
            path: path.to_owned(),
            what: "a symbolic link that leads nowhere",
        },
        _ => io("follow the symbolic link", path, source),
    })?;
    Ok(split(&target)?)
}

/// Opens the files that `config` names and replays them into memory. On an error everything is
/// dropped, the lock with it.
pub(crate) fn open(mut config: Config, codec: Codec) -> Result<Store> {
    config.vfs = rank::watched(&config.vfs);
    let path = config.vfs.dir.path(&config.name);
    let access = config.access;
    let files =
        Files { vfs: config.vfs.clone(), name: config.name.clone(), keys: config.keys.clone() };
    let options = EngineOptions {
        path: path.clone(),
        durability: config.durability,
        clock: Arc::clone(&config.vfs.clock),
        background: access == Access::ReadWrite,
    };
    let mut storage = codex_storage::open(config)?;
    let mut builder = MapBuilder::new();
    let recovered = storage.replay(&mut |op| {
        builder.push(op);
        Ok(())
    })?;
    let form = Some(storage.form());
    let engine = Engine::start(storage, builder.finish(recovered.seq), options)?;
    Ok(Store::new(engine, codec, Opened { path, form, access, recovered, files: Some(files) }))
}

/// A store without files.
pub(crate) fn in_memory(codec: Codec) -> Result<Store> {
    let options = EngineOptions {
        path: PathBuf::from("(in memory)"),
        durability: Durability::Sync,
        clock: Arc::new(OsClock::new()),
        background: false,
    };
    let engine = Engine::start(codex_storage::null(), Map::new(), options)?;
    let opened = Opened {
        path: PathBuf::new(),
        form: None,
        access: Access::ReadWrite,
        recovered: Recovered::default(),
        files: None,
    };
    Ok(Store::new(engine, codec, opened))
}

/// The folder of `path`, open, and the last name of it.
fn split(path: &Path) -> Result<(Vfs, String), StorageError> {
    let bad = |why| StorageError::BadPath { path: path.to_owned(), why };
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.is_empty() {
        return Err(bad("the path is empty; name a file"));
    }
    if bytes.ends_with(b"/") || bytes.ends_with(b"/.") {
        return Err(bad("the path names a folder; name a file in it"));
    }
    let name = path.file_name().ok_or_else(|| bad("the path has no file name; name a file"))?;
    let name = name.to_str().ok_or_else(|| bad("the file name is not UTF-8; choose another"))?;
    let vfs =
        Vfs::os(path.parent().unwrap_or(Path::new(""))).map_err(|source| match source.kind() {
            ErrorKind::NotFound => StorageError::NoFolder { path: path.to_owned() },
            ErrorKind::NotADirectory => bad("what should be its folder is not a folder"),
            _ => io("open the folder of", path, source),
        })?;
    Ok((vfs, name.to_owned()))
}

fn io(action: &'static str, path: &Path, source: std::io::Error) -> StorageError {
    StorageError::Io { action, path: path.to_owned(), source: Arc::new(source) }
}

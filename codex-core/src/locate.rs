//! From a path to the directory that holds the store, and its name in it.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use codex_storage::Error as StorageError;
use codex_storage::vfs::{Kind, OsDir, Vfs};

use crate::error::Result;

/// Returns the directory and the file name that `path` stands for.
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

/// Returns the folder of `path`, open, and the last name of it.
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

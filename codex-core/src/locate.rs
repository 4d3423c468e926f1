//! The directory and the file name of a path.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use codex_storage::Error as StorageError;
use codex_storage::vfs::{Kind, OsDir, Vfs};

use crate::error::Result;

/// Returns the directory and the file name of `path`.
///
/// All names of a store derive from this name, so a symbolic link is followed first. A store that
/// is opened through the link and directly then has the same lock.
pub(crate) fn locate(path: &Path) -> Result<(Vfs, String)> {
    let (vfs, name) = split(path)?;
    let found = vfs.dir.metadata(&name).map_err(|source| io("look at", path, source))?;
    // A path that is not a link is used as it is, even if there is no file yet.
    if found.is_none_or(|found| found.kind != Kind::Symlink) {
        return Ok((vfs, name));
    }
    let target = OsDir::resolve(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => StorageError::NotAFile {
            path: path.to_owned(),
            what: "a symbolic link whose target does not exist",
        },
        _ => io("follow the symbolic link", path, source),
    })?;
    Ok(split(&target)?)
}

/// Creates the missing folders above `path`.
pub(crate) fn create_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    OsDir::create_folders(folder).map_err(|source| io("create the folder of", path, source))?;
    Ok(())
}

/// Opens the directory of `path`. Returns it, with the last name of `path`.
fn split(path: &Path) -> Result<(Vfs, String), StorageError> {
    let bad = |why| StorageError::BadPath { path: path.to_owned(), why };
    // A trailing `/` or `/.` names a directory. `file_name` would ignore it.
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
            ErrorKind::NotADirectory => bad("the parent of the file is not a folder"),
            _ => io("open the folder of", path, source),
        })?;
    Ok((vfs, name.to_owned()))
}

/// Returns the error of the system for `path`.
fn io(action: &'static str, path: &Path, source: std::io::Error) -> StorageError {
    StorageError::Io { action, path: path.to_owned(), source: Arc::new(source) }
}

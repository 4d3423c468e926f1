//! Real input for the demo: the files of directory trees, each as a typed entry.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Outcome;

/// The entry that the demo stores for a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// The path below its root.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// The time of its last change, in microseconds since 1970.
    pub modified_us: u64,
    /// The number of its line ends.
    pub lines: u64,
    /// The SHA-256 of its bytes.
    pub digest: [u8; 32],
}

/// A file to read: its path, and the key of its entry.
#[derive(Debug, Clone)]
pub struct Found {
    /// `<name of the root>/<path below it>`.
    pub key: String,
    /// The path on this machine.
    pub path: PathBuf,
}

/// Returns at most `limit` regular files below `root`, in the order of their names. Skips the
/// directories of version control and builds.
///
/// # Errors
/// An error if the root cannot be read. Directories below it that cannot be read are skipped.
pub fn files_below(root: &Path, name: &str, limit: usize) -> Outcome<Vec<Found>> {
    let mut found = Vec::new();
    fs::read_dir(root).map_err(|error| format!("cannot read {}: {error}", root.display()))?;
    walk(root, name, limit, &mut found);
    Ok(found)
}

/// Reads a file and returns its entry.
///
/// # Errors
/// An error if the file cannot be read.
pub fn read_entry(found: &Found) -> Outcome<FileEntry> {
    let mut bytes = Vec::new();
    let mut file = fs::File::open(&found.path)?;
    file.read_to_end(&mut bytes)?;
    let modified = file.metadata()?.modified()?.duration_since(UNIX_EPOCH)?;
    Ok(FileEntry {
        path: found.key.clone(),
        bytes: bytes.len() as u64,
        modified_us: u64::try_from(modified.as_micros())?,
        lines: line_ends(&bytes),
        digest: Sha256::digest(&bytes).into(),
    })
}

/// Returns the sources of dependencies that cargo has on this machine, if there are any.
pub fn cargo_sources() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))?;
    let sources = home.join("registry/src");
    sources.is_dir().then_some(sources)
}

fn walk(folder: &Path, name: &str, limit: usize, found: &mut Vec<Found>) {
    let Ok(listing) = fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = listing.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if found.len() >= limit {
            return;
        }
        let (Ok(kind), Ok(leaf)) = (entry.file_type(), entry.file_name().into_string()) else {
            continue;
        };
        let key = format!("{name}/{leaf}");
        if kind.is_dir() && !SKIPPED.contains(&leaf.as_str()) {
            walk(&entry.path(), &key, limit, found);
        } else if kind.is_file() {
            found.push(Found { key, path: entry.path() });
        }
    }
}

fn line_ends(bytes: &[u8]) -> u64 {
    bytes.split(|byte| *byte == b'\n').count().saturating_sub(1) as u64
}

const SKIPPED: [&str; 2] = [".git", "target"];

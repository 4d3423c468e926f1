//! Directories for the files of a run. They are marked as part of this project, so that
//! `cargo xtask purge` may remove them, and are removed after a successful run.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Outcome;

/// The directory of a run.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    keep: bool,
}

impl RunFolder {
    /// Creates a new directory for the program `name`, below `base`, or below `target/codexdb-runs`
    /// of the current directory. That is a real disk, while a temporary directory may be in memory.
    ///
    /// # Errors
    /// An error if the directory cannot be created.
    pub fn new(name: &str, base: Option<PathBuf>) -> Outcome<Self> {
        let base = base.unwrap_or_else(|| PathBuf::from("target/codexdb-runs"));
        let path = base.join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path)
            .map_err(|error| format!("cannot create {}: {error}", path.display()))?;
        fs::write(
            path.join(MARK),
            "Made by a program of CodexDB; `cargo xtask purge` removes it.\n",
        )?;
        Ok(Self { path, keep: true })
    }

    /// Returns the path of `name` in the directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records that the run was successful. The directory is then removed when this value is
    /// dropped, unless `keep` is true.
    pub fn done(&mut self, keep: bool) {
        self.keep = keep;
        if keep {
            println!("files kept in {}", self.path.display());
        }
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// The file that marks the directory of a run.
const MARK: &str = ".codexdb-run";

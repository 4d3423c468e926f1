//! Folders for the files of a run: marked as this project's own, so that `cargo xtask purge` may
//! remove them, and removed when the run went well.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Outcome;

/// A folder of this run's own.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    keep: bool,
}

impl RunFolder {
    /// A fresh folder for the program `name`, below `target/codexdb-runs` of the current folder
    /// (a real disk, where a temporary folder may be memory), or below `base`.
    ///
    /// # Errors
    /// The folder cannot be created.
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

    /// The path of `name` in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run went well: the folder goes when this value is dropped, unless `keep`.
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

/// The file that marks a run's folder.
const MARK: &str = ".codexdb-run";

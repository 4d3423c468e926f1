//! The file of the lines that were typed into the shell.

use std::env;
use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use rustyline::Config;
use rustyline::error::ReadlineError;
use rustyline::history::{FileHistory, History as _};

use crate::out::note;

/// The part of a line that the file keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Keep {
    /// Everything but values
    Keys,
    /// Everything
    Values,
    /// Nothing
    None,
}

/// The history of this and of earlier shells. Only its owner can read its file.
pub(super) struct History {
    keep: Keep,
    file: FileHistory,
    /// The path of the file, unless there is none.
    path: Option<PathBuf>,
}

impl History {
    /// Reads the file. A file that cannot be read is told, and not written to.
    pub(super) fn open(keep: Keep) -> Self {
        let path = if keep == Keep::None { None } else { path() };
        Self::at(keep, path)
    }

    fn at(keep: Keep, path: Option<PathBuf>) -> Self {
        let config = Config::builder().history_ignore_space(true).build();
        let mut history = Self { keep, file: FileHistory::with_config(&config), path };
        if let Some(path) = &history.path
            && let Err(error) = load(&mut history.file, path)
        {
            note(&format!("no history: {}: {error}", path.display()));
            history.path = None;
        }
        history
    }

    /// Returns the lines of earlier shells.
    pub(super) fn lines(&mut self) -> Vec<String> {
        self.file.iter().cloned().collect()
    }

    /// Adds a line, of which `without_value` is the part that is no value.
    pub(super) fn add(&mut self, line: &str, without_value: &str) {
        let Some(path) = &self.path else { return };
        // A space before a line keeps it out of the history.
        let is_hidden = line.starts_with([' ', '\t']);
        let kept = if self.keep == Keep::Values { line } else { without_value };
        if is_hidden || kept.is_empty() {
            return;
        }
        let added = self.file.add(kept).and_then(|_| self.file.append(path));
        if let Err(error) = added {
            note(&format!("no history: {}: {error}", path.display()));
            self.path = None;
        }
    }
}

fn load(file: &mut FileHistory, path: &Path) -> Result<(), ReadlineError> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match file.load(path) {
        Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::NotFound => Ok(()),
        loaded => loaded,
    }
}

/// Returns the path of the file (<https://specifications.freedesktop.org/basedir-spec>).
fn path() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME");
    let state = state.or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("codexdb/history"))
}

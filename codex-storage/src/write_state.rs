//! Whether a storage that writes still takes writes.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Whether a storage takes writes: it does until it is poisoned or closed, and never again.
#[derive(Debug)]
pub(crate) struct WriteState {
    path: PathBuf,
    poison: Option<String>,
    closed: bool,
}

impl WriteState {
    /// The state of a storage that was just opened. Its errors name `path`.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), poison: None, closed: false }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Called before every change.
    ///
    /// # Errors
    /// `Closed`, `Poisoned`.
    pub(crate) fn check(&self) -> Result<()> {
        if self.closed {
            return Err(Error::Closed { path: self.path.clone() });
        }
        match &self.poison {
            Some(reason) => {
                Err(Error::Poisoned { path: self.path.clone(), reason: reason.clone() })
            }
            None => Ok(()),
        }
    }

    /// Refuses every later change; the first reason is kept.
    pub(crate) fn poison(&mut self, reason: String) {
        self.poison.get_or_insert(reason);
    }

    pub(crate) fn poisoned(&self) -> Option<String> {
        self.poison.clone()
    }

    pub(crate) fn close(&mut self) {
        self.closed = true;
    }
}

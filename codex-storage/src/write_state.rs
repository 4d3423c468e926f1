//! The state of a storage that decides whether writes are allowed.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Whether a storage allows writes. It does until it is poisoned or closed, and then never again.
#[derive(Debug)]
pub(crate) struct WriteState {
    path: PathBuf,
    poison: Option<String>,
    closed: bool,
}

impl WriteState {
    /// Returns the state of a storage that was just opened. Its errors have `path`.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), poison: None, closed: false }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns an error if writes are refused. Called before every change.
    ///
    /// # Errors
    /// `Closed` or `Poisoned`.
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

    /// Refuses all later changes. The first reason is kept.
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

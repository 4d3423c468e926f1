//! Whether a storage still takes writes.

use std::path::{Path, PathBuf};

use crate::config::Access;
use crate::error::{Error, Result};

/// What a storage may still do. It only gets worse: open, then poisoned or closed.
#[derive(Debug)]
pub(crate) struct Condition {
    path: PathBuf,
    access: Access,
    poison: Option<String>,
    closed: bool,
}

impl Condition {
    /// A storage that was just opened; `path` is what its errors name.
    pub(crate) fn new(path: &Path, access: Access) -> Self {
        Self { path: path.to_owned(), access, poison: None, closed: false }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether anything may be written at all.
    pub(crate) fn writes(&self) -> bool {
        self.access == Access::ReadWrite
    }

    /// To be asked before every change.
    ///
    /// # Errors
    /// `Closed`, `ReadOnly`, `Poisoned`.
    pub(crate) fn check(&self) -> Result<()> {
        if self.closed {
            return Err(Error::Closed { path: self.path.clone() });
        }
        if !self.writes() {
            return Err(Error::ReadOnly { path: self.path.clone() });
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

//! The contradictions between options.

use std::time::Duration;

use codex_storage::storage::{Durability, Form};
use codex_storage::{Create, Error as StorageError};

use super::OpenOptions;
use crate::backup::BackupOptions;
use crate::error::Result;

impl OpenOptions {
    /// Checks that no two options contradict each other. Returns whether a missing store is
    /// created.
    pub(super) fn validate(&self) -> Result<Create> {
        let durability = self.durability.unwrap_or_default();
        #[cfg(feature = "shared")]
        self.validate_files()?;
        self.validate_follow()?;
        let read_only = self.read_only || self.follow;
        // Options about creating the store.
        let create = match (self.create, self.create_new, read_only) {
            (_, true, true) => {
                return contradiction(
                    "`create_new` writes and `read_only` or `follow` forbids it: drop one",
                );
            }
            (Some(true), _, true) => {
                return contradiction(
                    "`create` writes and `read_only` or `follow` forbids it: drop one",
                );
            }
            (Some(false), true, _) => {
                return contradiction("`create_new` creates and `create(false)` forbids it");
            }
            (_, true, _) => Create::New,
            (Some(false), ..) | (None, _, true) => Create::Never,
            (Some(true) | None, ..) => Create::IfMissing,
        };
        if self.create_folder == Some(true) && (create == Create::Never || self.anchor.is_some()) {
            return contradiction(
                "`create_folder` is about a new store, which `read_only`, `create(false)` and \
                 `anchor` forbid",
            );
        }
        // Options about an existing store.
        if self.anchor.is_some() && self.create_new {
            return contradiction("`anchor` needs an existing store and `create_new` a new one");
        }
        if self.anchor.is_none() && self.accept_unknown_anchor.is_some() {
            return contradiction("`accept_unknown_anchor` needs an anchor: set `anchor` too");
        }
        if read_only {
            self.validate_reading()?;
        }
        // Options about durability.
        if self.form == Some(Form::Snapshot) && durability == Durability::Os {
            return contradiction(
                "the Snapshot form syncs every image: use `Durability::Sync` or `Interval`",
            );
        }
        if durability == Durability::Interval(Duration::ZERO) {
            return contradiction("the interval is zero: use `Durability::Sync`");
        }
        // Options about backups, keys and checkpoints.
        self.backups.check(self.form)?;
        #[cfg(feature = "remote")]
        if let Some(archive) = &self.archive {
            archive.check()?;
        }
        #[cfg(feature = "crypto")]
        if self.cipher.is_some() && self.key.is_none() {
            return contradiction("`cipher` needs a key: set `key` too");
        }
        if let Some(policy) = self.checkpoint {
            if self.form.is_some_and(|form| form != Form::Wal) {
                return contradiction("only the Wal form checkpoints: leave `checkpoint` out");
            }
            if !policy.ratio.is_finite() || policy.ratio <= 0.0 {
                return contradiction("the ratio of a checkpoint policy is a number above zero");
            }
        }
        Ok(create)
    }

    /// Checks the options that contradict reading.
    fn validate_reading(&self) -> Result<()> {
        if self.durability.is_some() || self.checkpoint.is_some() || self.compression.is_some() {
            return contradiction(
                "`read_only` and `follow` forbid `durability`, `checkpoint` and `compression`",
            );
        }
        if self.backups != BackupOptions::default() || self.fall_back {
            return contradiction(
                "backups are about writing, which `read_only` and `follow` forbid",
            );
        }
        #[cfg(feature = "remote")]
        if self.archive.is_some() {
            return contradiction(
                "an archive is about writing, which `read_only` and `follow` forbid",
            );
        }
        Ok(())
    }

    /// Checks the options that contradict `follow` alone, if it is set.
    fn validate_follow(&self) -> Result<()> {
        if !self.follow {
            return Ok(());
        }
        if self.form == Some(Form::Snapshot) {
            return contradiction("each commit of a Snapshot writes all of it: use `read_only`");
        }
        if self.lock_timeout.is_some() {
            return contradiction("`lock_timeout` waits for a lock, which `follow` does not take");
        }
        if self.on_damage.is_some() {
            return contradiction("`on_damage` cuts the end of a log, which `follow` never does");
        }
        Ok(())
    }
}

pub(crate) fn contradiction<T>(what: &'static str) -> Result<T> {
    Err(StorageError::Contradiction(what).into())
}

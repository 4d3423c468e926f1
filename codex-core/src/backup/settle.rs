//! Bringing the main file of an open store up to its last commit, before it is copied.

use std::sync::Arc;

use codex_storage::seal::Seal;
use codex_storage::storage::Form;
use codex_storage::vfs::Vfs;

use super::join::{self, Grown};
use crate::engine::{Engine, ImageProgress};
use crate::error::Result;

/// A main file that has the last commit.
pub(super) struct Settled {
    /// The file, if it is a ledger, and is copied whatever takes its name; `None` for an image.
    pub(super) grown: Option<Grown>,
    /// The root key that it was under then.
    pub(super) seal: Option<Arc<dyn Seal>>,
}

/// Brings the main file `name` up to the last commit.
pub(super) fn settle(
    engine: &Engine,
    vfs: &Vfs,
    name: &str,
    form: Form,
    progress: &ImageProgress<'_>,
) -> Result<Settled> {
    if form != Form::Ledger {
        engine.settle(form, progress)?;
        return Ok(Settled { grown: None, seal: engine.seal() });
    }
    let reached = || {
        engine.settle(form, progress)?;
        let stats = engine.stats().storage;
        Ok((stats.log_bytes, stats.seq))
    };
    loop {
        let grown = join::settle_ledger(vfs, name, reached)?;
        let seal = engine.seal();
        // A rekey may have ended in between.
        if grown.is_under(seal.as_deref(), &vfs.dir.path(name))? {
            return Ok(Settled { grown: Some(grown), seal });
        }
    }
}

/// Whether a copy failed because another file took the store's name meanwhile, or because a rekey
/// that ended gave it another root key than `seal`.
pub(super) fn is_outrun(
    error: &codex_backup::Error,
    engine: &Engine,
    seal: Option<&dyn Seal>,
) -> bool {
    let root = |seal: Option<&dyn Seal>| seal.map(Seal::root_id);
    matches!(error, codex_backup::Error::Changed { .. })
        || root(engine.seal().as_deref()) != root(seal)
}

//! An attempt of an update or of a transaction.

use crate::commit::{Check, Commit, SmallVec};
use crate::engine::Engine;

/// A commit that is made if nothing that it read has changed.
pub(crate) struct Attempt {
    pub(crate) commit: Commit,
    /// The number of entries that its scans returned.
    pub(crate) scanned: usize,
}

impl Attempt {
    /// Returns an attempt of `commit`, which scanned nothing.
    pub(crate) fn of(commit: Commit) -> Self {
        Self { commit, scanned: 0 }
    }

    /// Returns an attempt that changes nothing, or `None` if there is nothing to ask: only a shared
    /// store may have seen less than what other nodes were told. There, the log decides whether
    /// `check` holds.
    pub(crate) fn to_confirm(engine: &Engine, check: Check) -> Option<Self> {
        let checks = SmallVec::One(check);
        engine.is_shared().then(|| Self::of(Commit { checks, ..Commit::default() }))
    }
}

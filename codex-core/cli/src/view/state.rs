//! The state of the store that a request is about: the present one, or an earlier one of a ledger.

use codex_core::{Seq, Snapshot, Store};

use crate::view::ledger::Last;

/// The state after one commit.
pub(super) struct State {
    pub(super) seq: Seq,
    pub(super) snapshot: Snapshot,
    /// The last commit of an earlier state; `None` if it has none.
    pub(super) last: Option<Last>,
}

impl State {
    pub(super) fn present(store: &Store) -> Self {
        let snapshot = store.snapshot();
        Self { seq: snapshot.seq(), snapshot, last: None }
    }
}

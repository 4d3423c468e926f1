//! The state of the store that a request is about: the present one, or an earlier one of a ledger.

use codex_core::{Seq, Snapshot, Store};

use crate::space::Space;
use crate::view::answer::{Answer, Refused};
use crate::view::ledger::Last;
use crate::view::request::Request;

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

    /// Returns the keys that a request is about: those of a table, or those outside tables.
    pub(super) fn space(&self, request: &Request) -> Result<Space, Refused> {
        let space = Space::of(&self.snapshot, request.param("table"));
        let space = space.map_err(|error| Answer::refuse(400, &error.to_string()))?;
        space.ok_or_else(|| Answer::refuse(400, "there is no such table at this commit"))
    }
}

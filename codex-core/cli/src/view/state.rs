//! The state of the store that a request is about: the present one, or an earlier one of a ledger.

use std::collections::HashMap;

use codex_core::{Entry, Seq, Snapshot, Store};

use crate::time;
use crate::view::ledger::Last;

/// The state after one commit.
pub(super) struct State {
    pub(super) seq: Seq,
    pub(super) snapshot: Snapshot,
    /// The expiries of an earlier state. Its entries have none, because most of them have expired
    /// since.
    pub(super) expiries: Option<HashMap<Vec<u8>, i64>>,
    /// The last commit of an earlier state; `None` if it has none.
    pub(super) last: Option<Last>,
}

impl State {
    pub(super) fn present(store: &Store) -> Self {
        let snapshot = store.snapshot();
        Self { seq: snapshot.seq(), snapshot, expiries: None, last: None }
    }

    /// Returns the time at which an entry expires, in microseconds since 1970.
    pub(super) fn expires_us(&self, entry: &Entry) -> Option<i64> {
        match &self.expiries {
            Some(expiries) => expiries.get(entry.key()).copied(),
            None => entry.expires_at().map(time::to_us),
        }
    }
}

//! The changes of one key in the commits of a ledger.

use codex_storage::LedgerCommit;
use codex_storage::batch::{Item, Op};

/// The change of a key in a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// The key was set to the value of this item, with its expiry.
    Set(Item<'a>),
    /// The key was removed, if it was there.
    Removed,
}

/// Returns the last change that a commit makes to `key`, if it makes one.
pub fn last_change<'a>(commit: LedgerCommit<'a>, key: &[u8]) -> Option<Change<'a>> {
    let change = |op| match op {
        Op::Set(item) if item.key == key => Some(Change::Set(item)),
        Op::Remove { key: removed, .. } if removed == key => Some(Change::Removed),
        Op::Clear { .. } => Some(Change::Removed),
        _ => None,
    };
    let outside_tables = commit.ops.flatten().filter(|op| op.table().is_none());
    outside_tables.filter_map(change).last()
}

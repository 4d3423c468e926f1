//! The keys that a command is about.

use std::ops::Bound;

use clap::Args;
use codex_core::{Entry, Prefix, Readable};
use codexdb::space::Space;

use crate::Outcome;
use crate::failure::Failure;
use crate::key::TypedKey;
use crate::tables::TableArg;

/// A range of keys, in order.
#[derive(Debug, Args)]
pub(crate) struct RangeArgs {
    #[command(flatten)]
    table: TableArg,
    /// Only keys that begin with PREFIX
    #[arg(long, conflicts_with_all = ["from", "to"])]
    prefix: Option<TypedKey>,
    /// Only the key KEY and those after it
    #[arg(long, value_name = "KEY")]
    from: Option<TypedKey>,
    /// Only keys before KEY
    #[arg(long, value_name = "KEY")]
    to: Option<TypedKey>,
    /// From the last key to the first
    #[arg(long)]
    reverse: bool,
    /// At most COUNT keys
    #[arg(long, value_name = "COUNT", default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
}

impl RangeArgs {
    /// Returns the entries, in the order that was asked for, and what their keys are.
    pub(crate) fn entries(
        &self,
        store: &impl Readable,
    ) -> Outcome<(Space, Box<dyn Iterator<Item = Entry>>)> {
        let space = self.table.of(store)?;
        let entries = if let Some(prefix) = &self.prefix {
            space.scan(store, Prefix(space.prefix(prefix).map_err(Failure::Usage)?))
        } else {
            let typed = |key: &Option<TypedKey>| {
                let key = key.as_ref().map(|key| space.typed(key)).transpose();
                key.map_err(Failure::Usage)
            };
            let from = typed(&self.from)?.map_or(Bound::Unbounded, Bound::Included);
            space.scan(store, (from, typed(&self.to)?.map_or(Bound::Unbounded, Bound::Excluded)))
        };
        let entries: Box<dyn Iterator<Item = Entry>> = if self.reverse {
            Box::new(entries.rev().take(self.limit))
        } else {
            Box::new(entries.take(self.limit))
        };
        Ok((space, entries))
    }
}

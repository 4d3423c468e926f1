//! The keys that a command is about.

use std::ops::Bound;

use clap::Args;
use codex_core::{Entry, Prefix, Readable};

use crate::key::TypedKey;

/// A range of keys, in order.
#[derive(Debug, Args)]
pub(crate) struct RangeArgs {
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
    /// Returns the entries, in the order that was asked for.
    pub(crate) fn entries(&self, store: &impl Readable) -> Box<dyn Iterator<Item = Entry>> {
        let entries = match (&self.prefix, &self.from, &self.to) {
            (Some(prefix), ..) => store.range(Prefix(prefix)),
            (None, from, to) => {
                let from = from.as_ref().map_or(Bound::Unbounded, Bound::Included);
                let to = to.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                store.range((from, to))
            }
        };
        if self.reverse {
            Box::new(entries.rev().take(self.limit))
        } else {
            Box::new(entries.take(self.limit))
        }
    }
}

//! `du`: the keys and bytes of a store by prefix.

use std::collections::BTreeMap;

use clap::Args;
use codex_core::Store;
use codex_core::internals::{TableSize, tables};

use crate::Outcome;
use crate::key::{self, TypedKey};
use crate::out::{Cell, Out, Record};
use crate::target::Target;

/// The options of `du`.
#[derive(Debug, Args)]
pub(crate) struct Du {
    #[command(flatten)]
    target: Target,
    /// The number of separators that a prefix has at most
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    depth: usize,
    /// The text that ends each part of a prefix
    #[arg(long, value_name = "TEXT", default_value = "/")]
    separator: TypedKey,
    /// The largest prefixes to show
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    top: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    keys: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.keys = self.keys.saturating_add(other.keys);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

impl Du {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        self.on(&self.target.look()?, out)
    }

    pub(crate) fn on(&self, store: &Store, out: &mut Out) -> Outcome {
        let mut sums: BTreeMap<Vec<u8>, Sum> = BTreeMap::new();
        let mut total = Sum::default();
        for entry in store {
            let len = entry.key().len().saturating_add(entry.bytes().len());
            let one = Sum { keys: 1, bytes: u64::try_from(len).unwrap_or(u64::MAX) };
            let prefix = prefix(entry.key(), self.separator.as_ref(), self.depth);
            sums.entry(prefix.to_vec()).or_default().add(one);
            total.add(one);
        }
        let mut sums: Vec<(Vec<u8>, Sum)> = sums.into_iter().collect();
        // Prefixes of the same size stay in their order.
        sums.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.bytes));
        let mut rest = Sum::default();
        let hidden = sums.split_off(sums.len().min(self.top));
        for (_, sum) in &hidden {
            rest.add(*sum);
        }
        let tables = tables(&store.snapshot());
        let sum = |table: &TableSize| Sum { keys: table.entries, bytes: table.bytes };
        tables.iter().map(sum).for_each(|sum| total.add(sum));
        let mut rows: Vec<Record> = Vec::new();
        for (prefix, sum) in &sums {
            let is_none = prefix.is_empty() && !out.json;
            let shown = if is_none { "(no prefix)".to_owned() } else { key::show(prefix) };
            rows.push(row(*sum, total, ("prefix", Cell::Text(shown))));
        }
        // Programs know a sum over prefixes by its missing prefix.
        let named =
            |name: String| ("prefix", if out.json { Cell::Nothing } else { Cell::Text(name) });
        if !hidden.is_empty() {
            rows.push(row(rest, total, named(format!("({} more)", hidden.len()))));
        }
        for table in &tables {
            // Programs know a table by its id.
            let id = ("table", Cell::Count(table.id.get().into()));
            let name = if out.json { id } else { named(format!("({})", table.name)) };
            let mut row = row(sum(table), total, name);
            if out.json {
                row.push(("name", Cell::Text(table.name.clone())));
            }
            rows.push(row);
        }
        if !out.json {
            rows.push(row(total, total, named("(all)".to_owned())));
        }
        out.table(&rows)?;
        Ok(true)
    }
}

fn row(sum: Sum, total: Sum, name: (&'static str, Cell)) -> Record {
    vec![
        ("bytes", Cell::Bytes(sum.bytes)),
        ("keys", Cell::Count(sum.keys)),
        ("share", Cell::Drawing(bar(sum.bytes, total.bytes))),
        name,
    ]
}

/// Returns a bar for the share of `part` in `whole`.
fn bar(part: u64, whole: u64) -> String {
    const WIDTH: u64 = 20;
    let filled = u128::from(part) * u128::from(WIDTH) / u128::from(whole.max(1));
    let filled = usize::try_from(filled).unwrap_or_default();
    format!("{:20}", "#".repeat(filled))
}

/// Returns the prefix of `key` up to the separator number `depth`, or up to the last one if it has
/// fewer. A key without a separator has the empty prefix.
fn prefix<'a>(key: &'a [u8], separator: &[u8], depth: usize) -> &'a [u8] {
    let mut end = 0;
    for _ in 0..depth {
        let rest = key.get(end..).unwrap_or_default();
        // An empty separator is found nowhere.
        let found = rest.windows(separator.len().max(1)).position(|part| part == separator);
        let Some(at) = found else { break };
        end += at + separator.len();
    }
    key.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{bar, prefix};

    #[test]
    fn a_prefix_ends_at_a_separator() {
        assert_eq!(prefix(b"a/b/c", b"/", 1), b"a/");
        assert_eq!(prefix(b"a/b/c", b"/", 2), b"a/b/");
        assert_eq!(prefix(b"a/b/c", b"/", 9), b"a/b/");
        assert_eq!(prefix(b"a::b", b"::", 1), b"a::");
        assert_eq!(prefix(b"abc", b"/", 1), b"");
        assert_eq!(prefix(b"abc", b"", 1), b"");
        assert_eq!(prefix(b"/", b"/", 1), b"/");
    }

    #[test]
    fn a_bar_is_full_for_the_whole() {
        assert_eq!(bar(u64::MAX, u64::MAX), "#".repeat(20));
        assert_eq!(bar(1, 2).trim_end(), "#".repeat(10));
        assert_eq!(bar(0, 0).trim_end(), "");
    }
}

//! The bytes of keys and values by prefix, for the map.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use codex_core::Prefix;
use codex_core::internals::{TableSize, tables};
use serde::Serialize;

use crate::key;
use crate::view::answer::{Answer, Refused};
use crate::view::request::Request;
use crate::view::site::Site;

#[derive(Serialize)]
struct Tree {
    prefix: String,
    keys: u64,
    bytes: u64,
    children: Vec<Child>,
    rest: Rest,
    /// The tables, if the prefix is empty. They count in `keys` and `bytes`.
    tables: Vec<Table>,
}

/// The entries of a table, whose keys are not those of the store.
#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the page has the name of the table by this word")]
struct Table {
    id: u32,
    /// Its name, for people.
    table: String,
    keys: u64,
    bytes: u64,
}

/// The keys that begin with the same longer prefix, or one key that ends the prefix.
#[derive(Serialize)]
struct Child {
    name: String,
    keys: u64,
    bytes: u64,
    #[serde(rename = "isLeaf")]
    is_leaf: bool,
}

/// The children that are too many to show.
#[derive(Default, Serialize)]
struct Rest {
    groups: u64,
    keys: u64,
    bytes: u64,
}

/// Keys with one longer prefix, ordered by their bytes.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    bytes: u64,
    keys: u64,
    is_leaf: bool,
    name: Vec<u8>,
}

/// Returns the largest children of a prefix. Takes one pass and a bounded number of groups: the
/// keys are in order, so those of a group follow each other.
pub(super) fn show(site: &Site, request: &Request) -> Result<Answer, Refused> {
    let prefix = request.key("prefix")?.unwrap_or_default();
    let separator = request.key("separator")?.unwrap_or_default();
    let state = site.state(request)?;
    let mut largest = BinaryHeap::new();
    let (mut all, mut rest) = (Rest::default(), Rest::default());
    let mut keep = |group: Group| {
        largest.push(Reverse(group));
        if largest.len() > CHILDREN_MAX
            && let Some(Reverse(Group { keys, bytes, .. })) = largest.pop()
        {
            rest =
                Rest { groups: rest.groups + 1, keys: rest.keys + keys, bytes: rest.bytes + bytes };
        }
    };
    let mut current: Option<Group> = None;
    for entry in state.snapshot.range(Prefix(&prefix)) {
        let (key, len) = (entry.key(), entry.key().len() + entry.bytes().len());
        let bytes = u64::try_from(len).unwrap_or(u64::MAX);
        all = Rest { groups: 0, keys: all.keys + 1, bytes: all.bytes.saturating_add(bytes) };
        match &mut current {
            Some(group) if !group.is_leaf && key.starts_with(&group.name) => {
                group.keys += 1;
                group.bytes = group.bytes.saturating_add(bytes);
            }
            _ => {
                let tail = key.get(prefix.len()..).unwrap_or_default();
                // An empty separator is found nowhere.
                let mut parts = tail.windows(separator.len().max(1));
                let end = parts.position(|part| part == separator).map(|at| at + separator.len());
                let name = match end {
                    Some(end) => key.get(..prefix.len() + end).unwrap_or(key).to_vec(),
                    None => key.to_vec(),
                };
                let group = Group { bytes, keys: 1, is_leaf: end.is_none(), name };
                current.replace(group).map(&mut keep);
            }
        }
    }
    current.map(keep);
    let child = |Reverse(Group { bytes, keys, is_leaf, name }): Reverse<Group>| Child {
        name: key::show(&name),
        keys,
        bytes,
        is_leaf,
    };
    let children = largest.into_sorted_vec().into_iter().map(child).collect();
    let tables: Vec<Table> = if prefix.is_empty() {
        let table = |table: TableSize| {
            let TableSize { id, name, entries, bytes } = table;
            Table { id: id.get(), table: name, keys: entries, bytes }
        };
        tables(&state.snapshot).into_iter().map(table).collect()
    } else {
        Vec::new()
    };
    let keys = all.keys + tables.iter().map(|table| table.keys).sum::<u64>();
    let bytes = all.bytes.saturating_add(tables.iter().map(|table| table.bytes).sum());
    Ok(Answer::json(&Tree { prefix: key::show(&prefix), keys, bytes, children, rest, tables }))
}

/// The maximum number of children that are shown.
const CHILDREN_MAX: usize = 80;

//! `tables`, and the option `--table` of commands that read keys.

mod kind;

use std::ops::Bound;

use clap::Args;
use codex_core::internals::{scan, table_of};
use codex_core::{Iter, KeyRange, Prefix, Readable, Store, TableInfo};
use codex_storage::batch::TableId;

use crate::Outcome;
use crate::failure::Failure;
use crate::key::{self, TypedKey};
use crate::out::{Cell, Out, Record, object, quoted};
use crate::target::Target;
use kind::Kind;

/// The options of `tables`.
#[derive(Debug, Args)]
pub(crate) struct Tables {
    #[command(flatten)]
    target: Target,
}

impl Tables {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        Self::on(&self.target.look()?, out)
    }

    pub(crate) fn on(store: &Store, out: &mut Out) -> Outcome {
        let tables = store.tables()?;
        let rows: Vec<Record> = tables.iter().map(|table| row(table, out.json)).collect();
        out.table(&rows)?;
        Ok(true)
    }
}

fn row(table: &TableInfo, is_json: bool) -> Record {
    let mut row = vec![
        ("table", Cell::Text(shown(&table.name))),
        ("keys", table.len.into()),
        ("kind of keys", Cell::Text(shown(&table.keys))),
        ("values", Cell::Text(shown(&table.values))),
    ];
    let indexes = table.indexes.iter();
    row.push(if is_json {
        let objects = indexes.map(|index| {
            object(&vec![
                ("name", Cell::Text(index.name.clone())),
                ("keys", index.len.into()),
                ("kind of keys", Cell::Text(index.keys.clone())),
                ("unique", index.is_unique.into()),
                ("building", index.is_building.into()),
            ])
        });
        ("indexes", Cell::Json(format!("[{}]", objects.collect::<Vec<_>>().join(","))))
    } else {
        let texts = indexes.map(|index| {
            let unique = if index.is_unique { ", unique" } else { "" };
            let building = if index.is_building { ", not complete" } else { "" };
            format!("{} ({}{unique}{building})", shown(&index.name), shown(&index.keys))
        });
        ("indexes", Cell::Text(texts.collect::<Vec<_>>().join(", ")))
    });
    row
}

/// Returns a name without characters on which a terminal acts.
fn shown(name: &str) -> String {
    key::show(name.as_bytes())
}

/// The option that names a table.
#[derive(Debug, Args)]
pub(crate) struct TableArg {
    /// Keys of the table NAME, instead of those outside tables. Numbers and `null` are typed and
    /// shown as they are, tuples as JSON arrays such as '[7,"tea"]'
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
}

impl TableArg {
    /// Returns the keys that a command is about.
    pub(crate) fn of(&self, source: &impl Readable) -> Outcome<Space> {
        let Some(name) = &self.table else { return Ok(Space { table: None }) };
        let Some((id, keys)) = table_of(source, name)? else {
            let text = format!("there is no table {}; `codexdb tables` lists them", shown(name));
            return Err(Failure::Usage(text));
        };
        let kind = Kind::of(&keys);
        Ok(Space { table: Some(Table { id, keys, kind }) })
    }
}

/// The keys of a table, or those outside tables.
pub(crate) struct Space {
    table: Option<Table>,
}

struct Table {
    id: TableId,
    /// The name of the encoding of the keys.
    keys: String,
    /// The encoding, unless it is that of an application, whose keys are shown as they are stored.
    kind: Option<Kind>,
}

impl Space {
    /// Returns the id of the table.
    pub(crate) fn id(&self) -> Option<TableId> {
        self.table.as_ref().map(|table| table.id)
    }

    fn kind(&self) -> Option<&Kind> {
        let kind = self.table.as_ref().and_then(|table| table.kind.as_ref());
        kind.filter(|kind| !kind.is_plain())
    }

    /// Returns the bytes of a key that was typed.
    pub(crate) fn typed(&self, typed: &TypedKey) -> Outcome<Vec<u8>> {
        match self.kind() {
            Some(kind) => kind.write(&typed.text).ok_or_else(|| self.refused(typed)),
            None => Ok(typed.bytes.clone()),
        }
    }

    /// Returns the bytes with which the keys begin that begin with `typed`.
    fn prefix(&self, typed: &TypedKey) -> Outcome<Vec<u8>> {
        match self.kind() {
            Some(kind) => kind.prefix(&typed.text).ok_or_else(|| {
                let text = "a prefix is the first parts of a tuple, such as '[7]'; use `--from` \
                            and `--to` for other keys";
                Failure::Usage(text.to_owned())
            }),
            None => Ok(typed.bytes.clone()),
        }
    }

    fn refused(&self, typed: &TypedKey) -> Failure {
        let keys = self.table.as_ref().map_or("", |table| &table.keys);
        Failure::Usage(format!("{} is no key of the kind {keys}", shown(&typed.text)))
    }

    /// Returns a key for people.
    pub(crate) fn text(&self, key: &[u8]) -> String {
        self.kind().and_then(|kind| kind.read(key)).unwrap_or_else(|| key::show(key))
    }

    /// Returns a key for programs.
    pub(crate) fn cell(&self, key: &[u8]) -> Cell {
        let json = self.kind().and_then(|kind| kind.read(key));
        Cell::Json(json.unwrap_or_else(|| quoted(&key::show(key))))
    }

    /// Returns the entries whose keys begin with `prefix`, or that lie from `from` to before `to`.
    pub(crate) fn entries(
        &self,
        source: &impl Readable,
        prefix: Option<&TypedKey>,
        (from, to): (Option<&TypedKey>, Option<&TypedKey>),
    ) -> Outcome<Iter> {
        if let Some(prefix) = prefix {
            return Ok(self.scan(source, Prefix(self.prefix(prefix)?)));
        }
        let typed = |key: Option<&TypedKey>| key.map(|key| self.typed(key)).transpose();
        let (from, to) = (typed(from)?, typed(to)?);
        let from = from.map_or(Bound::Unbounded, Bound::Included);
        let to = to.map_or(Bound::Unbounded, Bound::Excluded);
        Ok(self.scan(source, (from, to)))
    }

    /// Returns the entries within `range`.
    pub(crate) fn scan(&self, source: &impl Readable, range: impl KeyRange) -> Iter {
        scan(source, self.id(), range)
    }
}

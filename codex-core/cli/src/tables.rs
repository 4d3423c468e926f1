//! `tables`, and the option `--table` of commands that read keys.

use clap::Args;
use codex_core::{Readable, Store, TableInfo};
use codexdb::space::Space;

use crate::failure::Failure;
use crate::out::{Cell, Out, Record, object};
use crate::target::Target;
use crate::{Outcome, key};

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
        let space = Space::of(source, self.table.as_deref())?;
        space.ok_or_else(|| {
            let name = shown(self.table.as_deref().unwrap_or_default());
            Failure::Usage(format!("there is no table {name}; `codexdb tables` lists them"))
        })
    }
}

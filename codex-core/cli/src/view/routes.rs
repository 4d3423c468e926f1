//! The paths of the page, and the answer to each.

use codex_core::internals::tables_in;
use codex_core::{IndexInfo, Snapshot, TableInfo, Writes};
use serde::Serialize;

use crate::view::answer::{Answer, Refused};
use crate::view::ledger::failed;
use crate::view::request::Request;
use crate::view::site::{Site, random};
use crate::view::{change, health, list, tree, value};

/// A path that may be answered.
pub(super) enum Route<'a> {
    Enter(&'a Site),
    Page,
    Call(&'a Site, Call),
}

type Call = fn(&Site, &Request) -> Result<Answer, Refused>;

impl<'a> Route<'a> {
    /// Returns the route of a path below the first part.
    pub(super) fn of(site: &'a Site, path: &str) -> Result<Self, Refused> {
        Ok(match path {
            "" => Self::Page,
            "api/store" => Self::Call(site, store),
            "api/list" => Self::Call(site, list::make),
            "api/page" => Self::Call(site, list::page),
            "api/tables" => Self::Call(site, tables),
            "api/tree" => Self::Call(site, tree::show),
            "api/time" => Self::Call(site, change::times),
            "api/moment" => Self::Call(site, change::moment),
            "api/diff" => Self::Call(site, change::since),
            "api/history" => Self::Call(site, change::history),
            "api/health" => Self::Call(site, health::show),
            "api/value" => Self::Call(site, value::show),
            _ => return Err(Answer::refuse(404, "there is no such page")),
        })
    }

    pub(super) fn answer(self, request: &Request) -> Result<Answer, Refused> {
        match self {
            Self::Enter(site) => Ok(site.enter()),
            Self::Page => page(),
            Self::Call(site, call) => call(site, request),
        }
    }
}

/// Returns the page. Its style and script are in it, under a nonce that nobody can guess.
fn page() -> Result<Answer, Refused> {
    let nonce = random().map_err(|error| Answer::refuse(500, &error.to_string()))?;
    let html = include_str!("page.html").replace("NONCE", &nonce);
    let html = html.replace("/*STYLE*/", include_str!("page.css"));
    Ok(Answer::page(html.replace("/*SCRIPT*/", include_str!("page.js")), &nonce))
}

#[derive(Serialize)]
struct About {
    path: String,
    name: String,
    form: Option<String>,
    encrypted: bool,
    /// Whether values are shown.
    values: bool,
    /// Whether the past can be shown.
    ledger: bool,
    /// Whether commits can come in while the page is shown.
    live: bool,
    keys: usize,
    seq: u64,
    /// The text that ends the parts of most keys.
    separator: char,
}

/// Returns the facts that the page shows at its top.
fn store(site: &Site, _: &Request) -> Result<Answer, Refused> {
    let store = &site.store;
    let snapshot = store.snapshot();
    let name = store.path().file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(Answer::json(&About {
        path: store.path().display().to_string(),
        name: name.unwrap_or_else(|| "in memory".to_owned()),
        form: store.form().map(|form| form.to_string()),
        encrypted: site.is_encrypted,
        values: site.shows_values,
        ledger: site.ledger().is_ok(),
        live: store.health().writes != Writes::ReadOnly,
        keys: snapshot.len(),
        seq: snapshot.seq(),
        separator: separator(&snapshot),
    }))
}

/// A table, as the page shows it.
#[derive(Serialize)]
struct Table {
    name: String,
    /// The kind of its keys.
    kind: String,
    keys: usize,
    indexes: Vec<Index>,
}

#[derive(Serialize)]
struct Index {
    name: String,
    kind: String,
    unique: bool,
    building: bool,
}

/// Returns the tables of a state.
fn tables(site: &Site, request: &Request) -> Result<Answer, Refused> {
    let tables = tables_in(&site.state(request)?.snapshot).map_err(|error| failed(&error))?;
    let table = |table: TableInfo| {
        let index = |index: IndexInfo| Index {
            name: index.name,
            kind: index.keys,
            unique: index.is_unique,
            building: index.is_building,
        };
        let indexes = table.indexes.into_iter().map(index).collect();
        Table { name: table.name, kind: table.keys, keys: table.len, indexes }
    };
    Ok(Answer::json(&tables.into_iter().map(table).collect::<Vec<_>>()))
}

/// Returns the character that occurs in most of the first keys, of those that divide keys.
fn separator(snapshot: &Snapshot) -> char {
    let mut counts = ['/', ':', '.', '|', '-'].map(|c| (c, 0_u32));
    for key in snapshot.keys().take(1000) {
        for (c, count) in &mut counts {
            *count += u32::from(key.iter().any(|byte| char::from(*byte) == *c));
        }
    }
    // The first of equals.
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map_or('/', |(c, _)| c)
}

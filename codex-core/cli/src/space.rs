//! The keys of a table or those outside tables, as text.

mod kind;

use std::borrow::Cow;

use codex_core::internals::{scan, table_of};
use codex_core::{Iter, KeyRange, Readable, Result};
use codex_storage::batch::TableId;

use crate::key::{self, TypedKey};
use crate::types::quoted;
use kind::Kind;

/// The keys of a table, or those outside tables.
#[derive(Debug)]
pub struct Space {
    table: Option<Table>,
}

#[derive(Debug)]
struct Table {
    id: TableId,
    /// The name of the encoding of the keys.
    keys: String,
    /// The encoding, unless it is that of an application, whose keys are shown as they are stored.
    kind: Option<Kind>,
}

impl Space {
    /// Returns the keys of the table `name`, or of those outside tables; `None` if there is no such
    /// table.
    ///
    /// # Errors
    /// The name is not valid, or a newer build has created the table.
    pub fn of(source: &impl Readable, name: Option<&str>) -> Result<Option<Self>> {
        let Some(name) = name else { return Ok(Some(Self { table: None })) };
        let Some((id, keys)) = table_of(source, name)? else { return Ok(None) };
        let kind = Kind::of(&keys);
        Ok(Some(Self { table: Some(Table { id, keys, kind }) }))
    }

    /// Returns the id of the table.
    pub fn id(&self) -> Option<TableId> {
        self.table.as_ref().map(|table| table.id)
    }

    /// Returns the encoding of keys that are not shown as text with escapes.
    fn kind(&self) -> Option<&Kind> {
        let kind = self.table.as_ref().and_then(|table| table.kind.as_ref());
        kind.filter(|kind| !kind.is_plain())
    }

    /// Returns the bytes of a key that was typed.
    ///
    /// # Errors
    /// The reason why it is no key of the table.
    pub fn typed(&self, typed: &TypedKey) -> Result<Vec<u8>, String> {
        let Some(kind) = self.kind() else { return Ok(typed.bytes.clone()) };
        kind.write(&typed.text).ok_or_else(|| {
            let keys = self.table.as_ref().map_or("", |table| &table.keys);
            format!("{} is no key of the kind {keys}", key::show(typed.text.as_bytes()))
        })
    }

    /// Returns the bytes with which the keys begin that begin with `typed`.
    ///
    /// # Errors
    /// The reason why keys of the table have no such beginning.
    pub fn prefix(&self, typed: &TypedKey) -> Result<Vec<u8>, String> {
        let Some(kind) = self.kind() else { return Ok(typed.bytes.clone()) };
        kind.prefix(&typed.text).ok_or_else(|| {
            "a prefix is the first parts of a tuple, such as '[7]'; other keys are found by a range"
                .to_owned()
        })
    }

    /// Returns the bytes in which a part of a key is looked for: the key, or its text.
    pub fn searched<'a>(&self, key: &'a [u8]) -> Cow<'a, [u8]> {
        let text = self.kind().and_then(|kind| kind.read(key));
        text.map_or(Cow::Borrowed(key), |text| Cow::Owned(text.into_bytes()))
    }

    /// Returns a key for people.
    pub fn text(&self, key: &[u8]) -> String {
        self.kind().and_then(|kind| kind.read(key)).unwrap_or_else(|| key::show(key))
    }

    /// Returns a key as JSON.
    pub fn json(&self, key: &[u8]) -> String {
        let json = self.kind().and_then(|kind| kind.read(key));
        json.unwrap_or_else(|| quoted(&key::show(key)))
    }

    /// Returns the entries within `range`.
    pub fn scan(&self, source: &impl Readable, range: impl KeyRange) -> Iter {
        scan(source, self.id(), range)
    }
}

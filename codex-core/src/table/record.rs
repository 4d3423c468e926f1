//! The records of the catalogue: the bytes that describe a table and its indexes.

use std::fmt::Write as _;
use std::ops::Bound;
use std::sync::Arc;

use codex_storage::Error as StorageError;
use codex_storage::batch::TableId;

use super::catalogue::{CATALOGUE, COUNTER, FIRST_ID};
use crate::entry::{Entry, Name};
use crate::error::{Error, Result};
use crate::read::sealed::Source;
use crate::value::RAW;

/// A record of the catalogue that describes a table.
pub(crate) struct Row {
    /// The record. As long as it is the current one, the table is there and has these indexes.
    pub(super) entry: Entry,
    pub(super) id: TableId,
    /// The kind of the keys.
    pub(super) keys: String,
    /// The type of the values, for people.
    pub(super) values: String,
    /// The indexes, in the order of their names.
    pub(super) indexes: Vec<IndexRow>,
}

/// An index in a record of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IndexRow {
    /// The id of the table of its entries.
    pub(super) id: TableId,
    pub(super) shape: Shape,
    /// Whether it has not yet an entry for each row. Writers maintain it already.
    pub(super) is_building: bool,
}

/// The properties of an index that a declaration and the catalogue have both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) name: String,
    /// The kind of the keys of the index.
    pub(super) keys: String,
    pub(super) is_unique: bool,
}

impl Row {
    /// Returns the row of `entry`, whose keys must be of the kind `keys`, for a handle.
    pub(super) fn open(entry: Entry, keys: &str) -> Result<Arc<Self>> {
        Self::with_keys(entry, keys).map(Arc::new)
    }

    /// Returns the row of `entry`, whose keys must be of the kind `keys`.
    pub(super) fn with_keys(entry: Entry, keys: &str) -> Result<Self> {
        let row = Self::parse(entry)?;
        if row.keys == keys {
            return Ok(row);
        }
        let (table, stored, wanted) = (row.name(), row.keys, keys.into());
        Err(Error::TableKey { table, stored, wanted })
    }

    /// Returns the row of the same table in another state, `source`, under whichever name. If it is
    /// not there, returns that of the table of the same name.
    pub(super) fn of(self: &Arc<Self>, source: &impl Source) -> Result<Arc<Self>> {
        let named = match source.find(self.entry.name()) {
            Some(entry) if entry.same(&self.entry) => return Ok(Arc::clone(self)),
            Some(entry) => Self::open(entry, &self.keys),
            None => Err(self.missing()),
        };
        let is_this = |row: &Self| row.id == self.id;
        if named.as_ref().is_ok_and(|row| is_this(row)) {
            return named;
        }
        let renamed = rows(source).flatten().find(is_this);
        renamed.map_or(named, |row| Ok(Arc::new(row)))
    }

    /// Returns the row of the same table in a later state, `source`.
    pub(super) fn later(self: &Arc<Self>, source: &impl Source) -> Result<Arc<Self>> {
        self.of(source).ok().filter(|row| row.id == self.id).ok_or_else(|| self.missing())
    }

    /// Returns the error of a table that was dropped.
    pub(super) fn missing(&self) -> Error {
        Error::NoTable { table: self.name() }
    }

    pub(super) fn name(&self) -> String {
        name_of(&self.entry)
    }

    /// Returns the index `name`.
    pub(super) fn index(&self, name: &str) -> Option<&IndexRow> {
        self.indexes.iter().find(|index| index.shape.name == name)
    }

    /// Returns the ids of the table and of its indexes.
    pub(super) fn ids(&self) -> impl Iterator<Item = TableId> {
        std::iter::once(self.id).chain(self.indexes.iter().map(|index| index.id))
    }

    /// Checks that the table has the `declared` indexes and no others. They have the order of their
    /// names.
    pub(super) fn check_indexes<'a>(
        &self,
        declared: impl Iterator<Item = &'a Shape> + Clone,
    ) -> Result<()> {
        let stored = self.indexes.iter().map(|index| &index.shape);
        if stored.clone().eq(declared.clone()) {
            return Ok(());
        }
        let (stored, declared) = (listed(stored), listed(declared));
        Err(Error::IndexMismatch { table: self.name(), stored, declared })
    }

    /// Returns the row of the same table with the indexes `indexes`, which is to be stored.
    pub(super) fn with_indexes(&self, mut indexes: Vec<IndexRow>) -> Result<Self> {
        indexes.sort_by(|a, b| a.shape.name.cmp(&b.shape.name));
        let (keys, values) = (self.keys.clone(), self.values.clone());
        Self::new(self.entry.name(), self.id, keys, values, indexes)
    }

    /// Returns a row that is to be stored as the record `name`.
    pub(super) fn new(
        name: Name<'_>,
        id: TableId,
        keys: String,
        values: String,
        indexes: Vec<IndexRow>,
    ) -> Result<Self> {
        let mut payload = [&id.get().to_le_bytes()[..], &[0]].concat();
        put_text(&mut payload, &keys)?;
        put_text(&mut payload, &values)?;
        for IndexRow { id, shape, is_building } in &indexes {
            payload.extend_from_slice(&id.get().to_le_bytes());
            let unique = if shape.is_unique { UNIQUE } else { 0 };
            payload.push(unique | if *is_building { BUILDING } else { 0 });
            put_text(&mut payload, &shape.name)?;
            put_text(&mut payload, &shape.keys)?;
        }
        Ok(Self { entry: Entry::from_parts(name, RAW, &payload), id, keys, values, indexes })
    }

    pub(super) fn parse(entry: Entry) -> Result<Self> {
        let parse = || {
            let (codec, mut rest) = entry.value().split_first()?;
            let id = take_id(&mut rest)?;
            let [flags] = take(&mut rest)?;
            let (keys, values) = (take_text(&mut rest)?, take_text(&mut rest)?);
            let mut indexes = Vec::new();
            while !rest.is_empty() {
                indexes.push(take_index(&mut rest)?);
            }
            ((*codec, flags) == (RAW, 0)).then_some((id, keys, values, indexes))
        };
        match parse() {
            Some((id, keys, values, indexes)) => Ok(Self { entry, id, keys, values, indexes }),
            None => Err(Error::Catalogue { table: name_of(&entry) }),
        }
    }
}

/// Returns the records of the tables in `source`, in the order of their names.
pub(super) fn rows(source: &impl Source) -> impl Iterator<Item = Result<Row>> {
    let rows = source.scan(CATALOGUE, (Bound::Unbounded, Bound::Unbounded));
    let rows = rows.filter(|entry| entry.key() != COUNTER);
    rows.map(|entry| Row::parse(entry.shared().clone()))
}

/// Returns the name of the record of the table `name`.
pub(super) fn row_name(name: &str) -> Result<Name<'_>> {
    check_name(name)?;
    Ok(Name { table: CATALOGUE, key: name.as_bytes() })
}

/// Checks the name of a table or of an index.
pub(super) fn check_name(name: &str) -> Result<()> {
    let len = name.len();
    let is_valid = len > 0 && len <= TEXT_LEN_MAX && !name.contains('\0');
    if is_valid { Ok(()) } else { Err(Error::TableName { len }) }
}

/// Returns the name of the table of the record `entry`.
pub(super) fn name_of(entry: &Entry) -> String {
    String::from_utf8_lossy(entry.key()).into_owned()
}

/// Returns as much of `text` as a record of the catalogue can have.
pub(super) fn shortened(text: &str) -> &str {
    let mut ends = (0..=TEXT_LEN_MAX.min(text.len())).rev();
    ends.find_map(|end| text.get(..end)).unwrap_or_default()
}

/// Returns the indexes in words, for an error.
fn listed<'a>(shapes: impl Iterator<Item = &'a Shape>) -> String {
    let mut text = String::new();
    for Shape { name, keys, is_unique } in shapes {
        let kind = if *is_unique { "unique " } else { "" };
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{kind}`{name}` of {keys}");
    }
    if text.is_empty() { "none".into() } else { text }
}

fn put_text(payload: &mut Vec<u8>, text: &str) -> Result<()> {
    let len = u8::try_from(text.len()).map_err(|_| StorageError::Contradiction(LONG_KIND))?;
    payload.push(len);
    payload.extend_from_slice(text.as_bytes());
    Ok(())
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*taken)
}

fn take_id(from: &mut &[u8]) -> Option<TableId> {
    TableId::new(u32::from_le_bytes(take(from)?)).filter(|id| id.get() >= FIRST_ID)
}

fn take_text(from: &mut &[u8]) -> Option<String> {
    let [len] = take(from)?;
    let (text, rest) = from.split_at_checked(len.into())?;
    *from = rest;
    String::from_utf8(text.into()).ok()
}

fn take_index(from: &mut &[u8]) -> Option<IndexRow> {
    let id = take_id(from)?;
    let [flags] = take(from)?;
    let (name, keys) = (take_text(from)?, take_text(from)?);
    let (is_unique, is_building) = (flags & UNIQUE != 0, flags & BUILDING != 0);
    let is_known = flags & !(UNIQUE | BUILDING) == 0;
    is_known.then_some(IndexRow { id, shape: Shape { name, keys, is_unique }, is_building })
}

/// The flag of an index of which a key has at most one row.
const UNIQUE: u8 = 1;
/// The flag of an index that has not yet an entry for each row.
const BUILDING: u8 = 2;
/// The maximum length of a text in a record, in bytes.
const TEXT_LEN_MAX: usize = 255;
const LONG_KIND: &str = "the kind of the keys of a table or an index has more than 255 bytes";

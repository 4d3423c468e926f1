//! The catalogue of tables: a table of its own, whose records name the others.
//!
//! Its records are ordinary ones, so a table is created and dropped by ordinary commits, and every
//! copy of a store has its tables. docs/FORMAT.md has the layout.

use std::sync::Arc;

use codex_storage::Error as StorageError;
use codex_storage::batch::TableId;

use crate::commit::{Change, Check, Commit};
use crate::entry::{Entry, Name};
use crate::error::{Error, Result};
use crate::read::sealed::Source;
use crate::store::Store;
use crate::transaction::{READ_OF_TRANSACTION, Transaction};
use crate::update::Attempt;
use crate::value::{self, RAW};

/// A table, as [`Store::tables`] returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableInfo {
    /// The name.
    pub name: String,
    /// The encoding of the keys, [`TableKey::kind`](crate::TableKey::kind).
    pub keys: String,
    /// The Rust type of the values in the program that created the table, for people. Nothing
    /// compares it.
    pub values: String,
    /// The number of keys.
    pub len: usize,
}

/// A record of the catalogue that describes a table.
pub(crate) struct Row {
    /// The record. As long as it is the current one, the table is there.
    pub(super) entry: Entry,
    pub(super) id: TableId,
    keys: String,
    values: String,
}

impl Store {
    /// Returns all tables, in the order of their names.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.table::<u64, String>("users")?.set(7, &"Ada".into())?;
    /// let tables = store.tables()?;
    /// assert_eq!((&*tables[0].name, &*tables[0].keys, tables[0].len), ("users", "u64", 1));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Catalogue`] if a newer build has created a table that this one cannot read.
    #[doc(alias = "list_tables")]
    pub fn tables(&self) -> Result<Vec<TableInfo>> {
        let view = self.inner.engine.view();
        let everything = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
        let rows = view.range(CATALOGUE, everything).filter(|entry| entry.key() != COUNTER);
        rows.map(|entry| {
            let Row { entry, id, keys, values } = Row::parse(entry.clone())?;
            Ok(TableInfo { name: name_of(&entry), keys, values, len: view.len(Some(id)) })
        })
        .collect()
    }

    /// Drops the table `name` with all its keys, in one commit. Returns true if there was one. Its
    /// handles return [`Error::NoTable`] from then on, even if a new table gets the name.
    ///
    /// ```
    /// # use codex_core::{Error, Store};
    /// let store = Store::in_memory()?;
    /// let users = store.table::<u64, String>("users")?;
    /// users.set(7, &"Ada".into())?;
    /// assert!(store.drop_table("users")?);
    /// assert!(matches!(users.get(7), Err(Error::NoTable { .. })));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TableName`], [`Error::Catalogue`], and the errors of [`clear`](Store::clear).
    #[doc(alias = "delete_table")]
    pub fn drop_table(&self, name: &str) -> Result<bool> {
        let name = row_name(name)?;
        self.inner.check_writable()?;
        self.retry(READ_OF_TRANSACTION, || {
            let Some(entry) = self.inner.entry(name) else { return Ok((false, None)) };
            let id = Row::parse(entry.clone())?.id;
            // Order: the check is that of the record which has this id. No write to the table can
            // come after the drop, because each has the same check.
            let changes = vec![Change::Remove(name.into()), Change::Clear(Some(id))];
            let (checks, changes) = (vec![Check::Same(entry)].into(), changes.into());
            Ok((true, Some(Attempt::of(Commit { checks, changes, ..Commit::default() }))))
        })
    }

    /// Returns the record of the table `name`, which is created if there is none.
    pub(super) fn open_row(&self, name: &str, keys: &str, values: &str) -> Result<Arc<Row>> {
        let row = row_name(name)?;
        let entry = match self.inner.entry(row) {
            Some(entry) => entry,
            None if self.inner.check_access().is_err() => return Err(no_table(name)),
            None => self.transaction(|tx| create(tx, row, keys, values))?,
        };
        Row::open(entry, keys)
    }

    /// Returns the error of a commit for which one of the tables of `rows`, their records, was not
    /// there.
    pub(crate) fn missing_of(&self, rows: &[Entry]) -> Error {
        let missing = rows.iter().find(|row| !self.is_table_there(row)).or(rows.first());
        no_table(&missing.map(name_of).unwrap_or_default())
    }

    /// Returns true if the table of `entry`, a record of the catalogue, is still there.
    pub(crate) fn is_table_there(&self, entry: &Entry) -> bool {
        self.inner.entry(entry.name()).is_some_and(|now| now.same(entry))
    }
}

impl Row {
    /// Returns the row of `entry`, whose keys must be of the kind `keys`.
    pub(super) fn open(entry: Entry, keys: &str) -> Result<Arc<Self>> {
        let row = Self::parse(entry)?;
        if row.keys == keys {
            return Ok(Arc::new(row));
        }
        let (table, stored, wanted) = (name_of(&row.entry), row.keys, keys.into());
        Err(Error::TableKey { table, stored, wanted })
    }

    /// Returns the row of the table of the same name in another state, `source`.
    pub(super) fn of(self: &Arc<Self>, source: &impl Source) -> Result<Arc<Self>> {
        match source.find(self.entry.name()) {
            Some(entry) if entry.same(&self.entry) => Ok(Arc::clone(self)),
            Some(entry) => Self::open(entry, &self.keys),
            None => Err(self.missing()),
        }
    }

    /// Returns the error of a table that was dropped.
    pub(super) fn missing(&self) -> Error {
        no_table(&name_of(&self.entry))
    }

    fn parse(entry: Entry) -> Result<Self> {
        let parse = || {
            let (codec, mut rest) = entry.value().split_first()?;
            let id = TableId::new(u32::from_le_bytes(take(&mut rest)?))?;
            let [flags] = take(&mut rest)?;
            let (keys, values) = (take_text(&mut rest)?, take_text(&mut rest)?);
            let is_known = (*codec, flags) == (RAW, 0) && id.get() >= FIRST_ID && rest.is_empty();
            is_known.then_some((id, keys, values))
        };
        match parse() {
            Some((id, keys, values)) => Ok(Self { entry, id, keys, values }),
            None => Err(Error::Catalogue { table: name_of(&entry) }),
        }
    }
}

/// Returns the name of the record of the table `name`.
fn row_name(name: &str) -> Result<Name<'_>> {
    let len = name.len();
    if len == 0 || len > NAME_LEN_MAX || name.contains('\0') {
        return Err(Error::TableName { len });
    }
    Ok(Name { table: CATALOGUE, key: name.as_bytes() })
}

/// Creates the table of the record `row`, and returns the record. If there is one, returns it.
fn create(tx: &mut Transaction, row: Name<'_>, keys: &str, values: &str) -> Result<Entry> {
    if let Some(entry) = tx.find(row) {
        return Ok(entry);
    }
    // Ids ascend and the counter is never removed, so no record of a dropped table, in a log or in
    // a snapshot, has the id of a later one.
    let counter = Name { table: CATALOGUE, key: COUNTER };
    let id = match tx.find(counter) {
        None => FIRST_ID,
        Some(entry) => match value::payload(entry.value()).try_into() {
            Ok(next) => u32::from_le_bytes(next),
            Err(_) => return Err(Error::Catalogue { table: String::new() }),
        },
    };
    let next = id.checked_add(1).filter(|_| id >= FIRST_ID);
    let next = next.ok_or(StorageError::Contradiction(USED_UP))?;
    let mut payload = [&id.to_le_bytes()[..], &[0]].concat();
    for text in [keys, shortened(values)] {
        let len = u8::try_from(text.len()).map_err(|_| StorageError::Contradiction(LONG_KIND))?;
        payload.push(len);
        payload.extend_from_slice(text.as_bytes());
    }
    let entry = Entry::from_parts(row, RAW, &payload);
    tx.put(entry.clone())?;
    tx.put(Entry::from_parts(counter, RAW, &next.to_le_bytes()))?;
    Ok(entry)
}

/// Returns as much of `text` as a record of the catalogue can have.
fn shortened(text: &str) -> &str {
    let mut ends = (0..=TEXT_LEN_MAX.min(text.len())).rev();
    ends.find_map(|end| text.get(..end)).unwrap_or_default()
}

fn no_table(name: &str) -> Error {
    Error::NoTable { table: name.into() }
}

fn name_of(entry: &Entry) -> String {
    String::from_utf8_lossy(entry.key()).into_owned()
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*taken)
}

fn take_text(from: &mut &[u8]) -> Option<String> {
    let [len] = take(from)?;
    let (text, rest) = from.split_at_checked(len.into())?;
    *from = rest;
    String::from_utf8(text.into()).ok()
}

/// The id of the catalogue.
pub(super) const CATALOGUE: Option<TableId> = Some(TableId::MIN);
/// The key of the record with the id of the next table.
const COUNTER: &[u8] = b"";
/// The first id of a table. Those between the catalogue and it are reserved.
const FIRST_ID: u32 = 16;
/// The maximum length of the name of a table, in bytes.
const NAME_LEN_MAX: usize = 255;
/// The maximum length of a text in a record, in bytes.
const TEXT_LEN_MAX: usize = 255;
const USED_UP: &str = "all ids of tables are used up: convert the store to a new one";
const LONG_KIND: &str = "the kind of a table's keys has more than 255 bytes";

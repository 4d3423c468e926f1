//! The catalogue of tables: a table of its own, whose records name the others.
//!
//! Its records are ordinary ones, so a table is created and dropped by ordinary commits, and every
//! copy of a store has its tables. docs/FORMAT.md has the layout.

use std::sync::Arc;

use codex_storage::Error as StorageError;
use codex_storage::batch::TableId;

use super::record::{IndexRow, Row, Shape, check_name, name_of, row_name, rows, shortened};
use crate::attempt::Attempt;
use crate::commit::{Change, Check, Commit};
use crate::entry::{Entry, Name};
use crate::error::{Error, Result};
use crate::read::sealed::Source;
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::transaction::{READ_OF_TRANSACTION, Transaction};
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
    /// The indexes, in the order of their names.
    pub indexes: Vec<IndexInfo>,
}

/// An index of a table, in a [`TableInfo`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexInfo {
    /// The name.
    pub name: String,
    /// The encoding of the keys of the index, [`TableKey::kind`](crate::TableKey::kind).
    pub keys: String,
    /// Whether a key of the index has at most one row.
    pub is_unique: bool,
    /// Whether the index is not complete yet. The next [`TableSpec::open`](crate::TableSpec::open)
    /// with its declaration completes it.
    pub is_building: bool,
    /// The number of pairs of a key of the index and a row.
    pub len: usize,
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
        infos_in(&self.snapshot())
    }

    /// Drops the table `name` with all its keys and indexes, in one commit. Returns true if there
    /// was one. Its handles return [`Error::NoTable`] from then on, even if a new table gets the
    /// name.
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
            let row = Row::parse(entry)?;
            // Order: the check is that of the record which has these ids. No write to the table
            // can come after the drop, because each has the same check.
            let mut changes = vec![Change::Remove(name.into())];
            changes.extend(row.ids().map(|id| Change::Clear(Some(id))));
            Ok((true, Some(replacing(row.entry, changes))))
        })
    }

    /// Gives the table `name`, with its keys and indexes, the name `to`, in one commit. Returns
    /// true if there was one.
    ///
    /// No row is written. Handles and watches of the table stay valid, even if a new table gets the
    /// earlier name, but a handle that is opened under the new name is faster.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// let users = store.table::<u64, String>("users")?;
    /// users.set(7, &"Ada".into())?;
    /// assert!(store.rename_table("users", "people")?);
    /// users.set(8, &"Bob".into())?;
    /// let people = store.table::<u64, String>("people")?;
    /// assert_eq!((people.len()?, store.tables()?.len()), (2, 1));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TableExists`] if there is a table `to`. The errors of
    /// [`drop_table`](Store::drop_table).
    pub fn rename_table(&self, name: &str, to: &str) -> Result<bool> {
        let (from, to) = (row_name(name)?, row_name(to)?);
        self.inner.check_writable()?;
        self.transaction(|tx| {
            let Some(entry) = tx.find(from) else { return Ok(false) };
            if let Some(other) = tx.find(to) {
                return Err(Error::TableExists { table: name_of(&other) });
            }
            let Row { id, keys, values, indexes, .. } = Row::parse(entry)?;
            tx.remove_name(from)?;
            tx.put(Row::new(to, id, keys, values, indexes)?.entry)?;
            Ok(true)
        })
    }

    /// Drops the index `index` of the table `table`, in one commit. Returns true if there was one.
    /// Handles that declare it return [`Error::IndexMismatch`] for their next write.
    ///
    /// It also makes a table writable again whose index no program declares any more.
    ///
    /// ```
    /// # use codex_core::{Store, TableSpec};
    /// let store = Store::in_memory()?;
    /// let spec = TableSpec::<u64, String>::new("users");
    /// spec.index::<String>("by_name", |name, keys| keys.add(name)).open(&store)?;
    /// assert!(store.drop_index("users", "by_name")?);
    /// store.table::<u64, String>("users")?.set(7, &"Ada".into())?;
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoTable`], and the errors of [`drop_table`](Store::drop_table).
    #[doc(alias = "delete_index")]
    pub fn drop_index(&self, table: &str, index: &str) -> Result<bool> {
        let name = row_name(table)?;
        check_name(index)?;
        self.inner.check_writable()?;
        self.retry(READ_OF_TRANSACTION, || {
            let Some(entry) = self.inner.entry(name) else { return Err(no_table(table)) };
            let row = Row::parse(entry)?;
            let Some(dropped) = row.index(index) else { return Ok((false, None)) };
            let left = row.indexes.iter().filter(|other| other.id != dropped.id).cloned();
            let changed = row.with_indexes(left.collect())?;
            let changes = vec![Change::Put(changed.entry), Change::Clear(Some(dropped.id))];
            Ok((true, Some(replacing(row.entry, changes))))
        })
    }

    /// Returns the record of the table `name`, which is created if there is none. It gets those of
    /// the `declared` indexes that it does not have, which must then be built.
    pub(super) fn open_row(
        &self,
        name: &str,
        keys: &str,
        values: &str,
        declared: &[&Shape],
    ) -> Result<Arc<Row>> {
        let row = row_name(name)?;
        declared.iter().try_for_each(|shape| check_name(&shape.name))?;
        let wanted = || declared.iter().copied();
        let is_read_only = self.inner.check_access().is_err();
        if let Some(entry) = self.inner.entry(row) {
            let row = Row::open(entry, keys)?;
            // A handle that cannot write needs no declarations.
            if row.check_indexes(wanted()).is_ok() || is_read_only && declared.is_empty() {
                return Ok(row);
            }
        }
        if is_read_only {
            let Some(entry) = self.inner.entry(row) else { return Err(no_table(name)) };
            let row = Row::open(entry, keys)?;
            return row.check_indexes(wanted()).map(|()| row);
        }
        self.transaction(|tx| {
            let row = match tx.find(row) {
                Some(entry) => Row::with_keys(entry, keys)?,
                None => create(tx, row, keys, values)?,
            };
            let of_row = |shape: &Shape| row.index(&shape.name).map(|index| &index.shape);
            let missing: Vec<_> = wanted().filter(|shape| of_row(shape).is_none()).collect();
            // Each stored index must be declared, as it is stored. Only new ones may be missing.
            let known = wanted().filter(|shape| of_row(shape).is_some());
            if row.check_indexes(known).is_err() {
                row.check_indexes(wanted())?;
            }
            add_indexes(tx, row, &missing).map(Arc::new)
        })
    }

    /// Returns the error of a commit for which one of the tables of `rows`, their records, was not
    /// there, or has other indexes.
    pub(crate) fn missing_of(&self, rows: &[Entry]) -> Error {
        let changed = rows.iter().find(|row| !self.is_table_there(row)).or(rows.first());
        let table = changed.map(name_of).unwrap_or_default();
        let id = |entry: Entry| Row::parse(entry).ok().map(|row| row.id);
        let now = changed.and_then(|row| self.inner.entry(row.name()));
        if now.is_some() && now.and_then(id) == changed.cloned().and_then(id) {
            return Error::NeedsTransaction { table };
        }
        Error::NoTable { table }
    }

    /// Returns true if `entry`, a record of the catalogue, is still the current one.
    pub(crate) fn is_table_there(&self, entry: &Entry) -> bool {
        self.inner.entry(entry.name()).is_some_and(|now| now.same(entry))
    }
}

/// Returns the names of the tables and indexes in `state`, for people.
pub(crate) fn names_in(state: &Snapshot) -> Vec<(TableId, String)> {
    let mut names = vec![(TableId::MIN, "catalogue".to_owned())];
    for row in rows(state).flatten() {
        names.push((row.id, format!("table {}", row.name())));
        let of_index = |index: &IndexRow| format!("index {} of {}", index.shape.name, row.name());
        names.extend(row.indexes.iter().map(|index| (index.id, of_index(index))));
    }
    names
}

/// Returns the id of the table `name` and the kind of its keys, or `None` if there is none.
pub(crate) fn id_and_keys(source: &impl Source, name: &str) -> Result<Option<(TableId, String)>> {
    let row = source.find(row_name(name)?).map(Row::parse).transpose()?;
    Ok(row.map(|row| (row.id, row.keys)))
}

/// Returns the tables in `state`, in the order of their names.
pub(crate) fn infos_in(state: &Snapshot) -> Result<Vec<TableInfo>> {
    rows(state).map(|row| Ok(info(row?, state))).collect()
}

fn info(row: Row, state: &Snapshot) -> TableInfo {
    let name = row.name();
    let Row { id, keys, values, indexes, .. } = row;
    let of_index = |IndexRow { id, shape, is_building }| {
        let Shape { name, keys, is_unique } = shape;
        IndexInfo { name, keys, is_unique, is_building, len: state.count(Some(id)) }
    };
    let indexes = indexes.into_iter().map(of_index).collect();
    TableInfo { name, keys, values, len: state.count(Some(id)), indexes }
}

/// Returns the attempt to make `changes` if `entry` is still the record of its table.
fn replacing(entry: Entry, changes: Vec<Change>) -> Attempt {
    let (checks, changes) = (vec![Check::Same(entry)].into(), changes.into());
    Attempt::of(Commit { checks, changes, ..Commit::default() })
}

/// Creates the table of the record `name`, without an index.
fn create(tx: &mut Transaction, name: Name<'_>, keys: &str, values: &str) -> Result<Row> {
    let id = next_id(tx)?;
    let row = Row::new(name, id, keys.into(), shortened(values).into(), Vec::new())?;
    tx.put(row.entry.clone())?;
    Ok(row)
}

/// Adds the indexes `shapes` to the table of `row`. They are complete if the table is empty.
fn add_indexes(tx: &mut Transaction, row: Row, shapes: &[&Shape]) -> Result<Row> {
    if shapes.is_empty() {
        return Ok(row);
    }
    let is_building = !tx.has_none(Some(row.id));
    let mut indexes = row.indexes.clone();
    for &shape in shapes {
        let (id, shape) = (next_id(tx)?, shape.clone());
        indexes.push(IndexRow { id, shape, is_building });
    }
    let row = row.with_indexes(indexes)?;
    tx.put(row.entry.clone())?;
    Ok(row)
}

/// Returns the id of a new table.
fn next_id(tx: &mut Transaction) -> Result<TableId> {
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
    let next = id.checked_add(1).zip(TableId::new(id)).filter(|_| id >= FIRST_ID);
    let (next, id) = next.ok_or(StorageError::Contradiction(USED_UP))?;
    tx.put(Entry::from_parts(counter, RAW, &next.to_le_bytes()))?;
    Ok(id)
}

fn no_table(name: &str) -> Error {
    Error::NoTable { table: name.into() }
}

/// The id of the catalogue.
pub(super) const CATALOGUE: Option<TableId> = Some(TableId::MIN);
/// The key of the record with the id of the next table.
pub(super) const COUNTER: &[u8] = b"";
/// The first id of a table. Those between the catalogue and it are reserved.
pub(super) const FIRST_ID: u32 = 16;
const USED_UP: &str = "all ids of tables are used up: convert the store to a new one";

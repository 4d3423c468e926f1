//! The places in which a table is read and written: the store, a snapshot, a transaction, a batch.

use std::sync::Arc;

use super::Table;
use super::record::Row;
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::read::sealed::Source;
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::transaction::Transaction;

/// A place in which a table is read.
pub(super) trait Place {
    /// The type that is read.
    type Source: Source;

    fn source(&self) -> &Self::Source;

    /// Checks that the table of `row` is there.
    fn confirm(&self, _row: &Arc<Row>) -> Result<()> {
        Ok(())
    }
}

impl Place for Store {
    type Source = Self;

    fn source(&self) -> &Self {
        self
    }

    fn confirm(&self, row: &Arc<Row>) -> Result<()> {
        row.later(self).map(drop)
    }
}

impl Place for &Snapshot {
    type Source = Snapshot;

    fn source(&self) -> &Snapshot {
        self
    }
}

impl Place for &mut Transaction {
    type Source = Transaction;

    fn source(&self) -> &Transaction {
        self
    }
}

impl Snapshot {
    /// Returns the table in this state, or if it did not exist yet, that of the same name.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let prices = store.table::<String, u32>("prices")?;
    /// prices.set("tea", &3)?;
    /// let before = store.snapshot();
    /// prices.set("tea", &4)?;
    /// assert_eq!(before.table(&prices)?.get("tea")?, Some(3));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoTable`](crate::Error::NoTable) if there is none in this state. The errors of
    /// [`Store::table`].
    #[doc(alias = "open_table")]
    pub fn table<K, V>(&self, table: &Table<K, V>) -> Result<Table<K, V, &Self>> {
        Ok(Table::new(self, table.row.of(self)?, None))
    }
}

impl Transaction {
    /// Returns the table in this transaction. If it is dropped before the commit,
    /// the transaction runs again.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let stock = store.table::<String, u32>("stock")?;
    /// stock.set("tea", &3)?;
    /// let is_sold = store.transaction(|tx| {
    ///     let mut stock = tx.table(&stock)?;
    ///     let left = stock.get("tea")?.unwrap_or(0);
    ///     if left == 0 {
    ///         return Ok(false);
    ///     }
    ///     stock.set("tea", &(left - 1))?;
    ///     Ok(true)
    /// })?;
    /// assert!(is_sold);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoTable`](crate::Error::NoTable) if there is none,
    /// [`Error::IndexMismatch`](crate::Error::IndexMismatch) if its indexes have changed. The
    /// errors of [`Store::table`].
    #[doc(alias = "open_table")]
    pub fn table<K, V>(&mut self, table: &Table<K, V>) -> Result<Table<K, V, &mut Self>> {
        let row = table.row.of(self)?;
        table.check_declared(&row)?;
        Ok(Table::new(self, row, table.indexes.clone()))
    }
}

impl Batch {
    /// Returns the table, for writes in this batch. If it is dropped or renamed before the
    /// commit, [`commit`](Batch::commit) returns [`Error::NoTable`](crate::Error::NoTable) and
    /// writes nothing.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let users = store.table::<u64, String>("users")?;
    /// let names = store.table::<String, u64>("names")?;
    /// let mut batch = store.batch();
    /// batch.table(&users)?.set(7, &"Ada".into())?;
    /// batch.table(&names)?.set("Ada", &7)?;
    /// batch.commit()?;
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoTable`](crate::Error::NoTable) if there is none,
    /// [`Error::NeedsTransaction`](crate::Error::NeedsTransaction) if it has indexes. The errors of
    /// [`Store::table`].
    #[doc(alias = "open_table")]
    pub fn table<K, V>(&mut self, table: &Table<K, V>) -> Result<Table<K, V, &mut Self>> {
        let row = table.row.of(self.store())?;
        if !row.indexes.is_empty() {
            return Err(Error::NeedsTransaction { table: row.name() });
        }
        self.write_to_table(&row.entry);
        Ok(Table::new(self, row, None))
    }
}

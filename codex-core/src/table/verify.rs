//! The comparison of the indexes of a table with its rows.

use std::ops::Bound;

use super::Table;
use super::key::TableKey;
use crate::error::Result;
use crate::read::sealed::Source as _;

/// The result of [`Table::verify_indexes`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexReport {
    /// The number of rows.
    pub rows: u64,
    /// The number of entries that the rows have in all indexes, by the functions of the handle.
    pub entries: u64,
    /// The indexes that differ, by their names: the number of entries that are missing, and of
    /// those that no row has.
    pub damaged: Vec<(String, u64, u64)>,
}

impl IndexReport {
    /// Returns true if each index has exactly the entries of the rows.
    pub fn is_ok(&self) -> bool {
        self.damaged.is_empty()
    }
}

impl<K: TableKey, V> Table<K, V> {
    /// Compares the indexes with the functions that the handle declares, over all rows of one
    /// state. Readers and writers continue.
    ///
    /// An index differs if its function returns other keys now than when the rows were written. To
    /// build it again, [drop](crate::Store::drop_index) it and [open](crate::TableSpec::open) the
    /// table.
    ///
    /// ```
    /// # use codex_core::{Store, TableSpec};
    /// # let store = Store::in_memory()?;
    /// let users = TableSpec::<u64, String>::new("users")
    ///     .index::<String>("by_name", |name, keys| keys.add(name))
    ///     .open(&store)?;
    /// users.set(7, &"Ada".into())?;
    /// let report = users.verify_indexes()?;
    /// assert!(report.is_ok());
    /// assert_eq!((report.rows, report.entries), (1, 1));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Decode`](crate::Error::Decode) if a row does not decode,
    /// [`Error::IndexMismatch`](crate::Error::IndexMismatch) if the indexes of the table are not
    /// those that the handle declares, and the errors of [`Table`].
    pub fn verify_indexes(&self) -> Result<IndexReport> {
        let state = self.place.snapshot();
        let row = &self.row.later(&state)?;
        self.check_declared(row)?;
        let mut report = IndexReport { rows: 0, entries: 0, damaged: Vec::new() };
        // Each expected entry is looked up, so the others are surplus.
        let mut found = vec![0_u64; row.indexes.len()];
        let mut missing = vec![0_u64; row.indexes.len()];
        let Some(indexes) = &self.indexes else { return Ok(report) };
        let view = state.view();
        for entry in view.range(Some(row.id), (Bound::Unbounded, Bound::Unbounded)) {
            report.rows += 1;
            let counts = found.iter_mut().zip(&mut missing);
            let mut counts = counts;
            indexes.each_of(row, entry, |index, keys| {
                let Some((found, missing)) = counts.next() else { return };
                for expected in keys.entries(index) {
                    report.entries += 1;
                    let there = view.get(expected.name());
                    let is_there = there.is_some_and(|there| there.item() == expected.item());
                    *(if is_there { &mut *found } else { &mut *missing }) += 1;
                }
            })?;
        }
        for ((index, found), missing) in row.indexes.iter().zip(found).zip(missing) {
            let there = u64::try_from(state.count(Some(index.id))).unwrap_or(u64::MAX);
            let surplus = there - found;
            if missing > 0 || surplus > 0 {
                report.damaged.push((index.shape.name.clone(), missing, surplus));
            }
        }
        Ok(report)
    }
}

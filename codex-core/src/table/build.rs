//! The build of an index over the rows that a table has, beside its writers.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::record::Row;
use super::spec::Indexes;
use crate::commit::{Change, Check, Commit, Outcome};
use crate::entry::{Entry, OwnedName};
use crate::error::{Error, Result};
use crate::range::KeyBound;
use crate::read::sealed::Source as _;
use crate::store::Store;

impl<V> Indexes<V> {
    /// Completes the indexes of the table of `row` that are not complete. Returns its row as it is
    /// then. If one cannot be built, all of those are dropped.
    pub(super) fn build(&self, store: &Store, row: Arc<Row>) -> Result<Arc<Row>> {
        if row.indexes.iter().all(|index| !index.is_building) || store.inner.check_access().is_err()
        {
            return Ok(row);
        }
        self.build_all(store, &row).inspect_err(|_| {
            let unbuilt = row.indexes.iter().filter(|index| index.is_building);
            for index in unbuilt {
                // If this fails too, the index stays, and the next call continues to build it.
                let _ = store.drop_index(&row.name(), &index.shape.name);
            }
        })
    }

    /// A commit has put the indexes into the record of the table, and each write has the condition
    /// that the record is the one it has seen. So all writes after it maintain the indexes, and a
    /// row needs its entries from here only as long as it is the one that was there then.
    fn build_all(&self, store: &Store, row: &Arc<Row>) -> Result<Arc<Row>> {
        let mut after: KeyBound = Bound::Unbounded;
        loop {
            let row = self.current(row, store)?;
            let rows = next_rows(store, &row, &after);
            let Some(last) = rows.last() else { break };
            after = Bound::Excluded(last.key().into());
            self.build_step(store, &row, rows)?;
        }
        // The indexes are complete.
        store.transaction(|tx| {
            let row = self.current(row, tx)?;
            let mut indexes = row.indexes.clone();
            for index in &mut indexes {
                index.is_building = false;
            }
            let row = row.with_indexes(indexes)?;
            tx.put(row.entry.clone())?;
            Ok(Arc::new(row))
        })
    }

    /// Puts the entries of `rows` that are still the rows of their keys, in one commit.
    fn build_step(&self, store: &Store, row: &Arc<Row>, mut rows: Vec<Entry>) -> Result<()> {
        loop {
            let row = self.current(row, store)?;
            let made = self.entries_of(store, &row, &rows);
            let is_current = |row: &Entry| store.find(row.name()).is_some_and(|now| now.same(row));
            match made {
                // Order: the rows after the entries. Those that are still there were there when
                // the entry of another row was read, so both have the key.
                Err(Error::NotUnique { .. }) if !rows.iter().all(is_current) => {}
                Err(error) => return Err(error),
                Ok(None) => return Ok(()),
                Ok(Some(commit)) => match store.inner.commit(commit)? {
                    Outcome::Done { .. } => return Ok(()),
                    Outcome::Conflict => {}
                },
            }
            // A row that was written since has its entries from its writer.
            rows.retain(is_current);
        }
    }

    /// Returns the commit of the entries of `rows` that are not there, if there are any.
    fn entries_of(&self, store: &Store, row: &Row, rows: &[Entry]) -> Result<Option<Commit>> {
        let mut checks = vec![Check::Same(row.entry.clone())];
        // The entries of earlier rows of the commit.
        let mut made: BTreeMap<OwnedName, Entry> = BTreeMap::new();
        for entry in rows {
            checks.push(Check::Same(entry.clone()));
            let changes = self.changes(row, (None, Some(entry)), |name| {
                let earlier = made.get(&OwnedName::from(name)).cloned();
                earlier.or_else(|| {
                    let found = store.find(name);
                    checks.push(Check::of(name, found.clone()));
                    found
                })
            })?;
            for change in changes {
                if let Change::Put(entry) = change {
                    store.check_key(entry.key())?;
                    made.insert(entry.name().into(), entry);
                }
            }
        }
        let changes: Vec<_> = made.into_values().map(Change::Put).collect();
        let commit = Commit { checks: checks.into(), changes: changes.into(), ..Commit::default() };
        store.check_batch(commit.encoded_len())?;
        Ok(Some(commit).filter(|commit| !commit.changes.as_slice().is_empty()))
    }
}

/// Returns the rows of a step: the first ones after `after`.
fn next_rows(store: &Store, row: &Row, after: &KeyBound) -> Vec<Entry> {
    let view = store.inner.engine.view();
    let bounds = (after.as_ref().map(|key| &**key), Bound::Unbounded);
    view.range(Some(row.id), bounds).take(STEP).cloned().collect()
}

/// The maximum number of rows whose entries one commit puts.
const STEP: usize = 1_024;

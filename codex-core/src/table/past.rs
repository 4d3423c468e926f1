//! The past of a table in a ledger.

use codex_storage::batch::Seq;

use super::key::TableKey;
use super::place::Place as _;
use super::prefix::TablePrefix;
use super::{Table, encoded};
use crate::error::Result;
use crate::history::{Changes, History};
use crate::watch::Watch;

/// Reading the past of a table, which a store of the form [`Form::Ledger`](crate::Form::Ledger)
/// keeps. `table` of the [`Snapshot`](crate::Snapshot) that
/// [`Store::as_of`](crate::Store::as_of) returns is the table in an earlier state.
impl<K: TableKey, V> Table<K, V> {
    /// Returns the values that `key` had, the oldest first, as
    /// [`Store::history`](crate::Store::history) does for keys outside tables.
    ///
    /// ```
    /// # use codex_core::{Form, Store};
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let store = Store::options().form(Form::Ledger).open(&path)?;
    /// let prices = store.table::<String, u32>("prices")?;
    /// prices.set("tea", &3)?;
    /// prices.set("tea", &4)?;
    /// for revision in prices.history("tea")? {
    ///     let revision = revision?;
    ///     println!("{:?} since {:?}", revision.value::<u32>()?, revision.time());
    /// }
    /// assert_eq!(prices.history("tea")?.count(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`Store::history`](crate::Store::history), and those of [`Table`].
    #[doc(alias("revisions", "audit", "versions"))]
    pub fn history(&self, key: K::Ref<'_>) -> Result<History> {
        self.place.confirm(&self.row)?;
        self.named(&key, |name| self.place.inner.history(name))
    }

    /// Returns the commits after the commit `after`, up to the present one, as
    /// [`Store::changes`](crate::Store::changes) does. Each has its changes of the table, which may
    /// be none.
    ///
    /// # Errors
    /// The errors of [`Store::changes`](crate::Store::changes), and those of [`Table`].
    #[doc(alias("since", "diff", "log"))]
    pub fn changes(&self, after: Seq) -> Result<Changes> {
        self.place.confirm(&self.row)?;
        self.place.inner.changes(Some(self.row.id), b"", after, None)
    }

    /// Watches the table from the commit `after` on, as
    /// [`Store::watch_from`](crate::Store::watch_from) does for keys outside tables.
    ///
    /// # Errors
    /// The errors of [`Store::watch_from`](crate::Store::watch_from), and those of [`Table`].
    pub fn watch_from(&self, after: Seq) -> Result<Watch> {
        self.place.confirm(&self.row)?;
        self.place.inner.watch_from(Some(self.row.id), b"", after)
    }

    /// Watches the rows whose keys begin with `prefix` from the commit `after` on. Otherwise as
    /// [`watch_from`](Self::watch_from).
    ///
    /// # Errors
    /// The errors of [`watch_from`](Self::watch_from).
    pub fn watch_prefix_from(&self, prefix: impl TablePrefix<K>, after: Seq) -> Result<Watch> {
        self.place.confirm(&self.row)?;
        self.place.inner.watch_from(Some(self.row.id), &encoded(&prefix), after)
    }
}

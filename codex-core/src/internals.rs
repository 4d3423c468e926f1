//! Types of the engine, for the tests in `tests/` and for the program `codexdb`. They are not part
//! of the API.

use std::collections::BTreeMap;

pub use crate::commit::{Base, Change, Check, Commit, End, Outcome, SmallVec};
#[cfg(feature = "shared")]
pub use crate::engine::Loaded;
pub use crate::engine::{ArchivePoint, EndedLogs, Engine, EngineOptions, Task, View};
pub use crate::entry::Entry;
pub use crate::locks::{Locks, PersistGuard};
pub use crate::map::{Map, MapBuilder, Ordered};
pub use crate::moment::Moment;

/// Returns the same options for a store without background threads, so that the same calls make the
/// same trace.
pub fn without_threads(options: crate::OpenOptions) -> crate::OpenOptions {
    options.without_threads()
}

/// Runs one step of the sweep, as the background thread does. Returns true if there may be more.
///
/// # Errors
/// The errors of a commit.
pub fn sweep(store: &crate::Store) -> crate::Result<bool> {
    Ok(store.inner.engine.sweep()?)
}

/// Makes a commit, as the methods for writing do.
///
/// # Errors
/// The errors of a commit.
pub fn submit(store: &crate::Store, commit: Commit) -> crate::Result<Outcome> {
    Ok(store.inner.engine.submit(commit)?)
}

/// Returns the engine of the store.
pub fn engine(store: &crate::Store) -> &Engine {
    &store.inner.engine
}

/// Returns the state of the store.
pub fn view(store: &crate::Store) -> View {
    store.inner.engine.view()
}

/// Opens the table of `spec` without building its indexes.
///
/// # Errors
/// Those of [`TableSpec::open`](crate::TableSpec::open).
pub fn open_unbuilt<K: crate::TableKey, V: serde::de::DeserializeOwned + 'static>(
    spec: crate::TableSpec<K, V>,
    store: &crate::Store,
) -> crate::Result<crate::Table<K, V>> {
    spec.open_unbuilt(store)
}

/// A table of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSize {
    /// The id of the table.
    pub id: codex_storage::batch::TableId,
    /// Its name for people: `table users`, `index by_email of users`, or `table 16` if there is no
    /// record of it.
    pub name: String,
    /// The number of its entries.
    pub entries: u64,
    /// The bytes of their keys and values.
    pub bytes: u64,
}

/// Returns the entries of all tables, in the order of the ids and then of the keys. Takes time in
/// proportion to all entries if there are tables.
pub fn entries_of_tables(snapshot: &crate::Snapshot) -> impl Iterator<Item = &Entry> {
    let view = snapshot.view();
    let all = view.ordered.has_tables().then(|| view.ordered.iter_with_tables());
    let is_shown = |entry: &&Entry| entry.table().is_some() && !entry.has_expired_at(view.now_us);
    all.into_iter().flatten().filter(is_shown)
}

/// Returns the tables that have entries, in the order of their ids.
pub fn tables(snapshot: &crate::Snapshot) -> Vec<TableSize> {
    let mut tables: Vec<TableSize> = Vec::new();
    let names: BTreeMap<_, _> = crate::table::names_in(snapshot).into_iter().collect();
    for entry in entries_of_tables(snapshot) {
        let Some(id) = entry.table() else { continue };
        if tables.last().is_none_or(|last| last.id != id) {
            let name = names.get(&id).cloned().unwrap_or_else(|| format!("table {}", id.get()));
            tables.push(TableSize { id, name, entries: 0, bytes: 0 });
        }
        let len = entry.key().len() + crate::value::payload(entry.value()).len();
        if let Some(table) = tables.last_mut() {
            table.entries += 1;
            table.bytes += u64::try_from(len).unwrap_or(u64::MAX);
        }
    }
    tables
}

/// Does the same as [`Store::tables`](crate::Store::tables) in the state of `snapshot`.
///
/// # Errors
/// The errors of that method.
pub fn tables_in(snapshot: &crate::Snapshot) -> crate::Result<Vec<crate::TableInfo>> {
    crate::table::infos_in(snapshot)
}

/// Returns the id of the table `name` and the kind of its keys, or `None` if there is none.
///
/// # Errors
/// [`Error::TableName`](crate::Error::TableName) and [`Error::Catalogue`](crate::Error::Catalogue).
pub fn table_of(
    source: &impl crate::Readable,
    name: &str,
) -> crate::Result<Option<(codex_storage::batch::TableId, String)>> {
    crate::table::id_and_keys(source, name)
}

/// Returns the entries of `table`, or of the keys outside tables, within `range`.
pub fn scan(
    source: &impl crate::Readable,
    table: Option<codex_storage::batch::TableId>,
    range: impl crate::KeyRange,
) -> crate::Iter {
    source.scan(table, range.into_bounds())
}

/// Returns the history of `key` in `table`, or of one outside tables.
///
/// # Errors
/// The errors of [`Store::history`](crate::Store::history).
pub fn history(
    store: &crate::Store,
    table: Option<codex_storage::batch::TableId>,
    key: &[u8],
) -> crate::Result<crate::History> {
    store.inner.history(crate::entry::Name { table, key })
}

/// Returns the time by which entries expire, in microseconds since 1970.
pub fn now_us(store: &crate::Store) -> i64 {
    store.inner.engine.now_us()
}

/// Makes the index of a ledger again, with regions of about `region_len` bytes and at most
/// `names_max` checksums. Returns about how many bytes of memory it takes.
///
/// # Errors
/// The errors of [`Store::history`](crate::Store::history).
pub fn index_ledger(
    store: &crate::Store,
    region_len: u64,
    names_max: usize,
) -> crate::Result<usize> {
    store.inner.index_ledger(region_len, names_max)
}

/// Removes the store `name` in the directory of `vfs`, as
/// [`Store::destroy`](crate::Store::destroy) does.
///
/// # Errors
/// The errors of that method.
pub fn destroy_in(
    vfs: &codex_storage::vfs::Vfs,
    name: &str,
    with_backups: bool,
) -> crate::Result<()> {
    crate::Store::destroy_in(vfs, name, with_backups)
}

#[cfg(feature = "crypto")]
pub use keyed::{change_key, keys, open, rekey};

/// Stores whose keys are wrapped by a test.
#[cfg(feature = "crypto")]
mod keyed {
    use std::sync::Arc;

    use codex_crypto::{Cipher, Key};
    use codex_storage::seal::Keys;
    use codex_storage::vfs::{Entropy, Vfs};

    use crate::seal::{SharedKey, UserKey};
    use crate::{OpenOptions, Result, Store};

    /// Returns the key of a user in the form that the storage takes.
    pub fn keys(key: Key, cipher: Cipher, entropy: Arc<dyn Entropy>) -> Arc<dyn Keys> {
        Arc::new(UserKey::new(SharedKey::new(key), cipher, entropy))
    }

    /// Opens the store `name` with `options` and these keys.
    ///
    /// # Errors
    /// The errors of [`OpenOptions::open_in`].
    pub fn open(
        options: &OpenOptions,
        vfs: &Vfs,
        name: &str,
        keys: Arc<dyn Keys>,
    ) -> Result<Store> {
        options.open_with(vfs, name, keys)
    }

    /// Does the same as [`Store::change_key`].
    ///
    /// # Errors
    /// The errors of [`Store::change_key`].
    pub fn change_key(store: &Store, keys: &dyn Keys) -> Result<()> {
        store.change_keys(keys)
    }

    /// Does the same as [`Store::rekey`].
    ///
    /// # Errors
    /// The errors of [`Store::rekey`].
    pub fn rekey(store: &Store, keys: &dyn Keys) -> Result<()> {
        store.rekey_with(keys, &|_, _| true)
    }
}

//! Reads of a table by an index.

use std::any::type_name;
use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use codex_storage::batch::TableId;
use serde::de::DeserializeOwned;

use super::key::TableKey;
use super::prefix::TablePrefix;
use super::record::{IndexRow, Row};
use super::{Table, rows};
use crate::cursor::{self, Iter};
use crate::entry::{Entry, Name};
use crate::error::{Error, Result};
use crate::range::{KeyBound, prefix_bounds};
use crate::read::sealed::Source;
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::transaction::Transaction;
use crate::value;
use sealed::IndexPlace;

/// An index of a [`Table`], by which its rows are read: [`Table::index`] returns it, and
/// [`TableSpec`](crate::TableSpec) declares it.
///
/// Each read is of one state of the store. `index` of a [`Snapshot`] and of a [`Transaction`]
/// returns the index there, as a handle of the place `P`.
///
/// ```
/// # use codex_core::{Store, TableSpec};
/// let store = Store::in_memory()?;
/// let users = TableSpec::<u64, String>::new("users")
///     .unique::<String>("by_name", |name, keys| keys.add(name))
///     .open(&store)?;
/// let by_name = users.index::<String>("by_name")?;
/// users.set(7, &"Ada".into())?;
/// let before = store.snapshot();
/// store.transaction(|tx| {
///     if let Some((id, _)) = tx.index(&by_name)?.get("Ada")? {
///         tx.table(&users)?.set(id, &"Lovelace".into())?;
///     }
///     Ok(())
/// })?;
/// assert_eq!(by_name.get("Ada")?, None);
/// assert_eq!(before.index(&by_name)?.get("Ada")?, Some((7, "Ada".into())));
/// # Ok::<(), codex_core::Error>(())
/// ```
///
/// # Errors
/// Every method returns [`Error::NoTable`] after the table was dropped, and [`Error::NoIndex`]
/// after the index was.
pub struct Index<IK, K, V, P = Store> {
    place: P,
    row: Arc<Row>,
    name: Arc<str>,
    of: PhantomData<fn(IK, K) -> V>,
}

/// An index as it is in the state that is read.
struct Now {
    id: TableId,
    is_unique: bool,
}

/// An iterator over rows of a table in the order of an [`Index`], from either end. Rows with the
/// same key of the index come in the order of their keys, and a row comes once for each of its keys
/// in the range.
///
/// An item is an error if its key or value does not decode.
#[derive(Debug, Clone)]
#[must_use = "an iterator does nothing until it is advanced"]
pub struct IndexRows<IK, K, V, S = Snapshot> {
    /// The entries of the index, or the error that comes instead.
    entries: std::result::Result<Found<S>, Option<Error>>,
    of: PhantomData<fn(IK) -> (K, V)>,
}

/// Entries of an index, and the state in which their rows are.
#[derive(Debug, Clone)]
struct Found<S> {
    entries: Iter,
    state: S,
    table: TableId,
    is_unique: bool,
}

mod sealed {
    use super::Source;

    /// A place in which an index is read. Other crates cannot name the trait.
    pub trait IndexPlace {
        /// The state that a read is of.
        type State: Source;

        fn state(&self) -> Self::State;
    }
}

impl<K: TableKey, V> Table<K, V> {
    /// Returns the index `name`, whose keys are of the type `IK`.
    ///
    /// A handle of a store that is read-only needs no declaration of the index.
    ///
    /// ```
    /// # use codex_core::{Error, Store, TableSpec};
    /// let store = Store::in_memory()?;
    /// let users = TableSpec::<u64, String>::new("users")
    ///     .index::<u32>("by_length", |name, keys| keys.add(name.len().try_into().unwrap()))
    ///     .open(&store)?;
    /// users.set(7, &"Ada".into())?;
    /// assert_eq!(users.index::<u32>("by_length")?.get_all(3).count(), 1);
    /// assert!(matches!(users.index::<u64>("by_length"), Err(Error::NoIndex { .. })));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoIndex`] if the table has no such index with keys of this kind, or if it is not
    /// complete.
    pub fn index<IK: TableKey>(&self, name: &str) -> Result<Index<IK, K, V>> {
        let row = self.row.later(&self.place)?;
        found_in(&row, name, &IK::kind())?;
        Ok(Index { place: self.place.clone(), row, name: name.into(), of: PhantomData })
    }
}

impl Snapshot {
    /// Returns the index of the same name in this state.
    ///
    /// # Errors
    /// [`Error::NoTable`] if there is no such table in this state, [`Error::NoIndex`] if it has no
    /// such index. The errors of [`Store::table`].
    pub fn index<IK: TableKey, K, V>(
        &self,
        index: &Index<IK, K, V>,
    ) -> Result<Index<IK, K, V, &Self>> {
        index.at(self)
    }
}

impl Transaction {
    /// Returns the index of the same name in this transaction, for reads.
    ///
    /// ```
    /// # use codex_core::{Store, TableSpec};
    /// # let store = Store::in_memory()?;
    /// let users = TableSpec::<u64, String>::new("users")
    ///     .unique::<String>("by_name", |name, keys| keys.add(name))
    ///     .open(&store)?;
    /// let by_name = users.index::<String>("by_name")?;
    /// users.set(7, &"Ada".into())?;
    /// let id = store.transaction(|tx| Ok(tx.index(&by_name)?.get("Ada")?.map(|(id, _)| id)))?;
    /// assert_eq!(id, Some(7));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Snapshot::index`].
    pub fn index<IK: TableKey, K, V>(
        &self,
        index: &Index<IK, K, V>,
    ) -> Result<Index<IK, K, V, &Self>> {
        index.at(self)
    }
}

impl<IK: TableKey, K: TableKey, V: DeserializeOwned, P: IndexPlace> Index<IK, K, V, P> {
    /// Returns the row with the key `key` in the index, or the first one in the order of the keys
    /// of the table if it has several.
    ///
    /// # Errors
    /// The errors of [`Table::get`], and those of [`Index`].
    pub fn get(&self, key: IK::Ref<'_>) -> Result<Option<(K, V)>> {
        let mut bytes = Vec::new();
        IK::encode(&key, &mut bytes);
        let (state, now) = self.confirmed()?;
        if !now.is_unique {
            return self.within(prefix_bounds(&bytes)).next().transpose();
        }
        let entry = state.find(Name { table: Some(now.id), key: &bytes });
        let row = entry.and_then(|entry| {
            let key = value::payload(entry.value());
            state.find(Name { table: Some(self.row.id), key })
        });
        row.map(|row| rows::decode(&cursor::Entry::new(row))).transpose()
    }

    /// Returns the rows with the key `key` in the index, in the order of the keys of the table.
    ///
    /// ```
    /// # use codex_core::{Store, TableSpec};
    /// # let store = Store::in_memory()?;
    /// let users = TableSpec::<u64, Vec<String>>::new("tags of users")
    ///     .index::<String>("by_tag", |tags, keys| tags.iter().for_each(|tag| keys.add(tag)))
    ///     .open(&store)?;
    /// users.set(7, &vec!["admin".into(), "early".into()])?;
    /// users.set(8, &vec!["early".into()])?;
    /// let by_tag = users.index::<String>("by_tag")?;
    /// let early: Vec<_> = by_tag.get_all("early").collect::<Result<_, _>>()?;
    /// assert_eq!((early[0].0, early[1].0), (7, 8));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn get_all(&self, key: IK::Ref<'_>) -> IndexRows<IK, K, V, P::State> {
        let mut bytes = Vec::new();
        IK::encode(&key, &mut bytes);
        self.within(prefix_bounds(&bytes))
    }

    /// Returns all rows that have a key in the index.
    pub fn iter(&self) -> IndexRows<IK, K, V, P::State> {
        self.within((Bound::Unbounded, Bound::Unbounded))
    }

    /// Returns the rows whose keys in the index lie in `range`.
    ///
    /// ```
    /// # use codex_core::{Store, TableSpec};
    /// # let store = Store::in_memory()?;
    /// let people = TableSpec::<u64, (String, u16)>::new("people")
    ///     .index::<u16>("by_year", |(_, year), keys| keys.add(*year))
    ///     .open(&store)?;
    /// people.set(1, &("Ada".into(), 1815))?;
    /// people.set(2, &("Alan".into(), 1912))?;
    /// let by_year = people.index::<u16>("by_year")?;
    /// assert_eq!(by_year.range(1900..=1912).count(), 1);
    /// assert_eq!(by_year.range(..1912).count(), 1);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn range<'a>(&self, range: impl RangeBounds<IK::Ref<'a>>) -> IndexRows<IK, K, V, P::State> {
        // The entries of a key are those that begin with its encoding, which is the beginning of no
        // other one.
        let entries = |key: &IK::Ref<'a>| {
            let mut bytes = Vec::new();
            IK::encode(key, &mut bytes);
            prefix_bounds(&bytes)
        };
        let lower = match range.start_bound() {
            Bound::Included(key) => entries(key).0,
            Bound::Excluded(key) => match entries(key).1 {
                Bound::Excluded(next) => Bound::Included(next),
                // No encoding is greater.
                _ => return self.within((Bound::Unbounded, Bound::Excluded([].into()))),
            },
            Bound::Unbounded => Bound::Unbounded,
        };
        let upper = match range.end_bound() {
            Bound::Included(key) => entries(key).1,
            Bound::Excluded(key) => match entries(key).0 {
                Bound::Included(first) => Bound::Excluded(first),
                other => other,
            },
            Bound::Unbounded => Bound::Unbounded,
        };
        self.within((lower, upper))
    }

    /// Returns the rows whose keys in the index begin with `prefix`, as [`Table::prefix`] does.
    ///
    /// ```
    /// # use codex_core::{Store, TableSpec};
    /// # let store = Store::in_memory()?;
    /// let users = TableSpec::<u64, String>::new("users")
    ///     .index::<String>("by_name", |name, keys| keys.add(name))
    ///     .open(&store)?;
    /// users.set(1, &"Ada".into())?;
    /// users.set(2, &"Adam".into())?;
    /// assert_eq!(users.index::<String>("by_name")?.prefix("Ada").count(), 2);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn prefix(&self, prefix: impl TablePrefix<IK>) -> IndexRows<IK, K, V, P::State> {
        let mut bytes = Vec::new();
        prefix.encode_prefix_within(&mut bytes);
        self.within(prefix_bounds(&bytes))
    }

    /// Returns the number of pairs of a key of the index and a row. Takes O(1), if no row expires.
    ///
    /// # Errors
    /// Those of [`Index`].
    pub fn len(&self) -> Result<usize> {
        let (state, now) = self.confirmed()?;
        Ok(state.count(Some(now.id)))
    }

    /// Returns true if no row has a key in the index.
    ///
    /// # Errors
    /// Those of [`Index`].
    pub fn is_empty(&self) -> Result<bool> {
        let (state, now) = self.confirmed()?;
        Ok(state.has_none(Some(now.id)))
    }

    fn within(&self, bounds: (KeyBound, KeyBound)) -> IndexRows<IK, K, V, P::State> {
        let found = self.confirmed().map(|(state, now)| Found {
            entries: state.scan(Some(now.id), bounds),
            state,
            table: self.row.id,
            is_unique: now.is_unique,
        });
        IndexRows { entries: found.map_err(Some), of: PhantomData }
    }

    /// Returns the state to read, and the index in it.
    fn confirmed(&self) -> Result<(P::State, Now)> {
        let state = self.place.state();
        let row = self.row.later(&state)?;
        let IndexRow { id, shape, .. } = found_in(&row, &self.name, &IK::kind())?;
        Ok((state, Now { id: *id, is_unique: shape.is_unique }))
    }
}

impl<IK: TableKey, K, V> Index<IK, K, V> {
    /// Returns the index of the same name in `place`.
    fn at<S: Source>(&self, place: S) -> Result<Index<IK, K, V, S>> {
        let row = self.row.of(&place)?;
        found_in(&row, &self.name, &IK::kind())?;
        Ok(Index { place, row, name: Arc::clone(&self.name), of: PhantomData })
    }
}

impl<IK: TableKey, K: TableKey, V: DeserializeOwned, S: Source> IndexRows<IK, K, V, S> {
    fn fetch(
        &mut self,
        next: impl Fn(&mut Iter) -> Option<cursor::Entry>,
    ) -> Option<Result<(K, V)>> {
        let found = match &mut self.entries {
            Ok(found) => found,
            Err(error) => return error.take().map(Err),
        };
        loop {
            let entry = next(&mut found.entries)?;
            match found.row_of::<IK>(&entry) {
                Ok(Some(row)) => return Some(rows::decode(&cursor::Entry::new(row))),
                // Both had expired, only one was removed, and the clock was set back.
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl<S: Source> Found<S> {
    /// Returns the row of an entry of the index.
    fn row_of<IK: TableKey>(&self, entry: &cursor::Entry) -> Result<Option<Entry>> {
        let table = Some(self.table);
        if self.is_unique {
            return Ok(self.state.find(Name { table, key: entry.bytes() }));
        }
        let mut key: &[u8] = entry.key();
        IK::decode(&mut key).map_err(|why| {
            let (type_name, key_len) = (type_name::<IK>(), entry.key().len());
            Error::DecodeKey { type_name, key_len, why }
        })?;
        Ok(self.state.find(Name { table, key }))
    }
}

impl<IK, K, V, S> Iterator for IndexRows<IK, K, V, S>
where
    IK: TableKey,
    K: TableKey,
    V: DeserializeOwned,
    S: Source,
{
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.fetch(Iter::next)
    }
}

impl<IK, K, V, S> DoubleEndedIterator for IndexRows<IK, K, V, S>
where
    IK: TableKey,
    K: TableKey,
    V: DeserializeOwned,
    S: Source,
{
    fn next_back(&mut self) -> Option<Self::Item> {
        self.fetch(Iter::next_back)
    }
}

impl<IK, K, V, S> FusedIterator for IndexRows<IK, K, V, S>
where
    IK: TableKey,
    K: TableKey,
    V: DeserializeOwned,
    S: Source,
{
}

impl IndexPlace for Store {
    type State = Snapshot;

    fn state(&self) -> Snapshot {
        self.snapshot()
    }
}

impl<'a, S: Source> IndexPlace for &'a S {
    type State = &'a S;

    fn state(&self) -> &'a S {
        self
    }
}

/// Returns the index `name` of the table of `row`, with keys of the kind `keys`.
fn found_in<'r>(row: &'r Row, name: &str, keys: &str) -> Result<&'r IndexRow> {
    let fits = |index: &&IndexRow| index.shape.keys == keys && !index.is_building;
    row.index(name).filter(fits).ok_or_else(|| {
        let (table, index, keys) = (row.name(), name.into(), keys.into());
        Error::NoIndex { table, index, keys }
    })
}

impl<IK, K, V, P> IntoIterator for &Index<IK, K, V, P>
where
    IK: TableKey,
    K: TableKey,
    V: DeserializeOwned,
    P: IndexPlace,
{
    type Item = Result<(K, V)>;
    type IntoIter = IndexRows<IK, K, V, P::State>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<IK, K, V, P: Clone> Clone for Index<IK, K, V, P> {
    fn clone(&self) -> Self {
        let (place, row) = (self.place.clone(), Arc::clone(&self.row));
        Self { place, row, name: Arc::clone(&self.name), of: PhantomData }
    }
}

/// Shows the types of the keys and values, and no content.
impl<IK, K, V, P> fmt::Debug for Index<IK, K, V, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (of, key, value) = (type_name::<IK>(), type_name::<K>(), type_name::<V>());
        write!(f, "Index<{of}, {key}, {value}>")
    }
}

//! Tables: keys and values of two types, under a name, apart from all other keys.
#![expect(
    clippy::needless_pass_by_value,
    reason = "the borrowed form of a key is a reference or a small value"
)]

mod batch;
mod build;
mod catalogue;
mod index;
mod key;
mod past;
mod place;
mod pop;
mod prefix;
mod record;
mod rows;
mod spec;
mod transaction;
mod verify;
mod write;

use std::any::type_name;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::SystemTime;

use serde::de::DeserializeOwned;

pub use catalogue::{IndexInfo, TableInfo};
pub(crate) use catalogue::{id_and_keys, infos_in, names_in};
pub use index::{Index, IndexRows};
pub use key::TableKey;
pub use prefix::TablePrefix;
pub use rows::Rows;
pub use spec::{IndexKeys, TableSpec};
pub use verify::IndexReport;

use crate::cursor::{Entry, Key};
use crate::entry::Name;
use crate::error::Result;
use crate::expiry::expiry_of;
use crate::range::{KeyBound, prefix_bounds};
use crate::read::sealed::Source;
use crate::store::Store;
use crate::value::{self, ValueRef};
use place::Place;
use record::Row;
use spec::Indexes;

/// A table: values of the type `V` under keys of the type `K`, in the order of the keys.
///
/// [`Store::table`] opens it. The keys of a table are apart from those of other tables and from the
/// keys outside tables, which the methods of [`Store`] read and write. Clone the handle and send it
/// to threads.
///
/// ```
/// use codex_core::Store;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct User {
///     name: String,
/// }
///
/// let store = Store::in_memory()?;
/// let users = store.table::<u64, User>("users")?;
/// users.set(7, &User { name: "Ada".into() })?;
/// users.set(10, &User { name: "Bob".into() })?;
/// assert_eq!(users.get(7)?.map(|user| user.name).as_deref(), Some("Ada"));
/// for row in users.range(..100) {
///     let (id, user) = row?;
///     println!("{id}: {}", user.name);
/// }
/// # Ok::<(), codex_core::Error>(())
/// ```
///
/// `table` of a [`Snapshot`](crate::Snapshot), a [`Transaction`](crate::Transaction) and a
/// [`Batch`](crate::Batch) returns the table there, as a handle of the place `P`:
///
/// ```
/// # use codex_core::Store;
/// let store = Store::in_memory()?;
/// let users = store.table::<u64, String>("users")?;
/// let names = store.table::<String, u64>("names")?;
/// store.transaction(|tx| {
///     if tx.table(&names)?.contains_key("Ada")? {
///         return Ok(());
///     }
///     tx.table(&users)?.set(7, &"Ada".into())?;
///     tx.table(&names)?.set("Ada", &7)
/// })?;
/// assert_eq!(store.snapshot().table(&names)?.get("Ada")?, Some(7));
/// # Ok::<(), codex_core::Error>(())
/// ```
///
/// # In async code
/// Reads do not wait for a disk, so they can be called from a task. Writes of a table are made in
/// an [async transaction](crate::AsyncStore::transaction), or in a batch that is
/// [submitted](crate::Batch::submit):
///
/// ```
/// # use codex_core::{AsyncStore, Store};
/// # smol::block_on(async {
/// let store = AsyncStore::from(Store::in_memory()?);
/// let users = store.blocking().table::<u64, String>("users")?;
/// store.transaction(|tx| tx.table(&users)?.set(7, &"Ada".into())).await?;
/// assert_eq!(users.get(7)?.as_deref(), Some("Ada"));
/// # Ok::<(), codex_core::Error>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// Besides the errors of the methods of [`Store`] with the same names, every method returns
/// [`Error::NoTable`](crate::Error::NoTable) after the table was [dropped](Store::drop_table).
pub struct Table<K, V, P = Store> {
    place: P,
    row: Arc<Row>,
    /// The indexes that the handle declares, if there are any.
    indexes: Option<Arc<Indexes<V>>>,
    of: PhantomData<fn(K) -> V>,
}

impl Store {
    /// Opens the table `name`, which is created if there is none. A name has 1 to 255 bytes, none
    /// of them 0.
    ///
    /// The kind of the keys is stored, and must be the same each time. The type of the values is
    /// not compared, as it is not for keys outside tables: reading one as another type is an
    /// error.
    ///
    /// ```
    /// # use codex_core::{Error, Store};
    /// let store = Store::in_memory()?;
    /// let events = store.table::<(u32, String), u64>("events")?;
    /// events.set((2026, "launch"), &1)?;
    /// let other = store.table::<u64, u64>("events");
    /// assert!(matches!(other, Err(Error::TableKey { .. })));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TableName`](crate::Error::TableName),
    /// [`Error::TableKey`](crate::Error::TableKey) if the table has keys of another kind,
    /// [`Error::Catalogue`](crate::Error::Catalogue) if a newer build has created it,
    /// [`Error::IndexMismatch`](crate::Error::IndexMismatch) if it has indexes, which
    /// [`TableSpec`] declares, and the store is not read-only,
    /// [`Error::NoTable`](crate::Error::NoTable) if there is none and the store is read-only.
    /// Otherwise the errors of [`set`](Store::set).
    #[doc(alias("open_table", "create_table", "tree", "keyspace", "partition"))]
    pub fn table<K: TableKey, V>(&self, name: &str) -> Result<Table<K, V>> {
        let row = self.open_row(name, &K::kind(), type_name::<V>(), &[])?;
        Ok(Table::new(self.clone(), row, None))
    }
}

impl<K, V, P> Table<K, V, P> {
    fn new(place: P, row: Arc<Row>, indexes: Option<Arc<Indexes<V>>>) -> Self {
        Self { place, row, indexes, of: PhantomData }
    }
}

#[expect(private_bounds, reason = "the places are those that have a method `table`")]
impl<K: TableKey, V, P: Place> Table<K, V, P> {
    /// Returns the decoded value of `key`, or `None` if it has none.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let ages = store.table::<String, u8>("ages")?;
    /// ages.set("Ada", &36)?;
    /// assert_eq!((ages.get("Ada")?, ages.get("Bob")?), (Some(36), None));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`ValueRef::decode`], and those of [`Table`].
    pub fn get(&self, key: K::Ref<'_>) -> Result<Option<V>>
    where
        V: DeserializeOwned,
    {
        self.get_by(&key)
    }

    /// Returns a handle of the value of `key`, or `None` if it has none. Copies no bytes.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let names = store.table::<u64, String>("names")?;
    /// names.set(7, &"Ada".into())?;
    /// let name = names.get_bytes(7)?.expect("it was set");
    /// assert_eq!(name.decode::<&str>()?, "Ada");
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Table`].
    pub fn get_bytes(&self, key: K::Ref<'_>) -> Result<Option<ValueRef>> {
        Ok(self.find(&key)?.map(ValueRef::new))
    }

    /// Returns true if `key` has a value.
    ///
    /// # Errors
    /// Those of [`Table`].
    #[doc(alias("contains", "exists"))]
    pub fn contains_key(&self, key: K::Ref<'_>) -> Result<bool> {
        let is_there = self.named(&key, |name| self.place.source().has(name));
        self.confirm(is_there).map(|()| is_there)
    }

    /// Returns the time at which the value of `key` expires, or `None` if it has no value or its
    /// value does not expire.
    ///
    /// # Errors
    /// Those of [`Table`].
    pub fn expires_at(&self, key: K::Ref<'_>) -> Result<Option<SystemTime>> {
        Ok(self.find(&key)?.as_ref().and_then(expiry_of))
    }

    /// Returns the number of keys. Takes O(1), if none of them expires.
    ///
    /// # Errors
    /// Those of [`Table`].
    pub fn len(&self) -> Result<usize> {
        let count = self.place.source().count(Some(self.row.id));
        self.confirm(count > 0).map(|()| count)
    }

    /// Returns true if there are no keys.
    ///
    /// # Errors
    /// Those of [`Table`].
    pub fn is_empty(&self) -> Result<bool> {
        let has_none = self.place.source().has_none(Some(self.row.id));
        self.confirm(!has_none).map(|()| has_none)
    }

    /// Returns all rows, in the order of the keys. If the table was dropped, the only item is the
    /// error.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let degrees = store.table::<i32, String>("degrees")?;
    /// degrees.set(5, &"cool".into())?;
    /// degrees.set(-5, &"cold".into())?;
    /// for row in degrees.iter().rev() {
    ///     let (degree, word) = row?;
    ///     println!("{degree} is {word}");
    /// }
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    #[expect(clippy::iter_not_returning_iterator, reason = "it is one if keys and values decode")]
    pub fn iter(&self) -> Rows<K, V> {
        self.within((KeyBound::Unbounded, KeyBound::Unbounded))
    }

    /// Returns the rows whose keys lie in `range`, in the order of the keys. Empty if the ends of
    /// the range cross.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let events = store.table::<(u32, u8), String>("events")?;
    /// for key in [(2025, 12), (2026, 1), (2026, 2)] {
    ///     events.set(key, &"met".into())?;
    /// }
    /// assert_eq!(events.range((2026, 1)..).count(), 2);
    /// assert_eq!(events.range(..=(2026, 1)).count(), 2);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn range<'a>(&self, range: impl RangeBounds<K::Ref<'a>>) -> Rows<K, V> {
        self.within(bounds_of::<K>(&range))
    }

    /// Returns the rows whose keys begin with `prefix`, in the order of the keys.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let visits = store.table::<(String, u64), u32>("visits")?;
    /// visits.set(("home", 1), &10)?;
    /// visits.set(("home", 2), &20)?;
    /// visits.set(("homes", 1), &30)?;
    /// assert_eq!(visits.prefix(("home",)).count(), 2);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn prefix(&self, prefix: impl TablePrefix<K>) -> Rows<K, V> {
        self.within(prefix_bounds(&encoded(&prefix)))
    }

    /// Returns the row with the smallest key, or `None` if there are none.
    ///
    /// # Errors
    /// The errors of [`get`](Self::get).
    pub fn first(&self) -> Result<Option<(K, V)>>
    where
        V: DeserializeOwned,
    {
        self.iter().next().transpose()
    }

    /// Returns the row with the largest key, or `None` if there are none.
    ///
    /// # Errors
    /// The errors of [`get`](Self::get).
    pub fn last(&self) -> Result<Option<(K, V)>>
    where
        V: DeserializeOwned,
    {
        self.iter().next_back().transpose()
    }

    /// Returns the key and the value of an entry of the table that a [watch](Table::watch) shows.
    ///
    /// # Errors
    /// The errors of [`get`](Self::get).
    pub fn decode(&self, entry: &Entry) -> Result<(K, V)>
    where
        V: DeserializeOwned,
    {
        rows::decode(entry)
    }

    /// Returns the key of a removed entry of the table that a [watch](Table::watch) shows.
    ///
    /// # Errors
    /// [`Error::DecodeKey`](crate::Error::DecodeKey).
    pub fn decode_key(&self, key: &Key) -> Result<K> {
        rows::decode_key(key)
    }

    fn get_by(&self, key: &K::Ref<'_>) -> Result<Option<V>>
    where
        V: DeserializeOwned,
    {
        let decode = |entry: crate::entry::Entry| value::decode(entry.key().len(), entry.value());
        self.find(key)?.map(decode).transpose()
    }

    fn find(&self, key: &K::Ref<'_>) -> Result<Option<crate::entry::Entry>> {
        let found = self.named(key, |name| self.place.source().find(name));
        self.confirm(found.is_some()).map(|()| found)
    }

    fn within(&self, bounds: (KeyBound, KeyBound)) -> Rows<K, V> {
        let entries = self.place.source().scan(Some(self.row.id), bounds);
        Rows::new(entries, self.place.confirm(&self.row).err())
    }

    /// Checks that the table is there, unless `is_seen` is true because a read has found a key of
    /// it. So a read that finds its key costs no second one.
    fn confirm(&self, is_seen: bool) -> Result<()> {
        if is_seen { Ok(()) } else { self.place.confirm(&self.row) }
    }
}

impl<K: TableKey, V, P> Table<K, V, P> {
    /// Calls `act` with the name of the entry of `key`.
    fn named<R>(&self, key: &K::Ref<'_>, act: impl FnOnce(Name<'_>) -> R) -> R {
        // The buffer is taken out while it is used, so `act` may encode another key.
        let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
        K::encode_last(key, &mut buffer);
        let answer = act(Name { table: Some(self.row.id), key: &buffer });
        buffer.clear();
        if buffer.capacity() <= BUFFER_LEN_MAX {
            let _ = BUFFER.try_with(|kept| kept.set(buffer));
        }
        answer
    }
}

/// Returns the bounds of the encodings of the keys in `range`.
fn bounds_of<'a, K: TableKey>(range: &impl RangeBounds<K::Ref<'a>>) -> (KeyBound, KeyBound) {
    let encoded = |key: &K::Ref<'a>| {
        let mut bytes = Vec::new();
        K::encode_last(key, &mut bytes);
        bytes.into_boxed_slice()
    };
    (range.start_bound().map(encoded), range.end_bound().map(encoded))
}

/// Returns the encoding of `prefix`.
fn encoded<K>(prefix: &impl TablePrefix<K>) -> Vec<u8> {
    let mut bytes = Vec::new();
    prefix.encode_prefix(&mut bytes);
    bytes
}

impl<K, V, P: Clone> Clone for Table<K, V, P> {
    fn clone(&self) -> Self {
        Self::new(self.place.clone(), Arc::clone(&self.row), self.indexes.clone())
    }
}

impl<K: TableKey, V: DeserializeOwned> IntoIterator for &Table<K, V> {
    type Item = Result<(K, V)>;
    type IntoIter = Rows<K, V>;

    fn into_iter(self) -> Rows<K, V> {
        self.iter()
    }
}

/// Shows the types of the keys and values, and no content.
impl<K, V, P> fmt::Debug for Table<K, V, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table<{}, {}>", type_name::<K>(), type_name::<V>())
    }
}

codex_storage::sync::thread_local! {
    /// The buffer of the last key of a table that this thread encoded.
    #[allow(clippy::missing_const_for_thread_local, reason = "loom's macro takes no const")]
    static BUFFER: Cell<Vec<u8>> = Cell::new(Vec::new());
}

/// The maximum capacity of a buffer that a thread keeps, in bytes.
const BUFFER_LEN_MAX: usize = 4096;

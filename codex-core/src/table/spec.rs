//! Declarations of tables with indexes, and the entries of the indexes that a row has.

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use codex_storage::Error as StorageError;
use serde::de::DeserializeOwned;

use super::Table;
use super::key::TableKey;
use super::record::{IndexRow, Row, Shape};
use crate::commit::Change;
use crate::entry::{Entry, Name};
use crate::error::{Error, Result};
use crate::rank;
use crate::read::sealed::Source;
use crate::store::Store;
use crate::value::{self, RAW};

/// The declaration of a table with indexes.
///
/// An index finds rows by something other than their keys: by a *function* of the value, which
/// gives the keys of the index. It gives none, one or several for each row. The store keeps the
/// entries of an index, and changes them in the commit that changes the row, so that no reader and
/// no crash sees one without the other. [`Table::index`] reads it.
///
/// ```
/// use codex_core::{Error, Store, TableSpec};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct User {
///     email: String,
///     tags: Vec<String>,
/// }
///
/// let store = Store::in_memory()?;
/// let users = TableSpec::<u64, User>::new("users")
///     .unique::<String>("by_email", |user, keys| keys.add(&user.email))
///     .index::<String>("by_tag", |user, keys| user.tags.iter().for_each(|tag| keys.add(tag)))
///     .open(&store)?;
///
/// let ada = User { email: "ada@example.org".into(), tags: vec!["admin".into()] };
/// users.set(7, &ada)?;
/// let taken = users.set(8, &ada);
/// assert!(matches!(taken, Err(Error::NotUnique { .. })));
///
/// let (id, _) = users.index::<String>("by_email")?.get("ada@example.org")?.expect("it was set");
/// assert_eq!(id, 7);
/// assert_eq!(users.index::<String>("by_tag")?.get_all("admin").count(), 1);
/// # Ok::<(), Error>(())
/// ```
///
/// # The declarations are those of the store
/// The names, kinds of keys and uniqueness of the indexes are stored. Every program that writes the
/// table must declare all of them, because a write without one would make it incomplete:
/// [`Error::IndexMismatch`] otherwise. [`open`](Self::open) builds an index that the store does not
/// have yet. [`Store::drop_index`] removes one that no program declares any more.
///
/// The functions are not stored. A function must return the same keys for the same value each time.
/// To change a function, declare the index under another name, and drop the old one.
/// [`Table::verify_indexes`] compares the entries of the indexes with the functions.
#[must_use = "a declaration does nothing until it is opened"]
pub struct TableSpec<K, V> {
    name: String,
    declared: Vec<Declared<V>>,
    of: PhantomData<fn(K) -> V>,
}

/// The keys of an index that one row has, which the function of the index adds.
pub struct IndexKeys<'a, IK> {
    encoded: &'a mut Vec<Vec<u8>>,
    of: PhantomData<fn(IK)>,
}

/// An index with its function.
struct Declared<V> {
    shape: Shape,
    /// Appends the encodings of the keys of a value.
    keys_of: Arc<KeysOf<V>>,
}

type KeysOf<V> = dyn Fn(&V, &mut Vec<Vec<u8>>) + Send + Sync;

/// The indexes that a handle of a table declares, in the order of their names.
pub(super) struct Indexes<V> {
    declared: Vec<Declared<V>>,
    /// Decodes the value of a row.
    decode: fn(&Entry) -> Result<V>,
}

impl<K: TableKey, V: DeserializeOwned + 'static> TableSpec<K, V> {
    /// Returns the declaration of the table `name`, without an index. A name has 1 to 255 bytes,
    /// none of them 0.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), declared: Vec::new(), of: PhantomData }
    }

    /// Declares the index `name` with keys of the type `IK`, which `keys_of` adds for a value:
    /// none, one or several. Several rows may have the same key.
    ///
    /// `keys_of` runs outside all locks, in the thread that writes, and again if other writers
    /// change the row meanwhile. A panic in it writes nothing.
    ///
    /// ```
    /// # use codex_core::{Store, TableSpec};
    /// let store = Store::in_memory()?;
    /// // Name and year of birth. Those of whom the year is not known are not in the index.
    /// let people = TableSpec::<u64, (String, Option<u16>)>::new("people")
    ///     .index::<u16>("by_year", |(_, year), keys| year.iter().for_each(|y| keys.add(*y)))
    ///     .open(&store)?;
    /// people.set(1, &("Ada".into(), Some(1815)))?;
    /// people.set(2, &("Eve".into(), None))?;
    /// assert_eq!(people.index::<u16>("by_year")?.range(..1900).count(), 1);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    #[doc(alias = "secondary_index")]
    pub fn index<IK: TableKey>(
        self,
        name: &str,
        keys_of: impl Fn(&V, &mut IndexKeys<'_, IK>) + Send + Sync + 'static,
    ) -> Self {
        self.declare(name, false, keys_of)
    }

    /// Declares the index `name`, of which each key has at most one row. A write that would give a
    /// key a second row is refused with [`Error::NotUnique`]. Otherwise as [`index`](Self::index).
    ///
    /// In a transaction, the rows are compared at each write. To exchange the keys of two rows,
    /// remove one of them first.
    ///
    /// ```
    /// # use codex_core::{Error, Store, TableSpec};
    /// let store = Store::in_memory()?;
    /// let rooms = TableSpec::<u64, String>::new("rooms")
    ///     .unique::<String>("by_name", |name, keys| keys.add(name))
    ///     .open(&store)?;
    /// rooms.set(1, &"Blue".into())?;
    /// assert!(matches!(rooms.set(2, &"Blue".into()), Err(Error::NotUnique { .. })));
    /// # Ok::<(), Error>(())
    /// ```
    #[doc(alias = "unique_index")]
    pub fn unique<IK: TableKey>(
        self,
        name: &str,
        keys_of: impl Fn(&V, &mut IndexKeys<'_, IK>) + Send + Sync + 'static,
    ) -> Self {
        self.declare(name, true, keys_of)
    }

    /// Opens the table in `store`, which is created if there is none, as [`Store::table`] does, and
    /// builds the indexes that it does not have yet.
    ///
    /// An index is built in steps of 1,024 rows, each of them a commit, while other writers
    /// continue. After a crash, the next call continues with the rows that have no entry yet. Until
    /// it is complete, only handles that declare the index can write the table.
    ///
    /// # Errors
    /// The errors of [`Store::table`]. [`Error::IndexMismatch`] if the table has an index that is
    /// not declared, or declared otherwise. [`Error::NotUnique`] or [`Error::Decode`] if a new
    /// index cannot be built. It is dropped then.
    pub fn open(self, store: &Store) -> Result<Table<K, V>> {
        let mut table = self.open_unbuilt(store)?;
        if let Some(indexes) = &table.indexes {
            table.row = indexes.build(store, table.row)?;
        }
        Ok(table)
    }

    /// Opens the table, whose new indexes are not complete.
    pub(crate) fn open_unbuilt(self, store: &Store) -> Result<Table<K, V>> {
        let Self { name, mut declared, .. } = self;
        declared.sort_by(|a, b| a.shape.name.cmp(&b.shape.name));
        if declared.windows(2).any(|two| matches!(two, [a, b] if a.shape.name == b.shape.name)) {
            return Err(StorageError::Contradiction(TWICE).into());
        }
        let shapes: Vec<_> = declared.iter().map(|index| &index.shape).collect();
        let row = store.open_row(&name, &K::kind(), type_name::<V>(), &shapes)?;
        let decode = |entry: &Entry| value::decode(entry.key().len(), entry.value());
        let indexes = (!declared.is_empty()).then(|| Arc::new(Indexes { declared, decode }));
        Ok(Table::new(store.clone(), row, indexes))
    }

    fn declare<IK: TableKey>(
        mut self,
        name: &str,
        is_unique: bool,
        keys_of: impl Fn(&V, &mut IndexKeys<'_, IK>) + Send + Sync + 'static,
    ) -> Self {
        let shape = Shape { name: name.into(), keys: IK::kind(), is_unique };
        let keys_of = Arc::new(move |value: &V, encoded: &mut Vec<Vec<u8>>| {
            keys_of(value, &mut IndexKeys { encoded, of: PhantomData });
        });
        self.declared.push(Declared { shape, keys_of });
        self
    }
}

impl<IK: TableKey> IndexKeys<'_, IK> {
    /// Adds a key of the row. A key that was already added is not added twice.
    pub fn add(&mut self, key: IK::Ref<'_>) {
        let mut encoded = Vec::with_capacity(KEY_LEN);
        IK::encode(&key, &mut encoded);
        self.encoded.push(encoded);
    }
}

impl<V> Indexes<V> {
    pub(super) fn shapes(&self) -> impl Iterator<Item = &Shape> + Clone {
        self.declared.iter().map(|index| &index.shape)
    }

    /// Returns the row of the table of `row` in the later state `source`. Its indexes are these.
    pub(super) fn current(&self, row: &Arc<Row>, source: &impl Source) -> Result<Arc<Row>> {
        let now = row.later(source)?;
        now.check_indexes(self.shapes()).map(|()| now)
    }

    /// Returns the changes of the indexes of `row` that belong to the change of a row of the table
    /// from `old` to `new`, two entries of the same key or none. `find` reads entries of indexes,
    /// and makes what it returns a condition of the commit.
    ///
    /// Calls code of the user.
    ///
    /// # Errors
    /// `NotUnique`, `Decode`, or the error of a key that is too long.
    pub(super) fn changes(
        &self,
        row: &Row,
        (old, new): (Option<&Entry>, Option<&Entry>),
        mut find: impl FnMut(Name<'_>) -> Option<Entry>,
    ) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        let is_equal = |old: &Entry| {
            let expires = |entry: &Entry| entry.expires_us();
            new.is_some_and(|new| old.value() == new.value() && expires(old) == expires(new))
        };
        let is_complete = row.indexes.iter().all(|index| !index.is_building);
        if is_complete && old.is_some_and(is_equal) {
            return Ok(changes);
        }
        rank::leave_memory("the function of an index");
        // The keys are those of the stored bytes, not of the value from which they were encoded:
        // the old keys of the next write are those of these bytes too.
        let was = old.map(self.decode).transpose()?;
        let is = new.map(self.decode).transpose()?;
        for (index, declared) in row.indexes.iter().zip(&self.declared) {
            let old = old.zip(was.as_ref()).map(|(row, value)| declared.keys(index, row, value));
            let new = new.zip(is.as_ref()).map(|(row, value)| declared.keys(index, row, value));
            let change = OfIndex { index, old, new };
            if change.make(&mut find, &mut changes).is_err() {
                let (table, index) = (row.name(), index.shape.name.clone());
                return Err(Error::NotUnique { table, index });
            }
        }
        Ok(changes)
    }

    /// Calls `act` with each index of `row`, and the keys in it that the row `entry` has.
    pub(super) fn each_of<'r>(
        &self,
        row: &'r Row,
        entry: &Entry,
        mut act: impl FnMut(&'r IndexRow, Keys<'_>),
    ) -> Result<()> {
        rank::leave_memory("the function of an index");
        let value = (self.decode)(entry)?;
        for (index, declared) in row.indexes.iter().zip(&self.declared) {
            act(index, declared.keys(index, entry, &value));
        }
        Ok(())
    }
}

impl<V> Declared<V> {
    /// Returns the keys in `index` that the row `entry` with the value `value` has.
    fn keys<'e>(&self, index: &IndexRow, entry: &'e Entry, value: &V) -> Keys<'e> {
        let mut keys = Vec::new();
        (self.keys_of)(value, &mut keys);
        keys.sort_unstable();
        keys.dedup();
        if !index.shape.is_unique {
            for key in &mut keys {
                key.extend_from_slice(entry.key());
            }
        }
        Keys { keys, row: entry }
    }
}

/// The keys in an index that a row has.
pub(super) struct Keys<'e> {
    /// The keys of the entries, in their order.
    keys: Vec<Vec<u8>>,
    row: &'e Entry,
}

/// The change of an index that belongs to the change of a row.
struct OfIndex<'r, 'e> {
    index: &'r IndexRow,
    old: Option<Keys<'e>>,
    new: Option<Keys<'e>>,
}

/// Another row has the key of a unique index.
struct NotUnique;

impl Keys<'_> {
    /// Returns the entries of `index` that the row must have. They expire when it does.
    pub(super) fn entries(&self, index: &IndexRow) -> impl Iterator<Item = Entry> {
        self.keys.iter().map(|key| self.entry(index, key))
    }

    fn entry(&self, index: &IndexRow, key: &[u8]) -> Entry {
        let owner = if index.shape.is_unique { self.row.key() } else { &[] };
        let entry = Entry::from_parts(Name { table: Some(index.id), key }, RAW, owner);
        match self.row.expires_us() {
            None => entry,
            expires => entry.with_expiry(expires),
        }
    }
}

impl OfIndex<'_, '_> {
    /// Appends the changes. `find` is that of [`Indexes::changes`].
    fn make(
        &self,
        find: &mut impl FnMut(Name<'_>) -> Option<Entry>,
        changes: &mut Vec<Change>,
    ) -> Result<(), NotUnique> {
        let index = self.index;
        let table = Some(index.id);
        let keys = |of| Option::map_or(of, &[][..], |of: &Keys<'_>| &of.keys);
        let (old, new) = (keys(self.old.as_ref()), keys(self.new.as_ref()));
        for key in old.iter().filter(|key| !new.contains(key)) {
            // While the index is built, the entry of the key may be that of another row.
            let is_of_row = |now: Entry| {
                self.old.as_ref().is_some_and(|old| value::payload(now.value()) == old.row.key())
            };
            let name = Name { table, key };
            let is_sure = !(index.is_building && index.shape.is_unique);
            if is_sure || find(name).is_some_and(is_of_row) {
                changes.push(Change::Remove(name.into()));
            }
        }
        let Some(row) = &self.new else { return Ok(()) };
        let expires = |of: &Keys<'_>| of.row.expires_us();
        let is_kept = self.old.as_ref().is_some_and(|old| expires(old) == expires(row));
        for key in new {
            if is_kept && !index.is_building && old.contains(key) {
                continue;
            }
            let entry = row.entry(index, key);
            let is_read = index.is_building || index.shape.is_unique;
            match is_read.then(|| find(entry.name())).flatten() {
                Some(now) if now.value() != entry.value() => return Err(NotUnique),
                Some(now) if now.expires_us() == entry.expires_us() => {}
                _ => changes.push(Change::Put(entry)),
            }
        }
        Ok(())
    }
}

/// Shows the names, and no content.
impl<K, V> fmt::Debug for TableSpec<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes = self.declared.iter().map(|index| &index.shape);
        f.debug_struct("TableSpec")
            .field("name", &self.name)
            .field("indexes", &shapes.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Shows no keys, because programs write `Debug` output to logs.
impl<IK> fmt::Debug for IndexKeys<'_, IK> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IndexKeys({})", self.encoded.len())
    }
}

/// The length of most keys of an index with the key of a row after them, in bytes.
const KEY_LEN: usize = 32;
const TWICE: &str = "two indexes of a table have the same name";

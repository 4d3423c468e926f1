//! The methods for reading, which a store and a snapshot share.

use std::time::SystemTime;

use serde::de::DeserializeOwned;

use crate::cursor::{Entry, Iter, Keys, Values};
use crate::entry::Name;
use crate::error::Result;
use crate::expiry::expiry_of;
use crate::range::{KeyRange, Prefix};
use crate::value::ValueRef;

/// The methods for reading, for code that accepts a [`Store`](crate::Store) or a
/// [`Snapshot`](crate::Snapshot).
///
/// Both types have these methods without the trait too. No type of another crate can implement it,
/// so that methods can be added.
///
/// ```
/// use codex_core::{Readable, Store};
///
/// fn total(source: &impl Readable) -> codex_core::Result<u64> {
///     source.prefix("visits:").map(|entry| entry.value::<u64>()).sum()
/// }
///
/// let store = Store::in_memory()?;
/// store.set("visits:home", &3_u64)?;
/// let before = store.snapshot();
/// store.set("visits:about", &4_u64)?;
/// assert_eq!((total(&store)?, total(&before)?), (7, 3));
/// # Ok::<(), codex_core::Error>(())
/// ```
pub trait Readable: sealed::Source {
    /// Returns a handle to the bytes of the value of `key`, or `None` if it has none. Copies no
    /// bytes.
    fn get_bytes(&self, key: impl AsRef<[u8]>) -> Option<ValueRef> {
        self.find(Name::plain(key.as_ref())).map(ValueRef::new)
    }

    /// Returns the time at which the value of `key` expires, or `None` if it has no value or its
    /// value does not expire.
    fn expires_at(&self, key: impl AsRef<[u8]>) -> Option<SystemTime> {
        self.find(Name::plain(key.as_ref())).as_ref().and_then(expiry_of)
    }

    /// Returns the number of keys.
    fn len(&self) -> usize {
        self.count(None)
    }

    /// Returns the entries whose keys lie in `range`, in ascending order. Empty if the ends of the
    /// range cross.
    fn range(&self, range: impl KeyRange) -> Iter {
        self.scan(None, range.into_bounds())
    }

    /// Returns the entries whose keys begin with `prefix`, in ascending order.
    fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        self.range(Prefix(prefix))
    }

    /// Returns the decoded value of `key`, or `None` if it has none.
    ///
    /// # Errors
    /// The errors of [`ValueRef::decode`].
    fn get<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        self.get_bytes(key).map(|value| value.decode()).transpose()
    }

    /// Returns true if `key` has a value.
    fn contains_key(&self, key: impl AsRef<[u8]>) -> bool {
        self.has(Name::plain(key.as_ref()))
    }

    /// Returns true if there are no keys.
    fn is_empty(&self) -> bool {
        self.has_none(None)
    }

    /// Returns the entry with the smallest key in `range`, or `None` if the range has none.
    fn first(&self, range: impl KeyRange) -> Option<Entry> {
        self.range(range).next()
    }

    /// Returns the entry with the largest key in `range`, or `None` if the range has none.
    fn last(&self, range: impl KeyRange) -> Option<Entry> {
        self.range(range).next_back()
    }

    /// Returns all entries, in ascending order of the keys.
    fn iter(&self) -> Iter {
        self.range(..)
    }

    /// Returns all keys, in ascending order.
    fn keys(&self) -> Keys {
        self.iter().keys()
    }

    /// Returns all values, decoded, in ascending order of the keys.
    fn values<T: DeserializeOwned>(&self) -> Values<T> {
        self.iter().values()
    }
}

pub(crate) mod sealed {
    use codex_storage::batch::TableId;

    use crate::cursor::Iter;
    use crate::entry::{Entry, Name};
    use crate::range::KeyBound;

    /// The reads on which all others rest, of the keys of a table or of those outside tables. Other
    /// crates cannot name the trait, so that they cannot implement [`Readable`](super::Readable).
    pub trait Source {
        /// Returns the entry of `name`, unless it has expired.
        fn find(&self, name: Name<'_>) -> Option<Entry>;
        /// Returns the entries within the bounds that have not expired.
        fn scan(&self, table: Option<TableId>, bounds: (KeyBound, KeyBound)) -> Iter;
        /// Returns the number of entries that have not expired.
        fn count(&self, table: Option<TableId>) -> usize;

        /// Returns true if there is an entry of `name` that has not expired.
        fn has(&self, name: Name<'_>) -> bool {
            self.find(name).is_some()
        }

        /// Returns true if there is no entry that has not expired.
        fn has_none(&self, table: Option<TableId>) -> bool {
            self.count(table) == 0
        }
    }

    impl<S: Source> Source for &S {
        fn find(&self, name: Name<'_>) -> Option<Entry> {
            S::find(self, name)
        }

        fn scan(&self, table: Option<TableId>, bounds: (KeyBound, KeyBound)) -> Iter {
            S::scan(self, table, bounds)
        }

        fn count(&self, table: Option<TableId>) -> usize {
            S::count(self, table)
        }

        fn has(&self, name: Name<'_>) -> bool {
            S::has(self, name)
        }

        fn has_none(&self, table: Option<TableId>) -> bool {
            S::has_none(self, table)
        }
    }
}

/// Defines the methods of [`Readable`] as methods of the type, so that reading needs no import of
/// the trait.
macro_rules! inherent_reads {
    () => {
        /// Returns the decoded value of `key`, or `None` if it has none.
        ///
        /// ```
        /// # use codex_core::Store;
        /// let store = Store::in_memory()?;
        /// store.set("visits", &3_u64)?;
        /// let visits: Option<u64> = store.get("visits")?;
        /// assert_eq!(visits, Some(3));
        /// assert_eq!(store.get::<u64>("unknown")?.unwrap_or(0), 0);
        /// # Ok::<(), codex_core::Error>(())
        /// ```
        ///
        /// # Errors
        /// [`Error::Decode`](crate::Error::Decode), [`Error::RawValue`](crate::Error::RawValue) or
        /// [`Error::UnknownCodec`](crate::Error::UnknownCodec) if the stored value is not a `T`.
        pub fn get<T: serde::de::DeserializeOwned>(
            &self,
            key: impl AsRef<[u8]>,
        ) -> $crate::Result<Option<T>> {
            $crate::Readable::get(self, key)
        }

        /// Returns a handle to the bytes of the value of `key`, or `None` if it has none. Copies no
        /// bytes.
        ///
        /// ```
        /// # use codex_core::Store;
        /// let store = Store::in_memory()?;
        /// store.set_bytes("icon", [0x89, b'P'])?;
        /// let icon = store.get_bytes("icon").expect("it was set");
        /// assert_eq!(&icon[..], [0x89, b'P']);
        /// # Ok::<(), codex_core::Error>(())
        /// ```
        #[doc(alias = "get_raw")]
        pub fn get_bytes(&self, key: impl AsRef<[u8]>) -> Option<$crate::ValueRef> {
            $crate::Readable::get_bytes(self, key)
        }

        /// Returns true if `key` has a value.
        ///
        /// ```
        /// # use codex_core::Store;
        /// let store = Store::in_memory()?;
        /// store.set("a", &1)?;
        /// assert!(store.contains_key("a") && !store.contains_key("b"));
        /// # Ok::<(), codex_core::Error>(())
        /// ```
        #[doc(alias("contains", "exists"))]
        pub fn contains_key(&self, key: impl AsRef<[u8]>) -> bool {
            $crate::Readable::contains_key(self, key)
        }

        /// Returns the time at which the value of `key` expires, or `None` if it has no value or
        /// its value does not expire.
        ///
        /// ```
        /// # use codex_core::Store;
        /// # use std::time::{Duration, SystemTime};
        /// let store = Store::in_memory()?;
        /// let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
        /// store.set_with_expiry("session/7", "Ada", expires)?;
        /// assert_eq!(store.expires_at("session/7"), Some(expires));
        /// # Ok::<(), codex_core::Error>(())
        /// ```
        #[doc(alias("ttl", "expiretime"))]
        pub fn expires_at(&self, key: impl AsRef<[u8]>) -> Option<std::time::SystemTime> {
            $crate::Readable::expires_at(self, key)
        }

        /// Returns the number of keys.
        ///
        /// ```
        /// # use codex_core::Store;
        /// let store = Store::in_memory()?;
        /// store.set("user/1", "Ada")?;
        /// store.set("visits", &3_u64)?;
        /// assert_eq!(store.len(), 2);
        /// assert_eq!(store.prefix("user/").count(), 1);
        /// # Ok::<(), codex_core::Error>(())
        /// ```
        #[doc(alias("count", "size"))]
        pub fn len(&self) -> usize {
            $crate::Readable::len(self)
        }

        /// Returns true if there are no keys.
        pub fn is_empty(&self) -> bool {
            $crate::Readable::is_empty(self)
        }

        /// Returns all entries, in ascending order of the bytes of the keys.
        ///
        /// ```
        /// # use codex_core::Store;
        /// let store = Store::in_memory()?;
        /// store.set("b", &2)?;
        /// store.set("a", &1)?;
        /// let mut entries = store.iter();
        /// assert_eq!(entries.next().expect("there are two").key(), b"a");
        /// assert_eq!(entries.next_back().expect("there is one left").value::<i32>()?, 2);
        /// # Ok::<(), codex_core::Error>(())
        /// ```
        #[doc(alias("scan", "entries"))]
        pub fn iter(&self) -> $crate::Iter {
            $crate::Readable::iter(self)
        }

        /// Returns the entries whose keys lie in `range`, in ascending order. Empty if the ends of
        /// the range cross. [`KeyRange`](crate::KeyRange) has the forms of a range.
        ///
        /// ```
        /// # use codex_core::Store;
        /// let store = Store::in_memory()?;
        /// store.set("2026-01-31", &3)?;
        /// store.set("2026-02-01", &4)?;
        /// for entry in store.range("2026-01".."2026-02") {
        ///     assert_eq!(entry.value::<i32>()?, 3);
        /// }
        /// # Ok::<(), codex_core::Error>(())
        /// ```
        #[doc(alias = "scan")]
        pub fn range(&self, range: impl $crate::KeyRange) -> $crate::Iter {
            $crate::Readable::range(self, range)
        }

        /// Returns the entries whose keys begin with `prefix`, in ascending order.
        ///
        /// ```
        /// # use codex_core::Store;
        /// let store = Store::in_memory()?;
        /// store.set("note/1", "Locks")?;
        /// store.set("note/2", "Logs")?;
        /// let notes: Vec<String> = store.prefix("note/").values().collect::<Result<_, _>>()?;
        /// assert_eq!(notes, ["Locks", "Logs"]);
        /// # Ok::<(), codex_core::Error>(())
        /// ```
        #[doc(alias("scan_prefix", "scan"))]
        pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> $crate::Iter {
            $crate::Readable::prefix(self, prefix)
        }

        /// Returns the entry with the smallest key in `range`, or `None` if the range has none.
        /// `first(..)` is the first entry of all.
        ///
        /// ```
        /// # use codex_core::{Prefix, Store};
        /// let store = Store::in_memory()?;
        /// store.set("note/1", "Locks")?;
        /// store.set("user/1", "Ada")?;
        /// let first = store.first(..).expect("there are entries");
        /// assert_eq!(first.key(), b"note/1");
        /// assert!(store.first(Prefix("job/")).is_none());
        /// # Ok::<(), codex_core::Error>(())
        /// ```
        pub fn first(&self, range: impl $crate::KeyRange) -> Option<$crate::Entry> {
            $crate::Readable::first(self, range)
        }

        /// Returns the entry with the largest key in `range`, or `None` if the range has none.
        ///
        /// ```
        /// # use codex_core::{Prefix, Store};
        /// let store = Store::in_memory()?;
        /// store.set("event/0007", "started")?;
        /// store.set("event/0008", "stopped")?;
        /// let last = store.last(Prefix("event/")).expect("there are events");
        /// assert_eq!(last.value::<String>()?, "stopped");
        /// # Ok::<(), codex_core::Error>(())
        /// ```
        pub fn last(&self, range: impl $crate::KeyRange) -> Option<$crate::Entry> {
            $crate::Readable::last(self, range)
        }

        /// Returns all keys, in ascending order of their bytes. Those of a range are
        /// [`range(..).keys()`](crate::Iter::keys).
        ///
        /// ```
        /// # use codex_core::Store;
        /// let store = Store::in_memory()?;
        /// store.set("b", &2)?;
        /// store.set("a", &1)?;
        /// let keys: Vec<String> =
        ///     store.keys().map(|key| String::from_utf8_lossy(&key).into_owned()).collect();
        /// assert_eq!(keys, ["a", "b"]);
        /// # Ok::<(), codex_core::Error>(())
        /// ```
        pub fn keys(&self) -> $crate::Keys {
            $crate::Readable::keys(self)
        }

        /// Returns all values, decoded, in ascending order of their keys. Those of a range are
        /// [`range(..).values()`](crate::Iter::values).
        ///
        /// ```
        /// # use codex_core::Store;
        /// let store = Store::in_memory()?;
        /// store.set("home", &3_u64)?;
        /// store.set("about", &4_u64)?;
        /// let visits: Vec<u64> = store.values().collect::<Result<_, _>>()?;
        /// assert_eq!(visits, [4, 3]);
        /// # Ok::<(), codex_core::Error>(())
        /// ```
        pub fn values<T: serde::de::DeserializeOwned>(&self) -> $crate::Values<T> {
            $crate::Readable::values(self)
        }
    };
}
pub(crate) use inherent_reads;

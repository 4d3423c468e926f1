//! The methods for reading, which a store and a snapshot share.

use std::ops::RangeBounds;

use serde::de::DeserializeOwned;

use crate::cursor::{Iter, Keys};
use crate::error::Result;
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
pub trait Readable: sealed::Sealed {
    /// Returns a handle to the bytes of the value of `key`, or `None` if it has none. Copies no
    /// bytes.
    fn get_bytes(&self, key: impl AsRef<[u8]>) -> Option<ValueRef>;
    /// Returns the number of keys.
    fn len(&self) -> usize;
    /// Returns the entries whose keys lie in `range`, in ascending order. Empty if the ends of the
    /// range cross.
    fn range<K: AsRef<[u8]> + ?Sized>(&self, range: impl RangeBounds<K>) -> Iter;
    /// Returns the entries whose keys begin with `prefix`, in ascending order.
    fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter;

    /// Returns the decoded value of `key`, or `None` if it has none.
    ///
    /// # Errors
    /// The errors of [`ValueRef::decode`].
    fn get<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        self.get_bytes(key).map(|value| value.decode()).transpose()
    }

    /// Returns true if `key` has a value.
    fn contains_key(&self, key: impl AsRef<[u8]>) -> bool {
        self.get_bytes(key).is_some()
    }

    /// Returns true if there are no keys.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns all entries, in ascending order of the keys.
    fn iter(&self) -> Iter {
        self.prefix([])
    }

    /// Returns all keys, in ascending order.
    fn keys(&self) -> Keys {
        Keys::new(self.iter())
    }
}

pub(crate) mod sealed {
    /// A trait that other crates cannot name, so that they cannot implement
    /// [`Readable`](super::Readable).
    pub trait Sealed {}
}

/// Defines the methods of [`Readable`] as methods of the type, so that reading needs no import of
/// the trait.
macro_rules! inherent_reads {
    () => {
        /// Returns the decoded value of `key`, or `None` if it has none.
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
        pub fn get_bytes(&self, key: impl AsRef<[u8]>) -> Option<$crate::ValueRef> {
            $crate::Readable::get_bytes(self, key)
        }

        /// Returns true if `key` has a value.
        pub fn contains_key(&self, key: impl AsRef<[u8]>) -> bool {
            $crate::Readable::contains_key(self, key)
        }

        /// Returns the number of keys.
        pub fn len(&self) -> usize {
            $crate::Readable::len(self)
        }

        /// Returns true if there are no keys.
        pub fn is_empty(&self) -> bool {
            $crate::Readable::is_empty(self)
        }

        /// Returns all entries, in ascending order of the bytes of the keys.
        pub fn iter(&self) -> $crate::Iter {
            $crate::Readable::iter(self)
        }

        /// Returns the entries whose keys lie in `range`, in ascending order. Empty if the ends of
        /// the range cross. `range("a".."c")` and `range(first..=last)` work for any key type. A
        /// range without ends needs a type: `range::<str>(..)`.
        pub fn range<K: AsRef<[u8]> + ?Sized>(
            &self,
            range: impl std::ops::RangeBounds<K>,
        ) -> $crate::Iter {
            $crate::Readable::range(self, range)
        }

        /// Returns the entries whose keys begin with `prefix`, in ascending order.
        pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> $crate::Iter {
            $crate::Readable::prefix(self, prefix)
        }

        /// Returns all keys, in ascending order of their bytes.
        pub fn keys(&self) -> $crate::Keys {
            $crate::Readable::keys(self)
        }
    };
}
pub(crate) use inherent_reads;

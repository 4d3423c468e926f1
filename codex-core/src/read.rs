//! Reading, the same for a store and a snapshot of it.

use std::ops::RangeBounds;

use serde::de::DeserializeOwned;

use crate::cursor::{Iter, Keys};
use crate::error::Result;
use crate::value::ValueRef;

/// Reading, the same for a [`Store`](crate::Store) and a [`Snapshot`](crate::Snapshot): for code
/// that takes either. Both have these methods without the trait, too. Other types cannot implement
/// it, so that it may grow.
///
/// ```
/// use codex_core::{Read, Store};
///
/// fn total(source: &impl Read) -> codex_core::Result<u64> {
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
pub trait Read: sealed::Sealed {
    /// The value of `key`, as a handle to its bytes; `None` where there is none.
    fn get_bytes(&self, key: impl AsRef<[u8]>) -> Option<ValueRef>;
    /// How many keys there are.
    fn len(&self) -> usize;
    /// The entries whose keys lie in `range`, ascending.
    fn range<K: AsRef<[u8]> + ?Sized>(&self, range: impl RangeBounds<K>) -> Iter;
    /// The entries whose keys begin with `prefix`, ascending.
    fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter;

    /// The value of `key`, decoded; `None` where there is none.
    ///
    /// # Errors
    /// As [`ValueRef::decode`].
    fn get<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        self.get_bytes(key).map(|value| value.decode()).transpose()
    }

    /// Whether there is a value for `key`.
    fn contains_key(&self, key: impl AsRef<[u8]>) -> bool {
        self.get_bytes(key).is_some()
    }

    /// Whether there is no key.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, keys ascending.
    fn iter(&self) -> Iter {
        self.prefix([])
    }

    /// All keys, ascending.
    fn keys(&self) -> Keys {
        Keys::new(self.iter())
    }
}

pub(crate) mod sealed {
    /// Kept from other crates.
    pub trait Sealed {}
}

/// The methods of [`Read`] as the type's own, so that reading needs no import of a trait.
macro_rules! inherent_reads {
    () => {
        /// The value of `key`, decoded; `None` where there is none.
        ///
        /// # Errors
        /// [`Error::Decode`](crate::Error::Decode), [`Error::RawValue`](crate::Error::RawValue)
        /// or [`Error::UnknownCodec`](crate::Error::UnknownCodec) when what was stored is not a
        /// `T`.
        pub fn get<T: serde::de::DeserializeOwned>(
            &self,
            key: impl AsRef<[u8]>,
        ) -> $crate::Result<Option<T>> {
            $crate::Read::get(self, key)
        }

        /// The value of `key`, as a handle to its bytes; `None` where there is none. Nothing is
        /// copied.
        pub fn get_bytes(&self, key: impl AsRef<[u8]>) -> Option<$crate::ValueRef> {
            $crate::Read::get_bytes(self, key)
        }

        /// Whether there is a value for `key`.
        pub fn contains_key(&self, key: impl AsRef<[u8]>) -> bool {
            $crate::Read::contains_key(self, key)
        }

        /// How many keys there are.
        pub fn len(&self) -> usize {
            $crate::Read::len(self)
        }

        /// Whether there is no key.
        pub fn is_empty(&self) -> bool {
            $crate::Read::is_empty(self)
        }

        /// All entries, keys ascending by their bytes.
        pub fn iter(&self) -> $crate::Iter {
            $crate::Read::iter(self)
        }

        /// The entries whose keys lie in `range`, ascending; none where its ends cross.
        /// `range("a".."c")` and `range(first..=last)` work for any key type; for an open range
        /// name it: `range::<str>(..)`.
        pub fn range<K: AsRef<[u8]> + ?Sized>(
            &self,
            range: impl std::ops::RangeBounds<K>,
        ) -> $crate::Iter {
            $crate::Read::range(self, range)
        }

        /// The entries whose keys begin with `prefix`, ascending.
        pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> $crate::Iter {
            $crate::Read::prefix(self, prefix)
        }

        /// All keys, ascending by their bytes.
        pub fn keys(&self) -> $crate::Keys {
            $crate::Read::keys(self)
        }
    };
}
pub(crate) use inherent_reads;

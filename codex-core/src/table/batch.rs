//! Writes to tables in a batch.

use std::ops::RangeBounds;
use std::time::SystemTime;

use serde::Serialize;

use super::key::TableKey;
use super::prefix::TablePrefix;
use super::{Table, bounds_of, encoded};
use crate::batch::Batch;
use crate::commit::Change;
use crate::error::Result;
use crate::range::{self, KeyBound, prefix_bounds};

impl<K: TableKey, V> Table<K, V, &mut Batch> {
    /// Adds a change that sets the value of `key` to `value`.
    ///
    /// # Errors
    /// The errors of [`Batch::set`].
    #[doc(alias("insert", "put", "upsert"))]
    pub fn set(&mut self, key: K::Ref<'_>, value: &V) -> Result<()>
    where
        V: Serialize,
    {
        let put = self.named(&key, |name| self.place.store().setting(name, value));
        self.place.push(put).map(drop)
    }

    /// Adds a change that sets the value of `key` to `value` until `expires`.
    ///
    /// # Errors
    /// The errors of [`Batch::set`].
    pub fn set_with_expiry(&mut self, key: K::Ref<'_>, value: &V, expires: SystemTime) -> Result<()>
    where
        V: Serialize,
    {
        let put = self.named(&key, |name| self.place.store().setting(name, value));
        let put = put.and_then(|put| self.place.store().expiring(put, expires));
        self.place.push(put).map(drop)
    }

    /// Adds a change that removes `key`.
    ///
    /// # Errors
    /// The errors of [`Batch::remove`].
    #[doc(alias("delete", "del", "erase"))]
    pub fn remove(&mut self, key: K::Ref<'_>) -> Result<()> {
        let removal = self.named(&key, |name| self.place.store().removal(name));
        self.place.push(removal).map(drop)
    }

    /// Adds a change that removes all keys in `range`.
    ///
    /// # Errors
    /// The errors of [`Batch::remove_range`].
    pub fn remove_range<'a>(&mut self, range: impl RangeBounds<K::Ref<'a>>) -> Result<()> {
        self.remove_within(bounds_of::<K>(&range))
    }

    /// Adds a change that removes all keys that begin with `prefix`.
    ///
    /// # Errors
    /// The errors of [`Batch::remove_range`].
    pub fn remove_prefix(&mut self, prefix: impl TablePrefix<K>) -> Result<()> {
        self.remove_within(prefix_bounds(&encoded(&prefix)))
    }

    fn remove_within(&mut self, (lower, upper): (KeyBound, KeyBound)) -> Result<()> {
        if range::bounds(&lower, &upper).is_none() {
            return Ok(());
        }
        let removal = Change::RemoveRange(Some(self.row.id), lower, upper);
        self.place.push(Ok(removal)).map(drop)
    }

    /// Adds a change that removes all keys of the table, including those that were set earlier in
    /// this batch.
    ///
    /// # Errors
    /// [Too large](crate::Error::is_too_large) if the batch exceeds 256 MiB.
    #[doc(alias("truncate", "delete_all"))]
    pub fn clear(&mut self) -> Result<()> {
        self.place.push(Ok(Change::Clear(Some(self.row.id)))).map(drop)
    }
}

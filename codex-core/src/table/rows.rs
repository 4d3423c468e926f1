//! Iteration over the rows of a table.

use std::iter::FusedIterator;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use super::key::TableKey;
use crate::cursor::{Entry, Iter};
use crate::error::{Error, Result};

/// An iterator over the keys and values of a [`Table`](crate::Table) in the order of the keys, from
/// either end.
///
/// It owns its view: it borrows nothing and can be sent to another thread. No later write changes
/// it. An item is an error if its key or value does not decode. The items after it can still be
/// read.
#[derive(Debug, Clone)]
#[must_use = "an iterator does nothing until it is advanced"]
pub struct Rows<K, V> {
    entries: Iter,
    /// The error that comes before all items.
    error: Option<Error>,
    of: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Rows<K, V> {
    pub(super) fn new(entries: Iter, error: Option<Error>) -> Self {
        Self { entries, error, of: PhantomData }
    }
}

impl<K: TableKey, V: DeserializeOwned> Iterator for Rows<K, V> {
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.error.take() {
            Some(error) => Some(Err(error)),
            None => self.entries.next().map(|entry| decode(&entry)),
        }
    }
}

impl<K: TableKey, V: DeserializeOwned> DoubleEndedIterator for Rows<K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self.error.take() {
            Some(error) => Some(Err(error)),
            None => self.entries.next_back().map(|entry| decode(&entry)),
        }
    }
}

impl<K: TableKey, V: DeserializeOwned> FusedIterator for Rows<K, V> {}

/// Returns the key and the value of `entry`.
pub(super) fn decode<K: TableKey, V: DeserializeOwned>(entry: &Entry) -> Result<(K, V)> {
    Ok((decode_key(entry.key())?, entry.value()?))
}

/// Returns the key of which `bytes` are the encoding.
pub(super) fn decode_key<K: TableKey>(bytes: &[u8]) -> Result<K> {
    K::decode_last(bytes).map_err(|why| {
        let (type_name, key_len) = (std::any::type_name::<K>(), bytes.len());
        Error::DecodeKey { type_name, key_len, why }
    })
}

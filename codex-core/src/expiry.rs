//! Entries that expire: their times, and the methods that set them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::batch::Batch;
use crate::commit::{Change, Commit};
use crate::entry::{Entry, Name};
use crate::error::Result;
use crate::store::Store;
use crate::tasks::{AsyncStore, Submitted};
use crate::transaction::Transaction;
use crate::update::Decision;

impl Store {
    /// Sets the value of `key` to `value`, which expires at the time `expires`.
    ///
    /// From that microsecond on every read, condition and count treats the key as if it had no
    /// value. A background thread removes the entry later, with an ordinary commit. A time that has
    /// passed is allowed: then no read shows the value. The time is rounded down to the microsecond
    /// and kept with the entry, through reopening, backups and conversions. Each whole write sets
    /// its own expiry or none, so a later [`set`](Store::set) keeps the value for ever;
    /// [`update`](Store::update) keeps the expiry.
    ///
    /// The time is compared with the clock of the system. While that goes back by up to an hour, an
    /// entry that has expired stays hidden.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # use std::time::{Duration, SystemTime};
    /// let store = Store::in_memory()?;
    /// let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    /// store.set_with_expiry("session/7", "Ada", in_an_hour)?;
    /// assert_eq!(store.get::<String>("session/7")?.as_deref(), Some("Ada"));
    ///
    /// let a_second_ago = SystemTime::now() - Duration::from_secs(1);
    /// store.set_with_expiry("session/7", "Ada", a_second_ago)?;
    /// assert!(!store.contains_key("session/7"));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set`](Store::set).
    #[doc(alias("ttl", "insert_with_ttl", "setex", "expire"))]
    pub fn set_with_expiry<T>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        expires: SystemTime,
    ) -> Result<()>
    where
        T: Serialize + ?Sized,
    {
        let put = self.setting(key.as_ref(), value);
        self.commit_expiring(put, expires)
    }

    /// Sets the value of `key` to the bytes `value`, which expire at the time `expires`, as in
    /// [`set_with_expiry`](Store::set_with_expiry).
    ///
    /// ```
    /// # use codex_core::Store;
    /// # use std::time::{Duration, SystemTime};
    /// let store = Store::in_memory()?;
    /// let tomorrow = SystemTime::now() + Duration::from_secs(24 * 3600);
    /// store.set_bytes_with_expiry("page/home", "<html>", tomorrow)?;
    /// assert_eq!(store.get_bytes("page/home").as_deref(), Some(&b"<html>"[..]));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set_bytes`](Store::set_bytes).
    pub fn set_bytes_with_expiry(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        expires: SystemTime,
    ) -> Result<()> {
        let put = self.put_bytes(key.as_ref(), value.as_ref());
        self.commit_expiring(put, expires)
    }

    /// Makes the value of `key` expire at the time `expires`, and returns true if the key has a
    /// value. The value is written again, unchanged.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # use std::time::{Duration, SystemTime};
    /// let store = Store::in_memory()?;
    /// store.set("session/7", "Ada")?;
    /// let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    /// assert!(store.expire_at("session/7", expires)?);
    /// assert_eq!(store.expires_at("session/7"), Some(expires));
    /// assert!(!store.expire_at("session/8", expires)?);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set`](Store::set), except `Encode`; [`Error::Contended`] if other writers
    /// changed the key during each of 1,000 attempts.
    ///
    /// [`Error::Contended`]: crate::Error::Contended
    #[doc(alias("expire", "expireat", "touch"))]
    pub fn expire_at(&self, key: impl AsRef<[u8]>, expires: SystemTime) -> Result<bool> {
        self.replace_entry(Name::plain(key.as_ref()), expiring(Some(expires)))
    }

    /// Makes the value of `key` stay until it is removed, and returns true if the key has a value.
    /// If the value does not expire, nothing is written.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # use std::time::{Duration, SystemTime};
    /// let store = Store::in_memory()?;
    /// let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    /// store.set_with_expiry("draft", "text", in_an_hour)?;
    /// assert!(store.remove_expiry("draft")?);
    /// assert_eq!(store.expires_at("draft"), None);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`expire_at`](Store::expire_at).
    #[doc(alias("persist", "keep"))]
    pub fn remove_expiry(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.replace_entry(Name::plain(key.as_ref()), expiring(None))
    }

    /// Commits `put` with the expiry `expires`.
    fn commit_expiring(&self, put: Result<Change>, expires: SystemTime) -> Result<()> {
        let put = self.expiring(put?, expires)?;
        self.inner.commit(Commit::one(put)).map(|_| ())
    }

    /// Returns `put` with the expiry `expires`.
    pub(crate) fn expiring(&self, put: Change, expires: SystemTime) -> Result<Change> {
        self.expiring_us(put, to_us(expires))
    }

    /// Returns `put` with the expiry of `replaced`.
    pub(crate) fn expiring_like(&self, put: Change, replaced: Option<&Entry>) -> Result<Change> {
        match replaced.and_then(Entry::expires_us) {
            Some(expires_us) => self.expiring_us(put, expires_us),
            None => Ok(put),
        }
    }

    fn expiring_us(&self, put: Change, expires_us: i64) -> Result<Change> {
        let put = match put {
            Change::Put(entry) => Change::Put(entry.with_expiry(Some(expires_us))),
            other => other,
        };
        self.check_batch(put.encoded_len()).map(|()| put)
    }
}

impl Batch {
    /// Adds a change that sets the value of `key` to `value`, which expires at the time `expires`,
    /// as in [`Store::set_with_expiry`].
    ///
    /// ```
    /// # use codex_core::Store;
    /// # use std::time::{Duration, SystemTime};
    /// let store = Store::in_memory()?;
    /// let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    /// store.batch().set("user/7", "Ada")?.set_with_expiry("session/7", &7, in_an_hour)?.commit()?;
    /// assert_eq!(store.expires_at("user/7"), None);
    /// assert!(store.expires_at("session/7").is_some());
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set`](Batch::set).
    pub fn set_with_expiry<T>(
        &mut self,
        key: impl AsRef<[u8]>,
        value: &T,
        expires: SystemTime,
    ) -> Result<&mut Self>
    where
        T: Serialize + ?Sized,
    {
        let put = self.store().setting(key.as_ref(), value);
        let put = put.and_then(|put| self.store().expiring(put, expires));
        self.push(put)
    }

    /// Adds a change that sets the value of `key` to the bytes `value`, which expire at the time
    /// `expires`, as in [`Store::set_with_expiry`].
    ///
    /// ```
    /// # use codex_core::Store;
    /// # use std::time::{Duration, SystemTime};
    /// let store = Store::in_memory()?;
    /// let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    /// store.batch().set_bytes_with_expiry("page/home", "<html>", in_an_hour)?.commit()?;
    /// assert!(store.contains_key("page/home"));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set_bytes`](Batch::set_bytes).
    pub fn set_bytes_with_expiry(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        expires: SystemTime,
    ) -> Result<&mut Self> {
        let put = self.store().put_bytes(key.as_ref(), value.as_ref());
        let put = put.and_then(|put| self.store().expiring(put, expires));
        self.push(put)
    }
}

impl AsyncStore {
    /// Sets the value of `key` to `value`, which expires at the time `expires`, as in
    /// [`Store::set_with_expiry`].
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// # use std::time::{Duration, SystemTime};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    /// store.set_with_expiry("session/7", "Ada", in_an_hour).await?;
    /// assert!(store.expires_at("session/7").is_some());
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The errors of [`set`](AsyncStore::set).
    pub fn set_with_expiry<T>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        expires: SystemTime,
    ) -> Submitted<()>
    where
        T: Serialize + ?Sized,
    {
        let store = self.blocking();
        let put = store.setting(key.as_ref(), value);
        self.done(put.and_then(|put| store.expiring(put, expires)))
    }

    /// Sets the value of `key` to the bytes `value`, which expire at the time `expires`, as in
    /// [`Store::set_with_expiry`].
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// # use std::time::{Duration, SystemTime};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    /// store.set_bytes_with_expiry("page/home", "<html>", in_an_hour).await?;
    /// assert!(store.contains_key("page/home"));
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The errors of [`set_bytes`](AsyncStore::set_bytes).
    pub fn set_bytes_with_expiry(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        expires: SystemTime,
    ) -> Submitted<()> {
        let store = self.blocking();
        let put = store.put_bytes(key.as_ref(), value.as_ref());
        self.done(put.and_then(|put| store.expiring(put, expires)))
    }
}

impl Transaction {
    /// Sets the value of `key` to `value`, which expires at the time `expires`, as in
    /// [`Store::set_with_expiry`].
    ///
    /// ```
    /// # use codex_core::Store;
    /// # use std::time::{Duration, SystemTime};
    /// let store = Store::in_memory()?;
    /// let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    /// store.transaction(|tx| {
    ///     let tries = tx.get::<u32>("tries/ada")?.unwrap_or(0);
    ///     tx.set_with_expiry("tries/ada", &(tries + 1), in_an_hour)
    /// })?;
    /// assert_eq!(store.get("tries/ada")?, Some(1_u32));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set`](Transaction::set).
    pub fn set_with_expiry<T>(
        &mut self,
        key: impl AsRef<[u8]>,
        value: &T,
        expires: SystemTime,
    ) -> Result<()>
    where
        T: Serialize + ?Sized,
    {
        let entry = self.encoded(key.as_ref(), value)?;
        self.put(entry.with_expiry(Some(to_us(expires))))
    }

    /// Sets the value of `key` to the bytes `value`, which expire at the time `expires`, as in
    /// [`Store::set_with_expiry`].
    ///
    /// ```
    /// # use codex_core::Store;
    /// # use std::time::{Duration, SystemTime};
    /// let store = Store::in_memory()?;
    /// let in_an_hour = SystemTime::now() + Duration::from_secs(3600);
    /// store.transaction(|tx| tx.set_bytes_with_expiry("page/home", "<html>", in_an_hour))?;
    /// assert!(store.contains_key("page/home"));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set_bytes`](Transaction::set_bytes).
    pub fn set_bytes_with_expiry(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        expires: SystemTime,
    ) -> Result<()> {
        let entry = self.raw(key.as_ref(), value.as_ref())?;
        self.put(entry.with_expiry(Some(to_us(expires))))
    }
}

/// Returns the decision to write the entry again with the expiry `expires`, unless it has none
/// before and after.
pub(crate) fn expiring(
    expires: Option<SystemTime>,
) -> impl Fn(Option<&Entry>) -> Result<Decision<bool>> {
    let expires_us = expires.map(to_us);
    move |seen| {
        let changed = seen.filter(|entry| expires_us.is_some() || entry.expires_us().is_some());
        let put = changed.map(|entry| Change::Put(entry.with_expiry(expires_us)));
        Ok((seen.is_some(), put))
    }
}

/// Returns the time at which `entry` expires, if it does.
pub(crate) fn expiry_of(entry: &Entry) -> Option<SystemTime> {
    entry.expires_us().map(from_us)
}

/// Returns `time` in microseconds since 1970, rounded down.
pub(crate) fn to_us(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => {
            let us = before.duration().as_nanos().div_ceil(1000);
            i64::try_from(us).map_or(i64::MIN, |us| -us)
        }
    }
}

/// Returns the time `time_us` microseconds after 1970. The times of the system reach further.
pub(crate) fn from_us(time_us: i64) -> SystemTime {
    let distance = Duration::from_micros(time_us.unsigned_abs());
    if time_us < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_down_to_the_microsecond_and_given_back() {
        for (ns, us) in [(0_i64, 0), (999, 0), (1_000, 1), (-1, -1), (-1_000, -1), (-1_001, -2)] {
            let distance = Duration::from_nanos(ns.unsigned_abs());
            let time = if ns < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance };
            assert_eq!(to_us(time), us, "{ns} ns");
        }
        for us in [i64::MIN, -1, 0, 1, i64::MAX] {
            assert_eq!(to_us(from_us(us)), us, "{us} us");
        }
    }
}

//! Writes to tables in the store.

use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::key::TableKey;
use super::place::Place as _;
use super::prefix::TablePrefix;
use super::record::Row;
use super::spec::Indexes;
use super::{Table, bounds_of, encoded};
use crate::attempt::Attempt;
use crate::commit::{Change, Check, Commit, End, Outcome};
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::expiry::expiring;
use crate::range::{self, KeyBound, prefix_bounds};
use crate::read::sealed::Source;
use crate::transaction::Transaction;
use crate::update::KEY_OF_UPDATE;
use crate::watch::Watch;

impl<K: TableKey, V> Table<K, V> {
    /// Sets the value of `key` to `value`.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let users = store.table::<u64, String>("users")?;
    /// users.set(7, &"Ada".into())?;
    /// assert_eq!(users.get(7)?.as_deref(), Some("Ada"));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`Store::set`](crate::Store::set), and those of [`Table`].
    #[doc(alias("insert", "put", "upsert"))]
    pub fn set(&self, key: K::Ref<'_>, value: &V) -> Result<()>
    where
        V: Serialize,
    {
        let put = self.named(&key, |name| self.place.setting(name, value))?;
        self.commit(put).map(drop)
    }

    /// Sets the value of `key` to `value` until `expires`, as
    /// [`Store::set_with_expiry`](crate::Store::set_with_expiry) does.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # use std::time::{Duration, SystemTime};
    /// # let store = Store::in_memory()?;
    /// let sessions = store.table::<[u8; 16], u64>("sessions")?;
    /// let expires = SystemTime::now() + Duration::from_secs(3_600);
    /// sessions.set_with_expiry([9; 16], &7, expires)?;
    /// assert!(sessions.expires_at([9; 16])?.is_some());
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set`](Self::set).
    #[doc(alias("ttl", "insert_with_ttl"))]
    pub fn set_with_expiry(&self, key: K::Ref<'_>, value: &V, expires: SystemTime) -> Result<()>
    where
        V: Serialize,
    {
        let put = self.named(&key, |name| self.place.setting(name, value))?;
        self.commit(self.place.expiring(put, expires)?).map(drop)
    }

    /// Makes the value of `key` expire at the time `expires`, and returns true if the key has a
    /// value, as [`Store::expire_at`](crate::Store::expire_at) does.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # use std::time::{Duration, SystemTime};
    /// # let store = Store::in_memory()?;
    /// let sessions = store.table::<u64, String>("sessions")?;
    /// sessions.set(7, &"Ada".into())?;
    /// let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    /// assert!(sessions.expire_at(7, expires)?);
    /// assert_eq!(sessions.expires_at(7)?, Some(expires));
    /// assert!(sessions.remove_expiry(7)?);
    /// assert_eq!(sessions.expires_at(7)?, None);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`Store::expire_at`](crate::Store::expire_at), and those of [`Table`].
    #[doc(alias("expire", "expireat", "touch"))]
    pub fn expire_at(&self, key: K::Ref<'_>, expires: SystemTime) -> Result<bool> {
        self.named(&key, |name| self.retry(self.place.replacing(name, expiring(Some(expires)))))
    }

    /// Makes the value of `key` stay until it is removed, and returns true if the key has a value.
    /// If the value does not expire, nothing is written.
    ///
    /// # Errors
    /// The errors of [`expire_at`](Self::expire_at).
    #[doc(alias("persist", "keep"))]
    pub fn remove_expiry(&self, key: K::Ref<'_>) -> Result<bool> {
        self.named(&key, |name| self.retry(self.place.replacing(name, expiring(None))))
    }

    /// Removes `key`, and returns true if it had a value.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let users = store.table::<u64, String>("users")?;
    /// users.set(7, &"Ada".into())?;
    /// assert!(users.remove(7)? && !users.remove(7)?);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set`](Self::set), except `Encode`.
    #[doc(alias("delete", "del", "erase"))]
    pub fn remove(&self, key: K::Ref<'_>) -> Result<bool> {
        let removal = self.named(&key, |name| self.place.removal(name))?;
        Ok(self.commit(removal)?.removed() > 0)
    }

    /// Removes `key` and returns its value. If the value does not decode, it is not removed.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let jobs = store.table::<u64, String>("jobs")?;
    /// jobs.set(1, &"wash".into())?;
    /// assert_eq!(jobs.take(1)?.as_deref(), Some("wash"));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`get`](Self::get) and [`update`](Self::update).
    #[doc(alias("pop", "remove_and_fetch"))]
    pub fn take(&self, key: K::Ref<'_>) -> Result<Option<V>>
    where
        V: DeserializeOwned,
    {
        self.named(&key, |name| {
            let store = &self.place;
            self.retry(store.replacing(name, store.taking(name)))
        })
    }

    /// Sets the value of `key` to `value`, and returns the value that it had before, or `None` if
    /// it had none. If the earlier value does not decode, nothing is written.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let ports = store.table::<String, u16>("ports")?;
    /// assert_eq!(ports.replace("http", &8080)?, None);
    /// assert_eq!(ports.replace("http", &80)?, Some(8080));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`update`](Self::update).
    #[doc(alias("swap", "fetch_and_update"))]
    pub fn replace(&self, key: K::Ref<'_>, value: &V) -> Result<Option<V>>
    where
        V: Serialize + DeserializeOwned,
    {
        self.named(&key, |name| {
            let store = &self.place;
            self.retry(store.replacing(name, store.swapping(name, value)))
        })
    }

    /// Returns the value of `key`. If it has none, sets it to the result of `make` first, as
    /// [`Store::get_or_insert_with`](crate::Store::get_or_insert_with) does.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let colors = store.table::<u64, String>("colors")?;
    /// assert_eq!(colors.get_or_insert_with(7, || "red".into())?, "red");
    /// assert_eq!(colors.get_or_insert_with(7, || "blue".into())?, "red");
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`update`](Self::update).
    #[doc(alias("entry", "or_insert", "setdefault"))]
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "the value is made if none is found"
    )]
    pub fn get_or_insert_with(&self, key: K::Ref<'_>, make: impl FnOnce() -> V) -> Result<V>
    where
        V: Serialize + DeserializeOwned,
    {
        let mut made = None;
        let found = self.named(&key, |name| {
            let store = &self.place;
            self.retry(store.replacing(name, store.inserting(name, make, &mut made)))
        })?;
        Ok(found.or(made).expect("a value was found or made"))
    }

    /// Sets the value of `key` to the result of `change`, which gets the value that it has, as
    /// [`Store::update`](crate::Store::update) does. Returns the new value.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let visits = store.table::<String, u64>("visits")?;
    /// visits.update("home", |count| Some(count.unwrap_or(0) + 1))?;
    /// assert_eq!(visits.update("home", |count| count.map(|n| n + 1))?, Some(2));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`Store::update`](crate::Store::update), and those of [`Table`].
    #[doc(alias("update_and_fetch", "fetch_and_update", "increment", "modify"))]
    pub fn update<F>(&self, key: K::Ref<'_>, mut change: F) -> Result<Option<V>>
    where
        V: Serialize + DeserializeOwned,
        F: FnMut(Option<V>) -> Option<V>,
    {
        self.try_update(key, |value| Ok::<_, Error>(change(value)))
    }

    /// Does the same as [`update`](Self::update), with a `change` that may return an error. Nothing
    /// is written then.
    ///
    /// # Errors
    /// The error of `change`, and the errors of [`update`](Self::update).
    pub fn try_update<E, F>(&self, key: K::Ref<'_>, change: F) -> Result<Option<V>, E>
    where
        V: Serialize + DeserializeOwned,
        E: From<Error>,
        F: FnMut(Option<V>) -> Result<Option<V>, E>,
    {
        self.named(&key, |name| {
            let store = &self.place;
            self.retry(store.replacing(name, store.changing(name, change)))
        })
    }

    /// Sets the value of `key` to `new` if it is `current`, and returns true if it was. `None`
    /// means that the key has no value, in both arguments. Compares as
    /// [`Store::compare_exchange`](crate::Store::compare_exchange) does.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let leaders = store.table::<u8, String>("leaders")?;
    /// assert!(leaders.compare_exchange(1, None, Some(&"ada".into()))?);
    /// assert!(!leaders.compare_exchange(1, None, Some(&"bob".into()))?);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set`](Self::set).
    #[doc(alias("cas", "compare_and_swap", "insert_if_absent", "put_if_absent"))]
    pub fn compare_exchange(
        &self,
        key: K::Ref<'_>,
        current: Option<&V>,
        new: Option<&V>,
    ) -> Result<bool>
    where
        V: Serialize,
    {
        self.place.inner.check_writable()?;
        self.named(&key, |name| {
            let (current, change) = self.place.exchange(name, current, new)?;
            self.retry(self.place.replacing(name, |seen| {
                let is_current = seen.map(Entry::value) == current.as_deref();
                Ok((is_current, is_current.then(|| change.clone())))
            }))
        })
    }

    /// Removes all keys in `range`, in one commit, and returns their number.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let days = store.table::<u32, String>("days")?;
    /// for day in 1..=30 {
    ///     days.set(day, &"rain".into())?;
    /// }
    /// assert_eq!(days.remove_range(..=20)?, 20);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`Store::remove_range`](crate::Store::remove_range), and those of [`Table`].
    #[doc(alias("delete_range", "retain"))]
    pub fn remove_range<'a>(&self, range: impl RangeBounds<K::Ref<'a>>) -> Result<u64> {
        let (lower, upper) = bounds_of::<K>(&range);
        if range::bounds(&lower, &upper).is_none() {
            return self.place.confirm(&self.row).map(|()| 0);
        }
        Ok(self.commit(Change::RemoveRange(Some(self.row.id), lower, upper))?.removed())
    }

    /// Removes all keys that begin with `prefix`, in one commit, and returns their number.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let items = store.table::<(u64, String), u32>("items of carts")?;
    /// items.set((7, "apples"), &3)?;
    /// items.set((7, "pears"), &1)?;
    /// assert_eq!(items.remove_prefix((7,))?, 2);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`remove_range`](Self::remove_range).
    pub fn remove_prefix(&self, prefix: impl TablePrefix<K>) -> Result<u64> {
        let (lower, upper) = prefix_bounds(&encoded(&prefix));
        Ok(self.commit(Change::RemoveRange(Some(self.row.id), lower, upper))?.removed())
    }

    /// Removes all keys, in one commit.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let users = store.table::<u64, String>("users")?;
    /// users.set(7, &"Ada".into())?;
    /// users.clear()?;
    /// assert!(users.is_empty()?);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set`](Self::set), except `Encode`.
    #[doc(alias("truncate", "delete_all"))]
    pub fn clear(&self) -> Result<()> {
        self.commit(Change::Clear(Some(self.row.id))).map(drop)
    }

    /// Watches the table: returns the later commits that change it, as
    /// [`Store::watch`](crate::Store::watch) does for keys outside tables. A dropped table is shown
    /// as cleared.
    ///
    /// ```
    /// # use codex_core::{Change, Notice, Store};
    /// # let store = Store::in_memory()?;
    /// let users = store.table::<u64, String>("users")?;
    /// let mut watch = users.watch()?;
    /// users.set(7, &"Ada".into())?;
    /// let Some(Notice::Commit(commit)) = watch.next() else { panic!("it is open") };
    /// let [Change::Set(entry)] = commit.changes() else { panic!("one change") };
    /// assert_eq!(users.decode(entry)?, (7, "Ada".into()));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`Store::watch`](crate::Store::watch), and those of [`Table`].
    #[doc(alias("subscribe", "listen", "change_stream"))]
    pub fn watch(&self) -> Result<Watch> {
        self.watch_bytes(b"")
    }

    /// Watches the rows whose keys begin with `prefix`. Otherwise as [`watch`](Self::watch).
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let letters = store.table::<(String, u64), String>("letters")?;
    /// let mut watch = letters.watch_prefix(("Ada",))?;
    /// letters.set(("Bob", 1), &"Hello".into())?;
    /// assert!(watch.try_next().is_none());
    /// letters.set(("Ada", 1), &"Hello".into())?;
    /// assert!(watch.try_next().is_some());
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`watch`](Self::watch).
    pub fn watch_prefix(&self, prefix: impl TablePrefix<K>) -> Result<Watch> {
        self.watch_bytes(&encoded(&prefix))
    }

    fn watch_bytes(&self, prefix: &[u8]) -> Result<Watch> {
        self.place.inner.check_watchable()?;
        self.place.confirm(&self.row)?;
        Ok(self.place.inner.engine.watch(Some(self.row.id), prefix)?)
    }

    /// Commits one change, under the condition that the table is there.
    pub(super) fn commit(&self, change: Change) -> Result<Outcome> {
        if let Some(indexes) = &self.indexes {
            return self.commit_indexed(indexes, change);
        }
        let mut row = Arc::clone(&self.row);
        loop {
            let commit = Commit::checked(Check::Same(row.entry.clone()), change.clone());
            match self.place.inner.commit(commit)? {
                // Its indexes have changed and it has none again, unless it was dropped.
                Outcome::Conflict => row = self.current()?,
                done @ Outcome::Done { .. } => return Ok(done),
            }
        }
    }

    /// Commits one change and those of the indexes.
    fn commit_indexed(&self, indexes: &Indexes<V>, change: Change) -> Result<Outcome> {
        self.place.inner.check_writable()?;
        self.place.retry(KEY_OF_UPDATE, || {
            let done = |removed| Outcome::Done { seq: None, removed, previous: None };
            let name = match &change {
                Change::Put(entry) => entry.name(),
                Change::Remove(name) => name.as_name(),
                Change::RemoveRange(_, lower, upper) => {
                    return self.remove_rows(indexes, (lower.clone(), upper.clone()), None);
                }
                Change::Pop(_, lower, upper, end) => {
                    return self.remove_rows(indexes, (lower.clone(), upper.clone()), Some(*end));
                }
                // A sweep is no write of a table.
                _ => {
                    let row = self.current()?;
                    let cleared = row.ids().map(|id| Change::Clear(Some(id))).collect::<Vec<_>>();
                    let checks = vec![Check::Same(row.entry.clone())].into();
                    let commit = Commit { checks, changes: cleared.into(), ..Commit::default() };
                    return Ok((done(0), Some(Attempt::of(commit))));
                }
            };
            let row = self.current()?;
            let seen = self.place.inner.entry(name);
            let removed = u64::from(matches!(change, Change::Remove(_)));
            if seen.is_none() && removed > 0 {
                let absent = Check::Absent(name.into());
                return Ok((done(0), Attempt::to_confirm(&self.place.inner.engine, absent)));
            }
            let commit = indexes.commit(&self.place, &row, seen, change.clone())?;
            Ok((done(removed), Some(Attempt::of(commit))))
        })
    }

    /// Returns the attempt to remove the rows within `bounds`, or the one at an end of them, with
    /// their entries in the indexes.
    fn remove_rows(
        &self,
        indexes: &Indexes<V>,
        bounds: (KeyBound, KeyBound),
        end: Option<End>,
    ) -> Result<(Outcome, Option<Attempt>)> {
        let mut tx = Transaction::begin(&self.place);
        // Order: read the record in the transaction, before the rows. If an index is added
        // meanwhile, the commit is refused: it would leave the entries of the rows in that index.
        let row = self.current_in(&tx)?;
        let mut rows = tx.scan(Some(row.id), bounds);
        let rows = match end {
            None => rows.collect(),
            Some(End::First) => Vec::from_iter(rows.next()),
            Some(End::Last) => Vec::from_iter(rows.next_back()),
        };
        let removed = indexes.remove_all(&row, &mut tx, &rows)?;
        let previous = rows.last().map(|row| row.shared().clone());
        Ok((Outcome::Done { seq: None, removed, previous }, tx.into_attempt()))
    }

    /// Makes an update by `attempt`, under the same condition.
    fn retry<R, E: From<Error>>(
        &self,
        mut attempt: impl FnMut() -> Result<(R, Option<Attempt>), E>,
    ) -> Result<R, E> {
        self.place.retry(KEY_OF_UPDATE, || {
            let row = self.current()?;
            let (answer, attempt) = attempt()?;
            let Some(Attempt { commit, scanned }) = attempt else { return Ok((answer, None)) };
            let commit = match &self.indexes {
                None => commit.also(Check::Same(row.entry.clone())),
                Some(indexes) => indexes.extend(&self.place, &row, commit)?,
            };
            Ok((answer, Some(Attempt { commit, scanned })))
        })
    }

    /// Returns the record of the table as it is now. Its indexes are those of the handle.
    fn current(&self) -> Result<Arc<Row>> {
        self.current_in(&self.place)
    }

    /// Returns the record of the table in the later state `source`.
    fn current_in(&self, source: &impl Source) -> Result<Arc<Row>> {
        let row = self.row.later(source)?;
        self.check_declared(&row).map(|()| row)
    }
}

impl<K, V> Table<K, V> {
    /// Checks that the indexes of `row` are those that the handle declares.
    pub(super) fn check_declared(&self, row: &Arc<Row>) -> Result<()> {
        // The handle of a store that can be written has compared its own.
        if Arc::ptr_eq(row, &self.row) {
            return Ok(());
        }
        row.check_indexes(self.indexes.iter().flat_map(|indexes| indexes.shapes()))
    }
}

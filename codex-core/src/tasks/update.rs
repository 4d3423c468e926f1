//! Writes of tasks that depend on the current value.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::AsyncStore;
use crate::entry::Name;
use crate::error::{Error, Result};
use crate::transaction::{READ_OF_TRANSACTION, Transaction};
use crate::update::KEY_OF_UPDATE;

impl AsyncStore {
    /// Replaces the value of `key` by the result of `change`, and returns the new value. No write
    /// in between is lost. Otherwise as [`Store::update`](crate::Store::update).
    ///
    /// `change` runs on the thread that polls the future, once for each attempt.
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// store.update("visits", |visits: Option<u64>| Some(visits.unwrap_or(0) + 1)).await?;
    /// assert_eq!(store.get("visits")?, Some(1_u64));
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The errors of [`Store::update`](crate::Store::update), and [`Error::Backlog`].
    #[doc(alias("update_and_fetch", "fetch_and_update", "increment", "modify"))]
    pub async fn update<T, F>(&self, key: impl AsRef<[u8]>, mut change: F) -> Result<Option<T>>
    where
        T: Serialize + DeserializeOwned,
        F: FnMut(Option<T>) -> Option<T>,
    {
        self.try_update(key, |value| Ok(change(value))).await
    }

    /// Does the same as [`update`](Self::update), with a `change` that may fail. Its error is
    /// returned, and nothing is written.
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Error, Store};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// store.set("balance", &30_u64).await?;
    /// let withdrawn = store.try_update("balance", |balance: Option<u64>| {
    ///     let rest = balance.unwrap_or(0).checked_sub(50);
    ///     rest.map(Some).ok_or_else(|| Box::<dyn std::error::Error>::from("too little"))
    /// });
    /// assert_eq!(withdrawn.await.unwrap_err().to_string(), "too little");
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The error of `change`, and the errors of [`update`](Self::update).
    pub async fn try_update<T, E, F>(
        &self,
        key: impl AsRef<[u8]>,
        change: F,
    ) -> Result<Option<T>, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<Error>,
        F: FnMut(Option<T>) -> Result<Option<T>, E>,
    {
        let (store, key) = (&self.store, Name::plain(key.as_ref()));
        let attempt = store.replacing(key, store.changing(key, change));
        store.retry_async(KEY_OF_UPDATE, attempt).await
    }

    /// Removes `key` and returns its value. If the value does not decode as a `T`, it is not
    /// removed.
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// store.set("job/1", "wash").await?;
    /// assert_eq!(store.take::<String>("job/1").await?.as_deref(), Some("wash"));
    /// assert_eq!(store.take::<String>("job/1").await?, None);
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The errors of [`get`](Self::get) and [`update`](Self::update).
    #[doc(alias("pop", "remove_and_fetch"))]
    pub async fn take<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        let (store, key) = (&self.store, Name::plain(key.as_ref()));
        store.retry_async(KEY_OF_UPDATE, store.replacing(key, store.taking(key))).await
    }

    /// Sets the value of `key` to `value`, and returns the value that it had before, or `None` if
    /// it had none. Otherwise as [`Store::replace`](crate::Store::replace).
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// assert_eq!(store.replace("port", &8080_u16).await?, None);
    /// assert_eq!(store.replace("port", &8443_u16).await?, Some(8080));
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The errors of [`update`](Self::update).
    #[doc(alias("swap", "fetch_and_update"))]
    pub async fn replace<T>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<Option<T>>
    where
        T: Serialize + DeserializeOwned,
    {
        let (store, key) = (&self.store, Name::plain(key.as_ref()));
        store.retry_async(KEY_OF_UPDATE, store.replacing(key, store.swapping(key, value))).await
    }

    /// Returns the value of `key`. If it has none, sets it to the result of `make` first. `make`
    /// runs on the thread that polls the future. Otherwise as
    /// [`Store::get_or_insert_with`](crate::Store::get_or_insert_with).
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// let device = store.get_or_insert_with("device", || "a1b2".to_string()).await?;
    /// assert_eq!(store.get_or_insert_with("device", || "c3d4".to_string()).await?, device);
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
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
    pub async fn get_or_insert_with<T, F>(&self, key: impl AsRef<[u8]>, make: F) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> T,
    {
        let (store, key, mut made) = (&self.store, Name::plain(key.as_ref()), None);
        let attempt = store.replacing(key, store.inserting(key, make, &mut made));
        let found = store.retry_async(KEY_OF_UPDATE, attempt).await?;
        Ok(found.or(made).expect("a value was found or made"))
    }

    /// Calls `body` with a transaction, and commits its writes if no other commit has changed
    /// something that it read. Otherwise calls `body` again. See
    /// [`Store::transaction`](crate::Store::transaction).
    ///
    /// `body` is a plain closure, which runs on the thread that polls the future. So a transaction
    /// never waits for something else while it is open: await what it needs before.
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Store};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// store.set("balance:ada", &100_i64).await?;
    /// store.transaction(|tx| {
    ///     let ada: i64 = tx.get("balance:ada")?.unwrap_or(0);
    ///     tx.set("balance:ada", &(ada - 30))?;
    ///     tx.set("balance:bob", &30_i64)
    /// }).await?;
    /// assert_eq!(store.get("balance:ada")?, Some(70_i64));
    /// # Ok::<(), codex_core::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The errors of [`Store::transaction`](crate::Store::transaction), and [`Error::Backlog`].
    #[doc(alias("begin", "begin_write", "write_tx"))]
    pub async fn transaction<R>(
        &self,
        body: impl FnMut(&mut Transaction) -> Result<R>,
    ) -> Result<R> {
        self.try_transaction(body).await
    }

    /// Does the same as [`transaction`](Self::transaction), with a `body` that returns an error of
    /// another type. See [`Store::try_transaction`](crate::Store::try_transaction).
    ///
    /// ```
    /// # use codex_core::{AsyncStore, Error, Store};
    /// # smol::block_on(async {
    /// let store = AsyncStore::from(Store::in_memory()?);
    /// let refused = store.try_transaction(|tx| {
    ///     tx.set("audit:1", "a withdrawal")?;
    ///     let balance: Option<i64> = tx.get("balance:eve")?;
    ///     balance.ok_or_else(|| Box::<dyn std::error::Error>::from("no such account"))
    /// });
    /// assert!(refused.await.is_err());
    /// assert!(store.is_empty());
    /// # Ok::<(), Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// The errors of [`transaction`](Self::transaction), and those of `body`.
    pub async fn try_transaction<R, E, F>(&self, body: F) -> Result<R, E>
    where
        E: From<Error>,
        F: FnMut(&mut Transaction) -> Result<R, E>,
    {
        self.store.retry_async(READ_OF_TRANSACTION, self.store.transacting(body)).await
    }
}

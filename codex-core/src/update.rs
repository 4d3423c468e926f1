//! Writes that depend on the current value. They read, decide, and commit if the value is still the
//! same.

use std::future::poll_fn;
use std::task::Poll;

use codex_storage::sync::thread;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::attempt::Attempt;
use crate::commit::{Change, Check, Commit, Outcome};
use crate::entry::{Entry, Name};
use crate::error::{Error, Result};
use crate::own;
use crate::rank;
use crate::store::Store;
use crate::value;

impl Store {
    /// Replaces the value of `key` by the result of `change`, and returns the new value. `None`
    /// means that the key has no value. No write of another thread in between is lost.
    ///
    /// `change` runs outside all locks and may use the store, but must not write `key` itself. It
    /// runs again if the key has changed in the meantime, so it should have no side effects. The
    /// new value has the expiry of the earlier one.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.update("visits", |visits: Option<u64>| Some(visits.unwrap_or(0) + 1))?;
    /// assert_eq!(store.get("visits")?, Some(1_u64));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`get`](Store::get) and [`set`](Store::set). [`Error::Contended`] if other
    /// writers changed the key during each of 1,000 attempts. [`Error::Encode`] also if the encoded
    /// new value does not decode. [`Error::UpdatesItself`] if `change` writes `key`. The store is
    /// unchanged then, except for writes by `change`, unless the error [is in
    /// doubt](Error::is_in_doubt).
    #[doc(alias("update_and_fetch", "fetch_and_update", "increment", "modify"))]
    pub fn update<T, F>(&self, key: impl AsRef<[u8]>, mut change: F) -> Result<Option<T>>
    where
        T: Serialize + DeserializeOwned,
        F: FnMut(Option<T>) -> Option<T>,
    {
        self.try_update(key, |value| Ok(change(value)))
    }

    /// Does the same as [`update`](Store::update), with a `change` that may fail. Its error is
    /// returned, and nothing is written.
    ///
    /// ```
    /// # use codex_core::Store;
    /// #[derive(Debug)]
    /// enum Refused {
    ///     TooLittle,
    ///     Store(codex_core::Error),
    /// }
    /// impl From<codex_core::Error> for Refused {
    ///     fn from(error: codex_core::Error) -> Self {
    ///         Self::Store(error)
    ///     }
    /// }
    ///
    /// let store = Store::in_memory()?;
    /// store.set("balance", &30_u64)?;
    /// let withdrawn = store.try_update("balance", |balance: Option<u64>| {
    ///     let rest = balance.unwrap_or(0).checked_sub(50).ok_or(Refused::TooLittle)?;
    ///     Ok(Some(rest))
    /// });
    /// assert!(matches!(withdrawn, Err(Refused::TooLittle)));
    /// assert_eq!(store.get::<u64>("balance")?, Some(30));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The error of `change`, and the errors of [`update`](Store::update).
    pub fn try_update<T, E, F>(&self, key: impl AsRef<[u8]>, change: F) -> Result<Option<T>, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<Error>,
        F: FnMut(Option<T>) -> Result<Option<T>, E>,
    {
        let key = Name::plain(key.as_ref());
        self.replace_entry(key, self.changing(key, change))
    }

    /// Sets the value of `key` to `new` if it is `current`, and returns true if it was. `None`
    /// means that the key has no value, in both arguments.
    ///
    /// Compares the stored bytes with `current` as [`set`](Store::set) would encode it now. So
    /// `NaN` equals itself, and `0.0` differs from `-0.0`. A value that was stored with another
    /// codec, or as raw bytes, differs from every `current`. Types without an order of their own,
    /// like a `HashMap`, may have another encoding each time: use [`update`](Store::update) for
    /// them.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// assert!(store.compare_exchange("leader", None, Some("ada"))?);
    /// assert!(!store.compare_exchange("leader", None, Some("bob"))?);
    /// assert!(store.compare_exchange("leader", Some("ada"), None)?);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`set`](Store::set).
    #[doc(alias("cas", "compare_and_swap", "insert_if_absent", "put_if_absent"))]
    pub fn compare_exchange<T>(
        &self,
        key: impl AsRef<[u8]>,
        current: Option<&T>,
        new: Option<&T>,
    ) -> Result<bool>
    where
        T: Serialize + ?Sized,
    {
        let name = Name::plain(key.as_ref());
        let (value, change) = self.exchange(name, current, new)?;
        let commit = Commit::checked(Check::Equals { name: name.into(), value }, change);
        Ok(matches!(self.inner.commit(commit)?, Outcome::Done { .. }))
    }

    /// Removes `key` and returns its value. If the value does not decode as a `T`, it is not
    /// removed.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.set("job/1", "wash")?;
    /// // Of several threads that take the same key, one gets the value.
    /// assert_eq!(store.take::<String>("job/1")?.as_deref(), Some("wash"));
    /// assert_eq!(store.take::<String>("job/1")?, None);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`get`](Store::get) and [`update`](Store::update).
    #[doc(alias("pop", "remove_and_fetch"))]
    pub fn take<T: DeserializeOwned>(&self, key: impl AsRef<[u8]>) -> Result<Option<T>> {
        let key = Name::plain(key.as_ref());
        self.replace_entry(key, self.taking(key))
    }

    /// Sets the value of `key` to `value`, and returns the value that it had before, or `None` if
    /// it had none. If the earlier value does not decode as a `T`, nothing is written.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// assert_eq!(store.replace("port", &8080_u16)?, None);
    /// assert_eq!(store.replace("port", &8443_u16)?, Some(8080));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`update`](Store::update).
    #[doc(alias("swap", "fetch_and_update"))]
    pub fn replace<T>(&self, key: impl AsRef<[u8]>, value: &T) -> Result<Option<T>>
    where
        T: Serialize + DeserializeOwned,
    {
        let key = Name::plain(key.as_ref());
        self.replace_entry(key, self.swapping(key, value))
    }

    /// Returns the value of `key`. If it has none, sets it to the result of `make` first. All
    /// threads that call this at the same time get the same value.
    ///
    /// `make` runs outside all locks, at most once, and not if the key has a value. Its result is
    /// dropped if another thread sets the key meanwhile.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// let device = store.get_or_insert_with("device", || "a1b2".to_string())?;
    /// assert_eq!(device, "a1b2");
    /// assert_eq!(store.get_or_insert_with("device", || "c3d4".to_string())?, device);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`update`](Store::update).
    #[doc(alias("entry", "or_insert", "setdefault"))]
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "the value is made if none is found"
    )]
    pub fn get_or_insert_with<T, F>(&self, key: impl AsRef<[u8]>, make: F) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> T,
    {
        let key = Name::plain(key.as_ref());
        let mut made = None;
        let found = self.replace_entry(key, self.inserting(key, make, &mut made))?;
        Ok(found.or(made).expect("a value was found or made"))
    }

    /// Returns the change that sets the value of `key` to `value`, which must decode as a `T`.
    fn put_decodable<T>(&self, name: Name<'_>, value: &T) -> Result<Change>
    where
        T: Serialize + DeserializeOwned,
    {
        let change = self.setting(name, value)?;
        if let Change::Put(entry) = &change {
            value::check_decodes::<T>(self.codec(), name.key.len(), entry.value())?;
        }
        Ok(change)
    }

    /// Returns the stored form of `current`, and the change of the value of `key` to `new`.
    pub(crate) fn exchange<T: Serialize + ?Sized>(
        &self,
        name: Name<'_>,
        current: Option<&T>,
        new: Option<&T>,
    ) -> Result<(Option<Box<[u8]>>, Change)> {
        let current =
            current.map(|value| self.codec().encode(name.key.len(), value)).transpose()?;
        let change = match new {
            Some(value) => self.setting(name, value)?,
            None => self.removal(name)?,
        };
        Ok((current.map(Into::into), change))
    }

    /// Returns the decision of an update by `change`.
    pub(crate) fn changing<T, E, F>(
        &self,
        name: Name<'_>,
        mut change: F,
    ) -> impl FnMut(Option<&Entry>) -> Result<Decision<Option<T>>, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<Error>,
        F: FnMut(Option<T>) -> Result<Option<T>, E>,
    {
        move |seen| {
            rank::leave_memory("a user's closure");
            let value = change(decode_entry(seen)?)?;
            let change = match (&value, seen) {
                (Some(value), _) => {
                    let put = self.put_decodable(name, value)?;
                    Some(self.expiring_like(put, seen)?)
                }
                (None, Some(_)) => Some(self.removal(name)?),
                (None, None) => None,
            };
            Ok((value, change))
        }
    }

    /// Returns the decision to remove `key`.
    pub(crate) fn taking<T: DeserializeOwned>(
        &self,
        name: Name<'_>,
    ) -> impl FnMut(Option<&Entry>) -> Result<Decision<Option<T>>> {
        move |seen| {
            let taken = decode_entry(seen)?;
            let remove = seen.map(|_| self.removal(name)).transpose()?;
            Ok((taken, remove))
        }
    }

    /// Returns the decision to set `key` to `value`.
    pub(crate) fn swapping<T>(
        &self,
        name: Name<'_>,
        value: &T,
    ) -> impl FnMut(Option<&Entry>) -> Result<Decision<Option<T>>>
    where
        T: Serialize + DeserializeOwned,
    {
        move |seen| Ok((decode_entry(seen)?, Some(self.put_decodable(name, value)?)))
    }

    /// Returns the decision to set `key` to the result of `make`, which is kept in `made`, unless
    /// it has a value.
    pub(crate) fn inserting<T, F>(
        &self,
        name: Name<'_>,
        make: F,
        made: &mut Option<T>,
    ) -> impl FnMut(Option<&Entry>) -> Result<Decision<Option<T>>>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce() -> T,
    {
        let mut make = Some(make);
        move |seen| {
            let found = decode_entry(seen)?;
            if found.is_some() {
                return Ok((found, None));
            }
            if let Some(make) = make.take() {
                rank::leave_memory("a user's closure");
                *made = Some(make());
            }
            let put = made.as_ref().map(|value| self.put_decodable(name, value)).transpose()?;
            Ok((None, put))
        }
    }

    /// Reads the entry of `name`, calls `decide` for an answer and a change, and commits the change
    /// if the entry is still the same. Otherwise tries again.
    pub(crate) fn replace_entry<R, E: From<Error>>(
        &self,
        name: Name<'_>,
        decide: impl FnMut(Option<&Entry>) -> Result<Decision<R>, E>,
    ) -> Result<R, E> {
        self.retry(KEY_OF_UPDATE, self.replacing(name, decide))
    }

    /// Returns the attempts to change the entry of `name` as `decide` says.
    pub(crate) fn replacing<R, E: From<Error>>(
        &self,
        name: Name<'_>,
        mut decide: impl FnMut(Option<&Entry>) -> Result<Decision<R>, E>,
    ) -> impl FnMut() -> Result<(R, Option<Attempt>), E> {
        move || {
            let seen = self.inner.entry(name);
            // A write of `name` by the closure itself would make every attempt fail, so it is
            // detected.
            let own = own::begin(self.inner.id(), name, seen.is_some());
            let (answer, change) = decide(seen.as_ref())?;
            if own.was_written() {
                return Err(Error::UpdatesItself { key_len: name.key.len() }.into());
            }
            // The leader tests the condition in the order of commits, so no write comes in between.
            let check = Check::of(name, seen);
            let attempt = match change {
                Some(change) => Some(Attempt::of(Commit::checked(check, change))),
                None => Attempt::to_confirm(&self.inner.engine, check),
            };
            Ok((answer, attempt))
        }
    }

    /// Calls `attempt` for an answer and a commit, and makes the commit. If the commit is in
    /// conflict with another one, tries again. `what` names in an error the thing that changed.
    pub(crate) fn retry<R, E: From<Error>>(
        &self,
        what: &'static str,
        mut attempt: impl FnMut() -> Result<(R, Option<Attempt>), E>,
    ) -> Result<R, E> {
        for round in 0..ROUNDS_MAX {
            let (answer, commit) = self.round(round, &mut attempt)?;
            let outcome = match commit {
                Ok(commit) => self.inner.commit(commit)?,
                Err(outcome) => outcome,
            };
            match outcome {
                Outcome::Done { .. } => return Ok(answer),
                // Let other threads run now and then, so that a slow closure is not overtaken
                // forever.
                Outcome::Conflict if is_pause(round) => thread::yield_now(),
                Outcome::Conflict => {}
            }
        }
        Err(Error::Contended { what, rounds: ROUNDS_MAX }.into())
    }

    /// Does the same as [`retry`](Self::retry) for a task.
    pub(crate) async fn retry_async<R, E: From<Error>>(
        &self,
        what: &'static str,
        mut attempt: impl FnMut() -> Result<(R, Option<Attempt>), E>,
    ) -> Result<R, E> {
        for round in 0..ROUNDS_MAX {
            let (answer, commit) = self.round(round, &mut attempt)?;
            let outcome = match commit {
                Ok(commit) => self.inner.submit(commit)?.await.map_err(Error::from)?,
                Err(outcome) => outcome,
            };
            match outcome {
                Outcome::Done { .. } => return Ok(answer),
                // Let other tasks run now and then. Awaiting an outcome that is there does not.
                Outcome::Conflict if is_pause(round) => yield_now().await,
                Outcome::Conflict => {}
            }
        }
        Err(Error::Contended { what, rounds: ROUNDS_MAX }.into())
    }

    /// Calls `attempt` for the round `round`. Returns its answer, with its commit, or with the
    /// outcome that is already known.
    fn round<R, E: From<Error>>(
        &self,
        round: u32,
        attempt: &mut impl FnMut() -> Result<(R, Option<Attempt>), E>,
    ) -> Result<(R, Result<Commit, Outcome>), E> {
        let (answer, attempt) = attempt()?;
        let Some(attempt) = attempt else {
            self.inner.check_process()?;
            return Ok((answer, Err(Outcome::Done { seq: None, removed: 0, previous: None })));
        };
        let commit = self.tested(attempt).ok_or(Outcome::Conflict);
        Ok((answer, commit.map(|commit| Commit { rounds: round, ..commit })))
    }

    /// Returns the commit of `attempt`, or `None` if it is already in conflict. The checks of a
    /// long scan are tested here, while other writers continue. The leader tests them again, unless
    /// nothing was committed in between.
    fn tested(&self, Attempt { mut commit, scanned }: Attempt) -> Option<Commit> {
        if scanned > SCANNED_BY_LEADER_MAX {
            let now = self.inner.engine.view();
            if commit.base != Some(now.base()) {
                if !commit.checks.as_slice().iter().all(|check| check.holds_in(&now)) {
                    return None;
                }
                commit.base = Some(now.base());
            }
        }
        Some(commit)
    }
}

/// An answer, and the change of the entry, if there is one.
pub(crate) type Decision<R> = (R, Option<Change>);

fn decode_entry<T: DeserializeOwned>(entry: Option<&Entry>) -> Result<Option<T>> {
    entry.map(|entry| value::decode(entry.key().len(), entry.value())).transpose()
}

/// Returns true if others are to run after a conflict in the round `round`.
fn is_pause(round: u32) -> bool {
    round % 16 == 15
}

/// Lets other tasks of the executor run.
async fn yield_now() {
    let mut is_second = false;
    poll_fn(|context| {
        if std::mem::replace(&mut is_second, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The name of the thing that changed, in the error of an update.
pub(crate) const KEY_OF_UPDATE: &str = "the key of an update";
/// The maximum number of attempts of an update or of a transaction.
const ROUNDS_MAX: u32 = 1_000;
/// The maximum number of scanned entries that only the leader tests.
const SCANNED_BY_LEADER_MAX: usize = 1_024;

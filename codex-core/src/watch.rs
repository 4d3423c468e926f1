//! Watches: the commits that change keys with a prefix, in order, at the time when readers see
//! them.

mod mailbox;
mod replay;
#[cfg(feature = "stream")]
mod stream;

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use codex_storage::batch::Seq;
use codex_storage::vfs::Clock;

use crate::cursor::{Entry, Key};
use crate::error::Result;
use crate::expiry::from_us;
use crate::store::Store;
pub(crate) use mailbox::Mailbox;
use replay::{Replay, Step};
#[cfg(feature = "stream")]
pub use stream::WatchStream;

/// The later commits that change keys with a prefix, in order. [`Store::watch`] returns it.
///
/// It is an iterator that waits for the next [`Notice`] and ends when the store is closed or
/// [poisoned](Store::poisoned). [`try_next`](Self::try_next) does not wait, and
/// [`next_timeout`](Self::next_timeout) waits for a limited time. Async code calls
/// [`poll_next`](Self::poll_next), or `stream` with the feature of that name.
///
/// A watch contains no handle of the store, so the store closes, and the watch ends, when the last
/// handle is dropped. Dropping the watch ends it too.
///
/// # No change is missed
///
/// Watch first, then read. A snapshot made after the watch contains all commits up to its number,
/// and the watch returns the others. After a [`Notice::Lagged`], read again:
///
/// ```
/// use std::collections::BTreeMap;
///
/// use codex_core::{Change, Key, Notice, Seq, Store, ValueRef};
///
/// type Mirror = BTreeMap<Key, ValueRef>;
///
/// /// Fills the mirror, and returns the last commit that it contains.
/// fn load(store: &Store, mirror: &mut Mirror) -> Seq {
///     let snapshot = store.snapshot();
///     *mirror = snapshot.prefix("user/").map(|entry| entry.into_parts()).collect();
///     snapshot.seq()
/// }
///
/// let store = Store::in_memory()?;
/// store.set("user/1", "Ada")?;
/// let watch = store.watch("user/")?;
/// let mut mirror = Mirror::new();
/// let mut loaded = load(&store, &mut mirror);
///
/// store.batch().set("user/2", "Bob")?.remove("user/1")?.commit()?;
/// store.close()?;
///
/// for notice in watch {
///     match notice {
///         // A commit that the snapshot contains.
///         Notice::Commit(commit) if commit.seq() <= loaded => {}
///         Notice::Commit(commit) => {
///             for change in commit.changes() {
///                 match change {
///                     Change::Set(entry) => {
///                         let (key, value) = entry.clone().into_parts();
///                         mirror.insert(key, value);
///                     }
///                     Change::Removed(key) => drop(mirror.remove(key)),
///                     Change::Cleared => mirror.clear(),
///                     _ => unreachable!("a kind of change that this program does not know"),
///                 }
///             }
///         }
///         _ => loaded = load(&store, &mut mirror),
///     }
/// }
/// assert_eq!(mirror.keys().collect::<Vec<_>>(), ["user/2"]);
/// # Ok::<(), codex_core::Error>(())
/// ```
#[must_use = "a watch that is dropped ends"]
pub struct Watch {
    mailbox: Arc<Mailbox>,
    start: Seq,
    clock: Arc<dyn Clock>,
    /// The commits that are read from a ledger before those of the mailbox.
    replay: Option<Box<Replay>>,
    /// The id of the process that made the watch. In a forked child no thread fills the mailbox.
    made_by: u32,
}

/// The next part of a [`Watch`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Notice {
    /// A commit that changes watched keys.
    Commit(Committed),
    /// The mailbox was full. No commit from `first` to `last` is returned; both changed watched
    /// keys. Readers see all of them, so a snapshot that is made now contains them.
    Lagged {
        /// The number of the first commit that is not returned.
        first: Seq,
        /// The number of the last commit that is not returned.
        last: Seq,
    },
}

/// The part of a commit that concerns the keys of a [`Watch`].
#[derive(Debug, Clone)]
pub struct Committed {
    seq: Seq,
    /// The time in microseconds since 1970, if the commit was read from a ledger.
    time_us: Option<i64>,
    changes: Vec<Change>,
}

/// A change of the watched keys. Contains handles, which copy no bytes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Change {
    /// The key of the entry has its value now.
    Set(Entry),
    /// The key has no value any more.
    Removed(Key),
    /// No key of the store has a value any more. A clear of the whole store is one change, and each
    /// watch returns it, whether its keys had values or not.
    Cleared,
}

impl Store {
    /// Watches the keys that begin with `prefix`. Returns an iterator over the later commits that
    /// change one of them, in order, each with all its changes of such keys.
    ///
    /// A commit is returned when readers see it, so it is as durable as the level of the store
    /// says. The watch begins between two commits, and returns each matching one after
    /// [`Watch::start`]. Setting an equal value is a change. A call that changes nothing, such as
    /// the removal of a key without a value, is no commit. Nor is the time at which a key expires:
    /// it is a [`Change::Removed`] of the commit that later removes the key.
    ///
    /// Commits wait in a mailbox in memory until they are returned. Its limits are 4,096 changes
    /// and 16 MiB of keys and values ([`changes_max`](Watch::changes_max),
    /// [`bytes_max`](Watch::bytes_max)). If it is full, the watch returns [`Notice::Lagged`] in
    /// place of the commits that did not fit. A writer never waits for a watch.
    ///
    /// ```
    /// use codex_core::{Change, Notice, Store};
    ///
    /// let store = Store::in_memory()?;
    /// let mut watch = store.watch("user/")?;
    /// store.set("user/1", "Ada")?;
    /// store.set("visits", &1)?; // begins with something else
    /// store.remove("user/1")?;
    ///
    /// let Some(Notice::Commit(commit)) = watch.next() else { panic!("it is committed") };
    /// let [Change::Set(entry)] = commit.changes() else { panic!("it is one change") };
    /// assert_eq!((entry.key(), entry.value::<&str>()?), (&b"user/1"[..], "Ada"));
    ///
    /// let Some(Notice::Commit(commit)) = watch.next() else { panic!("it is committed") };
    /// assert!(matches!(commit.changes(), [Change::Removed(key)] if key == "user/1"));
    /// assert!(watch.try_next().is_none());
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage) if the store is read-only, closed or poisoned. A
    /// store that [follows](crate::OpenOptions::follow) a writer can be watched.
    #[doc(alias("subscribe", "watch_prefix", "listen", "change_stream"))]
    pub fn watch(&self, prefix: impl AsRef<[u8]>) -> Result<Watch> {
        self.inner.check_watchable()?;
        Ok(self.inner.engine.watch(None, prefix.as_ref())?)
    }
}

impl Watch {
    pub(crate) fn new(mailbox: Arc<Mailbox>, start: Seq, clock: Arc<dyn Clock>) -> Self {
        Self { mailbox, start, clock, replay: None, made_by: std::process::id() }
    }

    /// Returns the number of the last commit before the watch. Each later one that changes a
    /// watched key is returned.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// store.set("a", &1)?;
    /// assert_eq!(store.watch("")?.start(), 1);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn start(&self) -> Seq {
        self.start
    }

    /// Sets the number of changes that may wait in the mailbox. Default: 4,096. A commit of more
    /// changes than the limit is still put into an empty mailbox, so that it can be returned.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let store = Store::in_memory()?;
    /// let watch = store.watch("user/")?.changes_max(100_000).bytes_max(256 << 20);
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn changes_max(self, count: usize) -> Self {
        self.mailbox.set_changes_max(count);
        self
    }

    /// Sets the number of bytes that the keys and values in the mailbox may have. Default: 16 MiB.
    /// A larger commit is still put into an empty mailbox.
    ///
    /// A removed key counts with the value that it had, which stays in memory as long as the key.
    pub fn bytes_max(self, count: usize) -> Self {
        self.mailbox.set_bytes_max(count);
        self
    }

    /// Returns the next notice if there is one, without waiting.
    ///
    /// ```
    /// # use codex_core::Store;
    /// let store = Store::in_memory()?;
    /// let mut watch = store.watch("")?;
    /// assert!(watch.try_next().is_none());
    /// store.set("a", &1)?;
    /// assert!(watch.try_next().is_some());
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    #[doc(alias = "try_recv")]
    pub fn try_next(&mut self) -> Option<Notice> {
        if self.is_of_parent() {
            return None;
        }
        loop {
            match self.step() {
                Step::Notice(notice) => return Some(notice),
                Step::Busy => continue,
                Step::Idle => {}
            }
            let Poll::Ready(notice) = self.mailbox.take() else { return None };
            if let Some(notice) = self.unless_replayed(notice?) {
                return Some(notice);
            }
        }
    }

    /// Returns the next notice, and waits for it at most for `limit`. Returns `None` after that
    /// time, and at the end of the watch: [`is_ended`](Self::is_ended) tells which.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # use std::time::Duration;
    /// let store = Store::in_memory()?;
    /// let mut watch = store.watch("")?;
    /// assert!(watch.next_timeout(Duration::from_millis(1)).is_none() && !watch.is_ended());
    /// store.close()?;
    /// assert!(watch.next_timeout(Duration::MAX).is_none() && watch.is_ended());
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    #[doc(alias = "recv_timeout")]
    pub fn next_timeout(&mut self, limit: Duration) -> Option<Notice> {
        if self.is_of_parent() {
            return None;
        }
        let until = self.clock.monotonic().saturating_add(limit);
        loop {
            match self.step() {
                Step::Notice(notice) => return Some(notice),
                Step::Busy if self.clock.monotonic() >= until => return None,
                Step::Busy => continue,
                Step::Idle => {}
            }
            let notice = self.mailbox.wait_until(until, &*self.clock)?;
            if let Some(notice) = self.unless_replayed(notice) {
                return Some(notice);
            }
        }
    }

    /// Returns true if the store was closed or poisoned, and all notices were returned.
    pub fn is_ended(&self) -> bool {
        let is_replayed = self.replay.as_ref().is_none_or(|replay| replay.is_done());
        self.is_of_parent() || is_replayed && self.mailbox.is_ended()
    }

    /// Returns the next notice, or arranges that the task of `cx` is woken when there is one:
    /// `poll_next` of `futures::Stream`, for an async runtime without that trait. The waker is
    /// called by the thread that commits, under no lock, so it may use the store.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # fn block_on<F: Future>(future: F) -> F::Output {
    /// #     let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    /// #     let mut future = std::pin::pin!(future);
    /// #     loop {
    /// #         if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut cx) {
    /// #             return output;
    /// #         }
    /// #     }
    /// # }
    /// use std::future::poll_fn;
    ///
    /// let store = Store::in_memory()?;
    /// let mut watch = store.watch("")?;
    /// store.set("a", &1)?;
    /// let first = async { poll_fn(|cx| watch.poll_next(cx)).await };
    /// # let first = block_on(first);
    /// # assert!(first.is_some());
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Notice>> {
        if self.is_of_parent() {
            return Poll::Ready(None);
        }
        loop {
            match self.step() {
                Step::Notice(notice) => return Poll::Ready(Some(notice)),
                Step::Busy => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Step::Idle => {}
            }
            match self.mailbox.poll(cx.waker()) {
                Poll::Ready(Some(notice)) => {
                    if let Some(notice) = self.unless_replayed(notice) {
                        return Poll::Ready(Some(notice));
                    }
                }
                other => return other,
            }
        }
    }

    /// Returns the next commit of the past, for a watch that reads it from a ledger.
    fn step(&mut self) -> Step {
        self.replay.as_mut().map_or(Step::Idle, |replay| replay.step())
    }

    /// Returns a notice of the mailbox, unless it is a gap whose commits can be read from a ledger.
    fn unless_replayed(&mut self, notice: Notice) -> Option<Notice> {
        if let (Notice::Lagged { first, last }, Some(replay)) = (&notice, &mut self.replay)
            && replay.begin(*first, *last)
        {
            return None;
        }
        Some(notice)
    }

    /// Returns true in a process that `fork` created, in which no thread fills the mailbox.
    fn is_of_parent(&self) -> bool {
        std::process::id() != self.made_by
    }
}

impl Iterator for Watch {
    type Item = Notice;

    /// Waits for the next notice. Returns `None` if the store was closed or poisoned.
    fn next(&mut self) -> Option<Notice> {
        if self.is_of_parent() {
            return None;
        }
        loop {
            match self.step() {
                Step::Notice(notice) => return Some(notice),
                Step::Busy => continue,
                Step::Idle => {}
            }
            let notice = self.mailbox.wait()?;
            if let Some(notice) = self.unless_replayed(notice) {
                return Some(notice);
            }
        }
    }
}

impl FusedIterator for Watch {}

/// Shows no prefix, because it is the beginning of keys.
impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("start", &self.start).finish_non_exhaustive()
    }
}

impl Committed {
    pub(crate) fn new(seq: Seq, time_us: Option<i64>, changes: Vec<Change>) -> Self {
        Self { seq, time_us, changes }
    }

    /// Returns the number of the commit, like [`Snapshot::seq`](crate::Snapshot::seq). A later
    /// commit has a higher number.
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Returns the time of the commit, if it was read from the file of a ledger. A commit that a
    /// watch returns as it is made has none.
    pub fn time(&self) -> Option<SystemTime> {
        self.time_us.map(from_us)
    }

    /// Returns the changes of the watched keys, in the order in which they were made. A watch
    /// returns no commit without one. If a key was changed several times, the last change counts.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }
}

impl Change {
    /// Returns the number of bytes that the change keeps in memory.
    fn bytes(&self) -> usize {
        match self {
            Self::Set(entry) => entry.stored_len(),
            Self::Removed(key) => key.stored_len(),
            Self::Cleared => 0,
        }
    }

    /// Returns true if the change concerns keys that begin with `prefix`.
    pub(crate) fn concerns(&self, prefix: &[u8]) -> bool {
        match self {
            Self::Set(entry) => entry.key().starts_with(prefix),
            Self::Removed(key) => key.starts_with(prefix),
            Self::Cleared => true,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use crate::Store;

    #[test]
    fn a_watch_in_a_forked_child_ends_at_once() {
        let store = Store::in_memory().unwrap();
        let mut watch = store.watch("").unwrap();
        store.set("k", &1).unwrap();
        watch.made_by += 1;
        assert!(watch.is_ended() && watch.try_next().is_none() && watch.next().is_none());
        assert!(watch.next_timeout(Duration::MAX).is_none());
        let polled = watch.poll_next(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Ready(None)));
        watch.made_by -= 1;
        assert!(watch.next().is_some());
    }
}

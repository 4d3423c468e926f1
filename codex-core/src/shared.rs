//! The API of a store on several machines, over a log that they share.

mod pieces;

use std::time::Duration;

use codex_storage::batch::Seq;
pub use codex_storage::shared::{
    AppendError, Buried, Client, EngineFault, Entry, Limits, Memory, PartSink, Position, ReadFault,
    RecordName, Session, SharedError, SharedLog, Slot, Usage, Versioned, WriteFault,
};

#[cfg(feature = "etcd")]
pub use codex_storage::shared::{Etcd, Tls};

use crate::error::Result;
use crate::store::Store;
pub(crate) use pieces::Pieces;

/// How far a node of a shared store has read the log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lag {
    /// The last commit that the store shows.
    pub seq: Seq,
    /// Whether the last call to the log succeeded.
    pub connected: bool,
    /// The time since the last answer of the log. Reads may be as old as this, and as the time that
    /// an answer takes.
    pub silent_for: Duration,
    /// The error of the last call to the log, if it failed.
    pub last_error: Option<String>,
    /// The bytes of the log behind the newest image that this node knows of.
    pub log_bytes: u64,
    /// The last commit of that image. Why the last attempt to write one has failed is in
    /// [`Stats::image_error`](crate::Stats::image_error).
    pub image_seq: Option<Seq>,
}

/// A store that was opened with [`OpenOptions::shared`](crate::OpenOptions::shared).
///
/// A read returns what this node has seen of the log so far, at once and without the network. A
/// write, a conditional write and a transaction are decided in the order of the log, so they are
/// right on every node without these calls.
impl Store {
    /// Waits until this store shows all commits that were acknowledged, on any node, before this
    /// call. Returns the last commit that it shows.
    ///
    /// ```
    /// # use codex_core::{Store, shared::Memory};
    /// # use std::time::Duration;
    /// let log = Memory::new();
    /// let one = Store::options().shared(log.client())?;
    /// let other = Store::options().shared(log.client())?; // usually on another machine
    /// one.set("a", &1)?;
    /// other.read_latest(Duration::from_secs(5))?;
    /// assert_eq!(other.get::<i32>("a")?, Some(1));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Away`](SharedError::Away) if the log does not answer, or not all is read, within
    /// `timeout`. The final errors of [`SharedError`], after which this node reads no further.
    /// `Contradiction` if the store is not shared.
    pub fn read_latest(&self, timeout: Duration) -> Result<Seq> {
        self.inner.check_process()?;
        Ok(self.inner.engine.read_latest(timeout)?)
    }

    /// Waits until this store shows commit `seq`, whose number another node got from a write.
    /// Returns the last commit that it shows.
    ///
    /// # Errors
    /// As [`read_latest`](Self::read_latest).
    pub fn read_at_least(&self, seq: Seq, timeout: Duration) -> Result<Seq> {
        self.inner.check_process()?;
        Ok(self.inner.engine.read_at_least(seq, timeout)?)
    }

    /// Returns how far this store has read the shared log.
    ///
    /// # Errors
    /// `Contradiction` if the store is not shared.
    pub fn lag(&self) -> Result<Lag> {
        Ok(self.inner.engine.lag()?)
    }
}

//! The options of a store on a shared log.

use std::sync::Arc;
use std::time::Duration;

use codex_backup::remote::Target;
use codex_storage::CheckpointPolicy;
use codex_storage::shared::SharedLog;
use codex_storage::storage::Durability;

use super::OpenOptions;
use super::validate::contradiction;
use crate::backup::BackupOptions;
use crate::error::Result;
use crate::open;
use crate::store::Store;

/// A store on a shared log.
impl OpenOptions {
    /// Sets the longest time for which a write of a shared store waits for the log. After it, the
    /// write is [in doubt](crate::Error::is_in_doubt). Default: 5 seconds.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = Some(timeout);
        self
    }

    /// Sets where a shared store keeps its images, for example a folder that all nodes reach, or a
    /// bucket. All nodes name the same place, which no other store uses. Default: beside the log,
    /// which takes images of up to 256 MiB.
    ///
    /// When the log behind the newest image has the length of the option
    /// [`checkpoint`](Self::checkpoint) (default here: 64 MiB, and half of the image), one of the
    /// nodes writes an image. Nodes that are opened later begin with it, and the log before the
    /// image before it is removed. An image is a whole store in the Wal form: the file can be
    /// opened by itself.
    pub fn images(mut self, target: Arc<dyn Target>) -> Self {
        self.images = Some(ImagePlace(target));
        self
    }

    /// Returns when a shared store writes an image.
    pub(crate) fn image_policy(&self) -> CheckpointPolicy {
        let default = CheckpointPolicy::default().floor_bytes(LOG_BYTES).ratio(LOG_RATIO);
        self.checkpoint.unwrap_or(default)
    }

    /// Opens a store on `log`, which other nodes may have open too, and reads the log into memory.
    ///
    /// Each node has all data in memory, and reads it there without the network. Each write goes
    /// through the log, and is decided where it stands there: all nodes make the same commits in
    /// the same order, with the same outcomes of conditional writes and transactions. A write
    /// returns when it is in the log and shown by this node.
    ///
    /// - A write without an answer is [in doubt](crate::Error::is_in_doubt). The store stays open,
    ///   and the next write settles the doubt before it begins.
    /// - A read may be older than a commit that another node has acknowledged:
    ///   [`Store::read_latest`] and [`Store::read_at_least`] wait for it. A transaction that only
    ///   reads goes through the log; a snapshot does not.
    /// - A condition compares what was read, not when it was written: a value that was set again to
    ///   an equal one counts as unchanged.
    /// - Entries expire by the clock of the node that writes, and never earlier than by an earlier
    ///   frame. A clock that is ahead makes entries expire early on all nodes.
    ///
    /// With a [`key`](Self::key), a new store is encrypted: the log has its commits sealed, and all
    /// nodes need the key. Who can write to the log can then take away its newest commits, or all,
    /// but change none without being found out. The key cannot be changed.
    ///
    /// The log and the newest image are the only copy.
    ///
    /// ```
    /// # use codex_core::{Store, shared::Memory};
    /// let log = Memory::new(); // in memory, for tests
    /// let one = Store::options().shared(log.client())?;
    /// let other = Store::options().shared(log.client())?;
    /// one.set("a", &1)?;
    /// assert!(other.compare_exchange("a", Some(&1), Some(&2))?);
    /// assert!(!one.compare_exchange("a", Some(&1), Some(&3))?);
    /// assert_eq!(one.get::<i32>("a")?, Some(2));
    /// # Ok::<(), codex_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Contradiction`](crate::StorageError::Contradiction) if an option about files is set;
    /// [`Shared`](crate::StorageError::Shared) if the log cannot be read, or is not that of a
    /// store; `KeyRequired`, `NotEncrypted` and `WrongKey` as for files.
    pub fn shared(&self, log: impl SharedLog + 'static) -> Result<Store> {
        if self.durability.is_some_and(|level| level != Durability::Sync) {
            return contradiction(
                "a shared store waits until the log has a commit: leave `durability` at `Sync`",
            );
        }
        if self.backups != BackupOptions::default() || self.fall_back {
            return contradiction(
                "a shared store has no files on this machine to back up: leave out the options of \
                 backups",
            );
        }
        #[cfg(feature = "crypto")]
        if self.cipher.is_some() && self.key.is_none() {
            return contradiction("`cipher` needs a key: set `key` too");
        }
        let known = Self {
            codec: self.codec,
            threads: self.threads,
            write_timeout: self.write_timeout,
            durability: self.durability,
            images: self.images.clone(),
            checkpoint: self.checkpoint,
            #[cfg(feature = "crypto")]
            key: self.key.clone(),
            #[cfg(feature = "crypto")]
            cipher: self.cipher,
            ..Self::default()
        };
        if *self != known {
            return contradiction(
                "a shared store has no files: set no option but `codec`, `key`, `cipher`, \
                 `checkpoint`, `images` and `write_timeout`",
            );
        }
        open::on_log(Arc::new(log), self.write_timeout.unwrap_or(WRITE_TIMEOUT), self)
    }

    /// Checks the options that contradict files.
    pub(super) fn validate_files(&self) -> Result<()> {
        if self.write_timeout.is_some() || self.images.is_some() {
            return contradiction(
                "`write_timeout` and `images` are about a shared log: open the store with `shared`",
            );
        }
        Ok(())
    }
}

/// The place of the images of a shared store.
#[derive(Debug, Clone)]
pub(crate) struct ImagePlace(pub(crate) Arc<dyn Target>);

impl PartialEq for ImagePlace {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The log behind the newest image with which a node writes another one, in bytes.
const LOG_BYTES: u64 = 64 << 20;
/// The same as a multiple of the length of the image.
const LOG_RATIO: f64 = 0.5;
/// The default of [`OpenOptions::write_timeout`].
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

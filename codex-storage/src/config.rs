//! The configuration with which a storage is opened.

use std::sync::Arc;
use std::time::Duration;

use crate::pack::Compression;
use crate::seal::Keys;
use crate::storage::{Anchor, Durability, Form};
use crate::vfs::Vfs;

/// The options of an opening; pass them to `codex_storage::open`. Write the rest of a literal as
/// `..Config::new(vfs, name)`, because later versions may have more options.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory, the clock and the entropy.
    pub vfs: Vfs,
    /// The file name of the store in that directory, such as `app.db`.
    pub name: String,
    /// The form to create, or to require of an existing store. `None` creates a Wal, and accepts
    /// any form of an existing store.
    pub form: Option<Form>,
    /// Whether a missing store is created.
    pub create: Create,
    /// The access: reading only, or reading and writing.
    pub access: Access,
    /// The durability that a commit needs before it is acknowledged.
    pub durability: Durability,
    /// The key of an encrypted store. A store that is created with a key is encrypted.
    pub keys: Option<Arc<dyn Keys>>,
    /// The compression of the files that are written from now on. A ledger keeps its own until it
    /// is written again, by a change of its root key or by a conversion. `None` keeps that of the
    /// main file, and creates a store without compression.
    pub compression: Option<Compression>,
    /// The reaction to a tail that is neither intact nor shaped like a torn write.
    pub on_damage: OnDamage,
    /// The maximum time to wait for the lock of another handle.
    pub lock_timeout: Duration,
    /// The conditions under which the Wal form checkpoints by itself.
    pub checkpoint: CheckpointPolicy,
    /// A commit that the store must contain. If set, a missing store is not created.
    pub anchor: Option<Anchor>,
    /// Whether to open a store that has commits after the anchored commit, and no longer shows
    /// whether it contains that commit. `Recovered::anchor` reports this case.
    pub accept_unknown_anchor: bool,
}

impl Config {
    /// Returns the defaults for the store `name` in `vfs`: Wal, created if missing, durable writes.
    pub fn new(vfs: Vfs, name: impl Into<String>) -> Self {
        Self {
            vfs,
            name: name.into(),
            form: None,
            create: Create::IfMissing,
            access: Access::ReadWrite,
            durability: Durability::Sync,
            keys: None,
            compression: None,
            on_damage: OnDamage::Refuse,
            lock_timeout: Duration::ZERO,
            checkpoint: CheckpointPolicy::default(),
            anchor: None,
            accept_unknown_anchor: false,
        }
    }
}

/// Whether a missing store is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// A missing store is an error.
    Never,
    /// A missing store is created.
    IfMissing,
    /// An existing store is an error.
    New,
}

/// The access of a handle: reading and writing, reading only, or reading beside a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading and writing, by one handle, under an exclusive lock.
    ReadWrite,
    /// Reading, by any number of handles, under shared locks. Nothing is repaired or changed.
    ReadOnly,
    /// Reading beside a writer, by any number of handles, without a lock. The storage reads on what
    /// is committed: see [`Storage::follow`](crate::storage::Storage::follow). Not for a Snapshot.
    Follow,
}

/// The reaction to a tail that is neither intact nor shaped like a torn write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDamage {
    /// Return `TailSuspect` and change nothing.
    Refuse,
    /// Cut the tail and report it. Damage that is proven is refused in this mode too.
    CutTail,
}

/// The conditions under which the Wal form checkpoints by itself: if the length of the log is at
/// least `floor_bytes`, and at least `ratio` times the length of the image.
///
/// ```
/// use codex_storage::CheckpointPolicy;
///
/// let often = CheckpointPolicy::default().floor_bytes(64 << 10).ratio(0.5);
/// assert_eq!(often.floor_bytes, 64 << 10);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct CheckpointPolicy {
    /// The minimum length of a log for a checkpoint, in bytes.
    pub floor_bytes: u64,
    /// The minimum length of a log for a checkpoint, as a multiple of the length of the image.
    pub ratio: f64,
    /// The maximum estimated length of an image, in bytes, with which a store that was written to
    /// closes into its image alone. `u64::MAX`: at any length, and even if nothing was written.
    pub close_into_image_bytes_max: u64,
}

impl CheckpointPolicy {
    /// Sets [`floor_bytes`](Self#structfield.floor_bytes).
    #[must_use]
    pub fn floor_bytes(self, floor_bytes: u64) -> Self {
        Self { floor_bytes, ..self }
    }

    /// Sets [`ratio`](Self#structfield.ratio), a number above zero.
    #[must_use]
    pub fn ratio(self, ratio: f64) -> Self {
        Self { ratio, ..self }
    }

    /// Sets [`close_into_image_bytes_max`](Self#structfield.close_into_image_bytes_max).
    #[must_use]
    pub fn close_into_image_bytes_max(self, bytes: u64) -> Self {
        Self { close_into_image_bytes_max: bytes, ..self }
    }
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self { floor_bytes: 4 << 20, ratio: 1.0, close_into_image_bytes_max: 1 << 20 }
    }
}

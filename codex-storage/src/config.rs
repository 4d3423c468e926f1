//! What a storage is opened with.

use std::sync::Arc;
use std::time::Duration;

use crate::seal::Keys;
use crate::storage::{Anchor, Durability, Form};
use crate::vfs::Vfs;

/// How to open a storage; hand it to `codex_storage::open`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory, the clock and the entropy.
    pub vfs: Vfs,
    /// The file name of the store in that directory, as `app.db`.
    pub name: String,
    /// The form to create, or to demand of an existing store; `None` creates a Wal and takes what
    /// is there.
    pub form: Option<Form>,
    /// Whether a missing store is created.
    pub create: Create,
    /// Reading or writing.
    pub access: Access,
    /// When a commit counts as done.
    pub durability: Durability,
    /// The key of an encrypted store, or to create one.
    pub keys: Option<Arc<dyn Keys>>,
    /// What to do with a tail that is neither intact nor shaped like a torn write.
    pub on_damage: OnDamage,
    /// How long to wait for the lock of another handle.
    pub lock_timeout: Duration,
    /// When the Wal form checkpoints by itself.
    pub checkpoint: CheckpointPolicy,
    /// A commit that the store must contain. A missing store is not created then.
    pub anchor: Option<Anchor>,
    /// Whether a store is opened that has gone on behind the anchored commit and no longer tells
    /// whether it contains it; `Recovered::anchor` says so then.
    pub accept_unknown_anchor: bool,
}

impl Config {
    /// The defaults for the store `name` in `vfs`: Wal, created when missing, durable writes.
    pub fn new(vfs: Vfs, name: impl Into<String>) -> Self {
        Self {
            vfs,
            name: name.into(),
            form: None,
            create: Create::IfMissing,
            access: Access::ReadWrite,
            durability: Durability::Sync,
            keys: None,
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
    /// A present store is an error.
    New,
}

/// Reading or writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// One handle that writes, under an exclusive lock.
    ReadWrite,
    /// Any number of handles that read, under shared locks; repairs nothing, changes nothing.
    ReadOnly,
}

/// What to do with a tail that is neither intact nor shaped like a torn write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDamage {
    /// Return `TailSuspect` and change nothing.
    Refuse,
    /// Cut the tail and report it. Proven damage is refused all the same.
    CutTail,
}

/// When the Wal form checkpoints by itself: once the log has `floor_bytes` and `ratio` times the
/// bytes of the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CheckpointPolicy {
    /// The smallest log that is worth an image, in bytes.
    pub floor_bytes: u64,
    /// The log's bytes as a multiple of the image's.
    pub ratio: f64,
    /// A store whose image would be at most this long closes into its image alone, in bytes, if
    /// anything was written. `u64::MAX`: any store, and even if nothing was.
    pub close_into_image_bytes_max: u64,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self { floor_bytes: 4 << 20, ratio: 1.0, close_into_image_bytes_max: 1 << 20 }
    }
}

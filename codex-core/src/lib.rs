//! An embedded key-value store for Rust programs whose data fits in memory: every read is served
//! from memory, every acknowledged write is on disk.
//!
//! ```
//! use codex_core::Store;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Note {
//!     title: String,
//!     stars: u32,
//! }
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("notes.db");
//! let store = Store::open(&path)?;
//!
//! // On disk when it returns; any serde type, under any bytes as the key.
//! store.set("note/1", &Note { title: "Locks".into(), stars: 2 })?;
//! let note: Option<Note> = store.get("note/1")?;
//! assert_eq!(note.map(|note| note.stars), Some(2));
//!
//! // Read, change, write, and nothing that another thread writes in between is lost.
//! store.update("note/1", |note: Option<Note>| {
//!     note.map(|note| Note { stars: note.stars + 1, ..note })
//! })?;
//!
//! // All of it or nothing.
//! let mut batch = store.batch();
//! batch.set("note/2", &Note { title: "Logs".into(), stars: 5 })?;
//! batch.set("index/stars", &8_u32)?;
//! batch.commit()?;
//!
//! // In key order, over the store as it is at this moment.
//! for entry in store.prefix("note/") {
//!     println!("{}", entry.value::<Note>()?.title);
//! }
//!
//! store.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The parts
//!
//! - [`Store`]: the handle. Clone it, send it to threads; 32 of them that write at once share one
//!   sync.
//! - [`OpenOptions`]: how to open: [`Form`], [`Durability`], [`Codec`], read-only, and more.
//! - [`Batch`]: several changes as one commit.
//! - [`Snapshot`]: the store as it was at one commit; [`Read`] is what both can do.
//! - [`Iter`], [`Keys`], [`Entry`], [`ValueRef`]: what reading gives: handles that own what they
//!   show, borrow nothing and copy no bytes.
//! - [`Error`]: what can go wrong, with the path, the offset and what to do next.
//! - [`vfs`]: the directory that a store lives in, to be replaced by one in memory or, with the
//!   feature `fault` of `codex-storage`, by a simulated disk that fails; see
//!   [`OpenOptions::open_in`].
//!
//! # What a write survives
//!
//! | level | killed process | power loss |
//! |---|---|---|
//! | [`Durability::Sync`], the default | every write | every write |
//! | [`Durability::Interval`] | every write (*) | those older than the interval |
//! | [`Durability::Os`] | every write | what the system had written by itself |
//!
//! Of writes that returned `Ok`; (*) in the Snapshot form, those older than the interval.
//!
//! At every level the store is, after a crash, as it was after one of its commits: a batch is
//! there wholly or not at all, and no commit without those before it. A write that returned an
//! error is not there, unless the error [is in doubt](Error::is_in_doubt): then the store refuses
//! further writes, and reopening it decides.
//!
//! # Good to know
//!
//! - All data is in memory: about 1.7 times keys and values for small ones.
//! - Calls that write block. Under an async runtime, make them in its pool for blocking work.
//! - A checkpoint writes the whole state beside the running store. Until it is in place, the disk
//!   holds the old image, the log and the new image.
//! - The lock that keeps a second process out is advisory, and network file systems may not have
//!   it: keep stores on local disks.
//! - Files that are removed or replaced while the store is open are noticed before the next write
//!   at the level `Sync` is acknowledged, and by `flush`, `checkpoint` and `close` at every level:
//!   the error [is in doubt](Error::is_in_doubt). `backup_to` then writes what is in memory
//!   elsewhere. A log alone that was removed is written again by the next checkpoint.
//! - One file mounted into a container cannot be replaced: mount its folder.
//! - A handle is of no use in a child made by `fork`: what writes, syncs, reads files or waits for
//!   a thread returns [`Error::ForkedChild`] there. Reads from memory are not checked, since that
//!   would slow each, and may wait for ever. Open the store after forking.
//! - Linux and macOS only: elsewhere it does not compile. Tested on Linux.
//!
//! # Features
//!
//! - `crypto`, on by default: encryption at rest, [`OpenOptions::key`].
//! - `json`, on by default: [`Codec::Json`].
mod backup;
mod batch;
mod commit;
mod convert;
mod cursor;
mod engine;
mod entry;
mod error;
mod inner;
#[doc(hidden)]
pub mod internals;
mod locate;
mod locks;
mod map;
mod open;
mod options;
mod own;
mod rank;
mod read;
#[cfg(feature = "crypto")]
mod rekey;
mod repair;
#[cfg(feature = "crypto")]
mod seal;
#[cfg(test)]
mod seeded;
mod snapshot;
mod stats;
mod store;
mod update;
mod value;

pub use backup::{BackupEvent, BackupStats, Backups, Moment};
pub use batch::Batch;
pub use codex_backup::{
    Entry as BackupEntry, Error as BackupError, NewestGood, Phase, Policy as BackupPolicy,
    Progress, Restored, Rotated, Trust, Verification as BackupVerification,
};
#[cfg(feature = "crypto")]
pub use codex_crypto as crypto;
pub use codex_storage::batch::Seq;
pub use codex_storage::storage::{
    Anchor, AnchorFound, Cut, Durability, Form, Recovered, StorageStats,
};
pub use codex_storage::{CheckpointPolicy, Error as StorageError, OnDamage, Verified, vfs};
pub use convert::{Conversion, Converted};
pub use cursor::{Entry, Iter, Key, Keys};
pub use error::{Error, Result};
pub use options::OpenOptions;
pub use read::Read;
pub use repair::repair_header;
#[cfg(feature = "crypto")]
pub use repair::repair_header_with;
pub use snapshot::Snapshot;
pub use stats::Stats;
pub use store::Store;
pub use value::{Codec, ValueRef};

/// Compiles the examples of the pages that a newcomer reads first.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../README.md")]
    mod workspace {}
    #[doc = include_str!("../README.md")]
    mod core {}
}

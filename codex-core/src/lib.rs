//! An embedded key-value store for Rust programs whose data fits in memory. Every read is served
//! from memory, and every acknowledged write is on disk.
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
//! The [guide] has a [cookbook](guide::cookbook) of complete small programs, pages on
//! [keys](guide::keys) and [codecs](guide::codecs), and [tables](guide::coming_from) of the calls
//! of other libraries.
//!
//! # The parts
//!
//! - [`Store`]: the handle of an open store. Clone it and send it to threads. 32 threads that write
//!   at the same time share one sync.
//! - [`OpenOptions`]: the options of an opening: [`Form`], [`Durability`], [`Codec`], read-only,
//!   and more.
//! - [`Batch`]: several changes as one commit.
//! - [`Table`]: values of one type under keys of another, apart from all other keys. [`TableKey`]:
//!   the types of keys.
//! - [`Watch`]: the later commits that change keys with a prefix, each a [`Notice`] with its
//!   [`Change`]s.
//! - [`AsyncStore`]: the handle for async code, whose writes are futures.
//! - [`Snapshot`]: the state of the store after one commit. [`Readable`] has the methods that both
//!   a store and a snapshot have. [`KeyRange`]: the forms of a range of keys.
//! - [`Iter`], [`Keys`], [`Values`], [`Entry`], [`Key`], [`ValueRef`]: the results of reading. They
//!   are handles that own their content, borrow nothing and copy no bytes.
//! - [`Error`]: the cause of a failure, with the path, the offset and the next step.
//! - [`vfs`]: the directory in which a store lives. It can be replaced by one in memory or, with
//!   the feature `fault` of `codex-storage`, by a simulated disk that fails; see
//!   [`OpenOptions::open_in`].
//!
//! # Durability of a write
//!
//! | level | killed process | power loss |
//! |---|---|---|
//! | [`Durability::Sync`], the default | every write | every write |
//! | [`Durability::Interval`] | every write (*) | those older than the interval |
//! | [`Durability::Os`] | every write | those that the system had already written |
//!
//! The table is about writes that returned `Ok`. (*) In the Snapshot form: those older than the
//! interval.
//!
//! At every level, the store is after a crash in the state after one of its commits: a batch is
//! complete or absent, and no commit is there without the earlier ones. A write that returned an
//! error is absent, unless the error [is in doubt](Error::is_in_doubt). Then the store refuses
//! further writes, and recovery decides when it is opened again.
//!
//! # Limits
//!
//! - All data is in memory. Small keys and values take 1.7 to 1.9 times their size.
//! - A call of a [`Store`] that writes blocks. Tasks of an async runtime write with an
//!   [`AsyncStore`].
//! - A checkpoint writes the whole state beside the running store. Until the image is in place, the
//!   disk holds the old image, the log and the new image.
//! - The lock that keeps out a second process is advisory, and network file systems may not support
//!   it: keep stores on local disks.
//! - If files are removed or replaced while the store is open, the store notices it before the next
//!   write at the level `Sync` is acknowledged, and in `flush`, `checkpoint` and `close` at every
//!   level. The error [is in doubt](Error::is_in_doubt). `backup_to` can then write the state in
//!   memory to another place. If only a log was removed, the next checkpoint writes it again.
//! - A single file that is mounted into a container cannot be replaced: mount its directory.
//! - A handle must not be used in a process that `fork` created. Each call that writes, syncs,
//!   reads files or waits for a thread returns [`Error::ForkedChild`] there, and a [`Watch`] ends.
//!   Reads from memory are not checked, because the check would slow each of them, and may wait
//!   forever. Open the store after forking.
//! - The crate compiles only on Linux and macOS, and is tested on Linux.
//!
//! # Features
//!
//! - `crypto`, on by default: encryption at rest, see [`OpenOptions::key`].
//! - `bincode`, on by default: the codec [`Codec::Bincode`].
//! - `json`, on by default: the codec [`Codec::Json`].
//! - `remote`: backups outside of the machine (`Store::back_up_remote`) and a continuous archive
//!   (`OpenOptions::archive`), in a folder or at any place that implements `remote::Target`.
//! - `s3`: a bucket as such a place (`remote::S3Options`).
//! - `shared`: the same store on several machines, over a log that they share
//!   (`OpenOptions::shared`). `shared::Memory` is a log in memory, for tests.
//! - `etcd`: such a log on a cluster of etcd (`shared::Etcd`).
//! - `stream`: `Watch::stream`, a `futures_core::Stream` of notices.
//! - `tracing`: spans for openings, recoveries, groups of commits, checkpoints, backups, archives
//!   and rekeys; events for a log whose end was cut, a failed backup or archive, and a store that
//!   refuses writes. A subscriber runs on the threads of the store and must not call it.
//!
//! One of the two codecs must be on. The default codec is bincode if it is on. Another crate of the
//! program can turn it on, so a program that relies on JSON names it ([`OpenOptions::codec`]).

#[cfg(not(any(feature = "bincode", feature = "json")))]
compile_error!("codex-core needs a codec for values: enable the feature `bincode` or `json`");

#[cfg(feature = "remote")]
mod archive;
mod attempt;
mod backup;
mod batch;
mod callback;
mod commit;
mod convert;
mod cursor;
mod engine;
mod entry;
mod error;
mod expiry;
mod files;
mod follow;
#[cfg(any(doc, doctest))]
pub mod guide;
mod handle;
mod health;
mod history;
mod ids;
mod inner;
#[doc(hidden)]
pub mod internals;
mod locate;
mod locks;
mod map;
mod moment;
mod open;
mod options;
mod outer;
mod own;
mod pop;
mod progress;
mod promise;
mod range;
mod rank;
mod read;
#[cfg(feature = "crypto")]
mod rekey;
mod repair;
#[cfg(feature = "crypto")]
mod seal;
#[cfg(test)]
mod seeded;
#[cfg(feature = "shared")]
pub mod shared;
mod signposts;
mod snapshot;
mod stats;
mod store;
mod table;
mod tasks;
mod trace;
mod transaction;
mod update;
mod value;
mod watch;

#[cfg(feature = "remote")]
pub use archive::{Archive, ArchiveEvent, ArchiveStats};
pub use backup::{BackupEvent, BackupStats, Backups};
pub use batch::Batch;
#[cfg(feature = "remote")]
pub use codex_backup::remote;
pub use codex_backup::{
    BackupEntry, BackupPolicy, BackupVerification, Error as BackupError, NewestGood, Phase,
    Progress, Restored, Rotated, Trust,
};
pub use codex_storage::batch::Seq;
pub use codex_storage::storage::{
    Anchor, AnchorFound, Cut, Durability, Form, Recovered, StorageStats,
};
pub use codex_storage::{
    CheckpointPolicy, Compression, Error as StorageError, FileEntry, FileRole, OnDamage,
    ParseError, RestorePoint, Verified, vfs,
};
pub use convert::{Conversion, Converted};
pub use cursor::{Entry, Iter, Key, Keys, Values};
pub use error::{Error, Result};
pub use health::{Health, Writes};
pub use history::{Changes, History, Revision};
pub use options::OpenOptions;
pub use range::{KeyRange, Prefix};
pub use read::Readable;
pub use repair::repair_header;
#[cfg(feature = "crypto")]
pub use repair::repair_header_with;
#[doc(hidden)]
pub use signposts::open;
pub use snapshot::Snapshot;
pub use stats::{FollowStats, Stats};
pub use store::Store;
pub use table::{
    Index, IndexInfo, IndexKeys, IndexReport, IndexRows, Rows, Table, TableInfo, TableKey,
    TablePrefix, TableSpec,
};
pub use tasks::{AsyncStore, Job, Submitted};
pub use transaction::Transaction;
pub use value::{Codec, ValueRef};
#[cfg(feature = "stream")]
pub use watch::WatchStream;
pub use watch::{Change, Committed, Notice, Watch};

/// The keys and ciphers of encrypted stores, with the feature `crypto`.
#[cfg(feature = "crypto")]
pub mod crypto {
    pub use codex_crypto::{Cipher, Error, KdfCosts, Key, KeyKind};
}

/// Compiles the examples of the page of the package.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod page {}

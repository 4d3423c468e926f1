//! Pages to read, without code to call. They exist only in the documentation.
//!
//! - [`cookbook`]: complete small programs. Sessions, a job queue, a secondary index, a time
//!   series, settings whose schema changes, an event log with a return to an earlier point, and
//!   tests on a simulated disk.
//! - [`keys`]: numbers, several parts and prefixes in keys.
//! - [`codecs`]: the choice of the codec, and the mistakes that no codec can detect.
//! - [`coming_from`]: the calls of redb, sled, fjall, SQLite and PickleDB, and the calls here that
//!   do the same.
//!
//! Every program and example of these pages is compiled and run by the tests of this crate.

#[doc(alias("schema", "migration"))]
pub mod codecs;
#[doc(alias("examples", "ttl", "expiry", "queue", "index", "migration"))]
pub mod cookbook;
#[doc(alias("table", "tree", "keyspace", "column_family", "bucket"))]
pub mod keys;

#[doc(alias("redb", "sled", "fjall", "sqlite", "pickledb"))]
#[doc = include_str!("guide/coming_from.md")]
pub mod coming_from {}

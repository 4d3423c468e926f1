//! Rotating, verified backups of files.
//!
//! [`Backups`] keeps `NAME.bak.1` (the newest) to `NAME.bak.<n>` next to a file. Each backup is
//! complete, synced and verified before any name shifts. At every instant, including a crash, a
//! good backup stays good until a newer verified one replaces it. [`copy_to`] makes one verified
//! copy in another place, [`Backups::restore`] puts a backup back, and [`BackupPolicy`] decides
//! when a rotation is due.
//!
//! An [`Inspect`] identifies a file and its version; [`Whole`] does so for any file. All access to
//! the disk goes through [`codex_storage::vfs`], and all names come from [`codex_storage::names`].

mod adopt;
mod backups;
mod copy;
mod error;
mod inspect;
mod intent;
mod job;
mod list;
mod meter;
mod pending;
mod policy;
mod receipts;
#[cfg(feature = "remote")]
pub mod remote;
mod restore;
mod rotation;
mod slots;
mod text;

pub use adopt::Adopted;
pub use backups::{Backups, Options};
pub use codex_storage::names::backup_index;
pub use codex_storage::vfs;
pub use copy::{
    Copied, CopyOptions, Method, Phase, Progress, Source, Watch, WriteAt, Writer,
    check_destination, copy_to, unwatched,
};
pub use error::{Cause, Error, Result};
pub use inspect::{Depth, Facts, Inspect, InspectError, Prefix, Reading, Trust, Whole};
pub use list::{BackupEntry, BackupVerification, NewestGood};
pub use pending::Pending;
pub use policy::{BackupPolicy, Event, Last, State};
pub use receipts::Verified;
pub use restore::Restored;
pub use rotation::Rotated;

/// The example of the README, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

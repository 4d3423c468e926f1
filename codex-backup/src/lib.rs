//! Rotating, verified backups of files.
//!
//! [`Backups`] keeps `NAME.bak.1` (the newest) to `NAME.bak.<n>` beside a file: each is complete,
//! synced and verified before any name shifts, so that at every instant, a crash included, each
//! backup that was good stays good until a newer verified one replaces it. [`copy_to`] makes one
//! verified copy elsewhere, [`Backups::restore`] puts a backup back, and [`Policy`] says when a
//! rotation is due. What a file is, whose and which version, an [`Inspect`] tells; [`Whole`] does
//! it for any file. All access to the disk goes through [`codex_storage::vfs`], and all names come
//! from [`codex_storage::names`].

mod backups;
mod copy;
mod error;
mod inspect;
mod intent;
mod job;
mod list;
mod meter;
mod policy;
mod receipts;
mod restore;
mod rotation;
mod slots;

pub use backups::{Backups, Options};
pub use codex_storage::names::backup_index;
pub use codex_storage::vfs;
pub use copy::{
    Copied, CopyOptions, Method, Phase, Progress, Source, Watch, WriteAt, Writer,
    check_destination, copy_to, unwatched,
};
pub use error::{Cause, Error, Result};
pub use inspect::{Depth, Facts, Inspect, InspectError, Prefix, Reading, Trust, Whole};
pub use list::{Entry, NewestGood, Verification};
pub use policy::{Event, Last, Policy, State};
pub use receipts::Verified;
pub use restore::{Pending, Restored};
pub use rotation::{Adopted, Rotated};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

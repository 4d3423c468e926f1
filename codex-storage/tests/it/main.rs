//! The tests of the three forms and of the disks below them, one module for each subject.
#![allow(
    missing_docs,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, says what it ran, and is a program of its own"
)]

#[path = "../common/mod.rs"]
mod common;

mod archived;
mod closed;
mod conformance;
#[cfg(feature = "fault")]
mod convert;
#[cfg(feature = "fault")]
mod crafted;
mod crash_forms;
mod flip;
mod golden_image;
mod golden_log;
mod image;
mod io_error;
mod ledger;
mod limits;
mod log_space;
mod main_file;
mod open;
mod packed;
mod power;
#[cfg(feature = "fault")]
mod quiet;
mod records;
#[cfg(feature = "fault")]
mod salvage;
mod sealed_keys;
mod sealed_limits;
#[cfg(feature = "shared")]
mod shared;
#[cfg(feature = "shared")]
mod shared_forged;
#[cfg(feature = "shared")]
mod shared_meta;
/// The same tests on an encrypted store.
#[cfg(feature = "shared")]
#[path = "shared.rs"]
#[allow(clippy::duplicate_mod, reason = "the tests ask for the name of their module")]
mod shared_sealed;
mod snapshot;
#[cfg(feature = "fault")]
mod space;
#[cfg(feature = "fault")]
mod stale;
mod torn;
#[cfg(feature = "fault")]
mod untouched;
mod vfs_conformance;
mod vfs_crash;
mod vfs_fault;
mod vfs_model;
mod wal;
mod wal_mixed;

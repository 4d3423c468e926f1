//! The tests of rotation, copies and restores, with one module for each subject.
#![allow(
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

mod archive;
mod archive_crash;
mod archive_model;
mod archive_prune;
mod copy;
mod crash;
mod foreign;
mod io_error;
mod model;
mod remote;
mod remote_crash;
mod restore;
mod rotation;
mod stale;
mod twice;

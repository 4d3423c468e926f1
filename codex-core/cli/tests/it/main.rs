//! Tests of the program: each runs the built binary and checks its output and its exit code.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::panic,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a test fails by panicking, and names its files itself"
)]

mod backups;
#[cfg(feature = "browser")]
mod browser;
mod change;
mod common;
mod compare;
mod edit;
mod failures;
mod generate;
mod go;
mod interrupt;
mod look;
mod newcomer;
mod prompt;
mod remote;
mod repair;
mod secrets;
mod shell;
mod tables;
mod terminal;
mod tour;
mod transfer;
mod view;

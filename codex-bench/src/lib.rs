//! The parts that the programs in `src/bin` share: workloads, peers and the demo of CodexDB.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "programs, not libraries: they print, time themselves and use the file system"
)]

pub mod args;
pub mod crew;
pub mod disk;
pub mod group;
pub mod numbers;
pub mod report;
pub mod run;
pub mod table;
pub mod tree;

use std::process::ExitCode;

use args::Args;
use pico_args::Arguments;

/// Runs a program with the arguments of this process. Prints an error after the name of the
/// program.
pub fn program(name: &str, run: impl FnOnce(Args) -> Outcome) -> ExitCode {
    match run(Args::new(Arguments::from_env())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Compiles the examples of the first page of the repository, which no published package contains.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod page {}

/// The result of a program of this crate. Any error is printed as its text.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

//! `codexdb`: looks into a store, changes it, and scripts it from a shell.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

mod backup;
mod change;
mod cli;
mod diff;
mod doctor;
mod edit;
mod failure;
mod find;
mod generate;
mod go;
mod json;
mod ledger;
mod look;
mod out;
mod prefix;
mod progress;
mod range;
mod repair;
mod rewrite;
mod secret;
mod serve;
mod shell;
mod tables;
mod target;
mod terminal;
mod transfer;
mod value;
mod whole;

use std::process::ExitCode;

use clap::Parser;
use cli::Cli;
use codexdb::{key, time, types};
use failure::Failure;
use out::Out;

/// The result of a command: whether the answer is yes, which is the exit code 0, or no, which is 1.
type Outcome<T = bool> = Result<T, Failure>;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // The write fails if the reader is closed early, as by `head`.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { failure::USAGE } else { failure::YES });
        }
    };
    let mut out = Out::new(cli.json);
    let answer = cli.command.run(&mut out);
    // Order: output from before an error is printed before the error.
    let printed = out.flush();
    match answer.and_then(|answer| printed.map(|()| answer)) {
        Ok(answer) => ExitCode::from(if answer { failure::YES } else { failure::NO }),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code())
        }
    }
}

//! The tasks of the workspace: a file each, and a line in `COMMANDS`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

mod bench;
mod build;
mod check;
mod ci;
mod json;
mod layers;
mod licences;
mod loom;
mod mutants;
mod program;
mod purge;
mod soak;
mod start;
mod test;
mod tidy;
mod workspace;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use workspace::Workspace;

/// Every command, in the order in which the list shows them.
const COMMANDS: &[Command] = &[
    start::DEMO,
    test::COMMAND,
    build::COMMAND,
    check::COMMAND,
    tidy::COMMAND,
    layers::COMMAND,
    licences::COMMAND,
    loom::COMMAND,
    mutants::COMMAND,
    start::SCALING,
    start::HIGH_VOLUME,
    start::STALLS,
    start::HOT_BACKUP,
    bench::COMMAND,
    soak::COMMAND,
    purge::COMMAND,
    ci::COMMAND,
];

/// What a command gives back: a note for its last line, or what went wrong and what to do next.
type Outcome<T = String> = Result<T, String>;

/// One task.
struct Command {
    /// What the user types.
    name: &'static str,
    /// The arguments it takes, as the list shows them.
    args: &'static str,
    /// One line for the list.
    about: &'static str,
    /// What it does with the words after its name.
    run: fn(&Workspace, &[String]) -> Outcome,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = words.split_first() else {
        list();
        return ExitCode::SUCCESS;
    };
    if ["help", "--help", "-h"].contains(&name.as_str()) {
        list();
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|c| c.name == name) else {
        eprintln!("there is no command `{name}`; these are the commands:\n");
        list();
        return ExitCode::from(2);
    };
    if rest.iter().any(|word| word == "--help" || word == "-h") && !command.args.contains("ARGS") {
        println!("cargo xtask {} {}\n\n{}", command.name, command.args, command.about);
        return ExitCode::SUCCESS;
    }
    match Workspace::find().and_then(|workspace| (command.run)(&workspace, rest)) {
        Ok(note) if note.is_empty() => ExitCode::SUCCESS,
        Ok(note) => {
            println!("{name}: ok, {note}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn list() {
    let mut text = "cargo xtask COMMAND\n\n".to_owned();
    for command in COMMANDS {
        let usage = format!("{} {}", command.name, command.args);
        let _ = writeln!(text, "  {usage:<32} {}", command.about);
    }
    // Whoever reads the list through `head` closes it early.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Refuses words that a command does not know: a mistyped flag must not pass for a check that ran.
fn only(known: &[&str], words: &[String]) -> Outcome<()> {
    match words.iter().find(|word| !known.contains(&word.as_str())) {
        None => Ok(()),
        Some(word) if known.is_empty() => Err(format!("takes no argument, but got `{word}`")),
        Some(word) => Err(format!("does not know `{word}`; it takes {}", known.join(", "))),
    }
}

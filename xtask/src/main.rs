//! The tasks of the workspace. Each has a file, and a line in `COMMANDS`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its user")]

mod api;
mod bench;
mod browser;
mod bucket;
mod build;
mod check;
mod ci;
mod cluster;
mod install;
mod layers;
mod licences;
mod loom;
mod mutants;
mod package;
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

use pico_args::Arguments;
use workspace::Workspace;

/// Every command, in the order of the list of commands.
const COMMANDS: &[Command] = &[
    start::DEMO,
    test::COMMAND,
    browser::COMMAND,
    bucket::COMMAND,
    cluster::COMMAND,
    cluster::PERFORMANCE,
    build::COMMAND,
    install::COMMAND,
    check::COMMAND,
    api::COMMAND,
    tidy::COMMAND,
    layers::COMMAND,
    package::COMMAND,
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

/// The result of a command: a note for its last line, or the error with the next step.
type Outcome<T = String> = Result<T, String>;

/// One task.
struct Command {
    /// The name on the command line.
    name: &'static str,
    /// The arguments, as the list of commands shows them.
    args: &'static str,
    /// The description in the list of commands, one line.
    about: &'static str,
    /// The function that runs the command with the words after its name.
    run: fn(&Workspace, Arguments) -> Outcome,
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let name = words.next().unwrap_or_else(|| "help".into()).to_string_lossy().into_owned();
    let mut words = Arguments::from_vec(words.collect());
    if ["help", "--help", "-h"].contains(&name.as_str()) {
        list();
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|c| c.name == name) else {
        eprintln!("there is no command `{name}`; these are the commands:\n");
        list();
        return ExitCode::from(2);
    };
    if !command.args.contains("ARGS") && words.contains(["-h", "--help"]) {
        println!("{}\n\n{}", command.usage(), command.about);
        return ExitCode::SUCCESS;
    }
    match Workspace::find().and_then(|workspace| (command.run)(&workspace, words)) {
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

impl Command {
    /// Returns the usage line.
    fn usage(&self) -> String {
        format!("cargo xtask {} {}", self.name, self.args).trim_end().to_owned()
    }

    /// Refuses words that the command did not use. A mistyped flag must not look like a check that
    /// ran.
    fn done(&self, words: Arguments) -> Outcome<()> {
        match words.finish().first() {
            None => Ok(()),
            Some(word) => {
                Err(format!("does not know `{}`\nusage: {}", word.display(), self.usage()))
            }
        }
    }
}

/// Returns the next word that is not a flag. The flags with values must be parsed before.
fn free_word(words: &mut Arguments) -> Outcome<Option<String>> {
    words.subcommand().map_err(|e| e.to_string())
}

fn list() {
    let mut text = "cargo xtask COMMAND\n\n".to_owned();
    for command in COMMANDS {
        let usage = format!("{} {}", command.name, command.args);
        let _ = writeln!(text, "  {usage:<38} {}", command.about);
    }
    // The write fails if the reader is closed early, as by `head`.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

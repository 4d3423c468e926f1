//! A line of the shell, read as a command of the command line with the store left out.

use std::ffi::OsString;
use std::path::Path;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use super::words::{Word, Words, quote};
use crate::Outcome;
use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::key;

/// The request of a line.
pub(super) enum Statement {
    Nothing,
    Begin,
    Commit,
    Rollback,
    Exit,
    /// Print this text.
    Help(String),
    Run {
        command: Box<Command>,
        json: bool,
    },
}

/// Reads lines for one store.
pub(super) struct Reader {
    commands: clap::Command,
    path: OsString,
}

impl Reader {
    pub(super) fn new(path: &Path) -> Self {
        Self { commands: commands(), path: path.into() }
    }

    /// Returns the request of `line`.
    pub(super) fn read(&mut self, line: &str) -> Outcome<Statement> {
        if line.trim_start().starts_with('#') {
            return Ok(Statement::Nothing);
        }
        let Words { words, open } = Words::of(line);
        if let Some(open) = open {
            return Err(Failure::Usage(format!("the line ends before a closing `{open}`")));
        }
        let Some(first) = words.first() else { return Ok(Statement::Nothing) };
        let mut args: Vec<OsString> = words.iter().map(|word| word.text.clone().into()).collect();
        if ON_STORE.contains(&first.text.as_str()) {
            args.splice(1..1, [OsString::from("--store"), self.path.clone()]);
        }
        let matches = match self.commands.try_get_matches_from_mut(args) {
            Ok(matches) => matches,
            Err(error) if is_help(error.kind()) => {
                return Ok(Statement::Help(error.to_string().trim_end().to_owned()));
            }
            Err(error) => {
                let text = error.to_string();
                let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
                return Err(Failure::Usage(text.to_owned()));
            }
        };
        statement(&matches, &words)
    }
}

fn is_help(kind: ErrorKind) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand};
    matches!(kind, DisplayHelp | DisplayHelpOnMissingArgumentOrSubcommand)
}

fn statement(matches: &ArgMatches, words: &[Word]) -> Outcome<Statement> {
    Ok(match matches.subcommand() {
        Some((BEGIN, _)) => Statement::Begin,
        Some((COMMIT, _)) => Statement::Commit,
        Some((ROLLBACK, _)) => Statement::Rollback,
        Some((EXIT, _)) => Statement::Exit,
        Some((_, of_command)) => {
            let is_given = |id: &str| {
                OF_OPENING.contains(&id)
                    && of_command.value_source(id) == Some(ValueSource::CommandLine)
            };
            if of_command.ids().any(|id| is_given(id.as_str())) {
                let text = "the store is open: leave out the options of opening it";
                return Err(Failure::Usage(text.to_owned()));
            }
            let usage = |error: clap::Error| Failure::Usage(error.to_string());
            let mut command = Command::from_arg_matches(matches).map_err(usage)?;
            if let Command::Set(set) = &mut command {
                if set.reads_stdin() {
                    let text = "stdin has the lines of the shell: give the path of a file";
                    return Err(Failure::Usage(text.to_owned()));
                }
                set.retype(|value| typed_string(value, words));
            }
            Statement::Run { command: Box::new(command), json: matches.get_flag("json") }
        }
        None => Statement::Nothing,
    })
}

/// Returns a word as it was typed if that is a JSON string.
fn typed_string(text: &str, words: &[Word]) -> Option<String> {
    let word = words.iter().rfind(|word| word.text == text)?;
    word.typed.starts_with('"').then(|| word.typed.clone())
}

/// Returns the command line of the shell: commands of the program without their STORE.
pub(super) fn commands() -> clap::Command {
    let program = Cli::command();
    let mut shell = clap::Command::new("shell")
        .no_binary_name(true)
        .disable_help_flag(true)
        .subcommand_required(true)
        .override_usage("COMMAND [OPTIONS] [ARGUMENTS]")
        .help_template("{all-args}{after-help}")
        .after_help(HELP);
    shell = shell.args(program.get_arguments().filter(|arg| arg.get_id() == "json").cloned());
    for name in ON_STORE {
        let command = program.find_subcommand(name).expect("the shell has commands of the program");
        shell = shell.subcommand(command.clone().bin_name(name).mut_args(|arg| {
            match arg.get_id().as_str() {
                // The reader gives the path.
                "path" => arg.long("store").required(false).hide(true),
                id if OF_OPENING.contains(&id) => arg.hide(true),
                _ => arg,
            }
        }));
    }
    let own = |name: &'static str, about: &'static str| {
        clap::Command::new(name).bin_name(name).about(about).display_order(100)
    };
    shell
        .subcommand(own(BEGIN, "Begin a transaction"))
        .subcommand(own(COMMIT, "Write what the transaction has set and removed, in one commit"))
        .subcommand(own(ROLLBACK, "End the transaction, and write nothing"))
        .subcommand(own(EXIT, "End the shell").alias("quit"))
}

/// Returns a line without its value.
pub(super) fn without_value(line: &str, statement: &Statement) -> String {
    match statement {
        Statement::Run { command, .. } => match &**command {
            Command::Set(set) => format!("set {}", quote(&key::show(set.key()))),
            _ => line.to_owned(),
        },
        _ => line.to_owned(),
    }
}

const BEGIN: &str = "begin";
const COMMIT: &str = "commit";
const ROLLBACK: &str = "rollback";
const EXIT: &str = "exit";

/// The commands of the program that the shell has.
pub(super) const ON_STORE: [&str; 16] = [
    "get",
    "keys",
    "scan",
    "count",
    "du",
    "tables",
    "stats",
    "info",
    "verify",
    "log",
    "history",
    "set",
    "edit",
    "remove",
    "clear",
    "checkpoint",
];

/// The options that only an opening needs.
const OF_OPENING: [&str; 4] = ["passphrase", "raw_key", "wait", "create"];

const HELP: &str = "\
`help COMMAND` tells more. A transaction reads one state of the store, and sees its own writes.
If something that it has read is changed by others, `commit` writes nothing and is an error.

Words are separated by spaces, and may be in single or double quotes, as in sh. JSON needs none:
  set users/ada {\"name\": \"Ada\"}
  set greeting \"hello world\"
  get 'a key with spaces'
A line that begins with # is a comment. Tab completes commands, options and keys; Ctrl-C gives up a
line or ends a command, and Ctrl-D ends the shell.";

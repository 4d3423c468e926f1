//! The command line: its commands, and the options of all of them.

use clap::{Parser, Subcommand};

use crate::out::Out;
use crate::{
    Outcome, backup, change, diff, doctor, edit, find, generate, go, ledger, look, prefix, repair,
    rewrite, serve, shell, tables, transfer,
};

/// Looks into a CodexDB store, changes it, and scripts it.
///
/// Keys are text in which `\\` is a backslash and `\xNN` is any byte; keys are printed in the same
/// form. Values are JSON. Values of the codec bincode are shown as JSON by a guess at their type,
/// or as the type that `--as` gives. Bytes without a codec are shown as text if they are text, else
/// as hex digits.
#[derive(Debug, Parser)]
#[command(
    version,
    after_long_help = crate::failure::EXIT_CODES,
    infer_long_args = false,
    disable_help_subcommand = false
)]
pub(crate) struct Cli {
    /// Print one JSON object a line, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Tell what a file is: a store, a backup, a log, or none of these
    Info(find::Info),
    /// Print the value of a key
    Get(look::Get),
    /// Print keys in order
    Keys(look::Keys),
    /// Print keys and values in order
    Scan(look::Scan),
    /// Print the number of keys
    Count(look::Count),
    /// Print how many keys and bytes begin with the same prefix
    Du(prefix::Du),
    /// Print the tables with their indexes
    Tables(tables::Tables),
    /// Print sizes and counters
    Stats(look::Stats),
    /// Read and check every byte
    Verify(look::Verify),
    /// Write what is intact of a damaged store to a new store; the damaged one is not changed
    Repair(repair::Repair),
    /// Print the commits of a ledger
    Log(ledger::Log),
    /// Print the values that a key of a ledger has had
    History(ledger::History),
    /// Show a page about the store to browsers on this machine, until Ctrl-C
    View(serve::View),
    /// Print the keys in which two stores differ, or a store and its backup, or two moments
    Diff(diff::Diff),
    /// Look for what is wrong with a store, its files and its disk, and tell the next step
    Doctor(doctor::Doctor),
    /// Act on commands about a store, line by line, with transactions
    Shell(shell::Shell),
    /// Make an empty store
    Init(change::Init),
    /// Set the value of a key
    Set(change::Set),
    /// Change the value of a key in an editor
    Edit(edit::Edit),
    /// Remove keys
    Remove(change::Remove),
    /// Remove all keys
    Clear(change::Clear),
    /// Write all data into a new image, and begin a new log
    Checkpoint(change::Checkpoint),
    /// Write all data into a new image, and print how much space that freed
    Compact(change::Compact),
    /// Write the store in another form, or under another kind of encryption
    Convert(rewrite::Convert),
    /// Make, list, check and restore backups
    #[command(subcommand)]
    Backup(backup::Backup),
    /// Change the key of a store, encrypt or decrypt it
    #[command(subcommand)]
    Key(rewrite::Key),
    /// Write all entries as JSON Lines, with their exact bytes
    Export(transfer::Export),
    /// Set the entries of an export
    Import(transfer::Import),
    /// Set the entries of a file of the Go program CodexDB, which is not changed
    ImportGo(go::ImportGo),
    /// Print the completions of a shell
    Completions(generate::Completions),
    /// Print a page of the manual, for `man -l -`
    Man(generate::Man),
}

impl Command {
    pub(crate) fn run(&self, out: &mut Out) -> Outcome {
        match self {
            Self::Info(command) => command.run(out),
            Self::Get(command) => command.run(out),
            Self::Keys(command) => command.run(out),
            Self::Scan(command) => command.run(out),
            Self::Count(command) => command.run(out),
            Self::Du(command) => command.run(out),
            Self::Tables(command) => command.run(out),
            Self::Stats(command) => command.run(out),
            Self::Verify(command) => command.run(out),
            Self::Repair(command) => command.run(out),
            Self::Log(command) => command.run(out),
            Self::History(command) => command.run(out),
            Self::View(command) => command.run(out),
            Self::Diff(command) => command.run(out),
            Self::Doctor(command) => command.run(out),
            Self::Shell(command) => command.run(out),
            Self::Init(command) => command.run(),
            Self::Set(command) => command.run(),
            Self::Edit(command) => command.run(out),
            Self::Remove(command) => command.run(out),
            Self::Clear(command) => command.run(out),
            Self::Checkpoint(command) => command.run(),
            Self::Compact(command) => command.run(out),
            Self::Convert(command) => command.run(out),
            Self::Backup(command) => command.run(out),
            Self::Key(command) => command.run(out),
            Self::Export(command) => command.run(out),
            Self::Import(command) => command.run(out),
            Self::ImportGo(command) => command.run(out),
            Self::Completions(command) => command.run(out),
            Self::Man(command) => command.run(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        super::Cli::command().debug_assert();
    }
}

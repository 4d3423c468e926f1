//! `install`: builds the command line of CodexDB and puts it where cargo puts programs.

use pico_args::Arguments;

use crate::program::Run;
use crate::workspace::Workspace;
use crate::{Command, Outcome};

pub(crate) const COMMAND: Command = Command {
    name: "install",
    args: "[ARGS]",
    about: "build and install the command line, codexdb; ARGS are those of cargo install",
    run,
};

fn run(workspace: &Workspace, words: Arguments) -> Outcome {
    let mut cargo = workspace.cargo("install --locked --path codex-core/cli");
    cargo.args(words.finish()).open()?;
    Ok(String::new())
}

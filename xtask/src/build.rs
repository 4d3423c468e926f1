//! `build`: builds the whole workspace.

use pico_args::Arguments;

use crate::program::Run;
use crate::workspace::Workspace;
use crate::{Command, Outcome};

pub(crate) const COMMAND: Command =
    Command { name: "build", args: "[--release]", about: "build the workspace", run };

fn run(workspace: &Workspace, mut words: Arguments) -> Outcome {
    let release = words.contains("--release").then_some("--release");
    COMMAND.done(words)?;
    workspace.cargo("build --workspace").args(release).open()?;
    Ok(String::new())
}

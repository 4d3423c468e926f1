//! `build`: the whole workspace.

use crate::workspace::Workspace;
use crate::{Command, Outcome, only};

pub(crate) const COMMAND: Command =
    Command { name: "build", args: "[--release]", about: "build the workspace", run };

fn run(workspace: &Workspace, words: &[String]) -> Outcome {
    only(&["--release"], words)?;
    workspace.cargo("build --workspace").args(words).open()?;
    Ok(String::new())
}

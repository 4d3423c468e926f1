//! `demo` and the `performance-` commands: the programs of codex-bench.

use pico_args::Arguments;

use crate::program::Run;
use crate::workspace::Workspace;
use crate::{Command, Outcome};

pub(crate) const DEMO: Command = Command {
    name: "demo",
    args: "[ARGS]",
    about: "the store at work: real files, 32 threads, a killed process, nothing lost",
    run: |workspace, words| start(workspace, "demo", words),
};

pub(crate) const SCALING: Command = Command {
    name: "performance-scaling",
    args: "[ARGS]",
    about: "1 to 32 writers in each storage form, beside the disk's raw sync rate",
    run: |workspace, words| start(workspace, "scaling", words),
};

pub(crate) const HIGH_VOLUME: Command = Command {
    name: "performance-high-volume",
    args: "[ARGS]",
    about: "many writes, mixed work, large values, backups, replay: all verified",
    run: |workspace, words| start(workspace, "high_volume", words),
};

pub(crate) const STALLS: Command = Command {
    name: "performance-stalls",
    args: "[ARGS]",
    about: "how long reads take beside commits, images and checkpoints on a slow disk",
    run: |workspace, words| start(workspace, "stalls", words),
};

pub(crate) const HOT_BACKUP: Command = Command {
    name: "performance-hot-backup",
    args: "[ARGS]",
    about: "how long writes take beside a hot backup, and without",
    run: |workspace, words| start(workspace, "hot_backup", words),
};

fn start(workspace: &Workspace, program: &str, words: Arguments) -> Outcome {
    let mut cargo = workspace.cargo("run --quiet --release --package codex-bench --bin");
    cargo.args([program, "--"]).args(words.finish()).open()?;
    Ok(String::new())
}

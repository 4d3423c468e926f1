//! `demo` and the `performance-` commands: start the programs of codex-bench.

use std::process;

use pico_args::Arguments;

use crate::program::Run;
use crate::workspace::Workspace;
use crate::{Command, Outcome, test};

pub(crate) const DEMO: Command = command(
    "demo",
    "the store at work: real files, 32 threads, a killed process, nothing lost",
    |workspace, words| start(workspace, "demo", words),
);

pub(crate) const SCALING: Command = command(
    "performance-scaling",
    "1 to 32 writers in each storage form, beside the disk's raw sync rate",
    |workspace, words| start(workspace, "scaling", words),
);

pub(crate) const HIGH_VOLUME: Command = command(
    "performance-high-volume",
    "many writes, mixed work, large values, backups, replay: all verified",
    |workspace, words| start(workspace, "high_volume", words),
);

pub(crate) const STALLS: Command = command(
    "performance-stalls",
    "how long reads take beside commits, images and checkpoints on a slow disk",
    |workspace, words| start(workspace, "stalls", words),
);

pub(crate) const HOT_BACKUP: Command = command(
    "performance-hot-backup",
    "how long writes take beside a hot backup, and without",
    |workspace, words| start(workspace, "hot_backup", words),
);

const fn command(
    name: &'static str,
    about: &'static str,
    run: fn(&Workspace, Arguments) -> Outcome,
) -> Command {
    Command { name, args: "[ARGS]", about, run }
}

/// The argument with which a program is built as the tests are, with what they have built already,
/// and not optimized as for users.
pub(crate) const AS_TESTED: &str = "--as-tested";

fn start(workspace: &Workspace, program: &str, mut words: Arguments) -> Outcome {
    if words.contains(AS_TESTED) {
        // With `--tests` the crates have the same features as in the tests.
        let mut cargo = workspace.cargo("build --quiet --profile test --tests --bin");
        cargo.arg(program).words(&test::whole(workspace)?).open()?;
        let built = workspace.target()?.join("debug").join(program);
        process::Command::new(built).current_dir(&workspace.root).args(words.finish()).open()?;
        return Ok(String::new());
    }
    let mut cargo = workspace.cargo("run --quiet --release --package codex-bench --bin");
    cargo.args([program, "--"]).args(words.finish()).open()?;
    Ok(String::new())
}

//! `bench`: the criterion benchmarks of all crates.

use pico_args::Arguments;

use crate::program::Run;
use crate::workspace::{Package, Workspace};
use crate::{Command, Outcome};

pub(crate) const COMMAND: Command = Command {
    name: "bench",
    args: "[--peers] [ARGS]",
    about: "run the benchmarks, with --peers other stores too; ARGS go to criterion",
    run,
};

/// The feature of codex-bench that adds the other stores. Some of them need a C compiler.
const PEERS: &str = "peers";

fn run(workspace: &Workspace, mut words: Arguments) -> Outcome {
    let peers = words.contains("--peers");
    let words = words.finish();
    let members = workspace.members()?;
    let has_peers = |p: &Package| p.feature_names().contains(&PEERS);
    if peers && !members.iter().any(has_peers) {
        return Err(format!("no package has the feature `{PEERS}`; run it without --peers"));
    }
    let mut ran = 0;
    for package in &members {
        for bench in package.targets.iter().filter(|target| target.kind == "bench") {
            let mut features: Vec<&str> = bench.features.iter().map(String::as_str).collect();
            features.extend(Some(PEERS).filter(|_| peers && has_peers(package)));
            let mut cargo = workspace.cargo("bench --quiet --package");
            cargo.args([&package.name, "--bench", &bench.name, "--features", &features.join(",")]);
            cargo.arg("--").args(&words).open()?;
            ran += 1;
        }
    }
    if ran == 0 {
        return Err("no package has a benchmark".to_owned());
    }
    Ok(format!("{ran} benchmark programs"))
}

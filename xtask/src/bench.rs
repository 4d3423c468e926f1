//! `bench`: the criterion benchmarks of all crates.

use crate::workspace::{Package, Workspace};
use crate::{Command, Outcome};

pub(crate) const COMMAND: Command = Command {
    name: "bench",
    args: "[--peers] [ARGS]",
    about: "run the benchmarks, with --peers other stores too; ARGS go to criterion",
    run,
};

/// The feature of codex-bench that brings in the other stores, some of which need a C compiler.
const PEERS: &str = "peers";

fn run(workspace: &Workspace, words: &[String]) -> Outcome {
    let peers = words.iter().any(|word| word == "--peers");
    let words: Vec<&String> = words.iter().filter(|word| *word != "--peers").collect();
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
            let cargo = workspace.cargo("bench --quiet --package").args([&package.name]);
            let cargo = cargo.args(["--bench", &bench.name, "--features", &features.join(",")]);
            cargo.args(["--"]).args(&words).open()?;
            ran += 1;
        }
    }
    if ran == 0 {
        return Err("no package has a benchmark".to_owned());
    }
    Ok(format!("{ran} benchmark programs"))
}

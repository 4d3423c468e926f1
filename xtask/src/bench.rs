//! `bench`: the benchmarks of all crates, and the comparison with other stores.

use pico_args::Arguments;

use crate::program::Run;
use crate::workspace::Workspace;
use crate::{Command, Outcome};

pub(crate) const COMMAND: Command = Command {
    name: "bench",
    args: "[--peers | --report] [ARGS]",
    about: "the benchmarks; --peers [--quick] [--row NAME,..] measures other stores too, for docs",
    run,
};

/// The package of the comparison.
const PACKAGE: &str = "codex-bench";
/// The program of the comparison, and the feature of its package that adds the other stores. Some
/// of them need a C compiler.
const PEERS: &str = "peers";
/// The feature with which it is built: its plots and latencies are no part of the other builds.
const BENCH: &str = "bench";

fn run(workspace: &Workspace, mut words: Arguments) -> Outcome {
    if words.contains("--report") {
        return peers(workspace, BENCH, &["--report"], words);
    }
    if words.contains("--peers") {
        return peers(workspace, &format!("{BENCH},{PEERS}"), &[], words);
    }
    // Each benchmark would only print its own help after it was built.
    if words.contains(["-h", "--help"]) {
        println!("{}\n\n{}", COMMAND.usage(), COMMAND.about);
        return Ok(String::new());
    }
    let words = words.finish();
    let mut ran = 0;
    for package in &workspace.members()? {
        let benches = package.targets.iter().filter(|target| target.kind == "bench");
        for bench in benches.filter(|bench| bench.name != PEERS) {
            let mut cargo = workspace.cargo("bench --quiet --package");
            let features = bench.features.join(",");
            cargo.args([&package.name, "--bench", &bench.name, "--features", &features]);
            cargo.arg("--").args(&words).open()?;
            ran += 1;
        }
    }
    if ran == 0 {
        return Err("no package has a benchmark".to_owned());
    }
    Ok(format!("{ran} benchmark programs"))
}

/// Runs the comparison. A whole run is recorded below `docs`; a quick one, or one of only some
/// stores, is only printed.
fn peers(workspace: &Workspace, features: &str, args: &[&str], mut words: Arguments) -> Outcome {
    let mut cargo = workspace.cargo("bench --quiet --package");
    cargo.args([PACKAGE, "--bench", PEERS, "--features", features, "--"]).args(args);
    if words.contains("--quick") {
        cargo.arg("--quick");
    } else {
        cargo.arg("--docs").arg(workspace.root.join("docs"));
    }
    cargo.args(words.finish()).open()?;
    Ok(String::new())
}

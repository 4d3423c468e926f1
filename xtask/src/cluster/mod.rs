//! `cluster`: tests and shows a store on three members of etcd, which is fetched from Debian.

mod etcd;
mod members;

use std::path::Path;
use std::process::Command as Process;
use std::thread;
use std::time::Duration;

use pico_args::Arguments;

use crate::program::{Run, part};
use crate::test::whole;
use crate::workspace::Workspace;
use crate::{Command, Outcome, free_word};
pub(crate) use members::free_port;
use members::{Cluster, Setup};

pub(crate) const COMMAND: Command = Command {
    name: "cluster",
    args: "[test|soak|demo] [--fetch] [--seed N] [--seconds S]",
    about: "a store on three members of etcd, with faults: tests, a long test, or a demo to watch",
    run,
};

pub(crate) const PERFORMANCE: Command = Command {
    name: "performance-shared",
    args: "[ROW..]",
    about: "a store on three members of etcd beside bare transactions and local stores",
    run: performance,
};

/// The tests that need etcd.
const NEEDS_ETCD: usize = 17;
/// What a test prints if it is left out.
const LEFT_OUT: &str = "left out: ";
/// The tests that run for as long as they are told.
const SOAK: &str = "soak";

fn run(workspace: &Workspace, mut words: Arguments) -> Outcome {
    let number = |words: &mut Arguments, flag, default| {
        let given = words.opt_value_from_str(flag).map_err(|e| format!("{flag}: {e}"));
        Ok::<u64, String>(given?.unwrap_or(default))
    };
    let (seed, seconds) = (number(&mut words, "--seed", 1)?, number(&mut words, "--seconds", 600)?);
    let fetch = words.contains("--fetch");
    let what = free_word(&mut words)?.unwrap_or_else(|| "demo".to_owned());
    COMMAND.done(words)?;
    let folder = workspace.target()?.join("etcd");
    let etcd = match etcd::find(&folder, fetch) {
        Ok(etcd) => etcd,
        // A machine that checks changes must not leave it out in silence.
        Err(why) if std::env::var_os("CI").is_some() => return Err(why),
        Err(why) => return Ok(format!("{why}: {NEEDS_ETCD} tests left out")),
    };
    let scratch = folder.join("run");
    let done = match what.as_str() {
        "test" => test(workspace, &etcd, &scratch),
        "soak" => soak(workspace, &etcd, &scratch, seed, seconds),
        "demo" => demo(workspace, &etcd, &scratch),
        other => Err(format!("does not know `{other}`\nusage: {}", COMMAND.usage())),
    };
    let _ = std::fs::remove_dir_all(&scratch);
    done
}

/// Returns a command of cargo for the tests. They are told where etcd is, and where they may write.
fn tests(workspace: &Workspace, etcd: &Path, scratch: &Path, profile: &str) -> Outcome<Process> {
    let mut cargo = workspace.cargo("test --quiet --test cluster");
    cargo.words(&whole(workspace)?).words(profile);
    cargo.env("CODEX_ETCD", etcd).env("CODEX_ETCD_SCRATCH", scratch);
    Ok(cargo)
}

fn test(workspace: &Workspace, etcd: &Path, scratch: &Path) -> Outcome {
    part("build", || tests(workspace, etcd, scratch, "--no-run")?.progress())?;
    // One at a time: each has the machine for its members and its nodes.
    let mut cargo = tests(workspace, etcd, scratch, "")?;
    cargo.words("-- --test-threads=1 --nocapture --skip").arg(SOAK);
    let ended = cargo.collect(None, true)?;
    // A test that was left out has passed too.
    let passed = if ended.output.contains(LEFT_OUT) { 0 } else { passed(&ended.output) };
    match (ended.success(), passed >= NEEDS_ETCD) {
        (true, true) => Ok(format!("{passed} passed")),
        (true, false) => Err(format!("{passed} tests ran, and there are {NEEDS_ETCD}")),
        (false, _) => Err("a store on etcd fails".to_owned()),
    }
}

/// Runs one test for a given time. The lines that it prints are its figures.
fn soak(workspace: &Workspace, etcd: &Path, scratch: &Path, seed: u64, seconds: u64) -> Outcome {
    let mut cargo = tests(workspace, etcd, scratch, "")?;
    cargo.words("-- --nocapture").arg(SOAK);
    cargo.env("CODEX_SEED", seed.to_string()).env("CODEX_SECONDS", seconds.to_string());
    let ended = cargo.collect(None, true)?;
    if ended.success() && passed(&ended.output) == 1 {
        return Ok(format!("seed {seed}"));
    }
    Err(format!("a store on etcd fails with `--seed {seed} --seconds {seconds}`"))
}

/// Starts three members, and the benchmark of a store on them.
fn performance(workspace: &Workspace, words: Arguments) -> Outcome {
    let folder = workspace.target()?.join("etcd");
    let etcd = etcd::find(&folder, true)?;
    let scratch = folder.join("run");
    let setup = Setup { members: 3, quota: None, tls: None };
    let cluster = Cluster::start(&etcd, &scratch, setup).map_err(|e| e.to_string())?;
    let mut cargo = workspace.cargo("bench --quiet --package codex-bench --features etcd");
    cargo.words("--bench shared --").args(words.finish());
    let done = cargo.env("CODEX_ETCD_ENDPOINTS", cluster.endpoints().join(",")).open();
    drop(cluster);
    let _ = std::fs::remove_dir_all(&scratch);
    done.map(|()| String::new())
}

/// Starts three members and an example with three processes. The example kills a process, and this
/// kills a member.
fn demo(workspace: &Workspace, etcd: &Path, scratch: &Path) -> Outcome {
    let example = "--quiet --package codex-core --features etcd --example cluster";
    part("build", || workspace.cargo("build").words(example).progress())?;
    let setup = Setup { members: 3, quota: None, tls: None };
    let mut cluster = part("start three members", || {
        Cluster::start(etcd, scratch, setup).map_err(|e| e.to_string())
    })?;
    let mut show = workspace.cargo("run");
    show.words(example).arg("--").args(cluster.endpoints());
    let mut show = show.spawn().map_err(|e| format!("cannot start the example: {e}"))?;
    thread::sleep(MEMBER_KILLED_AFTER);
    let leader = cluster.leader().unwrap_or_default();
    cluster.kill(leader);
    println!("---- the member {leader} of the cluster, its leader, is killed");
    let ended = show.wait().map_err(|e| e.to_string())?;
    if ended.success() { Ok(String::new()) } else { Err("the example has failed".to_owned()) }
}

/// The time after which the demo kills a member.
const MEMBER_KILLED_AFTER: Duration = Duration::from_secs(10);

/// Returns the number of tests that passed, as the last line of a test program says.
fn passed(output: &str) -> usize {
    let counts = output.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    let number =
        |line: &str| line.split(' ').next().and_then(|number| number.parse::<usize>().ok());
    counts.filter_map(number).sum()
}

#[cfg(test)]
mod tests_of_output {
    #[test]
    fn passed_tests_are_counted() {
        let output = "running 2 tests\n..\ntest result: ok. 2 passed; 0 failed; 0 ignored\n";
        assert_eq!(super::passed(output), 2);
        assert_eq!(super::passed("test result: FAILED. 1 passed; 1 failed\n"), 0);
    }
}

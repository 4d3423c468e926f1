//! `test`: runs every test and every doctest, with nextest if it is installed.

use std::fmt::Write as _;

use pico_args::Arguments;

use crate::program::Run;
use crate::workspace::Workspace;
use crate::{Command, Outcome, free_word};

pub(crate) const COMMAND: Command = Command {
    name: "test",
    args: "[NAME] [--whole]",
    about: "run the tests (whose names contain NAME), a sample of the longest ones or all cases",
    run,
};

/// The number of tests that ran.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
}

fn run(workspace: &Workspace, mut words: Arguments) -> Outcome {
    let is_whole = words.contains("--whole");
    let name = free_word(&mut words)?;
    COMMAND.done(words)?;
    let name = name.as_deref();
    let mut counts = Counts::default();
    let mut failures = Vec::new();
    let cargo = if is_whole { whole(workspace)? } else { "--workspace".to_owned() };
    let scope = Scope { cargo, is_whole };
    println!("tests of {}", scope.cargo);
    for (what, run) in [("tests", tests as Runner), ("doctests", doctests)] {
        let (of_run, ok) = run(workspace, &scope, name)?;
        counts.add(of_run);
        if !ok {
            failures.push(what);
        }
    }
    let note = format!("{} passed, {} failed", counts.passed, counts.failed);
    match name {
        _ if !failures.is_empty() => Err(format!("{note}: {}", failures.join(", "))),
        Some(name) if counts.passed == 0 => Err(format!("no test's name contains `{name}`")),
        _ => Ok(note),
    }
}

/// The feature with which a crate compares itself with another implementation, which may need a C
/// compiler. It is enabled with `--whole`, as in CI, and disabled in the first run of a newcomer.
const ORACLE: &str = "oracle";

/// The library, and its features that some tests need. Those that need members of etcd are left out
/// here; `cluster test` runs them with what `test --whole` has built.
const LIBRARY: &str = "codex-core";
const FEATURES: [&str; 2] = ["etcd", "tracing"];

/// The environment variable that makes tests run all of their cases, instead of a sample.
const WHOLE: &str = "CODEX_WHOLE";

/// The packages of a test run.
struct Scope {
    /// All packages with their features, as arguments of cargo.
    cargo: String,
    /// Whether tests run all of their cases, instead of a sample.
    is_whole: bool,
}

impl Scope {
    /// Tells the tests whether to run a sample of their cases or all of them.
    fn sample(&self, cargo: &mut std::process::Command) {
        if self.is_whole {
            cargo.env(WHOLE, "1");
        }
    }
}

/// Returns the arguments of cargo that select all packages with the features of `--whole`. Steps
/// that use them share what has been built.
pub(crate) fn whole(workspace: &Workspace) -> Outcome<String> {
    let mut cargo = "--workspace".to_owned();
    for feature in FEATURES {
        let _ = write!(cargo, " --features {LIBRARY}/{feature}");
    }
    for package in workspace.members()? {
        if package.feature_names().contains(&ORACLE) {
            let _ = write!(cargo, " --features {}/{ORACLE}", package.name);
        }
    }
    Ok(cargo)
}

type Runner = fn(&Workspace, &Scope, Option<&str>) -> Outcome<(Counts, bool)>;

fn tests(workspace: &Workspace, scope: &Scope, name: Option<&str>) -> Outcome<(Counts, bool)> {
    let ended = if workspace.has("nextest") {
        // Examples are left out, because `check` compiles them.
        let mut cargo = workspace.cargo("nextest run --no-run");
        cargo.words("--tests").words(&scope.cargo).progress()?;
        let mut cargo = workspace.cargo("nextest run --cargo-quiet --no-tests pass");
        cargo.arg("--tests");
        cargo.words("--no-fail-fast --status-level slow --final-status-level fail");
        scope.sample(&mut cargo);
        cargo.words(&scope.cargo).args(name).collect(None, true)?
    } else {
        let mut cargo = workspace.cargo("test --no-run");
        cargo.words("--tests").words(&scope.cargo).progress()?;
        let mut cargo = workspace.cargo("test --quiet --no-fail-fast");
        cargo.arg("--tests");
        scope.sample(&mut cargo);
        cargo.words(&scope.cargo).args(name).collect(None, true)?
    };
    Ok((Counts::of(&ended.output), ended.success()))
}

fn doctests(workspace: &Workspace, scope: &Scope, name: Option<&str>) -> Outcome<(Counts, bool)> {
    let mut cargo = workspace.cargo("test --quiet --doc");
    let ended = cargo.words(&scope.cargo).args(name).collect(None, false)?;
    let counts = Counts::of(&ended.output);
    if !ended.success() {
        println!("{}", ended.output);
    }
    println!("  doctests: {} passed, {} failed", counts.passed, counts.failed);
    Ok((counts, ended.success()))
}

impl Counts {
    /// Reads the last lines of nextest (`Summary [..] 3 tests run: 2 passed, 1 failed`) and of the
    /// runner of cargo (`test result: ok. 3 passed; 0 failed; ..`).
    fn of(output: &str) -> Self {
        let mut counts = Self::default();
        let lines = || output.lines().map(str::trim_start);
        // nextest also prints the output of a failed test, including its `test result:` line.
        let by_nextest = lines().any(|line| line.starts_with("Summary ["));
        let closing = if by_nextest { "Summary [" } else { "test result: " };
        for line in lines() {
            if line.starts_with(closing) {
                let words: Vec<&str> = line.split_whitespace().collect();
                for pair in words.windows(2) {
                    let [number, word] = pair else { continue };
                    let number = number.parse().unwrap_or(0);
                    match word.trim_end_matches([',', ';']) {
                        "passed" => counts.passed += number,
                        "failed" | "timed" => counts.failed += number,
                        _ => {}
                    }
                }
            }
        }
        counts
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn closing_lines_of_both_runners_are_counted() {
        let nextest =
            "     Summary [   0.012s] 7 tests run: 5 passed (1 slow), 2 failed, 0 skipped\n";
        assert_eq!(Counts::of(nextest), Counts { passed: 5, failed: 2 });
        let shown = format!("    test result: FAILED. 0 passed; 1 failed; 0 ignored\n{nextest}");
        assert_eq!(Counts::of(&shown), Counts { passed: 5, failed: 2 });
        let cargo = "running 3 tests\n...\ntest result: FAILED. 2 passed; 1 failed; 0 ignored;\n\
                     test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out\n";
        assert_eq!(Counts::of(cargo), Counts { passed: 6, failed: 1 });
        assert_eq!(Counts::of("2 passed, as a test printed"), Counts::default());
    }
}

//! `mutants`: breaks production code on purpose, and checks that a test fails for the expected
//! reason.

mod edits;
mod table;
mod tree;

use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use pico_args::Arguments;

use crate::program::{Run, part, part_beside};
use crate::workspace::Workspace;
use crate::{Command, Outcome, free_word};
use table::Mutant;
use tree::{Programs, Tree};

pub(crate) use edits::{EDITS, Edit};
pub(crate) use table::MUTANTS;

pub(crate) const COMMAND: Command = Command {
    name: "mutants",
    args: "[NAME..] [--no-baseline]",
    about: "break the code on purpose: for each mutant a test must fail as expected",
    run,
};

/// The number of mutants that run at the same time. Some of them wait more than they compute.
const BESIDE: usize = 3;

/// The time after which a test is regarded as hanging.
const LIMIT: Duration = Duration::from_secs(240);

/// The same limit for mutants that make a test hang. Without the mutant, the test takes a small
/// part of a second.
const HANGS: Duration = Duration::from_secs(8);

fn run(workspace: &Workspace, mut words: Arguments) -> Outcome {
    let baseline = !words.contains("--no-baseline");
    let mut names = Vec::new();
    while let Some(name) = free_word(&mut words)? {
        if !MUTANTS.iter().any(|mutant| mutant.name == name) {
            return Err(format!("there is no mutant `{name}`; see xtask/src/mutants/table.txt"));
        }
        names.push(name);
    }
    COMMAND.done(words)?;
    let chosen = |m: &&Mutant| names.is_empty() || names.iter().any(|name| *name == m.name);
    let mut chosen: Vec<&Mutant> = MUTANTS.iter().filter(chosen).collect();
    // Those that hang wait and compute nothing, so others run beside them.
    chosen.sort_by_key(|mutant| !mutant.hangs);
    let programs =
        part("a copy with all mutants is built", || Tree::make(workspace)?.build(&chosen))?;
    if baseline {
        for mutant in without_repetition(&chosen) {
            part(&format!("unbroken: {}", mutant.where_caught()), || {
                passes_unbroken(workspace, &programs, mutant)
            })?;
        }
    }
    let survivors = survivors(workspace, &programs, &chosen);
    if survivors.is_empty() {
        return Ok(format!("{} caught", chosen.len()));
    }
    Err(format!("not caught as expected: {}", survivors.join(", ")))
}

/// Runs the tests of each mutant, some at the same time. Returns the mutants that no test caught.
fn survivors<'a>(
    workspace: &Workspace,
    programs: &Programs,
    chosen: &[&'a Mutant],
) -> Vec<&'a str> {
    let (next, survivors) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(mutant) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
            let name = format!("{} is caught", mutant.name);
            let caught = part_beside(&name, || catch(workspace, programs, mutant));
            if let Err(error) = caught {
                println!("{error}");
                survivors.lock().unwrap_or_else(PoisonError::into_inner).push(mutant.name);
            }
        }
    };
    thread::scope(|scope| (0..BESIDE).for_each(|_| drop(scope.spawn(work))));
    survivors.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the first mutant of each set of tests.
fn without_repetition<'a>(mutants: &[&'a Mutant]) -> Vec<&'a Mutant> {
    let mut seen = Vec::new();
    let new = |m: &&'a Mutant| {
        let place = m.where_caught();
        let new = !seen.contains(&place);
        seen.push(place);
        new
    };
    mutants.iter().copied().filter(new).collect()
}

fn passes_unbroken(workspace: &Workspace, programs: &Programs, mutant: &Mutant) -> Outcome<()> {
    let ended = mutant.program(workspace, programs)?.collect(Some(LIMIT), false)?;
    if !ended.success() {
        return Err(format!("the tests fail without any mutant:\n{}", ended.output));
    }
    // A filter that matches no test would make the mutant pass for a survivor.
    if ended.output.contains("running 0 tests") {
        return Err(format!("no test matches {}", mutant.where_caught()));
    }
    Ok(())
}

/// Runs the tests of the mutant. They must fail with the expected output.
fn catch(workspace: &Workspace, programs: &Programs, mutant: &Mutant) -> Outcome<()> {
    let mut program = mutant.program(workspace, programs)?;
    let limit = if mutant.hangs { HANGS } else { LIMIT };
    let ended = program.env(tree::CHOSEN, mutant.name).collect(Some(limit), false)?;
    let output = tail(&ended.output);
    let place = mutant.where_caught();
    // The tests passed, so the mutant survived.
    if ended.success() {
        let results =
            output.lines().rfind(|line| line.starts_with("test result")).unwrap_or_default();
        return Err(format!("{} survived: {place}: {results}", mutant.name));
    }
    // The tests were killed. That counts only for a mutant that is expected to hang.
    if ended.status.is_none() && !mutant.hangs {
        let seconds = limit.as_secs();
        return Err(format!("{}: {place} still ran after {seconds} s\n{output}", mutant.name));
    }
    // The tests failed. Their output must show the expected reason.
    match mutant.words.iter().find(|word| !ended.output.contains(**word)) {
        None => Ok(()),
        Some(missing) => Err(format!(
            "{}: {place} failed, but not for the expected reason: no {missing:?} in\n{output}",
            mutant.name
        )),
    }
}

fn tail(output: &str) -> String {
    const LINES: usize = 40;
    let lines: Vec<&str> = output.lines().collect();
    let from = lines.len().saturating_sub(LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}

impl Mutant {
    fn where_caught(&self) -> String {
        let tests = if self.tests.is_empty() { "all tests" } else { self.tests };
        format!("{}, {}, {tests}", self.package, self.program)
    }

    /// Returns the package and the name of its test program.
    fn built_as(&self) -> (String, String) {
        (self.package.to_owned(), self.program.to_owned())
    }

    /// Returns the command that runs its tests.
    fn program(&self, workspace: &Workspace, programs: &Programs) -> Outcome<process::Command> {
        let program = programs.get(&self.built_as());
        let program = program.ok_or_else(|| format!("{} was not built", self.where_caught()))?;
        let mut command = process::Command::new(program);
        command.current_dir(workspace.root.join(self.package)).env("RUST_BACKTRACE", "0");
        command.words(self.tests).words("--nocapture --test-threads 2");
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::{MUTANTS, without_repetition};

    #[test]
    fn names_are_unique_and_each_mutant_expects_words() {
        for (i, mutant) in MUTANTS.iter().enumerate() {
            assert!(!mutant.words.is_empty(), "{}", mutant.name);
            assert!(MUTANTS.iter().skip(i + 1).all(|m| m.name != mutant.name), "{}", mutant.name);
        }
    }

    #[test]
    fn the_same_tests_run_unbroken_only_once() {
        let once: Vec<_> = MUTANTS.iter().collect();
        let twice = [&*once, &*once].concat();
        assert_eq!(without_repetition(&twice), without_repetition(&once));
    }
}

//! `mutants`: production code broken on purpose, which a test must notice and name.

mod table;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::json::Value;
use crate::program::{Program, part};
use crate::workspace::Workspace;
use crate::{Command, Outcome, loom};
use table::Mutant;

pub(crate) use table::MUTANTS;

pub(crate) const COMMAND: Command = Command {
    name: "mutants",
    args: "[NAME] [--no-baseline]",
    about: "break the code on purpose: for each mutant a test must fail as expected",
    run,
};

/// A test that takes longer than this hangs.
const LIMIT: Duration = Duration::from_mins(4);

/// The file name under which this program acts as the compiler; its folder names the mutant.
const COMPILER: &str = "codexdb-mutant-rustc";

/// Acts as the compiler of workspace crates, adding the mutant's cfg, when cargo started it as one.
///
/// A wrapper rather than `RUSTFLAGS`: cargo keeps the artefacts of each wrapper's path apart, and
/// the dependencies, which no mutant changes, are not built again.
pub(crate) fn act_as_compiler() -> Option<ExitCode> {
    let mut words = std::env::args_os();
    let own = PathBuf::from(words.next()?);
    if own.file_stem() != Some(OsStr::new(COMPILER)) {
        return None;
    }
    let mutant = own.parent()?.file_name()?.to_str()?;
    let mut compiler = std::process::Command::new(words.next()?);
    compiler.args(words).arg("--cfg").arg(format!("codex_mutant=\"{mutant}\""));
    let code = compiler.status().ok().and_then(|status| status.code()).unwrap_or(1);
    Some(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

fn run(workspace: &Workspace, words: &[String]) -> Outcome {
    let (flags, names): (Vec<&String>, Vec<&String>) =
        words.iter().partition(|w| w.starts_with('-'));
    if let Some(unknown) = flags.iter().find(|flag| **flag != "--no-baseline") {
        return Err(format!(
            "does not know `{unknown}`; it takes the name of a mutant, --no-baseline"
        ));
    }
    if let Some(unknown) =
        names.iter().find(|name| !MUTANTS.iter().any(|m| m.name == name.as_str()))
    {
        return Err(format!("there is no mutant `{unknown}`; see xtask/src/mutants/table.rs"));
    }
    let chosen = |m: &&Mutant| names.is_empty() || names.iter().any(|name| *name == m.name);
    let chosen: Vec<Mutant> = MUTANTS.iter().filter(chosen).copied().collect();
    if flags.is_empty() {
        for mutant in without_repetition(&chosen) {
            part(&format!("unbroken: {}", mutant.where_caught()), || {
                passes_unbroken(workspace, mutant)
            })?;
        }
    }
    let mut survivors = Vec::new();
    for mutant in &chosen {
        if let Err(error) = part(&format!("{} is caught", mutant.name), || catch(workspace, mutant))
        {
            println!("{error}");
            survivors.push(mutant.name);
        }
    }
    if survivors.is_empty() {
        return Ok(format!("{} caught", chosen.len()));
    }
    Err(format!("not caught as expected: {}", survivors.join(", ")))
}

/// The first mutant of each set of tests.
fn without_repetition(mutants: &[Mutant]) -> Vec<&Mutant> {
    let mut seen = Vec::new();
    let new = |m: &&Mutant| {
        let place = m.where_caught();
        let new = !seen.contains(&place);
        seen.push(place);
        new
    };
    mutants.iter().filter(new).collect()
}

fn passes_unbroken(workspace: &Workspace, mutant: &Mutant) -> Outcome<()> {
    let program = build(workspace, mutant, None)?;
    let ended = mutant.start(workspace, &program).within(LIMIT)?;
    if !ended.success() {
        return Err(format!("the tests fail without any mutant:\n{}", ended.output));
    }
    if ended.output.contains("running 0 tests") {
        return Err(format!("no test matches {}", mutant.where_caught()));
    }
    Ok(())
}

/// Builds the mutant and runs its tests: they must fail, and say why.
fn catch(workspace: &Workspace, mutant: &Mutant) -> Outcome<()> {
    let wrapper = wrapper(&workspace.target()?, mutant.name)?;
    let program = build(workspace, mutant, Some(&wrapper))?;
    let ended = mutant.start(workspace, &program).within(LIMIT)?;
    let output = tail(&ended.output);
    let place = mutant.where_caught();
    if ended.success() {
        let results =
            output.lines().rfind(|line| line.starts_with("test result")).unwrap_or_default();
        return Err(format!("{} survived: {place}: {results}", mutant.name));
    }
    if ended.status.is_none() {
        let seconds = LIMIT.as_secs();
        return Err(format!("{}: {place} still ran after {seconds} s\n{output}", mutant.name));
    }
    match mutant.words.iter().find(|word| !ended.output.contains(**word)) {
        None => Ok(()),
        Some(missing) => Err(format!(
            "{}: {place} failed, but not for the reason meant: no {missing:?} in\n{output}",
            mutant.name
        )),
    }
}

/// A copy of this program under the name by which it acts as the compiler.
fn wrapper(target: &Path, mutant: &str) -> Outcome<PathBuf> {
    let folder = target.join("mutants").join(mutant);
    let file = folder.join(format!("{COMPILER}{}", std::env::consts::EXE_SUFFIX));
    let own = std::env::current_exe().map_err(|e| format!("where is this program? {e}"))?;
    let made = std::fs::create_dir_all(&folder).and_then(|()| std::fs::copy(&own, &file));
    made.map_err(|e| format!("cannot copy {} to {}: {e}", own.display(), file.display()))?;
    Ok(file)
}

/// Builds the test program apart from running it: what does not compile is not caught.
fn build(workspace: &Workspace, mutant: &Mutant, wrapper: Option<&Path>) -> Outcome<PathBuf> {
    let words = "test --no-run --quiet --message-format json-render-diagnostics --package";
    let cargo = if mutant.loom { loom::cargo(workspace, words)? } else { workspace.cargo(words) };
    let mut cargo = cargo.args([mutant.package]);
    cargo = match mutant.program {
        "" => cargo.words("--lib"),
        name => cargo.args(["--test", name]),
    };
    if mutant.loom {
        cargo = cargo.words("--release");
    }
    if let Some(wrapper) = wrapper {
        cargo = cargo.env("RUSTC_WORKSPACE_WRAPPER", wrapper).env("CARGO_INCREMENTAL", "0");
        if !mutant.long {
            cargo = cargo.env("CARGO_PROFILE_TEST_OPT_LEVEL", "0");
        }
    }
    executable(&cargo.read()?)
        .ok_or_else(|| format!("cargo built no test program for {}", mutant.where_caught()))
}

/// The test program among cargo's messages, one JSON object a line.
fn executable(messages: &str) -> Option<PathBuf> {
    let built = |line| {
        let message = Value::read(line).ok()?;
        let is_test = *message.field("profile").field("test") == Value::Bool(true);
        let program = message.field("executable").text().map(PathBuf::from)?;
        is_test.then_some(program)
    };
    messages.lines().filter_map(built).next_back()
}

fn tail(output: &str) -> String {
    const LINES: usize = 40;
    let lines: Vec<&str> = output.lines().collect();
    let from = lines.len().saturating_sub(LINES);
    lines.get(from..).unwrap_or_default().join("\n")
}

impl Mutant {
    fn where_caught(&self) -> String {
        let program = if self.program.is_empty() { "library" } else { self.program };
        let tests = if self.tests.is_empty() { "all tests" } else { self.tests };
        format!("{}, {program}, {tests}", self.package)
    }

    fn start(&self, workspace: &Workspace, program: &Path) -> Program {
        let started = Program::new(program).at(&workspace.root.join(self.package));
        let filter = Some(self.tests).filter(|tests| !tests.is_empty());
        let started = started.args(filter).words("--nocapture --test-threads 2");
        started.env("RUST_BACKTRACE", "0")
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{MUTANTS, executable, without_repetition};

    #[test]
    fn names_are_unique_and_each_mutant_expects_words() {
        for (i, mutant) in MUTANTS.iter().enumerate() {
            assert!(!mutant.words.is_empty(), "{}", mutant.name);
            assert!(MUTANTS.iter().skip(i + 1).all(|m| m.name != mutant.name), "{}", mutant.name);
        }
    }

    #[test]
    fn the_test_program_is_found_among_the_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","profile":{"test":true},"executable":"/deps/loom-1"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","profile":{"test":true},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","profile":{"test":false},"executable":"/bin/tool"}"#,
            "\nnot json\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(executable(messages), Some(PathBuf::from("/deps/loom-1")));
        assert_eq!(executable(""), None);
    }

    #[test]
    fn the_same_tests_run_unbroken_only_once() {
        let twice: Vec<_> = MUTANTS.iter().chain(MUTANTS).copied().collect();
        let once = without_repetition(&twice);
        assert_eq!(once.len(), without_repetition(MUTANTS).len());
    }
}

//! `loom`: runs the model checker on the real types for locks and commits, and checks the number of
//! executions of each model against a minimum.

use std::process;

use pico_args::Arguments;

use crate::program::Run;
use crate::workspace::Workspace;
use crate::{Command, Outcome};

pub(crate) const COMMAND: Command = Command {
    name: "loom",
    args: "",
    about: "model-check the commit path, with the number of executions explored",
    run,
};

/// The packages that are built for loom.
pub(crate) const PACKAGES: &[&str] = &["codex-core", "codex-storage"];

/// The test program that contains the models of a package.
pub(crate) const TEST: &str = "loom";

/// The minimum number of models. If there are fewer, some were lost.
const MODELS_MIN: usize = 27;

/// Variables that make loom end early and still report success.
const CUT_SHORT: &[&str] = &["LOOM_MAX_PERMUTATIONS", "LOOM_MAX_DURATION", "LOOM_MAX_BRANCHES"];

/// The line that a model prints: `loom-model NAME executions=N floor=M`.
#[derive(Debug, PartialEq, Eq)]
struct Model {
    name: String,
    executions: u64,
    floor: u64,
}

fn run(workspace: &Workspace, words: Arguments) -> Outcome {
    COMMAND.done(words)?;
    if let Some(name) = CUT_SHORT.iter().find(|name| std::env::var_os(name).is_some()) {
        return Err(format!("{name} is set: loom would stop early and pass; unset it"));
    }
    let mut models = Vec::new();
    for package in workspace.members()?.iter().filter(|p| p.has_target("test", TEST)) {
        let test = format!("test --release --package {} --test {TEST}", package.name);
        cargo(workspace, &test)?.words("--no-run").progress()?;
        let mut cargo = cargo(workspace, &test)?;
        let output = cargo.words("--quiet -- --nocapture --test-threads 2").quiet()?;
        models.extend(output.lines().filter_map(Model::read));
    }
    models.sort_by(|a, b| a.name.cmp(&b.name));
    println!("  {:<48} {:>12} {:>12}", "model", "executions", "floor");
    for model in &models {
        println!("  {:<48} {:>12} {:>12}", model.name, model.executions, model.floor);
    }
    judge(&models)
}

/// Returns a cargo command in which loom replaces the locks of the standard library, with a
/// separate target directory.
pub(crate) fn cargo(workspace: &Workspace, words: &str) -> Outcome<process::Command> {
    let mut cargo = workspace.cargo(words);
    cargo.env_flags("RUSTFLAGS", "--cfg loom");
    cargo.env("CARGO_TARGET_DIR", workspace.target()?.join("loom"));
    // The models spend their time in loom itself, so thin LTO would only make the build longer.
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "off");
    cargo.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    Ok(cargo)
}

fn judge(models: &[Model]) -> Outcome {
    // A model with fewer executions than its floor does not check what it did before.
    if let Some(model) = models.iter().find(|model| model.executions < model.floor) {
        return Err(format!(
            "model {} explored {} executions, below its floor of {}: it lost some of its cover",
            model.name, model.executions, model.floor
        ));
    }
    // A missing model would otherwise go unnoticed.
    if models.len() < MODELS_MIN {
        return Err(format!(
            "{} models reported, at least {MODELS_MIN} are expected: each prints \
             `loom-model NAME executions=N floor=M`",
            models.len()
        ));
    }
    // loom explores the same executions each time, so a floor can be close to them.
    if let Some(model) = models.iter().find(|model| model.floor < model.executions / 2) {
        return Err(format!(
            "model {} explores {} executions: its floor of {} would miss the loss of half of them",
            model.name, model.executions, model.floor
        ));
    }
    let executions: u64 = models.iter().map(|model| model.executions).sum();
    Ok(format!("{} models, {executions} executions", models.len()))
}

impl Model {
    fn read(line: &str) -> Option<Self> {
        // The runner may have printed text of its own at the start of the line.
        let (_, report) = line.split_once("loom-model ")?;
        let mut words = report.split_whitespace();
        let name = words.next()?.to_owned();
        let executions = words.next()?.strip_prefix("executions=")?.parse().ok()?;
        let floor = words.next()?.strip_prefix("floor=")?.parse().ok()?;
        Some(Self { name, executions, floor })
    }
}

#[cfg(test)]
mod tests {
    use super::{MODELS_MIN, Model, judge};

    fn models(count: usize) -> Vec<Model> {
        let model = |i| Model { name: format!("m{i}"), executions: 10, floor: 5 };
        (0..count).map(model).collect()
    }

    #[test]
    fn reports_are_read_also_behind_other_output() {
        let model = Model { name: "a_b".to_owned(), executions: 12, floor: 3 };
        assert_eq!(Model::read("..loom-model a_b executions=12 floor=3"), Some(model));
        assert_eq!(Model::read("loom-model a_b executions=12"), None);
        assert_eq!(Model::read("test a_b ... ok"), None);
    }

    #[test]
    fn enough_models_above_their_floors_pass() {
        let passed = format!("{MODELS_MIN} models, {} executions", 10 * MODELS_MIN);
        assert_eq!(judge(&models(MODELS_MIN)).unwrap(), passed);
    }

    #[test]
    fn a_missing_model_fails() {
        assert!(judge(&models(MODELS_MIN - 1)).unwrap_err().contains("at least"));
    }

    #[test]
    fn a_model_below_its_floor_or_with_a_token_one_fails() {
        let mut few = models(MODELS_MIN);
        few[2].executions = 4;
        assert!(judge(&few).unwrap_err().contains("m2 explored 4"));
        few[2].floor = 1;
        assert!(judge(&few).unwrap_err().contains("floor of 1 would miss"));
    }
}

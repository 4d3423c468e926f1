//! `check`: checks formatting, lints and documentation. Every warning is an error.

use std::fmt::Write as _;
use std::path::Path;
use std::thread;

use pico_args::Arguments;

use crate::loom;
use crate::program::{Run, part, part_beside};
use crate::workspace::{Package, Workspace};
use crate::{Command, Outcome};

pub(crate) const COMMAND: Command = Command {
    name: "check",
    args: "",
    about: "formatting, clippy (packages alone, features, loom), rustdoc",
    run,
};

/// Features that add other stores, test oracles and harnesses. They are not combined with the other
/// features.
pub(crate) const HEAVY: &[&str] = &["peers", "oracle", "bench", "browser"];

/// The maximum number of features of which all sets are checked. If a library has more, each
/// feature is checked alone, and then all together.
const POWERSET_MAX: usize = 4;

fn run(workspace: &Workspace, words: Arguments) -> Outcome {
    COMMAND.done(words)?;
    need(workspace, "fmt", "rustfmt")?;
    need(workspace, "clippy", "clippy")?;
    part("formatting", || workspace.cargo("fmt --all --check").quiet())?;
    // The sets of features are checked in a target directory of their own, which locks out no other
    // call of cargo: most calls compile one crate, with one thread.
    let features = workspace.target()?.join("features");
    let (whole, sets) = thread::scope(|scope| {
        let sets = scope.spawn(|| sets(workspace, &features));
        (whole(workspace), sets.join())
    });
    whole?;
    sets.unwrap_or_else(|_| Err("the check of the sets of features panicked".to_owned()))?;
    Ok("no warning".to_owned())
}

/// Checks everything but the sets of features.
fn whole(workspace: &Workspace) -> Outcome<()> {
    clippy(workspace, "clippy: workspace", "--workspace --all-targets")?;
    for package in workspace.members()? {
        let name = &package.name;
        // The others are used in this workspace alone, where the check of all is enough.
        if package.is_published {
            let title = format!("clippy: {name} alone");
            clippy(workspace, &title, &format!("--package {name} --all-targets"))?;
        }
        let features = features_of_targets(&package);
        if !features.is_empty() {
            let title = format!("clippy: {name} with the features of its tests and benches");
            let scope = format!("--package {name} --all-targets --features {features}");
            clippy(workspace, &title, &scope)?;
        }
    }
    part_beside("clippy: --cfg loom", || {
        let mut cargo = loom::cargo(workspace, "clippy --quiet")?;
        cargo.words(&loom_scope(workspace)?).words("-- --deny warnings").quiet()
    })?;
    part_beside("rustdoc", || {
        let mut cargo = workspace.cargo("doc --quiet --workspace --no-deps");
        cargo.env_flags("RUSTDOCFLAGS", "--deny warnings").quiet()
    })
    .map(drop)
}

/// Checks each library with the sets of its features, in the directory `target`.
fn sets(workspace: &Workspace, target: &Path) -> Outcome<()> {
    for package in workspace.members()? {
        let name = &package.name;
        for set in feature_sets(&package) {
            let scope = format!("--package {name} --lib --no-default-features --features");
            part_beside(&format!("clippy: {name} with [{set}]"), || {
                let mut cargo = workspace.cargo("clippy --quiet");
                cargo.env("CARGO_TARGET_DIR", target).words(&scope).arg(&set);
                cargo.words("-- --deny warnings").quiet()
            })?;
        }
    }
    Ok(())
}

fn clippy(workspace: &Workspace, title: &str, scope: &str) -> Outcome<()> {
    part_beside(title, || {
        workspace.cargo("clippy --quiet").words(scope).words("-- --deny warnings").quiet().map(drop)
    })
}

fn need(workspace: &Workspace, subcommand: &str, component: &str) -> Outcome<()> {
    if workspace.has(subcommand) {
        return Ok(());
    }
    Err(format!(
        "{component} is not installed and the check cannot be made without it: \
         `rustup component add {component}`, \
         or the package of your system that brings `cargo {subcommand}`"
    ))
}

/// Returns the arguments of cargo that select the libraries and their models, which are also built
/// for the model checker.
fn loom_scope(workspace: &Workspace) -> Outcome<String> {
    let mut scope = "--lib".to_owned();
    for package in workspace.members()? {
        if loom::PACKAGES.contains(&package.name.as_str()) {
            let _ = write!(scope, " --package {}", package.name);
            if package.has_target("test", loom::TEST) {
                let _ = write!(scope, " --test {}", loom::TEST);
            }
        }
    }
    Ok(scope)
}

/// Returns the features that some tests and benchmarks need to be built, except the feature that
/// adds other stores.
fn features_of_targets(package: &Package) -> String {
    let needed = package.targets.iter().flat_map(|target| &target.features);
    let mut needed: Vec<&str> =
        needed.map(String::as_str).filter(|name| *name != "peers").collect();
    needed.sort_unstable();
    needed.dedup();
    needed.join(",")
}

/// Returns the sets of features with which a library is checked, as arguments of cargo.
fn feature_sets(package: &Package) -> Vec<String> {
    let mut features = package.feature_names();
    features.retain(|feature| !HEAVY.contains(feature));
    if features.is_empty() || !package.has_lib() {
        return Vec::new();
    }
    // Few features: every set of them, with a bit of a number for each feature.
    if features.len() <= POWERSET_MAX {
        let in_set = |set: usize, i: usize| set & (1 << i) != 0;
        let set_of = |set: usize| {
            let chosen = features.iter().enumerate().filter(move |(i, _)| in_set(set, *i));
            package.buildable(chosen.map(|(_, feature)| *feature).collect())
        };
        return (0..1 << features.len()).map(set_of).collect();
    }
    // Many features: none, all together, and each alone.
    let mut sets = vec![package.buildable(Vec::new()), features.join(",")];
    sets.extend(features.iter().map(|feature| package.buildable(vec![feature])));
    sets
}

#[cfg(test)]
mod tests {
    use super::feature_sets;
    use crate::workspace::{Package, Target};

    fn package(features: &[&str]) -> Package {
        Package {
            name: "p".to_owned(),
            targets: vec![Target {
                kind: "lib".to_owned(),
                name: "p".to_owned(),
                features: Vec::new(),
            }],
            features: features.iter().map(|f| ((*f).to_owned(), Vec::new())).collect(),
            ..Package::default()
        }
    }

    #[test]
    fn few_features_give_all_their_sets_without_the_heavy_ones() {
        let sets = feature_sets(&package(&["default", "a", "b", "peers"]));
        assert_eq!(sets, ["", "a", "b", "a,b"]);
        assert!(feature_sets(&package(&["default"])).is_empty());
    }

    #[test]
    fn each_set_has_one_of_the_codecs() {
        let sets = feature_sets(&package(&["bincode", "crypto", "json"]));
        let few = ["json", "bincode", "crypto,json", "bincode,crypto", "json", "bincode,json"];
        assert_eq!(sets[..few.len()], few);
        let sets = feature_sets(&package(&["a", "b", "bincode", "crypto", "json"]));
        let many = ["json", "a,b,bincode,crypto,json", "a,json", "b,json", "bincode"];
        assert_eq!(sets[..many.len()], many);
    }

    #[test]
    fn many_features_are_checked_one_by_one_and_together() {
        let sets = feature_sets(&package(&["a", "b", "c", "d", "e"]));
        assert_eq!(sets, ["", "a,b,c,d,e", "a", "b", "c", "d", "e"]);
    }
}

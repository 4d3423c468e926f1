//! `layers`: checks the dependencies between the crates of the workspace, and the number of crates
//! that the library depends on. `check` compiles each crate alone.

use pico_args::Arguments;

use crate::program::{Run, part};
use crate::workspace::{Package, Workspace};
use crate::{Command, Outcome};

pub(crate) const COMMAND: Command = Command {
    name: "layers",
    args: "",
    about: "allowed edges between crates only; few dependencies",
    run,
};

/// Each crate of the workspace, with the crates that it may depend on.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("codex-crypto", &[]),
    ("codex-storage", &[]),
    ("codex-backup", &["codex-storage"]),
    ("codex-core", &["codex-storage", "codex-backup", "codex-crypto"]),
    ("codex-bench", &["codex-core", "codex-storage", "codex-backup", "codex-crypto"]),
    ("codexdb", &["codex-core", "codex-storage"]),
    ("xtask", &[]),
];

/// The crate whose dependencies are counted.
const LIBRARY: &str = "codex-core";

/// The feature of the library that adds encryption.
const ENCRYPTION: &str = "crypto";

/// The maximum number of crates in the tree of the library with its default features, including
/// itself.
const CRATES_MAX: usize = 75;

/// The same maximum without encryption.
const CRATES_WITHOUT_ENCRYPTION_MAX: usize = 50;

/// The maximum number of crates of the library with backups in a bucket.
const CRATES_WITH_BUCKETS_MAX: usize = 130;

/// The maximum number of crates that a shared log on etcd adds.
const CRATES_OF_ETCD_MAX: usize = 20;

/// The features of the library with which no unmaintained crate may be in its tree.
const WITHOUT_BINCODE: [&str; 3] = ["--no-default-features", "--features", "crypto,json"];

/// Crates that build C code or need a library of a C compiler. The library must not depend on them.
const NEEDS_C: &[&str] = &["cc", "cmake", "bindgen", "pkg-config", "vcpkg", "autotools"];

fn run(workspace: &Workspace, words: Arguments) -> Outcome {
    COMMAND.done(words)?;
    let members = workspace.members()?;
    part("edges between crates", || edges(&members))?;
    part("crates below codex-core", || tree(workspace, &members))
}

/// Fails if a crate depends on another one without permission. This includes dev-dependencies: a
/// test must not reverse the layers.
fn edges(members: &[Package]) -> Outcome<()> {
    let mut wrong = Vec::new();
    for package in members {
        let allowed = MAY_KNOW.iter().find(|(name, _)| *name == package.name);
        let Some((_, allowed)) = allowed else {
            wrong.push(format!(
                "{}: no layer has this name; see MAY_KNOW in layers.rs",
                package.name
            ));
            continue;
        };
        for (other, kind) in &package.dependencies {
            let member = members.iter().any(|member| member.name == *other);
            // A crate may be its own dev-dependency, to enable its features in its tests.
            if member && !allowed.contains(&other.as_str()) && *other != package.name {
                wrong.push(format!("{} may not depend on {other} ({kind})", package.name));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// Counts the crates that the library depends on, with and without encryption.
fn tree(workspace: &Workspace, members: &[Package]) -> Outcome {
    let library = members.iter().find(|package| package.name == LIBRARY);
    let default = library.and_then(|package| package.features.get("default"));
    let default: &[String] = default.map_or(&[], Vec::as_slice);
    let rest: Vec<&str> = default.iter().map(String::as_str).filter(|f| *f != ENCRYPTION).collect();
    let all = counted(workspace, &[], CRATES_MAX, "with default features")?;
    let features = rest.join(",");
    let without = ["--no-default-features", "--features", &features];
    let few = counted(workspace, &without, CRATES_WITHOUT_ENCRYPTION_MAX, "without encryption")?;
    let with = ["--features", "s3"];
    let bucket = counted(workspace, &with, CRATES_WITH_BUCKETS_MAX, "with buckets")?;
    let with = ["--features", "etcd"];
    let etcd = counted(workspace, &with, all + CRATES_OF_ETCD_MAX, "with etcd")?;
    let mut cargo = workspace.cargo("tree --prefix none --package");
    let json = cargo.arg(LIBRARY).args(WITHOUT_BINCODE).args(["--edges", "normal,build"]).read()?;
    if json.lines().any(|line| line.starts_with("bincode ")) {
        return Err(format!("{LIBRARY} brings bincode without its feature `bincode`"));
    }
    Ok(format!(
        "{all} crates below {LIBRARY} with default features, {few} without encryption, {bucket} \
         with buckets, {etcd} with etcd"
    ))
}

fn counted(workspace: &Workspace, args: &[&str], most: usize, what: &str) -> Outcome<usize> {
    let tree = |kinds: &str| {
        let mut cargo = workspace.cargo("tree --prefix none --no-dedupe --package");
        cargo.arg(LIBRARY).args(args).args(["--edges", kinds]);
        Ok::<_, String>(unique(&cargo.read()?))
    };
    let crates = tree("normal")?;
    if crates.len() > most {
        return Err(format!(
            "{LIBRARY} {what} brings {} crates, at most {most} are allowed:\n  {}",
            crates.len(),
            crates.join("\n  ")
        ));
    }
    let builds = tree("normal,build")?;
    let needs_c = |line: &&String| NEEDS_C.contains(&line.split(' ').next().unwrap_or_default());
    match builds.iter().find(needs_c) {
        None => Ok(crates.len()),
        Some(name) => Err(format!("{LIBRARY} {what} needs a C compiler: {name} is in its tree")),
    }
}

/// Returns the distinct `name version` lines of `cargo tree`.
fn unique(tree: &str) -> Vec<String> {
    let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let mut crates: Vec<String> = tree.lines().filter(|l| !l.is_empty()).map(name).collect();
    crates.sort();
    crates.dedup();
    crates
}

#[cfg(test)]
mod tests {
    use super::{edges, unique};
    use crate::workspace::Package;

    fn package(name: &str, dependencies: &[(&str, &str)]) -> Package {
        let owned = |(name, kind): &(&str, &str)| ((*name).to_owned(), (*kind).to_owned());
        Package {
            name: name.to_owned(),
            dependencies: dependencies.iter().map(owned).collect(),
            ..Package::default()
        }
    }

    #[test]
    fn an_upward_edge_fails_also_in_tests() {
        let core = || package("codex-core", &[("codex-storage", "normal"), ("serde", "normal")]);
        let storage = package("codex-storage", &[("codex-storage", "dev")]);
        assert_eq!(edges(&[core(), storage]), Ok(()));
        for kind in ["normal", "dev", "build"] {
            let storage = package("codex-storage", &[("codex-core", kind)]);
            let wrong = edges(&[core(), storage]).unwrap_err();
            assert_eq!(wrong, format!("codex-storage may not depend on codex-core ({kind})"));
        }
    }

    #[test]
    fn a_crate_without_a_layer_fails() {
        assert!(edges(&[package("codex-extra", &[])]).unwrap_err().contains("no layer"));
    }

    #[test]
    fn crates_are_counted_once() {
        assert_eq!(unique("a v1.0.0 (*)\nb v2.0.0 (proc-macro)\n\na v1.0.0\na v2.0.0\n").len(), 3);
    }
}

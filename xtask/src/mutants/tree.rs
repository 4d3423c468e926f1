//! The scratch copy of the workspace that contains all mutants, and the programs that are built in
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::edits::EDITS;
use super::table::{LIB, Mutant};
use crate::program::Run;
use crate::workspace::{Workspace, field, json, text_of, texts_of};
use crate::{Outcome, loom};

/// The environment variable that selects the active mutant.
pub(super) const CHOSEN: &str = "CODEX_MUTANT";

/// The code that each library of the copy has in addition. It tells whether a mutant is the active
/// one.
const SWITCH: &str = r#"
#[allow(dead_code, clippy::all, missing_docs)]
fn mutant(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<std::ffi::OsString>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var_os("CODEX_MUTANT"));
    chosen.as_deref() == Some(std::ffi::OsStr::new(name))
}
"#;

/// The copy with all mutants. None is active until its name is selected.
#[derive(Debug)]
pub(super) struct Tree {
    copy: Workspace,
    target: PathBuf,
}

/// The test programs, by package and name.
pub(super) type Programs = BTreeMap<(String, String), PathBuf>;

impl Tree {
    /// Copies the files that git knows in the workspace, and makes every edit. Does not write files
    /// that are already right, so that cargo builds only what has changed.
    pub(super) fn make(workspace: &Workspace) -> Outcome<Self> {
        // The target directory of the workspace has the dependencies already.
        let target = workspace.target()?;
        let root = target.join("mutants");
        let files = workspace.files()?;
        remove_others(&root, &root, &files.iter().map(PathBuf::from).collect())?;
        for file in &files {
            let from = workspace.root.join(file);
            let bytes = fs::read(&from).map_err(|e| format!("{}: {e}", from.display()))?;
            // A Rust file gets its edits. The crates get a version of their own: cargo would
            // otherwise take the programs of the copy for those of the workspace.
            let text = || String::from_utf8_lossy(&bytes).into_owned();
            let bytes = if Path::new(file).extension().is_some_and(|ext| ext == "rs") {
                mutated(file, text())?.into_bytes()
            } else if file == "Cargo.toml" {
                with_version(&text())?.into_bytes()
            } else {
                bytes
            };
            let to = root.join(file);
            let make = || {
                if fs::read(&to).is_ok_and(|now| now == bytes) {
                    return Ok(());
                }
                fs::create_dir_all(to.parent().unwrap_or(&root))?;
                fs::write(&to, &bytes)
            };
            make().map_err(|e| format!("{}: {e}", to.display()))?;
        }
        Ok(Self { copy: Workspace { root }, target })
    }

    /// Builds the programs that catch these mutants: all that run without loom, or all that run
    /// with it.
    pub(super) fn build(&self, mutants: &[&Mutant]) -> Outcome<Programs> {
        let mut programs = Programs::new();
        for with_loom in [false, true] {
            let chosen = || mutants.iter().filter(|mutant| mutant.is_modelled() == with_loom);
            if chosen().next().is_none() {
                continue;
            }
            let words = "test --no-run --quiet --message-format json-render-diagnostics";
            let (mut cargo, target) = if with_loom {
                (loom::cargo(&self.copy, words)?, self.target.join("loom"))
            } else {
                (self.copy.cargo(words), self.target.clone())
            };
            cargo.args(with_loom.then_some("--release")).env("CARGO_TARGET_DIR", target);
            // All packages in one build, so that each is compiled once.
            for package in chosen().map(|mutant| mutant.package).collect::<BTreeSet<_>>() {
                cargo.args(["--package", package]);
            }
            for name in chosen().map(|mutant| mutant.program).collect::<BTreeSet<_>>() {
                if name == LIB {
                    cargo.arg("--lib")
                } else {
                    cargo.args(["--test", name])
                };
            }
            programs.extend(executables(&cargo.read()?));
        }
        match mutants.iter().find(|mutant| !programs.contains_key(&mutant.built_as())) {
            None => Ok(programs),
            Some(lost) => Err(format!("cargo built no test program for {}", lost.where_caught())),
        }
    }
}

/// Returns the manifest of the workspace with another version of its crates.
fn with_version(manifest: &str) -> Outcome<String> {
    let version = format!("version = \"{}\"", env!("CARGO_PKG_VERSION"));
    if !manifest.contains(&version) {
        return Err(format!("Cargo.toml does not have {version:?}"));
    }
    let other = format!("version = \"{}-mutants\"", env!("CARGO_PKG_VERSION"));
    Ok(manifest.replace(&version, &other))
}

/// Returns the text of `file` with all of its edits.
fn mutated(file: &str, mut text: String) -> Outcome<String> {
    for edit in EDITS.iter().filter(|edit| edit.file == file) {
        let edited = edit.apply(&text).ok_or_else(|| {
            format!("{file} does not have the lines of `{}` exactly once", edit.mutant)
        })?;
        text = edited;
    }
    if file.ends_with("/src/lib.rs") && !file.starts_with("xtask") {
        text.push_str(SWITCH);
    }
    Ok(text)
}

/// Removes files of an earlier copy that the workspace does not have any more.
fn remove_others(root: &Path, folder: &Path, files: &BTreeSet<PathBuf>) -> Outcome<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            remove_others(root, &path, files)?;
        } else if path.strip_prefix(root).is_ok_and(|path| !files.contains(path)) {
            fs::remove_file(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        }
    }
    Ok(())
}

/// Returns package, name and path of the test programs in the messages of cargo, which are one JSON
/// object per line.
fn executables(messages: &str) -> Vec<((String, String), PathBuf)> {
    let built = |line| {
        let message = json(line).ok()?;
        let is_test = *field(field(&message, "profile"), "test").get::<bool>()?;
        let program = PathBuf::from(field(&message, "executable").get::<String>()?);
        let target = field(&message, "target");
        let kind = texts_of(field(target, "kind")).into_iter().next()?;
        let name = if kind == LIB { kind } else { text_of(field(target, "name")) };
        let package = package(&text_of(field(&message, "package_id")))?;
        is_test.then_some(((package, name), program))
    };
    messages.lines().filter_map(built).collect()
}

/// Returns the name of the package in an id such as `path+file:///folder/NAME#VERSION` or
/// `path+file:///folder#NAME@VERSION`.
fn package(id: &str) -> Option<String> {
    let (path, version) = id.rsplit_once('#')?;
    let folder = path.rsplit('/').next()?;
    Some(version.split_once('@').map_or(folder, |(name, _)| name).to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{CHOSEN, SWITCH, executables, package, with_version};

    #[test]
    fn test_programs_are_found_among_the_messages() {
        let line = |test, kind, name, program| {
            format!(
                r#"{{"package_id":"path+file:///ws/p#1.0.0","profile":{{"test":{test}}},
                    "target":{{"kind":["{kind}"],"name":"{name}"}},"executable":{program}}}"#
            )
            .replace('\n', "")
        };
        let messages = [
            line(true, "test", "loom", r#""/deps/loom-1""#),
            line(true, "lib", "a", "null"),
            line(false, "bin", "b", r#""/bin/tool""#),
            "not json".to_owned(),
            r#"{"reason":"build-finished","success":true}"#.to_owned(),
        ]
        .join("\n");
        let loom = (("p".to_owned(), "loom".to_owned()), PathBuf::from("/deps/loom-1"));
        assert_eq!(executables(&messages), [loom]);
        assert!(executables("").is_empty());
    }

    #[test]
    fn a_package_id_has_the_name_in_one_of_two_places() {
        assert_eq!(package("path+file:///ws/p#1.0.0-mutants").as_deref(), Some("p"));
        assert_eq!(package("path+file:///ws/p/cli#q@1.0.0").as_deref(), Some("q"));
        assert_eq!(package("p"), None);
    }

    #[test]
    fn the_crates_of_the_copy_have_another_version() {
        let manifest = format!("version = \"{}\"\n", env!("CARGO_PKG_VERSION"));
        let other = with_version(&manifest).unwrap();
        assert_eq!(other, manifest.replace("\"\n", "-mutants\"\n"));
        assert!(with_version("version = \"999.0.0\"").is_err());
    }

    #[test]
    fn the_switch_reads_the_variable_that_is_set() {
        assert!(SWITCH.contains(&format!("\"{CHOSEN}\"")));
    }
}

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
        // The copy needs its own target directory. Otherwise cargo would use the programs of the
        // copy for the workspace, and would run outdated tests of the workspace.
        let target = workspace.target()?.join("mutants");
        let root = target.join("copy");
        let files = workspace.files()?;
        remove_others(&root, &root, &files.iter().map(PathBuf::from).collect())?;
        for file in &files {
            let from = workspace.root.join(file);
            let bytes = fs::read(&from).map_err(|e| format!("{}: {e}", from.display()))?;
            // A Rust file gets its edits.
            let bytes = if Path::new(file).extension().is_some_and(|ext| ext == "rs") {
                mutated(file, String::from_utf8_lossy(&bytes).into_owned())?.into_bytes()
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
            let packages: BTreeSet<&str> = chosen().map(|mutant| mutant.package).collect();
            for package in packages {
                let names = chosen().filter(|mutant| mutant.package == package);
                let names: BTreeSet<&str> = names.map(|mutant| mutant.program).collect();
                self.build_package(package, &names, with_loom, &mut programs)?;
            }
        }
        Ok(programs)
    }

    fn build_package(
        &self,
        package: &str,
        names: &BTreeSet<&str>,
        with_loom: bool,
        programs: &mut Programs,
    ) -> Outcome<()> {
        let words = "test --no-run --quiet --message-format json-render-diagnostics --package";
        // The builds with and without loom have a target directory each, so that neither replaces
        // the other.
        let (mut cargo, target) = if with_loom {
            (loom::cargo(&self.copy, words)?, self.target.join("loom"))
        } else {
            (self.copy.cargo(words), self.target.clone())
        };
        cargo.arg(package).args(with_loom.then_some("--release")).env("CARGO_TARGET_DIR", target);
        for name in names {
            if *name == LIB {
                cargo.arg("--lib")
            } else {
                cargo.args(["--test", name])
            };
        }
        for (kind, name, program) in executables(&cargo.read()?) {
            let name = if kind == LIB { kind } else { name };
            programs.insert((package.to_owned(), name), program);
        }
        let lost = names
            .iter()
            .find(|name| !programs.contains_key(&(package.to_owned(), (**name).to_owned())));
        lost.map_or(Ok(()), |name| {
            Err(format!("cargo built no test program `{name}` of {package}"))
        })
    }
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

/// Returns kind, name and path of the test programs in the messages of cargo, which are one JSON
/// object per line.
fn executables(messages: &str) -> Vec<(String, String, PathBuf)> {
    let built = |line| {
        let message = json(line).ok()?;
        let is_test = *field(field(&message, "profile"), "test").get::<bool>()?;
        let program = PathBuf::from(field(&message, "executable").get::<String>()?);
        let target = field(&message, "target");
        let kind = texts_of(field(target, "kind")).into_iter().next()?;
        is_test.then_some((kind, text_of(field(target, "name")), program))
    };
    messages.lines().filter_map(built).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{CHOSEN, SWITCH, executables};

    #[test]
    fn test_programs_are_found_among_the_messages() {
        let line = |test, kind, name, program| {
            format!(
                r#"{{"profile":{{"test":{test}}},"target":{{"kind":["{kind}"],"name":"{name}"}},
                    "executable":{program}}}"#
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
        let loom = ("test".to_owned(), "loom".to_owned(), PathBuf::from("/deps/loom-1"));
        assert_eq!(executables(&messages), [loom]);
        assert!(executables("").is_empty());
    }

    #[test]
    fn the_switch_reads_the_variable_that_is_set() {
        assert!(SWITCH.contains(&format!("\"{CHOSEN}\"")));
    }
}

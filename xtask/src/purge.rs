//! `purge`: removes the files of builds and of runs of this project, and nothing else. Then builds
//! again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use pico_args::Arguments;

use crate::program::Run;
use crate::workspace::Workspace;
use crate::{Command, Outcome};

pub(crate) const COMMAND: Command = Command {
    name: "purge",
    args: "[--dry-run]",
    about: "remove the files of builds and runs of this project, never a store of yours",
    run,
};

/// The file with which a program of this project marks a directory that it made for a run.
const RUN_MARK: &str = ".codexdb-run";

/// The file that cargo writes into every target directory.
const CARGO_MARK: &str = "CACHEDIR.TAG";

/// The directory inside a target directory that cargo gives to tests. All of its content was made
/// by tests.
const TESTS_OWN: &str = "tmp";

fn run(workspace: &Workspace, mut words: Arguments) -> Outcome {
    let dry = words.contains("--dry-run");
    COMMAND.done(words)?;
    let folders = clear(&workspace.root, dry)?;
    if !dry {
        workspace.cargo("build --workspace").progress()?;
    }
    Ok(format!("{folders} folders"))
}

/// Removes the directories found below `root`, or only lists them.
fn clear(root: &Path, dry: bool) -> Outcome<usize> {
    let found = findings(root)?;
    for folder in &found {
        if !dry {
            fs::remove_dir_all(folder)
                .map_err(|e| format!("cannot remove {}: {e}", folder.display()))?;
        }
        println!("  {} {}", if dry { "would remove" } else { "removed" }, folder.display());
    }
    Ok(found.len())
}

/// Returns the directories to remove. Returns an error, so that nothing is removed, if one of them
/// contains files that are not from this project.
fn findings(root: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    search(root, &mut found)?;
    found.sort();
    for folder in &found {
        // Check all directories before any is removed.
        let tracked = git(root, "ls-files --").arg(folder).read()?;
        if let Some(file) = tracked.lines().next() {
            return Err(format!(
                "{file} is tracked by git, but lies in {}, which builds or runs made; \
                 nothing was removed: move the file",
                folder.display()
            ));
        }
        if let Some(file) = foreign(folder)? {
            return Err(format!(
                "{} looks like a database that no run of this project made; \
                 nothing was removed: move it out of {}",
                file.display(),
                folder.display()
            ));
        }
    }
    Ok(found)
}

/// Finds target directories and marked directories below `folder`. Follows no link.
fn search(folder: &Path, found: &mut Vec<PathBuf>) -> Outcome<()> {
    for path in entries(folder)? {
        let is_folder = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
        if !is_folder || path.file_name().is_some_and(|name| name == ".git") {
            continue;
        }
        let is_target = path.file_name().is_some_and(|name| name == "target")
            && path.join(CARGO_MARK).is_file();
        if is_target || is_run(&path) {
            found.push(path);
        } else {
            search(&path, found)?;
        }
    }
    Ok(())
}

/// Finds a database in a build directory that was made neither by tests nor by marked runs.
fn foreign(folder: &Path) -> Outcome<Option<PathBuf>> {
    if is_run(folder) {
        return Ok(None);
    }
    for path in entries(folder)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let is_folder = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
        if is_folder && name != TESTS_OWN {
            if let Some(file) = foreign(&path)? {
                return Ok(Some(file));
            }
        } else if !is_folder && name.split('.').skip(1).any(|part| part == "db") {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn git(root: &Path, words: &str) -> process::Command {
    let mut git = process::Command::new("git");
    git.current_dir(root).words(words);
    git
}

fn is_run(folder: &Path) -> bool {
    folder.join(RUN_MARK).symlink_metadata().is_ok_and(|meta| meta.is_file())
}

fn entries(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let broken = |e| format!("cannot list {}: {e}", folder.display());
    let list = fs::read_dir(folder).map_err(broken)?;
    list.map(|entry| entry.map(|entry| entry.path()).map_err(broken)).collect()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::{clear, findings, fs, git};
    use crate::program::Run;

    /// Creates a repository with a tracked file, a store of a user, a build directory and the
    /// directory of a run.
    fn repository() -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in ["src/a.rs", "app.db", "mine/app.db", "demo-run/.codexdb-run", "demo-run/s.db"]
        {
            write(&root, file);
        }
        for file in ["target/CACHEDIR.TAG", "target/debug/x", "target/tmp/t.db", "not/target/y"] {
            write(&root, file);
        }
        git(root.path(), "init --quiet").quiet().unwrap();
        git(root.path(), "add src").quiet().unwrap();
        root
    }

    fn write(root: &TempDir, file: &str) {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }

    fn names(root: &TempDir) -> Vec<String> {
        let found = findings(root.path()).unwrap();
        let name = |path: &std::path::PathBuf| {
            path.strip_prefix(root.path()).unwrap().to_string_lossy().into_owned()
        };
        found.iter().map(name).collect()
    }

    #[test]
    fn only_build_folders_and_marked_runs_are_found() {
        let root = repository();
        assert_eq!(names(&root), ["demo-run", "target"]);
    }

    #[test]
    fn a_users_store_and_tracked_files_survive_and_a_dry_run_removes_nothing() {
        let root = repository();
        let there = |file: &str| root.path().join(file).exists();
        assert_eq!(clear(root.path(), true), Ok(2));
        assert!(there("target/debug/x") && there("demo-run/s.db"));
        assert_eq!(clear(root.path(), false), Ok(2));
        assert!(!there("target") && !there("demo-run"));
        assert!(
            there("app.db") && there("mine/app.db") && there("src/a.rs") && there("not/target/y")
        );
    }

    #[test]
    fn a_users_store_in_a_build_folder_stops_everything() {
        let root = repository();
        write(&root, "target/debug/app.db");
        let error = findings(root.path()).unwrap_err();
        assert!(error.contains("app.db looks like a database"), "{error}");
        assert!(root.path().join("demo-run").exists());
    }

    #[test]
    fn a_tracked_file_in_a_marked_folder_stops_everything() {
        let root = repository();
        write(&root, "demo-run/kept.txt");
        git(root.path(), "add demo-run/kept.txt").quiet().unwrap();
        let error = findings(root.path()).unwrap_err();
        assert!(error.contains("demo-run/kept.txt is tracked"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        let root = repository();
        let outside = tempfile::tempdir().unwrap();
        write(&outside, "elsewhere/.codexdb-run");
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        let mark = root.path().join("mine/.codexdb-run");
        std::os::unix::fs::symlink(root.path().join("src/a.rs"), mark).unwrap();
        assert_eq!(names(&root), ["demo-run", "target"]);
    }
}

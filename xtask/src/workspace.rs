//! The workspace as cargo sees it: its root, its packages, their edges, targets and features.

use std::path::{Path, PathBuf};

use crate::Outcome;
use crate::json::Value;
use crate::program::Program;

/// The workspace that this program belongs to.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The folder with the `Cargo.toml` of all.
    pub(crate) root: PathBuf,
}

/// One package, of the workspace or from outside.
#[derive(Debug)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// Its licence expression.
    pub(crate) license: Option<String>,
    /// What it depends on directly: a name, and `normal`, `dev` or `build`.
    pub(crate) dependencies: Vec<(String, String)>,
    /// Its programs, tests and libraries.
    pub(crate) targets: Vec<Target>,
    /// Its features, and what each turns on.
    pub(crate) features: Vec<(String, Vec<String>)>,
}

/// One thing that cargo builds of a package.
#[derive(Debug)]
pub(crate) struct Target {
    /// `lib`, `bin`, `test`, `bench`, ...
    pub(crate) kind: String,
    /// Its name.
    pub(crate) name: String,
    /// The features without which cargo does not build it.
    pub(crate) features: Vec<String>,
}

impl Workspace {
    /// Finds the workspace, asking cargo's environment first.
    pub(crate) fn find() -> Outcome<Self> {
        let own = std::env::var("CARGO_MANIFEST_DIR")
            .unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
        let root = Path::new(&own).parent().unwrap_or(Path::new(".")).to_owned();
        if root.join("Cargo.toml").is_file() {
            return Ok(Self { root });
        }
        Err(format!("{} has no Cargo.toml: run `cargo xtask` in the repository", root.display()))
    }

    /// Cargo, in the root.
    pub(crate) fn cargo(&self, words: &str) -> Program {
        Program::cargo(&self.root).words(words)
    }

    /// Whether cargo has this subcommand (`fmt`, `clippy`, `nextest`, ...).
    pub(crate) fn has(&self, subcommand: &str) -> bool {
        self.cargo(subcommand).words("--version").quiet().is_ok()
    }

    /// The packages of the workspace.
    pub(crate) fn members(&self) -> Outcome<Vec<Package>> {
        packages(&self.cargo("metadata --format-version 1 --no-deps").read()?)
    }

    /// The packages of the workspace and everything below them, for every platform.
    pub(crate) fn all_packages(&self) -> Outcome<Vec<Package>> {
        packages(&self.cargo("metadata --format-version 1 --locked").read()?)
    }

    /// The folder that cargo builds into.
    pub(crate) fn target(&self) -> Outcome<PathBuf> {
        let text = self.cargo("metadata --format-version 1 --no-deps").read()?;
        let target = Value::read(&text)?.field("target_directory").text().map(PathBuf::from);
        target.ok_or_else(|| "`cargo metadata` names no target directory".to_owned())
    }

    /// The files of the repository, also those not added yet: paths with `/`, sorted.
    pub(crate) fn files(&self) -> Outcome<Vec<String>> {
        let list = "ls-files -z --cached --others --exclude-standard --deduplicate";
        let text = Program::new("git").words(list).at(&self.root).read();
        let text = text.map_err(|e| format!("needs git to know which files are tracked: {e}"))?;
        let there = |path: &&str| !path.is_empty() && self.root.join(path).is_file();
        let mut files: Vec<String> = text.split('\0').filter(there).map(str::to_owned).collect();
        files.sort();
        Ok(files)
    }
}

impl Package {
    /// Whether it has a target of this kind and name.
    pub(crate) fn has_target(&self, kind: &str, name: &str) -> bool {
        self.targets.iter().any(|target| target.kind == kind && target.name == name)
    }

    /// Whether it has a library.
    pub(crate) fn has_lib(&self) -> bool {
        self.targets.iter().any(|target| target.kind == "lib")
    }

    /// The names of its features, but for `default`.
    pub(crate) fn feature_names(&self) -> Vec<&str> {
        self.features.iter().map(|(name, _)| name.as_str()).filter(|n| *n != "default").collect()
    }
}

fn packages(metadata: &str) -> Outcome<Vec<Package>> {
    Ok(Value::read(metadata)?.field("packages").items().iter().map(package).collect())
}

fn package(value: &Value) -> Package {
    let text = |value: &Value, name: &str| value.field(name).text().unwrap_or_default().to_owned();
    let texts = |value: &Value| value.texts().into_iter().map(str::to_owned).collect();
    let dependency = |d: &Value| {
        let kind = d.field("kind").text().unwrap_or("normal");
        (text(d, "name"), kind.to_owned())
    };
    let target = |t: &Value| Target {
        kind: t.field("kind").texts().first().copied().unwrap_or_default().to_owned(),
        name: text(t, "name"),
        features: texts(t.field("required-features")),
    };
    let feature = |(name, on): &(String, Value)| (name.clone(), texts(on));
    Package {
        name: text(value, "name"),
        version: text(value, "version"),
        license: value.field("license").text().map(str::to_owned),
        dependencies: value.field("dependencies").items().iter().map(dependency).collect(),
        targets: value.field("targets").items().iter().map(target).collect(),
        features: value.field("features").fields().iter().map(feature).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::packages;

    #[test]
    fn packages_carry_edges_targets_and_features() {
        let text = r#"{"packages": [{"name": "a", "version": "1.0.0", "license": "MIT",
            "dependencies": [{"name": "b", "kind": null}, {"name": "c", "kind": "dev"}],
            "targets": [{"kind": ["lib"], "name": "a"}, {"kind": ["test"], "name": "t",
                "required-features": ["x"]}],
            "features": {"default": ["x"], "x": []}}]}"#;
        let found = packages(text).unwrap();
        let [a] = found.as_slice() else { panic!("{} packages instead of 1", found.len()) };
        assert_eq!(a.dependencies[0], ("b".to_owned(), "normal".to_owned()));
        assert_eq!(a.dependencies[1], ("c".to_owned(), "dev".to_owned()));
        assert!(a.has_lib() && a.has_target("test", "t") && !a.has_target("bench", "t"));
        assert_eq!(a.targets[1].features, ["x"]);
        assert_eq!(a.feature_names(), ["x"]);
    }
}

//! The workspace as cargo describes it: its root, packages, dependencies, targets and features.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tinyjson::JsonValue as Json;

use crate::Outcome;
use crate::program::Run;

/// The workspace to which this program belongs.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The directory with the `Cargo.toml` of the workspace.
    pub(crate) root: PathBuf,
}

/// A package of the workspace, or an external one.
#[derive(Debug, Default)]
pub(crate) struct Package {
    /// The name of the package.
    pub(crate) name: String,
    /// The version of the package.
    pub(crate) version: String,
    /// Whether the package may be published.
    pub(crate) is_published: bool,
    /// The licence expression of the package.
    pub(crate) license: Option<String>,
    /// The direct dependencies: a name, and `normal`, `dev` or `build`.
    pub(crate) dependencies: Vec<(String, String)>,
    /// The programs, tests and libraries of the package.
    pub(crate) targets: Vec<Target>,
    /// The features, with the features that each enables.
    pub(crate) features: BTreeMap<String, Vec<String>>,
}

/// A target that cargo builds from a package.
#[derive(Debug)]
pub(crate) struct Target {
    /// `lib`, `bin`, `test`, `bench`, ...
    pub(crate) kind: String,
    /// The name of the target.
    pub(crate) name: String,
    /// The features that cargo requires to build it.
    pub(crate) features: Vec<String>,
}

impl Workspace {
    /// Finds the workspace. Reads the environment that cargo sets first.
    pub(crate) fn find() -> Outcome<Self> {
        let own = std::env::var("CARGO_MANIFEST_DIR")
            .unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
        let root = Path::new(&own).parent().unwrap_or(Path::new(".")).to_owned();
        if root.join("Cargo.toml").is_file() {
            return Ok(Self { root });
        }
        Err(format!("{} has no Cargo.toml: run `cargo xtask` in the repository", root.display()))
    }

    /// Returns a command of the cargo that started this program, in the root, with the words of
    /// `line` as arguments.
    pub(crate) fn cargo(&self, words: &str) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root).words(words);
        cargo
    }

    /// Returns true if cargo has this subcommand (`fmt`, `clippy`, `nextest`, ...).
    pub(crate) fn has(&self, subcommand: &str) -> bool {
        self.cargo(subcommand).words("--version").quiet().is_ok()
    }

    /// Returns the packages of the workspace.
    pub(crate) fn members(&self) -> Outcome<Vec<Package>> {
        packages(&self.cargo("metadata --format-version 1 --no-deps").read()?)
    }

    /// Returns the packages of the workspace and all their dependencies, for every platform.
    pub(crate) fn all_packages(&self) -> Outcome<Vec<Package>> {
        packages(&self.cargo("metadata --all-features --format-version 1 --locked").read()?)
    }

    /// Returns the target directory of cargo.
    pub(crate) fn target(&self) -> Outcome<PathBuf> {
        let text = self.cargo("metadata --format-version 1 --no-deps").read()?;
        let target = text_of(field(&json(&text)?, "target_directory"));
        if target.is_empty() {
            return Err("`cargo metadata` names no target directory".to_owned());
        }
        Ok(target.into())
    }

    /// Returns the files of the repository, including those that are not added yet: sorted paths
    /// with `/`.
    pub(crate) fn files(&self) -> Outcome<Vec<String>> {
        let list = "ls-files -z --cached --others --exclude-standard --deduplicate";
        let text = Command::new("git").words(list).current_dir(&self.root).read();
        let text = text.map_err(|e| format!("needs git to know which files are tracked: {e}"))?;
        let there = |path: &&str| !path.is_empty() && self.root.join(path).is_file();
        let mut files: Vec<String> = text.split('\0').filter(there).map(str::to_owned).collect();
        files.sort();
        Ok(files)
    }
}

impl Package {
    /// Returns true if the package has a target of this kind and name.
    pub(crate) fn has_target(&self, kind: &str, name: &str) -> bool {
        self.targets.iter().any(|target| target.kind == kind && target.name == name)
    }

    /// Returns true if the package has a library.
    pub(crate) fn has_lib(&self) -> bool {
        self.targets.iter().any(|target| target.kind == "lib")
    }

    /// Returns a set of features as an argument of cargo. A library with codecs does not build
    /// without one, so its set gets one.
    pub(crate) fn buildable(&self, mut set: Vec<&str>) -> String {
        let has_codecs = CODECS.iter().all(|codec| self.features.contains_key(*codec));
        if has_codecs && !CODECS.iter().any(|codec| set.contains(codec)) {
            set.extend(CODECS.last());
        }
        set.join(",")
    }

    /// Returns the names of the features, except `default`.
    pub(crate) fn feature_names(&self) -> Vec<&str> {
        self.features.keys().map(String::as_str).filter(|name| *name != "default").collect()
    }
}

/// The features of a library of which at least one must be on.
const CODECS: &[&str] = &["bincode", "json"];

/// Parses the output of cargo.
pub(crate) fn json(text: &str) -> Outcome<Json> {
    text.parse().map_err(|e| format!("cannot read the JSON that cargo printed: {e}"))
}

/// Returns a field of an object, or null if there is none.
pub(crate) fn field<'a>(value: &'a Json, name: &str) -> &'a Json {
    match value {
        Json::Object(fields) => fields.get(name).unwrap_or(&Json::Null),
        _ => &Json::Null,
    }
}

/// Returns the text of a string, or an empty text for any other value.
pub(crate) fn text_of(value: &Json) -> String {
    value.get().cloned().unwrap_or_default()
}

/// Returns the texts of a list of strings, or an empty list for any other value.
pub(crate) fn texts_of(value: &Json) -> Vec<String> {
    items(value).iter().map(text_of).collect()
}

/// Returns the items of a list, or none for any other value.
pub(crate) fn items(value: &Json) -> &[Json] {
    value.get::<Vec<Json>>().map_or(&[], Vec::as_slice)
}

fn packages(metadata: &str) -> Outcome<Vec<Package>> {
    Ok(items(field(&json(metadata)?, "packages")).iter().map(package).collect())
}

fn package(value: &Json) -> Package {
    let text = |value: &Json, name: &str| text_of(field(value, name));
    let dependency = |d: &Json| {
        let kind = Some(text(d, "kind")).filter(|kind| !kind.is_empty());
        (text(d, "name"), kind.unwrap_or_else(|| "normal".to_owned()))
    };
    let target = |t: &Json| Target {
        kind: texts_of(field(t, "kind")).into_iter().next().unwrap_or_default(),
        name: text(t, "name"),
        features: texts_of(field(t, "required-features")),
    };
    let features = match field(value, "features") {
        Json::Object(features) => {
            features.iter().map(|(f, on)| (f.clone(), texts_of(on))).collect()
        }
        _ => BTreeMap::new(),
    };
    Package {
        name: text(value, "name"),
        version: text(value, "version"),
        is_published: field(value, "publish").get::<Vec<Json>>().is_none(),
        license: field(value, "license").get().cloned(),
        dependencies: items(field(value, "dependencies")).iter().map(dependency).collect(),
        targets: items(field(value, "targets")).iter().map(target).collect(),
        features,
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

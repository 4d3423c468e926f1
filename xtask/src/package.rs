//! `package`: makes the packages that are published, and tests them outside of the repository; also
//! compiles them with the lowest versions of their dependencies.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process;

use pico_args::Arguments;

use crate::check::HEAVY;
use crate::program::{Run, part};
use crate::workspace::{Package, Workspace, field, items, json, text_of};
use crate::{Command, Outcome};

pub(crate) const COMMAND: Command = Command {
    name: "package",
    args: "",
    about: "make the packages, test them alone, compile with the lowest dependencies",
    run,
};

/// The files that each package has beside its sources.
const TEXTS: &[&str] = &["LICENSE-APACHE", "LICENSE-MIT", "README.md"];

fn run(workspace: &Workspace, words: Arguments) -> Outcome {
    COMMAND.done(words)?;
    let mut packages = workspace.members()?;
    packages.retain(|package| package.is_published);
    let alone = part("packages", || unpack(workspace, &packages))?;
    // The features of the library that need no C compiler. The repository enables them for its
    // tests by a dependency of a crate on itself, which a package cannot have.
    let features = features(&packages);
    // The target directory of the workspace has the dependencies already.
    let target = workspace.target()?;
    let cargo = |words: &str| {
        let mut cargo = alone.cargo(words);
        cargo.env("CARGO_TARGET_DIR", &target);
        cargo
    };
    // Doctests are the same text in the repository, whose tests run them.
    part("unit tests of the packages", || {
        cargo("test --quiet --workspace --lib --offline --features").arg(&features).quiet()
    })?;
    part("the tests compile with default features", || {
        packages.iter().try_for_each(|package| {
            cargo("check --quiet --tests --offline --package").arg(&package.name).quiet().map(drop)
        })
    })?;
    part("examples, with the lowest versions of dependencies", || {
        resolve_to_lowest(&alone)?;
        let mut cargo = cargo("check --quiet --workspace --lib --examples --locked --features");
        cargo.arg(&features).quiet()
    })?;
    Ok(format!("{} packages", packages.len()))
}

/// Makes the packages and unpacks them into a workspace of their own, in the target directory.
fn unpack(workspace: &Workspace, packages: &[Package]) -> Outcome<Workspace> {
    let made = workspace.target()?.join("package");
    let root = made.join("alone");
    let failed = |path: &Path, error| format!("{}: {error}", path.display());
    if root.exists() {
        fs::remove_dir_all(&root).map_err(|e| failed(&root, e))?;
    }
    fs::create_dir_all(&root).map_err(|e| failed(&root, e))?;
    workspace.cargo("fetch --quiet --locked").quiet()?;
    // The packages are built below, with the dependencies that are there already.
    let mut cargo = workspace.cargo("package --no-verify --allow-dirty --offline");
    for package in packages {
        cargo.args(["--package", &package.name]);
    }
    cargo.quiet()?;
    let mut members = String::new();
    let mut patches = String::new();
    let mut levels = String::new();
    for package in packages {
        let folder = format!("{}-{}", package.name, package.version);
        let file = made.join(format!("{folder}.crate"));
        // The times in a package are always the same. Cargo would take a file with an old time for
        // one that it has compiled, so the files get the present time (`m`).
        process::Command::new("tar").arg("-xmzf").arg(file).current_dir(&root).quiet()?;
        for text in TEXTS {
            let path = root.join(&folder).join(text);
            if fs::read(&path).map_err(|e| failed(&path, e))?.is_empty() {
                return Err(format!("{} is empty", path.display()));
            }
        }
        let _ = write!(members, "{folder:?}, ");
        let _ = writeln!(patches, "{} = {{ path = {folder:?} }}", package.name);
        let _ = writeln!(levels, "[profile.test.package.{}]\nopt-level = 0", package.name);
    }
    // The same profiles, so that the dependencies need not be built again. The unit tests take less
    // time than a build of the packages that is optimized.
    let manifest = read(&workspace.root.join("Cargo.toml"))?;
    let profiles = manifest.find("[profile.").map_or("", |at| &manifest[at..]);
    let manifest = format!(
        "[workspace]\nresolver = \"3\"\nmembers = [{members}]\n\n\
         [patch.crates-io]\n{patches}\n{profiles}\n{levels}"
    );
    let path = root.join("Cargo.toml");
    fs::write(&path, manifest).map_err(|e| failed(&path, e))?;
    let path = root.join("Cargo.lock");
    fs::copy(workspace.root.join("Cargo.lock"), &path).map_err(|e| failed(&path, e))?;
    Ok(Workspace { root })
}

/// Returns the features of the packages, as an argument of cargo.
fn features(packages: &[Package]) -> String {
    let of_package = |package: &Package| {
        let names = package.feature_names().into_iter().filter(|name| !HEAVY.contains(name));
        names.map(|name| format!("{}/{name}", package.name)).collect::<Vec<_>>()
    };
    packages.iter().flat_map(of_package).collect::<Vec<_>>().join(",")
}

/// Writes a lock file in which each direct dependency has the lowest version that its requirement
/// allows. Fails if that is not the version in the requirement.
fn resolve_to_lowest(alone: &Workspace) -> Outcome<()> {
    // The option is not stable yet. It changes how versions are chosen and nothing else: the
    // compiler runs without it.
    let mut cargo = alone.cargo("-Z direct-minimal-versions generate-lockfile");
    cargo.env("RUSTC_BOOTSTRAP", "1").quiet()?;
    let lock = read(&alone.root.join("Cargo.lock"))?;
    let metadata = alone.cargo("metadata --format-version 1 --no-deps --offline").read()?;
    let wrong = not_lowest(&metadata, &lock)?;
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// Returns the requirements whose own version is not in the lock file, from a higher requirement of
/// another dependency or because it is no published version.
fn not_lowest(metadata: &str, lock: &str) -> Outcome<Vec<String>> {
    let metadata = json(metadata)?;
    let dependencies =
        items(field(&metadata, "packages")).iter().flat_map(|p| items(field(p, "dependencies")));
    let mut wrong: Vec<String> = dependencies
        .filter_map(|dependency| {
            let name = text_of(field(dependency, "name"));
            let version = text_of(field(dependency, "req")).trim_start_matches('^').to_owned();
            let locked = format!("name = {name:?}\nversion = {version:?}\n");
            (!lock.contains(&locked)).then(|| {
                format!("{name} {version} is not a version that the packages compile with")
            })
        })
        .collect();
    wrong.sort();
    wrong.dedup();
    Ok(wrong)
}

fn read(path: &Path) -> Outcome<String> {
    fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::{features, not_lowest};
    use crate::workspace::Package;

    #[test]
    fn a_requirement_must_be_the_version_that_is_resolved() {
        let metadata = r#"{"packages": [{"name": "a", "dependencies": [
            {"name": "b", "req": "^1.2.0"}, {"name": "c", "req": "^2"}]}]}"#;
        let lock = "[[package]]\nname = \"b\"\nversion = \"1.2.0\"\n\n\
                    [[package]]\nname = \"c\"\nversion = \"2.0.0\"\n";
        let wrong = not_lowest(metadata, lock).unwrap();
        assert_eq!(wrong, ["c 2 is not a version that the packages compile with"]);
        let whole = metadata.replace("^2", "^2.0.0");
        assert!(not_lowest(&whole, lock).unwrap().is_empty());
    }

    #[test]
    fn features_name_their_package_and_leave_out_the_heavy_ones() {
        let features_of = ["default", "fault", "oracle"].map(|f| (f.to_owned(), Vec::new())).into();
        let package = Package { name: "p".to_owned(), features: features_of, ..Package::default() };
        assert_eq!(features(&[package]), "p/fault");
    }
}

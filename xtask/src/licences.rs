//! `licences`: checks the licence of every dependency against the list in `deny.toml`.

use pico_args::Arguments;
use spdx::{Expression, Licensee, ParseMode};

use crate::program::Run;
use crate::workspace::{Package, Workspace};
use crate::{Command, Outcome};

pub(crate) const COMMAND: Command = Command {
    name: "licences",
    args: "",
    about: "every dependency's licence against deny.toml; cargo-deny where installed",
    run,
};

/// The licences that `deny.toml` allows: for all packages, and in addition for single ones.
#[derive(Debug, Default)]
struct Allowed {
    all: Vec<Licensee>,
    exceptions: Vec<(String, Vec<Licensee>)>,
}

fn run(workspace: &Workspace, words: Arguments) -> Outcome {
    COMMAND.done(words)?;
    let path = workspace.root.join("deny.toml");
    let read = std::fs::read_to_string(&path).map_err(|e| e.to_string());
    let allowed = read.and_then(|text| Allowed::read(&text));
    let allowed = allowed.map_err(|e| format!("{}: {e}", path.display()))?;
    let packages = workspace.all_packages()?;
    let refused: Vec<String> = packages.iter().filter_map(|p| allowed.refuses(p)).collect();
    if !refused.is_empty() {
        return Err(format!("not allowed by deny.toml:\n  {}", refused.join("\n  ")));
    }
    let note = format!("{} crates", packages.len());
    if workspace.has("deny") {
        // The check of advisories needs a network connection to other hosts than the registry.
        workspace.cargo("deny check licenses bans sources").quiet()?;
        return Ok(format!("{note}, cargo-deny agrees"));
    }
    Ok(format!("{note} (cargo-deny is not installed: bans and sources were not checked)"))
}

impl Allowed {
    /// Reads the two lists of `[licenses]`. Only cargo-deny reads the rest of the file.
    fn read(text: &str) -> Outcome<Self> {
        let value = toml_span::parse(text).map_err(|e| e.to_string())?;
        let list = |path| value.pointer(path).and_then(|list| list.as_array());
        let all = list("/licenses/allow").ok_or("has no list `licenses.allow`")?;
        let mut allowed = Self { all: licensees(all)?, exceptions: Vec::new() };
        for exception in list("/licenses/exceptions").into_iter().flatten() {
            let name = exception.pointer("/crate").and_then(|name| name.as_str());
            let also = exception.pointer("/allow").and_then(|list| list.as_array());
            let (name, also) = name.zip(also).ok_or("an exception lacks `crate` or `allow`")?;
            allowed.exceptions.push((name.to_owned(), licensees(also)?));
        }
        Ok(allowed)
    }

    /// Returns the reason why a package is refused, if it is.
    fn refuses(&self, package: &Package) -> Option<String> {
        let name = format!("{} {}", package.name, package.version);
        let Some(license) = &package.license else {
            return Some(format!("{name} names no licence"));
        };
        // The lax parser accepts `MIT/Apache-2.0`, an old form of OR.
        let expression = match Expression::parse_mode(license, ParseMode::LAX) {
            Ok(expression) => expression,
            Err(error) => return Some(format!("{name} is `{license}`: {}", error.reason)),
        };
        let also = self.exceptions.iter().filter(|(of, _)| *of == package.name);
        let allowed: Vec<&Licensee> =
            self.all.iter().chain(also.flat_map(|(_, licences)| licences)).collect();
        let met = expression.evaluate(|asked| allowed.iter().any(|one| one.satisfies(asked)));
        (!met).then(|| format!("{name} is {license}"))
    }
}

fn licensees(list: &[toml_span::Value]) -> Outcome<Vec<Licensee>> {
    let licensee = |value: &toml_span::Value| {
        let name = value.as_str().unwrap_or_default();
        Licensee::parse(name).map_err(|e| format!("`{name}` is no licence: {}", e.reason))
    };
    list.iter().map(licensee).collect()
}

#[cfg(test)]
mod tests {
    use super::{Allowed, Package};

    const DENY: &str = r#"
[licenses]
allow = ["MIT", "Apache-2.0 WITH LLVM-exception"]
exceptions = [
    # why
    { crate = "tree", allow = ["MPL-2.0"] },
]
[bans]
allow = ["GPL-3.0"]
"#;

    fn refused(name: &str, license: Option<&str>) -> Option<String> {
        let package = Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: license.map(str::to_owned),
            ..Package::default()
        };
        Allowed::read(DENY).unwrap().refuses(&package)
    }

    #[test]
    fn expressions_are_weighed() {
        for met in [
            "MIT",
            "GPL-3.0-only OR MIT",
            "MIT/GPL-3.0",
            "(ISC OR MIT) AND Apache-2.0 WITH LLVM-exception",
        ] {
            assert_eq!(refused("other", Some(met)), None);
        }
        for unmet in ["GPL-3.0-only", "MIT AND ISC", "(MIT", "MIT ISC", "", "Apache-2.0", "Mine"] {
            assert!(refused("other", Some(unmet)).is_some(), "{unmet}");
        }
        assert!(refused("other", None).unwrap().contains("names no licence"));
    }

    #[test]
    fn an_exception_holds_for_its_crate_only() {
        assert_eq!(refused("tree", Some("MPL-2.0")), None);
        assert_eq!(refused("tree", Some("MPL-2.0+")), None);
        assert_eq!(refused("other", Some("MPL-2.0")).unwrap(), "other 1.0.0 is MPL-2.0");
    }

    #[test]
    fn a_list_that_is_lost_or_misspelt_is_an_error() {
        for text in ["", "[licenses]\nallow = [\"NIT\"]\n", "[licenses]\nallow = [", "a = 1"] {
            assert!(Allowed::read(text).is_err(), "{text}");
        }
    }
}

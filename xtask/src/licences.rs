//! `licences`: every dependency's licence against the list in `deny.toml`.

use crate::workspace::{Package, Workspace};
use crate::{Command, Outcome, only};

pub(crate) const COMMAND: Command = Command {
    name: "licences",
    args: "",
    about: "every dependency's licence against deny.toml; cargo-deny where installed",
    run,
};

/// What `deny.toml` allows: a licence for all, or for one crate.
#[derive(Debug, Default)]
struct Allowed {
    all: Vec<String>,
    exceptions: Vec<(String, Vec<String>)>,
}

fn run(workspace: &Workspace, words: &[String]) -> Outcome {
    only(&[], words)?;
    let path = workspace.root.join("deny.toml");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let allowed = Allowed::read(&text);
    let packages = workspace.all_packages()?;
    let refused: Vec<String> = packages.iter().filter_map(|p| allowed.refuses(p)).collect();
    if !refused.is_empty() {
        return Err(format!("not allowed by deny.toml:\n  {}", refused.join("\n  ")));
    }
    let note = format!("{} crates", packages.len());
    if workspace.has("deny") {
        // The advisories would need a network beyond the registry.
        workspace.cargo("deny check licenses bans sources").quiet()?;
        return Ok(format!("{note}, cargo-deny agrees"));
    }
    Ok(format!("{note} (cargo-deny is not installed: bans and sources were not checked)"))
}

impl Allowed {
    /// Reads the two lists of `[licenses]`; the rest of the file is cargo-deny's.
    fn read(text: &str) -> Self {
        let mut allowed = Self::default();
        let mut section = "";
        let mut list = "";
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if line.starts_with('[') {
                section = line;
            } else if let Some((key, _)) =
                line.split_once(" = [").filter(|_| !line.starts_with('{'))
            {
                list = key;
            }
            if section != "[licenses]" {
                continue;
            }
            let quoted: Vec<String> =
                line.split('"').skip(1).step_by(2).map(str::to_owned).collect();
            match (list, quoted.split_first()) {
                ("allow", Some(_)) => allowed.all.extend(quoted),
                ("exceptions", Some((name, licences))) => {
                    allowed.exceptions.push((name.clone(), licences.to_vec()));
                }
                _ => {}
            }
        }
        allowed
    }

    /// Why a package may not come in, if it may not.
    fn refuses(&self, package: &Package) -> Option<String> {
        let name = format!("{} {}", package.name, package.version);
        let Some(expression) = &package.license else {
            return Some(format!("{name} names no licence"));
        };
        let exceptions =
            self.exceptions.iter().filter(|(crate_name, _)| *crate_name == package.name);
        let also: Vec<&String> = exceptions.flat_map(|(_, licences)| licences).collect();
        let is_allowed = |licence: &str| {
            // `+` offers later versions too; we take the one named.
            let licence = licence.trim_end_matches('+');
            self.all.iter().any(|l| l == licence) || also.iter().any(|l| *l == licence)
        };
        (!holds(expression, &is_allowed)).then(|| format!("{name} is {expression}"))
    }
}

/// Whether an SPDX expression can be met by allowed licences. `/` is an old way to write OR.
fn holds(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let met = any(&mut rest, allowed);
    met && rest.is_empty()
}

fn any(rest: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut met = all(rest, allowed);
    while take(rest, "OR") {
        met |= all(rest, allowed);
    }
    met
}

fn all(rest: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut met = one(rest, allowed);
    while take(rest, "AND") {
        met &= one(rest, allowed);
    }
    met
}

fn one(rest: &mut &[&str], allowed: &dyn Fn(&str) -> bool) -> bool {
    if take(rest, "(") {
        let met = any(rest, allowed);
        return take(rest, ")") && met;
    }
    let Some((licence, after)) = rest.split_first() else { return false };
    *rest = after;
    if take(rest, "WITH") {
        let Some((exception, after)) = rest.split_first() else { return false };
        *rest = after;
        return allowed(&format!("{licence} WITH {exception}"));
    }
    allowed(licence)
}

fn take(rest: &mut &[&str], word: &str) -> bool {
    match rest.split_first() {
        Some((first, after)) if *first == word => {
            *rest = after;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Allowed, holds};
    use crate::workspace::Package;

    fn package(name: &str, license: Option<&str>) -> Package {
        Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: license.map(str::to_owned),
            dependencies: Vec::new(),
            targets: Vec::new(),
            features: Vec::new(),
        }
    }

    #[test]
    fn expressions_are_weighed() {
        let ok = |licence: &str| ["MIT", "Apache-2.0", "A WITH E"].contains(&licence);
        for met in
            ["MIT", "GPL-3.0 OR MIT", "MIT/GPL-3.0", "(GPL OR MIT) AND Apache-2.0", "A WITH E"]
        {
            assert!(holds(met, &ok), "{met}");
        }
        for unmet in ["GPL-3.0", "MIT AND GPL", "(MIT", "MIT Apache-2.0", "", "A WITH X", "A"] {
            assert!(!holds(unmet, &ok), "{unmet}");
        }
    }

    #[test]
    fn an_exception_holds_for_its_crate_only() {
        let allowed = Allowed::read(
            "[licenses]\nallow = [\n  \"MIT\",\n]\nexceptions = [\n  # why\n  \
             { crate = \"tree\", allow = [\"MPL-2.0\"] },\n]\n[bans]\nallow = [\"GPL-3.0\"]\n",
        );
        assert!(allowed.refuses(&package("tree", Some("MPL-2.0"))).is_none());
        assert!(allowed.refuses(&package("tree", Some("MPL-2.0+"))).is_none());
        assert!(allowed.refuses(&package("other", Some("MIT"))).is_none());
        let refused = allowed.refuses(&package("other", Some("MPL-2.0")));
        assert_eq!(refused.unwrap(), "other 1.0.0 is MPL-2.0");
        assert!(allowed.refuses(&package("other", Some("GPL-3.0"))).is_some());
        assert!(allowed.refuses(&package("other", None)).is_some());
    }
}

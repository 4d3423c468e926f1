//! Rules between sources, documents and xtask: mutants, commands, and tests named in documents.

use std::collections::BTreeSet;

use super::source::Source;
use super::{File, Finding};
use crate::COMMANDS;
use crate::mutants::MUTANTS;

pub(super) fn check(files: &[File], sources: &[Source]) -> Vec<Finding> {
    let names: Vec<&str> = MUTANTS.iter().map(|mutant| mutant.name).collect();
    let mut findings = mutants(sources, &names);
    let documents = || files.iter().filter(|file| file.has_extension("md"));
    findings.extend(documents().flat_map(commands));
    findings.extend(documents().flat_map(|file| tables(file, sources, &names)));
    findings
}

/// Each mutant of the sources is run, and each that is run stands in the sources.
pub(super) fn mutants(sources: &[Source], names: &[&str]) -> Vec<Finding> {
    let mut found = BTreeSet::new();
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| !source.path.starts_with("xtask/")) {
        for (number, line) in (1..).zip(source.text.lines()) {
            let after = line.split("codex_mutant = \"").skip(1);
            for name in after.filter_map(|rest| rest.split('"').next()) {
                // A comment may write the form of the cfg, with dots for the name.
                if name.chars().any(|c| !c.is_ascii_alphanumeric() && c != '_') {
                    continue;
                }
                if !names.contains(&name) {
                    let text =
                        format!("mutant `{name}` is not in MUTANTS of xtask/src/mutants/table.rs");
                    findings.push(Finding::new(source.path, number, text));
                }
                found.insert(name);
            }
        }
    }
    let lost = names.iter().filter(|name| !found.contains(**name));
    let text = |name: &&str| {
        let text = format!("mutant `{name}` stands in no source: a check that breaks nothing");
        Finding::new("xtask/src/mutants/table.rs", 0, text)
    };
    findings.extend(lost.map(text));
    findings
}

/// Each `cargo xtask X` of a document is a command.
fn commands(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(file.text().unwrap_or_default().lines()) {
        for rest in line.split("cargo xtask ").skip(1) {
            let end =
                rest.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(rest.len());
            let name = rest.get(..end).unwrap_or_default();
            if !name.is_empty() && !COMMANDS.iter().any(|command| command.name == name) {
                let text = format!("`cargo xtask {name}` is not a command");
                findings.push(Finding::new(&file.path, number, text));
            }
        }
    }
    findings
}

/// Each `some_test_name` in a table of a document is a function of the sources, and each `name` in
/// a column `mutants` is a mutant: nothing holds a promise whose test was renamed away.
fn tables(file: &File, sources: &[Source], mutants: &[&str]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut column = None;
    for (number, line) in (1..).zip(file.text().unwrap_or_default().lines()) {
        if !line.starts_with('|') {
            column = None;
            continue;
        }
        for (at, cell) in line.split('|').enumerate() {
            if cell.trim() == "mutants" {
                column = Some(at);
            }
            for name in cell.split('`').skip(1).step_by(2) {
                let text = if column == Some(at) {
                    (!mutants.contains(&name)).then(|| format!("`{name}` is not a mutant"))
                } else {
                    lacks_test(name, sources).then(|| {
                        format!("`{name}` is named as a test, but there is no such function")
                    })
                };
                findings.extend(text.map(|text| Finding::new(&file.path, number, text)));
            }
        }
    }
    findings
}

/// Whether `code` has the form of a test's name, and no function has it.
fn lacks_test(code: &str, sources: &[Source]) -> bool {
    const UNDERSCORES_OF_A_SENTENCE: usize = 3;
    let name = code.rsplit("::").next().unwrap_or_default();
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let function = format!("fn {name}(");
    plain
        && name.matches('_').count() >= UNDERSCORES_OF_A_SENTENCE
        && !sources.iter().any(|source| source.code.contains(&function))
}

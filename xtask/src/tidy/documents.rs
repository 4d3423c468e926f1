//! Rules between sources, documents and xtask: mutants, commands, and tests named in documents.

use super::source::Source;
use super::{File, Finding};
use crate::COMMANDS;
use crate::mutants::{EDITS, Edit, MUTANTS};

pub(super) fn check(files: &[File], sources: &[Source]) -> Vec<Finding> {
    let names: Vec<&str> = MUTANTS.iter().map(|mutant| mutant.name).collect();
    let mut findings = mutants(sources, &EDITS);
    let documents = || files.iter().filter(|file| file.has_extension("md"));
    findings.extend(documents().flat_map(commands));
    findings.extend(documents().flat_map(|file| tables(file, sources, &names)));
    findings
}

/// The lines that a mutant changes stand exactly once in their source: code that moves on takes its
/// mutants along.
pub(super) fn mutants(sources: &[Source], edits: &[Edit]) -> Vec<Finding> {
    let finding = |edit: &Edit| {
        let source = sources.iter().find(|source| source.path == edit.file);
        let count = source.map_or(0, |source| edit.count(source.text));
        let text = format!(
            "the lines that mutant `{}` changes stand there {count} times, not once; see {LIST}",
            edit.mutant
        );
        (count != 1).then(|| Finding::new(edit.file, 0, text))
    };
    edits.iter().filter_map(finding).collect()
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
        && !sources.iter().any(|source| source.text.contains(&function))
}

/// Where the edits of all mutants stand.
const LIST: &str = "xtask/src/mutants/edits.txt";

//! Rules that connect sources, documents and xtask: about mutants, commands, and tests that
//! documents name.

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
    findings.extend(promises(files, sources));
    findings
}

/// The source must contain the lines of each mutant exactly once, so that code that moves takes its
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

/// Each `cargo xtask X` in a document must be a command.
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

/// Each `some_test_name` in a table of a document must be a function of the sources, and each
/// `name` in a column `mutants` must be a mutant. A promise whose test was renamed is not tested.
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

/// Each promise of the README must be the first cell of a row of TESTING.md that names a test, and
/// each such row must repeat a promise. After a promise has changed, its tests must be checked
/// again.
pub(super) fn promises(files: &[File], sources: &[Source]) -> Vec<Finding> {
    let text = |path: &str| {
        let file = files.iter().find(|file| file.path == path);
        file.and_then(File::text).unwrap_or_default()
    };
    let made = promises_of(text("README.md"));
    let mut findings = Vec::new();
    let mut held = Vec::new();
    // Each row of the table must name a test that exists.
    let rows = text(TESTING).lines().skip_while(|line| !line.starts_with(PROMISES_HEAD));
    for row in rows.skip(2).take_while(|line| line.starts_with('|')) {
        let mut cells = row.trim_matches('|').split(" | ");
        let (promise, tests) = (cells.next().unwrap_or(row), cells.next().unwrap_or_default());
        let mut names = tests.split('`').skip(1).step_by(2);
        if !names.any(|name| has_function(name, sources)) {
            findings.push(Finding::new(TESTING, 0, format!("no test for: {}", promise.trim())));
        }
        held.push(promise.trim().to_owned());
    }
    // Compare both lists of promises, in both directions.
    let missing = made.iter().filter(|promise| !held.contains(promise));
    findings.extend(missing.map(|promise| {
        Finding::new("README.md", 0, format!("{TESTING} has no row for the promise: {promise}"))
    }));
    let surplus = held.iter().filter(|promise| !made.contains(promise));
    findings.extend(surplus.map(|promise| {
        Finding::new(TESTING, 0, format!("the README does not promise: {promise}"))
    }));
    findings
}

/// Returns the promises of a README, whose section is a numbered list. A promise is a cell of the
/// table of an item, as `1 row, column: cell`, or a part of its text between semicolons, as
/// `2 part`. The bold title of an item is no promise, nor is the text before its table.
fn promises_of(readme: &str) -> Vec<String> {
    let section = readme.lines().skip_while(|line| *line != "## Promises").skip(1);
    let (mut promises, mut columns) = (Vec::new(), Vec::new());
    let mut items: Vec<(&str, String)> = Vec::new();
    for line in section.take_while(|line| !line.starts_with("## ")) {
        if let Some((number, item)) = line.split_once(". **") {
            // The bold title is left out.
            items.push((number, item.split_once("** ").unwrap_or_default().1.to_owned()));
            continue;
        }
        let Some((rest, (number, text))) = line.strip_prefix("   ").zip(items.last_mut()) else {
            continue;
        };
        let Some(row) = rest.strip_prefix('|') else {
            *text = format!("{text} {rest}");
            continue;
        };
        text.clear();
        let cells: Vec<&str> = row.trim_end_matches('|').split('|').map(str::trim).collect();
        if columns.is_empty() {
            columns = cells;
        } else if !row.starts_with('-') {
            let promised = columns.iter().zip(&cells).skip(COLUMNS_BEFORE_PROMISES);
            let form = cells.first().copied().unwrap_or_default();
            promises.extend(promised.map(|(c, cell)| format!("{number} {form}, {c}: {cell}")));
        }
    }
    for (number, text) in items {
        let parts = text.trim().trim_end_matches('.').split("; ");
        promises.extend(parts.map(|part| format!("{number} {part}")));
    }
    promises
}

/// Returns true if `code` has the form of a test name, and no function has that name.
fn lacks_test(code: &str, sources: &[Source]) -> bool {
    const UNDERSCORES_OF_A_SENTENCE: usize = 3;
    let name = code.rsplit("::").next().unwrap_or_default();
    let plain = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    plain && name.matches('_').count() >= UNDERSCORES_OF_A_SENTENCE && !has_function(name, sources)
}

fn has_function(name: &str, sources: &[Source]) -> bool {
    let function = format!("fn {name}(");
    sources.iter().any(|source| source.text.contains(&function))
}

/// The document that names the tests.
const TESTING: &str = "docs/TESTING.md";
/// The beginning of the table of promises and their tests in it.
const PROMISES_HEAD: &str = "| promise of the README |";
/// The columns of the table in the README that list the files of each form.
const COLUMNS_BEFORE_PROMISES: usize = 2;
/// The file with the edits of all mutants.
const LIST: &str = "xtask/src/mutants/edits.txt";

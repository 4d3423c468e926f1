//! Rules on one Rust file: how it opens, its size, its functions, its lines, nothing unfinished.

use super::Finding;
use super::source::{Source, end_of_item, line_of};

const FILE_LINES_MAX: usize = 400;
const FILE_LINES_WARNING: usize = 300;
const FILE_LINES_WITH_TESTS_WARNING: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// Code that must not be left behind, put together here so that this file does not contain it.
const UNFINISHED_CODE: &[&str] = &[concat!("to", "do!"), concat!("unim", "plemented!")];

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(opening(source));
    findings.extend(size(source));
    findings.extend(functions(source));
    findings.extend(lines(source));
    findings
}

fn opening(source: &Source) -> Option<Finding> {
    let first = source.text.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//!").is_some_and(|rest| !rest.trim().is_empty());
    (!says)
        .then(|| Finding::new(source.path, 1, "open with `//!` and one sentence of what it is for"))
}

fn size(source: &Source) -> Option<Finding> {
    let all = source.is_test.len();
    let lines = source.is_test.iter().filter(|is_test| !**is_test).count();
    let path = source.path;
    if lines > FILE_LINES_MAX {
        let text = format!(
            "{lines} lines without tests, at most {FILE_LINES_MAX}: give each purpose a file"
        );
        Some(Finding::new(path, 0, text))
    } else if lines > FILE_LINES_WARNING {
        Some(Finding::warning(path, 0, format!("{lines} lines without tests: one purpose?")))
    } else if all > FILE_LINES_WITH_TESTS_WARNING {
        Some(Finding::warning(path, 0, format!("{all} lines with tests: one purpose?")))
    } else {
        None
    }
}

fn functions(source: &Source) -> Vec<Finding> {
    let code = &source.code;
    let mut findings = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        let before = code.get(..start).and_then(|text| text.chars().next_back());
        let named = code.get(start + 3..).is_some_and(|rest| rest.starts_with(char::is_alphabetic));
        if !named || before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let first = line_of(code, start);
        let lines = line_of(code, end_of_item(code, start).saturating_sub(1)) + 1 - first;
        if lines > FUNCTION_LINES_MAX {
            let text = format!("a function of {lines} lines, at most {FUNCTION_LINES_MAX}");
            findings.push(Finding::new(source.path, first, text));
        }
    }
    findings
}

fn lines(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, (text, code)) in (1..).zip(source.text.lines().zip(source.code.lines())) {
        let columns = text.chars().count();
        // An address cannot be broken.
        if columns > COLUMNS_MAX && !text.contains("://") {
            let text = format!("{columns} columns, at most {COLUMNS_MAX}");
            findings.push(Finding::new(source.path, number, text));
        }
        if let Some(word) = UNFINISHED_CODE.iter().find(|word| code.contains(**word)) {
            findings.push(Finding::new(source.path, number, format!("unfinished: `{word}`")));
        }
        if code.contains("#[ignore") {
            findings.push(Finding::new(source.path, number, "an ignored test proves nothing"));
        }
    }
    findings
}

//! Rules for one Rust file: its first line, its size, its functions, its lines.

use super::Finding;
use super::source::{Source, end_of_item};

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

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
        .then(|| Finding::new(source.path, 1, "open with `//!` and one sentence about its purpose"))
}

fn size(source: &Source) -> Option<Finding> {
    // The examples in doc comments are tests too.
    let mut in_example = false;
    let counts = |(line, is_test): (&str, &bool)| {
        let comment = line.trim_start().strip_prefix("//");
        let doc = comment.and_then(|comment| comment.strip_prefix(['/', '!']));
        let is_fence = doc.is_some_and(|doc| doc.trim_start().starts_with("```"));
        in_example = doc.is_some() && (in_example != is_fence);
        !(*is_test || in_example || is_fence)
    };
    let lines =
        source.text.lines().zip(&source.is_test).map(counts).filter(|counts| *counts).count();
    let text =
        format!("{lines} lines without tests, at most {FILE_LINES_MAX}: give each purpose a file");
    (lines > FILE_LINES_MAX).then(|| Finding::new(source.path, 0, text))
}

/// Checks the length of functions. `too_many_lines` of clippy ignores comments and the signature,
/// and so allows longer functions.
fn functions(source: &Source) -> Vec<Finding> {
    let lines: Vec<&str> = source.text.lines().collect();
    let starts = lines.iter().enumerate().filter(|(_, line)| is_function(line));
    let long = starts.filter_map(|(start, _)| {
        let count = end_of_item(&lines, start) + 1 - start;
        let text = format!("a function of {count} lines, at most {FUNCTION_LINES_MAX}");
        (count > FUNCTION_LINES_MAX).then(|| Finding::new(source.path, start + 1, text))
    });
    long.collect()
}

/// Returns true if a named function begins on this line.
fn is_function(line: &str) -> bool {
    let before = line.trim_start().split("fn ").next().unwrap_or_default();
    let is_qualifier = |word: &str| {
        word.starts_with("pub") || ["const", "async", "in"].contains(&word) || word.ends_with(')')
    };
    line.contains("fn ") && before.split_whitespace().all(is_qualifier)
}

fn lines(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(source.text.lines()) {
        let columns = line.chars().count();
        // A web address cannot be broken.
        if columns > COLUMNS_MAX && !line.contains("://") {
            let text = format!("{columns} columns, at most {COLUMNS_MAX}");
            findings.push(Finding::new(source.path, number, text));
        }
        if line.trim_start().starts_with("#[ignore") {
            findings.push(Finding::new(source.path, number, "an ignored test proves nothing"));
        }
    }
    findings
}

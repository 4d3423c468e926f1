//! A Rust source for the rules: its lines, and which of them belong to tests.
//!
//! There is no parser. `check` enforces the layout of rustfmt, in which an item ends at the first
//! line that has the indentation of its first line and ends in `}`, `;` or `,`.

use super::File;

/// A Rust file, read once for all rules.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) path: &'a str,
    pub(super) text: &'a str,
    /// For each line, whether it belongs to tests.
    pub(super) is_test: Vec<bool>,
}

impl<'a> Source<'a> {
    /// Returns the file as a Rust source, if it is one.
    pub(super) fn of(file: &'a File) -> Option<Self> {
        let text = file.text().filter(|_| file.has_extension("rs"))?;
        let lines: Vec<&str> = text.lines().collect();
        let mut is_test = vec![is_test_file(&file.path); lines.len()];
        for (at, line) in lines.iter().enumerate() {
            if names_test(line) {
                let end = end_of_item(&lines, at + 1);
                is_test.iter_mut().take(end + 1).skip(at).for_each(|is_test| *is_test = true);
            }
        }
        Some(Self { path: &file.path, text, is_test })
    }

    /// Returns the lines outside tests that contain code, with their numbers from 1, without
    /// comments.
    pub(super) fn code(&self) -> impl Iterator<Item = (usize, &'a str)> {
        let lines = (1..).zip(self.text.lines()).zip(&self.is_test);
        let outside = lines.filter(|(_, is_test)| !**is_test);
        let code = outside.map(|((number, line), _)| (number, without_comment(line).trim()));
        code.filter(|(_, line)| !line.is_empty())
    }

    /// Returns the code outside tests, with its literals, without comments and layout.
    pub(super) fn meaning(&self) -> String {
        let words = self.code().flat_map(|(_, line)| line.split_whitespace());
        words.collect::<Vec<_>>().join(" ")
    }

    /// Returns true if the file is part of a library, and neither a test nor a program.
    pub(super) fn is_library(&self) -> bool {
        let inside = |name: &str| {
            let source = self.path.strip_prefix(name).and_then(|rest| rest.strip_prefix("/src/"));
            source.is_some_and(|rest| !rest.starts_with("bin/") && rest != "main.rs")
        };
        LIBRARIES.iter().any(|name| inside(name)) && !is_test_file(self.path)
    }
}

/// The directories of the library crates.
const LIBRARIES: &[&str] = &["codex-core", "codex-storage", "codex-backup", "codex-crypto"];

/// Returns the index of the last line of the item whose first line, or first attribute, is `start`.
pub(super) fn end_of_item(lines: &[&str], start: usize) -> usize {
    let indentation = |line: &str| line.len() - line.trim_start().len();
    let first = lines.get(start).map_or(0, |line| indentation(line));
    let ends = |line: &&str| {
        let code = line.trim_start();
        let is_code = !code.starts_with("//") && !code.starts_with('#');
        is_code && indentation(line) == first && code.ends_with(['}', ';', ','])
    };
    lines.iter().skip(start).position(ends).map_or(lines.len(), |lines| start + lines)
}

fn is_test_file(path: &str) -> bool {
    let mut parts = path.split('/').rev();
    let file = parts.next().unwrap_or_default();
    file == "tests.rs" || parts.any(|part| ["tests", "benches", "examples", "fuzz"].contains(&part))
}

/// Returns true if a line is a `#[cfg(..)]` for tests.
fn names_test(line: &str) -> bool {
    let Some(condition) = line.trim_start().strip_prefix("#[cfg(") else { return false };
    let words: Vec<&str> = condition.split(|c: char| !c.is_alphanumeric() && c != '"').collect();
    words.iter().enumerate().any(|(at, word)| {
        *word == "test" && at.checked_sub(1).is_none_or(|before| words.get(before) != Some(&"not"))
    })
}

/// Removes a comment from a line. A `//` with a quote after it may be inside a string, so it stays.
fn without_comment(line: &str) -> &str {
    match line.split_once("//") {
        Some((code, _)) if code.trim().is_empty() => "",
        Some((code, comment)) if code.ends_with(' ') && !comment.contains('"') => code,
        _ => line,
    }
}

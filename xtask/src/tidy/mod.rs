//! `tidy`: checks rules that compilers and lints cannot check: sizes, seams, the tree, documents,
//! mutants.

mod documents;
mod format;
mod rust;
mod seams;
mod source;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;

use pico_args::Arguments;

use crate::workspace::Workspace;
use crate::{Command, Outcome};
use source::Source;

pub(crate) const COMMAND: Command = Command {
    name: "tidy",
    args: "[--bless-format] [--bless-golden]",
    about: "house rules on sources, tree and documents",
    run,
};

/// The maximum number of findings to print. More than these have one cause.
const SHOWN_MAX: usize = 100;

/// A file of the repository.
#[derive(Debug)]
struct File {
    /// The path from the root, with `/`.
    path: String,
    bytes: Vec<u8>,
}

/// A place that violates a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// The line number, from 1; 0 for the whole file.
    line: usize,
    text: String,
}

fn run(workspace: &Workspace, mut words: Arguments) -> Outcome {
    let (bless_format, bless_golden) =
        (words.contains("--bless-format"), words.contains("--bless-golden"));
    COMMAND.done(words)?;
    let mut files = read(workspace)?;
    if bless_format {
        format::bless_sources(workspace, &files)?;
        files = read(workspace)?;
    }
    if bless_golden {
        format::bless_golden(workspace, &files)?;
        files = read(workspace)?;
    }
    let mut findings = check(&files);
    findings.sort();
    if findings.is_empty() {
        return Ok(format!("{} files", files.len()));
    }
    let mut list: Vec<String> = findings.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    if findings.len() > SHOWN_MAX {
        list.push(format!("and {} more", findings.len() - SHOWN_MAX));
    }
    Err(format!("{} places break a rule\n  {}", findings.len(), list.join("\n  ")))
}

fn read(workspace: &Workspace) -> Outcome<Vec<File>> {
    let file = |path: String| {
        let whole = workspace.root.join(&path);
        let bytes = std::fs::read(&whole).map_err(|e| format!("{}: {e}", whole.display()))?;
        Ok(File { path, bytes })
    };
    workspace.files()?.into_iter().map(file).collect()
}

/// Applies every rule to every file.
fn check(files: &[File]) -> Vec<Finding> {
    let sources: Vec<Source> = files.iter().filter_map(Source::of).collect();
    let mut findings = tree::check(files);
    findings.extend(documents::check(files, &sources));
    findings.extend(format::check(files, &sources));
    for source in &sources {
        findings.extend(rust::check(source));
        findings.extend(seams::check(source));
    }
    findings
}

impl File {
    fn has_extension(&self, extension: &str) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, found)| found == extension)
    }

    /// Returns the text of the file, unless it is binary.
    fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }
}

impl Finding {
    fn new(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.text),
            line => write!(f, "{}:{line}: {}", self.path, self.text),
        }
    }
}

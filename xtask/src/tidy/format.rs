//! The document of the file format contains a hash of the code that defines the format. Golden
//! files never change.

use std::fmt::Write as _;

use super::source::Source;
use super::{File, Finding};
use crate::Outcome;
use crate::workspace::Workspace;

/// The document, which contains a line `sources: HASH`.
const DOCUMENT: &str = "docs/FORMAT.md";

/// The sources that define the meaning of bytes.
pub(super) const SOURCES: &[&str] = &[
    "codex-storage/src/names.rs",
    "codex-storage/src/header.rs",
    "codex-storage/src/codec.rs",
    "codex-storage/src/batch.rs",
    "codex-storage/src/batch/record.rs",
    "codex-storage/src/frame.rs",
    "codex-storage/src/history.rs",
    "codex-storage/src/digest.rs",
    "codex-storage/src/image/format.rs",
    "codex-storage/src/shared/frame.rs",
    "codex-storage/src/shared/order.rs",
    "codex-core/src/value.rs",
    "codex-core/src/seal.rs",
    "codex-core/src/table/catalogue.rs",
    "codex-core/src/table/key.rs",
    "codex-crypto/src/envelope.rs",
    "codex-crypto/src/root.rs",
    "codex-crypto/src/kdf.rs",
    "codex-crypto/src/epoch.rs",
];

/// The golden files of format version 1, and the list of their hashes.
const GOLDEN: &str = "codex-storage/testdata/v1/";
const GOLDEN_LIST: &str = "codex-storage/testdata/v1/FNV";

const MARK: &str = "sources: ";

pub(super) fn check(files: &[File], sources: &[Source]) -> Vec<Finding> {
    let mut findings = golden(files);
    findings.extend(document(files, sources));
    findings
}

fn document(files: &[File], sources: &[Source]) -> Option<Finding> {
    let hash = hash_of_sources(sources)?;
    // A source that was moved or removed would no longer be part of the hash.
    if let Some(lost) = SOURCES.iter().find(|path| !sources.iter().any(|s| s.path == **path)) {
        return Some(Finding::new(
            lost,
            0,
            "defines the format, but is gone: see SOURCES in format.rs",
        ));
    }
    let say = |text: String| Some(Finding::new(DOCUMENT, 0, text));
    let Some(text) = files.iter().find(|file| file.path == DOCUMENT).and_then(File::text) else {
        return say("missing, although there are sources that define the format".to_owned());
    };
    match recorded(text) {
        Some(recorded) if recorded == hash => None,
        Some(recorded) => say(format!(
            "says `{MARK}{recorded}`, but the sources are {hash}: if what is on disk changed, \
             write it here and count the version up; then `cargo xtask tidy --bless-format`"
        )),
        None => say(format!("has no line `{MARK}{hash}`")),
    }
}

fn golden(files: &[File]) -> Vec<Finding> {
    let list =
        files.iter().find(|file| file.path == GOLDEN_LIST).and_then(File::text).unwrap_or_default();
    let mut findings = Vec::new();
    for file in golden_files(files) {
        let name = file.path.strip_prefix(GOLDEN).unwrap_or_default();
        let recorded = list.lines().find_map(|line| entry(line).filter(|(_, n)| *n == name));
        let text = match recorded {
            None => format!("not in {GOLDEN_LIST}: `cargo xtask tidy --bless-golden` adds it"),
            Some((hash, _)) if hash != fnv(&file.bytes) => {
                "changed: a version-1 file stays readable for ever, so it is never made again"
                    .to_owned()
            }
            Some(_) => continue,
        };
        findings.push(Finding::new(&file.path, 0, text));
    }
    for (number, line) in (1..).zip(list.lines()) {
        let is_there = |name: &str| files.iter().any(|file| file.path == format!("{GOLDEN}{name}"));
        if !entry(line).is_some_and(|(_, name)| is_there(name)) {
            findings.push(Finding::new(
                GOLDEN_LIST,
                number,
                "names a file that is no longer there",
            ));
        }
    }
    findings
}

fn golden_files(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|file| file.path.starts_with(GOLDEN) && file.path != GOLDEN_LIST)
}

/// Writes the hash of the sources into the document.
pub(super) fn bless_sources(workspace: &Workspace, files: &[File]) -> Outcome<()> {
    let sources: Vec<Source> = files.iter().filter_map(Source::of).collect();
    let hash = hash_of_sources(&sources).ok_or("no source defines the format yet")?;
    let text = files.iter().find(|file| file.path == DOCUMENT).and_then(File::text);
    let text = text.ok_or(format!("{DOCUMENT} is missing: the format is a document first"))?;
    let line = format!("{MARK}{hash}");
    let mut lines: Vec<&str> = text.lines().collect();
    match lines.iter_mut().find(|line| line.starts_with(MARK)) {
        Some(old) => *old = &line,
        None => lines.extend(["", &line]),
    }
    write(workspace, DOCUMENT, &(lines.join("\n") + "\n"))
}

/// Adds new golden files to the list. Existing lines stay unchanged.
pub(super) fn bless_golden(workspace: &Workspace, files: &[File]) -> Outcome<()> {
    let list = files.iter().find(|file| file.path == GOLDEN_LIST).and_then(File::text);
    let mut text = list.unwrap_or_default().to_owned();
    for file in golden_files(files) {
        let name = file.path.strip_prefix(GOLDEN).unwrap_or_default();
        if !text.lines().any(|line| entry(line).is_some_and(|(_, n)| n == name)) {
            let _ = writeln!(text, "{}  {name}", fnv(&file.bytes));
        }
    }
    write(workspace, GOLDEN_LIST, &text)
}

fn write(workspace: &Workspace, path: &str, text: &str) -> Outcome<()> {
    std::fs::write(workspace.root.join(path), text).map_err(|e| format!("{path}: {e}"))
}

fn recorded(document: &str) -> Option<&str> {
    document.lines().find_map(|line| line.strip_prefix(MARK)).map(str::trim)
}

fn entry(line: &str) -> Option<(&str, &str)> {
    line.split_once("  ")
}

/// Returns one hash over the meaning of the sources. Comments, layout and tests may change.
fn hash_of_sources(sources: &[Source]) -> Option<String> {
    let mut all = String::new();
    for path in SOURCES {
        if let Some(source) = sources.iter().find(|source| source.path == *path) {
            let _ = writeln!(all, "{path}\n{}", source.meaning());
        }
    }
    (!all.is_empty()).then(|| fnv(all.as_bytes()))
}

/// Returns the 64-bit FNV-1a hash in hex. It detects accidental changes, not forgeries.
fn fnv(bytes: &[u8]) -> String {
    const BASIS: u64 = 0xCBF2_9CE4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01B3;
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    format!("{:016x}", bytes.iter().fold(BASIS, step))
}

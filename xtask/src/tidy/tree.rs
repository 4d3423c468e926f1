//! Rules for the tree: which files are at its top, and that no file refers to a place outside or to
//! unfinished work.

use super::{File, Finding};

/// The directories at the top: six crates, the documents, and those of tools.
const FOLDERS: &[&str] = &[
    "codex-core",
    "codex-storage",
    "codex-backup",
    "codex-crypto",
    "codex-bench",
    "xtask",
    "docs",
    ".cargo",
    ".ci",
    ".config",
    ".github",
];

/// The files at the top.
const FILES: &[&str] = &[
    ".gitattributes",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
    "clippy.toml",
    "deny.toml",
    "rust-toolchain.toml",
    "rustfmt.toml",
];

/// The maximum size of a file. A larger one is the output of a program.
const BYTES_MAX: usize = 512 * 1024;

/// Words that mark unfinished work. They are composed here, so that this file does not contain
/// them.
const UNFINISHED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX")];

/// Paths that exist on only one machine. A file that names one is of no use to others.
const ELSEWHERE: &[&str] = &[
    concat!("..", "/shared"),
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/Us", "ers/"),
    concat!("/tm", "p/"),
    concat!("/bash_", "jobs"),
    concat!("/.lib", "rary"),
];

pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let rules = |file| top(file).into_iter().chain(size(file)).chain(words(file));
    files.iter().flat_map(rules).collect()
}

fn top(file: &File) -> Option<Finding> {
    let text = match file.path.split_once('/') {
        Some((folder, _)) if !FOLDERS.contains(&folder) => {
            format!("`{folder}` is not one of the folders at the top; see FOLDERS in tidy/tree.rs")
        }
        None if !FILES.contains(&file.path.as_str()) => {
            "not one of the files at the top; see FILES in tidy/tree.rs".to_owned()
        }
        _ => return None,
    };
    Some(Finding::new(&file.path, 0, text))
}

fn size(file: &File) -> Option<Finding> {
    let bytes = file.bytes.len();
    let text = format!("{bytes} bytes, at most {BYTES_MAX}: was it built rather than written?");
    (bytes > BYTES_MAX).then(|| Finding::new(&file.path, 0, text))
}

fn words(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(file.text().unwrap_or_default().lines()) {
        if let Some(word) = UNFINISHED.iter().find(|word| has_word(line, word)) {
            findings.push(Finding::new(&file.path, number, format!("left undone: {word}")));
        }
        if let Some(place) = ELSEWHERE.iter().find(|place| names_place(line, place)) {
            let text = format!("`{place}` is a place on one machine only");
            findings.push(Finding::new(&file.path, number, text));
        }
    }
    findings
}

fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + word.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

/// Finds a path of one machine, only at the beginning of a path: the `home` of `docs/home/` is a
/// directory of this tree.
fn names_place(line: &str, place: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || "_-.*}".contains(c);
    line.match_indices(place).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        !place.starts_with('/') || !before.is_some_and(inside)
    })
}

//! The seams, as paths in the code: one module for the disk, one for the locks.

use super::Finding;
use super::source::{Source, line_of};

/// Paths that only some files may name.
struct Seam {
    paths: &'static [&'static str],
    crates: &'static [&'static str],
    allowed: fn(&str) -> bool,
    instead: &'static str,
}

const SEAMS: &[Seam] = &[
    Seam {
        paths: &["std::fs", "rustix::fs", "std::os::unix::fs", "std::os::windows::fs"],
        crates: super::source::LIBRARIES,
        // `os_std.rs` is the same module on systems without the calls of Unix.
        allowed: |path| path.strip_prefix("codex-storage/src/vfs/").is_some_and(is_os),
        instead: "only codex-storage/src/vfs/os.rs reaches the disk: go through the vfs",
    },
    Seam {
        // Under the models the disk is one step: its leaf locks, never held across a call, are
        // not part of them.
        paths: &["std::sync::Mutex", "std::sync::Condvar"],
        crates: &["codex-core", "codex-storage", "codex-backup"],
        allowed: |path| is_sync(path) || path.starts_with("codex-storage/src/vfs/"),
        instead: SYNC,
    },
    Seam {
        paths: &[
            "std::sync::RwLock",
            "std::sync::Barrier",
            "std::thread::spawn",
            "std::thread::Builder",
            "std::thread::park",
            "std::thread::park_timeout",
            "loom",
            "shuttle",
        ],
        crates: &["codex-core", "codex-storage", "codex-backup"],
        allowed: is_sync,
        instead: SYNC,
    },
];

const SYNC: &str = "only sync.rs names locks and threads: take them from there, for loom's sake";

fn is_sync(path: &str) -> bool {
    path.ends_with("/sync.rs") || path.contains("/sync/")
}

fn is_os(file: &str) -> bool {
    ["os.rs", "os_std.rs"].contains(&file) || file.starts_with("os/")
}

pub(super) fn check(source: &Source) -> Vec<Finding> {
    if !source.is_library() {
        return Vec::new();
    }
    let code = source.library_code();
    let named = paths(&code);
    let mut findings = Vec::new();
    for seam in SEAMS {
        let inside =
            |name: &&str| source.path.strip_prefix(name).is_some_and(|r| r.starts_with('/'));
        if !seam.crates.iter().any(inside) || (seam.allowed)(source.path) {
            continue;
        }
        let mut last = 0;
        for (line, path) in &named {
            if *line != last && seam.paths.iter().any(|forbidden| touches(path, forbidden)) {
                let text = format!("{path}: {}", seam.instead);
                findings.push(Finding::new(source.path, *line, text));
                last = *line;
            }
        }
    }
    findings
}

/// Whether a path names what is forbidden, something below it, or everything beside it.
fn touches(path: &str, forbidden: &str) -> bool {
    let below = |whole: &str, top: &str| {
        whole.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let path = path.strip_prefix("::").unwrap_or(path);
    match path.strip_suffix("::*") {
        Some(parent) => below(forbidden, parent) || below(parent, forbidden),
        // A path without a second part is a local name, unless it is the crate itself.
        None => path.contains("::") && below(path, forbidden),
    }
}

/// Every path of two parts and more that the code names, `use` trees spelled out, with its line.
fn paths(code: &str) -> Vec<(usize, String)> {
    let tokens = tokens(code);
    let mut rest = tokens.as_slice();
    let mut found = Vec::new();
    while let Some((_, first)) = rest.split_first().map(|(token, _)| *token) {
        if first == "use" {
            rest = rest.get(1..).unwrap_or_default();
            use_tree(&mut rest, "", &mut found);
        } else {
            plain(&mut rest, &mut found);
        }
    }
    let line = |(at, path): (usize, String)| (line_of(code, at), path);
    found.into_iter().map(line).collect()
}

type Token<'a> = (usize, &'a str);

/// A path in the middle of code, or one other token.
fn plain(rest: &mut &[Token], found: &mut Vec<(usize, String)>) {
    let Some(((at, first), after)) = rest.split_first() else { return };
    *rest = after;
    if !is_word(first) {
        return;
    }
    let mut path = (*first).to_owned();
    while let [(_, "::"), (_, next), after @ ..] = *rest {
        if !is_word(next) {
            break;
        }
        path = format!("{path}::{next}");
        *rest = after;
    }
    if path.contains("::") {
        found.push((*at, path));
    }
}

/// One tree of a `use`, up to its comma, bracket or semicolon.
fn use_tree(rest: &mut &[Token], prefix: &str, found: &mut Vec<(usize, String)>) {
    let mut path = prefix.to_owned();
    let mut start = None;
    while let Some(((at, token), after)) = rest.split_first() {
        match *token {
            "," | ";" | "}" => break,
            "{" => {
                *rest = after;
                branches(rest, &path, found);
                return;
            }
            "as" => {
                *rest = after.get(1..).unwrap_or_default();
                continue;
            }
            "self" if !path.is_empty() => {}
            part => path.push_str(part),
        }
        start = start.or(Some(*at));
        *rest = after;
    }
    if let Some(at) = start {
        found.push((at, path.trim_end_matches("::").to_owned()));
    }
}

fn branches(rest: &mut &[Token], prefix: &str, found: &mut Vec<(usize, String)>) {
    while let Some(((_, token), after)) = rest.split_first() {
        match *token {
            "}" => {
                *rest = after;
                return;
            }
            "," => *rest = after,
            ";" => return,
            _ => use_tree(rest, prefix, found),
        }
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::` and single signs, with the byte at which each starts.
fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(rest) = code.get(at..).filter(|rest| !rest.is_empty()) {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let length = match word {
            0 if rest.starts_with("::") => 2,
            0 => rest.chars().next().map_or(1, char::len_utf8),
            word => word,
        };
        let token = rest.get(..length).unwrap_or_default();
        if !token.trim().is_empty() {
            tokens.push((at, token));
        }
        at += length;
    }
    tokens
}

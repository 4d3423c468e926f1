//! The seams: one module for the disk, and one for locks, threads and channels.
//!
//! The lists in `clippy.toml` forbid types and functions under any import. These rules forbid the
//! rest: whole modules and crates, the items that `sync.rs` re-exports unchanged, and the places at
//! which the lists of clippy may be disabled.

use super::Finding;
use super::source::Source;

/// Words that only some files may contain.
struct Seam {
    words: &'static [&'static str],
    /// The beginnings of the paths to which the rule applies.
    files: &'static [&'static str],
    allowed: fn(&str) -> bool,
    instead: &'static str,
}

const SEAMS: &[Seam] = &[
    Seam {
        words: &["std::fs", "unix::fs", "windows::fs", "rustix"],
        files: ALL,
        allowed: is_os,
        instead: "only codex-storage/src/vfs/os.rs reaches the disk: go through the vfs",
    },
    Seam {
        words: &["std::thread", "mpsc", "crossbeam", "loom::", "shuttle"],
        files: MODELLED,
        allowed: |path| is_sync(path) || is_clock(path),
        instead: "only sync.rs names locks, threads and channels: take them from there",
    },
    Seam {
        words: &["std::sync::atomic"],
        files: MODELLED,
        // In the models, a call to the disk is one step.
        allowed: |path| is_sync(path) || path.starts_with(VFS),
        instead: "take atomics from sync.rs, so that the model checker sees them",
    },
    Seam {
        words: &["clippy::disallowed_"],
        files: ALL,
        allowed: |path| {
            let is_entropy = path.ends_with("/entropy.rs");
            is_os(path) || is_sync(path) || is_clock(path) || is_entropy
        },
        instead: "clippy's bans are lifted in the seams alone",
    },
    Seam {
        words: &["use std::{", "use core::{"],
        files: ALL,
        allowed: |_| false,
        instead: "one `use` for each module of std, so that these rules can read it",
    },
];

const ALL: &[&str] = &[""];

/// The crates whose code runs in the models.
const MODELLED: &[&str] = &["codex-core/", "codex-storage/", "codex-backup/"];

const VFS: &str = "codex-storage/src/vfs/";

fn is_sync(path: &str) -> bool {
    path == "codex-storage/src/sync.rs"
}

fn is_clock(path: &str) -> bool {
    path == "codex-storage/src/vfs/clock.rs"
}

fn is_os(path: &str) -> bool {
    path.strip_prefix(VFS).is_some_and(|file| file == "os.rs" || file.starts_with("os/"))
}

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let path = source.path;
    if !source.is_library() {
        return Vec::new();
    }
    let here = SEAMS.iter().filter(|seam| {
        seam.files.iter().any(|files| path.starts_with(files)) && !(seam.allowed)(path)
    });
    let mut findings = Vec::new();
    for seam in here {
        for (number, line) in source.code() {
            if let Some(word) = seam.words.iter().find(|word| line.contains(**word)) {
                findings.push(Finding::new(path, number, format!("{word}: {}", seam.instead)));
            }
        }
    }
    findings
}

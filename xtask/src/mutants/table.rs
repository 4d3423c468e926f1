//! Every mutant, the tests that must catch it, and the words by which they must say so.

use crate::loom;

/// Every mutant; `tidy` compares the list with the sources, in both directions.
pub(crate) const MUTANTS: &[Mutant] = &[
    // The commit path.
    modelled("lock_order", "", &["deadlock"]),
    modelled("apply_before_log", "", &["log and memory"]),
    modelled("ack_before_sync", "", &["acknowledged"]),
    modelled("resign_without_check", "", &["deadlock"]),
    // Encryption.
    tested(
        "nonce_reuse",
        ["codex-crypto", "", "epoch"],
        &["the_last_nonce_is_the_limit_and_none_follows ... FAILED"],
    ),
    tested(
        "aad_dropped",
        ["codex-crypto", "crypto", "misuse"],
        &["header_counter_or_place_is_tampered_and_leaves_nothing ... FAILED"],
    ),
];

/// A twin of production code behind `cfg(codex_mutant = "NAME")`, and who must catch it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mutant {
    /// The value of the cfg.
    pub(crate) name: &'static str,
    /// The package with the tests.
    pub(super) package: &'static str,
    /// The test program, or "" for the tests inside the library.
    pub(super) program: &'static str,
    /// The tests to run: those whose name contains this; all if empty.
    pub(super) tests: &'static str,
    /// Whether it is built with `--cfg loom`.
    pub(super) loom: bool,
    /// All of these must stand in the output, so that the test failed for the reason meant.
    pub(super) words: &'static [&'static str],
}

/// A mutant of the commit path that the models of codex-core catch.
const fn modelled(
    name: &'static str,
    tests: &'static str,
    words: &'static [&'static str],
) -> Mutant {
    Mutant { name, package: "codex-core", program: loom::TEST, tests, loom: true, words }
}

/// A mutant that ordinary tests catch.
const fn tested(
    name: &'static str,
    [package, program, tests]: [&'static str; 3],
    words: &'static [&'static str],
) -> Mutant {
    Mutant { name, package, program, tests, loom: false, words }
}

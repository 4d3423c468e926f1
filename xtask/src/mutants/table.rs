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
    // Backups.
    tested(
        "backup_unsynced",
        ["codex-backup", "crash", "in_a_rotation"],
        &["is damaged", "power cut at"],
    ),
    tested(
        "backup_names_unsynced",
        ["codex-backup", "crash", "in_a_rotation"],
        &["in_a_rotation_costs_no_good_backup_and_leaves_nothing ... FAILED", "power cut at"],
    ),
    tested(
        "backup_unverified",
        ["codex-backup", "rotation", "damaged_or_missing"],
        &["a_source_that_is_damaged_or_missing_rotates_nothing ... FAILED"],
    ),
    tested(
        "backup_links_all",
        ["codex-backup", "rotation", "by_hand"],
        &["copying_a_backup_over_the_live_file_by_hand_changes_no_other_backup ... FAILED"],
    ),
    tested(
        "backup_moves_foreign",
        ["codex-backup", "rotation", "never_moved"],
        &["what_is_not_a_backup_of_this_file_is_never_moved ... FAILED"],
    ),
    tested(
        "backup_undecided",
        ["codex-backup", "crash", "in_a_restore"],
        &["a_power_cut_in_a_restore_ends_in_the_old_store_or_the_new_one ... FAILED"],
    ),
    tested(
        "backup_one_sync",
        ["codex-backup", "crash", "in_a_restore"],
        &["a_power_cut_in_a_restore_ends_in_the_old_store_or_the_new_one ... FAILED"],
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

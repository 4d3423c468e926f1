//! The table of all mutants, with the tests that must catch each, and the expected output.

use crate::loom;

/// Every mutant. `edits.txt` contains the changes of each.
pub(crate) const MUTANTS: &[Mutant] = &[
    // The commit path.
    modelled("lock_order", "", &["deadlock"]),
    modelled("apply_before_log", "", &["log and memory"]),
    modelled("apply_in_two", "a_batch_is_visible", &["half of a batch"]),
    modelled("ack_before_sync", "", &["acknowledged"]),
    modelled("resign_without_check", "", &["deadlock"]),
    modelled("wake_before_turn", "", &["deadlock"]),
    modelled("overlay_dropped", "", &["conditional writes that cannot both hold were both made"]),
    modelled("late_clone", "", &["log and memory disagree"]),
    modelled("error_to_leader_only", "", &["a write after the failed sync ended in Ok"]),
    hanging("unwinding_forgets_the_queue", ["codex-core", "it", "a_leader_that_panics"]),
    tested(
        "refused_put_sends_others_back",
        ["codex-core", "it", "a_set_that_is_refused"],
        &["2: Ok(Done { seq: None"],
    ),
    tested(
        "commit_under_data",
        ["codex-core", "it", "api::"],
        &["rank check: a call to the disk while Some(Data) is held"],
    ),
    tested(
        "image_under_data",
        ["codex-core", "it", "each_rotation_keeps"],
        &["rank check: a call to the disk while Some(Data) is held"],
    ),
    modelled("outgrown_forgotten", "checkpointed_once_more", &["deadlock"]),
    modelled("sync_takes_back_late", "synced_by_the_next", &["deadlock"]),
    modelled("key_beside_checkpoint", "a_change_of_the_key", &["while a checkpoint was running"]),
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
    tested("epoch_reuse", ["codex-core", "it", "no_pair"], &["a pair of key and nonce came twice"]),
    tested(
        "epoch_never_ends",
        ["codex-storage", "it", "a_log_begins"],
        &["a_log_begins_a_new_epoch_long_before_its_key_is_worn_out ... FAILED"],
    ),
    tested(
        "rekey_copies_at_last",
        ["codex-storage", "it", "but_for_a_little"],
        &["bytes copied at last"],
    ),
    tested(
        "commitment_ignored",
        ["codex-crypto", "crypto", "a_wrong_key"],
        &["a_wrong_key_is_told_from_a_changed_envelope", "... FAILED"],
    ),
    tested(
        "kdf_uncapped",
        ["codex-crypto", "", "costs_outside"],
        &["costs_outside_their_bounds_are_refused_with_their_numbers ... FAILED"],
    ),
    tested("digest_in_clear", ["codex-core", "it", "a_pin_is_not_found"], &["left: Some(1711)"]),
    tested(
        "stray_unproven",
        ["codex-storage", "it", "a_segment_is_no_stray"],
        &["byte 144, 0: Ok(5)"],
    ),
    tested(
        "former_segments_unsynced",
        ["codex-storage", "it", "after_a_rekey_no_power_cut"],
        &["is under the former root"],
    ),
    tested(
        "costs_lowered",
        ["codex-crypto", "crypto", "an_envelope_costs"],
        &["an_envelope_costs_no_less_than_the_one_before_unless_lowered_by_name", "... FAILED"],
    ),
    tested(
        "kdf_unbounded",
        ["codex-core", "", "planted_backups_make"],
        &["planted_backups_make_a_fall_back_derive_at_most_the_bound_and_it_says_so", "... FAILED"],
    ),
    tested("debug_shows_key", ["codex-core", "it", "no_secret"], &["Debug: "]),
    tested(
        "plain_accepted",
        ["codex-core", "it", "a_plain_file"],
        &["a_plain_file_never_passes_in_an_encrypted_store ... FAILED"],
    ),
    tested(
        "header_unverified",
        ["codex-core", "it", "under_checksums_that_fit"],
        &["accepted at commit"],
    ),
    // The log.
    tested(
        "skip_log_sync",
        ["codex-storage", "it", "a_power_cut_at_any_call"],
        &["an acknowledged commit is lost"],
    ),
    tested(
        "skip_log_dir_sync",
        ["codex-storage", "it", "a_creation_whose_folder"],
        &["the name was lost"],
    ),
    tested(
        "skip_rewrite",
        ["codex-storage", "it", "what_was_read_after_a_failed_sync"],
        &["what was read is lost"],
    ),
    tested(
        "skip_space_sync",
        ["codex-storage", "it", "space_that_could_not_be_synced"],
        &["space_that_could_not_be_synced_poisons_only_what_was_written_before ... FAILED"],
    ),
    tested(
        "retry_fsync",
        ["codex-storage", "it", "a_background_sync_that_failed"],
        &["a sync after a failed one proves nothing"],
    ),
    tested(
        "forget_poison",
        ["codex-storage", "it", "an_error_at_any_call"],
        &["an_error_at_any_call_changes_nothing_or_is_in_doubt ... FAILED"],
    ),
    tested(
        "trust_length",
        ["codex-storage", "heap", "a_frame_that_claims_a_gigabyte"],
        &["reading a small file took"],
    ),
    tested("no_offset_in_crc", ["codex-storage", "", "frame::tests"], &["offset_is_bound"]),
    tested(
        "ignore_padding",
        ["codex-storage", "it", "every_flipped_bit"],
        &["damage went unnoticed"],
    ),
    tested(
        "resume_anywhere",
        ["codex-storage", "it", "every_flipped_bit"],
        &["damage went unnoticed"],
    ),
    tested(
        "ignore_later_proof",
        ["codex-storage", "it", "every_byte_to_00"],
        &["damage went unnoticed"],
    ),
    tested("ignore_other_files", ["codex-storage", "", "log::tests"], &["a proven commit was cut"]),
    tested(
        "cut_anything",
        ["codex-storage", "it", "a_tail_that_no_crash_leaves"],
        &["a_tail_that_no_crash_leaves_is_suspect_and_cut_only_on_request ... FAILED"],
    ),
    tested(
        "clock_runs_back",
        ["codex-storage", "it", "times_never_run_backwards"],
        &["the times of the commits run backwards"],
    ),
    // Images, and the forms that have them.
    tested(
        "skip_dir_sync",
        ["codex-storage", "it", "power_cut::snapshot"],
        &["power_cut::snapshot ... FAILED", "failed: snapshot sequence"],
    ),
    tested(
        "rename_before_sync",
        ["codex-storage", "it", "power_cut::snapshot"],
        &["opening failed"],
    ),
    tested("skip_image_sync", ["codex-storage", "it", "power_cut::snapshot"], &["opening failed"]),
    tested(
        "image_unverified",
        ["codex-storage", "it", "out_of_order"],
        &["a_state_out_of_order_is_refused_and_leaves_nothing ... FAILED"],
    ),
    tested("footer_unread", ["codex-storage", "it", "blocks_swapped"], &["dropped went unnoticed"]),
    tested(
        "second_header_unread",
        ["codex-storage", "it", "forged_second_header"],
        &["of the second header went unnoticed"],
    ),
    tested(
        "poison_ignored",
        ["codex-storage", "it", "in_doubt_and_poisons"],
        &["is_in_doubt_and_poisons ... FAILED"],
    ),
    tested(
        "anchor_forgotten",
        ["codex-storage", "it", "the_anchor_survives"],
        &["snapshot::the_anchor_survives_and_is_demanded ... FAILED", "wal::the_anchor"],
    ),
    tested(
        "trust_the_name",
        ["codex-storage", "it", "given_once_more"],
        &["a_name_that_an_attach_could_not_make_durable_is_given_once_more ... FAILED"],
    ),
    tested(
        "leftovers_at_open",
        ["codex-storage", "it", "while_names_change"],
        &["a_failure_while_names_change_poisons_and_loses_nothing ... FAILED", "LogMissing"],
    ),
    tested(
        "remove_segment_early",
        ["codex-storage", "it", "failed_images"],
        &["failed_images_change_nothing_and_the_next_contains_all_segments ... FAILED"],
    ),
    tested(
        "skip_segment_sync_at_switch",
        ["codex-storage", "it", "lazy_commits"],
        &["a_switch_of_segments_makes_lazy_commits_durable ... FAILED"],
    ),
    tested(
        "ignore_neighbour",
        ["codex-storage", "it", "two_lives"],
        &["two_lives_of_one_copied_store_do_not_mix ... FAILED"],
    ),
    tested("unpaced", ["codex-storage", "", "vfs::paced"], &["synced_every_128_kibibytes"]),
    // Backups.
    tested(
        "backup_unstoppable",
        ["codex-core", "it", "stopped_at_any"],
        &["stopped_at_any_report_leaves_nothing_and_the_store_goes_on ... FAILED"],
    ),
    hanging("required_by_hand_alone", ["codex-core", "it", "failed_by_hand"]),
    hanging("checkpoint_unheard", ["codex-core", "it", "a_checkpoint_makes"]),
    tested(
        "back_up_without_checkpoint",
        ["codex-core", "it", "each_rotation_keeps"],
        &["each_rotation_keeps_the_state_of_its_moment_in_every_form ... FAILED"],
    ),
    tested(
        "backup_ignores_keys",
        ["codex-core", "it", "the_new_key_alone"],
        &["a change of key alone"],
    ),
    tested(
        "copy_grows",
        ["codex-storage", "it", "a_copy_of_the_file_handed_out"],
        &["ledger Commit"],
    ),
    tested(
        "restore_leaves_the_log",
        ["codex-core", "it", "in_a_restore"],
        &["a_power_cut_in_a_restore_ends_in_the_old_store_or_the_new_one ... FAILED"],
    ),
    tested(
        "backup_trusts_all",
        ["codex-core", "it", "before_a_rekey"],
        &["backups_from_before_a_rekey_stay_until_as_many_new_ones_are_there ... FAILED"],
    ),
    tested(
        "backup_unread",
        ["codex-core", "it", "a_rotten_backup"],
        &["a_rotten_backup_is_not_taken_for_the_newest_version ... FAILED"],
    ),
    tested(
        "record_moves_any",
        ["codex-backup", "it", "a_forged_record"],
        &["a_forged_record_moves_no_file_but_those_of_a_restore ... FAILED"],
    ),
    tested(
        "backup_stage_unchecked",
        ["codex-backup", "it", "an_earlier_state_whose"],
        &["an_earlier_state_whose_staged_file_is_lost_or_damaged_is_not_put_in_place ... FAILED"],
    ),
    tested(
        "backup_unsynced",
        ["codex-backup", "it", "in_a_rotation"],
        &["is damaged", "power cut at"],
    ),
    tested(
        "backup_names_unsynced",
        ["codex-backup", "it", "in_a_rotation"],
        &["in_a_rotation_costs_no_good_backup_and_leaves_nothing ... FAILED", "power cut at"],
    ),
    tested(
        "backup_unverified",
        ["codex-backup", "it", "damaged_or_missing"],
        &["a_source_that_is_damaged_or_missing_rotates_nothing ... FAILED"],
    ),
    tested(
        "backup_moves_foreign",
        ["codex-backup", "it", "never_moved"],
        &["what_is_not_a_backup_of_this_file_is_never_moved ... FAILED"],
    ),
    tested(
        "backup_undecided",
        ["codex-backup", "it", "in_a_restore"],
        &["a_power_cut_in_a_restore_ends_in_the_old_store_or_the_new_one ... FAILED"],
    ),
    tested(
        "backup_one_sync",
        ["codex-backup", "it", "in_a_restore"],
        &["a_power_cut_in_a_restore_ends_in_the_old_store_or_the_new_one ... FAILED"],
    ),
];

/// A deliberate fault in production code, and the tests that must catch it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mutant {
    /// The name in `edits.txt`.
    pub(crate) name: &'static str,
    /// The package with the tests.
    pub(super) package: &'static str,
    /// The test program, or "" for the tests inside the library.
    pub(super) program: &'static str,
    /// The tests to run: those whose names contain this text, or all if it is empty.
    pub(super) tests: &'static str,
    /// Whether the mutant is built with `--cfg loom`.
    pub(super) loom: bool,
    /// Whether the test hangs, because it waits for an event that the mutant prevents.
    pub(super) hangs: bool,
    /// Texts that must all occur in the output, to show that the test failed for the expected
    /// reason.
    pub(super) words: &'static [&'static str],
}

/// Returns a mutant of the commit path that the models of codex-core catch.
const fn modelled(
    name: &'static str,
    tests: &'static str,
    words: &'static [&'static str],
) -> Mutant {
    let (package, program) = ("codex-core", loom::TEST);
    Mutant { name, package, program, tests, loom: true, hangs: false, words }
}

/// Returns a mutant that ordinary tests catch.
const fn tested(
    name: &'static str,
    [package, program, tests]: [&'static str; 3],
    words: &'static [&'static str],
) -> Mutant {
    Mutant { name, package, program, tests, loom: false, hangs: false, words }
}

/// Returns a mutant that makes one ordinary test hang.
const fn hanging(name: &'static str, place: [&'static str; 3]) -> Mutant {
    // The first words of the program's output, which show that the program has the test.
    Mutant { hangs: true, ..tested(name, place, &["running 1 test\n"]) }
}

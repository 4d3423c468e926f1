//! The tests of stores, one module for each subject. Tests that need a process of their own are
//! separate programs.
#![allow(
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, says what it ran, and is a program of its own"
)]

#[cfg(all(feature = "crypto", feature = "fault"))]
#[path = "../audit/mod.rs"]
mod audit;
#[path = "../common/mod.rs"]
mod common;
#[cfg(not(loom))]
#[path = "../double/mod.rs"]
mod double;
#[cfg(all(feature = "crypto", feature = "fault"))]
#[allow(dead_code, unreachable_pub, reason = "the tests of codex-storage use more of it")]
#[path = "../../../codex-storage/tests/common/store.rs"]
mod store;

mod api;
#[cfg(feature = "crypto")]
mod archive;
#[cfg(not(loom))]
mod archive_parts;
mod backup;
mod backup_crash;
mod backup_policy;
mod backup_process;
mod backup_progress;
mod backup_tools;
mod concurrent;
#[cfg(all(feature = "crypto", feature = "fault"))]
mod crypto_backup;
#[cfg(all(feature = "crypto", feature = "fault"))]
mod crypto_flip;
#[cfg(all(feature = "crypto", feature = "fault"))]
mod crypto_keys;
#[cfg(all(feature = "crypto", feature = "fault"))]
mod crypto_nonces;
#[cfg(all(feature = "crypto", feature = "fault"))]
mod crypto_planted;
#[cfg(all(feature = "crypto", feature = "fault"))]
mod crypto_secrets;
#[cfg(all(feature = "shared", feature = "crypto", not(loom)))]
mod crypto_shared;
#[cfg(not(loom))]
mod engine;
mod entry_points;
mod errors;
#[allow(dead_code, reason = "the tests of an example call parts of it")]
#[path = "../../examples/notes.rs"]
mod example_notes;
mod expiry;
#[cfg(not(loom))]
mod expiry_sweep;
mod files;
mod follow;
mod full_disk;
#[cfg(not(loom))]
mod group;
mod handles;
mod health;
#[cfg(not(loom))]
mod history;
mod ids;
#[cfg(not(loom))]
mod indexes;
mod looks;
#[cfg(all(unix, feature = "crypto"))]
mod lost_names;
mod model;
#[cfg(all(feature = "crypto", feature = "fault"))]
mod moments;
mod open;
mod paths;
mod progress;
mod ranges;
mod recovery;
#[cfg(not(loom))]
mod remote;
#[cfg(not(loom))]
mod restore_archive;
#[cfg(all(feature = "shared", not(loom)))]
mod shared;
#[cfg(all(feature = "shared", not(loom)))]
mod shared_engine;
#[cfg(all(feature = "shared", not(loom)))]
mod shared_image_faults;
#[cfg(all(feature = "shared", not(loom)))]
mod shared_images;
#[cfg(all(feature = "shared", feature = "crypto", not(loom)))]
#[path = "shared_images.rs"]
#[allow(clippy::duplicate_mod, reason = "the tests ask for the name of their module")]
mod shared_images_sealed;
/// The same tests on encrypted stores.
#[cfg(all(feature = "shared", feature = "crypto", not(loom)))]
#[path = "shared.rs"]
#[allow(clippy::duplicate_mod, reason = "the tests ask for the name of their module")]
mod shared_sealed;
mod tables;
mod tasks;
#[cfg(not(loom))]
mod transaction;
mod transaction_serial;
#[cfg(not(loom))]
mod typed;
mod user_code;
#[cfg(not(loom))]
mod watch;

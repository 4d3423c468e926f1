//! A store on members of etcd that are killed, stopped and cut off. `cargo xtask cluster test` runs
//! these tests: they start the etcd in `CODEX_ETCD`, and are left out without it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program of its own"
)]

mod blind;
mod common;
mod faults;
mod history;
mod load;
#[path = "../../../xtask/src/cluster/members/mod.rs"]
mod members;
mod outages;
mod processes;
mod refusals;
mod soak;

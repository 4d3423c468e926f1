//! Tests of the public interface of the crate.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;
mod golden;
mod misuse;
mod nonce;
#[cfg(feature = "oracle")]
mod oracle;
mod secrets;

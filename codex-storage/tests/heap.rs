//! A length that a file only claims allocates nothing. Alone in its program: it looks at the
//! address space of the whole process.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod common;

use codex_storage::storage::Durability;

use common::log::{Sample, dense};

/// The most address space that this process ever had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmPeak:")).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes << 10
}

#[test]
fn a_frame_that_claims_a_gigabyte_allocates_no_more_than_the_file_has() {
    let sample = Sample::new(false, Durability::Sync, &[dense(1, 100), dense(2, 100)], false);
    let mut bytes = sample.bytes.clone();
    let frame = sample.ends[1];
    bytes[frame + 52..frame + 56].copy_from_slice(&(1_u32 << 30).to_le_bytes());
    let place = (frame as u64).to_le_bytes();
    let bound = [&bytes[32..56], &place, &bytes[frame..frame + 60]].concat();
    let crc = crc32c::crc32c(&bound).to_le_bytes();
    bytes[frame + 60..frame + 64].copy_from_slice(&crc);
    drop(sample.read(&sample.bytes));
    let before = peak();
    let opened = sample.read(&bytes);
    let grown = peak() - before;
    assert!(grown < 16 << 20, "reading a small file took {grown} bytes of heap");
    assert_eq!(opened.unwrap().recovered.seq, 1, "its end is not there, so it is torn");
}

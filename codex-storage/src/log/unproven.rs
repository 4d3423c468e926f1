//! The frames of a log that no later frame has proven durable.

use std::collections::VecDeque;

use crate::batch::Seq;
use crate::frame::padded;

/// A frame that no later frame has proven durable yet.
#[derive(Debug)]
pub(super) struct Unproven {
    pub(super) proven_by: Seq,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Joins adjacent frames to runs of offset and length. A tail that was crossed is in none of them.
pub(super) fn runs(frames: &VecDeque<Unproven>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for frame in frames {
        match runs.last_mut() {
            Some((offset, len)) if *offset + padded(*len) == frame.offset => {
                *len = frame.offset - *offset + frame.len;
            }
            _ => runs.push((frame.offset, frame.len)),
        }
    }
    runs
}

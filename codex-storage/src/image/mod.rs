//! Images: the whole state in one file, with entries in key order. Checksums cover every byte.

mod blocks;
mod format;
mod read;
mod salvage;
mod write;

use crate::batch::{Op, record_len};
use crate::codec::u64_of;
use crate::error::Error;
use crate::seal::TAG_LEN;
use crate::storage::State;

use format::{BLOCK_HEAD_LEN, BLOCKS_START, TAIL_LEN};
pub(crate) use read::ImageReader;
pub use salvage::LostKeys;
pub use write::WriteAt;
pub(crate) use write::{ImageSpec, discard};

/// Returns the space that a file of `len` bytes takes on a disk with blocks of 4096 bytes, in
/// bytes.
pub(crate) fn in_blocks(len: u64) -> u64 {
    len.div_ceil(4096).saturating_mul(4096)
}

/// Returns whether the image of `state` would have at most about `len_max` bytes.
pub(crate) fn is_at_most(state: &dyn State, len_max: u64) -> bool {
    // The heads of one block and one section.
    let mut len = BLOCKS_START + u64_of(TAIL_LEN + 2 * (BLOCK_HEAD_LEN + TAG_LEN));
    if state.len() > len_max {
        return false;
    }
    let counted = state.for_each(&mut |item| {
        len += u64_of(record_len(Op::Set(item)));
        // The error only ends the iteration.
        if len <= len_max { Ok(()) } else { Err(Error::Contradiction("it is longer")) }
    });
    counted.is_ok() && len <= len_max
}

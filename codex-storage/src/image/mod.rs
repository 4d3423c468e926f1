//! Images: the whole state in one file, entries in key order, every byte covered by a checksum.

mod blocks;
mod format;
mod read;
mod write;

use crate::batch::{Op, record_len};
use crate::codec::u64_of;
use crate::error::Error;
use crate::seal::TAG_LEN;
use crate::storage::State;

use format::{BLOCK_HEAD_LEN, BLOCKS_START, TAIL_LEN};
pub(crate) use read::ImageReader;
pub(crate) use write::{ImageSpec, discard};

/// The space that a file of this length takes on the disk, in bytes, where a block has 4096 of
/// them.
pub(crate) fn in_blocks(len: u64) -> u64 {
    len.div_ceil(4096).saturating_mul(4096)
}

/// Whether the image of `state` would have at most `len_max` bytes, or about that.
pub(crate) fn is_at_most(state: &dyn State, len_max: u64) -> bool {
    // One block and one section.
    let mut len = BLOCKS_START + u64_of(TAIL_LEN + 2 * (BLOCK_HEAD_LEN + TAG_LEN));
    if state.len() > len_max {
        return false;
    }
    let counted = state.for_each(&mut |key, value| {
        len += u64_of(record_len(Op::Set { key, value }));
        if len <= len_max { Ok(()) } else { Err(Error::Contradiction("it is longer")) }
    });
    counted.is_ok() && len <= len_max
}

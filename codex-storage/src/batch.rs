//! Records and batches in their one encoded form, and the group that a commit makes durable.
//!
//! Records are encoded straight into the buffer that becomes the frame: what a writer hands over
//! is copied once. The layout is `docs/FORMAT.md`, section "Records".

use crate::error::{Error, Result};

/// The longest key, in bytes.
pub const KEY_LEN_MAX: usize = 65_535;
/// The longest encoded batch, in bytes.
pub const BATCH_LEN_MAX: usize = 256 << 20;
/// How many encoded bytes a group gathers before it stops taking further batches.
pub const GROUP_LEN_TARGET: usize = 4 << 20;

/// The number of a commit: dense, from 1, assigned by the storage.
pub type Seq = u64;

/// One operation, as stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// The key now has this value.
    Set {
        /// At most [`KEY_LEN_MAX`] bytes.
        key: &'a [u8],
        /// The stored bytes of the value.
        value: &'a [u8],
    },
    /// The key is gone.
    Remove {
        /// At most [`KEY_LEN_MAX`] bytes.
        key: &'a [u8],
    },
    /// Every key is gone.
    Clear,
}

/// The batches of one commit group, encoded one behind the other.
///
/// A batch is one commit: it is wholly there or wholly absent. The buffer is reused from group to
/// group.
pub struct Group {
    /// Room for a frame header, then the encoded batches.
    buf: Vec<u8>,
    ends: Vec<usize>,
    ops_open: u32,
    only_removals: bool,
    layout: Layout,
}

/// How much room the storage wants in front of each batch and of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layout {
    /// Bytes before the first batch (the frame header).
    pub head: usize,
    /// Bytes in each batch between its lengths and its records (the ledger's time and digest).
    pub batch_extra: usize,
}

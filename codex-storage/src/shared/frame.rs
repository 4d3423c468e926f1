//! Frames: the commits that one node has appended together, and the parts in which they travel.
//!
//! The layout is in `docs/FORMAT.md`, section "Shared log".

use std::fmt;

use super::{Mark, Session, Slot};
use crate::batch::{BATCH_HEAD, BatchRef, Batches};
use crate::codec::{Fields, put, u64_of};
use crate::error::RecordError;
use crate::seal::SealError;

use super::order::Order;
use super::sealing::{SEALED_EXTRA, Sealing};

/// The commits of one frame, as their node encodes them.
pub struct Orders {
    payload: Vec<u8>,
    commits: u32,
    /// The start and the number of orders of the unfinished commit.
    open: Option<(usize, u32)>,
    commit_max: usize,
}

impl Orders {
    /// Returns a frame without commits. `commit_max` is the maximum length of each in bytes.
    pub fn new(commit_max: usize) -> Self {
        Self { payload: Vec::new(), commits: 0, open: None, commit_max }
    }

    /// Adds an order to the unfinished commit.
    ///
    /// # Errors
    /// `KeyTooLong`, or `BatchTooLarge` if the commit would exceed its limit. The caller abandons
    /// the commit.
    pub fn push(&mut self, order: Order<'_>) -> Result<(), RecordError> {
        let (start, count) = self.begun();
        order.encode(&mut self.payload)?;
        self.open = Some((start, count + 1));
        if self.payload.len() - start - BATCH_HEAD > self.commit_max {
            return Err(RecordError::BatchTooLarge { limit: self.commit_max });
        }
        Ok(())
    }

    /// Finishes the unfinished commit, which may be empty.
    ///
    /// # Panics
    /// If the commit is longer than 4 GiB, which [`push`](Self::push) has refused.
    pub fn finish(&mut self) {
        let (start, count) = self.begun();
        let len = u32::try_from(self.payload.len() - start - BATCH_HEAD);
        let len = len.expect("`push` holds a commit below the limit");
        put(&mut self.payload, start, count.to_le_bytes());
        put(&mut self.payload, start + 4, len.to_le_bytes());
        self.open = None;
        self.commits += 1;
    }

    /// Drops the unfinished commit.
    pub fn abandon(&mut self) {
        if let Some((start, _)) = self.open.take() {
            self.payload.truncate(start);
        }
    }

    /// Returns true if there is no finished commit.
    pub fn is_empty(&self) -> bool {
        self.commits == 0
    }

    /// Returns the number of finished commits.
    pub(super) fn commits(&self) -> u32 {
        self.commits
    }

    /// Returns the encoded commits.
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    fn begun(&mut self) -> (usize, u32) {
        *self.open.get_or_insert_with(|| {
            let start = self.payload.len();
            self.payload.resize(start + BATCH_HEAD, 0);
            (start, 0)
        })
    }
}

impl fmt::Debug for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Orders({} commits, {} bytes)", self.commits, self.payload.len())
    }
}

/// A frame that was read from the log, to be decided at its place in the order of all.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    /// The slot of its last part.
    pub slot: Slot,
    /// Whether this node waits for the frame: it is the one that it writes at present.
    pub is_awaited: bool,
    /// The time at which the frame is decided on every node, in microseconds since 1970. It does
    /// not go back from one frame to the next.
    pub time_us: i64,
    pub(super) commits: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Returns the commits in order, whose orders [`orders`](super::orders) returns.
    pub fn commits(&self) -> impl Iterator<Item = Result<BatchRef<'a>, RecordError>> {
        Batches::new(self.payload, 0)
    }

    /// Returns the number of encoded bytes.
    #[expect(clippy::len_without_is_empty, reason = "a frame has a commit")]
    pub fn len(&self) -> u64 {
        u64_of(self.payload.len())
    }

    /// Returns the number of commits.
    pub fn count(&self) -> u32 {
        self.commits
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} commits, {} bytes)", self.commits, self.payload.len())
    }
}

/// The header of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) slot: Slot,
    /// Whether the part begins a frame.
    pub(super) is_first: bool,
    /// Whether the part ends a frame.
    pub(super) is_last: bool,
    /// The state of the sender when it began the frame.
    pub(super) mark: Mark,
    pub(super) time_us: i64,
    /// The number of commits of the frame.
    pub(super) commits: u32,
}

impl Header {
    /// Returns the part of this header and a piece of the payload, sealed by `sealing` if the store
    /// is encrypted.
    ///
    /// # Errors
    /// Those of the sealer. The counter is used up.
    pub(super) fn part(
        &self,
        piece: &[u8],
        sealing: Option<&mut Sealing>,
    ) -> Result<Vec<u8>, SealError> {
        let mut part = Vec::with_capacity(HEADER_LEN + piece.len() + SEALED_EXTRA);
        part.extend_from_slice(MAGIC);
        part.extend_from_slice(&RULES.to_le_bytes());
        let mut flags = if self.is_first { FIRST } else { 0 } | if self.is_last { LAST } else { 0 };
        if let Some(sealing) = &sealing {
            flags |= SEALED | if sealing.needs_salt() { SALTED } else { 0 };
        }
        part.extend_from_slice(&[KIND_ORDERS, flags]);
        part.extend_from_slice(&self.slot.session.0.to_le_bytes());
        part.extend_from_slice(&self.slot.n.to_le_bytes());
        part.extend_from_slice(&self.mark.seq.to_le_bytes());
        part.extend_from_slice(&self.mark.digest);
        part.extend_from_slice(&self.time_us.to_le_bytes());
        part.extend_from_slice(&self.commits.to_le_bytes());
        part.resize(HEADER_LEN, 0);
        match sealing {
            None => part.extend_from_slice(piece),
            Some(sealing) => sealing.seal(piece, &mut part)?,
        }
        let crc = checksum(&part);
        put(&mut part, CRC_AT, crc.to_le_bytes());
        Ok(part)
    }

    /// Splits a part into its header and what comes after it. Returns an error text if it is none
    /// of this build.
    pub(super) fn split(part: &[u8]) -> Result<(Self, Body<'_>), &'static str> {
        let short = "it is shorter than a header";
        let (head, bytes) = part.split_first_chunk::<HEADER_LEN>().ok_or(short)?;
        let mut fields = Fields::new(head);
        if fields.array() != *MAGIC {
            return Err("it does not begin with the signature of a part");
        }
        if fields.u16() != RULES {
            return Err("its rules are those of another version");
        }
        let (kind, flags) = (fields.u8(), fields.u8());
        if kind != KIND_ORDERS || flags & !(FIRST | LAST | SEALED | SALTED) != 0 {
            return Err("its kind or its flags are those of a newer version");
        }
        let slot = Slot { session: Session(fields.u64()), n: fields.u64() };
        let mark = Mark { seq: fields.u64(), digest: fields.array() };
        let (time_us, commits) = (fields.i64(), fields.u32());
        if fields.u32() != checksum(part) {
            return Err("its checksum is wrong");
        }
        let (is_first, is_last) = (flags & FIRST != 0, flags & LAST != 0);
        let header = Self { slot, is_first, is_last, mark, time_us, commits };
        let (is_sealed, is_salted) = (flags & SEALED != 0, flags & SALTED != 0);
        Ok((header, Body { head, is_sealed, is_salted, bytes }))
    }
}

/// What comes after the header of a part.
#[derive(Clone, Copy)]
pub(super) struct Body<'a> {
    /// The header as it is in the log.
    pub(super) head: &'a [u8; HEADER_LEN],
    pub(super) is_sealed: bool,
    pub(super) is_salted: bool,
    pub(super) bytes: &'a [u8],
}

/// Returns the checksum of a part, which has at least the length of a header.
fn checksum(part: &[u8]) -> u32 {
    let (head, rest) = part.split_at(CRC_AT);
    crc32c::crc32c_append(crc32c::crc32c(head), rest.get(4..).unwrap_or_default())
}

/// The length of the header of a part, in bytes.
pub(super) const HEADER_LEN: usize = 64;
/// The offset of the checksum. The bytes before it are authenticated with a sealed piece.
pub(super) const CRC_AT: usize = 60;
const MAGIC: &[u8; 4] = b"CDXO";
/// The version of the rules by which orders are decided.
const RULES: u16 = 1;
const KIND_ORDERS: u8 = 1;
const FIRST: u8 = 1;
const LAST: u8 = 2;
const SEALED: u8 = 4;
const SALTED: u8 = 8;

//! Records and batches in their encoded form, and the group that a commit makes durable.
//!
//! Records are encoded directly into the buffer that becomes the frame, so the bytes of a writer
//! are copied once. The layout is in `docs/FORMAT.md`, section "Records".

mod record;

use std::fmt;

use crate::codec::put;
use crate::error::RecordError;
pub use record::{Item, KEY_LEN_MAX, Op, Records, TableId, encode_record, record_len};

/// The largest length of all records of one batch, in bytes, in every form.
pub const BATCH_LEN_MAX: usize = 256 << 20;
/// The number of encoded bytes at which a group takes no more batches.
pub const GROUP_LEN_TARGET: usize = 4 << 20;

/// The number of a commit. The storage assigns the numbers, without gaps, from 1.
pub type Seq = u64;

/// The batches of one commit group, encoded in order in the buffer that becomes the frame.
///
/// A batch is one commit: after a crash it is present completely or not at all. Get a group from
/// [`Storage::group`](crate::storage::Storage::group), fill it, commit it, `reset` it, and use it
/// again.
pub struct Group {
    buf: Vec<u8>,
    /// The end of each finished batch in `buf`.
    ends: Vec<usize>,
    /// The start and the number of operations of the unfinished batch.
    open: Option<(usize, u32)>,
    only_removals: bool,
    layout: Layout,
}

/// The room that a storage needs inside the buffer of a group, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layout {
    /// The bytes before the first batch, for the frame header.
    pub head: usize,
    /// The bytes in each batch between its two lengths and its records, for the time and the digest
    /// of a ledger.
    pub batch_extra: usize,
}

impl Group {
    /// Returns an empty group with the room of `layout`.
    pub fn new(layout: Layout) -> Self {
        let mut group =
            Self { buf: Vec::new(), ends: Vec::new(), open: None, only_removals: true, layout };
        group.reset();
        group
    }

    /// Empties the group. Keeps its buffer, unless the buffer is much larger than
    /// [`GROUP_LEN_TARGET`].
    pub fn reset(&mut self) {
        self.buf.clear();
        self.buf.shrink_to(2 * GROUP_LEN_TARGET);
        self.buf.resize(self.layout.head, 0);
        self.ends.clear();
        self.open = None;
        self.only_removals = true;
    }

    /// Adds one operation to the unfinished batch, or begins a batch if there is none.
    ///
    /// # Errors
    /// `KeyTooLong` if the key is too long, `BatchTooLarge` if the records would exceed
    /// [`BATCH_LEN_MAX`]. The batch is unchanged. [`Group::abandon`] drops it.
    pub fn push(&mut self, op: Op<'_>) -> Result<(), RecordError> {
        let (start, ops) = match self.open {
            Some(open) => open,
            None => (self.begin(), 0),
        };
        let records = self.buf.len() - start - BATCH_HEAD - self.layout.batch_extra;
        if records + record_len(op) > BATCH_LEN_MAX {
            return Err(RecordError::BatchTooLarge { limit: BATCH_LEN_MAX });
        }
        // Order: both limits are checked before a byte is appended, so that a refused operation
        // leaves the batch unchanged.
        encode_record(op, &mut self.buf)?;
        self.only_removals &= !matches!(op, Op::Set(_));
        self.open = Some((start, ops + 1));
        Ok(())
    }

    /// Finishes the unfinished batch, which may be empty. It is then commit number `self.batches()`
    /// of the group.
    ///
    /// # Panics
    /// If the batch is not in the buffer. Only a mistake in this module can cause that.
    pub fn finish(&mut self) {
        let (start, ops) = match self.open.take() {
            Some(open) => open,
            None => (self.begin(), 0),
        };
        // `begin` has opened a batch.
        self.open = None;
        let records = self.buf.len() - start - BATCH_HEAD - self.layout.batch_extra;
        let records = u32::try_from(records).expect("`push` holds a batch below the limit");
        // The lengths are known only now, so they are written into the room before the records.
        put(&mut self.buf, start, ops.to_le_bytes());
        put(&mut self.buf, start + 4, records.to_le_bytes());
        self.ends.push(self.buf.len());
    }

    /// Drops the unfinished batch. Finished batches stay.
    pub fn abandon(&mut self) {
        if let Some((start, _)) = self.open.take() {
            self.buf.truncate(start);
        }
    }

    /// Returns the number of finished batches.
    pub fn batches(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there is no finished batch.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the number of encoded bytes of all batches.
    pub fn len(&self) -> usize {
        self.buf.len() - self.layout.head
    }

    /// Returns whether no key was set. Such a group frees memory, and may use the reserve of a full
    /// disk.
    pub fn only_removals(&self) -> bool {
        self.only_removals
    }

    /// Calls `f` with the operations of each finished batch in order.
    ///
    /// # Errors
    /// The errors of `f`.
    pub fn for_each<E: From<RecordError>>(
        &self,
        mut f: impl FnMut(usize, Op<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let batches = Batches::new(self.payload(), self.layout.batch_extra);
        for (index, batch) in batches.enumerate() {
            for op in batch?.ops() {
                f(index, op?)?;
            }
        }
        Ok(())
    }

    /// Returns the whole buffer, including the room for the frame header. For storages.
    pub(crate) fn buffer_mut(&mut self) -> &mut Vec<u8> {
        &mut self.buf
    }

    /// Returns the bytes of the finished batches, without the room for the frame header. For
    /// storages.
    #[expect(clippy::indexing_slicing, reason = "the buffer begins with the room for a header")]
    pub(crate) fn payload(&self) -> &[u8] {
        &self.buf[self.layout.head..]
    }

    /// Returns the room in the buffer. For storages.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Returns the end of each finished batch in the buffer. For storages.
    pub(crate) fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// Begins a batch with room for its head, and returns its start in the buffer.
    fn begin(&mut self) -> usize {
        let start = self.buf.len();
        self.buf.resize(start + BATCH_HEAD + self.layout.batch_extra, 0);
        self.open = Some((start, 0));
        start
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("batches", &self.ends.len())
            .field("bytes", &self.len())
            .finish_non_exhaustive()
    }
}

/// One batch of a payload.
#[derive(Clone, Copy)]
pub struct BatchRef<'a> {
    /// The bytes between the lengths and the records.
    pub extra: &'a [u8],
    /// The encoded records.
    pub records: &'a [u8],
    count: u32,
}

impl<'a> BatchRef<'a> {
    /// Returns the number of operations in the head of the batch.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Returns the length of the encoded batch, in bytes.
    pub(crate) fn encoded_len(&self) -> usize {
        let lengths = 2 * size_of::<u32>();
        lengths + self.extra.len() + self.records.len()
    }

    /// Returns the operations in order. The iterator ends after the first error.
    pub fn ops(&self) -> Records<'a> {
        Records::new(self.records, self.count)
    }
}

impl fmt::Debug for BatchRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BatchRef({} records, {} bytes)", self.count, self.records.len())
    }
}

/// The batches of a payload in order. The iterator ends after the first error.
#[derive(Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
    batch_extra: usize,
}

impl<'a> Batches<'a> {
    /// Iterates over `payload`, whose batches have `batch_extra` bytes before their records.
    pub fn new(payload: &'a [u8], batch_extra: usize) -> Self {
        Self { rest: payload, batch_extra }
    }

    /// Reads the next batch, or returns `None` if it is longer than the rest of the payload.
    fn read(&mut self) -> Option<BatchRef<'a>> {
        let (count, rest) = self.rest.split_first_chunk::<4>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (extra, rest) = rest.split_at_checked(self.batch_extra)?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        let (records, rest) = rest.split_at_checked(len)?;
        self.rest = rest;
        Some(BatchRef { extra, records, count: u32::from_le_bytes(*count) })
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchRef<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = self.read().ok_or(RecordError::Malformed("a batch runs past its payload"));
        if batch.is_err() {
            self.rest = &[];
        }
        Some(batch)
    }
}

/// The length of the head of a batch, in bytes: operation count and byte length.
pub(crate) const BATCH_HEAD: usize = 8;

#[cfg(test)]
mod tests {
    use super::record::RECORD_HEAD;
    use super::*;

    #[test]
    #[should_panic(expected = "attempt to subtract with overflow")]
    fn a_batch_that_begins_behind_its_buffer_is_not_finished() {
        let mut group = Group::new(Layout { head: 64, batch_extra: 0 });
        group.push(Op::CLEAR).unwrap();
        group.open = Some((group.buf.len(), 1));
        group.finish();
    }

    #[test]
    fn the_records_of_a_batch_have_one_limit_whatever_is_before_them() {
        let one_more = vec![0; BATCH_LEN_MAX - RECORD_HEAD + 1];
        let value = &one_more[1..];
        let refused = Err(RecordError::BatchTooLarge { limit: BATCH_LEN_MAX });
        for layout in [Layout::default(), Layout { head: 64, batch_extra: 40 }] {
            let mut group = Group::new(layout);
            for _ in 0..2 {
                assert_eq!(group.push(Op::set(b"", &one_more)), refused);
                group.push(Op::set(b"", value)).unwrap();
                assert_eq!(group.push(Op::CLEAR), refused, "{layout:?}");
                group.finish();
            }
            assert_eq!(group.batches(), 2, "each batch has its own");
        }
    }
}

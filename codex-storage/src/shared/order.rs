//! Orders: the changes and the conditions of a commit, as they travel in a shared log.
//!
//! The layout is in `docs/FORMAT.md`, section "Shared log".

use std::fmt;
use std::ops::Bound;

use sha2::{Digest, Sha256};

use crate::batch::{BATCH_LEN_MAX, BatchRef, Item, KEY_LEN_MAX, Op, TableId, encode_record};
use crate::codec::Fields;
use crate::error::RecordError;

/// A change of a commit, or a condition. Which entries it concerns is decided where it stands in
/// the log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order<'a> {
    /// Sets the value of the key.
    Set(Item<'a>),
    /// Removes the key, if it has a value.
    Remove {
        /// The table of the key, or `None` if it is outside tables.
        table: Option<TableId>,
        /// The key.
        key: &'a [u8],
    },
    /// Removes all keys of a table, or all keys outside tables.
    Clear {
        /// The table, or `None` for the keys outside tables.
        table: Option<TableId>,
    },
    /// Removes all keys of the range.
    RemoveRange(KeyRange<'a>),
    /// Removes the smallest key of the range.
    PopFirst(KeyRange<'a>),
    /// Removes the largest key of the range.
    PopLast(KeyRange<'a>),
    /// Removes the key, if its entry has expired.
    Sweep {
        /// The table of the key, or `None` if it is outside tables.
        table: Option<TableId>,
        /// The key.
        key: &'a [u8],
    },
    /// The condition that the key has what was seen. An entry that has expired counts as absent.
    Expect {
        /// The table of the key, or `None` if it is outside tables.
        table: Option<TableId>,
        /// The key.
        key: &'a [u8],
        /// What was seen.
        seen: Seen,
    },
    /// The condition that the range has the entries that were seen, and no others.
    ExpectRange(KeyRange<'a>, SeenEntries),
}

/// A range of keys of a table, or of keys outside tables.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyRange<'a> {
    /// The table, or `None` for the keys outside tables.
    pub table: Option<TableId>,
    /// The lower end.
    pub lower: Bound<&'a [u8]>,
    /// The upper end.
    pub upper: Bound<&'a [u8]>,
}

/// What a commit has seen of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// No entry.
    Absent,
    /// A value, by [`digest_of_value`]. The expiry does not matter.
    Value([u8; 32]),
    /// An entry with its expiry, by the digest of [`SeenEntries`].
    Entry([u8; 32]),
}

/// What a commit has seen of several entries: their number, and the SHA-256 of their records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenEntries {
    /// The number of entries.
    pub count: u64,
    /// The digest.
    pub digest: [u8; 32],
}

/// The output has only the kind, so that keys and values appear in no log.
impl fmt::Debug for Order<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Set(_) => "Set",
            Self::Remove { .. } => "Remove",
            Self::Clear { .. } => "Clear",
            Self::RemoveRange(_) => "RemoveRange",
            Self::PopFirst(_) => "PopFirst",
            Self::PopLast(_) => "PopLast",
            Self::Sweep { .. } => "Sweep",
            Self::Expect { .. } => "Expect",
            Self::ExpectRange(..) => "ExpectRange",
        })
    }
}

crate::opaque_debug!(KeyRangeName);

/// The output has no key.
impl fmt::Debug for KeyRange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&KeyRangeName, f)
    }
}

struct KeyRangeName;

/// The digest of entries, to which they are added in the order of their keys.
pub struct Digests {
    count: u64,
    sha: Sha256,
    record: Vec<u8>,
}

crate::opaque_debug!(Digests);

impl Digests {
    /// Returns the digest of no entry.
    pub fn new() -> Self {
        Self { count: 0, sha: Sha256::new(), record: Vec::new() }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// `KeyTooLong`, which no entry of a store is.
    pub fn add(&mut self, item: Item<'_>) -> Result<(), RecordError> {
        self.record.clear();
        encode_record(Op::Set(item), &mut self.record)?;
        self.sha.update(&self.record);
        self.count += 1;
        Ok(())
    }

    /// Returns the number and the digest of the entries.
    pub fn finish(self) -> SeenEntries {
        SeenEntries { count: self.count, digest: self.sha.finalize().into() }
    }
}

impl Default for Digests {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns the SHA-256 of a stored value.
pub fn digest_of_value(value: &[u8]) -> [u8; 32] {
    Sha256::digest(value).into()
}

/// The parts of an order that its kind has in common with others.
#[derive(Default)]
struct Parts<'a> {
    flags: u8,
    expires_us: Option<i64>,
    table: Option<TableId>,
    first: &'a [u8],
    second: &'a [u8],
    seen: Option<SeenEntries>,
}

impl<'a> Order<'a> {
    /// Appends the encoded form to `buf`.
    ///
    /// # Errors
    /// `KeyTooLong` or `BatchTooLarge`. `buf` is unchanged.
    pub(super) fn encode(&self, buf: &mut Vec<u8>) -> Result<(), RecordError> {
        let (kind, parts) = self.parts();
        let has_key = matches!(self, Self::Set(_) | Self::Remove { .. } | Self::Sweep { .. });
        if has_key && parts.first.len() > KEY_LEN_MAX {
            let len = parts.first.len();
            return Err(RecordError::KeyTooLong { len, limit: KEY_LEN_MAX });
        }
        let too_large = |_| RecordError::BatchTooLarge { limit: BATCH_LEN_MAX };
        let first_len = u32::try_from(parts.first.len()).map_err(too_large)?;
        let second_len = u32::try_from(parts.second.len()).map_err(too_large)?;
        let mut flags = parts.flags;
        flags |= if parts.expires_us.is_some() { EXPIRES } else { 0 };
        flags |= if parts.table.is_some() { TABLE } else { 0 };
        buf.extend_from_slice(&[kind, flags, 0, 0]);
        buf.extend_from_slice(&first_len.to_le_bytes());
        buf.extend_from_slice(&second_len.to_le_bytes());
        if let Some(expires_us) = parts.expires_us {
            buf.extend_from_slice(&expires_us.to_le_bytes());
        }
        if let Some(table) = parts.table {
            buf.extend_from_slice(&table.get().to_le_bytes());
        }
        if let Some(SeenEntries { count, digest }) = parts.seen {
            buf.extend_from_slice(&count.to_le_bytes());
            buf.extend_from_slice(&digest);
        }
        buf.extend_from_slice(parts.first);
        buf.extend_from_slice(parts.second);
        Ok(())
    }

    /// Returns the kind of the order, and its parts.
    fn parts(&self) -> (u8, Parts<'a>) {
        let of_key = |table, first| Parts { table, first, ..Parts::default() };
        let of_range = |range: KeyRange<'a>| {
            let ((lower, first), (upper, second)) = (end_of(range.lower), end_of(range.upper));
            let flags = lower * LOWER + upper * UPPER;
            Parts { flags, table: range.table, first, second, ..Parts::default() }
        };
        match *self {
            Self::Set(Item { table, key, value, expires_us }) => {
                (KIND_SET, Parts { second: value, expires_us, ..of_key(table, key) })
            }
            Self::Remove { table, key } => (KIND_REMOVE, of_key(table, key)),
            Self::Clear { table } => (KIND_CLEAR, of_key(table, &[])),
            Self::RemoveRange(range) => (KIND_REMOVE_RANGE, of_range(range)),
            Self::PopFirst(range) => (KIND_POP_FIRST, of_range(range)),
            Self::PopLast(range) => (KIND_POP_LAST, of_range(range)),
            Self::Sweep { table, key } => (KIND_SWEEP, of_key(table, key)),
            Self::Expect { table, key, seen } => {
                let (kind, seen) = match seen {
                    Seen::Absent => (KIND_EXPECT_ABSENT, None),
                    Seen::Value(digest) => (KIND_EXPECT_VALUE, Some(digest)),
                    Seen::Entry(digest) => (KIND_EXPECT_ENTRY, Some(digest)),
                };
                let seen = seen.map(|digest| SeenEntries { count: 1, digest });
                (kind, Parts { seen, ..of_key(table, key) })
            }
            Self::ExpectRange(range, seen) => {
                (KIND_EXPECT_RANGE, Parts { seen: Some(seen), ..of_range(range) })
            }
        }
    }

    /// Returns the order of this kind with these parts.
    fn of(kind: u8, parts: &Parts<'a>) -> Result<Self, RecordError> {
        let &Parts { flags, expires_us, table, first: key, second, seen } = parts;
        let range = || {
            let (lower, upper) = (bound(flags / LOWER, key)?, bound(flags / UPPER, second)?);
            Ok(KeyRange { table, lower, upper })
        };
        let digest = |seen: Option<SeenEntries>| match seen {
            Some(SeenEntries { count: 1, digest }) => Ok(digest),
            _ => Err(RecordError::Malformed("a condition of one key has another count")),
        };
        let expect = |seen| Self::Expect { table, key, seen };
        let order = match kind {
            KIND_SET => Self::Set(Item { table, key, value: second, expires_us }),
            KIND_REMOVE => Self::Remove { table, key },
            KIND_CLEAR => Self::Clear { table },
            KIND_REMOVE_RANGE => Self::RemoveRange(range()?),
            KIND_POP_FIRST => Self::PopFirst(range()?),
            KIND_POP_LAST => Self::PopLast(range()?),
            KIND_SWEEP => Self::Sweep { table, key },
            KIND_EXPECT_ABSENT => expect(Seen::Absent),
            KIND_EXPECT_VALUE => expect(Seen::Value(digest(seen)?)),
            KIND_EXPECT_ENTRY => expect(Seen::Entry(digest(seen)?)),
            KIND_EXPECT_RANGE => {
                let seen = seen.ok_or(RecordError::Malformed("a range without its count"))?;
                Self::ExpectRange(range()?, seen)
            }
            _ => return Err(RecordError::UnknownKind(kind)),
        };
        // What the order does not use must be absent. So each order has one encoded form.
        let (_, again) = order.parts();
        let is_whole = again.flags == flags
            && again.expires_us == expires_us
            && (again.first.len(), again.second.len()) == (key.len(), second.len());
        is_whole.then_some(order).ok_or(RecordError::Malformed("an order with parts of another"))
    }
}

/// Returns the orders of a commit, which the payload of a frame has as a batch.
pub fn orders<'a>(commit: &BatchRef<'a>) -> impl Iterator<Item = Result<Order<'a>, RecordError>> {
    let (mut rest, mut left, mut failed) = (commit.records, commit.count(), false);
    std::iter::from_fn(move || {
        if failed || (left == 0 && rest.is_empty()) {
            return None;
        }
        let order = match left.checked_sub(1) {
            None => Err(RecordError::Malformed("bytes follow the last order")),
            Some(fewer) => {
                left = fewer;
                decode(&mut rest)
            }
        };
        failed = order.is_err();
        Some(order)
    })
}

/// Takes the first order off `rest`.
fn decode<'a>(rest: &mut &'a [u8]) -> Result<Order<'a>, RecordError> {
    const SHORT: RecordError = RecordError::Malformed("an order runs past its commit");
    let (head, mut after) = rest.split_first_chunk::<HEAD_LEN>().ok_or(SHORT)?;
    let mut fields = Fields::new(head);
    let (kind, flags, zero) = (fields.u8(), fields.u8(), fields.u16());
    let (first_len, second_len) = (fields.u32(), fields.u32());
    if flags & !FLAGS != 0 || zero != 0 {
        return Err(RecordError::UnknownFlags(flags));
    }
    let mut take = |len: u32| {
        let len = usize::try_from(len).map_err(|_| SHORT)?;
        let (bytes, left) = after.split_at_checked(len).ok_or(SHORT)?;
        after = left;
        Ok::<_, RecordError>(bytes)
    };
    let mut parts = Parts { flags: flags & !(EXPIRES | TABLE), ..Parts::default() };
    if flags & EXPIRES != 0 {
        parts.expires_us = Some(Fields::new(take(8)?).i64());
    }
    if flags & TABLE != 0 {
        let table = TableId::new(Fields::new(take(4)?).u32());
        parts.table = Some(table.ok_or(RecordError::Malformed("a table has the id 0"))?);
    }
    if matches!(kind, KIND_EXPECT_VALUE | KIND_EXPECT_ENTRY | KIND_EXPECT_RANGE) {
        let mut fields = Fields::new(take(SEEN_LEN)?);
        parts.seen = Some(SeenEntries { count: fields.u64(), digest: fields.array() });
    }
    (parts.first, parts.second) = (take(first_len)?, take(second_len)?);
    let order = Order::of(kind, &parts)?;
    *rest = after;
    Ok(order)
}

/// Returns the flag of an end of a range, and its bytes.
fn end_of(bound: Bound<&[u8]>) -> (u8, &[u8]) {
    match bound {
        Bound::Unbounded => (0, &[]),
        Bound::Included(key) => (1, key),
        Bound::Excluded(key) => (2, key),
    }
}

/// Returns the end of a range with this flag, whose two lowest bits count.
fn bound(flag: u8, key: &[u8]) -> Result<Bound<&[u8]>, RecordError> {
    match flag & 3 {
        0 => Ok(Bound::Unbounded),
        1 => Ok(Bound::Included(key)),
        2 => Ok(Bound::Excluded(key)),
        _ => Err(RecordError::Malformed("an end of a range is included and excluded")),
    }
}

/// The length of the head of an order: kind, flags, two zeros, and the lengths of both parts.
const HEAD_LEN: usize = 12;
/// The length of what was seen: a count and a digest.
const SEEN_LEN: u32 = 40;
const KIND_SET: u8 = 1;
const KIND_REMOVE: u8 = 2;
const KIND_CLEAR: u8 = 3;
const KIND_REMOVE_RANGE: u8 = 4;
const KIND_POP_FIRST: u8 = 5;
const KIND_POP_LAST: u8 = 6;
const KIND_SWEEP: u8 = 7;
const KIND_EXPECT_ABSENT: u8 = 16;
const KIND_EXPECT_VALUE: u8 = 17;
const KIND_EXPECT_ENTRY: u8 = 18;
const KIND_EXPECT_RANGE: u8 = 19;
/// The flag of an order with an expiry.
const EXPIRES: u8 = 1;
/// The flag of an order of a table.
const TABLE: u8 = 2;
/// The place of the flags of the lower end of a range.
const LOWER: u8 = 4;
/// The place of the flags of the upper end of a range.
const UPPER: u8 = 16;
/// All flags that this build knows.
const FLAGS: u8 = EXPIRES | TABLE | (3 * LOWER) | (3 * UPPER);

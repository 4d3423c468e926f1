//! Records: one operation each, in their encoded form.

use std::fmt;
use std::num::NonZeroU32;

use super::BATCH_LEN_MAX;
use crate::error::RecordError;

/// The longest key, in bytes.
pub const KEY_LEN_MAX: usize = 65_535;

/// The id of a table. The keys of a table are apart from those of other tables, and from those
/// outside tables.
pub type TableId = NonZeroU32;

/// One operation in its stored form.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// Sets the value of the key.
    Set(Item<'a>),
    /// Removes the key.
    Remove {
        /// The table of the key, or `None` if it is outside tables.
        table: Option<TableId>,
        /// At most [`KEY_LEN_MAX`] bytes.
        key: &'a [u8],
    },
    /// Removes all keys of a table, or all keys outside tables.
    Clear {
        /// The table, or `None` for the keys outside tables.
        table: Option<TableId>,
    },
}

/// An entry of a store in its stored form. Each path that copies entries passes it on whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item<'a> {
    /// The table of the entry, or `None` if it is outside tables.
    pub table: Option<TableId>,
    /// At most [`KEY_LEN_MAX`] bytes.
    pub key: &'a [u8],
    /// The stored bytes of the value.
    pub value: &'a [u8],
    /// The time at which the entry expires, in microseconds since 1970, or `None` if it does not.
    /// This layer only stores it.
    pub expires_us: Option<i64>,
}

impl<'a> Op<'a> {
    /// Removes all keys outside tables.
    pub const CLEAR: Self = Self::Clear { table: None };

    /// Returns the operation that sets `key`, outside tables, to `value`, without an expiry.
    pub fn set(key: &'a [u8], value: &'a [u8]) -> Self {
        Self::Set(Item { table: None, key, value, expires_us: None })
    }

    /// Returns the operation that removes `key`, outside tables.
    pub fn remove(key: &'a [u8]) -> Self {
        Self::Remove { table: None, key }
    }

    /// Returns the table that the operation changes, or `None` if it is outside tables.
    pub fn table(&self) -> Option<TableId> {
        match self {
            Self::Set(Item { table, .. }) | Self::Remove { table, .. } | Self::Clear { table } => {
                *table
            }
        }
    }
}

/// The output has only the kind and the lengths, so that keys and values appear in no log.
impl fmt::Debug for Op<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(item) => write!(f, "Set({item:?})"),
            Self::Remove { key, .. } => write!(f, "Remove({} byte key)", key.len()),
            Self::Clear { .. } => f.write_str("Clear"),
        }
    }
}

/// The output has only the lengths, as for [`Op`].
impl fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} byte key, {} byte value", self.key.len(), self.value.len())?;
        f.write_str(if self.expires_us.is_some() { ", expires" } else { "" })
    }
}

/// The operations of a batch or of a block of an image.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
    left: u32,
    failed: bool,
}

impl<'a> Records<'a> {
    /// Iterates over exactly `count` records, which must fill `bytes`.
    pub fn new(bytes: &'a [u8], count: u32) -> Self {
        Self { rest: bytes, left: count, failed: false }
    }

    /// Reads the next record.
    fn read(&mut self) -> Result<Op<'a>, RecordError> {
        const SHORT: RecordError = RecordError::Malformed("a record runs past its batch");
        let (head, rest) = self.rest.split_first_chunk::<RECORD_HEAD>().ok_or(SHORT)?;
        let [kind, flags, k0, k1, v0, v1, v2, v3] = *head;
        // Order: before the lengths, because an unknown flag may stand for a field that changes the
        // layout of the rest.
        if flags & !FLAGS != 0 {
            return Err(RecordError::UnknownFlags(flags & !FLAGS));
        }
        let key_len = usize::from(u16::from_le_bytes([k0, k1]));
        let value_len = usize::try_from(u32::from_le_bytes([v0, v1, v2, v3])).map_err(|_| SHORT)?;
        // Order: all lengths are checked against the rest before the kind is looked at, so that a
        // record never extends past its batch.
        let (expires_us, rest) = match rest.split_first_chunk() {
            _ if flags & FLAG_EXPIRES == 0 => (None, rest),
            Some((expires_us, rest)) => (Some(i64::from_le_bytes(*expires_us)), rest),
            None => return Err(SHORT),
        };
        let (table, rest) = match rest.split_first_chunk() {
            _ if flags & FLAG_TABLE == 0 => (None, rest),
            Some((id, rest)) => match TableId::new(u32::from_le_bytes(*id)) {
                None => return Err(RecordError::Malformed("a table has the id 0")),
                table => (table, rest),
            },
            None => return Err(SHORT),
        };
        let (key, rest) = rest.split_at_checked(key_len).ok_or(SHORT)?;
        let (value, rest) = rest.split_at_checked(value_len).ok_or(SHORT)?;
        self.rest = rest;
        match kind {
            KIND_SET => Ok(Op::Set(Item { table, key, value, expires_us })),
            KIND_REMOVE | KIND_CLEAR if expires_us.is_some() => {
                Err(RecordError::Malformed("a removal has an expiry"))
            }
            KIND_REMOVE if value.is_empty() => Ok(Op::Remove { table, key }),
            KIND_CLEAR if key.is_empty() && value.is_empty() => Ok(Op::Clear { table }),
            KIND_REMOVE | KIND_CLEAR => Err(RecordError::Malformed("a removal has a value")),
            _ => Err(RecordError::UnknownKind(kind)),
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Op<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || (self.left == 0 && self.rest.is_empty()) {
            return None;
        }
        let item = match self.left.checked_sub(1) {
            None => Err(RecordError::Malformed("bytes follow the last record")),
            Some(left) => {
                self.left = left;
                self.read()
            }
        };
        self.failed = item.is_err();
        Some(item)
    }
}

/// Returns the number of bytes of `op` in encoded form.
pub fn record_len(op: Op<'_>) -> usize {
    let (_, Item { table, key, value, expires_us }) = parts(op);
    let expiry_len = expires_us.map_or(0, |_| size_of::<i64>());
    let table_len = table.map_or(0, |_| size_of::<TableId>());
    RECORD_HEAD + expiry_len + table_len + key.len() + value.len()
}

/// Appends the encoded form of `op` to `buf`.
///
/// # Errors
/// `KeyTooLong` if the key is too long, `BatchTooLarge` if the length of the value does not fit.
/// `buf` is unchanged.
pub fn encode_record(op: Op<'_>, buf: &mut Vec<u8>) -> Result<(), RecordError> {
    let (kind, Item { table, key, value, expires_us }) = parts(op);
    let flags = expires_us.map_or(0, |_| FLAG_EXPIRES) | table.map_or(0, |_| FLAG_TABLE);
    let key_len = u16::try_from(key.len())
        .map_err(|_| RecordError::KeyTooLong { len: key.len(), limit: KEY_LEN_MAX })?;
    let value_len = u32::try_from(value.len())
        .map_err(|_| RecordError::BatchTooLarge { limit: BATCH_LEN_MAX })?;
    buf.reserve(record_len(op));
    buf.extend_from_slice(&[kind, flags]);
    buf.extend_from_slice(&key_len.to_le_bytes());
    buf.extend_from_slice(&value_len.to_le_bytes());
    if let Some(expires_us) = expires_us {
        buf.extend_from_slice(&expires_us.to_le_bytes());
    }
    if let Some(table) = table {
        buf.extend_from_slice(&table.get().to_le_bytes());
    }
    buf.extend_from_slice(key);
    buf.extend_from_slice(value);
    Ok(())
}

/// Returns the kind of the record of `op`, and its fields.
fn parts(op: Op<'_>) -> (u8, Item<'_>) {
    let without_value = |table, key| Item { table, key, value: &[], expires_us: None };
    match op {
        Op::Set(item) => (KIND_SET, item),
        Op::Remove { table, key } => (KIND_REMOVE, without_value(table, key)),
        Op::Clear { table } => (KIND_CLEAR, without_value(table, &[])),
    }
}

/// The length of the head of a record, in bytes: kind, flags, key length and value length.
pub(super) const RECORD_HEAD: usize = 8;
const KIND_SET: u8 = 1;
const KIND_REMOVE: u8 = 2;
const KIND_CLEAR: u8 = 3;
/// The flag of a record with an expiry, which follows its head.
const FLAG_EXPIRES: u8 = 1;
/// The flag of a record of a table, whose id follows the head and the expiry.
const FLAG_TABLE: u8 = 2;
/// All flags that this build knows.
const FLAGS: u8 = FLAG_EXPIRES | FLAG_TABLE;

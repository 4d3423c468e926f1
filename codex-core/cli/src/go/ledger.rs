//! The frames of a ledger, and the search for intact ones behind damage.

use std::ops::Range;

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::layers::{Budget, Cipher, Compression, unpack};
use super::snapshot::Members;
use super::{Change, Fault};

/// The layout of the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// A length and a payload.
    One,
    /// A length, the SHA-256 of the payload before its encryption, and the payload.
    Two,
}

/// The bytes of a ledger.
#[derive(Clone, Copy)]
pub(super) struct Frames<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) cipher: Option<&'a Cipher>,
    pub(super) version: Version,
}

/// An intact frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) compression: Compression,
    change: Change,
    end: usize,
}

/// The operations of a ledger, in order.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) changes: Vec<Change>,
    /// The number of operations behind the first damage, which the Go program does not read.
    pub(super) behind_damage: usize,
    /// The ranges of bytes without an intact frame.
    pub(super) lost: Vec<Range<usize>>,
    /// The offset after which the search was given up, if it was.
    pub(super) not_searched: Option<usize>,
}

/// The end of a frame, the hash in it, and its payload.
type Parts<'a> = (usize, Option<&'a [u8]>, &'a [u8]);

impl Frames<'_> {
    /// Reads the frames in order. If `salvage`, frames that are not intact are left out, and the
    /// search goes on behind them.
    ///
    /// # Errors
    /// `Damaged` at the first frame that is not intact, unless `salvage`; `TooLarge`.
    pub(super) fn read(&self, budget: &mut Budget, salvage: bool) -> Result<Ledger, Fault> {
        let mut ledger = Ledger::default();
        let mut at = 0;
        while at < self.bytes.len() {
            if let Some(frame) = self.frame(at, self.bytes.len(), budget)? {
                ledger.changes.push(frame.change);
                ledger.behind_damage += usize::from(!ledger.lost.is_empty());
                at = frame.end;
                continue;
            }
            if !salvage {
                return Err(Fault::Damaged(format!(
                    "after {} intact operations, the bytes from offset {at} on are no intact frame",
                    ledger.changes.len()
                )));
            }
            let Ok(next) = self.search(at, budget) else {
                ledger.not_searched = Some(at);
                break;
            };
            let next = next.unwrap_or(self.bytes.len());
            ledger.lost.push(at..next);
            at = next;
        }
        Ok(ledger)
    }

    /// Returns the frame at `at` if it is intact and ends before `end`.
    ///
    /// # Errors
    /// `TooLarge` if the budget is used up.
    pub(super) fn frame(
        &self,
        at: usize,
        end: usize,
        budget: &mut Budget,
    ) -> Result<Option<Frame>, Fault> {
        let Some((frame_end, hash, payload)) = self.split(at, end) else { return Ok(None) };
        let opened;
        let packed = match self.cipher {
            None => payload,
            Some(cipher) => {
                budget.take(payload.len())?;
                let Some(bytes) = cipher.open(payload) else { return Ok(None) };
                opened = bytes;
                &opened
            }
        };
        // Order: the cheap checks come first. The search meets many places that look like the
        // beginning of a frame.
        if !may_begin(packed) {
            return Ok(None);
        }
        if let Some(hash) = hash {
            budget.take(packed.len())?;
            if Sha256::digest(packed).as_slice() != hash {
                return Ok(None);
            }
        }
        let unpacked = match unpack(packed, budget) {
            Ok(unpacked) => unpacked,
            Err(Fault::TooLarge) => return Err(Fault::TooLarge),
            Err(_) => None,
        };
        let Some((compression, text)) = unpacked else { return Ok(None) };
        Ok(change(&text).map(|change| Frame { compression, change, end: frame_end }))
    }

    /// Returns the parts of the frame at `at`, if it ends before `end`.
    fn split(&self, at: usize, end: usize) -> Option<Parts<'_>> {
        let bytes = self.bytes.get(at..end)?;
        let (len, rest) = bytes.split_first_chunk::<LEN_LEN>()?;
        #[expect(clippy::big_endian_bytes, reason = "the Go program writes lengths so")]
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
        let body = rest.get(..len)?;
        let frame_end = at.checked_add(LEN_LEN)?.checked_add(len)?;
        match self.version {
            Version::One => Some((frame_end, None, body)),
            Version::Two => {
                let (hash, payload) = body.split_first_chunk::<HASH_LEN>()?;
                Some((frame_end, Some(hash), payload))
            }
        }
    }

    /// Returns whether the lengths of the frames lead from the beginning of the file to its end.
    pub(super) fn fill_the_file(&self) -> bool {
        let (mut at, len) = (0, self.bytes.len());
        // The shortest payload is a nonce, a tag and an operation.
        while let Some((end, ..)) = self.split(at, len).filter(|(.., it)| it.len() > 36) {
            at = end;
        }
        at == len && len > 0
    }

    /// Returns the offset of the first intact frame at or after `from`.
    ///
    /// An encrypted frame is only known by its tag, so each offset with a possible length costs as
    /// much as the frame that would begin there. Short frames are therefore searched first: the
    /// frame that is found bounds the longer ones before it.
    ///
    /// # Errors
    /// `TooLarge` if the budget is used up.
    pub(super) fn search(&self, from: usize, budget: &mut Budget) -> Result<Option<usize>, Fault> {
        let mut until = self.bytes.len();
        let mut len_max = FIRST_LEN_MAX;
        let mut nearest = None;
        loop {
            match self.search_upto(from..until, len_max, budget)? {
                Some(at) => (nearest, until) = (Some(at), at),
                None if nearest.is_some() => return Ok(nearest),
                None => {}
            }
            if len_max >= until - from {
                return Ok(nearest);
            }
            // If a frame was found, only frames that fit before it are left.
            len_max = if nearest.is_some() { until - from } else { len_max.saturating_mul(16) };
        }
    }

    /// Returns the offset of the first intact frame that lies in `range` and is not longer than
    /// `len_max`.
    fn search_upto(
        &self,
        range: Range<usize>,
        len_max: usize,
        budget: &mut Budget,
    ) -> Result<Option<usize>, Fault> {
        for at in range.start..range.end {
            let end = range.end.min(at.saturating_add(len_max));
            if self.frame(at, end, budget)?.is_some() {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }
}

/// Returns whether an operation, which may be compressed, can begin with these bytes.
fn may_begin(packed: &[u8]) -> bool {
    packed.starts_with(b"{") || matches!(packed, [1..=3, ..])
}

/// Returns the operation in the text of a frame, or `None` if it is none.
fn change(text: &[u8]) -> Option<Change> {
    let members: Members<'_> = serde_json::from_slice(text).ok()?;
    let (mut op, mut key, mut value) = (None, String::new(), None::<&RawValue>);
    for (name, member) in members.0 {
        if name.eq_ignore_ascii_case("op") {
            op = Some(serde_json::from_str::<u8>(member.get()).ok()?);
        } else if name.eq_ignore_ascii_case("key") {
            key = serde_json::from_str(member.get()).ok()?;
        } else if name.eq_ignore_ascii_case("value") {
            value = Some(member);
        }
    }
    Some(match op? {
        0 => Change::Set { key, value: value?.get().to_owned() },
        1 => Change::Remove { key },
        2 => Change::Clear,
        _ => return None,
    })
}

const LEN_LEN: usize = 4;
const HASH_LEN: usize = 32;
/// The length of the frames that are searched first, in bytes.
const FIRST_LEN_MAX: usize = 64 << 10;

//! The header of a store's main file: one slot, or in a ledger two, of which the second takes part
//! while the envelope is being replaced.
//!
//! The steps of a replacement and what a crash leaves of each are `docs/FORMAT.md`, section "The
//! two slots of a ledger".

use std::path::Path;
use std::sync::Arc;

use crate::codec::{is_zero, len_without_zeros};
use crate::error::{Error, Result};
use crate::header::{FileKind, Found, HEADER_LEN, Header, read_slot};
use crate::seal::{Keys, Seal};
use crate::storage::Form;
use crate::vfs::File;

/// The header slots of a main file.
#[derive(Debug)]
pub(crate) struct Slots {
    /// The header to go by: of two, the newer.
    pub(crate) found: Found,
    /// The older header, whose key may still be the user's.
    older: Option<Found>,
    unsettled: Unsettled,
}

/// What a replacement that was interrupted leaves to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unsettled {
    /// Nothing.
    No,
    /// The first slot gets the header to go by, which is a replacement; the second gets zeros.
    Finish,
    /// Both slots are equal; the second gets zeros.
    Doubled,
    /// The second slot holds a replacement that does not count, or a part of one, so that it cannot
    /// be zeroed as it stands: a part of those zeros would be nothing that is known. The header to
    /// go by replaces it, under a counter above this one.
    Anew(u64),
}

impl Slots {
    /// Reads the header of an image, or the slots of a ledger.
    ///
    /// # Errors
    /// As [`Found::read`]; `Damaged` for a second slot that no replacement leaves.
    pub(crate) fn read(file: &dyn File, path: &Path) -> Result<Self> {
        let first = read_slot(file, path, 0)?;
        let as_found = |found, unsettled| Ok(Self { found, older: None, unsettled });
        let parsed = match Found::parse(&first, path, 0) {
            Ok(found) if !is_ledger(&found.header) => return as_found(found, Unsettled::No),
            Err(error) if !matches!(error, Error::Damaged { .. }) => return Err(error),
            parsed => parsed,
        };
        let second = read_slot(file, path, SECOND_SLOT)?;
        let newer = Found::parse(&second, path, SECOND_SLOT);
        let newer = newer.ok().filter(|found| is_ledger(&found.header));
        match (parsed, newer) {
            (Ok(found), None) if is_zero(&second) => as_found(found, Unsettled::No),
            (Ok(found), None) if is_partly_zeroed(&second, &found) => {
                as_found(found, Unsettled::Finish)
            }
            (Ok(found), None) if is_partly_written(&second, &found) => {
                let counter = found.header.slot_counter;
                as_found(found, Unsettled::Anew(counter))
            }
            (Ok(found), Some(newer)) if newer.has_bytes_of(&found) => {
                as_found(found, Unsettled::Doubled)
            }
            (Ok(older), Some(newer)) if replaces(&newer.header, &older.header) => {
                Ok(Self { found: newer, older: Some(older), unsettled: Unsettled::Finish })
            }
            (Ok(_), _) => Err(Error::Damaged {
                path: path.to_owned(),
                offset: SECOND_SLOT,
                what: "the second header slot is neither zero nor a replacement of the first",
            }),
            (Err(_), Some(newer)) if common(&first, newer.bytes()) > COUNTER_AT => {
                as_found(newer, Unsettled::Finish)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Opens the envelope; the key may be that of either header of an unfinished replacement.
    ///
    /// # Errors
    /// As [`Found::unlock`].
    pub(crate) fn unlock(
        &mut self,
        keys: Option<&dyn Keys>,
        path: &Path,
    ) -> Result<Option<Arc<dyn Seal>>> {
        let refused = match self.found.unlock(keys, path) {
            Err(e @ Error::WrongKey { .. }) => e,
            unlocked => return unlocked,
        };
        let Some(older) = self.older.take() else { return Err(refused) };
        let seal = older.unlock(keys, path)?;
        self.unsettled = Unsettled::Anew(self.found.header.slot_counter);
        self.found = older;
        Ok(seal)
    }

    /// Checks that what lies between the slots and the frames of a ledger is zero.
    ///
    /// # Errors
    /// `Damaged`.
    pub(crate) fn check_gaps(&self, file: &dyn File, path: &Path) -> Result<()> {
        let slot = crate::codec::u64_of(HEADER_LEN);
        let body = self.found.header.body_offset();
        let len = file.len().map_err(|e| Error::io("look at", path, e))?;
        if len < body {
            let what = "the file ends before its frames begin";
            return Err(Error::Damaged { path: path.to_owned(), offset: len, what });
        }
        for (mut at, end) in [(slot, SECOND_SLOT), (SECOND_SLOT + slot, body)] {
            while at < end {
                if !is_zero(&read_slot(file, path, at)?) {
                    let what = "the space between the headers and the frames is not zero";
                    return Err(Error::Damaged { path: path.to_owned(), offset: at, what });
                }
                at += slot;
            }
        }
        Ok(())
    }

    /// Whether both slots are equal: so are those of a file that has just taken the place of
    /// another, until its name is durable.
    pub(crate) fn is_doubled(&self) -> bool {
        self.unsettled == Unsettled::Doubled
    }

    /// Finishes a replacement that was interrupted: the header that was unlocked under `seal` fills
    /// the first slot, zeros the second.
    ///
    /// # Errors
    /// `Io`: opening again tries again.
    pub(crate) fn settle(
        &mut self,
        file: &dyn File,
        path: &Path,
        seal: Option<&dyn Seal>,
    ) -> Result<()> {
        let mut put = |bytes: &[u8], at| {
            let written = file.write_all_at(bytes, at).and_then(|()| file.sync());
            written.map_err(|e| Error::io("finish replacing the header of", path, e))
        };
        match self.unsettled {
            Unsettled::No => return Ok(()),
            Unsettled::Finish | Unsettled::Doubled => {
                put(self.found.bytes(), 0)?;
                put(&[0; HEADER_LEN], SECOND_SLOT)?;
            }
            Unsettled::Anew(counter) => {
                let header = Header { slot_counter: counter + 1, ..self.found.header.clone() };
                let (_, bytes) = replacement(header, seal);
                replace(&bytes, &mut put)?;
                self.found = Found::parse(&bytes, path, 0)?;
            }
        }
        self.unsettled = Unsettled::No;
        Ok(())
    }
}

/// The header as a replacement, and its bytes, under the first free counter whose checksum ends in
/// a byte with more than one bit set: so no single flipped bit of a zero slot looks like the end
/// of one.
pub(crate) fn replacement(mut header: Header, seal: Option<&dyn Seal>) -> (Header, Vec<u8>) {
    // A counter of 1 says that the second slot was never written, so none of it may be found.
    header.slot_counter = header.slot_counter.max(2);
    loop {
        let bytes = header.encode(seal);
        if bytes.last().is_some_and(|last| last.count_ones() > 1) {
            return (header, bytes);
        }
        header.slot_counter += 1;
    }
}

/// Writes the replacement `new` of a header durably in three steps, each by a call of `put`, so
/// that a crash between or within them leaves a file that opens.
///
/// # Errors
/// What `put` returns: the old header may count, or the new one.
pub(crate) fn replace(new: &[u8], put: &mut dyn FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
    put(new, SECOND_SLOT)?;
    put(new, 0)?;
    put(&[0; HEADER_LEN], SECOND_SLOT)
}

fn is_ledger(header: &Header) -> bool {
    header.kind == FileKind::Log && header.form == Form::Ledger
}

/// Whether `newer` is `older` with another envelope and a higher counter.
fn replaces(newer: &Header, older: &Header) -> bool {
    newer.slot_counter > older.slot_counter
        && *newer
            == Header {
                slot_counter: newer.slot_counter,
                envelope: newer.envelope.clone(),
                ..older.clone()
            }
}

/// Whether the second slot is what a crash leaves of writing a replacement of `first` into it, over
/// zeros or over an earlier replacement.
fn is_partly_written(second: &[u8], first: &Found) -> bool {
    let written = len_without_zeros(second).min(ENVELOPE_AT);
    let fields = first.bytes().iter().zip(second).take(written).enumerate();
    written > 0
        && fields
            .filter(|(at, _)| !(COUNTER_AT..COUNTER_AT + 8).contains(at))
            .all(|(_, (expected, byte))| expected == byte)
}

/// Whether the second slot is what a crash leaves of zeroing it once `first` was the replacement.
fn is_partly_zeroed(second: &[u8], first: &Found) -> bool {
    let rest = second.iter().zip(first.bytes()).skip_while(|(byte, _)| **byte == 0);
    first.header.slot_counter > 1
        && second.starts_with(&[0])
        && rest.into_iter().all(|(byte, expected)| byte == expected)
}

/// How many bytes both begin with.
fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Where the second slot of a ledger begins.
pub(crate) const SECOND_SLOT: u64 = 4096;
/// Where the slot counter stands in a header.
const COUNTER_AT: usize = 80;
/// Where what differs between a header and its replacement, the counter apart, begins.
const ENVELOPE_AT: usize = 224;

#[cfg(test)]
mod tests;

//! The history of a store: its digest, the positions that images list, and anchors.
//!
//! See `docs/FORMAT.md`, sections "History digest" and "Anchor".

mod lazy;

use std::fmt;
use std::path::Path;

pub(crate) use lazy::LazyDigest;
use sha2::{Digest, Sha256};

use crate::batch::{Group, Seq};
use crate::codec::Fields;
use crate::error::{Error, Result};
use crate::header::Header;
use crate::storage::{Anchor, AnchorFound};

/// Returns the digest of the history of a Wal or a Snapshot after a group was added: `batches`
/// commits from `first` on, with the plaintext `payload`.
pub(crate) fn extend(digest: &[u8; 32], first: Seq, batches: u32, payload: &[u8]) -> [u8; 32] {
    let mut sha = Sha256::new();
    sha.update(b"codexdb history 1");
    sha.update(digest);
    sha.update(first.to_le_bytes());
    sha.update(batches.to_le_bytes());
    sha.update(payload);
    sha.finalize().into()
}

/// A commit, and the digest of the history up to it. The digest is a function of plaintext, so it
/// leaves the process only encrypted. Callers receive an [`Anchor`] instead.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) seq: Seq,
    pub(crate) digest: [u8; 32],
}

impl Position {
    /// Returns the commit at which a file with this header begins.
    pub(crate) fn base(header: &Header) -> Self {
        Self { seq: header.base_seq, digest: header.base_digest }
    }

    /// Returns the end of the history of a Wal or a Snapshot after `group`.
    pub(crate) fn after(&self, group: &Group) -> Self {
        let batches = u32::try_from(group.batches());
        let batches = batches.expect("no group in memory has 2^32 batches of 8 bytes each");
        Self {
            seq: self.seq + u64::from(batches),
            digest: extend(&self.digest, self.seq + 1, batches, group.payload()),
        }
    }

    /// Returns this position in the form for callers. The history of a store begins with random
    /// bytes, so the digest serves as the key of this hash.
    pub(crate) fn anchor(&self, store_id: [u8; 16]) -> Anchor {
        let mut sha = Sha256::new();
        sha.update(b"codexdb anchor 1");
        sha.update(store_id);
        sha.update(self.seq.to_le_bytes());
        sha.update(self.digest);
        Anchor { store_id, seq: self.seq, value: sha.finalize().into() }
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Position").field("seq", &self.seq).finish_non_exhaustive()
    }
}

/// The end of the history of a store, and the earlier positions that its images list.
#[derive(Clone)]
pub(crate) struct History {
    store_id: [u8; 16],
    end: Position,
    /// In ascending order of seq.
    listed: Vec<Position>,
}

impl History {
    /// Returns the history of a file with this header, up to its base.
    pub(crate) fn base(header: &Header) -> Self {
        Self { store_id: header.store_id, end: Position::base(header), listed: Vec::new() }
    }

    /// Returns the history of a store without files, up to commit `seq`.
    pub(crate) fn of_nothing(seq: Seq) -> Self {
        Self { store_id: [0; 16], end: Position { seq, digest: [0; 32] }, listed: Vec::new() }
    }

    /// Returns the position of the last commit.
    pub(crate) fn end(&self) -> Position {
        self.end
    }

    /// Returns the number of the last commit.
    pub(crate) fn seq(&self) -> Seq {
        self.end.seq
    }

    /// Returns the earlier positions, in ascending order of seq.
    pub(crate) fn listed(&self) -> &[Position] {
        &self.listed
    }

    /// Moves the end of the history to commit `seq`.
    pub(crate) fn go_on(&mut self, seq: Seq, digest: [u8; 32]) {
        self.end = Position { seq, digest };
    }

    /// Returns the position of the last commit for a caller, and lists it in the next image.
    pub(crate) fn anchor(&mut self) -> Anchor {
        self.list(self.end);
        self.end_anchor()
    }

    /// Returns the position of the last commit for a caller.
    pub(crate) fn end_anchor(&self) -> Anchor {
        self.end.anchor(self.store_id)
    }

    /// Adds `position` to the list. It stays there as long as the rule of the format keeps it.
    pub(crate) fn list(&mut self, position: Position) {
        let at = self.listed.partition_point(|listed| listed.seq < position.seq);
        if self.listed.get(at).is_some_and(|listed| listed.seq == position.seq) {
            return;
        }
        self.listed.insert(at, position);
        thin(&mut self.listed);
    }

    /// Like [`list`](Self::list), but does nothing if a position shortly before `position`, or a
    /// later one, is listed.
    pub(crate) fn list_if_apart(&mut self, position: Position) {
        let newest = self.listed.last().map_or(0, |newest| newest.seq);
        if newest.saturating_add(APART) <= position.seq {
            self.list(position);
        }
    }

    /// Takes over the list of an image that this history continues.
    pub(crate) fn inherit(&mut self, listed: Vec<Position>) {
        self.listed = listed;
    }
}

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("History")
            .field("seq", &self.end.seq)
            .field("listed", &self.listed.len())
            .finish_non_exhaustive()
    }
}

/// Shortens a list that has become too long. The newest [`KEPT`] positions stay. Earlier ones are
/// grouped by the number of bits of their distance from the newest, and the oldest of each group
/// stays.
fn thin(listed: &mut Vec<Position>) {
    let Some(newest) = listed.last().filter(|_| listed.len() > LISTED_MAX) else { return };
    let (newest, older) = (newest.seq, listed.len().saturating_sub(KEPT));
    let (mut at, mut last) = (0, None);
    // Positions are visited from the oldest on, so the first of each group is kept.
    listed.retain(|position| {
        at += 1;
        let bits = Some(u64::BITS - (newest - position.seq).leading_zeros());
        at > older || std::mem::replace(&mut last, bits) != bits
    });
}

/// Appends the positions before commit `base`, which the image of that commit lists, and returns
/// their number.
pub(crate) fn encode_listed(history: &History, base: Seq, to: &mut Vec<u8>) -> u32 {
    let mut count = 0;
    for Position { seq, digest } in history.listed().iter().filter(|listed| listed.seq < base) {
        to.extend_from_slice(&seq.to_le_bytes());
        to.extend_from_slice(digest);
        count += 1;
    }
    count
}

/// Decodes the `count` positions that the image of commit `base` lists. Returns an error text if
/// they are not in order.
pub(crate) fn decode_listed(
    bytes: &[u8],
    count: u32,
    base: Seq,
) -> Result<Vec<Position>, &'static str> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > LISTED_MAX || bytes.len() != count * POSITION_LEN {
        return Err("the list of earlier positions does not have the length of its count");
    }
    let mut fields = Fields::new(bytes);
    let listed: Vec<Position> =
        (0..count).map(|_| Position { seq: fields.u64(), digest: fields.array() }).collect();
    let seqs = listed.iter().map(|position| position.seq).chain([base]);
    if !seqs.is_sorted_by(|a, b| a < b) {
        return Err("the earlier positions do not ascend to that of the image");
    }
    Ok(listed)
}

/// Compares a history with the expected anchor while its positions are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnchorWatch {
    wanted: Option<Anchor>,
    accepts_unknown: bool,
    /// The position of the anchored commit, if it was found.
    found: Option<Position>,
    /// The end of the last group.
    last: Option<Seq>,
}

impl AnchorWatch {
    /// Begins to watch for the anchor `wanted`, if there is one.
    pub(crate) fn new(wanted: Option<Anchor>, accepts_unknown: bool) -> Self {
        Self { wanted, accepts_unknown, found: None, last: None }
    }

    /// Checks `position`, at which the history begins, or the end of the next group.
    ///
    /// # Errors
    /// `AnchorMismatch` if this is the anchored commit with another digest, or if the anchored
    /// commit is inside this group. An anchor always names the end of a group.
    pub(crate) fn pass(&mut self, position: Position, path: &Path) -> Result<()> {
        let Some(anchor) = self.wanted else { return Ok(()) };
        if self.last.is_some_and(|last| last < anchor.seq) && anchor.seq < position.seq {
            return Err(mismatch(&anchor, path));
        }
        self.last = Some(position.seq);
        self.compare(position, path)
    }

    /// Checks the earlier positions `listed` of an image.
    ///
    /// # Errors
    /// `AnchorMismatch` if one of them is the anchored commit with another digest.
    pub(crate) fn pass_listed(&mut self, listed: &[Position], path: &Path) -> Result<()> {
        listed.iter().try_for_each(|position| self.compare(*position, path))
    }

    /// Compares `position` with the anchor, if it is the anchored commit.
    fn compare(&mut self, position: Position, path: &Path) -> Result<()> {
        let Some(anchor) = self.wanted.filter(|anchor| anchor.seq == position.seq) else {
            return Ok(());
        };
        if position.anchor(anchor.store_id) != anchor {
            return Err(mismatch(&anchor, path));
        }
        self.found = Some(position);
        Ok(())
    }

    /// Ends the check after the last commit. Adds the anchored commit to the list of `history`.
    ///
    /// # Errors
    /// - `AnchorMismatch` if the history ends before the anchored commit.
    /// - `AnchorUnknown` if the history continues after the anchored commit but does not list it,
    ///   and the caller does not accept this.
    pub(crate) fn end(&self, history: &mut History, path: &Path) -> Result<Option<AnchorFound>> {
        let Some(anchor) = self.wanted else { return Ok(None) };
        if self.last.is_none_or(|last| last < anchor.seq) {
            return Err(mismatch(&anchor, path));
        }
        match self.found {
            Some(position) => history.list(position),
            None if self.accepts_unknown => return Ok(Some(AnchorFound::Unknown)),
            None => return Err(Error::AnchorUnknown { path: path.to_owned(), seq: anchor.seq }),
        }
        Ok(Some(AnchorFound::Compared))
    }
}

/// Returns the error of a history that does not contain the anchored commit.
fn mismatch(anchor: &Anchor, path: &Path) -> Error {
    Error::AnchorMismatch { path: path.to_owned(), seq: anchor.seq }
}

/// The largest number of positions that an image lists.
const LISTED_MAX: usize = 128;
/// The number of newest positions that are always kept. There are at most 62 others: one for each
/// number of bits in the distance between two seqs.
const KEPT: usize = 64;
/// The smallest number of commits between the base of the image of a Snapshot and the position
/// listed before it.
const APART: Seq = 1024;
/// The length of seq and digest, in bytes.
const POSITION_LEN: usize = 40;

#[cfg(test)]
mod tests;

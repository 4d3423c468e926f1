//! The history of a store: its digest, the positions that images list, and anchors.
//!
//! `docs/FORMAT.md`, "History digest" and "Anchor".

use std::fmt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::batch::{Group, Seq};
use crate::codec::Fields;
use crate::error::{Error, Result};
use crate::header::Header;
use crate::storage::{Anchor, AnchorFound};

/// The digest of a Wal's or a Snapshot's history once the group of `batches` commits from `first`
/// on, whose plaintext is `payload`, has joined it.
pub(crate) fn extend(digest: &[u8; 32], first: Seq, batches: u32, payload: &[u8]) -> [u8; 32] {
    let mut sha = Sha256::new();
    sha.update(b"codexdb history 1");
    sha.update(digest);
    sha.update(first.to_le_bytes());
    sha.update(batches.to_le_bytes());
    sha.update(payload);
    sha.finalize().into()
}

/// A commit and the digest of the history up to it. The digest is a function of plaintext, so it
/// leaves the process only encrypted: a caller gets an [`Anchor`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) seq: Seq,
    pub(crate) digest: [u8; 32],
}

impl Position {
    /// The commit at which a file with this header begins.
    pub(crate) fn base(header: &Header) -> Self {
        Self { seq: header.base_seq, digest: header.base_digest }
    }

    /// The end of a Wal's or a Snapshot's history once `group` has joined it.
    pub(crate) fn after(&self, group: &Group) -> Self {
        let batches = u32::try_from(group.batches());
        let batches = batches.expect("no group in memory has 2^32 batches of 8 bytes each");
        Self {
            seq: self.seq + u64::from(batches),
            digest: extend(&self.digest, self.seq + 1, batches, group.payload()),
        }
    }

    /// This position as it is handed out. The digests of a store begin with random bytes, which
    /// makes the digest the key of this hash.
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

/// Where the history of a store ends, and the earlier positions that its images list.
#[derive(Clone)]
pub struct History {
    store_id: [u8; 16],
    end: Position,
    /// Seqs ascend.
    listed: Vec<Position>,
}

impl History {
    /// The history of a file with this header, up to its base.
    pub(crate) fn base(header: &Header) -> Self {
        Self { store_id: header.store_id, end: Position::base(header), listed: Vec::new() }
    }

    /// The history of a store without files, up to commit `seq`.
    pub(crate) fn of_nothing(seq: Seq) -> Self {
        Self { store_id: [0; 16], end: Position { seq, digest: [0; 32] }, listed: Vec::new() }
    }

    /// The last commit.
    pub(crate) fn end(&self) -> Position {
        self.end
    }

    /// The number of the last commit.
    pub(crate) fn seq(&self) -> Seq {
        self.end.seq
    }

    pub(crate) fn listed(&self) -> &[Position] {
        &self.listed
    }

    /// The history goes on up to commit `seq`.
    pub(crate) fn go_on(&mut self, seq: Seq, digest: [u8; 32]) {
        self.end = Position { seq, digest };
    }

    /// The position of the last commit for a caller. The next image lists it.
    pub(crate) fn anchor(&mut self) -> Anchor {
        self.list(self.end);
        self.end.anchor(self.store_id)
    }

    /// Lists `position`; it stays as long as the rule of the format keeps it.
    pub(crate) fn list(&mut self, position: Position) {
        let at = self.listed.partition_point(|listed| listed.seq < position.seq);
        if self.listed.get(at).is_some_and(|listed| listed.seq == position.seq) {
            return;
        }
        self.listed.insert(at, position);
        thin(&mut self.listed);
    }

    /// As [`list`](Self::list), unless a position shortly before this one, or a later one, is
    /// listed.
    pub(crate) fn list_if_apart(&mut self, position: Position) {
        let newest = self.listed.last().map_or(0, |newest| newest.seq);
        if newest.saturating_add(APART) <= position.seq {
            self.list(position);
        }
    }

    /// Takes the list of an image whose history this one continues.
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

/// Thins a list that has become too long: of the positions before the newest [`KEPT`], those whose
/// distances from the newest have the same number of bits make room for the oldest of them.
fn thin(listed: &mut Vec<Position>) {
    let Some(newest) = listed.last().filter(|_| listed.len() > LISTED_MAX) else { return };
    let (newest, older) = (newest.seq, listed.len().saturating_sub(KEPT));
    let (mut at, mut last) = (0, None);
    listed.retain(|position| {
        at += 1;
        let bits = Some(u64::BITS - (newest - position.seq).leading_zeros());
        at > older || std::mem::replace(&mut last, bits) != bits
    });
}

/// Appends the positions before commit `base`, which the image of that commit lists; their number.
pub(crate) fn encode_listed(history: &History, base: Seq, to: &mut Vec<u8>) -> u32 {
    let mut count = 0;
    for Position { seq, digest } in history.listed().iter().filter(|listed| listed.seq < base) {
        to.extend_from_slice(&seq.to_le_bytes());
        to.extend_from_slice(digest);
        count += 1;
    }
    count
}

/// The `count` positions that the image of commit `base` lists.
pub(crate) fn decode_listed(
    bytes: &[u8],
    count: u32,
    base: Seq,
) -> Result<Vec<Position>, &'static str> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > LISTED_MAX || bytes.len() != count * POSITION_LEN {
        return Err("the list of earlier positions has another length than its number says");
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

/// Holds a history to the anchor that was demanded, as its positions go by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnchorWatch {
    wanted: Option<Anchor>,
    accepts_unknown: bool,
    /// The position of the anchored commit.
    found: Option<Position>,
    /// The end of the group that went by last.
    last: Option<Seq>,
}

impl AnchorWatch {
    pub(crate) fn new(wanted: Option<Anchor>, accepts_unknown: bool) -> Self {
        Self { wanted, accepts_unknown, found: None, last: None }
    }

    /// The history begins or continues with `position`, the end of a group.
    ///
    /// # Errors
    /// `AnchorMismatch` when the anchored commit is this one with another digest, or lies inside
    /// this group: anchors name ends of groups.
    pub(crate) fn pass(&mut self, position: Position, path: &Path) -> Result<()> {
        let Some(anchor) = self.wanted else { return Ok(()) };
        if self.last.is_some_and(|last| last < anchor.seq) && anchor.seq < position.seq {
            return Err(mismatch(&anchor, path));
        }
        self.last = Some(position.seq);
        self.compare(position, path)
    }

    /// An image lists `listed` of the history before it.
    ///
    /// # Errors
    /// As [`pass`](Self::pass), except for a commit between two of them.
    pub(crate) fn pass_listed(&mut self, listed: &[Position], path: &Path) -> Result<()> {
        listed.iter().try_for_each(|position| self.compare(*position, path))
    }

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

    /// The history has ended. The anchored commit joins the list of `history`.
    ///
    /// # Errors
    /// `AnchorMismatch` when it ended before the anchored commit. `AnchorUnknown` when it goes on
    /// after it, does not tell of it, and that was not accepted.
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

fn mismatch(anchor: &Anchor, path: &Path) -> Error {
    Error::AnchorMismatch { path: path.to_owned(), seq: anchor.seq }
}

/// The most positions that an image lists.
const LISTED_MAX: usize = 128;
/// How many of the newest are kept whatever their distances. There are at most 62 others: one for
/// each number of bits that a distance between two seqs has.
const KEPT: usize = 64;
/// How many commits lie at least between the base of a Snapshot's image and the position listed
/// before it.
const APART: Seq = 1024;
/// Seq and digest, in bytes.
const POSITION_LEN: usize = 40;

#[cfg(test)]
mod tests;

//! The digest of a store's history, which an anchor names.
//!
//! `docs/FORMAT.md`, "History digest".

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::batch::{Group, Seq};
use crate::error::{Error, Result};
use crate::header::Header;
use crate::storage::Anchor;

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

impl Anchor {
    /// The commit at which a file with this header begins.
    pub(crate) fn base(header: &Header) -> Self {
        let Header { store_id, base_seq: seq, base_digest: digest, .. } = *header;
        Self { store_id, seq, digest }
    }

    /// The end of a Wal's or a Snapshot's history once `group` has joined it.
    pub(crate) fn after(&self, group: &Group) -> Self {
        // A group in memory never has 2^32 batches: each takes 8 bytes and a group is one frame.
        let batches = u32::try_from(group.batches()).unwrap_or(u32::MAX);
        Self {
            seq: self.seq + u64::from(batches),
            digest: extend(&self.digest, self.seq + 1, batches, group.payload()),
            ..*self
        }
    }
}

/// Holds a history to the anchor that was demanded, as its groups go by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnchorWatch {
    wanted: Option<Anchor>,
    /// The end of the group that went by last.
    last: Option<Seq>,
}

impl AnchorWatch {
    pub(crate) fn new(wanted: Option<Anchor>) -> Self {
        Self { wanted, last: None }
    }

    /// The history begins or continues with `digest` at the end of the group of commit `seq`.
    ///
    /// # Errors
    /// `AnchorMismatch` when the anchored commit is this one with another digest, or lies inside
    /// this group: anchors name ends of groups.
    pub(crate) fn pass(&mut self, seq: Seq, digest: &[u8; 32], path: &Path) -> Result<()> {
        let Some(anchor) = self.wanted else { return Ok(()) };
        let inside = self.last.is_some_and(|last| last < anchor.seq) && anchor.seq < seq;
        if inside || (anchor.seq == seq && anchor.digest != *digest) {
            return Err(Error::AnchorMismatch { path: path.to_owned(), seq: anchor.seq });
        }
        self.last = Some(seq);
        Ok(())
    }

    /// The history has ended.
    ///
    /// # Errors
    /// `AnchorMismatch` when it ended before the anchored commit.
    pub(crate) fn end(&self, path: &Path) -> Result<()> {
        match self.wanted {
            Some(_) if cfg!(codex_mutant = "anchor_forgotten") => Ok(()),
            Some(anchor) if self.last.is_none_or(|last| last < anchor.seq) => {
                Err(Error::AnchorMismatch { path: path.to_owned(), seq: anchor.seq })
            }
            _ => Ok(()),
        }
    }
}

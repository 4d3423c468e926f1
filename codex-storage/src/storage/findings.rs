//! The findings of an opening.

use crate::batch::Seq;

/// The findings of an [`open`](crate::open).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Recovered {
    /// The last commit.
    pub seq: Seq,
    /// The last commit that was proven durable before this recovery.
    pub durable: Seq,
    /// Whether the store was closed cleanly.
    pub clean: bool,
    /// The newest time in the files, in microseconds since 1970.
    pub newest_us: i64,
    /// The number of commits that were read from logs. The others came from the image.
    pub replayed: u64,
    /// The part that was cut from the end of the log, if there was one.
    pub cut: Option<Cut>,
    /// The name of the log of a rekey that did not finish, if there is one. It has no commit that
    /// the other files lack. A writer removes it before its first write.
    pub stray: Option<String>,
    /// Whether the lock on the store is held: not of a backup, nor where a reader cannot take it.
    pub locked: bool,
    /// The result of comparing the anchor, or `None` if no anchor was given.
    pub anchor: Option<AnchorFound>,
}

/// The result of comparing an anchor with a store. A store that does not contain the anchored
/// commit is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnchorFound {
    /// The store contains the anchored commit.
    Compared,
    /// The store has later commits, and its files do not show whether it contains the anchored one.
    /// The caller has accepted this.
    Unknown,
}

/// The tail of a log that recovery left out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// The name of the log.
    pub file: String,
    /// The offset at which the intact part ends.
    pub offset: u64,
    /// The number of unused bytes after it, up to the last nonzero one.
    pub bytes: u64,
    /// The last commit before the cut.
    pub seq: Seq,
}

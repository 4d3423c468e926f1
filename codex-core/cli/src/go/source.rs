//! Telling the files of the Go program apart. Nothing in them has a magic number.

use std::ops::Range;

use super::layers::{Budget, Cipher, Compression, unpack};
use super::ledger::{Frames, Ledger, Version};
use super::snapshot::{self, Snapshot};
use super::{Change, Fault};

/// The contents of a file.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) kind: Kind,
    /// The operations, in order.
    pub(super) changes: Vec<Change>,
    /// The number of operations behind the first damage.
    pub(super) behind_damage: usize,
    /// Ranges of bytes without intact contents.
    pub(super) lost: Vec<Range<usize>>,
    /// The offset after which the search for intact frames was given up, if it was.
    pub(super) not_searched: Option<usize>,
    /// Whether the file has a checksum that its entries do not match.
    pub(super) is_unverified: bool,
    /// Keys without a value.
    pub(super) without_value: Vec<String>,
}

/// The kind of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// The version of a ledger, or `None` for a snapshot.
    pub(super) ledger: Option<Version>,
    pub(super) compression: Compression,
    pub(super) is_encrypted: bool,
}

impl Kind {
    pub(super) fn is_ledger(self) -> bool {
        self.ledger.is_some()
    }

    /// Returns the kind in words.
    pub(super) fn words(self) -> String {
        let mut words = match self.ledger {
            None => "a snapshot of the Go program CodexDB".to_owned(),
            Some(Version::One) => "a ledger of the Go program CodexDB, version 1".to_owned(),
            Some(Version::Two) => "a ledger of the Go program CodexDB, version 2".to_owned(),
        };
        let parts = [self.compression.name(), self.is_encrypted.then_some("encrypted")];
        for part in parts.into_iter().flatten() {
            words.push_str(", ");
            words.push_str(part);
        }
        words
    }
}

/// Reads a file of any kind. `cipher` is that of its key, if one was given.
///
/// # Errors
/// - `NotEncrypted` if there is a cipher and the file is not encrypted; `Unreadable` if the file
///   is encrypted under another key, or is no file of the Go program.
/// - `Damaged` if the file is not intact, unless `salvage` and something can be read.
/// - `TooLarge` if the contents are larger than the file can honestly be.
pub(super) fn read(
    bytes: &[u8],
    cipher: Option<&Cipher>,
    salvage: bool,
) -> Result<Contents, Fault> {
    if bytes.is_empty() {
        return Err(Fault::Damaged("it is empty".to_owned()));
    }
    let mut budget = Budget::of(bytes.len());
    let frames = |version| Frames { bytes, cipher, version };
    // Order: what proves itself by a tag or a hash comes before what only looks like one kind. A
    // nonce is random, and can look like anything.
    if let Some(contents) = first_frame(&frames(Version::Two), &mut budget, salvage)? {
        return Ok(contents);
    }
    if cipher.is_some() {
        if let Some(contents) = first_frame(&frames(Version::One), &mut budget, salvage)? {
            return Ok(contents);
        }
        budget.take(bytes.len())?;
    }
    let opened = cipher.and_then(|cipher| cipher.open(bytes));
    let is_encrypted = opened.is_some();
    if cipher.is_some() && !is_encrypted && is_plain(bytes, &mut budget) {
        return Err(Fault::NotEncrypted);
    }
    let mut unread = Fault::Unreadable;
    if is_encrypted || cipher.is_none() {
        match read_snapshot(opened.as_deref().unwrap_or(bytes), &mut budget, salvage) {
            Ok((compression, snapshot)) => {
                let kind = Kind { ledger: None, compression, is_encrypted };
                return Ok(Contents::of_snapshot(kind, snapshot));
            }
            Err(fault) => unread = fault,
        }
    }
    if cipher.is_none()
        && let Some(contents) = first_frame(&frames(Version::One), &mut budget, salvage)?
    {
        return Ok(contents);
    }
    if salvage {
        for version in [Version::Two, Version::One] {
            let frames = frames(version);
            if let Some(at) = frames.search(0, &mut budget)?
                && let Some(first) = frames.frame(at, bytes.len(), &mut budget)?
            {
                let compression = first.compression;
                let is_encrypted = cipher.is_some();
                let kind = Kind { ledger: Some(version), compression, is_encrypted };
                return Ok(Contents::of_ledger(kind, frames.read(&mut budget, true)?));
            }
        }
    }
    Err(unread)
}

/// Returns the kind of a file if it can be known without a key: a file that is not encrypted, or
/// one whose length is that of the frames of an encrypted ledger.
pub(super) fn kind_in_words(bytes: &[u8]) -> Option<String> {
    let mut budget = Budget::of(bytes.len());
    for version in [Version::Two, Version::One] {
        let frames = Frames { bytes, cipher: None, version };
        if let Ok(Some(first)) = frames.frame(0, bytes.len(), &mut budget) {
            let compression = first.compression;
            let kind = Kind { ledger: Some(version), compression, is_encrypted: false };
            return Some(kind.words());
        }
        if version == Version::Two
            && let Ok((compression, _)) = read_snapshot(bytes, &mut budget, true)
        {
            return Some(Kind { ledger: None, compression, is_encrypted: false }.words());
        }
    }
    let frames = Frames { bytes, cipher: None, version: Version::One };
    let is_chain = frames.fill_the_file();
    is_chain.then(|| "perhaps an encrypted ledger of the Go program CodexDB".to_owned())
}

/// Reads a ledger if its first frame is intact.
fn first_frame(
    frames: &Frames<'_>,
    budget: &mut Budget,
    salvage: bool,
) -> Result<Option<Contents>, Fault> {
    let Some(first) = frames.frame(0, frames.bytes.len(), budget)? else { return Ok(None) };
    let (ledger, is_encrypted) = (Some(frames.version), frames.cipher.is_some());
    let kind = Kind { ledger, compression: first.compression, is_encrypted };
    Ok(Some(Contents::of_ledger(kind, frames.read(budget, salvage)?)))
}

/// Reads a snapshot that was decrypted, or is not encrypted.
fn read_snapshot(
    bytes: &[u8],
    budget: &mut Budget,
    salvage: bool,
) -> Result<(Compression, Snapshot), Fault> {
    let Some((compression, text)) = unpack(bytes, budget)? else { return Err(Fault::Unreadable) };
    Ok((compression, snapshot::read(&text, salvage)?))
}

/// Returns whether the file can be read without a key.
fn is_plain(bytes: &[u8], budget: &mut Budget) -> bool {
    let first = |version| Frames { bytes, cipher: None, version }.frame(0, bytes.len(), budget);
    let is_ledger =
        [Version::Two, Version::One].map(first).iter().any(|f| matches!(f, Ok(Some(_))));
    is_ledger || read_snapshot(bytes, budget, true).is_ok()
}

impl Contents {
    fn of_ledger(kind: Kind, ledger: Ledger) -> Self {
        Self {
            kind,
            changes: ledger.changes,
            behind_damage: ledger.behind_damage,
            lost: ledger.lost,
            not_searched: ledger.not_searched,
            is_unverified: false,
            without_value: Vec::new(),
        }
    }

    fn of_snapshot(kind: Kind, snapshot: Snapshot) -> Self {
        Self {
            kind,
            changes: snapshot.changes,
            behind_damage: 0,
            lost: Vec::new(),
            not_searched: None,
            is_unverified: snapshot.is_unverified,
            without_value: snapshot.without_value,
        }
    }
}

//! The times when backups were last verified. They are stored in the lock file and may be lost.
//!
//! A receipt belongs to a file (its inode, length and time of change), not to a name. It stays
//! valid when names shift, and becomes invalid when the file is changed in place. The lock file is
//! rewritten in place and not synced. A torn lock file fails its checksum and is treated as empty,
//! so a time may be unknown but is never wrong.
//!
//! Layout, little-endian: `CDXBKRC1`, count u32, records of 65 bytes (inode u64, length u64, time
//! of change i64, verified at i64, depth u8, SHA-256 of the mark), CRC-32C of all bytes before it.

use codex_storage::names::Names;
use codex_storage::vfs::{Dir, Metadata, Open};
use sha2::{Digest, Sha256};

use crate::inspect::{Depth, Facts};

/// The time and depth of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The time, in microseconds since 1970 (UTC).
    pub at_us: i64,
    /// The depth.
    pub depth: Depth,
}

/// The receipts of the backups of one file.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    records: Vec<Record>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    file: Stamp,
    verified: Verified,
    mark: [u8; 32],
}

/// Distinguishes a file from other files, and from itself before a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    identity: u64,
    len: u64,
    modified_us: i64,
}

impl Receipts {
    /// Loads the receipts. Returns none if the lock file has none, or is damaged.
    pub(crate) fn load(dir: &dyn Dir, names: &Names) -> Self {
        Self::read(dir, &names.backup_lock()).unwrap_or_default()
    }

    /// Returns the last verification of this file, if known.
    pub(crate) fn of(&self, found: &Metadata) -> Option<Verified> {
        self.record(found).map(|record| record.verified)
    }

    /// Returns whether the file had other contents when it was last verified. If so, the file is
    /// damaged, because its length and time of change are the same.
    pub(crate) fn contradict(&self, found: &Metadata, facts: &Facts) -> bool {
        self.record(found).is_some_and(|record| record.mark != digest(facts))
    }

    /// Adds a receipt, which replaces an earlier one of the same file.
    pub(crate) fn add(&mut self, found: &Metadata, facts: &Facts, verified: Verified) {
        let file = Stamp::of(found);
        // Without an inode number the file cannot be distinguished from others.
        if file.identity == 0 {
            return;
        }
        self.records.retain(|record| record.file.identity != file.identity);
        self.records.push(Record { file, verified, mark: digest(facts) });
    }

    /// Writes the receipts of the files in `still`. Errors are ignored, because nothing depends on
    /// a receipt. A lock file with foreign contents is not changed. The caller holds the lock.
    pub(crate) fn save(mut self, dir: &dyn Dir, names: &Names, still: &[Metadata]) {
        self.records.retain(|record| still.iter().any(|found| Stamp::of(found) == record.file));
        let _ = self.write(dir, &names.backup_lock());
    }

    /// Returns the receipt of this file.
    fn record(&self, found: &Metadata) -> Option<&Record> {
        self.records.iter().find(|record| record.file == Stamp::of(found))
    }

    /// Reads the receipts. Returns `None` if the lock file cannot be read, is too long, or fails
    /// its checksum.
    fn read(dir: &dyn Dir, lock: &str) -> Option<Self> {
        let file = dir.open(lock, Open::Read).ok()?;
        let len = usize::try_from(file.len().ok()?).ok().filter(|&len| len <= LIMIT_BYTES)?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0).ok()?;
        // Order: the checksum is verified before any record is decoded.
        let (body, sum) = bytes.split_last_chunk::<4>().map(|(body, sum)| (body, *sum))?;
        let rest = body.strip_prefix(MAGIC)?;
        if crc32c::crc32c(body) != u32::from_le_bytes(sum) {
            return None;
        }
        let (count, mut rest) = rest.split_first_chunk::<4>()?;
        let mut records = Vec::new();
        for _ in 0..u32::from_le_bytes(*count) {
            let (record, tail) = Record::decode(rest)?;
            records.push(record);
            rest = tail;
        }
        rest.is_empty().then_some(Self { records })
    }

    /// Writes the receipts in place, without a sync. Does nothing if the lock file has foreign
    /// contents.
    fn write(&self, dir: &dyn Dir, lock: &str) -> std::io::Result<()> {
        let file = dir.open(lock, Open::Write)?;
        // The file may have been made by another program. Only an empty file, or one with the
        // magic, is overwritten.
        let mut start = [0; MAGIC.len()];
        if !file.is_empty()? && (file.read_exact_at(&mut start, 0).is_err() || start != *MAGIC) {
            return Ok(());
        }
        let mut bytes = MAGIC.to_vec();
        let count = u32::try_from(self.records.len()).unwrap_or(0);
        bytes.extend(count.to_le_bytes());
        self.records.iter().for_each(|record| record.encode(&mut bytes));
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        file.write_all_at(&bytes, 0)?;
        file.set_len(bytes.len() as u64)
    }
}

impl Stamp {
    fn of(found: &Metadata) -> Self {
        Self { identity: found.identity, len: found.len, modified_us: found.modified_us }
    }
}

impl Record {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.file.identity.to_le_bytes());
        out.extend(self.file.len.to_le_bytes());
        out.extend(self.file.modified_us.to_le_bytes());
        out.extend(self.verified.at_us.to_le_bytes());
        out.push(u8::from(self.verified.depth == Depth::Full));
        out.extend(self.mark);
    }

    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (identity, bytes) = bytes.split_first_chunk::<8>()?;
        let (len, bytes) = bytes.split_first_chunk::<8>()?;
        let (modified, bytes) = bytes.split_first_chunk::<8>()?;
        let (at, bytes) = bytes.split_first_chunk::<8>()?;
        let (depth, bytes) = bytes.split_first()?;
        let (mark, bytes) = bytes.split_first_chunk::<32>()?;
        let file = Stamp {
            identity: u64::from_le_bytes(*identity),
            len: u64::from_le_bytes(*len),
            modified_us: i64::from_le_bytes(*modified),
        };
        let depth = if *depth == 0 { Depth::Checksums } else { Depth::Full };
        let verified = Verified { at_us: i64::from_le_bytes(*at), depth };
        Some((Self { file, verified, mark: *mark }, bytes))
    }
}

fn digest(facts: &Facts) -> [u8; 32] {
    Sha256::digest(&facts.mark).into()
}

const MAGIC: &[u8; 8] = b"CDXBKRC1";

/// The maximum length of the lock file, which thousands of backups would not reach.
const LIMIT_BYTES: usize = 1024 * 1024;

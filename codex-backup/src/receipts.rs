//! When each backup was last verified, kept in the lock file: a convenience that may be lost.
//!
//! A receipt belongs to a file (its inode, length and time of change), not to a name, so it moves
//! along when names shift, and a file that was changed in place has none. The file is rewritten in
//! place and not synced: a torn one fails its checksum and counts as empty, and then the times are
//! unknown, never wrong.
//!
//! Layout, little-endian: `CDXBKRC1`, count u32, records of 65 bytes (inode u64, length u64, time
//! of change i64, verified at i64, depth u8, SHA-256 of the mark), CRC-32C of all before it.

use codex_storage::names::Names;
use codex_storage::vfs::{Dir, Metadata, Open};
use sha2::{Digest, Sha256};

use crate::inspect::{Depth, Facts};

/// That a backup was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// When, in microseconds since 1970 (UTC).
    pub at_us: i64,
    /// How deep.
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

/// What tells one file from another, and from itself after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    identity: u64,
    len: u64,
    modified_us: i64,
}

impl Receipts {
    /// Reads them; none where there are none, or none that can be trusted.
    pub(crate) fn load(dir: &dyn Dir, names: &Names) -> Self {
        Self::read(dir, &names.backup_lock()).unwrap_or_default()
    }

    /// When this very file was verified last.
    pub(crate) fn of(&self, found: &Metadata) -> Option<Verified> {
        self.record(found).map(|record| record.verified)
    }

    /// Whether the file had other contents when it was verified before: then it decayed.
    pub(crate) fn contradict(&self, found: &Metadata, facts: &Facts) -> bool {
        self.record(found).is_some_and(|record| record.mark != digest(facts))
    }

    pub(crate) fn add(&mut self, found: &Metadata, facts: &Facts, verified: Verified) {
        let file = Stamp::of(found);
        if file.identity == 0 {
            return; // Nothing would tell this file from another.
        }
        self.records.retain(|record| record.file.identity != file.identity);
        self.records.push(Record { file, verified, mark: digest(facts) });
    }

    /// Writes the receipts of the files that are still there. Nothing depends on it, so an error
    /// is no error; a lock file with foreign contents is left alone. Called under the lock.
    pub(crate) fn save(mut self, dir: &dyn Dir, names: &Names, still: &[Metadata]) {
        self.records.retain(|record| still.iter().any(|found| Stamp::of(found) == record.file));
        let _ = self.write(dir, &names.backup_lock());
    }

    fn record(&self, found: &Metadata) -> Option<&Record> {
        self.records.iter().find(|record| record.file == Stamp::of(found))
    }

    fn read(dir: &dyn Dir, lock: &str) -> Option<Self> {
        let file = dir.open(lock, Open::Read).ok()?;
        let len = usize::try_from(file.len().ok()?).ok().filter(|&len| len <= LIMIT_BYTES)?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0).ok()?;
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

    fn write(&self, dir: &dyn Dir, lock: &str) -> std::io::Result<()> {
        let file = dir.open(lock, Open::Write)?;
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

/// No file of receipts is larger: it would take thousands of backups.
const LIMIT_BYTES: usize = 1024 * 1024;

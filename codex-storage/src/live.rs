//! The live record: the last durable commit of the writer, for readers in other processes.
//!
//! A writer puts it into the lock file after each durable group. It is never synced and takes no
//! part in recovery. `docs/FORMAT.md`, section "Live record", has its bytes.

use std::sync::Arc;

use crate::batch::Seq;
use crate::codec::{Fields, put};
use crate::files::StoreFiles;
use crate::log::LogWriter;
use crate::names::Names;
use crate::vfs::{File, Open, Vfs};

/// The announcement that commits up to one of them are durable in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LiveRecord {
    /// The log that has the commits.
    pub(crate) log: LiveLog,
    /// The last durable commit.
    pub(crate) durable: Seq,
    /// The offset at which the frames of the log ended.
    pub(crate) offset: u64,
    /// The time of the announcement, in microseconds since 1970.
    pub(crate) at_us: i64,
}

/// A log, as the live record names it. A copy of a log has the file id of its original, but not its
/// identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LiveLog {
    pub(crate) file_id: [u8; 16],
    /// The identity of the file in its directory.
    pub(crate) identity: u64,
}

/// Writes the live record of an open store.
#[derive(Debug)]
pub(crate) struct Announcer {
    /// The lock file, or `None` if it cannot be written. Readers then learn that a commit is
    /// durable from the next frame.
    file: Option<Arc<dyn File>>,
    log: LiveLog,
    /// The place of the record of `log`. The record of the log before it stays in the other place,
    /// for a reader that has not reached the end of that log.
    slot: u64,
}

impl Announcer {
    /// Returns the announcer of a store that was opened for writing.
    pub(crate) fn new(files: &StoreFiles) -> Self {
        let open = || files.vfs.dir.open(&files.names.lock(), Open::Write).ok();
        let file = files.lock.as_ref().and_then(|_| open());
        Self { file, log: LiveLog::default(), slot: 0 }
    }

    /// Announces how far the commits of `log` are durable. An error is ignored: no commit depends
    /// on the record.
    pub(crate) fn announce(&mut self, log: &LogWriter) {
        let Some(file) = &self.file else { return };
        let file_id = log.log().file_id;
        if self.log.file_id != file_id {
            let Ok(identity) = log.identity() else { return };
            (self.log, self.slot) = (LiveLog { file_id, identity }, 1 - self.slot);
        }
        let durable = log.durable();
        let (offset, at_us) = (log.end().offset, log.now_us());
        let record = LiveRecord { log: self.log, durable, offset, at_us };
        let _ = file.write_all_at(&record.encode(), LIVE_AT + self.slot * LIVE_LEN_U64);
    }

    /// Looks at the file of the log again before the next announcement, because another file with
    /// the same id has taken its name.
    pub(crate) fn forget(&mut self) {
        self.log = LiveLog::default();
    }
}

/// Reads the records in the lock file. A record that is torn or missing is left out.
pub(crate) fn read_live(vfs: &Vfs, names: &Names) -> Vec<LiveRecord> {
    let Ok(file) = vfs.dir.open(&names.lock(), Open::Read) else { return Vec::new() };
    let read = |slot: u64| {
        let mut bytes = [0; LIVE_LEN];
        // A record that is being written is read again.
        (0..READS_MAX).find_map(|_| {
            file.read_exact_at(&mut bytes, LIVE_AT + slot * LIVE_LEN_U64).ok()?;
            LiveRecord::decode(&bytes)
        })
    };
    (0..2).filter_map(read).collect()
}

impl LiveRecord {
    fn encode(&self) -> [u8; LIVE_LEN] {
        let mut bytes = [0; LIVE_LEN];
        put(&mut bytes, 0, MAGIC);
        put(&mut bytes, 8, self.log.file_id);
        put(&mut bytes, 24, self.log.identity.to_le_bytes());
        put(&mut bytes, 32, self.durable.to_le_bytes());
        put(&mut bytes, 40, self.offset.to_le_bytes());
        put(&mut bytes, 48, self.at_us.to_le_bytes());
        let crc = checksum(&bytes);
        put(&mut bytes, CRC_AT, crc.to_le_bytes());
        bytes
    }

    /// Returns the record, or `None` if the bytes are none.
    fn decode(bytes: &[u8; LIVE_LEN]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let (magic, zero) = (fields.array::<4>(), fields.u32());
        let log = LiveLog { file_id: fields.array(), identity: fields.u64() };
        let (durable, offset, at_us) = (fields.u64(), fields.u64(), fields.i64());
        let is_known = magic == MAGIC && (zero, fields.u32()) == (0, 0);
        let is_whole = fields.u32() == checksum(bytes);
        (is_known && is_whole).then_some(Self { log, durable, offset, at_us })
    }
}

/// Returns the checksum of the bytes before it.
fn checksum(bytes: &[u8; LIVE_LEN]) -> u32 {
    crc32c::crc32c(&bytes[..CRC_AT])
}

const MAGIC: [u8; 4] = *b"CDXL";
/// The offset of the first record in the lock file, after the note and the signature.
const LIVE_AT: u64 = 64;
/// The length of a record, in bytes.
const LIVE_LEN: usize = 64;
const LIVE_LEN_U64: u64 = 64;
const CRC_AT: usize = LIVE_LEN - 4;
/// The number of attempts to read a record whole.
const READS_MAX: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_no_other_bytes_are() {
        let log = LiveLog { file_id: [7; 16], identity: 9 };
        let record = LiveRecord { log, durable: 1 << 40, offset: 1 << 50, at_us: -3 };
        let bytes = record.encode();
        assert_eq!(LiveRecord::decode(&bytes), Some(record));
        assert_eq!(LiveRecord::decode(&[0; LIVE_LEN]), None);
        for bit in 0..8 * LIVE_LEN {
            let mut other = bytes;
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(LiveRecord::decode(&other), None, "bit {bit}");
        }
    }
}

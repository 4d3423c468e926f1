//! The names and the bytes of the pieces of logs. Their layout stands in `docs/FORMAT.md`.

use super::fault::Fault;
use crate::text::{hex, unhex};

/// The name of a log at a place. All pieces of one log have it in their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogId {
    /// The last commit before the log. Of a ledger, the last commit of the image that the pieces
    /// continue.
    pub base_seq: u64,
    /// The file id of the log.
    pub file_id: [u8; 16],
    /// The file id of the log before it, or zeros for the first one behind an image that was whole
    /// by itself. Of a ledger, a number that is drawn with each image, such as
    /// [`ArchiveWriter::id`](super::ArchiveWriter::id): a ledger that was restored keeps its file
    /// id, and its pieces must not meet those of the history that was given up.
    pub follows: [u8; 16],
}

/// The log that continues an image, and the offset at which it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogStart {
    /// The log.
    pub log: LogId,
    /// The offset of the first piece: 0, but in a ledger the end of the last commit of the image.
    pub from: u64,
}

impl LogId {
    /// Returns the log with this name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('-');
        let base_seq = parts.next()?.parse().ok()?;
        let mut id = || unhex(parts.next()?)?.try_into().ok();
        let log = Self { base_seq, file_id: id()?, follows: id()? };
        (log.name() == name).then_some(log)
    }

    /// Returns the name of the log, as a part of the names of its pieces.
    pub(super) fn name(&self) -> String {
        format!("{:020}-{}-{}", self.base_seq, hex(&self.file_id), hex(&self.follows))
    }

    /// Returns the name of the piece that begins at the offset `from`.
    pub(super) fn piece(&self, from: u64) -> String {
        format!("{}{from:020}", self.pieces())
    }

    /// Returns the beginning of the names of the pieces.
    pub(super) fn pieces(&self) -> String {
        format!("{LOGS}{}/", self.name())
    }

    /// Returns the log and the offset of the piece with this name.
    pub(super) fn of_piece(name: &str) -> Option<(Self, u64)> {
        let (log, from) = name.strip_prefix(LOGS)?.split_once('/')?;
        let (log, from) = (Self::parse(log)?, from.parse().ok()?);
        (log.piece(from) == name && from <= FROM_MAX).then_some((log, from))
    }
}

/// The header of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) from: u64,
    /// The number of bytes after the header.
    pub(super) len: u64,
    pub(super) seq: u64,
    pub(super) time_us: i64,
    crc: u32,
}

impl Head {
    /// Returns the object with `bytes`, which stand at the offset `from` of the log `file_id`.
    pub(super) fn encode(
        file_id: [u8; 16],
        from: u64,
        bytes: &[u8],
        seq: u64,
        time_us: i64,
    ) -> Vec<u8> {
        let mut object = Vec::with_capacity(HEAD_BYTES + bytes.len());
        object.extend(MAGIC);
        object.extend(VERSION.to_le_bytes());
        object.extend([0; 2]);
        object.extend(from.to_le_bytes());
        object.extend((bytes.len() as u64).to_le_bytes());
        object.extend(seq.to_le_bytes());
        object.extend(time_us.to_le_bytes());
        object.extend([0; 16]);
        object.extend(crc32c::crc32c(bytes).to_le_bytes());
        object.extend(crc_of(file_id, &object).to_le_bytes());
        object.extend(bytes);
        object
    }

    /// Decodes the header of the piece of the log `file_id` at the offset `from`.
    pub(super) fn decode(file_id: [u8; 16], from: u64, head: &[u8]) -> Result<Self, Fault> {
        let mut rest = head;
        let is_ours = take(&mut rest) == Some(MAGIC);
        let version = take(&mut rest).map(u16::from_le_bytes);
        if is_ours && version.is_some_and(|version| version > VERSION) {
            return Err(Fault::NewerFormat);
        }
        let zero: Option<[u8; 2]> = take(&mut rest);
        let mut number = || take(&mut rest).map(u64::from_le_bytes);
        let fields = (number(), number(), number(), take(&mut rest).map(i64::from_le_bytes));
        let zeros: Option<[u8; 16]> = take(&mut rest);
        let mut sum = || take(&mut rest).map(u32::from_le_bytes);
        let ((Some(at), Some(len), Some(seq), Some(time_us)), Some(crc), Some(own)) =
            (fields, sum(), sum())
        else {
            return Err(Fault::Altered);
        };
        let summed = head.get(..HEAD_BYTES - 4).map(|summed| crc_of(file_id, summed));
        let is_whole = is_ours
            && version == Some(VERSION)
            && summed == Some(own)
            && (zero, zeros) == (Some([0; 2]), Some([0; 16]))
            && (1..=PIECE_BYTES as u64).contains(&len)
            && at == from;
        let head = Self { from, len, seq, time_us, crc };
        if is_whole { Ok(head) } else { Err(Fault::Altered) }
    }

    /// Decodes a whole piece. Returns its header and its bytes.
    pub(super) fn open(
        file_id: [u8; 16],
        from: u64,
        object: &[u8],
    ) -> Result<(Self, &[u8]), Fault> {
        let (head, bytes) = object.split_at_checked(HEAD_BYTES).unwrap_or((object, &[]));
        let head = Self::decode(file_id, from, head)?;
        if bytes.len() as u64 != head.len {
            let found = object.len() as u64;
            return Err(Fault::Truncated { expected: head.object_len(), found });
        }
        if crc32c::crc32c(bytes) == head.crc { Ok((head, bytes)) } else { Err(Fault::Altered) }
    }

    /// Returns the length of the object.
    pub(super) fn object_len(&self) -> u64 {
        HEAD_BYTES as u64 + self.len
    }
}

/// Returns the checksum of a header. The file id binds it to the log.
fn crc_of(file_id: [u8; 16], head: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&file_id), head)
}

/// Takes the next `N` bytes.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

/// The beginning of the names of pieces.
pub(super) const LOGS: &str = "log/";
/// The length of the header of a piece.
pub(super) const HEAD_BYTES: usize = 64;
/// The maximum number of bytes of the log in one piece.
pub(super) const PIECE_BYTES: usize = 4 << 20;
/// The maximum offset in a log.
const FROM_MAX: u64 = 1 << 62;
const MAGIC: [u8; 4] = *b"CDXP";
const VERSION: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId { base_seq: 7, file_id: [0xab; 16], follows: [1; 16] };

    #[test]
    fn a_piece_has_the_bytes_of_the_format() {
        let object = Head::encode(LOG.file_id, 0x1234, b"frames", 9, -2);
        let text = hex(&object);
        let (head, bytes) = text.split_at(112);
        assert_eq!(
            head,
            "4344585001000000341200000000000006000000000000000900000000000000feffffffffffffff\
             00000000000000000000000000000000"
        );
        assert_eq!(&bytes[16..], hex(b"frames"));
        assert_eq!(&bytes[..16], "c62e0f5d2ac38ca6");
        let (head, bytes) = Head::open(LOG.file_id, 0x1234, &object).unwrap();
        assert_eq!((head.seq, head.time_us, bytes), (9, -2, &b"frames"[..]));
    }

    #[test]
    fn a_piece_that_is_cut_flipped_or_moved_is_not_believed() {
        let object = Head::encode(LOG.file_id, 5, b"frames", 9, 3);
        let bad = |file_id, from, object: &[u8]| Head::open(file_id, from, object).unwrap_err();
        for len in 0..object.len() {
            match bad(LOG.file_id, 5, &object[..len]) {
                Fault::Truncated { expected: 70, found } => assert_eq!(found, len as u64),
                fault => assert!(len < HEAD_BYTES && matches!(fault, Fault::Altered), "{len}"),
            }
        }
        for bit in 0..object.len() * 8 {
            let mut flipped = object.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let fault = bad(LOG.file_id, 5, &flipped);
            let is_version = (32..48).contains(&bit) && matches!(fault, Fault::NewerFormat);
            assert!(is_version || matches!(fault, Fault::Altered), "{bit} {fault}");
        }
        assert!(matches!(bad(LOG.file_id, 6, &object), Fault::Altered));
        assert!(matches!(bad([0; 16], 5, &object), Fault::Altered));
        let long = [object.as_slice(), b"!"].concat();
        assert!(matches!(bad(LOG.file_id, 5, &long), Fault::Truncated { expected: 70, found: 71 }));
    }

    #[test]
    fn only_the_names_of_pieces_are_taken() {
        let name = LOG.piece(70);
        assert_eq!(
            name,
            "log/00000000000000000007-abababababababababababababababab-\
             01010101010101010101010101010101/00000000000000000070"
        );
        assert_eq!(LogId::of_piece(&name), Some((LOG, 70)));
        for other in [
            name.replace("log/", "image/"),
            name.replace("00070", "70"),
            name.replace("abab", "ABAB"),
            name.replace("-01", "-1"),
            format!("{name}0"),
            name.replace("00007-", "7-"),
        ] {
            assert_eq!(LogId::of_piece(&other), None, "{other}");
        }
    }
}

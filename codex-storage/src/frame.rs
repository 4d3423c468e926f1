//! The frame: one commit group in a log, bound to its file, its generation and its offset.
//!
//! The layout is in `docs/FORMAT.md`, section "Frames".

// The numbers in this module come from files.
#![warn(clippy::arithmetic_side_effects)]

use crate::batch::Seq;
use crate::codec::{Fields, is_zero, put, u64_of, usize_of};
use crate::header::NUMBER_MAX;
use crate::seal::TAG_LEN;

/// The identity of the log to which a frame belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogId {
    pub(crate) file_id: [u8; 16],
    pub(crate) generation: u64,
}

impl LogId {
    /// Returns the purpose for which the key of an epoch of this log is derived.
    pub(crate) fn info(&self) -> Vec<u8> {
        [b"codexdb frame 1".as_slice(), &self.file_id, &self.generation.to_le_bytes()].concat()
    }

    /// Returns the bytes that identify a place in this log. Every frame at `offset` is bound to
    /// them, but does not store them.
    fn binding(&self, offset: u64) -> [u8; 32] {
        let mut out = [0; 32];
        put(&mut out, 0, self.file_id);
        put(&mut out, 16, self.generation.to_le_bytes());
        put(&mut out, 24, offset.to_le_bytes());
        out
    }
}

/// The fields of a frame header, except its two checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) seq: Seq,
    pub(crate) durable: Seq,
    pub(crate) epoch: [u8; 8],
    pub(crate) counter: u64,
    pub(crate) previous: u64,
    pub(crate) batches: u32,
    pub(crate) payload_len: u32,
}

impl FrameHeader {
    /// Returns the bytes of the header before its checksums. They are authenticated with the
    /// payload.
    pub(crate) fn prefix(&self) -> [u8; PREFIX_LEN] {
        let mut out = [0; PREFIX_LEN];
        put(&mut out, 0, MAGIC);
        put(&mut out, 4, [self.kind, self.flags, 0, 0]);
        put(&mut out, 8, self.seq.to_le_bytes());
        put(&mut out, 16, self.durable.to_le_bytes());
        put(&mut out, 24, self.epoch);
        put(&mut out, 32, self.counter.to_le_bytes());
        put(&mut out, 40, self.previous.to_le_bytes());
        put(&mut out, 48, self.batches.to_le_bytes());
        put(&mut out, 52, self.payload_len.to_le_bytes());
        out
    }

    /// Returns the complete header of a frame at `offset`, and the chain value of the frame.
    pub(crate) fn encode(
        &self,
        log: &LogId,
        offset: u64,
        payload_crc: u32,
    ) -> ([u8; FRAME_HEAD], u64) {
        let mut out = [0; FRAME_HEAD];
        put(&mut out, 0, self.prefix());
        put(&mut out, PREFIX_LEN, payload_crc.to_le_bytes());
        // Order: the checksum of the payload is part of the bytes that the checksum of the header
        // covers.
        let crc = header_crc(log, offset, &out[..HEADER_CRC_OFFSET]);
        put(&mut out, HEADER_CRC_OFFSET, crc.to_le_bytes());
        (out, chain(crc, payload_crc))
    }

    /// Returns the bytes that are authenticated with the payload of a sealed frame at `offset`: its
    /// place, its header, and the tag of the sealed frame before it.
    pub(crate) fn aad(&self, log: &LogId, offset: u64, previous_tag: &[u8; TAG_LEN]) -> Vec<u8> {
        [log.binding(offset).as_slice(), &self.prefix(), previous_tag].concat()
    }

    /// Returns whether this build knows the kind and the flags, and all numbers are in range.
    pub(crate) fn is_known(&self) -> bool {
        // A resume or a close has the number of the next commit, which may be one larger.
        let numbers = [self.seq.saturating_sub(1), self.durable, self.counter];
        matches!(self.kind, GROUP | RESUME | CLOSE)
            && self.flags & !(LAZY | SALTED) == 0
            && numbers.iter().all(|&number| number <= NUMBER_MAX)
            && self.last_seq().is_none_or(|last| last <= NUMBER_MAX)
    }

    /// Returns whether the frame was written without its own sync.
    pub(crate) fn is_lazy(&self) -> bool {
        self.flags & LAZY != 0
    }

    /// Returns whether the payload begins with the salt of a new epoch.
    pub(crate) fn is_salted(&self) -> bool {
        self.flags & SALTED != 0
    }

    /// Returns the length of header, payload and end byte, without the padding.
    pub(crate) fn len(&self) -> u64 {
        u64_of(FRAME_HEAD).saturating_add(u64::from(self.payload_len)).saturating_add(1)
    }

    /// Returns the last commit of the frame; for a resume or a close, the commit before it. Returns
    /// `None` if the numbers contradict each other.
    pub(crate) fn last_seq(&self) -> Option<Seq> {
        let batches = u64::from(self.batches);
        if (self.kind == GROUP) == (batches == 0) {
            return None;
        }
        self.seq.checked_add(batches)?.checked_sub(1)
    }
}

/// A frame header whose checksum matches its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) header: FrameHeader,
    pub(crate) payload_crc: u32,
    pub(crate) chain: u64,
}

impl Parsed {
    /// Parses the header of the frame at `offset`. Returns `None` if no header was written for this
    /// place.
    pub(crate) fn parse(bytes: &[u8], log: &LogId, offset: u64) -> Option<Self> {
        if !bytes.starts_with(&MAGIC) {
            return None;
        }
        let (bytes, crc) = bytes.get(..FRAME_HEAD)?.split_last_chunk::<4>()?;
        let crc = u32::from_le_bytes(*crc);
        if header_crc(log, offset, bytes) != crc {
            return None;
        }
        let mut fields = Fields::new(bytes);
        let _magic = fields.u32();
        let (kind, mut flags, zero) = (fields.u8(), fields.u8(), fields.u16());
        if zero != 0 {
            // A value that no build has written is treated like an unknown flag.
            flags = u8::MAX;
        }
        let header = FrameHeader {
            kind,
            flags,
            seq: fields.u64(),
            durable: fields.u64(),
            epoch: fields.array(),
            counter: fields.u64(),
            previous: fields.u64(),
            batches: fields.u32(),
            payload_len: fields.u32(),
        };
        let payload_crc = fields.u32();
        Some(Self { header, payload_crc, chain: chain(crc, payload_crc) })
    }

    /// Returns whether the bytes after the header are as written. `body` is the payload, the end
    /// byte and the padding.
    pub(crate) fn is_intact(&self, body: &[u8]) -> bool {
        let Ok(payload_len) = usize::try_from(self.header.payload_len) else { return false };
        let Some((payload, end)) = body.split_at_checked(payload_len) else { return false };
        let Some((end, padding)) = end.split_first() else { return false };
        *end == END && is_zero(padding) && crc32c::crc32c(payload) == self.payload_crc
    }
}

/// Completes the payload in `buf` with its end byte and padding, puts the header before it at
/// `start`, and returns the chain value.
///
/// # Panics
/// If the length of the payload is not the one in the header. Nothing is written in this case.
#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "the buffer is that of the writer: `start` leaves the room of a frame header"
)]
pub(crate) fn finish(
    header: &FrameHeader,
    log: &LogId,
    offset: u64,
    buf: &mut Vec<u8>,
    start: usize,
) -> u64 {
    let payload = &buf[start + FRAME_HEAD..];
    let told = u64::from(header.payload_len);
    assert_eq!(u64_of(payload.len()), told, "the header of a frame has the length of its payload");
    let payload_crc = crc32c::crc32c(payload);
    buf.push(END);
    buf.resize(start + usize_of(padded(header.len())), 0);
    let (bytes, chain) = header.encode(log, offset, payload_crc);
    put(buf, start, bytes);
    chain
}

/// Returns `len` rounded up to the offset at which the next frame can begin.
pub(crate) fn padded(len: u64) -> u64 {
    len.saturating_add(ALIGN - 1) & !(ALIGN - 1)
}

/// Returns the checksum of a header, which also covers its place.
fn header_crc(log: &LogId, offset: u64, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&log.binding(offset)), bytes)
}

/// Returns the chain value: both checksums of a frame.
fn chain(header_crc: u32, payload_crc: u32) -> u64 {
    u64::from(header_crc) << 32 | u64::from(payload_crc)
}

/// "CDXF".
pub(crate) const MAGIC: [u8; 4] = *b"CDXF";
/// A commit group.
pub(crate) const GROUP: u8 = 1;
/// A resume: reading continues here after a tail that recovery left out.
pub(crate) const RESUME: u8 = 2;
/// The mark of a clean close.
pub(crate) const CLOSE: u8 = 3;
/// The flag of a frame that was written without its own sync.
pub(crate) const LAZY: u8 = 1;
/// The flag of a frame whose payload begins with the salt of the epoch.
pub(crate) const SALTED: u8 = 2;
/// The last byte of a frame.
pub(crate) const END: u8 = 0xA5;
/// The alignment of frames, in bytes.
pub(crate) const ALIGN: u64 = 64;
/// The length of a frame header, in bytes.
pub(crate) const FRAME_HEAD: usize = 64;
/// The length of the header before its checksums, in bytes.
pub(crate) const PREFIX_LEN: usize = 56;
/// The offset of the checksum of a frame header.
const HEADER_CRC_OFFSET: usize = 60;
/// The unit of which a disk writes all or a prefix, in bytes.
pub(crate) const SECTOR: u64 = 512;
/// The length of the salt of an epoch, in bytes.
pub(crate) const SALT_LEN: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId { file_id: [7; 16], generation: 3 };

    fn header() -> FrameHeader {
        FrameHeader {
            kind: GROUP,
            flags: LAZY | SALTED,
            seq: 0x0102,
            durable: 0x0101,
            epoch: *b"EPOCHEPO",
            counter: 5,
            previous: 0x1122_3344_5566_7788,
            batches: 2,
            payload_len: 9,
        }
    }

    #[test]
    fn a_frame_header_comes_back_and_its_fields_stand_where_the_format_says() {
        let (bytes, chain) = header().encode(&LOG, 8192, 0xAABB_CCDD);
        let parsed = Parsed::parse(&bytes, &LOG, 8192).unwrap();
        assert_eq!(parsed, Parsed { header: header(), payload_crc: 0xAABB_CCDD, chain });
        assert_eq!(bytes[..10], [0x43, 0x44, 0x58, 0x46, 1, 3, 0, 0, 2, 1]);
        assert_eq!(bytes[16..18], [1, 1]);
        assert_eq!(&bytes[24..32], b"EPOCHEPO");
        assert_eq!(bytes[32], 5);
        assert_eq!(bytes[40..48], 0x1122_3344_5566_7788_u64.to_le_bytes());
        assert_eq!((bytes[48], bytes[52]), (2, 9));
        assert_eq!(bytes[56..60], 0xAABB_CCDD_u32.to_le_bytes());
        let stored = u32::from_le_bytes(*bytes.last_chunk().unwrap());
        assert_eq!(chain, u64::from(stored) << 32 | 0xAABB_CCDD);
        assert_eq!(header().last_seq(), Some(0x0103));
    }

    #[test]
    fn a_frame_header_parses_nowhere_else_and_with_no_bit_flipped() {
        let (bytes, _) = header().encode(&LOG, 8192, 1);
        assert_eq!(Parsed::parse(&bytes, &LOG, 8256), None, "offset_is_bound");
        assert_eq!(Parsed::parse(&bytes, &LogId { generation: 4, ..LOG }, 8192), None);
        assert_eq!(Parsed::parse(&bytes, &LogId { file_id: [8; 16], ..LOG }, 8192), None);
        for bit in 0..FRAME_HEAD * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Parsed::parse(&flipped, &LOG, 8192), None, "bit {bit}");
        }
        for len in 0..FRAME_HEAD {
            assert_eq!(Parsed::parse(&bytes[..len], &LOG, 8192), None);
        }
    }

    #[test]
    fn a_body_is_intact_only_with_its_end_byte_and_zero_padding() {
        let payload = b"payload!!";
        let (bytes, _) = header().encode(&LOG, 0, crc32c::crc32c(payload));
        let parsed = Parsed::parse(&bytes, &LOG, 0).unwrap();
        let mut body = payload.to_vec();
        body.push(END);
        body.resize(64, 0);
        assert!(parsed.is_intact(&body));
        for at in 0..body.len() {
            let mut changed = body.clone();
            changed[at] ^= 0x40;
            assert!(!parsed.is_intact(&changed), "byte {at}");
        }
        assert!(!parsed.is_intact(&body[..9]));
        assert!(!parsed.is_intact(&[]));
    }

    #[test]
    fn unknown_kinds_and_flags_are_seen() {
        for (kind, flags, known) in [(1, 0, true), (3, 2, true), (0, 0, false), (4, 0, false)] {
            assert_eq!(FrameHeader { kind, flags, ..header() }.is_known(), known);
        }
        assert!(!FrameHeader { flags: 4, ..header() }.is_known());
        assert_eq!(FrameHeader { batches: 0, ..header() }.last_seq(), None);
        assert_eq!(FrameHeader { seq: u64::MAX, ..header() }.last_seq(), None);
        assert_eq!(FrameHeader { kind: CLOSE, batches: 0, ..header() }.last_seq(), Some(0x0101));
    }
}

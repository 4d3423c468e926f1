//! Compression of the records of a group or a block, before they are sealed.
//!
//! The layout is in `docs/FORMAT.md`, section "Compression".

// The lengths in this module come from files.
#![warn(clippy::arithmetic_side_effects)]

use std::fmt;

use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size,
};

use crate::batch::{BATCH_LEN_MAX, GROUP_LEN_TARGET};
use crate::codec::u64_of;

/// The compression of the records in the files of a store.
///
/// Each file records its own compression, and the library reads every one, whichever is set: a
/// store can be opened with another one at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Compression {
    /// No compression. The default.
    #[default]
    None,
    /// LZ4 in its block format, for each commit group and for each 64 KiB of an image. Records
    /// that do not become shorter are stored as they are.
    Lz4,
}

impl Compression {
    /// Returns the number in the header of a file.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
        }
    }

    /// Returns the compression with the number `number`, or `None` if this build does not know it.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Self::None, Self::Lz4].into_iter().find(|known| known.number() == number)
    }
}

/// Compresses the payloads of one file.
#[derive(Default)]
pub(crate) struct Packer {
    compression: Compression,
    /// Made at the first use.
    table: Option<CompressTable>,
    packed: Vec<u8>,
}

impl Packer {
    pub(crate) fn new(compression: Compression) -> Self {
        Self { compression, ..Self::default() }
    }

    /// Returns the buffer whose bytes from `start` on are the payload as it is sealed or written:
    /// `raw` itself if the file has no compression, and otherwise a buffer with the same bytes
    /// before `start`.
    pub(crate) fn pack<'a>(&'a mut self, raw: &'a mut Vec<u8>, start: usize) -> &'a mut Vec<u8> {
        if self.compression == Compression::None {
            return raw;
        }
        let (head, payload) = raw.split_at(start);
        let raw_len = u32::try_from(payload.len()).expect("a payload fits the 32 bits of a length");
        let packed = &mut self.packed;
        packed.clear();
        packed.shrink_to(2 * GROUP_LEN_TARGET);
        packed.extend_from_slice(head);
        packed.extend_from_slice(&raw_len.to_le_bytes());
        let body = packed.len();
        if payload.len() >= PACKED_FROM {
            packed.resize(body.saturating_add(get_maximum_output_size(payload.len())), 0);
            let room = packed.get_mut(body..).unwrap_or_default();
            let len = compress_into_with_table(payload, room, self.table.get_or_insert_default());
            // It cannot fail, because the room is the largest length of the output.
            packed.truncate(body.saturating_add(len.unwrap_or(payload.len())));
        }
        let is_shorter = packed.len() > body
            && packed.len().saturating_sub(body).saturating_add(SAVED_MIN) <= payload.len();
        if !is_shorter {
            packed.truncate(body);
            packed.extend_from_slice(payload);
        }
        packed
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("compression", &self.compression).finish_non_exhaustive()
    }
}

/// Replaces the opened payload of a group or a block by its records.
///
/// # Errors
/// An error text if the bytes are not as [`Packer::pack`] writes them. At most 255 times the length
/// of `payload` is allocated, whatever length it names.
pub(crate) fn unpack(compression: Compression, payload: &mut Vec<u8>) -> Result<(), &'static str> {
    if compression == Compression::None {
        return Ok(());
    }
    let Some((raw_len, body)) = payload.split_first_chunk::<4>() else {
        return Err("a compressed part is too short for its length");
    };
    let raw_len = u64::from(u32::from_le_bytes(*raw_len));
    let packed_len = u64_of(body.len());
    if raw_len == packed_len {
        payload.drain(..4);
        return Ok(());
    }
    // LZ4 makes at most 255 bytes of one. The limit comes before the allocation.
    let limit = packed_len.saturating_mul(255).min(RAW_LEN_MAX);
    let raw_len =
        usize::try_from(raw_len).ok().filter(|_| packed_len < raw_len && raw_len <= limit);
    let raw_len = raw_len.ok_or("a compressed part names an impossible length")?;
    let mut raw = vec![0; raw_len];
    match decompress_into(body, &mut raw) {
        Ok(len) if len == raw_len => {
            *payload = raw;
            Ok(())
        }
        _ => Err("a compressed part does not become the length that it names"),
    }
}

/// The length, in bytes, from which a payload is compressed: a shorter one rarely becomes shorter.
const PACKED_FROM: usize = 256;
/// The number of bytes that a compression must save: the alignment of frames.
const SAVED_MIN: usize = 64;
/// The largest length of a payload: a group that is almost full when a batch of the largest length
/// is added.
const RAW_LEN_MAX: u64 = (BATCH_LEN_MAX + 2 * GROUP_LEN_TARGET) as u64;

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "the numbers of a test")]
    use proptest::prelude::*;

    use super::*;

    const WORDS: [&str; 5] = ["user:", "0", "1", "\0", "e-mail"];

    fn packed(raw: &[u8]) -> Vec<u8> {
        let mut buf = b"head".to_vec();
        buf.extend_from_slice(raw);
        Packer::new(Compression::Lz4).pack(&mut buf, 4)[4..].to_vec()
    }

    fn unpacked(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut bytes = bytes.to_vec();
        unpack(Compression::Lz4, &mut bytes).map(|()| bytes)
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(
            words in prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..2000),
            noise in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            for raw in [words.concat().into_bytes(), noise] {
                let packed = packed(&raw);
                prop_assert!(packed.len() <= raw.len() + 4);
                prop_assert_eq!(unpacked(&packed), Ok(raw));
            }
        }

        #[test]
        fn any_bytes_are_unpacked_or_refused_in_bounded_memory(bytes: Vec<u8>) {
            if let Ok(raw) = unpacked(&bytes) {
                prop_assert!(raw.len() <= 255 * bytes.len());
            }
        }
    }

    #[test]
    fn a_payload_is_compressed_from_256_bytes_on_if_it_saves_64() {
        let stored = |raw: &[u8]| packed(raw).len() == raw.len() + 4;
        assert!(stored(&[7; 255]) && !stored(&[7; 256]));
        // Random bytes, then zeros: the zeros save a little less or a little more than 64 bytes.
        let mut raw = vec![0; 1000];
        let mut state = 1_u32;
        raw[..900].fill_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        assert!(stored(&raw[..960]) && !stored(&raw));
    }

    #[test]
    fn a_length_that_was_not_written_is_refused_before_memory_is_taken() {
        let whole = packed(&[7; 1000]);
        for named in [0, 1, 999, 1001, 255 * 1000, u32::MAX] {
            let mut forged = whole.clone();
            forged[..4].copy_from_slice(&u32::to_le_bytes(named));
            assert!(unpacked(&forged).is_err(), "{named}");
        }
        assert_eq!(unpacked(&[1, 0, 0]), Err("a compressed part is too short for its length"));
        let far = [u32::MAX.to_le_bytes().as_slice(), &[0; 64]].concat();
        assert_eq!(unpacked(&far), Err("a compressed part names an impossible length"));
    }

    #[test]
    fn without_compression_a_payload_stays_as_it_is() {
        let mut raw = vec![7; 1000];
        assert_eq!(Packer::default().pack(&mut raw, 0).len(), 1000);
        unpack(Compression::None, &mut raw).unwrap();
        assert_eq!(raw, [7; 1000]);
    }
}

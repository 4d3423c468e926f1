//! The bytes of an image after its header: the heads of blocks and sections, and the footer.
//!
//! The layout is in `docs/FORMAT.md`, section "Images".

use crc32c::{crc32c, crc32c_append};

use crate::batch::Item;
use crate::codec::{Fields, put, u64_of};
use crate::header::{HEADER_LEN, NUMBER_MAX};
use crate::seal::TAG_LEN;

/// The offset of the first block, directly after the header.
pub(crate) const BLOCKS_START: u64 = 512;
/// The length of a block header in bytes.
pub(crate) const BLOCK_HEAD_LEN: usize = 32;
/// The length of the footer in bytes.
pub(crate) const FOOTER_LEN: usize = 96;
/// The length of the footer and the second header, which are at the end of the file, in bytes.
pub(crate) const TAIL_LEN: usize = FOOTER_LEN + HEADER_LEN;
/// The kind of the section with the earlier positions of the history.
pub(crate) const SECTION_HISTORY: u32 = 1;
/// The length of its records, in bytes, at which a block is complete.
pub(crate) const BLOCK_LEN_TARGET: usize = 64 << 10;
/// The number of bytes of a block header that are authenticated with its payload.
pub(crate) const BLOCK_AAD_LEN: usize = 24;

/// A part of an image between its header and its footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Entries in key order.
    Block,
    /// A list or a table of the kind in its header.
    Section,
}

impl Part {
    fn magic(self) -> [u8; 4] {
        match self {
            Self::Block => *b"CDXB",
            Self::Section => *b"CDXS",
        }
    }
}

/// The header of a block or a section, before its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockHead {
    pub(crate) part: Part,
    /// The index of a block, from 0 without gaps, or the kind of a section.
    pub(crate) index: u32,
    pub(crate) records: u32,
    /// The length on disk, including the tag of a sealed block.
    pub(crate) payload_len: u32,
    /// The nonce of a sealed block; 0 in a plain image.
    pub(crate) counter: u64,
    /// The checksum of the payload as it is on disk.
    pub(crate) payload_crc: u32,
}

impl BlockHead {
    pub(crate) fn encode(&self, file_id: &[u8; 16]) -> [u8; BLOCK_HEAD_LEN] {
        let mut to = [0; BLOCK_HEAD_LEN];
        put(&mut to, 0, self.part.magic());
        put(&mut to, 4, self.index.to_le_bytes());
        put(&mut to, 8, self.records.to_le_bytes());
        put(&mut to, 12, self.payload_len.to_le_bytes());
        put(&mut to, 16, self.counter.to_le_bytes());
        put(&mut to, 24, self.payload_crc.to_le_bytes());
        let crc = crc_under(file_id, &to[..28]);
        put(&mut to, 28, crc.to_le_bytes());
        to
    }

    /// Decodes a block header. Returns an error text if the bytes are not as written.
    pub(crate) fn decode(
        bytes: &[u8; BLOCK_HEAD_LEN],
        file_id: &[u8; 16],
    ) -> Result<Self, &'static str> {
        let mut fields = Fields::new(bytes);
        let magic = fields.array();
        let part = [Part::Block, Part::Section].into_iter().find(|part| part.magic() == magic);
        let part = part.ok_or("there is no block or section at this offset")?;
        let head = Self {
            part,
            index: fields.u32(),
            records: fields.u32(),
            payload_len: fields.u32(),
            counter: fields.u64(),
            payload_crc: fields.u32(),
        };
        if fields.u32() != crc_under(file_id, &bytes[..28]) {
            return Err("the checksum of a block header does not match");
        }
        if head.counter > NUMBER_MAX {
            return Err("the counter of a block is larger than the format allows");
        }
        Ok(head)
    }

    /// Returns the bytes that are authenticated with the payload of a sealed block.
    pub(crate) fn aad(&self, file_id: &[u8; 16]) -> Vec<u8> {
        bound(file_id, &self.encode(file_id)[..BLOCK_AAD_LEN])
    }
}

/// The end of an image. Its counts make a truncation visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Footer {
    /// The checksum over the payload checksums of all blocks in order.
    pub(crate) crc_of_crcs: u32,
    pub(crate) blocks: u64,
    pub(crate) entries: u64,
    pub(crate) key_bytes: u64,
    pub(crate) value_bytes: u64,
    /// The length of the whole file, including the second header, in bytes.
    pub(crate) file_len: u64,
    /// The nonce of the tag; 0 in a plain image.
    pub(crate) counter: u64,
    /// The base seq of the header.
    pub(crate) base_seq: u64,
    /// The tag over an empty text; zero in a plain image.
    pub(crate) tag: [u8; TAG_LEN],
    pub(crate) sections: u32,
}

impl Footer {
    pub(crate) fn encode(&self, file_id: &[u8; 16]) -> [u8; FOOTER_LEN] {
        let mut to = [0; FOOTER_LEN];
        put(&mut to, 0, FOOTER_MAGIC);
        put(&mut to, 4, self.crc_of_crcs.to_le_bytes());
        put(&mut to, 8, self.blocks.to_le_bytes());
        put(&mut to, 16, self.entries.to_le_bytes());
        put(&mut to, 24, self.key_bytes.to_le_bytes());
        put(&mut to, 32, self.value_bytes.to_le_bytes());
        put(&mut to, 40, self.file_len.to_le_bytes());
        put(&mut to, 48, self.counter.to_le_bytes());
        put(&mut to, 56, self.base_seq.to_le_bytes());
        put(&mut to, 64, self.tag);
        put(&mut to, 80, self.sections.to_le_bytes());
        let crc = crc_under(file_id, &to[..92]);
        put(&mut to, 92, crc.to_le_bytes());
        to
    }

    /// Decodes a footer. Returns an error text if the bytes are not as written.
    pub(crate) fn decode(
        bytes: &[u8; FOOTER_LEN],
        file_id: &[u8; 16],
    ) -> Result<Self, &'static str> {
        let mut fields = Fields::new(bytes);
        if fields.array() != FOOTER_MAGIC {
            return Err("there is no footer at the end of the file");
        }
        let footer = Self {
            crc_of_crcs: fields.u32(),
            blocks: fields.u64(),
            entries: fields.u64(),
            key_bytes: fields.u64(),
            value_bytes: fields.u64(),
            file_len: fields.u64(),
            counter: fields.u64(),
            base_seq: fields.u64(),
            tag: fields.array(),
            sections: fields.u32(),
        };
        if fields.array() != [0; 8] {
            return Err("the reserved bytes of the footer are not zero");
        }
        if fields.u32() != crc_under(file_id, &bytes[..92]) {
            return Err("the checksum of the footer does not match");
        }
        if footer.has_excess() {
            return Err("a number in the footer is larger than the format allows");
        }
        Ok(footer)
    }

    /// Returns the bytes that the tag of a sealed footer authenticates: all except the tag and the
    /// checksum.
    pub(crate) fn aad(&self, file_id: &[u8; 16]) -> Vec<u8> {
        let bytes = self.encode(file_id);
        let mut aad = bound(file_id, &bytes[..64]);
        aad.extend_from_slice(&bytes[80..84]);
        aad
    }

    /// Returns whether a number is larger than [`NUMBER_MAX`].
    fn has_excess(&self) -> bool {
        let counts = [self.blocks, self.entries, self.key_bytes, self.value_bytes];
        let others = [self.file_len, self.counter, self.base_seq];
        counts.iter().chain(&others).any(|&number| number > NUMBER_MAX)
    }

    /// Counts one block. Its entries are counted separately.
    pub(crate) fn add_block(&mut self, head: &BlockHead) {
        self.blocks += 1;
        self.crc_of_crcs = crc32c_append(self.crc_of_crcs, &head.payload_crc.to_le_bytes());
    }

    /// Counts one entry.
    pub(crate) fn add_entry(&mut self, item: Item<'_>) {
        self.entries += 1;
        self.key_bytes += u64_of(item.key.len());
        self.value_bytes += u64_of(item.value.len());
    }
}

/// Returns the purpose for which the key of the epoch of an image is derived.
pub(crate) fn key_info(file_id: &[u8; 16], generation: u64) -> Vec<u8> {
    let mut info = b"codexdb image 1".to_vec();
    info.extend_from_slice(file_id);
    info.extend_from_slice(&generation.to_le_bytes());
    info
}

/// Returns a checksum that also covers the id of the file.
fn crc_under(file_id: &[u8; 16], bytes: &[u8]) -> u32 {
    crc32c_append(crc32c(file_id), bytes)
}

/// Returns the id of the file, then `head`.
fn bound(file_id: &[u8; 16], head: &[u8]) -> Vec<u8> {
    let mut aad = Vec::with_capacity(file_id.len() + head.len());
    aad.extend_from_slice(file_id);
    aad.extend_from_slice(head);
    aad
}

const FOOTER_MAGIC: [u8; 4] = *b"CDXE";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_beyond_the_last_are_refused_by_name() {
        let id = [7; 16];
        for (number, may) in [(NUMBER_MAX, true), (NUMBER_MAX + 1, false), (u64::MAX, false)] {
            let set: [fn(&mut Footer, u64); 7] = [
                |footer, to| footer.blocks = to,
                |footer, to| footer.entries = to,
                |footer, to| footer.key_bytes = to,
                |footer, to| footer.value_bytes = to,
                |footer, to| footer.file_len = to,
                |footer, to| footer.counter = to,
                |footer, to| footer.base_seq = to,
            ];
            for set in set {
                let mut footer = Footer::default();
                set(&mut footer, number);
                let what = "a number in the footer is larger than the format allows";
                let wanted = if may { Ok(footer) } else { Err(what) };
                assert_eq!(Footer::decode(&footer.encode(&id), &id), wanted, "{number}");
            }
            let head = BlockHead {
                part: Part::Block,
                index: 0,
                records: 0,
                payload_len: 0,
                counter: number,
                payload_crc: 0,
            };
            let what = "the counter of a block is larger than the format allows";
            let wanted = if may { Ok(head) } else { Err(what) };
            assert_eq!(BlockHead::decode(&head.encode(&id), &id), wanted, "{number}");
        }
    }
}

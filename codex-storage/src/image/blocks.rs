//! The blocks of an image in order, then its sections and its footer.

use crc32c::crc32c;

use super::format::{BLOCK_HEAD_LEN, BLOCKS_START, BlockHead, Footer, Part, SECTION_HISTORY};
use super::read::ImageReader;
use crate::codec::{u64_of, usize_of};
use crate::error::{Error, Result};
use crate::header::seal_error;
use crate::history::{Position, decode_listed};
use crate::pack::unpack;

/// Reads the blocks of an image in order.
pub(super) struct Blocks<'a> {
    image: &'a ImageReader,
    at: u64,
    totals: Footer,
}

/// A block that was checked and opened. Its records are not decoded yet.
pub(super) struct Block {
    pub(super) offset: u64,
    pub(super) end: u64,
    pub(super) records: u32,
    pub(super) bytes: Vec<u8>,
}

/// The parts of an image after its blocks.
pub(super) struct End {
    pub(super) footer: Footer,
    /// The earlier positions of the history. Empty if they are sealed and the key is missing.
    pub(super) listed: Vec<Position>,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(image: &'a ImageReader) -> Self {
        Self { image, at: BLOCKS_START, totals: Footer::default() }
    }

    /// Returns the next block, or `None` at the first section.
    pub(super) fn next(&mut self) -> Result<Option<Block>> {
        let (image, offset) = (self.image, self.at);
        let Some(head) = self.head()?.filter(|head| head.part == Part::Block) else {
            return Ok(None);
        };
        if u64::from(head.index) != self.totals.blocks {
            return Err(image.damaged(offset, "a block is not the next one"));
        }
        let bytes = self.payload(&head)?;
        self.totals.add_block(&head);
        Ok(Some(Block { offset, end: self.at, records: head.records, bytes }))
    }

    /// Moves behind a part that is not intact: to its end if its header is intact, else to the next
    /// intact header of a part.
    pub(super) fn skip(&mut self) {
        let end = self.image.footer_offset();
        let behind = |head: BlockHead| {
            let len = u64_of(BLOCK_HEAD_LEN).saturating_add(u64::from(head.payload_len));
            self.at.saturating_add(len)
        };
        let next = self.head_at(self.at).map(behind).filter(|next| *next <= end);
        self.at = next.unwrap_or_else(|| self.search(self.at.saturating_add(1), end));
        // The blocks up to this one count as read.
        if let Some(head) = self.head_at(self.at).filter(|head| head.part == Part::Block) {
            self.totals.blocks = u64::from(head.index);
        }
    }

    /// Returns the offset of the first intact header of a part in this range, or its end.
    fn search(&self, mut from: u64, end: u64) -> u64 {
        let is_head = |bytes: &[u8]| {
            let head = bytes.first_chunk();
            head.is_some_and(|head| BlockHead::decode(head, &self.image.header().file_id).is_ok())
        };
        while from < end {
            let len = (end - from).min(WINDOW_LEN);
            let mut window = vec![0; usize_of(len)];
            // A part of the file that cannot be read is left out.
            if self.image.read_raw(&mut window, from).is_ok()
                && let Some(at) = window.windows(BLOCK_HEAD_LEN).position(is_head)
            {
                return from + u64_of(at);
            }
            // Windows overlap by a header less one byte, so that each header lies in one of them.
            from += len.saturating_sub(u64_of(BLOCK_HEAD_LEN - 1)).max(1);
        }
        end
    }

    /// Returns the header of the part at `offset`, if it is intact.
    fn head_at(&self, offset: u64) -> Option<BlockHead> {
        let mut head = [0; BLOCK_HEAD_LEN];
        self.image.read_raw(&mut head, offset).ok()?;
        BlockHead::decode(&head, &self.image.header().file_id).ok()
    }

    /// Reads the sections and the footer. The counts of all blocks must agree with the footer.
    pub(super) fn end(&mut self) -> Result<End> {
        let image = self.image;
        let mut listed = None;
        while let Some(head) = self.head()? {
            let offset = self.at;
            if head.part != Part::Section {
                return Err(image.damaged(offset, "a block follows a section"));
            }
            let payload = self.payload(&head)?;
            self.totals.sections += 1;
            // A section of an unknown kind may change the meaning of the image, so it is refused.
            if head.index != SECTION_HISTORY {
                let what = "a section of an unknown kind";
                return Err(Error::Unsupported { path: image.path.clone(), what });
            }
            if listed.is_some() {
                return Err(image.damaged(offset, "a section occurs twice"));
            }
            let is_blind = image.is_sealed() && image.opener.is_none();
            let (records, seq) = (head.records, image.header().base_seq);
            let decoded =
                if is_blind { Ok(Vec::new()) } else { decode_listed(&payload, records, seq) };
            listed = Some(decoded.map_err(|what| image.damaged(offset, what))?);
        }
        let footer = self.footer()?;
        let what = "the section with the history is missing";
        let listed = listed.ok_or_else(|| image.damaged(image.footer_offset(), what))?;
        Ok(End { footer, listed })
    }

    /// Reads the header of the next block or section. Returns `None` at the footer.
    fn head(&self) -> Result<Option<BlockHead>> {
        let (image, offset) = (self.image, self.at);
        let left = image.footer_offset().saturating_sub(offset);
        if left == 0 {
            return Ok(None);
        }
        let mut head = [0; BLOCK_HEAD_LEN];
        image.read_raw(&mut head, offset)?;
        let head = BlockHead::decode(&head, &image.header().file_id)
            .map_err(|what| image.damaged(offset, what))?;
        if u64_of(BLOCK_HEAD_LEN) + u64::from(head.payload_len) > left {
            return Err(image.damaged(offset, "a block runs past the end of the file"));
        }
        Ok(Some(head))
    }

    /// Reads the payload after `head`, and moves to the next part.
    fn payload(&mut self, head: &BlockHead) -> Result<Vec<u8>> {
        let (image, offset) = (self.image, self.at);
        let len = usize::try_from(head.payload_len)
            .map_err(|_| image.damaged(offset, "a block does not fit the memory"))?;
        let mut bytes = vec![0; len];
        image.read_raw(&mut bytes, offset + u64_of(BLOCK_HEAD_LEN))?;
        // Order: the checksum before the seal, so that damage by the disk is not reported as
        // tampering.
        if crc32c(&bytes) != head.payload_crc {
            return Err(image.damaged(offset, "the checksum of a block does not match"));
        }
        if let Some(opener) = &image.opener {
            opener
                .open(head.counter, &head.aad(&image.header().file_id), &mut bytes)
                .map_err(|e| seal_error(&image.path, offset, e))?;
        }
        let is_blind = image.is_sealed() && image.opener.is_none();
        if head.part == Part::Block && !is_blind {
            unpack(image.header().compression, &mut bytes)
                .map_err(|what| image.damaged(offset, what))?;
        }
        self.at += u64_of(BLOCK_HEAD_LEN) + u64::from(head.payload_len);
        Ok(bytes)
    }

    /// Reads the footer, and compares it with the blocks and sections that were read.
    fn footer(&self) -> Result<Footer> {
        let (image, offset) = (self.image, self.image.footer_offset());
        let footer = image.footer()?;
        // The tag of the footer authenticates an empty text with the counts, so no part can be left
        // out.
        if let Some(opener) = &image.opener {
            let mut tag = footer.tag.to_vec();
            opener
                .open(footer.counter, &footer.aad(&image.header().file_id), &mut tag)
                .map_err(|e| seal_error(&image.path, offset, e))?;
        }
        let agrees = footer.blocks == self.totals.blocks
            && footer.sections == self.totals.sections
            && footer.crc_of_crcs == self.totals.crc_of_crcs;
        if !agrees {
            return Err(image.damaged(offset, "the footer does not agree with the file"));
        }
        Ok(footer)
    }
}

/// The number of bytes that are searched at once.
const WINDOW_LEN: u64 = 64 << 10;

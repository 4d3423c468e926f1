//! Reads an image: strictly, block by block, with a second thread ahead where there is much.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crc32c::crc32c;

use super::format::{BLOCK_HEAD_LEN, BLOCKS_START, BlockHead, FOOTER_LEN, Footer, key_info};
use crate::batch::{Op, Records};
use crate::codec::u64_of;
use crate::error::{Error, RecordError, Result};
use crate::header::{Found, Header, seal_error};
use crate::seal::{Opener, Seal};
use crate::vfs::{File, Open, Vfs};

/// An open image. It is never changed in place, so what was opened stays whole whatever takes
/// its name.
#[derive(Debug)]
pub(crate) struct ImageReader {
    file: Arc<dyn File>,
    path: PathBuf,
    header: Header,
    len: u64,
    opener: Option<Box<dyn Opener>>,
}

impl ImageReader {
    /// Opens the image `name` under a key that is known already.
    ///
    /// # Errors
    /// As [`Found::read`], [`Found::authenticate`] and [`ImageReader::new`].
    pub(crate) fn open(vfs: &Vfs, name: &str, seal: Option<Arc<dyn Seal>>) -> Result<Self> {
        let path = vfs.dir.path(name);
        let file =
            vfs.dir.open(name, Open::Read).map_err(|source| Error::io("open", &path, source))?;
        let found = Found::read(&*file, &path)?;
        let header = found.authenticate(seal.as_deref(), &path)?;
        Self::new(file, &path, header, seal)
    }

    /// An image whose header is read and verified. Without a seal, a sealed image can only be
    /// [`check`](Self::check)ed, by its checksums.
    ///
    /// # Errors
    /// `Io`, `Damaged` when the file cannot hold an image, `Seal`.
    pub(crate) fn new(
        file: Arc<dyn File>,
        path: &Path,
        header: Header,
        seal: Option<Arc<dyn Seal>>,
    ) -> Result<Self> {
        let len = file.len().map_err(|source| Error::io("read", path, source))?;
        if len < BLOCKS_START + u64_of(FOOTER_LEN) {
            let what = "the file ends before its footer";
            return Err(Error::Damaged { path: path.to_owned(), offset: len, what });
        }
        let info = key_info(&header.file_id, header.generation);
        let opener = match seal {
            Some(seal) => {
                Some(seal.opener(&header.image_salt, &info).map_err(|e| seal_error(path, 0, e))?)
            }
            None => None,
        };
        Ok(Self { file, path: path.to_owned(), header, len, opener })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Whether its blocks are sealed.
    pub(crate) fn is_sealed(&self) -> bool {
        self.header.cipher != 0
    }

    /// The length of the file in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Calls `sink` with every entry, keys ascending, and returns how many there are. The file is
    /// good only when this returns: the counts stand at its end.
    ///
    /// # Errors
    /// `Damaged`, `Tampered`, `KeyRequired`, `Io`; what `sink` returned.
    pub(crate) fn replay(&self, sink: &mut dyn FnMut(Op<'_>) -> Result<()>) -> Result<u64> {
        if self.is_sealed() && self.opener.is_none() {
            return Err(Error::KeyRequired { path: self.path.clone() });
        }
        let mut entries = Entries { image: self, last_key: None, totals: Footer::default() };
        let footer = if self.len >= READ_AHEAD_FROM {
            self.each_block_read_ahead(|block| entries.decode(&block, sink))?
        } else {
            self.each_block(|block| entries.decode(&block, sink))?
        };
        entries.agree_with(&footer)?;
        Ok(footer.entries)
    }

    /// Re-reads every byte and returns the number of entries; of a sealed image without its key
    /// by the checksums alone. `go_on` is asked behind each block.
    ///
    /// # Errors
    /// As [`ImageReader::replay`], but for `KeyRequired`; `Abandoned`.
    pub(crate) fn check(&self, go_on: &mut Reading<'_>) -> Result<u64> {
        let is_blind = self.is_sealed() && self.opener.is_none();
        let mut entries = Entries { image: self, last_key: None, totals: Footer::default() };
        let mut read = 0;
        // Beside running writers, which want the other processors, and this one too.
        let footer = self.each_block(|block| {
            if !is_blind {
                entries.decode(&block, &mut |_| Ok(()))?;
            }
            read += u64::from(block.records);
            thread::yield_now();
            if go_on(block.end, read) { Ok(()) } else { Err(self.abandoned()) }
        })?;
        if !is_blind {
            entries.agree_with(&footer)?;
        }
        Ok(footer.entries)
    }

    /// Checks that the file has its end: the footer, and that it belongs to this header and length.
    pub(crate) fn check_end(&self) -> Result<()> {
        let (footer, offset) = self.footer()?;
        if footer.file_len != self.len || footer.base_seq != self.header.base_seq {
            return Err(self.damaged(offset, "the footer does not agree with the file"));
        }
        Ok(())
    }

    /// The footer and its offset.
    fn footer(&self) -> Result<(Footer, u64)> {
        let offset = self.len - u64_of(FOOTER_LEN);
        let mut bytes = [0; FOOTER_LEN];
        self.read_raw(&mut bytes, offset)?;
        let footer = Footer::decode(&bytes, &self.header.file_id)
            .map_err(|what| self.damaged(offset, what))?;
        Ok((footer, offset))
    }

    /// The bytes at `offset` as they are on disk.
    pub(crate) fn read_raw(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buf, offset).map_err(|source| Error::io("read", &self.path, source))
    }

    fn each_block(&self, mut take: impl FnMut(Block) -> Result<()>) -> Result<Footer> {
        let mut blocks = Blocks::new(self);
        while let Some(block) = blocks.next()? {
            take(block)?;
        }
        blocks.footer()
    }

    /// As [`each_block`](Self::each_block), while a thread reads, checks and opens the blocks to
    /// come.
    fn each_block_read_ahead(&self, mut take: impl FnMut(Block) -> Result<()>) -> Result<Footer> {
        thread::scope(|scope| {
            let (sender, ahead) = sync_channel(BLOCKS_AHEAD);
            let reader = thread::Builder::new().name("codexdb-image".into());
            if reader.spawn_scoped(scope, move || self.send_blocks(&sender)).is_err() {
                return self.each_block(take);
            }
            take_all(&ahead, &mut take)
        })
    }

    /// Ends early when the receiver is gone.
    fn send_blocks(&self, to: &SyncSender<Result<Step>>) {
        let mut blocks = Blocks::new(self);
        loop {
            let step = match blocks.next() {
                Ok(Some(block)) => Ok(Step::Block(block)),
                Ok(None) => blocks.footer().map(Step::End),
                Err(e) => Err(e),
            };
            let last = !matches!(step, Ok(Step::Block(_)));
            if to.send(step).is_err() || last {
                return;
            }
        }
    }

    fn abandoned(&self) -> Error {
        Error::Abandoned { path: self.path.clone() }
    }

    fn damaged(&self, offset: u64, what: &'static str) -> Error {
        Error::Damaged { path: self.path.clone(), offset, what }
    }
}

/// Hears how far an image was read, in bytes and in entries, and says whether to go on.
pub(crate) type Reading<'a> = dyn FnMut(u64, u64) -> bool + 'a;

/// One block, checked and opened, its records not yet decoded.
struct Block {
    offset: u64,
    end: u64,
    records: u32,
    bytes: Vec<u8>,
}

enum Step {
    Block(Block),
    End(Footer),
}

fn take_all(
    ahead: &Receiver<Result<Step>>,
    take: &mut dyn FnMut(Block) -> Result<()>,
) -> Result<Footer> {
    loop {
        match ahead.recv() {
            Ok(Ok(Step::Block(block))) => take(block)?,
            Ok(Ok(Step::End(footer))) => return Ok(footer),
            Ok(Err(e)) => return Err(e),
            Err(_) => return Err(Error::Contradiction("the thread that reads ahead ended early")),
        }
    }
}

/// The blocks of an image in order.
struct Blocks<'a> {
    image: &'a ImageReader,
    at: u64,
    totals: Footer,
}

impl<'a> Blocks<'a> {
    fn new(image: &'a ImageReader) -> Self {
        Self { image, at: BLOCKS_START, totals: Footer::default() }
    }

    /// `None` where the footer begins.
    fn next(&mut self) -> Result<Option<Block>> {
        let (image, offset) = (self.image, self.at);
        let left = image.len.saturating_sub(offset + u64_of(FOOTER_LEN));
        if left == 0 {
            return Ok(None);
        }
        let mut head = [0; BLOCK_HEAD_LEN];
        image.read_raw(&mut head, offset)?;
        let head = BlockHead::decode(&head, &image.header.file_id)
            .map_err(|what| image.damaged(offset, what))?;
        if u64::from(head.index) != self.totals.blocks {
            return Err(image.damaged(offset, "a block is not the one that follows"));
        }
        let len = u64_of(BLOCK_HEAD_LEN) + u64::from(head.payload_len);
        if len > left {
            return Err(image.damaged(offset, "a block runs past the end of the file"));
        }
        let bytes = self.payload(&head, offset)?;
        self.totals.add_block(&head);
        self.at += len;
        Ok(Some(Block { offset, end: self.at, records: head.records, bytes }))
    }

    fn payload(&self, head: &BlockHead, offset: u64) -> Result<Vec<u8>> {
        let image = self.image;
        let len = usize::try_from(head.payload_len)
            .map_err(|_| image.damaged(offset, "a block does not fit the memory"))?;
        let mut bytes = vec![0; len];
        image.read_raw(&mut bytes, offset + u64_of(BLOCK_HEAD_LEN))?;
        if crc32c(&bytes) != head.payload_crc {
            return Err(image.damaged(offset, "the checksum of a block does not match"));
        }
        if let Some(opener) = &image.opener {
            opener
                .open(head.counter, &head.aad(&image.header.file_id), &mut bytes)
                .map_err(|e| seal_error(&image.path, offset, e))?;
        }
        Ok(bytes)
    }

    /// What all blocks have to add up to.
    fn footer(&self) -> Result<Footer> {
        let image = self.image;
        let (footer, offset) = image.footer()?;
        if let Some(opener) = &image.opener {
            let mut tag = footer.tag.to_vec();
            opener
                .open(footer.counter, &footer.aad(&image.header.file_id), &mut tag)
                .map_err(|e| seal_error(&image.path, offset, e))?;
        }
        let agrees = footer.file_len == image.len
            && footer.base_seq == image.header.base_seq
            && footer.blocks == self.totals.blocks
            && footer.crc_of_crcs == self.totals.crc_of_crcs;
        if !agrees && !cfg!(codex_mutant = "footer_unread") {
            return Err(image.damaged(offset, "the footer does not agree with the file"));
        }
        Ok(footer)
    }
}

/// Decodes blocks and holds the entries to their order and counts.
struct Entries<'a> {
    image: &'a ImageReader,
    last_key: Option<Vec<u8>>,
    totals: Footer,
}

impl Entries<'_> {
    fn decode(&mut self, block: &Block, sink: &mut dyn FnMut(Op<'_>) -> Result<()>) -> Result<()> {
        let image = self.image;
        let mut last_in_block: Option<&[u8]> = None;
        for op in Records::new(&block.bytes, block.records) {
            let op = op.map_err(|source| match source {
                RecordError::Malformed(what) => image.damaged(block.offset, what),
                source => Error::Record { path: image.path.clone(), source },
            })?;
            let Op::Set { key, value } = op else {
                return Err(image.damaged(block.offset, "an image holds a removal"));
            };
            if last_in_block.or(self.last_key.as_deref()).is_some_and(|last| last >= key) {
                return Err(image.damaged(block.offset, "the keys do not ascend"));
            }
            last_in_block = Some(key);
            self.totals.add_entry(key, value);
            sink(op)?;
        }
        let Some(last) = last_in_block else {
            return Err(image.damaged(block.offset, "a block has no records"));
        };
        let kept = self.last_key.get_or_insert_default();
        kept.clear();
        kept.extend_from_slice(last);
        Ok(())
    }

    fn agree_with(&self, footer: &Footer) -> Result<()> {
        let agrees = footer.entries == self.totals.entries
            && footer.key_bytes == self.totals.key_bytes
            && footer.value_bytes == self.totals.value_bytes;
        if agrees || cfg!(codex_mutant = "footer_unread") {
            return Ok(());
        }
        let offset = self.image.len - u64_of(FOOTER_LEN);
        Err(self.image.damaged(offset, "the footer does not agree with the entries"))
    }
}

/// Images from this length on are read by a thread ahead of the one that takes the entries.
const READ_AHEAD_FROM: u64 = 1 << 20;
/// How many blocks that thread may be ahead.
const BLOCKS_AHEAD: usize = 8;

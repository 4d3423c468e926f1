//! Reads an image: strictly, block by block, with a second thread ahead where there is much.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blocks::{Block, Blocks, End};
use super::format::{BLOCKS_START, FOOTER_LEN, Footer, TAIL_LEN, key_info};
use crate::batch::{Op, Records};
use crate::codec::u64_of;
use crate::error::{Error, RecordError, Result};
use crate::header::{Found, HEADER_LEN, Header, seal_error};
use crate::history::Position;
use crate::seal::{Opener, Seal};
use crate::sync::channel::{Receiver, Sender, bounded};
use crate::sync::thread;
use crate::vfs::{File, Open, Vfs};

/// An open image. It is never changed in place, so an open image stays whole, even if another
/// file takes its name.
#[derive(Debug)]
pub(crate) struct ImageReader {
    file: Arc<dyn File>,
    pub(super) path: PathBuf,
    header: Header,
    /// Its bytes.
    first: Vec<u8>,
    pub(super) len: u64,
    pub(super) opener: Option<Box<dyn Opener>>,
}

impl ImageReader {
    /// Opens the image `name` under a key that is known already.
    ///
    /// # Errors
    /// As [`Found::first`], [`Found::authenticate`] and [`ImageReader::new`].
    pub(crate) fn open(vfs: &Vfs, name: &str, seal: Option<Arc<dyn Seal>>) -> Result<Self> {
        let path = vfs.dir.path(name);
        let file =
            vfs.dir.open(name, Open::Read).map_err(|source| Error::io("open", &path, source))?;
        let found = Found::first(&*file, &path)?;
        let bytes = found.bytes().to_vec();
        let header = found.authenticate(seal.as_deref(), &path)?;
        Self::new(file, &path, header, bytes, seal)
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
        first: Vec<u8>,
        seal: Option<Arc<dyn Seal>>,
    ) -> Result<Self> {
        let len = file.len().map_err(|source| Error::io("read", path, source))?;
        if len < BLOCKS_START + u64_of(TAIL_LEN) {
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
        Ok(Self { file, path: path.to_owned(), header, first, len, opener })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Whether its blocks are sealed.
    pub(crate) fn is_sealed(&self) -> bool {
        self.header().cipher != 0
    }

    /// The length of the file in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Calls `sink` with every entry, keys ascending, and returns the earlier positions of the
    /// history that the image lists. The file is good only when this returns: the counts are at
    /// its end.
    ///
    /// # Errors
    /// `Damaged`, `Tampered`, `KeyRequired`, `Io`; the errors of `sink`.
    pub(crate) fn replay(
        &self,
        sink: &mut dyn FnMut(Op<'_>) -> Result<()>,
    ) -> Result<Vec<Position>> {
        if self.is_sealed() && self.opener.is_none() {
            return Err(Error::KeyRequired { path: self.path.clone() });
        }
        let mut entries = Entries { image: self, last_key: None, totals: Footer::default() };
        let end = if self.len >= READ_AHEAD_FROM {
            self.each_block_read_ahead(|block| entries.decode(&block, sink))?
        } else {
            self.each_block(|block| entries.decode(&block, sink))?
        };
        entries.agree_with(&end.footer)?;
        Ok(end.listed)
    }

    /// Re-reads every byte and returns the number of entries; of a sealed image without its key
    /// by the checksums alone. `go_on` is called after each block.
    ///
    /// # Errors
    /// As [`ImageReader::replay`], but for `KeyRequired`; `Abandoned`.
    pub(crate) fn check(&self, go_on: &mut Reading<'_>) -> Result<u64> {
        let is_blind = self.is_sealed() && self.opener.is_none();
        let mut entries = Entries { image: self, last_key: None, totals: Footer::default() };
        let mut read = 0;
        // Beside running writers, which want the other processors, and this one too.
        let End { footer, .. } = self.each_block(|block| {
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

    /// Checks that the file has its end: the second header, and a footer that belongs to this
    /// header and length.
    pub(crate) fn check_end(&self) -> Result<()> {
        self.footer().map(drop)
    }

    /// The footer, which has the length and the base seq of this file, and has the header again
    /// after it.
    pub(super) fn footer(&self) -> Result<Footer> {
        let offset = self.footer_offset();
        let mut tail = [0; TAIL_LEN];
        self.read_raw(&mut tail, offset)?;
        let header = self.header();
        let footer = tail.first_chunk::<FOOTER_LEN>();
        let footer = footer.ok_or("the file ends before its footer");
        let footer = footer
            .and_then(|bytes| Footer::decode(bytes, &header.file_id))
            .map_err(|what| self.damaged(offset, what))?;
        let agrees = footer.file_len == self.len && footer.base_seq == header.base_seq;
        if !agrees {
            return Err(self.damaged(offset, "the footer does not agree with the file"));
        }
        let second = tail.last_chunk::<HEADER_LEN>();
        if second.is_none_or(|second| self.first != second) {
            let offset = self.len - u64_of(HEADER_LEN);
            return Err(self.damaged(offset, "the second header is not the same as the first"));
        }
        Ok(footer)
    }

    /// Where the blocks and the sections end.
    pub(super) fn footer_offset(&self) -> u64 {
        self.len - u64_of(TAIL_LEN)
    }

    /// The bytes at `offset` as they are on disk.
    pub(crate) fn read_raw(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buf, offset).map_err(|source| Error::io("read", &self.path, source))
    }

    fn each_block(&self, mut take: impl FnMut(Block) -> Result<()>) -> Result<End> {
        let mut blocks = Blocks::new(self);
        while let Some(block) = blocks.next()? {
            take(block)?;
        }
        blocks.end()
    }

    /// As [`each_block`](Self::each_block), while a thread reads, checks and opens the blocks to
    /// come.
    fn each_block_read_ahead(&self, mut take: impl FnMut(Block) -> Result<()>) -> Result<End> {
        thread::scope(|scope| {
            let (sender, ahead) = bounded(BLOCKS_AHEAD);
            let read_ahead = move || self.send_blocks(&sender);
            if thread::spawn_scoped(scope, "codexdb-image", read_ahead).is_err() {
                return self.each_block(take);
            }
            take_all(&ahead, &mut take)
        })
    }

    /// Ends early when the receiver is gone.
    fn send_blocks(&self, to: &Sender<Result<Step>>) {
        let mut blocks = Blocks::new(self);
        loop {
            let step = match blocks.next() {
                Ok(Some(block)) => Ok(Step::Block(block)),
                Ok(None) => blocks.end().map(Step::End),
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

    pub(super) fn damaged(&self, offset: u64, what: &'static str) -> Error {
        Error::Damaged { path: self.path.clone(), offset, what }
    }
}

/// Progress callback: `(bytes_read, entries_read)`. Returns `false` to stop the reading.
pub(crate) type Reading<'a> = dyn FnMut(u64, u64) -> bool + 'a;

enum Step {
    Block(Block),
    End(End),
}

fn take_all(
    ahead: &Receiver<Result<Step>>,
    take: &mut dyn FnMut(Block) -> Result<()>,
) -> Result<End> {
    loop {
        match ahead.recv() {
            Ok(Ok(Step::Block(block))) => take(block)?,
            Ok(Ok(Step::End(end))) => return Ok(end),
            Ok(Err(e)) => return Err(e),
            Err(_) => return Err(Error::Contradiction("the thread that reads ahead ended early")),
        }
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
        if agrees {
            return Ok(());
        }
        let offset = self.image.footer_offset();
        Err(self.image.damaged(offset, "the footer does not agree with the entries"))
    }
}

/// Images from this length on are read by a thread ahead of the one that takes the entries.
const READ_AHEAD_FROM: u64 = 1 << 20;
/// How many blocks that thread may be ahead.
const BLOCKS_AHEAD: usize = 8;

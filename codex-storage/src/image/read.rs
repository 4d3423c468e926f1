//! Reading an image strictly, block by block. A second thread reads ahead if the image is large.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blocks::{Block, Blocks, End};
use super::format::{BLOCKS_START, FOOTER_LEN, Footer, TAIL_LEN, key_info};
use crate::batch::{Op, Records, TableId};
use crate::codec::u64_of;
use crate::convert::Name;
use crate::error::{Error, RecordError, Result};
use crate::header::{Found, HEADER_LEN, Header, seal_error};
use crate::history::Position;
use crate::seal::{Opener, Seal};
use crate::sync::channel::{Receiver, SyncSender, sync_channel};
use crate::sync::thread;
use crate::vfs::{File, Open, Vfs};

/// An open image. An image is never changed in place, so it stays complete even if another file
/// takes its name.
#[derive(Debug)]
pub(crate) struct ImageReader {
    file: Arc<dyn File>,
    pub(super) path: PathBuf,
    header: Header,
    /// The bytes of the first header.
    first: Vec<u8>,
    pub(super) len: u64,
    pub(super) opener: Option<Box<dyn Opener>>,
}

impl ImageReader {
    /// Opens the image `name` under a known key.
    ///
    /// # Errors
    /// The errors of [`Found::first`], [`Found::authenticate`] and [`ImageReader::new`].
    pub(crate) fn open(vfs: &Vfs, name: &str, seal: Option<Arc<dyn Seal>>) -> Result<Self> {
        let path = vfs.dir.path(name);
        let file =
            vfs.dir.open(name, Open::Read).map_err(|source| Error::io("open", &path, source))?;
        let found = Found::first(&*file, &path)?;
        let bytes = found.bytes().to_vec();
        let header = found.authenticate(seal.as_deref(), &path)?;
        Self::new(file, &path, header, bytes, seal)
    }

    /// Returns the image of a header that was read and authenticated. Without a seal, a sealed
    /// image can only be [`check`](Self::check)ed by its checksums.
    ///
    /// # Errors
    /// `Io` if the length cannot be read, `Damaged` if the file is too short for an image, `Seal`
    /// if its key cannot be derived.
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

    pub(crate) fn file(&self) -> Arc<dyn File> {
        Arc::clone(&self.file)
    }

    /// Returns whether the blocks are sealed.
    pub(crate) fn is_sealed(&self) -> bool {
        self.header().cipher != 0
    }

    /// Returns the length of the file in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Calls `sink` with every entry in ascending order of keys, and returns the earlier positions
    /// of the history that the image lists. The entries are valid only if this function returns
    /// `Ok`, because the counts are at the end of the file.
    ///
    /// # Errors
    /// - `KeyRequired` if the image is sealed and its key is missing.
    /// - `Damaged` or `Tampered` if the bytes are not as written.
    /// - `Io` if reading fails.
    /// - The errors of `sink`.
    pub(crate) fn replay(
        &self,
        sink: &mut dyn FnMut(Op<'_>) -> Result<()>,
    ) -> Result<Vec<Position>> {
        if self.is_sealed() && self.opener.is_none() {
            return Err(Error::KeyRequired { path: self.path.clone() });
        }
        let mut entries = EntryDecoder::new(self);
        let end = self.each_block(true, |block| entries.decode(&block, sink))?;
        // Order: after all blocks. Only the footer shows that no block is missing at the end.
        entries.agree_with(&end.footer)?;
        Ok(end.listed)
    }

    /// Reads every byte again, and returns the number of entries. If the key of a sealed image is
    /// missing, only checksums are checked. `go_on` is called after each block. `beside_writers`
    /// tells whether commits are made meanwhile.
    ///
    /// # Errors
    /// The errors of [`ImageReader::replay`] except `KeyRequired`. `Abandoned` if `go_on` returned
    /// false.
    pub(crate) fn check(&self, beside_writers: bool, go_on: &mut Reading<'_>) -> Result<u64> {
        let is_blind = self.is_sealed() && self.opener.is_none();
        let mut entries = EntryDecoder::new(self);
        let mut read = 0;
        let take = |block: Block| {
            if !is_blind {
                entries.decode(&block, &mut |_| Ok(()))?;
            }
            read += u64::from(block.records);
            thread::yield_now();
            if go_on(block.end, read) { Ok(()) } else { Err(self.abandoned()) }
        };
        // Running writers need the other processors, so this thread then reads alone. It also
        // yields its own to them.
        let End { footer, .. } = self.each_block(!beside_writers, take)?;
        if !is_blind {
            entries.agree_with(&footer)?;
        }
        Ok(footer.entries)
    }

    /// Checks the end of the file: the second header, and a footer that matches this header and
    /// length.
    pub(crate) fn check_end(&self) -> Result<()> {
        self.footer().map(drop)
    }

    /// Reads the footer. Checks that it has the length and the base seq of this file, and that the
    /// second header after it equals the first.
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

    /// Returns the offset after the blocks and the sections.
    pub(super) fn footer_offset(&self) -> u64 {
        self.len - u64_of(TAIL_LEN)
    }

    /// Reads the bytes at `offset` as they are on disk.
    pub(crate) fn read_raw(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buf, offset).map_err(|source| Error::io("read", &self.path, source))
    }

    /// Calls `take` with each block in order, and returns the end of the image. If `ahead` is true
    /// and the image is large, a second thread reads, checks and opens the next blocks meanwhile.
    fn each_block(&self, ahead: bool, mut take: impl FnMut(Block) -> Result<()>) -> Result<End> {
        if !ahead || self.len < READ_AHEAD_FROM {
            return self.each_block_alone(take);
        }
        thread::scope(|scope| {
            let (sender, ahead) = sync_channel(BLOCKS_AHEAD);
            let read_ahead = move || self.send_blocks(&sender);
            if thread::spawn_scoped(scope, "codexdb-image", read_ahead).is_err() {
                // Without a second thread the image is read by this one.
                return self.each_block_alone(take);
            }
            take_all(&ahead, &mut take)
        })
    }

    fn each_block_alone(&self, mut take: impl FnMut(Block) -> Result<()>) -> Result<End> {
        let mut blocks = Blocks::new(self);
        while let Some(block) = blocks.next()? {
            take(block)?;
        }
        blocks.end()
    }

    /// Sends all blocks, then the end or an error. Returns early if the receiver was dropped.
    fn send_blocks(&self, to: &SyncSender<Result<Step>>) {
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

    /// Returns the error of a callback that stopped the reading.
    fn abandoned(&self) -> Error {
        Error::Abandoned { path: self.path.clone() }
    }

    /// Returns `Damaged` at `offset`.
    pub(super) fn damaged(&self, offset: u64, what: &'static str) -> Error {
        Error::Damaged { path: self.path.clone(), offset, what }
    }
}

/// Progress callback: `(bytes_read, entries_read)`. Returns `false` to stop the reading.
pub(crate) type Reading<'a> = dyn FnMut(u64, u64) -> bool + 'a;

/// A message of the thread that reads ahead.
enum Step {
    Block(Block),
    End(End),
}

/// Takes the blocks of the thread that reads ahead, up to the end of the image.
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

/// Decodes blocks, and checks the order and the counts of their entries.
pub(super) struct EntryDecoder<'a> {
    image: &'a ImageReader,
    /// The table and the key of the last entry of the blocks before.
    last: Option<Name>,
    totals: Footer,
}

impl<'a> EntryDecoder<'a> {
    pub(super) fn new(image: &'a ImageReader) -> Self {
        Self { image, last: None, totals: Footer::default() }
    }

    /// Returns the table and the key of the last entry so far.
    pub(super) fn last(&self) -> Option<&Name> {
        self.last.as_ref()
    }

    /// Returns the number of entries so far.
    pub(super) fn count(&self) -> u64 {
        self.totals.entries
    }

    /// Calls `sink` with each entry of `block`.
    pub(super) fn decode(
        &mut self,
        block: &Block,
        sink: &mut dyn FnMut(Op<'_>) -> Result<()>,
    ) -> Result<()> {
        let image = self.image;
        let mut last_in_block: Option<(Option<TableId>, &[u8])> = None;
        for op in Records::new(&block.bytes, block.records) {
            let op = op.map_err(|source| match source {
                RecordError::Malformed(what) => image.damaged(block.offset, what),
                source => Error::Record { path: image.path.clone(), source },
            })?;
            let Op::Set(item) = op else {
                return Err(image.damaged(block.offset, "an image contains a removal"));
            };
            let before = self.last.as_ref().map(|(table, key)| (*table, &key[..]));
            if last_in_block.or(before).is_some_and(|last| last >= (item.table, item.key)) {
                return Err(image.damaged(block.offset, "the keys do not ascend"));
            }
            last_in_block = Some((item.table, item.key));
            self.totals.add_entry(item);
            sink(op)?;
        }
        let Some((table, key)) = last_in_block else {
            return Err(image.damaged(block.offset, "a block has no records"));
        };
        // The last key is copied once per block, since its block is dropped after that.
        let (last_table, last_key) = self.last.get_or_insert_default();
        *last_table = table;
        last_key.clear();
        last_key.extend_from_slice(key);
        Ok(())
    }

    /// Compares the counts of the entries with the footer.
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

/// The length, in bytes, from which an image is read by two threads.
const READ_AHEAD_FROM: u64 = 1 << 20;
/// The number of blocks by which the second thread may be ahead.
const BLOCKS_AHEAD: usize = 8;

//! Writing an image in bounded memory, and reading it back before it is used.

use std::io::{self, ErrorKind};
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;

use crc32c::crc32c;

use super::format::{
    BLOCK_HEAD_LEN, BLOCK_LEN_TARGET, BLOCKS_START, BlockHead, Footer, Part, SECTION_HISTORY,
    TAIL_LEN, key_info,
};
use super::read::{ImageReader, Reading};
use crate::batch::{Item, Op, encode_record};
use crate::codec::{put, u64_of};
use crate::error::{Error, Result};
use crate::header::{Found, HEADER_LEN, Header, seal_error};
use crate::history::{History, encode_listed};
use crate::pack::Packer;
use crate::seal::{Seal, Sealer, TAG_LEN};
use crate::storage::{State, Written};
use crate::vfs::{File, Mode, Open, Paced, Vfs, in_pieces};

/// The parts of a new image, except its entries.
#[derive(Debug, Clone)]
pub(crate) struct ImageSpec {
    pub(crate) vfs: Vfs,
    /// The name under which it is written. [`install`](super::install) renames it.
    pub(crate) temporary: String,
    /// The header. The salt of a sealed image is drawn when it is written.
    pub(crate) header: Header,
    pub(crate) seal: Option<Arc<dyn Seal>>,
    /// Whether commits are made at the same time, which the writing should not delay.
    pub(crate) beside_writers: bool,
}

impl ImageSpec {
    /// Writes the entries of `state` and the positions that `history` lists, syncs the file, and
    /// reads every byte back. `progress` receives the number of entries written plus the number
    /// read back, after each block. It returns `false` to abandon the image.
    ///
    /// # Errors
    /// - `Io` or `NoSpace` if writing fails.
    /// - `Abandoned` if `progress` returned `false`.
    /// - `Damaged` if the file does not read back as written.
    ///
    /// After an error the temporary file is removed if possible.
    pub(crate) fn write(
        mut self,
        state: &dyn State,
        history: &History,
        progress: &dyn Fn(u64) -> bool,
    ) -> Result<Written> {
        // Order: before the header is written, which contains the salt of the epoch.
        let sealer = self.begin_epoch()?;
        let fill = |file: &mut Paced<'_>| {
            let output = &mut |bytes: &[u8], at| file.write_all_at(bytes, at);
            self.encode(state, history, sealer, output, &progress)
        };
        self.make(fill, &|written, read| progress(written + read))
    }

    /// Passes the bytes of the image to `output`, which writes them to a file that the caller
    /// syncs and reads back. `progress` receives the number of entries so far, after each block. It
    /// returns `false` to abandon the image.
    ///
    /// # Errors
    /// The errors of `output`, as `Io` or `NoSpace`; `Seal`; `Abandoned`.
    pub(crate) fn write_to(
        mut self,
        state: &dyn State,
        history: &History,
        output: &mut WriteAt<'_>,
        progress: &dyn Fn(u64) -> bool,
    ) -> Result<()> {
        // Order: before the header is written, which contains the salt of the epoch.
        let sealer = self.begin_epoch()?;
        self.encode(state, history, sealer, output, progress).map(drop)
    }

    /// Encodes the image, and returns the number of its entries. `progress` receives the number of
    /// entries so far, after each block.
    fn encode(
        &self,
        state: &dyn State,
        history: &History,
        sealer: Option<Box<dyn Sealer>>,
        output: &mut WriteAt<'_>,
        progress: &dyn Fn(u64) -> bool,
    ) -> Result<u64> {
        let go_on = |entries| {
            if progress(entries) { Ok(()) } else { Err(Error::Abandoned { path: self.path() }) }
        };
        let mut blocks = BlockWriter::new(self, output, sealer)?;
        state.for_each(&mut |item| {
            if blocks.add(item)? { go_on(blocks.footer.entries) } else { Ok(()) }
        })?;
        let entries = blocks.footer.entries;
        go_on(entries)?;
        blocks.finish(history)?;
        Ok(entries)
    }

    /// Writes the image `from` again, with this header in place of its own. The header must have
    /// the file id, the generation and the salt of `from`. Syncs the file and reads every byte
    /// back.
    ///
    /// # Errors
    /// The errors of [`ImageSpec::write`].
    pub(crate) fn rewrite_header(&self, from: &ImageReader) -> Result<Written> {
        let fill = |file: &mut Paced<'_>| {
            let end = from.len() - u64_of(HEADER_LEN);
            in_pieces(BLOCKS_START..end, |piece, at| {
                from.read_raw(piece, at)?;
                let written = file.write_all_at(piece, at);
                written.map_err(|e| failed("write", self.path(), from.len(), e))
            })?;
            let output = &mut |bytes: &[u8], at| file.write_all_at(bytes, at);
            self.write_header(output, 0)?;
            self.write_header(output, end)?;
            Ok(0)
        };
        self.make(fill, &|_, _| true)
    }

    /// Returns the header as it will be found, except for the salt of a sealed image.
    ///
    /// # Errors
    /// `Damaged` if it would not read back.
    pub(crate) fn found(&self) -> Result<Found> {
        Found::parse(&self.header.encode(self.seal.as_deref()), &self.path())
    }

    /// Begins the epoch of a sealed image, and puts its salt into the header.
    fn begin_epoch(&mut self) -> Result<Option<Box<dyn Sealer>>> {
        let info = key_info(&self.header.file_id, self.header.generation);
        let Some(seal) = &self.seal else { return Ok(None) };
        let sealer = seal.sealer(&info).map_err(|e| seal_error(&self.path(), 0, e))?;
        self.header.image_salt = sealer.salt();
        Ok(Some(sealer))
    }

    /// Creates the file, calls `fill`, which writes it and returns the number of entries, syncs it
    /// and reads it back. `progress` receives that number and the number of entries read back.
    fn make(
        &self,
        fill: impl FnOnce(&mut Paced<'_>) -> Result<u64>,
        progress: &dyn Fn(u64, u64) -> bool,
    ) -> Result<Written> {
        let commits = || self.vfs.waited_for.count();
        let commits_before = commits();
        let made = self.create().and_then(|file| {
            let mut output = if self.beside_writers {
                Paced::new(file, &self.vfs)
            } else {
                Paced::hurried(file)
            };
            // Order: fill, sync, read back. An image is renamed over the old one, so its bytes must
            // be durable and verified before.
            let entries = fill(&mut output)?;
            output.sync().map_err(|e| failed("sync", self.path(), 0, e))?;
            let beside_writers = self.beside_writers && commits() != commits_before;
            self.read_back(beside_writers, &mut |_, read| progress(entries, read))
        });
        if let Err(error) = &made {
            discard(&self.vfs, &self.temporary, error);
        }
        made
    }

    /// Creates the file under its temporary name.
    fn create(&self) -> Result<Arc<dyn File>> {
        let create = || self.vfs.dir.open(&self.temporary, Open::CreateNew(Mode::Frozen));
        let file = match create() {
            // A file of an earlier attempt that could not be removed.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                self.vfs
                    .dir
                    .remove(&self.temporary)
                    .map_err(|e| Error::io("remove", &self.path(), e))?;
                create()
            }
            other => other,
        };
        file.map_err(|e| failed("create", self.path(), BLOCKS_START, e))
    }

    /// Writes the header at offset `at`.
    fn write_header(&self, output: &mut WriteAt<'_>, at: u64) -> Result<()> {
        let header = self.header.encode(self.seal.as_deref());
        output(&header, at).map_err(|e| failed("write", self.path(), BLOCKS_START, e))
    }

    /// Opens the written file again and checks all of its bytes.
    fn read_back(&self, beside_writers: bool, go_on: &mut Reading<'_>) -> Result<Written> {
        let image = ImageReader::open(&self.vfs, &self.temporary, self.seal.clone())?;
        if image.header() != &self.header {
            let what = "the header does not read back as it was written";
            return Err(Error::Damaged { path: self.path(), offset: 0, what });
        }
        image.check(beside_writers, go_on)?;
        Ok(Written {
            temporary: self.temporary.clone(),
            seq: self.header.base_seq,
            bytes: image.len(),
            generation: self.header.generation,
        })
    }

    fn path(&self) -> PathBuf {
        self.vfs.dir.path(&self.temporary)
    }
}

/// Writes bytes at an offset, in bytes from the start of the file.
pub type WriteAt<'a> = dyn FnMut(&[u8], u64) -> io::Result<()> + 'a;

/// Collects entries into blocks, and writes each block when it is full.
struct BlockWriter<'a, 'f> {
    spec: &'a ImageSpec,
    output: &'a mut WriteAt<'f>,
    sealer: Option<Box<dyn Sealer>>,
    packer: Packer,
    /// Room for the block header, then the records of the current block.
    buf: Vec<u8>,
    records: u32,
    at: u64,
    footer: Footer,
}

impl<'a, 'f> BlockWriter<'a, 'f> {
    /// Begins the image with its header.
    fn new(
        spec: &'a ImageSpec,
        output: &'a mut WriteAt<'f>,
        sealer: Option<Box<dyn Sealer>>,
    ) -> Result<Self> {
        spec.write_header(output, 0)?;
        let footer = Footer { base_seq: spec.header.base_seq, ..Footer::default() };
        let buf = vec![0; BLOCK_HEAD_LEN];
        let packer = Packer::new(spec.header.compression);
        Ok(Self { spec, output, sealer, packer, buf, records: 0, at: BLOCKS_START, footer })
    }

    /// Adds an entry. Returns whether a block was written.
    fn add(&mut self, item: Item<'_>) -> Result<bool> {
        encode_record(Op::Set(item), &mut self.buf)
            .map_err(|source| Error::Record { path: self.spec.path(), source })?;
        self.records += 1;
        self.footer.add_entry(item);
        if self.buf.len() < BLOCK_HEAD_LEN + BLOCK_LEN_TARGET {
            return Ok(false);
        }
        self.write_block()?;
        Ok(true)
    }

    /// Writes the current block, and begins the next one.
    fn write_block(&mut self) -> Result<()> {
        let index = u32::try_from(self.footer.blocks).map_err(|_| self.too_large())?;
        let (mut packer, mut buf) = (mem::take(&mut self.packer), mem::take(&mut self.buf));
        // Order: packed before it is sealed. Sealed bytes cannot be compressed.
        let block = packer.pack(&mut buf, BLOCK_HEAD_LEN);
        let head = self.finish_part(Part::Block, index, self.records, block)?;
        self.footer.add_block(&head);
        self.append(block)?;
        (self.packer, self.buf) = (packer, buf);
        self.buf.truncate(BLOCK_HEAD_LEN);
        // One large entry must not keep its memory until the end of the image.
        self.buf.shrink_to(2 * BLOCK_LEN_TARGET);
        self.records = 0;
        Ok(())
    }

    /// Seals the payload in `buf`, and puts the header into the room before it.
    #[expect(clippy::indexing_slicing, reason = "the buffer begins with the room for a head")]
    fn finish_part(
        &mut self,
        part: Part,
        index: u32,
        records: u32,
        buf: &mut Vec<u8>,
    ) -> Result<BlockHead> {
        let tag_len = if self.sealer.is_some() { TAG_LEN } else { 0 };
        let payload_len = buf.len() - BLOCK_HEAD_LEN + tag_len;
        let payload_len = u32::try_from(payload_len).map_err(|_| self.too_large())?;
        let mut head = BlockHead { part, index, records, payload_len, counter: 0, payload_crc: 0 };
        let file_id = &self.spec.header.file_id;
        // Order: a fresh counter for each part, taken before it is sealed, so that no nonce is used
        // twice.
        if let Some(sealer) = &mut self.sealer {
            let sealed = sealer.next_counter().and_then(|counter| {
                head.counter = counter;
                sealer.seal(counter, &head.aad(file_id), buf, BLOCK_HEAD_LEN)
            });
            sealed.map_err(|e| seal_error(&self.spec.path(), self.at, e))?;
        }
        // Over the sealed bytes, so that damage is found without the key.
        let payload = &buf[BLOCK_HEAD_LEN..];
        assert_eq!(
            u64_of(payload.len()),
            u64::from(payload_len),
            "a seal appends a tag, and no more"
        );
        head.payload_crc = crc32c(payload);
        put(buf, 0, head.encode(file_id));
        Ok(head)
    }

    /// Returns the error of a state with too many blocks, or with a block that is too long.
    fn too_large(&self) -> Error {
        let what = "the state does not fit the counts of an image";
        Error::Damaged { path: self.spec.path(), offset: self.at, what }
    }

    /// Writes the last block, the sections, the footer and the second header.
    fn finish(mut self, history: &History) -> Result<()> {
        if self.records > 0 {
            self.write_block()?;
        }
        let mut buf = mem::take(&mut self.buf);
        let listed = encode_listed(history, self.spec.header.base_seq, &mut buf);
        self.finish_part(Part::Section, SECTION_HISTORY, listed, &mut buf)?;
        self.footer.sections += 1;
        self.footer.file_len = self.at + u64_of(buf.len() + TAIL_LEN);
        let file_id = &self.spec.header.file_id;
        // The tag of the footer authenticates an empty text together with the counts.
        if let Some(sealer) = &mut self.sealer {
            let mut text = Vec::new();
            let sealed = sealer.next_counter().and_then(|counter| {
                self.footer.counter = counter;
                sealer.seal(counter, &self.footer.aad(file_id), &mut text, 0)
            });
            sealed.map_err(|e| seal_error(&self.spec.path(), self.at, e))?;
            self.footer.tag = *text.first_chunk().expect("a seal appends its tag");
        }
        buf.extend(self.footer.encode(file_id));
        buf.extend(self.spec.header.encode(self.spec.seal.as_deref()));
        // In one write, so that the end of an image takes no more calls than the footer alone.
        self.append(&buf)
    }

    /// Writes `bytes` at the end of the file.
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let len = u64_of(bytes.len());
        (self.output)(bytes, self.at).map_err(|e| failed("write", self.spec.path(), len, e))?;
        self.at += len;
        Ok(())
    }
}

/// Removes an image that is not installed because of `error`, which the caller reports. If the file
/// stays, the next open removes it. On a full disk the removal is also synced, because some file
/// systems free the space only then. No promise depends on this sync.
pub(crate) fn discard(vfs: &Vfs, temporary: &str, error: &Error) {
    drop(vfs.dir.remove(temporary));
    if matches!(error, Error::NoSpace { .. }) {
        drop(vfs.dir.sync());
    }
}

/// Returns `NoSpace` for a full disk, and `Io` for other errors.
fn failed(action: &'static str, path: PathBuf, needed: u64, source: io::Error) -> Error {
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::NoSpace { path, needed },
        _ => Error::io(action, &path, source),
    }
}

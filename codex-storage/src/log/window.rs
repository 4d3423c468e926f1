//! A file seen through one bounded buffer; beyond its end it reads as zeros.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::codec::{len_without_zeros, u64_of, usize_of};
use crate::error::{Error, Result};
use crate::vfs::File;

/// Reads ahead in large pieces and keeps one of them.
#[derive(Debug)]
pub(super) struct Window {
    file: Arc<dyn File>,
    path: PathBuf,
    /// The length of the file when reading began.
    len: u64,
    /// The bytes from `start` on.
    buf: Vec<u8>,
    start: u64,
    /// Where the last byte of the file that is not zero ends, as far as it was looked for.
    last: Option<LastNonzero>,
}

/// The outcome of a search for the last byte that is not zero.
#[derive(Debug, Clone, Copy)]
struct LastNonzero {
    /// From here on the file was searched.
    from: u64,
    /// `None`: there is nothing but zeros.
    end: Option<u64>,
}

impl Window {
    pub(super) fn new(file: Arc<dyn File>, path: PathBuf) -> Result<Self> {
        let mut window = Self { file, path, len: 0, buf: Vec::new(), start: 0, last: None };
        window.refresh()?;
        Ok(window)
    }

    /// Takes the file as it is now.
    pub(super) fn refresh(&mut self) -> Result<()> {
        let len = self.file.len();
        self.len = len.map_err(|e| Error::io("read the length of", &self.path, e))?;
        self.buf.clear();
        self.last = None;
        Ok(())
    }

    /// The length of the file when reading began.
    pub(super) fn file_len(&self) -> u64 {
        self.len
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The `len` bytes at `offset`. The caller bounds `len`: by a constant, or by what the file
    /// still has.
    #[expect(clippy::indexing_slicing, reason = "the bytes are in the buffer by now")]
    pub(super) fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let end = offset.saturating_add(u64_of(len));
        if offset < self.start || end > self.start.saturating_add(u64_of(self.buf.len())) {
            self.load(offset, len.max(CHUNK))?;
        }
        Ok(&self.buf[usize_of(offset - self.start)..][..len])
    }

    /// Where the last byte at or behind `from` that is not zero ends; `None` when there is none.
    /// Whatever is between is read once, however often this is asked.
    pub(super) fn last_nonzero(&mut self, from: u64) -> Result<Option<u64>> {
        let known = match self.last {
            Some(known) if known.from <= from => known,
            _ => self.search_last(from)?,
        };
        self.last = Some(known);
        Ok(known.end.filter(|&end| end > from))
    }

    /// Searches from the end of the file backwards.
    fn search_last(&mut self, from: u64) -> Result<LastNonzero> {
        let mut end = self.len;
        while end > from {
            let start = end.saturating_sub(u64_of(CHUNK)).max(from);
            let len = usize::try_from(end - start).unwrap_or(CHUNK);
            let used = len_without_zeros(self.bytes(start, len)?);
            if used > 0 {
                return Ok(LastNonzero { from, end: Some(start + u64_of(used)) });
            }
            end = start;
        }
        Ok(LastNonzero { from, end: None })
    }

    #[expect(clippy::indexing_slicing, reason = "`there` is at most the length of the buffer")]
    fn load(&mut self, offset: u64, len: usize) -> Result<()> {
        let there = usize_of(self.len.saturating_sub(offset).min(u64_of(len)));
        self.buf.clear();
        // Exactly: doubling would exceed the bound on the heap for a large frame.
        self.buf.reserve_exact(len);
        self.buf.resize(len, 0);
        self.start = offset;
        self.file.read_exact_at(&mut self.buf[..there], offset).map_err(|e| {
            self.buf.clear();
            Error::io("read", &self.path, e)
        })
    }
}

/// How much is read ahead, in bytes.
const CHUNK: usize = 256 << 10;

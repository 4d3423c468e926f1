//! A view of a file through one buffer of bounded size. Bytes after the end of the file are zero.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::codec::{is_zero, len_without_zeros, u64_of, usize_of};
use crate::error::{Error, Result};
use crate::frame::FRAME_HEAD;
use crate::vfs::File;

/// Reads ahead in large pieces, and keeps one of them.
#[derive(Debug)]
pub(super) struct Window {
    file: Arc<dyn File>,
    path: PathBuf,
    /// The length of the file when it was last looked at, in bytes.
    len: u64,
    /// The bytes from offset `start` on.
    buf: Vec<u8>,
    start: u64,
    /// The last nonzero byte of the file, if it was searched for.
    last: Option<LastNonzero>,
}

/// The outcome of a search for the last byte that is not zero.
#[derive(Debug, Clone, Copy)]
struct LastNonzero {
    /// The offset from which the file was searched.
    from: u64,
    /// The offset after the last nonzero byte, or `None` if there are only zeros.
    end: Option<u64>,
}

impl Window {
    /// Opens the view with an empty buffer.
    pub(super) fn new(file: Arc<dyn File>, path: PathBuf) -> Result<Self> {
        let mut window = Self { file, path, len: 0, buf: Vec::new(), start: 0, last: None };
        window.refresh()?;
        Ok(window)
    }

    /// Reads the length of the file again and discards the buffer.
    pub(super) fn refresh(&mut self) -> Result<()> {
        let len = self.file.len();
        self.len = len.map_err(|e| Error::io("read the length of", &self.path, e))?;
        self.buf.clear();
        self.last = None;
        Ok(())
    }

    /// Returns the length of the file when it was last looked at, in bytes.
    pub(super) fn file_len(&self) -> u64 {
        self.len
    }

    /// Returns the path of the file, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns `len` bytes at `offset`. The caller limits `len` to a constant, or to the rest of
    /// the file.
    #[expect(clippy::indexing_slicing, reason = "the bytes are in the buffer by now")]
    pub(super) fn bytes(&mut self, offset: u64, len: usize) -> Result<&[u8]> {
        let end = offset.saturating_add(u64_of(len));
        if offset < self.start || end > self.start.saturating_add(u64_of(self.buf.len())) {
            self.load(offset, len.max(CHUNK))?;
        }
        Ok(&self.buf[usize_of(offset - self.start)..][..len])
    }

    /// Returns whether the first bytes of a frame at `offset` are zero or missing in the file at
    /// this moment.
    pub(super) fn is_zero_now(&self, offset: u64) -> Result<bool> {
        let mut head = [0; FRAME_HEAD];
        match self.file.read_exact_at(&mut head, offset) {
            Ok(()) => Ok(is_zero(&head)),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(true),
            Err(e) => Err(Error::io("read", &self.path, e)),
        }
    }

    /// Returns the offset after the last nonzero byte at or after `from`, or `None` if there is
    /// none. The bytes after `from` are read once, even if the search is repeated.
    pub(super) fn last_nonzero(&mut self, from: u64) -> Result<Option<u64>> {
        let known = match self.last {
            Some(known) if known.from <= from => known,
            _ => self.search_last(from)?,
        };
        self.last = Some(known);
        Ok(known.end.filter(|&end| end > from))
    }

    /// Searches backwards from the end of the file.
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

    /// Reads `len` bytes at `offset` into the buffer.
    fn load(&mut self, offset: u64, len: usize) -> Result<()> {
        match self.read(offset, len) {
            // A writer has closed the file meanwhile, and so cut the space after its last frame.
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
                self.refresh()?;
                self.read(offset, len)
            }
            read => read,
        }
        .map_err(|e| Error::io("read", &self.path, e))
    }

    #[expect(clippy::indexing_slicing, reason = "`there` is at most the length of the buffer")]
    fn read(&mut self, offset: u64, len: usize) -> io::Result<()> {
        let there = usize_of(self.len.saturating_sub(offset).min(u64_of(len)));
        self.buf.clear();
        // `reserve_exact`, because doubling would exceed the limit on memory for a large frame.
        self.buf.reserve_exact(len);
        self.buf.resize(len, 0);
        self.start = offset;
        let read = self.file.read_exact_at(&mut self.buf[..there], offset);
        // After an error the buffer has no valid bytes, and must not answer the next call.
        read.inspect_err(|_| self.buf.clear())
    }
}

/// The number of bytes that are read ahead.
const CHUNK: usize = 256 << 10;

//! The bytes of a main file under another header: the source of a copy that is a store of its own.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use crate::codec::u64_of;
use crate::header::HEADER_LEN;
use crate::vfs::File;

/// The bytes of a file up to `end` and zeros from there to `len`, under another header.
#[derive(Debug)]
pub(super) struct View {
    file: Arc<dyn File>,
    head: Vec<u8>,
    end: u64,
    len: u64,
    /// The offset of the second header, which an image has at its end.
    second: Option<u64>,
}

impl View {
    /// Returns the ledger in `file`, which ends at `end`, as a file of the length `len`.
    pub(super) fn ledger(file: Arc<dyn File>, head: Vec<u8>, end: u64, len: u64) -> Self {
        Self { file, head, end, len, second: None }
    }

    /// Returns the image of `len` bytes in `file`, with `head` in place of both its headers.
    pub(super) fn image(file: Arc<dyn File>, head: Vec<u8>, len: u64) -> Self {
        Self { file, head, end: len, len, second: Some(len.saturating_sub(u64_of(HEADER_LEN))) }
    }

    /// Copies the header, whose place is the offset `at`, into `buf`, whose place is `offset`, as
    /// far as the two overlap.
    fn lay_over(&self, buf: &mut [u8], offset: u64, at: u64) {
        let skipped = |from: u64, to: u64| usize::try_from(to.saturating_sub(from)).ok();
        let (Some(in_buf), Some(in_head)) = (skipped(offset, at), skipped(at, offset)) else {
            return;
        };
        let head = self.head.get(in_head..).unwrap_or_default();
        let buf = buf.get_mut(in_buf..).unwrap_or_default();
        buf.iter_mut().zip(head).for_each(|(to, byte)| *to = *byte);
    }
}

impl File for View {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.saturating_add(u64_of(buf.len())) > self.len {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        // The bytes before `end` are read. The rest of `buf` is zeros.
        let there = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (bytes, zeros) = buf.split_at_mut(there.min(buf.len()));
        if !bytes.is_empty() {
            self.file.read_exact_at(bytes, offset)?;
        }
        zeros.fill(0);
        self.lay_over(buf, offset, 0);
        if let Some(second) = self.second {
            self.lay_over(buf, offset, second);
        }
        Ok(())
    }

    fn write_all_at(&self, _buf: &[u8], _offset: u64) -> io::Result<()> {
        Err(ErrorKind::PermissionDenied.into())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(ErrorKind::PermissionDenied.into())
    }

    fn allocate(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(ErrorKind::PermissionDenied.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(ErrorKind::PermissionDenied.into())
    }
}

//! The bytes of a simulated file, in chunks that copies share until one of them is written.

use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;

/// The unit that a disk writes completely, unless the power is cut during the write.
pub(super) const SECTOR: usize = 512;
/// The length limit of a file, in bytes. A wrong offset is an error and does not exhaust the
/// memory.
pub(super) const LEN_MAX: u64 = 1 << 36;

/// A sparse file in memory. A copy costs one reference count, and the first write to a chunk of the
/// copy copies that chunk. Bytes after the end are zero.
#[derive(Clone, Default)]
pub(super) struct Bytes {
    chunks: Arc<Vec<Option<Arc<Chunk>>>>,
    len: u64,
}

impl Bytes {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn read_exact(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let len = u64::try_from(buf.len()).map_err(|_| ErrorKind::UnexpectedEof)?;
        let end = offset.checked_add(len).ok_or(ErrorKind::UnexpectedEof)?;
        if len > 0 && end > self.len {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.read(buf, usize::try_from(offset).map_err(|_| ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// Writes `buf`, and moves the end after it if the file was shorter. The caller limits the end
    /// to [`LEN_MAX`].
    pub(super) fn write(&mut self, buf: &[u8], offset: u64) {
        let Some((start, end)) = usize::try_from(offset).ok().zip(end_of(buf.len(), offset)) else {
            return;
        };
        if !buf.is_empty() {
            self.put(buf, start);
            self.len = self.len.max(end);
        }
    }

    /// Sets the length. Bytes after the new end are dropped, and added bytes are zero.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.trim_to(len);
        }
        self.len = len;
    }

    /// Moves the end to `len`, and zeroes all bytes after it, including sectors that were put
    /// there.
    pub(super) fn trim_to(&mut self, len: u64) {
        let end = usize::try_from(len).unwrap_or(usize::MAX);
        if self.chunks.len() > end / CHUNK {
            let chunks = Arc::make_mut(&mut self.chunks);
            chunks.truncate(end.div_ceil(CHUNK));
            let tail = chunks.get_mut(end / CHUNK).and_then(Option::as_mut);
            if let Some(tail) = tail.and_then(|chunk| Arc::make_mut(chunk).get_mut(end % CHUNK..)) {
                tail.fill(0);
            }
        }
        self.len = len;
    }

    /// Returns `count` sectors from sector `first`, with zeros after the end.
    pub(super) fn sectors(&self, first: usize, count: usize) -> Vec<u8> {
        let mut found = vec![0; count * SECTOR];
        self.read(&mut found, first * SECTOR);
        found
    }

    /// Writes whole sectors, which may extend past the end. The length does not change.
    pub(super) fn put_sectors(&mut self, sectors: &[u8], first: usize) {
        self.put(sectors, first * SECTOR);
    }

    fn read(&self, buf: &mut [u8], start: usize) {
        for (chunk, at, piece) in pieces_mut(buf, start) {
            match self.chunks.get(chunk).and_then(Option::as_ref) {
                Some(chunk) => {
                    if let Some(from) = chunk.get(at..at + piece.len()) {
                        piece.copy_from_slice(from);
                    }
                }
                None => piece.fill(0),
            }
        }
    }

    fn put(&mut self, buf: &[u8], start: usize) {
        let chunks = Arc::make_mut(&mut self.chunks);
        let mut rest = buf;
        let mut start = start;
        while !rest.is_empty() {
            let (index, at) = (start / CHUNK, start % CHUNK);
            let (piece, behind) = rest.split_at(rest.len().min(CHUNK - at));
            if chunks.len() <= index {
                chunks.resize(index + 1, None);
            }
            if let Some(slot) = chunks.get_mut(index) {
                let chunk = Arc::make_mut(slot.get_or_insert_with(|| Arc::new([0; CHUNK])));
                if let Some(to) = chunk.get_mut(at..at + piece.len()) {
                    to.copy_from_slice(piece);
                }
            }
            start += piece.len();
            rest = behind;
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

const CHUNK: usize = 4096;
type Chunk = [u8; CHUNK];

fn end_of(len: usize, offset: u64) -> Option<u64> {
    offset.checked_add(u64::try_from(len).ok()?)
}

/// Splits `buf` at chunk boundaries. Each item has the chunk, the offset in it, and the part of
/// `buf`.
fn pieces_mut(buf: &mut [u8], start: usize) -> impl Iterator<Item = (usize, usize, &mut [u8])> {
    let mut rest = buf;
    let mut start = start;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (index, at) = (start / CHUNK, start % CHUNK);
        let len = rest.len().min(CHUNK - at);
        let (piece, behind) = std::mem::take(&mut rest).split_at_mut(len);
        rest = behind;
        start += len;
        Some((index, at, piece))
    })
}

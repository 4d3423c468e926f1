//! The pieces of a log as one file that can only be read.

use std::io;
use std::sync::Arc;

use codex_storage::sync::Mutex;
use codex_storage::vfs::File;

use super::chain::Pieces;
use super::piece::{HEAD_BYTES, Head, LogId};
use super::target::Target;
use crate::inspect::refuse_writes;

/// A log, read from its pieces. Of a ledger, the bytes before the pieces are those of its image.
/// One piece is kept in memory, and each was checked when it was read.
#[derive(Debug)]
pub(super) struct LogFile {
    target: Arc<dyn Target>,
    log: LogId,
    image: Option<Arc<dyn File>>,
    pieces: Pieces,
    len: u64,
    kept: Mutex<Kept>,
}

/// The bytes of the piece at the offset `from`.
#[derive(Default)]
struct Kept {
    from: u64,
    bytes: Vec<u8>,
}

impl LogFile {
    /// Returns the file of the pieces of `log`, behind the first bytes of `image`, which comes with
    /// its length. Without pieces it is the whole image.
    pub(super) fn new(
        target: Arc<dyn Target>,
        log: LogId,
        image: Option<(Arc<dyn File>, u64)>,
        pieces: Pieces,
    ) -> Self {
        let (image, image_len) = image.map_or((None, 0), |(image, len)| (Some(image), len));
        let len = pieces.last().map_or(image_len, |(from, len)| from + len);
        Self { target, log, image, pieces, len, kept: Mutex::new(Kept::default()) }
    }

    /// Fills the beginning of `buf` from the piece that has the offset `at`, or from the image.
    /// Returns the number of bytes.
    fn read_some(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let next = self.pieces.partition_point(|(from, _)| *from <= at);
        let Some((from, len)) = next.checked_sub(1).and_then(|this| self.pieces.get(this)) else {
            let end = self.pieces.first().map_or(self.len, |(from, _)| *from);
            let count = buf.len().min(usize::try_from(end.saturating_sub(at)).unwrap_or(buf.len()));
            let (now, _) = buf.split_at_mut(count);
            let image = self.image.as_ref().ok_or(io::ErrorKind::UnexpectedEof)?;
            return image.read_exact_at(now, at).map(|()| count);
        };
        let mut kept = self.kept.lock();
        if kept.bytes.is_empty() || kept.from != *from {
            let mut bytes = std::mem::take(&mut kept.bytes);
            let object_len = HEAD_BYTES.saturating_add(usize::try_from(*len).unwrap_or(usize::MAX));
            bytes.resize(object_len, 0);
            self.target.read_at(&self.log.piece(*from), &mut bytes, 0)?;
            Head::open(self.log.file_id, *from, &bytes)?;
            *kept = Kept { from: *from, bytes };
        }
        let skipped = usize::try_from(at - from).unwrap_or(usize::MAX).saturating_add(HEAD_BYTES);
        let here = kept.bytes.get(skipped..).unwrap_or_default();
        let count = here.len().min(buf.len());
        buf.iter_mut().zip(here).for_each(|(to, byte)| *to = *byte);
        Ok(count)
    }
}

impl File for LogFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let count = if at < self.len { self.read_some(rest, at)? } else { 0 };
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            (_, rest) = rest.split_at_mut(count);
            at += count as u64;
        }
        Ok(())
    }

    refuse_writes!();

    /// An object that can be read is durable.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the piece at {}", self.from)
    }
}

//! An object as a file that can only be read, so that inspectors and restores read it.

use std::io;
use std::sync::Arc;

use codex_storage::sync::Mutex;
use codex_storage::vfs::File;

use super::target::Target;
use crate::inspect::refuse_writes;

/// An object as a file. It reads ahead in pieces of 8 MiB, of which it keeps one.
#[derive(Debug)]
pub(super) struct RemoteFile {
    target: Arc<dyn Target>,
    name: String,
    len: u64,
    piece: Mutex<Piece>,
}

/// The bytes of the object from the offset `at` on.
#[derive(Default)]
struct Piece {
    at: u64,
    bytes: Vec<u8>,
}

impl RemoteFile {
    /// Returns the object `name`, which has `len` bytes.
    pub(super) fn new(target: Arc<dyn Target>, name: String, len: u64) -> Self {
        Self { target, name, len, piece: Mutex::new(Piece::default()) }
    }
}

impl File for RemoteFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut piece = self.piece.lock();
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            if at >= self.len {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if at < piece.at || at - piece.at >= piece.bytes.len() as u64 {
                let mut bytes = std::mem::take(&mut piece.bytes);
                bytes.resize(usize_of((self.len - at).min(PIECE_BYTES)), 0);
                self.target.read_at(&self.name, &mut bytes, at)?;
                *piece = Piece { at, bytes };
            }
            let (_, here) = piece.bytes.split_at(usize_of(at - piece.at));
            let (now, later) = rest.split_at_mut(here.len().min(rest.len()));
            now.copy_from_slice(here.split_at(now.len()).0);
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    refuse_writes!();

    /// An object that can be read is durable.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes at {}", self.bytes.len(), self.at)
    }
}

#[expect(clippy::expect_used, reason = "no piece is longer than `PIECE_BYTES`")]
fn usize_of(len: u64) -> usize {
    usize::try_from(len).expect("a piece fits the memory")
}

/// The length of a piece. Fewer requests cost more memory.
const PIECE_BYTES: u64 = 8 << 20;

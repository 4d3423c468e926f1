//! A ledger up to a commit, seen as a file of its own, from which a copy is made.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use crate::batch::Seq;
use crate::codec::u64_of;
use crate::error::{Error, Result};
use crate::header::HEADER_LEN;
use crate::log::UNIT;
use crate::main_file::main_header;
use crate::storage::Form;
use crate::vfs::File;

/// The first `upto` bytes of the ledger in `file`, which end with commit `seq`, as a file to read:
/// its header names that commit as the last one, and its length is that of a log in service unless
/// it is all of a closed one.
///
/// # Errors
/// As reading a header; `WrongForm` for an image.
pub fn ledger_upto(file: Arc<dyn File>, path: &Path, upto: u64, seq: Seq) -> Result<Arc<dyn File>> {
    let found = main_header(&*file, path)?;
    if !found.header.is_ledger() {
        let (found, wanted) = (found.header.form, Form::Ledger);
        return Err(Error::WrongForm { path: path.to_owned(), found, wanted });
    }
    let is_whole = file.len().map_err(|e| Error::io("look at", path, e))? == upto;
    let len = if is_whole { upto } else { upto.next_multiple_of(UNIT) };
    Ok(Arc::new(Upto { file, head: found.for_copy_upto(seq), end: upto, len }))
}

/// A header, the bytes of a file up to `end`, and zeros up to `len`.
#[derive(Debug)]
struct Upto {
    file: Arc<dyn File>,
    head: Vec<u8>,
    end: u64,
    len: u64,
}

impl File for Upto {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.saturating_add(u64_of(buf.len())) > self.len {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let there = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (bytes, zeros) = buf.split_at_mut(there.min(buf.len()));
        if !bytes.is_empty() {
            self.file.read_exact_at(bytes, offset)?;
        }
        zeros.fill(0);
        let at = usize::try_from(offset).unwrap_or(HEADER_LEN);
        let head = self.head.get(at..).unwrap_or_default();
        buf.iter_mut().zip(head).for_each(|(to, byte)| *to = *byte);
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

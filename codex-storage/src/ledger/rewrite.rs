//! Writing a whole ledger: a copy under another key, or a new ledger from a state.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::log_place;
use crate::batch::{Group, Seq};
use crate::codec::usize_of;
use crate::config::OnDamage;
use crate::error::{Error, Result};
use crate::files::StoreFiles;
use crate::header::{BODY_OFFSET, Found, Header};
use crate::log::{
    LogCopy, LogPlace, LogReader, LogWriter, NewLog, SharedLogCopy, UNIT, is_full, layout,
    not_as_written, of_the_copy,
};
use crate::names::Temporary;
use crate::seal::Seal;
use crate::storage::{Durability, Form, Retired};
use crate::vfs::{File, Mode, Open, PIECE_BYTES, in_pieces};

/// A ledger that is being copied, usually under another root key.
#[derive(Debug)]
pub(crate) struct Rewrite {
    pub(super) copy: SharedLogCopy,
    /// The temporary name of the copy.
    pub(crate) temporary: String,
    pub(super) header: Header,
    pub(super) seal: Option<Arc<dyn Seal>>,
}

impl Rewrite {
    /// Begins a copy of the ledger with the header `from`: an empty log under its temporary name,
    /// with the header `to`.
    pub(crate) fn begin(
        files: &StoreFiles,
        durability: Durability,
        from: &Header,
        to: Header,
        seal: Option<Arc<dyn Seal>>,
    ) -> Result<Self> {
        let (path, name) = (files.path(), files.names.main());
        let header = to;
        let file = files.vfs.dir.open(name, Open::Read).map_err(|e| Error::io("open", &path, e))?;
        let own = files.seal.clone();
        let reader = LogReader::new(file, &path, from, own, 0, OnDamage::Refuse)?;
        let log = LogPlace { seal: seal.clone(), ..log_place(files, durability) };
        let temporary = files.names.temporary(Temporary::Rekey);
        let copy = SharedLogCopy::default();
        copy.begin(LogCopy::begin(reader, log, &header, temporary.clone())?);
        Ok(Self { copy, temporary, header, seal })
    }

    /// Copies the rest up to commit `upto`. Returns the writer of the copy and its header.
    pub(crate) fn complete(&self, upto: Seq) -> Result<(LogWriter, Header)> {
        let mut writer = self.copy.complete(upto)?;
        let header = writer.finish_copy(&self.header)?;
        Ok((writer, header))
    }
}

/// Gives the complete copy the name of the ledger. The copy must be
/// [prepared](StoreFiles::prepare). Returns the replaced file if it is open.
///
/// # Errors
/// `Io` if the rename or its sync fails. Either file may have the name.
pub(crate) fn install(files: &StoreFiles, temporary: &str) -> Result<Option<Retired>> {
    let installed = files.put_name(temporary);
    installed.map_err(|e| Error::io("put the new ledger in place as", &files.path(), e))
}

/// Copies the ledger up to offset `end`, the end of its frames, to the file `temporary` with the
/// header `header`. The frames stay the same, because they are bound to the file id and not to the
/// envelope. Returns the durable copy and its length in bytes.
///
/// # Errors
/// `NoSpace`, `Io` or `Damaged` if the copy could not be made. It is removed if possible.
pub(super) fn copy_under(
    files: &StoreFiles,
    header: &Header,
    end: u64,
    temporary: &str,
) -> Result<(Arc<dyn File>, u64)> {
    let path = files.vfs.dir.path(temporary);
    let len = end.next_multiple_of(UNIT);
    let copied = copy_frames(files, end, temporary)
        .and_then(|file| {
            // The file is cut and then extended, so that only zeros follow the frames.
            file.set_len(end)?;
            file.set_len(len)?;
            file.write_all_at(&header.encode(files.seal.as_deref()), 0)?;
            file.sync()?;
            Ok(file)
        })
        .map_err(|e| {
            if is_full(&e) {
                return Error::NoSpace { path: files.path(), needed: len };
            }
            Error::io("copy the ledger to", &path, e)
        });
    let checked = copied.and_then(|file| {
        read_back(files, &*file, header, end, &path)?;
        Ok((file, len))
    });
    checked.inspect_err(|_| drop(files.vfs.dir.remove(temporary)))
}

/// Creates the copy. Shares the blocks if the file system can, and otherwise copies the bytes.
fn copy_frames(files: &StoreFiles, end: u64, temporary: &str) -> io::Result<Arc<dyn File>> {
    let dir = &files.vfs.dir;
    if dir.metadata(temporary)?.is_some() {
        dir.remove(temporary)?;
    }
    let from = dir.open(files.names.main(), Open::Read)?;
    if dir.reflink(&from, temporary, Mode::Private).is_ok() {
        return dir.open(temporary, Open::Write);
    }
    let to = dir.open(temporary, Open::CreateNew(Mode::Private))?;
    in_pieces(0..end, |piece, at| {
        from.read_exact_at(piece, at)?;
        to.write_all_at(piece, at)
    })?;
    Ok(to)
}

/// Reads the header and the last piece of a copy, and compares them with the ledger.
fn read_back(
    files: &StoreFiles,
    copy: &dyn File,
    header: &Header,
    end: u64,
    path: &Path,
) -> Result<()> {
    let found = Found::read(copy, path)?.authenticate(files.seal.as_deref(), path)?;
    let start = end.saturating_sub(PIECE_BYTES).max(BODY_OFFSET);
    let read = |file: &dyn File| {
        let mut last = vec![0; usize_of(end - start)];
        let done = file.read_exact_at(&mut last, start).map(|()| last);
        done.map_err(|e| Error::io("read back", path, e))
    };
    let name = files.names.main();
    let from = files.vfs.dir.open(name, Open::Read);
    let from = from.map_err(|e| Error::io("open", &files.path(), e))?;
    // The last piece shows that the copy has its full length. A frame is checked when it is read.
    if found == *header && read(copy)? == read(&*from)? {
        return Ok(());
    }
    Err(not_as_written(path, start))
}

/// Writes a ledger with the header `header`, and the groups that `fill` passes to its second
/// argument. The ledger is complete except for its name, and is read back. The first state that it
/// can show is the one at its end.
pub(crate) fn write_ledger(
    files: &StoreFiles,
    header: Header,
    temporary: &str,
    fill: &mut Fill<'_>,
) -> Result<LogWriter> {
    let log = log_place(files, Durability::Os);
    let (path, seal) = (log.path(), files.seal.clone());
    let new = NewLog::write(log, header.clone(), temporary.to_owned(), 0)?;
    let (mut writer, file) = new.unnamed();
    let mut group = Group::new(layout(Form::Ledger, files.seal.is_some()));
    let filled = fill(&mut group, &mut |group| {
        writer.append(group)?;
        group.reset();
        Ok(())
    });
    // Order: the groups are durable before the header that names the last of them.
    filled.and_then(|()| writer.sync()).map_err(of_the_copy)?;
    let header = writer.finish_copy(&Header { oldest_seq: writer.end().seq, ..header })?;
    let mut reader = LogReader::new(file, &path, &header, seal, 0, OnDamage::Refuse)?;
    while let Some(group) = reader.next()? {
        group.for_each(&mut |_| Ok(()))?;
    }
    if reader.end() != writer.end() {
        let what = "the new ledger does not read back as it was written";
        return Err(Error::Damaged { path, offset: reader.end().offset, what });
    }
    Ok(writer)
}

/// A function that fills the group, and passes it to its second argument each time it is full.
pub(crate) type Fill<'a> =
    dyn FnMut(&mut Group, &mut dyn FnMut(&mut Group) -> Result<()>) -> Result<()> + 'a;

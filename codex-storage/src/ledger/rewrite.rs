//! Whole ledgers written again: copied under another key, or written from a state.

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
use crate::storage::{Durability, Form};
use crate::vfs::{File, Mode, Open, PIECE_BYTES, in_pieces};

/// A ledger that is being copied, most often under another root key.
#[derive(Debug)]
pub(crate) struct Rewrite {
    pub(super) copy: SharedLogCopy,
    /// The name of the copy.
    pub(crate) temporary: String,
    pub(super) header: Header,
    pub(super) seal: Option<Arc<dyn Seal>>,
}

impl Rewrite {
    /// Begins the copy of the ledger in `place` that has the header `from`: an empty one under its
    /// temporary name, with the header `to`.
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

    /// Copies the rest, up to commit `upto`; the copy and its header.
    pub(crate) fn complete(&self, upto: Seq) -> Result<(LogWriter, Header)> {
        let mut writer = self.copy.complete(upto)?;
        let header = writer.finish_copy(&self.header)?;
        Ok((writer, header))
    }
}

/// Gives the complete copy, which is [prepared](Place::prepare) for it, the ledger's name.
///
/// # Errors
/// `Io`: either file may have the name.
pub(crate) fn install(files: &StoreFiles, temporary: &str) -> Result<()> {
    let installed = files.put_name(temporary);
    installed.map_err(|e| Error::io("put the new ledger in place as", &files.path(), e))
}

/// Copies the ledger in `place` up to `end`, where its frames end, under the header `header` and
/// the name `temporary`: the same frames, which are bound to the file id and not to the envelope.
/// Returns the durable copy and its length.
///
/// # Errors
/// `NoSpace`, `Io`, `Damaged`: the copy came to nothing and is removed where that is possible.
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
            // Only zeros follow the frames.
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

/// Shares the blocks where the disk can, else copies the bytes.
fn copy_frames(files: &StoreFiles, end: u64, temporary: &str) -> io::Result<Arc<dyn File>> {
    let dir = &files.vfs.dir;
    if dir.metadata(temporary)?.is_some() {
        dir.remove(temporary)?;
    }
    if dir.reflink(files.names.main(), temporary, Mode::Private).is_ok() {
        return dir.open(temporary, Open::Write);
    }
    let from = dir.open(files.names.main(), Open::Read)?;
    let to = dir.open(temporary, Open::CreateNew(Mode::Private))?;
    in_pieces(0..end, |piece, at| {
        from.read_exact_at(piece, at)?;
        to.write_all_at(piece, at)
    })?;
    Ok(to)
}

/// Reads the header of a copy and the last of its frames back.
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
    if found == *header && read(copy)? == read(&*from)? {
        return Ok(());
    }
    Err(not_as_written(path, start))
}

/// Writes a ledger with the header `header` and the groups that `fill` hands to its second
/// argument, complete but for its name, and reads it back. The state that it shows first is that
/// at its end.
pub(crate) fn write_ledger(
    files: &StoreFiles,
    header: Header,
    temporary: &str,
    fill: &mut Fill<'_>,
) -> Result<LogWriter> {
    let log = log_place(files, Durability::Os);
    let (path, seal) = (log.path(), files.seal.clone());
    let new = NewLog::write(log, header.clone(), temporary.to_owned())?;
    let (mut writer, file) = new.unnamed();
    let mut group = Group::new(layout(Form::Ledger, files.seal.is_some()));
    let filled = fill(&mut group, &mut |group| {
        writer.append(group)?;
        group.reset();
        Ok(())
    });
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

/// Fills groups, and hands over each that is full.
pub(crate) type Fill<'a> =
    dyn FnMut(&mut Group, &mut dyn FnMut(&mut Group) -> Result<()>) -> Result<()> + 'a;

//! A ledger as it was at an earlier point: its commits up to the point, copied to another file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::{log_place, open_main};
use crate::batch::Seq;
use crate::config::OnDamage;
use crate::digest::Stamp;
use crate::earlier::EarlierStore;
use crate::error::{Error, Result};
use crate::files::StoreFiles;
use crate::header::{Found, Header, following, fresh_id};
use crate::log::{LogEnd, LogReader, LogWriter, NewLog, not_as_written, of_the_copy};
use crate::main_file::MainFile;
use crate::names::{Names, Temporary};
use crate::open::refuse_pending;
use crate::pack::Compression;
use crate::seal::Keys;
use crate::storage::{Durability, Form};
use crate::vfs::{File, Vfs, unix_us};

/// A point in the history of a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestorePoint {
    /// After the commit with this number.
    Seq(Seq),
    /// After the last commit at or before this time, in microseconds since 1970 (UTC).
    TimeUs(i64),
}

impl RestorePoint {
    /// Returns true if the point is after the commit `seq`, which was made at `time_us`.
    pub fn includes(self, seq: Seq, time_us: i64) -> bool {
        match self {
            Self::Seq(last) => seq <= last,
            Self::TimeUs(last_us) => time_us <= last_us,
        }
    }
}

impl From<Seq> for RestorePoint {
    fn from(seq: Seq) -> Self {
        Self::Seq(seq)
    }
}

impl From<SystemTime> for RestorePoint {
    fn from(time: SystemTime) -> Self {
        Self::TimeUs(unix_us(time))
    }
}

/// Writes the ledger `name` as it was at `point` to a temporary file, with the same commits, times
/// and digests. The caller holds the lock of the store.
///
/// # Errors
/// As [`read_commits`](crate::read_commits); `NotInHistory` if the ledger does not have the state
/// at `point`; `NoSpace`, `Io`.
pub fn ledger_at(
    vfs: &Vfs,
    name: &str,
    keys: Option<&dyn Keys>,
    point: RestorePoint,
) -> Result<EarlierStore> {
    let path = vfs.dir.path(name);
    refuse_pending(vfs, &Names::staged(name), &path)?;
    let (file, found) = open_main(vfs, name)?;
    copy_upto(vfs, name, LedgerFile { file, found, path }, keys, point)
}

/// Writes the ledger in `main` as it was at `point` to a temporary file of the store `name`, as
/// [`ledger_at`] does. The file of `main` may have been copied while the ledger was written, and
/// need not end with a whole frame.
///
/// # Errors
/// As [`ledger_at`].
pub fn archived_ledger_at(
    vfs: &Vfs,
    name: &str,
    main: &MainFile,
    keys: Option<&dyn Keys>,
    point: RestorePoint,
) -> Result<EarlierStore> {
    copy_upto(vfs, name, main.as_cut_ledger()?, keys, point)
}

/// An open ledger, whose header is not authenticated yet.
pub(crate) struct LedgerFile {
    pub(crate) file: Arc<dyn File>,
    pub(crate) found: Found,
    pub(crate) path: PathBuf,
}

/// Copies the commits up to `point` to a temporary file of the store `name`.
fn copy_upto(
    vfs: &Vfs,
    name: &str,
    LedgerFile { file, found, path }: LedgerFile,
    keys: Option<&dyn Keys>,
    point: RestorePoint,
) -> Result<EarlierStore> {
    if !found.header.is_ledger() {
        let (found, wanted) = (found.header.form, Form::Ledger);
        return Err(Error::WrongForm { path, found, wanted });
    }
    let (header, seal) = found.unlock(keys, &path)?;
    let (vfs, names) = (vfs.clone(), Names::staged(name));
    let files = StoreFiles { vfs, names, seal, compression: Compression::None, lock: None };
    let reader = LogReader::new(file, &path, &header, files.seal.clone(), 0, OnDamage::Refuse)?;
    let temporary = files.names.temporary(Temporary::Earlier);
    let main = write_upto(&files, &header, reader, point, &temporary).and_then(|end| {
        let main = MainFile::open(&files.vfs, &temporary)?;
        Ok(main.upto(end.seq, end.offset))
    });
    EarlierStore::new(files.vfs, temporary, main)
}

/// Copies the commits up to `point` to the file `temporary` and reads them back. Returns the end of
/// the copy.
fn write_upto(
    files: &StoreFiles,
    header: &Header,
    mut from: LogReader,
    point: RestorePoint,
    temporary: &str,
) -> Result<LogEnd> {
    let path = files.path();
    // The copy has a fresh file id, so that no frame of it is sealed like one of the ledger.
    let header = Header {
        file_id: fresh_id(&files.vfs, &path)?,
        slot_counter: following(header.slot_counter, &path)?,
        ..header.clone()
    };
    let log = log_place(files, Durability::Os);
    let (mut to, file) = NewLog::write(log, header.clone(), temporary.to_owned(), 0)?.unnamed();
    while copy_group(&mut from, &mut to, point)? {}
    let end = *to.end();
    let past_the_end = matches!(point, RestorePoint::Seq(seq) if seq > end.seq);
    if past_the_end || end.seq < header.oldest_seq {
        // The error names all states of the ledger, so the rest is read to find the last one.
        while from.next()?.is_some() {}
        let states = header.oldest_seq..=from.end().seq;
        return Err(Error::NotInHistory { path, states });
    }
    // Order: the groups are durable before the header that names the last of them.
    to.sync().map_err(of_the_copy)?;
    let header = to.finish_copy(&header)?;
    let seal = files.seal.clone();
    let mut check = LogReader::new(file, &path, &header, seal, 0, OnDamage::Refuse)?;
    while check.next()?.is_some() {}
    if *check.end() == end { Ok(end) } else { Err(not_as_written(&path, check.end().offset)) }
}

/// Copies the commits of the next group that lie at or before `point`. Returns whether a later
/// group may have more of them.
fn copy_group(from: &mut LogReader, to: &mut LogWriter, point: RestorePoint) -> Result<bool> {
    let mut end = *to.end();
    let Some(group) = from.next()? else { return Ok(false) };
    // The first commit after the point ends the copy. This may be inside a group, because each
    // commit of a ledger has its own time and digest.
    let included = group.upto(|commit| {
        let Stamp { time_us, digest } = Stamp::read(commit.batch.extra);
        let is_included = point.includes(commit.seq, time_us);
        if is_included {
            end = LogEnd { seq: commit.seq, digest, time_us, ..end };
        }
        is_included
    })?;
    if included.count > 0 {
        to.copy(included.payload, included.count, &end).map_err(of_the_copy)?;
    }
    Ok(included.count == group.count)
}

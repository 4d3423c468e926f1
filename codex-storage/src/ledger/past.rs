//! The past of a ledger: its commits with their times, and the places at which it can be cut.

use super::open_main;
use crate::batch::{Records, Seq};
use crate::config::OnDamage;
use crate::digest::Stamp;
use crate::error::{Error, Result};
use crate::history::Position;
use crate::log::LogReader;
use crate::names::Names;
use crate::open::refuse_pending;
use crate::seal::Keys;
use crate::storage::{Anchor, Form};
use crate::vfs::Vfs;

/// One commit of a ledger.
#[derive(Debug)]
#[non_exhaustive]
pub struct LedgerCommit<'a> {
    /// The number of the commit.
    pub seq: Seq,
    /// The time of the commit, in microseconds since 1970 (UTC). It never decreases.
    pub time_us: i64,
    /// The anchor of the commit.
    pub anchor: Anchor,
    /// The operations in order. Each was decoded before, so none is an error.
    pub ops: Records<'a>,
}

/// A place where a ledger can be cut: the part before it is a ledger of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerCut {
    /// The last commit before the cut. It may be earlier than the requested commit, because a
    /// group is not divided.
    pub seq: Seq,
    /// The length of the file up to the cut, in bytes.
    pub offset: u64,
    /// The anchor of that commit.
    pub anchor: Anchor,
    /// The earliest state that the ledger can show, as a commit. It is 0 if the ledger began empty.
    /// A ledger that was converted from another form begins with the state at the conversion.
    pub oldest: Seq,
}

/// Reads the commits of the ledger `name` in order, up to and including `upto`, and passes each to
/// `sink`. Each is checked against the chain. Returns the end of the last group whose commits were
/// all passed.
///
/// Takes no lock and changes nothing. If a writer has the ledger open, `upto` must be a commit that
/// the writer has acknowledged as durable.
///
/// A ledger is a log that serves alone, without the store of codex-core above it:
///
/// ```
/// use codex_storage::batch::Op;
/// use codex_storage::storage::Form;
/// use codex_storage::vfs::Vfs;
/// use codex_storage::{Config, Result, open, read_commits};
///
/// # fn main() -> Result<()> {
/// let vfs = Vfs::mem(1); // `Vfs::os(folder)` keeps it in a folder
/// let mut config = Config::new(vfs.clone(), "audit.log");
/// config.form = Some(Form::Ledger);
/// let (mut log, _recovered) = open(&config, &mut |_operation| Ok(()))?;
///
/// let mut group = log.group();
/// group.push(Op::set(b"door", b"opened")).expect("a short key");
/// group.finish();
/// let seqs = log.commit(&mut group, None)?; // durable from here on
/// assert_eq!(seqs, 1..2);
///
/// let cut = read_commits(&vfs, "audit.log", None, 1, &mut |commit| {
///     println!("commit {} at {} us", commit.seq, commit.time_us);
///     Ok(())
/// })?;
/// assert_eq!(cut.anchor, log.anchor());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `RestorePending`, `NotFound`, `WrongForm`, `KeyRequired`, `WrongKey`; one variant for each kind
/// of damage; the errors of `sink`.
pub fn read_commits(
    vfs: &Vfs,
    name: &str,
    keys: Option<&dyn Keys>,
    upto: Seq,
    sink: &mut dyn FnMut(LedgerCommit<'_>) -> Result<()>,
) -> Result<LedgerCut> {
    let path = vfs.dir.path(name);
    refuse_pending(vfs, &Names::staged(name), &path)?;
    let (file, found) = open_main(vfs, name)?;
    if found.header.form != Form::Ledger {
        let (found, wanted) = (found.header.form, Form::Ledger);
        return Err(Error::WrongForm { path, found, wanted });
    }
    let (header, seal) = found.unlock(keys, &path)?;
    let mut reader = LogReader::new(file, &path, &header, seal, 0, OnDamage::Refuse)?;
    let store_id = header.store_id;
    let mut cut = *reader.end();
    while cut.seq < upto {
        let Some(group) = reader.next()? else { break };
        group.for_each_commit(&mut |commit| {
            if commit.seq > upto {
                return Ok(());
            }
            let Stamp { time_us, digest } = Stamp::read(commit.batch.extra);
            // The operations are decoded once here, so that `sink` meets no error in them.
            for op in commit.batch.ops() {
                op.map_err(|source| Error::Record { path: path.clone(), source })?;
            }
            let anchor = Position { seq: commit.seq, digest }.anchor(store_id);
            sink(LedgerCommit { seq: commit.seq, time_us, anchor, ops: commit.batch.ops() })
        })?;
        // The group has commits after `upto`, so the cut stays at the end of the previous group.
        if reader.end().seq > upto {
            break;
        }
        cut = *reader.end();
    }
    let oldest = header.oldest_seq;
    let anchor = Position { seq: cut.seq, digest: cut.digest }.anchor(store_id);
    Ok(LedgerCut { seq: cut.seq, offset: cut.offset, anchor, oldest })
}

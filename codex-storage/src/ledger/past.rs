//! The past of a ledger: its commits with their times, and the places at which it can be cut.

use super::open_main;
use crate::batch::{Records, Seq};
use crate::config::OnDamage;
use crate::digest::Stamp;
use crate::error::{Error, Result};
use crate::header::Header;
use crate::history::Position;
use crate::log::{LogReader, ReadPlace};
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
    /// The operations in order. Each was decoded before, so none is an error.
    pub ops: Records<'a>,
    position: Position,
    store_id: [u8; 16],
}

impl LedgerCommit<'_> {
    /// Returns the anchor of the commit. Takes a SHA-256.
    pub fn anchor(&self) -> Anchor {
        self.position.anchor(self.store_id)
    }
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

/// Reads the commits of a ledger in order, group by group, from its beginning or from a place where
/// it was before. [`read_commits`] reads all of them.
///
/// Takes no lock and changes nothing. The file stays the same one if another takes its name, so a
/// reader finds no commits that were made after that.
#[derive(Debug)]
pub struct LedgerReader {
    log: LogReader,
    /// The last commit that was passed.
    seq: Seq,
    store_id: [u8; 16],
    file_id: [u8; 16],
    created_us: i64,
    oldest: Seq,
}

/// A place in a ledger after one of its commits, to go back to.
#[derive(Debug, Clone)]
pub struct LedgerPlace {
    /// The end of a group at or before the commit.
    log: ReadPlace,
    seq: Seq,
}

impl LedgerPlace {
    /// Returns the offset in the file after the last group that was passed whole, in bytes.
    pub fn offset(&self) -> u64 {
        self.log.offset()
    }

    /// Returns the number of the last commit before the place.
    pub fn seq(&self) -> Seq {
        self.seq
    }
}

impl LedgerReader {
    /// Opens the ledger `name`, at its beginning.
    ///
    /// # Errors
    /// `RestorePending`, `NotFound`, `WrongForm`, `KeyRequired`, `WrongKey`; `Damaged` if the
    /// header is not intact; `Io`.
    pub fn open(vfs: &Vfs, name: &str, keys: Option<&dyn Keys>) -> Result<Self> {
        let path = vfs.dir.path(name);
        refuse_pending(vfs, &Names::staged(name), &path)?;
        let (file, found) = open_main(vfs, name)?;
        if found.header.form != Form::Ledger {
            let (found, wanted) = (found.header.form, Form::Ledger);
            return Err(Error::WrongForm { path, found, wanted });
        }
        let (header, seal) = found.unlock(keys, &path)?;
        let log = LogReader::new(file, &path, &header, seal, 0, OnDamage::Refuse)?;
        let Header { store_id, file_id, created_us, oldest_seq: oldest, .. } = header;
        Ok(Self { seq: log.end().seq, log, store_id, file_id, created_us, oldest })
    }

    /// Passes the commits of the next group up to and including `upto` to `sink`. Each is checked
    /// against the chain. Returns `false` if there are none.
    ///
    /// If a writer has the ledger open, `upto` must be a commit that the writer has acknowledged as
    /// durable.
    ///
    /// # Errors
    /// One variant for each kind of damage; the errors of `sink`.
    pub fn next(
        &mut self,
        upto: Seq,
        sink: &mut dyn FnMut(LedgerCommit<'_>) -> Result<()>,
    ) -> Result<bool> {
        let (before, passed, store_id) = (self.log.place(), self.seq, self.store_id);
        if passed >= upto {
            return Ok(false);
        }
        let Some(group) = self.log.next()? else { return Ok(false) };
        let passed_on = group.for_each_commit(&mut |commit| {
            // A reader that went back may begin within a group.
            if commit.seq <= passed || commit.seq > upto {
                return Ok(());
            }
            let Stamp { time_us, digest } = Stamp::read(commit.batch.extra);
            // The operations are decoded once here, so that `sink` meets no error in them.
            for op in commit.batch.ops() {
                op.map_err(|source| Error::Record { path: group.path.to_owned(), source })?;
            }
            let position = Position { seq: commit.seq, digest };
            sink(LedgerCommit {
                seq: commit.seq,
                time_us,
                ops: commit.batch.ops(),
                position,
                store_id,
            })
        });
        let end = self.log.end().seq;
        if end > upto || passed_on.is_err() {
            // The rest of the group is read from its beginning.
            self.log.go_to(&before);
        }
        passed_on?;
        self.seq = end.min(upto);
        Ok(true)
    }

    /// Checks that the commits up to `upto`, which the writer has acknowledged, were passed, after
    /// [`next`](Self::next) has returned `false`.
    ///
    /// # Errors
    /// `Damaged` if the file ends before, because another program has cut it.
    pub fn check_passed(&self, upto: Seq) -> Result<()> {
        if self.seq >= upto {
            return Ok(());
        }
        let what = "the ledger ends before a commit that was acknowledged";
        Err(self.log.damaged(self.log.end().offset, what))
    }

    /// Returns the id of the file, which is another after a rekey.
    pub(super) fn file_id(&self) -> [u8; 16] {
        self.file_id
    }

    /// Returns the time at which the ledger was created, in microseconds since 1970 (UTC). A ledger
    /// that was converted from another form was created by that.
    pub fn created_us(&self) -> i64 {
        self.created_us
    }

    /// Returns the place after the last commit that was passed.
    pub fn place(&self) -> LedgerPlace {
        LedgerPlace { log: self.log.place(), seq: self.seq }
    }

    /// Goes to a place where a reader of the same file was. Finds the commits that were made since
    /// the last call.
    ///
    /// # Errors
    /// `Io` if the length of the file cannot be read.
    pub fn go_to(&mut self, place: &LedgerPlace) -> Result<()> {
        self.log.go_to(&place.log);
        self.seq = place.seq;
        self.log.refresh()
    }

    /// Returns the end of the last group whose commits were all passed.
    pub fn cut(&self) -> LedgerCut {
        let end = self.log.end();
        let anchor = Position { seq: end.seq, digest: end.digest }.anchor(self.store_id);
        LedgerCut { seq: end.seq, offset: end.offset, anchor, oldest: self.oldest }
    }
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
    let mut reader = LedgerReader::open(vfs, name, keys)?;
    while reader.next(upto, sink)? {}
    Ok(reader.cut())
}

//! The Ledger form: one log with every commit and its time, chained by SHA-256.

mod index;
mod key;
mod past;
mod restore_point;
mod rewrite;

use std::ops::Range;
use std::sync::Arc;

pub use index::LedgerIndex;
pub use past::{LedgerCommit, LedgerCut, LedgerPlace, LedgerReader, read_commits};
pub use restore_point::{RestorePoint, archived_ledger_at, ledger_at};

pub(crate) use restore_point::LedgerFile;
pub(crate) use rewrite::{Rewrite, install, write_ledger};

use crate::batch::{Group, Seq};
use crate::config::{Access, Config};
use crate::digest::Stamp;
use crate::error::{Error, Result};
use crate::files::{StoreFiles, Stored};
use crate::follow::Follower;
use crate::header::{Found, Header};
use crate::history::{AnchorWatch, History, Position};
use crate::live::Announcer;
use crate::log::{LogEnd, LogPlace, LogReader, LogState, LogWriter, NewLog, layout, recover};
use crate::main_file::MainFile;
use crate::names::Temporary;
use crate::read_only::ReadOnly;
use crate::seal::Keys;
use crate::storage::{
    Anchor, AnchorFound, Checkpoint, Cut, Durability, Form, LogPart, OpSink, Recovered, Retired,
    State, Storage, StorageStats, SyncPoint, Written,
};
use crate::vfs::{File, Open, Vfs};
use crate::write_state::WriteState;

/// An open store of the form Ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    files: StoreFiles,
    write_state: WriteState,
    durability: Durability,
    live: Announcer,
    writer: Box<LogWriter>,
    /// The header of the file in place.
    header: Header,
    /// The copy of a running rekey.
    pending: Option<Rewrite>,
    /// The file that a rekey has replaced.
    retired: Option<Retired>,
    /// Whether the name of the file is known to be durable, because this handle has synced it or
    /// because a commit was made to the file.
    is_named: bool,
    /// The history up to the last commit that was acknowledged, or read when the store was opened.
    history: History,
}

impl Ledger {
    /// Opens the ledger in `file`, whose header is `header`.
    pub(crate) fn open(
        files: StoreFiles,
        config: &Config,
        file: Arc<dyn File>,
        header: Header,
        sink: &mut OpSink<'_>,
    ) -> Result<(Box<dyn Storage>, Recovered)> {
        if config.access == Access::Follow {
            let path = files.path();
            let mut watch = AnchorWatch::new(config.anchor, config.accept_unknown_anchor);
            let history = History::base(&header);
            watch.pass(history.end(), &path)?;
            let follower = Follower::in_ledger(&files, file, &header)?;
            let newest_us = header.created_us;
            return follower.open(files, header, history, watch, newest_us, sink);
        }
        // A staged ledger has no name that a power cut could take away.
        let is_named = files.lock.is_none();
        let (state, history, anchor) = read(&files, config, file, &header, sink)?;
        let recovered = Recovered {
            stray: None,
            seq: state.end.seq,
            durable: state.durable,
            clean: state.tail_end.is_none() && state.end.closed,
            newest_us: header.created_us.max(state.end.time_us),
            replayed: state.end.seq - header.base_seq,
            cut: state.tail_end.map(|tail_end| Cut {
                file: files.names.main().to_owned(),
                offset: state.end.offset,
                bytes: tail_end - state.end.offset,
                seq: state.end.seq,
            }),
            locked: files.is_locked(),
            anchor,
        };
        if config.access == Access::ReadOnly {
            let stats = StorageStats {
                seq: recovered.seq,
                durable: recovered.durable,
                log_bytes: state.end.offset,
                ..StorageStats::default()
            };
            return Ok((Box::new(ReadOnly::new(files, header, history, stats)), recovered));
        }
        // A commit after the one in the header was made when the name was durable.
        let is_named = is_named || state.end.seq > header.named_seq;
        let ledger = Self::writing(files, config, header, history, &state, is_named)?;
        Ok((Box::new(ledger), recovered))
    }

    /// Makes a new ledger at the name of the store.
    ///
    /// # Errors
    /// `NoSpace` or `Io`. If the name could not be made durable, the file may exist. Its first
    /// commit then names it again.
    pub(crate) fn create(
        files: StoreFiles,
        config: &Config,
        header: Header,
        sink: &mut OpSink<'_>,
    ) -> Result<(Box<dyn Storage>, Recovered)> {
        let header = Header { generation: 1, ..header };
        let temporary = files.names.temporary(Temporary::Ledger);
        let place = log_place(&files, config.durability);
        let new = NewLog::write(place, header, temporary.clone(), 0)?;
        // Order: the file has the lock of the store before it has its name, so that no other
        // process can open it first.
        prepare(&files, &temporary)?;
        new.publish()?;
        files.has_name();
        let (file, found) = open_main(&files.vfs, files.names.main())?;
        let header = found.authenticate(files.seal.as_deref(), &files.path())?;
        let (state, history, anchor) = read(&files, config, file, &header, sink)?;
        let recovered = Recovered {
            clean: true,
            seq: state.end.seq,
            durable: state.durable,
            newest_us: header.created_us,
            locked: files.is_locked(),
            anchor,
            ..Recovered::default()
        };
        let ledger = Self::writing(files, config, header, history, &state, true)?;
        Ok((Box::new(ledger), recovered))
    }

    /// Prepares the log that was read for further writes.
    fn writing(
        files: StoreFiles,
        config: &Config,
        header: Header,
        history: History,
        state: &LogState,
        is_named: bool,
    ) -> Result<Self> {
        let path = files.path();
        let file = files.vfs.dir.open(files.names.main(), Open::Write);
        let file = file.map_err(|e| Error::not_writable(&path, e))?;
        let writer = recover(log_place(&files, config.durability), file, &header, state)?;
        let mut live = Announcer::new(&files);
        // The recovery has made commits durable that nothing else shows to be. The mark of a close
        // shows it of those before it.
        if !state.end.closed {
            live.announce(&writer);
        }
        Ok(Self {
            files,
            write_state: WriteState::new(&path),
            durability: config.durability,
            live,
            writer: Box::new(writer),
            header,
            pending: None,
            retired: None,
            is_named,
            history,
        })
    }

    /// Returns the writer, or an error if the store refuses writes.
    pub(super) fn writer(&mut self) -> Result<&mut LogWriter> {
        self.write_state.check()?;
        Ok(&mut self.writer)
    }

    /// Checks that an opening would find the ledger.
    fn check_name(&mut self) -> Result<()> {
        let seq = self.history.seq().min(self.writer()?.durable() + 1);
        self.files.check_name(&mut self.write_state, seq)
    }

    /// Prepares the file `temporary` for the name of the ledger.
    fn prepare(&self, temporary: &str) -> Result<()> {
        prepare(&self.files, temporary)
    }
}

impl Storage for Ledger {
    fn form(&self) -> Form {
        Form::Ledger
    }

    fn group(&self) -> Group {
        Group::new(layout(Form::Ledger, self.files.seal.is_some()))
    }

    fn commit(&mut self, group: &mut Group, _image: Option<&dyn State>) -> Result<Range<Seq>> {
        if !group.is_empty() {
            // Order: the name is durable before a commit depends on it.
            self.settle_name()?;
        }
        let seqs = self.writer()?.append(group)?;
        // Order: after the frame is durable and before the commit is acknowledged, so that no
        // commit is acknowledged which an opening would not find.
        if self.durability == Durability::Sync {
            self.files.check_name(&mut self.write_state, seqs.start)?;
        }
        let LogEnd { seq, digest, .. } = *self.writer.end();
        self.history.go_on(seq, digest);
        // Order: after the frame is durable and before the commit is acknowledged, as in a Wal.
        if self.durability == Durability::Sync || self.writer.counts().groups == 1 {
            self.live.announce(&self.writer);
        }
        Ok(seqs)
    }

    fn sync_point(&mut self) -> Result<Option<SyncPoint>> {
        self.writer()?;
        self.check_name()?;
        self.writer()?.sync_point()
    }

    fn synced(&mut self, outcome: Result<Seq>) -> Result<()> {
        self.writer()?.synced(outcome)?;
        self.live.announce(&self.writer);
        Ok(())
    }

    fn begin_checkpoint(&mut self, _state: &dyn State) -> Result<Option<Checkpoint>> {
        self.writer()?;
        self.check_name().map(|()| None)
    }

    fn finish_checkpoint(&mut self, done: Result<Written>) -> Result<()> {
        self.finish_rekey(done)
    }

    fn retired(&mut self) -> Option<Retired> {
        self.retired.take()
    }

    fn change_key(&mut self, keys: &dyn Keys) -> Result<()> {
        self.change(keys)
    }

    fn rekey(&mut self, keys: &dyn Keys, _state: &dyn State) -> Result<Option<Checkpoint>> {
        self.begin_rekey(keys).map(Some)
    }

    fn wants_checkpoint(&self) -> bool {
        false
    }

    fn close(&mut self, _state: &dyn State) -> Result<()> {
        let closed = match self.write_state.check() {
            Ok(()) => self.check_name().and_then(|()| self.writer.close()),
            Err(e @ Error::Poisoned { .. }) => Err(e),
            // The store is already closed.
            Err(_) => Ok(()),
        };
        self.write_state.close();
        closed
    }

    fn main_file(&mut self) -> Result<MainFile> {
        let file = MainFile::open(&self.files.vfs, self.files.names.main())?;
        let LogEnd { seq, offset, .. } = *self.writer()?.end();
        Ok(file.upto(seq, offset))
    }

    fn log_parts(&mut self) -> Result<Vec<LogPart>> {
        self.check_name()?;
        self.writer()?;
        Ok(vec![self.writer.part(&self.header)])
    }

    fn stored(&self) -> Option<Stored<'_>> {
        Some(Stored { files: &self.files, header: &self.header, history: &self.history })
    }

    fn stats(&self) -> StorageStats {
        let (end, counts) = (self.writer.end(), self.writer.counts());
        StorageStats {
            seq: end.seq,
            durable: self.writer.durable(),
            groups: counts.groups,
            syncs: counts.syncs,
            log_bytes: end.offset,
            ..StorageStats::default()
        }
    }

    fn anchor(&mut self) -> Anchor {
        self.history.anchor()
    }

    fn poisoned(&self) -> Option<String> {
        let of_log = || self.writer.poisoned().map(str::to_owned);
        self.write_state.poisoned().or_else(of_log)
    }
}

/// Passes the operations of all commits to `sink`. Returns the findings of the reader, the history,
/// and the result of comparing the anchor.
fn read(
    files: &StoreFiles,
    config: &Config,
    file: Arc<dyn File>,
    header: &Header,
    sink: &mut OpSink<'_>,
) -> Result<(LogState, History, Option<AnchorFound>)> {
    let path = files.path();
    let mut history = History::base(header);
    let mut watch = AnchorWatch::new(config.anchor, config.accept_unknown_anchor);
    watch.pass(history.end(), &path)?;
    let mut reader = LogReader::new(file, &path, header, files.seal.clone(), 0, config.on_damage)?;
    while let Some(group) = reader.next()? {
        group.for_each_commit(&mut |commit| {
            let digest = Stamp::read(commit.batch.extra).digest;
            let position = Position { seq: commit.seq, digest };
            // Listed for the image of a copy in another form.
            history.list(position);
            watch.pass(position, &path)
        })?;
        group.for_each(sink)?;
    }
    let anchor = watch.end(&mut history, &path)?;
    let state = reader.finish();
    history.go_on(state.end.seq, state.end.digest);
    Ok((state, history, anchor))
}

/// Opens the file `name` and reads its header.
fn open_main(vfs: &Vfs, name: &str) -> Result<(Arc<dyn File>, Found)> {
    let path = vfs.dir.path(name);
    let file = vfs.dir.open(name, Open::Read).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound { path: path.clone() },
        _ => Error::io("open", &path, e),
    })?;
    let found = Found::read(&*file, &path)?;
    Ok((file, found))
}

/// Prepares the file `temporary` for the name of the ledger.
pub(crate) fn prepare(files: &StoreFiles, temporary: &str) -> Result<()> {
    let prepared = files.prepare(temporary, None);
    prepared.map_err(|e| Error::io("replace", &files.path(), e))
}

/// Returns the place of the ledger and the way in which it is written.
fn log_place(files: &StoreFiles, durability: Durability) -> LogPlace {
    LogPlace {
        vfs: files.vfs.clone(),
        name: files.names.main().to_owned(),
        seal: files.seal.clone(),
        durability,
    }
}

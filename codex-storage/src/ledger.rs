//! The Ledger form: one log that keeps every commit ever, with its time, chained by SHA-256.

mod key;
mod past;
mod rewrite;
mod upto;

use std::ops::Range;
use std::sync::Arc;

pub use past::{LedgerCommit, LedgerCut, read_commits};
pub use upto::ledger_upto;

pub(crate) use rewrite::{Rewrite, install, write_ledger};

use crate::batch::{Group, Op, Seq};
use crate::condition::Condition;
use crate::config::{Config, OnDamage};
use crate::digest::Stamp;
use crate::error::{Error, Result};
use crate::header::{Found, Header};
use crate::history::{AnchorWatch, History, Position};
use crate::image::Place;
use crate::lock::StoreLock;
use crate::log::{LogEnd, LogPlace, LogReader, LogState, LogWriter, NewLog, layout, recover};
use crate::names::Temporary;
use crate::seal::{Keys, Seal};
use crate::storage::{
    Anchor, AnchorFound, Checkpoint, Cut, Durability, Form, Recovered, Retired, State, Storage,
    StorageStats, SyncPoint, Written,
};
use crate::vfs::{File, Open, Vfs};

/// An open store of the form Ledger.
#[derive(Debug)]
pub(crate) struct Ledger {
    place: Place,
    condition: Condition,
    durability: Durability,
    on_damage: OnDamage,
    watch: AnchorWatch,
    phase: Phase,
    /// Of the file in place.
    header: Header,
    /// What a rekey is copying.
    pending: Option<Rewrite>,
    /// The file that a rekey has replaced.
    retired: Option<Retired>,
    /// The end as replay has found it.
    end: LogEnd,
    /// Whether the name of the file is known to be durable: this handle has made it so, or a
    /// commit was made on it.
    is_named: bool,
    /// Up to the last commit that was acknowledged, or found by replay.
    history: History,
}

#[derive(Debug)]
enum Phase {
    /// Not yet replayed.
    Opened(Arc<dyn File>),
    /// Replayed to be read only; or the replay has failed.
    Read,
    Writing(Box<LogWriter>),
}

impl Ledger {
    /// The store whose main file, with this header, was opened.
    pub(crate) fn new(
        place: Place,
        condition: Condition,
        config: &Config,
        file: Arc<dyn File>,
        header: Header,
    ) -> Self {
        let end = LogEnd::base(&header);
        let history = History::base(&header);
        Self {
            // A ledger that is being made has no name that could be lost.
            is_named: place.lock.is_none(),
            place,
            header,
            pending: None,
            retired: None,
            condition,
            durability: config.durability,
            on_damage: config.on_damage,
            watch: AnchorWatch::new(config.anchor, config.accept_unknown_anchor),
            phase: Phase::Opened(file),
            history,
            end,
        }
    }

    /// Makes a new ledger at the store's own name.
    ///
    /// # Errors
    /// `NoSpace`, `Io`: where the name could not be made durable, the file may be there, and its
    /// first commit names it again.
    pub(crate) fn create(
        place: Place,
        condition: Condition,
        config: &Config,
        header: Header,
    ) -> Result<Self> {
        let header = Header { generation: 1, ..header };
        let temporary = place.names.temporary(Temporary::Ledger);
        let new = NewLog::write(log_place(&place, config.durability), header, temporary.clone())?;
        prepare(&place, &temporary)?;
        new.publish()?;
        place.has_name();
        let (file, found) = open_main(&place.vfs, place.names.main())?;
        let header = found.authenticate(place.seal.as_deref(), &place.path())?;
        let ledger = Self::new(place, condition, config, file, header);
        Ok(Self { is_named: true, ..ledger })
    }

    /// Reads all commits; the operations go to `sink`.
    fn read(
        &mut self,
        file: Arc<dyn File>,
        sink: &mut dyn FnMut(Op<'_>) -> Result<()>,
    ) -> Result<(LogState, Option<AnchorFound>)> {
        let (path, header) = (self.condition.path(), &self.header);
        self.watch.pass(self.history.end(), path)?;
        let seal = self.place.seal.clone();
        let mut reader = LogReader::new(file, path, header, seal, 0, self.on_damage)?;
        while let Some(group) = reader.next()? {
            group.for_each_commit(&mut |commit| {
                let digest = Stamp::read(commit.batch.extra).digest;
                let position = Position { seq: commit.seq, digest };
                // For the image of a copy in another form.
                self.history.list(position);
                self.watch.pass(position, path)
            })?;
            group.for_each(sink)?;
        }
        let anchor = self.watch.end(&mut self.history, path)?;
        Ok((reader.finish(), anchor))
    }

    /// Makes the log ready to be continued.
    fn recover(&self, state: &LogState) -> Result<LogWriter> {
        let (vfs, path) = (&self.place.vfs, self.condition.path());
        let file = vfs
            .dir
            .open(self.place.names.main(), Open::Write)
            .map_err(|e| Error::not_writable(path, e))?;
        recover(log_place(&self.place, self.durability), file, &self.header, state)
    }

    pub(super) fn writer(&mut self) -> Result<&mut LogWriter> {
        self.condition.check()?;
        match &mut self.phase {
            Phase::Writing(writer) => Ok(writer),
            Phase::Opened(_) | Phase::Read => Err(Error::Contradiction(NOT_REPLAYED)),
        }
    }

    /// Checks that an opening would find the ledger.
    fn check_name(&mut self) -> Result<()> {
        let seq = self.history.seq().min(self.writer()?.durable() + 1);
        self.place.check_name(&mut self.condition, seq)
    }

    /// Prepares the file `temporary` for the ledger's name.
    fn prepare(&self, temporary: &str) -> Result<()> {
        prepare(&self.place, temporary)
    }

    fn end(&self) -> &LogEnd {
        match &self.phase {
            Phase::Writing(writer) => writer.end(),
            Phase::Opened(_) | Phase::Read => &self.end,
        }
    }
}

impl Storage for Ledger {
    fn form(&self) -> Form {
        Form::Ledger
    }

    fn replay(&mut self, sink: &mut dyn FnMut(Op<'_>) -> Result<()>) -> Result<Recovered> {
        let Phase::Opened(file) = std::mem::replace(&mut self.phase, Phase::Read) else {
            return Err(Error::Contradiction("a storage is replayed once, before anything else"));
        };
        let is_new = self.is_named && self.place.lock.is_some();
        let (state, anchor) = self.read(file, sink)?;
        self.end = state.end;
        self.history.go_on(self.end.seq, self.end.digest);
        if self.condition.writes() {
            self.phase = Phase::Writing(Box::new(self.recover(&state)?));
        }
        self.is_named |= state.end.seq > self.header.named_seq;
        Ok(Recovered {
            stray: None,
            seq: state.end.seq,
            durable: state.durable,
            clean: state.tail_end.is_none() && (state.end.closed || is_new),
            replayed: state.end.seq - self.header.base_seq,
            cut: state.tail_end.map(|tail_end| Cut {
                file: self.place.names.main().to_owned(),
                offset: state.end.offset,
                bytes: tail_end - state.end.offset,
                seq: state.end.seq,
            }),
            locked: self.place.is_locked(),
            anchor,
        })
    }

    fn group(&self) -> Group {
        Group::new(layout(Form::Ledger, self.place.seal.is_some()))
    }

    fn commit(&mut self, group: &mut Group, _image: Option<&dyn State>) -> Result<Range<Seq>> {
        if !group.is_empty() {
            self.settle_name()?;
        }
        let seqs = self.writer()?.append(group)?;
        // Order: after the frame is durable and before anybody is told, so that no commit is
        // acknowledged which an opening would not find.
        if self.durability == Durability::Sync {
            self.place.check_name(&mut self.condition, seqs.start)?;
        }
        let LogEnd { seq, digest, .. } = *self.end();
        self.history.go_on(seq, digest);
        Ok(seqs)
    }

    fn sync_point(&mut self) -> Result<Option<SyncPoint>> {
        self.writer()?;
        self.check_name()?;
        self.writer()?.sync_point()
    }

    fn synced(&mut self, outcome: Result<Seq>) -> Result<()> {
        self.writer()?.synced(outcome)
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
        let closed = match (&mut self.phase, self.condition.check()) {
            (_, Err(e @ Error::Poisoned { .. })) => Err(e),
            (Phase::Writing(writer), Ok(())) => {
                let seq = self.history.seq().min(writer.durable() + 1);
                let found = self.place.check_name(&mut self.condition, seq);
                found.and_then(|()| writer.close())
            }
            _ => Ok(()),
        };
        self.condition.close();
        closed
    }

    fn image_elsewhere(&self, to: &Vfs, name: &str) -> Result<Checkpoint> {
        self.place.image_elsewhere(to, name, &self.header, &self.history)
    }

    fn lock(&self) -> Option<Arc<StoreLock>> {
        self.place.lock.clone()
    }

    fn seal(&self) -> Option<Arc<dyn Seal>> {
        self.place.seal.clone()
    }

    fn stats(&self) -> StorageStats {
        let end = self.end();
        let mut stats = StorageStats {
            seq: end.seq,
            durable: end.seq,
            log_bytes: end.offset,
            ..StorageStats::default()
        };
        if let Phase::Writing(writer) = &self.phase {
            let counts = writer.counts();
            stats.durable = writer.durable();
            stats.groups = counts.groups;
            stats.syncs = counts.syncs;
        }
        stats
    }

    fn anchor(&mut self) -> Anchor {
        self.history.anchor()
    }

    fn history(&self) -> History {
        self.history.clone()
    }

    fn poisoned(&self) -> Option<String> {
        let of_log = || match &self.phase {
            Phase::Writing(writer) => writer.poisoned().map(str::to_owned),
            Phase::Opened(_) | Phase::Read => None,
        };
        self.condition.poisoned().or_else(of_log)
    }
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

/// Prepares the file `temporary` for the ledger's name.
pub(crate) fn prepare(place: &Place, temporary: &str) -> Result<()> {
    let prepared = place.prepare(temporary, None);
    prepared.map_err(|e| Error::io("replace", &place.path(), e))
}

fn log_place(place: &Place, durability: Durability) -> LogPlace {
    LogPlace {
        vfs: place.vfs.clone(),
        name: place.names.main().to_owned(),
        seal: place.seal.clone(),
        durability,
    }
}

const NOT_REPLAYED: &str = "a storage is replayed before it is written to";

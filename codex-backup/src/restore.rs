//! Restore: decided by a durable record first, then finished, however often it is interrupted.

use codex_storage::names::BackupTemporary::{self, Making, Staged};
use codex_storage::names::Role;
use codex_storage::vfs::{Kind, Mode, Open};

use crate::backups::Backups;
use crate::copy::{self, Source, Watch};
use crate::error::{Error, Named, Result};
use crate::inspect::{Facts, to_the_end};
use crate::intent::{Intent, MOVES_MAX, is_backup};
use crate::job::Job;
use crate::slots;

/// A restore that is finished.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// What the restored file says of itself.
    pub facts: Facts,
    /// The backup it came from; `None` where its caller wrote it.
    pub from: Option<String>,
    /// What it replaced: the old name and the name under which it is kept.
    pub replaced: Vec<(String, String)>,
}

/// A restore that was interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pending {
    /// The backup it restores; `None` where its caller wrote it.
    pub from: Option<String>,
    /// The version it restores.
    pub seq: u64,
    /// What it replaces: the old name and the name under which it is kept.
    pub replaced: Vec<(String, String)>,
}

impl Backups {
    /// Puts a copy of the backup with this index in the place of the file. The backup stays.
    ///
    /// Nobody may have the file open for writing: the caller holds its lock. `sidecars` are the
    /// names of the log segments of the present file, which would be mistaken for part of the
    /// restored one; they are moved away with it. What is replaced is kept as
    /// `NAME.replaced.<n>`, each segment with its ending. A crash leaves the old file with
    /// all its side files, or a record from which [`finish_restore`](Self::finish_restore) goes
    /// on to the new one.
    ///
    /// # Errors
    ///
    /// As [`restore_from`](Self::restore_from).
    pub fn restore(
        &self,
        index: u32,
        sidecars: &[String],
        watch: &mut Watch<'_>,
    ) -> Result<Restored> {
        let name = self.names.backup(index);
        self.restore_from(Source::Frozen { name: &name }, None, sidecars, watch)
    }

    /// Like [`restore`](Self::restore), from any source: a file in the same directory, or bytes
    /// that the caller writes, such as the state at an earlier time. With `about`, the restored
    /// file must be of that version. Only a restore from a backup makes its staged file again if
    /// that is lost.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] and the like when the source is no good, [`Error::Unrelated`] when it is
    /// of another file and that was [not asked for](crate::Options), [`Error::NoSpace`],
    /// [`Error::RestorePending`] when another restore must be finished first: in all of these
    /// nothing changed. After [`Error::Io`] the restore may be pending
    /// ([`pending_restore`](Self::pending_restore) tells).
    pub fn restore_from(
        &self,
        source: Source<'_>,
        about: Option<&Facts>,
        sidecars: &[String],
        watch: &mut Watch<'_>,
    ) -> Result<Restored> {
        let _lock = self.lock()?;
        self.refuse_pending()?;
        let about = match about {
            Some(about) => Some(about.clone()),
            None => copy::source_facts(self.dir(), &source, &*self.inspect, watch)?,
        };
        if let Some(about) = &about {
            self.refuse_unrelated(&about.id)?;
        }
        let origin = match &source {
            Source::Frozen { name }
            | Source::Growing { name, .. }
            | Source::Opened { name, .. }
                if is_backup(&self.names, name) =>
            {
                (*name).to_owned()
            }
            _ => String::new(),
        };
        let moves = self.moves(sidecars)?;
        let staged = self.free(Staged)?;
        let mode = mode_of(about.as_ref());
        // Nobody writes beside it.
        let job = Job { pace: None, ..self.job(&staged, mode, about.as_ref()) };
        let decided = job.run(source, watch).and_then(|copied| {
            self.refuse_unrelated(&copied.facts.id)?;
            self.inherit(&staged, mode)?;
            let main = self.name().to_owned();
            let intent = Intent { main, origin, facts: copied.facts, moves };
            self.decide(&intent)?;
            Ok(intent)
        });
        let intent = decided.inspect_err(|_| {
            // Where nobody can tell whether the record has its name, it may need the staged file.
            let record = self.dir().metadata(&self.names.restore_record());
            if matches!(record, Ok(None)) {
                copy::discard(self.dir(), &staged);
            }
        })?;
        self.finish(&intent)
    }

    /// Finishes a restore that was interrupted; `None` where there is none. To be called before
    /// the file is opened for writing, by who holds its lock, and before
    /// [`adopt`](Self::adopt). Takes no lock of its own where there is nothing to do.
    ///
    /// # Errors
    ///
    /// [`Error::RestoreBroken`] when the record or what it needs is damaged; its message says
    /// what to do.
    pub fn finish_restore(&self) -> Result<Option<Restored>> {
        if !self.is_pending()? {
            return Ok(None);
        }
        let _lock = self.lock()?;
        let Some(intent) = self.intent()? else { return Ok(None) };
        // Order: the record is written again and synced before the first name moves. The process
        // that wrote it may have been killed before its name was durable, or after a failed sync,
        // and a power cut could then keep the moves and lose the record.
        self.decide(&intent)?;
        self.finish(&intent).map(Some)
    }

    /// Whether a restore was interrupted: then the file must not be read either, since it may be
    /// missing or still be the old one. Writes nothing and takes no lock.
    pub fn pending_restore(&self) -> Result<Option<Pending>> {
        let pending = |intent: Intent| Pending {
            seq: intent.facts.seq,
            from: Some(intent.origin).filter(|origin| !origin.is_empty()),
            replaced: intent.moves,
        };
        Ok(self.intent()?.map(pending))
    }

    pub(crate) fn refuse_pending(&self) -> Result<()> {
        let Some(intent) = self.intent()? else { return Ok(()) };
        Err(Error::RestorePending { path: self.dir().path(self.name()), from: origin_of(&intent) })
    }

    /// Refuses to replace another file by a version of the file `id`.
    fn refuse_unrelated(&self, id: &[u8]) -> Result<()> {
        match self.owner()? {
            Some(owner) if owner != id => {
                Err(Error::Unrelated { path: self.dir().path(self.name()) })
            }
            _ => Ok(()),
        }
    }

    /// What has to move out of the way, and free names for it.
    fn moves(&self, sidecars: &[String]) -> Result<Vec<(String, String)>> {
        let dir = self.dir();
        let why = "is no log segment of the file to restore, and only those move away with it";
        let invalid = |name: &str| Error::Invalid { value: name.to_owned(), why };
        let is_segment = |name: &str| matches!(self.names.role(name), Some(Role::Segment(_)));
        if let Some(other) = sidecars.iter().find(|name| !is_segment(name)) {
            return Err(invalid(other));
        }
        if sidecars.len() >= MOVES_MAX {
            let why = "has too many log segments to move away at once; remove what is not needed";
            return Err(Error::Invalid { value: self.name().to_owned(), why });
        }
        let taken = dir.list().named("list the folder of", dir, self.name())?;
        let mut files = Vec::new();
        for name in sidecars.iter().map(String::as_str).chain([self.name()]) {
            match dir.metadata(name).named("look at", dir, name)? {
                Some(found) if found.kind == Kind::File => files.push(name.to_owned()),
                Some(_) => return Err(copy::not_a_file(dir, name, self.name())),
                None => {}
            }
        }
        let is_free = |n: &u32| {
            let base = format!("{}.replaced.{n}", self.name());
            let under = format!("{base}.");
            !taken.iter().any(|name| *name == base || name.starts_with(&under))
        };
        let n = (1..u32::MAX).find(is_free).unwrap_or(u32::MAX);
        let pair = |name: String| {
            let kept = self.names.replaced(n, &name).ok_or_else(|| invalid(&name))?;
            Ok((name, kept))
        };
        files.into_iter().map(pair).collect()
    }

    /// Makes the record durable: from here on the restore happens.
    fn decide(&self, intent: &Intent) -> Result<()> {
        let dir = self.dir();
        let record = self.names.restore_record();
        let bytes = intent.encode();
        let invalid = |why| Error::Invalid { value: self.name().to_owned(), why };
        Intent::decode(&self.names, &bytes).map_err(invalid)?;
        let temporary = self.free(Making)?;
        let written = (|| {
            let needed = bytes.len() as u64;
            let create = Open::CreateNew(Mode::Private);
            let file = dir.open(&temporary, create).filling("create", dir, &temporary, needed)?;
            file.write_all_at(&bytes, 0).filling("write", dir, &temporary, needed)?;
            file.sync().filling("sync", dir, &temporary, needed)?;
            // The staged file's name must last at least as long as the record that names it.
            self.sync()?;
            self.rename(&temporary, &record)
        })();
        written.inspect_err(|_| copy::discard(dir, &temporary))?;
        self.sync()
    }

    /// Goes through the steps, each of which may have been taken before.
    fn finish(&self, intent: &Intent) -> Result<Restored> {
        let dir = self.dir();
        if !self.is_in_place(intent)? {
            let staged = self.stage_again(intent)?;
            for (from, to) in &intent.moves {
                let done = dir.metadata(to).named("look at", dir, to)?.is_some();
                if !done && dir.metadata(from).named("look at", dir, from)?.is_some() {
                    self.rename(from, to)?;
                }
            }
            if dir.metadata(self.name()).named("look at", dir, self.name())?.is_some() {
                let what = "another file has taken the place of the one it replaced";
                return Err(self.broken(what));
            }
            // Otherwise the new name could outlive a crash and the old file's new name not.
            self.sync()?;
            self.rename(&staged, self.name())?;
        }
        self.sync()?;
        let facts = slots::facts(dir, self.name(), &*self.inspect, &mut to_the_end)?;
        let record = self.names.restore_record();
        dir.remove(&record).named("remove", dir, &record)?;
        self.sync()?;
        let from = Some(intent.origin.clone()).filter(|origin| !origin.is_empty());
        Ok(Restored { facts, from, replaced: intent.moves.clone() })
    }

    /// Whether the last step was taken: the staged file is gone and its version is in place.
    fn is_in_place(&self, intent: &Intent) -> Result<bool> {
        let dir = self.dir();
        let staged = self.names.backup_temporary(Staged);
        let is_there = |name: &str| Ok(dir.metadata(name).named("look at", dir, name)?.is_some());
        if is_there(&staged)? || !is_there(self.name())? {
            return Ok(false);
        }
        for (_, to) in &intent.moves {
            if !is_there(to)? {
                return Ok(false);
            }
        }
        match slots::facts(dir, self.name(), &*self.inspect, &mut to_the_end) {
            Ok(facts) => Ok(facts.same_version(&intent.facts)),
            Err(Error::Io { action, path, source }) => Err(Error::Io { action, path, source }),
            Err(_) => Ok(false),
        }
    }

    /// The staged file, verified again; made anew from its backup where it is gone or damaged.
    fn stage_again(&self, intent: &Intent) -> Result<String> {
        let (dir, staged) = (self.dir(), self.names.backup_temporary(Staged));
        let found = match dir.open(&staged, Open::Read).named("open", dir, &staged) {
            Err(Error::Missing { .. }) => None,
            // What cannot be opened now may be good, and the only one there is.
            file => Some(file?),
        };
        if let Some(file) = found {
            match self.inspect.verify(&file, crate::Depth::Checksums, &mut to_the_end) {
                Ok(facts) if facts.same_version(&intent.facts) => return Ok(staged),
                Err(crate::InspectError::Read(error)) => {
                    return Err(error).named("read", dir, &staged);
                }
                _ => dir.remove(&staged).named("remove", dir, &staged)?,
            }
        }
        if intent.origin.is_empty() {
            return Err(self.broken("the staged file is gone or damaged"));
        }
        let source = Source::Frozen { name: &intent.origin };
        let mode = mode_of(Some(&intent.facts));
        let job = self.job(&staged, mode, Some(&intent.facts));
        match (Job { pace: None, ..job }).run(source, &mut copy::unwatched) {
            Ok(_) => {
                self.sync()?;
                Ok(staged)
            }
            Err(error) => {
                copy::discard(dir, &staged);
                match error {
                    Error::Io { .. } | Error::NoSpace { .. } => Err(error),
                    other => Err(self.broken(&other.to_string())),
                }
            }
        }
    }

    fn broken(&self, what: &str) -> Error {
        let path = self.dir().path(&self.names.restore_record());
        Error::RestoreBroken { path, what: what.to_owned() }
    }

    pub(crate) fn is_pending(&self) -> Result<bool> {
        let record = self.names.restore_record();
        Ok(self.dir().metadata(&record).named("look at", self.dir(), &record)?.is_some())
    }

    /// The name of a temporary, free: a crash may have left one. Called under the lock, while no
    /// restore is pending.
    fn free(&self, what: BackupTemporary) -> Result<String> {
        let (dir, name) = (self.dir(), self.names.backup_temporary(what));
        match dir.metadata(&name).named("look at", dir, &name)? {
            None => {}
            Some(found) if found.kind == Kind::File => {
                dir.remove(&name).named("remove", dir, &name)?;
            }
            Some(_) => return Err(copy::not_a_file(dir, &name, self.name())),
        }
        Ok(name)
    }

    pub(crate) fn intent(&self) -> Result<Option<Intent>> {
        let dir = self.dir();
        let record = self.names.restore_record();
        match dir.metadata(&record).named("look at", dir, &record)? {
            None => return Ok(None),
            Some(found) if found.kind == Kind::File => {}
            Some(_) => return Err(copy::not_a_file(dir, &record, self.name())),
        }
        let file = match dir.open(&record, Open::Read).named("open", dir, &record) {
            // Finished by somebody else between the two calls.
            Err(Error::Missing { .. }) => return Ok(None),
            file => file?,
        };
        let len = file.len().named("read", dir, &record)?;
        let len = usize::try_from(len).ok().filter(|&len| len <= LIMIT_BYTES);
        let mut bytes = vec![0; len.ok_or_else(|| self.broken("its record is too long"))?];
        file.read_exact_at(&mut bytes, 0).named("read", dir, &record)?;
        Intent::decode(&self.names, &bytes).map(Some).map_err(|what| self.broken(what))
    }
}

/// An image is only ever replaced; what grows in place must be writable.
fn mode_of(facts: Option<&Facts>) -> Mode {
    if facts.is_some_and(|facts| facts.frozen) { Mode::Frozen } else { Mode::Private }
}

fn origin_of(intent: &Intent) -> String {
    if intent.origin.is_empty() { "bytes of its caller".to_owned() } else { intent.origin.clone() }
}

/// No record is longer: one of the most moves, with the longest names, is not.
const LIMIT_BYTES: usize = 64 * 1024 * 1024;

//! Restores a backup. A durable record decides the restore, which can be interrupted and continued
//! any number of times.

use codex_storage::names::BackupTemporary::{self, Making, Staged};
use codex_storage::names::Role;
use codex_storage::vfs::{Kind, Mode, Open};

use crate::backups::Backups;
use crate::copy::{self, Source, Watch};
use crate::error::{Error, Named, Result};
use crate::inspect::{Facts, to_the_end};
use crate::intent::{Intent, MOVES_MAX, is_backup};
use crate::job::Job;
use crate::pending::FINISHED;
use crate::slots;

/// A finished restore.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The facts of the restored file.
    pub facts: Facts,
    /// The backup that was restored, or `None` if the caller produced the bytes.
    pub from: Option<String>,
    /// The replaced files: the old name and the name under which each is kept.
    pub replaced: Vec<(String, String)>,
}

impl Backups {
    /// Replaces the file by a copy of the backup with this index. The backup stays.
    ///
    /// The caller holds the lock of the file, so that no other process has it open for writing.
    /// `sidecars` are the names of the log segments of the current file. They are moved away with
    /// it, because they would otherwise be read as part of the restored file. The replaced file is
    /// kept as `NAME.replaced.<n>`, and each segment with its suffix.
    ///
    /// A crash leaves either the old file with all its log segments, or a record from which
    /// [`finish_restore`](Self::finish_restore) continues.
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
        let source = Source::open(&self.vfs, &name)?;
        self.restore_from(source, None, sidecars, watch)
    }

    /// Like [`restore`](Self::restore), from any source: a file in the same directory, or bytes
    /// that the caller produces, such as the state at an earlier time. If `about` is set, the
    /// restored file must have that version. If the staged file is lost in a crash, it can be made
    /// again only if the source is a backup.
    ///
    /// # Errors
    ///
    /// - [`Error::Damaged`] and the other errors of [`verify`](Self::verify) if the source is not
    ///   good.
    /// - [`Error::Unrelated`] if the source is a version of another file and
    ///   [`replace_unrelated`](crate::Options::replace_unrelated) is not set.
    /// - [`Error::NoSpace`] if the copy does not fit.
    /// - [`Error::Busy`] if another call holds the rotation lock, and [`Error::RestorePending`] if
    ///   another restore must be finished first.
    ///
    /// In these cases nothing has changed. After [`Error::Io`] the restore may be pending;
    /// [`pending_restore`](Self::pending_restore) returns whether it is.
    pub fn restore_from(
        &self,
        source: Source<'_>,
        about: Option<&Facts>,
        sidecars: &[String],
        watch: &mut Watch<'_>,
    ) -> Result<Restored> {
        let _lock = self.lock()?;
        // Order: a pending restore is refused before temporaries are freed, because it needs the
        // staged file.
        self.refuse_pending()?;
        let about = match about {
            Some(about) => Some(about.clone()),
            None => copy::source_facts(self.dir(), &source, &*self.inspect, watch)?,
        };
        if let Some(about) = &about {
            self.refuse_unrelated(&about.id)?;
        }
        // Only a backup can be named in the record, from which the staged file can be made again.
        let origin = match &source {
            Source::File { name, .. } if is_backup(&self.names, name) => (*name).to_owned(),
            _ => String::new(),
        };
        // Order: the end of an earlier restore is durable before a file is staged. If a power cut
        // brought its record back, it would take the staged file for its own.
        self.end_finished()?;
        self.sync()?;
        let moves = self.moves(sidecars)?;
        let staged = self.free(Staged)?;
        let mode = mode_of(about.as_ref());
        // The file is not open for writing, so no other sync waits for the copy.
        let job = Job { pace: None, ..self.job(&staged, mode, about.as_ref()) };
        // Order: the staged file is complete, synced and verified before the record names it.
        let decided = job.run(source, watch).and_then(|copied| {
            self.refuse_unrelated(&copied.facts.id)?;
            self.inherit(&staged, mode)?;
            let main = self.name().to_owned();
            let intent = Intent { main, origin, facts: copied.facts, moves };
            self.decide(&intent)?;
            Ok(intent)
        });
        let intent = decided.inspect_err(|_| {
            // Remove the staged file only if the record certainly has no name; otherwise the record
            // may need it.
            let record = self.dir().metadata(&self.names.restore_record());
            if matches!(record, Ok(None)) {
                copy::discard(self.dir(), &staged);
            }
        })?;
        self.finish(&intent)
    }

    /// Finishes an interrupted restore. Returns `None` if there is none, or if it was interrupted
    /// after its last step.
    ///
    /// The caller holds the lock of the file, and calls this before it opens the file for writing
    /// and before [`adopt`](Self::adopt). Takes no rotation lock if there is nothing to do.
    ///
    /// # Errors
    ///
    /// [`Error::RestoreBroken`] if the record or a file it needs is damaged; the message contains
    /// the next step. [`Error::Busy`] if another call holds the rotation lock.
    pub fn finish_restore(&self) -> Result<Option<Restored>> {
        if self.record()?.is_none() {
            return Ok(None);
        }
        let _lock = self.lock()?;
        self.end_finished()?;
        let Some(intent) = self.intent()? else { return Ok(None) };
        // Order: the record is written again and synced before the first name moves. The process
        // that wrote it may have been killed before the name was durable, or after a failed sync. A
        // power cut could then keep the moves and lose the record.
        self.decide(&intent)?;
        self.finish(&intent).map(Some)
    }

    /// Returns [`Error::Unrelated`] if the existing file is not a version of the file `id`.
    fn refuse_unrelated(&self, id: &[u8]) -> Result<()> {
        match self.owner()? {
            Some(owner) if owner != id => {
                Err(Error::Unrelated { path: self.dir().path(self.name()) })
            }
            _ => Ok(()),
        }
    }

    /// Returns the files to move away, with free names for them.
    fn moves(&self, sidecars: &[String]) -> Result<Vec<(String, String)>> {
        let dir = self.dir();
        let why = "is not a log segment of the file to restore; pass only those";
        let invalid = |name: &str| Error::Invalid { value: name.to_owned(), why };
        let is_segment = |name: &str| matches!(self.names.role(name), Some(Role::Segment(_)));
        if let Some(other) = sidecars.iter().find(|name| !is_segment(name)) {
            return Err(invalid(other));
        }
        if sidecars.len() >= MOVES_MAX {
            let why = "has too many log segments to move away at once; remove what is not needed";
            return Err(Error::Invalid { value: self.name().to_owned(), why });
        }
        // Only files that exist are moved. A file that is not a regular file is refused.
        let taken = dir.list().named("list the folder of", dir, self.name())?;
        let mut files = Vec::new();
        for name in sidecars.iter().map(String::as_str).chain([self.name()]) {
            match dir.metadata(name).named("look at", dir, name)? {
                Some(found) if found.kind == Kind::File => files.push(name.to_owned()),
                Some(_) => return Err(copy::not_a_file(dir, name, self.name())),
                None => {}
            }
        }
        // The first number under which no name is taken.
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

    /// Makes the record durable. The restore is decided when this succeeds.
    fn decide(&self, intent: &Intent) -> Result<()> {
        let dir = self.dir();
        let record = self.names.restore_record();
        let bytes = intent.encode();
        let invalid = |why| Error::Invalid { value: self.name().to_owned(), why };
        // A record that `finish_restore` would refuse must not be written.
        Intent::decode(&self.names, &bytes).map_err(invalid)?;
        let temporary = self.free(Making)?;
        let written = (|| {
            let needed = bytes.len() as u64;
            let create = Open::CreateNew(Mode::Private);
            let file = dir.open(&temporary, create).filling("create", dir, &temporary, needed)?;
            file.write_all_at(&bytes, 0).filling("write", dir, &temporary, needed)?;
            // Order: the record is synced before its rename, so that the name never refers to a
            // torn record.
            file.sync().filling("sync", dir, &temporary, needed)?;
            // Order: the directory is synced before the record is renamed, so that the staged file
            // keeps its name at least as long as the record that needs it.
            self.sync()?;
            self.rename(&temporary, &record)
        })();
        // Order: the name of the record is durable before the caller moves the first file.
        written.inspect_err(|_| copy::discard(dir, &temporary))?;
        self.sync()
    }

    /// Performs the steps of a restore. Each step may have been done before.
    fn finish(&self, intent: &Intent) -> Result<Restored> {
        let dir = self.dir();
        if !self.is_in_place(intent)? {
            let staged = self.stage_again(intent)?;
            // Order: all files move away before the staged file gets its name. The log segments,
            // which continue the old file, come first and the file last, so that they are never
            // replayed onto the new file.
            for (from, to) in &intent.moves {
                // A file that was moved before the interruption is not moved again.
                let done = dir.metadata(to).named("look at", dir, to)?.is_some();
                if !done && dir.metadata(from).named("look at", dir, from)?.is_some() {
                    self.rename(from, to)?;
                }
            }
            if dir.metadata(self.name()).named("look at", dir, self.name())?.is_some() {
                let what = "another file has taken the place of the one it replaced";
                return Err(self.broken(what));
            }
            // Order: the moves are durable before the staged file is renamed. Otherwise a crash
            // could keep the new name and lose the name under which the old file is kept.
            self.sync()?;
            self.rename(&staged, self.name())?;
        }
        // Order: the restored file is durable under its name before the record is removed. After a
        // crash in between, only the steps from here on are done again.
        self.sync()?;
        let facts = slots::facts(dir, self.name(), &*self.inspect, &mut to_the_end)?;
        self.end_record()?;
        let from = Some(intent.origin.clone()).filter(|origin| !origin.is_empty());
        Ok(Restored { facts, from, replaced: intent.moves.clone() })
    }

    /// Ends the restore of a record that is marked as finished, durably. The process that has
    /// marked it may have been killed before the mark was synced. After a power cut the record
    /// would be one that is to be finished, although the file may have changed since.
    fn end_finished(&self) -> Result<()> {
        if self.record()? == Some(false) { self.end_record() } else { Ok(()) }
    }

    /// Marks the record as finished and removes it, durably.
    pub(crate) fn end_record(&self) -> Result<()> {
        let (dir, record) = (self.dir(), self.names.restore_record());
        // Order: the record is marked as finished, durably, before its name is removed. If the sync
        // of the folder fails below, commits may follow, and a power cut may bring the name back.
        let file = dir.open(&record, Open::Write).named("open", dir, &record)?;
        let marked = file.write_all_at(&[FINISHED], 0).and_then(|()| file.sync());
        marked.named("mark", dir, &record)?;
        dir.remove(&record).named("remove", dir, &record)?;
        self.sync()
    }

    /// Returns whether the last step was done: the staged file is gone and its version is in place.
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
        // The file may also be one that was put there after the interruption, so its version is
        // compared.
        match slots::facts(dir, self.name(), &*self.inspect, &mut to_the_end) {
            Ok(facts) => Ok(facts.same_version(&intent.facts)),
            Err(Error::Io { action, path, source }) => Err(Error::Io { action, path, source }),
            Err(_) => Ok(false),
        }
    }

    /// Returns the name of the staged file after verifying it again. If the file is missing or
    /// damaged, it is made again from its backup.
    fn stage_again(&self, intent: &Intent) -> Result<String> {
        let (dir, staged) = (self.dir(), self.names.backup_temporary(Staged));
        let found = match dir.open(&staged, Open::Read).named("open", dir, &staged) {
            Err(Error::Missing { .. }) => None,
            // A file that cannot be opened now may be good, and may be the only copy.
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
        let mode = mode_of(Some(&intent.facts));
        let job = Job { pace: None, ..self.job(&staged, mode, Some(&intent.facts)) };
        let source = Source::open(&self.vfs, &intent.origin);
        match source.and_then(|source| job.run(source, &mut copy::unwatched)) {
            // Order: the name of the staged file is durable before the caller moves the first file.
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

    /// Returns the name of a temporary after removing the file of that name, which a crash may have
    /// left. The caller holds the lock, and no restore is pending.
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
}

/// Returns the permissions of the restored file. An image is only replaced, so it is read-only; a
/// file that grows in place is writable.
fn mode_of(facts: Option<&Facts>) -> Mode {
    if facts.is_some_and(|facts| facts.frozen) { Mode::Frozen } else { Mode::Private }
}

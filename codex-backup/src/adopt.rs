//! Adoption: clears up what a crash left of a rotation, a restore or a copy.

use codex_storage::names::BackupTemporary::{self, Copying, Making, Ready, Staged};
use codex_storage::vfs::{Kind, Metadata};

use crate::backups::Backups;
use crate::copy::{self, Watch};
use crate::error::{Error, Named, Result};
use crate::inspect::Facts;
use crate::meter::sign_of_life;
use crate::slots;

/// The result of [`Backups::adopt`]: the remains of an interrupted rotation or copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Adopted {
    /// The facts of the backup without a number that became the newest one.
    pub adopted: Option<Facts>,
    /// The names of temporaries that were removed, and of the record of a finished restore.
    pub removed: Vec<String>,
    /// The names of temporaries that were not changed: each is not a regular file, or belongs to
    /// another file.
    pub left: Vec<String>,
}

impl Backups {
    /// Clears up after a crash. A backup without a number becomes the newest one if it is verified,
    /// or if it is not [authentic](crate::Trust) under the key of this handle, so that only its
    /// header can be checked. Other temporaries are removed.
    ///
    /// Call this when the file is opened for writing. Takes no lock if there is nothing to do, and
    /// does nothing if another call holds the lock.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the disk reports an error.
    pub fn adopt(&self) -> Result<Adopted> {
        if self.temporaries()?.is_empty() && self.record()? != Some(false) {
            return Ok(Adopted::default());
        }
        match self.try_lock()? {
            Some(_lock) => self.adopt_locked(&mut copy::unwatched),
            None => Ok(Adopted::default()),
        }
    }

    /// Clears up after a crash. The caller holds the lock.
    pub(crate) fn adopt_locked(&self, watch: &mut Watch<'_>) -> Result<Adopted> {
        let mut done = Adopted::default();
        if self.record()? == Some(false) {
            self.end_record()?;
            done.removed.push(self.names.restore_record());
        }
        for (what, found) in self.temporaries()? {
            let name = self.names.backup_temporary(what);
            if found.kind != Kind::File {
                done.left.push(name);
            } else if what == Ready {
                let main = slots::owner_of(self.dir(), self.name(), &*self.inspect)?;
                self.adopt_one(&name, main.as_deref(), &mut done, watch)?;
            } else {
                self.remove(name, &mut done)?;
            }
        }
        if !done.removed.is_empty() {
            self.sync()?;
        }
        Ok(done)
    }

    /// Makes the backup `name` the newest one, if it belongs to the file `main`. Otherwise leaves
    /// it. Removes it if it is damaged, or if another backup has its version.
    fn adopt_one(
        &self,
        name: &str,
        main: Option<&[u8]>,
        done: &mut Adopted,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        // Order: the backup is verified again before a name shifts, because a crash may have
        // damaged it.
        let depth = self.inspect.deepest();
        let reading = &mut |_| sign_of_life(watch);
        let read = slots::trust(self.dir(), name, &*self.inspect).and_then(|trust| {
            // A backup from before the key was changed cannot be verified. It is newer than those
            // with numbers and older than the next one, so it gets its number now. If it waited
            // until its key was back, it would be put in front of newer ones.
            let facts = if trust.counts() {
                slots::verify(self.dir(), name, &*self.inspect, depth, reading)
            } else {
                slots::facts(self.dir(), name, &*self.inspect, reading)
            };
            Ok((trust, facts?))
        });
        let (trust, facts) = match read {
            Ok(read) => read,
            // No key makes it good again.
            Err(
                Error::Damaged { .. } | Error::UnknownFormat { .. } | Error::Unauthentic { .. },
            ) => {
                return self.remove(name.to_owned(), done);
            }
            Err(error) => return Err(error),
        };
        let slots = self.scan()?;
        let upto = slots::first_gap(&slots);
        let ours = main.is_none_or(|id| id == facts.id)
            && slots::own(self.dir(), self.name(), &slots, &facts.id, upto).is_ok();
        if !ours {
            done.left.push(name.to_owned());
            return Ok(());
        }
        // A gap means that its rotation had begun to shift names. In that case an older backup of
        // the same version (of a store that was restored since) may have replaced another one for
        // it, so only the newest backup is compared.
        let shifting = slots.last().is_some_and(|oldest| oldest.index > upto);
        let look_at = if shifting { 1 } else { slots.len() };
        for slot in slots.iter().take(look_at) {
            let theirs = slots::facts_if_good(self.dir(), slot, &facts, &*self.inspect, watch)?;
            // Another backup has this version already.
            if theirs.is_some() {
                return self.remove(name.to_owned(), done);
            }
        }
        self.shift(name, upto, &slots)?;
        if trust.counts() {
            self.note_now(&self.names.backup(1), &facts, depth);
        }
        done.adopted = Some(facts);
        Ok(())
    }

    /// Returns [`Error::Foreign`] if a file that could not be adopted has a name that a rotation
    /// needs. A backup of this file was left because of a foreign file with a number, which
    /// [`own`](Self::own) reports.
    pub(crate) fn refuse_left(&self, adopted: &Adopted, about: Option<&Facts>) -> Result<()> {
        let main = match about {
            Some(about) => Some(about.id.clone()),
            None => slots::owner_of(self.dir(), self.name(), &*self.inspect)?,
        };
        for name in &adopted.left {
            let is_ready = *name == self.names.backup_temporary(Ready);
            let owner = slots::owner_of(self.dir(), name, &*self.inspect)?;
            if is_ready && owner.is_some() && owner == main {
                continue;
            }
            let found = self.dir().metadata(name).named("look at", self.dir(), name)?;
            let what = match found.map(|found| found.kind) {
                Some(Kind::File) | None => "a file of another origin",
                Some(other) => copy::kind_in_words(other),
            };
            let (path, of) = (self.dir().path(name), self.dir().path(self.name()));
            return Err(Error::Foreign { path, of, what: what.to_owned() });
        }
        Ok(())
    }

    /// Returns all temporaries of this file, except those that an interrupted restore still needs.
    fn temporaries(&self) -> Result<Vec<(BackupTemporary, Metadata)>> {
        let mut there = Vec::new();
        for what in [Making, Staged, Copying, Ready] {
            let name = self.names.backup_temporary(what);
            let found = self.dir().metadata(&name).named("look at", self.dir(), &name)?;
            if let Some(found) = found
                && !(what == Staged && self.is_pending()?)
            {
                there.push((what, found));
            }
        }
        Ok(there)
    }

    fn remove(&self, name: String, done: &mut Adopted) -> Result<()> {
        self.dir().remove(&name).named("remove", self.dir(), &name)?;
        done.removed.push(name);
        Ok(())
    }
}

//! Rotation: a new backup is whole, synced and verified before any name shifts.

use codex_storage::names::BackupTemporary::{self, Copying, Making, Ready, Staged};
use codex_storage::vfs::{Kind, Metadata, Mode};

use crate::backups::Backups;
use crate::copy::{self, Copied, Method, Source, Watch};
use crate::error::{Error, Named, Result};
use crate::inspect::{Depth, Facts};
use crate::meter::sign_of_life;
use crate::slots::{self, Slot};

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// What the newest backup says of itself.
    pub facts: Facts,
    /// How the new backup was made; `None` where the newest one was of the same version already,
    /// so that nothing rotated.
    pub method: Option<Method>,
    /// What a crash had left and this call cleared up.
    pub adopted: Adopted,
    /// Backups that were removed because there were more than are to be kept.
    pub pruned: Vec<String>,
}

/// What [`Backups::adopt`] found of an interrupted rotation or copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adopted {
    /// The verified backup that became the newest one.
    pub adopted: Option<Facts>,
    /// Temporaries that were removed.
    pub removed: Vec<String>,
    /// Temporaries by name that were left alone: not a regular file, another file's, or not
    /// authentic under the key.
    pub left: Vec<String>,
}

impl Backups {
    /// Makes a backup of `source` the newest one, unless the newest is of that version already.
    ///
    /// `about` is the version that `source` has, where the caller knows it; otherwise the source
    /// is asked. The new backup gets its name only when it is whole, synced, verified and of that
    /// version; until then all names stay as they are. Then the names shift, from the first gap
    /// down, the directory synced after each. A crash at any point costs no backup that was good:
    /// what was verified becomes the newest with the next rotation or [`adopt`](Self::adopt).
    ///
    /// # Errors
    ///
    /// [`Error::Foreign`] when a name that would be touched is not a backup of this file,
    /// [`Error::NoSpace`], [`Error::Busy`], [`Error::Changed`], or what the disk reports. After
    /// any error each backup is as it was, or moved along by one.
    pub fn rotate(
        &self,
        source: Source<'_>,
        about: Option<&Facts>,
        watch: &mut Watch<'_>,
    ) -> Result<Rotated> {
        let _lock = self.lock_watched(watch)?;
        self.refuse_pending()?;
        let about = match about {
            Some(about) => Some(about.clone()),
            None => copy::source_facts(self.dir(), &source, &*self.inspect, watch)?,
        };
        let adopted = self.adopt_locked(watch)?;
        self.refuse_left(&adopted, about.as_ref())?;
        let slots = self.scan()?;
        if let Some(about) = &about {
            self.own(&slots, &about.id)?;
            if let Some(facts) = self.unchanged(&slots, about, watch)? {
                // Order: a name that an interrupted rotation gave is durable before it counts.
                self.sync()?;
                let pruned = self.prune_locked(self.options.keep, &facts.id, watch)?;
                return Ok(Rotated { facts, method: None, adopted, pruned });
            }
        }
        let making = self.names.backup_temporary(Making);
        let made = self.job(&making, Mode::Frozen, about.as_ref()).run(source, watch);
        let made = made.and_then(|made| {
            self.own(&slots, &made.facts.id)?;
            self.inherit(&making, Mode::Frozen)?;
            Ok(made)
        });
        let Copied { facts, method } = made.inspect_err(|_| copy::discard(self.dir(), &making))?;
        let same =
            about.is_none() && self.unchanged(&slots, &facts, &mut copy::unwatched)?.is_some();
        if same {
            copy::discard(self.dir(), &making);
        } else {
            self.put_in_front(&making, &slots)?;
            self.note_now(&self.names.backup(1), &facts, Depth::Checksums);
        }
        let pruned = self.prune_locked(self.options.keep, &facts.id, watch)?;
        Ok(Rotated { facts, method: Some(method).filter(|_| !same), adopted, pruned })
    }

    /// Clears up after a crash: a verified backup that had not got its name yet becomes the newest
    /// one, other temporaries are removed. To be called when the file is opened for writing. Takes
    /// no lock where there is nothing to do, and does nothing while a rotation is going on.
    pub fn adopt(&self) -> Result<Adopted> {
        if self.temporaries()?.is_empty() {
            return Ok(Adopted::default());
        }
        match self.try_lock()? {
            Some(_lock) => self.adopt_locked(&mut copy::unwatched),
            None => Ok(Adopted::default()),
        }
    }

    /// Removes all but the newest `keep` backups that are whole and
    /// [count](crate::Trust::counts), and returns the names it removed. Files that are not backups
    /// of this file are left alone. 0 removes all of them.
    pub fn prune(&self, keep: u32) -> Result<Vec<String>> {
        let _lock = self.lock()?;
        self.refuse_pending()?;
        let slots = self.scan()?;
        let main = slots::owner_of(self.dir(), self.name(), &*self.inspect)?;
        let newest = slots.iter().find_map(|slot| slot.owner.clone().ok());
        match main.or(newest) {
            Some(id) => self.prune_locked(keep, &id, &mut copy::unwatched),
            None => Ok(Vec::new()),
        }
    }

    /// Refuses to go on when one of the names that a rotation may touch is no backup of the file
    /// `id`.
    fn own(&self, slots: &[Slot], id: &[u8]) -> Result<()> {
        let upto = self.options.keep.max(self.top(slots));
        slots::own(self.dir(), self.name(), slots, id, upto)
    }

    /// The name that is given up for the others to move along: that of the oldest, if all `keep`
    /// names have backups that count and there are no others. Else the first that is free, and
    /// pruning decides what goes, after reading what stays.
    fn top(&self, slots: &[Slot]) -> u32 {
        let (gap, keep) = (slots::first_gap(slots), self.options.keep);
        let ours = |slot: &&Slot| slot.owner.is_ok();
        let counts = |slot: &Slot| slots::counts(self.dir(), &slot.name, &*self.inspect);
        let is_regular = |slot: &Slot| slot.index <= keep && counts(slot);
        if slots.iter().filter(ours).all(is_regular) { gap.min(keep) } else { gap }
    }

    /// Makes the verified backup `making` the newest one.
    fn put_in_front(&self, making: &str, slots: &[Slot]) -> Result<()> {
        let ready = self.names.backup_temporary(Ready);
        let taken = self.dir().metadata(&ready).named("look at", self.dir(), &ready)?.is_some();
        if taken {
            // What could not be adopted stays. A crash costs the new backup then, and no other:
            // none of them gives way before the new one has its name.
            return self.shift(making, slots::first_gap(slots), slots);
        }
        self.rename(making, &ready).inspect_err(|_| copy::discard(self.dir(), making))?;
        // Order: from here on nothing is discarded. Where a sync of the folder failed, this name
        // may be the only one of a backup that already has its number for everybody to see.
        self.sync()?;
        self.shift(&ready, self.top(slots), slots)
    }

    /// Shifts the names below `top` up by one, over what has that name, and puts `newcomer` in
    /// front. Each step is durable before the next.
    fn shift(&self, newcomer: &str, top: u32, slots: &[Slot]) -> Result<()> {
        for index in (1..top).rev() {
            self.step(&self.names.backup(index), index + 1, slots)?;
        }
        self.step(newcomer, 1, slots)
    }

    fn step(&self, from: &str, index: u32, slots: &[Slot]) -> Result<()> {
        let to = self.names.backup(index);
        let seen = slots.iter().find(|slot| slot.index == index).map(|slot| slot.found.identity);
        let now = self.dir().metadata(&to).named("look at", self.dir(), &to)?;
        // What this rotation moved away from there is gone; anything else was put there meanwhile.
        if let Some(now) = now.filter(|now| Some(now.identity) != seen) {
            let what = format!("{} that appeared just now", copy::kind_in_words(now.kind));
            let (path, of) = (self.dir().path(&to), self.dir().path(self.name()));
            return Err(Error::Foreign { path, of, what });
        }
        self.rename(from, &to)?;
        self.sync()
    }

    /// The newest backup's facts, if it is of this version, which it is read whole for.
    fn unchanged(
        &self,
        slots: &[Slot],
        about: &Facts,
        watch: &mut Watch<'_>,
    ) -> Result<Option<Facts>> {
        let Some(newest) = slots.first() else { return Ok(None) };
        slots::facts_if_good(self.dir(), newest, about, &*self.inspect, watch)
    }

    fn adopt_locked(&self, watch: &mut Watch<'_>) -> Result<Adopted> {
        let mut done = Adopted::default();
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

    fn adopt_one(
        &self,
        name: &str,
        main: Option<&[u8]>,
        done: &mut Adopted,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let depth = self.inspect.deepest();
        let reading = &mut |_| sign_of_life(watch);
        let facts = match slots::verify(self.dir(), name, &*self.inspect, depth, reading) {
            Ok(facts) => facts,
            Err(Error::Damaged { .. } | Error::Alien { .. }) => {
                return self.remove(name.to_owned(), done);
            }
            Err(Error::NeedsKey { .. } | Error::Unauthentic { .. }) => {
                done.left.push(name.to_owned());
                return Ok(());
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
        // With a gap its rotation had begun to shift names, and an older backup of this version
        // (of a store that was restored since) may have taken another one's place for it.
        let shifting = slots.last().is_some_and(|oldest| oldest.index > upto);
        let look_at = if shifting { 1 } else { slots.len() };
        for slot in slots.iter().take(look_at) {
            let theirs = slots::facts_if_good(self.dir(), slot, &facts, &*self.inspect, watch)?;
            if theirs.is_some() {
                return self.remove(name.to_owned(), done);
            }
        }
        self.shift(name, upto, &slots)?;
        self.note_now(&self.names.backup(1), &facts, depth);
        done.adopted = Some(facts);
        Ok(())
    }

    /// Refuses to rotate while something that could not be adopted has a name that a rotation
    /// needs. A version of this file that is not authentic is in nobody's way.
    fn refuse_left(&self, adopted: &Adopted, about: Option<&Facts>) -> Result<()> {
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

    /// All temporaries of this file, apart from what an interrupted restore still needs.
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

    /// Removes what is older than the newest `keep` backups of the file `id` that are good; each of
    /// these is read whole first. If `watch` breaks, nothing more is removed.
    fn prune_locked(&self, keep: u32, id: &[u8], watch: &mut Watch<'_>) -> Result<Vec<String>> {
        let mut ours = self.scan()?;
        ours.retain(|slot| slot.owner.as_ref().is_ok_and(|owner| owner == id));
        let mut removed = Vec::new();
        if u32::try_from(ours.len()).is_ok_and(|count| count <= keep) {
            return Ok(removed);
        }
        let depth = self.inspect.deepest();
        let mut good = 0;
        for slot in ours {
            if good >= keep {
                self.dir().remove(&slot.name).named("remove", self.dir(), &slot.name)?;
                removed.push(slot.name);
                continue;
            }
            let reading = &mut |_| sign_of_life(watch);
            match slots::verify(self.dir(), &slot.name, &*self.inspect, depth, reading) {
                Ok(_) => good += 1,
                // What cannot be read now may be good.
                Err(Error::Io { action, path, source }) => {
                    return Err(Error::Io { action, path, source });
                }
                Err(Error::Stopped { .. }) => break,
                Err(_) => {}
            }
        }
        if !removed.is_empty() {
            self.sync()?;
        }
        Ok(removed)
    }
}

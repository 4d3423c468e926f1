//! Rotation. A new backup is complete, synced and verified before any name shifts.

use codex_storage::names::BackupTemporary::{Making, Ready};
use codex_storage::vfs::Mode;

use crate::adopt::Adopted;
use crate::backups::Backups;
use crate::copy::{self, Copied, Method, Source, Watch};
use crate::error::{Error, Named, Result};
use crate::inspect::{Depth, Facts};
use crate::meter::sign_of_life;
use crate::slots::{self, Slot};

/// The result of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rotated {
    /// The facts of the newest backup.
    pub facts: Facts,
    /// The way in which the new backup was made, or `None` if the newest backup already had this
    /// version, so that nothing was rotated.
    pub method: Option<Method>,
    /// The remains of a crash that this call cleared up.
    pub adopted: Adopted,
    /// The backups that were removed because there were more than the number to keep.
    pub pruned: Vec<String>,
}

impl Backups {
    /// Makes a backup of `source` the newest one, unless the newest backup already has that
    /// version.
    ///
    /// `about` is the version of `source`, if the caller knows it. Otherwise it is read from the
    /// source. The new backup gets its name only after it is complete, synced, verified and of that
    /// version; until then all names stay unchanged. Then the names below the first gap shift up by
    /// one, and the directory is synced after each rename. A crash at any point loses no good
    /// backup: the next rotation or [`adopt`](Self::adopt) makes the verified backup the newest.
    ///
    /// # Errors
    ///
    /// - [`Error::Foreign`] if a name that would be touched is not a backup of this file.
    /// - [`Error::NoSpace`] if the copy does not fit.
    /// - [`Error::Busy`] if another call holds the lock, and [`Error::RestorePending`] if a restore
    ///   must be finished first.
    /// - [`Error::Changed`] if the source was changed in place during the copy, or contradicts
    ///   `about`; [`Error::Source`] if the caller's code failed; [`Error::Stopped`] if `watch`
    ///   returned `Break`.
    /// - [`Error::Io`] if the disk reports an error.
    ///
    /// After any error each backup is unchanged, or has moved by one index.
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
        // Order: adoption shifts names, so it comes before the scan.
        let adopted = self.adopt_locked(watch)?;
        self.refuse_left(&adopted, about.as_ref())?;
        let slots = self.scan()?;
        if let Some(about) = &about {
            self.own(&slots, &about.id)?;
            if let Some(facts) = self.unchanged(&slots, about, watch)? {
                // Order: the sync comes before success is reported. The name may have been given by
                // an interrupted rotation, and is not durable yet.
                self.sync()?;
                let pruned = self.prune_locked(self.options.keep, &facts.id, watch)?;
                return Ok(Rotated { facts, method: None, adopted, pruned });
            }
        }
        // Order: the copy is made, synced and verified before the first name shifts.
        let making = self.names.backup_temporary(Making);
        let made = self.job(&making, Mode::Frozen, about.as_ref()).run(source, watch);
        let made = made.and_then(|made| {
            // Checked again with the identity of the copy, because without `about` the identity was
            // unknown before.
            self.own(&slots, &made.facts.id)?;
            self.inherit(&making, Mode::Frozen)?;
            Ok(made)
        });
        let Copied { facts, method } = made.inspect_err(|_| copy::discard(self.dir(), &making))?;
        // Without `about` the version is known only now, so the comparison is made after the copy.
        let same =
            about.is_none() && self.unchanged(&slots, &facts, &mut copy::unwatched)?.is_some();
        if same {
            copy::discard(self.dir(), &making);
        } else {
            self.put_in_front(&making, &slots)?;
            self.note_now(&self.names.backup(1), &facts, Depth::Checksums);
        }
        // Order: older backups are removed only after the new one has its name.
        let pruned = self.prune_locked(self.options.keep, &facts.id, watch)?;
        Ok(Rotated { facts, method: Some(method).filter(|_| !same), adopted, pruned })
    }

    /// Removes all but the newest `keep` backups that are complete and
    /// [count](crate::Trust::counts). Returns the names of the removed files. If `keep` is 0, all
    /// backups are removed. Files that are not backups of this file are not changed. Clears up
    /// after a crash first, as [`adopt`](Self::adopt) does.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] if another call holds the lock; [`Error::RestorePending`] if a restore must
    /// be finished first; [`Error::Io`] if the disk reports an error.
    pub fn prune(&self, keep: u32) -> Result<Vec<String>> {
        let _lock = self.lock()?;
        self.refuse_pending()?;
        // Order: a backup without a number is the newest one, so it gets its number before the
        // backups are counted.
        self.adopt_locked(&mut copy::unwatched)?;
        let slots = self.scan()?;
        // If the file is missing, the newest backup identifies it.
        let main = slots::owner_of(self.dir(), self.name(), &*self.inspect)?;
        let newest = slots.iter().find_map(|slot| slot.owner.clone().ok());
        match main.or(newest) {
            Some(id) => self.prune_locked(keep, &id, &mut copy::unwatched),
            None => Ok(Vec::new()),
        }
    }

    /// Returns [`Error::Foreign`] if a name that a rotation may touch is not a backup of the file
    /// `id`.
    fn own(&self, slots: &[Slot], id: &[u8]) -> Result<()> {
        let upto = self.options.keep.max(self.top(slots));
        slots::own(self.dir(), self.name(), slots, id, upto)
    }

    /// Returns the index to which names shift. If all `keep` names have backups that count and
    /// there are no others, it is that of the oldest backup, which is replaced. Otherwise it is the
    /// first free index, and pruning removes old backups after reading the ones that stay.
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
        // Order: the backup gets a name that `adopt` recognizes before the first backup shifts, so
        // that a crash during the shift does not lose it. Adoption has freed this name.
        let named = self.refuse_stranger(&ready, slots).and_then(|()| self.rename(making, &ready));
        named.inspect_err(|_| copy::discard(self.dir(), making))?;
        // Order: after this rename nothing is discarded. If a sync of the directory failed, this
        // name may be the only durable one of a backup that already appears under its number.
        self.sync()?;
        self.shift(&ready, self.top(slots), slots)
    }

    /// Shifts the names below `top` up by one, replacing the backup at `top`, and gives `newcomer`
    /// the index 1. Each step is durable before the next.
    pub(crate) fn shift(&self, newcomer: &str, top: u32, slots: &[Slot]) -> Result<()> {
        // Order: from the highest index down, so that each rename moves to a name that the previous
        // step freed.
        for index in (1..top).rev() {
            let from = self.names.backup(index);
            self.refuse_stranger(&from, slots)?;
            self.step(&from, index + 1, slots)?;
        }
        self.step(newcomer, 1, slots)
    }

    /// Renames `from` to the backup `index` and syncs the directory.
    ///
    /// Returns [`Error::Foreign`] if a file has appeared there since the scan.
    fn step(&self, from: &str, index: u32, slots: &[Slot]) -> Result<()> {
        let to = self.names.backup(index);
        self.refuse_stranger(&to, slots)?;
        // Order: each rename is synced before the next, so that a power cut keeps at least one name
        // of each backup.
        self.rename(from, &to)?;
        self.sync()
    }

    /// Returns [`Error::Foreign`] if the file `name` is not one of `slots`, because another program
    /// put it there since the scan. Such a file is neither moved nor replaced.
    fn refuse_stranger(&self, name: &str, slots: &[Slot]) -> Result<()> {
        let seen = slots.iter().find(|slot| slot.name == name).map(|slot| slot.found);
        let now = self.dir().metadata(name).named("look at", self.dir(), name)?;
        let Some(stranger) = now.filter(|_| now != seen) else { return Ok(()) };
        let what = format!("{} that appeared just now", copy::kind_in_words(stranger.kind));
        let (path, of) = (self.dir().path(name), self.dir().path(self.name()));
        Err(Error::Foreign { path, of, what })
    }

    /// Returns the facts of the newest backup, if it is good and of the version `about`.
    fn unchanged(
        &self,
        slots: &[Slot],
        about: &Facts,
        watch: &mut Watch<'_>,
    ) -> Result<Option<Facts>> {
        let Some(newest) = slots.first() else { return Ok(None) };
        slots::facts_if_good(self.dir(), newest, about, &*self.inspect, watch)
    }

    /// Removes the backups that are older than the newest `keep` good backups of the file `id`.
    /// Reads each of the newest `keep` completely first. If `watch` returns `Break`, no further
    /// file is removed.
    fn prune_locked(&self, keep: u32, id: &[u8], watch: &mut Watch<'_>) -> Result<Vec<String>> {
        let mut ours = self.scan()?;
        ours.retain(|slot| slot.owner.as_ref().is_ok_and(|owner| owner == id));
        let mut removed = Vec::new();
        if u32::try_from(ours.len()).is_ok_and(|count| count <= keep) {
            return Ok(removed);
        }
        let depth = self.inspect.deepest();
        // Order: from the newest to the oldest, so that a backup is removed only after `keep` newer
        // ones have been read and verified.
        let mut good = 0;
        for slot in &ours {
            if good >= keep {
                match self.refuse_stranger(&slot.name, &ours) {
                    Ok(()) => {}
                    // A file that was put there since the scan is not removed.
                    Err(Error::Foreign { .. }) => continue,
                    Err(error) => return Err(error),
                }
                self.dir().remove(&slot.name).named("remove", self.dir(), &slot.name)?;
                removed.push(slot.name.clone());
                continue;
            }
            let reading = &mut |_| sign_of_life(watch);
            match slots::verify(self.dir(), &slot.name, &*self.inspect, depth, reading) {
                // Another file may have taken the name since the scan.
                Ok(facts) => good += u32::from(facts.id == id),
                // A file that cannot be read now may be good, so no file older than it is removed.
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

//! Lists and verifies backups. No file is opened as a store.

use std::path::PathBuf;

use codex_storage::vfs::Kind;

use crate::backups::Backups;
use crate::copy::{self, Watch};
use crate::error::{Error, Named, Result};
use crate::inspect::{Depth, Facts, Trust, to_the_end};
use crate::meter::sign_of_life;
use crate::receipts::{Receipts, Verified};
use crate::slots;

/// A backup in a list.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BackupEntry {
    /// The index of the backup; 1 is the newest.
    pub index: u32,
    /// The file name.
    pub name: String,
    /// The path.
    pub path: PathBuf,
    /// The length, in bytes.
    pub size: u64,
    /// The facts of the file (form, seq, time, encrypted), or the reason why the file is not a good
    /// backup. Reading them costs as much as [`Inspect::facts`](crate::Inspect::facts), which does
    /// not read every byte.
    pub facts: Result<Facts>,
    /// Whether the header of the file is authentic; [`Trust::Unchecked`] if there is no key to
    /// check it with. [`Backups::verify`] checks the rest of the file.
    pub trust: Trust,
    /// The time and depth of the last verification of this file, if known. It is unknown after the
    /// file was copied from elsewhere, and may be lost in a crash.
    pub verified: Option<Verified>,
}

/// The result of verifying one backup.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BackupVerification {
    /// The index of the backup.
    pub index: u32,
    /// The file name.
    pub name: String,
    /// The facts of the backup.
    pub facts: Facts,
    /// The time and depth of the verification.
    pub verified: Verified,
}

/// The result of [`Backups::newest_good`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewestGood {
    /// The newest good backup, or `None` if there is none.
    pub good: Option<BackupVerification>,
    /// The index of each newer backup, and the reason why it is not good.
    pub skipped: Vec<(u32, Error)>,
}

impl Backups {
    /// Returns the backups by name, newest first. A damaged or foreign file has its error in
    /// [`BackupEntry::facts`].
    ///
    /// Takes no lock and writes nothing. During a rotation a backup may be missing or appear twice.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the directory or the header of a file cannot be read.
    pub fn list(&self) -> Result<Vec<BackupEntry>> {
        let main = self.owner()?;
        let receipts = Receipts::load(self.dir(), &self.names);
        let mut entries = Vec::new();
        // A foreign file is listed with its error and is not read further.
        for slot in self.scan()? {
            let facts = match slots::own_one(self.dir(), self.name(), &slot, main.as_deref()) {
                Ok(()) => slots::facts(self.dir(), &slot.name, &*self.inspect, &mut to_the_end),
                Err(error) => Err(error),
            };
            // A rotation may rename the file after the scan. Then it is no damaged backup.
            if matches!(facts, Err(Error::Missing { .. })) {
                continue;
            }
            entries.push(BackupEntry {
                index: slot.index,
                path: self.dir().path(&slot.name),
                size: slot.found.len,
                facts,
                trust: match &slot.owner {
                    Ok(_) => {
                        slots::trust(self.dir(), &slot.name, &*self.inspect).unwrap_or_default()
                    }
                    Err(_) => Trust::Unchecked,
                },
                verified: receipts.of(&slot.found),
                name: slot.name,
            });
        }
        Ok(entries)
    }

    /// Returns the facts of the newest backup, `NAME.bak.1`, and the time when it was made, in
    /// microseconds since 1970 (UTC). Returns `None` if no file has this name. Reads only this
    /// file.
    ///
    /// # Errors
    ///
    /// [`Error::Unauthentic`] if the [`Trust`] of the file does not count; [`Error::Stopped`] if
    /// `watch` returned `Break`; otherwise the errors of [`BackupEntry::facts`].
    pub fn newest(&self, watch: &mut Watch<'_>) -> Result<Option<(Facts, i64)>> {
        let (dir, name) = (self.dir(), self.names.backup(1));
        let Some(found) = dir.metadata(&name).named("look at", dir, &name)? else {
            return Ok(None);
        };
        if found.kind != Kind::File {
            return Err(copy::not_a_file(dir, &name, self.name()));
        }
        let trust = slots::trust(dir, &name, &*self.inspect)?;
        if !trust.counts() {
            let what = format!("its header is not ({trust:?})");
            return Err(Error::Unauthentic { path: dir.path(&name), what });
        }
        let reading = &mut |_| sign_of_life(watch);
        let facts = slots::facts(dir, &name, &*self.inspect, reading)?;
        Ok(Some((facts, found.modified_us)))
    }

    /// Reads and checks every byte of the backup with this index. Stores the time for
    /// [`list`](Self::list), if the lock file exists and no other call holds the lock.
    ///
    /// # Errors
    ///
    /// - [`Error::Missing`] if there is no backup with this index.
    /// - [`Error::Foreign`] if the file is not a backup of this file.
    /// - [`Error::Damaged`] with the offset, if the file is damaged.
    /// - [`Error::NeedsKey`] for [`Depth::Full`] without the key, and [`Error::Unauthentic`] with a
    ///   key under which the file is not authentic.
    pub fn verify(&self, index: u32, depth: Depth) -> Result<BackupVerification> {
        let name = self.names.backup(index);
        let missing = || Error::Missing { path: self.dir().path(&name) };
        let slots = self.scan()?;
        let slot = slots.iter().find(|slot| slot.index == index).ok_or_else(missing)?;
        let main = self.owner()?;
        // Order: the owner of the file is checked before the file is read, so that a large foreign
        // file costs only its header.
        slots::own_one(self.dir(), self.name(), slot, main.as_deref())?;
        let facts = slots::verify(self.dir(), &name, &*self.inspect, depth, &mut to_the_end)?;
        // A receipt can be forged, so it is used only for files without checksums of their own.
        if !self.inspect.has_checksums()
            && Receipts::load(self.dir(), &self.names).contradict(&slot.found, &facts)
        {
            let what = "the contents differ from those of the last verification".to_owned();
            return Err(Error::Damaged { path: self.dir().path(&name), offset: 0, what });
        }
        let verified = Verified { at_us: self.vfs.clock.now_us(), depth };
        self.note_if_free(&name, &facts, verified);
        Ok(BackupVerification { index, name, facts, verified })
    }

    /// Returns the newest backup that passes [`verify`](Self::verify), and the error of each newer
    /// one, for a caller that continues with an older version.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the directory or the header of a backup cannot be read. Errors of verifying
    /// one backup are part of the result.
    pub fn newest_good(&self, depth: Depth) -> Result<NewestGood> {
        let mut skipped = Vec::new();
        for slot in self.scan()? {
            match self.verify(slot.index, depth) {
                Ok(proof) => return Ok(NewestGood { good: Some(proof), skipped }),
                Err(error) => skipped.push((slot.index, error)),
            }
        }
        Ok(NewestGood { good: None, skipped })
    }

    /// Stores the time of a verification, if the lock file exists and no other call holds the lock.
    fn note_if_free(&self, name: &str, facts: &Facts, verified: Verified) {
        let lock = self.names.backup_lock();
        if matches!(self.dir().metadata(&lock), Ok(Some(_)))
            && let Ok(Some(_lock)) = self.try_lock()
        {
            self.note(name, facts, verified);
        }
    }
}

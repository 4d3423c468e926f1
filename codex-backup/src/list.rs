//! What backups there are and whether they are good, without opening anything as a store.

use std::path::PathBuf;

use codex_storage::vfs::Kind;

use crate::backups::Backups;
use crate::copy::{self, Watch};
use crate::error::{Error, Named, Result};
use crate::inspect::{Depth, Facts, Trust, to_the_end};
use crate::meter::sign_of_life;
use crate::receipts::{Receipts, Verified};
use crate::slots;

/// One backup in a list.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry {
    /// 1 is the newest.
    pub index: u32,
    /// Its file name.
    pub name: String,
    /// Its path.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// What it says of itself (form, seq, time, encrypted), or why it is no good. Reading it costs
    /// what [`Inspect::facts`](crate::Inspect::facts) costs: that the facts are there does not
    /// mean that every byte was read.
    pub facts: Result<Facts>,
    /// Whether its header is authentic; [`Trust::Unchecked`] where there is no key to check it
    /// with. That the rest is, too, [`Backups::verify`] finds out.
    pub trust: Trust,
    /// When this very file was verified last, as far as that is known: it is not after the file
    /// was copied from elsewhere, and may be forgotten in a crash.
    pub verified: Option<Verified>,
}

/// A backup that was verified by this call.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Verification {
    /// Its index.
    pub index: u32,
    /// Its file name.
    pub name: String,
    /// What it says of itself.
    pub facts: Facts,
    /// When, and how deep.
    pub verified: Verified,
}

/// What [`Backups::newest_good`] found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewestGood {
    /// The newest backup that is good, if any.
    pub good: Option<Verification>,
    /// The index of each newer one, and why it is no good.
    pub passed_over: Vec<(u32, Error)>,
}

impl Backups {
    /// The backups by name, newest first, the damaged and foreign ones with their error. Takes no
    /// lock and writes nothing; beside a rotation a name may be missing or appear once more.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let main = self.owner()?;
        let receipts = Receipts::load(self.dir(), &self.names);
        let mut entries = Vec::new();
        for slot in self.scan()? {
            let facts = match slots::own_one(self.dir(), self.name(), &slot, main.as_deref()) {
                Ok(()) => slots::facts(self.dir(), &slot.name, &*self.inspect, &mut to_the_end),
                Err(error) => Err(error),
            };
            entries.push(Entry {
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

    /// What the newest backup, `NAME.bak.1`, says of itself, and when it was made, in microseconds
    /// since 1970 (UTC); `None` where nothing has its name. Reads that one file alone.
    ///
    /// # Errors
    ///
    /// As [`Entry::facts`]; [`Error::Unauthentic`] for a file whose [`Trust`] does not count;
    /// [`Error::Stopped`] where `watch` broke.
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

    /// Reads every byte of the backup with this index and checks it. The time is kept for
    /// [`list`](Self::list) where there is a lock file that nobody holds.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] with the offset, [`Error::Foreign`], [`Error::NeedsKey`] for
    /// [`Depth::Full`] without the key, [`Error::Unauthentic`] with one, [`Error::Missing`].
    pub fn verify(&self, index: u32, depth: Depth) -> Result<Verification> {
        let name = self.names.backup(index);
        let missing = || Error::Missing { path: self.dir().path(&name) };
        let slots = self.scan()?;
        let slot = slots.iter().find(|slot| slot.index == index).ok_or_else(missing)?;
        let main = self.owner()?;
        slots::own_one(self.dir(), self.name(), slot, main.as_deref())?;
        let facts = slots::verify(self.dir(), &name, &*self.inspect, depth, &mut to_the_end)?;
        // A receipt can be forged, and where the file speaks for itself it is not asked.
        if !self.inspect.has_checksums()
            && Receipts::load(self.dir(), &self.names).contradict(&slot.found, &facts)
        {
            let what = "the contents are not those it had when it was verified before".to_owned();
            return Err(Error::Damaged { path: self.dir().path(&name), offset: 0, what });
        }
        let verified = Verified { at_us: self.vfs.clock.now_us(), depth };
        self.note_if_free(&name, &facts, verified);
        Ok(Verification { index, name, facts, verified })
    }

    /// The newest backup that passes [`verify`](Self::verify), and why each newer one did not:
    /// for who must go on with an older version. `None` where there is no good one.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] of a disk that cannot list the folder; errors of a single backup are passed
    /// over and returned with the result.
    pub fn newest_good(&self, depth: Depth) -> Result<NewestGood> {
        let mut passed_over = Vec::new();
        for slot in self.scan()? {
            match self.verify(slot.index, depth) {
                Ok(proof) => return Ok(NewestGood { good: Some(proof), passed_over }),
                Err(error) => passed_over.push((slot.index, error)),
            }
        }
        Ok(NewestGood { good: None, passed_over })
    }

    fn note_if_free(&self, name: &str, facts: &Facts, verified: Verified) {
        let lock = self.names.backup_lock();
        if matches!(self.dir().metadata(&lock), Ok(Some(_)))
            && let Ok(Some(_lock)) = self.try_lock()
        {
            self.note(name, facts, verified);
        }
    }
}

//! The past of a ledger: the values that a key had, earlier states, and the commits after one.

mod changes;
mod revisions;

use std::sync::Arc;

use codex_storage::batch::Seq;
use codex_storage::seal::{Keys, Seal, Unlocked};
use codex_storage::storage::Form;
use codex_storage::sync::Mutex;
use codex_storage::{Error as StorageError, LedgerIndex, LedgerReader, RestorePoint};

pub use changes::Changes;
pub use revisions::{History, Revision};

use crate::engine::{Engine, View};
use crate::entry::{Entry, Name};
use crate::error::Result;
use crate::inner::{Files, Inner};
use crate::map::{Map, Ordered, OrderedReplay, Replay, ReplayInto, Replayed};
use crate::rank::{self, Rank};
use crate::snapshot::Snapshot;
use crate::store::Store;

/// Reading the past, which a store of the form [`Form::Ledger`] keeps.
///
/// The calls read the file beside running readers and writers, and no commit waits for them. They
/// show commits that readers of the store can see, and no later ones.
impl Store {
    /// Returns the values that `key` had, the oldest first.
    ///
    /// The first call reads the whole file and makes an index of it in memory: about 4 bytes for
    /// each change, at most 64 MiB. A later call reads what was written since, and then only the
    /// parts of the file, of about 512 KiB, in which the key was changed. An index at its limit
    /// leaves out the oldest parts of the file, which are then read each time.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::Form;
    ///
    /// let store = Store::options().form(Form::Ledger).open(&path)?;
    /// store.set("price", &10)?;
    /// store.set("price", &12)?;
    /// store.remove("price")?;
    /// let mut prices = Vec::new();
    /// for revision in store.history("price")? {
    ///     prices.push(revision?.value::<i32>()?);
    /// }
    /// assert_eq!(prices, [Some(10), Some(12), None]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Storage`](crate::Error::Storage): `WrongForm` if the store has another form, which
    /// a [`Conversion`](crate::Conversion) changes; `Contradiction` if it is in memory; `Closed`;
    /// one variant for each kind of damage.
    #[doc(alias("revisions", "audit", "versions", "log"))]
    pub fn history(&self, key: impl AsRef<[u8]>) -> Result<History> {
        self.inner.history(Name::plain(key.as_ref()))
    }

    /// Returns the state after a commit, given by its number, or at a time: after the last commit
    /// at or before it. Entries that had expired by then are hidden.
    ///
    /// Reads the file up to that point, which takes about as long as opening such a store. The
    /// state shares the entries that are the same now, so it takes memory only for others and for
    /// its index.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::Form;
    /// use std::time::SystemTime;
    ///
    /// let store = Store::options().form(Form::Ledger).open(&path)?;
    /// store.set("price", &10)?;
    /// store.set("price", &12)?;
    /// assert_eq!(store.as_of(1)?.get::<i32>("price")?, Some(10));
    /// assert_eq!(store.as_of(SystemTime::now())?.get::<i32>("price")?, Some(12));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `NotInHistory` if the ledger does not have the state: it is that of a later commit, or of a
    /// commit or time before the ledger was created, which a [`Conversion`](crate::Conversion) may
    /// have done. The errors of [`history`](Store::history).
    #[doc(alias("time_travel", "at", "checkout"))]
    pub fn as_of(&self, point: impl Into<RestorePoint>) -> Result<Snapshot> {
        self.inner.as_of(point.into())
    }

    /// Returns the commits after the commit `after`, up to the present one, in order. 0 stands for
    /// the beginning. Each has its changes of keys outside tables, which may be none.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::{Change, Form};
    ///
    /// let store = Store::options().form(Form::Ledger).open(&path)?;
    /// store.set("price", &10)?;
    /// store.remove("price")?;
    /// for commit in store.changes(1)? {
    ///     let commit = commit?;
    ///     println!("commit {} at {:?}", commit.seq(), commit.time());
    ///     assert!(matches!(commit.changes(), [Change::Removed(key)] if key == "price"));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// `NotInHistory` if there is no commit `after`, or if the ledger does not have the state after
    /// it because it was converted from another form later. The errors of
    /// [`history`](Store::history).
    #[doc(alias("since", "diff", "log", "change_feed"))]
    pub fn changes(&self, after: Seq) -> Result<Changes> {
        self.inner.changes(None, b"", after, None)
    }
}

/// The replay of an earlier state, which shares the entries that are the same now.
struct Shared {
    engine: Arc<Engine>,
    ordered: Replay<OrderedReplay>,
}

impl ReplayInto for Shared {
    type Op = Replayed;
    type Index = Ordered;

    fn replay(&mut self, op: Replayed) {
        self.ordered.push(match op {
            Replayed::Set(entry) => {
                let is_same = |now: &&Entry| now.item() == entry.item();
                let same = |map: &Map| map.find(entry.name()).filter(is_same).cloned();
                Replayed::Set(self.engine.read(same).unwrap_or(entry))
            }
            other => other,
        });
    }

    fn finish(self) -> Ordered {
        self.ordered.finish()
    }
}

/// The index of a ledger, which the first question makes.
#[derive(Default)]
pub(crate) struct Past {
    index: Mutex<Option<Arc<LedgerIndex>>>,
}

impl Inner {
    pub(crate) fn history(&self, name: Name<'_>) -> Result<History> {
        let (mut reader, last) = self.ledger()?;
        let index = self.past.index(&mut reader, last)?;
        Ok(History::new(reader, index, name))
    }

    fn as_of(&self, point: RestorePoint) -> Result<Snapshot> {
        let (mut reader, last) = self.ledger()?;
        let states = reader.cut().oldest..=last;
        let upto = if let RestorePoint::Seq(seq) = point { seq } else { last };
        let is_kept = |seq| states.contains(&seq);
        let (mut seq, mut now_us) = (0, i64::MIN);
        let shared = Shared {
            engine: Arc::clone(&self.engine),
            ordered: Replay::new("codexdb-order", OrderedReplay::default()),
        };
        let mut replay = Replay::new("codexdb-share", shared);
        let mut is_past = !is_kept(upto);
        while !is_past
            && reader.next(upto, &mut |commit| {
                is_past |= !point.includes(commit.seq, commit.time_us);
                if !is_past {
                    (seq, now_us) = (commit.seq, commit.time_us);
                    // The reader has decoded each operation before, so none is an error.
                    commit.ops.flatten().for_each(|op| replay.push(op.into()));
                }
                Ok(())
            })?
        {}
        if !is_past {
            reader.check_passed(upto)?;
        }
        // A ledger was empty from the time at which it was created up to its first commit.
        let mut is_in = is_kept(seq) && is_kept(upto);
        if let RestorePoint::TimeUs(time_us) = point {
            is_in &= seq > 0 || time_us >= reader.created_us();
            now_us = time_us;
        }
        if !is_in {
            return Err(StorageError::NotInHistory { path: self.path.clone(), states }.into());
        }
        Ok(Snapshot::new(View { seq, ordered: replay.finish(), now_us }))
    }

    /// Makes the index again, with these limits.
    pub(crate) fn index_ledger(&self, region_len: u64, names_max: usize) -> Result<usize> {
        let (mut reader, last) = self.ledger()?;
        self.past.keep(&Arc::new(LedgerIndex::with_limits(&reader, region_len, names_max)));
        Ok(self.past.index(&mut reader, last)?.memory_len())
    }

    /// Returns the files of a ledger, or the error of a store that keeps no history.
    pub(crate) fn check_ledger(&self) -> Result<&Files> {
        let Some(files) = &self.files else {
            let what = "a store in memory keeps no history; open one with the form Ledger";
            return Err(StorageError::Contradiction(what).into());
        };
        if let Some(found) = self.form.filter(|form| *form != Form::Ledger) {
            let (path, wanted) = (self.path.clone(), Form::Ledger);
            return Err(StorageError::WrongForm { path, found, wanted }.into());
        }
        Ok(files)
    }

    /// Opens the file of the ledger, at its beginning. Returns the last commit that readers of the
    /// store can see.
    ///
    /// # Errors
    /// `WrongForm`, `Contradiction`, `Closed`; those of the file.
    pub(crate) fn ledger(&self) -> Result<(LedgerReader, Seq)> {
        self.check_process()?;
        let files = self.check_ledger()?;
        loop {
            // Order: the last commit before the file. The file that has the name contains all
            // commits that were visible before it was opened.
            let last = self.engine.read(Map::seq);
            let seal = self.engine.seal();
            if self.engine.is_closed() {
                return Err(StorageError::Closed { path: self.path.clone() }.into());
            }
            let root = seal.as_ref().map(|seal| Unlocked::new(Arc::clone(seal)));
            let keys = root.as_ref().map(|root| root as &dyn Keys);
            match LedgerReader::open(&files.vfs, &files.name, keys) {
                // A rekey has put another file in place meanwhile.
                Err(_) if root_id(self.engine.seal().as_ref()) != root_id(seal.as_ref()) => {}
                opened => return Ok((opened?, last)),
            }
        }
    }
}

impl Past {
    /// Returns an index of the ledger of `reader`, which is at its beginning, with all commits up
    /// to `upto`. Reads only those that no earlier call has read.
    pub(crate) fn index(
        &self,
        reader: &mut LedgerReader,
        upto: Seq,
    ) -> Result<Arc<LedgerIndex>, StorageError> {
        let known = self.locked(|known| known.clone());
        let mut index = match known {
            Some(known) if known.is_of(reader) => {
                if known.upto() >= upto {
                    return Ok(known);
                }
                LedgerIndex::clone(&known)
            }
            // A rekey has written another file.
            Some(known) => known.again(reader),
            None => LedgerIndex::new(reader),
        };
        // Order: read without the lock, so that questions do not wait for each other.
        index.extend(reader, upto)?;
        let index = Arc::new(index);
        self.keep(&index);
        Ok(index)
    }

    /// Keeps `index` for later questions.
    pub(crate) fn keep(&self, index: &Arc<LedgerIndex>) {
        drop(self.locked(|known| known.replace(Arc::clone(index))));
    }

    fn locked<R>(&self, f: impl FnOnce(&mut Option<Arc<LedgerIndex>>) -> R) -> R {
        let _held = rank::take(Rank::Queue);
        f(&mut self.index.lock())
    }
}

fn root_id(seal: Option<&Arc<dyn Seal>>) -> Option<[u8; 16]> {
    seal.map(|seal| seal.root_id())
}

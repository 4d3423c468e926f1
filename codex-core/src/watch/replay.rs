//! Watches that begin in the past of a ledger, and read what does not fit into their mailbox.

use std::sync::{Arc, Weak};

use codex_storage::batch::{Seq, TableId};

use super::{Notice, Watch};
use crate::error::Result;
use crate::history::Changes;
use crate::inner::Inner;
use crate::store::Store;

/// The commits that a watch reads from the file of a ledger.
pub(super) struct Replay {
    /// A watch does not keep the store open.
    store: Weak<Inner>,
    table: Option<TableId>,
    prefix: Box<[u8]>,
    /// The commits that are being read. All of them are earlier than those in the mailbox.
    changes: Option<Changes>,
    /// The last commit that was read.
    seq: Seq,
}

/// The outcome of a step of a replay.
pub(super) enum Step {
    Notice(Notice),
    /// Nothing was found yet.
    Busy,
    /// No commit is left to be read.
    Idle,
}

impl Store {
    /// Watches the keys that begin with `prefix`, as [`watch`](Store::watch) does, from the commit
    /// `after` on: returns the commits after it that are made already, and then the later ones,
    /// each once. 0 stands for the beginning. Only a store of the form
    /// [`Ledger`](crate::Form::Ledger) can do this.
    ///
    /// Such a watch does not lag. Earlier commits, and later ones that do not fit into the mailbox,
    /// are read from the file by the thread that takes them, one group at a time.
    ///
    /// It returns [`Notice::Lagged`] only if the file is damaged, or the mailbox was full when the
    /// store was closed. [`Store::changes`] then returns the commits, or the error.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::{Form, Notice};
    ///
    /// let store = Store::options().form(Form::Ledger).open(&path)?;
    /// store.set("user/1", "Ada")?;
    /// store.set("user/2", "Bob")?;
    /// let mut done = 1; // the last commit that an earlier run of the program has worked through
    /// let watch = store.watch_from("user/", done)?;
    /// store.set("user/3", "Eve")?;
    /// store.close()?;
    /// for notice in watch {
    ///     let Notice::Commit(commit) = notice else { panic!("the ledger is damaged") };
    ///     assert_eq!(commit.seq(), done + 1);
    ///     done = commit.seq();
    /// }
    /// assert_eq!(done, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`watch`](Store::watch) and of [`changes`](Store::changes).
    #[doc(alias("subscribe_from", "resume", "change_feed"))]
    pub fn watch_from(&self, prefix: impl AsRef<[u8]>, after: Seq) -> Result<Watch> {
        self.inner.watch_from(None, prefix.as_ref(), after)
    }
}

impl Inner {
    pub(crate) fn watch_from(
        self: &Arc<Self>,
        table: Option<TableId>,
        prefix: &[u8],
        after: Seq,
    ) -> Result<Watch> {
        self.check_writable()?;
        self.check_ledger()?;
        // Order: watch before the file is opened. It contains all commits before the watch, and
        // the mailbox gets those after it.
        let mut watch = self.engine.watch(table, prefix)?;
        let changes = self.changes(table, prefix, after, Some(watch.start))?;
        let (store, prefix) = (Arc::downgrade(self), prefix.into());
        watch.start = after;
        let replay = Replay { store, table, prefix, changes: Some(changes), seq: after };
        watch.replay = Some(Box::new(replay));
        Ok(watch)
    }
}

impl Replay {
    /// Returns the next notice, or reads some groups in search of it.
    pub(super) fn step(&mut self) -> Step {
        let Some(changes) = &mut self.changes else { return Step::Idle };
        for _ in 0..STEP_GROUPS {
            while let Some(commit) = changes.take() {
                let Ok(commit) = commit else {
                    let (first, last) = (self.seq + 1, changes.upto());
                    self.changes = None;
                    return Step::Notice(Notice::Lagged { first, last });
                };
                self.seq = commit.seq();
                if !commit.changes().is_empty() {
                    return Step::Notice(Notice::Commit(commit));
                }
            }
            if !changes.read() {
                self.changes = None;
                return Step::Idle;
            }
        }
        Step::Busy
    }

    /// Returns true if no commit is left to be read.
    pub(super) fn is_done(&self) -> bool {
        self.changes.is_none()
    }

    /// Begins to read the commits that did not fit into the mailbox. Returns false if the file
    /// cannot be read.
    pub(super) fn begin(&mut self, first: Seq, last: Seq) -> bool {
        let store = self.store.upgrade();
        let changes =
            |store: Arc<Inner>| store.changes(self.table, &self.prefix, first - 1, Some(last)).ok();
        self.changes = store.and_then(changes);
        self.seq = first - 1;
        self.changes.is_some()
    }
}

/// The number of groups in a step. A task that polls the watch gives way to others after that.
const STEP_GROUPS: usize = 64;

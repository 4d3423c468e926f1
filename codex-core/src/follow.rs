//! The API of reading beside the writer of another process.

use codex_storage::batch::Seq;

use crate::error::Result;
use crate::store::Store;

impl Store {
    /// Shows all commits that the writer had acknowledged before this call, in a store that was
    /// opened with [`OpenOptions::follow`](crate::OpenOptions::follow). Returns the last commit
    /// that is shown. Without the call, a commit is shown some milliseconds after its
    /// acknowledgement.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// let writer = Store::open(&path)?; // in another process
    /// let reader = Store::options().follow(true).open(&path)?;
    /// writer.set("a", &1)?;
    /// reader.refresh()?;
    /// assert_eq!(reader.get::<i32>("a")?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// One variant of [`StorageError`](crate::StorageError) for each reason why the files cannot be
    /// read now: `WrongKey` after a change of the key, `RestorePending` during a restore,
    /// `NotFound`, damage. The store then shows the state from before, and a later call tries
    /// again. `Contradiction` if the store was not opened with `follow`.
    pub fn refresh(&self) -> Result<Seq> {
        self.inner.check_process()?;
        Ok(self.inner.engine.refresh()?)
    }
}

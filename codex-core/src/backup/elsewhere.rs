//! A copy of the state in memory to another folder, for a store whose own files cannot be copied.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;

use codex_backup::{Phase, Progress, Watch};
use codex_storage::Error as StorageError;
use codex_storage::batch::Seq;
use codex_storage::vfs::Vfs;

use crate::error::Result;
use crate::store::Store;

impl Store {
    /// Writes all acknowledged commits from memory to the file `name` in the directory of `to`, as
    /// an image under the same key. Returns the last of them.
    ///
    /// # Errors
    /// `Exists` if a file has the name; `Stopped` if `watch` returned `Break`; the errors of the
    /// other directory. The temporary file is removed if possible.
    pub(super) fn write_memory_to(
        &self,
        to: &Vfs,
        name: &str,
        watch: &mut Watch<'_>,
    ) -> Result<Seq> {
        let path = to.dir.path(name);
        let io = |action| {
            let path = path.clone();
            move |source: io::Error| StorageError::Io { action, path, source: Arc::new(source) }
        };
        let refuse_taken = || -> Result<()> {
            match to.dir.metadata(name).map_err(io("look at"))? {
                Some(_) => Err(codex_backup::Error::Exists { path: path.clone() }.into()),
                None => Ok(()),
            }
        };
        refuse_taken()?;
        let (watch, stopped) = (RefCell::new(watch), Cell::new(false));
        let going = |done, total| {
            let watched = watch.borrow_mut()(Progress { phase: Phase::Preparing, done, total });
            stopped.set(watched.is_break());
            !stopped.get()
        };
        let written = match self.inner.engine.write_elsewhere(to, name, &going) {
            Err(_) if stopped.get() => {
                return Err(codex_backup::Error::Stopped { path: path.clone() }.into());
            }
            written => written?,
        };
        // Order: look at the name again after the long write, just before the rename that would
        // replace a file there.
        let named: Result<()> = refuse_taken().and_then(|()| {
            Ok(to.dir.rename(&written.temporary, name).map_err(io("give its name to"))?)
        });
        // If the removal fails too, the first error is returned, because it names the cause.
        named.inspect_err(|_| drop(to.dir.remove(&written.temporary)))?;
        to.dir.sync().map_err(io("sync the folder of"))?;
        Ok(written.seq)
    }
}

//! A copy of memory to another folder, for a store whose own files can not be copied any more.

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
    /// Writes all that is acknowledged from memory to the file `name` in the folder of `to`, as an
    /// image with the same keys.
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
        let named: Result<()> = refuse_taken().and_then(|()| {
            Ok(to.dir.rename(&written.temporary, name).map_err(io("give its name to"))?)
        });
        // The first error says more, and the temporary file is worth nothing.
        named.inspect_err(|_| drop(to.dir.remove(&written.temporary)))?;
        to.dir.sync().map_err(io("sync the folder of"))?;
        Ok(written.seq)
    }
}

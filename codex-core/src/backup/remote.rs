//! Backups of a store outside of the machine.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use codex_backup::remote::{Image, Put, Remote, Target};
use codex_backup::{Progress, Restored, Source, unwatched};

use super::join::{self, StoreFile};
use super::store::{NO_FILES, settle};
use super::tools::Backups;
use crate::error::Result;
use crate::store::Store;

impl Store {
    /// Uploads an image of the last commit to the place of `remote`, beside running readers and
    /// writers, reads it back, and lists it there as the newest one. If the newest one has the last
    /// commit already, nothing is uploaded.
    ///
    /// The upload is as the store is: encrypted, if the store is. A store that is not encrypted
    /// needs [`Remote::plain_objects`].
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let elsewhere = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use std::sync::Arc;
    /// use codex_core::remote::{Folder, unwatched};
    /// use codex_core::{Backups, Store};
    ///
    /// // A folder of another disk; with the feature `s3`, a bucket.
    /// let place = Arc::new(Folder::open(elsewhere.path())?);
    /// let remote = Backups::of(&path)?.remote(place).plain_objects(true);
    /// let store = Store::open(&path)?;
    /// store.set("a", &1)?;
    /// store.back_up_remote(&remote)?;
    /// remote.prune(3, &mut unwatched)?;
    /// # drop(store);
    /// # for file in std::fs::read_dir(folder.path())? { std::fs::remove_file(file?.path())?; }
    ///
    /// // On another machine, or after the disk was lost:
    /// let newest = remote.list()?.images.remove(0);
    /// Backups::of(&path)?.restore_remote(&remote, &newest)?;
    /// assert_eq!(Store::open(&path)?.get("a")?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Remote::put`]. The images that were there before are not affected. `Contradiction` if
    /// the store is in memory, because it has no files.
    pub fn back_up_remote(&self, remote: &Remote) -> Result<Put> {
        self.back_up_remote_watched(remote, &mut unwatched)
    }

    /// As [`back_up_remote`](Self::back_up_remote), with a progress callback. If `watch` returns
    /// `Break`, the call ends, and no image is listed.
    ///
    /// # Errors
    /// As [`back_up_remote`](Self::back_up_remote);
    /// [`BackupError::Stopped`](crate::BackupError::Stopped) if `watch` returned `Break`.
    pub fn back_up_remote_watched(
        &self,
        remote: &Remote,
        watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Put> {
        self.inner.check_writable()?;
        let home = self.inner.files.as_ref().ok_or(NO_FILES)?;
        let form = self.form().ok_or(NO_FILES)?;
        let path = home.vfs.dir.path(&home.name);
        let (main, seal) = settle(&self.inner.engine, form, &path, watch)?;
        let (Source::File { file, .. }, _) = join::source(&main, &home.name)? else {
            return Err(NO_FILES);
        };
        // The key of the open store decides which image is authentic, whatever key the caller's
        // handle has.
        let remote = remote.with_inspect(Arc::new(StoreFile::under(seal)));
        Ok(remote.put(&file, watch)?)
    }
}

impl Backups {
    /// Returns the backups of the store at `target`, read with the [key](Self::key) if it is set.
    /// Nothing is read or written.
    pub fn remote(&self, target: Arc<dyn Target>) -> Remote {
        Remote::new(target, Arc::new(StoreFile::with_key(self.keys.clone())), &self.vfs)
    }

    /// Replaces the store by an image of another place. The replaced files are kept, as with
    /// [`restore`](Self::restore). There need be no store.
    ///
    /// With the key, only an image that is authentic under it is restored. Its contents are
    /// authenticated when the store is opened; [`Remote::verify`] does it before.
    ///
    /// # Errors
    /// As [`restore`](Self::restore), and as [`Remote::open`].
    pub fn restore_remote(&self, remote: &Remote, image: &Image) -> Result<Restored> {
        let _lock = self.settled(Duration::ZERO)?;
        // The image is written, and the copy is read back.
        let total = || image.facts.size.saturating_mul(2);
        self.metered(total, |metered| {
            let sidecars = metered.sidecars()?;
            Ok(remote.restore(image, &metered.inner()?, &sidecars, &mut unwatched)?)
        })
    }
}

//! Backups of a store outside of the machine.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use codex_backup::remote::{Image, Moment, Put, Reached, Remote, Target};
use codex_backup::{Progress, Restored, Source, unwatched};
use codex_storage::vfs::File;
use codex_storage::{
    EarlierStore, Error as StorageError, MainFile, RestorePoint, archived_ledger_at,
    replay_archived,
};

use super::join::{self, StoreFile};
use super::store::{NO_FILES, prepare};
use super::tools::Backups;
use crate::error::{Error, Result};
use crate::map::{self, MapBuilder};
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
        let (main, seal) = prepare(&self.inner.engine, &path, watch, move |engine, progress| {
            engine.whole_main_file(form, progress)
        })?;
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

    /// Replaces the store by the state that an archive has of the moment `until`, or of its last
    /// commit. The replaced files are kept, as with [`restore`](Self::restore). There need be no
    /// store. The log is read at its place, and not copied to the disk.
    ///
    /// A number of a commit is reached exactly. So is a time in a ledger, by the times of its
    /// commits. In the other forms a time is reached to within the interval in which the archive
    /// sends the log: no later commit is restored, and the commits of the last interval before the
    /// time may be missing.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let elsewhere = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use std::sync::Arc;
    /// use codex_core::remote::Folder;
    /// use codex_core::{Backups, RestorePoint, Store};
    ///
    /// let place = Arc::new(Folder::open(elsewhere.path())?);
    /// let remote = Backups::of(&path)?.remote(place).plain_objects(true);
    /// # let store = Store::open(&path)?;
    /// # store.set("a", &1)?;
    /// # store.back_up_remote(&remote)?;
    /// # store.set("a", &2)?;
    /// # drop(store);
    /// Backups::of(&path)?.restore_archive(&remote, Some(RestorePoint::Seq(1)))?;
    /// assert_eq!(Store::open(&path)?.get("a")?, Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Fault::NotReached`](crate::remote::Fault::NotReached), which has the last commit that is
    /// reached, and the other errors of [`Remote::reach`]; `KeyRequired` if the archive is
    /// encrypted and no key is set; an error of a damaged log or image, with the name of the
    /// object; the errors of [`restore`](Self::restore). Nothing was changed, unless
    /// [`pending`](Self::pending) returns the restore.
    pub fn restore_archive(
        &self,
        remote: &Remote,
        until: Option<RestorePoint>,
    ) -> Result<Restored> {
        let moment = match until {
            None => Moment::Latest,
            Some(RestorePoint::Seq(seq)) => Moment::Seq(seq),
            Some(RestorePoint::TimeUs(time_us)) => Moment::TimeUs(time_us),
            Some(_) => return Err(UNKNOWN_POINT),
        };
        let _lock = self.settled(Duration::ZERO)?;
        let reached = remote.reach(moment)?;
        // The state is written, read back, copied, and the copy is read back.
        let total = || reached.image.facts.size.saturating_mul(4);
        self.metered(total, |metered| {
            let (image, seq) = (&reached.image, reached.seq);
            let is_at_moment = image.facts.frozen && image.facts.seq == seq;
            if is_at_moment && reached.logs.is_empty() {
                let (inner, sidecars) = (metered.inner()?, metered.sidecars()?);
                return Ok(remote.restore(image, &inner, &sidecars, &mut unwatched)?);
            }
            let earlier = if image.facts.frozen {
                metered.replayed(remote.open(image)?, &reached)?
            } else {
                let point = until.unwrap_or(RestorePoint::Seq(seq));
                metered.ledger_upto(remote.open(image)?, &reached, point)?
            };
            let mut restored = metered.restore_earlier(&earlier)?;
            restored.from = Some(image.name.clone());
            Ok(restored)
        })
    }

    /// Writes the state that the logs of `reached` make of its image, which is `file`.
    fn replayed(&self, file: Arc<dyn File>, reached: &Reached) -> Result<EarlierStore> {
        let main = MainFile::new(file, reached.image.name.as_ref())?;
        let (keys, mut builder) = (self.keys.as_deref(), MapBuilder::new());
        let replayed = replay_archived(&main, &reached.logs, keys, reached.seq, &mut |op| {
            builder.push(op);
            Ok(())
        })?;
        let state = map::Image(builder.finish(replayed.seq()).ordered());
        Ok(replayed.write(&self.vfs, &self.name, &state)?)
    }

    /// Writes the ledger of `reached` up to `point`. Its image is `file`.
    fn ledger_upto(
        &self,
        file: Arc<dyn File>,
        reached: &Reached,
        point: RestorePoint,
    ) -> Result<EarlierStore> {
        let alone = (file, PathBuf::from(&reached.image.name));
        let (file, path) = reached.logs.first().cloned().unwrap_or(alone);
        let main = MainFile::new(file, &path)?;
        Ok(archived_ledger_at(&self.vfs, &self.name, &main, self.keys.as_deref(), point)?)
    }
}

const UNKNOWN_POINT: Error =
    Error::Storage(StorageError::Contradiction("no archive is read up to a point of this kind"));

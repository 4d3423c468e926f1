//! Changing the key of an open store.

use std::sync::Arc;

use codex_crypto::{Cipher, Key};
use codex_storage::Error as StorageError;
use codex_storage::seal::Keys;
use codex_storage::storage::Form;
use codex_storage::sync::Mutex;

use crate::engine::ImageProgress;
use crate::error::Result;
use crate::inner::Files;
use crate::progress::{OnProgress, Reports, beside_locks};
use crate::seal::{SharedKey, UserKey};
use crate::store::Store;
use crate::trace;

/// Changing the key of an encrypted store.
impl Store {
    /// Makes `key` open the store from now on. The store then refuses the earlier key or
    /// passphrase. Writers wait during the call.
    ///
    /// No data is encrypted again: only the root key is wrapped under the new key and written, in
    /// the Wal and Snapshot forms with a copy of the encrypted blocks of the image. A person with
    /// the old key and an old copy of the file can still read all data under that root key,
    /// including backups. Only [`rekey`](Store::rekey) revokes a key.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::crypto::Key;
    /// let store = Store::options().key(Key::raw(&[1; 32])?).open(&path)?;
    /// store.change_key(Key::raw(&[2; 32])?)?;
    /// store.close()?;
    /// drop(store);
    /// let store = Store::options().key(Key::raw(&[2; 32])?).open(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`NotEncrypted`](crate::StorageError::NotEncrypted) if the store is plain:
    /// [convert](crate::Conversion) it. Otherwise an error of the disk: nothing was changed, unless
    /// the store is [poisoned](Store::poisoned) afterwards. Then either of the two keys may open
    /// it.
    pub fn change_key(&self, key: Key) -> Result<()> {
        self.change_keys(&self.user_keys(key)?)
    }

    /// Encrypts the store again under a new root key that `key` opens, beside running readers and
    /// writers. Returns after all current and later data of the store is under the new root key:
    /// neither the earlier key nor the old root key opens any of it.
    ///
    /// In the Wal form this is a checkpoint, in the Snapshot form an image, and in the Ledger form
    /// a copy of the whole history with the same digests.
    ///
    /// Earlier copies (backups, snapshots of the file system, stolen files) still open with the
    /// earlier key.
    ///
    /// ```
    /// # use codex_core::Store;
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("app.db");
    /// use codex_core::crypto::Key;
    /// let store = Store::options().key(Key::raw(&[1; 32])?).open(&path)?;
    /// store.rekey(Key::raw(&[2; 32])?)?;
    /// store.back_up()?; // Earlier backups still open with the earlier key: remove them.
    /// store.close()?;
    /// drop(store);
    /// assert!(Store::options().key(Key::raw(&[1; 32])?).open(&path).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`change_key`](Store::change_key). A rekey that fails before its last step
    /// changes nothing.
    pub fn rekey(&self, key: Key) -> Result<()> {
        let (store, keys) = (self.clone(), self.user_keys(key)?);
        beside_locks(self.inner.on_progress.as_ref(), &self.inner.path, move |on| match on {
            Some(on) => store.rekey_reporting(&keys, on),
            None => store.rekey_with(&keys, &|_, _| true),
        })
    }

    pub(crate) fn change_keys(&self, keys: &dyn Keys) -> Result<()> {
        self.inner.check_writable()?;
        self.own_files()?;
        Ok(self.inner.engine.change_key(keys)?)
    }

    pub(crate) fn rekey_with(&self, keys: &dyn Keys, progress: &ImageProgress<'_>) -> Result<()> {
        self.inner.check_writable()?;
        self.own_files()?;
        let _span = trace::rekey();
        Ok(self.inner.engine.rekey(keys, progress)?)
    }

    /// Does the same as [`rekey`](Self::rekey), with reports of the progress to `on`.
    fn rekey_reporting(&self, keys: &dyn Keys, on: &OnProgress) -> Result<()> {
        // All bytes are written and read back.
        let files = self.inner.engine.stats().storage;
        let bytes = files.image_bytes.saturating_add(files.log_bytes).saturating_mul(2);
        let is_ledger = self.form() == Some(Form::Ledger);
        let reports = Mutex::new(Reports::begin(on.clone(), bytes));
        let done = self.rekey_with(keys, &|done, total| {
            // For a ledger, the last commit copied is reported, and else the number of entries.
            reports.lock().reach_share(done, if is_ledger { files.seq } else { total });
            true
        });
        reports.lock().end(done.is_ok());
        done
    }

    /// Returns `key` in the form that the storage takes.
    fn user_keys(&self, key: Key) -> Result<UserKey> {
        let entropy = Arc::clone(&self.own_files()?.vfs.entropy);
        // The cipher given here has no effect, because a store keeps its cipher.
        Ok(UserKey::new(SharedKey::new(key), Cipher::default(), entropy))
    }

    /// Returns the files, or an error for a store without them.
    fn own_files(&self) -> Result<&Files> {
        let what = if self.inner.engine.is_shared() {
            "this version does not change the key of a store on a shared log; copy its entries to \
             a new store under the other key"
        } else {
            "a store in memory has no files, and so no key"
        };
        self.inner.files.as_ref().ok_or(StorageError::Contradiction(what).into())
    }
}

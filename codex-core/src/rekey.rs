//! Another key for an open store.

use std::sync::Arc;

use codex_crypto::{Cipher, Key};
use codex_storage::Error as StorageError;
use codex_storage::seal::Keys;

use crate::error::Result;
use crate::inner::Files;
use crate::seal::{SharedKey, UserKey};
use crate::store::Store;

/// Keys of an encrypted store.
impl Store {
    /// Lets `key` open the store from now on, in place of the key or passphrase before, which the
    /// store then refuses. Writers wait meanwhile; nothing is encrypted anew: the root key is
    /// wrapped under the other key, and that alone is written (in the Wal and Snapshot forms with a
    /// copy of the image's sealed blocks).
    ///
    /// Who has the old key and an old copy of the file still reads everything under that root key,
    /// backups among it: only [`rekey`](Store::rekey) revokes.
    ///
    /// # Errors
    /// [`NotEncrypted`](codex_storage::Error::NotEncrypted) for a plain store:
    /// [convert](crate::Conversion) it. What the disk says: nothing was changed, unless the store
    /// is
    /// [poisoned](Store::poisoned); then either key may open it.
    pub fn change_key(&self, key: Key) -> Result<()> {
        self.change_keys(&self.user_keys(key)?)
    }

    /// Puts the store under a fresh root key that `key` opens, beside running readers and writers,
    /// and returns when all that the store holds and will hold is under it: neither the key before
    /// nor the old root key opens any of it. In the Wal form this is a checkpoint, in the Snapshot
    /// form an image, in the Ledger form a copy of the whole history, with the same digests.
    ///
    /// What was copied before (backups, snapshots of the file system, stolen files) opens as ever.
    ///
    /// # Errors
    /// As [`change_key`](Store::change_key). A rekey that fails before its last step changes
    /// nothing.
    pub fn rekey(&self, key: Key) -> Result<()> {
        self.rekey_with(&self.user_keys(key)?)
    }

    pub(crate) fn change_keys(&self, keys: &dyn Keys) -> Result<()> {
        self.inner.check_writable()?;
        self.files()?;
        Ok(self.inner.engine.change_key(keys)?)
    }

    pub(crate) fn rekey_with(&self, keys: &dyn Keys) -> Result<()> {
        self.inner.check_writable()?;
        self.files()?;
        Ok(self.inner.engine.rekey(keys)?)
    }

    fn user_keys(&self, key: Key) -> Result<UserKey> {
        let entropy = Arc::clone(&self.files()?.vfs.entropy);
        // The cipher of the store is kept whatever stands here.
        Ok(UserKey::new(SharedKey::new(key), Cipher::default(), entropy))
    }

    fn files(&self) -> Result<&Files> {
        let what = "a store in memory has no files, and so no key";
        self.inner.files.as_ref().ok_or(StorageError::Contradiction(what).into())
    }
}

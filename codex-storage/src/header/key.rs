//! Headers under another key: the same root key wrapped anew, or a fresh root key.

use std::path::Path;
use std::sync::Arc;

use super::{Header, following, seal_error};
use crate::error::{Error, Result};
use crate::seal::{Keys, Seal, TAG_LEN};

impl Header {
    /// This header with the root key, which `seal` is, wrapped under another user's key.
    ///
    /// # Errors
    /// `NotEncrypted`, `Seal`.
    pub(crate) fn rewrapped(
        &self,
        seal: Option<&dyn Seal>,
        keys: &dyn Keys,
        path: &Path,
    ) -> Result<Self> {
        let (Some(seal), Some(old)) = (seal, &self.envelope) else {
            return Err(Error::NotEncrypted { path: path.to_owned() });
        };
        let wrapped = keys.wrap(&self.store_id, seal, old);
        let envelope = wrapped.map_err(|e| seal_error(path, 0, e))?;
        let slot_counter = following(self.slot_counter, path)?;
        Ok(Self { slot_counter, envelope: Some(envelope), ..self.clone() })
    }

    /// This header under a fresh root key, and that key; of the same cipher where there is one.
    /// Where there is an envelope, the new one is to take its place.
    ///
    /// # Errors
    /// `Seal`.
    pub(crate) fn under_fresh_root(
        &self,
        keys: &dyn Keys,
        path: &Path,
    ) -> Result<(Self, Arc<dyn Seal>)> {
        let cipher = Some(self.cipher).filter(|&cipher| cipher != 0);
        let created = keys.create(&self.store_id, cipher, self.envelope.as_ref());
        let (envelope, seal) = created.map_err(|e| seal_error(path, 0, e))?;
        let header = Self {
            cipher: seal.cipher_id(),
            root_id: seal.root_id(),
            image_salt: [0; 32],
            base_tag: [0; TAG_LEN],
            envelope: Some(envelope),
            ..self.clone()
        };
        Ok((header, seal))
    }
}

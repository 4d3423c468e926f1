//! Headers under another key: the same root key in a new envelope, or a fresh root key.

use std::path::Path;
use std::sync::Arc;

use super::{Header, following, seal_error};
use crate::error::{Error, Result};
use crate::seal::{Keys, Seal, TAG_LEN};

impl Header {
    /// Returns this header with the root key of `seal` in an envelope for another key of the user.
    ///
    /// # Errors
    /// `NotEncrypted` if the store is plain, `Seal` if the key provider fails.
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

    /// Returns this header under a fresh root key, and the seal of that key. The cipher stays the
    /// same if there is one. A new envelope replaces the old one.
    ///
    /// # Errors
    /// `Seal` if the key provider fails.
    pub(crate) fn under_fresh_root(
        &self,
        keys: &dyn Keys,
        path: &Path,
    ) -> Result<(Self, Arc<dyn Seal>)> {
        let cipher = Some(self.cipher).filter(|&cipher| cipher != 0);
        let created = keys.create(&self.store_id, cipher, self.envelope.as_ref());
        let (envelope, seal) = created.map_err(|e| seal_error(path, 0, e))?;
        // Salt and tag belong to the former root key, so they begin again.
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

    /// Returns whether a rekey made this segment: it continues no tag, although there is a log
    /// before it.
    pub(crate) fn is_rekeyed(&self) -> bool {
        self.cipher != 0 && self.neighbour != [0; 16] && self.base_tag == [0; TAG_LEN]
    }
}

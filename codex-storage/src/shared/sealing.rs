//! Sealed parts: the key of a session, and the tag that ties each of its parts to the one before.

use std::fmt;

use super::Meta;
use super::Session;
use super::frame::{Body, CRC_AT};
use crate::codec::Fields;
use crate::frame::SALT_LEN;
use crate::seal::{Opener, Seal, SealError, Sealer, TAG_LEN};

/// Seals the parts of the session of this node.
pub(super) struct Sealing {
    sealer: Box<dyn Sealer>,
    store_id: [u8; 16],
    /// Whether a part with the salt is in the log.
    has_salt: bool,
    /// The tag of the last part that is in the log.
    tag: [u8; TAG_LEN],
}

impl Sealing {
    /// Draws a key for the parts of `session`.
    pub(super) fn new(
        seal: &dyn Seal,
        store_id: &[u8; 16],
        session: Session,
    ) -> Result<Self, SealError> {
        let sealer = seal.sealer(&info(store_id, session))?;
        Ok(Self { sealer, store_id: *store_id, has_salt: false, tag: [0; TAG_LEN] })
    }

    /// Returns true if the next frame should be of another session.
    pub(super) fn is_worn(&self) -> bool {
        self.sealer.is_worn()
    }

    /// Returns true if the next part must have the salt.
    pub(super) fn needs_salt(&self) -> bool {
        !self.has_salt
    }

    /// Appends a piece to the header in `part`, sealed.
    pub(super) fn seal(&mut self, piece: &[u8], part: &mut Vec<u8>) -> Result<(), SealError> {
        let counter = self.sealer.next_counter()?;
        let head = part.get(..CRC_AT).expect("the header was made before");
        let aad = aad(&self.store_id, head, counter, &self.tag);
        part.extend_from_slice(&counter.to_le_bytes());
        if self.needs_salt() {
            part.extend_from_slice(&self.sealer.salt());
        }
        let from = part.len();
        part.extend_from_slice(piece);
        self.sealer.seal(counter, &aad, part, from)
    }

    /// Records that `part` is in the log.
    pub(super) fn goes_on_after(&mut self, part: &[u8]) {
        self.tag = *part.last_chunk().expect("a sealed part ends with a tag");
        self.has_salt = true;
    }

    /// Records what a reader found at the end of the session.
    pub(super) fn goes_on(&mut self, chain: Chain) {
        (self.has_salt, self.tag) = (chain.salt.is_some(), chain.tag);
    }
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealing").field("has_salt", &self.has_salt).finish_non_exhaustive()
    }
}

/// The place of a reader in a sealed session: the salt of its key, and the tag of its last sealed
/// part. Without them, in a plain store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Chain {
    pub(super) salt: Option<[u8; SALT_LEN]>,
    pub(super) tag: [u8; TAG_LEN],
}

impl Chain {
    /// Opens the piece of the next part of `session`. `opener` keeps the key.
    pub(super) fn open(
        &mut self,
        seal: &dyn Seal,
        meta: &Meta,
        session: Session,
        body: &Body<'_>,
        opener: &mut Option<Box<dyn Opener>>,
    ) -> Result<Vec<u8>, SealError> {
        let (counter, bytes) = body.bytes.split_first_chunk().ok_or(SealError::Tampered)?;
        let (salt, sealed) = if body.is_salted {
            let (salt, sealed) = bytes.split_first_chunk().ok_or(SealError::Tampered)?;
            (*salt, sealed)
        } else {
            (self.salt.ok_or(SealError::Tampered)?, bytes)
        };
        if self.salt.is_some_and(|known| known != salt) {
            return Err(SealError::Tampered);
        }
        let tag = *sealed.last_chunk().ok_or(SealError::Tampered)?;
        let opener = match opener {
            Some(opener) => opener,
            None => opener.insert(seal.opener(&salt, &info(meta.store_id(), session))?),
        };
        let counter = u64::from_le_bytes(*counter);
        let (head, _) = body.head.split_at(CRC_AT);
        let mut piece = sealed.to_vec();
        opener.open(counter, &aad(meta.store_id(), head, counter, &self.tag), &mut piece)?;
        *self = Self { salt: Some(salt), tag };
        Ok(piece)
    }

    /// Appends the salt and the tag.
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.salt.unwrap_or_default());
        to.extend_from_slice(&self.tag);
    }

    /// Reads what [`encode`](Self::encode) has written.
    pub(super) fn decode(fields: &mut Fields<'_>) -> Self {
        let salt = Some(fields.array()).filter(|salt| *salt != [0; SALT_LEN]);
        Self { salt, tag: fields.array() }
    }
}

/// Returns the purpose for which the key of a session is derived.
fn info(store_id: &[u8; 16], session: Session) -> Vec<u8> {
    [b"codexdb order 1".as_slice(), store_id, &session.0.to_le_bytes()].concat()
}

/// Returns the bytes that are authenticated with a piece: the store, the header, the counter, and
/// the tag of the sealed part before it.
fn aad(store_id: &[u8; 16], head: &[u8], counter: u64, before: &[u8; TAG_LEN]) -> Vec<u8> {
    [store_id.as_slice(), head, &counter.to_le_bytes(), before].concat()
}

/// The most bytes by which sealing makes a part longer: the counter, the salt and the tag.
pub(super) const SEALED_EXTRA: usize = 8 + SALT_LEN + TAG_LEN;

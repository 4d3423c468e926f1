//! The interface to encryption. Storage uses these traits and has no cipher of its own.
//!
//! [`Keys`] opens or creates the envelope in the header of a store, and returns a [`Seal`]. A seal
//! returns one [`Sealer`] for each new epoch of a log and for each new image, and an [`Opener`] for
//! each epoch and image that was sealed earlier.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// The length of the envelope in a file header, in bytes.
pub const ENVELOPE_LEN: usize = 256;
/// The number of bytes by which sealing makes a payload longer: the length of the tag.
pub const TAG_LEN: usize = 16;
/// The length of the tag that authenticates a file header, in bytes.
pub const HEADER_TAG_LEN: usize = 28;

/// An envelope in the format of a file header.
pub type Envelope = Box<[u8; ENVELOPE_LEN]>;

/// The key of the user, before it is tried on an envelope.
pub trait Keys: fmt::Debug + Send + Sync {
    /// Creates a fresh root key and the envelope that wraps it, for a new store or for a rekey.
    ///
    /// `cipher` is the number of the cipher to use; if it is `None`, the implementation chooses.
    /// `old` is the envelope that the new one replaces: the costs of a passphrase should not be
    /// lower than there.
    fn create(
        &self,
        store_id: &[u8; 16],
        cipher: Option<u8>,
        old: Option<&Envelope>,
    ) -> Result<(Envelope, Arc<dyn Seal>), SealError>;
    /// Wraps an existing root key, which keys of the same type have created or unlocked. `old` is
    /// the current envelope: the costs of a passphrase should not be lower than there.
    fn wrap(
        &self,
        store_id: &[u8; 16],
        root: &dyn Seal,
        old: &Envelope,
    ) -> Result<Envelope, SealError>;
    /// Opens the envelope of an existing store and returns its root key.
    fn unlock(
        &self,
        store_id: &[u8; 16],
        envelope: &[u8; ENVELOPE_LEN],
    ) -> Result<Arc<dyn Seal>, SealError>;
}

/// The root key of one store. [`Keys::wrap`] recovers the concrete type through [`Any`].
pub trait Seal: Any + fmt::Debug + Send + Sync {
    /// Returns the number of the cipher in file headers. It is never 0, which means plain.
    fn cipher_id(&self) -> u8;
    /// Returns the public id of the root key, which is stored in the files that it seals.
    fn root_id(&self) -> [u8; 16];
    /// Returns the tag that authenticates the bytes of a header.
    fn header_tag(&self, header: &[u8]) -> [u8; HEADER_TAG_LEN];
    /// Returns the mask of the digest in the header of the file with this id. The mask is different
    /// for each file and each root key. Without the root key it cannot be distinguished from random
    /// bytes.
    fn digest_pad(&self, file_id: &[u8; 16]) -> [u8; 32];
    /// Checks the tag of a header in constant time.
    fn verify_header(&self, header: &[u8], tag: &[u8; HEADER_TAG_LEN]) -> Result<(), SealError>;
    /// Begins an epoch: draws a fresh salt of 32 random bytes and derives a key from the salt and
    /// from
    /// `info`, which identifies the use of the key (file id, kind, generation). Sealing always
    /// needs a fresh salt, so that no pair of key and nonce repeats.
    fn sealer(&self, info: &[u8]) -> Result<Box<dyn Sealer>, SealError>;
    /// Derives the key of an earlier epoch again, to open the payloads that were sealed in it.
    fn opener(&self, salt: &[u8; 32], info: &[u8]) -> Result<Box<dyn Opener>, SealError>;
}

/// The root key of an open store, used in place of a user's key. It opens each file under that root
/// key, and creates no envelope. A file under another root key fails authentication.
#[derive(Debug, Clone)]
pub struct Unlocked(Arc<dyn Seal>);

impl Unlocked {
    /// Creates keys that open the files under the root key `seal`.
    pub fn new(seal: Arc<dyn Seal>) -> Self {
        Self(seal)
    }
}

impl Keys for Unlocked {
    fn create(
        &self,
        _store_id: &[u8; 16],
        _cipher: Option<u8>,
        _old: Option<&Envelope>,
    ) -> Result<(Envelope, Arc<dyn Seal>), SealError> {
        Err(SealError::Refused(NO_USER.to_owned()))
    }

    fn wrap(
        &self,
        _store_id: &[u8; 16],
        _root: &dyn Seal,
        _old: &Envelope,
    ) -> Result<Envelope, SealError> {
        Err(SealError::Refused(NO_USER.to_owned()))
    }

    fn unlock(
        &self,
        _store_id: &[u8; 16],
        _envelope: &[u8; ENVELOPE_LEN],
    ) -> Result<Arc<dyn Seal>, SealError> {
        Ok(Arc::clone(&self.0))
    }
}

const NO_USER: &str = "a root key by itself makes no envelope; give the user's key";

/// Seals payloads of one epoch under counters, each of which it returns once.
pub trait Sealer: fmt::Debug + Send + Sync {
    /// Returns the salt of the epoch, which the file stores in plaintext.
    fn salt(&self) -> [u8; 32];
    /// Returns the next counter. The counter advances at every call, even if no frame is written
    /// with it, and no value is returned twice.
    fn next_counter(&mut self) -> Result<u64, SealError>;
    /// Returns true if a large part of the limits of one key is used. The caller should then begin
    /// a new epoch at the next convenient moment.
    fn is_worn(&self) -> bool;
    /// Encrypts `buf[from..]` in place and appends a tag of [`TAG_LEN`] bytes. `counter` must be
    /// the last value of [`next_counter`](Self::next_counter), and not used before.
    fn seal(
        &mut self,
        counter: u64,
        aad: &[u8],
        buf: &mut Vec<u8>,
        from: usize,
    ) -> Result<(), SealError>;
}

/// Opens payloads of one epoch. Threads can share it.
pub trait Opener: fmt::Debug + Send + Sync {
    /// Decrypts `buf` (payload and tag) in place and removes the tag. If it fails, `buf` is
    /// emptied, so that no unauthenticated bytes are left in it.
    fn open(&self, counter: u64, aad: &[u8], buf: &mut Vec<u8>) -> Result<(), SealError>;
}

/// The reason for which encryption or decryption was refused.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The key does not open this envelope.
    #[error("the key or passphrase does not open this store")]
    WrongKey,
    /// Bytes under the key were changed, moved or replaced.
    #[error("the authentication tag does not match: the bytes were changed or moved")]
    Tampered,
    /// The envelope is malformed, or needs a feature that this build does not have.
    #[error("the encryption header cannot be used: {0}")]
    Envelope(String),
    /// A passphrase was tried on the maximum number of envelopes for one opening or one listing of
    /// backups. The number is limited because each envelope determines the cost of a try.
    #[error(
        "the passphrase was tried on {tried} different envelopes, each at the cost in that \
         envelope, and is not tried on more: remove the files that are no backups of this store, \
         or open the backup to be read by its own name"
    )]
    TooManyEnvelopes {
        /// The number of envelopes on which it was tried.
        tried: usize,
    },
    /// The key has reached its limit of messages, or the entropy source failed.
    #[error("sealing is not possible: {0}")]
    Refused(String),
}

crate::debug_as_display!(SealError: WrongKey, Tampered, Envelope, TooManyEnvelopes, Refused);

//! The place where encryption joins: storage asks for these traits and knows no cipher.
//!
//! [`Keys`] opens or makes the envelope in the header of a store, which gives a [`Seal`]; a seal
//! gives one [`Sealer`] for each new epoch of a log and for each new image, and an [`Opener`] for
//! what was sealed before.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// The length of the envelope in a file header, in bytes.
pub const ENVELOPE_LEN: usize = 256;
/// The length of the tag that a sealed payload grows by, in bytes.
pub const TAG_LEN: usize = 16;
/// The length of the tag that authenticates a file header, in bytes.
pub const HEADER_TAG_LEN: usize = 28;

/// An envelope as it stands in a file header.
pub type Envelope = Box<[u8; ENVELOPE_LEN]>;

/// The key that the user brought, not yet tried.
pub trait Keys: fmt::Debug + Send + Sync {
    /// Makes a fresh root key and the envelope that wraps it, for a new store or a rekeyed one.
    /// `cipher` is the number of the cipher to use; `None` leaves the choice here. `old` is the
    /// envelope whose place the new one takes: a passphrase is to cost no less than there.
    fn create(
        &self,
        store_id: &[u8; 16],
        cipher: Option<u8>,
        old: Option<&Envelope>,
    ) -> Result<(Envelope, Arc<dyn Seal>), SealError>;
    /// Wraps a root key that exists, one that keys of this same type have made or unlocked. `old`
    /// is its envelope so far: a passphrase is to cost no less than there.
    fn wrap(
        &self,
        store_id: &[u8; 16],
        root: &dyn Seal,
        old: &Envelope,
    ) -> Result<Envelope, SealError>;
    /// Opens the envelope of an existing store.
    fn unlock(
        &self,
        store_id: &[u8; 16],
        envelope: &[u8; ENVELOPE_LEN],
    ) -> Result<Arc<dyn Seal>, SealError>;
}

/// The root key of one store. It can be told by its type ([`Any`]), for [`Keys::wrap`].
pub trait Seal: Any + fmt::Debug + Send + Sync {
    /// The cipher's number in file headers (never 0, which means plain).
    fn cipher_id(&self) -> u8;
    /// The public name of the root key, which sidecar files carry.
    fn root_id(&self) -> [u8; 16];
    /// Authenticates the bytes of a header.
    fn header_tag(&self, header: &[u8]) -> [u8; HEADER_TAG_LEN];
    /// The mask of the digest that stands in the header of the file with this id. Another one for
    /// each file and each root key, and without the root key not to be told from random bytes.
    fn digest_pad(&self, file_id: &[u8; 16]) -> [u8; 32];
    /// Checks that tag in constant time.
    fn verify_header(&self, header: &[u8], tag: &[u8; HEADER_TAG_LEN]) -> Result<(), SealError>;
    /// Begins an epoch: draws a fresh salt of 32 random bytes and derives a key from it and from
    /// `info` (what the key is for: file id, kind, generation). Sealing is only possible under a
    /// fresh salt, so that no (key, nonce) pair can come twice.
    fn sealer(&self, info: &[u8]) -> Result<Box<dyn Sealer>, SealError>;
    /// The key of an epoch that was begun earlier, to open what it sealed.
    fn opener(&self, salt: &[u8; 32], info: &[u8]) -> Result<Box<dyn Opener>, SealError>;
}

/// The root key of an open store in place of a user's key: it opens every file under that root, and
/// makes no envelope. A file under another root fails authentication.
#[derive(Debug, Clone)]
pub struct Unlocked(Arc<dyn Seal>);

impl Unlocked {
    /// What opens the files under the root key `seal`.
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

/// Seals payloads of one epoch under counters that it hands out once.
pub trait Sealer: fmt::Debug + Send + Sync {
    /// The salt of the epoch, to be stored in the clear.
    fn salt(&self) -> [u8; 32];
    /// The next counter; it advances at every call, whatever becomes of the frame, and never
    /// returns a value twice.
    fn next_counter(&mut self) -> Result<u64, SealError>;
    /// Whether much of what one key may seal is used up: begin a new epoch at the next good moment.
    fn is_worn(&self) -> bool;
    /// Encrypts `buf[from..]` in place and appends a tag of [`TAG_LEN`] bytes. `counter` must be
    /// the last one handed out and not yet used.
    fn seal(
        &mut self,
        counter: u64,
        aad: &[u8],
        buf: &mut Vec<u8>,
        from: usize,
    ) -> Result<(), SealError>;
}

/// Opens payloads of one epoch; from several threads at once, if need be.
pub trait Opener: fmt::Debug + Send + Sync {
    /// Decrypts `buf` (payload and tag) in place and cuts the tag off; on an error `buf` is
    /// emptied, so that nothing unauthenticated is left in it.
    fn open(&self, counter: u64, aad: &[u8], buf: &mut Vec<u8>) -> Result<(), SealError>;
}

/// Why a seal refused.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The key does not open this envelope.
    #[error("the key or passphrase does not open this store")]
    WrongKey,
    /// Bytes under the key were changed, moved or replaced.
    #[error("the authentication tag does not match: the bytes were changed or moved")]
    Tampered,
    /// The envelope is malformed or asks for what this build does not know.
    #[error("the encryption header cannot be used: {0}")]
    Envelope(String),
    /// A passphrase was tried on as many envelopes as one opening, or one look at the backups, may
    /// take: each try costs what the envelope says.
    #[error(
        "the passphrase was tried on {tried} different envelopes, each at the cost that stands in \
         it, and is tried on no more: remove the files that are no backups of this store, or \
         open the backup to be read by its own name"
    )]
    TooManyEnvelopes {
        /// On how many envelopes it was tried.
        tried: usize,
    },
    /// The key's limit of messages is reached, or entropy failed.
    #[error("sealing is not possible: {0}")]
    Refused(String),
}

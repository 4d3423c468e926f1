//! The root key: what an envelope wraps and everything else is derived from.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::cipher::{Aead, Cipher};
use crate::entropy::{Entropy, draw};
use crate::epoch::{EpochSalt, Opener, Sealer};
use crate::error::{Error, Result};
use crate::kdf::{Label, Prk};

/// 32 random bytes and the cipher they are used with. Made by
/// [`Envelope::create`](crate::Envelope::create), read by
/// [`Envelope::open`](crate::Envelope::open).
///
/// Not `Clone`; wiped when dropped; `Debug` shows nothing but the cipher. The keys for its uses
/// come from HKDF-SHA256 under separate labels and the cipher's number, so no key ever serves
/// two uses or two ciphers.
///
/// ```compile_fail,E0599
/// # use codex_crypto::{Cipher, Envelope, Key, OsEntropy};
/// # let key = Key::raw(&[7; 32]).unwrap();
/// let (_, root) = Envelope::create(&key, Cipher::default(), b"", &mut OsEntropy).unwrap();
/// let copy = root.clone();
/// ```
pub struct RootKey {
    // On the heap: moving the key leaves no copy behind.
    bytes: Box<Zeroizing<[u8; 32]>>,
    cipher: Cipher,
}

impl RootKey {
    /// 16 bytes that name the root key in other files: HKDF-SHA256 of it, so they say nothing
    /// about it and can not name another one.
    pub fn id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        self.expand(&[], Label::RootId, &[], &mut id);
        id
    }

    /// The cipher of everything under this key.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// HMAC-SHA256 of `bytes` under a key of 64 bytes for this use alone; authenticates the
    /// header of a file.
    pub fn header_tag(&self, bytes: &[u8]) -> [u8; 32] {
        let mut key = Zeroizing::new([0; 64]);
        self.expand(&[], Label::Header, &[], &mut key);
        let mut mac = Hmac::<Sha256>::new((&*key).into());
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }

    /// A pad of 32 bytes for one digest, which belongs to `info` (the id of its file): to be used
    /// for that digest alone, as what two digests under one pad have in common is open.
    pub fn digest_pad(&self, info: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut pad = Zeroizing::new([0; 32]);
        self.expand(&[], Label::Digest, info, &mut pad);
        pad
    }

    /// Compares in constant time. `tag` may be cut off, down to [`HEADER_TAG_LEN_MIN`] bytes.
    ///
    /// # Errors
    /// [`Error::Tampered`] if `tag` is not the beginning of the tag of `bytes` under this key, or
    /// is too short.
    pub fn verify_header_tag(&self, bytes: &[u8], tag: &[u8]) -> Result<()> {
        let full = self.header_tag(bytes);
        let cut = full.get(..tag.len().max(HEADER_TAG_LEN_MIN)).ok_or(Error::Tampered)?;
        if cut.ct_eq(tag).into() { Ok(()) } else { Err(Error::Tampered) }
    }

    /// The sealing side of a new epoch: its key is HKDF-SHA256 of this key, `salt` and `info`
    /// (file, kind, generation: what must never share a key). The salt is random and used up
    /// here, so no two sealers have one key; it stands in the file for [`RootKey::opener`].
    pub fn sealer(&self, salt: EpochSalt, info: &[u8]) -> Sealer {
        let aead = self.epoch(salt.bytes(), info);
        Sealer::new(aead, salt)
    }

    /// The opening side of an epoch, as often as needed.
    pub fn opener(&self, salt: &[u8; 32], info: &[u8]) -> Opener {
        Opener::new(self.epoch(salt, info))
    }

    pub(crate) fn random(cipher: Cipher, entropy: &mut dyn Entropy) -> Result<Self> {
        let mut root = Self::empty(cipher);
        draw(entropy, root.bytes.as_mut_slice())?;
        Ok(root)
    }

    /// Zeros for an envelope to unwrap into.
    pub(crate) fn empty(cipher: Cipher) -> Self {
        Self { bytes: Box::default(), cipher }
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8; 32] {
        &mut self.bytes
    }

    fn epoch(&self, salt: &[u8; 32], info: &[u8]) -> Aead {
        let mut key = Zeroizing::new([0; 32]);
        self.expand(salt, Label::Epoch, info, &mut key);
        Aead::new(self.cipher, &key)
    }

    fn expand<const N: usize>(&self, salt: &[u8], label: Label, info: &[u8], out: &mut [u8; N]) {
        Prk::extract(salt, self.bytes.as_slice()).expand(label, &[&[self.cipher.id()], info], out);
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootKey").field("cipher", &self.cipher).finish_non_exhaustive()
    }
}

// The bytes are wiped by their own type.
impl ZeroizeOnDrop for RootKey {}

/// The shortest header tag that is accepted, in bytes: half of the whole (RFC 2104, section 5).
pub const HEADER_TAG_LEN_MIN: usize = 16;

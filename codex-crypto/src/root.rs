//! The root key, which an envelope wraps and from which all other keys are derived.

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

/// A root key: 32 random bytes and the cipher they are used with.
/// [`Envelope::create`](crate::Envelope::create) makes a root key, and
/// [`Envelope::open`](crate::Envelope::open) reads it.
///
/// Not `Clone`. Wiped when dropped. `Debug` shows only the cipher. The keys for the separate uses
/// are derived with HKDF-SHA256 from separate labels and the number of the cipher, so no key serves
/// two uses or two ciphers.
///
/// ```compile_fail,E0599
/// # use codex_crypto::{Cipher, Envelope, Key, OsEntropy};
/// # let key = Key::raw(&[7; 32]).unwrap();
/// let (_, root) = Envelope::create(&key, Cipher::default(), b"", &mut OsEntropy).unwrap();
/// let copy = root.clone();
/// ```
pub struct RootKey {
    // On the heap, so that moving the key leaves no copy on the stack.
    bytes: Box<Zeroizing<[u8; 32]>>,
    cipher: Cipher,
}

impl RootKey {
    /// Returns the 16-byte id of the root key, under which other files refer to it. The id is
    /// derived with HKDF-SHA256: it reveals nothing about the key, and no other key has the same
    /// id.
    pub fn id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        self.expand(&[], Label::RootId, &[], &mut id);
        id
    }

    /// Returns the cipher of everything under this key.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Returns the HMAC-SHA256 of `bytes`, which authenticates the header of a file. Its 64-byte
    /// key has no other use.
    pub fn header_tag(&self, bytes: &[u8]) -> [u8; 32] {
        let mut key = Zeroizing::new([0; 64]);
        self.expand(&[], Label::Header, &[], &mut key);
        let mut mac = Hmac::<Sha256>::new((&*key).into());
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }

    /// Returns a pad of 32 bytes for the digest that belongs to `info` (the id of its file).
    ///
    /// Use a pad for one digest only. If two digests are masked with the same pad, the XOR of the
    /// two is revealed.
    pub fn digest_pad(&self, info: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut pad = Zeroizing::new([0; 32]);
        self.expand(&[], Label::Digest, info, &mut pad);
        pad
    }

    /// Verifies the header tag of `bytes` in constant time. `tag` may be truncated, down to
    /// [`HEADER_TAG_LEN_MIN`] bytes.
    ///
    /// # Errors
    /// [`Error::Tampered`] if `tag` is not the beginning of the tag of `bytes` under this key, or
    /// if it is shorter than the minimum.
    pub fn verify_header_tag(&self, bytes: &[u8], tag: &[u8]) -> Result<()> {
        let full = self.header_tag(bytes);
        // A tag that is too short is compared with the minimal length, and slices of different
        // lengths are never equal. A tag that is too long selects no slice.
        let cut = full.get(..tag.len().max(HEADER_TAG_LEN_MIN)).ok_or(Error::Tampered)?;
        if cut.ct_eq(tag).into() { Ok(()) } else { Err(Error::Tampered) }
    }

    /// Returns the sealer of a new epoch. Its key is derived with HKDF-SHA256 from this key, `salt`
    /// and `info` (the file, kind and generation: everything that must not share a key).
    ///
    /// The salt is random and consumed here, so no two sealers share a key. The file stores the
    /// salt for [`RootKey::opener`].
    pub fn sealer(&self, salt: EpochSalt, info: &[u8]) -> Sealer {
        let aead = self.epoch(salt.bytes(), info);
        Sealer::new(aead, salt)
    }

    /// Returns an opener of an epoch. An epoch can have any number of openers.
    pub fn opener(&self, salt: &[u8; 32], info: &[u8]) -> Opener {
        Opener::new(self.epoch(salt, info))
    }

    pub(crate) fn random(cipher: Cipher, entropy: &mut dyn Entropy) -> Result<Self> {
        let mut root = Self::empty(cipher);
        draw(entropy, root.bytes.as_mut_slice())?;
        Ok(root)
    }

    /// Returns a key of zeros, which an envelope overwrites with the unwrapped bytes.
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

// The `Zeroizing` field wipes the bytes.
impl ZeroizeOnDrop for RootKey {}

/// The minimum length of a header tag, in bytes: half of the full tag (RFC 2104, section 5).
pub const HEADER_TAG_LEN_MIN: usize = 16;

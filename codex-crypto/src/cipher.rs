//! Authenticated encryption with one of two ciphers.

use std::fmt;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;

use crate::error::{Error, Result};

/// The cipher of an envelope and of everything under its root key. An envelope stores the number of
/// its cipher.
///
/// Both ciphers take a 32-byte key and a 12-byte nonce, and append a 16-byte tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cipher {
    /// AES-256-GCM (NIST SP 800-38D), the default. It is the faster cipher if the processor has AES
    /// instructions, which are detected at run time.
    #[default]
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305 (RFC 8439). It is the faster cipher if the processor has no AES
    /// instructions, and uses no table look-ups on any processor.
    ChaCha20Poly1305 = 2,
}

impl Cipher {
    /// Returns the number of the cipher in an envelope.
    pub fn id(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    /// Returns the cipher with the number `id`.
    ///
    /// # Errors
    /// [`Error::UnsupportedCipher`] if no cipher has this number.
    pub fn from_id(id: u8) -> Result<Self> {
        match id {
            1 => Ok(Self::Aes256Gcm),
            2 => Ok(Self::ChaCha20Poly1305),
            _ => Err(Error::UnsupportedCipher { id }),
        }
    }
}

/// Length of the tag that sealing appends, in bytes.
pub const TAG_LEN: usize = 16;

pub(crate) const NONCE_LEN: usize = 12;

/// One cipher under one key. Private to the crate, because the caller has to choose the nonce.
///
/// The key schedule is on the heap, so that moving the value leaves no copy of it on the stack.
pub(crate) enum Aead {
    Aes(Box<Aes256Gcm>),
    ChaCha(Box<ChaCha20Poly1305>),
}

impl Aead {
    pub(crate) fn new(cipher: Cipher, key: &[u8; 32]) -> Self {
        match cipher {
            Cipher::Aes256Gcm => Self::Aes(Box::new(Aes256Gcm::new(key.into()))),
            Cipher::ChaCha20Poly1305 => Self::ChaCha(Box::new(ChaCha20Poly1305::new(key.into()))),
        }
    }

    /// Encrypts `body` in place and returns the tag.
    ///
    /// Returns [`Error::MessageTooLong`] if the cipher refuses the length of `body` or `aad`.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        body: &mut [u8],
    ) -> Result<[u8; TAG_LEN]> {
        let len = body.len() as u64;
        let tag = match self {
            Self::Aes(aead) => aead.encrypt_inout_detached(nonce.into(), aad, body.into()),
            Self::ChaCha(aead) => aead.encrypt_inout_detached(nonce.into(), aad, body.into()),
        };
        Ok(tag.map_err(|_| Error::MessageTooLong { len })?.into())
    }

    /// Decrypts `body` in place if the tag is correct. If it is not, fills `body` with zeros and
    /// returns [`Error::Tampered`].
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        body: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<()> {
        let (nonce, tag) = (nonce.into(), tag.into());
        let opened = match self {
            Self::Aes(aead) => aead.decrypt_inout_detached(nonce, aad, (&mut *body).into(), tag),
            Self::ChaCha(aead) => aead.decrypt_inout_detached(nonce, aad, (&mut *body).into(), tag),
        };
        opened.map_err(|_| {
            // Overwritten whether or not the cipher wrote to it, so that no unverified plaintext is
            // left.
            body.fill(0);
            Error::Tampered
        })
    }
}

impl fmt::Debug for Aead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes(_) => "Aes256Gcm",
            Self::ChaCha(_) => "ChaCha20Poly1305",
        })
    }
}

#[cfg(test)]
mod tests;

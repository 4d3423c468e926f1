//! The two authenticated ciphers behind one call.

use std::fmt;

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};
use chacha20poly1305::ChaCha20Poly1305;

use crate::error::{Error, Result};

/// The cipher of an envelope and of everything under it; the number stands in the envelope.
///
/// Both take a 32-byte key, a 12-byte nonce and give a 16-byte tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cipher {
    /// AES-256-GCM (NIST SP 800-38D), the default: with the processor's AES instructions, which
    /// are found at run time, the faster one.
    #[default]
    Aes256Gcm = 1,
    /// ChaCha20-Poly1305 (RFC 8439): the faster one on processors without AES instructions, and
    /// free of table look-ups everywhere.
    ChaCha20Poly1305 = 2,
}

impl Cipher {
    /// The number that stands in the envelope.
    pub fn id(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    /// The cipher of a number.
    ///
    /// # Errors
    /// [`Error::UnsupportedCipher`] for a number that names none.
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

/// One cipher under one key. The nonce is the caller's concern, so this stays inside the crate.
/// The key schedule lies on the heap, so that moving this leaves no copy of it behind.
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

    /// Decrypts `body` in place if the tag is right. Otherwise `body` is overwritten, whatever
    /// the cipher left there.
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

//! Sealing and opening of messages under the key of one epoch, with nonces that cannot repeat.
//!
//! AES-GCM depends on one rule: no two messages are sealed under the same key and nonce. Each epoch
//! has its own key, derived from a fresh random salt. One sealer consumes the salt, and the sealer
//! hands out each counter once. No nonce is derived from a position in a file, so a torn tail, a
//! restored copy or a cloned disk cannot make a pair repeat.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cipher::{Aead, NONCE_LEN, TAG_LEN};
use crate::entropy::{Entropy, draw};
use crate::error::{Error, Result};

/// The maximum number of messages of an epoch: 2^32, the bound of NIST SP 800-38D, section 8.3.
/// (That bound is for nonces that may repeat by chance. The nonces here are counters, which would
/// allow more than any store needs.)
pub const MESSAGES_MAX: u64 = 1 << 32;

/// The maximum number of bytes of an epoch, including associated data and tags: 2^38 (256 GiB).
/// These are 2^34 blocks, which keep the advantage of an attacker on the confidentiality of AES-GCM
/// below 2^-60 (blocks squared over 2^129: draft-irtf-cfrg-aead-limits, section 5.1.1).
pub const SEALED_BYTES_MAX: u64 = 1 << 38;

/// The maximum length of a message, payload and associated data together: 2^30 bytes (1 GiB), far
/// below the 2^36 - 32 of NIST SP 800-38D, section 5.2.1.1.
///
/// An attempt to forge a message succeeds with a probability of at most its number of blocks over
/// 2^128 for AES-GCM (2^-102), and over 2^103 for ChaCha20-Poly1305 (2^-77):
/// draft-irtf-cfrg-aead-limits, sections 5.1 and 5.2.
pub const MESSAGE_LEN_MAX: u64 = 1 << 30;

/// The 32 random bytes from which the key of one epoch is derived. Not `Clone`, and consumed by
/// [`RootKey::sealer`](crate::RootKey::sealer).
pub struct EpochSalt([u8; 32]);

impl EpochSalt {
    /// Draws a fresh salt.
    ///
    /// # Errors
    /// [`Error::Entropy`] if the source fails.
    pub fn draw(entropy: &mut dyn Entropy) -> Result<Self> {
        let mut bytes = [0; 32];
        draw(entropy, &mut bytes)?;
        Ok(Self(bytes))
    }

    /// Returns the bytes that are stored in the file. They are not secret.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for EpochSalt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochSalt").finish_non_exhaustive()
    }
}

/// A counter value under which one message is sealed. It is handed out once, is neither `Clone` nor
/// `Copy`, and is consumed by [`Sealer::seal`]:
///
/// ```compile_fail,E0382
/// # use codex_crypto::{Cipher, Envelope, EpochSalt, Key, OsEntropy};
/// # let key = Key::raw(&[7; 32]).unwrap();
/// # let (_, root) = Envelope::create(&key, Cipher::default(), b"", &mut OsEntropy).unwrap();
/// let sealer = root.sealer(EpochSalt::draw(&mut OsEntropy).unwrap(), b"");
/// let nonce = sealer.next_nonce().unwrap();
/// sealer.seal(nonce, b"", &mut vec![1], 0).unwrap();
/// sealer.seal(nonce, b"", &mut vec![2], 0).unwrap();
/// ```
#[derive(Debug)]
pub struct Nonce {
    counter: u64,
    sealer: u64,
}

impl Nonce {
    /// Returns the counter, which starts at 1. The caller stores it in the header of the message,
    /// which is part of the associated data, and passes it to [`Opener::open`].
    pub fn counter(&self) -> u64 {
        self.counter
    }
}

/// The sealer of an epoch; an epoch has only one. Its counter increases at every attempt, even if
/// the message is not sealed or not written.
pub struct Sealer {
    aead: Aead,
    salt: EpochSalt,
    id: u64,
    messages: AtomicU64,
    bytes: AtomicU64,
}

impl Sealer {
    pub(crate) fn new(aead: Aead, salt: EpochSalt) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        Self {
            aead,
            salt,
            // Identifies the sealer within the process. `seal` refuses the nonces of other sealers.
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Returns the salt of the epoch, which the file must store.
    pub fn salt(&self) -> &[u8; 32] {
        self.salt.bytes()
    }

    /// Returns the next nonce. If the nonce is not used, its counter is skipped.
    ///
    /// # Errors
    /// [`Error::Exhausted`] after [`MESSAGES_MAX`] messages. The caller must begin a new epoch.
    pub fn next_nonce(&self) -> Result<Nonce> {
        let counter = advance(&self.messages, 1, MESSAGES_MAX)?;
        Ok(Nonce { counter: counter + 1, sealer: self.id })
    }

    /// Encrypts `buf[from..]` in place and appends the tag of [`TAG_LEN`] bytes.
    ///
    /// `aad` is authenticated with the message, and opening needs the same bytes. The caller should
    /// reserve [`TAG_LEN`] bytes beforehand; otherwise growing the buffer copies the plaintext.
    ///
    /// # Errors
    /// - [`Error::ForeignNonce`] if another sealer handed out the nonce.
    /// - [`Error::BufferRange`] if `from` is after the end of `buf`.
    /// - [`Error::MessageTooLong`] if the message exceeds [`MESSAGE_LEN_MAX`].
    /// - [`Error::OutOfMemory`] if `buf` cannot grow by the tag.
    /// - [`Error::Exhausted`] if the epoch would exceed [`SEALED_BYTES_MAX`].
    ///
    /// After each error `buf` is unchanged, the nonce is consumed, and no part of the message may
    /// be written to a file.
    #[expect(clippy::needless_pass_by_value, reason = "the nonce is used up here")]
    pub fn seal(&self, nonce: Nonce, aad: &[u8], buf: &mut Vec<u8>, from: usize) -> Result<()> {
        if nonce.sealer != self.id {
            return Err(Error::ForeignNonce);
        }
        let range = Error::BufferRange { from, len: buf.len() };
        let body_len = buf.len().checked_sub(from).ok_or(range.clone())?;
        let len = message_len(body_len, aad);
        if len > MESSAGE_LEN_MAX {
            return Err(Error::MessageTooLong { len });
        }
        // Order: the tag's bytes are reserved before the counter advances, so that a failed
        // allocation does not use up the limit.
        buf.try_reserve(TAG_LEN).map_err(|_| Error::OutOfMemory { bytes: TAG_LEN })?;
        // Order: the limit is charged before encryption, so that no thread seals beyond it.
        advance(&self.bytes, len + TAG_LEN as u64, SEALED_BYTES_MAX)?;
        let body = buf.get_mut(from..).ok_or(range)?;
        let tag = self.aead.seal(&nonce_bytes(nonce.counter), aad, body)?;
        buf.extend_from_slice(&tag);
        Ok(())
    }

    /// Returns true if half of a limit is used. The caller should then begin a new epoch at the
    /// next convenient moment, long before [`Error::Exhausted`].
    pub fn is_worn(&self) -> bool {
        self.messages.load(Ordering::Relaxed) >= MESSAGES_MAX / 2
            || self.bytes.load(Ordering::Relaxed) >= SEALED_BYTES_MAX / 2
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("cipher", &self.aead)
            .field("messages", &self.messages)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// The opening side of an epoch. It has no counter, can be created any number of times, and can be
/// shared by threads.
pub struct Opener {
    aead: Aead,
}

impl Opener {
    pub(crate) fn new(aead: Aead) -> Self {
        Self { aead }
    }

    /// Decrypts `buf[from..]`, a message followed by its tag, in place and removes the tag.
    /// `counter` is the [`Nonce::counter`] under which the message was sealed.
    ///
    /// # Errors
    /// [`Error::Tampered`] if the bytes were not sealed with this counter and `aad`; `buf` is then
    /// truncated to `from` bytes. [`Error::BufferRange`] if `from` is after the end of `buf`.
    pub fn open(&self, counter: u64, aad: &[u8], buf: &mut Vec<u8>, from: usize) -> Result<()> {
        let range = Error::BufferRange { from, len: buf.len() };
        let opened = self.open_in_place(counter, aad, buf.get_mut(from..).ok_or(range)?);
        // Keep the plaintext without its tag, or nothing of the message if it is not authentic.
        let keep = opened.as_ref().map_or(from, |plain| from + plain.len());
        let outcome = opened.map(|_| ());
        buf.truncate(keep);
        outcome
    }

    /// Like [`Opener::open`], for a message inside a larger buffer. Returns the part of `sealed`
    /// that holds the plaintext.
    ///
    /// # Errors
    /// [`Error::Tampered`] if the bytes were not sealed with this counter and `aad`; `sealed` is
    /// then filled with zeros, except for the tag.
    pub fn open_in_place<'a>(
        &self,
        counter: u64,
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8]> {
        // Too short for a tag: overwritten here, because the cipher is not called.
        if sealed.len() < TAG_LEN {
            sealed.fill(0);
        }
        let (body, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(Error::Tampered)?;
        self.aead.open(&nonce_bytes(counter), aad, body, tag)?;
        Ok(body)
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("cipher", &self.aead).finish()
    }
}

/// Adds `by` to a counter and returns the previous value. Returns [`Error::Exhausted`], without
/// changing the counter, if the sum would exceed `limit`.
fn advance(counter: &AtomicU64, by: u64, limit: u64) -> Result<u64> {
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(by).filter(|&next| next <= limit)
        })
        .map_err(|_| Error::Exhausted)
}

/// Returns the nonce of a counter, by the deterministic construction of NIST SP 800-38D, section
/// 8.2.1: a fixed field of four zeros (the key has one sealer), then the counter, little-endian.
fn nonce_bytes(counter: u64) -> [u8; NONCE_LEN] {
    let mut nonce = [0; NONCE_LEN];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

fn message_len(body_len: usize, aad: &[u8]) -> u64 {
    (body_len as u64).saturating_add(aad.len() as u64)
}

#[cfg(test)]
mod tests;

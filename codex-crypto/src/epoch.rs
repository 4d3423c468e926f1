//! Sealing and opening messages under the key of one epoch, with nonces that can not repeat.
//!
//! One rule carries AES-GCM: never two messages under one key and nonce. Here the key belongs to
//! an epoch whose salt is fresh and random, the salt is used up by the one sealer it makes, and
//! the sealer hands out each number once. Nothing is inferred from a position in a file, so a
//! torn tail, a restored copy or a cloned disk can not make a pair repeat.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cipher::{Aead, NONCE_LEN, TAG_LEN};
use crate::entropy::{Entropy, draw};
use crate::error::{Error, Result};

/// The most messages one epoch seals: 2^32, the bound of NIST SP 800-38D, section 8.3. (That
/// bound is for nonces that may repeat by chance. Ours count, and could go on; nobody needs to.)
pub const MESSAGES_MAX: u64 = 1 << 32;

/// The most bytes one epoch seals, associated data and tags included: 2^38 (256 GiB), which are
/// 2^34 blocks and keep the advantage of an attacker on the confidentiality of AES-GCM under
/// 2^-60 (blocks squared over 2^129: draft-irtf-cfrg-aead-limits, section 5.1.1).
pub const SEALED_BYTES_MAX: u64 = 1 << 38;

/// The longest message, payload and associated data together: 2^30 bytes (1 GiB), far under the
/// 2^36 - 32 of NIST SP 800-38D, section 5.2.1.1. One attempt to forge one succeeds with at most
/// its blocks over 2^128 for AES-GCM (2^-102) and over 2^103 for ChaCha20-Poly1305 (2^-77):
/// draft-irtf-cfrg-aead-limits, sections 5.1 and 5.2.
pub const MESSAGE_LEN_MAX: u64 = 1 << 30;

/// 32 random bytes that make the key of one epoch. Not `Clone`, and used up by
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

    /// The bytes that stand in the file; they are no secret.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for EpochSalt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochSalt").finish_non_exhaustive()
    }
}

/// A number that one message is sealed under, handed out once. Neither `Clone` nor `Copy`, and
/// consumed by [`Sealer::seal`]:
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
    /// The number, from 1 up. It stands in the header that is part of the associated data, and
    /// [`Opener::open`] takes it from there.
    pub fn counter(&self) -> u64 {
        self.counter
    }
}

/// The one sealing side of an epoch. Its counter only goes up, at every attempt, whether the
/// message is sealed, written or lost.
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
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// The salt of the epoch, which has to stand in the file.
    pub fn salt(&self) -> &[u8; 32] {
        self.salt.bytes()
    }

    /// Takes the next number. A number that is then not used is gone.
    ///
    /// # Errors
    /// [`Error::Exhausted`] after [`MESSAGES_MAX`]: begin a new epoch.
    pub fn next_nonce(&self) -> Result<Nonce> {
        let counter = advance(&self.messages, 1, MESSAGES_MAX)?;
        Ok(Nonce { counter: counter + 1, sealer: self.id })
    }

    /// Encrypts `buf[from..]` in place and appends the tag of [`TAG_LEN`] bytes. `aad` is bound
    /// to the message: opening needs the same bytes. Reserve the tag's room beforehand, so that
    /// the plaintext is not copied to grow the buffer.
    ///
    /// # Errors
    /// [`Error::ForeignNonce`] for a nonce of another sealer, [`Error::MessageTooLong`],
    /// [`Error::Exhausted`], [`Error::OutOfMemory`], [`Error::BufferRange`]. After each the
    /// buffer is as it was, the nonce is gone, and nothing of the message may be written.
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
        buf.try_reserve(TAG_LEN).map_err(|_| Error::OutOfMemory { bytes: TAG_LEN })?;
        advance(&self.bytes, len + TAG_LEN as u64, SEALED_BYTES_MAX)?;
        let body = buf.get_mut(from..).ok_or(range)?;
        let tag = self.aead.seal(&nonce_bytes(nonce.counter), aad, body)?;
        buf.extend_from_slice(&tag);
        Ok(())
    }

    /// True once half of a limit is used: begin a new epoch at the next good moment, long before
    /// [`Error::Exhausted`].
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

/// The opening side of an epoch: has no counter, can be had as often as needed, and serves
/// several threads at once.
pub struct Opener {
    aead: Aead,
}

impl Opener {
    pub(crate) fn new(aead: Aead) -> Self {
        Self { aead }
    }

    /// Decrypts `buf[from..]`, a message and its tag, in place and cuts the tag off. `counter`
    /// is the [`Nonce::counter`] it was sealed under.
    ///
    /// # Errors
    /// [`Error::Tampered`] if it is not what was sealed with this counter and `aad`; `buf` then
    /// ends at `from`. [`Error::BufferRange`] if `from` lies behind the end.
    pub fn open(&self, counter: u64, aad: &[u8], buf: &mut Vec<u8>, from: usize) -> Result<()> {
        let range = Error::BufferRange { from, len: buf.len() };
        let opened = self.open_in_place(counter, aad, buf.get_mut(from..).ok_or(range)?);
        let keep = opened.as_ref().map_or(from, |plain| from + plain.len());
        let outcome = opened.map(|_| ());
        buf.truncate(keep);
        outcome
    }

    /// As [`Opener::open`], for a message inside a larger buffer: returns the part of `sealed`
    /// that is the plaintext.
    ///
    /// # Errors
    /// [`Error::Tampered`]; the message is then overwritten with zeros.
    pub fn open_in_place<'a>(
        &self,
        counter: u64,
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8]> {
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

/// Adds to a counter that never wraps and never passes its limit; returns the value before.
fn advance(counter: &AtomicU64, by: u64, limit: u64) -> Result<u64> {
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(by).filter(|&next| next <= limit)
        })
        .map_err(|_| Error::Exhausted)
}

/// The deterministic construction of NIST SP 800-38D, section 8.2.1: a fixed field of zeros (the
/// key has one sealer) and the counter, little endian.
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

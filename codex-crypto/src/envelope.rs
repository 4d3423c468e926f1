//! Envelopes. An envelope is a root key wrapped under the user's key: 256 bytes in the header of a
//! file.

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::cipher::{Aead, Cipher, NONCE_LEN, TAG_LEN};
use crate::entropy::{Entropy, draw};
use crate::error::{Error, Result};
use crate::kdf::{KdfCosts, Label};
use crate::key::{Key, KeyKind};
use crate::root::RootKey;

/// Length of an envelope, in bytes.
pub const ENVELOPE_LEN: usize = 256;

/// A root key wrapped under the user's key. Contains no plaintext secret.
///
/// All numbers are little-endian.
///
/// | offset | bytes | content |
/// |---|---|---|
/// | 0 | 4 | magic `CXEV` |
/// | 4 | 2 | version, 1 |
/// | 6 | 1 | [`Cipher`] number, for the wrap and for everything under the root key |
/// | 7 | 1 | [`KeyKind`] number |
/// | 8 | 1 | derivation: 1 HKDF-SHA256 alone (raw key), 2 Argon2id 1.3 before it (passphrase) |
/// | 9 | 3 | zeros |
/// | 12 | 4 | Argon2id passes t; 0 for a raw key |
/// | 16 | 4 | Argon2id memory m in KiB; 0 for a raw key |
/// | 20 | 4 | Argon2id lanes p; 0 for a raw key |
/// | 24 | 8 | zeros |
/// | 32 | 32 | salt, fresh for every wrap |
/// | 64 | 16 | id of the root key |
/// | 80 | 32 | commitment to the wrapping key |
/// | 112 | 12 | nonce of the wrap |
/// | 124 | 4 | zeros |
/// | 128 | 32 | the root key, encrypted |
/// | 160 | 16 | tag of the wrap |
/// | 176 | 64 | zeros |
/// | 240 | 16 | the first 16 bytes of the SHA-256 of bytes 0 to 239 |
///
/// `secret` is the raw key, or the 32 bytes of Argon2id(passphrase, salt, t, m, p):
///
/// ```text
/// prk        = HKDF-Extract(salt, secret)
/// commitment = HKDF-Expand(prk, "codex-crypto 1 commit   " | cipher | key kind, 32)
/// wrap key   = HKDF-Expand(prk, "codex-crypto 1 wrap     " | cipher | key kind, 32)
/// sealed     = AEAD(wrap key, nonce, root, aad = bytes 0..128 | bytes 176..240 | context)
/// root id    = HKDF-Expand(HKDF-Extract(none, root), "codex-crypto 1 root id  " | cipher, 16)
/// ```
///
/// All other keys are derived from the root key, with the same two steps of HKDF-SHA256 (RFC 5869):
///
/// ```text
/// header key = HKDF-Expand(HKDF-Extract(none, root), "codex-crypto 1 header   " | cipher, 64)
/// digest pad = HKDF-Expand(HKDF-Extract(none, root), "codex-crypto 1 digest   "
///                          | cipher | info, 32)
/// epoch prk  = HKDF-Extract(salt, root)
/// epoch key  = HKDF-Expand(epoch prk, "codex-crypto 1 epoch    " | cipher | info, 32)
/// nonce      = 4 zeros | counter (8)
/// ```
///
/// The checksum distinguishes damage from a wrong key. It needs no secret, so it does not stop an
/// attacker; the commitment and the tag do. Each wrapping key seals one message only, because the
/// salt of each wrap is fresh.
#[derive(Clone, PartialEq, Eq)]
pub struct Envelope {
    cipher: Cipher,
    costs: Option<KdfCosts>,
    salt: [u8; 32],
    root_id: [u8; 16],
    commitment: [u8; 32],
    nonce: [u8; NONCE_LEN],
    wrapped: [u8; 32],
    tag: [u8; TAG_LEN],
}

impl Envelope {
    /// Draws a new root key and wraps it under `key`. Returns the envelope and the root key.
    ///
    /// `context` identifies the owner of the envelope (the id of the store). The wrap authenticates
    /// it, and [`Envelope::open`] needs the same bytes. Draws 32 bytes of root key, 32 of salt and
    /// 12 of nonce, in this order.
    ///
    /// # Errors
    /// [`Error::Entropy`] if the source fails; [`Error::OutOfMemory`] if the memory for the costs
    /// of a passphrase is not available.
    pub fn create(
        key: &Key,
        cipher: Cipher,
        context: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, RootKey)> {
        let root = RootKey::random(cipher, entropy)?;
        Ok((Self::wrap(&root, key, key.costs(), context, entropy)?, root))
    }

    /// Like [`Envelope::create`], for the envelope that replaces this one. The root key is fresh.
    /// The costs of a passphrase are not lower than those of this envelope, unless the key
    /// [lowers](Key::passphrase_costing_exactly) them.
    ///
    /// # Errors
    /// As [`Envelope::create`]; [`Error::KdfTooExpensive`] if the greater values of the old and the
    /// new costs together exceed the caps.
    pub fn renew(
        &self,
        key: &Key,
        cipher: Cipher,
        context: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, RootKey)> {
        let costs = key.costs_after(self.costs)?;
        let root = RootKey::random(cipher, entropy)?;
        Ok((Self::wrap(&root, key, costs, context, entropy)?, root))
    }

    /// Wraps `root`, the root key of this envelope, under another user's key, with a fresh salt and
    /// nonce. The costs of a passphrase follow the rule of [`Envelope::renew`].
    ///
    /// The earlier envelope still opens with the earlier key, if a copy of it is left anywhere.
    ///
    /// # Errors
    /// As [`Envelope::renew`].
    pub fn rewrap(
        &self,
        root: &RootKey,
        key: &Key,
        context: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<Self> {
        Self::wrap(root, key, key.costs_after(self.costs)?, context, entropy)
    }

    fn wrap(
        root: &RootKey,
        key: &Key,
        costs: Option<KdfCosts>,
        context: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<Self> {
        let mut envelope = Self {
            cipher: root.cipher(),
            costs,
            salt: [0; 32],
            root_id: root.id(),
            commitment: [0; 32],
            nonce: [0; NONCE_LEN],
            wrapped: [0; 32],
            tag: [0; TAG_LEN],
        };
        // A fresh salt makes a fresh wrapping key, so each wrapping key seals one message.
        draw(entropy, &mut envelope.salt)?;
        draw(entropy, &mut envelope.nonce)?;
        let (commitment, aead) = envelope.wrapping(key)?;
        // Order: the commitment is set before sealing, because the tag authenticates it.
        envelope.commitment = commitment;
        let mut body = Zeroizing::new(*root.bytes());
        envelope.tag = aead.seal(&envelope.nonce, &envelope.aad(context), body.as_mut_slice())?;
        envelope.wrapped = *body;
        Ok(envelope)
    }

    /// Reads the fields of an envelope and checks everything that needs no key: the costs are
    /// within the caps of [`KdfCosts`], the reserved bytes are zero, the checksum is correct.
    ///
    /// # Errors
    /// - [`Error::EnvelopeLength`] if `bytes` does not have [`ENVELOPE_LEN`] bytes.
    /// - [`Error::NotAnEnvelope`] if the magic differs.
    /// - [`Error::UnsupportedVersion`], [`Error::UnsupportedCipher`] or [`Error::UnsupportedKdf`]
    ///   if a number is unknown.
    /// - [`Error::EnvelopeDamaged`] if the checksum is wrong, a reserved byte is not zero, or a raw
    ///   key has costs.
    /// - [`Error::KdfTooExpensive`] or [`Error::KdfCosts`] if the costs are above the caps or not
    ///   valid for Argon2id.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let block: &[u8; ENVELOPE_LEN] =
            bytes.try_into().map_err(|_| Error::EnvelopeLength { found: bytes.len() })?;
        let mut fields = Fields(block);
        if fields.take() != MAGIC {
            return Err(Error::NotAnEnvelope);
        }
        // Order: the version is read before the checksum, because another version may have another
        // layout.
        let found = u16::from_le_bytes(fields.take());
        if found != VERSION {
            return Err(Error::UnsupportedVersion { found });
        }
        // Order: the checksum is verified before the fields, so that a damaged field is reported as
        // damage and not as an unsupported number.
        if checksum(block) != block[240..] {
            return Err(Error::EnvelopeDamaged { what: "its checksum does not match" });
        }
        let [cipher, kind, kdf] = fields.take();
        let cipher = Cipher::from_id(cipher)?;
        fields.take_zeros::<3>()?;
        let [t, m_kib, p] = [(); 3].map(|()| u32::from_le_bytes(fields.take()));
        fields.take_zeros::<8>()?;
        let costs = match (kind, kdf) {
            (1, 1) if (t, m_kib, p) == (0, 0, 0) => None,
            (1, 1) => return Err(Error::EnvelopeDamaged { what: "a raw key has no costs" }),
            // `KdfCosts::new` enforces the caps before any memory or time is spent on derivation.
            (2, 2) => Some(KdfCosts::new(t, m_kib, p)?),
            _ => return Err(Error::UnsupportedKdf { kind, kdf }),
        };
        let (salt, root_id) = (fields.take(), fields.take());
        let (commitment, nonce) = (fields.take(), fields.take());
        fields.take_zeros::<4>()?;
        let (wrapped, tag) = (fields.take(), fields.take());
        fields.take_zeros::<64>()?;
        Ok(Self { cipher, costs, salt, root_id, commitment, nonce, wrapped, tag })
    }

    /// Returns the 256 bytes that are stored in the file.
    pub fn to_bytes(&self) -> [u8; ENVELOPE_LEN] {
        let mut block = [0; ENVELOPE_LEN];
        block[..128].copy_from_slice(&self.head());
        block[128..160].copy_from_slice(&self.wrapped);
        block[160..176].copy_from_slice(&self.tag);
        let sum = checksum(&block);
        block[240..].copy_from_slice(&sum);
        block
    }

    /// Unwraps the root key. The commitment is compared in constant time before anything is
    /// decrypted. A passphrase costs the derivation that the envelope asks for, within the caps of
    /// [`KdfCosts`].
    ///
    /// # Errors
    /// - [`Error::WrongKeyKind`] if the envelope needs a key of the other kind; nothing is derived.
    /// - [`Error::WrongKey`] if the commitment does not match; nothing is decrypted.
    /// - [`Error::Tampered`] if a field was changed or `context` differs.
    /// - [`Error::OutOfMemory`] if the memory for the costs of a passphrase is not available.
    pub fn open(&self, key: &Key, context: &[u8]) -> Result<RootKey> {
        if key.kind() != self.key_kind() {
            return Err(Error::WrongKeyKind { wanted: self.key_kind(), given: key.kind() });
        }
        // Order: the commitment is compared before decryption. Neither cipher commits to its key,
        // so a crafted ciphertext can be valid under several keys.
        let (commitment, aead) = self.wrapping(key)?;
        if !bool::from(commitment.ct_eq(&self.commitment)) {
            return Err(Error::WrongKey);
        }
        let mut root = RootKey::empty(self.cipher);
        root.bytes_mut().copy_from_slice(&self.wrapped);
        aead.open(&self.nonce, &self.aad(context), root.bytes_mut(), &self.tag)?;
        // The tag authenticates the stored id, so only a holder of the key can have stored a wrong
        // one.
        if root.id() == self.root_id { Ok(root) } else { Err(Error::Tampered) }
    }

    /// Returns the cipher of the wrap and of everything under the root key.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Returns the kind of key that opens the envelope.
    pub fn key_kind(&self) -> KeyKind {
        if self.costs.is_some() { KeyKind::Passphrase } else { KeyKind::Raw }
    }

    /// Returns the costs of a passphrase for this envelope, or `None` if it is made for a raw key.
    pub fn costs(&self) -> Option<KdfCosts> {
        self.costs
    }

    /// Returns the id of the root key. Do not trust it before [`Envelope::open`] has succeeded.
    pub fn root_id(&self) -> [u8; 16] {
        self.root_id
    }

    /// Derives the commitment to the wrapping key, and the cipher under the wrapping key.
    fn wrapping(&self, key: &Key) -> Result<([u8; 32], Aead)> {
        let prk = key.stretch(&self.salt, self.costs)?;
        let info: &[&[u8]] = &[&[self.cipher.id(), self.key_kind().id()]];
        // The commitment and the wrapping key have separate labels, so the stored commitment
        // reveals nothing about the key.
        let mut commitment = [0; 32];
        prk.expand(Label::Commit, info, &mut commitment);
        let mut wrap_key = Zeroizing::new([0; 32]);
        prk.expand(Label::Wrap, info, &mut wrap_key);
        Ok((commitment, Aead::new(self.cipher, &wrap_key)))
    }

    /// Returns the associated data of the wrap: all bytes except the wrapped key, its tag and the
    /// checksum, followed by `context`.
    fn aad(&self, context: &[u8]) -> Vec<u8> {
        // The 64 zeros are the reserved bytes 176 to 239.
        [&self.head()[..], &[0; 64], context].concat()
    }

    /// Returns bytes 0 to 127 of the envelope.
    fn head(&self) -> [u8; 128] {
        let kind = self.key_kind().id();
        let costs = self.costs.map_or([0; 3], |costs| [costs.t(), costs.m_kib(), costs.p()]);
        let [t, m_kib, p] = costs.map(u32::to_le_bytes);
        let mut head = [0; 128];
        head[..4].copy_from_slice(&MAGIC);
        head[4..6].copy_from_slice(&VERSION.to_le_bytes());
        // The number of the derivation is that of the kind of key.
        head[6..9].copy_from_slice(&[self.cipher.id(), kind, kind]);
        head[12..16].copy_from_slice(&t);
        head[16..20].copy_from_slice(&m_kib);
        head[20..24].copy_from_slice(&p);
        head[32..64].copy_from_slice(&self.salt);
        head[64..80].copy_from_slice(&self.root_id);
        head[80..112].copy_from_slice(&self.commitment);
        head[112..124].copy_from_slice(&self.nonce);
        head
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("cipher", &self.cipher)
            .field("key_kind", &self.key_kind())
            .field("costs", &self.costs)
            .finish_non_exhaustive()
    }
}

/// The unread bytes of an envelope.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        #[expect(clippy::expect_used, reason = "the table above adds up to 256")]
        let (field, rest) = self.0.split_first_chunk().expect("fields of 256 bytes in all");
        self.0 = rest;
        *field
    }

    fn take_zeros<const N: usize>(&mut self) -> Result<()> {
        if self.take::<N>() == [0; N] {
            return Ok(());
        }
        Err(Error::EnvelopeDamaged { what: "a reserved byte is not zero" })
    }
}

fn checksum(block: &[u8; ENVELOPE_LEN]) -> [u8; 16] {
    let sum: [u8; 32] = Sha256::digest(&block[..240]).into();
    let mut short = [0; 16];
    short.copy_from_slice(&sum[..16]);
    short
}

const MAGIC: [u8; 4] = *b"CXEV";
const VERSION: u16 = 1;

#[cfg(test)]
mod tests;

//! The envelope: a root key wrapped under the user's key, 256 bytes in the header of a file.

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

/// A root key wrapped under the user's key. Contains no secret in the clear.
///
/// All numbers are little endian.
///
/// | offset | bytes | what |
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
/// With `secret` the raw key, or Argon2id(passphrase, salt, t, m, p) of 32 bytes:
///
/// ```text
/// prk        = HKDF-Extract(salt, secret)
/// commitment = HKDF-Expand(prk, "codex-crypto 1 commit   " | cipher | key kind, 32)
/// wrap key   = HKDF-Expand(prk, "codex-crypto 1 wrap     " | cipher | key kind, 32)
/// sealed     = AEAD(wrap key, nonce, root, aad = bytes 0..128 | bytes 176..240 | context)
/// root id    = HKDF-Expand(HKDF-Extract(none, root), "codex-crypto 1 root id  " | cipher, 16)
/// ```
///
/// From the root key, all by the same two steps of HKDF-SHA256 (RFC 5869):
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
/// The checksum tells damage from a wrong key and needs no secret, so it stops no attacker: the
/// commitment and the tag do. Each wrapping key seals one message, since its salt is fresh.
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
    /// Draws a root key and wraps it. `context` says what the envelope belongs to (the id of the
    /// store): it is bound to the wrap, and opening needs the same bytes.
    ///
    /// Draws 32 bytes of root key, 32 of salt and 12 of nonce, in this order.
    ///
    /// # Errors
    /// [`Error::Entropy`], and [`Error::OutOfMemory`] for the costs of a passphrase.
    pub fn create(
        key: &Key,
        cipher: Cipher,
        context: &[u8],
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, RootKey)> {
        let root = RootKey::random(cipher, entropy)?;
        Ok((Self::wrap(&root, key, key.costs(), context, entropy)?, root))
    }

    /// As [`Envelope::create`], for the envelope that takes the place of this one: a fresh root
    /// key, and no lower costs of a passphrase than here, unless the key
    /// [lowers](Key::passphrase_costing_exactly) them.
    ///
    /// # Errors
    /// As [`Envelope::create`]; [`Error::KdfTooExpensive`] if the greater values of both costs
    /// exceed the caps together.
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

    /// Wraps `root`, the root key of this envelope, under another user's key, with a fresh salt
    /// and nonce; the costs of a passphrase are as with [`Envelope::renew`]. The earlier envelope
    /// goes on opening with the earlier key wherever a copy of it is left.
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
        draw(entropy, &mut envelope.salt)?;
        draw(entropy, &mut envelope.nonce)?;
        let (commitment, aead) = envelope.wrapping(key)?;
        envelope.commitment = commitment;
        let mut body = Zeroizing::new(*root.bytes());
        envelope.tag = aead.seal(&envelope.nonce, &envelope.aad(context), body.as_mut_slice())?;
        envelope.wrapped = *body;
        Ok(envelope)
    }

    /// Reads the fields and checks everything that needs no key: the costs are within the caps
    /// of [`KdfCosts`], reserved bytes are zero, the checksum is right.
    ///
    /// # Errors
    /// [`Error::EnvelopeLength`], [`Error::NotAnEnvelope`], [`Error::UnsupportedVersion`],
    /// [`Error::EnvelopeDamaged`], [`Error::UnsupportedCipher`], [`Error::UnsupportedKdf`],
    /// [`Error::KdfTooExpensive`], [`Error::KdfCosts`].
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let block: &[u8; ENVELOPE_LEN] =
            bytes.try_into().map_err(|_| Error::EnvelopeLength { found: bytes.len() })?;
        let mut fields = Fields(block);
        if fields.take() != MAGIC {
            return Err(Error::NotAnEnvelope);
        }
        let found = u16::from_le_bytes(fields.take());
        if found != VERSION {
            return Err(Error::UnsupportedVersion { found });
        }
        if checksum(block) != block[240..] {
            return Err(Error::EnvelopeDamaged { what: "its checksum does not fit" });
        }
        let [cipher, kind, kdf] = fields.take();
        let cipher = Cipher::from_id(cipher)?;
        fields.take_zeros::<3>()?;
        let [t, m_kib, p] = [(); 3].map(|()| u32::from_le_bytes(fields.take()));
        fields.take_zeros::<8>()?;
        let costs = match (kind, kdf) {
            (1, 1) if (t, m_kib, p) == (0, 0, 0) => None,
            (1, 1) => return Err(Error::EnvelopeDamaged { what: "a raw key has no costs" }),
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

    /// The 256 bytes that stand in the file.
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
    /// decrypted. A passphrase costs what the envelope says, within the caps of [`KdfCosts`].
    ///
    /// # Errors
    /// [`Error::WrongKeyKind`] before deriving, [`Error::WrongKey`] before decrypting,
    /// [`Error::Tampered`] if a field was changed or `context` is another,
    /// [`Error::OutOfMemory`] for the costs of a passphrase.
    pub fn open(&self, key: &Key, context: &[u8]) -> Result<RootKey> {
        if key.kind() != self.key_kind() {
            return Err(Error::WrongKeyKind { wanted: self.key_kind(), given: key.kind() });
        }
        let (commitment, aead) = self.wrapping(key)?;
        if !bool::from(commitment.ct_eq(&self.commitment)) {
            return Err(Error::WrongKey);
        }
        let mut root = RootKey::empty(self.cipher);
        root.bytes_mut().copy_from_slice(&self.wrapped);
        aead.open(&self.nonce, &self.aad(context), root.bytes_mut(), &self.tag)?;
        if root.id() == self.root_id { Ok(root) } else { Err(Error::Tampered) }
    }

    /// The cipher of the wrap and of everything under the root key.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The kind of key that opens it.
    pub fn key_kind(&self) -> KeyKind {
        if self.costs.is_some() { KeyKind::Passphrase } else { KeyKind::Raw }
    }

    /// What a passphrase costs here; `None` for a raw key.
    pub fn costs(&self) -> Option<KdfCosts> {
        self.costs
    }

    /// The name of the root key inside; trusted only after [`Envelope::open`].
    pub fn root_id(&self) -> [u8; 16] {
        self.root_id
    }

    /// The commitment to the wrapping key, and the cipher under it.
    fn wrapping(&self, key: &Key) -> Result<([u8; 32], Aead)> {
        let prk = key.stretch(&self.salt, self.costs)?;
        let info: &[&[u8]] = &[&[self.cipher.id(), self.key_kind().id()]];
        let mut commitment = [0; 32];
        prk.expand(Label::Commit, info, &mut commitment);
        let mut wrap_key = Zeroizing::new([0; 32]);
        prk.expand(Label::Wrap, info, &mut wrap_key);
        Ok((commitment, Aead::new(self.cipher, &wrap_key)))
    }

    /// Everything but the wrapped key and its tag.
    fn aad(&self, context: &[u8]) -> Vec<u8> {
        [&self.head()[..], &[0; 64], context].concat()
    }

    /// Bytes 0 to 127.
    fn head(&self) -> [u8; 128] {
        let kind = self.key_kind().id();
        let costs = self.costs.map_or([0; 3], |costs| [costs.t(), costs.m_kib(), costs.p()]);
        let [t, m_kib, p] = costs.map(u32::to_le_bytes);
        let mut head = [0; 128];
        head[..4].copy_from_slice(&MAGIC);
        head[4..6].copy_from_slice(&VERSION.to_le_bytes());
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

/// The rest of an envelope that is being read.
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

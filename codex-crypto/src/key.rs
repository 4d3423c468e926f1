//! The user's key: raw bytes or a passphrase.

use std::fmt;

use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::error::{Error, Result};
use crate::kdf::{KdfCosts, Prk, argon2id};

/// The user's key, which opens envelopes. It encrypts nothing but root keys.
///
/// Not `Clone`. Wiped when dropped, together with the copies that key derivation makes, including
/// the memory of Argon2id. `Debug` shows only the kind of the key.
///
/// Three things are not wiped: the bytes passed by the caller, pages that the system wrote to swap
/// or to a core dump, and copies that the compiler leaves in registers and on the stack.
///
/// ```compile_fail,E0599
/// let key = codex_crypto::Key::raw(&[7; 32]).unwrap();
/// let copy = key.clone();
/// ```
pub struct Key {
    secret: Zeroizing<Vec<u8>>,
    source: Source,
}

impl Key {
    /// Creates a key from 16, 24 or 32 bytes of a uniformly random source.
    ///
    /// For every length, the wrapping key has 32 bytes, derived with HKDF-SHA256 from `bytes` and
    /// the salt of the envelope. A key of 16 or 24 bytes has the strength of its own length.
    ///
    /// # Errors
    /// [`Error::KeyLength`] if `bytes` has any other length.
    pub fn raw(bytes: &[u8]) -> Result<Self> {
        match bytes.len() {
            16 | 24 | 32 => {
                Ok(Self { secret: Zeroizing::new(bytes.to_vec()), source: Source::Raw })
            }
            found => Err(Error::KeyLength { found }),
        }
    }

    /// Creates a key from a passphrase. An envelope made with it costs [`KdfCosts::default`].
    ///
    /// The bytes are used unchanged: a program that reads text from people must normalize it (NFC)
    /// first. The passphrase is passed by reference, because only its owner can wipe it: a
    /// `Zeroizing<String>` wipes it when dropped, while a moved `String` or `Vec<u8>` would be
    /// freed without being wiped.
    ///
    /// ```compile_fail,E0308
    /// let words = String::from("correct horse battery staple");
    /// let key = codex_crypto::Key::passphrase(words).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`Error::PassphraseLength`] if the passphrase is empty or longer than [`PASSPHRASE_LEN_MAX`]
    /// bytes.
    pub fn passphrase<P: AsRef<[u8]> + ?Sized>(passphrase: &P) -> Result<Self> {
        Self::passphrase_costing(passphrase, KdfCosts::default())
    }

    /// Creates a key from a passphrase, with the given costs.
    ///
    /// The costs apply when an envelope is made; opening an envelope uses the costs it stores. If
    /// the new envelope replaces one with greater costs, each parameter keeps the greater value.
    ///
    /// # Errors
    /// As [`Key::passphrase`]; [`Error::KdfTooCheap`] if the costs are below the minimum
    /// ([`KdfCosts::T_MIN`], [`KdfCosts::M_KIB_MIN`]).
    pub fn passphrase_costing<P>(passphrase: &P, costs: KdfCosts) -> Result<Self>
    where
        P: AsRef<[u8]> + ?Sized,
    {
        if costs.t() < KdfCosts::T_MIN || costs.m_kib() < KdfCosts::M_KIB_MIN {
            let (t, m_kib, p) = (costs.t(), costs.m_kib(), costs.p());
            return Err(Error::KdfTooCheap { t, m_kib, p });
        }
        Self::words(passphrase.as_ref(), Source::AtLeast(costs))
    }

    /// Creates a key from a passphrase, with exactly the given costs, even if they are below the
    /// minimum or below the costs of the envelope that is replaced. Lower costs make each guess of
    /// the passphrase cheaper for an attacker.
    ///
    /// # Errors
    /// As [`Key::passphrase`].
    pub fn passphrase_costing_exactly<P>(passphrase: &P, costs: KdfCosts) -> Result<Self>
    where
        P: AsRef<[u8]> + ?Sized,
    {
        Self::words(passphrase.as_ref(), Source::Exactly(costs))
    }

    /// Returns the kind of the key.
    pub fn kind(&self) -> KeyKind {
        match self.source {
            Source::Raw => KeyKind::Raw,
            Source::AtLeast(_) | Source::Exactly(_) => KeyKind::Passphrase,
        }
    }

    /// Returns the costs of a first envelope made with this key, or `None` if it is a raw key.
    pub fn costs(&self) -> Option<KdfCosts> {
        match self.source {
            Source::Raw => None,
            Source::AtLeast(costs) | Source::Exactly(costs) => Some(costs),
        }
    }

    /// Returns the costs of an envelope that replaces one with the costs `old`.
    ///
    /// Returns [`Error::KdfTooExpensive`] if the greater values together exceed the caps.
    pub(crate) fn costs_after(&self, old: Option<KdfCosts>) -> Result<Option<KdfCosts>> {
        match (&self.source, old) {
            // A new envelope is never cheaper to attack than the one it replaces, unless the caller
            // asked for exact costs.
            (Source::AtLeast(costs), Some(old)) => costs.raised_to(old).map(Some),
            _ => Ok(self.costs()),
        }
    }

    fn words(bytes: &[u8], source: Source) -> Result<Self> {
        if bytes.is_empty() || bytes.len() > PASSPHRASE_LEN_MAX {
            return Err(Error::PassphraseLength { found: bytes.len() });
        }
        Ok(Self { secret: Zeroizing::new(bytes.to_vec()), source })
    }

    /// Derives the key from which the wrapping key of one envelope is expanded.
    ///
    /// Returns [`Error::OutOfMemory`] if the memory for Argon2id is not available.
    pub(crate) fn stretch(&self, salt: &[u8; 32], costs: Option<KdfCosts>) -> Result<Prk> {
        match costs {
            // A raw key is uniformly random, so it needs no stretching.
            None => Ok(Prk::extract(salt, &self.secret)),
            Some(costs) => {
                // A passphrase is stretched first, so that each guess costs an attacker as much.
                let mut hash = Zeroizing::new([0; 32]);
                argon2id(&self.secret, salt, costs, &mut hash)?;
                Ok(Prk::extract(salt, &*hash))
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("kind", &self.kind()).finish_non_exhaustive()
    }
}

// The `Zeroizing` field wipes the secret.
impl ZeroizeOnDrop for Key {}

/// The kinds of key. An envelope stores the number of the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyKind {
    /// 16, 24 or 32 random bytes.
    Raw = 1,
    /// A passphrase, which a person remembers.
    Passphrase = 2,
}

impl KeyKind {
    /// Returns the number of the kind in an envelope. The number of its derivation is the same.
    pub(crate) fn id(self) -> u8 {
        match self {
            Self::Raw => 1,
            Self::Passphrase => 2,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw key",
            Self::Passphrase => "passphrase",
        })
    }
}

/// The kind of a key, with the requested costs.
enum Source {
    Raw,
    AtLeast(KdfCosts),
    Exactly(KdfCosts),
}

/// The maximum length of a passphrase, in bytes.
pub const PASSPHRASE_LEN_MAX: usize = 65_536;

//! The key that the user holds: raw bytes or a passphrase.

use std::fmt;

use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::error::{Error, Result};
use crate::kdf::{KdfCosts, Prk, argon2id};

/// The user's key. It opens envelopes and seals nothing else.
///
/// Not `Clone`; wiped when dropped; `Debug` shows its kind alone. The bytes it was made from
/// stay with the caller, who wipes them.
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
    /// A key of 16, 24 or 32 bytes from a uniformly random source. Whatever its length, the key
    /// that wraps is 32 bytes from HKDF-SHA256 over it and the envelope's salt; a shorter one
    /// has the strength of its own length.
    ///
    /// # Errors
    /// [`Error::KeyLength`] for every other length.
    pub fn raw(bytes: &[u8]) -> Result<Self> {
        match bytes.len() {
            16 | 24 | 32 => {
                Ok(Self { secret: Zeroizing::new(bytes.to_vec()), source: Source::Raw })
            }
            found => Err(Error::KeyLength { found }),
        }
    }

    /// A passphrase that costs [`KdfCosts::default`] when an envelope is made with it. Its bytes
    /// are taken as they are: a program that reads text from people normalizes it (NFC) first.
    ///
    /// # Errors
    /// [`Error::PassphraseLength`] if it is empty or longer than [`PASSPHRASE_LEN_MAX`] bytes.
    pub fn passphrase(passphrase: impl AsRef<[u8]>) -> Result<Self> {
        Self::passphrase_costing(passphrase, KdfCosts::default())
    }

    /// A passphrase with costs of the caller's choice. They count when an envelope is made;
    /// opening one takes the costs that stand in it.
    ///
    /// # Errors
    /// As [`Key::passphrase`].
    pub fn passphrase_costing(passphrase: impl AsRef<[u8]>, costs: KdfCosts) -> Result<Self> {
        let bytes = passphrase.as_ref();
        if bytes.is_empty() || bytes.len() > PASSPHRASE_LEN_MAX {
            return Err(Error::PassphraseLength { found: bytes.len() });
        }
        Ok(Self { secret: Zeroizing::new(bytes.to_vec()), source: Source::Passphrase(costs) })
    }

    /// Which of the two kinds it is.
    pub fn kind(&self) -> KeyKind {
        match self.source {
            Source::Raw => KeyKind::Raw,
            Source::Passphrase(_) => KeyKind::Passphrase,
        }
    }

    /// The costs an envelope made with this key gets; `None` for a raw key.
    pub fn costs(&self) -> Option<KdfCosts> {
        match self.source {
            Source::Raw => None,
            Source::Passphrase(costs) => Some(costs),
        }
    }

    /// The key that wraps, under a salt and the costs of one envelope.
    pub(crate) fn stretch(&self, salt: &[u8; 32], costs: Option<KdfCosts>) -> Result<Prk> {
        match costs {
            None => Ok(Prk::extract(salt, &self.secret)),
            Some(costs) => {
                let mut hash = Zeroizing::new([0; 32]);
                argon2id(&self.secret, salt, costs, &mut hash)?;
                Ok(Prk::extract(salt, &*hash))
            }
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(codex_mutant = "debug_shows_key")]
        return write!(f, "{:?}", &*self.secret);
        #[cfg(not(codex_mutant = "debug_shows_key"))]
        f.debug_struct("Key").field("kind", &self.kind()).finish_non_exhaustive()
    }
}

// The secret is wiped by its own type.
impl ZeroizeOnDrop for Key {}

/// The two kinds of key; the number stands in the envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// 16, 24 or 32 random bytes.
    Raw = 1,
    /// Words that a person remembers.
    Passphrase = 2,
}

impl KeyKind {
    /// The number that stands in the envelope; that of the derivation is the same.
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

enum Source {
    Raw,
    Passphrase(KdfCosts),
}

/// The longest passphrase, in bytes.
pub const PASSPHRASE_LEN_MAX: usize = 65_536;

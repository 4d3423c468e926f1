//! The key that the user holds: raw bytes or a passphrase.

use std::fmt;

use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::error::{Error, Result};
use crate::kdf::{KdfCosts, Prk, argon2id};

/// The user's key. It opens envelopes and seals nothing else.
///
/// Not `Clone`; wiped when dropped, and so are the copies that deriving makes, Argon2id's memory
/// among them; `Debug` shows its kind alone. Not wiped are the bytes it was made from, which stay
/// with the caller; pages that the system has written to swap or to a core dump; and what the
/// compiler may leave in registers and on the stack.
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
    /// It is taken by reference, since only its owner can wipe it: a `Zeroizing<String>` does so
    /// when it is dropped, a `String` or a `Vec<u8>` that was given away would be freed as it is.
    ///
    /// ```compile_fail,E0308
    /// let words = String::from("correct horse battery staple");
    /// let key = codex_crypto::Key::passphrase(words).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`Error::PassphraseLength`] if it is empty or longer than [`PASSPHRASE_LEN_MAX`] bytes.
    pub fn passphrase<P: AsRef<[u8]> + ?Sized>(passphrase: &P) -> Result<Self> {
        Self::passphrase_costing(passphrase, KdfCosts::default())
    }

    /// A passphrase with costs of the caller's choice. They count when an envelope is made;
    /// opening one takes the costs that stand in it. An envelope that takes the place of a dearer
    /// one keeps, of each parameter, the greater value.
    ///
    /// # Errors
    /// As [`Key::passphrase`]; [`Error::KdfTooCheap`] below the minimum ([`KdfCosts::T_MIN`],
    /// [`KdfCosts::M_KIB_MIN`]).
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

    /// A passphrase with just these costs, be they lower than the minimum or than those of the
    /// envelope whose place the next one takes. Each try at guessing it costs that little.
    ///
    /// # Errors
    /// As [`Key::passphrase`].
    pub fn passphrase_costing_exactly<P>(passphrase: &P, costs: KdfCosts) -> Result<Self>
    where
        P: AsRef<[u8]> + ?Sized,
    {
        Self::words(passphrase.as_ref(), Source::Exactly(costs))
    }

    /// Which of the two kinds it is.
    pub fn kind(&self) -> KeyKind {
        match self.source {
            Source::Raw => KeyKind::Raw,
            Source::AtLeast(_) | Source::Exactly(_) => KeyKind::Passphrase,
        }
    }

    /// The costs that a first envelope made with this key gets; `None` for a raw key.
    pub fn costs(&self) -> Option<KdfCosts> {
        match self.source {
            Source::Raw => None,
            Source::AtLeast(costs) | Source::Exactly(costs) => Some(costs),
        }
    }

    /// The costs of an envelope that takes the place of one with the costs `old`.
    pub(crate) fn costs_after(&self, old: Option<KdfCosts>) -> Result<Option<KdfCosts>> {
        match (&self.source, old) {
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

/// The kind of a key, and the costs that were asked for.
enum Source {
    Raw,
    AtLeast(KdfCosts),
    Exactly(KdfCosts),
}

/// The longest passphrase, in bytes.
pub const PASSPHRASE_LEN_MAX: usize = 65_536;

//! The error type of the crate.

use std::fmt;
use std::io;

use crate::epoch::{MESSAGE_LEN_MAX, MESSAGES_MAX, SEALED_BYTES_MAX};
use crate::kdf::KdfCosts;
use crate::key::{KeyKind, PASSPHRASE_LEN_MAX};

/// The result type of the crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The errors of the crate. No error message contains a secret.
#[non_exhaustive]
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The key does not open the envelope. Detected before any decryption.
    #[error(
        "the key or passphrase does not open this envelope; check it, or open an older copy that \
         was made under it"
    )]
    WrongKey,

    /// The envelope was made with a key of the other kind: a raw key instead of a passphrase, or
    /// the reverse.
    #[error("the envelope was made with a {wanted}, not with a {given}; open it with the {wanted}")]
    WrongKeyKind {
        /// The kind of key that the envelope was made with.
        wanted: KeyKind,
        /// The kind of key that was given.
        given: KeyKind,
    },

    /// The bytes, their header or their position are not the ones that were sealed. No plaintext is
    /// left in the buffer of the caller.
    #[error(
        "authentication failed: the bytes or their header were changed, or belong elsewhere; \
         restore them from a backup"
    )]
    Tampered,

    /// The first four bytes are not those of an envelope.
    #[error("not an envelope: the first four bytes differ; is this an encrypted file?")]
    NotAnEnvelope,

    /// The length is not [`ENVELOPE_LEN`](crate::ENVELOPE_LEN).
    #[error("an envelope has 256 bytes, but {found} were given; pass exactly the envelope")]
    EnvelopeLength {
        /// The given length, in bytes.
        found: usize,
    },

    /// The envelope is damaged. Detected without a key.
    #[error("the envelope is damaged: {what}; restore the header from a backup")]
    EnvelopeDamaged {
        /// The check that failed.
        what: &'static str,
    },

    /// The envelope was made by a later version of this crate.
    #[error("envelope version {found} is not supported (this program reads 1); use a newer one")]
    UnsupportedVersion {
        /// The version in the envelope.
        found: u16,
    },

    /// No cipher of this version has this number.
    #[error("cipher {id} is not supported (1 AES-256-GCM, 2 ChaCha20-Poly1305)")]
    UnsupportedCipher {
        /// The number in the envelope.
        id: u8,
    },

    /// The kind of key is unknown, or its derivation is not the one for that kind.
    #[error("key kind {kind} with derivation {kdf} is not supported (1 with 1, 2 with 2)")]
    UnsupportedKdf {
        /// The kind of key in the envelope.
        kind: u8,
        /// The derivation in the envelope.
        kdf: u8,
    },

    /// The costs exceed the caps of this crate. Detected before derivation.
    #[error(
        "the passphrase costs t={t}, m={m_kib} KiB, p={p} exceed the caps t<={}, m<={} KiB, \
         p<={}, t*m<={} KiB; a header that asks for so much is not trusted, and a new one keeps \
         the greater values of the old one unless `Key::passphrase_costing_exactly` lowers them",
        KdfCosts::T_MAX,
        KdfCosts::M_KIB_MAX,
        KdfCosts::P_MAX,
        KdfCosts::T_M_KIB_MAX
    )]
    KdfTooExpensive {
        /// Number of passes over the memory.
        t: u32,
        /// Memory, in KiB.
        m_kib: u32,
        /// Number of lanes.
        p: u32,
    },

    /// The costs are below the minimum for new envelopes.
    #[error(
        "the passphrase costs t={t}, m={m_kib} KiB, p={p} are below the minimum t={}, m={} KiB; \
         raise them, or ask for them by `Key::passphrase_costing_exactly`",
        KdfCosts::T_MIN,
        KdfCosts::M_KIB_MIN
    )]
    KdfTooCheap {
        /// Number of passes over the memory.
        t: u32,
        /// Memory, in KiB.
        m_kib: u32,
        /// Number of lanes.
        p: u32,
    },

    /// The costs are not valid for Argon2id.
    #[error(
        "the passphrase costs t={t}, m={m_kib} KiB, p={p} are not valid for Argon2id: t and p must \
         be at least 1, m at least 8*p KiB"
    )]
    KdfCosts {
        /// Number of passes over the memory.
        t: u32,
        /// Memory, in KiB.
        m_kib: u32,
        /// Number of lanes.
        p: u32,
    },

    /// The raw key does not have 16, 24 or 32 bytes.
    #[error("a raw key must have 16, 24 or 32 bytes, but {found} were given")]
    KeyLength {
        /// The given length, in bytes.
        found: usize,
    },

    /// The passphrase is empty or longer than [`PASSPHRASE_LEN_MAX`] bytes.
    #[error("a passphrase must have 1 to {PASSPHRASE_LEN_MAX} bytes, but {found} were given")]
    PassphraseLength {
        /// The given length, in bytes.
        found: usize,
    },

    /// The epoch has reached a limit of its key.
    #[error(
        "this epoch has sealed its limit of {MESSAGES_MAX} messages or {SEALED_BYTES_MAX} bytes; \
         begin a new epoch"
    )]
    Exhausted,

    /// The nonce was handed out by another sealer.
    #[error("the nonce was handed out by another sealer; take one from the sealer that seals")]
    ForeignNonce,

    /// The message is longer than [`MESSAGE_LEN_MAX`].
    #[error("a message of {len} bytes is above the limit of {MESSAGE_LEN_MAX}; split it")]
    MessageTooLong {
        /// Length of payload and associated data, in bytes.
        len: u64,
    },

    /// The range to seal or open begins after the end of the buffer.
    #[error("the range from byte {from} begins after the end of a buffer of {len} bytes")]
    BufferRange {
        /// Start of the range, in bytes.
        from: usize,
        /// Length of the buffer, in bytes.
        len: usize,
    },

    /// The source of entropy failed, or returned only zeros.
    #[error("no entropy: {reason}; nothing was sealed")]
    Entropy {
        /// The reason that the source reported.
        reason: String,
    },

    /// The memory is not available.
    #[error("{bytes} bytes of memory are not available; free some and try again")]
    OutOfMemory {
        /// Length of the failed allocation, in bytes.
        bytes: usize,
    },
}

/// The name of the variant, then the text of `Display`. A program whose `main` returns the error
/// prints that text.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        macro_rules! name {
            ($($variant:ident),*) => {
                match self { $(Self::$variant { .. } => stringify!($variant),)* }
            };
        }
        let name = name!(
            WrongKey,
            WrongKeyKind,
            Tampered,
            NotAnEnvelope,
            EnvelopeLength,
            EnvelopeDamaged,
            UnsupportedVersion,
            UnsupportedCipher,
            UnsupportedKdf,
            KdfTooExpensive,
            KdfTooCheap,
            KdfCosts,
            KeyLength,
            PassphraseLength,
            Exhausted,
            ForeignNonce,
            MessageTooLong,
            BufferRange,
            Entropy,
            OutOfMemory
        );
        write!(f, "{name}: {self}")
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        use io::ErrorKind as Kind;
        let kind = match &error {
            Error::WrongKey | Error::WrongKeyKind { .. } => Kind::PermissionDenied,
            Error::Tampered
            | Error::NotAnEnvelope
            | Error::EnvelopeLength { .. }
            | Error::EnvelopeDamaged { .. } => Kind::InvalidData,
            Error::UnsupportedVersion { .. }
            | Error::UnsupportedCipher { .. }
            | Error::UnsupportedKdf { .. } => Kind::Unsupported,
            Error::KdfTooExpensive { .. }
            | Error::KdfTooCheap { .. }
            | Error::KdfCosts { .. }
            | Error::KeyLength { .. }
            | Error::PassphraseLength { .. }
            | Error::ForeignNonce
            | Error::MessageTooLong { .. }
            | Error::BufferRange { .. } => Kind::InvalidInput,
            Error::OutOfMemory { .. } => Kind::OutOfMemory,
            Error::Exhausted | Error::Entropy { .. } => Kind::Other,
        };
        Self::new(kind, error)
    }
}

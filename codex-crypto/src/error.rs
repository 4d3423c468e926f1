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
#[derive(Clone, PartialEq, Eq)]
pub enum Error {
    /// The key does not open the envelope. Detected before any decryption.
    WrongKey,

    /// The envelope was made with a key of the other kind: a raw key instead of a passphrase, or
    /// the reverse.
    WrongKeyKind {
        /// The kind of key that the envelope was made with.
        wanted: KeyKind,
        /// The kind of key that was given.
        given: KeyKind,
    },

    /// The bytes, their header or their position are not the ones that were sealed. No plaintext is
    /// left in the buffer of the caller.
    Tampered,

    /// The first four bytes are not those of an envelope.
    NotAnEnvelope,

    /// The length is not [`ENVELOPE_LEN`](crate::ENVELOPE_LEN).
    EnvelopeLength {
        /// The given length, in bytes.
        found: usize,
    },

    /// The envelope is damaged. Detected without a key.
    EnvelopeDamaged {
        /// The check that failed.
        what: &'static str,
    },

    /// The envelope was made by a later version of this crate.
    UnsupportedVersion {
        /// The version in the envelope.
        found: u16,
    },

    /// No cipher of this version has this number.
    UnsupportedCipher {
        /// The number in the envelope.
        id: u8,
    },

    /// The kind of key is unknown, or its derivation is not the one for that kind.
    UnsupportedKdf {
        /// The kind of key in the envelope.
        kind: u8,
        /// The derivation in the envelope.
        kdf: u8,
    },

    /// The costs exceed the caps of this crate. Detected before derivation.
    KdfTooExpensive {
        /// Number of passes over the memory.
        t: u32,
        /// Memory, in KiB.
        m_kib: u32,
        /// Number of lanes.
        p: u32,
    },

    /// The costs are below the minimum for new envelopes.
    KdfTooCheap {
        /// Number of passes over the memory.
        t: u32,
        /// Memory, in KiB.
        m_kib: u32,
        /// Number of lanes.
        p: u32,
    },

    /// The costs are not valid for Argon2id.
    KdfCosts {
        /// Number of passes over the memory.
        t: u32,
        /// Memory, in KiB.
        m_kib: u32,
        /// Number of lanes.
        p: u32,
    },

    /// The raw key does not have 16, 24 or 32 bytes.
    KeyLength {
        /// The given length, in bytes.
        found: usize,
    },

    /// The passphrase is empty or longer than [`PASSPHRASE_LEN_MAX`] bytes.
    PassphraseLength {
        /// The given length, in bytes.
        found: usize,
    },

    /// The epoch has reached a limit of its key.
    Exhausted,

    /// The nonce was handed out by another sealer.
    ForeignNonce,

    /// The message is longer than [`MESSAGE_LEN_MAX`].
    MessageTooLong {
        /// Length of payload and associated data, in bytes.
        len: u64,
    },

    /// The range to seal or open begins after the end of the buffer.
    BufferRange {
        /// Start of the range, in bytes.
        from: usize,
        /// Length of the buffer, in bytes.
        len: usize,
    },

    /// The source of entropy failed, or returned only zeros.
    Entropy {
        /// The reason that the source reported.
        reason: String,
    },

    /// The memory is not available.
    OutOfMemory {
        /// Length of the failed allocation, in bytes.
        bytes: usize,
    },
}

/// The name of the variant, then the text of `Display`. A program whose `main` returns the error
/// prints that text.
/// The texts of an error: `Display` with the message of the variant, and `Debug` with the name of
/// the variant in front of it.
macro_rules! messages {
    ($type:ident {
        $($variant:ident $({ $($field:ident),* })?
            => $message:literal $(, $name:ident = $value:expr)*;)*
    }) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant $({ $($field,)* .. })? => {
                        write!(f, $message $(, $name = $value)*)
                    })*
                }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let name = match self { $(Self::$variant { .. } => stringify!($variant),)* };
                write!(f, "{name}: {self}")
            }
        }
    };
}

messages! {
    Error {
        WrongKey =>
            "the key or passphrase does not open this envelope; check it, or open an older copy \
             that was made under it";
        WrongKeyKind { wanted, given } =>
            "the envelope was made with a {wanted}, not with a {given}; open it with the {wanted}";
        Tampered =>
            "authentication failed: the bytes or their header were changed, or belong elsewhere; \
             restore them from a backup";
        NotAnEnvelope => "not an envelope: the first four bytes differ; is this an encrypted file?";
        EnvelopeLength { found } =>
            "an envelope has 256 bytes, but {found} were given; pass exactly the envelope";
        EnvelopeDamaged { what } =>
            "the envelope is damaged: {what}; restore the header from a backup";
        UnsupportedVersion { found } =>
            "envelope version {found} is not supported (this program reads 1); use a newer one";
        UnsupportedCipher { id } =>
            "cipher {id} is not supported (1 AES-256-GCM, 2 ChaCha20-Poly1305)";
        UnsupportedKdf { kind, kdf } =>
            "key kind {kind} with derivation {kdf} is not supported (1 with 1, 2 with 2)";
        KdfTooExpensive { t, m_kib, p } =>
            "the passphrase costs t={t}, m={m_kib} KiB, p={p} exceed the caps t<={t_max}, \
             m<={m_kib_max} KiB, p<={p_max}, t*m<={t_m_kib_max} KiB; a header that asks for so \
             much is not trusted, and a new one keeps the greater values of the old one unless \
             `Key::passphrase_costing_exactly` lowers them",
            t_max = KdfCosts::T_MAX, m_kib_max = KdfCosts::M_KIB_MAX,
            p_max = KdfCosts::P_MAX, t_m_kib_max = KdfCosts::T_M_KIB_MAX;
        KdfTooCheap { t, m_kib, p } =>
            "the passphrase costs t={t}, m={m_kib} KiB, p={p} are below the minimum t={t_min}, \
             m={m_kib_min} KiB; raise them, or ask for them by `Key::passphrase_costing_exactly`",
            t_min = KdfCosts::T_MIN, m_kib_min = KdfCosts::M_KIB_MIN;
        KdfCosts { t, m_kib, p } =>
            "the passphrase costs t={t}, m={m_kib} KiB, p={p} are not valid for Argon2id: t and \
             p must be at least 1, m at least 8*p KiB";
        KeyLength { found } => "a raw key must have 16, 24 or 32 bytes, but {found} were given";
        PassphraseLength { found } =>
            "a passphrase must have 1 to {PASSPHRASE_LEN_MAX} bytes, but {found} were given";
        Exhausted =>
            "this epoch has sealed its limit of {MESSAGES_MAX} messages or {SEALED_BYTES_MAX} \
             bytes; begin a new epoch";
        ForeignNonce =>
            "the nonce was handed out by another sealer; take one from the sealer that seals";
        MessageTooLong { len } =>
            "a message of {len} bytes is above the limit of {MESSAGE_LEN_MAX}; split it";
        BufferRange { from, len } =>
            "the range from byte {from} begins after the end of a buffer of {len} bytes";
        Entropy { reason } => "no entropy: {reason}; nothing was sealed";
        OutOfMemory { bytes } =>
            "{bytes} bytes of memory are not available; free some and try again";
    }
}

impl std::error::Error for Error {}

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

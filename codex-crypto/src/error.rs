//! The one error type of the crate.

use crate::epoch::{MESSAGE_LEN_MAX, MESSAGES_MAX, SEALED_BYTES_MAX};
use crate::kdf::KdfCosts;
use crate::key::{KeyKind, PASSPHRASE_LEN_MAX};

/// What the functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong under a key. No message contains a secret.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The key is not the one that the envelope was made for. Found before any decryption.
    #[error(
        "the key or passphrase does not fit this envelope; check it, or open an older copy that \
         was made under it"
    )]
    WrongKey,

    /// A raw key was offered to an envelope that wants a passphrase, or the reverse.
    #[error("the envelope wants a {wanted}, but a {given} was given; offer the {wanted}")]
    WrongKeyKind {
        /// What the envelope was made with.
        wanted: KeyKind,
        /// What the caller offered.
        given: KeyKind,
    },

    /// The bytes, their header or their place are not those that were sealed. No plaintext of
    /// them is left in the caller's buffer.
    #[error(
        "authentication failed: the bytes or their header were changed, or belong elsewhere; \
         restore them from a backup"
    )]
    Tampered,

    /// The bytes do not begin like an envelope.
    #[error("not an envelope: the first four bytes differ; is this an encrypted file?")]
    NotAnEnvelope,

    /// An envelope has another length than [`ENVELOPE_LEN`](crate::ENVELOPE_LEN).
    #[error("an envelope has 256 bytes, but {found} were given; the header is cut off or longer")]
    EnvelopeLength {
        /// The length that was given, in bytes.
        found: usize,
    },

    /// The envelope contradicts itself. Found without a key.
    #[error("the envelope is damaged: {what}; restore the header from a backup")]
    EnvelopeDamaged {
        /// The rule that is broken.
        what: &'static str,
    },

    /// A later version of this crate made the envelope.
    #[error("envelope version {found} is not supported (this program reads 1); use a newer one")]
    UnsupportedVersion {
        /// The version that was read.
        found: u16,
    },

    /// The number names no cipher of this version.
    #[error("cipher {id} is not supported (1 AES-256-GCM, 2 ChaCha20-Poly1305)")]
    UnsupportedCipher {
        /// The number that was read.
        id: u8,
    },

    /// The numbers name no kind of key, or a derivation that does not belong to that kind.
    #[error("key kind {kind} with derivation {kdf} is not supported (1 with 1, 2 with 2)")]
    UnsupportedKdf {
        /// The kind of key that was read.
        kind: u8,
        /// The derivation that was read.
        kdf: u8,
    },

    /// The costs are above what this crate is willing to spend. Found before deriving.
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
        /// Passes over the memory.
        t: u32,
        /// Memory in KiB.
        m_kib: u32,
        /// Lanes.
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
        /// Passes over the memory.
        t: u32,
        /// Memory in KiB.
        m_kib: u32,
        /// Lanes.
        p: u32,
    },

    /// The costs are below what Argon2id is defined for.
    #[error(
        "the passphrase costs t={t}, m={m_kib} KiB, p={p} are no Argon2id: t and p are at least \
         1, m is at least 8*p KiB"
    )]
    KdfCosts {
        /// Passes over the memory.
        t: u32,
        /// Memory in KiB.
        m_kib: u32,
        /// Lanes.
        p: u32,
    },

    /// A raw key has a length other than 16, 24 or 32 bytes.
    #[error("a raw key has 16, 24 or 32 bytes, but {found} were given")]
    KeyLength {
        /// The length that was given, in bytes.
        found: usize,
    },

    /// A passphrase is empty or longer than any passphrase is.
    #[error("a passphrase has 1 to {PASSPHRASE_LEN_MAX} bytes, but {found} were given")]
    PassphraseLength {
        /// The length that was given, in bytes.
        found: usize,
    },

    /// The epoch has sealed as much as one key may.
    #[error(
        "this epoch has sealed its limit of {MESSAGES_MAX} messages or {SEALED_BYTES_MAX} bytes; \
         begin a new epoch"
    )]
    Exhausted,

    /// A nonce was used with a sealer that did not hand it out.
    #[error("the nonce was handed out by another sealer; take one from the sealer that seals")]
    ForeignNonce,

    /// One message is longer than one call may seal.
    #[error("a message of {len} bytes is above the limit of {MESSAGE_LEN_MAX}; split it")]
    MessageTooLong {
        /// Payload and associated data, in bytes.
        len: u64,
    },

    /// The part to seal or open begins behind the end of the buffer.
    #[error("the part from byte {from} lies behind the end of a buffer of {len} bytes")]
    BufferRange {
        /// Where the part was said to begin.
        from: usize,
        /// The length of the buffer.
        len: usize,
    },

    /// The source of entropy failed, or answered with zeros only.
    #[error("no entropy: {reason}; nothing was sealed")]
    Entropy {
        /// What the source said.
        reason: String,
    },

    /// The memory that was asked for is not to be had.
    #[error("{bytes} bytes of memory are not available; free some and try again")]
    OutOfMemory {
        /// What was asked for, in bytes.
        bytes: usize,
    },
}

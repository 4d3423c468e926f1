//! Encryption of bytes under a user's key: envelopes, epochs, authenticated encryption. The crate
//! accesses no files.
//!
//! ```
//! use codex_crypto::{Cipher, Envelope, EpochSalt, Key, OsEntropy, Result};
//!
//! # fn main() -> Result<()> {
//! // Once per store: a random root key, wrapped under the user's key.
//! let key = Key::raw(&[7; 32])?; // or Key::passphrase("..."), which costs 64 MiB and 0.2 s
//! let (envelope, root) = Envelope::create(&key, Cipher::default(), b"store id", &mut OsEntropy)?;
//! let header: [u8; 256] = envelope.to_bytes();
//!
//! // Once per writing session and file: an epoch. Then one nonce per message.
//! let sealer = root.sealer(EpochSalt::draw(&mut OsEntropy)?, b"file id, kind, generation");
//! let nonce = sealer.next_nonce()?;
//! let counter = nonce.counter(); // stored in the header of the message, which is authenticated
//! let mut message = b"a secret".to_vec();
//! sealer.seal(nonce, b"message header", &mut message, 0)?;
//!
//! // Later: the key opens the envelope, the root key the epochs, the counter the messages.
//! let root = Envelope::parse(&header)?.open(&key, b"store id")?;
//! let opener = root.opener(sealer.salt(), b"file id, kind, generation");
//! opener.open(counter, b"message header", &mut message, 0)?;
//! assert_eq!(message, b"a secret");
//! # Ok(())
//! # }
//! ```
//!
//! The types prevent misuse:
//! - A [`Sealer`] consumes an [`EpochSalt`], and each message consumes a [`Nonce`]. No pair of key
//!   and nonce is used twice, even if files are torn, restored or copied.
//! - An [`Envelope`] holds a commitment to its key. A wrong key returns [`Error::WrongKey`] before
//!   anything is decrypted. The costs of a passphrase are [`KdfCosts`], which cannot exceed their
//!   caps.
//! - If [`Opener::open`] fails, no plaintext is left in the buffer.
//! - Keys are wiped when dropped, are not `Clone`, and are not shown by `Debug`.

mod cipher;
mod entropy;
mod envelope;
mod epoch;
mod error;
mod kdf;
mod key;
mod root;

pub use cipher::{Cipher, TAG_LEN};
pub use entropy::{Entropy, OsEntropy};
pub use envelope::{ENVELOPE_LEN, Envelope};
pub use epoch::{
    EpochSalt, MESSAGE_LEN_MAX, MESSAGES_MAX, Nonce, Opener, SEALED_BYTES_MAX, Sealer,
};
pub use error::{Error, Result};
pub use kdf::KdfCosts;
pub use key::{Key, KeyKind, PASSPHRASE_LEN_MAX};
pub use root::{HEADER_TAG_LEN_MIN, RootKey};

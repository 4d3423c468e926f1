//! The traits of `codex_storage::seal`, implemented with codex-crypto.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use codex_crypto::{Cipher, Envelope, EpochSalt, Key, KeyKind, Nonce, RootKey};
use codex_storage::seal::{self, ENVELOPE_LEN, HEADER_TAG_LEN, SealError};
use codex_storage::sync::Mutex;
use codex_storage::vfs::Entropy;

/// The key of a user in the options. Two are equal if they are the same object.
#[derive(Debug, Clone)]
pub(crate) struct SharedKey(Arc<Key>);

impl SharedKey {
    pub(crate) fn new(key: Key) -> Self {
        Self(Arc::new(key))
    }
}

impl PartialEq for SharedKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The key of a user and the parts that are needed to make an envelope, for one opening or one
/// [`Backups`](crate::Backups).
///
/// Deriving a passphrase takes seconds, and files that an attacker has planted can request it. So
/// it is derived once for each envelope, and for at most [`ENVELOPES_MAX`] of them.
pub(crate) struct UserKey {
    key: SharedKey,
    cipher: Cipher,
    entropy: Arc<dyn Entropy>,
    tried: Mutex<Vec<Tried>>,
}

impl UserKey {
    /// Returns the key. `cipher` is that of a new store; an existing store keeps its own.
    pub(crate) fn new(key: SharedKey, cipher: Cipher, entropy: Arc<dyn Entropy>) -> Self {
        Self { key, cipher, entropy, tried: Mutex::default() }
    }

    /// Calls `open` if the passphrase was not tried on this envelope before. Otherwise returns the
    /// earlier outcome.
    fn once(
        &self,
        store_id: &[u8; 16],
        envelope: &[u8; ENVELOPE_LEN],
        open: impl FnOnce() -> Result<Arc<dyn seal::Seal>, SealError>,
    ) -> Result<Arc<dyn seal::Seal>, SealError> {
        // Order: hold the lock during the derivation, so that two threads neither try one envelope
        // twice nor exceed the limit.
        let mut tried = self.tried.lock();
        let before = tried.iter().find(|t| t.store_id == *store_id && *t.envelope == *envelope);
        if let Some(before) = before {
            return before.outcome.clone();
        }
        let count = tried.len();
        if count >= ENVELOPES_MAX {
            return Err(SealError::TooManyEnvelopes { tried: count });
        }
        let outcome = open();
        // Other errors, such as a failed allocation, occur before the derivation, so they do not
        // count.
        if matches!(outcome, Ok(_) | Err(SealError::WrongKey | SealError::Tampered)) {
            let (store_id, outcome) = (*store_id, outcome.clone());
            tried.push(Tried { store_id, envelope: Box::new(*envelope), outcome });
        }
        outcome
    }
}

/// An envelope on which a passphrase was tried.
struct Tried {
    store_id: [u8; 16],
    envelope: seal::Envelope,
    outcome: Result<Arc<dyn seal::Seal>, SealError>,
}

impl seal::Keys for UserKey {
    fn create(
        &self,
        store_id: &[u8; 16],
        cipher: Option<u8>,
        old: Option<&seal::Envelope>,
    ) -> Result<(seal::Envelope, Arc<dyn seal::Seal>), SealError> {
        let (key, mut entropy) = (&self.key.0, source(&self.entropy));
        let created =
            cipher.map_or(Ok(self.cipher), Cipher::from_id).and_then(|cipher| match old {
                None => Envelope::create(key, cipher, store_id, &mut entropy),
                Some(old) => Envelope::parse(&**old)?.renew(key, cipher, store_id, &mut entropy),
            });
        let (envelope, root) = created.map_err(|error| refusal(&error))?;
        Ok((Box::new(envelope.to_bytes()), self.root(root)))
    }

    fn wrap(
        &self,
        store_id: &[u8; 16],
        root: &dyn seal::Seal,
        old: &seal::Envelope,
    ) -> Result<seal::Envelope, SealError> {
        let Some(root) = (root as &dyn Any).downcast_ref::<Root>() else {
            return Err(SealError::Refused("the root key was made by another library".into()));
        };
        let mut entropy = source(&self.entropy);
        let envelope = Envelope::parse(&**old)
            .and_then(|old| old.rewrap(&root.key, &self.key.0, store_id, &mut entropy))
            .map_err(|error| refusal(&error))?;
        Ok(Box::new(envelope.to_bytes()))
    }

    fn unlock(
        &self,
        store_id: &[u8; 16],
        envelope: &[u8; ENVELOPE_LEN],
    ) -> Result<Arc<dyn seal::Seal>, SealError> {
        let parsed = Envelope::parse(envelope).map_err(|error| refusal(&error))?;
        let open = || {
            let root = parsed.open(&self.key.0, store_id).map_err(|error| refusal(&error))?;
            Ok(self.root(root))
        };
        match (parsed.key_kind(), self.key.0.kind()) {
            (KeyKind::Passphrase, KeyKind::Passphrase) => self.once(store_id, envelope, open),
            // A raw key takes almost no time, and a key of the other kind is refused without a
            // derivation.
            _ => open(),
        }
    }
}

impl UserKey {
    /// Returns `key` as a root key of the storage.
    fn root(&self, key: RootKey) -> Arc<dyn seal::Seal> {
        Arc::new(Root { key, entropy: Arc::clone(&self.entropy) })
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserKey").field("cipher", &self.cipher).finish_non_exhaustive()
    }
}

/// The root key of one store.
struct Root {
    key: RootKey,
    entropy: Arc<dyn Entropy>,
}

impl seal::Seal for Root {
    fn cipher_id(&self) -> u8 {
        self.key.cipher().id()
    }

    fn root_id(&self) -> [u8; 16] {
        self.key.id()
    }

    fn header_tag(&self, header: &[u8]) -> [u8; HEADER_TAG_LEN] {
        let full = self.key.header_tag(header);
        let mut tag = [0; HEADER_TAG_LEN];
        for (to, from) in tag.iter_mut().zip(full) {
            *to = from;
        }
        tag
    }

    fn digest_pad(&self, file_id: &[u8; 16]) -> [u8; 32] {
        *self.key.digest_pad(file_id)
    }

    fn verify_header(&self, header: &[u8], tag: &[u8; HEADER_TAG_LEN]) -> Result<(), SealError> {
        self.key.verify_header_tag(header, tag).map_err(|error| refusal(&error))
    }

    fn sealer(&self, info: &[u8]) -> Result<Box<dyn seal::Sealer>, SealError> {
        let salt = EpochSalt::draw(&mut source(&self.entropy)).map_err(|error| refusal(&error))?;
        Ok(Box::new(Sealer { sealer: self.key.sealer(salt, info), pending: None }))
    }

    fn opener(&self, salt: &[u8; 32], info: &[u8]) -> Result<Box<dyn seal::Opener>, SealError> {
        Ok(Box::new(Opener(self.key.opener(salt, info))))
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("cipher", &self.key.cipher()).finish_non_exhaustive()
    }
}

/// A sealer that keeps the nonce of the counter that it has returned last, so that no nonce is used
/// twice.
#[derive(Debug)]
struct Sealer {
    sealer: codex_crypto::Sealer,
    pending: Option<Nonce>,
}

impl seal::Sealer for Sealer {
    fn salt(&self) -> [u8; 32] {
        *self.sealer.salt()
    }

    fn next_counter(&mut self) -> Result<u64, SealError> {
        let nonce = self.sealer.next_nonce().map_err(|error| refusal(&error))?;
        let counter = nonce.counter();
        self.pending = Some(nonce);
        Ok(counter)
    }

    fn is_worn(&self) -> bool {
        self.sealer.is_worn()
    }

    fn seal(
        &mut self,
        counter: u64,
        aad: &[u8],
        buf: &mut Vec<u8>,
        from: usize,
    ) -> Result<(), SealError> {
        // Take the nonce, so that a second call with the same counter is refused.
        let nonce = self
            .pending
            .take()
            .filter(|nonce| nonce.counter() == counter)
            .ok_or_else(|| SealError::Refused("the counter is not the current one".into()))?;
        self.sealer.seal(nonce, aad, buf, from).map_err(|error| refusal(&error))
    }
}

/// An opener of codex-crypto.
struct Opener(codex_crypto::Opener);

impl seal::Opener for Opener {
    fn open(&self, counter: u64, aad: &[u8], buf: &mut Vec<u8>) -> Result<(), SealError> {
        self.0.open(counter, aad, buf, 0).map_err(|error| {
            // No unauthenticated plaintext is left in the buffer.
            buf.clear();
            refusal(&error)
        })
    }
}

codex_storage::opaque_debug!(Opener);

/// Returns the entropy of `entropy` in the form that codex-crypto takes.
fn source(entropy: &Arc<dyn Entropy>) -> impl FnMut(&mut [u8]) -> codex_crypto::Result<()> + '_ {
    |out| {
        entropy
            .fill(out)
            .map_err(|error| codex_crypto::Error::Entropy { reason: error.to_string() })
    }
}

/// Converts an error of codex-crypto.
fn refusal(error: &codex_crypto::Error) -> SealError {
    use codex_crypto::Error as E;
    match error {
        E::WrongKey => SealError::WrongKey,
        E::Tampered => SealError::Tampered,
        E::Exhausted | E::ForeignNonce | E::MessageTooLong { .. } | E::Entropy { .. } => {
            SealError::Refused(error.to_string())
        }
        other => SealError::Envelope(other.to_string()),
    }
}

/// The maximum number of envelopes on which one [`UserKey`] tries a passphrase: that of the store,
/// those of backups from before changes of the key, and a few more. At the limits of
/// [`KdfCosts`](codex_crypto::KdfCosts) this takes about 40 seconds.
const ENVELOPES_MAX: usize = 8;

#[cfg(test)]
mod tests;

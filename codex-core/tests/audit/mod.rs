//! Keys that record every seal of every store, so that a test detects a pair of key and nonce that
//! is used twice.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::disallowed_types, reason = "a test, run by std")]

use std::any::Any;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use codex_core::crypto::{Cipher, Key};
use codex_core::internals;
use codex_core::vfs::Entropy;
use codex_storage::seal::{
    ENVELOPE_LEN, Envelope, HEADER_TAG_LEN, Keys, Opener, Seal, SealError, Sealer,
};
use codex_storage::sync::Mutex;

/// The record of all seals and unlocks, by all the keys that share it.
#[derive(Debug, Default)]
pub struct Book {
    /// A hash of the text that each pair of key (root, salt and info) and counter has sealed.
    sealed: HashMap<(u64, u64), u64>,
    /// The pairs that were used twice, and whether with another text.
    pub repeated: Vec<bool>,
    /// The number of opened envelopes, which determines the cost of a passphrase.
    pub unlocks: u64,
}

impl Book {
    /// Returns the number of sealed messages.
    pub fn seals(&self) -> usize {
        self.sealed.len() + self.repeated.len()
    }

    fn note(&mut self, key: u64, counter: u64, text: u64) {
        if let Some(before) = self.sealed.insert((key, counter), text) {
            self.repeated.push(before != text);
        }
    }
}

/// A key of a user that records its use.
#[derive(Debug)]
pub struct Audited {
    inner: Arc<dyn Keys>,
    book: Arc<Mutex<Book>>,
}

impl Audited {
    /// Returns the raw key of 32 bytes `n`, in the form that [`codex_core::OpenOptions::key`] gives
    /// to a store.
    pub fn keys(n: u8, entropy: &Arc<dyn Entropy>, book: &Arc<Mutex<Book>>) -> Arc<dyn Keys> {
        let key = Key::raw(&[n; 32]).unwrap();
        let cipher = if n.is_multiple_of(2) { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 };
        let inner = internals::keys(key, cipher, Arc::clone(entropy));
        Arc::new(Self { inner, book: Arc::clone(book) })
    }

    fn seal(&self, inner: Arc<dyn Seal>) -> Arc<dyn Seal> {
        Arc::new(AuditedSeal { inner, book: Arc::clone(&self.book) })
    }
}

impl Keys for Audited {
    fn create(
        &self,
        store_id: &[u8; 16],
        cipher: Option<u8>,
        old: Option<&Envelope>,
    ) -> Result<(Envelope, Arc<dyn Seal>), SealError> {
        let (envelope, seal) = self.inner.create(store_id, cipher, old)?;
        Ok((envelope, self.seal(seal)))
    }

    fn wrap(
        &self,
        store_id: &[u8; 16],
        root: &dyn Seal,
        old: &Envelope,
    ) -> Result<Envelope, SealError> {
        let root = (root as &dyn Any).downcast_ref::<AuditedSeal>().unwrap();
        self.inner.wrap(store_id, &*root.inner, old)
    }

    fn unlock(
        &self,
        store_id: &[u8; 16],
        envelope: &[u8; ENVELOPE_LEN],
    ) -> Result<Arc<dyn Seal>, SealError> {
        self.book.lock().unlocks += 1;
        Ok(self.seal(self.inner.unlock(store_id, envelope)?))
    }
}

#[derive(Debug)]
struct AuditedSeal {
    inner: Arc<dyn Seal>,
    book: Arc<Mutex<Book>>,
}

impl Seal for AuditedSeal {
    fn cipher_id(&self) -> u8 {
        self.inner.cipher_id()
    }

    fn root_id(&self) -> [u8; 16] {
        self.inner.root_id()
    }

    fn header_tag(&self, header: &[u8]) -> [u8; HEADER_TAG_LEN] {
        self.inner.header_tag(header)
    }

    fn digest_pad(&self, file_id: &[u8; 16]) -> [u8; 32] {
        self.inner.digest_pad(file_id)
    }

    fn verify_header(&self, header: &[u8], tag: &[u8; HEADER_TAG_LEN]) -> Result<(), SealError> {
        self.inner.verify_header(header, tag)
    }

    fn sealer(&self, info: &[u8]) -> Result<Box<dyn Sealer>, SealError> {
        let inner = self.inner.sealer(info)?;
        // The name of the root key is a function of it, so this names the epoch's key.
        let key = hash(&(self.root_id(), inner.salt(), info));
        Ok(Box::new(AuditedSealer { inner, key, book: Arc::clone(&self.book) }))
    }

    fn opener(&self, salt: &[u8; 32], info: &[u8]) -> Result<Box<dyn Opener>, SealError> {
        self.inner.opener(salt, info)
    }
}

#[derive(Debug)]
struct AuditedSealer {
    inner: Box<dyn Sealer>,
    key: u64,
    book: Arc<Mutex<Book>>,
}

impl Sealer for AuditedSealer {
    fn salt(&self) -> [u8; 32] {
        self.inner.salt()
    }

    fn next_counter(&mut self) -> Result<u64, SealError> {
        self.inner.next_counter()
    }

    fn is_worn(&self) -> bool {
        self.inner.is_worn()
    }

    fn seal(
        &mut self,
        counter: u64,
        aad: &[u8],
        buf: &mut Vec<u8>,
        from: usize,
    ) -> Result<(), SealError> {
        let text = hash(&(aad, buf.get(from..)));
        self.book.lock().note(self.key, counter, text);
        self.inner.seal(counter, aad, buf, from)
    }
}

fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

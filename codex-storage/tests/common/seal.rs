//! A cipher for tests, with SHA-256 as its keystream and its tag. It keeps no secrets, but it
//! refuses a wrong key, counter or salt and changed bytes like a real cipher.

use std::any::Any;
use std::io;
use std::sync::Arc;

use codex_storage::seal::{
    ENVELOPE_LEN, Envelope, HEADER_TAG_LEN, Keys, Opener, Seal, SealError, Sealer, TAG_LEN,
};
use codex_storage::vfs::Entropy;
use sha2::{Digest, Sha256};

/// The key of a user. Salts and root keys come from the entropy, so a seed determines the files.
#[derive(Debug, Clone)]
pub struct ToyKeys {
    key: [u8; 32],
    entropy: Arc<dyn Entropy>,
    /// The number of messages that one epoch seals.
    limit: u64,
}

impl ToyKeys {
    /// Returns the key of `passphrase`.
    #[expect(clippy::new_ret_no_self, reason = "it is only ever used behind its trait")]
    pub fn new(passphrase: &str, entropy: Arc<dyn Entropy>) -> Arc<dyn Keys> {
        Self::limited(passphrase, entropy, u64::MAX)
    }

    /// Like [`ToyKeys::new`], with epochs that seal at most `limit` messages.
    pub fn limited(passphrase: &str, entropy: Arc<dyn Entropy>, limit: u64) -> Arc<dyn Keys> {
        Arc::new(Self { key: hash(&[b"user", passphrase.as_bytes()]), entropy, limit })
    }

    fn envelope(&self, store_id: &[u8; 16], root: &ToySeal) -> Envelope {
        let mut envelope = Box::new([0x45; ENVELOPE_LEN]);
        envelope[..32].copy_from_slice(&hash(&[b"commit", &self.key, store_id]));
        let mask = hash(&[b"wrap", &self.key, store_id]);
        for (to, (a, b)) in envelope[32..64].iter_mut().zip(root.root.iter().zip(mask)) {
            *to = a ^ b;
        }
        envelope
    }

    fn seal(&self, root: [u8; 32]) -> ToySeal {
        ToySeal { root, entropy: Arc::clone(&self.entropy), limit: self.limit }
    }
}

impl Keys for ToyKeys {
    fn create(
        &self,
        store_id: &[u8; 16],
        _cipher: Option<u8>,
        _old: Option<&Envelope>,
    ) -> Result<(Envelope, Arc<dyn Seal>), SealError> {
        let mut root = [0; 32];
        self.entropy.fill(&mut root).map_err(refused)?;
        let seal = self.seal(root);
        Ok((self.envelope(store_id, &seal), Arc::new(seal)))
    }

    fn wrap(
        &self,
        store_id: &[u8; 16],
        root: &dyn Seal,
        _old: &Envelope,
    ) -> Result<Envelope, SealError> {
        Ok(self.envelope(store_id, (root as &dyn Any).downcast_ref::<ToySeal>().unwrap()))
    }

    fn unlock(
        &self,
        store_id: &[u8; 16],
        envelope: &[u8; ENVELOPE_LEN],
    ) -> Result<Arc<dyn Seal>, SealError> {
        if envelope.iter().all(|&byte| byte == 0) {
            return Err(SealError::Envelope("there is none".to_owned()));
        }
        if envelope[..32] != hash(&[b"commit", &self.key, store_id]) {
            return Err(SealError::WrongKey);
        }
        let mut root = hash(&[b"wrap", &self.key, store_id]);
        root.iter_mut().zip(&envelope[32..64]).for_each(|(to, byte)| *to ^= byte);
        Ok(Arc::new(self.seal(root)))
    }
}

#[derive(Debug)]
struct ToySeal {
    root: [u8; 32],
    entropy: Arc<dyn Entropy>,
    limit: u64,
}

impl Seal for ToySeal {
    fn cipher_id(&self) -> u8 {
        1
    }

    fn root_id(&self) -> [u8; 16] {
        *hash(&[b"id", &self.root]).first_chunk().unwrap()
    }

    fn header_tag(&self, header: &[u8]) -> [u8; HEADER_TAG_LEN] {
        *hash(&[b"header", &self.root, header]).first_chunk().unwrap()
    }

    fn digest_pad(&self, file_id: &[u8; 16]) -> [u8; 32] {
        hash(&[b"digest", &self.root, file_id])
    }

    fn verify_header(&self, header: &[u8], tag: &[u8; HEADER_TAG_LEN]) -> Result<(), SealError> {
        if self.header_tag(header) == *tag { Ok(()) } else { Err(SealError::Tampered) }
    }

    fn sealer(&self, info: &[u8]) -> Result<Box<dyn Sealer>, SealError> {
        let mut salt = [0; 32];
        self.entropy.fill(&mut salt).map_err(refused)?;
        let key = hash(&[b"epoch", &self.root, &salt, info]);
        Ok(Box::new(ToySealer { key, salt, counter: 0, limit: self.limit }))
    }

    fn opener(&self, salt: &[u8; 32], info: &[u8]) -> Result<Box<dyn Opener>, SealError> {
        Ok(Box::new(ToyOpener { key: hash(&[b"epoch", &self.root, salt, info]) }))
    }
}

#[derive(Debug)]
struct ToySealer {
    key: [u8; 32],
    salt: [u8; 32],
    counter: u64,
    limit: u64,
}

impl Sealer for ToySealer {
    fn salt(&self) -> [u8; 32] {
        self.salt
    }

    fn next_counter(&mut self) -> Result<u64, SealError> {
        if self.counter == self.limit {
            return Err(SealError::Refused("the epoch has sealed its limit".to_owned()));
        }
        self.counter += 1;
        Ok(self.counter)
    }

    fn is_worn(&self) -> bool {
        self.counter >= EPOCH_FRAMES_MAX.min(self.limit / 2)
    }

    fn seal(
        &mut self,
        counter: u64,
        aad: &[u8],
        buf: &mut Vec<u8>,
        from: usize,
    ) -> Result<(), SealError> {
        assert_eq!(counter, self.counter, "a counter is used once, as the last handed out");
        mask(&self.key, counter, &mut buf[from..]);
        let tag = tag(&self.key, counter, aad, &buf[from..]);
        buf.extend_from_slice(&tag);
        Ok(())
    }
}

#[derive(Debug)]
struct ToyOpener {
    key: [u8; 32],
}

impl Opener for ToyOpener {
    fn open(&self, counter: u64, aad: &[u8], buf: &mut Vec<u8>) -> Result<(), SealError> {
        let Some(len) = buf.len().checked_sub(TAG_LEN) else {
            buf.clear();
            return Err(SealError::Tampered);
        };
        if tag(&self.key, counter, aad, &buf[..len]) != buf[len..] {
            buf.clear();
            return Err(SealError::Tampered);
        }
        buf.truncate(len);
        mask(&self.key, counter, buf);
        Ok(())
    }
}

fn mask(key: &[u8; 32], counter: u64, bytes: &mut [u8]) {
    for (block, chunk) in bytes.chunks_mut(32).enumerate() {
        let block = u64::try_from(block).unwrap();
        let stream = hash(&[b"mask", key, &counter.to_le_bytes(), &block.to_le_bytes()]);
        chunk.iter_mut().zip(stream).for_each(|(to, byte)| *to ^= byte);
    }
}

fn tag(key: &[u8; 32], counter: u64, aad: &[u8], bytes: &[u8]) -> [u8; TAG_LEN] {
    let aad_len = u64::try_from(aad.len()).unwrap().to_le_bytes();
    *hash(&[b"tag", key, &counter.to_le_bytes(), &aad_len, aad, bytes]).first_chunk().unwrap()
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn refused(error: io::Error) -> SealError {
    SealError::Refused(error.to_string())
}

/// Small, so that epochs wear out during tests.
const EPOCH_FRAMES_MAX: u64 = 50;

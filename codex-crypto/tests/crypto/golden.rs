//! Golden vectors of version 1. An independent program (Python with OpenSSL's Argon2id and ciphers)
//! made them. They are never regenerated, so that files of version 1 stay readable.

use codex_crypto::{Cipher, Envelope, EpochSalt, KdfCosts, Key};

use crate::common::{counting, hex};

#[test]
fn an_aes_envelope_under_a_passphrase_and_its_message_have_these_bytes() {
    let costs = KdfCosts::new(2, 32, 4).unwrap();
    let key = Key::passphrase_costing_exactly("correct horse battery staple", costs).unwrap();
    check(&key, Cipher::Aes256Gcm, b"store 1", &AES);
}

#[test]
fn a_chacha_envelope_under_a_short_raw_key_and_its_message_have_these_bytes() {
    let key = Key::raw(&(200..216).collect::<Vec<u8>>()).unwrap();
    check(&key, Cipher::ChaCha20Poly1305, b"store 2", &CHACHA);
}

struct Golden {
    envelope: &'static str,
    root_id: &'static str,
    header_tag: &'static str,
    digest_pad: &'static str,
    message: &'static str,
}

/// Makes every value with entropy that counts up, and opens the golden bytes.
fn check(key: &Key, cipher: Cipher, context: &[u8], golden: &Golden) {
    let mut entropy = counting();
    let (envelope, root) = Envelope::create(key, cipher, context, &mut entropy).unwrap();
    assert_eq!(hex(&envelope.to_bytes()), golden.envelope);
    assert_eq!(hex(&root.id()), golden.root_id);
    assert_eq!(hex(&root.header_tag(b"a header")), golden.header_tag);
    assert_eq!(hex(&*root.digest_pad(b"file 7")), golden.digest_pad);

    let sealer = root.sealer(EpochSalt::draw(&mut entropy).unwrap(), b"file 7, log, 3");
    assert_eq!(hex(sealer.salt()), SALT);
    sealer.next_nonce().unwrap();
    let nonce = sealer.next_nonce().unwrap();
    assert_eq!(nonce.counter(), 2);
    let mut message = b"the second message".to_vec();
    sealer.seal(nonce, b"header 2", &mut message, 0).unwrap();
    assert_eq!(hex(&message), golden.message);

    let envelope = Envelope::parse(&unhex(golden.envelope)).unwrap();
    let root = envelope.open(key, context).unwrap();
    let salt: [u8; 32] = unhex(SALT).try_into().unwrap();
    let mut message = unhex(golden.message);
    root.opener(&salt, b"file 7, log, 3").open(2, b"header 2", &mut message, 0).unwrap();
    assert_eq!(message, b"the second message");
    root.verify_header_tag(b"a header", &unhex(golden.header_tag)).unwrap();
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().map(|c| u8::try_from(c.to_digit(16).unwrap()).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

const SALT: &str = "4c4d4e4f505152535455565758595a5b5c5d5e5f606162636465666768696a6b";

const AES: Golden = Golden {
    envelope: concat!(
        "4358455601000102020000000200000020000000040000000000000000000000",
        "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f",
        "5bd5b4983e60e97064a8c4d4ac09ecc9c5fc321f82f778d044412a6e03d4af09",
        "444849ef92340c5560ce4dd18be6d5bd404142434445464748494a4b00000000",
        "53a8236129392143d308c8c3ec4ed39c06503004b29b84a34610314a9c08a155",
        "48c15a4317ee466347adfe5a0e1801cf00000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000078f4503ea646f0ea9209df215301e42a",
    ),
    root_id: "5bd5b4983e60e97064a8c4d4ac09ecc9",
    header_tag: "a969d9b81762b360cace4ec22e3b3c98351bf56cc8ba260a0d717b963543d51b",
    digest_pad: "09499b18b6393da4e706f03bf58f94b6be1aac8834f80388e11792d85d2f0fa3",
    message: concat!("5bfc3797c66e9e195d4ecbfc536fecb42a30e609d3af35a60e10de2a65180e19", "b5ef",),
};

const CHACHA: Golden = Golden {
    envelope: concat!(
        "4358455601000201010000000000000000000000000000000000000000000000",
        "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f",
        "b404c950fa5c67bd9e6e59584a3483da7aa864a23934178f7a291909ed3484c7",
        "c866c8646f210559d5ed058f44d68a26404142434445464748494a4b00000000",
        "8763a320b434065b59a8928b7e374498771791bc877c5da30fa66ce0e7ea833e",
        "6f20874cfb9d478b7cd3e75585071afb00000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000000000003f30d504bd49846be2f52166d87dea96",
    ),
    root_id: "b404c950fa5c67bd9e6e59584a3483da",
    header_tag: "513080457ba843f277feb1dffffd1b00984480af570ab8f0770ed1981df72eff",
    digest_pad: "45b87aa8cf3963a41ea859ad116fd1e486fff3ec041e4af6de9d4780afecfe49",
    message: concat!("b8bb7dabffecba0268eaec7cd0e540271c0460ae2e8731c87e19ed43ea80e691", "c75e",),
};

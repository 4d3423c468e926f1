//! Keys are not copied by accident, are wiped, and stand in no output.

use std::fmt::Debug;

use codex_crypto::{
    Envelope, EpochSalt, Error, KdfCosts, Key, KeyKind, Nonce, Opener, RootKey, Sealer,
};
use zeroize::ZeroizeOnDrop;

use crate::common::{CIPHERS, CONTEXT, INFO, cheap, hex, refused, seeded};

#[test]
fn debug_and_errors_show_no_secret() {
    let secret: [u8; 32] = std::array::from_fn(|n| 0xC1 ^ u8::try_from(n * 5).unwrap());
    let words = "a phrase that nobody prints";
    let raw = Key::raw(&secret).unwrap();
    let phrase = Key::passphrase_costing(words, cheap()).unwrap();
    let mut root_bytes = None;
    let mut entropy = seeded(11);
    let mut spy = |out: &mut [u8]| {
        entropy(out)?;
        root_bytes.get_or_insert(out.to_vec());
        Ok(())
    };
    let (envelope, root) = Envelope::create(&raw, CIPHERS[0], CONTEXT, &mut spy).unwrap();
    let root_bytes = root_bytes.unwrap();
    let sealer = root.sealer(EpochSalt::draw(&mut seeded(12)).unwrap(), INFO);
    let nonce = sealer.next_nonce().unwrap();
    let opener = root.opener(sealer.salt(), INFO);

    let mut output = String::new();
    show(&mut output, &(&raw, &phrase, &envelope, &root, &sealer, &opener, &nonce));
    let mut text = b"a plaintext that nobody prints".to_vec();
    sealer.seal(nonce, b"", &mut text, 0).unwrap();
    let wrong = Key::raw(&[1; 32]).unwrap();
    for error in [
        refused(envelope.open(&wrong, CONTEXT), 0),
        refused(envelope.open(&phrase, CONTEXT), 0),
        refused(envelope.open(&raw, b"elsewhere"), 0),
        refused(Key::raw(&secret[..31]), 0),
        refused(Key::passphrase(""), 0),
        refused(opener.open(9, b"", &mut text, 0), 0),
        refused(sealer.seal(sealer.next_nonce().unwrap(), b"", &mut text, 99), 0),
        refused(Envelope::parse(&secret), 0),
        refused(KdfCosts::new(0, 0, 0), 0),
    ] {
        show(&mut output, &error);
        output.push_str(&error.to_string());
    }

    for (name, bytes) in [
        ("raw key", &secret[..]),
        ("passphrase", words.as_bytes()),
        ("root key", &root_bytes),
        ("plaintext", b"a plaintext that nobody prints"),
    ] {
        for (form, needle) in forms(bytes) {
            assert!(!output.contains(&needle), "{name} {form} stands in {output}");
            let text = String::from_utf8_lossy(bytes);
            let control = format!("{bytes:?} {bytes:02x?} {} {text}", hex(bytes));
            assert!(control.contains(&needle), "the search finds {form}");
        }
    }
}

/// Compiles only while no type that holds a secret, or is to be used once, can be copied: a type
/// that were `Clone` would make the call ambiguous.
#[test]
fn secrets_and_tokens_can_not_be_cloned_and_secrets_are_wiped() {
    trait NotClone<Marker> {
        fn holds() -> bool {
            true
        }
    }
    struct IsClone;
    fn wiped<T: ZeroizeOnDrop>() {}
    fn shared<T: Send + Sync>() {}
    impl<T> NotClone<()> for T {}
    impl<T: Clone> NotClone<IsClone> for T {}
    assert!(<Key as NotClone<_>>::holds());
    assert!(<RootKey as NotClone<_>>::holds());
    assert!(<EpochSalt as NotClone<_>>::holds());
    assert!(<Nonce as NotClone<_>>::holds());
    assert!(<Sealer as NotClone<_>>::holds());
    assert!(<Opener as NotClone<_>>::holds());

    wiped::<Key>();
    wiped::<RootKey>();
    shared::<(Key, RootKey, EpochSalt, Nonce, Sealer, Opener, Envelope, Error, KeyKind)>();
}

fn show(output: &mut String, value: &dyn Debug) {
    *output = format!("{output}{value:?} {value:#?}\n");
}

/// Four bytes in a row, in the ways that bytes get printed.
fn forms(bytes: &[u8]) -> Vec<(&'static str, String)> {
    let mut forms = Vec::new();
    for four in bytes.windows(4) {
        forms.push(("decimal", format!("{four:?}").trim_matches(['[', ']']).to_owned()));
        forms.push(("hex", hex(four)));
        forms.push(("spaced hex", format!("{four:02x?}").trim_matches(['[', ']']).to_owned()));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        forms.push(("text", text.to_owned()));
    }
    forms
}

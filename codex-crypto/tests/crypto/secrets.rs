//! Keys cannot be copied by accident, are wiped, and appear in no output.

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
    let phrase = Key::passphrase_costing_exactly(words, cheap()).unwrap();
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

/// Compiles only if no type that holds a secret or is used once is `Clone`: a `Clone` type would
/// make the call ambiguous.
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

/// Returns each four consecutive bytes in the forms in which programs print bytes.
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

/// Counts how often a text occurs in the memory of this process, except in the buffer of this
/// search. `text` returns its bytes masked with `MASK`, so that the test itself does not contain
/// them.
#[cfg(target_os = "linux")]
#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "reads the process's own memory, no store's file"
)]
fn in_memory(text: &[u8]) -> usize {
    use std::os::unix::fs::FileExt;

    let memory = std::fs::File::open("/proc/self/mem").unwrap();
    let mut buf = vec![0; 1 << 20];
    let own = buf.as_ptr().addr()..buf.as_ptr().addr() + buf.len();
    let mut found = 0;
    for line in std::fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let mut fields = line.split(' ');
        let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let [mut at, end] = [from, to].map(|text| usize::from_str_radix(text, 16).unwrap());
        while at < end {
            if own.contains(&at) {
                at = own.end;
                continue;
            }
            let stop = if at < own.start { end.min(own.start) } else { end };
            let len = buf.len().min(stop - at);
            let chunk = &mut buf[..len];
            let place = u64::try_from(at).unwrap();
            if memory.read_exact_at(chunk, place).is_ok() {
                let masked = |window: &&[u8]| {
                    window.iter().zip(text).all(|(byte, masked)| byte ^ MASK == *masked)
                };
                found += chunk.windows(text.len()).filter(masked).count();
                chunk.fill(0);
            }
            // Chunks overlap, so that no occurrence across two chunks is missed.
            at = if len == stop - at { stop } else { at + len - (text.len() - 1) };
        }
    }
    found
}

/// Bytes that occur in this form nowhere else in the program.
#[cfg(target_os = "linux")]
fn masked() -> [u8; 32] {
    std::array::from_fn(|n| (u8::try_from(n * 7 % 26).unwrap() + b'a') ^ MASK)
}

#[cfg(target_os = "linux")]
const MASK: u8 = 0x80;

#[cfg(target_os = "linux")]
#[test]
fn no_copy_of_a_key_is_left_in_memory() {
    use zeroize::Zeroizing;

    let unmasked = |text: &[u8]| {
        let mut plain = Zeroizing::new(Vec::with_capacity(text.len()));
        plain.extend(text.iter().map(|byte| byte ^ MASK));
        plain
    };
    let text = masked();
    // An allocator overwrites the first bytes of freed memory.
    let copies = || in_memory(&text[16..]);
    assert_eq!(copies(), 0, "it stands masked in the test");
    for raw in [true, false] {
        let key = {
            let words = unmasked(&text);
            assert_eq!(copies(), 1, "the caller's own");
            let key = if raw {
                Key::raw(&words)
            } else {
                Key::passphrase_costing_exactly(&words, cheap())
            };
            key.unwrap()
        };
        assert_eq!(copies(), 1, "that of the key");
        let (envelope, _) = Envelope::create(&key, CIPHERS[0], CONTEXT, &mut seeded(3)).unwrap();
        assert_eq!(copies(), 1, "{raw}: none of the derivation");
        envelope.open(&key, CONTEXT).unwrap();
        assert_eq!(copies(), 1, "{raw}: none of opening");
        drop(key);
        assert_eq!(copies(), 0, "{raw}: wiped");
    }
    // The root key: the test uses the first bytes of entropy that were drawn.
    let key = Key::passphrase_costing_exactly("words", cheap()).unwrap();
    let mut draws = 0_u8;
    let mut entropy = |out: &mut [u8]| {
        draws += 1;
        if draws == 1 {
            out.iter_mut().zip(text).for_each(|(byte, masked)| *byte = masked ^ MASK);
        } else {
            out.fill(draws);
        }
        Ok(())
    };
    let (envelope, root) = Envelope::create(&key, CIPHERS[0], CONTEXT, &mut entropy).unwrap();
    assert_eq!(copies(), 1, "that of the root key");
    drop(root);
    assert_eq!(copies(), 0, "wiped, and so is the text of the wrap");
    let root = envelope.open(&key, CONTEXT).unwrap();
    let again = envelope.rewrap(&root, &key, CONTEXT, &mut seeded(4)).unwrap();
    assert_eq!(again.root_id(), root.id());
    drop((root.header_tag(b"header"), root.opener(&[9; 32], INFO)));
    assert_eq!(copies(), 1, "that of the root key, unwrapped");
    drop(root);
    assert_eq!(copies(), 0, "wiped");
}

//! Wrong keys, forged envelopes, changed messages and failing entropy each return a typed error.

use codex_crypto::{
    ENVELOPE_LEN, Envelope, EpochSalt, Error, HEADER_TAG_LEN_MIN, KdfCosts, Key, KeyKind,
    OsEntropy, PASSPHRASE_LEN_MAX, TAG_LEN,
};
use proptest::prelude::*;

use crate::common::{
    CIPHERS, CONTEXT, INFO, cheap, forged, open, passphrase, property, raw_key, refused, root,
    sealed, sealed as seal, sealer, seeded,
};

#[test]
fn what_is_sealed_opens_and_is_the_same() {
    let values = (
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 0..300),
        prop::collection::vec(any::<u8>(), 0..2000),
        any::<prop::sample::Index>(),
    );
    let roots = CIPHERS.map(root);
    property(200, values, |(which, aad, text, from)| {
        let root = &roots[usize::from(which)];
        let sealer = sealer(root, 3);
        let from = from.index(text.len() + 1);
        let mut buf = text.clone();
        let nonce = sealer.next_nonce().unwrap();
        let counter = nonce.counter();
        sealer.seal(nonce, &aad, &mut buf, from).unwrap();
        prop_assert_eq!(buf.len(), text.len() + TAG_LEN);
        prop_assert_eq!(&buf[..from], &text[..from]);
        root.opener(sealer.salt(), INFO).open(counter, &aad, &mut buf, from).unwrap();
        prop_assert_eq!(buf, text);
        Ok(())
    });
}

#[test]
fn every_flipped_bit_of_an_envelope_is_found_without_a_key() {
    for key in [raw_key(), passphrase()] {
        for cipher in CIPHERS {
            let bytes = made(&key, cipher).to_bytes();
            for bit in 0..ENVELOPE_LEN * 8 {
                let mut flipped = bytes;
                flipped[bit / 8] ^= 1 << (bit % 8);
                let error = refused(Envelope::parse(&flipped), bit);
                let expected = match bit / 8 {
                    0..4 => matches!(error, Error::NotAnEnvelope),
                    4..6 => matches!(error, Error::UnsupportedVersion { .. }),
                    _ => matches!(error, Error::EnvelopeDamaged { .. }),
                };
                assert!(expected, "bit {bit}: {error}");
            }
        }
    }
}

#[test]
fn every_bit_flipped_by_a_forger_is_refused_and_costs_at_most_the_caps() {
    for key in [raw_key(), passphrase()] {
        for cipher in CIPHERS {
            let bytes = made(&key, cipher).to_bytes();
            for bit in 0..240 * 8 {
                let bytes = forged(&bytes, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
                if let Ok(envelope) = Envelope::parse(&bytes) {
                    let work = envelope.costs().map_or(0, work_kib);
                    assert!(work <= KdfCosts::T_M_KIB_MAX, "bit {bit}");
                    if work > 32 << 10 {
                        continue; // within the caps, and only slow
                    }
                }
                let error = refused(open(&bytes, &key, CONTEXT), bit);
                let expected = match bit / 8 {
                    0..4 => matches!(error, Error::NotAnEnvelope),
                    4..6 => matches!(error, Error::UnsupportedVersion { .. }),
                    6 => matches!(error, Error::UnsupportedCipher { .. } | Error::WrongKey),
                    7..9 => matches!(error, Error::UnsupportedKdf { .. }),
                    12..24 => matches!(
                        error,
                        Error::KdfTooExpensive { .. }
                            | Error::KdfCosts { .. }
                            | Error::EnvelopeDamaged { .. }
                            | Error::WrongKey
                    ),
                    9..12 | 24..32 | 124..128 | 176..240 => {
                        matches!(error, Error::EnvelopeDamaged { .. })
                    }
                    32..64 | 80..112 => error == Error::WrongKey,
                    _ => error == Error::Tampered,
                };
                assert!(expected, "bit {bit}: {error}");
            }
        }
    }
}

#[test]
fn forged_costs_above_the_caps_are_refused_with_their_numbers() {
    let bytes = made(&passphrase(), CIPHERS[0]).to_bytes();
    for (t, m_kib, p) in [(u32::MAX, 8, 1), (1, u32::MAX, 1), (1, 8, 255), (5, 1 << 20, 1_u32)] {
        let bytes = forged(&bytes, |bytes| {
            bytes[12..16].copy_from_slice(&t.to_le_bytes());
            bytes[16..20].copy_from_slice(&m_kib.to_le_bytes());
            bytes[20..24].copy_from_slice(&p.to_le_bytes());
        });
        let error = refused(Envelope::parse(&bytes), (t, m_kib, p));
        assert_eq!(error, Error::KdfTooExpensive { t, m_kib, p });
        assert!(error.to_string().contains(&format!("t={t}, m={m_kib} KiB, p={p}")), "{error}");
    }
}

#[test]
fn another_cipher_or_kind_in_the_envelope_does_not_open() {
    let bytes = made(&raw_key(), CIPHERS[0]).to_bytes();
    let other_cipher = forged(&bytes, |bytes| bytes[6] = 2);
    assert_eq!(refused(open(&other_cipher, &raw_key(), CONTEXT), 2), Error::WrongKey);
    let other_kind = forged(&bytes, |bytes| {
        bytes[7..9].copy_from_slice(&[2, 2]);
        bytes[12..24].copy_from_slice(&[1, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0]);
    });
    assert_eq!(refused(open(&other_kind, &passphrase(), CONTEXT), 2), Error::WrongKey);
}

#[test]
fn an_envelope_of_any_other_length_is_an_error_with_its_length() {
    let mut bytes = made(&raw_key(), CIPHERS[0]).to_bytes().to_vec();
    bytes.push(0);
    for len in (0..=ENVELOPE_LEN + 1).filter(|&len| len != ENVELOPE_LEN) {
        let error = refused(Envelope::parse(&bytes[..len]), len);
        assert_eq!(error, Error::EnvelopeLength { found: len });
    }
}

#[test]
fn random_envelopes_are_refused_and_cost_at_most_the_caps() {
    let real = made(&passphrase(), CIPHERS[0]).to_bytes();
    let values = prop::collection::vec((0_usize..240, any::<u8>()), 1..40);
    property(500, values, |changes| {
        let bytes = forged(&real, |bytes| {
            for &(at, byte) in &changes {
                bytes[at] = byte;
            }
        });
        if bytes == real {
            return Ok(());
        }
        match Envelope::parse(&bytes) {
            Ok(envelope) => {
                let work = envelope.costs().map_or(0, work_kib);
                prop_assert!(work <= KdfCosts::T_M_KIB_MAX);
                if work <= 1 << 10 {
                    prop_assert!(envelope.open(&passphrase(), CONTEXT).is_err());
                }
            }
            Err(error) => prop_assert!(!matches!(error, Error::WrongKey | Error::Tampered)),
        }
        Ok(())
    });
}

#[test]
fn a_wrong_key_is_told_from_a_changed_envelope_and_from_a_key_of_the_other_kind() {
    let raw = made(&raw_key(), CIPHERS[0]);
    let words = made(&passphrase(), CIPHERS[1]);
    for wrong in [Key::raw(&[0xA6; 32]), Key::raw(&[0xA7; 16]), Key::raw(&[0xA7; 24])] {
        assert_eq!(refused(raw.open(&wrong.unwrap(), CONTEXT), "key"), Error::WrongKey);
    }
    for wrong in ["correct horse battery stapl", "Correct horse battery staple", "\0"] {
        let wrong = Key::passphrase(wrong).unwrap();
        assert_eq!(refused(words.open(&wrong, CONTEXT), "passphrase"), Error::WrongKey);
    }
    assert_eq!(refused(raw.open(&raw_key(), b"store 2"), "context"), Error::Tampered);
    let (wanted, given) = (KeyKind::Raw, KeyKind::Passphrase);
    let error = refused(raw.open(&passphrase(), CONTEXT), "kind");
    assert_eq!(error, Error::WrongKeyKind { wanted, given });
    assert!(error.to_string().contains("made with a raw key"), "{error}");
    let error = refused(words.open(&raw_key(), CONTEXT), "kind");
    assert_eq!(error, Error::WrongKeyKind { wanted: given, given: wanted });
}

#[test]
fn parts_of_two_envelopes_under_one_key_do_not_mix() {
    let one = made(&raw_key(), CIPHERS[0]).to_bytes();
    let (two, _) = Envelope::create(&raw_key(), CIPHERS[0], CONTEXT, &mut seeded(2)).unwrap();
    let two = two.to_bytes();
    for part in [32..64, 64..80, 80..112, 112..124, 128..160, 160..176, 128..176, 32..124] {
        let mixed = forged(&one, |bytes| bytes[part.clone()].copy_from_slice(&two[part.clone()]));
        let error = refused(open(&mixed, &raw_key(), CONTEXT), &part);
        assert!(matches!(error, Error::WrongKey | Error::Tampered), "{part:?}: {error}");
    }
}

#[test]
fn after_a_rewrap_the_new_key_opens_the_same_root_and_the_old_one_is_refused() {
    for cipher in CIPHERS {
        let (first, root) = Envelope::create(&raw_key(), cipher, CONTEXT, &mut seeded(1)).unwrap();
        let sealer = sealer(&root, 2);
        let (counter, message) = sealed(&sealer, b"header", b"written before");
        let mut entropy = seeded(3);
        let second = first.rewrap(&root, &passphrase(), CONTEXT, &mut entropy).unwrap();
        let third = first.rewrap(&root, &passphrase(), CONTEXT, &mut entropy).unwrap();
        assert_eq!(second.root_id(), first.root_id());
        assert_eq!(second.cipher(), cipher);
        let (a, b) = (second.to_bytes(), third.to_bytes());
        for fresh in [32..64, 80..112, 112..124, 128..160] {
            assert_ne!(a[fresh.clone()], b[fresh.clone()], "{fresh:?}");
        }

        let again = Envelope::parse(&a).unwrap();
        assert!(again == second);
        let old = refused(again.open(&raw_key(), CONTEXT), "the old key");
        assert!(matches!(old, Error::WrongKeyKind { .. }));
        let reopened = again.open(&passphrase(), CONTEXT).unwrap();
        assert_eq!(reopened.id(), root.id());
        let mut buf = message.clone();
        reopened.opener(sealer.salt(), INFO).open(counter, b"header", &mut buf, 0).unwrap();
        assert_eq!(buf, b"written before");
        assert!(first.open(&raw_key(), CONTEXT).is_ok(), "an old copy still opens");
    }
}

#[test]
fn a_changed_message_header_counter_or_place_is_tampered_and_leaves_nothing() {
    for cipher in CIPHERS {
        let root = root(cipher);
        let sealer = sealer(&root, 5);
        let (counter, message) = sealed(&sealer, b"the header", b"forty-two");
        let opener = root.opener(sealer.salt(), INFO);
        let deny = |opener: &codex_crypto::Opener, counter, aad: &[u8], message: &[u8]| {
            let mut buf = [b"kept", message].concat();
            let outcome = opener.open(counter, aad, &mut buf, 4);
            assert_eq!(outcome, Err(Error::Tampered));
            assert_eq!(buf, b"kept");
            let mut buf = message.to_vec();
            assert!(opener.open_in_place(counter, aad, &mut buf).is_err());
            let body = buf.len().saturating_sub(TAG_LEN);
            assert_eq!(buf[..body], vec![0; body]);
        };
        for bit in 0..message.len() * 8 {
            let mut flipped = message.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            deny(&opener, counter, b"the header", &flipped);
        }
        for len in 0..message.len() {
            deny(&opener, counter, b"the header", &message[..len]);
        }
        deny(&opener, counter, b"the header", &[&message[..], &[0]].concat());
        for aad in [&b"the headeR"[..], b"the heade", b"the header\0", b""] {
            deny(&opener, counter, aad, &message);
        }
        for other in [0, counter + 1, counter | 1 << 63] {
            deny(&opener, other, b"the header", &message);
        }
        deny(&root.opener(&[9; 32], INFO), counter, b"the header", &message);
        deny(&root.opener(sealer.salt(), b"file 2"), counter, b"the header", &message);
        let (_, stranger) = Envelope::create(&raw_key(), cipher, CONTEXT, &mut seeded(6)).unwrap();
        deny(&stranger.opener(sealer.salt(), INFO), counter, b"the header", &message);

        let mut buf = message;
        opener.open(counter, b"the header", &mut buf, 0).unwrap();
        assert_eq!(buf, b"forty-two", "the control opens");
    }
}

#[test]
fn a_header_tag_fits_its_bytes_and_its_root_alone() {
    let root = root(CIPHERS[0]);
    let header = [5; 100];
    let tag = root.header_tag(&header);
    for len in HEADER_TAG_LEN_MIN..=32 {
        root.verify_header_tag(&header, &tag[..len]).unwrap();
    }
    for len in 0..HEADER_TAG_LEN_MIN {
        assert_eq!(root.verify_header_tag(&header, &tag[..len]), Err(Error::Tampered));
    }
    let longer = [&tag[..], &[0]].concat();
    assert_eq!(root.verify_header_tag(&header, &longer), Err(Error::Tampered));
    for bit in 0..32 * 8 {
        let mut flipped = tag;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(root.verify_header_tag(&header, &flipped), Err(Error::Tampered));
    }
    for bit in 0..header.len() * 8 {
        let mut flipped = header;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(root.verify_header_tag(&flipped, &tag), Err(Error::Tampered));
    }
    let (_, stranger) = Envelope::create(&raw_key(), CIPHERS[0], CONTEXT, &mut seeded(6)).unwrap();
    assert_eq!(stranger.verify_header_tag(&header, &tag), Err(Error::Tampered));
}

#[test]
fn keys_of_other_lengths_are_refused_with_their_length() {
    for len in 0..=64 {
        let outcome = Key::raw(&vec![3; len]);
        if [16, 24, 32].contains(&len) {
            let key = outcome.unwrap();
            let envelope = made(&key, CIPHERS[0]);
            assert!(envelope.open(&key, CONTEXT).is_ok());
        } else {
            assert_eq!(refused(outcome, len), Error::KeyLength { found: len });
        }
    }
    for len in [0, PASSPHRASE_LEN_MAX + 1] {
        let error = refused(Key::passphrase(&vec![b'a'; len]), len);
        assert_eq!(error, Error::PassphraseLength { found: len });
    }
    assert!(Key::passphrase(&vec![b'a'; PASSPHRASE_LEN_MAX]).is_ok());
}

#[test]
fn a_source_that_fails_or_answers_with_zeros_gives_no_key() {
    let failing = |_: &mut [u8]| Err(Error::Entropy { reason: "the well is dry".to_owned() });
    let silent = |_: &mut [u8]| Ok(());
    for dry in [true, false] {
        let mut source = move |out: &mut [u8]| if dry { failing(out) } else { silent(out) };
        let error = refused(Envelope::create(&raw_key(), CIPHERS[0], b"", &mut source), dry);
        assert!(matches!(error, Error::Entropy { .. }), "{error}");
        let envelope = made(&raw_key(), CIPHERS[0]);
        let rewrapped = envelope.rewrap(&root(CIPHERS[0]), &raw_key(), b"", &mut source);
        let error = refused(rewrapped, dry);
        assert!(matches!(error, Error::Entropy { .. }), "{error}");
        assert!(matches!(EpochSalt::draw(&mut source), Err(Error::Entropy { .. })));
    }
    let salts = [0; 2].map(|_| *EpochSalt::draw(&mut OsEntropy).unwrap().bytes());
    assert_ne!(salts[0], salts[1]);
}

#[test]
fn the_default_costs_stand_in_the_envelope_and_open_it() {
    let key = Key::passphrase("words").unwrap();
    let envelope = Envelope::parse(&made(&key, CIPHERS[0]).to_bytes()).unwrap();
    let costs = envelope.costs().unwrap();
    assert_eq!((costs.t(), costs.m_kib(), costs.p()), (3, 65_536, 4));
    let other_costs = Key::passphrase_costing_exactly("words", cheap()).unwrap();
    assert!(envelope.open(&other_costs, CONTEXT).is_ok(), "the envelope's costs count");
}

#[test]
fn costs_below_the_minimum_are_taken_by_name_alone() {
    let (t, m_kib) = (KdfCosts::T_MIN, KdfCosts::M_KIB_MIN);
    assert_eq!((t, m_kib), (2, 19 << 10));
    for (t, m_kib, p) in [(t - 1, m_kib, 1), (t, m_kib - 1, 1), (16, 8, 1), (1, 1 << 20, 16)] {
        let costs = KdfCosts::new(t, m_kib, p).unwrap();
        let error = refused(Key::passphrase_costing("words", costs), costs);
        assert_eq!(error, Error::KdfTooCheap { t, m_kib, p });
        let exact = Key::passphrase_costing_exactly("words", costs).unwrap();
        assert_eq!(exact.costs(), Some(costs));
    }
    let least = KdfCosts::new(t, m_kib, 1).unwrap();
    assert_eq!(Key::passphrase_costing("words", least).unwrap().costs(), Some(least));
}

#[test]
fn an_envelope_costs_no_less_than_the_one_before_unless_lowered_by_name() {
    let costs = |(t, m_kib, p)| KdfCosts::new(t, m_kib, p).unwrap();
    let exactly = |asked| Key::passphrase_costing_exactly("words", costs(asked)).unwrap();
    let at_least = |asked| Key::passphrase_costing("words", costs(asked)).unwrap();
    let least = (KdfCosts::T_MIN, KdfCosts::M_KIB_MIN, 1);
    let dear = (3, 20 << 10, 2);
    let root = root(CIPHERS[0]);
    for (old, new, wanted) in [
        // Each parameter keeps the greater value.
        (exactly((5, 64, 3)), at_least(least), Some((5, KdfCosts::M_KIB_MIN, 3))),
        (at_least(dear), at_least(least), Some(dear)),
        (at_least(least), at_least(dear), Some(dear)),
        // Exact costs can be lower.
        (at_least(dear), exactly((1, 8, 1)), Some((1, 8, 1))),
        // A raw key has no costs to keep.
        (raw_key(), at_least(least), Some(least)),
        (at_least(dear), raw_key(), None),
    ] {
        let old = made(&old, CIPHERS[0]);
        let renewed = old.renew(&new, CIPHERS[1], CONTEXT, &mut seeded(2)).unwrap().0;
        let rewrapped = old.rewrap(&root, &new, CONTEXT, &mut seeded(2)).unwrap();
        for envelope in [renewed, rewrapped] {
            assert_eq!(envelope.costs(), wanted.map(costs));
            assert!(open(&envelope.to_bytes(), &new, CONTEXT).is_ok());
        }
    }
    // The greater values together exceed the caps, so nothing is derived.
    let long = made(&exactly((16, 64, 1)), CIPHERS[0]);
    let wide = at_least((2, 1 << 20, 1));
    let error = refused(long.renew(&wide, CIPHERS[0], CONTEXT, &mut seeded(2)), 0);
    assert_eq!(error, Error::KdfTooExpensive { t: 16, m_kib: 1 << 20, p: 1 });
}

#[test]
fn a_part_behind_the_end_is_an_error_and_changes_nothing() {
    let root = root(CIPHERS[0]);
    let sealer = sealer(&root, 7);
    let mut buf = vec![1, 2, 3];
    let range = Error::BufferRange { from: 4, len: 3 };
    let sealing = sealer.seal(sealer.next_nonce().unwrap(), b"", &mut buf, 4);
    assert_eq!(sealing, Err(range.clone()));
    let opening = root.opener(sealer.salt(), INFO).open(1, b"", &mut buf, 4);
    assert_eq!(opening, Err(range));
    assert_eq!(buf, [1, 2, 3]);
    let (_, empty) = seal(&sealer, b"", b"");
    assert_eq!(empty.len(), TAG_LEN, "an empty text has a tag");
}

fn made(key: &Key, cipher: codex_crypto::Cipher) -> Envelope {
    Envelope::create(key, cipher, CONTEXT, &mut seeded(1)).unwrap().0
}

fn work_kib(costs: KdfCosts) -> u64 {
    u64::from(costs.t()) * u64::from(costs.m_kib())
}

//! Round trips, every flipped bit, and the order of the checks.

use std::sync::Arc;

use super::*;
use crate::error::Error;
use crate::seal::Keys;
use crate::toy_seal::ToyKeys;
use crate::vfs::{Entropy, SeededEntropy, Vfs};

fn vfs() -> Vfs {
    Vfs::mem(1)
}

fn path() -> &'static Path {
    Path::new("app.db")
}

fn plain(kind: FileKind, form: Form) -> Header {
    Header { generation: 1, ..Header::new(&vfs(), path(), kind, form).unwrap() }
}

fn parse(bytes: &[u8]) -> Result<Found> {
    Found::parse(bytes, path())
}

fn keys(passphrase: &str) -> Arc<dyn Keys> {
    ToyKeys::new(passphrase, Arc::new(SeededEntropy::new(2)) as Arc<dyn Entropy>)
}

fn sealed() -> (Header, [u8; HEADER_LEN]) {
    let mut header = plain(FileKind::Log, Form::Ledger);
    let (envelope, seal) = keys("right").create(&header.store_id, None, None).unwrap();
    header.cipher = seal.cipher_id();
    header.root_id = seal.root_id();
    header.envelope = Some(envelope);
    let bytes = header.encode(Some(&*seal));
    (header, bytes)
}

/// Returns the header with other bytes at `at` and a matching checksum.
fn with(bytes: &[u8], at: usize, to: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + to.len()].copy_from_slice(to);
    let crc = crc32c::crc32c(&bytes[..508]);
    bytes[508..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

#[test]
fn a_header_comes_back_as_it_was_written() {
    let kinds = [
        (FileKind::Image, Form::Wal),
        (FileKind::Image, Form::Snapshot),
        (FileKind::Log, Form::Wal),
        (FileKind::Log, Form::Ledger),
    ];
    for (kind, form) in kinds {
        let mut header = Header { base_seq: 7, ..plain(kind, form) };
        if header.is_ledger() {
            (header.oldest_seq, header.named_seq) = (8, 9);
        }
        let bytes = header.encode(None);
        assert_eq!(bytes.len(), HEADER_LEN);
        let found = parse(&bytes).unwrap();
        assert_eq!(found.header, header);
        let (opened, seal) = found.unlock(None, path()).unwrap();
        assert_eq!((opened, seal.is_none()), (header, true));
    }
    let (header, bytes) = sealed();
    let (opened, _) = parse(&bytes).unwrap().unlock(Some(&*keys("right")), path()).unwrap();
    assert_eq!(opened, header);
}

#[test]
fn the_digest_of_an_encrypted_store_is_masked_for_each_file_and_each_root_key() {
    let (header, bytes) = sealed();
    let read = |bytes: &[u8]| <[u8; 32]>::try_from(&bytes[96..128]).unwrap();
    let seal = keys("right").unlock(&header.store_id, header.envelope.as_ref().unwrap()).unwrap();
    let (_, other) = ToyKeys::new("right", Arc::new(SeededEntropy::new(3)) as Arc<dyn Entropy>)
        .create(&header.store_id, None, None)
        .unwrap();
    let stored = read(&bytes);
    let pad: Vec<u8> = stored.iter().zip(header.base_digest).map(|(a, b)| a ^ b).collect();
    assert_eq!(pad, seal.digest_pad(&header.file_id));
    let moved = Header { file_id: [7; 16], ..header.clone() };
    assert_ne!(read(&moved.encode(Some(&*seal))), stored);
    assert_ne!(read(&header.encode(Some(&*other))), stored);
    for at in [header.base_digest, stored, pad.try_into().unwrap()] {
        assert_ne!(at, [0; 32]);
    }
}

#[test]
fn the_state_of_an_encrypted_image_can_be_told_without_the_key() {
    let mut image = plain(FileKind::Image, Form::Wal);
    assert_eq!(parse(&image.encode(None)).unwrap().state(), image.base_digest);
    let (envelope, seal) = keys("right").create(&image.store_id, None, None).unwrap();
    (image.cipher, image.root_id) = (seal.cipher_id(), seal.root_id());
    image.envelope = Some(envelope);
    let state = |image: &Header| parse(&image.encode(Some(&*seal))).unwrap().state().to_vec();
    let first = state(&image);
    assert_ne!(first, [0; 8]);
    let again = Header { file_id: [7; 16], created_us: 1, slot_counter: 9, ..image.clone() };
    assert_eq!(state(&again), first, "the same history in another file");
    let fork = Header { base_digest: [7; 32], ..image };
    assert_ne!(state(&fork), first);
}

#[test]
fn the_fields_stand_where_the_format_says() {
    let header = Header {
        base_seq: 0x0102_0304,
        base_chain: 0x1122_3344_5566_7788,
        neighbour: [9; 16],
        ..plain(FileKind::Log, Form::Wal)
    };
    let bytes = header.encode(None);
    assert_eq!(bytes[..13], [0x89, 0x43, 0x44, 0x58, 0x44, 0x42, 13, 10, 1, 0, 2, 1, 0]);
    assert_eq!(bytes[16..32], header.store_id);
    assert_eq!(bytes[32..48], header.file_id);
    assert_eq!(bytes[48..56], 1_u64.to_le_bytes());
    assert_eq!(bytes[56..64], [4, 3, 2, 1, 0, 0, 0, 0]);
    assert_eq!(bytes[64..72], header.created_us.to_le_bytes());
    assert_eq!(bytes[80..88], 1_u64.to_le_bytes());
    assert_eq!(bytes[88..96], [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
    assert_eq!(bytes[96..128], header.base_digest);
    assert_eq!(bytes[128..144], [9; 16]);
    let (header, bytes) = sealed();
    assert_eq!(bytes[144..160], header.root_id);
    assert_eq!(bytes[224..480], header.envelope.unwrap()[..]);
    let ledger = Header { oldest_seq: 3, named_seq: 5, ..plain(FileKind::Log, Form::Ledger) };
    let bytes = ledger.encode(None);
    assert_eq!((bytes[72], bytes[208]), (5, 3));
}

#[test]
fn every_flipped_bit_of_a_header_is_an_error() {
    for bytes in [plain(FileKind::Image, Form::Wal).encode(None), sealed().1] {
        for bit in 0..HEADER_LEN * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refused = parse(&flipped).unwrap_err();
            let expected = match bit / 64 {
                0 => matches!(refused, Error::NotADatabase { .. }),
                _ if (64..80).contains(&bit) => {
                    matches!(refused, Error::NewerVersion { .. } | Error::Damaged { .. })
                }
                _ => matches!(refused, Error::Damaged { offset: 0, .. }),
            };
            assert!(expected, "bit {bit}: {refused}");
        }
    }
}

#[test]
fn a_header_cut_short_is_named_for_what_is_left_of_it() {
    let bytes = plain(FileKind::Log, Form::Ledger).encode(None);
    assert!(matches!(parse(&[]), Err(Error::EmptyFile { .. })));
    for len in 1..8 {
        assert!(matches!(parse(&bytes[..len]), Err(Error::NotADatabase { .. })), "{len}");
    }
    for len in 8..HEADER_LEN {
        assert!(matches!(parse(&bytes[..len]), Err(Error::Damaged { .. })), "{len}");
    }
}

#[test]
fn fields_out_of_range_are_damage_even_under_a_right_checksum() {
    let ledger = plain(FileKind::Log, Form::Ledger).encode(None);
    let cases: [(usize, &[u8]); 17] = [
        (8, &[0, 0]),
        (10, &[0]),
        (10, &[1]),
        (10, &[3]),
        (11, &[0]),
        (11, &[2]),
        (11, &[4]),
        (12, &[4]),
        (15, &[1]),
        (15, &[1]),
        (48, &[0; 8]),
        (56, &[1]),
        (208, &[1]),
        (80, &[0; 8]),
        (128, &[1]),
        (160, &[1]),
        (208, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
    ];
    for (at, to) in cases {
        let refused = parse(&with(&ledger, at, to));
        assert!(matches!(refused, Err(Error::Damaged { .. })), "{at} {to:?}: {refused:?}");
    }
    for at in [144, 192, 224, 300, 480] {
        assert!(parse(&with(&ledger, at, &[1])).is_err(), "{at} belongs to encrypted stores");
    }
    let image = plain(FileKind::Image, Form::Wal).encode(None);
    assert!(parse(&with(&image, 88, &[1])).is_err(), "a whole image has no chain");
    assert!(parse(&with(&image, 192, &[1])).is_err());
    let newer = parse(&with(&ledger, 8, &[2, 0]));
    assert!(matches!(newer, Err(Error::NewerVersion { found: 2, supported: 1, .. })));
}

#[test]
fn what_a_newer_version_may_set_is_named_and_no_damage() {
    for bytes in [plain(FileKind::Image, Form::Wal).encode(None), sealed().1] {
        let cases: [(usize, u8, &str); 5] = [
            (12, 3, "AES-256-GCM-SIV"),
            (13, 1, "padded lengths"),
            (13, 3, "flag"),
            (13, 0x80, "flag"),
            (14, 2, "compression"),
        ];
        for (at, to, named) in cases {
            let refused = parse(&with(&bytes, at, &[to])).unwrap_err();
            let Error::Unsupported { what, .. } = refused else { panic!("{at} {to}: {refused}") };
            assert!(what.contains(named), "{at} {to}: {what}");
            // With a wrong checksum the error is only damage.
            let mut flipped = bytes;
            flipped[at] = to;
            assert!(matches!(parse(&flipped), Err(Error::Damaged { .. })));
        }
    }
}

#[test]
fn the_key_is_checked_before_the_tag_and_both_are() {
    let (_, bytes) = sealed();
    let found = parse(&bytes).unwrap();
    assert!(found.clone().unlock(Some(&*keys("right")), path()).unwrap().1.is_some());
    assert!(matches!(found.clone().unlock(None, path()), Err(Error::KeyRequired { .. })));
    let wrong = found.clone().unlock(Some(&*keys("wrong")), path());
    assert!(matches!(wrong, Err(Error::WrongKey { .. })));
    for at in [10, 32, 48, 56, 64, 88, 96, 127, 144, 192, 300, 480] {
        let to = if at == 10 { 2 } else { bytes[at] ^ 1 };
        let forged = with(&bytes, at, &[to]);
        if forged == bytes {
            continue;
        }
        let Ok(found) = parse(&forged) else { continue };
        let refused = found.clone().unlock(Some(&*keys("right")), path());
        assert!(matches!(refused, Err(Error::Tampered { .. })), "{at}: {refused:?}");
    }
    let plain = parse(&plain(FileKind::Log, Form::Ledger).encode(None)).unwrap();
    let refused = plain.clone().unlock(Some(&*keys("right")), path());
    assert!(matches!(refused, Err(Error::NotEncrypted { .. })));
}

#[test]
fn a_plain_header_does_not_pass_in_an_encrypted_store() {
    let (header, bytes) = sealed();
    let envelope = header.envelope.unwrap();
    let seal = keys("right").unlock(&header.store_id, &envelope).unwrap();
    let plain = parse(&plain(FileKind::Log, Form::Ledger).encode(None)).unwrap();
    assert!(matches!(plain.authenticate(Some(&*seal), path()), Err(Error::Tampered { .. })));
    let sealed = parse(&bytes).unwrap();
    assert!(matches!(sealed.authenticate(None, path()), Err(Error::Tampered { .. })));
}

#[test]
fn the_last_slot_counter_takes_no_other_key() {
    let (header, _) = sealed();
    let seal = keys("right").unlock(&header.store_id, header.envelope.as_ref().unwrap()).unwrap();
    for (slot_counter, may) in [(NUMBER_MAX - 1, true), (NUMBER_MAX, false)] {
        let header = Header { slot_counter, ..header.clone() };
        assert!(parse(&header.encode(Some(&*seal))).is_ok(), "{slot_counter}");
        match header.rewrapped(Some(&*seal), &*keys("new"), path()) {
            Ok(next) => assert!(may && parse(&next.encode(Some(&*seal))).is_ok()),
            Err(error) => assert!(!may && matches!(error, Error::Damaged { .. }), "{error}"),
        }
    }
}

//! Tests of the readers, without a store.

use std::collections::BTreeMap;
use std::io::Write as _;

use aes_gcm::aead::Aead as _;
use aes_gcm::{Aes128Gcm, KeyInit as _, Nonce};
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::layers::{Budget, Cipher, Compression, unpack};
use super::ledger::{Frames, Version};
use super::source::{Contents, Kind, kind_in_words, read};
use super::{Change, Fault};

/// The samples, and whether each is encrypted.
const SAMPLES: [(&str, &[u8]); 11] = [
    ("led.enc", include_bytes!("../../tests/data/go/led.enc")),
    ("led.gzip", include_bytes!("../../tests/data/go/led.gzip")),
    ("led.plain", include_bytes!("../../tests/data/go/led.plain")),
    ("led.snappy.enc", include_bytes!("../../tests/data/go/led.snappy.enc")),
    ("snap.enc", include_bytes!("../../tests/data/go/snap.enc")),
    ("snap.gzip0", include_bytes!("../../tests/data/go/snap.gzip0")),
    ("snap.gzip6", include_bytes!("../../tests/data/go/snap.gzip6")),
    ("snap.plain", include_bytes!("../../tests/data/go/snap.plain")),
    ("snap.snappy", include_bytes!("../../tests/data/go/snap.snappy")),
    ("snap.zstd", include_bytes!("../../tests/data/go/snap.zstd")),
    ("snap.zstd.enc", include_bytes!("../../tests/data/go/snap.zstd.enc")),
];

fn sample(name: &str) -> &'static [u8] {
    SAMPLES.iter().find(|(it, _)| *it == name).unwrap().1
}

fn cipher_of(name: &str) -> Option<Cipher> {
    is_encrypted(name).then(|| Cipher::new(&[7; 32]).unwrap())
}

fn is_encrypted(name: &str) -> bool {
    name.strip_suffix(".enc").is_some()
}

/// Returns the contents of an intact file.
fn intact(bytes: &[u8], cipher: Option<&Cipher>) -> Contents {
    read(bytes, cipher, false).unwrap()
}

/// Returns the offsets at which the frames of an intact ledger begin.
fn frames_of(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut starts) = (0, Vec::new());
    while at < bytes.len() {
        starts.push(at);
        at += 4 + usize::try_from(length_at(bytes, at)).unwrap();
    }
    starts
}

#[expect(clippy::big_endian_bytes, reason = "the Go program writes lengths so")]
fn length_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

#[expect(clippy::big_endian_bytes, reason = "the Go program writes lengths so")]
fn length(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap().to_be_bytes()
}

/// Returns a frame of version 2.
fn frame(text: &str) -> Vec<u8> {
    let mut frame = length(32 + text.len()).to_vec();
    frame.extend_from_slice(&Sha256::digest(text));
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// Returns the ledger without its hashes, as version 1 has it.
fn version_one(bytes: &[u8]) -> Vec<u8> {
    let mut old = Vec::new();
    for at in frames_of(bytes) {
        let end = at + 4 + usize::try_from(length_at(bytes, at)).unwrap();
        old.extend_from_slice(&length(end - at - 36));
        old.extend_from_slice(&bytes[at + 36..end]);
    }
    old
}

fn set(key: &str, value: &str) -> Change {
    Change::Set { key: key.to_owned(), value: value.to_owned() }
}

/// Returns the values after all operations.
fn state(changes: &[Change]) -> BTreeMap<&str, &str> {
    let mut state = BTreeMap::new();
    for change in changes {
        match change {
            Change::Set { key, value } => _ = state.insert(key.as_str(), value.as_str()),
            Change::Remove { key } => _ = state.remove(key.as_str()),
            Change::Clear => state.clear(),
        }
    }
    state
}

#[test]
fn each_sample_has_its_contents() {
    let text = r#"{"a":1,"h":"x\u003cy\u003e\u0026z\u2028é"}"#;
    let usual = BTreeMap::from([("", "5"), ("a", "\"v\""), ("b<k>", text), ("n", "null")]);
    for (name, bytes) in SAMPLES {
        let cipher = cipher_of(name);
        let contents = intact(bytes, cipher.as_ref());
        let state = state(&contents.changes);
        match name {
            "led.plain" => assert_eq!(state, BTreeMap::from([("after", "\"AQID\"")])),
            _ => assert_eq!(state, usual, "{name}"),
        }
        let ledger = name.starts_with("led").then_some(Version::Two);
        let compression = match name {
            _ if name.contains("gzip") => Compression::Gzip,
            _ if name.contains("zstd") => Compression::Zstd,
            _ if name.contains("snappy") => Compression::Snappy,
            _ => Compression::None,
        };
        let is_encrypted = cipher.is_some();
        assert_eq!(contents.kind, Kind { ledger, compression, is_encrypted }, "{name}");
    }
}

#[test]
fn a_ledger_of_version_one_is_told_apart() {
    for name in ["led.plain", "led.gzip", "led.enc", "led.snappy.enc"] {
        let (old, cipher) = (version_one(sample(name)), cipher_of(name));
        let contents = intact(&old, cipher.as_ref());
        assert_eq!(contents.kind.ledger, Some(Version::One), "{name}");
        assert_eq!(contents.changes, intact(sample(name), cipher.as_ref()).changes, "{name}");
    }
}

#[test]
fn a_wrong_or_missing_key_is_an_error() {
    let wrong = Cipher::new(&[8; 32]).unwrap();
    for (name, bytes) in SAMPLES {
        for salvage in [false, true] {
            let read = |cipher| read(bytes, cipher, salvage).map(|contents| contents.kind);
            if is_encrypted(name) {
                assert_eq!(read(None), Err(Fault::Unreadable), "{name}");
                assert_eq!(read(Some(&wrong)), Err(Fault::Unreadable), "{name}");
            } else {
                assert_eq!(read(Some(&wrong)), Err(Fault::NotEncrypted), "{name}");
            }
        }
    }
}

#[test]
fn the_length_of_the_key_chooses_the_cipher() {
    let text = sample("snap.plain");
    // The nonce looks like the beginning of a file that is compressed and not encrypted.
    let nonce = [1, 6, 0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF];
    let sealed = |aead: &dyn Fn(&Nonce<_>) -> Vec<u8>| [&nonce[..], &aead(&nonce.into())].concat();
    let short = sealed(&|nonce| Aes128Gcm::new(&[1; 16].into()).encrypt(nonce, text).unwrap());
    let medium = sealed(&|nonce| {
        type Aes192Gcm = aes_gcm::AesGcm<aes_gcm::aes::Aes192, aes_gcm::aead::consts::U12>;
        Aes192Gcm::new(&[2; 24].into()).encrypt(nonce, text).unwrap()
    });
    for (bytes, key) in [(short, vec![1; 16]), (medium, vec![2; 24])] {
        let contents = intact(&bytes, Cipher::new(&key).as_ref());
        assert_eq!(contents.changes, intact(text, None).changes);
    }
    assert!([0, 15, 17, 31, 33, 64].iter().all(|len| Cipher::new(&vec![1; *len]).is_none()));
}

#[test]
fn older_snapshots_are_the_map_alone() {
    // The second one has keys with the names of the members of newer files.
    for (text, key) in [
        (r#"{"a": "MQ==", "gone": null}"#, "a"),
        (r#"{"checksum": "MQ==", "data": "Mg=="}"#, "checksum"),
    ] {
        let contents = intact(text.as_bytes(), None);
        assert_eq!(state(&contents.changes).get(key), Some(&"1"), "{text}");
    }
    let contents = intact(br#"{"a": "MQ==", "gone": null}"#, None);
    assert_eq!(contents.without_value, ["gone"]);
    for text in [r#"{"checksum":"","data":{"a":"MQ=="}}"#, r#"{"a":"M"}"#, r#"{"a":1}"#, "[]"] {
        assert!(read(text.as_bytes(), None, false).is_err(), "{text}");
    }
}

#[test]
fn names_of_members_match_without_case_and_others_are_left_out() {
    let text = String::from_utf8(sample("snap.plain").to_vec()).unwrap();
    let text = text.replace("checksum", "CheckSum").replace("\"data\"", "\"x\": [1], \"DATA\"");
    assert_eq!(intact(text.as_bytes(), None).changes, intact(sample("snap.plain"), None).changes);
    let frame = frame(r#"{"OP":0,"more":{},"Key":"a","VALUE":null}"#);
    assert_eq!(intact(&frame, None).changes, [set("a", "null")]);
}

#[test]
fn a_snapshot_with_another_checksum_is_read_only_to_salvage_it() {
    let text = String::from_utf8(sample("snap.plain").to_vec()).unwrap();
    let text = text.replace("\"InYi\"", "\"Inci\"");
    let why = "its checksum does not match its entries".to_owned();
    assert_eq!(
        read(text.as_bytes(), None, false).map(|contents| contents.kind),
        Err(Fault::Damaged(why))
    );
    let contents = read(text.as_bytes(), None, true).unwrap();
    assert!(contents.is_unverified);
    assert_eq!(state(&contents.changes)["a"], "\"w\"");
}

#[test]
fn a_wrong_key_is_told_also_if_the_nonce_looks_like_a_stream() {
    let mut bytes = sample("snap.enc").to_vec();
    bytes[..4].copy_from_slice(&[1, 9, 0x1F, 0x8B]);
    let read = |salvage| read(&bytes, cipher_of("snap.enc").as_ref(), salvage).map(|_| ());
    assert_eq!([read(false), read(true)], [Err(Fault::Unreadable), Err(Fault::Unreadable)]);
}

#[test]
fn every_frame_behind_damage_is_salvaged() {
    for name in ["led.plain", "led.gzip", "led.enc", "led.snappy.enc"] {
        for old in [false, true] {
            let mut bytes = sample(name).to_vec();
            if old {
                bytes = version_one(&bytes);
            }
            let cipher = cipher_of(name);
            let all = intact(&bytes, cipher.as_ref()).changes;
            let starts = frames_of(&bytes);
            for (lost, at) in starts.iter().enumerate() {
                let end = starts.get(lost + 1).copied().unwrap_or(bytes.len());
                // A partial frame and zeros, as failed writes leave them.
                let mut damaged = bytes[..end - 5].to_vec();
                damaged.extend_from_slice(&[0; 100]);
                damaged.extend_from_slice(&bytes[end..]);
                let strict = read(&damaged, cipher.as_ref(), false).map(|contents| contents.kind);
                assert!(strict.is_err(), "{name} {lost}");
                let contents = read(&damaged, cipher.as_ref(), true).unwrap();
                let mut left = all.clone();
                left.remove(lost);
                assert_eq!(contents.changes, left, "{name} {lost}");
                assert_eq!(contents.behind_damage, all.len() - 1 - lost, "{name} {lost}");
                assert_eq!(contents.lost, vec![*at..end + 95], "{name} {lost}");
            }
        }
    }
}

#[test]
fn a_long_frame_between_short_ones_is_found() {
    let long = format!(r#"{{"op":0,"key":"long","value":"{}"}}"#, "x".repeat(200_000));
    let short = |key: &str| frame(&format!(r#"{{"op":0,"key":"{key}","value":1}}"#));
    let mut bytes = short("a");
    bytes.extend_from_slice(&[0; 7]);
    bytes.extend(frame(&long));
    bytes.extend(short("b"));
    let contents = read(&bytes, None, true).unwrap();
    let keys: Vec<&str> = state(&contents.changes).into_keys().collect();
    assert_eq!((keys, contents.lost.len()), (vec!["a", "b", "long"], 1));
    let bare = Frames { bytes: &bytes, cipher: None, version: Version::Two };
    // The search gives up rather than take forever.
    assert_eq!(bare.search(1, &mut Budget::bytes(1000)), Err(Fault::TooLarge));
}

#[test]
fn a_bomb_is_an_error() {
    let zeros = vec![b' '; 1 << 20];
    let mut gzip = vec![1, 9];
    let mut encoder = GzEncoder::new(&mut gzip, flate2::Compression::best());
    encoder.write_all(&zeros).unwrap();
    encoder.finish().unwrap();
    // A frame without a checksum, whose only block repeats one byte.
    let mut zstd = vec![2, 3, 0x28, 0xB5, 0x2F, 0xFD, 0, 88];
    for block in 0..8_u8 {
        let last = u32::from(block == 7);
        zstd.extend_from_slice(&(last | 1 << 1 | (128 << 10) << 3).to_le_bytes()[..3]);
        zstd.push(b' ');
    }
    let mut snappy = vec![3, 0];
    snappy.extend(snap::raw::Encoder::new().compress_vec(&zeros).unwrap());
    for packed in [&gzip, &zstd, &snappy] {
        let unpack = |bytes| unpack(packed, &mut Budget::bytes(bytes)).map(|found| found.is_some());
        assert_eq!(unpack(1 << 20), Ok(true), "{:?}", &packed[..8]);
        assert_eq!(unpack((1 << 20) - 1), Err(Fault::TooLarge), "{:?}", &packed[..8]);
    }
    // The declared length alone allocates nothing.
    let declared = [3, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 0];
    let why = "the snappy stream is not intact: it is shorter than the text that it declares";
    assert_eq!(
        unpack(&declared, &mut Budget::bytes(u64::MAX)).map(|found| found.is_some()),
        Err(Fault::Damaged(why.to_owned()))
    );
}

#[test]
fn the_checksums_of_the_streams_are_compared() {
    // The last bytes are the checksum, or the length, that the compressed stream names.
    for (name, from_end) in [("snap.zstd", 1), ("snap.gzip6", 5), ("snap.gzip6", 1)] {
        let mut bytes = sample(name).to_vec();
        let at = bytes.len() - from_end;
        bytes[at] ^= 1;
        let found = read(&bytes, None, false).map(|contents| contents.kind);
        let compression = name.split('.').next_back().unwrap().trim_end_matches('6');
        let text = format!("the {compression} stream is not intact");
        assert!(matches!(found, Err(Fault::Damaged(why)) if why.starts_with(&text)), "{name}");
    }
}

#[test]
fn a_changed_or_cut_sample_is_an_error_or_has_the_same_contents() {
    for (name, bytes) in SAMPLES {
        let cipher = cipher_of(name);
        let all = intact(bytes, cipher.as_ref()).changes;
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1 << (at % 8);
            if let Ok(contents) = read(&changed, cipher.as_ref(), false) {
                assert_eq!(contents.changes, all, "{name}, byte {at}");
            }
            let salvaged = read(&changed, cipher.as_ref(), true);
            if name.starts_with("led") {
                // One frame is lost, and no other value takes its place.
                let left = salvaged.unwrap().changes;
                assert_eq!(left.len(), all.len() - 1, "{name}, byte {at}");
                assert!(left.iter().all(|change| all.contains(change)), "{name}, byte {at}");
            }
            let cut = &bytes[..at];
            match read(cut, cipher.as_ref(), false) {
                // A ledger that is cut between two frames is a shorter ledger.
                Ok(contents) if name.starts_with("led") => {
                    assert!(frames_of(bytes).contains(&at), "{name}, {at} bytes");
                    assert_eq!(contents.changes, all[..contents.changes.len()]);
                }
                Ok(_) => panic!("{name}, {at} bytes"),
                Err(_) => {}
            }
            let _ = read(cut, cipher.as_ref(), true);
        }
    }
}

#[test]
fn files_are_known_without_a_key_where_they_can_be() {
    let kind = |name| kind_in_words(sample(name));
    let of = |text: &str| Some(format!("{text} of the Go program CodexDB"));
    assert_eq!(kind("snap.plain"), of("a snapshot"));
    assert_eq!(kind("snap.zstd").unwrap(), of("a snapshot").unwrap() + ", zstd");
    assert_eq!(kind("led.gzip").unwrap(), of("a ledger").unwrap() + ", version 2, gzip");
    assert_eq!(kind("led.enc"), of("perhaps an encrypted ledger"));
    assert_eq!(kind("snap.enc"), None);
    assert_eq!(kind_in_words(b"{\"name\": \"a package\"}"), None);
    assert_eq!(kind_in_words(b""), None);
}

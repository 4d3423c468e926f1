//! Tests that no function of the plaintext is readable without a key. A short secret cannot be
//! found by comparing all candidates with the plain bytes, and stores that differ in one value
//! differ only in ciphertext, checksums of it, and values that depend on a key.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use codex_core::crypto::Key;
use codex_core::vfs::Dir;
use codex_core::vfs::fault::{FaultDir, Survivors};

use codex_core::{BackupPolicy, Backups, Conversion, Form, Store};
use sha2::{Digest, Sha256};

use super::{FORMS, NAME, options, passphrase, raw};

/// The number of PINs.
const PINS: u32 = 2_000;
const PIN: u32 = 1711;
const PIN_KEY: &[u8] = b"pin";

/// The bytes of all files at several moments.
type Files = BTreeMap<String, Vec<u8>>;

fn pin(n: u32) -> Vec<u8> {
    format!("{n:04}").into_bytes()
}

fn collect(disk: &FaultDir, at: &str, files: &mut Files) {
    let disk = disk.reboot(Survivors::Everything);
    for name in disk.list().unwrap() {
        files.insert(format!("{name} {at}"), disk.peek(&name).unwrap());
    }
}

/// Makes a store in which the first commit sets the PIN, between two backups, and then makes all
/// operations that write its files again. Collects every file after each step.
fn story(form: Form, key: Option<fn() -> Key>, value: &[u8]) -> Files {
    let disk = FaultDir::new();
    let (vfs, mut files) = (disk.vfs(1), Files::new());
    let open = |form, key: Option<fn() -> Key>| -> Store {
        let options = options(form, key.map(|key| key())).backups(BackupPolicy::keep(9));
        options.open_in(&vfs, NAME).unwrap()
    };
    let store = open(form, key);
    store.back_up().unwrap();
    collect(&disk, "before", &mut files);
    store.set_bytes(PIN_KEY, value).unwrap();
    collect(&disk, "after", &mut files);
    store.back_up().unwrap();
    collect(&disk, "backed up", &mut files);
    store.checkpoint().unwrap();
    collect(&disk, "after a checkpoint", &mut files);
    if key.is_some() {
        store.change_key(raw()).unwrap();
        collect(&disk, "under another key", &mut files);
        store.rekey(passphrase()).unwrap();
        collect(&disk, "after a rekey", &mut files);
    }
    store.back_up().unwrap();
    store.close().unwrap();
    drop(store);
    collect(&disk, "closed", &mut files);
    for to in FORMS.into_iter().filter(|&to| to != form).chain([form]) {
        let conversion = Conversion::new().form(to);
        let conversion = match key {
            Some(key) => conversion.key(key()).encrypt(key()),
            None => conversion,
        };
        conversion.convert_in(&vfs, NAME).unwrap();
        collect(&disk, &format!("converted to {to}"), &mut files);
        let store = open(to, key);
        store.back_up().unwrap();
        store.close().unwrap();
        drop(store);
        collect(&disk, &format!("opened as {to}"), &mut files);
    }
    {
        let backups = Backups::of_in(&vfs, NAME);
        let backups = if let Some(key) = key { backups.key(key()) } else { backups };
        backups.restore(1).unwrap();
        collect(&disk, "restored", &mut files);
    }
    files
}

/// Returns the digests of a history whose first commit, at `time_us`, sets the PIN: of a Wal or a
/// Snapshot, and of a ledger.
fn digests(before: &[u8], time_us: i64, pin: &[u8]) -> [[u8; 32]; 2] {
    let mut record = vec![1, 0];
    record.extend(u16::try_from(PIN_KEY.len()).unwrap().to_le_bytes());
    record.extend(u32::try_from(pin.len() + 1).unwrap().to_le_bytes());
    record.extend([PIN_KEY, &[0], pin].concat());
    let len = u32::try_from(record.len()).unwrap().to_le_bytes();
    let one = &1_u32.to_le_bytes()[..];
    let seq = &1_u64.to_le_bytes()[..];
    let image = [b"codexdb history 1", before, seq, one, one, &len, &record].concat();
    let ledger = [b"codexdb ledger 1", before, seq, &time_us.to_le_bytes(), one, &record].concat();
    [image, ledger].map(|bytes| Sha256::digest(bytes).into())
}

/// Tries all PINs, with every 32 bytes of a header as the earlier digest, and searches all of the
/// bytes for the first 8 bytes of the later digest.
fn attack(files: &Files, everywhere: bool) -> Option<u32> {
    let (mut seen, mut times, mut before) = (HashSet::new(), HashSet::new(), HashSet::new());
    for bytes in files.values().filter(|bytes| bytes.len() >= 512) {
        times.insert(i64::from_le_bytes(bytes[64..72].try_into().unwrap()));
        let looks_random =
            |window: &&[u8]| window.chunks(4).filter(|part| part.contains(&0)).count() < 4;
        before.extend(bytes[..512].windows(32).step_by(8).filter(looks_random).map(<[u8]>::to_vec));
        let bytes = if everywhere { &bytes[..] } else { &bytes[..512] };
        seen.extend(bytes.windows(8).map(|window| <[u8; 8]>::try_from(window).unwrap()));
    }
    assert!(before.len() > 10 && seen.len() > 200, "{} and {}", before.len(), seen.len());
    assert_eq!(times.len(), 1, "the clock stands still, so the time of the commit is known");
    for n in 0..PINS {
        for before in &before {
            for digest in times.iter().flat_map(|&time| digests(before, time, &pin(n))) {
                if seen.contains(digest.first_chunk::<8>().unwrap()) {
                    return Some(n);
                }
            }
        }
    }
    None
}

#[test]
fn a_pin_is_not_found_by_trying_all_of_them_against_the_files() {
    for form in FORMS {
        let files = story(form, Some(passphrase), &pin(PIN));
        assert_eq!(attack(&files, true), None, "{form}");
    }
}

/// The control: the headers of a plain store reveal the PIN.
#[test]
fn the_search_for_a_pin_finds_it_in_the_headers_of_a_plain_store() {
    for form in FORMS {
        assert_eq!(attack(&story(form, None, &pin(PIN)), false), Some(PIN), "{form}");
    }
}

#[test]
fn stores_that_differ_in_one_value_differ_in_ciphertext_and_keyed_values_alone() {
    for form in FORMS {
        let [one, other] = [1, 2].map(|n| story(form, Some(passphrase), &pin(n)));
        let names: Vec<_> = one.keys().collect();
        assert_eq!(names, other.keys().collect::<Vec<_>>(), "{form}");
        let mut compared = 0;
        for (name, bytes) in &one {
            let other = &other[name];
            assert_eq!(bytes.len(), other.len(), "{form}, {name}");
            if bytes.len() < 512 || !bytes.starts_with(b"\x89CDXDB\r\n") {
                continue;
            }
            for at in clear(bytes) {
                assert_eq!(bytes[at.clone()], other[at.clone()], "{form}, {name} at {at:?}");
                compared += 1;
            }
        }
        assert!(compared > 300, "{form}: {compared}");
    }
}

/// Returns the plain bytes of a file that do not depend on the plaintext: all except the masked
/// digest, the checksums of ciphertext, and the tags.
fn clear(bytes: &[u8]) -> Vec<Range<usize>> {
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let is_segment = bytes[10..12] == [2, 1];
    let envelope = if is_segment { 252..480 } else { 224..480 };
    let mut ranges = vec![0..88, 128..192, 208..216, envelope];
    let mut at = 512;
    while at + 64 <= bytes.len() {
        let fields = |fields: &[Range<usize>]| -> Vec<Range<usize>> {
            fields.iter().map(|field| at + field.start..at + field.end).collect()
        };
        match &bytes[at..at + 4] {
            b"CDXF" => {
                let salted = bytes[at + 5] & 2 != 0;
                let salt = if salted { 64..96 } else { 0..0 };
                ranges.extend(fields(&[0..40, 48..56, salt]));
                at = (at + 64 + number(at + 52) + 1).next_multiple_of(64);
            }
            b"CDXB" | b"CDXS" => {
                ranges.extend(fields(&[0..16, 16..24]));
                at += 32 + number(at + 12);
            }
            b"CDXE" => {
                ranges.extend(fields(&[0..4, 8..64, 80..92]));
                at += 96;
            }
            // The second header of an image.
            b"\x89CDX" => {
                ranges.extend(fields(&[0..88, 128..192, 208..216, 224..480]));
                at += 512;
            }
            _ => at += 64,
        }
    }
    ranges
}

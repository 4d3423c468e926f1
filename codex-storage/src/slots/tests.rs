//! Every crash of a replacement is read, and every flipped bit of a slot is an error.

use super::*;
use crate::header::LEDGER_BODY;
use crate::toy_seal::ToyKeys;
use crate::vfs::{Dir, MemDir, Mode, Open, SeededEntropy, SimClock, Vfs};

fn path() -> &'static Path {
    Path::new("app.db")
}

fn keys(passphrase: &str) -> Arc<dyn Keys> {
    ToyKeys::new(passphrase, Arc::new(SeededEntropy::new(3)))
}

/// A header and its replacement, which `new` opens.
fn headers() -> (Vec<u8>, Vec<u8>) {
    let vfs = Vfs {
        dir: Arc::new(MemDir::new()),
        clock: Arc::new(SimClock::new()),
        entropy: Arc::new(SeededEntropy::new(1)),
    };
    let header = Header::new(&vfs, path(), FileKind::Log, Form::Ledger).unwrap();
    let header = Header { generation: 1, ..header };
    let sealed = |passphrase, slot_counter| {
        let (envelope, seal) = keys(passphrase).create(&header.store_id, None).unwrap();
        let header = Header {
            cipher: seal.cipher_id(),
            root_id: seal.root_id(),
            envelope: Some(envelope),
            slot_counter,
            ..header.clone()
        };
        header.encode(Some(&*seal))
    };
    let old = sealed("old", 1);
    // As the format says: the last byte of the checksum has two bits set.
    let new = (2..).map(|counter| sealed("new", counter));
    let new = new.into_iter().find(|bytes| bytes[511].count_ones() > 1).unwrap();
    (old, new)
}

fn file(first: &[u8], second: &[u8]) -> Arc<dyn File> {
    let file = MemDir::new().open("app.db", Open::CreateNew(Mode::Private)).unwrap();
    file.set_len(LEDGER_BODY).unwrap();
    file.write_all_at(first, 0).unwrap();
    file.write_all_at(second, SECOND_SLOT).unwrap();
    file
}

fn read(first: &[u8], second: &[u8]) -> Result<Slots> {
    Slots::read(&*file(first, second), path())
}

fn torn(before: &[u8], after: &[u8], at: usize) -> Vec<u8> {
    [&after[..at], &before[at..]].concat()
}

#[test]
fn every_crash_of_a_replacement_opens_with_the_old_or_the_new_key_and_settles() {
    let (old, new) = headers();
    let zero = vec![0; HEADER_LEN];
    let mut states = Vec::new();
    for at in 0..=HEADER_LEN {
        states.push((old.clone(), torn(&zero, &new, at)));
        states.push((torn(&old, &new, at), new.clone()));
        states.push((new.clone(), torn(&new, &zero, at)));
    }
    for (n, (first, second)) in states.iter().enumerate() {
        let opened: Vec<_> = ["old", "new"]
            .into_iter()
            .filter(|passphrase| {
                let mut slots = read(first, second).unwrap();
                slots.unlock(Some(&*keys(passphrase)), path()).is_ok()
            })
            .collect();
        assert!(!opened.is_empty(), "state {n} opens with neither key");
        for passphrase in opened {
            let file = file(first, second);
            let mut slots = Slots::read(&*file, path()).unwrap();
            slots.unlock(Some(&*keys(passphrase)), path()).unwrap();
            slots.settle(&*file, path()).unwrap();
            let mut slots = Slots::read(&*file, path()).unwrap();
            assert!(slots.is_settled, "state {n}");
            slots.check_gaps(&*file, path()).unwrap();
            slots.unlock(Some(&*keys(passphrase)), path()).unwrap();
        }
    }
}

#[test]
fn every_flipped_bit_of_either_slot_is_an_error() {
    let (old, new) = headers();
    for header in [old, new] {
        for bit in 0..HEADER_LEN * 8 {
            let mut flipped = header.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped, &[0; HEADER_LEN]).is_err(), "bit {bit} of the first slot");
            let mut flipped = vec![0; HEADER_LEN];
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refused = read(&header, &flipped);
            let offset_is_right =
                matches!(refused, Err(Error::Damaged { offset: SECOND_SLOT, .. }));
            assert!(offset_is_right, "bit {bit} of the second slot: {refused:?}");
        }
    }
}

#[test]
fn a_second_slot_that_replaces_something_else_is_damage() {
    let (old, new) = headers();
    let mut other = Found::parse(&new, path(), 0).unwrap().header;
    other.file_id = [9; 16];
    let seal = keys("new").unlock(&other.store_id, other.envelope.as_ref().unwrap()).unwrap();
    assert!(matches!(read(&old, &other.encode(Some(&*seal))), Err(Error::Damaged { .. })));
    assert!(matches!(read(&new, &old), Err(Error::Damaged { .. })), "its counter is lower");
    assert!(read(&old, &new).is_ok());
}

#[test]
fn every_byte_between_the_headers_and_the_frames_is_checked() {
    let (old, _) = headers();
    let file = file(&old, &[0; HEADER_LEN]);
    let slots = Slots::read(&*file, path()).unwrap();
    slots.check_gaps(&*file, path()).unwrap();
    for at in (512..4096).chain(4608..LEDGER_BODY) {
        file.write_all_at(&[4], at).unwrap();
        let refused = slots.check_gaps(&*file, path());
        assert!(matches!(refused, Err(Error::Damaged { .. })), "{at}");
        file.write_all_at(&[0], at).unwrap();
    }
}

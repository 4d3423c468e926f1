//! Every crash of a replacement is read, and every flipped bit of a slot is an error.

use super::*;
use crate::header::LEDGER_BODY;
use crate::sync::Mutex;
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
        let opened = openers(first, second);
        assert!(!opened.is_empty(), "state {n} opens with neither key");
        for passphrase in opened {
            settles(first, second, passphrase, &format!("state {n}"));
        }
    }
}

#[test]
fn every_crash_of_settling_opens_with_the_key_that_settled_and_settles_in_turn() {
    let (old, new) = headers();
    let zero = vec![0; HEADER_LEN];
    let mut states = vec![(old.clone(), new.clone()), (new.clone(), new.clone())];
    for at in [1, 8, 9, 79, 80, 81, 88, 223, 224, 300, 479, 508, 511] {
        states.push((old.clone(), torn(&zero, &new, at)));
        states.push((torn(&old, &new, at), new.clone()));
        states.push((new.clone(), torn(&new, &zero, at)));
    }
    for (first, second) in states {
        for passphrase in openers(&first, &second) {
            // Each write of the settling, cut anywhere: what was there before it, and after it.
            let steps = settles(&first, &second, passphrase, "a state of a replacement");
            let (mut one, mut two) = (first.clone(), second.clone());
            for (bytes, offset) in steps {
                let before = if offset == 0 { one.clone() } else { two.clone() };
                for at in 0..=HEADER_LEN {
                    let cut = torn(&before, &bytes, at);
                    let (one, two) = if offset == 0 { (&cut, &two) } else { (&one, &cut) };
                    settles(one, two, passphrase, &format!("cut at {at} of a write at {offset}"));
                }
                *(if offset == 0 { &mut one } else { &mut two }) = bytes;
            }
        }
    }
}

/// The passphrases that open the slots.
fn openers(first: &[u8], second: &[u8]) -> Vec<&'static str> {
    let opens = |passphrase: &&str| {
        let mut slots = read(first, second).unwrap();
        slots.unlock(Some(&*keys(passphrase)), path()).is_ok()
    };
    ["old", "new"].into_iter().filter(opens).collect()
}

/// Settles the slots under `passphrase`, which must open them before and after; what was written.
fn settles(first: &[u8], second: &[u8], passphrase: &str, what: &str) -> Vec<(Vec<u8>, u64)> {
    let file = Recorded { file: file(first, second), writes: Mutex::default() };
    let mut slots = Slots::read(&file, path()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let seal = slots.unlock(Some(&*keys(passphrase)), path());
    let seal = seal.unwrap_or_else(|e| panic!("{what}: {e}"));
    slots.settle(&file, path(), seal.as_deref()).unwrap();
    let mut slots = Slots::read(&file, path()).unwrap();
    assert_eq!(slots.unsettled, Unsettled::No, "{what}");
    slots.check_gaps(&file, path()).unwrap();
    slots.unlock(Some(&*keys(passphrase)), path()).unwrap_or_else(|e| panic!("{what}: {e}"));
    file.writes.lock().clone()
}

/// A file that keeps what is written to it.
#[derive(Debug)]
struct Recorded {
    file: Arc<dyn File>,
    writes: Mutex<Vec<(Vec<u8>, u64)>>,
}

impl File for Recorded {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> std::io::Result<()> {
        self.writes.lock().push((buf.to_vec(), offset));
        self.file.write_all_at(buf, offset)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> std::io::Result<()> {
        self.file.allocate(offset, len)
    }

    fn sync(&self) -> std::io::Result<()> {
        self.file.sync()
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

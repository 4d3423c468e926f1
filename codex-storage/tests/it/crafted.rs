//! Files that were made on purpose: the cost of reading them, and numbers at their limits.

use std::sync::Arc;

use crate::common::format::{TAIL_LEN, put_frame, resum_footer, resum_header};
use crate::common::store::Store;
use crate::common::{Bed, NAME, bytes, files, mem_with, put};
use codex_storage::storage::Form;
use codex_storage::sync::atomic::{AtomicU64, Ordering};
use codex_storage::vfs::{CallKind, Mode, Observed, Open, Vfs};
use codex_storage::{Access, Conversion, Error};

/// Returns a plain ledger without commits, in service.
fn blank() -> (Bed, Vec<u8>) {
    let bed = Bed::mem(Form::Ledger, false);
    drop(Store::open(bed.config()).unwrap());
    let bytes = bytes(&bed.vfs, NAME);
    (bed, bytes)
}

/// Returns a log of `len` bytes that is full of resume frames, each of which names the end before
/// it. A group header that claims the rest of the file may precede each of them.
fn chain(len: usize, with_groups: bool) -> (Bed, Vec<u8>) {
    let (bed, mut file) = blank();
    file.resize(len, 0);
    let (mut end, mut previous) = (512, 0);
    let mut at = 1024;
    while at + 512 <= len {
        if with_groups {
            let rest = u32::try_from(len - end - 65).unwrap();
            let keep = file[end + 64..].to_vec();
            put_frame(&mut file, end, 1, previous, rest, b"");
            file[end + 64..].copy_from_slice(&keep);
        }
        let named = [end as u64, 0, previous].map(u64::to_le_bytes).concat();
        previous = put_frame(&mut file, at, 2, previous, 24, &named);
        end = at + 128;
        at += 512;
    }
    (bed, file)
}

/// Returns the number of bytes and calls with which an opening reads these bytes, and its result.
fn cost(bed: &Bed, file: &[u8]) -> (u64, u64, codex_storage::Result<Store>) {
    let vfs = mem_with(&[(NAME.to_owned(), file.to_vec())]);
    let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let shared = Arc::clone(&counts);
    let vfs = Observed::vfs(&vfs, move |call| {
        if call.kind == CallKind::Read {
            shared[0].fetch_add(call.len, Ordering::Relaxed);
            shared[1].fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut config = Bed { vfs, ..bed.clone() }.config();
    config.access = Access::ReadOnly;
    let opened = Store::open(config);
    (counts[0].load(Ordering::Relaxed), counts[1].load(Ordering::Relaxed), opened)
}

#[test]
fn a_chain_of_resume_frames_is_read_in_linear_time() {
    let costs = [1 << 20, 2 << 20].map(|len| {
        let (bed, file) = chain(len, false);
        let (read, calls, opened) = cost(&bed, &file);
        opened.unwrap();
        (read, calls)
    });
    println!("bytes and calls: {costs:?}");
    let [one, two] = costs;
    assert!(two.0 <= one.0 * 5 / 2 && two.1 <= one.1 * 5 / 2, "{costs:?}");
    assert!(one.0 <= 3 << 20, "{costs:?}");
}

#[test]
fn torn_frames_that_claim_the_whole_file_are_read_in_linear_time() {
    let costs = [128 << 10, 256 << 10].map(|len| {
        let (bed, file) = chain(len, true);
        let (read, _, opened) = cost(&bed, &file);
        let is_named = matches!(opened, Err(Error::Damaged { .. }));
        assert!(is_named || len == 128 << 10, "{opened:?}");
        read
    });
    println!("bytes: {costs:?}");
    assert!(costs[1] <= 80 * (256 << 10), "{costs:?}");
}

#[test]
fn a_hole_at_the_end_is_read_once() {
    let (bed, mut file) = chain(64 << 10, false);
    file.resize(8 << 20, 0);
    let (read, _, opened) = cost(&bed, &file);
    opened.unwrap();
    println!("{read} bytes read of {}", file.len());
    assert!(read <= (8 << 20) + (2 << 20), "{read}");
}

/// Writes a file, with permission to write if the form writes to it.
fn put_for(form: Form, vfs: &Vfs, name: &str, bytes: &[u8]) {
    if form != Form::Ledger {
        return put(vfs, name, bytes);
    }
    drop(vfs.dir.remove(name));
    let file = vfs.dir.open(name, Open::CreateNew(Mode::Private)).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync().unwrap();
}

/// The numbers of a header at their limits and beyond, with a correct checksum: a typed error, or a
/// store that works.
#[test]
fn header_numbers_at_their_bounds_never_overflow() {
    let (mut refused, mut works) = (0, 0);
    for form in [Form::Wal, Form::Snapshot, Form::Ledger] {
        let bed = Bed::mem(form, false);
        let mut config = bed.config();
        config.checkpoint.close_into_image_bytes_max = 0;
        let mut store = Store::open(config).unwrap();
        store.set("key", "value").unwrap();
        store.close().unwrap();
        for (name, whole) in files(&bed.vfs) {
            for at in [48, 56, 64, 72, 80, 88, 208] {
                let bounds = [0, 1, (1 << 62) - 1, 1 << 62, u64::MAX - 1, u64::MAX];
                for to in bounds {
                    let mut changed = whole.clone();
                    changed[at..at + 8].copy_from_slice(&to.to_le_bytes());
                    resum_header(&mut changed);
                    let bed = bed.copy();
                    put_for(form, &bed.vfs, &name, &changed);
                    let mut config = bed.config();
                    config.access = Access::ReadOnly;
                    let before = Store::open(config.clone()).map(|store| store.map.0.len());
                    drop(codex_storage::verify(&bed.vfs, NAME, None));
                    let outcome = Store::open(bed.config()).and_then(|mut store| {
                        store.set("another", "value")?;
                        store.checkpoint()?;
                        store.set("and another", "value")?;
                        store.close()?;
                        Store::open(bed.config())?.close()
                    });
                    // No store is converted into one that cannot be read.
                    if let Ok(before) = before {
                        let place = format!("{name}, {to} at {at}, then {outcome:?}");
                        let after = Store::open(config).unwrap_or_else(|e| panic!("{place}: {e}"));
                        let wanted = if outcome.is_ok() { before + 2 } else { before };
                        assert!(after.map.0.len() >= wanted, "{place}");
                    }
                    match outcome {
                        Ok(()) => works += 1,
                        Err(_) => refused += 1,
                    }
                }
            }
        }
    }
    println!("{refused} refused, {works} work");
    assert!(refused > 60 && works > 20, "{refused}, {works}");
}

/// Returns a store of this form without entries, whose last commit is `seq`.
fn empty_at(form: Form, seq: u64) -> Bed {
    let bed = Bed::mem(form, false);
    drop(Store::open(bed.config()).unwrap());
    let mut main = bytes(&bed.vfs, NAME);
    let seqs: &[usize] = if form == Form::Ledger { &[56, 72, 208] } else { &[56] };
    for &at in seqs {
        main[at..at + 8].copy_from_slice(&seq.to_le_bytes());
    }
    resum_header(&mut main);
    if form != Form::Ledger {
        let footer = main.len() - TAIL_LEN;
        main[footer + 56..footer + 64].copy_from_slice(&seq.to_le_bytes());
        resum_footer(&mut main);
    }
    put_for(form, &bed.vfs, NAME, &main);
    bed
}

#[test]
fn a_store_with_the_last_commit_takes_no_more_and_stays_readable() {
    for form in [Form::Wal, Form::Snapshot, Form::Ledger] {
        for left in 0..3 {
            let bed = empty_at(form, (1 << 62) - left);
            let mut config = bed.config();
            config.checkpoint.close_into_image_bytes_max = 0;
            for round in 0..2 {
                let mut store = Store::open(config.clone()).unwrap();
                let place = format!("{form}, {left} left, round {round}");
                let mut made = 0;
                let refused = loop {
                    match store.set(&format!("key {made}"), "value") {
                        Ok(_) => made += 1,
                        Err(error) => break error,
                    }
                };
                assert!(matches!(refused, Error::Contradiction(_)), "{place}: {refused}");
                assert_eq!(made, if round == 0 { left } else { 0 }, "{place}");
                store.close().unwrap_or_else(|e| panic!("{place}: {e}"));
            }
            // Every other form has no room for one more commit, or can also be read.
            for to in [Form::Ledger, Form::Snapshot, Form::Wal] {
                let conversion = Conversion { form: Some(to), keys: None, compression: None };
                let mut config = config.clone();
                config.form = None;
                drop(codex_storage::convert(config.clone(), &conversion));
                let store = Store::open(config).unwrap_or_else(|e| panic!("{form} to {to}: {e}"));
                assert_eq!(store.map.0.len() as u64, left, "{form} to {to}");
            }
        }
    }
}

//! Ledgers of format version 1. This build writes the same bytes, and reads them.

use std::sync::Arc;

use codex_storage::batch::Op;
use codex_storage::storage::{Durability, Form};
use codex_storage::vfs::{Open, SeededEntropy, SimClock, Vfs};
use codex_storage::{Access, read_commits};

use crate::common::log::Sample;
use crate::common::seal::ToyKeys;
use crate::common::store::Store;
use crate::common::{Bed, NAME, bytes, golden};

/// A ledger with each case: several commits in a frame, each kind of record, lazy frames, a torn
/// tail with the resume frame after it, and a clean close.
fn make(sealed: bool) -> Bed {
    let clock = SimClock::new();
    let vfs = Vfs { clock: Arc::new(clock.clone()), ..Vfs::mem(2_001) };
    let mut bed = Bed::new(vfs, Form::Ledger, false);
    if sealed {
        bed.keys = Some(ToyKeys::new("golden", Arc::new(SeededEntropy::new(2_002))));
    }
    let mut store = Store::open(bed.config()).unwrap();
    let set = |key, value| Op::set(key, value);
    store.commit(&[&[set(b"a", b"1"), set(b"", b"")], &[], &[set(b"b", b"two")]]).unwrap();
    clock.set_now_us(-5);
    store.commit(&[&[Op::remove(b"a")]]).unwrap();
    store.close().unwrap();
    clock.set_now_us(1_700_000_000_000_000);
    let mut store = Store::open(bed.at(Durability::Os)).unwrap();
    store.commit(&[&[Op::CLEAR, set(b"\xff\x00", &[0xC3; 600])]]).unwrap();
    store.flush().unwrap();
    store.commit(&[&[set(b"torn", &[0x77; 900])]]).unwrap();
    let end = usize::try_from(store.storage.stats().log_bytes).unwrap();
    drop(store);
    let file = bed.vfs.dir.open(NAME, Open::Write).unwrap();
    file.write_all_at(&[0; 512], (end / 512 * 512 - 512) as u64).unwrap();
    let mut store = Store::open(bed.config()).unwrap();
    assert!(store.recovered.cut.is_some());
    store.commit(&[&[set(b"last", b"word")]]).unwrap();
    store.close().unwrap();
    bed
}

fn check(name: &str, sealed: bool) {
    let made = make(sealed);
    let golden = golden::check(name, &bytes(&made.vfs, NAME));
    let sample = Sample { bed: made, bytes: Vec::new(), ends: Vec::new() };
    let store = Store::open(sample.config(&golden, Access::ReadOnly)).unwrap();
    let entries: Vec<_> = store.map.0.into_iter().collect();
    let expected = [(b"last".to_vec(), b"word".to_vec()), (b"\xff\x00".to_vec(), vec![0xC3; 600])];
    assert_eq!(entries, expected);
    assert!(store.recovered.clean);
    let mut times = Vec::new();
    let keys = sample.bed.keys.as_deref();
    read_commits(&sample.bed.vfs, NAME, keys, 99, &mut |commit| {
        times.push((commit.seq, commit.time_us));
        Ok(())
    })
    .unwrap();
    let (first, last) = (1_000_000_000_000_000, 1_700_000_000_000_000);
    let expected = [(1, first), (2, first), (3, first), (4, first), (5, last), (6, last)];
    assert_eq!(times, expected);
}

#[test]
fn a_ledger_of_version_1_is_made_and_read_as_ever() {
    check("ledger.db", false);
}

/// Under the cipher of these tests. Only the frame around it is golden.
#[test]
fn a_sealed_ledger_of_version_1_is_made_and_read_as_ever() {
    check("ledger-toy-seal.db", true);
}

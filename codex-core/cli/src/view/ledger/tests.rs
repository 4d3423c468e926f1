//! The marks of a ledger: the bytes that a question reads, and the memory that they take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use codex_core::vfs::Vfs;
use codex_storage::batch::{Op, Seq};
use codex_storage::storage::Form;
use codex_storage::vfs::{CallKind, Observed};
use codex_storage::{Config, open};

use super::{Ledger, Limits};

/// The number of commits of the ledger, and the length of each in bytes.
const COMMITS: u64 = 2_000;
const LEN: usize = 4 << 10;

/// A ledger whose commits each set one of `keys` keys, and the number of bytes that were read.
fn ledger(keys: u64, limits: Limits) -> (Ledger, Arc<AtomicU64>) {
    let vfs = Vfs::mem(1);
    let mut config = Config::new(vfs.clone(), "a.db");
    config.form = Some(Form::Ledger);
    let (mut storage, _) = open(&config, &mut |_| Ok(())).unwrap();
    for seq in 1..=COMMITS {
        let mut group = storage.group();
        let value = [&[0][..], &seq.to_le_bytes(), &vec![1; LEN]].concat();
        group.push(Op::set(&(seq % keys).to_le_bytes(), &value)).unwrap();
        group.finish();
        storage.commit(&mut group, None).unwrap();
    }
    drop(storage);
    let read = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&read);
    let vfs = Observed::vfs(&vfs, move |call| {
        if call.kind == CallKind::Read {
            count.fetch_add(call.len, Ordering::SeqCst);
        }
    });
    (Ledger { limits, ..Ledger::new(vfs, "a.db".to_owned(), None) }, read)
}

/// Checks that the state after the commit `at` is the one that the commits have made.
fn check(ledger: &Ledger, keys: u64, at: Seq) {
    let state = ledger.state(at).unwrap_or_else(|refused| panic!("{refused:?}"));
    assert_eq!((state.seq, state.snapshot.seq()), (at, at));
    assert_eq!(state.snapshot.len() as u64, at.min(keys), "after commit {at}");
    for back in 0..at.min(keys) {
        let key = ((at - back) % keys).to_le_bytes();
        let value = state.snapshot.get_bytes(key).unwrap();
        assert_eq!(value[..8], (at - back).to_le_bytes(), "after commit {at}");
    }
}

/// The positions of a slider that is dragged back and forth.
fn drag() -> impl Iterator<Item = Seq> {
    (0..40).map(|step| step * 977 % (COMMITS + 1)).chain((COMMITS - 20..=COMMITS).rev())
}

#[test]
fn a_question_reads_from_the_mark_before_the_commit() {
    let limits = Limits { stride: 1 << 20, memory: 64 << 20 };
    let (ledger, read) = ledger(10, limits);
    let whole = COMMITS * LEN as u64;
    ledger.index(COMMITS, |index| assert_eq!(index.times.len() as u64, COMMITS)).unwrap();
    assert!(read.swap(0, Ordering::SeqCst) >= whole, "the first question reads all");
    // A stride, and two pieces of the reading ahead.
    let most = limits.stride + (512 << 10) + LEN as u64;
    for at in drag() {
        check(&ledger, 10, at);
        let found = read.swap(0, Ordering::SeqCst);
        assert!(found <= most && most < whole / 4, "{found} bytes for commit {at}");
    }
}

#[test]
fn marks_take_no_more_memory_than_they_may() {
    // Each state is 40 KiB, so 32 of them fit beside the last one.
    let (stride, memory) = (16 << 10, (32 * 48) << 10);
    let (ledger, _) = ledger(10, Limits { stride, memory });
    ledger.index(COMMITS, |_| {}).unwrap();
    let marks = |ledger: &Ledger| {
        let read = ledger.read.lock().unwrap();
        let marks = &read.as_ref().unwrap().marks;
        let seqs: Vec<Seq> = marks.list.iter().map(|mark| mark.moment.seq()).collect();
        assert!(marks.memory <= memory + (48 << 10), "{} bytes", marks.memory);
        seqs
    };
    let seqs = marks(&ledger);
    assert!((16..=34).contains(&seqs.len()), "{seqs:?}");
    assert_eq!(seqs[0], 0);
    // They are as far apart as the memory demands, over the whole file.
    let apart: Vec<Seq> = seqs.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(apart.iter().all(|n| (COMMITS / 64..=COMMITS / 8).contains(n)), "{apart:?}");
    for at in drag() {
        check(&ledger, 10, at);
    }
    assert_eq!(marks(&ledger), seqs, "questions about the past add none");
}

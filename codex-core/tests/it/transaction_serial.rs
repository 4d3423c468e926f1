//! A test that transactions of several threads are serializable: each read of each is that of a
//! replay of all commits, one after the other, in the order of their numbers.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::thread;

use crate::common::{Random, SEALED, options, scaled, sealed, seed};
use codex_core::vfs::Vfs;
use codex_core::{Form, Seq, Store, Transaction};
use codex_storage::batch::{Item, Op};

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// One step of a transaction, with the result that it had.
#[derive(Debug, Clone)]
enum Step {
    Get(Vec<u8>, Option<Vec<u8>>),
    Len(usize),
    /// The first `count` entries from an end of a range.
    Scan {
        from: Vec<u8>,
        to: Vec<u8>,
        back: bool,
        count: usize,
        found: Vec<(Vec<u8>, Vec<u8>)>,
    },
    Set(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>, bool),
    RemoveRange(Vec<u8>, Vec<u8>, u64),
}

/// The steps of the last attempt of a transaction.
#[derive(Debug)]
struct Done {
    id: Vec<u8>,
    base: Seq,
    steps: Vec<Step>,
}

const THREADS: u64 = 8;
const KEYS: u64 = 6;

fn key(random: &mut Random) -> Vec<u8> {
    format!("k{}", random.next(KEYS)).into_bytes()
}

/// Makes one random step in `tx`.
fn step(tx: &mut Transaction, random: &mut Random, id: &[u8]) -> codex_core::Result<Step> {
    let [from, to] = [key(random), key(random)];
    Ok(match random.next(12) {
        0..4 => {
            let found = tx.get_bytes(&from).map(|value| value.to_vec());
            Step::Get(from, found)
        }
        4 => Step::Len(tx.range(b"k".as_slice()..b"l".as_slice()).count()),
        5..8 => {
            let back = random.next(2) == 1;
            let count = usize::try_from(random.next(4)).unwrap();
            let scan = tx.range(from.as_slice()..to.as_slice());
            let pair = |entry: codex_core::Entry| (entry.key().to_vec(), entry.bytes().to_vec());
            let found = if back {
                scan.rev().take(count).map(pair).collect()
            } else {
                scan.take(count).map(pair).collect()
            };
            Step::Scan { from, to, back, count, found }
        }
        8..10 => {
            let value = [id, b"/", &random.next(1_000).to_le_bytes()].concat();
            tx.set_bytes(&from, &value)?;
            Step::Set(from, value)
        }
        10 => {
            let removed = tx.remove(&from)?;
            Step::Remove(from, removed)
        }
        _ => {
            let removed = tx.remove_range(from.as_slice()..to.as_slice())?;
            Step::RemoveRange(from, to, removed)
        }
    })
}

/// Runs `count` transactions, and returns the steps of each.
fn run(store: &Store, thread: u64, count: u32) -> Vec<Done> {
    let mut random = Random(seed() ^ (thread << 32));
    let mut all = Vec::new();
    for n in 0..count {
        let id = format!("{thread}:{n}").into_bytes();
        let writes = random.next(8) > 0;
        let steps = 1 + random.next(5);
        let done = store.transaction(|tx| {
            let mut done = Done { id: id.clone(), base: tx.seq(), steps: Vec::new() };
            for _ in 0..steps {
                // Other threads commit between the steps.
                thread::yield_now();
                let step = step(tx, &mut random, &id)?;
                done.steps.push(step);
            }
            if writes {
                // Names the transaction in the log.
                tx.set_bytes(format!("t{thread}"), &id)?;
            }
            Ok(done)
        });
        all.push(done.unwrap());
    }
    all
}

fn range<'a>(state: &'a State, from: &[u8], to: &[u8]) -> Vec<(&'a Vec<u8>, &'a Vec<u8>)> {
    if from >= to {
        return Vec::new();
    }
    state.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))).collect()
}

/// Makes the steps in `state`, and checks that each has the same result there.
fn replay(state: &mut State, done: &Done) {
    for step in &done.steps {
        match step {
            Step::Get(key, found) => assert_eq!(state.get(key), found.as_ref(), "{done:?}"),
            Step::Len(len) => assert_eq!(range(state, b"k", b"l").len(), *len, "{done:?}"),
            Step::Scan { from, to, back, count, found } => {
                let mut entries = range(state, from, to);
                if *back {
                    entries.reverse();
                }
                entries.truncate(*count);
                let found: Vec<_> = found.iter().map(|(key, value)| (key, value)).collect();
                assert_eq!(entries, found, "{done:?}");
            }
            Step::Set(key, value) => drop(state.insert(key.clone(), value.clone())),
            Step::Remove(key, removed) => {
                assert_eq!(state.remove(key).is_some(), *removed, "{done:?}");
            }
            Step::RemoveRange(from, to, removed) => {
                let keys: Vec<_> = range(state, from, to).iter().map(|e| e.0.clone()).collect();
                assert_eq!(u64::try_from(keys.len()).unwrap(), *removed, "{done:?}");
                for key in &keys {
                    state.remove(key);
                }
            }
        }
    }
}

/// Replays the log, and checks each transaction before its commit. Returns the number of
/// transactions in the log.
fn check(vfs: &Vfs, is_sealed: bool, all: Vec<Done>) -> usize {
    let total = all.len();
    let mut reads: HashMap<Seq, Vec<&Done>> = HashMap::new();
    let named: HashMap<&[u8], &Done> = all.iter().map(|done| (&*done.id, done)).collect();
    for done in &all {
        reads.entry(done.base).or_default().push(done);
    }
    let keys = keys(vfs, is_sealed);
    let (mut state, mut committed) = (State::new(), 0);
    let mut first = State::new();
    // Each transaction reads the state of its beginning, also one without writes.
    let at_base = |seq: Seq, state: &State| {
        reads.get(&seq).into_iter().flatten().for_each(|done| replay(&mut state.clone(), done));
    };
    at_base(0, &first);
    let cut = codex_storage::read_commits(vfs, "a.db", keys.as_deref(), u64::MAX, &mut |commit| {
        let mut after = state.clone();
        let mut id = None;
        for op in commit.ops {
            match op.unwrap() {
                Op::Set(Item { key, value, .. }) => {
                    // The first byte is the number of the codec.
                    if key.starts_with(b"t") {
                        id = Some(value[1..].to_vec());
                    } else {
                        after.insert(key.to_vec(), value[1..].to_vec());
                    }
                }
                Op::Remove { key, .. } => drop(after.remove(key)),
                Op::Clear { .. } => after.clear(),
            }
        }
        if let Some(id) = id {
            committed += 1;
            let done = named[&*id];
            assert!(done.base < commit.seq, "{done:?}");
            first.clone_from(&state);
            replay(&mut first, done);
            assert_eq!(first, after, "{done:?}");
        }
        state = after;
        at_base(commit.seq, &state);
        Ok(())
    });
    cut.unwrap();
    assert!(committed > total / 2, "{committed} of {total} transactions are named in the log");
    committed
}

#[cfg(feature = "crypto")]
fn keys(vfs: &Vfs, is_sealed: bool) -> Option<std::sync::Arc<dyn codex_storage::seal::Keys>> {
    use codex_core::crypto::{Cipher, Key};
    let key = || Key::raw(&[7; 32]).unwrap();
    let cipher = Cipher::default();
    is_sealed.then(|| codex_core::internals::keys(key(), cipher, vfs.entropy.clone()))
}

#[cfg(not(feature = "crypto"))]
fn keys(_: &Vfs, _: bool) -> Option<std::sync::Arc<dyn codex_storage::seal::Keys>> {
    None
}

#[test]
fn every_transaction_reads_what_a_serial_replay_in_commit_order_gives() {
    for &is_sealed in SEALED {
        let vfs = Vfs::mem(seed());
        let store = sealed(&options(Form::Ledger), is_sealed).open_in(&vfs, "a.db").unwrap();
        let all = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let store = &store;
                    scope.spawn(move || run(store, thread, scaled(300)))
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        store.close().unwrap();
        drop(store);
        check(&vfs, is_sealed, all);
    }
}

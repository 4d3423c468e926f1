//! Tests of the store against a `BTreeMap`: any sequence of operations, with reopening, killing and
//! copying, in memory and in each form, plain and encrypted.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use crate::watch::Mirror;
use codex_core::vfs::Vfs;
use codex_core::{Durability, Form, OpenOptions, Snapshot, Store};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

#[derive(Debug, Clone)]
enum Act {
    Set(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
    Take(Vec<u8>),
    Append(Vec<u8>, u8),
    Exchange(Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>),
    Batch(Vec<Act>),
    /// Operations that exceed the limit of a record: by each call that takes a key, and in a batch
    /// between valid ones.
    TooLarge(Vec<Act>),
    RemovePrefix(Vec<u8>),
    RemoveRange(Range),
    /// Removes the first (true) or the last key of the range.
    Pop(Range, bool),
    Replace(Vec<u8>, Vec<u8>),
    GetOrInsert(Vec<u8>, Vec<u8>),
    Clear,
    Snapshot,
    Flush,
    Checkpoint,
    /// Closes and opens again.
    Reopen,
    /// Continues with a copy of the files as a killed process leaves them.
    Kill,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(0), Just(0xFF)], 0..4)
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => proptest::collection::vec(any::<u8>(), 0..20),
        1 => (1_000_usize..9_000, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
    ]
}

/// Returns every pair of bounds, including crossed ones and those of a single key.
fn range() -> impl Strategy<Value = Range> {
    let bound = |key: Vec<u8>| {
        prop_oneof![
            3 => Just(Bound::Included(key.clone())),
            3 => Just(Bound::Excluded(key)),
            1 => Just(Bound::Unbounded),
        ]
    };
    let keys = prop_oneof![
        2 => (key(), key()),
        1 => key().prop_map(|key| (key.clone(), key)),
    ];
    keys.prop_flat_map(move |(from, to)| (bound(from), bound(to)))
}

/// Returns true if `key` lies in `range`, by the definition of the bounds, without code of this
/// crate or of std.
fn is_in((from, to): &Range, key: &Vec<u8>) -> bool {
    let is_above = match from {
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
        Bound::Unbounded => true,
    };
    let is_below = match to {
        Bound::Included(to) => key <= to,
        Bound::Excluded(to) => key < to,
        Bound::Unbounded => true,
    };
    is_above && is_below
}

fn act() -> impl Strategy<Value = Act> {
    let write = prop_oneof![
        4 => (key(), value()).prop_map(|(key, value)| Act::Set(key, value)),
        2 => key().prop_map(Act::Remove),
        1 => range().prop_map(Act::RemoveRange),
        1 => Just(Act::Clear),
    ];
    prop_oneof![
        20 => (key(), value()).prop_map(|(key, value)| Act::Set(key, value)),
        8 => key().prop_map(Act::Remove),
        3 => key().prop_map(Act::Take),
        6 => (key(), any::<u8>()).prop_map(|(key, byte)| Act::Append(key, byte)),
        6 => (key(), any::<Option<Vec<u8>>>(), any::<Option<Vec<u8>>>())
            .prop_map(|(key, current, new)| Act::Exchange(key, current, new)),
        6 => proptest::collection::vec(write.clone(), 0..6).prop_map(Act::Batch),
        1 => proptest::collection::vec(write, 0..6).prop_map(Act::TooLarge),
        2 => key().prop_map(Act::RemovePrefix),
        4 => range().prop_map(Act::RemoveRange),
        4 => (range(), any::<bool>()).prop_map(|(range, first)| Act::Pop(range, first)),
        3 => (key(), value()).prop_map(|(key, value)| Act::Replace(key, value)),
        3 => (key(), value()).prop_map(|(key, value)| Act::GetOrInsert(key, value)),
        1 => Just(Act::Clear),
        3 => Just(Act::Snapshot),
        1 => Just(Act::Flush),
        2 => Just(Act::Checkpoint),
        3 => Just(Act::Reopen),
        3 => Just(Act::Kill),
    ]
}

/// A key that is a byte too long.
const TOO_LONG: &[u8] = &[b'a'; 65_536];

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

struct Run {
    store: Store,
    model: Model,
    /// The directory of the files and the options; `None` in memory.
    files: Option<(Vfs, OpenOptions)>,
    /// Whether commits are in no file until an image is written.
    lazy_images: bool,
    snapshots: Vec<(Snapshot, Model)>,
    /// Copies of all keys, and of those with a prefix, that follow the store by watches.
    mirrors: [Mirror; 2],
}

impl Run {
    fn new(files: Option<(Vfs, OpenOptions)>, lazy_images: bool) -> Self {
        let store = match &files {
            Some((vfs, options)) => options.open_in(vfs, "a.db").unwrap(),
            None => Store::in_memory().unwrap(),
        };
        let mirrors = mirrors(&store);
        Self { store, model: Model::new(), files, lazy_images, snapshots: Vec::new(), mirrors }
    }

    fn act(&mut self, act: &Act) {
        self.write(act);
        self.mirrors.iter_mut().for_each(|mirror| mirror.follow(&self.store));
    }

    fn write(&mut self, act: &Act) {
        let (store, model) = (&self.store, &mut self.model);
        match act {
            Act::Set(key, value) => {
                store.set(key, value).unwrap();
                model.insert(key.clone(), value.clone());
            }
            Act::Remove(key) => {
                assert_eq!(store.remove(key).unwrap(), model.remove(key).is_some());
            }
            Act::Take(key) => assert_eq!(store.take(key).unwrap(), model.remove(key)),
            Act::Append(key, byte) => self.append(key, *byte),
            Act::Exchange(key, current, new) => {
                let done = store.compare_exchange(key, current.as_ref(), new.as_ref()).unwrap();
                assert_eq!(done, model.get(key) == current.as_ref());
                match new {
                    Some(value) if done => drop(model.insert(key.clone(), value.clone())),
                    None if done => drop(model.remove(key)),
                    _ => {}
                }
            }
            Act::Batch(acts) => self.batch(acts, false),
            Act::TooLarge(acts) => {
                let refused = [
                    store.set(TOO_LONG, &1_u8),
                    store.set_bytes(TOO_LONG, []),
                    store.remove(TOO_LONG).map(|_| ()),
                    store.update(TOO_LONG, |_: Option<u8>| Some(1)).map(|_| ()),
                    store.compare_exchange(TOO_LONG, None, Some(&1_u8)).map(|_| ()),
                ];
                assert!(refused.iter().all(|done| done.as_ref().unwrap_err().is_too_large()));
                self.batch(acts, true);
            }
            Act::RemovePrefix(prefix) => {
                let before = model.len();
                model.retain(|key, _| !key.starts_with(prefix));
                let removed = u64::try_from(before - model.len()).unwrap();
                assert_eq!(store.remove_prefix(prefix).unwrap(), removed);
            }
            Act::RemoveRange(range) => {
                let inside = model.iter().filter(|(key, _)| is_in(range, key));
                check_scan(store.range(range.clone()), inside);
                let before = model.len();
                model.retain(|key, _| !is_in(range, key));
                let removed = u64::try_from(before - model.len()).unwrap();
                assert_eq!(store.remove_range(range.clone()).unwrap(), removed);
            }
            Act::Pop(range, first) => self.pop(range, *first),
            Act::Replace(key, value) => {
                let replaced = store.replace(key, value).unwrap();
                assert_eq!(replaced, model.insert(key.clone(), value.clone()));
            }
            Act::GetOrInsert(key, value) => {
                let found = store.get_or_insert_with(key, || value.clone()).unwrap();
                assert_eq!(&found, model.entry(key.clone()).or_insert_with(|| value.clone()));
            }
            Act::Clear => {
                store.clear().unwrap();
                model.clear();
            }
            Act::Snapshot => self.snapshots.push((store.snapshot(), model.clone())),
            Act::Flush => assert_eq!(store.flush().unwrap(), store.snapshot().seq()),
            Act::Checkpoint => store.checkpoint().unwrap(),
            Act::Reopen => self.reopen(),
            Act::Kill => self.kill(),
        }
    }

    /// Appends a byte to a value, and removes it when it is long.
    fn append(&mut self, key: &Vec<u8>, byte: u8) {
        let (store, model) = (&self.store, &mut self.model);
        let append = |value: Option<Vec<u8>>| {
            let mut value = value.unwrap_or_default();
            value.push(byte);
            (value.len() < 8).then_some(value)
        };
        let new = append(model.get(key).cloned());
        assert_eq!(store.update(key, append).unwrap(), new);
        match new {
            Some(value) => drop(model.insert(key.clone(), value)),
            None => drop(model.remove(key)),
        }
    }

    /// Removes one end of the range, after looking at it.
    fn pop(&mut self, range: &Range, first: bool) {
        let (store, model) = (&self.store, &mut self.model);
        let mut inside = model.keys().filter(|key| is_in(range, key));
        let key = if first { inside.next() } else { inside.next_back() }.cloned();
        let range = || range.clone();
        let (seen, popped) = if first {
            (store.first(range()), store.pop_first(range()))
        } else {
            (store.last(range()), store.pop_last(range()))
        };
        for entry in [seen, popped.unwrap()] {
            let found = entry.map(|e| (e.key().to_vec(), e.value::<Vec<u8>>().unwrap()));
            assert_eq!(found, key.clone().map(|key| (key.clone(), model[&key].clone())));
        }
        key.map(|key| model.remove(&key));
    }

    fn batch(&mut self, acts: &[Act], between_too_large: bool) {
        let mut batch = self.store.batch();
        for act in acts {
            if between_too_large {
                let refused = batch.set(TOO_LONG, &1_u8).map(|_| ()).unwrap_err();
                let removed = batch.remove(TOO_LONG).map(|_| ()).unwrap_err();
                assert!(refused.is_too_large() && removed.is_too_large());
            }
            match act {
                Act::Set(key, value) => {
                    batch.set(key, value).unwrap();
                    self.model.insert(key.clone(), value.clone());
                }
                Act::Remove(key) => {
                    batch.remove(key).unwrap();
                    self.model.remove(key);
                }
                Act::RemoveRange(range) => {
                    batch.remove_range(range.clone()).unwrap();
                    self.model.retain(|key, _| !is_in(range, key));
                }
                _ => {
                    batch.clear();
                    self.model.clear();
                }
            }
        }
        batch.commit().unwrap();
    }

    fn reopen(&mut self) {
        let Some((vfs, options)) = &self.files else { return };
        self.store.close().unwrap();
        let seq = self.store.snapshot().seq();
        self.store = options.open_in(vfs, "a.db").unwrap();
        self.watch_again();
        assert_eq!(self.store.recovered().cut, None);
        assert_eq!(self.store.snapshot().seq(), seq, "commits keep their numbers");
        assert!(self.store.recovered().clean);
        check_scan(self.store.iter(), self.model.iter());
    }

    fn kill(&mut self) {
        let Some((vfs, options)) = &mut self.files else { return };
        let seq = self.store.snapshot().seq();
        if self.lazy_images {
            self.store.flush().unwrap();
        }
        let copy = crate::common::disk(&crate::common::files(vfs));
        self.store = options.open_in(&copy, "a.db").unwrap();
        *vfs = copy;
        self.watch_again();
        assert_eq!(self.store.recovered().cut, None, "no write was torn");
        assert_eq!(self.store.snapshot().seq(), seq);
        check_scan(self.store.iter(), self.model.iter());
    }

    /// Replaces the mirrors of the store before it was opened again.
    fn watch_again(&mut self) {
        let ended = std::mem::replace(&mut self.mirrors, mirrors(&self.store));
        ended.into_iter().for_each(Mirror::end);
    }

    fn check(&self) {
        let (store, model) = (&self.store, &self.model);
        assert_eq!(store.len(), model.len());
        assert_eq!(store.is_empty(), model.is_empty());
        check_scan(store.iter(), model.iter());
        check_scan(store.iter().rev(), model.iter().rev());
        assert!(store.keys().map(|key| key.to_vec()).eq(model.keys().cloned()));
        for (key, value) in model {
            assert_eq!(&store.get::<Vec<u8>>(key).unwrap().unwrap(), value);
            assert!(store.contains_key(key));
            let above = (Bound::Excluded(key), Bound::Unbounded);
            check_scan(store.range(above), model.range::<Vec<u8>, _>(above));
            let with_prefix = model.iter().filter(|(other, _)| other.starts_with(key));
            check_scan(store.prefix(key), with_prefix);
        }
        assert!(!store.contains_key("no such key"));
        for (snapshot, then) in &self.snapshots {
            assert_eq!(snapshot.len(), then.len());
            check_scan(snapshot.iter(), then.iter());
        }
    }
}

fn mirrors(store: &Store) -> [Mirror; 2] {
    [&b""[..], b"a"].map(|prefix| Mirror::of(store, prefix))
}

fn check_scan<'a>(
    ours: impl Iterator<Item = codex_core::Entry>,
    model: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>,
) {
    let ours: Vec<_> =
        ours.map(|entry| (entry.key().to_vec(), entry.value::<Vec<u8>>().unwrap())).collect();
    let model: Vec<_> = model.map(|(key, value)| (key.clone(), value.clone())).collect();
    assert_eq!(ours, model);
}

pub(crate) fn check(options: Option<&OpenOptions>, cases: u32) {
    check_at(options, false, cases);
}

fn check_at(options: Option<&OpenOptions>, lazy_images: bool, cases: u32) {
    let config = Config {
        cases: crate::common::scaled(cases),
        rng_seed: RngSeed::Fixed(crate::common::seed()),
        failure_persistence: None,
        ..Config::default()
    };
    let sealed = proptest::sample::select(crate::common::SEALED);
    let acts = (sealed, proptest::collection::vec(act(), 1..60));
    let run = |(sealed, acts): (bool, Vec<Act>)| {
        let files = options.map(|options| {
            (Vfs::mem(crate::common::seed()), crate::common::sealed(options, sealed))
        });
        let mut run = Run::new(files, lazy_images);
        for act in &acts {
            run.act(act);
            if let Some((vfs, _)) = &run.files {
                vfs.clock.sleep(Duration::from_millis(1));
            }
        }
        run.check();
        run.reopen();
        run.check();
        Ok(())
    };
    let seed = crate::common::seed();
    let done = TestRunner::new(config).run(&acts, run);
    done.unwrap_or_else(|failed| panic!("CODEX_SEED={seed}: {failed}"));
}

#[test]
fn a_store_in_memory_behaves_like_a_btree_map() {
    check(None, 300);
}

#[test]
fn a_wal_behaves_like_a_btree_map_across_reopening_and_kills() {
    check(Some(&Store::options().form(Form::Wal)), 150);
}

#[test]
fn a_wal_that_checkpoints_all_the_time_behaves_like_a_btree_map() {
    let policy = codex_core::CheckpointPolicy::default()
        .floor_bytes(500)
        .ratio(0.5)
        .close_into_image_bytes_max(2_000);
    check(Some(&Store::options().form(Form::Wal).checkpoint(policy)), 100);
}

#[test]
fn a_snapshot_behaves_like_a_btree_map_across_reopening_and_kills() {
    check(Some(&Store::options().form(Form::Snapshot)), 100);
}

#[test]
fn a_ledger_behaves_like_a_btree_map_across_reopening_and_kills() {
    check(Some(&Store::options().form(Form::Ledger)), 150);
}

#[test]
fn lazy_levels_lose_nothing_to_a_killed_process() {
    for durability in [Durability::Os, Durability::Interval(Duration::from_millis(5))] {
        for form in [Form::Wal, Form::Ledger] {
            check(Some(&Store::options().form(form).durability(durability)), 40);
        }
    }
    let durability = Durability::Interval(Duration::from_millis(5));
    check_at(Some(&Store::options().form(Form::Snapshot).durability(durability)), true, 40);
}

//! Tests of the members of one commit group, where an error concerns only its own member, and of
//! commits that wait for an image, in relation to later ones.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::double::{
    Fault, Owner, Probe, absent, batch, engine, engine_at, memory, put, remove, value,
};
use codex_core::internals::{Change, Check, Commit, End, Engine, Entry, Map, Outcome};
use codex_core::vfs::CallKind;
use codex_core::vfs::fault::{Calls, FaultDir, Survivors};
use codex_core::{Anchor, AnchorFound, Store};
use codex_storage::Error;
use codex_storage::batch::{GROUP_LEN_TARGET, KEY_LEN_MAX};
use codex_storage::storage::{Durability, Form};
use codex_storage::vfs::{Clock, SimClock};

/// Submits `commits` so that they wait together, in this order, after a first commit that has the
/// disk. All but the first make one group. Returns their outcomes.
pub(crate) fn together(
    engine: &Arc<Owner>,
    probe: &Probe,
    commits: Vec<Commit>,
) -> Vec<Result<Outcome, Error>> {
    together_until(engine, probe, commits, || {})
}

/// Does the same as [`together`], and calls `last` while all of them wait.
fn together_until(
    engine: &Arc<Owner>,
    probe: &Probe,
    commits: Vec<Commit>,
    last: impl FnOnce(),
) -> Vec<Result<Outcome, Error>> {
    thread::scope(|scope| {
        let handed = probe.handed();
        let disk = probe.disk();
        let submit = |commit| scope.spawn(|| engine.submit(commit));
        // This commit leads a group of its own, which waits for the disk of the double.
        let first = submit(Commit::one(put("first", "1")));
        while probe.handed() == handed {
            thread::yield_now();
        }
        let mut waiting = Vec::new();
        for commit in commits {
            let before = engine.waiting();
            waiting.push(submit(commit));
            while engine.waiting() == before {
                thread::yield_now();
            }
        }
        last();
        drop(disk);
        first.join().unwrap().unwrap();
        waiting.into_iter().map(|waiting| waiting.join().unwrap()).collect()
    })
}

fn is_done(outcome: &Result<Outcome, Error>) -> bool {
    matches!(outcome, Ok(Outcome::Done { .. }))
}

fn is_full(outcome: &Result<Outcome, Error>) -> bool {
    matches!(outcome, Err(Error::NoSpace { .. }))
}

fn wal() -> (Arc<Owner>, Probe) {
    engine(Form::Wal, Durability::Sync, false)
}

#[test]
fn a_conflict_leaves_nothing_of_its_commit_in_the_group() {
    let (engine, probe) = wal();
    let lost = Commit {
        checks: vec![absent("a"), absent("x")].into(),
        ..batch(vec![put("a", "1"), put("b", "1")])
    };
    let commits = vec![Commit::one(put("x", "1")), lost, Commit::one(put("y", "1"))];
    let outcomes = together(&engine, &probe, commits);
    assert!(is_done(&outcomes[0]) && is_done(&outcomes[2]));
    assert!(matches!(outcomes[1], Ok(Outcome::Conflict)));
    let keys: Vec<_> = memory(&engine).into_keys().collect();
    assert_eq!(keys, [&b"first"[..], b"x", b"y"]);
    assert_eq!(memory(&engine), probe.disk().durable_state());
}

#[test]
fn on_a_full_disk_removals_do_not_fail_with_the_sets_they_wait_with() {
    for form in [Form::Wal, Form::Snapshot, Form::Ledger] {
        let (engine, probe) = engine(form, Durability::Sync, false);
        let entries = ["a", "b", "c", "d"].map(|key| put(key, "1"));
        engine.submit(batch(entries.into())).unwrap();
        probe.fail_next(Fault::NoSpaceForLarge);
        let all =
            |key: &[u8]| Change::RemoveRange(None, Bound::Included(key.into()), Bound::Unbounded);
        let outcomes = together(
            &engine,
            &probe,
            vec![
                Commit::one(put("large 1", "1")),
                Commit::one(remove("a")),
                // This depends on a member that fails.
                Commit::one(remove("large 1")),
                Commit::one(all(b"large")),
                batch(vec![remove("b"), put("large 2", "1")]),
                Commit::one(Change::RemoveRange(
                    None,
                    Bound::Included(b"c"[..].into()),
                    Bound::Excluded(b"d"[..].into()),
                )),
                Commit::one(put("large 3", "1")),
            ],
        );
        let full: Vec<bool> = outcomes.iter().map(is_full).collect();
        assert_eq!(full, [true, false, false, false, true, false, true], "{form}");
        for (at, writes) in [(1, true), (2, false), (3, false), (5, true)] {
            let Ok(Outcome::Done { seq, .. }) = &outcomes[at] else { panic!("{:?}", outcomes[at]) };
            assert_eq!(seq.is_some(), writes, "{form}: member {at}");
        }
        let keys: Vec<_> = memory(&engine).into_keys().collect();
        assert_eq!(keys, [&b"b"[..], b"d", b"first"], "{form}");
        assert_eq!(memory(&engine), probe.disk().durable_state(), "{form}");
        assert_eq!(engine.stats().poisoned, None);
    }
}

#[test]
fn on_a_full_disk_a_small_commit_does_not_fail_with_large_ones() {
    let (engine, probe) = wal();
    probe.fail_next(Fault::NoSpaceForLarge);
    let outcomes = together(
        &engine,
        &probe,
        vec![
            Commit::one(put("large", "1")),
            Commit::one(put("small", "1")),
            Commit::checked(absent("large"), put("rests on it", "1")),
            Commit::checked(absent("small"), put("conflicts", "1")),
            Commit::one(put("small", "2")),
        ],
    );
    assert!(is_full(&outcomes[0]), "{outcomes:?}");
    assert!(is_done(&outcomes[1]) && is_done(&outcomes[2]) && is_done(&outcomes[4]));
    assert!(matches!(outcomes[3], Ok(Outcome::Conflict)), "{outcomes:?}");
    assert_eq!(value(&engine, "small").as_deref(), Some("2"), "in the order they came");
    assert_eq!(memory(&engine), probe.disk().durable_state());
}

#[test]
fn a_commit_that_cannot_be_encoded_fails_alone() {
    let (engine, probe) = wal();
    let long = "k".repeat(KEY_LEN_MAX + 1);
    let outcomes = together(
        &engine,
        &probe,
        vec![
            Commit::one(put("a", "1")),
            batch(vec![put("b", "1"), put(&long, "1")]),
            Commit::checked(absent("b"), put("c", "1")),
        ],
    );
    assert!(is_done(&outcomes[0]) && is_done(&outcomes[2]), "{outcomes:?}");
    assert!(matches!(outcomes[1], Err(Error::Record { .. })), "{outcomes:?}");
    assert_eq!(probe.disk().groups, [1, 2], "the first by itself, the others in one group");
    assert_eq!(memory(&engine), probe.disk().durable_state());
}

/// The refused member leaves no change, whichever changes it had made to the group before.
#[test]
fn a_refused_member_of_a_group_reaches_neither_memory_nor_the_log() {
    let long = "k".repeat(KEY_LEN_MAX + 1);
    let all = || Change::RemoveRange(None, Bound::Unbounded, Bound::Unbounded);
    let kinds: [fn() -> Vec<Change>; 6] = [
        Vec::new,
        || vec![put("a", "9"), put("new", "9")],
        || vec![remove("a"), remove("b"), put("b", "9")],
        || vec![Change::Clear(None)],
        || {
            vec![
                put("new", "9"),
                Change::Clear(None),
                put("a", "9"),
                Change::Clear(None),
                put("b", "9"),
            ]
        },
        || vec![Change::RemoveRange(None, Bound::Unbounded, Bound::Unbounded), put("b", "9")],
    ];
    for form in [Form::Wal, Form::Snapshot, Form::Ledger] {
        for (kind, refused) in kinds.iter().enumerate() {
            let (engine, probe) = engine(form, Durability::Sync, false);
            engine.submit(batch(vec![put("a", "0"), put("b", "0")])).unwrap();
            let refused = || batch(refused().into_iter().chain([put(&long, "9")]).collect());
            let equals = |key: &str, value: &str| Check::Equals {
                name: key.as_bytes().into(),
                value: Some(value.as_bytes().into()),
            };
            let outcomes = together(
                &engine,
                &probe,
                vec![
                    refused(),
                    Commit::one(put("a", "1")),
                    refused(),
                    Commit::checked(equals("a", "1"), remove("b")),
                    refused(),
                    Commit::checked(absent("new"), put("c", "1")),
                    Commit::one(all()),
                    refused(),
                    Commit::checked(absent("a"), put("d", "1")),
                ],
            );
            let answers: Vec<_> = outcomes.iter().map(answer).collect();
            let expected = [
                None,
                Some((3, 0, Some("0".to_owned()))),
                None,
                Some((4, 1, Some("0".to_owned()))),
                None,
                Some((5, 0, None)),
                // The key of the first group, and `a` and `c`.
                Some((6, 3, None)),
                None,
                Some((7, 0, None)),
            ];
            assert_eq!(answers, expected, "{form}, kind {kind}");
            assert_eq!(probe.disk().groups, [1, 1, 5], "{form}, kind {kind}");
            let left = BTreeMap::from([(b"d".to_vec(), b"1".to_vec())]);
            assert_eq!(memory(&engine), left, "{form}, kind {kind}");
            assert_eq!(probe.disk().durable_state(), left, "{form}, kind {kind}");
            let images: Vec<_> = probe.disk().images.iter().map(|image| image.1.len()).collect();
            let expected: &[usize] = if form == Form::Snapshot { &[2, 3, 1] } else { &[] };
            assert_eq!(images, expected, "{form}, kind {kind}");
            assert!(engine.read(|map| map.get(b"d").is_some() && map.get(b"b").is_none()));
        }
    }
}

/// Returns the number of the commit, the number of removed keys and the replaced entry, or `None`
/// for a commit that cannot be encoded.
fn answer(outcome: &Result<Outcome, Error>) -> Option<(u64, u64, Option<String>)> {
    match outcome {
        Err(Error::Record { .. }) => None,
        Ok(Outcome::Done { seq, removed, previous }) => {
            let text = |entry: &Entry| String::from_utf8(entry.value().to_vec()).unwrap();
            Some((seq.unwrap(), *removed, previous.as_ref().map(text)))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_group_is_bounded_by_what_its_removals_of_ranges_come_to() {
    let (engine, probe) = wal();
    // The keys of each range take an eighth of a group, but the removal of a range counts as no
    // bytes.
    let pad = "k".repeat(60_000);
    let keys = GROUP_LEN_TARGET / 8 / pad.len() + 1;
    let ranges: Vec<String> = (b'A'..=b'X').map(|c| char::from(c).to_string()).collect();
    for range in &ranges {
        let entries = (0..keys).map(|n| put(&format!("{range}{n:03}{pad}"), "1"));
        engine.submit(batch(entries.collect())).unwrap();
    }
    let before = probe.disk().groups.len();
    let remove_range = |range: &String| {
        let (lower, upper) = (range.clone(), format!("{range}\u{7f}"));
        let [lower, upper] = [lower, upper].map(|key| key.into_bytes().into());
        Commit::one(Change::RemoveRange(None, Bound::Included(lower), Bound::Excluded(upper)))
    };
    let outcomes = together(&engine, &probe, ranges.iter().map(remove_range).collect());
    let removed = |outcome: &Result<Outcome, Error>| match outcome {
        Ok(Outcome::Done { seq, removed, .. }) => (*seq, *removed),
        other => panic!("{other:?}"),
    };
    let removed: Vec<_> = outcomes.iter().map(removed).collect();
    assert!(removed.iter().all(|(_, removed)| *removed == u64::try_from(keys).unwrap()));
    assert!(removed.is_sorted(), "in the order they came: {removed:?}");
    let groups = probe.disk().groups[before + 1..].to_vec();
    assert_eq!(groups.iter().sum::<usize>(), ranges.len(), "{groups:?}");
    assert!(groups.len() > 2 && groups.iter().all(|&members| members <= 9), "{groups:?}");
    assert_eq!(memory(&engine), probe.disk().durable_state());
}

/// Makes `first` wait for the sync of its commit, and the others wait after it in the queue, in
/// this order. Then lets the disk continue.
fn behind_a_sync(store: &Store, disk: &FaultDir, first: Act<'_>, others: Vec<Act<'_>>) {
    thread::scope(|scope| {
        let gate = disk.hold(Calls::of(CallKind::Sync));
        scope.spawn(first);
        gate.wait_for(1);
        for (before, act) in others.into_iter().enumerate() {
            assert_eq!(store.stats().waiting, before);
            scope.spawn(act);
            while store.stats().waiting == before {
                thread::yield_now();
            }
        }
        gate.release();
    });
}

type Act<'a> = Box<dyn FnOnce() + Send + 'a>;

#[test]
fn thirty_two_writers_share_two_syncs() {
    for form in crate::common::FORMS {
        for &sealed in crate::common::SEALED {
            let disk = FaultDir::new();
            let options = crate::common::sealed(&Store::options().form(form), sealed);
            let store = options.open_in(&disk.vfs(crate::common::seed()), "a.db").unwrap();
            // The room of the log and its first epoch.
            store.set("writer 0", &0_u32).unwrap();
            disk.record_trace(true);
            let (before, store) = (store.stats().storage, &store);
            let write = |writer: u32| -> Act<'_> {
                Box::new(move || store.set(format!("writer {writer}"), &writer).unwrap())
            };
            behind_a_sync(store, &disk, write(0), (1..32).map(write).collect());
            let after = store.stats().storage;
            assert_eq!((after.groups - before.groups, after.seq - before.seq), (2, 32), "{form}");
            let trace = disk.trace();
            let syncs = trace.iter().filter(|call| call.kind == CallKind::Sync).count();
            assert_eq!(syncs, 2, "{form} {sealed}: {trace:?}");
            let cut = disk.reboot(Survivors::Nothing);
            let store = options.open_in(&cut.vfs(crate::common::seed()), "a.db").unwrap();
            let found: Vec<_> = (0..32)
                .map(|writer| store.get::<u32>(format!("writer {writer}")).unwrap())
                .collect();
            assert!(found.iter().zip(0..).all(|(found, n)| *found == Some(n)), "{form}: {found:?}");
        }
    }
}

#[test]
fn an_anchor_is_taken_between_the_groups_and_one_inside_a_group_opens_nothing() {
    for form in crate::common::FORMS {
        for &sealed in crate::common::SEALED {
            let disk = FaultDir::new();
            let options = crate::common::sealed(&Store::options().form(form), sealed);
            let vfs = disk.vfs(crate::common::seed());
            let store = options.open_in(&vfs, "a.db").unwrap();
            let taken = Mutex::new(None);
            {
                let (store, taken) = (&store, &taken);
                let set = |key: &'static str| -> Act<'_> {
                    Box::new(move || store.set(key, &1_u8).unwrap())
                };
                let anchor = Box::new(move || {
                    *taken.lock().unwrap() = Some(store.anchor().unwrap());
                });
                behind_a_sync(
                    store,
                    &disk,
                    set("1"),
                    vec![set("2"), set("3"), anchor, set("4"), set("5"), set("6")],
                );
            }
            let taken = taken.into_inner().unwrap().unwrap();
            let last = store.anchor().unwrap();
            assert_eq!((taken.seq, last.seq), (3, 6), "{form} {sealed}");
            assert_eq!(store.stats().storage.groups, 3, "{form} {sealed}");
            let killed = crate::common::files(&vfs);
            drop(store);
            let opened = |anchor: Anchor| {
                let vfs = crate::common::disk(&killed);
                let opened = options.clone().anchor(anchor).open_in(&vfs, "a.db");
                opened.map(|store| store.recovered().anchor).map_err(crate::common::storage)
            };
            for anchor in [taken, last] {
                // Only an image lists those that were taken before it was written.
                let found = opened(anchor).unwrap();
                assert_eq!(found, Some(AnchorFound::Compared), "{form} {sealed}: {anchor:?}");
            }
            for seq in [2, 4, 5] {
                let refused = opened(Anchor::new(last.store_id, seq, last.value)).unwrap_err();
                match refused {
                    Error::AnchorMismatch { seq: at, .. } if form != Form::Snapshot => {
                        assert_eq!(at, seq);
                    }
                    Error::AnchorUnknown { seq: at, .. } if form == Form::Snapshot => {
                        assert_eq!(at, seq);
                    }
                    other => panic!("{form} {sealed}, {seq}: {other}"),
                }
            }
            let newer = opened(Anchor::new(last.store_id, 7, last.value)).unwrap_err();
            assert!(matches!(newer, Error::AnchorMismatch { seq: 7, .. }), "{form}: {newer}");
        }
    }
}

#[test]
fn a_range_takes_what_earlier_members_of_its_group_have_put_within_its_bounds() {
    let bounds = |key: &str| {
        let key: Box<[u8]> = key.as_bytes().into();
        [Bound::Included(key.clone()), Bound::Excluded(key), Bound::Unbounded]
    };
    let ranges = bounds("b")
        .into_iter()
        .flat_map(|lower| bounds("d").into_iter().map(move |upper| (lower.clone(), upper)));
    for range in ranges {
        let (engine, probe) = wal();
        // A key in memory, a key that is put again, and a new key.
        engine.submit(batch(["a", "b", "d"].map(|key| put(key, "0")).into())).unwrap();
        let puts = ["b", "c", "d", "e"].map(|key| Commit::one(put(key, "1")));
        let removal = Commit::one(Change::RemoveRange(None, range.0.clone(), range.1.clone()));
        let outcomes = together(&engine, &probe, puts.into_iter().chain([removal]).collect());
        let is_in = |key: &&str| {
            let key = key.as_bytes();
            (match &range.0 {
                Bound::Included(from) => key >= &**from,
                Bound::Excluded(from) => key > &**from,
                Bound::Unbounded => true,
            }) && match &range.1 {
                Bound::Included(to) => key <= &**to,
                Bound::Excluded(to) => key < &**to,
                Bound::Unbounded => true,
            }
        };
        let all = ["a", "b", "c", "d", "e", "first"];
        let left: Vec<_> = all.iter().filter(|key| !is_in(key)).map(|key| key.as_bytes()).collect();
        let removed = answer(outcomes.last().unwrap()).unwrap().1;
        assert_eq!(usize::try_from(removed).unwrap(), all.len() - left.len(), "{range:?}");
        assert_eq!(memory(&engine).into_keys().collect::<Vec<_>>(), left, "{range:?}");
        assert_eq!(probe.disk().groups, [1, 1, 5]);
    }
}

/// If a reader waited for the disk, which the test holds, this test would not end.
#[test]
fn readers_go_on_while_the_disk_has_a_group_or_an_image() {
    let reads = |engine: &Engine| {
        println!("reads beside the disk");
        let seen = engine.view();
        let found = value(engine, "a");
        (seen.seq, seen.ordered.iter().count(), found, engine.read(Map::len))
    };
    for form in [Form::Wal, Form::Snapshot] {
        let (engine, probe) = engine(form, Durability::Sync, false);
        engine.submit(batch(vec![put("a", "0"), put("b", "0")])).unwrap();
        thread::scope(|scope| {
            let disk = probe.disk();
            let group = scope.spawn(|| {
                engine.submit(batch(vec![put("a", "1"), put("c", "1"), remove("b"), put("d", "1")]))
            });
            while probe.handed() < 2 {
                thread::yield_now();
            }
            let before = (1, 2, Some("0".to_owned()), 2);
            assert_eq!(reads(&engine), before, "{form}");
            drop(disk);
            group.join().unwrap().unwrap();
        });
        assert_eq!(reads(&engine), (2, 3, Some("1".to_owned()), 3), "{form}");
    }
    let (engine, probe) = engine(Form::Wal, Durability::Sync, false);
    engine.submit(Commit::one(put("a", "0"))).unwrap();
    thread::scope(|scope| {
        let image = probe.hold_images();
        let checkpoint = scope.spawn(|| engine.checkpoint());
        while probe.images() == 0 {
            thread::yield_now();
        }
        assert_eq!(reads(&engine), (1, 1, Some("0".to_owned()), 1));
        // Writers do not wait for it either.
        engine.submit(Commit::one(put("a", "1"))).unwrap();
        assert_eq!(reads(&engine), (2, 1, Some("1".to_owned()), 1));
        drop(image);
        assert_eq!(checkpoint.join().unwrap().unwrap(), 1);
    });
}

/// A clock that advances by a microsecond at each reading.
#[derive(Debug, Default)]
struct CountingClock(AtomicU64);

impl Clock for CountingClock {
    fn now_us(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0.fetch_add(1, Ordering::SeqCst))
    }

    fn sleep(&self, _duration: Duration) {}
}

#[test]
fn the_longest_wait_for_memory_is_that_of_one_group_and_told_in_nanoseconds() {
    let clock = Arc::new(CountingClock::default());
    let (engine, probe) = engine_at(Form::Wal, Durability::Sync, clock.clone(), false);
    for group in 1..=3 {
        engine.submit(batch(vec![put("a", "1"), put("b", "1"), remove("a")])).unwrap();
        // One reading before the lock on memory is taken, and one after.
        assert_eq!(clock.0.load(Ordering::SeqCst), 2 * group);
        assert_eq!(engine.stats().data_hold_ns_max, 1_000);
    }
    assert_eq!(probe.disk().groups, [1, 1, 1]);
}

const INTERVAL: Duration = Duration::from_secs(10);

/// Returns a Snapshot store at an interval, whose time the test sets.
fn lazy() -> (Arc<Owner>, Probe, SimClock) {
    let clock = SimClock::new();
    let time = Arc::new(clock.clone());
    let (engine, probe) = engine_at(Form::Snapshot, Durability::Interval(INTERVAL), time, false);
    (engine, probe, clock)
}

#[test]
fn writes_get_the_error_of_the_image_once_one_is_overdue_until_an_image_succeeds() {
    let (engine, probe, clock) = lazy();
    probe.fail_next(Fault::Image);
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    clock.advance(INTERVAL.saturating_sub(Duration::from_secs(1)));
    assert!(matches!(engine.tick(), Err(Error::NoSpace { .. })));
    // No commit has waited too long yet.
    engine.submit(Commit::one(put("b", "1"))).unwrap();
    assert!(engine.stats().image_error.is_some());
    clock.advance(Duration::from_secs(1));
    for _ in 0..3 {
        assert!(is_full(&engine.submit(Commit::one(put("c", "1")))));
        assert!(matches!(engine.tick(), Err(Error::NoSpace { .. })));
    }
    assert_eq!((probe.disk().written(), engine.poisoned()), (2, None), "refused, not poisoned");
    probe.heal();
    engine.tick().unwrap();
    assert_eq!((engine.stats().image_error, probe.disk().durable), (None, 2));
    engine.submit(Commit::one(put("c", "1"))).unwrap();
    // By a flush too.
    probe.fail_next(Fault::Image);
    clock.advance(INTERVAL);
    assert!(matches!(engine.flush(), Err(Error::NoSpace { .. })));
    assert!(is_full(&engine.submit(Commit::one(put("d", "1")))));
    probe.heal();
    assert_eq!(engine.flush().unwrap(), 3);
    engine.submit(Commit::one(put("d", "1"))).unwrap();
}

#[test]
fn the_age_counts_from_the_oldest_commit_that_no_image_shows() {
    let (engine, probe, clock) = lazy();
    for round in 0_u32..5 {
        engine.submit(Commit::one(put("a", &round.to_string()))).unwrap();
        clock.advance(INTERVAL / 2);
        engine.submit(Commit::one(put("b", &round.to_string()))).unwrap();
        clock.advance(INTERVAL / 2);
        // Late, but it succeeds: nothing is refused.
        engine.submit(Commit::one(put("c", &round.to_string()))).unwrap();
        engine.tick().unwrap();
    }
    probe.fail_next(Fault::Image);
    assert!(engine.tick().is_ok(), "nothing is to be written");
    clock.advance(INTERVAL * 5);
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    assert!(matches!(engine.tick(), Err(Error::NoSpace { .. })));
    engine.submit(Commit::one(put("a", "2"))).unwrap();
    clock.advance(INTERVAL);
    assert!(is_full(&engine.submit(Commit::one(put("a", "3")))));
}

/// An image contains the commits before its begin, and none that were made beside it.
#[test]
fn the_age_of_what_was_committed_beside_an_image_counts_from_its_begin() {
    let (engine, probe, clock) = lazy();
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    clock.advance(INTERVAL / 2);
    thread::scope(|scope| {
        let image = probe.hold_images();
        let tick = scope.spawn(|| engine.tick());
        while probe.images() == 0 {
            thread::yield_now();
        }
        engine.submit(Commit::one(put("b", "1"))).unwrap();
        clock.advance(INTERVAL / 2);
        drop(image);
        tick.join().unwrap().unwrap();
    });
    assert_eq!(probe.disk().durable, 1);
    probe.fail_next(Fault::Image);
    assert!(matches!(engine.tick(), Err(Error::NoSpace { .. })));
    engine.submit(Commit::one(put("c", "1"))).unwrap();
    clock.advance(INTERVAL / 2);
    assert!(is_full(&engine.submit(Commit::one(put("d", "1")))));
}

#[test]
fn a_removal_makes_room_for_the_image_that_is_overdue() {
    let (engine, probe, clock) = lazy();
    engine.submit(batch(vec![put("a", "1"), put("b", "1")])).unwrap();
    probe.fail_next(Fault::Image);
    clock.advance(INTERVAL);
    assert!(matches!(engine.tick(), Err(Error::NoSpace { .. })));
    // The commit is tried, and gets the error of its own image.
    assert!(is_full(&engine.submit(Commit::one(remove("a")))));
    assert_eq!(memory(&engine).len(), 2, "a removal that failed is not visible");
    probe.heal();
    assert!(is_full(&engine.submit(Commit::one(put("c", "1")))));
    assert!(is_done(&engine.submit(Commit::one(remove("a")))));
    let expected = BTreeMap::from([(b"b".to_vec(), b"1".to_vec())]);
    assert_eq!((memory(&engine), probe.disk().durable_state()), (expected.clone(), expected));
    assert_eq!(engine.stats().image_error, None);
    engine.submit(Commit::one(put("c", "1"))).unwrap();
}

/// A set that entered before the image was overdue is refused by the leader; the removals after it
/// are made once, in the group of the removal before it.
#[test]
fn a_set_that_is_refused_in_the_group_does_not_send_the_others_back_to_the_queue() {
    let (engine, probe, clock) = lazy();
    engine.submit(batch(["a", "b", "c"].map(|key| put(key, "1")).into())).unwrap();
    probe.fail_next(Fault::Image);
    clock.advance(INTERVAL.saturating_sub(Duration::from_secs(1)));
    assert!(matches!(engine.tick(), Err(Error::NoSpace { .. })));
    probe.heal();
    let commits = [remove("a"), put("refused", "1"), remove("b"), put("refused", "2"), remove("c")];
    let overdue = || clock.advance(Duration::from_secs(1));
    let outcomes = together_until(&engine, &probe, commits.map(Commit::one).into(), overdue);
    for (at, number) in [(0, 3), (2, 4), (4, 5)] {
        let Ok(Outcome::Done { seq, removed: 1, .. }) = outcomes[at] else {
            panic!("{at}: {:?}", outcomes[at]);
        };
        assert_eq!(seq, Some(number), "{at}");
    }
    assert!(is_full(&outcomes[1]) && is_full(&outcomes[3]), "{outcomes:?}");
    assert_eq!(probe.disk().groups, [1, 1, 3]);
    let expected = BTreeMap::from([(b"first".to_vec(), b"1".to_vec())]);
    assert_eq!((memory(&engine), probe.disk().durable_state()), (expected.clone(), expected));
}

#[test]
fn an_interval_without_end_syncs_at_a_flush_and_ends_at_the_close() {
    for form in [Form::Wal, Form::Snapshot] {
        let clock = Arc::new(LateClock::default());
        let (engine, probe) =
            engine_at(form, Durability::Interval(Duration::MAX), clock.clone(), true);
        engine.submit(Commit::one(put("a", "1"))).unwrap();
        // Wait until the thread that syncs has computed the end of its interval.
        while clock.asked.load(Ordering::SeqCst) == 0 && engine.poisoned().is_none() {
            thread::yield_now();
        }
        assert_eq!(engine.poisoned(), None);
        assert_eq!(engine.flush().unwrap(), 1);
        assert_eq!(probe.disk().durable, 1);
        engine.submit(Commit::one(put("a", "2"))).unwrap();
        engine.close().unwrap();
        assert_eq!((probe.disk().durable, engine.poisoned()), (2, None));
    }
}

/// A clock that always shows one second after its zero, and counts the readings by the thread that
/// syncs.
#[derive(Debug, Default)]
struct LateClock {
    asked: AtomicUsize,
}

impl Clock for LateClock {
    fn now_us(&self) -> i64 {
        0
    }

    fn monotonic(&self) -> Duration {
        let is_sync = thread::current().name() == Some("codexdb-sync");
        self.asked.fetch_add(usize::from(is_sync), Ordering::SeqCst);
        Duration::from_secs(1)
    }

    fn sleep(&self, _duration: Duration) {}
}

fn pop(lower: &str, end: End) -> Change {
    Change::Pop(None, Bound::Included(lower.as_bytes().into()), Bound::Unbounded, end)
}

#[test]
fn members_of_a_group_that_pop_get_different_entries_in_order() {
    let (engine, probe) = wal();
    engine.submit(batch(["b", "c", "d", "e"].map(|key| put(key, key)).into())).unwrap();
    let commits = vec![
        Commit::one(pop("b", End::First)),
        Commit::one(pop("b", End::First)),
        // An entry that an earlier member put is popped, too, and one that it removed is not.
        Commit::one(put("bb", "bb")),
        Commit::one(remove("e")),
        batch(vec![put("aa", "aa"), pop("b", End::First), pop("b", End::Last)]),
        Commit::one(pop("aa", End::Last)),
        Commit::one(Change::Clear(None)),
        Commit::one(pop("a", End::First)),
        Commit::one(put("z", "z")),
        Commit::one(pop("a", End::Last)),
    ];
    let outcomes = together(&engine, &probe, commits);
    let popped: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(Outcome::Done { previous, removed, .. }) => {
                let text = |entry: &Entry| String::from_utf8(entry.value().to_vec()).unwrap();
                (previous.as_ref().map_or(String::new(), text), *removed)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        ("b", 1),
        ("c", 1),
        ("", 0),
        ("e", 1),
        ("1", 2),
        ("d", 1),
        ("", 1),
        ("", 0),
        ("", 0),
        ("z", 1),
    ];
    assert_eq!(popped, expected.map(|(value, removed)| (value.to_owned(), removed)));
    assert_eq!(memory(&engine), BTreeMap::new());
    assert_eq!(memory(&engine), probe.disk().durable_state());
}

/// Returns an engine of each form at a level at which commits are not synced.
fn below_sync() -> [(Form, Arc<Owner>, Probe); 3] {
    let interval = Durability::Interval(Duration::from_secs(3_600));
    [(Form::Wal, Durability::Os), (Form::Ledger, interval), (Form::Snapshot, interval)].map(
        |(form, level)| {
            let (engine, probe) = engine(form, level, false);
            (form, engine, probe)
        },
    )
}

#[test]
fn a_commit_that_is_synced_at_a_lower_level_is_durable_before_it_is_visible() {
    for (form, engine, probe) in below_sync() {
        engine.submit(Commit::one(put("a", "1"))).unwrap();
        assert_eq!(probe.disk().durable, 0, "{form}");
        thread::scope(|scope| {
            let held = (form != Form::Snapshot).then(|| probe.hold_syncs());
            let synced = scope.spawn(|| engine.submit_synced(Commit::one(put("b", "2"))).unwrap());
            if held.is_some() {
                while probe.syncs() == 0 {
                    thread::yield_now();
                }
                assert_eq!(value(&engine, "b"), None, "{form}: visible before it is durable");
            }
            drop(held);
            synced.join().unwrap();
        });
        assert_eq!(memory(&engine).len(), 2, "{form}");
        assert_eq!(memory(&engine), probe.disk().durable_state(), "{form}");
        // The next commit is not synced.
        engine.submit(Commit::one(put("c", "3"))).unwrap();
        assert_eq!(probe.disk().durable, 2, "{form}");
        // A commit that writes nothing may rest on it.
        engine.submit_synced(Commit::one(remove("none"))).unwrap();
        assert_eq!(probe.disk().durable, 3, "{form}");
    }
}

#[test]
fn a_commit_whose_own_sync_fails_is_in_doubt_and_not_visible() {
    for (form, engine, probe) in below_sync() {
        engine.submit(Commit::one(put("a", "1"))).unwrap();
        probe.fail_next(if form == Form::Snapshot { Fault::Sync } else { Fault::Background });
        let error = engine.submit_synced(Commit::one(put("b", "2"))).unwrap_err();
        assert!(matches!(error, Error::InDoubt { .. }), "{form}: {error}");
        assert_eq!(memory(&engine).into_keys().collect::<Vec<_>>(), [b"a"], "{form}");
        let refused = engine.submit(Commit::one(put("c", "3"))).unwrap_err();
        assert!(matches!(refused, Error::Poisoned { .. }), "{form}: {refused}");
    }
}

#[test]
fn without_a_sync_a_thread_leads_for_those_that_wait_and_at_sync_it_hands_over() {
    let groups = |form, level| {
        let (engine, probe) = engine(form, level, false);
        let commits = (0..4).map(|n| Commit::one(put(&n.to_string(), "1"))).collect();
        assert!(together(&engine, &probe, commits).iter().all(is_done));
        let leaders = probe.disk().leaders.clone();
        assert_eq!(leaders.len(), 2, "a group of the first, and one of the four");
        leaders
    };
    let lazy = groups(Form::Wal, Durability::Os);
    assert_eq!(lazy[0], lazy[1], "one thread has led both");
    let images = groups(Form::Snapshot, Durability::Sync);
    assert_ne!(images[0], images[1], "a form of images hands over");
}

#[test]
fn members_of_a_group_share_the_sync_that_one_of_them_asks_for() {
    let (engine, probe) = engine(Form::Wal, Durability::Os, false);
    let synced = || Commit { sync: true, ..Commit::one(put("synced", "1")) };
    let commits = vec![Commit::one(put("a", "1")), synced(), synced(), Commit::one(put("b", "1"))];
    let outcomes = together(&engine, &probe, commits);
    assert!(outcomes.iter().all(is_done));
    assert_eq!(probe.syncs(), 1);
    assert_eq!(memory(&engine), probe.disk().durable_state());
}

#[test]
fn a_synced_commit_of_an_image_waits_for_the_image_that_is_being_written() {
    let [.., (_, engine, probe)] = below_sync();
    engine.submit(Commit::one(put("a", "1"))).unwrap();
    thread::scope(|scope| {
        let held = probe.hold_images();
        let checkpoint = scope.spawn(|| engine.checkpoint().unwrap());
        while probe.images() == 0 {
            thread::yield_now();
        }
        let synced = scope.spawn(|| engine.submit_synced(Commit::one(put("b", "2"))).unwrap());
        // Other commits do not wait.
        engine.submit(Commit::one(put("c", "3"))).unwrap();
        drop(held);
        checkpoint.join().unwrap();
        synced.join().unwrap();
    });
    assert_eq!(memory(&engine).len(), 3);
    assert_eq!(memory(&engine), probe.disk().durable_state());
}
